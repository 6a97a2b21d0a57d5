//! `restart`: nodes are stopped together, and each is started as soon as it has ended.

use super::super::exit::{Error, Exit};
use super::console::Console;
use super::lock::StartLocks;
use super::node::Node;
use super::start::Starts;
use super::wait_limit::WaitLimit;
use super::{folders, stop};
use nix::sys::signal::Signal;

/// Stops the nodes, waits for their ends, and starts them.
///
/// # Errors
/// The time is over, or the command line or the folders are not right.
pub(super) fn restart(
    nodes: &[Node],
    signal: Signal,
    patience: WaitLimit,
    say: &Console,
) -> Result<Exit, Error> {
    say.splash();
    folders::make(nodes)?;
    let _turns = StartLocks::take(nodes, patience, say)?;
    let (mut exit, mut ended) = (Exit::Ok, Vec::new());
    let running = stop::running(nodes, say, &mut exit, |node| ended.push(node));
    stop::not_from_within(&running)?;
    let patience = patience.again();
    let asked = stop::ask(running, signal, say, &mut exit, |node| ended.push(node));
    stop::waiting(&asked, say);
    let mut starts = Starts::new(patience.again(), "> Restarting node ", say);
    for node in ended {
        starts.begin(node)?;
    }
    let mut wrong = Ok(());
    let late = patience.outlast(asked, say, |node| {
        stop::tidy(node);
        say.marked(&format!("\t> {}: ", node.name), &say.ok());
        wrong = std::mem::replace(&mut wrong, Ok(())).and_then(|()| starts.begin(node));
    });
    let started = starts.finish();
    wrong?;
    if !late.is_empty() {
        return Err(stop::still_there(&late, patience));
    }
    Ok(if exit == Exit::Ok { started } else { exit })
}
