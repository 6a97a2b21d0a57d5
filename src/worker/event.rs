//! What happens to a worker, and what it does about it: the closed lists that
//! [`super::core`] stands between.

use super::finish::Verdict;
use super::request::Key;
use super::signals::State;
use crate::broker::{Delivery, Sorting, Tag, Want};
use crate::log::About;
use crate::os::signal::Meaning;
use crate::runner::{Attempt, Outcome};
use crate::task::set::Set;
use crate::wire::Record;
use chrono::{DateTime, Utc};
use std::sync::Arc;
use std::time::Instant;
use tracing::Level;

/// What can happen to a worker.
#[derive(Debug)]
pub enum Event {
    /// Messages are ours now.
    Delivered(Vec<Delivery>),
    /// Messages are ours whose tasks were revoked before.
    Revoked(Vec<Delivery>),
    /// An attempt is over.
    Ended(Key, Box<Outcome>),
    /// What earlier attempts at these may have left is gone.
    Cleared(Vec<Key>),
    /// These were settled; a request that asked to be acknowledged first may start.
    Settled(Vec<Key>),
    /// These were to be settled, and their deliveries are not held any more: they were handed
    /// out again.
    Lost(Vec<Key>),
    /// These deliveries are not held any more: this worker was taken for dead for a while.
    Forfeited(Vec<Tag>),
    /// Somebody sent a signal.
    Signal(Meaning),
    /// Time has passed.
    Tick,
    /// The definitions of tasks were read again.
    Tasks(Arc<Set>),
    /// The host has become too short of something to take tasks, and why; or it no more is.
    Host(Option<String>),
    /// The broker's end is closed: nothing is held any more.
    Closed,
}

/// What the worker can do about it.
#[derive(Debug)]
pub enum Effect {
    /// Take so much from the broker, once for each number of `turn`.
    Want {
        /// Grows with each delivery, so that one wish is not fulfilled twice.
        turn: u64,
        /// How much.
        want: Want,
    },
    /// End what an earlier attempt at the task of this id may have left on this machine; then
    /// say [`Event::Cleared`].
    Clear(Key, String),
    /// Sort messages by these names of tasks, and by no others.
    Sort(Sorting),
    /// Run this.
    Start(Key, Box<Attempt>),
    /// Ask this to end.
    Ask(Key),
    /// Stop this at once.
    Stop(Key),
    /// Store, publish and settle, in this order; then say [`Event::Settled`].
    Settle(Key, Tag, Box<Verdict>),
    /// Store this of the task of this delivery; nobody waits for it.
    Store(Tag, Box<Record>),
    /// Read the definitions of tasks again; then say [`Event::Tasks`].
    ReadTasks,
    /// Say this.
    Log(Level, String),
    /// Say this about a task.
    LogAbout(Level, About, String),
    /// Close the broker's end when all that was asked before is done.
    Close,
    /// End the process.
    Exit(u8),
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
    pub state: State,
    /// Tasks that it may run at once.
    pub slots: usize,
    /// Tasks that run.
    pub running: usize,
    /// Tasks that are here and do not run yet.
    pub reserved: usize,
    /// Names of tasks that it leaves to others.
    pub unknown: Arc<[Arc<str>]>,
    /// Why it runs fewer than that, if the host has refused some.
    pub no_room: Option<String>,
}
