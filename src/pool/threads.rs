//! Threads that run WASM attempts. None exists before the first such task.

use super::{AttemptKey, OnEnded};
use crate::os::panics;
use crate::os::signal::with_signals_blocked;
use crate::runner::wasm::Runtime;
use crate::runner::{Attempt, Cancel, Ending, Outcome};
use crate::wire::Exception;
use crossbeam_channel::{Receiver, Sender};
use std::cell::Cell;

/// An attempt on its way to a thread.
pub(super) struct ThreadJob {
    /// Identifies it.
    pub key: AttemptKey,
    /// What to run.
    pub attempt: Box<Attempt>,
    /// Set to stop it.
    pub cancel: Cancel,
}

/// See the module.
pub(super) struct Threads {
    runtime: Runtime,
    slots: usize,
    on_ended: OnEnded,
    work: Sender<ThreadJob>,
    queue: Receiver<ThreadJob>,
    started: Cell<usize>,
}

impl Threads {
    /// At most `slots` threads.
    pub(super) fn new(runtime: Runtime, slots: usize, on_ended: OnEnded) -> Threads {
        let (work, queue) = crossbeam_channel::unbounded();
        Threads { runtime, slots, on_ended, work, queue, started: Cell::new(0) }
    }

    /// Runs it on a free thread. Starts another thread if work waits and there are fewer threads
    /// than slots.
    pub(super) fn run(&self, work: ThreadJob) {
        // `self` has a receiver, so this does not fail.
        let _ = self.work.send(work);
        if self.started.get() < self.slots && !self.queue.is_empty() {
            self.start_one();
        }
    }

    fn start_one(&self) {
        let (runtime, on_ended, queue) =
            (self.runtime.clone(), self.on_ended.clone(), self.queue.clone());
        let name = format!("wasm-{}", self.started.get());
        let body = move || {
            while let Ok(work) = queue.recv() {
                let outcome = run_one(&runtime, &work);
                on_ended(work.key, Box::new(outcome));
            }
        };
        match with_signals_blocked(|| std::thread::Builder::new().name(name).spawn(body)) {
            Ok(_) => self.started.set(self.started.get() + 1),
            // The existing threads continue; the next task tries again.
            Err(_) if self.started.get() > 0 => {}
            Err(error) => {
                let why = format!("start a thread for WASM: {error}");
                self.empty(|| Ending::NoCapacity(why.clone()));
            }
        }
    }

    /// Ends what waits for a thread.
    pub(super) fn empty(&self, ending: impl Fn() -> Ending) {
        for work in self.queue.try_iter() {
            (self.on_ended)(work.key, Box::new(Outcome::immediate(ending())));
        }
    }
}

fn run_one(runtime: &Runtime, work: &ThreadJob) -> Outcome {
    if let Some(why) = work.cancel.get() {
        return Outcome::immediate(Ending::Cancelled(*why));
    }
    panics::contained(|| runtime.run(&work.attempt, work.cancel.clone())).unwrap_or_else(|_| {
        let exception = Exception::new(
            "builtins",
            "RuntimeError",
            "the WASM runtime panicked; see the worker's log",
        );
        Outcome::immediate(Ending::Refused(exception))
    })
}
