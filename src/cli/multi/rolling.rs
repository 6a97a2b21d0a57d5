//! `restart --rolling`: one node after the other, each by a successor of the same name that takes
//! tasks before the old one is asked to end. The successor has another pidfile until it is ready;
//! then it puts that in the place of the old one and ends the old one itself, so that nothing
//! is half done should we be killed.

use super::super::exit::{Error, Exit};
use super::console::Console;
use super::lock::StartLocks;
use super::node::Node;
use super::start::Starts;
use super::wait_limit::WaitLimit;
use super::{folders, status, stop};
use crate::os::process::Process;

/// Replaces the nodes; one that is down is started. Nothing more is replaced once a node fails:
/// the others go on as they are.
///
/// # Errors
/// The time is over, or the command line or the folders are not right.
pub(super) fn restart(
    nodes: &[Node],
    wait_limit: WaitLimit,
    console: &Console,
) -> Result<Exit, Error> {
    console.splash();
    folders::make(nodes)?;
    let _turns = StartLocks::take(nodes, wait_limit, console)?;
    for (at, node) in nodes.iter().enumerate() {
        let (node_alone, mut exit) = (std::slice::from_ref(node), Exit::Ok);
        let running = stop::running(node_alone, console, &mut exit, |_| {});
        if exit != Exit::Ok {
            tell_who_stays(None, nodes, at, console);
            return Ok(exit);
        }
        stop::not_from_within(&running)?;
        let old = running.into_iter().next();
        // One that has been asked to end already is not asked again, but followed.
        let old = old.filter(|(_, process)| !status::is_leaving(node, process));
        let mut starts = Starts::new(wait_limit.again(), "> Restarting node ", console);
        starts.replace(node, old.as_ref().map(|(_, process)| process.pid()))?;
        let exit = starts.finish();
        if exit != Exit::Ok {
            tell_who_stays(old.as_ref().map(|(_, process)| process), nodes, at, console);
            return Ok(exit);
        }
        let Some((_, process)) = old else { continue };
        console.note(&format!("\t> {}: TERM -> {}", node.name, process.pid()));
        let old = vec![(node, process)];
        stop::waiting(&old, console);
        let wait_limit = wait_limit.again();
        let late = wait_limit.outlast(old, console, |node| {
            console.marked(&format!("\t> {}: ", node.name), &console.ok());
        });
        if !late.is_empty() {
            return Err(stop::still_there(&late, wait_limit));
        }
    }
    Ok(Exit::Ok)
}

fn tell_who_stays(old: Option<&Process>, nodes: &[Node], failed: usize, console: &Console) {
    let here = old.map(|process| format!("{} ({})", nodes[failed].name, process.pid()));
    let others = nodes[failed + 1..].iter().map(|node| node.name.clone());
    let names: Vec<String> = here.into_iter().chain(others).collect();
    if !names.is_empty() {
        console.out.say(&format!("Hint: as before: {}", names.join(", ")));
    }
}
