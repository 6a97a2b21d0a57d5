//! `qworker call`: send one task.

use super::app::{App, Global};
use super::exit::{Error, Exit};
use super::output::ToUser;
use super::result::{self, Form};
use crate::client::send::{self, Sender, Wish};
use crate::client::wait;
use crate::task::{Task, bind};
use crate::wire::message::parse_instant;
use crate::{clock, os};
use chrono::{DateTime, Utc};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::time::Duration;

/// The broker has to accept a message within this time.
const DEADLINE: Duration = Duration::from_secs(5);

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The task's name
    name: String,
    /// Positional arguments, a JSON array; @FILE reads it from a file, @- from standard input
    #[arg(short, long, value_name = "JSON", default_value = "[]", env = "QWORKER_CALL_ARGS")]
    args: String,
    /// Keyword arguments, a JSON object; @FILE and @- as above
    #[arg(short, long, value_name = "JSON", default_value = "{}", env = "QWORKER_CALL_KWARGS")]
    kwargs: String,
    /// Not before this time, ISO 8601
    #[arg(long, value_name = "TIME", conflicts_with = "countdown", env = "QWORKER_CALL_ETA")]
    eta: Option<String>,
    /// Not before so many seconds have passed
    #[arg(
        long,
        value_name = "SECONDS",
        env = "QWORKER_CALL_COUNTDOWN",
        allow_negative_numbers = true
    )]
    countdown: Option<f64>,
    /// Not after this time: ISO 8601, or seconds from now
    #[arg(long, value_name = "TIME", env = "QWORKER_CALL_EXPIRES", allow_negative_numbers = true)]
    expires: Option<String>,
    /// Queue [default: the task's]
    #[arg(long, env = "QWORKER_CALL_QUEUE")]
    queue: Option<String>,
    /// Priority, 0 to 9; higher is served first [default: the task's]
    #[arg(long, value_parser = clap::value_parser!(u8).range(0..=9), env = "QWORKER_CALL_PRIORITY")]
    priority: Option<u8>,
    /// Id of the task [default: a new UUID]
    #[arg(long, value_name = "ID", env = "QWORKER_CALL_TASK_ID")]
    task_id: Option<String>,
    /// Send it although tasks.d does not define it: other workers do
    #[arg(long, env = "QWORKER_CALL_UNREGISTERED", value_parser = super::truth())]
    unregistered: bool,
    /// Wait for the result and print it in place of the id
    #[arg(short, long, env = "QWORKER_CALL_WAIT", value_parser = super::truth())]
    wait: bool,
    /// Wait so many seconds at the most
    #[arg(long, value_name = "SECONDS", requires = "wait", env = "QWORKER_CALL_TIMEOUT", value_parser = super::span, allow_negative_numbers = true)]
    timeout: Option<Duration>,
    /// With --wait: print the whole result document as JSON
    #[arg(short, long, requires = "wait", env = "QWORKER_CALL_JSON", value_parser = super::truth())]
    json: bool,
}

pub(super) fn run(args: Args, global: &Global, out: ToUser) -> Result<Exit, Error> {
    let app = App::open(global, &[])?;
    let now = clock::now();
    let (positional, keywords) = arguments(&args)?;
    let (tasks, faults) = app.examine_tasks();
    let task = tasks.get(&args.name).cloned();
    if task.is_none() && !args.unregistered {
        // One of them may be why.
        faults.iter().for_each(|fault| out.say(&format!("Warning: {fault}")));
    }
    check(&args, task.as_deref(), &tasks, &positional, &keywords)?;
    let wish = Wish {
        queue: args.queue.clone().unwrap_or_else(|| app.queue_of(&args.name, task.as_deref())),
        priority: args.priority.or_else(|| app.priority_of(&args.name, task.as_deref())),
        eta: due(&args, now)?,
        expires: args.expires.as_deref().map(|text| expiry(text, now)).transpose()?,
        id: args.task_id.clone().unwrap_or_default(),
        // A task that calls another one is its parent.
        parent_id: std::env::var("QWORKER_TASK_ID").ok().filter(|id| !id.is_empty()),
        root_id: std::env::var("QWORKER_TASK_ROOT_ID").ok().filter(|id| !id.is_empty()),
        task: args.name.clone(),
        args: positional,
        kwargs: keywords,
    };
    let posting = Sender::new(&os::host::name()).posting(wish, task.as_deref(), now);
    let id = posting.task_id.clone();
    super::block_on(async {
        let client = app.client()?;
        send::send(&client.outlet, vec![posting], DEADLINE).await?;
        if !args.wait {
            out.print(&id);
            return Ok(Exit::Ok);
        }
        let Some(answer) = result::within(args.timeout, wait::until_ready(&client, &id)).await?
        else {
            out.say(&format!(
                "Task {id} is not ready after the given time; ask with `qworker result {id}`."
            ));
            return Ok(Exit::NotYet);
        };
        result::show(&id, answer, if args.json { Form::Json } else { Form::Value }, out)
    })
}

type Keywords = Vec<(String, Box<RawValue>)>;

/// The text of an option, or what the file that it names holds: the kernel takes no more than
/// 128 KiB as one argument.
fn text_of<'a>(option: &str, value: &'a str) -> Result<Cow<'a, str>, Error> {
    let Some(file) = value.strip_prefix('@') else { return Ok(value.into()) };
    let read = match file {
        "-" => std::io::read_to_string(std::io::stdin()),
        file => std::fs::read_to_string(file),
    };
    let name = if file == "-" { "standard input" } else { file };
    read.map(Cow::from).map_err(|error| Error::usage(format!("{option}: {name}: {error}")))
}

fn arguments(args: &Args) -> Result<(Vec<Box<RawValue>>, Keywords), Error> {
    if args.args == "@-" && args.kwargs == "@-" {
        return Err(Error::usage("--args and --kwargs cannot both be read from standard input"));
    }
    let text = text_of("--args", &args.args)?;
    let positional = serde_json::from_str(&text).map_err(|error| {
        Error::usage(format!("--args: expected a JSON array like '[2, 3]': {error}"))
    })?;
    // In the order they were typed.
    let text = text_of("--kwargs", &args.kwargs)?;
    let checked: Map<String, Value> = serde_json::from_str(&text).map_err(|error| {
        Error::usage(format!(
            "--kwargs: expected a JSON object like '{{\"path\": \"a.png\"}}': {error}"
        ))
    })?;
    let body = format!("[[], {text}, null]");
    let keywords = crate::wire::body::decode(&body)
        .map_err(|error| Error::usage(format!("--kwargs: {error}")))?;
    debug_assert!(checked.len() <= keywords.kwargs.len());
    Ok((positional, keywords.kwargs))
}

/// Refuses what would fail anyway: an unknown name, arguments that do not fit.
fn check(
    args: &Args,
    task: Option<&Task>,
    tasks: &crate::task::set::Set,
    positional: &[Box<RawValue>],
    keywords: &[(String, Box<RawValue>)],
) -> Result<(), Error> {
    let Some(task) = task else {
        if args.unregistered {
            return Ok(());
        }
        let mut error = Error::usage(format!("no task {:?} in tasks.d", args.name));
        let nearest = tasks.nearest(&args.name);
        if !nearest.is_empty() {
            error = error.hint(format!("did you mean {}?", nearest.join(" or ")));
        }
        return Err(error.hint("--unregistered sends it to workers that have it"));
    };
    match bind::bind(&task.name, task.params.as_deref(), positional, keywords) {
        Ok(_) => Ok(()),
        Err(exception) => {
            let why = exception.exc_message.first().and_then(Value::as_str).unwrap_or_default();
            Err(Error::usage(format!("{}: {why}", exception.exc_type)))
        }
    }
}

fn due(args: &Args, now: DateTime<Utc>) -> Result<Option<DateTime<Utc>>, Error> {
    if let Some(seconds) = args.countdown {
        return after(now, seconds)
            .map(Some)
            .ok_or_else(|| Error::usage(format!("--countdown {seconds}: expected seconds")));
    }
    let Some(text) = &args.eta else { return Ok(None) };
    match parse_instant(text) {
        Some(at) => Ok(Some(at)),
        None => Err(Error::usage(format!(
            "--eta {text}: expected ISO 8601 like 2026-11-20T17:30:00+01:00 (UTC without an offset)"
        ))),
    }
}

fn expiry(text: &str, now: DateTime<Utc>) -> Result<DateTime<Utc>, Error> {
    let seconds = text.parse().ok().and_then(|seconds| after(now, seconds));
    seconds.or_else(|| parse_instant(text)).ok_or_else(|| {
        Error::usage(format!(
            "--expires {text}: expected seconds, or ISO 8601 like 2026-11-20T17:30:00"
        ))
    })
}

fn after(now: DateTime<Utc>, seconds: f64) -> Option<DateTime<Utc>> {
    // A century is far enough, and keeps the arithmetic safe.
    (seconds.abs() < 3.2e9).then(|| now + chrono::TimeDelta::microseconds((seconds * 1e6) as i64))
}
