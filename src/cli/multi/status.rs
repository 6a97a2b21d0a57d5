//! `status`: how each node is, as its pidfile, the kernel and the worker itself say.

use super::super::exit::Exit;
use super::console::Console;
use super::node::Node;
use super::wait_limit::WaitLimit;
use crate::bounds::ANSWER_PATIENCE;
use crate::client::health::{self, StatusDocument};
use crate::os::pidfile::{Holder, holder};
use crate::os::process::Process;
use crate::os::{host, node_socket};
use serde_json::json;
use std::time::Duration;

/// What is known of a node that runs.
struct Alive {
    pid: i32,
    uptime: Duration,
    /// Of the guard and the worker, shared pages in part.
    memory: u64,
    /// What the worker says, if it answers.
    said: Option<StatusDocument>,
}

/// What is known of a node: that it is down if nothing is.
type NodeStatus = Result<Option<Alive>, String>;

/// Prints how the nodes are; a node that is down is a failure, and so is one of which nobody can
/// tell.
pub(super) fn status(
    nodes: &[Node],
    as_json: bool,
    wait_limit: WaitLimit,
    console: &Console,
) -> Exit {
    let known = |node: &Node| match holder(&node.pidfile) {
        Ok(Holder::Live(process)) => Ok(Some(look(node, &process, wait_limit))),
        Ok(Holder::Stale(_) | Holder::Nobody) => Ok(None),
        Err(error) => Err(format!("{}: {error}", node.pidfile.display())),
    };
    let all: Vec<NodeStatus> = nodes.iter().map(known).collect();
    if as_json {
        let objects: Vec<_> = nodes.iter().zip(&all).map(|(node, one)| object(node, one)).collect();
        console.out.print(&serde_json::Value::from(objects).to_string());
    } else {
        let header = ["NODE", "PID", "UPTIME", "STATE", "TASKS", "MEMORY", "VERSION"];
        let rows: Vec<_> = nodes.iter().zip(&all).map(|(node, one)| row(node, one)).collect();
        console.out.table(&header, &rows, "No nodes.");
    }
    if all.iter().all(|known| matches!(known, Ok(Some(_)))) { Exit::Ok } else { Exit::Failure }
}

/// Is this worker on its way to its end?
pub(super) fn is_leaving(node: &Node, process: &Process) -> bool {
    let wait_limit = WaitLimit::new(Some(ANSWER_PATIENCE));
    look(node, process, wait_limit).said.is_some_and(|said| said.state != "running")
}

fn look(node: &Node, process: &Process, wait_limit: WaitLimit) -> Alive {
    let sockets =
        process.uid().map(|uid| node_socket::find(&node.name, uid).found).unwrap_or_default();
    // Other applications may have a node of this name, and while one is replaced its successor may
    // answer already.
    let said = sockets.iter().find_map(|socket| {
        let said = health::ask(socket, wait_limit.left().min(ANSWER_PATIENCE)).ok()?;
        (i32::try_from(said.guard) == Ok(process.pid())).then_some(said)
    });
    let worker = said.as_ref().and_then(|said| i32::try_from(said.pid).ok());
    let pids = [Some(process.pid()), worker].into_iter().flatten();
    Alive {
        pid: process.pid(),
        uptime: process.started().and_then(|at| at.elapsed().ok()).unwrap_or_default(),
        memory: pids.filter_map(host::memory_of).sum(),
        said,
    }
}

/// What a node that runs and says nothing is: at its beginning, or stuck.
const SILENT: &str = "no answer";

fn row(node: &Node, known: &NodeStatus) -> Vec<String> {
    let nothing = || "-".to_string();
    let without = |state: String| {
        let rest = [nothing(), nothing(), state, nothing(), nothing(), nothing()];
        [node.name.clone()].into_iter().chain(rest).collect()
    };
    let alive = match known {
        Ok(Some(alive)) => alive,
        Ok(None) => return without("down".into()),
        Err(why) => return without(format!("cannot tell: {why}")),
    };
    let said = alive.said.as_ref();
    let state = said.map(|said| match &said.why {
        Some(why) if said.state == "running" => format!("not ready: {why}"),
        _ => said.state.clone(),
    });
    vec![
        node.name.clone(),
        alive.pid.to_string(),
        age(alive.uptime),
        state.unwrap_or_else(|| SILENT.into()),
        said.map_or_else(nothing, |said| format!("{}/{}", said.running, said.slots)),
        format!("{}.{} MB", alive.memory / 1_000_000, alive.memory / 100_000 % 10),
        said.map_or_else(nothing, |said| said.version.clone()),
    ]
}

fn object(node: &Node, known: &NodeStatus) -> serde_json::Value {
    let alive = known.as_ref().ok().and_then(Option::as_ref);
    let said = alive.and_then(|alive| alive.said.as_ref());
    let state = match (known, said) {
        (Err(_), _) => "unknown",
        (Ok(None), _) => "down",
        (Ok(Some(_)), None) => SILENT,
        (Ok(Some(_)), Some(said)) => said.state.as_str(),
    };
    let why = said.and_then(|said| said.why.as_ref()).or(known.as_ref().err());
    json!({
        "node": node.name,
        "pid": alive.map(|alive| alive.pid),
        "uptime": alive.map(|alive| alive.uptime.as_secs_f64()),
        "state": state,
        "ready": said.is_some_and(|said| said.ready),
        "why": why,
        "log": said.and_then(|said| said.log.as_ref()),
        "running": said.map(|said| said.running),
        "reserved": said.map(|said| said.reserved),
        "slots": said.map(|said| said.slots),
        "memory": alive.map(|alive| alive.memory),
        "version": said.map(|said| said.version.as_str()),
    })
}

/// The two largest units of a time.
fn age(time: Duration) -> String {
    let seconds = time.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, _, _) => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_has_two_units() {
        for (seconds, text) in
            [(0, "0 s"), (61, "1 min 1 s"), (7260, "2 h 1 min"), (90_000, "1 d 1 h")]
        {
            assert_eq!(age(Duration::from_secs(seconds)), text);
        }
    }
}
