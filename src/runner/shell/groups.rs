//! Where tasks with resource limits run: each in a control group, if the worker may have groups;
//! else the kernel limits each of their processes by itself.

use super::start::Failure;
use super::{Exhausted, ResourceUsage};
use crate::os::cgroup::{Group, GroupLimits, WorkerGroup};
use crate::os::reap::ProcessExit;
use crate::os::{Pid, is_shortage};
use crate::task::ResourceLimits;
use std::cell::OnceCell;

/// The worker's control groups; created for the first task with resource limits.
#[derive(Debug, Default)]
pub(super) struct Groups {
    /// The worker's guard, if there may be groups.
    guard: Option<Pid>,
    worker_group: OnceCell<Option<WorkerGroup>>,
}

/// A task's own group.
#[derive(Debug)]
pub(super) struct TaskGroup {
    group: Group,
    /// Bytes of memory for all its processes together.
    memory: Option<u64>,
}

impl Groups {
    /// The groups of a worker with this guard.
    pub(super) fn of_guard(guard: Pid) -> Groups {
        Groups { guard: Some(guard), worker_group: OnceCell::new() }
    }

    /// A group for those limits that a group can enforce, and the other limits.
    ///
    /// # Errors
    /// The host lacks the resources for a group.
    pub(super) fn for_task(
        &self,
        resource_limits: &ResourceLimits,
    ) -> Result<(Option<TaskGroup>, ResourceLimits), Failure> {
        let worker_group = || self.worker_group.get_or_init(|| self.found()).as_ref();
        let Some(worker_group) = Some(resource_limits)
            .filter(|f| **f != ResourceLimits::default())
            .and_then(|_| worker_group())
        else {
            return Ok((None, *resource_limits));
        };
        let memory = resource_limits.memory.filter(|_| worker_group.memory);
        let processes = resource_limits.processes.filter(|_| worker_group.processes);
        match worker_group.task_group(GroupLimits { memory, processes }) {
            Ok(group) => {
                let rest = ResourceLimits {
                    memory: resource_limits.memory.filter(|_| memory.is_none()),
                    processes: resource_limits.processes.filter(|_| processes.is_none()),
                    ..*resource_limits
                };
                Ok((Some(TaskGroup { group, memory }), rest))
            }
            Err(error) if error.raw_os_error().is_some_and(is_shortage) => Err(error.into()),
            Err(error) => {
                tracing::warn!(
                    "no control group for a task: {error}; each of its processes is limited separately"
                );
                Ok((None, *resource_limits))
            }
        }
    }

    fn found(&self) -> Option<WorkerGroup> {
        let guard = self.guard?;
        match WorkerGroup::create(Some(guard)) {
            Ok(worker_group) => {
                let held = [(worker_group.memory, "memory"), (worker_group.processes, "processes")];
                let held: Vec<_> =
                    held.into_iter().filter(|(is, _)| *is).map(|(_, name)| name).collect();
                tracing::info!(
                    "tasks with resource limits run in control groups below {}, which limit {}",
                    worker_group.folder().display(),
                    if held.is_empty() { "nothing".into() } else { held.join(" and ") }
                );
                Some(worker_group)
            }
            Err(error) => {
                tracing::info!(
                    "no control groups for tasks with resource limits: {error}; each of their processes is limited separately"
                );
                None
            }
        }
    }
}

impl TaskGroup {
    /// Its group.
    pub(super) fn group(&self) -> &Group {
        &self.group
    }

    /// Kills what is left in the group; what all its processes used, and whether the kernel killed
    /// them because memory ran out.
    pub(super) fn leave(self, usage: ResourceUsage) -> (ResourceUsage, Option<Exhausted>) {
        let spent = self.group.usage();
        let exhausted = spent.killed_for_memory.then_some(match self.memory {
            Some(limit) if spent.at_limit => Exhausted::Own(limit),
            _ => Exhausted::Around,
        });
        let memory_peak = spent.memory_peak.unwrap_or(usage.memory_peak);
        if let Some(end) = self.group.remove() {
            tokio::task::spawn_local(end);
        }
        (ResourceUsage { memory_peak, user: spent.user, system: spent.system }, exhausted)
    }
}

/// What the kernel counted for the process itself, and the children that it waited for.
pub(super) fn usage(exit: Option<ProcessExit>) -> ResourceUsage {
    exit.map_or(ResourceUsage::default(), |exit| ResourceUsage {
        memory_peak: exit.memory_peak,
        user: exit.user,
        system: exit.system,
    })
}
