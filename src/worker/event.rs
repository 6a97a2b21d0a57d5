//! What happens to a worker, and what it does about it: two closed lists, with
//! [`super::core`] between them.

use super::request::AttemptKey;
use super::signals::WorkerState;
use super::told::{Asked, Reply};
use super::verdict::Verdict;
use crate::broker::{Delivery, Posting, Sorting, Tag, Want};
use crate::canvas::ChordStart;
use crate::log::About;
use crate::os::signal::WorkerSignal;
use crate::runner::{Attempt, CancelReason, Outcome};
use crate::task::set::Set;
use crate::wire::Record;
use crate::wire::task_protocol::Answer;
use chrono::{DateTime, Utc};
use std::sync::Arc;
use std::time::Instant;
use tracing::Level;

/// What can happen to a worker.
#[derive(Debug)]
pub enum Event {
    /// Messages have come.
    Delivered(Vec<Delivery>),
    /// Messages have come whose tasks were revoked before.
    Revoked(Vec<Delivery>),
    /// An attempt asks for something while it runs.
    Asked(AttemptKey, Box<Asked>),
    /// What was to be sent under this number is with the broker, or refused, and why.
    Sent(u64, Result<(), String>),
    /// States of these attempts are stored, or will not be.
    Stored(Vec<AttemptKey>),
    /// An attempt has ended.
    Ended(AttemptKey, Box<Outcome>),
    /// What earlier attempts at these left behind is dead.
    Cleared(Vec<AttemptKey>),
    /// These were settled; a request that was to be acknowledged first may start.
    Settled(Vec<AttemptKey>),
    /// These were to be settled, but their deliveries are not held any more: they were redelivered.
    Lost(Vec<AttemptKey>),
    /// These deliveries are not held any more: the connection was lost for so long that other
    /// workers have them.
    Forfeited(Vec<Tag>),
    /// A signal has come.
    Signal(WorkerSignal),
    /// Time has passed.
    Tick,
    /// The definitions of tasks have changed.
    Tasks(Arc<Set>),
    /// The host has become too short of something for new tasks, and why; `None`: it no longer is.
    Host(Option<String>),
    /// The worker's end of the broker is closed: nothing is held any more.
    Closed,
}

/// What the worker can do about it.
#[derive(Debug)]
pub enum Effect {
    /// Take up to this much from the broker, once for each `number`.
    Want {
        /// Grows with each delivery, so that one wish is not fulfilled twice.
        number: u64,
        /// How much.
        want: Want,
    },
    /// Kill what earlier attempts at the task of this id left on this machine; answered by
    /// [`Event::Cleared`].
    Clear(AttemptKey, String),
    /// Sort messages by these names of tasks, and by no others.
    Sort(Sorting),
    /// Run this; answered by [`Event::Ended`].
    Start(AttemptKey, Box<Attempt>),
    /// Ask this to end.
    Ask(AttemptKey),
    /// Stop this at once.
    Stop(AttemptKey, CancelReason),
    /// Give up the attempts that have not begun; each is answered by [`Event::Ended`], as
    /// [`CancelReason::Recalled`].
    Recall,
    /// Store, publish and settle, in this order; answered by [`Event::Settled`].
    Settle(AttemptKey, Tag, Box<Verdict>),
    /// Store this record of the task of this delivery; not answered.
    Store(Tag, Box<Record>),
    /// Store this state of an attempt, while its delivery is held if it has one; answered by
    /// [`Event::Stored`].
    StoreState(AttemptKey, Option<Tag>, Box<Record>),
    /// Answer an attempt.
    Answer(Reply, Answer),
    /// Send this for an attempt; answered by [`Event::Sent`].
    Send(u64, Sending),
    /// Remove results that have expired.
    Expire,
    /// Read the definitions of tasks again; answered by [`Event::Tasks`] if they have changed.
    ReadTasks,
    /// Log this.
    Log(Level, String),
    /// Log this about a task.
    LogAbout(Level, About, String),
    /// Close the worker's end of the broker once all that was asked before is done; answered by
    /// [`Event::Closed`].
    Close,
    /// End the process.
    Exit(u8),
}

/// Messages that an attempt sends while it runs.
#[derive(Debug)]
pub struct Sending {
    /// They are sent all or none.
    pub postings: Vec<Posting>,
    /// Chords that begin with them.
    pub chords: Vec<ChordStart>,
}

/// The time of an event.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// For durations.
    pub mono: Instant,
    /// For what others read.
    pub wall: DateTime<Utc>,
    /// A draw from 0..1, for jitter.
    pub random: f64,
}

/// What others may know of a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Where it is in its life.
    pub state: WorkerState,
    /// How many tasks it may run at once.
    pub slots: usize,
    /// How many tasks run.
    pub running: usize,
    /// How many tasks are here and do not run yet.
    pub reserved: usize,
    /// Names of tasks that it leaves to other workers.
    pub unknown: Arc<[Arc<str>]>,
    /// Why it runs fewer than `slots`, if the host has refused some.
    pub limited: Option<String>,
}
