//! Whose turn it is: only one command at a time starts or restarts a node. Stopping waits for
//! nobody, so that a second `stop` or a `kill` reaches a node whose first one takes its time.

use super::super::exit::Error;
use super::node::Node;
use super::patience::Patience;
use super::say::Say;
use crate::os::pidfile::{Holder, Pidfile, Refused, holder};
use std::path::{Path, PathBuf};

/// The right to start these nodes, until it is dropped; the kernel takes it back should we be
/// killed.
#[derive(Debug)]
pub(super) struct Turns(#[allow(dead_code, reason = "held, not looked at")] Vec<Pidfile>);

impl Turns {
    /// Waits until no other command is at work on any of the nodes.
    ///
    /// # Errors
    /// The time is over, or there is no place for pidfiles.
    pub(super) fn take(nodes: &[Node], patience: Patience, say: &Say) -> Result<Turns, Error> {
        let mut paths: Vec<PathBuf> = nodes.iter().map(|node| beside(&node.pidfile)).collect();
        // Two commands that want the same ones in another order would wait for each other.
        paths.sort();
        let mut turns = Vec::new();
        for path in &paths {
            turns.push(wait_for(path, patience, say)?);
        }
        Ok(Turns(turns))
    }
}

/// `w1.pid.multi` for `w1.pid`.
fn beside(pidfile: &Path) -> PathBuf {
    let mut name = pidfile.as_os_str().to_owned();
    name.push(".multi");
    name.into()
}

fn wait_for(path: &Path, patience: Patience, say: &Say) -> Result<Pidfile, Error> {
    let mut told = false;
    loop {
        match Pidfile::claim(path) {
            Ok(turn) => return Ok(turn),
            Err(Refused::Failed(error)) => {
                return Err(super::places::not_writable(path, &error));
            }
            Err(Refused::Held(pid)) => {
                let Ok(Holder::Live(other)) = holder(path) else { continue };
                if !told {
                    say.heading(&format!("> Waiting for another qworker multi ({pid})..."));
                    told = true;
                }
                // It has its turn until it ends.
                if !other.wait(patience.left()) {
                    return Err(patience.over(&format!("another qworker multi, {pid}, is at work")));
                }
            }
        }
    }
}
