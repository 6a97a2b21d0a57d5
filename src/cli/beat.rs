//! `qworker beat`: send tasks by a schedule, in the foreground or detached; and what can be
//! asked and changed about one.

mod change;
pub(super) mod check;
mod files;
mod show;

use super::app::{self, App, Global};
use super::daemon::{self, Begun};
use super::exit::{Error, Exit};
use super::output::ToUser;
use super::{logging, variables};
use crate::beat::{self, Command, Plan, Services, Source};
use crate::broker::ledger::{self, Ledger};
use crate::client::Client;
use crate::config::Given;
use crate::os;
use crate::os::guard::Role;
use crate::os::notify::Manager;
use crate::os::signal::{Meaning, Signals, Term, ends_by_hup};
use crate::schedule::entry::Entry;
use chrono::{DateTime, Local};
use files::Files;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Args {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    options: Options,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// List the entries, with their last and next runs
    List(show::List),
    /// Say when an entry is due next
    Next(show::Next),
    /// Send the task of an entry now, whatever its schedule says
    Run(change::Run),
    /// Send nothing of these entries until they are resumed
    Pause(change::Change),
    /// Go on with entries that were paused, with what is due from now on
    Resume(change::Change),
    /// Report every mistake in schedule files
    Check(check::Args),
    /// Print what would be sent in a stretch of time
    Simulate(show::Simulate),
}

#[derive(Debug, clap::Args)]
struct Options {
    /// Node name, NAME@HOST, for the log and for names of files [default: celerybeat@%h]
    #[arg(short = 'n', long, value_name = "NODE", env = "QWORKER_BEAT_HOSTNAME")]
    hostname: Option<String>,
    #[command(flatten)]
    place: Place,
    /// Look so often, in seconds, at the files of the schedule, at what others have changed, and
    /// whether the broker has lost anything [default: 1]. What is due is sent at its time
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    max_interval: Option<String>,
    #[command(flatten)]
    log: logging::Args,
    #[command(flatten)]
    daemon: daemon::Args,
}

/// Where the schedule is, and what is known of it.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct Place {
    /// Read entries from this file, YAML or NAME.crontab; may be repeated [default: schedule.yaml
    /// and *.crontab in the application's folder]
    #[arg(long, value_name = "FILE", env = "QWORKER_BEAT_ENTRIES", value_delimiter = ',')]
    entries: Vec<PathBuf>,
    /// Keep the state, when each entry was sent last, in this file [default: in the broker,
    /// where any number of beats share it]
    #[arg(short, long, value_name = "FILE")]
    schedule: Option<PathBuf>,
    /// Where the state is: broker, or file. Celery's celery.beat:PersistentScheduler is file
    /// [default: file with -s, else broker]
    #[arg(short = 'S', long, value_name = "NAME", env = "QWORKER_BEAT_SCHEDULER", value_parser = scheduler)]
    scheduler: Option<Scheduler>,
}

/// The file that has the state if another one is not named, in the application's folder.
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

impl Place {
    /// Are the files there that somebody names? One that goes later is told, and changes nothing.
    ///
    /// # Errors
    /// One is not, or is no file.
    fn check_entries(&self) -> Result<(), Error> {
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
    fn file(&self, app: &App) -> Option<PathBuf> {
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
    /// What stands where the file is to be is somebody else's.
    fn ledger(&self, app: &App, client: &Client) -> Result<Ledger, Error> {
        let group = &app.settings.beat_group;
        Ok(match self.made_file(app)? {
            Some(file) => Ledger::apart(&file, group, &client.outlet),
            None => client.outlet.ledger(group),
        })
    }

    /// As [`Place::file`]. One that is damaged is set aside for a new one, so it must be a beat's.
    ///
    /// # Errors
    /// What stands there is somebody else's.
    fn own_file(&self, app: &App) -> Result<Option<PathBuf>, Error> {
        let Some(file) = self.file(app) else { return Ok(None) };
        // What cannot be looked at cannot be replaced either, and is told when it is opened.
        match ledger::refusal(&file) {
            None => Ok(Some(file)),
            Some(why) => Err(self.refused(&file, &why)),
        }
    }

    /// As [`Place::own_file`], for whoever makes it if there is none.
    ///
    /// # Errors
    /// As there; or its folder is not there, and is not the application's.
    fn made_file(&self, app: &App) -> Result<Option<PathBuf>, Error> {
        let Some(file) = self.own_file(app)? else { return Ok(None) };
        match app.may_make(&file) {
            Ok(()) => Ok(Some(file)),
            Err(why) => Err(self.refused(&file, &why).hint(app::MAKE)),
        }
    }

    /// Before anything begins: the file of the state, and those of entries.
    ///
    /// # Errors
    /// One of them cannot be used.
    fn check(&self, app: &App) -> Result<(), Error> {
        self.made_file(app)?;
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

pub(super) fn run(args: Args, global: &Global, role: Role, out: ToUser) -> Result<Exit, Error> {
    match args.what {
        None => start(args.options, global, role, out),
        Some(What::List(args)) => show::list(&args, global, out),
        Some(What::Next(args)) => show::next(&args, global, out),
        Some(What::Run(args)) => change::run(&args, global, out),
        Some(What::Pause(args)) => change::pause(&args, global, true, out),
        Some(What::Resume(args)) => change::pause(&args, global, false, out),
        Some(What::Check(args)) => check::run(&args, global, out),
        Some(What::Simulate(args)) => show::simulate(&args, global, out),
    }
}

fn start(options: Options, global: &Global, role: Role, out: ToUser) -> Result<Exit, Error> {
    if matches!(role, Role::Fresh) {
        options.daemon.become_user()?;
    }
    let given: Vec<Given> = options
        .max_interval
        .iter()
        .map(|value| Given {
            option: "--max-interval".into(),
            setting: "beat_max_loop_interval".into(),
            value: value.clone(),
        })
        .collect();
    let app = App::open(global, &given)?;
    // Read again it is looked up by its name, also where that begins with a folder left since.
    let mut global = global.clone();
    global.app = Some(app.folder.clone());
    options.place.check(&app)?;
    let hostname = App::node_name(options.hostname.as_deref(), "celerybeat")?;
    files::paths_of(&app.folder, &options.place.entries)
        .map_err(|unseen| Error::failure(unseen.to_string()))?;
    let log = options.log.options(&hostname, &app.settings, &out)?;
    logging::check(&log)?;
    variables::warn(&out);
    let (mut pidfile, launcher) = match options.daemon.begin(&hostname, None, &out)? {
        Begun::Here { pidfile, launcher } => (pidfile, launcher),
        Begun::Elsewhere(exit) => return Ok(exit),
    };
    let hup = if ends_by_hup() { Command::Stop } else { Command::Reload };
    let shown = banner(&app, &options, &log);
    let files = Files::new(global.clone(), given, options.place.entries.clone());
    let detached = options.daemon.detach;
    let place = options.place;
    let mut launcher = launcher;
    let ended = super::block_on(tokio::task::LocalSet::new().run_until(async {
        let signals = Signals::listen(Term::Warm, None)
            .map_err(|error| Error::failure(format!("cannot listen to signals: {error}")))?;
        let _log = crate::log::start(log);
        let client = app.client()?;
        let ledger = place.ledger(&app, &client)?;
        if !out.quiet && !detached {
            out.announce(&shown);
        }
        tracing::info!("beat: Starting...");
        let manager = std::rc::Rc::new(Manager::of_environment());
        let (commands, received) = mpsc::unbounded_channel();
        tokio::task::spawn_local(listen(signals, hup, commands, manager.clone()));
        let watched = manager.clone();
        let services = Services {
            alive: Box::new(move || watched.tell("WATCHDOG=1")),
            ..services(client, ledger, Box::new(files), received)
        };
        let ready = || {
            manager.tell("READY=1");
            if let Some(Err(error)) = pidfile.as_mut().map(|pidfile| pidfile.publish()) {
                tracing::warn!("the pidfile cannot be written: {error}");
            }
            launcher.take().into_iter().for_each(os::daemon::Report::ready);
        };
        beat::run(plan(&app), services, ready).await;
        tracing::info!("beat: Shutting down...");
        Ok(Exit::Ok)
    }));
    if let (Err(error), Some(launcher)) = (&ended, launcher) {
        let exit = error.report(&out);
        launcher.failed(exit.code());
        return Ok(exit);
    }
    ended
}

/// The entries of an application that have no mistakes.
pub(super) fn entries(app: &App) -> Vec<Arc<Entry>> {
    files::read_all(app, &[]).entries
}

/// What is decided before the start.
pub(super) fn plan(app: &App) -> Plan {
    let settings = &app.settings;
    Plan {
        host: os::host::name(),
        max_interval: match settings.beat_max_loop_interval {
            Duration::ZERO => Duration::from_secs(1),
            interval => interval,
        },
        result_expires: settings.result_expires,
        patience: settings.client_timeout,
    }
}

fn services(
    client: Client,
    ledger: Ledger,
    source: Box<dyn Source>,
    commands: mpsc::UnboundedReceiver<Command>,
) -> Services {
    let Client { outlet, store } = client;
    Services { ledger, outlet, store, source, commands, alive: Box::new(|| {}) }
}

/// Options of a worker with a beat in it.
#[derive(Debug, clap::Args)]
pub(super) struct Embedded {
    /// Run a beat in this worker too: it sends tasks by the application's schedule, as qworker
    /// beat does. Any number of workers may
    #[arg(short = 'B', long, env = "QWORKER_WORKER_BEAT", value_parser = super::truth())]
    beat: bool,
    /// With --beat: keep the state, when each entry was sent last, in this file [default: in the
    /// broker, where any number of beats share it]
    #[arg(short, long, alias = "schedule-filename", value_name = "FILE", requires = "beat")]
    schedule: Option<PathBuf>,
    /// With --beat: where the state is, broker or file
    #[arg(long, value_name = "NAME", value_parser = scheduler, requires = "beat")]
    scheduler: Option<Scheduler>,
    /// With --beat: read entries from this file, YAML or NAME.crontab; may be repeated [default:
    /// schedule.yaml and *.crontab in the application's folder]
    #[arg(long, value_name = "FILE", value_delimiter = ',', requires = "beat")]
    entries: Vec<PathBuf>,
}

/// A beat that is about to run in a worker.
pub(super) struct Prepared {
    app: App,
    place: Place,
    files: Files,
}

impl Embedded {
    fn place(&self) -> Place {
        let (entries, schedule) = (self.entries.clone(), self.schedule.clone());
        Place { entries, schedule, scheduler: self.scheduler }
    }

    /// The beat that is asked for; `given` are all of the worker's options that are settings.
    ///
    /// # Errors
    /// Its state would be in a file of somebody else, or a file of entries is not there.
    pub(super) fn prepare(
        &self,
        app: &App,
        global: &Global,
        given: Vec<Given>,
    ) -> Result<Option<Prepared>, Error> {
        if !self.beat {
            return Ok(None);
        }
        let place = self.place();
        place.check(app)?;
        let files = Files::new(global.clone(), given, place.entries.clone());
        Ok(Some(Prepared { app: app.clone(), place, files }))
    }
}

impl Prepared {
    /// Sends what is due for as long as it is polled.
    pub(super) async fn run(self) {
        // The worker has opened the same broker just now.
        let opened = self.app.client().and_then(|client| {
            let ledger = self.place.ledger(&self.app, &client)?;
            Ok((client, ledger))
        });
        let (client, ledger) = match opened {
            Ok(opened) => opened,
            Err(error) => return tracing::error!("beat: {error}"),
        };
        // Nobody orders anything: what concerns the worker concerns its beat.
        let (_commands, received) = mpsc::unbounded_channel();
        tracing::info!("beat: Starting...");
        let services = services(client, ledger, Box::new(self.files), received);
        beat::run(plan(&self.app), services, || {}).await;
    }
}

/// Passes on signals; `hup` is what HUP asks for.
async fn listen(
    mut signals: Signals,
    hup: Command,
    commands: mpsc::UnboundedSender<Command>,
    manager: std::rc::Rc<Manager>,
) {
    loop {
        let command = match signals.next().await {
            Meaning::Hup => hup,
            Meaning::Explain => Command::Explain,
            Meaning::Warm | Meaning::Interrupt | Meaning::Cold => Command::Stop,
        };
        if command == Command::Stop {
            manager.tell("STOPPING=1");
        }
        if commands.send(command).is_err() {
            return;
        }
    }
}

/// What the user sees first, as Celery has it.
fn banner(app: &App, options: &Options, log: &crate::log::Options) -> String {
    let now: DateTime<Local> = crate::clock::now().into();
    let file = options.place.file(app);
    let (scheduler, db) = match &file {
        Some(file) => ("file", file.display().to_string()),
        None => ("broker", app.broker()),
    };
    let to = log.file.as_ref().map_or("[stderr]".into(), |file| file.display().to_string());
    let interval = plan(app).max_interval.as_secs_f64();
    let minutes = match interval {
        ..60.0 => String::new(),
        _ => format!("{:.2} minutes ", interval / 60.0),
    };
    format!(
        "qworker beat v{} is starting.\n__    -    ... __   -        _\nLocalTime -> {}\n\
         Configuration ->\n    . broker -> {}\n    . app -> {}\n    . scheduler -> {scheduler}\n    \
         . db -> {db}\n    . logfile -> {to}@%{}\n    . maxinterval -> {minutes}({interval}s)\n",
        env!("CARGO_PKG_VERSION"),
        now.format("%Y-%m-%d %H:%M:%S"),
        app.broker(),
        app.folder.display(),
        log.level,
    )
}
