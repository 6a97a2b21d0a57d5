//! The unacknowledged deliveries of this worker, tracked in memory.

use rustc_hash::FxHashMap;
use std::collections::HashSet;
use std::fmt::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a worker keeps what it holds after the last renewal. In a fleet with
/// Python workers this is added to their visibility timeout, which may be as short as a second.
pub(super) const LEASE: Duration = Duration::from_secs(10);

/// The unacknowledged deliveries of one worker, by number.
pub(super) struct Unacked {
    instance: String,
    state: Mutex<State>,
}

struct State {
    next: u64,
    held: FxHashMap<u64, UnackedDelivery>,
}

struct UnackedDelivery {
    step: u8,
    queue: Arc<str>,
    suspect: bool,
    renewed: Instant,
    /// The server has forgotten it, and nobody else has it.
    orphan: bool,
}

/// A delivery with its tag on the server.
pub(super) struct TaggedDelivery {
    /// Its tag; nothing if the server has forgotten it.
    pub tag: String,
    /// Its queue, and the step there.
    pub place: (Arc<str>, u8),
    /// It was lost before.
    pub suspect: bool,
}

impl Unacked {
    /// Nothing, for a new worker of this name.
    pub(super) fn new(instance: String) -> Unacked {
        // Another worker's numbers mean nothing here, nor do those of an earlier one. Below
        // 2^53, so that Lua can count on.
        let next = fastrand::u64(1..1 << 50);
        Unacked { instance, state: Mutex::new(State { next, held: FxHashMap::default() }) }
    }

    /// Name of the worker, and first part of its tags.
    pub(super) fn instance(&self) -> &str {
        &self.instance
    }

    /// The part of each of its tags before the number.
    pub(super) fn stem(&self) -> String {
        format!("{}:", self.instance)
    }

    /// Numbers for `count` deliveries; gives the first.
    pub(super) fn reserve(&self, count: usize) -> u64 {
        let mut state = self.state();
        let first = state.next;
        state.next += count as u64;
        first
    }

    /// Holds one more.
    pub(super) fn add(&self, number: u64, step: u8, queue: Arc<str>, suspect: bool) {
        let held = UnackedDelivery { step, queue, suspect, renewed: Instant::now(), orphan: false };
        self.state().held.insert(number, held);
    }

    /// What is known of a delivery; `None` if it is not held.
    pub(super) fn known(&self, number: u64) -> Option<TaggedDelivery> {
        let state = self.state();
        let held = state.held.get(&number)?;
        let tag = if held.orphan { String::new() } else { self.tag_of(number, held) };
        let place = (held.queue.clone(), held.step);
        Some(TaggedDelivery { tag, place, suspect: held.suspect && !held.orphan })
    }

    /// The server has forgotten these.
    pub(super) fn orphan(&self, numbers: &[u64]) {
        let mut state = self.state();
        for number in numbers {
            if let Some(held) = state.held.get_mut(number) {
                held.orphan = true;
            }
        }
    }

    /// They are held no more.
    pub(super) fn forget(&self, numbers: &[u64]) {
        let mut state = self.state();
        for number in numbers {
            state.held.remove(number);
        }
    }

    /// All numbers that the server should know.
    pub(super) fn numbers(&self) -> HashSet<u64> {
        let state = self.state();
        let known = state.held.iter().filter(|(_, held)| !held.orphan);
        known.map(|(number, _)| *number).collect()
    }

    /// Tags whose lease was renewed longer ago than `age`.
    pub(super) fn older_than(&self, age: Duration) -> Vec<(u64, String)> {
        let state = self.state();
        let all = state.held.iter().filter(|(_, held)| !held.orphan);
        let old = all.filter(|(_, held)| held.renewed.elapsed() > age);
        old.map(|(number, held)| (*number, self.tag_of(*number, held))).collect()
    }

    /// Their lease is renewed.
    pub(super) fn renewed(&self, tags: &[(u64, String)]) {
        let mut state = self.state();
        for (number, _) in tags {
            if let Some(held) = state.held.get_mut(number) {
                held.renewed = Instant::now();
            }
        }
    }

    fn tag_of(&self, number: u64, held: &UnackedDelivery) -> String {
        // For each message; `format!` asks for room several times. Three colons, and at most 20 and 3
        // digits.
        let mut tag = String::with_capacity(self.instance.len() + held.queue.len() + 26);
        let _ = write!(tag, "{}:{number}:{}:{}", self.instance, held.step, held.queue);
        tag
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The number in a tag of ours.
pub(super) fn number_of(tag: &str) -> u64 {
    tag.split(':').nth(1).and_then(|number| number.parse().ok()).unwrap_or(0)
}
