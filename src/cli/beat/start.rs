//! Starts a beat: in the foreground, detached, or in a worker.

use super::files::{self, Files};
use super::schedule_options::{BeatScheduleOptions, EmbeddedScheduleOptions, ScheduleOptions};
use crate::beat::{self, BeatControl, DefinitionSource, Plan, Services};
use crate::bounds::BEAT_PAUSE_MAX;
use crate::broker::ledger::Ledger;
use crate::cli::app::{App, GlobalOptions};
use crate::cli::daemon::{self, DaemonStart};
use crate::cli::exit::{Error, Exit};
use crate::cli::output::ToUser;
use crate::cli::{logging, variables};
use crate::client::Client;
use crate::config::Given;
use crate::guard::Role;
use crate::os;
use crate::os::sd_notify::Manager;
use crate::os::signal::{Signals, Term, WorkerSignal, ends_by_hup};
use chrono::{DateTime, Local};
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::mpsc;

#[derive(Debug, clap::Args)]
// Beside others of its name in one command.
#[group(skip)]
pub(super) struct Args {
    /// Node name, NAME@HOST, for the log and for file names [default: celerybeat@%h]
    #[arg(short = 'n', long, value_name = "NODE", env = "QWORKER_BEAT_HOSTNAME")]
    hostname: Option<String>,
    #[command(flatten)]
    options: BeatScheduleOptions,
    /// How often, in seconds, to check the schedule files, changes by other processes, and whether
    /// the broker has lost anything [default: 1]. Entries are always sent when they are due
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    max_interval: Option<String>,
    #[command(flatten)]
    log: logging::Args,
    #[command(flatten)]
    daemon: daemon::Args,
}

/// The setting that `--max-interval` gives a value to.
fn interval(value: &str) -> Given {
    Given {
        option: "--max-interval".into(),
        setting: "beat_max_loop_interval".into(),
        value: value.into(),
    }
}

pub(super) fn run(
    args: Args,
    global: &GlobalOptions,
    role: Role,
    out: ToUser,
) -> Result<Exit, Error> {
    if matches!(role, Role::Fresh) {
        args.daemon.become_user()?;
    }
    let given: Vec<Given> = args.max_interval.as_deref().map(interval).into_iter().collect();
    let app = App::open(global, &given)?;
    // It is read again later, by a process that may be in another folder by then.
    let mut global = global.clone();
    global.app = Some(app.folder.clone());
    args.options.check(&app)?;
    let hostname = App::node_name(args.hostname.as_deref(), "celerybeat")?;
    files::paths_of(&app.folder, &args.options.entries)
        .map_err(|unseen| Error::failure(unseen.to_string()))?;
    let log = args.log.options(&hostname, &app.settings, &out)?;
    logging::check(&log)?;
    variables::warn(&out);
    let (mut pidfile, launcher) = match args.daemon.begin(&hostname, None, &out)? {
        DaemonStart::Here { pidfile, launcher } => (pidfile, launcher),
        DaemonStart::Elsewhere(exit) => return Ok(exit),
    };
    let hup = if ends_by_hup() { BeatControl::Stop } else { BeatControl::Reload };
    let shown = banner(&app, &args, &log);
    let files = Files::new(global.clone(), given, args.options.entries.clone());
    let detached = args.daemon.detach;
    let options = args.options;
    let mut launcher = launcher;
    let ended = crate::cli::block_on(tokio::task::LocalSet::new().run_until(async {
        let signals = Signals::listen(Term::Warm, None)
            .map_err(|error| Error::failure(format!("cannot listen to signals: {error}")))?;
        let _log = crate::log::start(log);
        let client = app.client()?;
        let ledger = options.ledger(&app, &client)?;
        if !out.quiet && !detached {
            out.announce(&shown);
        }
        tracing::info!("beat: Starting...");
        let manager = Rc::new(Manager::of_environment());
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
            launcher.take().into_iter().for_each(os::daemon::LaunchReport::ready);
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

/// What is decided before the start.
fn plan(app: &App) -> Plan {
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
    source: Box<dyn DefinitionSource>,
    commands: mpsc::UnboundedReceiver<BeatControl>,
) -> Services {
    let Client { broker, store } = client;
    Services { ledger, broker, store, source, commands, alive: Box::new(|| {}) }
}

/// Options of a worker with a beat in it.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Embedded {
    /// Run a beat in this worker too: it sends tasks by the application's schedule, as qworker
    /// beat does. Any number of workers may
    #[arg(short = 'B', long, env = "QWORKER_WORKER_BEAT", value_parser = crate::cli::truth())]
    beat: bool,
    #[command(flatten)]
    options: EmbeddedScheduleOptions,
}

/// A beat that is about to run in a worker.
pub(in crate::cli) struct Prepared {
    app: App,
    options: ScheduleOptions,
    files: Files,
}

impl Embedded {
    /// The beat, if one is asked for. `given`: the worker's options that are settings.
    ///
    /// # Errors
    /// The file of its state cannot be used, or a file of entries is missing.
    pub(in crate::cli) fn prepare(
        &self,
        app: &App,
        global: &GlobalOptions,
        given: Vec<Given>,
    ) -> Result<Option<Prepared>, Error> {
        if !self.beat {
            return Ok(None);
        }
        let options = self.options.options.clone();
        options.check(app)?;
        let files = Files::new(global.clone(), given, options.entries.clone());
        Ok(Some(Prepared { app: app.clone(), options, files }))
    }
}

impl Prepared {
    /// Sends what is due while it is polled.
    pub(in crate::cli) async fn run(self) {
        let mut is_told = false;
        let (client, ledger) = loop {
            let opened = self.app.client().and_then(|client| {
                let ledger = self.options.ledger(&self.app, &client)?;
                Ok((client, ledger))
            });
            match opened {
                Ok(opened) => break opened,
                // The worker works; its beat begins as soon as it can.
                Err(error) => {
                    if !std::mem::replace(&mut is_told, true) {
                        tracing::error!("beat: {error}; due entries wait");
                    }
                    tokio::time::sleep(BEAT_PAUSE_MAX).await;
                }
            }
        };
        // It ends with its worker.
        let (_commands, received) = mpsc::unbounded_channel();
        tracing::info!("beat: Starting...");
        let services = services(client, ledger, Box::new(self.files), received);
        beat::run(plan(&self.app), services, || {}).await;
    }
}

/// Passes on signals. `hup`: what HUP means.
async fn listen(
    mut signals: Signals,
    hup: BeatControl,
    commands: mpsc::UnboundedSender<BeatControl>,
    manager: Rc<Manager>,
) {
    loop {
        let command = match signals.next().await {
            WorkerSignal::Hup => hup,
            WorkerSignal::Explain => BeatControl::Explain,
            WorkerSignal::Warm | WorkerSignal::Interrupt | WorkerSignal::Cold => BeatControl::Stop,
        };
        if command == BeatControl::Stop {
            manager.tell("STOPPING=1");
        }
        if commands.send(command).is_err() {
            return;
        }
    }
}

/// What the user sees first, in Celery's form.
fn banner(app: &App, args: &Args, log: &crate::log::LogOptions) -> String {
    let now: DateTime<Local> = crate::clock::now().into();
    let file = args.options.file(app);
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
