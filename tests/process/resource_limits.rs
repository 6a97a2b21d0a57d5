//! Control groups of tasks with resource limits: what is in them, and that none is left, whoever is killed.
//!
//! They need a mount of control groups, version 2, that root may use. Whether it limits memory
//! and processes depends on the machine; `tests/vm.py` shows that on a kernel of its own.

use super::{await_empty, await_lines};
use crate::harness::{TestDir, eventually, process};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::path::PathBuf;

/// Each says in which group it is.
const TASKS: &str = r#"
free: {shell: 'grep ^0:: /proc/self/cgroup'}
limited: {shell: 'grep ^0:: /proc/self/cgroup', memory: 200M, processes: 4000}
burner:
  shell: |
    setsid sh -c 'trap "" TERM; i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; echo $$ >>burnt; exec sleep 100' &
    until [ -s burnt ]; do sleep 0.01; done
  open_files: 100
stays:
  shell: 'grep ^0:: /proc/self/cgroup >>groups; [ -e go ] && exit; setsid sleep 100 & sleep 100'
  memory: 200M
"#;

/// The mount that this machine has.
fn mount() -> PathBuf {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let line = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2"));
    let line = line.expect("these tests need `mount -t cgroup2 none /sys/fs/cgroup/unified`");
    line.split(' ').nth(1).unwrap().into()
}

/// The folder of a group that a task has told.
fn folder(told: &str) -> PathBuf {
    mount().join(told.trim().strip_prefix("0::/").unwrap())
}

#[test]
fn a_limited_task_is_in_a_group_of_its_own() {
    let app = TestDir::with(TASKS);
    let mut worker = app.worker(&["-c", "2", "-l", "INFO"]);
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap();
    let own = own.lines().find(|line| line.starts_with("0::")).unwrap();
    assert_eq!(app.must(&["call", "free", "--wait"]), own);
    assert!(!worker.log().contains("control group"), "{}", worker.log());
    let groups = ["limited", "limited"].map(|task| folder(&app.must(&["call", task, "--wait"])));
    worker.expect_line("tasks with resource limits run in control groups below ");
    assert_ne!(groups[0], groups[1]);
    let home = groups[0].parent().unwrap();
    let name = home.file_name().unwrap().to_str().unwrap();
    assert!(name.starts_with(&format!("qworker-tasks-{}-", worker.pid())), "{name}");
    assert!(!groups[0].exists() && home.is_dir());
    assert_eq!(worker.stop(Signal::SIGTERM), 0);
    assert!(!home.exists());
    app.settings("task_cgroups: false\n");
    let mut worker = app.worker(&[]);
    assert_eq!(app.must(&["call", "limited", "--wait"]), own);
    assert_eq!(worker.stop(Signal::SIGTERM), 0);
}

#[test]
fn what_a_task_leaves_behind_ends_with_it_and_is_counted() {
    let app = TestDir::with(TASKS);
    app.settings("result_extended: true\n");
    let mut worker = app.worker(&["-l", "INFO"]);
    let result = app.must(&["call", "burner", "--wait", "--json"]);
    let result: Value = serde_json::from_str(&result).unwrap();
    let user = result["usage"]["user"].as_f64().unwrap();
    assert!(user > 0.03, "{result}");
    let left: i32 = app.lines("burnt")[0].parse().unwrap();
    eventually("the end of what was left", || (!process::is_alive(left)).then_some(()));
    assert_eq!(worker.stop(Signal::SIGTERM), 0);
}

#[test]
fn no_group_is_left_whoever_is_killed() {
    let app = TestDir::with(TASKS);
    let id = app.must(&["call", "stays"]);
    let homes = |count: usize| -> Vec<PathBuf> {
        let told = await_lines(&app, "groups", count);
        told.iter().map(|line| folder(line).parent().unwrap().to_path_buf()).collect()
    };
    let gone = |home: &PathBuf| {
        eventually("the end of its groups", || (!home.exists()).then_some(()));
    };
    // The worker: its guard clears up, and the next one runs the task again.
    let mut worker = app.worker(&[]);
    let first = homes(1).remove(0);
    assert!(first.is_dir());
    process::send(worker.pid(), Signal::SIGKILL);
    gone(&first);
    // The guard: the worker does.
    let second = homes(2).remove(1);
    worker.signal(Signal::SIGKILL);
    gone(&second);
    worker.wait();
    worker.expect_no_survivors();
    // Both at once: whoever comes next, which may be a worker of another test.
    let mut worker = app.worker(&[]);
    let third = homes(3).remove(2);
    worker.kill_with_guard();
    app.write("go", "");
    let mut worker = app.worker(&[]);
    gone(&third);
    app.must(&["result", &id, "--wait"]);
    await_empty(&app);
    assert_eq!(worker.stop(Signal::SIGTERM), 0);
}
