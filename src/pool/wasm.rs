//! WASM attempts: their modules are compiled if need be, and they run on threads.

use super::compile::Compiler;
use super::threads::{ThreadJob, Threads};
use super::{AttemptKey, OnEnded, ReportGuard, Shared};
use crate::os::panics;
use crate::runner::shell::Shell;
use crate::runner::wasm::{Prepared, Runtime};
use crate::runner::{Attempt, Cancel, CancelReason, Ending, Outcome};
use std::rc::Rc;
use tokio::sync::oneshot;

/// See the module.
pub(super) struct Wasm {
    runtime: Runtime,
    threads: Threads,
    compiler: Compiler,
}

/// The handle that stops an attempt.
pub(super) enum WasmStopHandle {
    Running(Cancel),
    /// A module being compiled, and the order for the attempt that follows.
    Compiling(oneshot::Sender<CancelReason>, Cancel),
}

impl Wasm {
    pub(super) fn new(shell: Rc<Shell>, runtime: Runtime, slots: usize, on_ended: OnEnded) -> Wasm {
        let threads = Threads::new(runtime.clone(), slots, on_ended);
        let compiler = Compiler::new(shell, runtime.clone());
        Wasm { runtime, threads, compiler }
    }

    /// See [`super::Pool::recall`].
    pub(super) fn recall(&self) {
        self.threads.empty(|| Ending::Cancelled(CancelReason::Recalled));
    }
}

impl WasmStopHandle {
    pub(super) fn stop(self, why: CancelReason) {
        match self {
            WasmStopHandle::Running(cancel) => drop(cancel.set(why)),
            // An attempt that has ended already is not listening.
            WasmStopHandle::Compiling(stop, cancel) => {
                let _ = cancel.set(why);
                let _ = stop.send(why);
            }
        }
    }
}

impl Shared {
    /// Starts an attempt of a WASM task; none is left to stop if it is refused at once.
    pub(super) fn start_wasm(
        self: Rc<Shared>,
        key: AttemptKey,
        attempt: Attempt,
    ) -> Option<WasmStopHandle> {
        let cancel = Cancel::default();
        let work = ThreadJob { key, attempt: Box::new(attempt), cancel: cancel.clone() };
        match self.wasm.runtime.prepare(&work.attempt.task) {
            Prepared::Ready => {
                self.wasm.threads.run(work);
                Some(WasmStopHandle::Running(cancel))
            }
            Prepared::Refused(exception) => {
                (self.on_ended)(key, Box::new(Outcome::immediate(Ending::refused(exception))));
                None
            }
            Prepared::Compile { target, .. } => {
                let (stop, stopped) = oneshot::channel();
                tokio::task::spawn_local(async move {
                    let guard = ReportGuard { key, on_ended: Some(self.on_ended.clone()) };
                    let compile = self.wasm.compiler.compile(&work.attempt, target, stopped);
                    match panics::contained_future(compile).await {
                        Ok(()) => {
                            guard.disarm();
                            self.wasm.threads.run(work);
                        }
                        Err(outcome) => guard.send(*outcome),
                    }
                });
                Some(WasmStopHandle::Compiling(stop, cancel))
            }
        }
    }
}
