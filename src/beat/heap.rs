//! Entries by the instant at which something is to be done with them.

use chrono::{DateTime, Utc};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// The next one first. What was pushed for an earlier turn of a slot is told apart by whoever pops it.
#[derive(Debug, Default)]
pub struct Heap(BinaryHeap<Reverse<(DateTime<Utc>, usize, u32)>>);

impl Heap {
    /// When the next one is due.
    pub fn next(&self) -> Option<DateTime<Utc>> {
        self.0.peek().map(|Reverse((at, ..))| *at)
    }

    /// Slot and turn are due then.
    pub fn push(&mut self, at: DateTime<Utc>, slot: usize, turn: u32) {
        self.0.push(Reverse((at, slot, turn)));
    }

    /// The next one, if it is due by `now`.
    pub fn pop(&mut self, now: DateTime<Utc>) -> Option<(usize, u32)> {
        if self.next()? > now {
            return None;
        }
        self.0.pop().map(|Reverse((_, slot, turn))| (slot, turn))
    }

    /// Drops what belongs to these slots.
    pub fn forget(&mut self, is_gone: impl Fn(usize) -> bool) {
        self.0.retain(|Reverse((_, slot, _))| !is_gone(*slot));
    }
}
