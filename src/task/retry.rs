//! How long a retry waits.

use super::Task;
use std::time::Duration;

/// The delay before the next attempt of `task` after `retries` earlier retries. With
/// jitter it is drawn from 0 to its full value, so that tasks that failed together do not
/// come back together; `random` is that draw, from 0 to below 1.
pub fn delay(task: &Task, retries: u32, random: f64) -> Duration {
    let full = grown(task.retry_backoff, task.retry_backoff_max, retries);
    if task.retry_jitter { full.mul_f64(random.clamp(0.0, 1.0)) } else { full }
}

/// `first`, doubled so many times, but no longer than `longest`.
pub fn grown(first: Duration, longest: Duration, times: u32) -> Duration {
    // Doubled 32 times a nanosecond is four seconds and a second 136 years, but zero stays
    // zero: what overflows is longer than any limit.
    let factor = 2u32.checked_pow(times).and_then(|factor| first.checked_mul(factor));
    match factor {
        Some(delay) => delay.min(longest),
        None if first.is_zero() => first,
        None => longest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::load::{File, TaskFileKind, load};
    use std::path::Path;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn doubles_up_to_the_longest() {
        let cases =
            [(0, 1), (1, 2), (2, 4), (9, 512), (10, 600), (31, 600), (32, 600), (u32::MAX, 600)];
        for (times, seconds) in cases {
            assert_eq!(grown(SECOND, 600 * SECOND, times), seconds * SECOND, "{times}");
        }
        assert_eq!(grown(Duration::ZERO, 600 * SECOND, 40), Duration::ZERO);
        assert_eq!(grown(Duration::MAX, Duration::MAX, 1), Duration::MAX);
    }

    #[test]
    fn jitter_draws_from_zero_to_the_full_delay() {
        let text = "a: {shell: x, retry_backoff: 10, retry_backoff_max: 60}\n\
                    b: {shell: x, retry_backoff: 10, retry_jitter: false}\n";
        let files = [File { path: "x.yaml".into(), content: TaskFileKind::Yaml(text.into()) }];
        let (tasks, _) = load(&files, Path::new("tasks.d"), &|_| true);
        for (retries, random, drawn, full) in [
            (0, 0.0, 0.0, 10.0),
            (0, 0.5, 5.0, 10.0),
            (1, 0.5, 10.0, 20.0),
            (9, 0.5, 30.0, 600.0),
            (0, 7.0, 10.0, 10.0),
        ] {
            assert_eq!(delay(&tasks[0], retries, random).as_secs_f64(), drawn);
            assert_eq!(delay(&tasks[1], retries, random).as_secs_f64(), full);
        }
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..1000 {
            assert!(delay(&tasks[0], random.u32(..), random.f64()) < 60 * SECOND);
        }
    }
}
