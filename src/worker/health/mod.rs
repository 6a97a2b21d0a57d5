//! Whether the worker is ready, and what it reports about itself to `health` and `multi status`.

pub(super) mod socket;
pub(super) mod troubles;

use super::core::Snapshot;
use super::plan::Plan;
use super::signals::WorkerState;
use crate::broker::Contact;
use crate::client::health::StatusDocument;
use std::sync::Arc;
use std::time::{Duration, Instant};
use troubles::Troubles;

/// A broker that has been silent for this long counts as unreachable: it is contacted every few
/// seconds even when there is no work.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// How many names of unknown tasks are reported at most.
const UNKNOWN_MAX: usize = 20;

/// What the worker's health is judged by.
pub(super) struct Health {
    plan: Arc<Plan>,
    contact: Contact,
    troubles: Troubles,
    start: Instant,
    guard: u32,
}

impl Health {
    /// Of the worker with this plan; `contact` reports on its broker.
    pub(super) fn new(plan: Arc<Plan>, contact: Contact, troubles: Troubles) -> Health {
        let guard = std::os::unix::process::parent_id();
        Health { plan, contact, troubles, start: Instant::now(), guard }
    }

    /// The present status.
    pub(super) fn status(&self, now: &Snapshot) -> StatusDocument {
        let (silence, trouble) = (self.contact)();
        let silent = (silence > SILENCE_MAX)
            .then(|| format!("the broker has said nothing for {:.0} s", silence.as_secs_f64()));
        let leaving =
            (now.state != WorkerState::Running).then(|| format!("it is {}", now.state.name()));
        let why = leaving
            .or_else(|| self.troubles.first())
            .or(trouble)
            .or_else(|| now.limited.clone())
            .or(silent);
        StatusDocument {
            node: self.plan.hostname.to_string(),
            app: self.plan.app.display().to_string(),
            broker: self.plan.broker.clone(),
            pid: self.plan.pid,
            guard: self.guard,
            version: env!("CARGO_PKG_VERSION").into(),
            state: now.state.name().into(),
            ready: why.is_none(),
            why,
            polled: silence.as_secs_f64(),
            slots: now.slots,
            running: now.running,
            reserved: now.reserved,
            unknown: now.unknown.iter().take(UNKNOWN_MAX).map(ToString::to_string).collect(),
            log: crate::log::lost(),
            uptime: self.start.elapsed().as_secs_f64(),
        }
    }

    /// The present status in one line.
    pub(super) fn line(&self, now: &Snapshot) -> String {
        let status = self.status(now);
        let mut line = format!("{}: {} of {} slots", status.state, status.running, status.slots);
        if !now.unknown.is_empty() {
            line.push_str(&format!(", {} names of tasks unknown", now.unknown.len()));
        }
        for more in [status.why, status.log].into_iter().flatten() {
            line.push_str(&format!("; {more}"));
        }
        line
    }
}
