//! What is asked of the ledger for an entry, and the answer: plain values.

use super::Destination;
use super::state::EntryState;
use crate::schedule::entry::Entry;
use chrono::{DateTime, Utc};
use std::sync::Arc;

/// Names a definition of an entry. A new definition of the same entry has another id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryId {
    pub(super) slot: usize,
    pub(super) generation: u32,
}

/// An entry whose state has to be read.
pub type Unread = (EntryId, Arc<str>);

/// What has to be done for an entry that is due.
#[derive(Debug, Clone)]
pub enum DueAction {
    /// Ask the ledger for this.
    Claim(Claim),
    /// Find out whether the task that was sent last is done; then call
    /// [`super::core::entries::Entries::looked_up`].
    LookUp {
        /// The entry.
        id: EntryId,
        /// The entry, as it is defined.
        entry: Arc<Entry>,
        /// Its state, which has the id of the task.
        state: EntryState,
    },
}

/// A change of an entry's state, with what is sent in the same step.
#[derive(Debug, Clone)]
pub struct Claim {
    /// Whose; `None` for an entry that no file defines, and for the ledger's mark.
    pub id: Option<EntryId>,
    /// The entry's name.
    pub name: Arc<str>,
    /// The entry, as it is defined; `None` likewise.
    pub entry: Option<Arc<Entry>>,
    /// What the ledger has, as far as this beat knows; `None`: nothing.
    pub expected: Option<String>,
    /// What it is to have; `None`: nothing.
    pub text: Option<String>,
    /// The occurrences that are sent, oldest first.
    pub sends: Vec<DateTime<Utc>>,
    /// The first of the occurrences that were missed, if these are sent for missed ones.
    pub missed: Option<DateTime<Utc>>,
    /// Where they are sent.
    pub to: Destination,
}

impl Claim {
    /// A change of a value that sends nothing.
    pub fn of_value(name: Arc<str>, expected: Option<String>, text: Option<String>) -> Claim {
        Claim {
            id: None,
            name,
            entry: None,
            expected,
            text,
            sends: Vec::new(),
            missed: None,
            to: Destination::default(),
        }
    }
}

/// What became of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClaimResult {
    /// The ledger has what was claimed.
    Done,
    /// The ledger has this instead.
    Conflict(Option<String>),
    /// Nothing was done, or that is unknown; try again at this time.
    Retry(DateTime<Utc>),
}

/// What new definitions ask for.
#[derive(Debug, Default)]
pub struct LoadRequests {
    /// Entries whose state has to be read, for [`super::core::entries::Entries::register`].
    pub unread: Vec<Unread>,
    /// Changes for entries that are no longer defined.
    pub claims: Vec<Claim>,
}
