//! `qworker check`: everything that is wrong with an application, in one run.

use super::app::{App, Global};
use super::exit::{Error, Exit};
use super::output::ToUser;
use crate::config::Diagnostic;
use crate::task::Program;

#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn run(_: &Args, global: &Global, out: ToUser) -> Result<Exit, Error> {
    let app = App::examine(global, &[])?;
    let (tasks, mut faults) = app.examine_tasks();
    faults.splice(0..0, app.faults.iter().cloned());
    faults.extend(addresses(&app));
    for task in tasks.iter() {
        if let Program::Wasm { module, .. } = &task.program
            && let Err(why) = crate::runner::wasm::validate(module)
        {
            let file = task.file.display().to_string();
            let line = (task.line > 0).then_some(task.line);
            faults.push(
                Diagnostic::new(&file, line, format!("{}: {why}", module.display()))
                    .of_key(task.name.clone()),
            );
        }
    }
    app.tell_notes(&out);
    for fault in &faults {
        out.print(&fault.to_string());
    }
    let count = match tasks.iter().count() {
        1 => "1 task".to_string(),
        count => format!("{count} tasks"),
    };
    if faults.is_empty() {
        out.print(&format!("{}: no error in the settings and {count}.", app.folder.display()));
        return Ok(Exit::Ok);
    }
    let errors = faults.len();
    out.say(&format!(
        "{errors} {} found; {count} can be used.",
        if errors == 1 { "error" } else { "errors" }
    ));
    Ok(Exit::Failure)
}

/// Addresses that are well-formed, but of no store that there is.
fn addresses(app: &App) -> Vec<Diagnostic> {
    let settings = &app.settings;
    let urls = [
        ("broker_url", Some(&settings.broker_url)),
        ("result_backend", settings.result_backend.as_ref()),
    ];
    let wrong =
        urls.into_iter().filter_map(|(name, url)| Some((name, url?.open(&app.folder).err()?)));
    wrong
        .map(|(name, error)| {
            Diagnostic::new(&settings.origin(name).to_string(), None, error.to_string())
                .of_key(name)
        })
        .collect()
}
