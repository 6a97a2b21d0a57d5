//! What a client calls: every task and every group has its id before anything is sent, so that a
//! client can wait for all of them, and tell of them.
//!
//! Source: celery `canvas.py` (`apply_async` and `freeze` of each kind).

use super::apply::{Caller, extend};
use super::freeze::{Freeze, freeze};
use super::{Calls, Chords, Context, DEPTH_MAX, ResultTree, builtin, list, new_id};
use crate::wire::signature::{self, SignatureKind, find, raw_text};
use crate::wire::{Malformed, Signature};
use serde_json::value::RawValue;

type Raw = Box<RawValue>;

/// A workflow that is about to begin.
#[derive(Debug)]
pub struct Workflow {
    /// All of it, with the ids of its tasks and groups.
    pub signature: Signature,
    /// What it begins with.
    pub calls: Calls,
    /// The result that stands for the whole.
    pub result: ResultTree,
}

/// Calls `one` from a client.
///
/// # Errors
/// It cannot be called, or there is nothing in it to call.
pub fn start(one: Signature, context: Context<'_>) -> Result<Workflow, Malformed> {
    let mut signature = prepared(one, 0)?;
    freeze(&mut signature, Freeze::default())?;
    if context.chords == Chords::Unsupported && has_chord(&signature, 0)? {
        let why = "there is a chord in it, and no results are stored; expected a result_backend";
        return Err(Malformed(why.into()));
    }
    let mut caller = Caller::new(context);
    let result = caller.call(signature.clone(), &[], &context.options(), false)?;
    match result.filter(|_| !caller.calls.drafts.is_empty()) {
        Some(result) => Ok(Workflow { signature, calls: caller.calls, result }),
        None => Err(Malformed("there is no task in it to call".into())),
    }
}

/// Is any part of it a chord?
///
/// # Errors
/// A signature in it cannot be read.
pub fn has_chord(one: &Signature, depth: usize) -> Result<bool, Malformed> {
    if depth > DEPTH_MAX {
        return Ok(false);
    }
    Ok(match one.kind {
        SignatureKind::Task => false,
        SignatureKind::Chord => true,
        SignatureKind::Chain | SignatureKind::Group => {
            let mut found = false;
            for part in one.parts("tasks")? {
                found = found || has_chord(&part, depth + 1)?;
            }
            found
        }
    })
}

/// Gives each group its id, the header of a chord too, and makes the groups that chunks are.
fn prepared(mut one: Signature, depth: usize) -> Result<Signature, Malformed> {
    if depth > DEPTH_MAX {
        return Err(super::freeze::too_deep());
    }
    if one.kind == SignatureKind::Task && one.task == "celery.chunks" && one.args.is_empty() {
        let group = builtin::chunked(&one.kwargs).map_err(|why| Malformed(why.repr(usize::MAX)))?;
        let mut group = Signature { immutable: one.immutable, ..group };
        set_options(&mut group, &one.options, true)?;
        one = group;
    }
    let inner = |part: &mut Signature| {
        *part = prepared(part.clone(), depth + 1)?;
        Ok(())
    };
    match one.kind {
        SignatureKind::Task => freeze_callbacks(&mut one, depth)?,
        SignatureKind::Chain => each_part(&mut one, "tasks", &inner)?,
        SignatureKind::Group => {
            name(&mut one);
            each_part(&mut one, "tasks", &inner)?;
        }
        SignatureKind::Chord => {
            // Its result is that of its body.
            if let Some(id) = one.option("task_id").map(ToOwned::to_owned) {
                set_options(&mut one, &[("task_id".into(), id)], false)?;
                one.options.retain(|(name, _)| name != "task_id");
            }
            let mut header = super::group_of(&one.parts("header")?);
            if let Some(id) = super::freeze::group_id_of(&one)? {
                header.set("task_id", raw_text(&id));
            }
            name(&mut header);
            each_part(&mut header, "tasks", &inner)?;
            signature::set(&mut one.kwargs, "header", header.write());
            let body = prepared(one.body()?, depth + 1)?;
            signature::set(&mut one.kwargs, "body", body.write());
        }
    }
    Ok(one)
}

/// A callback is called once, so it can have its id; an errback may be called for several tasks.
fn freeze_callbacks(one: &mut Signature, depth: usize) -> Result<(), Malformed> {
    let Some(raw) = one.option("link") else { return Ok(()) };
    let mut written = Vec::new();
    for raw in signature::list(raw) {
        let mut callback = prepared(Signature::read(&raw)?, depth + 1)?;
        freeze(&mut callback, Freeze { depth, ..Freeze::default() })?;
        written.push(callback.write());
    }
    one.set("link", list(&written));
    Ok(())
}

fn name(group: &mut Signature) {
    if group.option("task_id").is_none() {
        group.set("task_id", raw_text(&new_id()));
    }
}

/// Changes each signature in a part of a canvas: a list, or a group.
fn each_part(
    one: &mut Signature,
    part: &str,
    change: &dyn Fn(&mut Signature) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    let Some(raw) = find(&one.kwargs, part) else { return Ok(()) };
    let written = if raw.get().starts_with('{') {
        let mut inner = Signature::read(raw)?;
        match inner.kind {
            SignatureKind::Group => each_part(&mut inner, "tasks", change)?,
            _ => change(&mut inner)?,
        }
        inner.write()
    } else {
        let mut parts = one.parts(part)?;
        parts.iter_mut().try_for_each(change)?;
        list(&parts.iter().map(Signature::write).collect::<Vec<_>>())
    };
    signature::set(&mut one.kwargs, part, written);
    Ok(())
}

/// Options of a call, where Celery's `apply_async` has them: those of a chain are for its first step,
/// those of a group for each member, those of a chord for its header and its body. Callbacks follow
/// the last one, and an id is that of the last one. With `wins` they go before what a task has of its
/// own.
///
/// # Errors
/// A signature in it cannot be read; or callbacks of a group, of which Celery has none.
pub fn set_options(
    one: &mut Signature,
    options: &[(String, Raw)],
    wins: bool,
) -> Result<(), Malformed> {
    set_within(one, options, wins, 0)
}

fn set_within(
    one: &mut Signature,
    options: &[(String, Raw)],
    wins: bool,
    depth: usize,
) -> Result<(), Malformed> {
    if depth > DEPTH_MAX {
        return Err(super::freeze::too_deep());
    }
    let only = |wanted: &dyn Fn(&str) -> bool| -> Vec<(String, Raw)> {
        options.iter().filter(|(name, _)| wanted(name)).cloned().collect()
    };
    let is_link = |name: &str| name == "link" || name == "link_error";
    let below = |part: &mut Signature, options: &[(String, Raw)]| {
        set_within(part, options, wins, depth + 1)
    };
    match one.kind {
        SignatureKind::Task => {
            options.iter().for_each(|(name, value)| set_one(one, name, value, wins))
        }
        SignatureKind::Chain => {
            let mut parts = one.parts("tasks")?;
            let count = parts.len();
            for (at, part) in parts.iter_mut().enumerate() {
                let (first, last) = (at == 0, at + 1 == count);
                let mine = only(&|name| match name {
                    "link_error" => true,
                    "link" | "task_id" => last,
                    _ => first,
                });
                // Errbacks of a chain are for each of its tasks, those of groups in it too.
                match part.kind {
                    SignatureKind::Group => {
                        let errbacks: Vec<_> =
                            mine.iter().filter(|(name, _)| name == "link_error").cloned().collect();
                        each_part(part, "tasks", &|member| below(member, &errbacks))?;
                        let rest: Vec<_> =
                            mine.into_iter().filter(|(name, _)| name != "link_error").collect();
                        below(part, &rest)?;
                    }
                    _ => below(part, &mine)?,
                }
            }
            let parts: Vec<Raw> = parts.iter().map(Signature::write).collect();
            signature::set(&mut one.kwargs, "tasks", list(&parts));
        }
        SignatureKind::Group => {
            if options.iter().any(|(name, _)| is_link(name)) {
                let why = "a group has no callbacks; expected them on its members, or a chord";
                return Err(Malformed(why.into()));
            }
            let members = only(&|name| name != "task_id");
            each_part(one, "tasks", &|member| below(member, &members))?;
            only(&|name| name == "task_id")
                .iter()
                .for_each(|(name, id)| set_one(one, name, id, wins));
        }
        SignatureKind::Chord => {
            let polling = |name: &str| name == "interval" || name == "max_retries";
            let delay = |name: &str| name == "countdown" || name == "eta";
            let header = only(&|name| !is_link(name) && !polling(name) && name != "task_id");
            each_part(one, "header", &|member| below(member, &header))?;
            let mut body = one.body()?;
            below(&mut body, &only(&|name| !polling(name) && !delay(name)))?;
            signature::set(&mut one.kwargs, "body", body.write());
            only(&polling).iter().for_each(|(name, value)| set_one(one, name, value, wins));
        }
    }
    Ok(())
}

fn set_one(one: &mut Signature, name: &str, value: &Raw, wins: bool) {
    let rival = match name {
        "link" | "link_error" => return extend(one, name, &signature::list(value)),
        "countdown" => "eta",
        "eta" => "countdown",
        _ => "",
    };
    if wins {
        one.options.retain(|(own, _)| own != rival);
        one.set(name, value.clone());
    } else if one.option(name).is_none() && one.option(rival).is_none() {
        one.set(name, value.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canvas::graph::{EdgeKind, Graph};
    use crate::clock;
    use crate::wire::BodyFormat;
    use serde_json::{Value, json};

    fn read(value: &Value) -> Signature {
        Signature::read(&crate::wire::value::raw(value)).unwrap()
    }

    fn task(name: &str) -> Value {
        json!({"task": name})
    }

    fn canvas(kind: &str, kwargs: Value) -> Value {
        json!({"task": format!("celery.{kind}"), "kwargs": kwargs, "subtask_type": kind})
    }

    fn begin(value: &Value, chords: Chords) -> Result<Workflow, Malformed> {
        let now = clock::parse("2030-01-01T00:00:00").unwrap();
        start(read(value), Context { root_id: "", parent_id: "", priority: None, now, chords })
    }

    /// A chain of a task, a group of a task and a chain, and a chord.
    fn nested() -> Value {
        let inner = canvas("chain", json!({"tasks": [task("c"), task("d")]}));
        let group = canvas("group", json!({"tasks": [task("b"), inner]}));
        let chord = canvas("chord", json!({"header": [task("f")], "body": task("g")}));
        canvas("chain", json!({"tasks": [task("a"), group, task("e"), chord]}))
    }

    #[test]
    fn every_id_is_there_before_anything_is_sent() {
        let begun = begin(&nested(), Chords::Counted).unwrap();
        let graph = Graph::of_signature(&begun.signature).unwrap();
        assert!(graph.nodes.iter().all(|node| node.id.len() == 36), "{:?}", graph.nodes);
        let names = graph.nodes.iter().filter_map(|node| node.name.as_deref());
        assert_eq!(names.collect::<String>(), "abcdefg");
        assert_eq!(graph.nodes.iter().filter(|node| node.is_group).count(), 2);
        // What is sent has those ids, and so has what it carries.
        let [first] = &begun.calls.drafts[..] else { panic!("{:?}", begun.calls) };
        assert_eq!((&first.task[..], &first.root_id, &first.parent_id), ("a", &None, &None));
        let mut carried = Graph::default();
        for raw in first.embed.chain.iter().rev() {
            carried.add_signature(&Signature::read(raw).unwrap(), 0).unwrap();
        }
        let ids =
            |graph: &Graph| graph.nodes.iter().map(|node| node.id.clone()).collect::<Vec<_>>();
        assert_eq!([vec![first.id.clone()], ids(&carried)].concat(), ids(&graph));
        // What is called later has them too.
        let mut called = Caller::new(context());
        let header = Signature::read(first.embed.chain.last().unwrap()).unwrap();
        called.call(header, &[], &Default::default(), false).unwrap();
        let groups: Vec<_> = called.calls.chords.iter().map(|chord| &chord.group_id).collect();
        assert_eq!(groups, [&graph.nodes[1].id]);
        assert_eq!(called.calls.drafts.len(), 2);
        assert_eq!(begun.result.id(), graph.nodes.last().unwrap().id);
    }

    fn context() -> Context<'static> {
        let now = clock::parse("2030-01-01T00:00:00").unwrap();
        Context { root_id: "r", parent_id: "p", priority: None, now, chords: Chords::Counted }
    }

    #[test]
    fn a_graph_has_the_first_of_a_chain_as_a_member() {
        let begun = begin(&nested(), Chords::Counted).unwrap();
        let graph = Graph::of_signature(&begun.signature).unwrap();
        let at = |name: &str| {
            graph.nodes.iter().position(|node| node.name.as_deref() == Some(name)).unwrap()
        };
        let group = graph.after(at("a"), EdgeKind::Next)[0];
        assert_eq!(graph.after(group, EdgeKind::Member), [at("b"), at("c")]);
        assert_eq!(graph.after(at("c"), EdgeKind::Next), [at("d")]);
        assert_eq!(graph.after(group, EdgeKind::Next), [at("e")]);
        let header = graph.after(at("e"), EdgeKind::Next)[0];
        assert_eq!(graph.after(header, EdgeKind::Member), [at("f")]);
        assert_eq!(graph.after(header, EdgeKind::Next), [at("g")]);
        assert_eq!(graph.roots(), [at("a")]);
        let stored = Graph::read(&graph.write().unwrap()).unwrap();
        assert!(stored.nodes == graph.nodes && stored.edges().eq(graph.edges()));
        let mut merged = graph.clone();
        merged.merge(&stored);
        assert_eq!(
            (merged.nodes.len(), merged.edges().count()),
            (graph.nodes.len(), graph.edges().count())
        );
    }

    #[test]
    fn messages_tell_the_same() {
        let begun = begin(&nested(), Chords::Counted).unwrap();
        let graph = Graph::of_signature(&begun.signature).unwrap();
        let message = begun.calls.drafts[0]
            .encode(0, clock::parse("2030-01-01T00:00:00").unwrap(), &BodyFormat::default())
            .unwrap();
        let message = message.decode().unwrap();
        let mut told = Graph::default();
        told.add_message(&message, message.arguments().unwrap().embed.as_deref()).unwrap();
        told.resolve();
        let edges = |graph: &Graph| {
            let named = |at: usize| graph.nodes[at].id.clone();
            let mut edges: Vec<_> = graph
                .edges()
                .map(|edge| (named(edge.from), named(edge.to), format!("{:?}", edge.kind)))
                .collect();
            edges.sort();
            edges
        };
        assert_eq!(edges(&told), edges(&graph));
    }

    #[test]
    fn results_tell_what_came_before_them() {
        let begun = begin(&nested(), Chords::Counted).unwrap();
        let mut told = Graph::default();
        let written: Value = serde_json::from_str(&begun.result.bounded().write()).unwrap();
        let (first, last) = told.add_result(&written).unwrap();
        assert_eq!(told.nodes[first].id, begun.calls.drafts[0].id);
        assert_eq!(told.nodes[last].id, written[0][0].as_str().unwrap());
        // a, its group, b and d (the result of the chain, and c before it), e, the header, f, g
        assert_eq!(told.nodes.len(), 9);
    }

    #[test]
    fn an_id_is_that_of_the_last_one() {
        let id = || vec![("task_id".to_string(), raw_text("mine"))];
        for value in
            [task("a"), nested(), canvas("group", json!({"tasks": [task("a"), task("b")]}))]
        {
            let mut one = read(&value);
            set_options(&mut one, &id(), true).unwrap();
            let now = clock::parse("2030-01-01T00:00:00").unwrap();
            let context = Context {
                root_id: "",
                parent_id: "",
                priority: None,
                now,
                chords: Chords::Counted,
            };
            assert_eq!(start(one, context).unwrap().result.id(), "mine");
        }
    }

    #[test]
    fn what_cannot_be_called_is_refused() {
        let chord = canvas("chord", json!({"header": [task("a")], "body": task("b")}));
        let chain = canvas("chain", json!({"tasks": [task("a"), chord]}));
        let why = begin(&chain, Chords::Unsupported).unwrap_err().0;
        assert!(why.contains("no results are stored"), "{why}");
        let empty = canvas("chain", json!({"tasks": []}));
        assert!(begin(&empty, Chords::Counted).unwrap_err().0.contains("no task"));
        let mut deep = task("a");
        for _ in 0..100 {
            deep = canvas("chain", json!({"tasks": [deep]}));
        }
        assert!(begin(&deep, Chords::Counted).unwrap_err().0.contains("nested deeper"));
        let polled = canvas("chord", json!({"header": [task("a"), task("b")], "body": task("c")}));
        let names: Vec<String> = begin(&polled, Chords::Polled)
            .unwrap()
            .calls
            .drafts
            .into_iter()
            .map(|draft| draft.task)
            .collect();
        assert_eq!(names, ["a", "b", "celery.chord_unlock"]);
        let chunks = json!({"task": "celery.chunks", "kwargs": {"task": task("a"), "it": [[1], [2], [3]], "n": 2}});
        assert_eq!(begin(&chunks, Chords::Polled).unwrap().calls.drafts.len(), 2);
    }
}
