//! How many tasks the host has capacity for, found by trying: descriptors, processes and memory
//! run out without notice, and what is left depends on other programs. Pure.
//!
//! A refused start limits the tasks to those that are running. After a pause one more is tried,
//! then two more, then four; a refused trial doubles the pause.

use std::time::{Duration, Instant};

/// The first pause.
const PAUSE: Duration = Duration::from_secs(1);

/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// The limit, while there is one.
#[derive(Debug, Default)]
pub(super) struct Capacity(Option<CapacityLimit>);

#[derive(Debug)]
struct CapacityLimit {
    slots: usize,
    why: String,
    pause: Duration,
    /// When more is tried.
    next: Instant,
    /// How many more were tried last and are not refused yet; 0 after a refusal.
    tried: usize,
}

impl Capacity {
    /// The host has refused a start while `running` tasks run. Gives the line to log, unless the
    /// same was logged before.
    pub(super) fn refused(&mut self, why: &str, running: usize, now: Instant) -> Option<String> {
        let (pause, news) = match &self.0 {
            None => (PAUSE, true),
            Some(limit) if limit.tried > 0 => ((limit.pause * 2).min(PAUSE_MAX), limit.why != why),
            Some(limit) => (limit.pause, limit.why != why),
        };
        self.0 = Some(CapacityLimit {
            slots: running,
            why: why.into(),
            pause,
            next: now + pause,
            tried: 0,
        });
        news.then(|| {
            format!(
                "the host has no room for more than {running} tasks: {why}; \
                 what does not fit is given back"
            )
        })
    }

    /// Raises the limit when that is due. Gives the line to log once there is capacity for all
    /// `slots` again.
    pub(super) fn raise(&mut self, slots: usize, now: Instant) -> Option<String> {
        let limit = self.0.as_mut().filter(|limit| limit.next <= now)?;
        if limit.tried > 0 {
            limit.pause = PAUSE;
        }
        limit.tried = (limit.tried * 2).max(1);
        limit.slots += limit.tried;
        limit.next = now + PAUSE;
        (limit.slots >= slots).then(|| {
            self.0 = None;
            format!("the host has room for {slots} tasks again")
        })
    }

    /// How many of `slots` may be used.
    pub(super) fn of(&self, slots: usize) -> usize {
        self.0.as_ref().map_or(slots, |limit| limit.slots.min(slots))
    }

    /// Why there is a limit, if there is one.
    pub(super) fn why(&self) -> Option<String> {
        let CapacityLimit { slots, why, .. } = self.0.as_ref()?;
        Some(format!("the host has no room for more than {slots} tasks: {why}"))
    }

    /// Is there a limit now?
    pub(super) fn is_limited(&self) -> bool {
        self.0.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_logged_once_and_lifted_by_trials() {
        let (mut capacity, begin) = (Capacity::default(), Instant::now());
        let at = |seconds| begin + Duration::from_secs(seconds);
        assert!(
            capacity.refused("EMFILE", 9, at(0)).is_some_and(|said| said.contains("than 9 tasks"))
        );
        assert_eq!((capacity.refused("EMFILE", 7, at(0)), capacity.of(20)), (None, 7));
        assert!(capacity.refused("ENOMEM", 7, at(0)).is_some_and(|said| said.contains("ENOMEM")));
        // One more is tried and refused: the pause doubles.
        assert_eq!((capacity.raise(20, at(0)), capacity.of(20)), (None, 7));
        assert_eq!((capacity.raise(20, at(1)), capacity.of(20)), (None, 8));
        assert_eq!((capacity.refused("ENOMEM", 7, at(1)), capacity.of(20)), (None, 7));
        assert_eq!((capacity.raise(20, at(2)), capacity.of(20)), (None, 7));
        let slots: Vec<usize> = (3..6)
            .map(|second| {
                assert_eq!(capacity.raise(20, at(second)), None);
                capacity.of(20)
            })
            .collect();
        assert_eq!((slots, capacity.is_limited()), (vec![8, 10, 14], true));
        assert!(capacity.raise(20, at(6)).is_some_and(|said| said.contains("for 20 tasks again")));
        assert_eq!((capacity.why(), capacity.of(20), capacity.is_limited()), (None, 20, false));
    }
}
