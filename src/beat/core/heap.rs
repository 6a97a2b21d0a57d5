//! Entries by the instant at which something is to be done with them.

use crate::beat::claim::EntryId;
use chrono::{DateTime, Utc};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// The earliest first. An entry may be in it more than once, and for earlier generations.
#[derive(Debug, Default)]
pub(super) struct Heap(BinaryHeap<Reverse<(DateTime<Utc>, usize, u32)>>);

impl Heap {
    /// When the next one is due.
    pub(super) fn next(&self) -> Option<DateTime<Utc>> {
        self.0.peek().map(|Reverse((at, ..))| *at)
    }

    /// The entry is due at this time.
    pub(super) fn push(&mut self, at: DateTime<Utc>, id: EntryId) {
        self.0.push(Reverse((at, id.slot, id.generation)));
    }

    /// The next one, if it is due by `now`.
    pub(super) fn pop(&mut self, now: DateTime<Utc>) -> Option<EntryId> {
        if self.next()? > now {
            return None;
        }
        self.0.pop().map(|Reverse((_, slot, generation))| EntryId { slot, generation })
    }

    /// Drops the entries of these slots.
    pub(super) fn forget(&mut self, is_gone: impl Fn(usize) -> bool) {
        self.0.retain(|Reverse((_, slot, _))| !is_gone(*slot));
    }
}
