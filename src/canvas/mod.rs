//! Canvas: what is to follow a task, as messages. Pure.
//!
//! Source: celery `canvas.py` (`apply_async`, `run`, `prepare_steps` and `freeze` of each kind) and
//! `app/trace.py` (`_dispatch_callbacks_and_chain`).
//!
//! | file | does |
//! | --- | --- |
//! | `apply` | calls a signature: one message, or those of a chain's beginning, a group, a chord's header |
//! | `freeze` | gives every task of a signature its id, so that a client can wait for the last one |
//! | `options` | from the options of a call to a message |
//! | `chord` | what becomes of the results of a header |
//! | `own` | what a task calls while it runs, and what takes its place |
//! | `start` | what a client calls: all ids are given in advance |
//! | `graph` | which task follows which: of signatures, messages and results |
//! | `builtin` | Celery's own tasks: what their arguments ask for |

mod apply;
pub mod builtin;
mod chord;
mod freeze;
pub mod graph;
mod options;
mod own;
mod start;
#[cfg(test)]
mod tests;

pub use crate::wire::signature::SignatureKind;
pub use chord::{ChordMember, Ended, Returned, complete, fail};
pub use own::{Replaced, call, replace};
pub use start::{Workflow, has_chord, set_options, start};

use crate::wire::signature::raw_text;
use crate::wire::{Draft, Embed, Malformed, Signature, value};
use apply::{Caller, Over};
use chrono::{DateTime, Utc};
use serde_json::value::RawValue;
use serde_json::{Value, json};

/// Signatures within signatures, at most.
const DEPTH_MAX: usize = 64;

/// Bytes of all messages that follow one task, at most: each member of a chord's header carries the
/// body.
const BYTES_MAX: usize = 64 * 1024 * 1024;

/// Bytes of a message beside what its signature says, about.
const MESSAGE_BYTES: usize = 512;

/// Results in a chain at most, each within the next one: as deep as Python goes.
const CHAIN_MAX: usize = 1000;

/// Results before one that are stored with it, at most: Python reads JSON of no more than some
/// hundred levels.
const PARENTS_MAX: usize = 40;

/// How the end of a chord's header is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chords {
    /// The result store counts the members.
    Counted,
    /// A task polls their results: `celery.chord_unlock`.
    Polled,
    /// Not at all: no results are stored.
    Unsupported,
}

/// Of which call something follows.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// First task of the workflow; empty for a client's call, whose tasks are their own.
    pub root_id: &'a str,
    /// The task that has ended; empty for a client's call.
    pub parent_id: &'a str,
    /// Its priority, as its message has it, if what follows inherits that.
    pub priority: Option<u8>,
    /// The time.
    pub now: DateTime<Utc>,
    /// How a chord that follows ends.
    pub chords: Chords,
}

impl Context<'_> {
    /// What it adds to every call.
    fn options(&self) -> Over {
        let ids = [("parent_id", self.parent_id), ("root_id", self.root_id)];
        let given = ids.into_iter().filter(|(_, id)| !id.is_empty());
        Over(given.map(|(name, id)| (name.to_string(), raw_text(id))).collect())
    }
}

/// A chord that begins: its size has to be known before the first member ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChordStart {
    /// The group of its header.
    pub group_id: String,
    /// How many members will end.
    pub size: usize,
    /// The header's results as Celery writes them, if their structure is more than a list.
    pub results: Option<String>,
}

/// Is there room for so many copies of something?
fn fits(copies: usize, bytes: usize) -> Result<(), Malformed> {
    match copies.saturating_mul(bytes) > BYTES_MAX {
        true => Err(too_large()),
        false => Ok(()),
    }
}

fn too_large() -> Malformed {
    Malformed(format!("what follows the task is larger than the limit of {BYTES_MAX} bytes"))
}

/// What follows a task.
#[derive(Debug, Default)]
pub struct Calls {
    /// About how many bytes the messages have.
    bytes: usize,
    /// Messages, in their order.
    pub drafts: Vec<Draft>,
    /// Chords among them.
    pub chords: Vec<ChordStart>,
    /// What a result lists as `children`.
    pub children: Vec<ResultTree>,
}

/// The field `children` of a result that lists these.
pub fn listed(nodes: &[ResultTree]) -> String {
    let nodes: Vec<String> = nodes.iter().map(ResultTree::write).collect();
    format!("[{}]", nodes.join(", "))
}

/// A future result, as Celery lists it (`result.py`, `as_tuple`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResultTree {
    /// Of one task.
    Task {
        /// Its id.
        id: String,
        /// What comes before it in its chain.
        parent: Option<Box<ResultTree>>,
    },
    /// Of a group.
    Group {
        /// Its id.
        id: String,
        /// What comes before it in its chain.
        parent: Option<Box<ResultTree>>,
        /// Its members.
        members: Vec<ResultTree>,
    },
}

impl ResultTree {
    fn task(id: &str) -> ResultTree {
        ResultTree::Task { id: id.into(), parent: None }
    }

    /// Its id.
    pub fn id(&self) -> &str {
        match self {
            ResultTree::Task { id, .. } | ResultTree::Group { id, .. } => id,
        }
    }

    /// What comes before it.
    fn parent_mut(&mut self) -> &mut Option<Box<ResultTree>> {
        match self {
            ResultTree::Task { parent, .. } | ResultTree::Group { parent, .. } => parent,
        }
    }

    /// Puts `node` before the first of its chain.
    fn set_first(&mut self, node: ResultTree) {
        let mut first = self.parent_mut();
        while let Some(parent) = first {
            first = parent.parent_mut();
        }
        *first = Some(Box::new(node));
    }

    fn parent(&self) -> Option<&ResultTree> {
        match self {
            ResultTree::Task { parent, .. } | ResultTree::Group { parent, .. } => parent.as_deref(),
        }
    }

    /// How many come before it.
    fn parents(&self) -> usize {
        std::iter::successors(self.parent(), |node| node.parent()).count()
    }

    /// Reads `[[id, parent], members]`; `None` if it is none. Parents are left out.
    pub fn read(value: &Value) -> Option<ResultTree> {
        let id = value[0][0].as_str()?.to_string();
        Some(match value[1].as_array() {
            // A value as deep as it was read has its limit.
            Some(all) => {
                let members = all.iter().map(ResultTree::read).collect::<Option<_>>()?;
                ResultTree::Group { id, parent: None, members }
            }
            None => ResultTree::Task { id, parent: None },
        })
    }

    /// The ids of its tasks, in their order; those of what comes before it are not among them.
    pub fn task_ids(&self) -> Vec<String> {
        match self {
            ResultTree::Task { id, .. } => vec![id.clone()],
            ResultTree::Group { members, .. } => {
                members.iter().flat_map(ResultTree::task_ids).collect()
            }
        }
    }

    /// The same without what comes before it, where that is so much that readers would refuse it.
    pub fn bounded(mut self) -> ResultTree {
        let (mut before, mut count) = (self.parent_mut().as_deref(), 0);
        while let Some(node) = before {
            count += 1;
            before = match node {
                ResultTree::Task { parent, .. } | ResultTree::Group { parent, .. } => {
                    parent.as_deref()
                }
            };
        }
        if count > PARENTS_MAX {
            *self.parent_mut() = None;
        }
        self
    }

    /// `[[id, parent], members]`
    pub fn write(&self) -> String {
        let (id, parent, members) = match self {
            ResultTree::Task { id, parent } => (id, parent, None),
            ResultTree::Group { id, parent, members } => (id, parent, Some(members)),
        };
        let parent = parent.as_ref().map_or_else(|| "null".to_string(), |node| node.write());
        let members = members.map_or_else(
            || "null".to_string(),
            |all| format!("[{}]", all.iter().map(ResultTree::write).collect::<Vec<_>>().join(", ")),
        );
        format!("[[{}, {parent}], {members}]", json!(id))
    }
}

/// What follows a task that has succeeded with `result`.
///
/// # Errors
/// A signature cannot be read, or asks for what is not supported.
pub fn after_success(
    embed: &Embed,
    result: &RawValue,
    context: Context<'_>,
) -> Result<Calls, Malformed> {
    let mut caller = Caller::new(context);
    let args = [result.to_owned()];
    let callbacks: Vec<Signature> =
        embed.callbacks.iter().map(|raw| Signature::read(raw)).collect::<Result<_, _>>()?;
    let over = match context.priority {
        // Here it goes before that of a signature, as in Celery.
        Some(priority) => context.options().with("priority", value::raw(&json!(priority))),
        None => context.options(),
    };
    if let [one] = &callbacks[..] {
        caller.call(one.clone(), &args, &over, true)?;
    } else {
        let (groups, others): (Vec<_>, Vec<_>) =
            callbacks.into_iter().partition(|one| one.kind == SignatureKind::Group);
        for group in groups {
            caller.call(group, &args, &over, true)?;
        }
        if !others.is_empty() {
            caller.call(group_of(&others), &args, &over, true)?;
        }
    }
    if let Some((next, rest)) = embed.chain.split_last() {
        let over = over.with("chain", list(rest));
        caller.call(Signature::read(next)?, &args, &over, true)?;
    }
    Ok(caller.calls)
}

/// What an errback may be told of a task that has failed for good.
pub struct Failure<'a> {
    /// JSON: the request of the task.
    pub request: Box<RawValue>,
    /// JSON: the exception's three fields.
    pub exception: Box<RawValue>,
    /// JSON: the text under the exception, or null.
    pub traceback: Box<RawValue>,
    /// Does this errback take all three? Any other gets the task's id.
    pub takes_all: &'a dyn Fn(&Signature) -> bool,
}

/// What follows a task that has failed for good: its errbacks.
///
/// Source: celery `backends/base.py` (`_call_task_errbacks`).
///
/// # Errors
/// As for [`after_success`].
pub fn after_failure(
    errbacks: &[Box<RawValue>],
    failure: &Failure<'_>,
    context: Context<'_>,
) -> Result<Calls, Malformed> {
    let mut caller = Caller::new(context);
    let errbacks: Vec<Signature> =
        errbacks.iter().map(|raw| Signature::read(raw)).collect::<Result<_, _>>()?;
    let over = context.options();
    let (new, old): (Vec<_>, Vec<_>) = errbacks.into_iter().partition(|one| {
        one.kind == SignatureKind::Task && !one.immutable && (failure.takes_all)(one)
    });
    for one in new {
        let Failure { request, exception, traceback, .. } = failure;
        let args = [request.clone(), exception.clone(), traceback.clone()];
        caller.call(one, &args, &over, true)?;
    }
    if !old.is_empty() {
        caller.call(group_of(&old), &[raw_text(context.parent_id)], &over, true)?;
    }
    Ok(caller.calls)
}

/// A task that will not run because one before it in its chain has failed.
#[derive(Debug, Clone)]
pub struct Skipped {
    /// Its id.
    pub task_id: String,
    /// The group that it is a member of.
    pub group_id: Option<String>,
    /// Its place there.
    pub group_index: Option<i64>,
    /// The body of the chord that it is a member of.
    pub chord: Option<Box<RawValue>>,
}

/// The tasks that will not run since one before them has failed: clients may wait for them, and so
/// may chords. Source: celery `backends/base.py` (`_fail_chain`).
///
/// # Errors
/// A signature cannot be read.
pub fn skipped(chain: &[Box<RawValue>]) -> Result<Vec<Skipped>, Malformed> {
    let mut skipped = Vec::new();
    let mut left: Vec<(Signature, usize, Option<Skipped>)> = Vec::new();
    for raw in chain {
        left.push((Signature::read(raw)?, 0, None));
    }
    while let Some((one, depth, around)) = left.pop() {
        // Tasks count. What a group counts for, its members do, each with its own id; what a chord
        // counts for, its body does, and what a chain counts for, its last task.
        let counts = around.map_or_else(|| counts_of(&one), Ok)?;
        if let Some(task_id) = one.text("task_id")? {
            let chord = counts.chord.clone().filter(|_| one.kind == SignatureKind::Task);
            skipped.push(Skipped { task_id, chord, ..counts.clone() });
        }
        if depth > DEPTH_MAX {
            continue;
        }
        let inner = match one.kind {
            SignatureKind::Task => Vec::new(),
            // A chord is done when its body is.
            SignatureKind::Chord => vec![one.body()?],
            SignatureKind::Chain | SignatureKind::Group => one.parts("tasks")?,
        };
        let last = inner.len().saturating_sub(1);
        for (at, part) in inner.into_iter().enumerate() {
            let is_counted = one.kind != SignatureKind::Chain || at == last;
            let counts = Some(counts.clone()).filter(|it| is_counted && it.chord.is_some());
            left.push((part, depth + 1, counts));
        }
    }
    Ok(skipped)
}

/// What a signature counts for by itself; without an id.
fn counts_of(one: &Signature) -> Result<Skipped, Malformed> {
    Ok(Skipped {
        task_id: String::new(),
        group_id: one.text("group_id")?,
        group_index: one.option("group_index").and_then(|raw| raw.get().parse().ok()),
        chord: one.option("chord").map(ToOwned::to_owned),
    })
}

/// Can all of this be called? Gives what is called first, with arguments that are not known yet.
///
/// # Errors
/// What cannot be read, or is not supported.
pub fn check(embed: &Embed, context: Context<'_>) -> Result<Calls, Malformed> {
    let null = || RawValue::NULL.to_owned();
    let failure =
        Failure { request: null(), exception: null(), traceback: null(), takes_all: &|_| false };
    let mut calls = after_success(embed, &null(), context)?;
    let more = after_failure(&embed.errbacks, &failure, context)?;
    calls.chords.extend(more.chords);
    calls.drafts.extend(more.drafts);
    let chain: Vec<Signature> =
        embed.chain.iter().map(|raw| Signature::read(raw)).collect::<Result<_, _>>()?;
    let has_chord =
        !calls.chords.is_empty() || chain.iter().any(|one| one.kind == SignatureKind::Chord);
    skipped(&embed.chain)?;
    if has_chord && context.chords == Chords::Unsupported {
        return Err(Malformed(
            "a chord is to follow the task, and no results are stored here; expected a \
             result_backend"
                .into(),
        ));
    }
    Ok(calls)
}

fn group_of(signatures: &[Signature]) -> Signature {
    let tasks: Vec<Box<RawValue>> = signatures.iter().map(Signature::write).collect();
    let kwargs = vec![("tasks".to_string(), list(&tasks))];
    Signature { kind: SignatureKind::Group, ..Signature::task("celery.group", Vec::new(), kwargs) }
}

/// A JSON array.
fn list(values: &[Box<RawValue>]) -> Box<RawValue> {
    RawValue::from_string(crate::wire::body::array(values)).unwrap_or_default()
}

fn new_id() -> String {
    uuid::Uuid::new_v4().to_string()
}
