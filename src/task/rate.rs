//! Rate limits: how often a worker may start a task. Celery's token bucket of one token,
//! kept as a single instant (the next at which a start is due), which says the same with
//! nothing to refill.

pub use crate::config::units::Rate;

use std::time::{Duration, Instant};

/// The longest time between two starts, a year: the rates that ask for more mean "never",
/// and an instant can be so far away without overflow.
const INTERVAL_MAX: Duration = Duration::from_secs(365 * 86_400);

/// Lets starts through, at most at its rate. The first one is free.
#[derive(Debug, Clone)]
pub struct Bucket {
    /// Zero: without limit.
    interval: Duration,
    next: Option<Instant>,
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
        Bucket { interval, next: None }
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

    /// In any window of a second at most rate + 1 starts, whoever asks when.
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
