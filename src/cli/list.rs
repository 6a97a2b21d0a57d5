//! `qworker list`: the tasks of the application, the queues of the broker.

use super::app::{App, GlobalOptions};
use super::exit::{Error, Exit};
use super::output::ToUser;
use crate::link::sqlite::Access;
use crate::task::{Program, Task};
use serde_json::json;

#[derive(Debug, clap::Subcommand)]
pub(super) enum ListSubject {
    /// The tasks that tasks.d defines
    Tasks(Args),
    /// The queues of the broker, and how many messages they hold
    Queues(Args),
}

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print JSON
    #[arg(short, long, env = "QWORKER_LIST_JSON", value_parser = super::truth())]
    json: bool,
}

pub(super) fn run(what: ListSubject, global: &GlobalOptions, out: ToUser) -> Result<Exit, Error> {
    let app = App::open(global, &[])?;
    match what {
        ListSubject::Tasks(args) => tasks(&app, args.json, out),
        ListSubject::Queues(args) => queues(&app, args.json, out),
    }
}

fn tasks(app: &App, as_json: bool, out: ToUser) -> Result<Exit, Error> {
    let tasks = app.tasks(&out)?;
    if as_json {
        let all: Vec<_> = tasks
            .iter()
            .map(|task| {
                json!({
                    "name": task.name,
                    "kind": kind(task),
                    "params": params(task),
                    "queue": app.queue_of(&task.name, Some(task)),
                    "description": task.description,
                    "file": task.file,
                    "line": task.line,
                })
            })
            .collect();
        out.print(&serde_json::Value::from(all).to_string());
        return Ok(Exit::Ok);
    }
    let rows: Vec<Vec<String>> = tasks
        .iter()
        .map(|task| {
            vec![
                task.name.clone(),
                kind(task).to_string(),
                params(task).unwrap_or_else(|| "any".into()),
                app.queue_of(&task.name, Some(task)),
                task.description.clone().unwrap_or_default(),
            ]
        })
        .collect();
    out.table(
        &["Task", "Kind", "Arguments", "Queue", "Description"],
        &rows,
        "No tasks in tasks.d.",
    );
    Ok(Exit::Ok)
}

fn kind(task: &Task) -> &'static str {
    match task.program {
        Program::Shell(_) => "shell",
        Program::Exec(_) => "exec",
        Program::File(_) => "program",
        Program::Wasm { .. } => "wasm",
    }
}

/// `path, size=200x200`; `None` takes any.
fn params(task: &Task) -> Option<String> {
    let params = task.params.as_ref()?;
    let shown = params.iter().map(|param| match &param.default {
        Some(default) => format!("{}={}", param.name, default.get()),
        None => param.name.clone(),
    });
    Some(shown.collect::<Vec<_>>().join(", "))
}

fn queues(app: &App, as_json: bool, out: ToUser) -> Result<Exit, Error> {
    let queues =
        super::block_on(async { Ok(app.client_to(Access::Look)?.broker.admin().queues().await?) })?;
    if as_json {
        let all: Vec<_> = queues
            .iter()
            .map(|q| json!({"name": q.name, "ready": q.ready, "scheduled": q.scheduled, "held": q.held}))
            .collect();
        out.print(&serde_json::Value::from(all).to_string());
        return Ok(Exit::Ok);
    }
    for odd in queues.iter().filter_map(|queue| queue.odd.as_ref()) {
        out.say(&format!("Warning: {odd}; it is not counted"));
    }
    let rows: Vec<Vec<String>> = queues
        .into_iter()
        .map(|q| vec![q.name, q.ready.to_string(), q.scheduled.to_string(), q.held.to_string()])
        .collect();
    out.table(&["Queue", "Ready", "Scheduled", "Held"], &rows, "No queues: nothing was ever sent.");
    Ok(Exit::Ok)
}
