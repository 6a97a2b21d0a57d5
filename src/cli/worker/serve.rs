//! The worker below its guard: builds its parts and runs it.

use super::Args;
use super::banner::banner;
use super::definitions;
use super::open::{open, warn_of_namesake};
use super::plan::{given, plan, queues};
use crate::cli::app::{App, GlobalOptions};
use crate::cli::exit::{Error, Exit};
use crate::cli::output::ToUser;
use crate::cli::{beat, block_on, logging};
use crate::client::Client;
use crate::link::guard::GuardLink;
use crate::log;
use crate::os;
use crate::os::reap::Reaper;
use crate::os::signal::{Signals, Term};
use crate::pool::Pool;
use crate::runner::shell::Shell;
#[cfg(feature = "wasm")]
use crate::runner::wasm;
use crate::task::set::Set;
use crate::worker;
use crate::worker::core::Event;
use crate::worker::drive::Io;
use crate::worker::plan::Plan;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Runs a worker until a signal ends it.
///
/// # Errors
/// Something that a worker needs is missing.
pub(super) fn serve(
    app: App,
    args: Args,
    hostname: String,
    log: log::LogOptions,
    guard: GuardLink,
    global: &GlobalOptions,
    out: ToUser,
) -> Result<Exit, Error> {
    let stamp = app.stamp();
    let tasks = app.tasks(&out)?;
    app.tell_notes(&out);
    let queues = queues(&app, &args, &tasks)?;
    // The worker can do much even with the old limit.
    let _ = os::open_files::raise_limit();
    let beat = args.beat.prepare(&app, global, given(&args))?;
    block_on(async move {
        let work = work(app, (hostname, queues, tasks), args, log, guard, (beat, stamp), out);
        tokio::task::LocalSet::new().run_until(work).await
    })
}

async fn work(
    app: App,
    (hostname, queues, tasks): (String, Vec<String>, Set),
    args: Args,
    log: log::LogOptions,
    guard: GuardLink,
    (beat, stamp): (Option<beat::Prepared>, u64),
    out: ToUser,
) -> Result<Exit, Error> {
    let remapped = std::env::var("REMAP_SIGTERM").is_ok_and(|name| name == "SIGQUIT");
    let term = if remapped { Term::Cold } else { Term::Warm };
    let signals = Signals::listen(term, Some(os::Pid::parent()))
        .map_err(|error| cannot("listen to signals", error))?;
    let reaper = Reaper::start().map_err(|error| cannot("watch processes", error))?;
    let _log = logging::start(log, out);
    let client = app.client()?;
    let plan = plan(&app, &args, hostname, queues, tasks, &client)?;
    if args.purge {
        purge(&client, &plan, out).await?;
    }
    let guard = Rc::new(guard);
    if args.program.replace.is_none() {
        warn_of_namesake(&client, &plan).await;
    }
    let (consumer, ends) = open(&app, &client, &plan, &guard).await?;
    let events = mpsc::unbounded_channel();
    let pool = pool(&app, &plan, &reaper, events.0.clone())?;
    if !out.quiet && !args.daemon.detach {
        out.announce(&banner(&app, &plan, &client));
    }
    drop(client);
    let tasks = definitions::watch(app, stamp);
    let io = Io { consumer, ends, pool, reaper, tasks, events, signals, guard };
    let line = format!("{} ready.", plan.hostname);
    let ready = || {
        log::line(tracing::Level::INFO, &line);
        if !args.log.is_chatty() {
            out.say(&line);
        }
        if args.daemon.detach {
            os::daemon::silence();
        }
    };
    // It ends with the event loop.
    beat.map(|beat| tokio::task::spawn_local(beat.run()));
    let code = worker::run(Arc::new(plan), io, ready).await;
    Ok(Exit::Code(code))
}

fn cannot(what: &str, error: io::Error) -> Error {
    Error::failure(format!("cannot {what}: {error}"))
}

async fn purge(client: &Client, plan: &Plan, out: ToUser) -> Result<(), Error> {
    let purged = client.broker.admin().purge(plan.queues.clone()).await?;
    let messages = if purged == 1 { "message" } else { "messages" };
    out.announce(&format!("purge: Erased {purged} {messages}.\n"));
    Ok(())
}

/// What runs attempts; their outcomes go to `events`.
fn pool(
    app: &App,
    plan: &Plan,
    reaper: &Rc<Reaper>,
    events: mpsc::UnboundedSender<Event>,
) -> Result<Pool, Error> {
    let shell =
        shell(app, plan, reaper).map_err(|error| cannot("prepare to run processes", error))?;
    #[cfg(feature = "wasm")]
    let runtime = wasm::Runtime::new(wasm::Config {
        cache_dir: plan.wasm_cache.clone(),
        slots: plan.slots,
        default_memory: plan.wasm_memory,
        compile_timeout: plan.wasm_compile_timeout,
    });
    let report = Arc::new(move |key, outcome| {
        // The loop that listens ends last.
        let _ = events.send(Event::Ended(key, outcome));
    });
    Ok(Pool::new(
        shell,
        #[cfg(feature = "wasm")]
        runtime,
        #[cfg(feature = "wasm")]
        plan.slots,
        report,
    ))
}

/// Runs processes, in control groups if `task_cgroups` is set.
fn shell(app: &App, plan: &Plan, reaper: &Rc<Reaper>) -> io::Result<Rc<Shell>> {
    let shell = Shell::new(reaper.clone(), plan.app.clone())?;
    // There are some only if a worker and its guard were killed at once.
    os::cgroup::clear_abandoned();
    Ok(match app.settings.task_cgroups {
        true => Rc::new(shell.with_groups(os::Pid::parent())),
        false => Rc::new(shell),
    })
}
