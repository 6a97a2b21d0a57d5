//! `qworker beat check`: everything that is wrong with a schedule, in one run.

use super::files::{self, Read};
use crate::beat::{Destination, message};
use crate::cli::app::{App, GlobalOptions};
use crate::cli::exit::{Error, Exit};
use crate::cli::output::ToUser;
use crate::cli::variables;
use crate::config::Diagnostic;
use crate::config::diagnostic::Weight;
use crate::link::url::BackendUrl;
use crate::schedule::Schedule;
use crate::schedule::entry::{Entry, Overlap};
use crate::task::bind;
use crate::task::set::Set;
use chrono::DateTime;
use serde_json::{Value, json};
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The files [default: schedule.yaml and *.crontab in the application's folder]
    files: Vec<PathBuf>,
    /// Read this file as beat --entries does; may be repeated
    #[arg(long, value_name = "FILE", env = "QWORKER_BEAT_ENTRIES", value_delimiter = ',')]
    entries: Vec<PathBuf>,
    /// Print JSON
    #[arg(short, long, env = "QWORKER_BEAT_JSON", value_parser = crate::cli::truth())]
    json: bool,
}

/// The schedule of an application, with what is wrong in it by itself and with these tasks.
pub(in crate::cli) fn examine(app: &App, files: &[PathBuf], tasks: &Set) -> Read {
    let mut read = files::read_all(app, files);
    let keeps_results = !is_disabled(app);
    for entry in &read.entries {
        read.faults.extend(misfit(entry, tasks, keeps_results));
    }
    read
}

pub(super) fn run(args: &Args, global: &GlobalOptions, out: ToUser) -> Result<Exit, Error> {
    let app = App::examine(global, &[])?;
    let tasks = app.examine_tasks().0;
    let files: Vec<PathBuf> = args.files.iter().chain(&args.entries).cloned().collect();
    let read = examine(&app, &files, &tasks);
    let mut faults = app.faults.clone();
    faults.extend(read.faults.iter().cloned());
    app.tell_notes(&out);
    variables::warn(&out);
    read.notes.iter().for_each(|note| match note.weight {
        Weight::Warning => out.say(&format!("Warning: {note}")),
        _ => out.say(&format!("Note: {note}")),
    });
    for entry in &read.entries {
        if let Schedule::Cron(cron) = &entry.schedule
            && let Some(either) = cron.either_day()
        {
            let rule = match either {
                true => "one of them is enough, as cron has it",
                false => "both must hold, as Celery has it",
            };
            let Entry { name, origin, .. } = &**entry;
            out.say(&format!(
                "Note: {}:{}: {name}: days of the month and days of the week: {rule} (beat_days)",
                origin.file, origin.line
            ));
        }
    }
    let strangers = read.entries.iter().filter(|entry| tasks.get(&entry.task).is_none());
    for entry in strangers {
        let Entry { name, task, origin, .. } = &**entry;
        out.say(&format!(
            "Note: {}:{}: {name}: no task {task:?} in tasks.d: other workers have to have it",
            origin.file, origin.line
        ));
    }
    if args.json {
        let all = faults.iter().map(|fault| {
            json!({
                "file": fault.file, "line": fault.line, "field": fault.key,
                "message": fault.message, "expected": fault.expected,
            })
        });
        let all: Value = all.collect();
        out.print(&json!({"entries": read.entries.len(), "errors": all}).to_string());
    } else {
        faults.iter().for_each(|fault| out.tell(&fault.to_string()));
        let count = match read.entries.len() {
            1 => "1 entry".to_string(),
            count => format!("{count} entries"),
        };
        match faults.len() {
            0 => out.print(&format!("No error in {count}.")),
            1 => out.say(&format!("1 error found; {count} can be used.")),
            errors => out.say(&format!("{errors} errors found; {count} can be used.")),
        }
    }
    Ok(if faults.is_empty() { Exit::Ok } else { Exit::Failure })
}

fn is_disabled(app: &App) -> bool {
    let backend = app.settings.result_backend.as_ref();
    backend.is_some_and(|url| matches!(url.backend(&app.folder), Ok(BackendUrl::Disabled)))
}

/// What is right by itself, and does not go with the task.
fn misfit(entry: &Entry, tasks: &Set, keeps_results: bool) -> Option<Diagnostic> {
    let fault = |field: &str, message: String| {
        let line = Some(entry.origin.line as usize).filter(|line| *line > 0);
        let fault = Diagnostic::new(&entry.origin.file, line, message);
        Some(fault.of_key(format!("{}.{field}", entry.name)))
    };
    let Some(task) = tasks.get(&entry.task) else {
        // Of other workers' tasks nothing is known but their results.
        let blind = entry.overlap != Overlap::Allow && !keeps_results;
        let why =
            "needs a result store: nothing else tells when the task of another worker is done";
        return blind.then(|| fault("overlap", why.into())).flatten();
    };
    let draft = message::draft(entry, None, &Destination::default(), DateTime::UNIX_EPOCH);
    match bind::bind(&task.name, task.params.as_deref(), &draft.args, &draft.kwargs) {
        Ok(_) => None,
        Err(exception) => {
            let why = exception.exc_message.first().and_then(Value::as_str).unwrap_or_default();
            fault("args", format!("{}: {why}", exception.exc_type))
        }
    }
}
