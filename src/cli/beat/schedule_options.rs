//! The options for the location of a schedule and its state.

use crate::broker;
use crate::broker::ledger::{self, Ledger};
use crate::cli::app::{self, App};
use crate::cli::exit::Error;
use crate::client::Client;
use clap::Arg;
use std::ops::Deref;
use std::path::{Path, PathBuf};

/// Where the schedule and its state are.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct ScheduleOptions {
    /// Read entries from this file, YAML or NAME.crontab; may be repeated [default: schedule.yaml
    /// and *.crontab in the application's folder]
    #[arg(long, value_name = "FILE", value_delimiter = ',')]
    pub(super) entries: Vec<PathBuf>,
    /// Keep the state (when each entry was last sent) in this file [default: in the broker,
    /// where all beat processes share it]
    #[arg(short, long, value_name = "FILE")]
    schedule: Option<PathBuf>,
    /// Where to keep the state: broker or file. Celery's celery.beat:PersistentScheduler means
    /// file [default: file with -s, else broker]
    #[arg(long, value_name = "NAME", value_parser = scheduler)]
    scheduler: Option<Scheduler>,
}

/// [`ScheduleOptions`] for `qworker beat` and its commands.
#[derive(Debug, Clone, clap::Args)]
#[command(
    mut_arg("entries", |arg| arg.env("QWORKER_BEAT_ENTRIES")),
    mut_arg("scheduler", |arg| arg.short('S').env("QWORKER_BEAT_SCHEDULER"))
)]
pub(super) struct BeatScheduleOptions {
    #[command(flatten)]
    options: ScheduleOptions,
}

impl Deref for BeatScheduleOptions {
    type Target = ScheduleOptions;

    fn deref(&self) -> &ScheduleOptions {
        &self.options
    }
}

/// [`ScheduleOptions`] for a worker with a beat in it.
#[derive(Debug, clap::Args)]
#[command(
    mut_arg("entries", with_beat),
    mut_arg("schedule", |arg| with_beat(arg).alias("schedule-filename")),
    mut_arg("scheduler", with_beat)
)]
pub(super) struct EmbeddedScheduleOptions {
    #[command(flatten)]
    pub(super) options: ScheduleOptions,
}

fn with_beat(arg: Arg) -> Arg {
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let (first, rest) = help.split_at(help.chars().next().map_or(0, char::len_utf8));
    let help = format!("With --beat: {}{rest}", first.to_lowercase());
    arg.requires("beat").help(help)
}

/// The file that has the state, in the application's folder, if no other is named.
const DEFAULT: &str = "var/beat.sqlite";

/// Where the state is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scheduler {
    Broker,
    File,
}

fn scheduler(name: &str) -> Result<Scheduler, String> {
    match name.replace(':', ".").as_str() {
        "broker" => Ok(Scheduler::Broker),
        "file" | "celery.beat.PersistentScheduler" => Ok(Scheduler::File),
        _ => Err("expected broker or file; other schedulers are Python's".into()),
    }
}

impl ScheduleOptions {
    /// Checks that the named files are there. One that is removed later is reported, and changes
    /// nothing.
    ///
    /// # Errors
    /// One is not there, or is not a file.
    pub(super) fn check_entries(&self) -> Result<(), Error> {
        for path in &self.entries {
            let why = match std::fs::metadata(path) {
                Ok(found) if found.is_dir() => "found a folder, expected a file".to_string(),
                Ok(_) => continue,
                Err(error) => error.to_string(),
            };
            return Err(Error::usage(format!("--entries {}: {why}", path.display())));
        }
        Ok(())
    }

    /// The file that has the state, if it is not in the broker.
    pub(super) fn file(&self, app: &App) -> Option<PathBuf> {
        // What the user typed is relative to where he typed it; a setting to the application.
        let set = || app.settings.beat_schedule_filename.as_ref().map(|set| app.folder.join(set));
        let named = self.schedule.clone().or_else(set);
        let file = match self.scheduler {
            Some(Scheduler::Broker) => None,
            Some(Scheduler::File) => Some(named.unwrap_or_else(|| app.folder.join(DEFAULT))),
            None => named,
        };
        file.map(|file| std::path::absolute(&file).unwrap_or(file))
    }

    /// Where entries are claimed. Must be called on an event loop.
    ///
    /// # Errors
    /// The file of the state is not a beat's, or cannot be used.
    pub(super) fn ledger(&self, app: &App, client: &Client) -> Result<Ledger, Error> {
        let group = &app.settings.beat_group;
        Ok(match self.made_file(app)? {
            Some(file) => Ledger::in_file(&file, group, &client.broker)
                .map_err(|error| unusable(&file, error))?,
            None => client.broker.ledger(group),
        })
    }

    /// As [`ScheduleOptions::file`]. A damaged one is set aside for a new one, so it must be a beat's.
    ///
    /// # Errors
    /// What is there is not a beat's.
    pub(super) fn own_file(&self, app: &App) -> Result<Option<PathBuf>, Error> {
        let Some(file) = self.file(app) else { return Ok(None) };
        // What cannot be examined is reported when it is opened.
        match ledger::refusal(&file) {
            None => Ok(Some(file)),
            Some(why) => Err(self.refused(&file, &why)),
        }
    }

    /// As [`ScheduleOptions::own_file`], for commands that make it if it is missing.
    ///
    /// # Errors
    /// As there; or its folder is missing, and is not the application's.
    fn made_file(&self, app: &App) -> Result<Option<PathBuf>, Error> {
        let Some(file) = self.own_file(app)? else { return Ok(None) };
        match app.may_make(&file) {
            Ok(()) => Ok(Some(file)),
            Err(why) => Err(self.refused(&file, &why).hint(app::MAKE)),
        }
    }

    /// Checks the file of the state and those of entries before anything begins.
    ///
    /// # Errors
    /// One of them cannot be used.
    pub(super) fn check(&self, app: &App) -> Result<(), Error> {
        if let Some(file) = self.made_file(app)? {
            ledger::prepare(&file).map_err(|error| unusable(&file, error))?;
        }
        self.check_entries()
    }

    fn refused(&self, file: &Path, why: &str) -> Error {
        let name = match self.schedule {
            Some(_) => "--schedule",
            None => "beat_schedule_filename",
        };
        Error::usage(format!("{name} {}: {why}", file.display()))
    }
}

fn unusable(file: &Path, error: broker::Error) -> Error {
    let error = error.with(file.display());
    Error::failure(format!("beat cannot keep its state in a file: {error}"))
}
