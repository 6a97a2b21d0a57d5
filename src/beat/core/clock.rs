//! A beat's clock. It follows the broker's where the two differ: beats on several hosts have to
//! agree about what is due.

use crate::beat::event::Now;
use crate::bounds::BEAT_SKEW;
use chrono::{DateTime, TimeDelta, Utc};

/// This host's clock, corrected by the broker's.
#[derive(Debug)]
pub(super) struct Clock {
    /// What has to be added to this host's clock.
    skew: TimeDelta,
    /// The skew that was last reported.
    reported: TimeDelta,
    /// The latest time that it has shown.
    latest: DateTime<Utc>,
    /// When both of this host's clocks were last read.
    seen: Now,
    /// The skew has to be measured before anything is sent.
    unsure: bool,
    /// This host's clock was not set since the measurement began.
    steady: bool,
}

impl Clock {
    /// A clock whose skew is not known yet.
    pub(super) fn new(at: Now) -> Clock {
        let zero = TimeDelta::zero();
        Clock { skew: zero, reported: zero, latest: at.wall, seen: at, unsure: true, steady: true }
    }

    /// The time now.
    pub(super) fn now(&self, at: Now) -> DateTime<Utc> {
        at.wall + self.skew
    }

    /// What this host's clock shows at that time.
    pub(super) fn local(&self, time: DateTime<Utc>) -> DateTime<Utc> {
        time - self.skew
    }

    /// Whether the skew has to be measured.
    pub(super) fn is_unsure(&self) -> bool {
        self.unsure
    }

    /// A measurement of the skew begins.
    pub(super) fn measure(&mut self) {
        self.steady = true;
    }

    /// Whether this host's clock was not set since the measurement began: else it is of no use.
    pub(super) fn is_steady(&self) -> bool {
        self.steady
    }

    /// Looks whether this host's clock was set since the last call. Until the skew is measured,
    /// this clock then continues as if nothing had happened.
    pub(super) fn watch(&mut self, at: Now) {
        let before = std::mem::replace(&mut self.seen, at);
        let passed = TimeDelta::from_std(at.mono - before.mono).unwrap_or(TimeDelta::MAX);
        let step = at.wall - before.wall - passed;
        if step.abs() > BEAT_SKEW {
            self.skew -= step;
            self.unsure = true;
            self.steady = false;
        }
    }

    /// Whether it shows less than when this was last called, by more than two clocks may differ.
    pub(super) fn went_back(&mut self, at: Now) -> bool {
        let now = self.now(at);
        let latest = std::mem::replace(&mut self.latest, now);
        latest - self.latest > BEAT_SKEW * 2
    }

    /// Measures the skew: the broker's clock showed `theirs` between two instants of this host's
    /// clock, which was not set between them. Returns the skew if it is another one than the last
    /// that was returned.
    pub(super) fn compare(
        &mut self,
        theirs: DateTime<Utc>,
        asked: DateTime<Utc>,
        answered: DateTime<Utc>,
    ) -> Option<TimeDelta> {
        self.unsure = false;
        let off = match theirs {
            theirs if theirs < asked => theirs - asked,
            theirs if theirs > answered => theirs - answered,
            _ => TimeDelta::zero(),
        };
        let skew = if off.abs() > BEAT_SKEW { off } else { TimeDelta::zero() };
        if (skew - self.skew).abs() > BEAT_SKEW {
            self.skew = skew;
        }
        let is_news = (self.skew - self.reported).abs() > BEAT_SKEW;
        is_news.then(|| {
            self.reported = self.skew;
            self.skew
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn small_differences_are_none() {
        let at = Now { mono: Instant::now(), wall: DateTime::UNIX_EPOCH };
        let (mut clock, now) = (Clock::new(at), at.wall);
        let s = TimeDelta::seconds;
        assert_eq!(clock.compare(now + TimeDelta::milliseconds(400), now, now), None);
        // A slow answer is no difference.
        assert_eq!(clock.compare(now + s(1), now, now + s(3)), None);
        assert_eq!(clock.compare(now + s(90), now, now + s(1)), Some(s(89)));
        assert_eq!(clock.now(at), now + s(89));
        assert_eq!(clock.compare(now + s(90), now, now + s(1)), None);
        assert_eq!(clock.compare(now, now, now), Some(s(0)));
        clock.went_back(at);
        assert!(!clock.went_back(at));
        clock.compare(now - s(90), now, now);
        assert!(clock.went_back(at) && !clock.went_back(at));
    }

    #[test]
    fn a_clock_that_was_set_continues_until_it_is_compared() {
        let mut at = Now { mono: Instant::now(), wall: DateTime::UNIX_EPOCH };
        let mut clock = Clock::new(at);
        clock.compare(at.wall, at.wall, at.wall);
        at = Now { mono: at.mono + Duration::from_secs(5), wall: at.wall + TimeDelta::seconds(5) };
        clock.watch(at);
        assert!(clock.is_steady() && !clock.is_unsure());
        let was = at.wall;
        at.wall -= TimeDelta::hours(1);
        clock.watch(at);
        clock.watch(at);
        assert!(!clock.is_steady() && clock.is_unsure());
        clock.measure();
        assert!(clock.is_steady() && clock.is_unsure());
        assert_eq!(clock.now(at), was);
        assert!(!clock.went_back(at));
        // The broker's clock was set too.
        assert_eq!(clock.compare(at.wall, at.wall, at.wall), None);
        assert!(!clock.is_unsure() && clock.now(at) == at.wall && clock.went_back(at));
    }
}
