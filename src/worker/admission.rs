//! Holding tasks back while the host is short of memory or of processors.
//!
//! The rule and the judgement are pure; [`Watch::look`] reads the host.

use crate::config::units::Least;
use crate::os::host::{self, Room};

/// When no new task is taken. Without any part it never holds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Rule {
    /// `worker_min_free_memory`
    pub min_free_memory: Option<Least>,
    /// `worker_max_load`
    pub max_load: Option<f64>,
}

/// What the host says of itself.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reading {
    /// Memory of the host, and of each control group around this process that has a limit.
    pub rooms: Vec<Room>,
    /// Processes that ran or wanted to, on average over a minute.
    pub load: Option<f64>,
}

impl Rule {
    /// Is there anything to look at?
    pub fn is_set(&self) -> bool {
        *self != Rule::default()
    }

    /// Why no task should be taken now; `None` if nothing speaks against it, or the host does
    /// not say.
    pub fn shortage(&self, reading: &Reading) -> Option<String> {
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

/// Looks in a row that must be good before a shortage is over: at the limit it would
/// otherwise come and go with every task.
const GOOD_LOOKS: u32 = 3;

/// The rule over time.
#[derive(Debug)]
pub struct Watch {
    rule: Rule,
    short: bool,
    good: u32,
}

impl Watch {
    /// Nothing is short yet.
    pub fn new(rule: Rule) -> Watch {
        Watch { rule, short: false, good: 0 }
    }

    /// Looks at the host; see [`Watch::judge`].
    pub fn look(&mut self) -> Option<Option<String>> {
        self.judge(&Reading { rooms: host::rooms(), load: host::load() })
    }

    /// What has changed: `Some(Some(why))`, a shortage has begun; `Some(None)`, it is over.
    pub fn judge(&mut self, reading: &Reading) -> Option<Option<String>> {
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
                (self.good >= GOOD_LOOKS).then(|| {
                    self.short = false;
                    None
                })
            }
            (false, None) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(free: u64, load: f64) -> Reading {
        let host = Room { whose: "on the host", free, total: 1000 << 20 };
        let group = Room { whose: "in the control group", free: free / 2, total: 500 << 20 };
        Reading { rooms: vec![host, group], load: Some(load) }
    }

    #[test]
    fn what_is_short_is_named() {
        let rule = Rule { min_free_memory: Some(Least::Bytes(100 << 20)), max_load: Some(4.0) };
        assert!(rule.is_set() && !Rule::default().is_set());
        assert_eq!(rule.shortage(&reading(200 << 20, 4.0)), None);
        assert_eq!(
            rule.shortage(&reading(200 << 20, 4.5)).unwrap(),
            "the load is 4.50, above worker_max_load (4)"
        );
        assert_eq!(
            rule.shortage(&reading(199 << 20, 0.0)).unwrap(),
            "99.5 MiB of memory are free in the control group, below worker_min_free_memory (100.0 MiB)"
        );
        let part = Rule { min_free_memory: Some(Least::Part(0.1)), ..Rule::default() };
        assert_eq!(part.shortage(&reading(100 << 20, 99.0)), None);
        assert!(part.shortage(&reading(99 << 20, 0.0)).unwrap().contains("on the host"));
        // A host that says nothing is not short.
        assert_eq!(rule.shortage(&Reading::default()), None);
    }

    #[test]
    fn a_shortage_begins_at_once_and_ends_after_some_good_looks() {
        let mut watch = Watch::new(Rule { max_load: Some(1.0), ..Rule::default() });
        let mut look = |load| watch.judge(&reading(1 << 30, load)).map(|why| why.is_some());
        let told: Vec<_> =
            [0.5, 1.5, 2.5, 0.5, 0.5, 1.5, 0.5, 0.5, 0.5, 0.5, 1.5].map(&mut look).into();
        let mut expected = vec![None; 11];
        (expected[1], expected[8], expected[10]) = (Some(true), Some(false), Some(true));
        assert_eq!(told, expected);
    }

    #[test]
    fn this_host_answers() {
        let mut watch =
            Watch::new(Rule { min_free_memory: Some(Least::Part(1.0)), max_load: None });
        let why = watch.look().flatten().expect("not all memory of a running host is free");
        assert!(why.contains("MiB of memory are free"), "{why}");
        let mut watch =
            Watch::new(Rule { min_free_memory: Some(Least::Bytes(1)), max_load: Some(1e6) });
        assert_eq!(watch.look(), None);
    }
}
