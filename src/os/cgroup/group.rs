//! One group: the limits of one task, and what it used.

use super::{entry, number, set};
use crate::os::wakeup::Watcher;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often a group with killed processes is looked at again, in case the kernel does not report
/// their end.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Limits for all processes of a group together; `None` is unlimited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GroupLimits {
    /// Bytes of memory. Nothing is swapped out.
    pub memory: Option<u64>,
    /// Processes and threads.
    pub processes: Option<u64>,
}

/// What all processes of a group have used together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GroupUsage {
    /// Processor time in user mode.
    pub user: Duration,
    /// Processor time in the kernel.
    pub system: Duration,
    /// Largest memory in bytes; `None` where the kernel does not count it.
    pub memory_peak: Option<u64>,
    /// The kernel killed processes of the group because memory ran out.
    pub killed_for_memory: bool,
    /// The group has used all the memory that it may use.
    pub at_limit: bool,
}

/// A group of processes; they are killed when it is dropped.
#[derive(Debug)]
pub struct Group {
    folder: PathBuf,
    /// Open, to start processes in it.
    dir: File,
}

impl Group {
    /// Creates the group `folder` with these limits.
    ///
    /// # Errors
    /// The kernel refuses the group, or a limit.
    pub fn make(folder: PathBuf, bounds: GroupLimits) -> io::Result<Group> {
        fs::create_dir(&folder)?;
        let group = Group { dir: File::open(&folder)?, folder };
        group.bind(bounds)?;
        Ok(group)
    }

    fn bind(&self, bounds: GroupLimits) -> io::Result<()> {
        let folder = &self.folder;
        if let Some(bytes) = bounds.memory {
            set(folder, "memory.max", &bytes.to_string())?;
            // A task without one of its processes is no whole task: the kernel kills all.
            set(folder, "memory.oom.group", "1")?;
            // Kernels without swap have no such file.
            let _ = set(folder, "memory.swap.max", "0");
        }
        match bounds.processes {
            Some(count) => set(folder, "pids.max", &count.to_string()),
            None => Ok(()),
        }
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its folder, for starting processes in it.
    pub fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// Kills all its processes, whatever session or process group they are in.
    pub fn kill(&self) {
        kill_all(&self.folder);
    }

    /// What its processes have used so far, including those that have ended.
    pub fn usage(&self) -> GroupUsage {
        let time = |name| {
            let micros = entry(&self.folder, "cpu.stat", name);
            Duration::from_micros(micros.unwrap_or(0))
        };
        let events = |name| entry(&self.folder, "memory.events", name).unwrap_or(0) > 0;
        GroupUsage {
            user: time("user_usec"),
            system: time("system_usec"),
            memory_peak: number(&self.folder, "memory.peak"),
            killed_for_memory: events("oom_kill"),
            at_limit: events("oom"),
        }
    }

    /// Kills what is left of it, and removes it. At once if no process is left; else `Some`, a
    /// future that waits for their end.
    pub fn remove(self) -> Option<impl Future<Output = ()>> {
        if self.is_removed() {
            return None;
        }
        self.kill();
        Some(async move {
            let watcher = Watcher::watch(&[self.folder.join("cgroup.events")]);
            while !self.is_removed() {
                match &watcher {
                    Ok(watcher) => drop(tokio::time::timeout(LOOK_AGAIN, watcher.changed()).await),
                    Err(_) => tokio::time::sleep(LOOK_AGAIN).await,
                }
            }
        })
    }

    fn is_removed(&self) -> bool {
        match fs::remove_dir(&self.folder) {
            Ok(()) => true,
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if !self.is_removed() {
            self.kill();
        }
    }
}

/// Kills all processes of a group and of the groups in it.
pub(super) fn kill_all(folder: &Path) {
    if set(folder, "cgroup.kill", "1").is_ok() {
        return;
    }
    // Kernels before 5.14: one by one, until there is none that could start another.
    for _ in 0..100 {
        let pids = processes(folder);
        if pids.is_empty() {
            return;
        }
        for pid in pids {
            // It may have ended meanwhile.
            let pid = nix::unistd::Pid::from_raw(pid);
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
        }
    }
}

/// The processes of a group.
pub(super) fn processes(folder: &Path) -> Vec<i32> {
    let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_written_where_the_kernel_reads_them() {
        // The kernel makes these files; here they are plain ones.
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().to_path_buf();
        let group = Group { dir: File::open(&folder).unwrap(), folder: folder.clone() };
        let bounds = GroupLimits { memory: Some(1 << 20), processes: Some(7) };
        assert!(group.bind(bounds).is_err(), "a bound that is not felt is an error");
        for file in ["memory.max", "memory.oom.group", "memory.swap.max", "pids.max"] {
            fs::write(folder.join(file), "").unwrap();
        }
        group.bind(bounds).unwrap();
        let read = |file: &str| fs::read_to_string(folder.join(file)).unwrap();
        assert_eq!((read("memory.max"), read("memory.oom.group")), ("1048576".into(), "1".into()));
        assert_eq!((read("memory.swap.max"), read("pids.max")), ("0".into(), "7".into()));
        assert_eq!(group.usage(), GroupUsage::default());
        fs::write(folder.join("cpu.stat"), "usage_usec 5\nuser_usec 1500000\nsystem_usec 2\n")
            .unwrap();
        fs::write(folder.join("memory.peak"), "1040384\n").unwrap();
        fs::write(folder.join("memory.events"), "low 0\nmax 9\noom 1\noom_kill 2\n").unwrap();
        let usage = GroupUsage {
            user: Duration::from_millis(1500),
            system: Duration::from_micros(2),
            memory_peak: Some(1_040_384),
            killed_for_memory: true,
            at_limit: true,
        };
        assert_eq!(group.usage(), usage);
    }
}
