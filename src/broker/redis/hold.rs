//! What this worker holds, as it knows itself.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The deliveries in one worker's hands, by number.
pub struct Hold {
    instance: String,
    state: Mutex<State>,
}

struct State {
    next: u64,
    held: HashMap<u64, Held>,
}

struct Held {
    step: u8,
    queue: Arc<str>,
    suspect: bool,
    renewed: Instant,
}

impl Hold {
    /// Nothing, for a new worker of this name.
    pub fn new(instance: String) -> Hold {
        // Another worker's numbers mean nothing here, nor do those of an earlier one. Below
        // 2^53, so that Lua can count on.
        let next = fastrand::u64(1..1 << 50);
        Hold { instance, state: Mutex::new(State { next, held: HashMap::new() }) }
    }

    /// Name of the worker, and first part of its tags.
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// The part of each of its tags before the number.
    pub fn stem(&self) -> String {
        format!("{}:", self.instance)
    }

    /// Numbers for `count` deliveries; gives the first.
    pub fn reserve(&self, count: usize) -> u64 {
        let mut state = self.state();
        let first = state.next;
        state.next += count as u64;
        first
    }

    /// Holds one more.
    pub fn add(&self, number: u64, step: u8, queue: Arc<str>, suspect: bool) {
        let held = Held { step, queue, suspect, renewed: Instant::now() };
        self.state().held.insert(number, held);
    }

    /// The tag of a delivery, and whether it is a suspect; `None` if it is not held.
    pub fn tag(&self, number: u64) -> Option<(String, bool)> {
        let state = self.state();
        let held = state.held.get(&number)?;
        Some((self.tag_of(number, held), held.suspect))
    }

    /// They are held no more.
    pub fn forget(&self, numbers: &[u64]) {
        let mut state = self.state();
        for number in numbers {
            state.held.remove(number);
        }
    }

    /// All numbers.
    pub fn numbers(&self) -> HashSet<u64> {
        self.state().held.keys().copied().collect()
    }

    /// Tags whose lease was renewed longer ago than `age`.
    pub fn older_than(&self, age: Duration) -> Vec<(u64, String)> {
        let state = self.state();
        let old = state.held.iter().filter(|(_, held)| held.renewed.elapsed() > age);
        old.map(|(number, held)| (*number, self.tag_of(*number, held))).collect()
    }

    /// Their lease is renewed.
    pub fn renewed(&self, tags: &[(u64, String)]) {
        let mut state = self.state();
        for (number, _) in tags {
            if let Some(held) = state.held.get_mut(number) {
                held.renewed = Instant::now();
            }
        }
    }

    fn tag_of(&self, number: u64, held: &Held) -> String {
        format!("{}:{number}:{}:{}", self.instance, held.step, held.queue)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
