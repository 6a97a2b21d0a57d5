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
    wait_limit: WaitLimit,
    console: &Console,
) -> Result<Exit, Error> {
    console.splash();
    folders::make(nodes)?;
    let _turns = StartLocks::take(nodes, wait_limit, console)?;
    let (mut exit, mut ended) = (Exit::Ok, Vec::new());
    let running = stop::running(nodes, console, &mut exit, |node| ended.push(node));
    stop::not_from_within(&running)?;
    let wait_limit = wait_limit.again();
    let asked = stop::ask(running, signal, console, &mut exit, |node| ended.push(node));
    stop::waiting(&asked, console);
    let mut starts = Starts::new(wait_limit.again(), "> Restarting node ", console);
    for node in ended {
        starts.begin(node)?;
    }
    let mut wrong = Ok(());
    let late = wait_limit.outlast(asked, console, |node| {
        stop::tidy(node);
        console.marked(&format!("\t> {}: ", node.name), &console.ok());
        wrong = std::mem::replace(&mut wrong, Ok(())).and_then(|()| starts.begin(node));
    });
    let started = starts.finish();
    wrong?;
    if !late.is_empty() {
        return Err(stop::still_there(&late, wait_limit));
    }
    Ok(if exit == Exit::Ok { started } else { exit })
}
