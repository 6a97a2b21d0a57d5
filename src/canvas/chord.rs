//! The end of a chord's header.
//!
//! Source: celery `backends/redis.py` (`on_chord_part_return`) and `backends/base.py`
//! (`chord_error_from_stack`).

use super::apply::{Caller, Over};
use super::{Calls, Context, Skipped, after_failure, list, skipped};
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
    /// It has failed: its id, and its exception for people.
    Failed(String, String),
}

/// What becomes of a chord whose header has ended.
#[derive(Debug)]
pub enum Ended {
    /// Its body is called.
    Called(Calls),
    /// A member has failed, and so has the body: with this exception, and with what follows.
    Failed {
        /// `ChordError`
        error: Exception,
        /// The body, and what would have come after it.
        skipped: Vec<Skipped>,
        /// Its errbacks.
        calls: Calls,
    },
}

/// The chord of `part`, all of whose members have returned these.
///
/// # Errors
/// The body cannot be read.
pub fn complete(
    part: &ChordMember,
    returned: &[Returned],
    context: Context<'_>,
) -> Result<Ended, Malformed> {
    let body = Signature::read(&part.body)?;
    let mut values = Vec::new();
    for one in returned {
        match one {
            Returned::Value(value) => values.push(value.clone()),
            Returned::Failed(id, why) => {
                return failed(&body, &format!("Dependency {id} raised {why}"), context);
            }
        }
    }
    let mut caller = Caller::new(context);
    caller.call(body, &[list(&values)], &Over::default(), true)?;
    Ok(Ended::Called(caller.calls))
}

/// The body, and what was to follow it, fail with a `ChordError`.
fn failed(body: &Signature, why: &str, context: Context<'_>) -> Result<Ended, Malformed> {
    let error = Exception::new("celery.exceptions", "ChordError", why);
    let mut ended = vec![body.write()];
    if body.kind == SignatureKind::Group {
        ended = body.parts("tasks")?.iter().map(Signature::write).collect();
    }
    if body.kind == SignatureKind::Chain {
        ended.extend(body.parts("tasks")?.iter().map(Signature::write));
    }
    ended.extend(body.option("chain").map(signatures).unwrap_or_default());
    let id = body.text("task_id")?.unwrap_or_default();
    let errbacks = body.option("link_error").map(signatures).unwrap_or_default();
    let calls = after_failure(&errbacks, Context { parent_id: &id, ..context })?;
    Ok(Ended::Failed { error, skipped: skipped(&ended)?, calls })
}
