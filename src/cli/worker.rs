//! `qworker worker`: take tasks and run them, in the foreground.

use super::app::{App, Global};
use super::beat;
use super::daemon::{self, Begun};
use super::exit::{Error, Exit};
use super::logging;
use super::output::ToUser;
use super::{variables, watched};
use crate::backend::Store;
use crate::bounds::{self, FILES_OF_TASK, FILES_OF_WORKER, SLOTS_MAX};
use crate::broker::{Inlet, Outlet};
use crate::client::Client;
use crate::config::{Given, Settings, kind, units};
use crate::os::guard::{self, GuardLink, Orders, Role};
use crate::os::pidfile::Pidfile;
use crate::os::reap::Reaper;
use crate::os::signal::{Signals, Term};
use crate::pool::Pool;
use crate::runner::{shell::Shell, wasm};
use crate::task::rate::Rate;
use crate::task::set::Set;
use crate::worker::admission::Rule;
use crate::worker::core::Event;
use crate::worker::drive::Doors;
use crate::worker::plan::{Autoscale, Plan, Policy};
use crate::{broker, os, worker};
use std::io::IsTerminal;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::mpsc;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Node name, NAME@HOST; %h is the host name, %n the name part, %d the domain [default: celery@%h]
    #[arg(short = 'n', long, value_name = "NODE", env = "QWORKER_WORKER_HOSTNAME")]
    hostname: Option<String>,
    /// Tasks at once, or auto [default: the processors, or what the quota of the control group leaves
    /// of them]
    #[arg(short, long, value_name = "N", allow_negative_numbers = true)]
    concurrency: Option<String>,
    /// Run up to MAX tasks at once, and have slots for MIN [default: 0] of them when there is less to
    /// do: more come at once when work waits, and those that nobody needed for
    /// worker_autoscale_keepalive (30 s) go again. No task is ever interrupted
    #[arg(long, value_name = "MAX[,MIN]", allow_negative_numbers = true, conflicts_with = "concurrency", value_parser = autoscale)]
    autoscale: Option<Bounds>,
    /// Queues to take from, separated by commas [default: the default queue and those of the tasks]
    #[arg(short = 'Q', long, value_delimiter = ',', value_parser = kind::listed, env = "QWORKER_WORKER_QUEUES")]
    queues: Vec<String>,
    /// Queues to leave out, separated by commas
    #[arg(short = 'X', long, value_delimiter = ',', value_parser = kind::listed, env = "QWORKER_WORKER_EXCLUDE_QUEUES")]
    exclude_queues: Vec<String>,
    #[command(flatten)]
    log: logging::Args,
    /// Kill a task after so many seconds, unless it says else
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    time_limit: Option<String>,
    /// Ask a task to end (TERM) after so many seconds, unless it says else
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    soft_time_limit: Option<String>,
    /// Wait so long in a warm shutdown for what runs; then ask it to end (TERM), kill it 2 s
    /// later, and give it back [default: for as long as it takes]
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    soft_shutdown_timeout: Option<String>,
    /// Take a message only when a slot is free for it
    #[arg(long)]
    disable_prefetch: bool,
    /// Remove what waits in the queues first
    #[arg(long, alias = "discard", env = "QWORKER_WORKER_PURGE", value_parser = super::truth())]
    purge: bool,
    #[command(flatten)]
    daemon: daemon::Args,
    #[command(flatten)]
    program: daemon::OfWorker,
    #[command(flatten)]
    beat: beat::Embedded,
    /// Settings, behind --, as `worker_prefetch_multiplier=2` or `worker.prefetch_multiplier=2`
    #[arg(last = true, value_name = "SETTING=VALUE", value_parser = setting)]
    settings: Vec<(String, String)>,
}

/// The most and the fewest slots of `--autoscale`.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    max: usize,
    min: usize,
}

/// Reads `8,1`, `1,8` or `8`, as Celery does: the larger one is the most.
fn autoscale(text: &str) -> Result<Bounds, String> {
    let slots = |text: &str| usize::try_from(units::whole(text)?).ok().filter(|n| *n <= SLOTS_MAX);
    let (one, other) = text.split_once(',').unwrap_or((text, "0"));
    match (slots(one), slots(other)) {
        (Some(one), Some(other)) if one.max(other) > 0 => {
            Ok(Bounds { max: one.max(other), min: one.min(other) })
        }
        _ => Err(format!("expected MAX,MIN: two whole numbers up to {SLOTS_MAX}, such as 8,1")),
    }
}

/// Reads `name=value`; Celery has a dot behind the first word of the name.
fn setting(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected SETTING=VALUE")?;
    if value.is_empty() {
        return Err("found nothing behind the =, expected a value; null is none".into());
    }
    Ok((name.replacen('.', "_", 1), value.into()))
}

pub(super) fn run(args: Args, global: &Global, role: Role, out: ToUser) -> Result<Exit, Error> {
    if matches!(role, Role::Fresh) {
        args.daemon.become_user()?;
    }
    let hostname = App::node_name(args.hostname.as_deref(), "celery")?;
    let Role::Again(fd) = role else { return begin(args, hostname, global, role, None, out) };
    // Taken over first: should something be wrong by now it is removed, and the log says what.
    let (log, node) = (args.log.clone(), hostname.clone());
    let pidfile = args.daemon.go_on(&hostname, fd);
    let ended = pidfile.and_then(|pidfile| begin(args, hostname, global, role, pidfile, out));
    ended.inspect_err(|error| log.complain(&node, &out, &error.to_string()))
}

/// Begins as this role has it; `inherited` is the pidfile of the program before.
fn begin(
    args: Args,
    hostname: String,
    global: &Global,
    role: Role,
    inherited: Option<Pidfile>,
    out: ToUser,
) -> Result<Exit, Error> {
    let app = App::open(global, &given(&args))?;
    let log = args.log.options(&hostname, &app.settings, &out)?;
    // Faults are told before a worker is started, or detached, for nothing.
    let executable = args.program.executable()?;
    slots(&args, &app.settings)?;
    let begun = match role {
        Role::Worker(guard) => {
            return work(app, args, hostname, log, guard, global, out);
        }
        Role::Probe => {
            args.daemon.pidfile(&hostname)?;
            logging::check(&log)?;
            App::seen(&app.examine_tasks().1)?;
            return Ok(Exit::Ok);
        }
        Role::Fresh => {
            logging::check(&log)?;
            App::seen(&app.examine_tasks().1)?;
            variables::warn(&out);
            args.daemon.begin(&hostname, args.program.replace, &out)?
        }
        Role::Again(_) => Begun::Here { pidfile: inherited, launcher: None },
    };
    let (pidfile, launcher) = match begun {
        Begun::Here { pidfile, launcher } => (pidfile, launcher),
        Begun::Elsewhere(exit) => return Ok(exit),
    };
    let folder = os::folder::current()
        .map_err(|error| Error::failure(format!("the current folder: {error}")))?;
    let argv = std::iter::once(os::folder::program()).chain(std::env::args_os().skip(1)).collect();
    let orders = Orders { argv, executable, folder, pidfile, launcher };
    let code = guard::run(orders, |note| logging::note(&log, &out, note));
    Ok(Exit::Code(u8::try_from(code).unwrap_or(1)))
}

/// The worker proper, below its guard.
fn work(
    app: App,
    args: Args,
    hostname: String,
    log: crate::log::Options,
    guard: GuardLink,
    global: &Global,
    out: ToUser,
) -> Result<Exit, Error> {
    let stamp = app.stamp();
    let tasks = app.tasks(&out)?;
    app.tell_notes(&out);
    let mut queues = if args.queues.is_empty() { app.queues(&tasks) } else { args.queues.clone() };
    queues.retain(|queue| !args.exclude_queues.contains(queue));
    if queues.is_empty() {
        return Err(Error::usage("--exclude-queues leaves no queue to take from"));
    }
    if queues.len() > bounds::QUEUES_MAX {
        let (found, most) = (queues.len(), bounds::QUEUES_MAX);
        let text = format!("{found} queues to take from, and at most {most} are expected");
        return Err(
            Error::usage(text).hint("start more workers, each with some of the queues (-Q)")
        );
    }
    let plan = plan(&app, &args, hostname, queues, tasks)?;
    // With the old limit it can still do much.
    let _ = os::limit::raise_open_files();
    let beat = args.beat.prepare(&app, global, given(&args))?;
    super::block_on(async move {
        let served = serve(app, plan, args, log, guard, (beat, stamp), out);
        tokio::task::LocalSet::new().run_until(served).await
    })
}

/// How many tasks may run at once.
///
/// # Errors
/// This process may not have as many open files as that takes.
fn slots(args: &Args, settings: &Settings) -> Result<usize, Error> {
    let chosen = args.autoscale.map(|bounds| bounds.max).or(settings.worker_concurrency);
    let slots = chosen.unwrap_or_else(os::host::processors);
    let Some(files) = os::limit::open_files() else { return Ok(slots) };
    let fit = files.saturating_sub(FILES_OF_WORKER) / FILES_OF_TASK;
    let fit = usize::try_from(fit).unwrap_or(usize::MAX);
    if slots <= fit {
        return Ok(slots);
    }
    if chosen.is_none() && fit > 0 {
        return Ok(fit);
    }
    let option = if args.autoscale.is_some() { "--autoscale" } else { "--concurrency" };
    let needed = FILES_OF_WORKER + FILES_OF_TASK * slots as u64;
    Err(Error::usage(format!(
        "{option} {slots} needs {needed} open files, and this process may have {files} (hard limit)"
    ))
    .hint(format!("at most {fit} fit; ulimit -Hn or systemd's LimitNOFILE= raise the limit")))
}

/// Options that are settings.
fn given(args: &Args) -> Vec<Given> {
    let mut given = Vec::new();
    let soft_shutdown = args.soft_shutdown_timeout.clone();
    let prefetch = args.disable_prefetch.then(|| "true".to_string());
    for (option, setting, value) in [
        ("--concurrency", "worker_concurrency", args.concurrency.clone()),
        ("--time-limit", "task_time_limit", args.time_limit.clone()),
        ("--soft-time-limit", "task_soft_time_limit", args.soft_time_limit.clone()),
        ("--soft-shutdown-timeout", "worker_soft_shutdown_timeout", soft_shutdown),
        ("--disable-prefetch", "worker_disable_prefetch", prefetch),
    ] {
        given.extend(value.map(|value| Given {
            option: option.into(),
            setting: setting.into(),
            value,
        }));
    }
    given.extend(args.settings.iter().map(|(setting, value)| Given {
        option: format!("-- {setting}"),
        setting: setting.clone(),
        value: value.clone(),
    }));
    given
}

fn plan(
    app: &App,
    args: &Args,
    hostname: String,
    queues: Vec<String>,
    tasks: Set,
) -> Result<Plan, Error> {
    let settings = &app.settings;
    let policy = Policy {
        acks_late: settings.task_acks_late,
        ignore_result: settings.task_ignore_result,
        store_errors: settings.task_store_errors_even_if_ignored,
        track_started: settings.task_track_started,
        result_extended: settings.result_extended,
        time_limit: settings.task_time_limit,
        soft_time_limit: settings.task_soft_time_limit,
        rate_limit: settings.task_default_rate_limit.map(|rate| Rate(rate.0)),
        max_deliveries: settings.task_max_deliveries,
        unregistered: settings.task_unregistered,
        disable_prefetch: settings.worker_disable_prefetch,
        env: Arc::new(settings.task_env.clone()),
    };
    Ok(Plan {
        hostname,
        app: app.folder.clone(),
        broker: app.broker(),
        slots: slots(args, settings)?,
        autoscale: args.autoscale.map(|bounds| Autoscale {
            min: bounds.min,
            keepalive: settings.worker_autoscale_keepalive,
        }),
        admission: Rule {
            min_free_memory: settings.worker_min_free_memory,
            max_load: settings.worker_max_load,
        },
        queues,
        tasks: Arc::new(tasks),
        soft_shutdown: settings.worker_soft_shutdown_timeout,
        policy,
        chatty: args.log.is_chatty(),
        wasm_cache: app.folder.join(&settings.wasm_cache_dir),
        wasm_memory: settings.wasm_memory,
        wasm_compile_timeout: settings.wasm_compile_timeout,
        result_expires: settings.result_expires,
    })
}

/// Opens the doors and works until a signal.
async fn serve(
    app: App,
    plan: Plan,
    args: Args,
    log: crate::log::Options,
    guard: GuardLink,
    (beat, stamp): (Option<beat::Prepared>, u64),
    out: ToUser,
) -> Result<Exit, Error> {
    let cannot =
        |what: &str, error: std::io::Error| Error::failure(format!("cannot {what}: {error}"));
    let remapped = std::env::var("REMAP_SIGTERM").is_ok_and(|name| name == "SIGQUIT");
    let term = if remapped { Term::Cold } else { Term::Warm };
    let signals = Signals::listen(term, Some(os::Pid::parent()))
        .map_err(|error| cannot("listen to signals", error))?;
    let reaper = Reaper::start().map_err(|error| cannot("watch processes", error))?;
    let _log = logging::start(log, out);
    let client = app.client()?;
    if args.purge {
        let purged = client.outlet.purge(plan.queues.clone()).await?;
        out.announce(&format!(
            "purge: Erased {purged} {}.\n",
            if purged == 1 { "message" } else { "messages" }
        ));
    }
    let guard = Rc::new(guard);
    if args.program.replace.is_none() {
        look_for_twin(&client, &plan).await;
    }
    let (inlet, outlet, store) = take_from(&app, &client, &plan, &guard).await?;
    let shell =
        shell(&app, &plan, &reaper).map_err(|error| cannot("prepare to run processes", error))?;
    let runtime = wasm::Runtime::new(wasm::Config {
        cache_dir: plan.wasm_cache.clone(),
        slots: plan.slots,
        default_memory: plan.wasm_memory,
        compile_timeout: plan.wasm_compile_timeout,
    });
    let (sender, receiver) = mpsc::unbounded_channel();
    let events = sender.clone();
    let report = Arc::new(move |key, outcome| {
        // The loop that listens ends last.
        let _ = events.send(Event::Ended(key, outcome));
    });
    let pool = Pool::new(shell, runtime, plan.slots, report);
    if !out.quiet && !args.daemon.detach {
        out.announce(&banner(&app, &plan, &client));
    }
    let name = plan.hostname.clone();
    drop(client);
    let events = (sender, receiver);
    let tasks = watched::start(app, stamp);
    let detached = args.daemon.detach;
    let doors = Doors { inlet, outlet, store, pool, reaper, tasks, events, signals, guard };
    let ready = || {
        crate::log::line(tracing::Level::INFO, &format!("{name} ready."));
        if !args.log.is_chatty() {
            out.say(&format!("{name} ready."));
        }
        if detached {
            os::daemon::silence();
        }
    };
    // It ends with the loop that it runs on.
    beat.map(|beat| tokio::task::spawn_local(beat.run()));
    let code = worker::run(Arc::new(plan), doors, ready).await;
    Ok(Exit::Code(code))
}

/// Tells of another living worker of this name. A broker that does not say is told of elsewhere.
async fn look_for_twin(client: &Client, plan: &Plan) {
    let Plan { hostname, broker, .. } = plan;
    let nodes = client.outlet.nodes().await.unwrap_or_default();
    if nodes.iter().any(|node| node.hostname == *hostname) {
        tracing::warn!(
            "worker: another worker named {hostname} is alive on {broker}: name one of them with -n"
        );
    }
}

/// Runs processes, in control groups where that is wished for.
fn shell(app: &App, plan: &Plan, reaper: &Rc<Reaper>) -> std::io::Result<Rc<Shell>> {
    let shell = Shell::new(reaper.clone(), plan.app.clone())?;
    // Both were killed at once if there is anything.
    os::cgroup::clear_abandoned();
    Ok(match app.settings.task_cgroups {
        true => Rc::new(shell.with_groups(os::Pid::parent())),
        false => Rc::new(shell),
    })
}

/// Python workers drop what they do not know, so they must not serve our queues.
async fn warn_of_python(outlet: &Outlet) {
    let Outlet::Redis(outlet) = outlet else { return };
    let nodes = outlet.python_nodes().await.unwrap_or_default();
    if let Some(first) = nodes.first() {
        let (first, others) = (crate::log::escape::name(first), nodes.len() - 1);
        tracing::warn!(
            "Python workers are on this server ({first} and {others} others): they acknowledge and drop tasks that \
             they do not know. Give the tasks of this application a queue that they do not serve: \
             task_default_queue here, or task_routes in the Python application"
        );
    }
}

/// Registers the worker with the broker; its lease is held by its guard too, until no
/// process of its tasks is left.
async fn take_from(
    app: &App,
    client: &Client,
    plan: &Plan,
    guard: &Rc<GuardLink>,
) -> Result<(Inlet, Outlet, Store), Error> {
    let survey = client.survey(&plan.queues).await?;
    survey.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    may_work(app, &survey)?;
    let (inlet, outlet) = match &client.outlet {
        Outlet::Sqlite(outlet) => {
            let db = outlet.db();
            let guard = guard.clone();
            let hold = Box::new(move |lease: &Path| guard.hold(lease));
            let inlet = broker::sqlite::Inlet::open(db, &plan.hostname, &plan.queues, hold).await?;
            let outlet = Outlet::Sqlite(inlet.outlet());
            (Inlet::Sqlite(inlet), outlet)
        }
        Outlet::Redis(outlet) => {
            let who = broker::redis::Identity {
                hostname: &plan.hostname,
                queues: &plan.queues,
                visibility_timeout: app.settings.broker_transport_options.visibility_timeout,
            };
            let inlet = broker::redis::Inlet::open(outlet, who).await?;
            if let Some(Err(error)) = inlet.lease().map(|lease| guard.hold(lease)) {
                return Err(Error::failure(format!("the guard cannot hold the lease: {error}")));
            }
            let outlet = Outlet::Redis(inlet.outlet());
            (Inlet::Redis(inlet), outlet)
        }
    };
    let store = match (&client.store, &outlet) {
        (Store::Redis(store), Outlet::Redis(outlet)) => {
            Store::Redis(store.of_worker(Some(outlet.link()))?)
        }
        (Store::Redis(store), _) => Store::Redis(store.of_worker(None)?),
        (store, _) => store.clone(),
    };
    if let Store::Redis(store) = &store {
        // A result store that nobody reaches is told now, not with the first result.
        store.link().session().await?;
    }
    warn_of_python(&outlet).await;
    Ok((inlet, outlet, store))
}

/// Refuses to start where a worker could not do its work.
fn may_work(app: &App, survey: &broker::Survey) -> Result<(), Error> {
    if survey.refused.is_empty() {
        return Ok(());
    }
    let text = format!("{}: this user may not {}", app.broker(), survey.refused.join(", "));
    Err(Error::unavailable(text).hint("a worker needs these; allow them with ACL SETUSER"))
}

/// What the user sees first.
fn banner(app: &App, plan: &Plan, client: &Client) -> String {
    let results = match (&app.settings.result_backend, &client.store) {
        (_, crate::backend::Store::Disabled) => "disabled://".to_string(),
        (Some(url), _) => url.to_string(),
        (None, _) => "in the broker".to_string(),
    };
    let slots = match plan.autoscale {
        Some(scale) => format!("{{min={}, max={}}}", scale.min, plan.slots),
        None => plan.slots.to_string(),
    };
    let mut text = format!(
        "\n {} v{}\n\n [config]\n .> app:         {}\n .> transport:   {}\n .> results:     {results}\n .> concurrency: {slots}\n\n [queues]\n",
        plan.hostname,
        env!("CARGO_PKG_VERSION"),
        app.folder.display(),
        app.broker(),
    );
    for queue in &plan.queues {
        text.push_str(&format!(" .> {queue:<16} exchange=(direct) key={queue}\n"));
    }
    if plan.chatty || std::io::stdout().is_terminal() {
        text.push_str("\n [tasks]\n");
        for task in plan.tasks.iter() {
            text.push_str(&format!("  . {}\n", task.name));
        }
    }
    text.push('\n');
    text
}
