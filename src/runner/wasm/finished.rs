//! What is known when the instance is gone: an outcome without its times.

use super::monitor::Monitor;
use super::sandbox::Sandbox;
use super::trap::{self, TrapPhase};
use crate::os::reap::time_of_thread;
use crate::runner::{Attempt, Captured, Ending, Outcome, ResourceUsage, TimeLimit};
use crate::wire::Exception;
use std::time::{Duration, Instant};

/// An outcome in the making.
#[derive(Debug)]
pub(super) struct Finished {
    ending: Ending,
    limit: Option<TimeLimit>,
    stdout: Captured,
    stderr: Captured,
    usage: ResourceUsage,
}

impl Finished {
    /// It ended so.
    pub(super) fn new(monitor: &Monitor, ending: Ending) -> Finished {
        let (stdout, stderr) = (Captured::default(), Captured::default());
        Finished { ending, limit: None, stdout, stderr, usage: monitor.usage() }
    }

    /// A function returned this JSON text.
    pub(super) fn returned(monitor: &Monitor, json: String) -> Finished {
        let mut finished = Finished::new(monitor, Ending::Returned);
        finished.stdout.bytes = json.into_bytes();
        finished
    }

    /// It ended with an error, or by a limit, or by an exit code.
    pub(super) fn failed(
        monitor: &Monitor,
        error: &wasmtime::Error,
        phase: TrapPhase,
        attempt: &Attempt,
    ) -> Finished {
        let (ending, limit) = trap::ending(error, phase, monitor, attempt.task.fuel);
        Finished { limit, ..Finished::new(monitor, ending) }
    }

    /// It never began.
    pub(super) fn refused(exception: Exception) -> Finished {
        Finished {
            ending: Ending::Refused(exception),
            limit: None,
            stdout: Captured::default(),
            stderr: Captured::default(),
            usage: ResourceUsage::default(),
        }
    }

    /// With what a command wrote.
    pub(super) fn with_outputs(mut self, sandbox: &Sandbox) -> Finished {
        (self.stdout, self.stderr) = sandbox.outputs();
        self
    }

    /// With what a function wrote beside its result.
    pub(super) fn with_stderr(mut self, sandbox: &Sandbox) -> Finished {
        self.stderr = sandbox.outputs().1;
        self
    }

    /// The outcome of an attempt that began at `started` and is over now. Before it, this
    /// thread had used so much processor time.
    pub(super) fn outcome(self, started: Instant, before: (Duration, Duration)) -> Outcome {
        let Finished { ending, limit, stdout, stderr, usage } = self;
        let ending = match ending {
            Ending::Refused(exception) => Ending::refused(exception),
            ending => ending,
        };
        let (user, system) = time_of_thread();
        let user = user.saturating_sub(before.0);
        let usage = ResourceUsage { user, system: system.saturating_sub(before.1), ..usage };
        Outcome {
            ending,
            limit,
            said: None,
            asked: false,
            exhausted: None,
            stdout,
            stderr,
            usage,
            started,
            runtime: started.elapsed(),
        }
    }
}
