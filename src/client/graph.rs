//! What can be known of a workflow from the id of anything in it: results, saved groups, and messages
//! that wait or are held, with what is to follow them.

use super::Client;
use super::workflow::WorkflowProgress;
use crate::broker::{Error, Whereabouts};
use crate::canvas::ResultTree;
use crate::canvas::builtin::Unlock;
use crate::canvas::graph::{EdgeKind, Graph, GraphNode};
use crate::wire::result::Meta;
use crate::wire::{Malformed, Signature};
use serde_json::Value;
use serde_json::value::RawValue;
use std::collections::{HashMap, HashSet};

/// Bytes of messages that are looked through.
const MESSAGES_MAX: usize = 64 * 1024 * 1024;

/// Tasks that are looked up as groups too, in one round.
const GROUPS_MAX: usize = 50;

/// How often the task before the first one is looked for, where results do not name it.
const PARENTS_MAX: usize = 32;

/// What is known of a workflow.
#[derive(Debug, Default)]
pub struct Explored {
    /// Its tasks and groups; empty if nothing is known of the id.
    pub graph: Graph,
    /// Their results and places.
    pub progress: WorkflowProgress,
    /// There are more messages than were looked through.
    pub is_cut: bool,
}

/// A message that was seen.
struct Seen {
    id: String,
    place: Whereabouts,
    /// Its task, and what is to follow it.
    graph: Graph,
}

/// Messages, and which of them tell of an id.
#[derive(Default)]
struct Messages {
    all: Vec<Seen>,
    of: HashMap<String, Vec<usize>>,
}

impl Messages {
    async fn read(client: &Client) -> Result<(Messages, bool), Error> {
        let (seen, is_cut) = client.broker.admin().messages(MESSAGES_MAX).await?;
        let mut messages = Messages::default();
        for one in seen {
            let Ok(message) = one.payload.decode() else { continue };
            let arguments = message.arguments().ok();
            let embed = arguments.as_ref().and_then(|arguments| arguments.embed.as_deref());
            let mut graph = Graph::default();
            // What of it cannot be read is left out; its worker says why.
            let _ = match (message.task.as_str(), &arguments) {
                ("celery.chord_unlock", Some(it)) => add_unlock(&mut graph, &it.args, &it.kwargs),
                _ => graph.add_message(&message, embed),
            };
            let at = messages.all.len();
            let ids = graph.nodes.iter().map(|node| node.id.clone());
            let ids: HashSet<String> = ids.chain([message.root_id]).collect();
            for id in ids.into_iter().filter(|id| !id.is_empty()) {
                messages.of.entry(id).or_default().push(at);
            }
            messages.all.push(Seen { id: message.id, place: one.place, graph });
        }
        Ok((messages, is_cut))
    }
}

/// Adds the chord that a message polls, and not the message itself.
fn add_unlock(
    graph: &mut Graph,
    args: &[Box<RawValue>],
    kwargs: &[(String, Box<RawValue>)],
) -> Result<(), Malformed> {
    let Unlock { group_id, body, header, .. } = Unlock::read(args, kwargs)?;
    let header = ResultTree::Group { id: group_id, parent: None, members: header };
    let header = graph.add_result(&serde_json::from_str(&header.write()).unwrap_or_default());
    let body = graph.add_signature(&Signature::read(&body)?, 0)?;
    if let (Some((from, _)), Some((to, _))) = (header, body) {
        graph.connect(from, to, EdgeKind::Next);
    }
    Ok(())
}

/// Explores the workflow that `id` belongs to.
///
/// # Errors
/// The store or the broker cannot be reached.
pub async fn explore(client: &Client, id: &str) -> Result<Explored, Error> {
    let (messages, is_cut) = Messages::read(client).await?;
    let mut search = Search {
        client,
        messages,
        explored: Explored { is_cut, ..Explored::default() },
        known: HashSet::new(),
        left: vec![id.to_string()],
        has_record: false,
    };
    search.spread().await?;
    if !search.has_record
        && let Some(record) = client.store.group_with(id).await?
    {
        search.left.push(record.id);
        search.spread().await?;
    }
    for _ in 0..PARENTS_MAX {
        if search.has_record {
            break;
        }
        let graph = &search.explored.graph;
        let top = graph.roots().first().map(|at| graph.nodes[*at].clone());
        let Some(top) = top.filter(|top| !top.is_group && !top.id.is_empty()) else { break };
        let Some(parent) = client.store.parent_of(&top.id).await? else { break };
        search.child(&parent, &top.id);
        search.left.push(parent);
        search.spread().await?;
    }
    let mut explored = search.explored;
    if explored.graph.find(id).is_none()
        && let Whereabouts::Dead(number) = client.broker.admin().find(id.into()).await?
    {
        explored.graph.add_task(id, None);
        explored.progress.places.insert(id.into(), Whereabouts::Dead(number));
    }
    explored.graph.resolve();
    // What nothing is known of but that it has called something whose place is known otherwise.
    let progress = &explored.progress;
    let stays = |node: &GraphNode| {
        let is_known =
            progress.metas.contains_key(&node.id) || progress.places.contains_key(&node.id);
        node.id == id || is_known
    };
    explored.graph = explored.graph.without_isolated(&stays);
    Ok(explored)
}

/// What was found so far, and what is to be looked up.
struct Search<'a> {
    client: &'a Client,
    messages: Messages,
    explored: Explored,
    known: HashSet<String>,
    left: Vec<String>,
    has_record: bool,
}

impl Search<'_> {
    /// Looks up whatever is named by what was looked up.
    async fn spread(&mut self) -> Result<(), Error> {
        loop {
            let left = std::mem::take(&mut self.left);
            let new: Vec<String> =
                left.into_iter().filter(|id| self.known.insert(id.clone())).collect();
            if new.is_empty() || self.explored.graph.is_cut {
                return Ok(());
            }
            for id in &new {
                for at in self.messages.of.remove(id).unwrap_or_default() {
                    self.message(at);
                }
            }
            for meta in self.client.store.get_many(&new).await? {
                self.result(meta);
            }
            let graph = &self.explored.graph;
            let is_group = |id: &&String| graph.find(id).is_none_or(|at| graph.nodes[at].is_group);
            let few = new.len() <= GROUPS_MAX;
            let groups: Vec<String> =
                new.iter().filter(|id| few || is_group(id)).cloned().collect();
            for id in groups {
                if let Some(record) = self.client.store.group(&id).await? {
                    self.record(&record.id, &record.result, record.graph.as_deref());
                }
            }
        }
    }

    fn message(&mut self, at: usize) {
        let Seen { id, place, graph } = &self.messages.all[at];
        self.explored.graph.merge(graph);
        if graph.find(id).is_some() {
            self.explored.progress.places.insert(id.clone(), place.clone());
        }
        self.left
            .extend(graph.nodes.iter().map(|node| node.id.clone()).filter(|id| !id.is_empty()));
    }

    fn result(&mut self, meta: Meta) {
        let text = |name: &str| {
            let found = meta.extended.iter().find(|(field, _)| field == name);
            found.and_then(|(_, raw)| serde_json::from_str::<String>(raw.get()).ok())
        };
        let id = meta.task_id.clone();
        let (name, parent, group) = (text("name"), text("parent_id"), text("group_id"));
        self.explored.graph.add_task(&id, name.as_deref());
        if let Some(parent) = parent {
            self.child(&parent, &id);
        }
        if let Some(group) = group {
            self.left.push(group.clone());
            let graph = &mut self.explored.graph;
            if let (Some(group), Some(at)) = (graph.add_group(&group), graph.find(&id)) {
                graph.connect(group, at, EdgeKind::Member);
            }
        }
        let children: Value = serde_json::from_str(meta.children.get()).unwrap_or_default();
        let before = self.explored.graph.nodes.len();
        self.explored.graph.add_children(&id, &children);
        self.added_since(before);
        self.explored.progress.metas.insert(id, meta);
    }

    fn record(&mut self, id: &str, result: &Value, graph: Option<&str>) {
        self.has_record = true;
        let before = self.explored.graph.nodes.len();
        match graph.and_then(Graph::read) {
            Some(graph) => {
                self.explored.graph.merge(&graph);
                // Also of nodes that were known before.
                let ids = graph.nodes.into_iter().map(|node| node.id);
                self.left.extend(ids.filter(|id| !id.is_empty()));
            }
            // A group of one task, under the id of that, is no group.
            None if result[0][0] == result[1][0][0][0] && result[0][0] == id => {
                self.explored.graph.add_result(&result[1][0]);
            }
            None => {
                self.explored.graph.add_result(result);
            }
        }
        self.added_since(before);
    }

    fn child(&mut self, parent: &str, id: &str) {
        let graph = &mut self.explored.graph;
        if let (Some(from), Some(to)) = (graph.add_task(parent, None), graph.add_task(id, None)) {
            graph.connect(from, to, EdgeKind::Child);
        }
        self.left.push(parent.into());
    }

    fn added_since(&mut self, before: usize) {
        let new = self.explored.graph.nodes[before..].iter().map(|node| node.id.clone());
        self.left.extend(new.filter(|id| !id.is_empty()));
    }
}
