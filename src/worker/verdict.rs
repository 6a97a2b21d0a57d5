//! What is done with a message, and the verdicts that do not depend on how an attempt ended.

use super::follow::{self, Chords};
use super::plan::Plan;
use super::request::{Request, about};
use super::unlock::Unlocking;
use crate::broker::{Death, Posting, Settle};
use crate::log::About;
use crate::wire::{Exception, Record, TaskState};
use chrono::{DateTime, Utc};
use tracing::Level;

/// What to do with a message.
#[derive(Debug, Clone, Default)]
pub struct Verdict {
    /// Store this.
    pub record: Option<Record>,
    /// Settle the delivery like this; `None` if it was acknowledged before.
    pub settle: Option<Settle>,
    /// Store these too: of tasks that will not run since this one has failed.
    pub skipped: Vec<Record>,
    /// Send these: the retry of a task that was acknowledged before, and what follows the task.
    pub publish: Vec<Posting>,
    /// Chords that begin or go on with it.
    pub chords: Option<Box<Chords>>,
    /// It waits for a chord: what it settles, stores and sends depends on that.
    pub unlock: Option<Box<Unlocking>>,
    /// Log this.
    pub log: Option<(Level, String)>,
    /// The task that the line is about.
    pub about: Option<About>,
    /// Not even a power cut may undo it: an acknowledgement before the start.
    pub durable: bool,
}

impl Verdict {
    /// Settles a delivery; stores and logs nothing.
    pub fn only(settle: Settle) -> Verdict {
        Verdict { settle: Some(settle), ..Verdict::default() }
    }

    /// Does it ask nothing of the broker and the store?
    pub fn is_empty(&self) -> bool {
        let is_last = self.skipped.is_empty() && self.chords.is_none();
        is_last && self.record.is_none() && self.settle.is_none() && self.publish.is_empty()
    }

    /// A request that did not begin goes back as it came, uncounted: as a new message if it was
    /// acknowledged.
    pub fn release(request: &Request) -> Verdict {
        match request.acked {
            true => Verdict { publish: vec![request.posting(None)], ..Verdict::default() },
            false => Verdict::only(Settle::Release),
        }
    }

    /// A request that did not begin is delivered again from `until` on, uncounted.
    pub fn park(request: &Request, until: DateTime<Utc>) -> Verdict {
        match request.acked {
            true => Verdict { publish: vec![request.posting(Some(until))], ..Verdict::default() },
            false => Verdict::only(Settle::Park(until)),
        }
    }

    /// A request that lost too many processes or workers is FAILURE, and a dead letter unless it was
    /// acknowledged.
    pub fn lost(
        request: &Request,
        plan: &Plan,
        what: &str,
        traceback: Option<String>,
        now: DateTime<Utc>,
    ) -> Verdict {
        let exception = Exception::new("billiard.exceptions", "WorkerLostError", what);
        let death = Death {
            reason: "lost",
            detail: what.to_string(),
            task_id: Some(request.message.id.clone()),
            task: Some(request.message.task.clone()),
            // A message that had used up its deliveries before was not run this time.
            counts: !plan.policy.is_used_up(request.deliveries),
        };
        let fate =
            if request.acked { "acknowledged before" } else { "kept in the dead-letter list" };
        let log = format!("Task {} lost for good: {what}; {fate}", request.label());
        let text = traceback.clone();
        let verdict = Verdict {
            record: error_record(request, plan, TaskState::Failure, &exception, traceback, now),
            settle: (!request.acked).then_some(Settle::Dead(death)),
            log: Some((Level::ERROR, log)),
            about: Some(about(&request.message)),
            ..Verdict::default()
        };
        let ended = (TaskState::Failure, &exception);
        follow::failure(verdict, request, plan, ended, text.as_deref(), now)
    }
}

/// An error's record, if it is to be stored.
pub fn error_record(
    request: &Request,
    plan: &Plan,
    state: TaskState,
    exception: &Exception,
    traceback: Option<String>,
    now: DateTime<Utc>,
) -> Option<Record> {
    if !request.stores(plan, state) {
        return None;
    }
    let record = Record::exception(&request.message.id, state, exception, traceback, now);
    Some(request.extend(plan, record))
}
