//! What becomes of messages that are not run.

use super::event::Now;
use super::finish::{self, Verdict};
use super::plan::{Plan, Policy};
use super::request::{Request, about, label};
use crate::bounds;
use crate::broker::{Death, Settle};
use crate::log::escape;
use crate::task::Task;
use crate::wire::{self, Exception, Malformed, Message, Payload, Record};
use tracing::Level;

/// Somebody has revoked it: the result store says so, and goes on saying so.
pub(super) fn revoked(payload: &Payload) -> Verdict {
    let message = payload.decode().ok();
    let name = message.as_ref().map_or_else(|| "a message".to_string(), label);
    Verdict {
        settle: Some(Settle::Ack),
        log: Some((Level::INFO, format!("Discarding revoked task: {name}"))),
        about: message.as_ref().map(about),
        ..Verdict::default()
    }
}

/// It came too late.
pub(super) fn expired(request: &Request, plan: &Plan, now: Now) -> Verdict {
    let exception = Exception::new("celery.exceptions", "TaskRevokedError", "expired");
    let log = format!("Discarding revoked task: {}: expired", request.label());
    ended(request, plan, (wire::State::Revoked, &exception), (Level::INFO, log), now)
}

/// Its arguments are not those of the task.
pub(super) fn misfit(request: &Request, plan: &Plan, exception: &Exception, now: Now) -> Verdict {
    let log = format!("Task {} raised unexpected: {}", request.label(), finish::show(exception));
    ended(request, plan, (wire::State::Failure, exception), (Level::ERROR, log), now)
}

/// It is over, with this state.
fn ended(
    request: &Request,
    plan: &Plan,
    (state, exception): (wire::State, &Exception),
    log: (Level, String),
    now: Now,
) -> Verdict {
    Verdict {
        record: finish::error_record(request, plan, state, exception, None, now.wall),
        settle: Some(Settle::Ack),
        log: Some(log),
        about: Some(about(&request.message)),
        ..Verdict::default()
    }
}

/// What is told of a name that no file of ours defines, once.
pub(super) fn left(message: &Message, queue: &str) -> String {
    let (name, queue) = (escape::name(&message.task), escape::name(queue));
    format!(
        "queue {queue} holds tasks of the name \"{name}\", which is not in tasks.d: they are left \
         there for other workers; define it, or send it to a queue of workers that have it"
    )
}

/// A name that no file of ours defines, and no worker beside this one is to have: the next
/// deployment may; after some tries it is kept.
pub(super) fn unknown(deliveries: u32, message: &Message, policy: &Policy, now: Now) -> Verdict {
    let name = &message.task;
    let tries = deliveries.saturating_add(1);
    let max = policy.max_deliveries;
    let id = escape::name(&message.id);
    let shown = escape::name(name);
    let log = format!("Received unregistered task \"{shown}\", id {id} ({tries} of {max})");
    if tries < max {
        // From the first time on: whoever knows it may be a deployment away.
        let delay = bounds::redelivery_delay(tries);
        return Verdict {
            settle: Some(Settle::Redeliver(now.wall + delay)),
            log: Some((Level::WARN, log)),
            about: Some(about(message)),
            ..Verdict::default()
        };
    }
    let exception = Exception::new("celery.exceptions", "NotRegistered", name);
    let why = Malformed(format!("no worker that saw it {max} times has a task of this name"));
    let ignored = message.ignore_result.unwrap_or(policy.ignore_result);
    let stored = !ignored || policy.store_errors;
    Verdict {
        record: stored.then(|| {
            Record::exception(&message.id, wire::State::Failure, &exception, None, now.wall)
        }),
        log: Some((Level::ERROR, format!("{log}; kept in the dead-letter list"))),
        ..kept("unregistered", &why, Some(message), now)
    }
}

/// Keeps a message of a task that there is; its result only if somebody wants it.
pub(super) fn kept_of(
    reason: &'static str,
    why: &Malformed,
    message: &Message,
    task: &Task,
    policy: &Policy,
    now: Now,
) -> Box<Verdict> {
    let ignored = message.ignore_result.or(task.ignore_result).unwrap_or(policy.ignore_result);
    let verdict = kept(reason, why, Some(message), now);
    let record = verdict.record.filter(|_| !ignored || policy.store_errors);
    Box::new(Verdict { record, ..verdict })
}

/// Nothing is stored or said.
pub(super) fn settle_only(settle: Settle) -> Verdict {
    Verdict { settle: Some(settle), ..Verdict::default() }
}

/// It is kept in the dead-letter list; `message` as far as it can be read.
pub(super) fn kept(
    reason: &'static str,
    why: &Malformed,
    message: Option<&Message>,
    now: Now,
) -> Verdict {
    let name = message.map_or_else(|| "a message".to_string(), label);
    let death = Death {
        reason,
        detail: why.to_string(),
        task_id: message.map(|m| m.id.clone()),
        task: message.map(|m| m.task.clone()),
        counts: true,
    };
    let log = format!("{name} is {reason}: {why}; kept in the dead-letter list");
    let record = message.map(|m| {
        let exception = Exception::new("celery.exceptions", "InvalidTaskError", why.to_string());
        Record::exception(&m.id, wire::State::Failure, &exception, None, now.wall)
    });
    Verdict {
        record,
        settle: Some(Settle::Dead(death)),
        log: Some((Level::ERROR, log)),
        about: message.map(about),
        ..Verdict::default()
    }
}
