//! What is known when the instance is gone: an outcome without its times.

use super::sandbox::Sandbox;
use super::trap::{self, Phase};
use super::watch::{State, Watch};
use crate::os::reap::time_of_thread;
use crate::runner::{Attempt, Captured, Ending, Limit, Outcome, Usage};
use crate::wire::Exception;
use std::time::{Duration, Instant};
use wasmtime::Store;

/// An outcome in the making.
#[derive(Debug)]
pub struct Report {
    ending: Ending,
    limit: Option<Limit>,
    stdout: Captured,
    stderr: Captured,
    usage: Usage,
}

impl Report {
    /// It ended so.
    pub fn new(watch: &Watch, ending: Ending) -> Report {
        let (stdout, stderr) = (Captured::default(), Captured::default());
        Report { ending, limit: None, stdout, stderr, usage: watch.usage() }
    }

    /// A function returned this JSON text.
    pub fn returned(watch: &Watch, json: String) -> Report {
        let mut report = Report::new(watch, Ending::Returned);
        report.stdout.bytes = json.into_bytes();
        report
    }

    /// It ended with an error, or by a limit, or by an exit code.
    pub fn failed(
        watch: &Watch,
        error: &wasmtime::Error,
        phase: Phase,
        attempt: &Attempt,
    ) -> Report {
        let (ending, limit) = trap::ending(error, phase, watch, attempt.task.fuel);
        Report { limit, ..Report::new(watch, ending) }
    }

    /// It never began.
    pub fn refused(exception: Exception) -> Report {
        Report {
            ending: Ending::Refused(exception),
            limit: None,
            stdout: Captured::default(),
            stderr: Captured::default(),
            usage: Usage::default(),
        }
    }

    /// With what a command wrote.
    pub fn with_outputs(mut self, sandbox: &Sandbox) -> Report {
        (self.stdout, self.stderr) = sandbox.outputs();
        self
    }

    /// With what a function wrote beside its result.
    pub fn with_stderr(mut self, sandbox: &Sandbox) -> Report {
        self.stderr = sandbox.outputs().1;
        self
    }

    /// The outcome of an attempt that began at `started` and is over now. Before it, this
    /// thread had used so much processor time.
    pub fn outcome(self, started: Instant, before: (Duration, Duration)) -> Outcome {
        let Report { ending, limit, stdout, stderr, usage } = self;
        let ending = match ending {
            Ending::Refused(exception) => Ending::refused(exception),
            ending => ending,
        };
        let (user, system) = time_of_thread();
        let user = user.saturating_sub(before.0);
        let usage = Usage { user, system: system.saturating_sub(before.1), ..usage };
        Outcome {
            ending,
            limit,
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

/// Gives the store its fuel, if the task has a bound.
///
/// # Errors
/// Never in practice: tasks with a bound get an engine that counts.
pub fn fuel<W>(store: &mut Store<State<W>>, attempt: &Attempt) -> Result<(), Exception> {
    let Some(fuel) = attempt.task.fuel else { return Ok(()) };
    store.set_fuel(fuel).map_err(|why| {
        Exception::new("builtins", "RuntimeError", format!("cannot count fuel: {why:#}"))
    })
}
