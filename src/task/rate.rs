//! Rate limits: how often a worker may start a task. Celery's token bucket of one token,
//! kept as a single instant (the next at which a start is due), which says the same with
//! nothing to refill.

pub use crate::config::units::Rate;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

/// So many wait in line with a start of their own, about a megabyte; those beyond come
/// back when the line has been served.
const LINE_MAX: usize = 10_000;

/// Who comes so late to its start is still served at once: a second is the finest unit of
/// a rate.
const LATE_MAX: Duration = Duration::from_secs(1);

/// Who comes so early need not go again: clocks differ by more.
const EARLY_MAX: Duration = Duration::from_millis(1);

/// A start that nobody came for, for another worker took it, is forgotten after so long
/// when the line is full.
const MISSED: Duration = Duration::from_secs(600);

/// The longest time between two starts, a year: the rates that ask for more mean "never",
/// and an instant can be so far away without overflow.
const INTERVAL_MAX: Duration = Duration::from_secs(365 * 86_400);

/// Lets starts through, at most at its rate. The first one is free.
#[derive(Debug, Clone)]
pub struct Bucket {
    /// Zero: without limit.
    interval: Duration,
    /// The next start that nobody has.
    next: Option<Instant>,
    /// The last start.
    last: Option<Instant>,
    /// Who was sent away, with the start that was given out; by the hash of its id, for an id
    /// may be of any length.
    line: HashMap<u64, Instant>,
    hasher: RandomState,
}

impl Bucket {
    /// A bucket of this rate; a rate of 0 (or of nonsense below it) is no limit.
    pub fn new(rate: Rate) -> Bucket {
        let interval = match rate.0 > 0.0 {
            true => {
                Duration::try_from_secs_f64(1.0 / rate.0).unwrap_or(INTERVAL_MAX).min(INTERVAL_MAX)
            }
            false => Duration::ZERO,
        };
        Bucket {
            interval,
            next: None,
            last: None,
            line: HashMap::new(),
            hasher: RandomState::new(),
        }
    }

    /// Starts the task `id` now, or says after how long it is to come back. Who comes back
    /// then is started; nobody else has its place.
    pub fn admit(&mut self, id: &str, now: Instant) -> Result<(), Duration> {
        if let Some(early) = self.due(id).and_then(|due| due.checked_duration_since(now))
            && early > EARLY_MAX
        {
            return Err(early);
        }
        let on_time = match self.line.remove(&self.hasher.hash_one(id)) {
            // A crowd that comes late together, for no slot was free, goes by the rate.
            Some(due) => {
                now.saturating_duration_since(due) <= LATE_MAX
                    || self.last.is_none_or(|last| now.duration_since(last) >= self.interval)
            }
            None => self.take(now).is_ok(),
        };
        if on_time {
            self.last = Some(now);
            self.next = self.next.max(now.checked_add(self.interval));
            return Ok(());
        }
        if self.line.len() >= LINE_MAX {
            self.line.retain(|_, due| now.saturating_duration_since(*due) < MISSED);
        }
        if self.line.len() >= LINE_MAX {
            return Err(self.wait(now).max(self.interval));
        }
        let wait = self.reserve(now);
        if let Some(due) = now.checked_add(wait) {
            self.line.insert(self.hasher.hash_one(id), due);
        }
        Err(wait)
    }

    /// The start that `id` was given, if it was sent away.
    pub fn due(&self, id: &str) -> Option<Instant> {
        self.line.get(&self.hasher.hash_one(id)).copied()
    }

    /// Starts one now, or says how long to wait until the next start is due. Of many who
    /// wait, all are told the same; see [`Bucket::reserve`].
    pub fn take(&mut self, now: Instant) -> Result<(), Duration> {
        match self.wait(now) {
            Duration::ZERO => {
                self.next = now.checked_add(self.interval);
                Ok(())
            }
            wait => Err(wait),
        }
    }

    /// Gives out the next free start: how long from now it is. Whoever reserved starts
    /// then, without [`Bucket::take`]. Many who wait come back one after the other, not
    /// all at once to draw lots.
    pub fn reserve(&mut self, now: Instant) -> Duration {
        let wait = self.wait(now);
        // A queue of reservations into the next century ends there.
        self.next =
            now.checked_add(wait).and_then(|start| start.checked_add(self.interval)).or(self.next);
        wait
    }

    fn wait(&self, now: Instant) -> Duration {
        self.next.map_or(Duration::ZERO, |next| next.saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn one_start_per_interval() {
        let mut bucket = Bucket::new(Rate(10.0));
        let begin = Instant::now();
        assert_eq!(bucket.take(begin), Ok(()));
        assert_eq!(bucket.take(begin), Err(100 * MS));
        assert_eq!(bucket.take(begin + 30 * MS), Err(70 * MS));
        assert_eq!(bucket.take(begin + 100 * MS), Ok(()));
        // An idle time saves nothing up.
        assert_eq!(bucket.take(begin + 5000 * MS), Ok(()));
        assert_eq!(bucket.take(begin + 5000 * MS), Err(100 * MS));
    }

    #[test]
    fn reservations_are_spaced() {
        let mut bucket = Bucket::new(Rate(10.0));
        let now = Instant::now();
        let waits: Vec<Duration> = (0..4).map(|_| bucket.reserve(now)).collect();
        assert_eq!(waits, [Duration::ZERO, 100 * MS, 200 * MS, 300 * MS]);
        assert_eq!(bucket.reserve(now + 150 * MS), 250 * MS);
        assert_eq!(bucket.take(now + 400 * MS), Err(100 * MS));
    }

    #[test]
    fn who_waits_is_served_in_turn() {
        let mut bucket = Bucket::new(Rate(10.0));
        let begin = Instant::now();
        assert_eq!(bucket.admit("a", begin), Ok(()));
        for (id, wait) in [("b", 100), ("c", 200), ("d", 300)] {
            assert_eq!(bucket.admit(id, begin), Err(wait * MS));
        }
        // Who comes too early keeps its place, and nobody gets in between.
        assert_eq!(bucket.admit("c", begin + 50 * MS), Err(150 * MS));
        assert_eq!(bucket.admit("b", begin + 100 * MS), Ok(()));
        assert_eq!(bucket.admit("e", begin + 150 * MS), Err(250 * MS));
        assert_eq!(bucket.admit("c", begin + 215 * MS), Ok(()));
        assert_eq!(bucket.admit("d", begin + 300 * MS), Ok(()));
        assert_eq!(bucket.admit("e", begin + 400 * MS), Ok(()));
        assert_eq!(bucket.due("e"), None);
        assert_eq!(bucket.admit("f", begin + 500 * MS), Ok(()));
    }

    #[test]
    fn a_late_crowd_goes_by_the_rate() {
        let mut bucket = Bucket::new(Rate(10.0));
        let begin = Instant::now();
        let ids: Vec<String> = (0..6).map(|n| n.to_string()).collect();
        let sent_away = ids.iter().filter(|id| bucket.admit(id, begin).is_err()).count();
        assert_eq!(sent_away, 5);
        let late = begin + 60_000 * MS;
        assert_eq!(bucket.admit("5", late), Ok(()));
        for (id, wait) in [("1", 90), ("2", 190), ("3", 290)] {
            let answer = bucket.admit(id, late + 10 * MS);
            assert_eq!(answer, Err(wait * MS), "{id}");
        }
    }

    #[test]
    fn a_line_is_bounded_and_gets_through() {
        let mut bucket = Bucket::new(Rate(1000.0));
        let begin = Instant::now();
        // Everybody who waits, by the time to come back, as a broker keeps them.
        let mut waiting: std::collections::BTreeSet<(Instant, usize)> =
            (0..2 * LINE_MAX + 5).map(|id| (begin, id)).collect();
        let (mut starts, mut calls) = (Vec::new(), 0);
        while let Some((now, id)) = waiting.pop_first() {
            calls += 1;
            match bucket.admit(&id.to_string(), now) {
                Ok(()) => starts.push(now),
                Err(wait) => {
                    waiting.insert((now + wait, id));
                }
            }
            assert!(bucket.line.len() <= LINE_MAX);
        }
        assert_eq!(starts.len(), 2 * LINE_MAX + 5);
        assert!(calls < 5 * starts.len(), "{calls}");
        assert!(starts.windows(2).all(|pair| pair[1] >= pair[0] + MS / 2));
        let all = starts[starts.len() - 1] - begin;
        assert!(all < 22_000 * MS, "{all:?}");
    }

    #[test]
    fn odd_rates() {
        let now = Instant::now();
        for rate in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let mut bucket = Bucket::new(Rate(rate));
            assert!((0..1000).all(|_| bucket.take(now).is_ok() && bucket.reserve(now).is_zero()));
        }
        for rate in [f64::MIN_POSITIVE, 1e-300, 1e-9] {
            let mut bucket = Bucket::new(Rate(rate));
            assert_eq!(bucket.take(now), Ok(()));
            assert_eq!(bucket.take(now), Err(INTERVAL_MAX));
            assert!((0..1000).all(|_| bucket.reserve(now) >= INTERVAL_MAX));
        }
    }

    /// At most rate + 1 starts in any window of one second.
    #[test]
    fn never_faster_than_the_rate() {
        let mut random = fastrand::Rng::with_seed(5);
        for _ in 0..50 {
            let per_second = random.u32(1..200);
            let (mut bucket, begin) = (Bucket::new(Rate(per_second.into())), Instant::now());
            let (mut now, mut starts) = (begin, Vec::new());
            for _ in 0..2000 {
                now += Duration::from_micros(random.u64(..20_000));
                match random.bool() {
                    true => starts.extend(bucket.take(now).ok().map(|()| now)),
                    false if random.u8(..) < 8 => starts.push(now + bucket.reserve(now)),
                    false => {}
                }
            }
            let interval = Duration::from_secs_f64(1.0 / f64::from(per_second));
            assert!(starts.windows(2).all(|pair| pair[1] >= pair[0] + interval));
        }
    }
}
