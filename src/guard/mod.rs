//! The guard: the small process above the worker that survives it.
//!
//! Whichever of the two is killed, by the kernel's memory killer for instance, the other ends
//! every process of every task: the guard because it adopts all orphans, the worker because its
//! end of their socket closes. The guard also represents the worker to the outside: the pidfile
//! names it, it talks to the service manager, and it stays when the worker restarts. It has one
//! thread and little state, so that little in it can fail.
//!
//! `lifecycle.rs` decides, `drive.rs` does.

mod command;
mod drive;
pub mod lifecycle;
mod probe;
mod signals;

use crate::link::guard::{self as link, GuardLink, GuardPresence};
use crate::os::continue_when_parent_ends;
use crate::os::daemon::LaunchReport;
use crate::os::environment;
use crate::os::exec;
use crate::os::pidfile::Pidfile;
use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::PathBuf;

/// Tells the program that it only has to say whether it would start.
const PROBE_VARIABLE: &str = "QWORKER_PROBE";

/// Tells the program that it continues an earlier guard in the same process.
const RESTARTED_VARIABLE: &str = "QWORKER_RESTARTED";

/// Variables between a guard, its worker, and the programs that are executed in their place.
pub const VARIABLES: [&str; 4] =
    [link::FD_VARIABLE, link::HEARTBEAT_VARIABLE, PROBE_VARIABLE, RESTARTED_VARIABLE];

/// What a guard works with.
#[derive(Debug)]
pub struct Orders {
    /// The command line, the program's name first.
    pub argv: Vec<OsString>,
    /// Another program than this one, for the worker and for restarts.
    pub executable: Option<PathBuf>,
    /// The folder in which each worker is started; looked up by this name each time.
    pub folder: PathBuf,
    /// Removed when the guard exits.
    pub pidfile: Option<Pidfile>,
    /// The process that waits until the worker is ready.
    pub launcher: Option<LaunchReport>,
}

/// As what this process was started.
#[derive(Debug)]
pub enum Role {
    /// By a user, or a service manager.
    Fresh,
    /// As a worker, by its guard.
    Worker(GuardLink),
    /// Only to say whether it would start.
    Probe,
    /// In the place of an earlier guard, whose pidfile has this descriptor.
    Restarted(Option<RawFd>),
}

/// The role of this process. To be called first of all, before any thread exists. A worker then
/// adopts orphans. `None` if the guard that started this process is dead: then it must exit,
/// because a worker without a guard must not run, and must not become a guard itself.
///
/// Anybody can set variables, so they only say where to look: a worker and a probe have a socket
/// that their parent created, and a restarted guard has a file that its own process created.
pub fn role() -> Option<Role> {
    let restarted = exec::left_text(RESTARTED_VARIABLE);
    let is_probe = environment::take(PROBE_VARIABLE).is_some();
    Some(match (link::join(), restarted) {
        (GuardPresence::Orphan, _) => return None,
        (GuardPresence::Guarded(_), _) if is_probe => Role::Probe,
        (GuardPresence::Guarded(link), _) => {
            // One that is stopped goes on when its guard dies, to end what it has started. Not a
            // probe, which dies with its guard: a process has one such signal.
            let _ = continue_when_parent_ends();
            Role::Worker(link)
        }
        (GuardPresence::Unguarded, Some(pidfile)) => Role::Restarted(pidfile.parse().ok()),
        (GuardPresence::Unguarded, None) => Role::Fresh,
    })
}

/// Runs the worker until it ends for good; returns the exit code for this process. `log` gets a
/// sentence for each unusual event.
///
/// # Panics
/// If a thread has been started already: the guard must not share its signals.
pub fn run(orders: Orders, log: impl Fn(&str)) -> i32 {
    let threads = std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    assert_eq!(threads, 1, "the guard must begin before any thread does");
    match drive::Drive::new(orders, &log) {
        Ok(mut drive) => drive.run(),
        Err(error) => {
            log(&format!("cannot guard a worker: {error}"));
            1
        }
    }
}
