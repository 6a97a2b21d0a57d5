//! Waiting without a clock to tune: for an event where there is one, else by asking until
//! a deadline that only a broken program reaches.

use std::time::{Duration, Instant};

/// No machine is so slow that a right program takes longer.
pub const SOON: Duration = Duration::from_secs(60);

/// Asks until `look` finds something; panics with `what` after [`SOON`].
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    let mut pause = Duration::from_micros(200);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begin.elapsed() < SOON, "not within {} s: {what}", SOON.as_secs());
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}
