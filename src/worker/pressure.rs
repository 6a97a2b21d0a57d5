//! Takes no new tasks while the host is short of memory or processors.
//!
//! The rule and its evaluation are pure; [`PressureMonitor::look`] reads the host.

use super::core::Event;
use crate::config::units::Least;
use crate::os::host::{self, Room};
use std::time::Duration;
use tokio::sync::mpsc;

/// How often the host is checked, if there is a rule.
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// When no new tasks are taken. A rule without limits never applies.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct PressureRule {
    /// `worker_min_free_memory`
    pub min_free_memory: Option<Least>,
    /// `worker_max_load`
    pub max_load: Option<f64>,
}

/// What the host reports.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HostReading {
    /// Memory of the host, and of each control group around this process that has a limit.
    pub rooms: Vec<Room>,
    /// The load average over one minute.
    pub load: Option<f64>,
}

impl PressureRule {
    /// Does it have any limit?
    pub fn is_set(&self) -> bool {
        *self != PressureRule::default()
    }

    /// Why no task should be taken now; `None` if no limit is exceeded, or the host does not
    /// report the figure.
    pub fn shortage(&self, reading: &HostReading) -> Option<String> {
        if let (Some(max), Some(load)) = (self.max_load, reading.load)
            && load > max
        {
            return Some(format!("the load is {load:.2}, above worker_max_load ({max})"));
        }
        let least = self.min_free_memory?;
        reading.rooms.iter().find_map(|room| {
            let least = match least {
                Least::Bytes(bytes) => bytes,
                Least::Part(part) => (room.total as f64 * part) as u64,
            };
            let mebibytes = |bytes: u64| bytes as f64 / 1048576.0;
            (room.free < least).then(|| {
                format!(
                    "{:.1} MiB of memory are free {}, below worker_min_free_memory ({:.1} MiB)",
                    mebibytes(room.free),
                    room.whose,
                    mebibytes(least)
                )
            })
        })
    }
}

/// A shortage is over after this many good readings in a row; otherwise it would come and go with
/// every task near the limit.
const GOOD_READINGS: u32 = 3;

/// Applies the rule over time.
#[derive(Debug)]
pub struct PressureMonitor {
    rule: PressureRule,
    short: bool,
    good: u32,
}

impl PressureMonitor {
    /// No shortage yet.
    pub fn new(rule: PressureRule) -> PressureMonitor {
        PressureMonitor { rule, short: false, good: 0 }
    }

    /// Reads the host; see [`PressureMonitor::judge`].
    pub fn look(&mut self) -> Option<Option<String>> {
        self.judge(&HostReading { rooms: host::rooms(), load: host::load() })
    }

    /// What has changed: `Some(Some(why))`: a shortage has begun; `Some(None)`: it is over.
    pub fn judge(&mut self, reading: &HostReading) -> Option<Option<String>> {
        let shortage = self.rule.shortage(reading);
        match (self.short, shortage) {
            (false, Some(why)) => {
                (self.short, self.good) = (true, 0);
                Some(Some(why))
            }
            (true, Some(_)) => {
                self.good = 0;
                None
            }
            (true, None) => {
                self.good += 1;
                (self.good >= GOOD_READINGS).then(|| {
                    self.short = false;
                    None
                })
            }
            (false, None) => None,
        }
    }
}

/// Reads the host once, and from then on in a task of its own that sends [`Event::Host`] for each
/// change. Gives the first event, if the host is short already. Without a rule it does nothing.
pub(super) fn watch(rule: PressureRule, events: mpsc::UnboundedSender<Event>) -> Option<Event> {
    if !rule.is_set() {
        return None;
    }
    let mut host = PressureMonitor::new(rule);
    let first = host.look().map(Event::Host);
    tokio::task::spawn_local(async move {
        let mut every = tokio::time::interval(CHECK_EVERY);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            every.tick().await;
            let change = host.look();
            if change.is_some_and(|change| events.send(Event::Host(change)).is_err()) {
                return;
            }
        }
    });
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(free: u64, load: f64) -> HostReading {
        let host = Room { whose: "on the host", free, total: 1000 << 20 };
        let group = Room { whose: "in the control group", free: free / 2, total: 500 << 20 };
        HostReading { rooms: vec![host, group], load: Some(load) }
    }

    #[test]
    fn a_shortage_is_named() {
        let rule =
            PressureRule { min_free_memory: Some(Least::Bytes(100 << 20)), max_load: Some(4.0) };
        assert!(rule.is_set() && !PressureRule::default().is_set());
        assert_eq!(rule.shortage(&reading(200 << 20, 4.0)), None);
        assert_eq!(
            rule.shortage(&reading(200 << 20, 4.5)).unwrap(),
            "the load is 4.50, above worker_max_load (4)"
        );
        assert_eq!(
            rule.shortage(&reading(199 << 20, 0.0)).unwrap(),
            "99.5 MiB of memory are free in the control group, below worker_min_free_memory (100.0 MiB)"
        );
        let part =
            PressureRule { min_free_memory: Some(Least::Part(0.1)), ..PressureRule::default() };
        assert_eq!(part.shortage(&reading(100 << 20, 99.0)), None);
        assert!(part.shortage(&reading(99 << 20, 0.0)).unwrap().contains("on the host"));
        // A host that reports nothing is not short.
        assert_eq!(rule.shortage(&HostReading::default()), None);
    }

    #[test]
    fn a_shortage_begins_at_once_and_ends_after_some_good_readings() {
        let mut watch =
            PressureMonitor::new(PressureRule { max_load: Some(1.0), ..PressureRule::default() });
        let mut look = |load| watch.judge(&reading(1 << 30, load)).map(|why| why.is_some());
        let seen: Vec<_> =
            [0.5, 1.5, 2.5, 0.5, 0.5, 1.5, 0.5, 0.5, 0.5, 0.5, 1.5].map(&mut look).into();
        let mut expected = vec![None; 11];
        (expected[1], expected[8], expected[10]) = (Some(true), Some(false), Some(true));
        assert_eq!(seen, expected);
    }

    #[test]
    fn this_host_reports_figures() {
        let mut watch = PressureMonitor::new(PressureRule {
            min_free_memory: Some(Least::Part(1.0)),
            max_load: None,
        });
        let why = watch.look().flatten().expect("not all memory of a running host is free");
        assert!(why.contains("MiB of memory are free"), "{why}");
        let mut watch = PressureMonitor::new(PressureRule {
            min_free_memory: Some(Least::Bytes(1)),
            max_load: Some(1e6),
        });
        assert_eq!(watch.look(), None);
    }
}
