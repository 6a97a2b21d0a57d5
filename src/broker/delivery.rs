//! What travels between a worker and its broker: deliveries, what becomes of them, and messages on
//! their way.

use crate::wire::{Malformed, Message, Payload, Record};
use chrono::{DateTime, Utc};
use std::sync::Arc;

/// One message in our hands.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// Names it to the broker.
    pub tag: Tag,
    /// The queue it waited in.
    pub queue: Arc<str>,
    /// The message.
    pub payload: Payload,
    /// What it says, if the broker had to read it.
    pub message: Option<Result<Message, Malformed>>,
    /// How many times it was lost or sent back, counted.
    pub deliveries: u32,
    /// It was lost before: mark it before it starts, so that the count stays exact.
    pub suspect: bool,
    /// Whether its task was revoked, if the results are where the messages are; see
    /// [`super::Consumer::see_results`].
    pub revoked: Option<bool>,
}

/// Names of tasks.
pub type TaskNames = Arc<[Arc<str>]>;

/// What a broker does by the names of tasks, without asking the worker.
#[derive(Debug, Clone, Default)]
pub struct Sorting {
    /// Messages of these names are left to others.
    pub left: TaskNames,
    /// Messages of these names that are not due are parked for workers of this kind.
    pub parked: TaskNames,
}

/// A delivery's name; plain data, so that it can travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Tag {
    /// Row of `kombu_message`.
    Row(i64),
    /// A number that the worker gave it.
    Number(u64),
}

/// What becomes of a delivery.
#[derive(Debug, Clone)]
pub enum Settle {
    /// Done with: remove it.
    Ack,
    /// Still ours, and about to start: if this worker dies from now on, that counts. For
    /// suspects; the first loss of a message always counts, since it may have started.
    Mark,
    /// Never started: back to its place, uncounted.
    Release,
    /// Nobody here knows a task of this name: others may have it at once, uncounted.
    Pass(String),
    /// Not now: hand it out from then on, uncounted.
    Park(DateTime<Utc>),
    /// It cost a process or found no task: hand it out again from then on, counted.
    Redeliver(DateTime<Utc>),
    /// Replace it by this message, due then (a retry), in one step.
    Replace(Payload, DateTime<Utc>),
    /// Keep it in the dead-letter list.
    Dead(Death),
}

impl Settle {
    /// May it be there for others after this?
    pub fn moves(&self) -> bool {
        !matches!(self, Settle::Ack | Settle::Mark)
    }
}

/// What becomes of one task: all of it, or nothing.
#[derive(Debug, Clone, Default)]
pub struct Item {
    /// The delivery that this is about; nothing is done unless it is still held.
    pub tag: Option<Tag>,
    /// Stored.
    pub record: Option<Record>,
    /// Sent.
    pub postings: Vec<Posting>,
    /// Names the postings: sent again under the same name within an hour, they are accepted
    /// once. Empty if they are sent once only.
    pub token: String,
    /// What becomes of the delivery; `None` leaves it as it is.
    pub settle: Option<Settle>,
    /// Not even a power cut may undo it.
    pub durable: bool,
}

/// What has become of an [`Item`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Disposition {
    /// It is done.
    Done,
    /// Its delivery is not held any more: it was settled before, or redelivered.
    Lost,
    /// Nothing of it can be done, and why; others may.
    Refused(String),
}

/// Why a message is in the dead-letter list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Death {
    /// One word: `malformed`, `unregistered`, `lost`.
    pub reason: &'static str,
    /// A sentence.
    pub detail: String,
    /// Task id, if the message has one that can be read.
    pub task_id: Option<String>,
    /// Task name, likewise.
    pub task: Option<String>,
    /// This delivery counts too.
    pub counts: bool,
}

/// A message on its way to a queue.
#[derive(Debug, Clone)]
pub struct Posting {
    /// The queue.
    pub queue: String,
    /// Task id.
    pub task_id: String,
    /// As the broker counts; see [`super::PriorityRule`].
    pub priority: u8,
    /// Not before.
    pub eta: Option<DateTime<Utc>>,
    /// The message.
    pub payload: Payload,
}

/// How many messages a worker can use now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Want {
    /// Free slots: how many may start at once.
    pub slots: usize,
    /// So many more may wait in memory; never one that was lost before, since a crash
    /// would count against it though it had not started.
    pub ahead: usize,
}
