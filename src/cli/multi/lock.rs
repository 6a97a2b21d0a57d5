//! Locks of nodes: only one command at a time starts or restarts a node. Stopping takes no lock,
//! so a second `stop` or a `kill` reaches a node whose first one is still waiting.

use super::super::exit::Error;
use super::console::Console;
use super::node::Node;
use super::wait_limit::WaitLimit;
use crate::os::pidfile::{Pidfile, PidfileRefusal, locker};
use crate::os::user::Ids;
use std::path::{Path, PathBuf};

/// Locks on these nodes, released when dropped; the kernel releases them if the process is
/// killed.
#[derive(Debug)]
pub(super) struct StartLocks(Vec<(Option<Ids>, Pidfile)>);

impl Drop for StartLocks {
    fn drop(&mut self) {
        for (owner, lock) in self.0.drain(..) {
            // One that stays says nothing: its process is gone.
            let _ = acting(owner.as_ref(), || drop(lock));
        }
    }
}

/// Does `work` in the folders of nodes that run as `owner`: root goes no further there than their
/// owner could.
fn acting<T>(owner: Option<&Ids>, work: impl FnOnce() -> T) -> std::io::Result<T> {
    match owner.filter(|_| Ids::may_change()) {
        Some(ids) => ids.acting(work),
        None => Ok(work()),
    }
}

impl StartLocks {
    /// Waits until no other command is at work on any of the nodes.
    ///
    /// # Errors
    /// The time is over, or there is no place for pidfiles.
    pub(super) fn take(
        nodes: &[Node],
        wait_limit: WaitLimit,
        console: &Console,
    ) -> Result<StartLocks, Error> {
        let lock = |node: &Node| Ok((beside(&node.pidfile), node.owner()?));
        let mut locks: Vec<(PathBuf, Option<Ids>)> =
            nodes.iter().map(lock).collect::<Result<_, Error>>()?;
        // Two commands that want the same ones in another order would wait for each other.
        locks.sort_by(|one, other| one.0.cmp(&other.0));
        let mut taken = StartLocks(Vec::new());
        for (path, owner) in locks {
            let lock = wait_for(&path, owner.as_ref(), wait_limit, console)?;
            taken.0.push((owner, lock));
        }
        Ok(taken)
    }
}

/// `w1.pid.multi` for `w1.pid`.
fn beside(pidfile: &Path) -> PathBuf {
    let mut name = pidfile.as_os_str().to_owned();
    name.push(".multi");
    name.into()
}

fn wait_for(
    path: &Path,
    owner: Option<&Ids>,
    wait_limit: WaitLimit,
    console: &Console,
) -> Result<Pidfile, Error> {
    let mut told = false;
    loop {
        let claimed =
            acting(owner, || Pidfile::claim(path)).unwrap_or_else(|error| Err(error.into()));
        match claimed {
            Ok(lock) => return Ok(lock),
            Err(PidfileRefusal::Failed(error)) => {
                return Err(super::folders::not_writable(path.display(), &error));
            }
            Err(refused @ PidfileRefusal::Foreign(_)) => {
                return Err(super::folders::not_writable(path.display(), &refused.into()));
            }
            Err(PidfileRefusal::Held(pid)) => {
                let Some(other) = locker(path) else { continue };
                if !told {
                    console.heading(&format!("> Waiting for another qworker multi ({pid})..."));
                    told = true;
                }
                // It has its turn until it ends.
                if !other.wait(wait_limit.left()) {
                    return Err(
                        wait_limit.over(&format!("another qworker multi ({pid}) is running"))
                    );
                }
            }
        }
    }
}
