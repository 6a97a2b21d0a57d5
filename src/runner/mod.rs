//! One attempt at a task, and how it ended. A task that fails is a value
//! ([`Outcome`]), never an `Err`.

pub mod capture;
pub mod context;
pub mod shell;
#[cfg(feature = "wasm")]
pub mod wasm;

use crate::os::{says_passing, says_shortage};
use crate::task::Task;
use crate::wire::Exception;
use crate::wire::task_protocol::{Answer, Ask, Said};
use serde_json::value::RawValue;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Everything a runner needs to run one task once.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// The task's definition.
    pub task: Arc<Task>,
    /// The task id, as the message has it.
    pub id: String,
    /// Id of the first task of the workflow.
    pub root_id: String,
    /// Id of the task that sent this one, or empty.
    pub parent_id: String,
    /// How many retries came before, 0 at first.
    pub retries: u32,
    /// Name of this node, `worker1@host`.
    pub hostname: Arc<str>,
    /// The queue the message came from.
    pub queue: Arc<str>,
    /// Positional arguments, as they are in the body.
    pub args: Vec<Box<RawValue>>,
    /// Keyword arguments, in their order in the body.
    pub kwargs: Vec<(String, Box<RawValue>)>,
    /// Positional and keyword arguments bound to `params` (defaults filled in);
    /// empty when the task has no `params`.
    pub bound: Vec<(String, Box<RawValue>)>,
    /// What else its message says, for a task that reads its document.
    pub details: Vec<(String, Box<RawValue>)>,
    /// How its processes reach the worker; none do if this is `None`.
    pub access: Option<Access>,
    /// How it reaches the worker if it is no process.
    pub worker: Option<Worker>,
    /// Ask it to stop this long after its start (TERM to the group; a WASM instance is interrupted).
    pub soft_time_limit: Option<Duration>,
    /// Kill it this long after its start.
    pub time_limit: Option<Duration>,
    /// Environment that every task of the application gets (`task_env`).
    pub env: Arc<Vec<(String, String)>>,
}

/// How the processes of one attempt reach their worker.
#[derive(Debug, Clone)]
pub struct Access {
    /// The socket, see [`crate::os::task_socket::connect`].
    pub address: Arc<str>,
    /// Proves that it is this attempt.
    pub token: String,
}

/// Carries what attempts ask for to the worker's loop, with the key of the attempt.
pub type OnAsked = Arc<dyn Fn(u64, Ask) -> oneshot::Receiver<Answer> + Send + Sync>;

/// How an attempt in a thread reaches the worker's loop.
#[derive(Clone)]
pub struct Worker {
    /// Names the attempt.
    pub key: u64,
    /// What carries its requests.
    pub on_asked: OnAsked,
}

impl Worker {
    /// Asks; the answer arrives later.
    pub fn ask(&self, ask: Ask) -> oneshot::Receiver<Answer> {
        (self.on_asked)(self.key, ask)
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("key", &self.key).finish_non_exhaustive()
    }
}

/// How an attempt ended, as bare facts. `worker::finish` decides what they mean.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// What ended it.
    pub ending: Ending,
    /// The time limit that expired before it ended, if any.
    pub limit: Option<TimeLimit>,
    /// What it told the worker that its end is to mean.
    pub said: Option<Said>,
    /// The worker asked it to end before it did.
    pub asked: bool,
    /// The kernel killed it because this memory was used up.
    pub exhausted: Option<Exhausted>,
    /// Standard output; for a plain WASM function its JSON result.
    pub stdout: Captured,
    /// Standard error.
    pub stderr: Captured,
    /// What it used, as far as the kernel reports it.
    pub usage: ResourceUsage,
    /// When the program started (after any compilation).
    pub started: Instant,
    /// How long it ran.
    pub runtime: Duration,
}

/// The last event of an attempt.
#[derive(Debug, Clone, PartialEq)]
pub enum Ending {
    /// The process, or a WASI command, ended by itself with this exit code.
    Exited(i32),
    /// The process died by this signal.
    Signaled(i32),
    /// A plain WASM function returned.
    Returned,
    /// A WASM instance trapped: what happened, with the WASM backtrace.
    Trapped(Exception, String),
    /// It never started: no such program, argument list too long, a NUL in an argument, a module
    /// that does not compile.
    Refused(Exception),
    /// It never began: the host has no descriptors, processes or memory left for it. Carries the
    /// reason. It is redelivered uncounted, and says nothing about the task.
    NoCapacity(String),
    /// It never began: its program or its folder is unavailable now, for example while a deployment
    /// writes the program. Carries the reason. It is redelivered later; other tasks may run.
    Unavailable(String),
    /// The worker stopped it.
    Cancelled(CancelReason),
}

/// Why the worker stopped an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancelReason {
    /// The worker shuts down.
    Shutdown,
    /// The connection to the broker was lost for so long that another worker has the message.
    ConnectionLost,
    /// It had not begun: others take longer than was expected.
    Recalled,
}

/// The order to stop an attempt that runs on a thread; empty until it is given.
#[cfg(feature = "wasm")]
pub type Cancel = Arc<std::sync::OnceLock<CancelReason>>;

impl Ending {
    /// An attempt that could not start because of this error, of the task or of the host.
    pub fn refused(exception: Exception) -> Ending {
        let said = |by: fn(&str) -> bool| {
            let mut texts = exception.exc_message.iter().filter_map(|value| value.as_str());
            texts.find(|text| by(text)).map(str::to_string)
        };
        let held = || said(says_passing).map(Ending::Unavailable);
        let ending = said(says_shortage).map(Ending::NoCapacity).or_else(held);
        ending.unwrap_or(Ending::Refused(exception))
    }
}

/// A time limit that expired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeLimit {
    /// `soft_time_limit`
    Soft,
    /// `time_limit`
    Hard,
}

/// Memory that is exhausted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exhausted {
    /// The task's own limit, in bytes.
    Own(u64),
    /// That of the host, or of a control group around the worker.
    Around,
}

/// The end of an output stream.
#[derive(Debug, Clone, Default)]
pub struct Captured {
    /// The last bytes, at most the task's `max_output`.
    pub bytes: Vec<u8>,
    /// How many bytes came before them and were dropped.
    pub dropped: u64,
}

/// Resources that an attempt used.
#[derive(Debug, Clone, Copy, Default)]
pub struct ResourceUsage {
    /// Largest resident memory of the process in bytes (largest linear memory for WASM).
    pub memory_peak: u64,
    /// Processor time in user mode.
    pub user: Duration,
    /// Processor time in the kernel.
    pub system: Duration,
}

impl Outcome {
    /// Did it start at all?
    pub fn has_run(&self) -> bool {
        !matches!(self.ending, Ending::Refused(_) | Ending::NoCapacity(_) | Ending::Unavailable(_))
    }

    /// Does what it has said count? Not if another worker has its message, or it did not begin.
    pub fn is_its_own(&self) -> bool {
        let taken = matches!(
            self.ending,
            Ending::Cancelled(CancelReason::ConnectionLost | CancelReason::Recalled)
        );
        self.has_run() && !taken
    }

    /// An attempt that ended before it started.
    pub fn immediate(ending: Ending) -> Outcome {
        Outcome {
            ending,
            limit: None,
            said: None,
            asked: false,
            exhausted: None,
            stdout: Captured::default(),
            stderr: Captured::default(),
            usage: ResourceUsage::default(),
            started: Instant::now(),
            runtime: Duration::ZERO,
        }
    }
}
