//! `qworker check`: everything that is wrong with an application, its schedule too, in one run. What may
//! be right on another machine, or is a matter of care, is a warning.

use super::app::{App, GlobalOptions};
use super::exit::{Error, Exit};
use super::output::ToUser;
use super::{beat, inspect, unread_files, variables};
use crate::config::Diagnostic;
use crate::config::diagnostic::Weight;
use crate::link::error::StoreErrorKind;
use crate::link::sqlite::Access;
use crate::task::set::Set;

#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn run(_: &Args, global: &GlobalOptions, out: ToUser) -> Result<Exit, Error> {
    let app = App::examine(global, &[])?;
    let (tasks, mut faults) = app.examine_tasks();
    App::seen(&faults)?;
    faults.splice(0..0, app.faults.iter().cloned());
    faults.extend(addresses(&app));
    let mut warnings = variables::unread();
    for task in tasks.iter() {
        let found = inspect::task(&app, task);
        faults.extend(found.errors);
        warnings.extend(found.warnings);
    }
    app.tell_notes(&out);
    unread_files::find(&app.folder).iter().for_each(|note| out.say(&format!("Note: {note}")));
    let schedule = beat::check::examine(&app, &[], &tasks);
    faults.extend(schedule.faults);
    warnings.extend(schedule.notes.into_iter().filter(|note| note.weight == Weight::Warning));
    faults.extend(broker(&app, &tasks, &out));
    for fault in &faults {
        out.tell(&fault.to_string());
    }
    for warning in &warnings {
        out.tell(&format!("Warning: {warning}"));
    }
    let usable = match schedule.entries.len() {
        0 => count(tasks.len(), "task"),
        entries => format!("{} and {}", count(tasks.len(), "task"), count(entries, "entry")),
    };
    let warned = match warnings.len() {
        0 => String::new(),
        number => format!(" ({})", count(number, "warning")),
    };
    if faults.is_empty() {
        let folder = app.folder.display();
        out.tell(&format!("{folder}: no error in the settings and {usable}{warned}."));
        return Ok(Exit::Ok);
    }
    out.say(&format!("{} found{warned}; {usable} can be used.", count(faults.len(), "error")));
    Ok(Exit::Failure)
}

/// `1 entry`, `2 entries`.
fn count(number: usize, what: &str) -> String {
    match (number, what.strip_suffix('y')) {
        (1, _) => format!("1 {what}"),
        (_, Some(stem)) => format!("{number} {stem}ies"),
        (_, None) => format!("{number} {what}s"),
    }
}

/// What the broker refuses to a worker of these settings; what it only risks is said. One that
/// is not there may be when the worker comes.
fn broker(app: &App, tasks: &Set, out: &ToUser) -> Vec<Diagnostic> {
    let settings = &app.settings;
    let Ok(client) = app.client_to(Access::Look) else { return Vec::new() };
    let queues = app.queues(tasks);
    let origin = settings.origin("broker_url").to_string();
    let checks = match super::block_on(async { Ok(client.check_server(&queues).await) }) {
        Ok(Ok(checks)) => checks,
        // A password is wrong whenever the worker comes.
        Ok(Err(error))
            if matches!(error.kind(), StoreErrorKind::Other | StoreErrorKind::Forbidden) =>
        {
            let fault = Diagnostic::new(&origin, None, error.to_string());
            return vec![fault.of_key("broker_url")];
        }
        Ok(Err(error)) => {
            out.say(&format!("The broker was not asked: {error}"));
            return Vec::new();
        }
        Err(_) => return Vec::new(),
    };
    checks.warnings.iter().for_each(|warning| out.say(&format!("Warning: {warning}")));
    let refused = checks.refused.join(", ");
    let fault = (!refused.is_empty()).then(|| {
        let text =
            format!("{}: this user lacks permissions that a worker needs: {refused}", app.broker());
        Diagnostic::new(&origin, None, text).of_key("broker_url")
    });
    fault.into_iter().collect()
}

/// Addresses that are well-formed, but of no store that there is.
fn addresses(app: &App) -> Vec<Diagnostic> {
    let settings = &app.settings;
    let broker = settings.broker_url.broker(&app.folder).err();
    let backend = settings.result_backend.as_ref().map(|url| url.backend(&app.folder).err());
    let wrong = [("broker_url", broker), ("result_backend", backend.flatten())];
    let wrong = wrong.into_iter().filter_map(|(name, error)| Some((name, error?)));
    wrong
        .map(|(name, error)| {
            Diagnostic::new(&settings.origin(name).to_string(), None, error.to_string())
                .of_key(name)
        })
        .collect()
}
