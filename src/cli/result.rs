//! `qworker result`: read a result, or wait for it.

use super::app::{App, GlobalOptions};
use super::exit::{Error, Exit};
use super::output::ToUser;
use super::wait::{self as waiting, WaitEnd};
use super::workflow;
use crate::broker::Whereabouts;
use crate::canvas::ResultTree;
use crate::canvas::graph::Graph;
use crate::client::Client;
use crate::client::wait::{self, TaskStatus};
use crate::clock;
use crate::config::kind;
use crate::link::sqlite::Access;
use crate::log::escape;
use crate::wire::exception::TIME_LIMIT_EXCEEDED;
use crate::wire::result::Meta;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::time::Duration;

/// Exit codes: 0 succeeded; 1 failed; 69 unknown id; 75 not ready yet
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Id of a task, or of a group that `qworker` or Python has saved
    #[arg(value_parser = kind::from_text::<kind::TaskId>)]
    id: String,
    /// Wait until the result is available
    #[arg(short, long, env = "QWORKER_RESULT_WAIT", value_parser = super::truth())]
    wait: bool,
    /// Wait at most this many seconds
    #[arg(long, value_name = "SECONDS", requires = "wait", env = "QWORKER_RESULT_TIMEOUT", value_parser = kind::from_text::<kind::Span>, allow_negative_numbers = true)]
    timeout: Option<Duration>,
    /// Print the traceback instead of the result
    #[arg(long, env = "QWORKER_RESULT_TRACEBACK", value_parser = super::truth())]
    traceback: bool,
    /// Print the whole result document as JSON
    #[arg(short, long, env = "QWORKER_RESULT_JSON", value_parser = super::truth())]
    json: bool,
}

pub(super) fn run(args: &Args, global: &GlobalOptions, out: ToUser) -> Result<Exit, Error> {
    let app = App::open(global, &[])?;
    super::block_on(async {
        let client = app.client_to(Access::Look)?;
        if let Some(exit) = of_group(args, &app, &client, out).await? {
            return Ok(exit);
        }
        let answer = if args.wait {
            match waiting::for_result(&app, &client, &args.id, (args.timeout, true), out).await? {
                WaitEnd::Answer(answer) => answer,
                WaitEnd::Left(exit) => return Ok(exit),
            }
        } else {
            wait::look(&client, &args.id).await?
        };
        let form = if args.json {
            OutputFormat::Json
        } else if args.traceback {
            OutputFormat::Traceback
        } else {
            OutputFormat::Value
        };
        show(&args.id, answer, form, out)
    })
}

/// The results of a group, if the id is that of a group that was saved.
async fn of_group(
    args: &Args,
    app: &App,
    client: &Client,
    out: ToUser,
) -> Result<Option<Exit>, Error> {
    if client.store.get(&args.id).await?.is_some() {
        return Ok(None);
    }
    let Some(record) = client.store.group(&args.id).await? else { return Ok(None) };
    let Some(tree) = ResultTree::read(&record.result) else { return Ok(None) };
    // A workflow that ends with one task is saved under the id of that.
    let is_task = tree.task_ids() == [record.id.clone()];
    if !is_task {
        let graph = record.graph.as_deref().and_then(Graph::read);
        let then = (args.wait, args.timeout, args.json);
        return workflow::of_group(app, client, &record.id, tree, graph, then, out).await.map(Some);
    }
    let is_unknown = matches!(wait::look(client, &args.id).await?, TaskStatus::Unknown);
    if args.wait || !is_unknown {
        return Ok(None);
    }
    let id = &args.id;
    if args.json {
        out.print(&json!({"status": "PENDING", "result": null, "task_id": id}).to_string());
    } else {
        out.say(&format!("PENDING: others of its workflow run; see `qworker graph {id}`"));
    }
    Ok(Some(Exit::NotYet))
}

/// How a result is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OutputFormat {
    /// Its value: texts as they are, anything else as JSON.
    Value,
    /// Its traceback.
    Traceback,
    /// Celery's result document.
    Json,
}

/// Prints what is known of a task; a failed one gives exit code 1.
pub(super) fn show(
    id: &str,
    answer: TaskStatus,
    form: OutputFormat,
    out: ToUser,
) -> Result<Exit, Error> {
    match answer {
        TaskStatus::Result(meta) => Ok(show_result(&meta, form, out)),
        TaskStatus::Pending(place) => {
            let (status, text) = describe(&place);
            if form == OutputFormat::Json {
                out.print(&json!({"status": status, "result": null, "task_id": id}).to_string());
            } else {
                out.say(&format!("{status}: {text}"));
            }
            Ok(if matches!(place, Whereabouts::Dead(_)) { Exit::Failure } else { Exit::NotYet })
        }
        TaskStatus::Unknown => {
            if form == OutputFormat::Json {
                out.print(&json!({"status": "UNKNOWN", "result": null, "task_id": id}).to_string());
            }
            Err(Error::unavailable(format!("unknown task id {}", escape::name(id))).hint(
                "it was never sent to this broker, or its result was ignored, or has expired",
            ))
        }
    }
}

/// Seconds since the epoch as people read a time.
pub(super) fn instant(seconds: &str) -> String {
    let at = seconds.parse().ok().and_then(clock::from_epoch);
    at.map_or_else(|| seconds.to_string(), clock::local)
}

fn describe(place: &Whereabouts) -> (&'static str, String) {
    match place {
        Whereabouts::Waiting { queue, eta: None } => ("PENDING", format!("waits in queue {queue}")),
        Whereabouts::Waiting { queue, eta: Some(eta) } => {
            let at = instant(eta);
            ("PENDING", format!("waits in queue {queue} until {at}"))
        }
        Whereabouts::Held { queue } => {
            ("PENDING", format!("a worker has taken it from queue {queue}"))
        }
        Whereabouts::Dead(number) => {
            ("DEAD", format!("in the dead-letter list; see `qworker dead show {number}`"))
        }
        Whereabouts::Untold => ("PENDING", "the broker cannot locate it".into()),
        Whereabouts::Absent => ("UNKNOWN", String::new()),
    }
}

fn show_result(meta: &Meta, form: OutputFormat, out: ToUser) -> Exit {
    let exit = match meta.status.as_str() {
        "SUCCESS" => Exit::Ok,
        _ if meta.is_ready() => Exit::Failure,
        _ => Exit::NotYet,
    };
    match form {
        OutputFormat::Json => out.print(&meta.document()),
        OutputFormat::Traceback => out.data(meta.traceback.as_deref().unwrap_or_default()),
        OutputFormat::Value if exit == Exit::Ok => out.data(&plain(&meta.result)),
        OutputFormat::Value if exit == Exit::NotYet => {
            out.say(&format!("{}: not ready yet", meta.status))
        }
        OutputFormat::Value => {
            out.say(&format!("{}: {}", meta.status, error_text(&meta.value())));
            if let Some(traceback) = &meta.traceback {
                out.say(traceback);
            }
        }
    }
    exit
}

/// A text as it is, anything else as JSON as it came.
fn plain(value: &RawValue) -> String {
    serde_json::from_str(value.get()).unwrap_or_else(|_| value.get().into())
}

/// An exception's document as Python prints the exception.
pub(super) fn error_text(result: &Value) -> String {
    let name = result["exc_type"].as_str().unwrap_or("error");
    if let ("CalledProcessError", [code, Value::String(command), ..]) =
        (name, result["exc_message"].as_array().map_or(&[][..], Vec::as_slice))
    {
        return format!("{name}: Command '{command}' returned non-zero exit status {code}.");
    }
    let none = Vec::new();
    let args = result["exc_message"].as_array().unwrap_or(&none);
    if let [Value::Number(errno), Value::String(text), Value::String(file)] = &args[..] {
        return format!("{name}: [Errno {errno}] {text}: '{file}'");
    }
    if let (TIME_LIMIT_EXCEEDED, [Value::Number(seconds)]) = (name, &args[..]) {
        return format!("{name}: {seconds}s");
    }
    let shown: Vec<String> = args
        .iter()
        .filter(|arg| !arg.is_null())
        .map(|arg| arg.as_str().map_or_else(|| arg.to_string(), str::to_string))
        .collect();
    if shown.is_empty() { name.into() } else { format!("{name}: {}", shown.join(", ")) }
}
