//! What a task calls while it runs, and what takes its place.
//!
//! Source: celery `app/task.py` (`replace`) and `app/base.py` (`send_task`).

use super::apply::{Caller, extend};
use super::{Calls, Context, ResultTree, group_of, list};
use crate::wire::signature::{self, SignatureKind, raw_text};
use crate::wire::{Embed, Malformed, Signature, value};
use serde_json::json;

/// A task calls `one` while it runs. Gives the result that will be, if there will be one.
///
/// # Errors
/// It cannot be called.
pub fn call(
    one: Signature,
    context: Context<'_>,
) -> Result<(Calls, Option<ResultTree>), Malformed> {
    let mut caller = Caller::new(context);
    let node = caller.call(one, &[], &context.options(), true)?;
    Ok((caller.calls, node))
}

/// The task that is replaced.
#[derive(Debug, Clone, Copy)]
pub struct Replaced<'a> {
    /// Its id.
    pub id: &'a str,
    /// The group that it is a member of.
    pub group: Option<&'a str>,
    /// Its place there.
    pub group_index: Option<i64>,
    /// How many replacements there were before.
    pub nesting: u32,
    /// What is to follow it.
    pub embed: Option<&'a Embed>,
}

/// Calls `one` in the place of a task: its id is that of the last result, and what was to follow
/// the task follows that.
///
/// # Errors
/// It cannot be called, is empty, or is part of a chord already.
pub fn replace(
    one: Signature,
    replaced: Replaced<'_>,
    context: Context<'_>,
) -> Result<Calls, Malformed> {
    if one.option("chord").is_some() {
        let text = "a signature that replaces a task must not be part of a chord";
        return Err(Malformed(text.into()));
    }
    let nesting = value::raw(&json!(replaced.nesting.saturating_add(1)));
    let mut one = with_one_result(one)?;
    forget_group(&mut one)?;
    if one.kind == SignatureKind::Chain {
        let mut parts = one.parts("tasks")?;
        parts.iter_mut().for_each(|part| part.set("replaced_task_nesting", nesting.clone()));
        let parts: Vec<_> = parts.iter().map(Signature::write).collect();
        signature::set(&mut one.kwargs, "tasks", list(&parts));
    }
    let mut over = context.options().with("task_id", raw_text(replaced.id));
    over = over.with("replaced_task_nesting", nesting.clone());
    if let Some(group) = replaced.group {
        over = over.with("group_id", raw_text(group));
    }
    if let Some(index) = replaced.group_index {
        over = over.with("group_index", value::raw(&json!(index)));
    }
    if let Some(embed) = replaced.embed {
        extend(&mut one, "link", &embed.callbacks);
        extend(&mut one, "link_error", &embed.errbacks);
        let mut rest = Vec::new();
        for raw in &embed.chain {
            let mut step = Signature::read(raw)?;
            step.set("replaced_task_nesting", nesting.clone());
            rest.push(step.write());
        }
        if !rest.is_empty() {
            over = over.with("chain", list(&rest));
        }
        if let Some(chord) = &embed.chord {
            over = over.with("chord", chord.clone());
        }
    }
    let mut caller = Caller::new(context);
    caller.call(one, &[], &over, false)?;
    Ok(caller.calls)
}

/// It counts for the group of the task that it replaces, whatever it was frozen for.
fn forget_group(one: &mut Signature) -> Result<(), Malformed> {
    one.options.retain(|(name, _)| name != "group_id");
    if one.kind == SignatureKind::Chord {
        let mut body = one.body()?;
        body.options.retain(|(name, _)| name != "group_id");
        signature::set(&mut one.kwargs, "body", body.write());
    }
    Ok(())
}

/// A group has many results, and the task is to have one: their list.
fn with_one_result(mut one: Signature) -> Result<Signature, Malformed> {
    match one.kind {
        SignatureKind::Group if one.parts("tasks")?.is_empty() => {
            Err(Malformed("an empty group cannot replace a task".into()))
        }
        SignatureKind::Group => Ok(accumulated(&one)),
        SignatureKind::Chain => {
            let mut parts = one.parts("tasks")?;
            match parts.pop() {
                None => Err(Malformed("an empty chain cannot replace a task".into())),
                Some(last) if last.kind == SignatureKind::Group => {
                    parts.push(accumulated(&last));
                    let parts: Vec<_> = parts.iter().map(Signature::write).collect();
                    signature::set(&mut one.kwargs, "tasks", list(&parts));
                    Ok(one)
                }
                Some(_) => Ok(one),
            }
        }
        SignatureKind::Task | SignatureKind::Chord => Ok(one),
    }
}

/// A group as a chord whose body gives its argument back.
fn accumulated(group: &Signature) -> Signature {
    let index = vec![("index".to_string(), value::raw(&json!(0)))];
    let body = Signature::task("celery.accumulate", Vec::new(), index);
    let header = group.parts("tasks").map_or_else(|_| group.clone(), |parts| group_of(&parts));
    let kwargs = vec![
        ("kwargs".to_string(), value::raw(&json!({}))),
        ("header".to_string(), header.write()),
        ("body".to_string(), body.write()),
    ];
    let chord = Signature::task("celery.chord", Vec::new(), kwargs);
    Signature { kind: SignatureKind::Chord, ..chord }
}
