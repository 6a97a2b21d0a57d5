//! A store that does not answer: each reason is said once, asked again with growing pauses, and
//! said when it is over.

use super::pulse::Pulse;
use crate::broker::Error;
use std::time::{Duration, Instant};

/// Pause before a failing store is asked again; it doubles up to [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_millis(50);

/// See [`PAUSE`].
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Reasons of one outage that are told at the most.
const REASONS_MAX: usize = 16;

/// From the first failure to the first answer after it.
pub struct Outage {
    /// What does not work, as a sentence begins.
    what: &'static str,
    pulse: Pulse,
    since: Option<Instant>,
    /// What was told of it, without figures: how long nobody answered is no other reason.
    told: Vec<String>,
    pause: Duration,
}

impl Outage {
    /// None yet.
    pub fn new(what: &'static str, pulse: Pulse) -> Outage {
        Outage { what, pulse, since: None, told: Vec::new(), pause: PAUSE }
    }

    /// Waits after a failure. Each new reason is told, and the newest is what `health` shows.
    pub async fn endure(&mut self, error: &Error) {
        self.since.get_or_insert_with(Instant::now);
        let reason = error.to_string();
        let bare: String = reason.chars().filter(|c| !c.is_ascii_digit()).collect();
        if !self.told.contains(&bare) && self.told.len() < REASONS_MAX {
            tracing::error!("{}: {reason}; trying again", self.what);
            self.told.push(bare);
        }
        self.pulse.fails(self.what, reason);
        // Not all at once: a store that comes back has more than one worker.
        tokio::time::sleep(self.pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
    }

    /// There was an answer.
    pub fn end(&mut self, who: &str) {
        if let Some(since) = self.since.take() {
            tracing::info!("{who} answers again after {:.1}s", since.elapsed().as_secs_f64());
            self.pause = PAUSE;
            self.told.clear();
            self.pulse.works(self.what);
        }
    }
}
