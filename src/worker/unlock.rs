//! `celery.chord_unlock`: where no store counts the members of a chord, a message polls their
//! results. It takes no slot: it is looked at while it is settled, and comes again until all members
//! have ended.

use super::chords::{Brought, Counter};
use super::event::Now;
use super::follow;
use super::request::{Request, about};
use super::verdict::Verdict;
use crate::backend::Error;
use crate::broker::{Item, Settle};
use crate::canvas::builtin::Unlock;
use crate::canvas::{self, Context};
use crate::link::error::StoreErrorKind;
use crate::wire::{Exception, Malformed, Payload};
use chrono::{DateTime, TimeDelta, Utc};

/// Seconds between two looks, at least and at most: each look is a step of the broker.
const INTERVAL: (f64, f64) = (0.05, 86_400.0);

/// A look at the members of a chord.
#[derive(Debug, Clone)]
pub struct Unlocking {
    unlock: Unlock,
    /// Its task id, which names the messages of the body.
    pub(super) task_id: String,
    root_id: String,
    /// The priority of its message.
    priority: Option<u8>,
    /// It comes again as this message, at that time; `None`: it may not.
    again: Option<(Payload, DateTime<Utc>)>,
}

/// The verdict on a request to unlock a chord, which is completed while it is settled.
///
/// # Errors
/// Says which argument is wrong.
pub(super) fn begin(request: &Request, now: Now) -> Result<Verdict, Malformed> {
    let unlock = Unlock::read(&request.arguments.args, &request.arguments.kwargs)?;
    let message = &request.message;
    let interval = unlock.interval.clamp(INTERVAL.0, INTERVAL.1);
    let at = now.wall + TimeDelta::milliseconds((interval * 1000.0) as i64);
    let may_come_again = unlock.max_retries.is_none_or(|max| u64::from(message.retries) < max);
    let again = match may_come_again {
        true => Some((request.payload.retry(message, at)?, at)),
        false => None,
    };
    let (task_id, root_id) = (message.id.clone(), message.root_id.clone());
    let priority = follow::priority(message);
    let unlocking = Unlocking { unlock, task_id, root_id, priority, again };
    let verdict = Verdict {
        unlock: Some(Box::new(unlocking)),
        about: Some(about(message)),
        ..Verdict::only(Settle::Ack)
    };
    Ok(verdict)
}

impl Counter {
    /// Looks at the members. `item`, which settles the message, gets what that has come to; gives what
    /// is to be done before it.
    pub(super) async fn look(&self, unlocking: &Unlocking, item: &mut Item) -> Brought {
        let Unlocking { unlock, task_id, root_id, priority, again } = unlocking;
        let found = self.store().polled(&unlock.header).await;
        if let (Ok(None) | Err(_), Some((payload, at))) = (&found, again)
            && !found.as_ref().is_err_and(is_final)
        {
            item.settle = Some(Settle::Replace(payload.clone(), *at));
            return Brought::default();
        }
        let context = Context {
            root_id,
            parent_id: task_id,
            priority: priority.filter(|_| self.plan().policy.inherit_priority),
            now: crate::clock::now(),
            chords: self.plan().chords,
        };
        let takes_all = follow::takes_all(&self.plan().tasks);
        let body = &unlock.body;
        let ended = match found {
            Ok(Some(returned)) => canvas::complete(body, &returned, &takes_all, context),
            Ok(None) => {
                let why = format!("Can't retry celery.chord_unlock[{task_id}]");
                let cause = Exception::new("celery.exceptions", "MaxRetriesExceededError", why);
                let why = format!("chord_unlock could not be retried: {}", cause.repr(1));
                canvas::fail(body, &why, Some(&cause), &takes_all, context)
            }
            Err(error) => canvas::fail(body, &error.to_string(), None, &takes_all, context),
        };
        let (mut items, parts, begun) = self.ended((&unlock.group_id, body), ended, context);
        // The messages of the body and the acknowledgement are one step.
        if let Some(at) = items.iter().position(|item| !item.postings.is_empty()) {
            item.postings = items.remove(at).postings;
            item.token = format!("unlock-{task_id}");
        }
        (items, parts, begun)
    }
}

/// Will the store give the same answer again?
fn is_final(error: &Error) -> bool {
    matches!(error.kind(), StoreErrorKind::Refused | StoreErrorKind::Forbidden)
}
