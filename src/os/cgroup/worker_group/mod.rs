//! The folder of one worker's groups: whether it can exist, and its removal.

use super::group::{kill_all, processes};
use super::{Group, GroupLimits, Location, set};
use crate::os::{Pid, tree};
use std::ffi::OsStr;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The prefix of the names of such folders.
const PREFIX: &str = "qworker-tasks-";

/// The group that guard and worker move to.
const SELF: &str = "qworker.self";

/// This folder exists where systemd manages control groups.
const SYSTEMD: &str = "/run/systemd/system";

/// How often processes are moved before giving up: they may start others meanwhile.
const MOVES_MAX: usize = 50;

/// How long killed processes of dead workers may take to end.
const KILL_TIMEOUT: Duration = Duration::from_secs(2);

/// One worker's groups. When it is dropped, they and all processes in them are gone.
#[derive(Debug)]
pub struct WorkerGroup {
    folder: PathBuf,
    /// Locked, shared: the worker lives.
    _lock: File,
    /// Can memory be limited?
    pub memory: bool,
    /// Can the number of processes be limited?
    pub processes: bool,
    next: AtomicU64,
}

impl WorkerGroup {
    /// Creates a folder for the groups of this process, whose guard is `guard`.
    ///
    /// # Errors
    /// Why there cannot be one: no control groups of version 2, or none that we may use.
    pub fn create(guard: Option<Pid>) -> io::Result<WorkerGroup> {
        let none = || io::Error::other("there are no control groups of version 2 here");
        let location = Location::of_self().ok_or_else(none)?;
        let base = base(&location);
        if Path::new(SYSTEMD).is_dir() && !is_delegated(&base.folder) {
            let why = "its control group is systemd's; Delegate=yes in the unit would change that";
            return Err(io::Error::other(why));
        }
        let (folder, lock) = settle(&base)?;
        let groups = WorkerGroup {
            memory: give_out(&base, &folder, "memory", guard, &location),
            processes: give_out(&base, &folder, "pids", guard, &location),
            folder,
            _lock: lock,
            next: AtomicU64::new(1),
        };
        let probe = groups.task_group(GroupLimits::default())?;
        // Groups of threads, and those below them, have no processes.
        match fs::read_to_string(probe.folder().join("cgroup.type")) {
            Ok(kind) if kind.trim() == "domain" => Ok(groups),
            Ok(kind) => Err(io::Error::other(format!("its control group is {:?}", kind.trim()))),
            Err(error) => Err(error),
        }
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Creates a group with these limits.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn task_group(&self, bounds: GroupLimits) -> io::Result<Group> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        Group::make(self.folder.join(number.to_string()), bounds)
    }
}

impl Drop for WorkerGroup {
    fn drop(&mut self) {
        demolish(&self.folder);
    }
}

/// The group in which ours can be: that of this process, or the one around it if this process was
/// moved so that its siblings can have limits.
fn base(location: &Location) -> Location {
    let is_aside = location.folder.file_name().is_some_and(|name| name == SELF);
    match location.parent() {
        Some(parent) if is_aside => parent,
        Some(parent) if !is_delegated(&location.folder) && is_delegated(&parent.folder) => parent,
        _ => location.clone(),
    }
}

/// Has the service manager delegated this group to the service?
fn is_delegated(folder: &Path) -> bool {
    ["user.delegate", "trusted.delegate"]
        .iter()
        .any(|name| crate::os::file::attribute(folder, name).is_some_and(|value| value == b"1"))
}

/// Creates the folder of this worker's groups, and locks it.
fn settle(base: &Location) -> io::Result<(PathBuf, File)> {
    let created = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let created = created.unwrap_or_default().as_micros();
    let folder = base.folder.join(format!("{PREFIX}{}-{created:x}", std::process::id()));
    loop {
        match fs::create_dir(&folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let Ok(lock) = File::open(&folder) else { continue };
        lock.lock_shared()?;
        // Another process may have removed it as abandoned in between.
        if folder.is_dir() {
            return Ok((folder, lock));
        }
    }
}

/// Enables this controller for the groups in `folder`; whether it is enabled.
fn give_out(
    base: &Location,
    folder: &Path,
    controller: &str,
    guard: Option<Pid>,
    location: &Location,
) -> bool {
    let has = |folder: &Path, file: &str| {
        let text = fs::read_to_string(folder.join(file)).unwrap_or_default();
        text.split_ascii_whitespace().any(|word| word == controller)
    };
    let order = format!("+{controller}");
    if !has(&base.folder, "cgroup.controllers") {
        return false;
    }
    if !has(&base.folder, "cgroup.subtree_control") {
        let does = || set(&base.folder, "cgroup.subtree_control", &order).is_ok();
        let stands_in_it = location.folder == base.folder;
        let is_done = does() || stands_in_it && move_aside(&base.folder, guard) && does();
        if !is_done {
            return false;
        }
    }
    set(folder, "cgroup.subtree_control", &order).is_ok()
}

/// Moves the processes of a group into one below it, if all of them are ours.
fn move_aside(base: &Path, guard: Option<Pid>) -> bool {
    let aside = base.join(SELF);
    // Another worker may have created it.
    let _ = fs::create_dir(&aside);
    let root = guard.unwrap_or_else(Pid::this);
    for _ in 0..MOVES_MAX {
        let here = processes(base);
        if here.is_empty() {
            return true;
        }
        let tree_pids = tree::descendants(root);
        let is_ours = |pid: &i32| {
            let pid = Pid::from_raw(*pid);
            pid == root || pid == Pid::this() || tree_pids.contains(&pid)
        };
        if !is_delegated(base) && !here.iter().all(is_ours) {
            return false;
        }
        for pid in here {
            // It may have ended meanwhile.
            let _ = set(&aside, "cgroup.procs", &pid.to_string());
        }
    }
    false
}

/// Removes what killed workers have left behind: their groups, and every process in them.
pub fn clear_abandoned() {
    let Some(location) = Location::of_self() else { return };
    let Ok(entries) = fs::read_dir(base(&location).folder) else { return };
    for entry in entries.flatten() {
        if is_ours(&entry.file_name()) {
            let Ok(lock) = File::open(entry.path()) else { continue };
            match lock.try_lock() {
                Ok(()) => demolish(&entry.path()),
                // Its worker lives, or its file system has no locks.
                Err(TryLockError::WouldBlock | TryLockError::Error(_)) => {}
            }
        }
    }
}

/// Is this the name of a worker's folder? Any other folder is not ours.
fn is_ours(name: &OsStr) -> bool {
    let name = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split_once('-'));
    let all = |text: &str, is: fn(&char) -> bool| !text.is_empty() && text.chars().all(|c| is(&c));
    name.is_some_and(|(pid, time)| {
        all(pid, char::is_ascii_digit) && all(time, char::is_ascii_hexdigit)
    })
}

/// Kills every process in a worker's folder, and removes it.
fn demolish(folder: &Path) {
    if fs::remove_dir(folder).is_ok() {
        return;
    }
    let deadline = Instant::now() + KILL_TIMEOUT;
    loop {
        let groups = fs::read_dir(folder).into_iter().flatten().flatten();
        let groups: Vec<_> =
            groups.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
        for group in groups.iter().chain([&folder.to_path_buf()]) {
            kill_all(group);
        }
        let left = groups.iter().filter(|group| fs::remove_dir(group).is_err()).count();
        if left == 0 && fs::remove_dir(folder).is_ok() || Instant::now() > deadline {
            return;
        }
        // They are dying; there is nobody else to wait for.
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[cfg(test)]
mod tests;
