//! Where fenced tasks run: in a control group each, if the worker may have groups; else the
//! kernel limits each of their processes by itself.

use super::start::Failure;
use super::{Exhausted, Usage};
use crate::os::cgroup::{Bounds, Group, Home};
use crate::os::reap::Exit;
use crate::os::{Pid, is_shortage};
use crate::task::Fences;
use std::cell::OnceCell;

/// The worker's control groups; made when the first fenced task comes.
#[derive(Debug, Default)]
pub(super) struct Yard {
    /// Whose children are ours to move, if there may be groups.
    guard: Option<Pid>,
    home: OnceCell<Option<Home>>,
}

/// A task in a group of its own.
#[derive(Debug)]
pub(super) struct Fenced {
    group: Group,
    /// Bytes of memory that all its processes may have together.
    memory: Option<u64>,
}

impl Yard {
    /// Groups may be made by the worker that `guard` guards.
    pub fn guarded_by(guard: Pid) -> Yard {
        Yard { guard: Some(guard), home: OnceCell::new() }
    }

    /// A group with those of these fences that groups can hold; and the others.
    ///
    /// # Errors
    /// The host has run out of what a group needs.
    pub fn fence(&self, fences: &Fences) -> Result<(Option<Fenced>, Fences), Failure> {
        let home = || self.home.get_or_init(|| self.found()).as_ref();
        let Some(home) = Some(fences).filter(|f| **f != Fences::default()).and_then(|_| home())
        else {
            return Ok((None, *fences));
        };
        let memory = fences.memory.filter(|_| home.memory);
        let processes = fences.processes.filter(|_| home.processes);
        match home.group(Bounds { memory, processes }) {
            Ok(group) => {
                let rest = Fences {
                    memory: fences.memory.filter(|_| memory.is_none()),
                    processes: fences.processes.filter(|_| processes.is_none()),
                    ..*fences
                };
                Ok((Some(Fenced { group, memory }), rest))
            }
            Err(error) if error.raw_os_error().is_some_and(is_shortage) => Err(error.into()),
            Err(error) => {
                tracing::warn!(
                    "no control group for a task: {error}; its processes are limited one by one"
                );
                Ok((None, *fences))
            }
        }
    }

    fn found(&self) -> Option<Home> {
        let guard = self.guard?;
        match Home::found(Some(guard)) {
            Ok(home) => {
                let held = [(home.memory, "memory"), (home.processes, "processes")];
                let held: Vec<_> =
                    held.into_iter().filter(|(is, _)| *is).map(|(_, name)| name).collect();
                tracing::info!(
                    "fenced tasks run in control groups below {}, which limit {}",
                    home.folder().display(),
                    if held.is_empty() { "nothing".into() } else { held.join(" and ") }
                );
                Some(home)
            }
            Err(error) => {
                tracing::info!(
                    "no control groups for fenced tasks: {error}; their processes are limited one by one"
                );
                None
            }
        }
    }
}

impl Fenced {
    /// Its group.
    pub fn group(&self) -> &Group {
        &self.group
    }

    /// Kills what is left in the group; what all its processes used, and whether the kernel killed
    /// them for memory.
    pub fn leave(self, usage: Usage) -> (Usage, Option<Exhausted>) {
        let spent = self.group.spent();
        let exhausted = spent.killed_for_memory.then_some(match self.memory {
            Some(limit) if spent.at_limit => Exhausted::Own(limit),
            _ => Exhausted::Around,
        });
        let memory_peak = spent.memory_peak.unwrap_or(usage.memory_peak);
        if let Some(end) = self.group.remove() {
            tokio::task::spawn_local(end);
        }
        (Usage { memory_peak, user: spent.user, system: spent.system }, exhausted)
    }
}

/// What the kernel counted for the process itself, and the children that it waited for.
pub(super) fn usage(exit: Option<Exit>) -> Usage {
    exit.map_or(Usage::default(), |exit| Usage {
        memory_peak: exit.memory_peak,
        user: exit.user,
        system: exit.system,
    })
}
