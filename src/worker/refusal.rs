//! Verdicts on messages that are not run.

use super::event::Now;
use super::finish::text::show;
use super::follow::{self, Ended};
use super::plan::Plan;
use super::request::{Request, about, label};
use super::verdict::{Verdict, error_record};
use crate::bounds;
use crate::broker::{Death, Delivery, Settle};
use crate::canvas::{Chords, builtin};
use crate::log::escape;
use crate::task::Task;
use crate::wire::{self, Exception, Malformed, Message, Payload, Record};
use tracing::Level;

/// The result store has the task as REVOKED, and keeps it so.
pub(super) fn revoked(payload: &Payload, plan: &Plan, now: Now) -> Verdict {
    let policy = &plan.policy;
    let message = payload.decode().ok().and_then(|mut message| {
        // A chord that it is a member of is in its body.
        let is_trusted = message.verify(&policy.accept, &policy.keys, now.wall);
        is_trusted.is_ok().then_some(message)
    });
    let name = message.as_ref().map_or_else(|| "a message".to_string(), label);
    Verdict {
        log: Some((Level::INFO, format!("Discarding revoked task: {name}"))),
        about: message.as_ref().map(about),
        chords: message.as_ref().and_then(follow::revoked),
        ..Verdict::only(Settle::Ack)
    }
}

/// Its `expires` has passed.
pub(super) fn expired(request: &Request, plan: &Plan, now: Now) -> Verdict {
    let exception = Exception::new("celery.exceptions", "TaskRevokedError", "expired");
    let log = format!("Discarding revoked task: {}: expired", request.label());
    ended(request, plan, (wire::TaskState::Revoked, &exception), (Level::INFO, log), now)
}

/// Its arguments do not fit the task's `params`.
pub(super) fn misfit(request: &Request, plan: &Plan, exception: &Exception, now: Now) -> Verdict {
    let log = format!("Task {} raised unexpected: {}", request.label(), show(exception));
    ended(request, plan, (wire::TaskState::Failure, exception), (Level::ERROR, log), now)
}

fn ended(
    request: &Request,
    plan: &Plan,
    (state, exception): (wire::TaskState, &Exception),
    log: (Level, String),
    now: Now,
) -> Verdict {
    let verdict = Verdict {
        record: error_record(request, plan, state, exception, None, now.wall),
        log: Some(log),
        about: Some(about(&request.message)),
        ..Verdict::only(Settle::Ack)
    };
    follow::failure(verdict, request, plan, (state, exception), None, now.wall)
}

/// The line that is logged once for a name that is not defined here.
pub(super) fn left(name: &str, queue: &str) -> String {
    let (name, queue) = (escape::name(name), escape::name(queue));
    format!(
        "queue {queue} holds tasks of the name \"{name}\", which is not in tasks.d: they are left \
         there for other workers; define it, or send it to a queue of workers that have it"
    )
}

/// Its name is not defined here, and no other worker is to run it (`task_unregistered`): it is
/// redelivered, since a deployment may define the name, and becomes a dead letter after some tries.
pub(super) fn unknown(
    delivery: &Delivery,
    message: &Message,
    name: &str,
    plan: &Plan,
    now: Now,
) -> Verdict {
    let policy = &plan.policy;
    let tries = delivery.deliveries.saturating_add(1);
    let max = policy.max_deliveries;
    let id = escape::name(&message.id);
    let shown = escape::name(name);
    let log = format!("Received unregistered task \"{shown}\", id {id} ({tries} of {max})");
    if !policy.is_used_up(tries) {
        // With a delay from the first time on: the deployment takes its time.
        let delay = bounds::redelivery_delay(tries);
        return Verdict {
            log: Some((Level::WARN, log)),
            about: Some(about(message)),
            ..Verdict::only(Settle::Redeliver(now.wall + delay))
        };
    }
    let missing = builtin::of_left_name(name).map_or(name, |(_, inner)| inner);
    let exception = Exception::new("celery.exceptions", "NotRegistered", missing);
    let why = Malformed(format!("no worker that saw it {max} times has a task of this name"));
    let verdict = Verdict {
        record: failure(&exception, message, None, plan, now),
        log: Some((Level::ERROR, format!("{log}; kept in the dead-letter list"))),
        ..dead("unregistered", &why, Some((message, None)), plan, now)
    };
    // Nobody waits in vain for what was to follow it.
    let arguments = message.arguments().unwrap_or_default();
    let (arguments, queue) = (&arguments, &*delivery.queue);
    let task = Ended { message, arguments, task: None, queue };
    let ended = (wire::TaskState::Failure, &exception);
    follow::failure_of(verdict, task, plan, ended, None, now.wall)
}

/// It becomes a dead letter. `message` is there as far as it can be read, with its task if that is
/// defined.
pub(super) fn dead(
    reason: &'static str,
    why: &Malformed,
    message: Option<(&Message, Option<&Task>)>,
    plan: &Plan,
    now: Now,
) -> Verdict {
    let exception = Exception::new("celery.exceptions", "InvalidTaskError", why.to_string());
    let record = message.and_then(|(message, task)| failure(&exception, message, task, plan, now));
    let message = message.map(|(message, _)| message);
    let death = Death {
        reason,
        detail: why.to_string(),
        task_id: message.map(|message| message.id.clone()),
        task: message.map(|message| message.task.clone()),
        counts: true,
    };
    let name = message.map_or_else(|| "a message".to_string(), label);
    let log = format!("{name} is {reason}: {why}; kept in the dead-letter list");
    Verdict {
        record,
        log: Some((Level::ERROR, log)),
        about: message.map(about),
        ..Verdict::only(Settle::Dead(death))
    }
}

/// The record of a message that became no request, if it is to be stored.
fn failure(
    exception: &Exception,
    message: &Message,
    task: Option<&Task>,
    plan: &Plan,
    now: Now,
) -> Option<Record> {
    let state = wire::TaskState::Failure;
    // It may be a member of a chord: nobody has read its body.
    let may_be_polled = plan.chords == Chords::Polled && message.group.is_some();
    (may_be_polled || plan.policy.stores(state, message, task))
        .then(|| Record::exception(&message.id, state, exception, None, now.wall))
}
