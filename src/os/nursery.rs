//! The threads on which processes are started.
//!
//! A start stands still until the new process executes its program, half a millisecond or
//! more; the event loop has better things to do. And the kernel kills a child when the
//! *thread* that made it ends (`PR_SET_PDEATHSIG`), so these never do before the process.

use super::Pid;
use super::panics;
use super::signal::deaf;
use super::spawn::{SpawnError, Step};
use super::tree;
use std::num::NonZero;
use std::sync::mpsc::{Receiver, RecvError, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{Builder, available_parallelism};
use std::time::Instant;
use tokio::sync::oneshot;

/// A start that waits for its turn.
type Order = Box<dyn FnOnce() + Send>;

/// More threads than this gain nothing: the children share our memory until they have their
/// own, and the kernel makes them take turns.
const THREADS_MAX: usize = 4;

/// The way to the threads, once there are any.
static ORDERS: OnceLock<Sender<Order>> = OnceLock::new();

/// There is no thread, or it was lost while it started the process.
const LOST: SpawnError = SpawnError { step: Step::Prepare, errno: libc::EAGAIN };

/// A process that has just begun. Dropped unclaimed, it is killed.
#[derive(Debug)]
pub(super) struct Newborn {
    pid: Pid,
    /// When its start began.
    pub at: Instant,
    claimed: bool,
}

impl Newborn {
    /// From now on somebody else takes care of the process.
    pub fn claim(mut self) -> Pid {
        self.claimed = true;
        self.pid
    }
}

impl Drop for Newborn {
    fn drop(&mut self) {
        if !self.claimed {
            tree::kill_group(self.pid);
        }
    }
}

/// Has one of the threads call `start`.
///
/// # Errors
/// What `start` gives, or that there can be no such threads.
pub(super) async fn start<F>(start: F) -> Result<Newborn, SpawnError>
where
    F: FnOnce() -> Result<Pid, SpawnError> + Send + 'static,
{
    let (sender, receiver) = oneshot::channel();
    let order = move || {
        let at = Instant::now();
        // Nobody may wait any more: then this drops the newborn.
        let _ = sender.send(start().map(|pid| Newborn { pid, at, claimed: false }));
    };
    threads()?.send(Box::new(order)).map_err(|_| LOST)?;
    receiver.await.map_err(|_| LOST)?
}

fn threads() -> Result<&'static Sender<Order>, SpawnError> {
    if let Some(orders) = ORDERS.get() {
        return Ok(orders);
    }
    let (sender, orders) = channel::<Order>();
    let orders = Arc::new(Mutex::new(orders));
    // One more than processors: in each start there is a moment when nobody works for it.
    let count = available_parallelism().map_or(1, NonZero::get).saturating_add(1).min(THREADS_MAX);
    let mut begun = 0;
    for _ in 0..count {
        let orders = Arc::clone(&orders);
        // They end with the process: their sender is never dropped. If two callers come here
        // at once, the threads too many have nothing to do, and end.
        let body = move || {
            while let Ok(order) = next(&orders) {
                // A panic must not end the thread: its children would die with it. Whoever
                // waits for this start hears that it is lost.
                let _ = panics::contained(order);
            }
        };
        let thread = Builder::new().name("spawn".into()).stack_size(64 * 1024);
        begun += usize::from(deaf(|| thread.spawn(body)).is_ok());
    }
    if begun == 0 {
        return Err(LOST);
    }
    Ok(ORDERS.get_or_init(|| sender))
}

fn next(orders: &Mutex<Receiver<Order>>) -> Result<Order, RecvError> {
    // Whoever holds the lock waits for the next order; the others wait for the lock.
    orders.lock().unwrap_or_else(PoisonError::into_inner).recv()
}
