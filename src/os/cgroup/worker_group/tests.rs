//! On the control groups of this machine: they must be mounted, and ours to use.

use super::*;
use crate::os::file::null;
use crate::os::spawn::Spawn;
use std::ffi::CString;
use std::io::Read;
use std::os::fd::AsFd;

/// Groups of this test, or a reason for the machine's owner.
fn groups() -> WorkerGroup {
    WorkerGroup::create(None).unwrap_or_else(|error| {
        panic!(
            "these tests need control groups of version 2 that they may use (root, and a mount as \
             `mount -t cgroup2 none /sys/fs/cgroup/unified`): {error}"
        )
    })
}

/// Starts a shell with this text in a group; its number, and all that it says.
fn start(group: &Group, text: &str) -> (Pid, io::PipeReader) {
    let (reader, writer) = io::pipe().unwrap();
    let null = null().unwrap();
    let argv: Vec<_> = ["sh", "-c", text].map(|word| CString::new(word).unwrap()).into();
    let stdio = [null.as_fd(), writer.as_fd(), null.as_fd()];
    let path = CString::new(format!("PATH={}", std::env::var("PATH").unwrap())).unwrap();
    let spawn = Spawn {
        group: Some(group.dir()),
        envp: &[path.into()],
        ..Spawn::plain(c"/bin/sh", &argv, stdio)
    };
    (spawn.start().unwrap(), reader)
}

fn wait(pid: Pid) {
    nix::sys::wait::waitpid(pid, None).unwrap();
}

/// Waits until nobody is left in the group.
fn await_end(group: Group) {
    let Some(end) = group.remove() else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let end = async { tokio::time::timeout(Duration::from_secs(10), end).await };
    runtime.block_on(end).expect("a killed group ends");
}

#[test]
fn a_process_begins_in_its_group() {
    let groups = groups();
    for by_itself in [false, true] {
        crate::os::spawn::without_clone3(by_itself);
        let group = groups.task_group(GroupLimits::default()).unwrap();
        let (pid, mut reader) = start(&group, "grep ^0:: /proc/self/cgroup");
        let mut said = String::new();
        reader.read_to_string(&mut said).unwrap();
        wait(pid);
        let name = groups.folder().file_name().unwrap().to_str().unwrap();
        assert!(said.trim().contains(&format!("/{name}/")), "{said:?}");
        await_end(group);
    }
    let folder = groups.folder().to_path_buf();
    assert!(folder.is_dir());
    drop(groups);
    assert!(!folder.exists());
}

#[test]
fn whoever_left_session_and_group_is_killed_and_counted() {
    let groups = groups();
    let group = groups.task_group(GroupLimits::default()).unwrap();
    let text = "setsid sh -c 'trap \"\" TERM; i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; \
                echo done; sleep 100' & read line";
    let (pid, mut reader) = start(&group, text);
    let mut said = [0; 5];
    reader.read_exact(&mut said).unwrap();
    wait(pid);
    let usage = group.usage();
    assert!(usage.user > Duration::from_millis(10), "{usage:?}");
    assert!(!usage.killed_for_memory && !usage.at_limit);
    await_end(group);
    // The last one who could write is gone.
    assert_eq!(reader.read(&mut said).unwrap(), 0);
}

#[test]
fn what_a_killed_worker_left_is_cleared_up() {
    let groups = groups();
    let name = groups.folder().file_name().unwrap();
    assert!(is_ours(name), "{name:?}");
    for other in
        ["qworker.self", "qworker-1-2", "qworker-tasks-", "qworker-tasks-1-", "qworker-tasks-x-1"]
    {
        assert!(!is_ours(OsStr::new(other)), "{other}");
    }
    let group = groups.task_group(GroupLimits::default()).unwrap();
    let (pid, _reader) = start(&group, "exec sleep 100");
    let folder = groups.folder().to_path_buf();
    clear_abandoned();
    assert!(folder.is_dir(), "the worker lives");
    // As after a KILL: nobody tidies up, but the lock is gone.
    let groups = std::mem::ManuallyDrop::new(groups);
    groups._lock.unlock().unwrap();
    clear_abandoned();
    assert!(!folder.exists());
    wait(pid);
    drop(group);
}
