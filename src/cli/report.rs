//! `qworker report`: versions, and every setting with its origin, for bug reports.

use super::app::{App, GlobalOptions};
use super::exit::{Error, Exit};
use super::output::ToUser;
use super::zones::Zones;
use serde_json::{Map, json};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print JSON
    #[arg(short, long, env = "QWORKER_REPORT_JSON", value_parser = super::truth())]
    json: bool,
}

pub(super) fn run(args: &Args, global: &GlobalOptions, out: ToUser) -> Result<Exit, Error> {
    let app = App::examine(global, &[])?;
    let rows = app.settings.report();
    let platform = format!("{} {}", std::env::consts::OS, std::env::consts::ARCH);
    let zones = Zones::of_host();
    if args.json {
        let settings: Map<String, _> = rows
            .iter()
            .map(|row| {
                (
                    row.name.to_string(),
                    json!({"value": row.value, "origin": row.origin.to_string()}),
                )
            })
            .collect();
        let report = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "platform": platform,
            "zones": zones.json(),
            "app": app.folder,
            "settings": settings,
            "errors": app.faults.iter().map(ToString::to_string).collect::<Vec<_>>(),
        });
        out.print(&serde_json::to_string_pretty(&report).unwrap_or_default());
    } else {
        out.print(&format!(
            "software -> qworker:{} sqlite:{}",
            env!("CARGO_PKG_VERSION"),
            crate::link::sqlite::version()
        ));
        out.print(&format!("platform -> {platform}"));
        out.tell(&format!("zones    -> {}", zones.text()));
        out.tell(&format!("app      -> {}\n", app.folder.display()));
        let rows: Vec<Vec<String>> = rows
            .into_iter()
            .map(|row| vec![row.name.to_string(), row.value, row.origin.to_string()])
            .collect();
        out.table(&["Setting", "Value", "Origin"], &rows, "No settings.");
        app.tell_notes(&out);
        for fault in &app.faults {
            out.say(&format!("Error: {fault}"));
        }
    }
    Ok(if app.faults.is_empty() { Exit::Ok } else { Exit::Failure })
}
