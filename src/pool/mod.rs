//! Runs many attempts at once: processes on the event loop, WASM on threads. The worker decides
//! which and how many; everything that is started here runs.

#[cfg(feature = "wasm")]
mod compile;
#[cfg(feature = "wasm")]
mod threads;
#[cfg(feature = "wasm")]
mod wasm;

use crate::os::panics;
use crate::runner::shell::Shell;
#[cfg(feature = "wasm")]
use crate::runner::wasm::Runtime;
use crate::runner::{Attempt, CancelReason, Ending, Outcome};
#[cfg(not(feature = "wasm"))]
use crate::task::NO_WASM;
use crate::wire::Exception;
use rustc_hash::FxHashMap;
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::watch;

/// Identifies an attempt.
pub type AttemptKey = u64;

/// Called when an attempt has ended.
pub type OnEnded = Arc<dyn Fn(AttemptKey, Box<Outcome>) + Send + Sync>;

/// Everything that runs.
pub struct Pool {
    shared: Rc<Shared>,
    stops: FxHashMap<AttemptKey, StopHandle>,
}

/// What an attempt needs after [`Pool::start`] has returned.
struct Shared {
    shell: Rc<Shell>,
    #[cfg(feature = "wasm")]
    wasm: wasm::Wasm,
    on_ended: OnEnded,
}

/// The handle that stops an attempt.
enum StopHandle {
    Process(watch::Sender<Control>),
    #[cfg(feature = "wasm")]
    Wasm(wasm::WasmStopHandle),
}

/// What a process is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Control {
    Run,
    Terminate,
    Kill(CancelReason),
}

impl Pool {
    /// A pool with threads for `slots` WASM instances, none started yet.
    pub fn new(
        shell: Rc<Shell>,
        #[cfg(feature = "wasm")] runtime: Runtime,
        #[cfg(feature = "wasm")] slots: usize,
        on_ended: OnEnded,
    ) -> Pool {
        #[cfg(feature = "wasm")]
        let wasm = wasm::Wasm::new(shell.clone(), runtime, slots, on_ended.clone());
        let shared = Shared {
            shell,
            #[cfg(feature = "wasm")]
            wasm,
            on_ended,
        };
        Pool { shared: Rc::new(shared), stops: FxHashMap::default() }
    }

    /// Starts `attempt`; its outcome is reported under `key`. Must run inside a `LocalSet`.
    pub fn start(&mut self, key: AttemptKey, attempt: Attempt) {
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
    pub fn ask(&mut self, key: AttemptKey) {
        match self.stops.get(&key) {
            Some(StopHandle::Process(control)) => {
                control.send_replace(Control::Terminate);
            }
            _ => self.stop(key, CancelReason::Shutdown),
        }
    }

    /// Stops an attempt at once; it is reported as cancelled.
    pub fn stop(&mut self, key: AttemptKey, why: CancelReason) {
        match self.stops.remove(&key) {
            Some(StopHandle::Process(control)) => {
                control.send_replace(Control::Kill(why));
            }
            #[cfg(feature = "wasm")]
            Some(StopHandle::Wasm(stop)) => stop.stop(why),
            None => {}
        }
    }

    /// Gives up the attempts that wait for a thread.
    pub fn recall(&self) {
        #[cfg(feature = "wasm")]
        self.shared.wasm.recall();
    }

    /// Forgets an attempt that was reported.
    pub fn forget(&mut self, key: AttemptKey) {
        self.stops.remove(&key);
    }

    #[cfg(feature = "wasm")]
    fn start_wasm(&self, key: AttemptKey, attempt: Attempt) -> Option<StopHandle> {
        self.shared.clone().start_wasm(key, attempt).map(StopHandle::Wasm)
    }

    #[cfg(not(feature = "wasm"))]
    fn start_wasm(&self, key: AttemptKey, _attempt: Attempt) -> Option<StopHandle> {
        let why = Exception::new("builtins", "RuntimeError", NO_WASM);
        (self.shared.on_ended)(key, Box::new(Outcome::immediate(Ending::refused(why))));
        None
    }

    fn start_process(&self, key: AttemptKey, attempt: Attempt) -> StopHandle {
        let (control, controls) = watch::channel(Control::Run);
        let shared = self.shared.clone();
        tokio::task::spawn_local(async move {
            let guard = ReportGuard { key, on_ended: Some(shared.on_ended.clone()) };
            let (ask, cancel) = (asked(controls.clone()), cancelled(controls));
            let run = shared.shell.run(&attempt, ask, cancel);
            guard.send(panics::contained_future(run).await);
        });
        StopHandle::Process(control)
    }
}

/// Resolves when the process is to end, one way or the other.
async fn asked(mut controls: watch::Receiver<Control>) {
    // A dropped handle means "nobody will stop it", not "stop".
    if controls.wait_for(|control| *control != Control::Run).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Resolves when the process is to be killed.
async fn cancelled(mut controls: watch::Receiver<Control>) -> CancelReason {
    match controls.wait_for(|control| matches!(control, Control::Kill(_))).await.as_deref() {
        Ok(Control::Kill(why)) => *why,
        _ => std::future::pending().await,
    }
}

/// Reports an outcome whatever happens: a panic in a runner must not cost a slot.
struct ReportGuard {
    key: AttemptKey,
    on_ended: Option<OnEnded>,
}

impl ReportGuard {
    fn send(mut self, outcome: Outcome) {
        if let Some(on_ended) = self.on_ended.take() {
            on_ended(self.key, Box::new(outcome));
        }
    }

    /// The outcome is reported elsewhere.
    #[cfg(feature = "wasm")]
    fn disarm(mut self) {
        self.on_ended = None;
    }
}

impl Drop for ReportGuard {
    fn drop(&mut self) {
        if let Some(on_ended) = self.on_ended.take() {
            let why = "the runner panicked; see the worker's log";
            let exception = Exception::new("builtins", "RuntimeError", why);
            on_ended(self.key, Box::new(Outcome::immediate(Ending::Refused(exception))));
        }
    }
}
