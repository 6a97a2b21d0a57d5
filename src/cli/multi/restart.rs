//! `restart`: nodes are stopped together, and each is started as soon as it has ended.

use super::super::exit::{Error, Exit};
use super::node::Node;
use super::patience::Patience;
use super::say::Say;
use super::start::Starts;
use super::turn::Turns;
use super::{places, stop};
use nix::sys::signal::Signal;

/// Stops the nodes, waits for their ends, and starts them.
///
/// # Errors
/// The time is over, or the command line or the folders are not right.
pub(super) fn restart(
    nodes: &[Node],
    signal: Signal,
    patience: Patience,
    say: &Say,
) -> Result<Exit, Error> {
    say.splash();
    places::make(nodes)?;
    let _turns = Turns::take(nodes, patience, say)?;
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
