//! `qworker worker`: takes tasks and runs them, in the foreground unless `--detach` is given.

mod banner;
mod definitions;
mod open;
mod plan;
mod serve;

use super::app::{App, GlobalOptions};
use super::beat;
use super::daemon::{self, DaemonStart};
use super::exit::{Error, Exit};
use super::logging;
use super::output::ToUser;
use super::variables;
use crate::config::kind;
use crate::guard::{self, Orders, Role};
use crate::os;
use crate::os::pidfile::Pidfile;
use plan::{Bounds, autoscale, given, setting, slots};
use serve::serve;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Node name, NAME@HOST; %h is the host name, %n the name part, %d the domain [default: celery@%h]
    #[arg(short = 'n', long, value_name = "NODE", env = "QWORKER_WORKER_HOSTNAME")]
    hostname: Option<String>,
    /// How many tasks run at once, or auto [default: the number of processors, or the processor
    /// quota of the control group]
    #[arg(short, long, value_name = "N", allow_negative_numbers = true)]
    concurrency: Option<String>,
    /// Scale between MIN [default: 0] and MAX slots: slots are added at once when tasks wait, and
    /// removed when they were not needed for worker_autoscale_keepalive (30 s). No task is ever
    /// interrupted
    #[arg(long, value_name = "MAX[,MIN]", allow_negative_numbers = true, conflicts_with = "concurrency", value_parser = autoscale)]
    autoscale: Option<Bounds>,
    /// Queues to consume, separated by commas [default: the default queue and those of the tasks]
    #[arg(short = 'Q', long, value_delimiter = ',', value_parser = kind::listed, env = "QWORKER_WORKER_QUEUES")]
    queues: Vec<String>,
    /// Queues not to consume, separated by commas
    #[arg(short = 'X', long, value_delimiter = ',', value_parser = kind::listed, env = "QWORKER_WORKER_EXCLUDE_QUEUES")]
    exclude_queues: Vec<String>,
    #[command(flatten)]
    log: logging::Args,
    /// Kill a task after this many seconds, unless the task sets its own limit
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    time_limit: Option<String>,
    /// Ask a task to end (TERM) after this many seconds, unless the task sets its own limit
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    soft_time_limit: Option<String>,
    /// How long a warm shutdown waits for running tasks; then it asks them to end (TERM), kills them
    /// 2 s later, and gives their messages back [default: as long as they take]
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    soft_shutdown_timeout: Option<String>,
    /// Take a message only when a slot is free for it
    #[arg(long)]
    disable_prefetch: bool,
    /// Remove all waiting messages from the queues first
    #[arg(long, alias = "discard", env = "QWORKER_WORKER_PURGE", value_parser = super::truth())]
    purge: bool,
    #[command(flatten)]
    daemon: daemon::Args,
    #[command(flatten)]
    program: daemon::OfWorker,
    #[command(flatten)]
    beat: beat::Embedded,
    /// Settings, after --, such as `worker_prefetch_multiplier=2` or `worker.prefetch_multiplier=2`
    #[arg(last = true, value_name = "SETTING=VALUE", value_parser = setting)]
    settings: Vec<(String, String)>,
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
    let hostname = App::node_name(args.hostname.as_deref(), "celery")?;
    let Role::Restarted(fd) = role else { return begin(args, hostname, global, role, None, out) };
    // Taken over first, so that it is removed if something is wrong by now; the log says what.
    let (log, node) = (args.log.clone(), hostname.clone());
    let pidfile = args.daemon.go_on(&hostname, fd);
    let ended = pidfile.and_then(|pidfile| begin(args, hostname, global, role, pidfile, out));
    ended.inspect_err(|error| log.complain(&node, &out, &error.to_string()))
}

/// Does what this role does; `inherited` is the pidfile that the process held before it restarted.
fn begin(
    args: Args,
    hostname: String,
    global: &GlobalOptions,
    role: Role,
    inherited: Option<Pidfile>,
    out: ToUser,
) -> Result<Exit, Error> {
    let app = App::open(global, &given(&args))?;
    let log = args.log.options(&hostname, &app.settings, &out)?;
    // Mistakes are reported before a worker is started, or detached, in vain.
    let executable = args.program.executable()?;
    slots(&args, &app.settings)?;
    let begun = match role {
        Role::Worker(guard) => {
            return serve(app, args, hostname, log, guard, global, out);
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
        Role::Restarted(_) => DaemonStart::Here { pidfile: inherited, launcher: None },
    };
    let (pidfile, launcher) = match begun {
        DaemonStart::Here { pidfile, launcher } => (pidfile, launcher),
        DaemonStart::Elsewhere(exit) => return Ok(exit),
    };
    let folder = os::cwd::current()
        .map_err(|error| Error::failure(format!("the current folder: {error}")))?;
    let argv = std::iter::once(os::cwd::program()).chain(std::env::args_os().skip(1)).collect();
    let orders = Orders { argv, executable, folder, pidfile, launcher };
    let code = guard::run(orders, |note| logging::note(&log, &out, note));
    Ok(Exit::Code(u8::try_from(code).unwrap_or(1)))
}
