//! Which task of a workflow follows which, as far as signatures, messages and results tell. Pure: it
//! knows nothing of states.

mod resolve;

use super::DEPTH_MAX;
use crate::wire::signature::{self, SignatureKind};
use crate::wire::{Embed, Malformed, Message, Signature};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use std::collections::{HashMap, HashSet};

/// Tasks and groups of one graph, at most: more is for no screen.
pub const NODES_MAX: usize = 5_000;

/// A task, or a group of tasks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GraphNode {
    /// Its id; empty for a callback, which gets one when it is called.
    pub id: String,
    /// The name of its task, if it is known.
    pub name: Option<String>,
    /// Is it a group?
    pub is_group: bool,
    /// Its place in its group.
    pub index: Option<i64>,
}

/// How a node follows another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum EdgeKind {
    /// The next step of a chain; the body of a chord, after the group of its header.
    Next,
    /// A member, of a group.
    Member,
    /// Called when it has succeeded.
    Callback,
    /// Called when it has failed.
    Errback,
    /// Called by it, in whatever way.
    Child,
}

/// Two nodes by their places, and how the second follows the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Edge {
    /// Before.
    pub from: usize,
    /// After.
    pub to: usize,
    /// How.
    pub kind: EdgeKind,
}

/// Tasks and groups, and what follows what.
#[derive(Debug, Clone, Default)]
pub struct Graph {
    /// All of them, in the order in which they were met.
    pub nodes: Vec<GraphNode>,
    /// What follows each of them.
    after: Vec<Vec<Edge>>,
    /// There is more than [`NODES_MAX`].
    pub is_cut: bool,
    by_id: HashMap<String, usize>,
    known: HashSet<Edge>,
}

/// The first and the last node of a part of a graph.
type FirstAndLast = Option<(usize, usize)>;

/// As it is stored.
#[derive(Serialize, Deserialize)]
struct Written {
    nodes: Vec<GraphNode>,
    edges: Vec<Edge>,
}

impl Graph {
    /// The graph of a signature that has its ids.
    ///
    /// # Errors
    /// A signature in it cannot be read.
    pub fn of_signature(one: &Signature) -> Result<Graph, Malformed> {
        let mut graph = Graph::default();
        graph.add_signature(one, 0)?;
        graph.resolve();
        Ok(graph)
    }

    /// The node of this id.
    pub fn find(&self, id: &str) -> Option<usize> {
        self.by_id.get(id).copied()
    }

    /// What follows what.
    pub fn edges(&self) -> impl Iterator<Item = &Edge> {
        self.after.iter().flatten()
    }

    /// The nodes that follow `from` in this way; members by their places.
    pub fn after(&self, from: usize, kind: EdgeKind) -> Vec<usize> {
        let those = self.after[from].iter().filter(|edge| edge.kind == kind);
        let mut found: Vec<usize> = those.map(|edge| edge.to).collect();
        if kind == EdgeKind::Member {
            found.sort_by_key(|at| self.nodes[*at].index.unwrap_or(i64::MAX));
        }
        found
    }

    /// The nodes that nothing is before.
    pub fn roots(&self) -> Vec<usize> {
        let later: HashSet<usize> = self.edges().map(|edge| edge.to).collect();
        (0..self.nodes.len()).filter(|at| !later.contains(at)).collect()
    }

    /// Adds a task, or its name to what is known of it.
    pub fn add_task(&mut self, id: &str, name: Option<&str>) -> Option<usize> {
        self.add(id, name, false)
    }

    /// Adds a group.
    pub fn add_group(&mut self, id: &str) -> Option<usize> {
        self.add(id, None, true)
    }

    fn add(&mut self, id: &str, name: Option<&str>, is_group: bool) -> Option<usize> {
        if let Some(at) = self.find(id).filter(|_| !id.is_empty()) {
            let node = &mut self.nodes[at];
            node.name = node.name.take().or_else(|| name.map(Into::into));
            return Some(at);
        }
        if self.nodes.len() >= NODES_MAX {
            self.is_cut = true;
            return None;
        }
        let (name, at) = (name.map(Into::into), self.nodes.len());
        self.nodes.push(GraphNode { id: id.into(), name, is_group, index: None });
        self.after.push(Vec::new());
        if !id.is_empty() {
            self.by_id.insert(id.into(), at);
        }
        Some(at)
    }

    /// Adds that `to` follows `from`.
    pub fn connect(&mut self, from: usize, to: usize, kind: EdgeKind) {
        let is_closer = |known: &HashSet<Edge>| {
            let others = [EdgeKind::Next, EdgeKind::Member, EdgeKind::Callback, EdgeKind::Errback];
            others.into_iter().any(|kind| known.contains(&Edge { from, to, kind }))
        };
        let edge = Edge { from, to, kind };
        if from == to || kind == EdgeKind::Child && is_closer(&self.known) {
            return;
        }
        if kind != EdgeKind::Child && self.known.remove(&Edge { kind: EdgeKind::Child, ..edge }) {
            self.after[from].retain(|old| *old != Edge { kind: EdgeKind::Child, ..edge });
        }
        if self.known.insert(edge) {
            self.after[from].push(edge);
        }
    }

    /// Adds what a signature calls.
    ///
    /// # Errors
    /// A signature in it cannot be read.
    pub fn add_signature(
        &mut self,
        one: &Signature,
        depth: usize,
    ) -> Result<FirstAndLast, Malformed> {
        if depth > DEPTH_MAX {
            return Ok(None);
        }
        match one.kind {
            SignatureKind::Task => self.add_call(one, depth),
            SignatureKind::Chain => {
                let mut ends: FirstAndLast = None;
                for part in one.parts("tasks")? {
                    let part = self.add_signature(&part, depth + 1)?;
                    ends = self.then(ends, part);
                }
                Ok(ends)
            }
            SignatureKind::Group => {
                let id = one.text("task_id")?.unwrap_or_default();
                self.add_members(&id, &one.parts("tasks")?, depth)
            }
            SignatureKind::Chord => {
                let id = super::freeze::group_id_of(one)?.unwrap_or_default();
                let header = self.add_members(&id, &one.parts("header")?, depth)?;
                let body = self.add_signature(&one.body()?, depth + 1)?;
                Ok(self.then(header, body))
            }
        }
    }

    fn then(&mut self, before: FirstAndLast, after: FirstAndLast) -> FirstAndLast {
        match (before, after) {
            (Some((first, from)), Some((to, last))) => {
                self.connect(from, to, EdgeKind::Next);
                Some((first, last))
            }
            (ends, None) | (None, ends) => ends,
        }
    }

    fn add_members(
        &mut self,
        id: &str,
        members: &[Signature],
        depth: usize,
    ) -> Result<FirstAndLast, Malformed> {
        let Some(group) = self.add_group(id) else { return Ok(None) };
        for (index, member) in members.iter().enumerate() {
            if let Some((first, _)) = self.add_signature(member, depth + 1)? {
                self.nodes[first].index.get_or_insert(index as i64);
                self.connect(group, first, EdgeKind::Member);
            }
        }
        Ok(Some((group, group)))
    }

    fn add_call(&mut self, one: &Signature, depth: usize) -> Result<FirstAndLast, Malformed> {
        let id = one.text("task_id")?.unwrap_or_default();
        let name = shown_name(one);
        let Some(at) = self.add_task(&id, Some(&name)) else { return Ok(None) };
        for (option, kind) in [("link", EdgeKind::Callback), ("link_error", EdgeKind::Errback)] {
            let all = one.option(option).map(signature::list).unwrap_or_default();
            self.add_callbacks(at, &all, kind, depth)?;
        }
        if let Some(group) = one.text("group_id")? {
            let index = one.option("group_index").and_then(|raw| raw.get().parse().ok());
            self.add_membership(at, &group, index, one.option("chord"), depth)?;
        }
        Ok(Some((at, at)))
    }

    fn add_callbacks(
        &mut self,
        at: usize,
        all: &[Box<RawValue>],
        kind: EdgeKind,
        depth: usize,
    ) -> Result<(), Malformed> {
        for raw in all {
            let one = Signature::read(raw)?;
            let has_one = |graph: &Graph| {
                let name = shown_name(&one);
                let same = |to: &usize| {
                    let node = &graph.nodes[*to];
                    node.id.is_empty() && node.name.as_deref() == Some(&*name)
                };
                graph.after(at, kind).iter().any(same)
            };
            // What has no id cannot be told from what was met before.
            if one.kind == SignatureKind::Task && one.option("task_id").is_none() && has_one(self) {
                continue;
            }
            if let Some((first, _)) = self.add_signature(&one, depth + 1)? {
                self.connect(at, first, kind);
            }
        }
        Ok(())
    }

    /// The last of a chain is the one that counts for the group; see [`Graph::resolve`].
    fn add_membership(
        &mut self,
        at: usize,
        group: &str,
        index: Option<i64>,
        chord: Option<&RawValue>,
        depth: usize,
    ) -> Result<(), Malformed> {
        let Some(group) = self.add_group(group) else { return Ok(()) };
        self.nodes[at].index = self.nodes[at].index.or(index);
        self.connect(group, at, EdgeKind::Member);
        if let Some(raw) = chord
            && self.after(group, EdgeKind::Next).is_empty()
            && let Some((first, _)) = self.add_signature(&Signature::read(raw)?, depth + 1)?
        {
            self.connect(group, first, EdgeKind::Next);
        }
        Ok(())
    }

    /// Adds the task of a message, and what is to follow it.
    ///
    /// # Errors
    /// A signature in it cannot be read.
    pub fn add_message(
        &mut self,
        message: &Message,
        embed: Option<&Embed>,
    ) -> Result<(), Malformed> {
        let mapped = message.mapped.as_ref();
        let mapped = mapped.map(|inner| super::builtin::left_name(&message.task, inner));
        let name = mapped.as_deref().unwrap_or(message.display_name());
        let Some(at) = self.add_task(&message.id, Some(name)) else { return Ok(()) };
        if !message.parent_id.is_empty()
            && let Some(parent) = self.add_task(&message.parent_id, None)
        {
            self.connect(parent, at, EdgeKind::Child);
        }
        let none = Embed::default();
        let embed = embed.unwrap_or(&none);
        self.add_callbacks(at, &embed.callbacks, EdgeKind::Callback, 0)?;
        self.add_callbacks(at, &embed.errbacks, EdgeKind::Errback, 0)?;
        if let Some(group) = &message.group {
            self.add_membership(at, group, message.group_index, embed.chord.as_deref(), 0)?;
        }
        let mut ends = Some((at, at));
        for raw in embed.chain.iter().rev() {
            let part = self.add_signature(&Signature::read(raw)?, 0)?;
            ends = self.then(ends, part);
        }
        Ok(())
    }

    /// Adds what a task's result lists as its children: `[[[id, parent], members], …]`.
    pub fn add_children(&mut self, of: &str, children: &Value) {
        let Some(at) = self.add_task(of, None) else { return };
        for child in children.as_array().into_iter().flatten() {
            if let Some((first, _)) = self.add_result(child) {
                self.connect(at, first, EdgeKind::Child);
            }
        }
    }

    /// Adds a result as Celery lists it, with what comes before it: `[[id, parent], members]`.
    pub fn add_result(&mut self, result: &Value) -> FirstAndLast {
        let (mut ends, mut left): (FirstAndLast, Option<&Value>) = (None, Some(result));
        // Values have the depth that they could be read with.
        while let Some(one) = left {
            let Some(id) = one[0][0].as_str() else { break };
            let at = match one[1].as_array() {
                None => self.add_task(id, None),
                Some(members) => {
                    let group = self.add_group(id);
                    for (index, member) in members.iter().enumerate() {
                        if let (Some(group), Some((first, _))) = (group, self.add_result(member)) {
                            self.nodes[first].index.get_or_insert(index as i64);
                            self.connect(group, first, EdgeKind::Member);
                        }
                    }
                    group
                }
            };
            ends = self.then(at.map(|at| (at, at)), ends);
            left = Some(&one[0][1]).filter(|parent| !parent.is_null());
        }
        ends
    }

    /// The same without nodes that nothing is before or after, unless they stay.
    pub fn without_isolated(&self, stays: &dyn Fn(&GraphNode) -> bool) -> Graph {
        let joined: HashSet<usize> = self.edges().flat_map(|edge| [edge.from, edge.to]).collect();
        let mut graph = Graph { is_cut: self.is_cut, ..Graph::default() };
        let mut places = HashMap::new();
        for (at, node) in self.nodes.iter().enumerate() {
            if joined.contains(&at) || stays(node) {
                places.insert(at, graph.nodes.len());
                graph.by_id.insert(node.id.clone(), graph.nodes.len());
                graph.nodes.push(node.clone());
                graph.after.push(Vec::new());
            }
        }
        graph.by_id.remove("");
        for Edge { from, to, kind } in self.edges() {
            if let (Some(from), Some(to)) = (places.get(from), places.get(to)) {
                graph.connect(*from, *to, *kind);
            }
        }
        graph
    }

    /// Adds all of another one.
    pub fn merge(&mut self, other: &Graph) {
        let known = self.known_callbacks(other);
        let mut places = Vec::new();
        for (at, node) in other.nodes.iter().enumerate() {
            if known.contains(&at) {
                places.push(None);
                continue;
            }
            let at = self.add(&node.id, node.name.as_deref(), node.is_group);
            if let Some(at) = at {
                self.nodes[at].index = self.nodes[at].index.or(node.index);
            }
            places.push(at);
        }
        for Edge { from, to, kind } in other.edges() {
            if let (Some(Some(from)), Some(Some(to))) = (places.get(*from), places.get(*to)) {
                self.connect(*from, *to, *kind);
            }
        }
    }

    /// The nodes of another graph that have no ids, and are callbacks that are here too.
    fn known_callbacks(&self, other: &Graph) -> HashSet<usize> {
        let (mut known, mut left) = (HashSet::new(), Vec::new());
        for edge in other.edges() {
            let (from, to) = (&other.nodes[edge.from], &other.nodes[edge.to]);
            let here = self.find(&from.id).filter(|_| to.id.is_empty());
            let same =
                |at: &usize| self.nodes[*at].id.is_empty() && self.nodes[*at].name == to.name;
            if here.is_some_and(|at| self.after(at, edge.kind).iter().any(same)) {
                left.push(edge.to);
            }
        }
        while let Some(at) = left.pop() {
            if other.nodes[at].id.is_empty() && known.insert(at) {
                left.extend(other.after[at].iter().map(|edge| edge.to));
            }
        }
        known
    }

    /// As it is stored; `None` if it is not whole.
    pub fn write(&self) -> Option<String> {
        let written = Written { nodes: self.nodes.clone(), edges: self.edges().copied().collect() };
        if self.is_cut { None } else { serde_json::to_string(&written).ok() }
    }

    /// Reads what was stored.
    pub fn read(text: &str) -> Option<Graph> {
        let written: Written = serde_json::from_str(text).ok()?;
        let (mut graph, mut stored) = (Graph::default(), Graph::default());
        let count = written.nodes.len();
        stored.nodes = written.nodes;
        stored.after = vec![Vec::new(); count];
        // Anybody may have written it.
        for edge in written.edges.into_iter().filter(|edge| edge.from.max(edge.to) < count) {
            stored.after[edge.from].push(edge);
        }
        graph.merge(&stored);
        Some(graph)
    }
}

/// The name of a task, of a map with the task of its items.
fn shown_name(one: &Signature) -> String {
    let is_map = super::builtin::BuiltIn::named(&one.task).is_some_and(|it| it.is_map());
    let inner = is_map.then(|| super::builtin::inner(&one.args, &one.kwargs)).flatten();
    match inner {
        Some(inner) => super::builtin::left_name(&one.task, &inner),
        None => one.text("shadow").ok().flatten().unwrap_or_else(|| one.task.clone()),
    }
}
