//! A workflow from a client's side: sent under one deadline, and followed until its result is there.

use super::Client;
use super::send;
use crate::broker::{Error, Posting, Whereabouts};
use crate::canvas::graph::{EdgeKind, Graph};
use crate::canvas::{Chords, ResultTree, Workflow};
use crate::clock;
use crate::wire::Malformed;
use crate::wire::result::Meta;
use chrono::{DateTime, Utc};
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// The broker is searched again after this many times the duration of the last search, and not
/// sooner than [`SEARCH_MIN`].
const SEARCH_SHARE: u32 = 200;

/// How long at least a search of the broker is good for.
const SEARCH_MIN: Duration = Duration::from_millis(500);

/// Tasks that one search looks for, at most.
const SEARCH_MAX: usize = 20;

/// Results are read again after this many times the duration of the last reading: a workflow of
/// thousands of tasks stores thousands of results.
const READ_SHARE: u32 = 4;

/// How often somebody who watches hears of a workflow of which nothing is new.
const TICK: Duration = Duration::from_millis(100);

/// What a client knows of a workflow that it has sent.
#[derive(Debug, Clone)]
pub struct SentWorkflow {
    /// Names the whole: the id of the last task, or of the group that it ends with.
    pub id: String,
    /// The result that stands for the whole.
    pub result: ResultTree,
    /// Its tasks and groups.
    pub graph: Graph,
    /// When it was sent.
    pub at: DateTime<Utc>,
    /// Why its record is not stored, if it is not: it runs all the same, and less can be told of it.
    pub unsaved: Option<String>,
}

/// Sends `postings`, the messages of `workflow`, within `deadline`, after what the store has to know.
///
/// # Errors
/// What the store or the broker said, or that they did not in time. After a time-out the messages may
/// still have been accepted.
pub async fn send_workflow(
    client: &Client,
    workflow: &Workflow,
    postings: Vec<Posting>,
    deadline: Duration,
) -> Result<SentWorkflow, Error> {
    let until = tokio::time::Instant::now() + deadline;
    let late = |_| Error::late(deadline);
    let chords = &workflow.calls.chords;
    if client.store.chords() == Chords::Counted && !chords.is_empty() {
        tokio::time::timeout_at(until, client.store.begin_chords(chords)).await.map_err(late)??;
    }
    let graph = Graph::of_signature(&workflow.signature);
    let graph = graph.map_err(|Malformed(why)| Error::misuse(why))?;
    let (result, at) = (workflow.result.clone().bounded(), clock::now());
    let id = result.id().to_string();
    let record = match &result {
        ResultTree::Group { .. } => result.write(),
        // A group of one: what Python's `GroupResult` needs.
        ResultTree::Task { .. } => {
            let members = vec![result.clone()];
            ResultTree::Group { id: id.clone(), parent: None, members }.write()
        }
    };
    let saving = client.store.save_group(&id, &record, graph.write());
    let saved = tokio::time::timeout(deadline / 3, saving).await;
    let unsaved = match saved.unwrap_or_else(|_| Err(Error::late(deadline / 3))) {
        Ok(()) => None,
        Err(why) => Some(why.to_string()),
    };
    let left = until.saturating_duration_since(tokio::time::Instant::now());
    send::send(&client.broker.producer(), postings, left).await?;
    Ok(SentWorkflow { id, result, graph, at, unsaved })
}

/// What is known of the tasks of a workflow.
#[derive(Debug, Clone, Default)]
pub struct WorkflowProgress {
    /// Results, not always final ones, by the ids of their tasks.
    pub metas: HashMap<String, Meta>,
    /// Where tasks without a result are, as the broker has said lately.
    pub places: HashMap<String, Whereabouts>,
    /// When a task was first seen with a worker that had been seen in a queue before.
    pub taken: HashMap<String, DateTime<Utc>>,
}

impl WorkflowProgress {
    /// Will the result of this task change no more?
    pub fn is_ready(&self, id: &str) -> bool {
        self.metas.get(id).is_some_and(Meta::is_ready)
    }

    /// The name of a task's state.
    pub fn state(&self, id: &str) -> &str {
        match (self.metas.get(id), self.places.get(id)) {
            (Some(meta), _) => &meta.status,
            (None, Some(Whereabouts::Held { .. })) => "RECEIVED",
            (None, Some(Whereabouts::Dead(_))) => "DEAD",
            (None, _) => "PENDING",
        }
    }

    /// Has it failed, or will it never run?
    pub fn has_failed(&self, id: &str) -> bool {
        self.metas.get(id).is_some_and(|meta| meta.is_ready() && meta.status != "SUCCESS")
    }
}

/// How the watch of a workflow ended.
#[derive(Debug)]
pub enum WatchEnd {
    /// Every task of the result is ready.
    Ready,
    /// This task is in the dead-letter list, under this number: the rest never comes.
    Dead(String, i64),
}

/// Follows a workflow until its result is there. `tell` is called whenever something may be new, and
/// some times a second.
///
/// # Errors
/// The store or the broker cannot be reached.
pub async fn watch(
    client: &Client,
    sent: &SentWorkflow,
    progress: &mut WorkflowProgress,
    tell: &mut dyn FnMut(&WorkflowProgress),
) -> Result<WatchEnd, Error> {
    let order = Order::of(&sent.graph);
    let mut ids: Vec<String> = sent.result.task_ids();
    let last: Vec<String> = ids.clone();
    let of_graph = sent.graph.nodes.iter().filter(|node| !node.is_group && !node.id.is_empty());
    let known: HashSet<String> = ids.iter().cloned().collect();
    ids.extend(of_graph.map(|node| node.id.clone()).filter(|id| !known.contains(id)));
    let mut listener = client.store.listen(&ids).await?;
    let mut search_at = Instant::now();
    loop {
        let begin = Instant::now();
        let open: Vec<String> = ids.iter().filter(|id| !progress.is_ready(id)).cloned().collect();
        for meta in client.store.get_many(&open).await? {
            progress.places.remove(&meta.task_id);
            progress.metas.insert(meta.task_id.clone(), meta);
        }
        let read_again = begin + begin.elapsed() * READ_SHARE;
        if last.iter().all(|id| progress.is_ready(id)) {
            tell(progress);
            return Ok(WatchEnd::Ready);
        }
        if Instant::now() >= search_at {
            let begin = Instant::now();
            if let Some(ended) = search(client, &sent.graph, &order, progress).await? {
                tell(progress);
                return Ok(ended);
            }
            search_at = Instant::now() + (begin.elapsed() * SEARCH_SHARE).max(SEARCH_MIN);
        }
        tell(progress);
        {
            let mut stored = std::pin::pin!(async {
                listener.stored().await;
                tokio::time::sleep_until(read_again.into()).await;
            });
            loop {
                tokio::select! {
                    biased;
                    () = &mut stored => break,
                    () = tokio::time::sleep(TICK) => tell(progress),
                }
                if Instant::now() >= search_at {
                    break;
                }
            }
        }
    }
}

/// Looks where the tasks are that could run now.
async fn search(
    client: &Client,
    graph: &Graph,
    order: &Order,
    progress: &mut WorkflowProgress,
) -> Result<Option<WatchEnd>, Error> {
    let open = |at: &usize| !progress.metas.contains_key(&graph.nodes[*at].id);
    let due: Vec<usize> =
        order.due(graph, progress).into_iter().filter(open).take(SEARCH_MAX).collect();
    for at in due {
        let id = graph.nodes[at].id.clone();
        let place = client.broker.admin().find(id.clone()).await?;
        if let Whereabouts::Dead(number) = place
            && order.needed.contains(&at)
        {
            progress.places.insert(id.clone(), place);
            return Ok(Some(WatchEnd::Dead(id, number)));
        }
        let waited = matches!(progress.places.get(&id), Some(Whereabouts::Waiting { .. }));
        if waited && matches!(place, Whereabouts::Held { .. }) {
            progress.taken.entry(id.clone()).or_insert_with(clock::now);
        }
        progress.places.insert(id, place);
    }
    Ok(None)
}

/// What is before what in a graph.
#[derive(Debug)]
pub struct Order {
    /// The tasks before each node, as far as it waits for them.
    before: HashMap<usize, Rc<Vec<usize>>>,
    /// The nodes that are no callbacks: the result needs them.
    pub needed: HashSet<usize>,
}

impl Order {
    /// The order of this graph.
    pub fn of(graph: &Graph) -> Order {
        let mut order = Order { before: HashMap::new(), needed: HashSet::new() };
        let none = Rc::new(Vec::new());
        let mut left: Vec<(usize, Rc<Vec<usize>>, bool)> =
            graph.roots().into_iter().map(|at| (at, none.clone(), true)).collect();
        let mut seen = HashSet::new();
        while let Some((at, before, is_needed)) = left.pop() {
            if is_needed {
                order.needed.insert(at);
            }
            if !seen.insert(at) {
                continue;
            }
            let node = &graph.nodes[at];
            for member in graph.after(at, EdgeKind::Member) {
                left.push((member, before.clone(), is_needed));
            }
            let own = Rc::new(if node.is_group { last_tasks(graph, at) } else { vec![at] });
            for kind in [EdgeKind::Callback, EdgeKind::Child] {
                left.extend(graph.after(at, kind).into_iter().map(|to| (to, own.clone(), false)));
            }
            left.extend(
                graph.after(at, EdgeKind::Next).into_iter().map(|to| (to, own.clone(), is_needed)),
            );
            order.before.insert(at, before);
        }
        order
    }

    /// The tasks that a node waits for.
    pub fn before(&self, at: usize) -> &[usize] {
        self.before.get(&at).map_or(&[], |before| before.as_slice())
    }

    /// The tasks that are not ready, and wait for none.
    pub fn due(&self, graph: &Graph, progress: &WorkflowProgress) -> Vec<usize> {
        let ready = |at: &usize| progress.is_ready(&graph.nodes[*at].id);
        let mut due: Vec<usize> = self.before.keys().copied().collect();
        due.sort_unstable();
        due.retain(|at| {
            let node = &graph.nodes[*at];
            let runs = !node.is_group && !node.id.is_empty() && !ready(at);
            runs && self.before(*at).iter().all(ready)
        });
        due
    }

    /// The tasks that failed first: those before them did not.
    pub fn failed(&self, graph: &Graph, progress: &WorkflowProgress) -> Vec<usize> {
        let failed = |at: &usize| progress.has_failed(&graph.nodes[*at].id);
        let mut first: Vec<usize> = self.needed.iter().copied().filter(failed).collect();
        first.sort_unstable();
        // Those that fail because of another one are behind it, with or without others in between
        // that have no result.
        let follows = |at: &usize| {
            let (mut left, mut seen) = (self.before(*at).to_vec(), HashSet::new());
            while let Some(at) = left.pop() {
                if failed(&at) {
                    return true;
                }
                if seen.insert(at) {
                    left.extend_from_slice(self.before(at));
                }
            }
            false
        };
        first.retain(|at| !follows(at));
        first
    }
}

/// The tasks with which a node ends: of a group, the last ones of its members.
pub fn last_tasks(graph: &Graph, group: usize) -> Vec<usize> {
    let (mut found, mut left, mut seen) = (Vec::new(), vec![group], HashSet::new());
    while let Some(at) = left.pop() {
        if !seen.insert(at) {
            continue;
        }
        let next = if at == group { Vec::new() } else { graph.after(at, EdgeKind::Next) };
        match (graph.nodes[at].is_group, next.is_empty()) {
            (_, false) => left.extend(next),
            (true, true) => left.extend(graph.after(at, EdgeKind::Member)),
            (false, true) => found.push(at),
        }
    }
    found
}
