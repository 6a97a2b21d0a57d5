//! The end of a chord's header.
//!
//! Source: celery `backends/redis.py` (`on_chord_part_return`) and `backends/base.py`
//! (`chord_error_from_stack`).

use super::apply::{Caller, Over, add_new};
use super::{BYTES_MAX, Calls, Context, DEPTH_MAX, Failure, Skipped, after_failure, list, skipped};
use crate::wire::signature::{SignatureKind, list as signatures};
use crate::wire::{Exception, Malformed, Signature, TaskState, value};
use serde_json::value::RawValue;

/// A member of a header that has ended.
#[derive(Debug, Clone)]
pub struct ChordMember {
    /// The group of the header.
    pub group_id: String,
    /// Its place there; none is behind all others.
    pub group_index: Option<i64>,
    /// Its id.
    pub task_id: String,
    /// Its final state.
    pub state: &'static str,
    /// JSON: its value, or its exception's three fields.
    pub result: Box<RawValue>,
    /// The body's signature, unread.
    pub body: Box<RawValue>,
    /// First task of the workflow.
    pub root_id: String,
    /// The priority of its message.
    pub priority: Option<u8>,
}

impl ChordMember {
    /// It has failed, because its value cannot be stored.
    pub fn fail(&mut self, why: &str) {
        let error = Exception::new("qworker.exceptions", "ResultNotStored", why);
        self.state = TaskState::Failure.name();
        self.result = value::raw(&error.to_json());
    }
}

/// What a member has returned.
#[derive(Debug, Clone)]
pub enum Returned {
    /// A value.
    Value(Box<RawValue>),
    /// It has failed: its id, and its exception.
    Failed(String, Exception),
}

/// What becomes of a chord whose header has ended.
#[derive(Debug)]
pub enum Ended {
    /// Its body is called.
    Called(Calls),
    /// It failed. The body, and what would have come after it, fail with these exceptions.
    Failed {
        /// `ChordError`
        error: Exception,
        /// Tasks that will not run, each with its exception.
        skipped: Vec<(Skipped, Exception)>,
        /// Errbacks of the body.
        calls: Calls,
    },
}

/// Is an errback one that takes the request, the exception and the traceback?
type TakesAll<'a> = &'a dyn Fn(&Signature) -> bool;

/// The chord with this body, all of whose members have returned these. Whatever of the body cannot be
/// called makes it fail, so that it ends.
///
/// # Errors
/// The body cannot be read.
pub fn complete(
    body: &RawValue,
    returned: &[Returned],
    takes_all: TakesAll<'_>,
    context: Context<'_>,
) -> Result<Ended, Malformed> {
    let signature = Signature::read(body)?;
    let mut values = Vec::new();
    for one in returned {
        match one {
            Returned::Value(value) => values.push(value.clone()),
            Returned::Failed(id, cause) => {
                let why = format!("Dependency {id} raised {}", cause.repr(usize::MAX));
                return fail(body, &why, Some(cause), takes_all, context);
            }
        }
    }
    let mut caller = Caller::new(context);
    match caller.call(signature, &[list(&values)], &Over::default(), true) {
        Ok(_) => Ok(Ended::Called(caller.calls)),
        Err(why) => fail(body, &format!("Callback error: {why}"), None, takes_all, context),
    }
}

/// The body of a chord, and what was to follow it, fail with a `ChordError`; the members of a body that
/// is a group with the `cause`, if it is known.
///
/// # Errors
/// The body cannot be read.
pub fn fail(
    body: &RawValue,
    why: &str,
    cause: Option<&Exception>,
    takes_all: TakesAll<'_>,
    context: Context<'_>,
) -> Result<Ended, Malformed> {
    let body = Signature::read(body)?;
    let error = Exception::new("celery.exceptions", "ChordError", why);
    let (failing, own) = match body.kind {
        SignatureKind::Group => (body.parts("tasks")?, cause.unwrap_or(&error)),
        _ => (vec![body.clone()], &error),
    };
    let (mut skips, mut calls, mut is_full) = (Vec::new(), Calls::default(), false);
    for one in &failing {
        let mut errbacks = Vec::new();
        if !is_full {
            errbacks.extend(one.option("link_error").map(signatures).unwrap_or_default());
        }
        if body.kind == SignatureKind::Group && !is_full {
            let of_all = body.option("link_error").map(signatures).unwrap_or_default();
            add_new(&mut errbacks, &of_all);
        }
        let id = result_id(one, 0)?.unwrap_or_default();
        let request = serde_json::json!({"id": id, "task": one.task, "root_id": context.root_id});
        let failure = Failure {
            request: value::raw(&request),
            exception: value::raw(&own.to_json()),
            traceback: RawValue::NULL.to_owned(),
            takes_all,
        };
        let context = Context { parent_id: &id, ..context };
        // An errback that cannot be called keeps nobody waiting for the body.
        if !is_full {
            let more = after_failure(&errbacks, &failure, context).unwrap_or_default();
            is_full = calls.bytes + more.bytes > BYTES_MAX;
            if !is_full {
                calls.bytes += more.bytes;
                calls.drafts.extend(more.drafts);
                calls.chords.extend(more.chords);
            }
        }
        let ended = skipped(&[one.write()])?;
        skips.extend(ended.into_iter().map(|it| (it, own.clone())));
    }
    let rest = body.option("chain").map(signatures).unwrap_or_default();
    skips.extend(skipped(&rest)?.into_iter().map(|it| (it, error.clone())));
    Ok(Ended::Failed { error, skipped: skips, calls })
}

/// The id under which the result of a signature is found.
fn result_id(one: &Signature, depth: usize) -> Result<Option<String>, Malformed> {
    let id = one.text("task_id")?;
    Ok(match one.kind {
        SignatureKind::Task | SignatureKind::Group => id,
        _ if depth > DEPTH_MAX => id,
        SignatureKind::Chord => result_id(&one.body()?, depth + 1)?.or(id),
        SignatureKind::Chain => match one.parts("tasks")?.last() {
            Some(last) => result_id(last, depth + 1)?.or(id),
            None => id,
        },
    })
}
