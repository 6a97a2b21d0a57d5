//! `qworker graph`: the workflow that a task or a group belongs to, with the states of all its tasks.

mod dot;
mod mermaid;

use super::app::{App, GlobalOptions};
use super::exit::{Error, Exit};
use super::output::ToUser;
use super::result::instant;
use super::workflow::{NodeView, line_text, time_text, tree_lines};
use crate::broker::Whereabouts;
use crate::canvas::graph::{Edge, EdgeKind, NODES_MAX};
use crate::client::graph::{self, Explored};
use crate::client::workflow::last_tasks;
use crate::config::kind;
use crate::link::sqlite::Access;
use crate::log::escape;
use crate::wire::result::Meta;
use serde_json::Value;
use std::time::Duration;

/// Exit codes: 0 printed; 69 unknown id
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Id of a task or a group of the workflow
    #[arg(value_parser = kind::from_text::<kind::TaskId>)]
    id: String,
    /// text (a tree), dot (for Graphviz) or mermaid
    #[arg(
        short,
        long,
        value_name = "FORMAT",
        default_value = "text",
        env = "QWORKER_GRAPH_FORMAT"
    )]
    format: GraphFormat,
}

/// How a graph is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum GraphFormat {
    Text,
    Dot,
    Mermaid,
}

/// A node as a picture shows it.
struct NodeShape {
    /// Lines of text, without control characters.
    lines: Vec<String>,
    is_group: bool,
    state: String,
}

pub(super) fn run(args: &Args, global: &GlobalOptions, out: ToUser) -> Result<Exit, Error> {
    let app = App::open(global, &[])?;
    let explored = super::block_on(async {
        let client = app.client_to(Access::Look)?;
        Ok(graph::explore(&client, &args.id).await?)
    })?;
    let graph = &explored.graph;
    if graph.nodes.is_empty() {
        let text = format!("nothing is known of {}", escape::name(&args.id));
        return Err(Error::unavailable(text).hint(
            "it was never sent to this broker, or its results were ignored, or have expired",
        ));
    }
    match args.format {
        GraphFormat::Text => {
            let lines = tree_lines(graph, &|at| view(&explored, at));
            lines.iter().for_each(|line| out.tell(&line_text(line)));
        }
        GraphFormat::Dot => out.write(&dot::text(&shapes(&explored), graph.edges())),
        GraphFormat::Mermaid => out.write(&mermaid::text(&shapes(&explored), graph.edges())),
    }
    if graph.is_cut {
        out.say(&format!("Note: the graph is cut: it has more than {NODES_MAX} nodes"));
    }
    if explored.is_cut {
        out.say("Note: not all waiting messages were looked through; there may be more to it");
    }
    Ok(Exit::Ok)
}

fn view(explored: &Explored, at: usize) -> NodeView {
    let Explored { graph, progress, .. } = explored;
    let node = &graph.nodes[at];
    if node.is_group {
        let tasks = last_tasks(graph, at);
        let ready = tasks.iter().filter(|at| progress.is_ready(&graph.nodes[**at].id)).count();
        return NodeView { state: format!("{ready}/{}", tasks.len()), ..NodeView::default() };
    }
    if node.id.is_empty() {
        return NodeView::default();
    }
    let note = match (progress.metas.get(&node.id), progress.places.get(&node.id)) {
        (Some(_), _) | (None, None) => String::new(),
        (None, Some(place)) => match place {
            Whereabouts::Waiting { queue, eta: None } => format!("in queue {queue}"),
            Whereabouts::Waiting { queue, eta: Some(eta) } => {
                format!("in queue {queue} until {}", instant(eta))
            }
            Whereabouts::Held { queue } => format!("from queue {queue}"),
            Whereabouts::Dead(number) => format!("see `qworker dead show {number}`"),
            Whereabouts::Untold => "a Python worker has taken it".into(),
            Whereabouts::Absent => String::new(),
        },
    };
    let time = progress.metas.get(&node.id).and_then(runtime);
    NodeView { state: progress.state(&node.id).into(), bar: None, time, note }
}

/// How long a task has run, if its worker has stored that.
fn runtime(meta: &Meta) -> Option<Duration> {
    let (_, usage) = meta.extended.iter().find(|(name, _)| name == "usage")?;
    let usage: Value = serde_json::from_str(usage.get()).ok()?;
    Duration::try_from_secs_f64(usage["runtime"].as_f64()?).ok()
}

fn shapes(explored: &Explored) -> Vec<NodeShape> {
    let shown = explored.graph.nodes.iter().enumerate().map(|(at, node)| {
        let view = view(explored, at);
        let name = match (&node.name, node.is_group) {
            (Some(name), _) => escape::name(name).into_owned(),
            (None, true) => "group".into(),
            (None, false) => "(name unknown)".into(),
        };
        let time = view.time.map_or_else(String::new, |time| format!(" {}", time_text(time)));
        let state = format!("{}{time}", escape::name(&view.state));
        let lines = [name, escape::name(&node.id).into_owned(), state];
        let lines = lines.into_iter().filter(|line| !line.is_empty()).collect();
        NodeShape { lines, is_group: node.is_group, state: view.state }
    });
    shown.collect()
}

/// What is written on an edge.
fn label(edge: &Edge) -> &'static str {
    match edge.kind {
        EdgeKind::Next => "",
        EdgeKind::Member => "member",
        EdgeKind::Callback => "link",
        EdgeKind::Errback => "link_error",
        EdgeKind::Child => "child",
    }
}

/// The colour of a state, as both formats name it; none for what has not begun.
fn color(state: &str) -> Option<&'static str> {
    match state {
        "SUCCESS" => Some("#d5f0d5"),
        "FAILURE" | "REVOKED" | "DEAD" => Some("#f6d0d0"),
        "STARTED" | "RECEIVED" | "RETRY" => Some("#fdf3cf"),
        _ => None,
    }
}
