//! `stop`, `stopwait` and `kill`: a node that is down is down, and that is no failure. What is
//! signalled is the process that holds the pidfile, never another one of its number.

use super::super::exit::{Error, Exit};
use super::console::Console;
use super::node::Node;
use super::signal;
use super::wait_limit::WaitLimit;
use crate::bounds::KILL_PATIENCE;
use crate::os::pidfile::{Holder, holder, next, remove_stale};
use crate::os::process::Process;
use nix::sys::signal::Signal;

/// Those that run, with their processes; `down` hears of the others. What a killed one has left is
/// removed. A node whose state is unknown is reported, and the exit code counts it.
pub(super) fn running<'a>(
    nodes: &'a [Node],
    console: &Console,
    exit: &mut Exit,
    mut down: impl FnMut(&'a Node),
) -> Vec<(&'a Node, Process)> {
    let mut found = Vec::new();
    for node in nodes {
        match holder(&node.pidfile) {
            Ok(Holder::Live(process)) => found.push((node, process)),
            Ok(Holder::Stale(_)) => {
                tidy(node);
                down(node);
            }
            Ok(Holder::Nobody) => down(node),
            Err(error) => {
                let file = node.pidfile.display();
                console.out.say(&format!("Error: {}: {file}: {error}", node.name));
                *exit = Exit::Failure;
            }
        }
    }
    found
}

/// Removes the pidfile of a node that is down. Without the permission, nothing is done.
pub(super) fn tidy(node: &Node) {
    let _ = remove_stale(&node.pidfile);
    let _ = remove_stale(&next(&node.pidfile));
}

/// Sends a signal to the nodes; gives those back that have got it. The exit code counts those
/// that may not be signalled.
pub(super) fn ask<'a>(
    running: Vec<(&'a Node, Process)>,
    signal: Signal,
    console: &Console,
    exit: &mut Exit,
    mut down: impl FnMut(&'a Node),
) -> Vec<(&'a Node, Process)> {
    if !running.is_empty() {
        console.heading("> Stopping nodes...");
    }
    let mut asked = Vec::new();
    for (node, process) in running {
        let (name, pid) = (&node.name, process.pid());
        console.note(&format!("\t> {name}: {} -> {pid}", signal::name(signal)));
        match process.signal(signal) {
            Ok(true) => asked.push((node, process)),
            Ok(false) => {
                console.note(&format!("Could not signal {name} ({pid}): No such process"));
                tidy(node);
                down(node);
            }
            Err(error) => {
                console.out.say(&format!("Error: {name}: cannot signal {pid}: {error}"));
                *exit = Exit::Failure;
            }
        }
    }
    asked
}

/// Signals the nodes, and with `patience` waits until they have ended.
///
/// # Errors
/// The time is over.
pub(super) fn stop(
    nodes: &[Node],
    signal: Signal,
    wait_limit: Option<WaitLimit>,
    console: &Console,
) -> Result<Exit, Error> {
    console.splash();
    let mut exit = Exit::Ok;
    let down = |node: &Node| console.down(&node.name);
    let running = running(nodes, console, &mut exit, down);
    if wait_limit.is_some() {
        not_from_within(&running)?;
    }
    let asked = ask(running, signal, console, &mut exit, down);
    let Some(wait_limit) = wait_limit else { return Ok(exit) };
    waiting(&asked, console);
    let late = wait_limit.outlast(asked, console, |node| {
        tidy(node);
        console.marked(&format!("\t> {}: ", node.name), &console.ok());
    });
    match late.is_empty() {
        true => Ok(exit),
        false => Err(still_there(&late, wait_limit)),
    }
}

/// A command that waits for the end of a node must not be a task of it: the node would wait for
/// its task.
///
/// # Errors
/// It is one.
pub(super) fn not_from_within(running: &[(&Node, Process)]) -> Result<(), Error> {
    let Some((node, process)) = running.iter().find(|(_, process)| process.is_above_us()) else {
        return Ok(());
    };
    let (name, pid) = (&node.name, process.pid());
    Err(Error::failure(format!(
        "this command runs in a task of {name} ({pid}), which would wait for it, and it for {name}"
    ))
    .hint(format!(
        "`qworker multi stop {} -HUP` starts it anew once its tasks have ended, and waits for nothing",
        node.short()
    )))
}

/// Prints which nodes are waited for.
pub(super) fn waiting(asked: &[(&Node, Process)], console: &Console) {
    let pids: Vec<String> = asked.iter().map(|(_, process)| process.pid().to_string()).collect();
    let nodes = if asked.len() == 1 { "node" } else { "nodes" };
    if !asked.is_empty() {
        console.heading(&format!(
            "> Waiting for {} {nodes} -> {}...",
            asked.len(),
            pids.join(", ")
        ));
    }
}

/// These have not ended in time.
pub(super) fn still_there(late: &[(&Node, Process)], wait_limit: WaitLimit) -> Error {
    let names: Vec<String> =
        late.iter().map(|(node, process)| format!("{} ({})", node.name, process.pid())).collect();
    let verb = if late.len() == 1 { "has" } else { "have" };
    wait_limit
        .over(&format!("{} {verb} not ended", names.join(", ")))
        .hint("they still end; -QUIT ends them sooner and hands their tasks on, `kill` at once")
}

/// Kills the nodes. What the guard of a worker does not live to do, the worker does; one that does
/// not is killed too.
pub(super) fn kill(nodes: &[Node], console: &Console) -> Exit {
    console.splash();
    let mut exit = Exit::Ok;
    let mut killed = Vec::new();
    for (node, process) in running(nodes, console, &mut exit, |node| console.down(&node.name)) {
        let (name, pid) = (&node.name, process.pid());
        console.note(&format!("Sending KILL to node {name} ({pid})"));
        let children = process.children();
        match process.signal(Signal::SIGKILL) {
            Ok(true) => {}
            Ok(false) => console.note(&format!("Could not signal {name} ({pid}): No such process")),
            Err(error) => {
                console.out.say(&format!("Error: {name}: cannot signal {pid}: {error}"));
                exit = Exit::Failure;
                continue;
            }
        }
        killed.push((node, process, children));
    }
    let wait_limit = WaitLimit::new(Some(KILL_PATIENCE));
    for (node, process, children) in killed {
        let mut gone = process.wait(wait_limit.left());
        for child in children.iter().filter(|child| !child.wait(wait_limit.left())) {
            // It is asked again below whether it is gone.
            let _ = child.signal(Signal::SIGKILL);
            gone &= child.wait(KILL_PATIENCE);
        }
        tidy(node);
        if !gone {
            console.out.say(&format!("Error: {}: it was killed and is still there", node.name));
            exit = Exit::Failure;
        }
    }
    exit
}
