//! Which workers are dead, judged by their heartbeats alone: no I/O, and no clock.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// A worker whose sign stays the same for this long is dead.
const LOST_AFTER: Duration = Duration::from_secs(15);

/// What one worker has seen of the others.
#[derive(Default)]
pub(super) struct Membership {
    /// The last sign of each worker that is quiet, and since when it is known.
    quiet: HashMap<String, (f64, Instant)>,
}

impl Membership {
    /// Nothing is known any more: who was not seen may have lived.
    pub(super) fn forget(&mut self) {
        self.quiet.clear();
    }

    /// Notes the workers that are quiet at `now`, each with its last sign; gives those that have
    /// been for too long. They are named again after as long, if they are still quiet.
    pub(super) fn judge(&mut self, quiet: Vec<(String, f64)>, now: Instant) -> Vec<String> {
        self.quiet.retain(|instance, _| quiet.iter().any(|(quiet, _)| quiet == instance));
        let mut dead = Vec::new();
        for (instance, sign) in quiet {
            let seen = self.quiet.entry(instance.clone()).or_insert((sign, now));
            if seen.0 != sign {
                *seen = (sign, now);
            }
            if now.duration_since(seen.1) >= LOST_AFTER {
                seen.1 = now;
                dead.push(instance);
            }
        }
        dead
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_sign_that_stays_the_same_while_it_is_watched_means_death() {
        let (mut members, start) = (Membership::default(), Instant::now());
        let mut judge = |seconds: u64, quiet: &[(&str, f64)]| {
            let quiet = quiet.iter().map(|(name, sign)| (name.to_string(), *sign)).collect();
            members.judge(quiet, start + Duration::from_secs(seconds))
        };
        assert!(judge(0, &[("a", 1.0), ("b", 1.0)]).is_empty());
        assert!(judge(14, &[("a", 1.0), ("b", 2.0)]).is_empty(), "b has said something");
        assert_eq!(judge(15, &[("a", 1.0), ("b", 2.0)]), ["a"]);
        assert!(judge(29, &[("a", 1.0)]).is_empty(), "what cannot be buried is not tried at once");
        assert_eq!(judge(30, &[("a", 1.0)]), ["a"]);
        assert!(judge(31, &[("b", 2.0)]).is_empty(), "it was not quiet in between");
    }
}
