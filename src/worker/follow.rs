//! What follows a task that has ended: callbacks, the next step of its chain, errbacks, its chord.

use super::plan::Plan;
use super::request::Request;
use super::verdict::Verdict;
use crate::broker::Posting;
use crate::canvas::{self, Calls, ChordMember, ChordStart, Context, Skipped};
use crate::task::set::Set;
use crate::wire::{Embed, Exception, Malformed, Message, Record, TaskState, value};
use chrono::{DateTime, Utc};
use serde_json::value::RawValue;

/// What the result store is to know of chords before anything else is done.
#[derive(Debug, Clone, Default)]
pub struct Chords {
    /// They begin: their messages are sent with the verdict.
    pub begun: Vec<ChordStart>,
    /// Members of these have ended.
    pub parts: Vec<ChordMember>,
}

/// Adds what follows the success of a request.
///
/// # Errors
/// What is to follow cannot be called. It was looked at when the message came, so its own
/// arguments must be too large.
pub(super) fn success(
    verdict: Verdict,
    request: &Request,
    plan: &Plan,
    result: &RawValue,
    now: DateTime<Utc>,
) -> Result<Verdict, Malformed> {
    let Some(embed) = request.arguments.embed.as_deref() else { return Ok(verdict) };
    let calls = canvas::after_success(embed, result, context(request, now))?;
    let children = (!calls.children.is_empty()).then(|| calls.children());
    let mut verdict = called(verdict, calls, plan, now);
    if let Some(record) = &mut verdict.record {
        record.children = children;
    }
    Ok(part(verdict, request, TaskState::Success, result))
}

/// Adds what follows when a request has failed for good, or was revoked: nobody waits in vain.
pub(super) fn failure(
    verdict: Verdict,
    request: &Request,
    plan: &Plan,
    (state, exception): (TaskState, &Exception),
    traceback: Option<&str>,
    now: DateTime<Utc>,
) -> Verdict {
    let Some(embed) = request.arguments.embed.as_deref() else { return verdict };
    let result = value::raw(&exception.to_json());
    let verdict = part(verdict, request, state, &result);
    if state != TaskState::Failure {
        return verdict;
    }
    // It was read when the message came.
    let calls = canvas::after_failure(&embed.errbacks, context(request, now)).unwrap_or_default();
    let skipped = canvas::skipped(&embed.chain).unwrap_or_default();
    let stores = plan.policy.stores(state, &request.message, Some(&request.task));
    let mut verdict = called(verdict, calls, plan, now);
    add_skipped(
        &mut verdict,
        &skipped,
        exception,
        traceback,
        stores,
        &request.message.root_id,
        now,
    );
    verdict
}

/// Adds the failure of tasks that will not run.
pub(super) fn add_skipped(
    verdict: &mut Verdict,
    skipped: &[Skipped],
    exception: &Exception,
    traceback: Option<&str>,
    stores: bool,
    root_id: &str,
    now: DateTime<Utc>,
) {
    for one in skipped {
        let traceback = traceback.map(str::to_string);
        let record = Record::exception(&one.task_id, TaskState::Failure, exception, traceback, now);
        if stores {
            verdict.skipped.push(Record { group_id: one.group_id.clone(), ..record });
        }
        let body = one.chord.as_ref().and_then(|text| RawValue::from_string(text.clone()).ok());
        if let (Some(group_id), Some(body)) = (&one.group_id, body) {
            verdict.chords.get_or_insert_default().parts.push(ChordMember {
                group_id: group_id.clone(),
                group_index: one.group_index,
                task_id: one.task_id.clone(),
                state: TaskState::Failure.name(),
                result: value::raw(&exception.to_json()),
                body,
                root_id: root_id.into(),
            });
        }
    }
}

/// Adds these calls.
fn called(mut verdict: Verdict, calls: Calls, plan: &Plan, now: DateTime<Utc>) -> Verdict {
    verdict.publish.extend(postings(&calls, plan, &plan.tasks, now));
    if !calls.chords.is_empty() {
        verdict.chords.get_or_insert_default().begun.extend(calls.chords);
    }
    verdict
}

/// Their messages.
pub(super) fn postings(
    calls: &Calls,
    plan: &Plan,
    tasks: &Set,
    now: DateTime<Utc>,
) -> Vec<Posting> {
    let posting = |draft: &crate::wire::Draft| {
        let task = tasks.get(&draft.task).map(|task| &**task);
        plan.routing.posting(draft.clone(), task, now)
    };
    calls.drafts.iter().map(posting).collect()
}

/// Adds that a request which is a member of a chord's header has ended.
fn part(mut verdict: Verdict, request: &Request, state: TaskState, result: &RawValue) -> Verdict {
    let embed = request.arguments.embed.as_deref();
    if let Some(part) = member(&request.message, embed, state, result) {
        verdict.chords.get_or_insert_default().parts.push(part);
    }
    verdict
}

/// The member of a chord's header that a message is, if it is one.
fn member(
    message: &Message,
    embed: Option<&Embed>,
    state: TaskState,
    result: &RawValue,
) -> Option<ChordMember> {
    Some(ChordMember {
        group_id: message.group.clone()?,
        group_index: message.group_index,
        task_id: message.id.clone(),
        state: state.name(),
        result: result.to_owned(),
        body: embed?.chord.clone()?,
        root_id: message.root_id.clone(),
    })
}

/// The chord that a revoked message is a member of: it ends too.
pub(super) fn revoked(message: &Message) -> Option<Box<Chords>> {
    // Hardly any message is in a group, and only then is its body read.
    message.group.as_ref()?;
    let arguments = message.arguments().ok()?;
    let exception = Exception::new("celery.exceptions", "TaskRevokedError", "revoked");
    let result = value::raw(&exception.to_json());
    let part = member(message, arguments.embed.as_deref(), TaskState::Revoked, &result)?;
    Some(Box::new(Chords { parts: vec![part], ..Chords::default() }))
}

/// Of which task something follows.
pub(super) fn context(request: &Request, now: DateTime<Utc>) -> Context<'_> {
    let message = &request.message;
    Context { root_id: &message.root_id, parent_id: &message.id, now }
}
