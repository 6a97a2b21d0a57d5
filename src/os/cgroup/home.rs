//! The folder of one worker's groups: whether there may be one, and its end.

use super::group::{kill_all, processes};
use super::{Bounds, Group, Place, set};
use crate::os::{Pid, tree};
use std::ffi::OsStr;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What the name of a worker's folder begins with.
const PREFIX: &str = "qworker-tasks-";

/// The group that guard and worker move to.
const SELF: &str = "qworker.self";

/// There is such a folder where systemd manages control groups.
const SYSTEMD: &str = "/run/systemd/system";

/// How often processes are moved before it counts as hopeless: they may start others meanwhile.
const MOVES_MAX: usize = 50;

/// How long killed processes of dead workers may take to end.
const LAST_RITES: Duration = Duration::from_secs(2);

/// One worker's groups; they are gone when it is dropped, and all processes in them.
#[derive(Debug)]
pub struct Home {
    folder: PathBuf,
    /// Locked, shared: that somebody is at home.
    _lock: File,
    /// Can memory be bounded?
    pub memory: bool,
    /// Can the number of processes be?
    pub processes: bool,
    next: AtomicU64,
}

impl Home {
    /// Makes a folder for the groups of this process, whose guard is `guard`.
    ///
    /// # Errors
    /// Why there cannot be one: no such groups here, or not ours to use.
    pub fn found(guard: Option<Pid>) -> io::Result<Home> {
        let none = || io::Error::other("there are no control groups of version 2 here");
        let place = Place::of_self().ok_or_else(none)?;
        let base = base(&place);
        if Path::new(SYSTEMD).is_dir() && !is_delegated(&base.folder) {
            let why = "its control group is systemd's; Delegate=yes in the unit would change that";
            return Err(io::Error::other(why));
        }
        let (folder, lock) = settle(&base)?;
        let home = Home {
            memory: give_out(&base, &folder, "memory", guard, &place),
            processes: give_out(&base, &folder, "pids", guard, &place),
            folder,
            _lock: lock,
            next: AtomicU64::new(1),
        };
        let probe = home.group(Bounds::default())?;
        // Groups of threads, and those below them, have no processes.
        match fs::read_to_string(probe.folder().join("cgroup.type")) {
            Ok(kind) if kind.trim() == "domain" => Ok(home),
            Ok(kind) => Err(io::Error::other(format!("its control group is {:?}", kind.trim()))),
            Err(error) => Err(error),
        }
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A new group with these bounds.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn group(&self, bounds: Bounds) -> io::Result<Group> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        Group::make(self.folder.join(number.to_string()), bounds)
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        demolish(&self.folder);
    }
}

/// The group in which ours may be: that of this process, or the one around it, if this process
/// was put aside so that its siblings can have limits.
fn base(place: &Place) -> Place {
    let is_aside = place.folder.file_name().is_some_and(|name| name == SELF);
    match place.parent() {
        Some(parent) if is_aside => parent,
        Some(parent) if !is_delegated(&place.folder) && is_delegated(&parent.folder) => parent,
        _ => place.clone(),
    }
}

/// Did the service manager say that what is below this group is the service's own?
fn is_delegated(folder: &Path) -> bool {
    ["user.delegate", "trusted.delegate"]
        .iter()
        .any(|name| crate::os::file::attribute(folder, name).is_some_and(|value| value == b"1"))
}

/// Makes the folder of this worker's groups, and locks it.
fn settle(base: &Place) -> io::Result<(PathBuf, File)> {
    let born = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let born = born.unwrap_or_default().as_micros();
    let folder = base.folder.join(format!("{PREFIX}{}-{born:x}", std::process::id()));
    loop {
        match fs::create_dir(&folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let Ok(lock) = File::open(&folder) else { continue };
        lock.lock_shared()?;
        // Whoever clears up may have come in between.
        if folder.is_dir() {
            return Ok((folder, lock));
        }
    }
}

/// Has the groups in `folder` bounded by this controller; whether they are.
fn give_out(
    base: &Place,
    folder: &Path,
    controller: &str,
    guard: Option<Pid>,
    place: &Place,
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
        let stands_in_it = place.folder == base.folder;
        let is_done = does() || stands_in_it && move_aside(&base.folder, guard) && does();
        if !is_done {
            return false;
        }
    }
    set(folder, "cgroup.subtree_control", &order).is_ok()
}

/// Moves the processes of a group to one below it, if they are all ours to move.
fn move_aside(base: &Path, guard: Option<Pid>) -> bool {
    let aside = base.join(SELF);
    // Another worker may have made it.
    let _ = fs::create_dir(&aside);
    let root = guard.unwrap_or_else(Pid::this);
    for _ in 0..MOVES_MAX {
        let here = processes(base);
        if here.is_empty() {
            return true;
        }
        let family = tree::descendants(root);
        let is_ours = |pid: &i32| {
            let pid = Pid::from_raw(*pid);
            pid == root || pid == Pid::this() || family.contains(&pid)
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

/// Removes what workers left behind that were killed: their groups, and every process in them.
/// Nothing happens where there is nothing to do.
pub fn clear_abandoned() {
    let Some(place) = Place::of_self() else { return };
    let Ok(entries) = fs::read_dir(base(&place).folder) else { return };
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

/// Is it the name of a worker's folder? Whatever else is there is somebody else's.
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
    let deadline = Instant::now() + LAST_RITES;
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
        // They are dying; nobody else is waited for here.
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[cfg(test)]
mod tests;
