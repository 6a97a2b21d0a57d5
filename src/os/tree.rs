//! Process trees: who descends from whom, and how to end all of them.
//!
//! A killed process leaves its children to the worker, so a tree that is killed from its root falls
//! apart while it is being read, and a process that forks all the time is always one child ahead.
//! Therefore a tree is frozen first: a stopped process neither forks nor ends. When a look finds no
//! new process, all are killed.

use super::Pid;
use super::reap::{WaitResult, wait_any};
use nix::sys::signal::Signal::{self, SIGCONT, SIGKILL, SIGSTOP, SIGTERM};
use nix::sys::signal::{kill, killpg};
use nix::unistd::getpgid;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs;
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// Pause between two looks for killed processes; they usually die faster than this.
const PAUSE: Duration = Duration::from_millis(2);

/// Looks at a tree that is being frozen. Each finds children born before the last freeze, so a few
/// suffice; the limit is for a tree that other processes add to.
const LOOKS_MAX: usize = 100;

/// Asks every process of a group to end (`SIGTERM`), stopped ones too.
pub fn terminate_group(leader: Pid) {
    signal_group(leader, SIGTERM);
    signal_group(leader, SIGCONT);
}

/// Kills every process of a group, if any is left.
pub fn kill_group(leader: Pid) {
    signal_group(leader, SIGKILL);
}

/// A group that is gone needs no signal; no other failure is possible for our own.
fn signal_group(leader: Pid, signal: Signal) {
    let _ = killpg(leader, signal);
}

/// Kills a child, its process group, and all their descendants, including those with groups and
/// sessions of their own. Orphans that this process adopted and for which `belongs` is true are
/// part of the tree too: there is no other way to find a daemon whose parents are gone.
///
/// The child must not have been waited for, or `root` could be another process by now.
pub fn kill_tree(root: Pid, belongs: &dyn Fn(Pid) -> bool) {
    let orphans = adopted()
        .into_iter()
        .filter(|&pid| getpgid(Some(pid)) == Ok(root) || belongs(pid))
        .map(Pid::as_raw);
    let tree = freeze(orphans.chain([root.as_raw()]).collect());
    kill_group(root);
    for pid in tree {
        send(pid, SIGKILL);
    }
}

/// Kills the orphans that this process adopted and for which `belongs` is true, with all their
/// descendants: the rest of a tree whose root was waited for already.
pub fn kill_orphans(belongs: &dyn Fn(Pid) -> bool) {
    let orphans = adopted().into_iter().filter(|&pid| belongs(pid)).map(Pid::as_raw);
    for pid in freeze(orphans.collect()) {
        send(pid, SIGKILL);
    }
}

/// The entry of a task's environment that names its task.
pub const TASK: &str = "QWORKER_TASK_ID";

/// The entry that names the worker that started it; see [`this_worker`].
pub const WORKER: &str = "QWORKER_TASK_WORKER";

/// Identifies this process among all that this kernel has run, for [`WORKER`].
pub fn this_worker() -> &'static str {
    static NAME: LazyLock<String> = LazyLock::new(|| {
        let this = Pid::this().as_raw();
        format!("{}:{this}:{}", namespace().unwrap_or(0), began(this).unwrap_or(0))
    });
    &NAME
}

/// The pid namespace of this process.
fn namespace() -> Option<u64> {
    fs::metadata("/proc/self/ns/pid").ok().map(|found| found.ino())
}

/// Has this process ended, or was it killed and is about to end? One that is not visible from here
/// has not.
fn is_gone(worker: &str) -> bool {
    let parts: Option<Vec<u64>> = worker.split(':').map(|part| part.parse().ok()).collect();
    let Some([space, pid, start]) = parts.as_deref() else { return false };
    let Ok(pid) = i32::try_from(*pid) else { return false };
    if namespace() != Some(*space) || *start == 0 {
        return false;
    }
    match fs::metadata(format!("/proc/{pid}")) {
        Ok(_) => began(pid).is_some_and(|begun| begun != *start) || is_exiting(pid),
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    }
}

/// Is it a zombie, or exiting? Its lease is released while it exits.
fn is_exiting(pid: i32) -> bool {
    /// The kernel's `PF_EXITING`.
    const EXITING: u64 = 0x4;
    let flags: Option<u64> = field(pid, 6);
    let state: Option<char> = field(pid, 0);
    state.is_some_and(|state| "ZX".contains(state)) || flags.is_some_and(|all| all & EXITING != 0)
}

/// Processes that belong to no task, by pid: their inode in `/proc`, which a later process with the
/// same pid does not have, and since when this is known.
#[derive(Debug, Default)]
pub struct Strangers(HashMap<i32, (u64, Instant)>);

/// How long a process may not have executed its program yet. Afterwards its environment does not
/// change.
const BEGINS: Duration = Duration::from_secs(1);

/// Kills every process on this machine that belongs to one of these tasks and was started by a
/// worker that has ended, with all descendants; returns how many. For processes that have outlived
/// a worker *and* its guard. Reads all of `/proc` once, except the environment of `strangers`.
pub fn kill_leftovers(tasks: &HashSet<String>, strangers: &mut Strangers) -> usize {
    let (this, now) = (Pid::this().as_raw(), Instant::now());
    let (mut roots, mut known) = (BTreeSet::new(), HashMap::new());
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok());
        let Some(pid) = pid.filter(|pid| *pid != this) else { continue };
        let since = strangers.0.get(&pid).filter(|(inode, _)| *inode == entry.ino());
        let since = since.map_or(now, |(_, since)| *since);
        let mut task = None;
        if now.duration_since(since) < BEGINS {
            let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
            task = value_of(&environment, TASK).map(|id| {
                tasks.contains(id) && value_of(&environment, WORKER).is_some_and(is_gone)
            });
        }
        match task {
            Some(true) => drop(roots.insert(pid)),
            Some(false) => {}
            None => drop(known.insert(pid, (entry.ino(), since))),
        }
    }
    strangers.0 = known;
    let tree = freeze(roots);
    for &pid in &tree {
        send(pid, SIGKILL);
    }
    tree.len()
}

/// Kills, each with its tree, the adopted orphans that belong to no task: `known` is false for
/// their pid and for their group.
pub fn kill_strays(known: &dyn Fn(Pid) -> bool) {
    for child in adopted() {
        let of_task = known(child) || getpgid(Some(child)).is_ok_and(known);
        if !of_task {
            for pid in freeze(BTreeSet::from([child.as_raw()])) {
                send(pid, SIGKILL);
            }
        }
    }
}

/// Kills every descendant of this process and reaps them, until none is left or `patience` is over.
/// True if none is left. All wait results are lost: for the end of a program only.
pub fn kill_all_descendants_of_self(patience: Duration) -> bool {
    let end = Instant::now() + patience;
    loop {
        for pid in freeze(children(Pid::this()).into_iter().collect()) {
            send(pid, SIGKILL);
        }
        loop {
            match wait_any() {
                WaitResult::Ended(..) => {}
                WaitResult::NoneYet => break,
                WaitResult::NoChildren => return true,
            }
        }
        if Instant::now() >= end {
            return false;
        }
        std::thread::sleep(PAUSE);
    }
}

/// All descendants of `root`, without itself, in no particular order.
pub fn descendants(root: Pid) -> Vec<Pid> {
    let mut tree = BTreeSet::new();
    add_descendants(root.as_raw(), &mut tree);
    tree.into_iter().map(Pid::from_raw).collect()
}

/// Stops the roots and all their descendants, until no new ones are found.
fn freeze(roots: BTreeSet<i32>) -> BTreeSet<i32> {
    let mut frozen = BTreeSet::new();
    let mut tree = roots;
    for _ in 0..LOOKS_MAX {
        let fresh: Vec<i32> = tree.difference(&frozen).copied().collect();
        if fresh.is_empty() {
            break;
        }
        for pid in fresh {
            send(pid, if is_being_started(pid) { SIGKILL } else { SIGSTOP });
            frozen.insert(pid);
        }
        for &pid in &frozen {
            add_descendants(pid, &mut tree);
        }
    }
    tree
}

/// Is it a copy of this program that has not executed another one yet? It starts no children, and
/// must not be stopped: if we were killed before we killed it, it would remain with a copy of all
/// our descriptors, our lease included, and nobody could tell whose it was.
fn is_being_started(pid: i32) -> bool {
    let same = |file: &str| {
        let read = |pid: &str| fs::read(format!("/proc/{pid}/{file}")).ok();
        read(&pid.to_string()).is_some_and(|theirs| Some(theirs) == read("self"))
    };
    let program = |pid: &str| fs::read_link(format!("/proc/{pid}/exe")).ok();
    program(&pid.to_string()).is_some_and(|theirs| Some(theirs) == program("self"))
        && same("cmdline")
        && children(Pid::from_raw(pid)).is_empty()
}

/// A process that is gone needs no signal.
fn send(pid: i32, signal: Signal) {
    let _ = kill(Pid::from_raw(pid), signal);
}

fn add_descendants(root: i32, tree: &mut BTreeSet<i32>) {
    let mut rest = children(Pid::from_raw(root));
    while let Some(pid) = rest.pop() {
        if tree.insert(pid) {
            rest.extend(children(Pid::from_raw(pid)));
        }
    }
}

/// The adopted orphans: the children of our first thread, which starts none itself. Where the
/// kernel keeps no list for each thread, all children that execute another program than ours: one
/// that is just being started still executes ours.
fn adopted() -> Vec<Pid> {
    let this = Pid::this();
    let list = fs::read_to_string(format!("/proc/{this}/task/{this}/children"));
    let pids: Vec<i32> = match &list {
        Ok(list) => numbers(list).collect(),
        Err(_) => {
            let program = |pid: &str| fs::read_link(format!("/proc/{pid}/exe")).ok();
            let ours = program("self");
            let mut all = children_searched(this);
            all.retain(|pid| program(&pid.to_string()) != ours);
            all
        }
    };
    pids.into_iter().map(Pid::from_raw).collect()
}

/// The numbers in a list of the kernel.
fn numbers(list: &str) -> impl Iterator<Item = i32> {
    list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok())
}

/// The children of a process, zombies included.
pub(super) fn children(of: Pid) -> Vec<i32> {
    children_listed(of).unwrap_or_else(|| children_searched(of))
}

/// From the kernel's own lists, one for each thread; `None` where it keeps none
/// (`CONFIG_PROC_CHILDREN`).
fn children_listed(of: Pid) -> Option<Vec<i32>> {
    let Ok(threads) = fs::read_dir(format!("/proc/{of}/task")) else {
        // It is gone, and has no children then.
        return Some(Vec::new());
    };
    let mut found = Vec::new();
    for thread in threads.flatten() {
        match fs::read_to_string(thread.path().join("children")) {
            Ok(list) => found.extend(numbers(&list)),
            Err(_) if thread.path().exists() => return None,
            // The thread ended meanwhile.
            Err(_) => {}
        }
    }
    Some(found)
}

/// By asking every process for its parent.
fn children_searched(of: Pid) -> Vec<i32> {
    processes().filter(|&pid| parent(pid) == Some(of.as_raw())).collect()
}

/// The numbers of all processes.
fn processes() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The fourth field of `stat`. The second, the program's name, may contain anything, spaces and
/// parentheses too; only its last parenthesis is reliable.
pub(super) fn parent(pid: i32) -> Option<i32> {
    field(pid, 1)
}

/// When a process started, in the kernel's ticks.
fn began(pid: i32) -> Option<u64> {
    field(pid, 19)
}

fn field<T: std::str::FromStr>(pid: i32, behind_name: usize) -> Option<T> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let name_end = stat.iter().rposition(|&byte| byte == b')')?;
    let rest = std::str::from_utf8(&stat[name_end + 1..]).ok()?;
    rest.split_ascii_whitespace().nth(behind_name)?.parse().ok()
}

/// The value of a variable in an environment, if it is text.
fn value_of<'a>(environment: &'a [u8], name: &str) -> Option<&'a str> {
    let mut entries = environment.split(|&byte| byte == 0);
    let value =
        entries.find_map(|entry| entry.strip_prefix(name.as_bytes())?.strip_prefix(b"="))?;
    std::str::from_utf8(value).ok()
}

/// Was it started with this entry, `NAME=value`, in its environment?
pub fn has_mark(pid: Pid, mark: &[u8]) -> bool {
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    environment.split(|&byte| byte == 0).any(|entry| entry == mark)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    /// A shell with a child, a grandchild in its own session, and both their numbers.
    fn tree() -> (std::process::Child, Vec<i32>) {
        let script =
            "sleep 100 & echo $!; setsid sh -c 'echo $$; sleep 100 & echo $!; wait' & wait";
        let mut shell =
            Command::new("sh").args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(shell.stdout.take().unwrap()).lines();
        let pids = lines.take(3).map(|line| line.unwrap().parse().unwrap()).collect();
        (shell, pids)
    }

    fn is_gone(pid: i32) -> bool {
        let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        state
            .rsplit(')')
            .next()
            .is_none_or(|rest| rest.trim().is_empty() || rest.trim().starts_with('Z'))
    }

    #[test]
    fn lists_and_kills_a_family() {
        let (mut shell, pids) = tree();
        let root = Pid::from_raw(shell.id() as i32);
        let mut found: Vec<i32> = descendants(root).iter().map(|pid| pid.as_raw()).collect();
        let mut expected = pids.clone();
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected);

        kill_tree(root, &|_| false);
        shell.wait().unwrap();
        let end = Instant::now() + Duration::from_secs(2);
        while !pids.iter().all(|&pid| is_gone(pid)) {
            assert!(Instant::now() < end, "survivors of {pids:?}");
            std::thread::sleep(PAUSE);
        }
    }

    #[test]
    fn both_ways_to_find_children_agree() {
        let mut child = Command::new("sleep").arg("100").spawn().unwrap();
        let pid = child.id() as i32;
        assert!(children_listed(Pid::this()).is_none_or(|found| found.contains(&pid)));
        assert!(children_searched(Pid::this()).contains(&pid));
        assert_eq!(parent(pid), Some(Pid::this().as_raw()));
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_mark_is_a_whole_entry() {
        let mut child = Command::new("sleep").arg("100").env("QW_MARK", "12").spawn().unwrap();
        let pid = Pid::from_raw(child.id() as i32);
        // The kernel resumes a parent slightly before the new environment is visible.
        let end = Instant::now() + Duration::from_secs(2);
        while !has_mark(pid, b"QW_MARK=12") {
            assert!(Instant::now() < end, "no mark");
            std::thread::sleep(PAUSE);
        }
        assert!(!has_mark(pid, b"QW_MARK=1"));
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn only_what_a_dead_worker_left_is_killed() {
        let (space, this) = (namespace().unwrap(), Pid::this().as_raw());
        let mut gone = Command::new("true").spawn().unwrap();
        let dead = format!("{space}:{}:1", gone.id());
        gone.wait().unwrap();
        let elsewhere = format!("{}:{}:1", space + 1, gone.id());
        let mut unburied = Command::new("true").spawn().unwrap();
        let number = unburied.id() as i32;
        let exiting = format!("{space}:{number}:{}", began(number).unwrap());
        while !is_exiting(number) {
            std::thread::sleep(PAUSE);
        }
        let reused = format!("{space}:{this}:{}", began(this).unwrap() + 1);
        let task = uuid::Uuid::new_v4().to_string();
        let tasks = HashSet::from([task.clone(), "another".into()]);
        for (worker, killed) in [
            (this_worker(), 0),
            (&elsewhere, 0),
            ("nonsense", 0),
            (&format!("{space}:{this}:0"), 0),
            (&dead, 1),
            (&exiting, 1),
            (&reused, 1),
        ] {
            let mut child = Command::new("sleep")
                .arg("100")
                .env(TASK, &task)
                .env(WORKER, worker)
                .spawn()
                .unwrap();
            let (pid, end) =
                (Pid::from_raw(child.id() as i32), Instant::now() + Duration::from_secs(9));
            while !has_mark(pid, format!("{TASK}={task}").as_bytes()) {
                assert!(Instant::now() < end, "no mark");
                std::thread::sleep(PAUSE);
            }
            let mut strangers = Strangers::default();
            assert_eq!(kill_leftovers(&HashSet::from([task[1..].to_string()]), &mut strangers), 0);
            assert_eq!(kill_leftovers(&tasks, &mut strangers), killed, "{worker}");
            let _ = child.kill();
            child.wait().unwrap();
        }
        unburied.wait().unwrap();
    }
}
