//! Names of tasks that the broker uses. Messages with names that are unknown here stay in their
//! queues for workers that know them. Early messages with names that are known here are parked by the
//! broker, without asking about each.

use crate::bounds;
use std::collections::{HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How many names a list has at most; they are sent to the broker with each take.
const NAMES_MAX: usize = 1024;

/// The longest such name, in bytes.
const NAME_BYTES_MAX: usize = 1024;

/// How many bytes all of them have at most.
const BYTES_MAX: usize = 64 * 1024;

/// How many messages are recognised when they come round again, at most.
const SEEN_MAX: usize = 20_000;

/// The shortest pause after a round.
const PAUSE_MIN: Duration = Duration::from_secs(1);

/// A bounded list of names, oldest first.
#[derive(Debug, Default)]
pub(super) struct NameList {
    names: VecDeque<Arc<str>>,
    bytes: usize,
    list: Arc<[Arc<str>]>,
}

/// What happened to a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Learned {
    /// It was added.
    New,
    /// It was in the list.
    Known,
    /// The list is full, or the name is too long.
    TooMuch,
}

impl NameList {
    /// Adds a name, if it fits.
    pub(super) fn learn(&mut self, name: &str) -> Learned {
        if self.names.iter().any(|known| **known == *name) {
            return Learned::Known;
        }
        let fits = name.len() <= NAME_BYTES_MAX && self.bytes + name.len() <= BYTES_MAX;
        if !fits || self.names.len() >= NAMES_MAX {
            return Learned::TooMuch;
        }
        self.bytes += name.len();
        self.names.push_back(name.into());
        self.renew();
        Learned::New
    }

    /// Removes and returns the names of which `is_gone` is true.
    pub(super) fn forget(&mut self, is_gone: impl Fn(&str) -> bool) -> Vec<Arc<str>> {
        let (gone, left): (Vec<_>, Vec<_>) = self.names.drain(..).partition(|name| is_gone(name));
        self.names = left.into();
        self.bytes = self.names.iter().map(|name| name.len()).sum();
        if !gone.is_empty() {
            self.renew();
        }
        gone
    }

    /// All names.
    pub(super) fn list(&self) -> Arc<[Arc<str>]> {
        self.list.clone()
    }

    fn renew(&mut self) {
        self.list = self.names.iter().cloned().collect();
    }
}

/// Messages of unknown names that a broker cannot hold back. They go to the far end of their list,
/// where other workers find them at any time, and come round again. After each round this worker
/// pauses, so that it does not only rotate the list.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    /// Hashes of the ids of this round.
    seen: HashSet<u64>,
    begun: Option<Instant>,
    pause_until: Option<Instant>,
}

impl Rounds {
    /// The message of this task has come.
    pub(super) fn pass(&mut self, id: &str, now: Instant) {
        let begun = *self.begun.get_or_insert(now);
        let mut hasher = DefaultHasher::new();
        id.hash(&mut hasher);
        let is_new = self.seen.insert(hasher.finish());
        if !is_new || self.seen.len() >= SEEN_MAX {
            let pause = (now.duration_since(begun) * 4).clamp(PAUSE_MIN, bounds::UNKNOWN_PAUSE);
            *self = Rounds { pause_until: Some(now + pause), ..Rounds::default() };
        }
    }

    /// Is nothing to be taken now?
    pub(super) fn pauses(&mut self, now: Instant) -> bool {
        self.pause_until = self.pause_until.filter(|until| now < *until);
        self.has_pause()
    }

    /// Was there a pause when that was asked last?
    pub(super) fn has_pause(&self) -> bool {
        self.pause_until.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_each_round_there_is_a_pause() {
        let (mut rounds, begun) = (Rounds::default(), Instant::now());
        for n in 0..100 {
            rounds.pass(&n.to_string(), begun + Duration::from_millis(n));
            assert!(!rounds.pauses(begun + Duration::from_millis(n)), "{n}");
        }
        let again = begun + Duration::from_secs(1);
        rounds.pass("0", again);
        assert!(rounds.pauses(again) && rounds.pauses(again + Duration::from_secs(3)));
        assert!(!rounds.pauses(again + bounds::UNKNOWN_PAUSE));
        for n in 0..SEEN_MAX {
            rounds.pass(&format!("x{n}"), again + bounds::UNKNOWN_PAUSE);
        }
        assert!(rounds.pauses(again + bounds::UNKNOWN_PAUSE), "what is recognised is bounded");
    }

    #[test]
    fn a_list_is_bounded_in_names_and_bytes() {
        let mut unknown = NameList::default();
        assert_eq!(unknown.learn("a"), Learned::New);
        assert_eq!(unknown.learn("a"), Learned::Known);
        assert_eq!(unknown.learn(&"x".repeat(NAME_BYTES_MAX + 1)), Learned::TooMuch);
        for n in 0..100_000 {
            unknown.learn(&format!("{n:0>900}"));
        }
        assert!(unknown.list().iter().map(|name| name.len()).sum::<usize>() <= BYTES_MAX);
        assert_eq!(unknown.forget(|name| name == "a").len(), 1);
        assert!(!unknown.list().iter().any(|name| **name == *"a"));
        unknown.forget(|_| true);
        for n in 0..2 * NAMES_MAX {
            unknown.learn(&n.to_string());
        }
        assert_eq!(unknown.list().len(), NAMES_MAX);
    }
}
