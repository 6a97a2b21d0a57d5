//! Names of tasks that this worker does not know. Unknown here is not unknown to others: messages
//! of these names stay in their queues, where whoever knows them takes them.

use std::collections::VecDeque;
use std::sync::Arc;

/// Names that are told apart at the most; they travel to the broker with each look for messages.
const NAMES_MAX: usize = 1024;

/// Bytes of one such name at the most.
const NAME_BYTES_MAX: usize = 1024;

/// Bytes of all of them at the most.
const BYTES_MAX: usize = 64 * 1024;

/// The names, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Unknown {
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

impl Unknown {
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

    /// Forgets the names that are known now; gives these.
    pub(super) fn forget(&mut self, known: impl Fn(&str) -> bool) -> Vec<Arc<str>> {
        let (gone, left): (Vec<_>, Vec<_>) = self.names.drain(..).partition(|name| known(name));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_bounded_in_names_and_bytes() {
        let mut unknown = Unknown::default();
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
