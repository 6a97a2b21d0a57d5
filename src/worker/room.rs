//! How many tasks the host has room for, found out by trying: descriptors, processes and memory
//! run out without notice, and how much there is changes with what others do. Pure.
//!
//! A refused start bounds the tasks at once to those that run. After a pause one more is tried,
//! then two, and so on; a trial that is refused doubles the pause.

use std::time::{Duration, Instant};

/// The first pause.
const PAUSE: Duration = Duration::from_secs(1);

/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// The bound, while there is one.
#[derive(Debug, Default)]
pub struct Room(Option<Tight>);

#[derive(Debug)]
struct Tight {
    slots: usize,
    why: String,
    pause: Duration,
    /// When more is tried.
    next: Instant,
    /// So many more were tried last, and not refused yet; 0 after a refusal.
    tried: usize,
}

impl Room {
    /// The host has refused a start while `running` tasks run. Gives what to say; nothing
    /// where that was said before.
    pub fn refused(&mut self, why: &str, running: usize, now: Instant) -> Option<String> {
        let (pause, news) = match &self.0 {
            None => (PAUSE, true),
            Some(tight) if tight.tried > 0 => ((tight.pause * 2).min(PAUSE_MAX), tight.why != why),
            Some(tight) => (tight.pause, tight.why != why),
        };
        self.0 =
            Some(Tight { slots: running, why: why.into(), pause, next: now + pause, tried: 0 });
        news.then(|| {
            format!(
                "the host has no room for more than {running} tasks: {why}; \
                 what does not fit is given back"
            )
        })
    }

    /// Time has passed. Gives what to say when there is room for all `slots` again.
    pub fn look(&mut self, slots: usize, now: Instant) -> Option<String> {
        let tight = self.0.as_mut().filter(|tight| tight.next <= now)?;
        if tight.tried > 0 {
            tight.pause = PAUSE;
        }
        tight.tried = (tight.tried * 2).max(1);
        tight.slots += tight.tried;
        tight.next = now + PAUSE;
        (tight.slots >= slots).then(|| {
            self.0 = None;
            format!("the host has room for {slots} tasks again")
        })
    }

    /// Of so many slots, those there is room for.
    pub fn of(&self, slots: usize) -> usize {
        self.0.as_ref().map_or(slots, |tight| tight.slots.min(slots))
    }

    /// Why there is no room for all, if so.
    pub fn why(&self) -> Option<String> {
        let Tight { slots, why, .. } = self.0.as_ref()?;
        Some(format!("the host has no room for more than {slots} tasks: {why}"))
    }

    /// Is there a bound, which time may lift?
    pub fn is_tight(&self) -> bool {
        self.0.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_told_once_and_lifted_by_trials() {
        let (mut room, begin) = (Room::default(), Instant::now());
        let at = |seconds| begin + Duration::from_secs(seconds);
        assert!(room.refused("EMFILE", 9, at(0)).is_some_and(|said| said.contains("than 9 tasks")));
        assert_eq!((room.refused("EMFILE", 7, at(0)), room.of(20)), (None, 7));
        assert!(room.refused("ENOMEM", 7, at(0)).is_some_and(|said| said.contains("ENOMEM")));
        // One more, which is refused: the pause doubles.
        assert_eq!((room.look(20, at(0)), room.of(20)), (None, 7));
        assert_eq!((room.look(20, at(1)), room.of(20)), (None, 8));
        assert_eq!((room.refused("ENOMEM", 7, at(1)), room.of(20)), (None, 7));
        assert_eq!((room.look(20, at(2)), room.of(20)), (None, 7));
        let slots: Vec<usize> = (3..6)
            .map(|second| {
                assert_eq!(room.look(20, at(second)), None);
                room.of(20)
            })
            .collect();
        assert_eq!((slots, room.is_tight()), (vec![8, 10, 14], true));
        assert!(room.look(20, at(6)).is_some_and(|said| said.contains("for 20 tasks again")));
        assert_eq!((room.why(), room.of(20), room.is_tight()), (None, 20, false));
    }
}
