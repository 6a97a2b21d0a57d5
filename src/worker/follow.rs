//! What follows a task that has ended: callbacks, the next step of its chain, errbacks, its chord.

use super::plan::Plan;
use super::request::Request;
use super::verdict::Verdict;
use crate::broker::Posting;
use crate::canvas::{self, Calls, ChordMember, ChordStart, Context, Failure, Replaced, Skipped};
use crate::task::set::Set;
use crate::task::{Param, Task};
use crate::wire::{
    Arguments, Draft, Embed, Exception, Malformed, Message, Record, Signature, TaskState, body,
    value,
};
use chrono::{DateTime, Utc};
use serde_json::json;
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
    calls_and_success(verdict, Calls::default(), request, plan, result, now)
}

/// The same for a request that has made `own` calls itself.
///
/// # Errors
/// As for [`success`].
pub(super) fn calls_and_success(
    verdict: Verdict,
    own: Calls,
    request: &Request,
    plan: &Plan,
    result: &RawValue,
    now: DateTime<Utc>,
) -> Result<Verdict, Malformed> {
    let mut calls = own;
    if let Some(embed) = request.arguments.embed.as_deref() {
        let more = canvas::after_success(embed, result, context(request, plan, now))?;
        calls.drafts.extend(more.drafts);
        calls.chords.extend(more.chords);
        calls.children.extend(more.children);
    }
    let mut nodes = request.children().to_vec();
    nodes.extend_from_slice(&calls.children);
    let children = (!nodes.is_empty()).then(|| canvas::listed(&nodes));
    let mut verdict = called(verdict, calls, plan, now)?;
    if let Some(record) = &mut verdict.record {
        record.children = children;
    }
    Ok(part(verdict, Ended::of(request), plan, TaskState::Success, result))
}

/// A task that has ended, or never began.
#[derive(Clone, Copy)]
pub(super) struct Ended<'a> {
    pub message: &'a Message,
    pub arguments: &'a Arguments,
    pub task: Option<&'a Task>,
    pub queue: &'a str,
}

impl<'a> Ended<'a> {
    fn of(request: &'a Request) -> Ended<'a> {
        let Request { message, arguments, task, queue, .. } = request;
        Ended { message, arguments, task: Some(task), queue }
    }

    fn embed(self) -> Option<&'a Embed> {
        self.arguments.embed.as_deref()
    }

    /// What an errback is told of its request, in Celery's names.
    fn request(self, plan: &Plan, has_arguments: bool) -> Box<RawValue> {
        let message = self.message;
        let request = json!({
            "id": message.id,
            "task": message.task,
            "root_id": message.root_id,
            "parent_id": Some(&message.parent_id).filter(|id| !id.is_empty()),
            "group": message.group,
            "group_index": message.group_index,
            "retries": message.retries,
            "hostname": &*plan.hostname,
            "delivery_info": {"exchange": "", "routing_key": self.queue},
        });
        let mut fields = match request.to_string().strip_suffix('}') {
            Some(fields) => fields.to_string(),
            None => return RawValue::NULL.to_owned(),
        };
        let (args, kwargs) = match has_arguments {
            true => (body::array(&self.arguments.args), body::object(&self.arguments.kwargs)),
            false => ("null".into(), "null".into()),
        };
        fields.push_str(&format!(r#","args":{args},"kwargs":{kwargs}}}"#));
        RawValue::from_string(fields).unwrap_or_default()
    }
}

/// Does an errback take the request, the exception and the traceback? As Celery has it, its parameters
/// decide: a task of ours does whose `params` have room for all three beside what the signature gives.
pub(super) fn takes_all(tasks: &Set) -> impl Fn(&Signature) -> bool {
    |one| {
        let params = tasks.get(&one.task).and_then(|task| task.params.as_ref());
        params.is_some_and(|params| {
            let named = |param: &&Param| one.kwargs.iter().any(|(name, _)| *name == param.name);
            params.len() - params.iter().filter(named).count() >= 3 + one.args.len()
        })
    }
}

/// Adds what follows when a request has failed for good, or was revoked: nobody waits in vain.
pub(super) fn failure(
    verdict: Verdict,
    request: &Request,
    plan: &Plan,
    ended: (TaskState, &Exception),
    traceback: Option<&str>,
    now: DateTime<Utc>,
) -> Verdict {
    failure_of(verdict, Ended::of(request), plan, ended, traceback, now)
}

/// The same for a message that did not become a request.
pub(super) fn failure_of(
    verdict: Verdict,
    ended: Ended<'_>,
    plan: &Plan,
    (state, exception): (TaskState, &Exception),
    traceback: Option<&str>,
    now: DateTime<Utc>,
) -> Verdict {
    let Some(embed) = ended.embed() else { return verdict };
    let message = ended.message;
    let result = value::raw(&exception.to_json());
    let verdict = part(verdict, ended, plan, state, &result);
    if state != TaskState::Failure {
        return verdict;
    }
    let told = |has_arguments| {
        let failure = Failure {
            request: ended.request(plan, has_arguments),
            exception: result.clone(),
            traceback: value::raw(&json!(traceback)),
            takes_all: &takes_all(&plan.tasks),
        };
        canvas::after_failure(&embed.errbacks, &failure, of_message(message, plan, now))
    };
    // They were read when the message came, so only the arguments can be too large to be told.
    let written = |calls: Calls| Ok((postings(&calls, plan, now)?, calls));
    let calls = told(true).and_then(written).or_else(|_| told(false).and_then(written));
    let (publish, calls) = calls.unwrap_or_default();
    let skipped = canvas::skipped(&embed.chain).unwrap_or_default();
    let stores = plan.policy.stores(state, message, ended.task);
    let mut verdict = published(verdict, publish, calls, plan);
    let failed = Failed { exception, traceback, stores, root_id: &message.root_id, now };
    add_skipped(&mut verdict, &skipped, &failed, plan);
    verdict
}

/// Nothing follows a request that has ended without a result; but a chord that it is a member of, or
/// one of the rest of its chain, ends: as failed.
pub(super) fn none(
    mut verdict: Verdict,
    request: &Request,
    plan: &Plan,
    exception: &Exception,
    now: DateTime<Utc>,
) -> Verdict {
    let Some(embed) = request.arguments.embed.as_deref() else { return verdict };
    let message = &request.message;
    if plan.chords == canvas::Chords::Polled && embed.chord.is_some() {
        // The task that polls the chord has nothing else to go by.
        let record = Record::exception(&message.id, TaskState::Failure, exception, None, now);
        verdict.record = Some(Record { group_id: message.group.clone(), ..record });
    }
    let result = value::raw(&exception.to_json());
    let mut verdict = part(verdict, Ended::of(request), plan, TaskState::Failure, &result);
    // It was read when the message came.
    let skipped = canvas::skipped(&embed.chain).unwrap_or_default();
    let failed =
        Failed { exception, traceback: None, stores: false, root_id: &message.root_id, now };
    add_skipped(&mut verdict, &skipped, &failed, plan);
    verdict
}

/// What takes the place of a request.
///
/// # Errors
/// It cannot be called.
pub(super) fn replacement(
    request: &Request,
    plan: &Plan,
    signature: Signature,
    now: DateTime<Utc>,
) -> Result<Calls, Malformed> {
    let message = &request.message;
    let replaced = Replaced {
        id: &message.id,
        group: message.group.as_deref(),
        group_index: message.group_index,
        nesting: message.replaced_task_nesting,
        embed: request.arguments.embed.as_deref(),
    };
    let calls = canvas::replace(signature, replaced, context(request, plan, now))?;
    check_form(&calls, plan, now)?;
    Ok(calls)
}

/// Why tasks will not run.
pub(super) struct Failed<'a> {
    pub exception: &'a Exception,
    pub traceback: Option<&'a str>,
    /// Are their failures stored?
    pub stores: bool,
    pub root_id: &'a str,
    pub now: DateTime<Utc>,
}

/// Adds the failure of tasks that will not run.
pub(super) fn add_skipped(
    verdict: &mut Verdict,
    skipped: &[Skipped],
    failed: &Failed<'_>,
    plan: &Plan,
) {
    let Failed { exception, traceback, stores, root_id, now } = failed;
    for one in skipped {
        let traceback = traceback.map(str::to_string);
        let record =
            Record::exception(&one.task_id, TaskState::Failure, exception, traceback, *now);
        let is_polled = plan.chords == canvas::Chords::Polled && one.chord.is_some();
        if *stores || is_polled {
            verdict.skipped.push(Record { group_id: one.group_id.clone(), ..record });
        }
        if plan.chords == canvas::Chords::Counted
            && let (Some(group_id), Some(body)) = (&one.group_id, &one.chord)
        {
            verdict.chords.get_or_insert_default().parts.push(ChordMember {
                group_id: group_id.clone(),
                group_index: one.group_index,
                task_id: one.task_id.clone(),
                state: TaskState::Failure.name(),
                result: value::raw(&exception.to_json()),
                body: body.clone(),
                root_id: (*root_id).into(),
                priority: None,
            });
        }
    }
}

/// Adds these calls.
///
/// # Errors
/// An argument of one has no form in its serializer.
pub(super) fn called(
    verdict: Verdict,
    calls: Calls,
    plan: &Plan,
    now: DateTime<Utc>,
) -> Result<Verdict, Malformed> {
    let publish = postings(&calls, plan, now)?;
    Ok(published(verdict, publish, calls, plan))
}

fn published(mut verdict: Verdict, publish: Vec<Posting>, calls: Calls, plan: &Plan) -> Verdict {
    verdict.publish.extend(publish);
    if !calls.chords.is_empty() && plan.chords == canvas::Chords::Counted {
        verdict.chords.get_or_insert_default().begun.extend(calls.chords);
    }
    verdict
}

/// Has every argument of these calls a form in its serializer? JSON has one for all.
///
/// # Errors
/// Which has not.
pub(super) fn check_form(calls: &Calls, plan: &Plan, now: DateTime<Utc>) -> Result<(), Malformed> {
    let has_own = |draft: &Draft| draft.serializer.is_some() || draft.compression.is_some();
    if plan.routing.sender.format.is_plain() && !calls.drafts.iter().any(has_own) {
        return Ok(());
    }
    postings(calls, plan, now).map(drop)
}

/// Their messages.
///
/// # Errors
/// An argument of one has no form in its serializer.
pub(super) fn postings(
    calls: &Calls,
    plan: &Plan,
    now: DateTime<Utc>,
) -> Result<Vec<Posting>, Malformed> {
    let posting = |draft: &Draft| plan.routing.posting(draft.clone(), &plan.tasks, now);
    Ok(calls.drafts.iter().map(posting).collect::<Result<_, _>>()?)
}

/// Adds that a member of a chord's header has ended, where members are counted.
fn part(
    mut verdict: Verdict,
    ended: Ended<'_>,
    plan: &Plan,
    state: TaskState,
    result: &RawValue,
) -> Verdict {
    if plan.chords == canvas::Chords::Counted
        && let Some(part) = member(ended.message, ended.embed(), state, result)
    {
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
        priority: priority(message),
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
pub(super) fn context<'a>(request: &'a Request, plan: &Plan, now: DateTime<Utc>) -> Context<'a> {
    of_message(&request.message, plan, now)
}

/// The priority of a message, as the broker has it.
pub(super) fn priority(message: &Message) -> Option<u8> {
    message.priority.map(|number| number.clamp(0, 9) as u8)
}

fn of_message<'a>(message: &'a Message, plan: &Plan, now: DateTime<Utc>) -> Context<'a> {
    let (root_id, parent_id) = (&message.root_id, &message.id);
    let priority = priority(message).filter(|_| plan.policy.inherit_priority);
    Context { root_id, parent_id, priority, now, chords: plan.chords }
}
