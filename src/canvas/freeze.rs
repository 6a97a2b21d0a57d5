//! Gives signatures their ids, and makes steps of chains.

use super::{CHAIN_MAX, DEPTH_MAX, ResultTree, fits, group_of, list, new_id};
use crate::wire::signature::{self, SignatureKind, raw_text};
use crate::wire::{Malformed, Signature};
use serde_json::value::RawValue;

type Raw = Box<RawValue>;

/// What a signature gets when it is frozen, unless it has it.
#[derive(Debug, Clone, Default)]
pub(super) struct Freeze {
    /// Id of the task, if a certain one is asked for.
    pub task_id: Option<String>,
    /// The group that it is a member of.
    pub group_id: Option<String>,
    /// The body of the chord that it is a member of.
    pub chord: Option<Raw>,
    /// First task of the workflow.
    pub root_id: Option<String>,
    /// Its place in the group.
    pub group_index: Option<Raw>,
    /// In how many signatures it is.
    pub depth: usize,
}

impl Freeze {
    /// Bytes that each signature gets.
    fn size(&self) -> usize {
        let texts = [&self.group_id, &self.root_id].into_iter().flatten().map(String::len);
        texts.sum::<usize>() + self.chord.as_ref().map_or(0, |raw| raw.get().len())
    }
}

/// Gives every task of a signature its id; gives the result that stands for the whole.
pub(super) fn freeze(one: &mut Signature, own: Freeze) -> Result<Option<ResultTree>, Malformed> {
    if own.depth > DEPTH_MAX {
        return Err(too_deep());
    }
    let depth = own.depth + 1;
    match one.kind {
        SignatureKind::Task => freeze_task(one, own).map(Some),
        SignatureKind::Chain => {
            let own = Freeze { task_id: own.task_id.or(one.text("task_id")?), depth, ..own };
            let Some((mut steps, node)) = prepare(one.parts("tasks")?, &[], own)? else {
                return Ok(None);
            };
            steps.reverse();
            set_parts(one, "tasks", &steps);
            Ok(Some(node))
        }
        SignatureKind::Group => {
            let id = match one.text("task_id")? {
                Some(id) => id,
                None => new_id(),
            };
            one.set("task_id", raw_text(&id));
            let mut members = Vec::new();
            flatten(one.parts("tasks")?, &mut members, 0)?;
            fits(members.len(), own.size())?;
            let mut nodes = Vec::new();
            for (index, member) in members.iter_mut().enumerate() {
                let group_index = RawValue::from_string(index.to_string()).ok();
                let own = Freeze { task_id: None, group_index, depth, ..own.clone() };
                nodes.extend(freeze(member, own)?);
            }
            set_parts(one, "tasks", &members);
            Ok(Some(ResultTree::Group { id, parent: None, members: nodes }))
        }
        SignatureKind::Chord => {
            let mut body = one.body()?;
            let mut members = Vec::new();
            flatten(one.parts("header")?, &mut members, 0)?;
            let mut nodes = Vec::new();
            for (index, member) in members.iter_mut().enumerate() {
                let group_index = RawValue::from_string(index.to_string()).ok();
                let root_id = own.root_id.clone();
                nodes.extend(freeze(
                    member,
                    Freeze { group_index, root_id, depth, ..Freeze::default() },
                )?);
            }
            // An id of the chord itself may be that of its body.
            let id = group_id_of(one)?.unwrap_or_else(new_id);
            let mut group = group_of(&members);
            group.set("task_id", raw_text(&id));
            one.set("task_id", raw_text(&id));
            let node = freeze(&mut body, Freeze { depth, ..own })?;
            signature::set(&mut one.kwargs, "header", group.write());
            signature::set(&mut one.kwargs, "body", body.write());
            Ok(node.map(|mut node| {
                node.set_first(ResultTree::Group { id, parent: None, members: nodes });
                node
            }))
        }
    }
}

fn freeze_task(one: &mut Signature, own: Freeze) -> Result<ResultTree, Malformed> {
    let id = match one.text("task_id")? {
        Some(id) => id,
        None => own.task_id.unwrap_or_else(new_id),
    };
    one.set("task_id", raw_text(&id));
    if let Some(root_id) = own.root_id {
        one.set("root_id", raw_text(&root_id));
    }
    if let Some(group_id) = own.group_id
        && one.option("group_id").is_none()
    {
        one.set("group_id", raw_text(&group_id));
    }
    for (name, value) in [("chord", own.chord), ("group_index", own.group_index)] {
        if let Some(value) = value {
            one.set(name, value);
        }
    }
    Ok(ResultTree::task(&id))
}

/// The id of a chord's header, if that is a group that has one.
pub(super) fn group_id_of(chord: &Signature) -> Result<Option<String>, Malformed> {
    match signature::find(&chord.kwargs, "header") {
        Some(raw) if raw.get().starts_with('{') => Signature::read(raw)?.text("task_id"),
        _ => Ok(None),
    }
}

fn set_parts(one: &mut Signature, name: &str, parts: &[Signature]) {
    let parts: Vec<Raw> = parts.iter().map(Signature::write).collect();
    signature::set(&mut one.kwargs, name, list(&parts));
}

/// The members of a group: those of groups in it are its own.
pub(super) fn flatten(
    tasks: Vec<Signature>,
    members: &mut Vec<Signature>,
    depth: usize,
) -> Result<(), Malformed> {
    if depth > DEPTH_MAX {
        return Err(too_deep());
    }
    for task in tasks {
        match task.kind {
            SignatureKind::Group => flatten(task.parts("tasks")?, members, depth + 1)?,
            SignatureKind::Chain if task.parts("tasks")?.is_empty() => {}
            _ => members.push(task),
        }
    }
    Ok(())
}

/// The steps of a chain: those of chains in it are its own, a group of one is that one, and an empty
/// group is none unless it is all there is.
fn steps_of(
    tasks: Vec<Signature>,
    steps: &mut Vec<Signature>,
    depth: usize,
) -> Result<(), Malformed> {
    if depth > DEPTH_MAX {
        return Err(too_deep());
    }
    for task in tasks {
        match task.kind {
            SignatureKind::Chain => steps_of(task.parts("tasks")?, steps, depth + 1)?,
            SignatureKind::Group => {
                let mut parts = task.parts("tasks")?;
                match (parts.pop(), parts.is_empty()) {
                    (Some(one), true) => steps_of(vec![one], steps, depth + 1)?,
                    _ => steps.push(task),
                }
            }
            _ => steps.push(task),
        }
    }
    Ok(())
}

pub(super) fn too_deep() -> Malformed {
    Malformed(format!("signatures are nested deeper than the limit of {DEPTH_MAX}"))
}

/// The frozen steps of a chain in reverse, as messages carry them, and the result of the last one;
/// `last` is for that. The first gets `args`. A group before a step is the header of a chord with
/// that step as its body. `None` if there is no step.
pub(super) fn prepare(
    tasks: Vec<Signature>,
    args: &[Raw],
    last: Freeze,
) -> Result<Option<(Vec<Signature>, ResultTree)>, Malformed> {
    let mut steps = Vec::new();
    steps_of(tasks, &mut steps, 0)?;
    if steps.len() > 1 {
        let is_empty = |step: &Signature| {
            step.kind == SignatureKind::Group
                && step.parts("tasks").is_ok_and(|parts| parts.is_empty())
        };
        let kept: Vec<Signature> = steps.iter().filter(|step| !is_empty(step)).cloned().collect();
        if kept.is_empty() { steps.truncate(1) } else { steps = kept }
    }
    fits(steps.len(), last.root_id.as_ref().map_or(0, String::len))?;
    let root_id = last.root_id.clone();
    let depth = last.depth;
    let middle = || Freeze { root_id: root_id.clone(), depth, ..Freeze::default() };
    let mut last = Some(last);
    let (mut done, mut results): (Vec<Signature>, Vec<ResultTree>) = (Vec::new(), Vec::new());
    while let Some(mut step) = steps.pop() {
        if steps.is_empty() && !step.immutable {
            step.args = args.iter().cloned().chain(step.args).collect();
        }
        if step.kind == SignatureKind::Group
            && let (Some(body), Some(result)) = (done.pop(), results.pop())
        {
            let mut chord = Signature::task("celery.chord", step.args.clone(), Vec::new());
            chord.kind = SignatureKind::Chord;
            chord
                .kwargs
                .push(("kwargs".into(), RawValue::from_string("{}".into()).unwrap_or_default()));
            chord.kwargs.push(("header".into(), step.write()));
            chord.kwargs.push(("body".into(), body.write()));
            if let ResultTree::Task { id, .. } = &result {
                chord.set("task_id", raw_text(id));
            }
            step = chord;
            if done.is_empty() {
                // It is the last one now; its body was frozen as that.
                results.extend(freeze(&mut step, middle())?);
                done.push(step);
                continue;
            }
        }
        let own = last.take().unwrap_or_else(middle);
        let Some(node) = freeze(&mut step, own)? else { continue };
        results.push(node);
        done.push(step);
    }
    // Each comes after the one before it.
    let first = results.pop();
    let Some(mut whole) = first else { return Ok(None) };
    for mut node in results.into_iter().rev() {
        if node.parents() + whole.parents() >= CHAIN_MAX {
            return Err(Malformed(format!("a chain has more than the limit of {CHAIN_MAX} steps")));
        }
        node.set_first(whole);
        whole = node;
    }
    Ok(Some((done, whole)))
}

/// How many tasks will count for the chord that `one` is a member of.
pub(super) fn descend(one: &Signature) -> Result<usize, Malformed> {
    Ok(match one.kind {
        SignatureKind::Task => 1,
        SignatureKind::Group => {
            let mut size = 0;
            for part in one.parts("tasks")? {
                size += descend(&part)?;
            }
            size
        }
        // The last one that is any counts.
        SignatureKind::Chain => {
            let mut size = 0;
            for part in one.parts("tasks")?.iter().rev() {
                size = descend(part)?;
                if size > 0 {
                    break;
                }
            }
            size
        }
        SignatureKind::Chord => descend(&one.body()?)?,
    })
}
