//! Threads that run WASM attempts. None exists before the first such task.

use super::{Key, Report};
use crate::os::panics;
use crate::os::signal::deaf;
use crate::runner::wasm::Runtime;
use crate::runner::{Attempt, Cancel, Ending, Outcome};
use crate::wire::Exception;
use crossbeam_channel::{Receiver, Sender};
use std::cell::Cell;

/// One attempt on its way to a thread.
pub struct Work {
    /// Its name.
    pub key: Key,
    /// What to run.
    pub attempt: Box<Attempt>,
    /// Set to stop it.
    pub cancel: Cancel,
}

/// See the module.
pub struct Threads {
    runtime: Runtime,
    slots: usize,
    report: Report,
    work: Sender<Work>,
    queue: Receiver<Work>,
    started: Cell<usize>,
}

impl Threads {
    /// At most `slots` threads.
    pub fn new(runtime: Runtime, slots: usize, report: Report) -> Threads {
        let (work, queue) = crossbeam_channel::unbounded();
        Threads { runtime, slots, report, work, queue, started: Cell::new(0) }
    }

    /// Runs it on a free thread; starts one more while there are fewer than slots and
    /// work waits.
    pub fn run(&self, work: Work) {
        // The receiver lives in `self`: there is always somebody to send to.
        let _ = self.work.send(work);
        if self.started.get() < self.slots && !self.queue.is_empty() {
            self.start_one();
        }
    }

    fn start_one(&self) {
        let (runtime, report, queue) =
            (self.runtime.clone(), self.report.clone(), self.queue.clone());
        let name = format!("wasm-{}", self.started.get());
        let body = move || {
            while let Ok(work) = queue.recv() {
                let outcome = run_one(&runtime, &work);
                report(work.key, Box::new(outcome));
            }
        };
        match deaf(|| std::thread::Builder::new().name(name).spawn(body)) {
            Ok(_) => self.started.set(self.started.get() + 1),
            // Those that exist go on; the next task tries again.
            Err(_) if self.started.get() > 0 => {}
            Err(error) => {
                let why = format!("start a thread for WASM: {error}");
                for work in self.queue.try_iter() {
                    let ending = Ending::NoCapacity(why.clone());
                    (self.report)(work.key, Box::new(Outcome::immediate(ending)));
                }
            }
        }
    }
}

fn run_one(runtime: &Runtime, work: &Work) -> Outcome {
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
