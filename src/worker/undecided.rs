//! Tasks that died by a termination signal before the worker received one. A signal to all processes
//! of a service (systemd's `KillMode=control-group`) may reach a task first, so what such an ending
//! means is undecided for a moment.

use super::request::AttemptKey;
use crate::runner::{Ending, Outcome};
use crate::task::Task;
use nix::sys::signal::Signal::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use std::time::{Duration, Instant};

/// A signal to all processes reaches the worker within milliseconds, on a busy host within this.
const WAIT: Duration = Duration::from_secs(1);

/// A shell exits with this plus the number of the signal that ended its command.
const OF_SHELL: i32 = 128;

/// The undecided endings, oldest first.
#[derive(Debug, Default)]
pub(super) struct Undecided(Vec<(AttemptKey, Box<Outcome>, Instant)>);

impl Undecided {
    /// Adds an ending.
    pub(super) fn add(&mut self, key: AttemptKey, outcome: Box<Outcome>, now: Instant) {
        self.0.push((key, outcome, now + WAIT));
    }

    /// Removes those whose time is up; with `all`, all of them.
    pub(super) fn take(&mut self, all: bool, now: Instant) -> Vec<(AttemptKey, Box<Outcome>)> {
        let due = self.0.extract_if(.., |(.., until)| all || *until <= now);
        due.map(|(key, outcome, _)| (key, outcome)).collect()
    }

    /// Is nothing undecided?
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Does a task end like this when a termination signal is sent to it?
pub(super) fn is_terminated(outcome: &Outcome, task: &Task) -> bool {
    let by = |number: i32| {
        [SIGTERM, SIGINT, SIGHUP, SIGQUIT].into_iter().any(|signal| signal as i32 == number)
    };
    let terminated = match outcome.ending {
        Ending::Signaled(signal) => by(signal),
        Ending::Exited(code) => by(code - OF_SHELL) && !task.ok.contains(&code),
        _ => false,
    };
    terminated && outcome.limit.is_none() && !outcome.asked
}
