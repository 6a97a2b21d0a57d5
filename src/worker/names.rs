//! Names of tasks that the broker is told: of those that this worker does not know, since unknown here is
//! not unknown to others, so their messages stay in their queues, where whoever knows them takes them;
//! and of those that it knows and has put by before, so that it need not be asked about each.

use crate::bounds;
use std::collections::{HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Names that are told apart at the most; they travel to the broker with each look for messages.
const NAMES_MAX: usize = 1024;

/// Bytes of one such name at the most.
const NAME_BYTES_MAX: usize = 1024;

/// Bytes of all of them at the most.
const BYTES_MAX: usize = 64 * 1024;

/// Messages that are told apart at the most, while those of names that no broker is told go by.
const GONE_BY_MAX: usize = 20_000;

/// The shortest pause after a round of them.
const REST_MIN: Duration = Duration::from_secs(1);

/// The names, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Names {
    names: VecDeque<Arc<str>>,
    bytes: usize,
    list: Arc<[Arc<str>]>,
}

/// What has become of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Learned {
    /// It is in the list now.
    New,
    /// It was before.
    Known,
    /// There is no room for it.
    TooMuch,
}

impl Names {
    /// Adds a name, if there is room.
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

    /// Forgets those of which this is true; gives them.
    pub(super) fn forget(&mut self, is_gone: impl Fn(&str) -> bool) -> Vec<Arc<str>> {
        let (gone, left): (Vec<_>, Vec<_>) = self.names.drain(..).partition(|name| is_gone(name));
        self.names = left.into();
        self.bytes = self.names.iter().map(|name| name.len()).sum();
        if !gone.is_empty() {
            self.renew();
        }
        gone
    }

    /// All of them.
    pub(super) fn list(&self) -> Arc<[Arc<str>]> {
        self.list.clone()
    }

    fn renew(&mut self) {
        self.list = self.names.iter().cloned().collect();
    }
}

/// Messages of unknown names which a broker cannot tell from others go to the far end of their list, and
/// come again. Others find them there at any time; after a round of them this worker takes nothing
/// for a while, so that it does not only turn the list.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    gone_by: HashSet<u64>,
    begun: Option<Instant>,
    rests: Option<Instant>,
}

impl Rounds {
    /// The message of this task has gone by.
    pub(super) fn pass(&mut self, id: &str, now: Instant) {
        let begun = *self.begun.get_or_insert(now);
        let mut hasher = DefaultHasher::new();
        id.hash(&mut hasher);
        let is_new = self.gone_by.insert(hasher.finish());
        if !is_new || self.gone_by.len() >= GONE_BY_MAX {
            let rest = (now.duration_since(begun) * 4).clamp(REST_MIN, bounds::UNKNOWN_PAUSE);
            *self = Rounds { rests: Some(now + rest), ..Rounds::default() };
        }
    }

    /// Is nothing to be taken?
    pub(super) fn rest(&self, now: Instant) -> bool {
        self.rests.is_some_and(|until| now < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_each_round_there_is_a_rest() {
        let (mut rounds, begun) = (Rounds::default(), Instant::now());
        for n in 0..100 {
            rounds.pass(&n.to_string(), begun + Duration::from_millis(n));
            assert!(!rounds.rest(begun + Duration::from_millis(n)), "{n}");
        }
        let again = begun + Duration::from_secs(1);
        rounds.pass("0", again);
        assert!(rounds.rest(again) && rounds.rest(again + Duration::from_secs(3)));
        assert!(!rounds.rest(again + bounds::UNKNOWN_PAUSE));
        for n in 0..GONE_BY_MAX {
            rounds.pass(&format!("x{n}"), again + bounds::UNKNOWN_PAUSE);
        }
        assert!(rounds.rest(again + bounds::UNKNOWN_PAUSE), "what is told apart is bounded");
    }

    #[test]
    fn a_list_is_bounded_in_names_and_bytes() {
        let mut unknown = Names::default();
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
