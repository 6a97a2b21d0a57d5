//! The clock of a beat, which is the broker's where they differ: beats on several hosts have to
//! agree about what is due.

use crate::bounds::BEAT_SKEW;
use crate::clock;
use chrono::{DateTime, TimeDelta, Utc};
use std::time::Instant;

/// A clock that is put right.
#[derive(Debug)]
pub struct Clock {
    skew: TimeDelta,
    /// The latest time that it has shown.
    latest: DateTime<Utc>,
    /// When both of this host's clocks were last looked at.
    seen: (DateTime<Utc>, Instant),
}

impl Clock {
    /// This host's clock.
    pub fn new() -> Clock {
        let now = clock::now();
        Clock { skew: TimeDelta::zero(), latest: now, seen: (now, Instant::now()) }
    }

    /// The time now.
    pub fn now(&self) -> DateTime<Utc> {
        clock::now() + self.skew
    }

    /// What this host's clock shows then.
    pub fn local(&self, at: DateTime<Utc>) -> DateTime<Utc> {
        at - self.skew
    }

    /// Does it show less, by more than the difference of two clocks, than it did when this was
    /// last asked? Then it was set back, or the one that is followed was.
    pub fn went_back(&mut self) -> bool {
        let now = self.now();
        let latest = std::mem::replace(&mut self.latest, now);
        latest - self.latest > BEAT_SKEW * 2
    }

    /// Was this host's clock set since this was last asked?
    pub fn was_set(&mut self) -> bool {
        let (wall, mono) = std::mem::replace(&mut self.seen, (clock::now(), Instant::now()));
        let passed = TimeDelta::from_std(self.seen.1 - mono).unwrap_or(TimeDelta::MAX);
        (self.seen.0 - wall - passed).abs() > BEAT_SKEW
    }

    /// The broker's clock showed `theirs` between two instants of this host's clock; says by how much this host's is
    /// wrong, if that is news.
    pub fn compare(
        &mut self,
        theirs: DateTime<Utc>,
        asked: DateTime<Utc>,
        answered: DateTime<Utc>,
    ) -> Option<TimeDelta> {
        let off = match theirs {
            theirs if theirs < asked => theirs - asked,
            theirs if theirs > answered => theirs - answered,
            _ => TimeDelta::zero(),
        };
        let skew = if off.abs() > BEAT_SKEW { off } else { TimeDelta::zero() };
        if (skew - self.skew).abs() <= BEAT_SKEW {
            return None;
        }
        self.skew = skew;
        Some(skew)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_differences_are_none() {
        let mut clock = Clock::new();
        let now = clock::now();
        let s = TimeDelta::seconds;
        assert_eq!(clock.compare(now + TimeDelta::milliseconds(400), now, now), None);
        // A slow answer is no difference.
        assert_eq!(clock.compare(now + s(1), now, now + s(3)), None);
        assert_eq!(clock.compare(now + s(90), now, now + s(1)), Some(s(89)));
        assert!((clock.now() - clock::now() - s(89)).abs() < s(1));
        assert_eq!(clock.compare(now + s(90), now, now + s(1)), None);
        assert_eq!(clock.compare(now, now, now), Some(s(0)));
        assert!(!clock.was_set());
        clock.went_back();
        assert!(!clock.went_back());
        clock.compare(now - s(90), now, now);
        assert!(clock.went_back() && !clock.went_back());
    }
}
