//! When a beat asks the ledger, and for how much: whether another beat goes first, and what happens
//! while the ledger is slow or does not answer.

use crate::bounds::{BEAT_BATCH, BEAT_FLIGHTS, BEAT_LAG, BEAT_LATE, BEAT_PAUSE_MAX};
use chrono::{DateTime, TimeDelta, Utc};
use std::time::Duration;

/// The first pause before a ledger that did not answer is asked again.
const PAUSE: Duration = Duration::from_millis(100);

/// How many times the time doubles that a slow ledger is given.
const LATE_MAX: u8 = 4;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Another beat claims first; this one takes what is left, [`BEAT_LAG`] later.
    follows: bool,
    /// How many commits in a row have reached the ledger too late.
    late: u8,
    outage: Option<Outage>,
    /// When something was last asked for.
    pub asked: DateTime<Utc>,
    /// Requests that are not answered yet.
    pub in_flight: usize,
}

/// The ledger does not answer.
#[derive(Debug)]
struct Outage {
    pause: Duration,
    /// When it is asked again.
    until: DateTime<Utc>,
}

/// How many claims of an answer had each result.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Done.
    pub done: usize,
    /// Another beat was faster.
    pub beaten: usize,
    /// Too late.
    pub late: usize,
}

impl Pace {
    /// Whether another beat goes first.
    pub(super) fn follows(&self) -> bool {
        self.follows
    }

    /// Claims first again: new definitions are in force.
    pub(super) fn lead(&mut self) {
        self.follows = false;
    }

    /// How long this beat waits for another one.
    pub(super) fn lag(&self) -> TimeDelta {
        if self.follows { BEAT_LAG } else { TimeDelta::zero() }
    }

    /// Whether one more request may be asked.
    pub(super) fn has_room(&self) -> bool {
        self.in_flight < BEAT_FLIGHTS
    }

    /// How many entries one request may be about. During an outage, one is enough to find out.
    pub(super) fn batch(&self) -> usize {
        if self.outage.is_some() { 1 } else { BEAT_BATCH }
    }

    /// When a claim of now is given up: by then its occurrence may count as missed. A slow ledger is
    /// given longer.
    pub(super) fn until(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        now + BEAT_LATE * (1 << self.late)
    }

    /// Whether the ledger does not answer.
    pub(super) fn is_out(&self) -> bool {
        self.outage.is_some()
    }

    /// When a ledger that does not answer is asked again.
    pub(super) fn retry_at(&self) -> Option<DateTime<Utc>> {
        self.outage.as_ref().map(|outage| outage.until)
    }

    /// The ledger has answered; returns whether that ends an outage.
    pub(super) fn answered(&mut self) -> bool {
        self.outage.take().is_some()
    }

    /// The ledger has not answered. Returns when to ask again, and whether an outage begins.
    pub(super) fn failed(&mut self, now: DateTime<Utc>) -> (DateTime<Utc>, bool) {
        let begins = self.outage.is_none();
        let longer = |outage: Outage| (outage.pause * 2).min(BEAT_PAUSE_MAX);
        let pause = self.outage.take().map_or(PAUSE, longer);
        let until = now + pause;
        self.outage = Some(Outage { pause, until });
        (until, begins)
    }

    /// Decides who goes first, and how long a claim may take, by the results of a commit.
    pub(super) fn judge(&mut self, tally: &Tally) {
        if tally.done > 0 {
            self.late = 0;
        }
        if tally.late > 0 {
            self.late = (self.late + 1).min(LATE_MAX);
        }
        if tally.beaten > 0 && tally.beaten >= tally.done {
            self.follows = true;
        } else if tally.done > 0 {
            self.follows = false;
        }
    }

    /// The clock was set back: no time that it showed before is waited for.
    pub(super) fn set_back(&mut self, now: DateTime<Utc>) {
        self.asked = self.asked.min(now);
        if let Some(Outage { pause, until }) = &mut self.outage {
            *until = (*until).min(now + *pause);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_bound_and_begin_anew() {
        let (mut pace, now) = (Pace::default(), DateTime::UNIX_EPOCH);
        let mut pauses = Vec::new();
        for n in 0..6 {
            let (again, begins) = pace.failed(now);
            assert_eq!(begins, n == 0);
            pauses.push((again - now).num_milliseconds());
        }
        assert_eq!(pauses, [100, 200, 400, 800, 1000, 1000]);
        assert_eq!(pace.batch(), 1);
        assert!(pace.answered() && !pace.answered());
        assert_eq!(pace.failed(now).0 - now, TimeDelta::milliseconds(100));
    }

    #[test]
    fn who_is_beaten_follows_until_it_succeeds_alone() {
        let mut pace = Pace::default();
        for (done, beaten, follows) in
            [(2, 1, false), (1, 1, true), (0, 0, true), (1, 0, false), (0, 1, true), (3, 0, false)]
        {
            pace.judge(&Tally { done, beaten, late: 0 });
            assert_eq!(pace.follows(), follows, "{done} done, {beaten} beaten");
        }
    }

    #[test]
    fn a_slow_ledger_is_given_longer_up_to_a_bound() {
        let (mut pace, now) = (Pace::default(), DateTime::UNIX_EPOCH);
        let mut given = Vec::new();
        for _ in 0..6 {
            pace.judge(&Tally { late: 1, ..Tally::default() });
            given.push((pace.until(now) - now).num_seconds());
        }
        assert_eq!(given, [4, 8, 16, 32, 32, 32]);
        pace.judge(&Tally { done: 1, ..Tally::default() });
        assert_eq!(pace.until(now) - now, BEAT_LATE);
    }
}
