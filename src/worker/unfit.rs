//! What becomes of a task whose outcome a store does not take: a result that is too large, a key
//! that is something else. Each try asks for less.
//!
//! | try | what is asked for |
//! | --- | --- |
//! | 0 | the outcome as it is |
//! | 1 | a result: FAILURE that says why, in its place; what is no result: the rest without it |
//! | 2 | that FAILURE, without arguments, and the message in the dead-letter list |
//! | 3 | the message in the dead-letter list |
//! | then | it stays with this worker until that ends, and is handed out again |
//!
//! A message that was acknowledged before cannot be kept: only its result is lost, and that is told.

use crate::broker::{Death, Item, Settle};
use crate::wire::{Exception, Record, State};
use chrono::{DateTime, Utc};

/// What to ask for in place of `item`, which was refused at this try for this reason; `None` if
/// there is nothing left to ask for, which is told.
pub(super) fn instead(
    mut item: Item,
    tries: u8,
    id: &str,
    why: &str,
    now: DateTime<Utc>,
) -> Option<Item> {
    // Nothing ended: there is nothing to give up either.
    if let Some(
        Settle::Release | Settle::Pass(_) | Settle::Park(_) | Settle::Redeliver(_) | Settle::Mark,
    ) = item.settle
    {
        tracing::error!("a message cannot be given back: {why}; it stays with this worker for now");
        return None;
    }
    if tries == 0
        && let Some(record) = item.record.take()
    {
        let is_result = record.state.is_ready() && matches!(item.settle, Some(Settle::Ack) | None);
        if is_result {
            tracing::error!("Task {id}: its result cannot be stored: {why}; it is a FAILURE now");
            let extended = record.extended.clone();
            item.record = Some(Record { extended, ..failure(id, Some(&record), why, now) });
            return Some(item);
        }
        let state = record.state;
        tracing::error!("Task {id}: {state} cannot be stored: {why}");
        let rest = item.settle.is_some() || !item.postings.is_empty();
        return rest.then_some(item);
    }
    if item.tag.is_none() {
        tracing::error!(
            "Task {id}: its outcome cannot be stored: {why}; it was acknowledged before"
        );
        let record = Some(failure(id, None, why, now));
        let is_first = !item.postings.is_empty();
        return is_first.then(|| Item { record, postings: Vec::new(), ..item });
    }
    let buried = matches!(&item.settle, Some(Settle::Dead(death)) if death.reason == REASON);
    if item.settle.is_none() || (buried && item.record.is_none()) {
        tracing::error!(
            "Task {id} is over, and neither its outcome can be stored nor its message kept in the \
             dead-letter list: {why}; the message stays with this worker, and is handed out again \
             when that ends"
        );
        return None;
    }
    tracing::error!("Task {id}: its outcome cannot be stored: {why}; kept in the dead-letter list");
    let known = item.record.take();
    let record = (!buried).then(|| failure(id, known.as_ref(), why, now));
    let task_id = Some(id.to_string()).filter(|id| !id.is_empty());
    let task = match item.settle.take() {
        Some(Settle::Dead(death)) => death.task,
        _ => known.and_then(|known| known.extended).map(|extended| extended.name),
    };
    let death = Death { reason: REASON, detail: why.to_string(), task_id, task, counts: true };
    Some(Item { record, settle: Some(Settle::Dead(death)), postings: Vec::new(), ..item })
}

/// Why a message is in the dead-letter list whose task's outcome no store takes.
const REASON: &str = "unstorable";

/// Says that somebody else has the task by now.
pub(super) fn tell_lost(item: &Item, id: &str) {
    if item.record.as_ref().is_some_and(|record| record.state.is_ready()) {
        tracing::error!(
            "Task {id}: this worker was taken for dead, and its message was handed out again; this \
             result is not stored"
        );
    }
}

/// As `known`, what was to be stored, as far as it is there.
fn failure(id: &str, known: Option<&Record>, why: &str, now: DateTime<Utc>) -> Record {
    let why = format!("the store refuses it: {why}");
    let exception = Exception::new("qworker.exceptions", "ResultNotStored", why);
    let failure = Record::exception(id, State::Failure, &exception, None, now);
    let group_id = known.and_then(|known| known.group_id.clone());
    let parent_id = known.and_then(|known| known.parent_id.clone());
    Record { group_id, parent_id, ..failure }
}
