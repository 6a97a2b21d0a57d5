//! What the core asks for, and what it is told: plain values.

use super::state::State;
use crate::schedule::entry::Entry;
use chrono::{DateTime, Utc};
use std::sync::Arc;

/// Names an entry to the core, and the time since when it has been defined so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    pub(super) slot: usize,
    pub(super) turn: u32,
}

/// What the core wants to be done.
#[derive(Debug, Clone)]
pub enum Action {
    /// Ask the ledger for this.
    Claim(Claim),
    /// Find out whether this task is done, and tell [`super::core::Core::looked`].
    Look {
        /// The entry.
        key: Key,
        /// The entry, as it is defined.
        entry: Arc<Entry>,
        /// Its state, which has the id of the task.
        state: State,
    },
}

/// A change of an entry's state, with what is sent then.
#[derive(Debug, Clone)]
pub struct Claim {
    /// Whose; `None` for an entry that is no more.
    pub key: Option<Key>,
    /// The entry's name.
    pub name: Arc<str>,
    /// The entry, as it is defined; `None` likewise.
    pub entry: Option<Arc<Entry>>,
    /// What the ledger has, as it is known here.
    pub expected: Option<String>,
    /// What it is to have; `None`: nothing.
    pub text: Option<String>,
    /// The occurrences that are sent, oldest first.
    pub sends: Vec<DateTime<Utc>>,
    /// The first of the occurrences that were missed, if these are what is sent of them.
    pub missed: Option<DateTime<Utc>>,
}

/// What has become of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is as it was claimed.
    Done,
    /// The ledger has this.
    Conflict(Option<String>),
    /// The ledger could not be asked; try again then.
    Failed(DateTime<Utc>),
}

/// Something that is worth a line in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// An occurrence is left out: the task of the one before is not done.
    Overlap(DateTime<Utc>),
    /// Another beat has a newer definition.
    Superseded,
    /// What the ledger had could not be read, and why.
    Damaged(String),
    /// The state is from later than now: the clock was set back.
    ClockSetBack(DateTime<Utc>),
}

/// What new definitions ask for.
#[derive(Debug, Default)]
pub struct Loaded {
    /// Entries whose state has to be read, for [`super::core::Core::register`].
    pub unknown: Vec<(Key, Arc<str>)>,
    /// Entries that are no more.
    pub claims: Vec<Claim>,
}
