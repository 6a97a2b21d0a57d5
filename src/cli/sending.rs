//! What all tasks that one `qworker call` sends have in common: the name and where it leads,
//! and the options that a line of a batch may override.

use super::app::App;
use super::exit::Error;
use super::utf8;
use crate::broker::{Posting, PriorityRule, Producer};
use crate::client::send::{self, Sender};
use crate::clock;
use crate::config::forms::{CompressionName, SerializerName};
use crate::config::{Diagnostic, kind};
use crate::os;
use crate::task::set::Set;
use crate::task::{Task, bind};
use crate::wire::value::raw;
use crate::wire::{Compression, Draft, EncodeError, ExchangeRoute, Serializer};
use chrono::{DateTime, Utc};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::env::VarError;
use std::sync::Arc;
use std::time::Duration;

#[derive(Debug, clap::Args)]
pub(super) struct SendOptions {
    /// Earliest start, ISO 8601
    #[arg(long, value_name = "TIME", conflicts_with = "countdown", env = "QWORKER_CALL_ETA")]
    eta: Option<String>,
    /// Earliest start from now: seconds, or a duration such as 5m
    #[arg(
        long,
        value_name = "SECONDS",
        env = "QWORKER_CALL_COUNTDOWN",
        allow_negative_numbers = true,
        value_parser = kind::from_text::<kind::Countdown>
    )]
    countdown: Option<f64>,
    /// Latest start: ISO 8601, or a duration from now
    #[arg(long, value_name = "TIME", env = "QWORKER_CALL_EXPIRES", allow_negative_numbers = true)]
    expires: Option<String>,
    /// Queue [default: the task's]
    #[arg(long, env = "QWORKER_CALL_QUEUE", value_parser = kind::from_text::<kind::Queue>)]
    queue: Option<String>,
    /// Send a copy to each queue that is bound to this exchange for the routing key
    #[arg(
        long,
        value_name = "NAME",
        env = "QWORKER_CALL_EXCHANGE",
        conflicts_with = "queue",
        requires = "routing_key",
        value_parser = named
    )]
    exchange: Option<String>,
    /// Routing key by which the exchange selects queues
    #[arg(
        long,
        value_name = "KEY",
        env = "QWORKER_CALL_ROUTING_KEY",
        requires = "exchange",
        value_parser = named
    )]
    routing_key: Option<String>,
    /// Priority, 0 to 9; higher is served first [default: the task's]
    #[arg(long, env = "QWORKER_CALL_PRIORITY", value_parser = kind::from_text::<kind::Priority>)]
    priority: Option<u8>,
    /// Serializer of the message: json, yaml, msgpack, pickle or auth [default: task_serializer]
    #[arg(long, value_name = "NAME", env = "QWORKER_CALL_SERIALIZER", value_parser = kind::from_text::<SerializerName>)]
    serializer: Option<String>,
    /// Compression of the message: gzip, bzip2, xz, brotli or zstd [default: task_compression]
    #[arg(long, value_name = "NAME", env = "QWORKER_CALL_COMPRESSION", value_parser = kind::from_text::<CompressionName>)]
    compression: Option<String>,
    /// Send a task that tasks.d does not define, for other workers
    #[arg(long, env = "QWORKER_CALL_UNREGISTERED", value_parser = super::truth())]
    unregistered: bool,
}

impl SendOptions {
    /// Does it send tasks that tasks.d does not define?
    pub(super) fn unregistered(&self) -> bool {
        self.unregistered
    }

    /// The options of a call, as Celery's `apply_async` names them; a priority as the broker counts.
    ///
    /// # Errors
    /// An option is invalid.
    pub(super) fn of_signature(
        &self,
        priorities: PriorityRule,
        now: DateTime<Utc>,
    ) -> Result<Vec<(String, Box<RawValue>)>, Error> {
        let mut options = Vec::new();
        let mut add = |name: &str, value: Value| options.push((name.to_string(), raw(&value)));
        if let Some(queue) = &self.queue {
            add("queue", json!(queue));
        }
        if let Some(seconds) = self.countdown {
            add("countdown", json!(seconds));
        }
        if let Some(eta) = self.eta(now)?.filter(|_| self.countdown.is_none()) {
            add("eta", json!(clock::iso(eta)));
        }
        if let Some(expires) = self.expires(now)? {
            add("expires", json!(clock::iso(expires)));
        }
        if let Some(priority) = self.priority {
            add("priority", json!(priorities.number(Some(priority))));
        }
        for (name, form) in [("serializer", &self.serializer), ("compression", &self.compression)] {
            if let Some(form) = form {
                add(name, json!(form));
            }
        }
        Ok(options)
    }

    fn eta(&self, now: DateTime<Utc>) -> Result<Option<DateTime<Utc>>, Error> {
        Ok(match (&self.countdown, &self.eta) {
            (Some(seconds), _) => Some(after(now, *seconds)),
            (None, Some(text)) => Some(
                clock::parse(text)
                    .ok_or_else(|| Error::usage(format!("--eta {text}: expected {INSTANT}")))?,
            ),
            (None, None) => None,
        })
    }

    fn expires(&self, now: DateTime<Utc>) -> Result<Option<DateTime<Utc>>, Error> {
        let read = |text: &String| {
            expiry(text, now).ok_or_else(|| {
                Error::usage(format!("--expires {text}: expected seconds, or {INSTANT}"))
            })
        };
        self.expires.as_ref().map(read).transpose()
    }
}

/// Celery sends to the default queue when either is empty, whatever the other says.
fn named(text: &str) -> Result<String, String> {
    let refused = "expected a name; the exchange without one leads to the queue that --queue names";
    if text.is_empty() { Err(refused.into()) } else { kind::from_text::<kind::Word>(text) }
}

/// See the module.
pub(super) struct Sending {
    /// Through which exchange, if not straight to a queue.
    pub(super) route: Option<ExchangeRoute>,
    /// The broker has to accept what is sent at once within this time.
    pub(super) deadline: Duration,
    options: SendOptions,
    task: Option<Arc<Task>>,
    /// All but what depends on the time.
    common: Draft,
    sender: Sender,
}

impl Sending {
    /// What is sent to the task `name`.
    ///
    /// # Errors
    /// Neither `tasks.d` defines it, nor do the options say that others do.
    pub(super) fn new(name: &str, options: SendOptions, app: &App) -> Result<Sending, Error> {
        let (tasks, faults) = app.examine_tasks();
        let task = tasks.get(name).cloned();
        if task.is_none() && !options.unregistered {
            App::seen(&faults)?;
            return Err(unknown(name, &tasks, &faults));
        }
        let (parent_id, root_id) = caller()?;
        let route = options.exchange.clone().zip(options.routing_key.clone());
        let route = route.map(|(exchange, routing_key)| ExchangeRoute { exchange, routing_key });
        let common = Draft {
            task: name.into(),
            queue: options.queue.clone().unwrap_or_else(|| app.queue_of(name, task.as_deref())),
            route: route.clone(),
            priority: options.priority.or_else(|| app.priority_of(name, task.as_deref())),
            serializer: options.serializer.as_deref().and_then(Serializer::named),
            compression: options.compression.as_deref().and_then(Compression::named),
            // A task that calls another one is its parent.
            parent_id,
            root_id,
            ..Draft::default()
        };
        let deadline = app.settings.client_timeout;
        let sender = Sender::new(&os::host::name(), app.forms.messages.clone());
        Ok(Sending { route, deadline, options, task, common, sender })
    }

    /// One task, without arguments.
    ///
    /// # Errors
    /// An option is invalid.
    pub(super) fn draft(&self, now: DateTime<Utc>) -> Result<Draft, Error> {
        let (eta, expires) = (self.options.eta(now)?, self.options.expires(now)?);
        Ok(Draft { eta, expires, ..self.common.clone() })
    }

    /// Refuses arguments that the task would fail on: says so as Python would.
    pub(super) fn check(&self, draft: &Draft) -> Result<(), String> {
        let Some(task) = &self.task else { return Ok(()) };
        match bind::bind(&task.name, task.params.as_deref(), &draft.args, &draft.kwargs) {
            Ok(_) => Ok(()),
            Err(exception) => {
                let why = exception.exc_message.first().and_then(Value::as_str).unwrap_or_default();
                Err(format!("{}: {why}", exception.exc_type))
            }
        }
    }

    /// The queues that the exchange leads to; none without one.
    pub(super) async fn bound(&self, producer: &Producer) -> Result<Vec<String>, Error> {
        match &self.route {
            Some(route) => Ok(send::bound(producer, route, self.deadline).await?),
            None => Ok(Vec::new()),
        }
    }

    /// The messages of `draft`; all have the same task id.
    ///
    /// # Errors
    /// An argument has no form in the serializer.
    pub(super) fn postings(
        &self,
        producer: &Producer,
        bound: &[String],
        draft: Draft,
        now: DateTime<Utc>,
    ) -> Result<Vec<Posting>, EncodeError> {
        self.sender.postings(producer.abilities(), draft, bound, self.task.as_deref(), now)
    }
}

/// The ids of the task that this process belongs to, and of the first one of its workflow.
///
/// # Errors
/// A variable is no text.
pub(super) fn caller() -> Result<(Option<String>, Option<String>), Error> {
    let variable = |name| match std::env::var(name) {
        Ok(id) => Ok(Some(id).filter(|id| !id.is_empty())),
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(found)) => {
            Err(Error::usage(format!("{name}: found bytes {found:?}, expected {}", utf8::EXPECTED)))
        }
    };
    Ok((variable("QWORKER_TASK_ID")?, variable("QWORKER_TASK_ROOT_ID")?))
}

/// What to do about a task that nobody here defines.
pub(super) const UNREGISTERED: &str = "--unregistered sends it to workers that have it";

/// Why a task cannot be sent: it is defined and wrong, or nowhere, or nobody can say.
pub(super) fn unknown(name: &str, tasks: &Set, faults: &[Diagnostic]) -> Error {
    let others = UNREGISTERED;
    let of_it = |fault: &&Diagnostic| fault.costs.as_ref().is_some_and(|(task, _)| task == name);
    let wrong: Vec<&Diagnostic> = faults.iter().filter(of_it).collect();
    if let Some((_, place)) = wrong.first().and_then(|fault| fault.costs.as_ref()) {
        let lines: Vec<String> = wrong.iter().map(|fault| fault.to_string()).collect();
        let text = format!("task {name:?} is defined at {place}, but wrong:\n{}", lines.join("\n"));
        return Error::usage(text).hint("`qworker check` shows every mistake").hint(others);
    }
    let mut error = Error::usage(format!("no task {name:?} in tasks.d"));
    let nearest = tasks.nearest(name);
    if !nearest.is_empty() {
        error = error.hint(format!("did you mean {}?", nearest.join(" or ")));
    }
    // It may be in what nobody could read.
    let whole = faults.iter().filter(|fault| fault.costs.is_none());
    for fault in whole.take(UNREAD_SHOWN) {
        error = error.hint(format!("it may be in a file that cannot be read: {fault}"));
    }
    error.hint(others)
}

/// Files that cannot be read are named up to so many.
const UNREAD_SHOWN: usize = 3;

/// What a time has to look like.
pub(super) const INSTANT: &str = "ISO 8601 like 2026-11-20T17:30:00+01:00 (UTC without an offset)";

/// A time, or so long from now as a countdown says it.
pub(super) fn expiry(text: &str, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let seconds = kind::from_text::<kind::Countdown>(text).ok();
    seconds.map(|seconds| after(now, seconds)).or_else(|| clock::parse(text))
}

/// So many seconds from now, as a countdown has them: none is too long for the arithmetic.
pub(super) fn after(now: DateTime<Utc>, seconds: f64) -> DateTime<Utc> {
    now + chrono::TimeDelta::microseconds((seconds * 1e6) as i64)
}
