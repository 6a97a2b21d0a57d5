//! Tasks whose program or folder is unavailable now: a deployment writes the program, or a disk or a
//! server does not answer. Their messages are parked for growing pauses, so that they cost other
//! tasks nothing. Pure.

use crate::log::escape;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// The first pause.
const PAUSE: Duration = Duration::from_secs(1);

/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// These tasks by name; at most as many as are defined.
#[derive(Debug, Default)]
pub(super) struct Unavailable(HashMap<String, Trouble>);

#[derive(Debug)]
struct Trouble {
    why: String,
    /// When the last start was refused.
    last: Instant,
    pause: Duration,
    /// When a message of the task is tried again.
    next: Instant,
}

impl Unavailable {
    /// A message of `task` could not be started, for this reason. Gives how long to park it, and the
    /// line to log, unless the same was logged before.
    pub(super) fn refused(
        &mut self,
        task: &str,
        why: &str,
        now: Instant,
    ) -> (Duration, Option<String>) {
        let known = self.0.get(task);
        let (pause, next) = match known {
            None => (PAUSE, now + PAUSE),
            // It was tried together with another message.
            Some(trouble) if now < trouble.next => (trouble.pause, trouble.next),
            Some(trouble) => {
                let pause = (trouble.pause * 2).min(PAUSE_MAX);
                (pause, now + pause)
            }
        };
        let news = known.is_none_or(|trouble| trouble.why != why);
        self.0.insert(task.into(), Trouble { why: why.into(), last: now, pause, next });
        let line = news.then(|| {
            format!(
                "worker: task \"{}\" cannot be started now: {}; its messages are tried again every \
                 {} to {} s, uncounted",
                escape::name(task),
                escape::line(why),
                PAUSE.as_secs(),
                PAUSE_MAX.as_secs()
            )
        });
        (next.saturating_duration_since(now), line)
    }

    /// How long to park a new message of `task` without trying it.
    pub(super) fn wait(&self, task: &str, now: Instant) -> Option<Duration> {
        let trouble = self.0.get(task)?;
        Some(trouble.next.saturating_duration_since(now)).filter(|left| !left.is_zero())
    }

    /// An attempt at `task` began at `then`. Gives the line to log if none could begin before.
    pub(super) fn began(&mut self, task: &str, then: Instant) -> Option<String> {
        // An attempt that began before the refusal says nothing about the program now.
        if self.0.get(task)?.last > then {
            return None;
        }
        self.0.remove(task);
        Some(format!("worker: task \"{}\" can be started again", escape::name(task)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trouble_is_logged_once_and_tried_less_and_less() {
        let (mut unavailable, begin) = (Unavailable::default(), Instant::now());
        let at = |seconds| begin + Duration::from_secs(seconds);
        let (pause, line) = unavailable.refused("a", "p: Text file busy", at(0));
        assert_eq!(pause, PAUSE);
        assert!(line.is_some_and(|line| line.contains("\"a\" cannot be started now: p: Text")));
        assert_eq!(unavailable.refused("a", "p: Text file busy", at(0)), (PAUSE, None));
        assert_eq!(
            (unavailable.wait("a", at(0)), unavailable.wait("b", at(0))),
            (Some(PAUSE), None)
        );
        assert_eq!(unavailable.wait("a", at(1)), None);
        let (pause, line) = unavailable.refused("a", "p: Stale file handle", at(1));
        assert_eq!((pause, line.is_some()), (PAUSE * 2, true));
        for _ in 0..9 {
            unavailable.refused("a", "p: Stale file handle", at(1000));
            unavailable.0.values_mut().for_each(|trouble| trouble.next = at(0));
        }
        assert_eq!(unavailable.refused("a", "p: Stale file handle", at(1000)), (PAUSE_MAX, None));
        assert_eq!(
            (unavailable.began("b", at(1001)), unavailable.began("a", at(999))),
            (None, None)
        );
        let line = unavailable.began("a", at(1001));
        assert!(line.is_some_and(|line| line.ends_with("can be started again")));
        assert_eq!(
            (unavailable.began("a", at(1001)), unavailable.wait("a", at(1000))),
            (None, None)
        );
    }
}
