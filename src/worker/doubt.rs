//! Tasks that ended as those do that are told to end, while nobody has told the worker: what is
//! sent to all processes of a service (systemd's `KillMode=control-group`) may reach a task first.
//! Such an end waits a moment for its reason.

use super::request::Key;
use crate::runner::{Ending, Outcome};
use crate::task::Task;
use nix::sys::signal::Signal::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use std::time::{Duration, Instant};

/// What is sent to all arrives everywhere within milliseconds, on a busy host within this.
const WAIT: Duration = Duration::from_secs(1);

/// What a shell adds to the number of a signal that has ended its command.
const OF_SHELL: i32 = 128;

/// The ends that wait, in the order in which they came.
#[derive(Debug, Default)]
pub struct Doubts(Vec<(Key, Box<Outcome>, Instant)>);

impl Doubts {
    /// One more.
    pub fn add(&mut self, key: Key, outcome: Box<Outcome>, now: Instant) {
        self.0.push((key, outcome, now + WAIT));
    }

    /// Those for which no reason has come in time; with `all`, the others too.
    pub fn take(&mut self, all: bool, now: Instant) -> Vec<(Key, Box<Outcome>)> {
        let due = self.0.extract_if(.., |(.., until)| all || *until <= now);
        due.map(|(key, outcome, _)| (key, outcome)).collect()
    }

    /// Is there none?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Is this how a task ends that somebody else has told to end?
pub fn is_told(outcome: &Outcome, task: &Task) -> bool {
    let by = |number: i32| {
        [SIGTERM, SIGINT, SIGHUP, SIGQUIT].into_iter().any(|signal| signal as i32 == number)
    };
    let told = match outcome.ending {
        Ending::Signaled(signal) => by(signal),
        Ending::Exited(code) => by(code - OF_SHELL) && !task.ok.contains(&code),
        _ => false,
    };
    told && outcome.limit.is_none() && !outcome.asked
}
