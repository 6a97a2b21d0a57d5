//! Runs many attempts at once: processes on the event loop, WASM on threads of its own.
//! Which and how many is the worker's business; here everything that is started runs.

mod compile;
mod threads;

use crate::os::panics;
use crate::runner::shell::Shell;
use crate::runner::wasm::{Prepared, Runtime};
use crate::runner::{Attempt, Ending, Outcome};
use crate::task::Program;
use crate::wire::Exception;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use threads::{Threads, Work};
use tokio::sync::{oneshot, watch};

/// Names an attempt.
pub type Key = u64;

/// What is told when an attempt has ended.
pub type Report = Arc<dyn Fn(Key, Box<Outcome>) + Send + Sync>;

/// Everything that runs.
pub struct Pool {
    hands: Rc<Hands>,
    stops: HashMap<Key, Stop>,
}

/// What an attempt needs after [`Pool::start`] has returned.
struct Hands {
    shell: Rc<Shell>,
    runtime: Runtime,
    threads: Threads,
    report: Report,
    compiler: compile::Compiler,
}

/// The handle that stops an attempt.
enum Stop {
    Process(watch::Sender<Wish>),
    Wasm(Arc<AtomicBool>),
    /// A module being compiled, and the flag for what follows.
    Compiling(oneshot::Sender<()>, Arc<AtomicBool>),
}

/// What a process is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Wish {
    GoOn,
    End,
    Die,
}

impl Pool {
    /// A pool with threads for `slots` WASM instances, none started yet.
    pub fn new(shell: Rc<Shell>, runtime: Runtime, slots: usize, report: Report) -> Pool {
        let threads = Threads::new(runtime.clone(), slots, report.clone());
        let compiler = compile::Compiler::new(shell.clone(), runtime.clone());
        let hands = Rc::new(Hands { shell, runtime, threads, report, compiler });
        Pool { hands, stops: HashMap::new() }
    }

    /// Starts `attempt`; its end is reported under `key`. Must run inside a `LocalSet`.
    pub fn start(&mut self, key: Key, attempt: Attempt) {
        let stop = match attempt.task.program {
            Program::Wasm { .. } => self.start_wasm(key, attempt),
            Program::Shell(_) | Program::Exec(_) | Program::File(_) => {
                Some(self.start_process(key, attempt))
            }
        };
        if let Some(stop) = stop {
            self.stops.insert(key, stop);
        }
    }

    /// Asks an attempt to end. A process gets TERM; all else, which could do nothing with
    /// the time, is stopped.
    pub fn ask(&mut self, key: Key) {
        match self.stops.get(&key) {
            Some(Stop::Process(wish)) => {
                wish.send_replace(Wish::End);
            }
            _ => self.stop(key),
        }
    }

    /// Stops an attempt at once; it is reported as cancelled.
    pub fn stop(&mut self, key: Key) {
        match self.stops.remove(&key) {
            Some(Stop::Process(wish)) => {
                wish.send_replace(Wish::Die);
            }
            Some(Stop::Wasm(flag)) => flag.store(true, Ordering::Relaxed),
            // Whoever has ended already is past stopping.
            Some(Stop::Compiling(stop, flag)) => {
                flag.store(true, Ordering::Relaxed);
                let _ = stop.send(());
            }
            None => {}
        }
    }

    /// Forgets an attempt that was reported.
    pub fn forget(&mut self, key: Key) {
        self.stops.remove(&key);
    }

    fn start_process(&self, key: Key, attempt: Attempt) -> Stop {
        let (wish, wishes) = watch::channel(Wish::GoOn);
        let hands = self.hands.clone();
        tokio::task::spawn_local(async move {
            let promise = Promise { key, report: Some(hands.report.clone()) };
            let (ask, cancel) = (until(wishes.clone(), Wish::End), until(wishes, Wish::Die));
            let run = hands.shell.run(&attempt, ask, cancel);
            promise.keep(panics::contained_future(run).await);
        });
        Stop::Process(wish)
    }

    fn start_wasm(&self, key: Key, attempt: Attempt) -> Option<Stop> {
        let flag = Arc::new(AtomicBool::new(false));
        let work = Work { key, attempt: Box::new(attempt), stop: flag.clone() };
        match self.hands.runtime.prepare(&work.attempt.task) {
            Prepared::Ready => {
                self.hands.threads.run(work);
                Some(Stop::Wasm(flag))
            }
            Prepared::Refused(exception) => {
                (self.hands.report)(key, Box::new(Outcome::immediate(Ending::refused(exception))));
                None
            }
            Prepared::Compile { target, .. } => {
                let (stop, stopped) = oneshot::channel();
                let hands = self.hands.clone();
                tokio::task::spawn_local(async move {
                    let promise = Promise { key, report: Some(hands.report.clone()) };
                    let compile = hands.compiler.compile(&work.attempt, target, stopped);
                    match panics::contained_future(compile).await {
                        Ok(()) => {
                            promise.forget();
                            hands.threads.run(work);
                        }
                        Err(outcome) => promise.keep(*outcome),
                    }
                });
                Some(Stop::Compiling(stop, flag))
            }
        }
    }
}

/// Resolves when so much is wished for.
async fn until(mut wishes: watch::Receiver<Wish>, wish: Wish) {
    // A dropped handle means "nobody will stop it", not "stop".
    if wishes.wait_for(|now| *now >= wish).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Reports an outcome whatever happens: a panic in a runner must not cost a slot.
struct Promise {
    key: Key,
    report: Option<Report>,
}

impl Promise {
    fn keep(mut self, outcome: Outcome) {
        if let Some(report) = self.report.take() {
            report(self.key, Box::new(outcome));
        }
    }

    /// Somebody else reports.
    fn forget(mut self) {
        self.report = None;
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        if let Some(report) = self.report.take() {
            let why = "the runner panicked; see the worker's log";
            let exception = Exception::new("builtins", "RuntimeError", why);
            report(self.key, Box::new(Outcome::immediate(Ending::Refused(exception))));
        }
    }
}
