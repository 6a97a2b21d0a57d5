//! One entry of the schedule and its known state.

use crate::beat::claim::{Claim, EntryId};
use crate::beat::state::{EntryState, Fingerprint};
use crate::schedule::entry::Entry;
use chrono::{DateTime, Utc};
use std::sync::Arc;

/// Where an entry is in its life.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum EntryPhase {
    /// Its state is not known yet.
    New,
    /// Nothing will be sent until the files or the ledger say otherwise.
    Off,
    /// In the heap, for this occurrence.
    Due(DateTime<Utc>),
    /// For this occurrence; the task of the one before is being looked up.
    Looking(DateTime<Utc>),
    /// For this occurrence; that task is not done.
    Waiting(DateTime<Utc>),
    /// The ledger is being asked for this state.
    Claiming(Box<EntryState>),
}

/// An entry and what is known of it.
pub(super) struct Slot {
    pub(super) entry: Arc<Entry>,
    pub(super) fingerprint: Fingerprint,
    /// What the ledger has.
    pub(super) state: Option<EntryState>,
    /// Its text in the ledger, if the state would be written otherwise.
    pub(super) raw: Option<Box<str>>,
    pub(super) phase: EntryPhase,
    pub(super) generation: u32,
}

impl Slot {
    /// Whether the entry may be sent from here while the ledger has this.
    pub(super) fn allows(&self, state: &EntryState) -> bool {
        !state.paused && state.gone.is_none() && state.fingerprint == self.fingerprint
    }

    /// What the ledger is expected to have.
    pub(super) fn expected(&self) -> Option<String> {
        let written = || self.state.as_ref().map(EntryState::text);
        self.raw.as_ref().map(|raw| raw.to_string()).or_else(written)
    }

    /// Asks for this state in place of what is expected.
    pub(super) fn claim(
        &mut self,
        slot: usize,
        expected: Option<String>,
        state: EntryState,
    ) -> Claim {
        let text = Some(state.text());
        self.phase = EntryPhase::Claiming(Box::new(state));
        Claim {
            id: Some(EntryId { slot, generation: self.generation }),
            entry: Some(self.entry.clone()),
            ..Claim::of_value(self.entry.name.clone(), expected, text)
        }
    }
}
