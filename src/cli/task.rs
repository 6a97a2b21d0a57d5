//! `qworker task`: what a task asks of the worker that runs it. Reads no settings.

use super::call::text_of;
use super::exit::{Error, Exit};
use super::output::ToUser;
use super::sending::{INSTANT, expiry};
use crate::client::task::{Fault, Session};
use crate::clock;
use crate::config::forms::{CompressionName, SerializerName};
use crate::config::kind;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

#[derive(Debug, clap::Subcommand)]
pub(super) enum TaskCommand {
    /// Print the complete request as one line of JSON: arguments, headers, properties, what is to
    /// follow, delivery
    Request,
    /// Set a state of its own, which clients see until the task has ended
    UpdateState {
        /// Its name, such as UPLOADING
        state: String,
        /// What belongs to it, JSON; @FILE reads it from a file, @- from standard input
        #[arg(short, long, value_name = "JSON", default_value = "null")]
        meta: String,
    },
    /// Set the state PROGRESS with {"current": DONE, "total": TOTAL}
    Progress {
        /// How much is done, a number
        #[arg(value_parser = number)]
        done: serde_json::Number,
        /// How much there is, a number
        #[arg(value_parser = number)]
        total: serde_json::Number,
    },
    /// Run the task again later; exit after this
    Retry {
        /// After so long: seconds, or words such as 5m [default: the delay of the task]
        #[arg(long, value_name = "SECONDS", allow_negative_numbers = true, value_parser = kind::from_text::<kind::Countdown>)]
        countdown: Option<f64>,
        /// Allow so many retries [default: those of the task]
        #[arg(long, value_name = "N")]
        max_retries: Option<u32>,
    },
    /// Refuse the message: the task fails, and the message is kept with the dead letters; exit
    /// after this
    Reject {
        /// Give it back to its queue instead
        #[arg(long)]
        requeue: bool,
    },
    /// Store no result and call nothing; exit after this
    Ignore,
    /// Fail with this exception, which Python programs raise again; exit after this
    Fail {
        /// Its class, such as ValueError
        #[arg(long = "type", value_name = "NAME")]
        class: String,
        /// Its message
        #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
        message: String,
        /// The Python module of the class [default: builtins]
        #[arg(long, value_name = "NAME")]
        module: Option<String>,
    },
    /// Let another task, or a chain, group or chord, take the place of this one; exit after this
    Replace {
        /// Celery's signature, JSON; @FILE reads it from a file, @- from standard input
        signature: String,
    },
    /// Send a task as a child of this one, and print its id
    Call(Box<Call>),
}

#[derive(Debug, clap::Args)]
pub(super) struct Call {
    /// The task's name
    #[arg(value_parser = kind::from_text::<kind::TaskName>)]
    name: String,
    /// Positional arguments, a JSON array; @FILE reads it from a file, @- from standard input
    #[arg(short, long, value_name = "JSON", default_value = "[]")]
    args: String,
    /// Keyword arguments, a JSON object; @FILE and @- as above
    #[arg(short, long, value_name = "JSON", default_value = "{}")]
    kwargs: String,
    /// Not before this time, ISO 8601
    #[arg(long, value_name = "TIME", conflicts_with = "countdown")]
    eta: Option<String>,
    /// Not before so long has passed: seconds, or words such as 5m
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true, value_parser = kind::from_text::<kind::Countdown>)]
    countdown: Option<f64>,
    /// Not after this time: ISO 8601, or so long from now as above
    #[arg(long, value_name = "TIME", allow_negative_numbers = true)]
    expires: Option<String>,
    /// Queue [default: the task's]
    #[arg(long, value_parser = kind::from_text::<kind::Queue>)]
    queue: Option<String>,
    /// Priority, 0 to 9; higher is served first [default: the broker's]
    #[arg(long, value_parser = kind::from_text::<kind::Priority>)]
    priority: Option<u8>,
    /// Serializer of the message [default: task_serializer of the worker]
    #[arg(long, value_name = "NAME", value_parser = kind::from_text::<SerializerName>)]
    serializer: Option<String>,
    /// Compression of the message [default: task_compression of the worker]
    #[arg(long, value_name = "NAME", value_parser = kind::from_text::<CompressionName>)]
    compression: Option<String>,
    /// Id of the task [default: a new UUID]
    #[arg(long, value_name = "ID", value_parser = kind::from_text::<kind::TaskId>)]
    task_id: Option<String>,
    /// Send it although tasks.d does not define it: other workers do
    #[arg(long)]
    unregistered: bool,
}

/// A number as JSON has it: no digit is lost.
fn number(text: &str) -> Result<serde_json::Number, String> {
    serde_json::from_str(text).map_err(|_| "expected a number, such as 3 or 0.5".into())
}

pub(super) fn run(what: TaskCommand, out: ToUser) -> Result<Exit, Error> {
    let (method, params) = request(&what)?;
    let mut session = open()?;
    let result = session.ask(method, &params).map_err(refused)?;
    match what {
        TaskCommand::Request => out.data(result.get()),
        TaskCommand::Call(_) => {
            let result: Value = serde_json::from_str(result.get()).unwrap_or_default();
            out.hand_over(result["id"].as_str().unwrap_or_default());
        }
        _ => {}
    }
    Ok(Exit::Ok)
}

/// The name of a request, and its parameters.
fn request(what: &TaskCommand) -> Result<(&'static str, String), Error> {
    Ok(match what {
        TaskCommand::Request => ("request", "{}".into()),
        TaskCommand::UpdateState { state, meta } => {
            let meta = text_of("--meta", meta)?;
            let meta: Box<RawValue> = serde_json::from_str(&meta).map_err(|error| {
                Error::usage(format!("--meta: expected JSON like '{{\"step\": 2}}': {error}"))
            })?;
            ("update-state", format!(r#"{{"state": {}, "meta": {}}}"#, json!(state), meta.get()))
        }
        TaskCommand::Progress { done, total } => {
            ("progress", json!({"done": done, "total": total}).to_string())
        }
        TaskCommand::Retry { countdown, max_retries } => {
            ("retry", json!({"countdown": countdown, "max_retries": max_retries}).to_string())
        }
        TaskCommand::Reject { requeue } => ("reject", json!({ "requeue": requeue }).to_string()),
        TaskCommand::Ignore => ("ignore", "{}".into()),
        TaskCommand::Fail { class, message, module } => {
            ("fail", json!({"type": class, "message": message, "module": module}).to_string())
        }
        TaskCommand::Replace { signature } => {
            let text = text_of("SIGNATURE", signature)?;
            let signature: Box<RawValue> = serde_json::from_str(&text).map_err(|error| {
                let expected = "expected JSON like '{\"task\": \"add\", \"args\": [2, 3]}'";
                Error::usage(format!("SIGNATURE: {expected}: {error}"))
            })?;
            ("replace", format!(r#"{{"signature": {}}}"#, signature.get()))
        }
        TaskCommand::Call(call) => ("call", call.params()?),
    })
}

impl Call {
    fn params(&self) -> Result<String, Error> {
        let mut options = Map::new();
        let mut set = |name: &str, value: Option<Value>| {
            options.extend(value.map(|value| (name.to_string(), value)));
        };
        let instant = |option: &str, text: &String| {
            let now = clock::now();
            let read = match option {
                "--eta" => clock::parse(text),
                _ => expiry(text, now),
            };
            let wrong = || Error::usage(format!("{option} {text}: expected {INSTANT}"));
            read.map(|at| json!(clock::iso(at))).ok_or_else(wrong)
        };
        set("eta", self.eta.as_ref().map(|text| instant("--eta", text)).transpose()?);
        set("countdown", self.countdown.map(|seconds| json!(seconds)));
        set("expires", self.expires.as_ref().map(|text| instant("--expires", text)).transpose()?);
        set("queue", self.queue.as_ref().map(|queue| json!(queue)));
        set("serializer", self.serializer.as_ref().map(|name| json!(name)));
        set("compression", self.compression.as_ref().map(|name| json!(name)));
        set("task_id", self.task_id.as_ref().map(|id| json!(id)));
        let (positional, keywords) = super::call::read_arguments(&self.args, &self.kwargs)?;
        let (args, kwargs) =
            (crate::wire::body::array(&positional), crate::wire::body::object(&keywords));
        Ok(format!(
            r#"{{"signature": {{"task": {}, "args": {args}, "kwargs": {kwargs}, "options": {}}}, "unregistered": {}, "priority": {}}}"#,
            json!(self.name),
            Value::Object(options),
            self.unregistered,
            json!(self.priority)
        ))
    }
}

/// Connects to the worker that runs this task.
fn open() -> Result<Session, Error> {
    let given = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
    let (address, token) = (given("QWORKER_TASK_SOCKET"), given("QWORKER_TASK_TOKEN"));
    let Some((address, token)) = address.zip(token) else {
        let text = "QWORKER_TASK_SOCKET and QWORKER_TASK_TOKEN are not set: no worker runs this";
        return Err(Error::usage(text).hint("a worker sets them for the processes of its tasks"));
    };
    Session::open(&address, &token).map_err(refused)
}

fn refused(fault: Fault) -> Error {
    match &fault {
        Fault::Refused(code, _) if ["invalid", "malformed"].contains(&code.as_str()) => {
            Error::usage(fault.to_string())
        }
        _ => Error::unavailable(fault.to_string()),
    }
}
