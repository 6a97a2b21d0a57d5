//! The threads that start processes.
//!
//! A start blocks until the new process executes its program, half a millisecond or more, so it
//! does not happen on the event loop. And the kernel kills a child when the *thread* that started
//! it ends (`PR_SET_PDEATHSIG`), so these threads end with the process.

use super::{ChildSetup, SpawnError};
use crate::os::panics;
use crate::os::signal::with_signals_blocked;
use crate::os::{Pid, tree};
use crossbeam_channel::{Sender, unbounded};
use std::num::NonZero;
use std::sync::OnceLock;
use std::thread::{Builder, available_parallelism};
use std::time::Instant;
use tokio::sync::oneshot;

/// A start that waits for a thread.
type SpawnJob = Box<dyn FnOnce() + Send>;

/// More threads gain nothing: the children share our memory until they have their own, and the
/// kernel serializes that.
const THREADS_MAX: usize = 4;

/// The queue of the threads, once there are any.
static JOBS: OnceLock<Sender<SpawnJob>> = OnceLock::new();

/// There is no thread, or the start panicked.
const LOST: SpawnError = SpawnError { step: ChildSetup::Prepare, errno: libc::EAGAIN };

/// A process that was just started, with nobody to wait for it yet. Dropped, it is killed.
#[derive(Debug)]
pub(in crate::os) struct Unclaimed {
    pid: Pid,
    /// When its start began.
    pub at: Instant,
    claimed: bool,
}

impl Unclaimed {
    /// The caller takes care of the process from now on.
    pub(crate) fn claim(mut self) -> Pid {
        self.claimed = true;
        self.pid
    }
}

impl Drop for Unclaimed {
    fn drop(&mut self) {
        if !self.claimed {
            tree::kill_group(self.pid);
        }
    }
}

/// Has one of the threads call `start`.
///
/// # Errors
/// The error of `start`, or no thread can be started.
pub(in crate::os) async fn start<F>(start: F) -> Result<Unclaimed, SpawnError>
where
    F: FnOnce() -> Result<Pid, SpawnError> + Send + 'static,
{
    let (sender, receiver) = oneshot::channel();
    let job = move || {
        let at = Instant::now();
        // If the caller has gone, this drops the process.
        let _ = sender.send(start().map(|pid| Unclaimed { pid, at, claimed: false }));
    };
    jobs()?.send(Box::new(job)).map_err(|_| LOST)?;
    receiver.await.map_err(|_| LOST)?
}

fn jobs() -> Result<&'static Sender<SpawnJob>, SpawnError> {
    if let Some(jobs) = JOBS.get() {
        return Ok(jobs);
    }
    let (sender, queue) = unbounded::<SpawnJob>();
    // One more than processors: each start has a moment when it needs none.
    let count = available_parallelism().map_or(1, NonZero::get).saturating_add(1).min(THREADS_MAX);
    let mut started = 0;
    for _ in 0..count {
        let queue = queue.clone();
        // They end with the process, because the sender is never dropped. If two callers come
        // here at once, the surplus threads have no sender and end.
        let body = move || {
            while let Ok(job) = queue.recv() {
                // A panic must not end the thread: its children would die with it. The caller
                // sees that the start is lost.
                let _ = panics::contained(job);
            }
        };
        let thread = Builder::new().name("spawn".into()).stack_size(64 * 1024);
        started += usize::from(with_signals_blocked(|| thread.spawn(body)).is_ok());
    }
    if started == 0 {
        return Err(LOST);
    }
    Ok(JOBS.get_or_init(|| sender))
}
