//! Runs a guest whose host functions may wait. The code itself is stopped by the epoch;
//! a guest that sleeps in a host function runs no code, so its limits are kept here.

use super::monitor::{StopReason, StoreData};
use super::ticker::TICK;
use crate::runner::Cancel;
use std::cell::OnceCell;
use std::future::Future;
use std::io;
use std::time::Instant;
use tokio::runtime::{Builder, Runtime};
use wasmtime::Store;

/// Threads, per attempt in flight, for file operations of guests: they are done one after
/// another; the rest is for ones that hang (a dead network file system) and are abandoned.
const FILE_THREADS_MAX: usize = 8;

thread_local! {
    /// Each thread that runs attempts has its own event loop, kept for the next attempt.
    static LOOP: OnceCell<Runtime> = const { OnceCell::new() };
}

/// Runs `call` to its end, or until a limit strikes, or the worker stops it.
///
/// Must not be called inside of a tokio runtime.
///
/// # Errors
/// What the guest did wrong, or that it was stopped (`monitor.stopped` says by what).
pub(super) fn run<W: Send + 'static, R>(
    store: &mut Store<StoreData<W>>,
    call: impl AsyncFnOnce(&mut Store<StoreData<W>>) -> wasmtime::Result<R>,
) -> wasmtime::Result<R> {
    let monitor = &store.data().monitor;
    let (deadline, cancel) = (monitor.deadline().map(|(at, _)| at), monitor.cancel());
    let result = block_on(async {
        tokio::select! {
            biased;
            result = call(store) => Some(result),
            () = struck(deadline, cancel) => None,
        }
    });
    match result {
        Ok(Some(result)) => result,
        Ok(None) => {
            let why = store.data_mut().monitor.check();
            debug_assert!(why.is_some(), "stopped without a reason");
            Err(wasmtime::Error::msg(match why {
                Some(StopReason::Cancelled(_)) => "cancelled while waiting",
                _ => "time limit while waiting",
            }))
        }
        Err(why) => Err(wasmtime::Error::msg(format!("cannot start an event loop: {why}"))),
    }
}

fn block_on<R>(future: impl Future<Output = R>) -> io::Result<R> {
    LOOP.with(|cell| {
        if cell.get().is_none() {
            let mut builder = Builder::new_current_thread();
            let runtime = builder.enable_all().max_blocking_threads(FILE_THREADS_MAX).build()?;
            // Just found empty, and the cell is this thread's own.
            let _ = cell.set(runtime);
        }
        let runtime = cell.get().ok_or_else(|| io::Error::other("no event loop"))?;
        Ok(runtime.block_on(future))
    })
}

/// Returns when a limit has struck or the worker wants an end.
async fn struck(deadline: Option<Instant>, cancel: Cancel) {
    loop {
        let now = Instant::now();
        if cancel.get().is_some() || deadline.is_some_and(|at| now >= at) {
            return;
        }
        let next = now + TICK;
        let wake = deadline.map_or(next, |at| at.min(next));
        tokio::time::sleep_until(wake.into()).await;
    }
}
