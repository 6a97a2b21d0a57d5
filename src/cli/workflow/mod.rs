//! Workflows on the command line: their messages, sending, waiting, and what is printed at the end.

mod tree;

pub(super) use tree::{NodeView, lines as tree_lines, text_of as line_text, time_text};

use super::app::App;
use super::exit::{Error, Exit};
use super::output::ToUser;
use super::result::{self, OutputFormat};
use super::sending;
use super::wait;
use crate::broker::Posting;
use crate::canvas::graph::Graph;
use crate::canvas::{self, Context, ResultTree, SignatureKind, Workflow};
use crate::client::Client;
use crate::client::send::{Routing, Sender};
use crate::client::wait::TaskStatus;
use crate::client::workflow::{self, Order, SentWorkflow, WatchEnd, WorkflowProgress};
use crate::clock;
use crate::config::Diagnostic;
use crate::flow::check::{Before, CallFault, Checker};
use crate::log::escape;
use crate::os;
use crate::os::signal::Interrupts;
use crate::task::set::Set;
use crate::wire::Signature;
use std::collections::HashMap;
use std::time::Duration;
use tree::View;

/// Failed tasks that are named each; the rest are only counted.
const FAILED_SHOWN: usize = 20;

/// Silence is no answer for longer than this.
const SILENCE_MAX: Duration = Duration::from_secs(1);

/// What becomes of a workflow that was sent.
#[derive(Debug, Clone, Copy)]
pub(super) enum Then {
    /// Its id is printed.
    PrintId,
    /// Its result is waited for.
    Wait {
        /// So long at most.
        limit: Option<Duration>,
        /// The documents of results are printed.
        json: bool,
        /// Its tasks are shown meanwhile.
        shows_tree: bool,
    },
}

/// Sends a workflow whose tasks are `tasks`.
///
/// # Errors
/// It cannot be called, or the broker or the store do not take it.
pub(super) async fn run(
    app: &App,
    client: &Client,
    tasks: &Set,
    signature: Signature,
    then: Then,
    out: ToUser,
) -> Result<Exit, Error> {
    if matches!(then, Then::Wait { .. }) {
        waits_for_something(client, &signature, tasks)?;
    }
    let (workflow, postings) = messages(app, client, tasks, signature)?;
    let deadline = app.settings.client_timeout;
    let sent = workflow::send_workflow(client, &workflow, postings, deadline).await?;
    if let Some(why) = &sent.unsaved {
        out.say(&format!(
            "Warning: the record of the workflow is not stored, so `qworker graph` and Python's \
             GroupResult.restore know less of it: {why}"
        ));
    }
    match then {
        Then::PrintId => {
            out.hand_over(&sent.id);
            Ok(Exit::Ok)
        }
        Then::Wait { limit, json, shows_tree } => {
            for_workflow(app, client, &sent, (limit, json, shows_tree), out).await
        }
    }
}

/// Where nothing will be stored, nobody can wait.
fn waits_for_something(client: &Client, one: &Signature, tasks: &Set) -> Result<(), Error> {
    if matches!(client.store, crate::backend::Store::Disabled(_)) {
        let why = "--wait: no results are stored (result_backend is disabled://)";
        return Err(Error::usage(why));
    }
    let ignoring = |one: &Signature| match one.option("ignore_result").map(|raw| raw.get()) {
        Some(given) => given == "true",
        None => tasks.get(&one.task).is_some_and(|task| task.ignore_result == Some(true)),
    };
    match last_tasks(one, 0).iter().find(|one| ignoring(one)) {
        None => Ok(()),
        Some(one) => Err(Error::usage(format!(
            "--wait: {} ignores its result (ignore_result), and the workflow ends with it",
            escape::name(&one.task)
        ))),
    }
}

/// The tasks whose results are those of a signature.
fn last_tasks(one: &Signature, depth: usize) -> Vec<Signature> {
    if depth > 64 {
        return Vec::new();
    }
    let all =
        |parts: Vec<Signature>| parts.iter().flat_map(|part| last_tasks(part, depth + 1)).collect();
    match one.kind {
        SignatureKind::Task => vec![one.clone()],
        SignatureKind::Chain => {
            all(one.parts("tasks").unwrap_or_default().pop().into_iter().collect())
        }
        SignatureKind::Group => all(one.parts("tasks").unwrap_or_default()),
        SignatureKind::Chord => all(one.body().into_iter().collect()),
    }
}

/// The messages with which a workflow begins.
fn messages(
    app: &App,
    client: &Client,
    tasks: &Set,
    signature: Signature,
) -> Result<(Workflow, Vec<Posting>), Error> {
    let now = clock::now();
    // A task that calls a workflow is its parent.
    let (parent_id, root_id) = sending::caller()?;
    let (parent_id, root_id) = (parent_id.unwrap_or_default(), root_id.unwrap_or_default());
    let chords = client.store.chords();
    let context = Context { root_id: &root_id, parent_id: &parent_id, priority: None, now, chords };
    let workflow = canvas::start(signature, context).map_err(|why| Error::usage(why.0))?;
    let settings = &app.settings;
    let routing = Routing {
        sender: Sender::new(&os::host::name(), app.forms.messages.clone()),
        abilities: *client.broker.abilities(),
        routes: settings.task_routes.clone(),
        default_queue: settings.task_default_queue.clone(),
        default_priority: settings.task_default_priority,
    };
    let drafts = workflow.calls.drafts.iter();
    let postings = drafts.map(|draft| routing.posting(draft.clone(), tasks, now));
    let postings =
        postings.collect::<Result<_, _>>().map_err(|why| Error::usage(why.to_string()))?;
    Ok((workflow, postings))
}

/// Refuses calls of tasks that nobody here defines, or that do not take their arguments: all of them
/// at once.
///
/// # Errors
/// Names them.
pub(super) fn check(
    signature: &Signature,
    tasks: &Set,
    unregistered: bool,
    faults: &[Diagnostic],
) -> Result<(), Error> {
    let checker = Checker { tasks, unregistered };
    let found = checker.signature(signature, Before::Nothing);
    let Some(first) = found.first() else { return Ok(()) };
    let is_unknown = |fault: &CallFault| matches!(fault, CallFault::Unknown(..));
    if found.iter().any(is_unknown) {
        App::seen(faults)?;
    }
    if let ([CallFault::Unknown(name, _)], true) = (&found[..], true) {
        return Err(sending::unknown(name, tasks, faults));
    }
    let mut lines: Vec<String> = Vec::new();
    for fault in &found {
        let line = fault.to_string();
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    let error = match &lines[..] {
        [_] => Error::usage(first.to_string()),
        lines => Error::usage(format!("the workflow cannot run:\n{}", lines.join("\n"))),
    };
    Err(match found.iter().any(is_unknown) {
        true => error.hint(sending::UNREGISTERED),
        false => error,
    })
}

/// Waits until a workflow has its result, or the limit has passed; then prints what there is.
async fn for_workflow(
    app: &App,
    client: &Client,
    sent: &SentWorkflow,
    (limit, json, shows_tree): (Option<Duration>, bool, bool),
    out: ToUser,
) -> Result<Exit, Error> {
    let cannot =
        |error: std::io::Error| Error::failure(format!("cannot listen to signals: {error}"));
    let interrupts = Interrupts::listen().map_err(cannot)?;
    let order = Order::of(&sent.graph);
    let view = View::new(sent, shows_tree, out);
    let (mut progress, id) = (WorkflowProgress::default(), escape::name(&sent.id).into_owned());
    let first =
        order.due(&sent.graph, &progress).first().map(|at| sent.graph.nodes[*at].id.clone());
    let ended = {
        let mut tell = |progress: &WorkflowProgress| view.show(sent, &order, progress);
        let mut watched = std::pin::pin!(workflow::watch(client, sent, &mut progress, &mut tell));
        let late = async {
            match limit {
                Some(limit) => tokio::time::sleep(limit).await,
                None => std::future::pending().await,
            }
        };
        let mut explained = std::pin::pin!(async {
            if !view.is_live()
                && !out.quiet
                && let Some(first) = &first
            {
                wait::explain_later(app, client, first, SILENCE_MAX, out).await;
            }
            std::future::pending::<()>().await;
        });
        tokio::select! {
            biased;
            ended = &mut watched => ended?,
            signal = interrupts.next() => {
                view.leave();
                out.say(&format!(
                    "The workflow {id} goes on without you; look at it with `qworker graph {id}`, or \
                     wait again with `qworker result {id} --wait`."
                ));
                return Ok(Exit::Code(u8::try_from(128 + signal).unwrap_or(u8::MAX)));
            }
            () = late => {
                view.leave();
                out.say(&format!(
                    "The workflow {id} is not ready after the given time; look at it with \
                     `qworker graph {id}`, or wait again with `qworker result {id} --wait`."
                ));
                return Ok(Exit::NotYet);
            }
            () = &mut explained => return Err(Error::failure("what is explained has an end")),
        }
    };
    view.leave();
    if let WatchEnd::Dead(task_id, number) = ended {
        let node = sent.graph.find(&task_id).map(|at| &sent.graph.nodes[at]);
        let name = node.and_then(|node| node.name.clone()).unwrap_or_default();
        out.say(&format!(
            "DEAD: task {}[{}] is in the dead-letter list; see `qworker dead show {number}`",
            escape::name(&name),
            escape::name(&task_id)
        ));
        return Ok(Exit::Failure);
    }
    tell_failures(&sent.graph, &order, &progress, out);
    print_result(&sent.result, &progress, json, out)
}

/// The results of a saved group: printed if all are there, or waited for.
pub(super) async fn of_group(
    app: &App,
    client: &Client,
    id: &str,
    result: ResultTree,
    graph: Option<Graph>,
    (waits, limit, json): (bool, Option<Duration>, bool),
    out: ToUser,
) -> Result<Exit, Error> {
    let ids = result.task_ids();
    let graph = graph.unwrap_or_else(|| {
        let mut graph = Graph::default();
        graph.add_result(&serde_json::from_str(&result.write()).unwrap_or_default());
        graph
    });
    let (id, at) = (id.to_string(), clock::now());
    let sent = SentWorkflow { id, result, graph, at, unsaved: None };
    if waits {
        return for_workflow(app, client, &sent, (limit, json, false), out).await;
    }
    let mut progress = WorkflowProgress::default();
    for meta in client.store.get_many(&ids).await? {
        progress.metas.insert(meta.task_id.clone(), meta);
    }
    let ready = ids.iter().filter(|id| progress.is_ready(id)).count();
    if ready < ids.len() {
        out.say(&format!("PENDING: {ready} of {} tasks of the group are ready", ids.len()));
        return Ok(Exit::NotYet);
    }
    tell_failures(&sent.graph, &Order::of(&sent.graph), &progress, out);
    print_result(&sent.result, &progress, json, out)
}

/// Which tasks failed first, and why.
fn tell_failures(graph: &Graph, order: &Order, progress: &WorkflowProgress, out: ToUser) {
    let failed = order.failed(graph, progress);
    for at in failed.iter().take(FAILED_SHOWN) {
        let node = &graph.nodes[*at];
        let Some(meta) = progress.metas.get(&node.id) else { continue };
        let why = result::error_text(&meta.value());
        let name = node.name.as_deref().unwrap_or("of unknown name");
        let (name, id) = (escape::name(name), escape::name(&node.id));
        out.say(&format!("{}: task {name}[{id}]: {why}", meta.status));
        if let (Some(traceback), [_]) = (&meta.traceback, &failed[..]) {
            out.say(traceback);
        }
    }
    if failed.len() > FAILED_SHOWN {
        out.say(&format!("{} more tasks have failed", failed.len() - FAILED_SHOWN));
    }
}

/// Prints what a result has come to; a failed one gives exit code 1.
pub(super) fn print_result(
    tree: &ResultTree,
    progress: &WorkflowProgress,
    json: bool,
    out: ToUser,
) -> Result<Exit, Error> {
    let failed = tree.task_ids().iter().any(|id| progress.has_failed(id));
    let exit = if failed { Exit::Failure } else { Exit::Ok };
    if let ResultTree::Task { id, .. } = tree
        && let Some(meta) = progress.metas.get(id)
    {
        if failed && !json {
            return Ok(exit);
        }
        let form = if json { OutputFormat::Json } else { OutputFormat::Value };
        return result::show(id, TaskStatus::Result(Box::new(meta.clone())), form, out);
    }
    let value = |meta: &crate::wire::result::Meta| match json {
        true => meta.document(),
        false => meta.result.get().to_string(),
    };
    if json || !failed {
        let texts = progress.metas.iter().map(|(id, meta)| (id.as_str(), value(meta))).collect();
        out.data(&array(tree, &texts));
    }
    Ok(exit)
}

/// The texts of a group's results as a JSON array, of groups within it as arrays in it.
fn array(tree: &ResultTree, texts: &HashMap<&str, String>) -> String {
    match tree {
        ResultTree::Task { id, .. } => {
            texts.get(id.as_str()).cloned().unwrap_or_else(|| "null".into())
        }
        ResultTree::Group { members, .. } => {
            let members: Vec<String> = members.iter().map(|one| array(one, texts)).collect();
            format!("[{}]", members.join(", "))
        }
    }
}
