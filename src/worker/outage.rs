//! A store that does not answer: each reason is logged once, the store is retried with growing
//! pauses, and the end of the outage is logged.

use super::health::troubles::Troubles;
use crate::broker::Error;
use std::time::{Duration, Instant};

/// Pause before a failing store is retried; it doubles up to [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_millis(50);

/// See [`PAUSE`].
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// How many reasons of one outage are logged at most.
const REASONS_MAX: usize = 16;

/// From the first failure to the first answer after it.
pub(super) struct Outage {
    /// What does not work, as the beginning of a sentence.
    what: &'static str,
    troubles: Troubles,
    since: Option<Instant>,
    /// The logged reasons, without digits: another duration is not another reason.
    logged: Vec<String>,
    pause: Duration,
}

impl Outage {
    /// None yet.
    pub(super) fn new(what: &'static str, troubles: Troubles) -> Outage {
        Outage { what, troubles, since: None, logged: Vec::new(), pause: PAUSE }
    }

    /// Waits after a failure. Each new reason is logged; `health` shows the latest.
    pub(super) async fn wait(&mut self, error: &Error) {
        self.since.get_or_insert_with(Instant::now);
        let reason = error.to_string();
        let bare: String = reason.chars().filter(|c| !c.is_ascii_digit()).collect();
        if !self.logged.contains(&bare) && self.logged.len() < REASONS_MAX {
            tracing::error!("{}: {reason}; trying again", self.what);
            self.logged.push(bare);
        }
        self.troubles.begin(self.what, reason);
        // With jitter: a store that comes back has more than one worker.
        tokio::time::sleep(self.pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
    }

    /// Notes an answer.
    pub(super) fn end(&mut self, who: &str) {
        if let Some(since) = self.since.take() {
            tracing::info!("{who} answers again after {:.1}s", since.elapsed().as_secs_f64());
            self.pause = PAUSE;
            self.logged.clear();
            self.troubles.end(self.what);
        }
    }
}
