//! Which panics concern one task alone. Any other panic ends the process: a worker that lacks a
//! part holds messages that others could run.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;

thread_local! {
    static CONTAINED: Cell<bool> = const { Cell::new(false) };
}

/// Runs work whose panic concerns no other task; returns the panic as an error.
pub fn contained<T>(work: impl FnOnce() -> T) -> std::thread::Result<T> {
    let before = CONTAINED.replace(true);
    let outcome = catch_unwind(AssertUnwindSafe(work));
    CONTAINED.set(before);
    outcome
}

/// The same for a future: it goes on panicking, so its runtime sees the panic.
pub async fn contained_future<T>(work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    poll_fn(|context| match contained(|| work.as_mut().poll(context)) {
        Ok(poll) => poll,
        Err(panic) => std::panic::resume_unwind(panic),
    })
    .await
}

/// Does a panic of this thread concern one task alone?
pub fn is_contained() -> bool {
    CONTAINED.get()
}
