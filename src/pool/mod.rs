//! Runs many attempts at once: processes on the event loop, WASM on threads of its own.
//! Which and how many is the worker's business; here everything that is started runs.

mod compile;
mod threads;

use crate::os::panics;
use crate::runner::shell::Shell;
use crate::runner::wasm::{Prepared, Runtime};
use crate::runner::{Attempt, Cancel, Ending, Outcome, Why};
use crate::wire::Exception;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
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
    Wasm(Cancel),
    /// A module being compiled, and the order for the attempt that follows.
    Compiling(oneshot::Sender<Why>, Cancel),
}

/// What a process is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    GoOn,
    End,
    Die(Why),
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
        let stop = match attempt.task.program.is_process() {
            true => Some(self.start_process(key, attempt)),
            false => self.start_wasm(key, attempt),
        };
        if let Some(stop) = stop {
            self.stops.insert(key, stop);
        }
    }

    /// Asks an attempt to end, since the worker shuts down. A process gets TERM; anything else, which
    /// could not use the time, is stopped.
    pub fn ask(&mut self, key: Key) {
        match self.stops.get(&key) {
            Some(Stop::Process(wish)) => {
                wish.send_replace(Wish::End);
            }
            _ => self.stop(key, Why::Shutdown),
        }
    }

    /// Stops an attempt at once; it is reported as cancelled.
    pub fn stop(&mut self, key: Key, why: Why) {
        match self.stops.remove(&key) {
            Some(Stop::Process(wish)) => {
                wish.send_replace(Wish::Die(why));
            }
            Some(Stop::Wasm(cancel)) => drop(cancel.set(why)),
            // An attempt that has ended already is not listening.
            Some(Stop::Compiling(stop, cancel)) => {
                let _ = cancel.set(why);
                let _ = stop.send(why);
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
            let (ask, cancel) = (asked(wishes.clone()), cancelled(wishes));
            let run = hands.shell.run(&attempt, ask, cancel);
            promise.keep(panics::contained_future(run).await);
        });
        Stop::Process(wish)
    }

    fn start_wasm(&self, key: Key, attempt: Attempt) -> Option<Stop> {
        let cancel = Cancel::default();
        let work = Work { key, attempt: Box::new(attempt), cancel: cancel.clone() };
        match self.hands.runtime.prepare(&work.attempt.task) {
            Prepared::Ready => {
                self.hands.threads.run(work);
                Some(Stop::Wasm(cancel))
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
                Some(Stop::Compiling(stop, cancel))
            }
        }
    }
}

/// Resolves when the process is to end, one way or the other.
async fn asked(mut wishes: watch::Receiver<Wish>) {
    // A dropped handle means "nobody will stop it", not "stop".
    if wishes.wait_for(|wish| *wish != Wish::GoOn).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Resolves when the process is to be killed.
async fn cancelled(mut wishes: watch::Receiver<Wish>) -> Why {
    match wishes.wait_for(|wish| matches!(wish, Wish::Die(_))).await.as_deref() {
        Ok(Wish::Die(why)) => *why,
        _ => std::future::pending().await,
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
