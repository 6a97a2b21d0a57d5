//! What happens to an outcome that a store rejects: the result is too large, or the key holds another
//! type. Each try asks for less.
//!
//! | try | what is asked for |
//! | --- | --- |
//! | 0 | the outcome as it is |
//! | 1 | in place of a result: a FAILURE with the reason; of any other record: the rest without it |
//! | 2 | that FAILURE without arguments, and the message in the dead-letter list |
//! | 3 | the message in the dead-letter list |
//! | then | the message stays with this worker until the worker ends, and is redelivered |
//!
//! A message that was acknowledged before cannot be kept: its result is lost, and the log says so.

use crate::broker::{Death, Item, Settle};
use crate::wire::{Exception, Record, TaskState};
use chrono::{DateTime, Utc};

/// What to ask for in place of `item`, which was rejected at this try for this reason; `None` if
/// there is nothing left to ask for. Either is logged.
pub(super) fn instead(
    mut item: Item,
    tries: u8,
    id: &str,
    why: &str,
    now: DateTime<Utc>,
) -> Option<Item> {
    // Nothing has ended, so there is nothing that could be left out.
    if let Some(
        Settle::Release | Settle::Pass(_) | Settle::Park(_) | Settle::Redeliver(_) | Settle::Mark,
    ) = item.settle
    {
        tracing::error!("a message cannot be requeued: {why}; this worker keeps it for now");
        return None;
    }
    if tries == 0
        && let Some(record) = item.record.take()
    {
        let is_result = record.state.is_ready() && matches!(item.settle, Some(Settle::Ack) | None);
        if is_result {
            tracing::error!(
                "Task {id}: its result cannot be stored: {why}; FAILURE is stored instead"
            );
            let extended = record.extended.clone();
            item.record = Some(Record { extended, ..failure(id, Some(&record), why, now) });
            return Some(item);
        }
        let state = record.status();
        tracing::error!("Task {id}: {state} cannot be stored: {why}");
        let rest = item.settle.is_some() || !item.postings.is_empty();
        return rest.then_some(item);
    }
    if item.tag.is_none() {
        tracing::error!(
            "Task {id}: its outcome cannot be stored: {why}; the message is already acknowledged"
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

/// The reason in the dead-letter list for a message whose outcome no store accepts.
const REASON: &str = "unstorable";

/// Logs that a result is not stored, because its message was redelivered.
pub(super) fn log_lost(item: &Item, id: &str) {
    if item.record.as_ref().is_some_and(|record| record.state.is_ready()) {
        tracing::error!(
            "Task {id}: this worker was considered dead, and its message was redelivered; this \
             result is not stored"
        );
    }
}

/// A FAILURE with the reason, in the group and under the parent of `known`.
fn failure(id: &str, known: Option<&Record>, why: &str, now: DateTime<Utc>) -> Record {
    let why = format!("the store refuses it: {why}");
    let exception = Exception::new("qworker.exceptions", "ResultNotStored", why);
    let failure = Record::exception(id, TaskState::Failure, &exception, None, now);
    let group_id = known.and_then(|known| known.group_id.clone());
    let parent_id = known.and_then(|known| known.parent_id.clone());
    Record { group_id, parent_id, ..failure }
}
