//! How many slots there are when the number is not fixed (`--autoscale`). Pure.
//!
//! Slots are added at once when there are more messages than slots. Slots that were not needed during
//! a whole keep-alive period are removed. So no task is ever interrupted, and two changes of direction
//! are at least one period apart.

use std::time::{Duration, Instant};

/// A number of slots between two limits.
#[derive(Debug, Clone)]
pub struct Scale {
    min: usize,
    max: usize,
    now: usize,
    keepalive: Duration,
    /// When the current period began.
    since: Option<Instant>,
    /// The highest number of slots that were needed at once in it.
    needed: usize,
}

/// A change of the number of slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScaleChange {
    /// By this many more.
    Up(usize),
    /// By this many fewer.
    Down(usize),
}

impl Scale {
    /// From `min` slots up to `max`; if these are equal, the number is fixed.
    pub fn new(min: usize, max: usize, keepalive: Duration) -> Scale {
        let min = min.min(max);
        Scale { min, max, now: min, keepalive, since: None, needed: 0 }
    }

    /// The current number of slots.
    pub fn slots(&self) -> usize {
        self.now
    }

    /// Does the number of slots never change?
    pub fn is_fixed(&self) -> bool {
        self.min == self.max
    }

    /// Can the passing of time remove slots?
    pub fn may_shrink(&self) -> bool {
        self.now > self.min
    }

    /// Notes that `demand` slots are taken or needed now; gives the change that follows.
    pub fn follow(&mut self, demand: usize, at: Instant) -> Option<ScaleChange> {
        if self.is_fixed() {
            return None;
        }
        let demand = demand.min(self.max);
        if demand > self.now {
            let more = demand - self.now;
            (self.now, self.since, self.needed) = (demand, Some(at), demand);
            return Some(ScaleChange::Up(more));
        }
        self.needed = self.needed.max(demand);
        if at.saturating_duration_since(*self.since.get_or_insert(at)) < self.keepalive {
            return None;
        }
        let fewer = self.now - self.needed.max(self.min).min(self.now);
        self.now -= fewer;
        (self.since, self.needed) = (Some(at), demand);
        (fewer > 0).then_some(ScaleChange::Down(fewer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_secs(30);

    /// Follows a demand that is read every second; gives the changes, each with its second.
    fn changes(
        scale: &mut Scale,
        demand: impl Fn(u64) -> usize,
        last: u64,
    ) -> Vec<(u64, ScaleChange)> {
        let start = Instant::now();
        let look = |second| {
            let before = scale.slots();
            let change = scale.follow(demand(second), start + Duration::from_secs(second));
            assert!(scale.slots() >= demand(second).min(scale.max), "a busy slot was removed");
            assert!((scale.min..=scale.max).contains(&scale.slots()));
            match change {
                Some(ScaleChange::Up(n)) => assert_eq!(scale.slots(), before + n),
                Some(ScaleChange::Down(n)) => assert_eq!(scale.slots(), before - n),
                None => assert_eq!(scale.slots(), before),
            }
            change.map(|change| (second, change))
        };
        (0..last).filter_map(look).collect()
    }

    #[test]
    fn it_grows_at_once_and_shrinks_after_a_period_without_need() {
        let mut scale = Scale::new(1, 8, PERIOD);
        assert_eq!((scale.slots(), scale.may_shrink()), (1, false));
        let seen = changes(&mut scale, |second| if second < 10 { 12 } else { 0 }, 200);
        assert_eq!(seen, [(0, ScaleChange::Up(7)), (60, ScaleChange::Down(7))]);
        assert!(!scale.may_shrink());
    }

    #[test]
    fn slots_that_were_needed_within_the_period_stay() {
        let mut scale = Scale::new(0, 8, PERIOD);
        // The second one is needed for a second of every twenty.
        let seen = changes(&mut scale, |second| 1 + usize::from(second % 20 == 0), 400);
        assert_eq!(seen, [(0, ScaleChange::Up(2))]);
    }

    #[test]
    fn a_square_wave_changes_it_no_faster_than_the_period() {
        for half in [1, 7, 20, 31, 45, 100] {
            let mut scale = Scale::new(1, 8, PERIOD);
            let demand = |second: u64| if (second / half).is_multiple_of(2) { 8 } else { 0 };
            let seen = changes(&mut scale, demand, 3600);
            for pair in seen.windows(2) {
                let is_down = matches!(pair[1].1, ScaleChange::Down(_));
                assert!(!is_down || pair[1].0 - pair[0].0 >= PERIOD.as_secs(), "{half}: {seen:?}");
            }
            // The slots are removed after one to two idle periods.
            assert!(half >= PERIOD.as_secs() || seen.len() == 1, "{half}: {seen:?}");
            assert!(half < 2 * PERIOD.as_secs() || seen.len() > 1, "{half}: {seen:?}");
        }
    }

    #[test]
    fn a_fixed_number_stays() {
        let mut scale = Scale::new(4, 4, PERIOD);
        assert_eq!(changes(&mut scale, |second| second as usize % 9, 300), []);
        assert!(!scale.may_shrink());
    }
}
