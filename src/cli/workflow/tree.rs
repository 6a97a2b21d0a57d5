//! A workflow as a tree of lines: redrawn in place while it runs, on a terminal; elsewhere a line is
//! written for each change of a state.

use super::super::output::ToUser;
use crate::broker::Whereabouts;
use crate::canvas::graph::{EdgeKind, Graph};
use crate::client::workflow::{Order, SentWorkflow, WorkflowProgress, last_tasks};
use crate::clock;
use crate::log::escape;
use chrono::{DateTime, Utc};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::io::{self, IsTerminal};
use std::time::Duration;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Columns of a group's bar.
const BAR: usize = 20;

/// Levels of a tree that are shown.
const LEVELS_MAX: usize = 40;

/// Columns of a terminal that does not tell how many it has.
const WIDTH: usize = 80;

/// Lines of it.
const HEIGHT: usize = 24;

/// What is shown of a node beside its name and its id.
#[derive(Debug, Clone, Default)]
pub(in crate::cli) struct NodeView {
    /// Its state; of a group, how many of its tasks are ready, and of how many.
    pub state: String,
    /// How many tasks of a group are ready, and how many it has.
    pub bar: Option<(usize, usize)>,
    /// How long it has run.
    pub time: Option<Duration>,
    /// Where it is, or what else there is to say.
    pub note: String,
}

/// A part of a line, in this SGR colour.
pub(in crate::cli) type Piece = (String, Option<u8>);

/// The lines of a graph, each in its parts.
pub(in crate::cli) fn lines(graph: &Graph, view: &dyn Fn(usize) -> NodeView) -> Vec<Vec<Piece>> {
    let mut tree = Tree { graph, view, shown: HashSet::new(), lines: Vec::new() };
    let roots = graph.roots();
    // Results may list each other in a circle.
    let first = if roots.is_empty() { (0..graph.nodes.len().min(1)).collect() } else { roots };
    for at in first {
        tree.show(at, "", "", "", 0);
    }
    tree.lines
}

/// A line as text.
pub(in crate::cli) fn text_of(line: &[Piece]) -> String {
    line.iter().map(|(text, _)| text.as_str()).collect::<String>().trim_end().to_string()
}

struct Tree<'a> {
    graph: &'a Graph,
    view: &'a dyn Fn(usize) -> NodeView,
    shown: HashSet<usize>,
    lines: Vec<Vec<Piece>>,
}

impl Tree<'_> {
    /// A node, with what is below it, and what comes after it: `first` stands before its line, and
    /// `rest` before those that follow.
    fn show(&mut self, at: usize, first: &str, rest: &str, label: &str, level: usize) {
        let (mut at, mut lead) = (at, format!("{first}{label}"));
        loop {
            let is_known = !self.shown.insert(at);
            self.line(at, &lead, is_known);
            if is_known {
                return;
            }
            let (below, next) = self.around(at);
            let count = below.len();
            if level >= LEVELS_MAX && count > 0 {
                self.lines.push(vec![(format!("{rest}   …"), None)]);
            }
            for (place, (label, to)) in below.into_iter().enumerate().filter(|_| level < LEVELS_MAX)
            {
                let is_last = place + 1 == count;
                let (corner, line) =
                    if is_last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
                let (first, rest) = (format!("{rest}  {corner}"), format!("{rest}  {line}"));
                self.show(to, &first, &rest, label, level + 1);
            }
            match next {
                Some(to) => (at, lead) = (to, format!("{rest}→ ")),
                None => return,
            }
        }
    }

    /// What stands below a node, and the one that comes after it.
    fn around(&self, at: usize) -> (Vec<(&'static str, usize)>, Option<usize>) {
        let after = |kind| self.graph.after(at, kind);
        let mut below: Vec<(&'static str, usize)> = Vec::new();
        for (kind, label) in [
            (EdgeKind::Member, ""),
            (EdgeKind::Callback, "link: "),
            (EdgeKind::Errback, "link_error: "),
        ] {
            below.extend(after(kind).into_iter().map(|to| (label, to)));
        }
        let (mut next, mut children) = (after(EdgeKind::Next), after(EdgeKind::Child));
        if next.is_empty() && children.len() == 1 {
            next.append(&mut children);
        }
        below.extend(children.into_iter().map(|to| ("child: ", to)));
        let last = next.pop();
        below.extend(next.into_iter().map(|to| ("→ ", to)));
        (below, last)
    }

    fn line(&mut self, at: usize, lead: &str, is_known: bool) {
        let (node, view) = (&self.graph.nodes[at], (self.view)(at));
        let name = match (&node.name, node.is_group) {
            (Some(name), _) => escape::name(name).into_owned(),
            (None, true) => "group".into(),
            (None, false) => "(name unknown)".into(),
        };
        let mut line = vec![(format!("{lead}{name}"), None)];
        if !node.id.is_empty() {
            line.push((format!(" {}", escape::name(&node.id)), Some(90)));
        }
        if is_known {
            line.push((" (above)".into(), None));
            self.lines.push(line);
            return;
        }
        if let Some((done, all)) = view.bar {
            let filled = (BAR * done).checked_div(all).unwrap_or(BAR);
            let bar = format!(" [{}{}]", "#".repeat(filled), "-".repeat(BAR - filled));
            line.push((bar, None));
        }
        if !view.state.is_empty() {
            let color = match view.state.as_str() {
                "SUCCESS" => Some(32),
                "FAILURE" | "REVOKED" | "DEAD" => Some(31),
                "PENDING" => None,
                _ if node.is_group => None,
                _ => Some(33),
            };
            line.push((format!(" {}", escape::name(&view.state)), color));
        }
        if let Some(time) = view.time {
            line.push((format!(" {}", time_text(time)), None));
        }
        if !view.note.is_empty() {
            line.push((format!(" {}", escape::line(&view.note)), None));
        }
        self.lines.push(line);
    }
}

/// A time span as people read it.
pub(in crate::cli) fn time_text(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    match time.as_secs() {
        0..=59 => format!("{seconds:.1}s"),
        60..=3599 => format!("{}m{:02}s", time.as_secs() / 60, time.as_secs() % 60),
        _ => format!("{}h{:02}m", time.as_secs() / 3600, time.as_secs() / 60 % 60),
    }
}

/// Where a workflow is shown while it runs.
pub(super) struct View {
    out: ToUser,
    /// On a terminal.
    bar: Option<ProgressBar>,
    /// The states that were written elsewhere, by the ids of their tasks.
    told: RefCell<HashMap<String, String>>,
    tells: bool,
    left: Cell<bool>,
}

impl View {
    pub(super) fn new(sent: &SentWorkflow, shows_tree: bool, out: ToUser) -> View {
        let shows = shows_tree && !out.quiet;
        let bar = (shows && io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            if let Ok(style) = ProgressStyle::with_template("{msg}") {
                bar.set_style(style);
            }
            bar
        });
        let tells = shows && bar.is_none();
        if tells {
            out.say(&format!("Workflow {}", escape::name(&sent.id)));
        }
        View { out, bar, told: RefCell::default(), tells, left: Cell::new(false) }
    }

    /// Is it redrawn in place?
    pub(super) fn is_live(&self) -> bool {
        self.bar.is_some()
    }

    /// Shows what is known now.
    pub(super) fn show(&self, sent: &SentWorkflow, order: &Order, progress: &WorkflowProgress) {
        if let Some(bar) = &self.bar {
            bar.set_message(self.drawn(sent, order, progress));
        }
        if self.tells {
            self.tell(sent, order, progress);
        }
    }

    /// Leaves what is shown on the terminal.
    pub(super) fn leave(&self) {
        if let Some(bar) = self.bar.as_ref().filter(|_| !self.left.replace(true)) {
            bar.abandon();
        }
    }

    fn drawn(&self, sent: &SentWorkflow, order: &Order, progress: &WorkflowProgress) -> String {
        let size = terminal_size::terminal_size_of(io::stderr());
        let (width, height) = size.map_or((WIDTH, HEIGHT), |(width, height)| {
            (usize::from(width.0).max(20), usize::from(height.0).max(4))
        });
        let mut all = lines(&sent.graph, &|at| view_of(sent, order, progress, at));
        let most = height - 1;
        if all.len() > most {
            let more = all.len() - (most - 1);
            all.truncate(most - 1);
            all.push(vec![(format!("… {more} more lines"), None)]);
        }
        let lines = all.iter().map(|line| self.fitted(line, width));
        lines.collect::<Vec<_>>().join("\n")
    }

    /// A line no wider than the terminal.
    fn fitted(&self, line: &[Piece], width: usize) -> String {
        let (mut left, mut fitted) = (width.saturating_sub(1), String::new());
        for (text, color) in line {
            let mut part = text.clone();
            if part.width() > left {
                let mut used = 0;
                part = part
                    .chars()
                    .take_while(|c| {
                        used += c.width().unwrap_or(0);
                        used <= left
                    })
                    .collect();
            }
            left = left.saturating_sub(part.width());
            match color.filter(|_| self.out.color) {
                Some(color) => fitted.push_str(&format!("\x1b[{color}m{part}\x1b[0m")),
                None => fitted.push_str(&part),
            }
        }
        fitted
    }

    fn tell(&self, sent: &SentWorkflow, order: &Order, progress: &WorkflowProgress) {
        let mut told = self.told.borrow_mut();
        let tasks = sent.graph.nodes.iter().enumerate();
        for (at, node) in tasks.filter(|(_, node)| !node.is_group && !node.id.is_empty()) {
            let state = progress.state(&node.id);
            if told.get(&node.id).map_or("PENDING", String::as_str) == state {
                continue;
            }
            told.insert(node.id.clone(), state.to_string());
            let view = view_of(sent, order, progress, at);
            let name = escape::name(node.name.as_deref().unwrap_or("(name unknown)"));
            let time = view.time.map_or_else(String::new, |time| format!(" {}", time_text(time)));
            let id = escape::name(&node.id);
            self.out.say(&format!("{name}[{id}] {}{time}", escape::name(state)));
        }
    }
}

fn view_of(sent: &SentWorkflow, order: &Order, progress: &WorkflowProgress, at: usize) -> NodeView {
    let (graph, node) = (&sent.graph, &sent.graph.nodes[at]);
    if node.is_group {
        let tasks = last_tasks(graph, at);
        let ready = tasks.iter().filter(|at| progress.is_ready(&graph.nodes[**at].id)).count();
        let state = format!("{ready}/{}", tasks.len());
        return NodeView { state, bar: Some((ready, tasks.len())), ..NodeView::default() };
    }
    if node.id.is_empty() {
        return NodeView::default();
    }
    let note = match progress.places.get(&node.id) {
        Some(Whereabouts::Waiting { queue, eta }) => match eta {
            Some(eta) => format!("in queue {queue} until {}", crate::cli::result::instant(eta)),
            None => format!("in queue {queue}"),
        },
        _ => String::new(),
    };
    let state = progress.state(&node.id).to_string();
    NodeView { state, bar: None, time: time_of(sent, order, progress, at), note }
}

/// How long a task has run: as its worker has measured it; else since it was seen with a worker, or
/// could begin.
fn time_of(
    sent: &SentWorkflow,
    order: &Order,
    progress: &WorkflowProgress,
    at: usize,
) -> Option<Duration> {
    let id = &sent.graph.nodes[at].id;
    let meta = progress.metas.get(id);
    if let Some(usage) =
        meta.and_then(|meta| meta.extended.iter().find(|(name, _)| name == "usage"))
    {
        let usage: serde_json::Value = serde_json::from_str(usage.1.get()).unwrap_or_default();
        if let Some(runtime) = usage["runtime"].as_f64() {
            return Duration::try_from_secs_f64(runtime).ok();
        }
    }
    let done = |at: &usize| progress.metas.get(&sent.graph.nodes[*at].id)?.date_done;
    let before = order.before(at).iter().filter_map(done).max();
    let begin: DateTime<Utc> = match progress.taken.get(id) {
        Some(taken) => *taken,
        None => before.unwrap_or(sent.at),
    };
    let end = match meta {
        Some(meta) if meta.is_ready() => meta.date_done?,
        Some(_) => clock::now(),
        None => match progress.places.get(id)? {
            Whereabouts::Held { .. } => clock::now(),
            _ => return None,
        },
    };
    (end - begin).max(chrono::TimeDelta::zero()).to_std().ok()
}
