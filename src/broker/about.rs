//! What a broker tells of messages, queues and workers.

use crate::wire::Payload;

/// A kept message.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    /// Number in the list.
    pub number: i64,
    /// When it died.
    pub died_at: String,
    /// Why; see [`Death`].
    pub reason: String,
    /// A sentence.
    pub detail: String,
    /// Task id, or empty.
    pub task_id: String,
    /// Task name, or empty.
    pub task: String,
    /// The queue it came from.
    pub queue: String,
    /// How many times it was delivered.
    pub deliveries: u32,
    /// The message as it was.
    pub payload: Payload,
}

/// Where a task is, as the broker knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whereabouts {
    /// In a queue, not before the time if there is one (seconds since the epoch).
    Waiting {
        /// The queue.
        queue: String,
        /// Not before; seconds since the epoch, as text.
        eta: Option<String>,
    },
    /// With a worker.
    Held {
        /// The queue it came from.
        queue: String,
    },
    /// In the dead-letter list, under this number.
    Dead(i64),
    /// Neither in a queue, nor with a worker, nor in the dead-letter list.
    Absent,
    /// This broker cannot tell; see [`Abilities::finds`].
    Untold,
}

/// A queue and what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueInfo {
    /// Its name.
    pub name: String,
    /// Can be delivered now.
    pub ready: u32,
    /// Not due yet.
    pub scheduled: u32,
    /// With workers.
    pub held: u32,
    /// What is wrong with the keys that should have its messages; what is there is not counted.
    pub odd: Option<String>,
}

/// A worker that holds a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerInfo {
    /// Node name.
    pub hostname: String,
    /// Its process.
    pub pid: u32,
}

/// A message as somebody sees it who does not take it.
#[derive(Debug, Clone)]
pub struct SeenMessage {
    /// Where it is.
    pub place: Whereabouts,
    /// What it says.
    pub payload: Payload,
}
