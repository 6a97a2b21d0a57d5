//! Whoever is killed, no process of a task survives, and nothing of the worker leaks
//! into a task.

use super::{SLOW, await_lines, send_many};
use crate::harness::{TestDir, Worker, eventually, process};
use nix::sys::signal::Signal;
use std::fs;
use std::process::Command;

/// One task whose grandchild is in a session of its own, has no living parent, ignores
/// TERM, and writes its number down.
const FAMILY: &str = r#"
family:
  exec: [./family]
"#;

const PROGRAM: &str = r#"#!/bin/sh
trap '' TERM
setsid sh -c '(trap "" TERM HUP; sh -c "echo \$PPID" >>pids; while :; do sleep 0.05; done) &'
echo "$QWORKER_TASK_ID" >>started
[ -e go ] && exit 0
while :; do sleep 0.05; done
"#;

fn families(count: usize) -> (TestDir, Worker, Vec<i32>) {
    let app = TestDir::with(FAMILY);
    app.program("family", PROGRAM);
    let worker = app.worker(&["-c", "4"]);
    send_many(&app, "family", count);
    await_lines(&app, "started", count);
    let pids: Vec<i32> =
        await_lines(&app, "pids", count).iter().map(|line| line.parse().unwrap()).collect();
    // They are what they are meant to be.
    for pid in &pids {
        assert!(process::is_alive(*pid) && worker.family().contains(pid));
        eventually("the grandchild to be an orphan", || {
            (process::parent(*pid) == Some(worker.pid())).then_some(())
        });
    }
    (app, worker, pids)
}

#[test]
fn nobody_survives_the_death_of_the_guard() {
    let (_app, mut worker, pids) = families(3);
    worker.signal(Signal::SIGKILL);
    worker.expect_no_survivors();
    assert!(!pids.into_iter().any(process::is_alive));
    assert_eq!(worker.wait(), -9);
}

#[test]
fn nobody_survives_the_death_of_the_guard_of_a_stopped_worker() {
    let (_app, mut worker, _) = families(1);
    process::send(worker.pid(), Signal::SIGSTOP);
    worker.signal(Signal::SIGKILL);
    worker.expect_no_survivors();
    assert_eq!(worker.wait(), -9);
}

#[test]
fn a_probe_dies_with_its_guard() {
    let app = TestDir::with(SLOW);
    let mut worker = app.worker(&["-c", "1"]);
    // Its reader waits until somebody writes.
    let made = Command::new("mkfifo").arg(app.file("qworker.yaml.new")).status().unwrap();
    assert!(made.success());
    fs::rename(app.file("qworker.yaml.new"), app.file("qworker.yaml")).unwrap();
    worker.signal(Signal::SIGHUP);
    eventually("the probe", || (worker.family().len() > 2).then_some(()));
    worker.signal(Signal::SIGKILL);
    worker.expect_no_survivors();
    assert_eq!(worker.wait(), -9);
}

#[test]
fn nobody_survives_the_death_of_the_worker_proper_and_a_new_one_is_there() {
    let (app, mut worker, pids) = families(3);
    let old = worker.pid();
    process::send(old, Signal::SIGKILL);
    eventually("the death of all tasks", || {
        (!pids.iter().any(|pid| process::is_alive(*pid))).then_some(())
    });
    worker.expect_line("worker killed by SIGKILL; its tasks were ended, starting a new worker");
    app.write("go", "");
    // What it held runs again, once each.
    let lines = await_lines(&app, "started", 6);
    assert_ne!(worker.pid(), old);
    super::await_empty(&app);
    assert_eq!(worker.stop(Signal::SIGTERM), 0);
    let mut again = lines;
    again.sort();
    let each: Vec<usize> = again.chunk_by(|a, b| a == b).map(<[String]>::len).collect();
    assert_eq!(each, [2, 2, 2]);
    assert_eq!(app.lines("started").len(), 6, "and no more than once");
    // Those of the second time too.
    worker.expect_no_survivors();
}

/// Those who stay behind when a task ends do not stay for long.
#[test]
fn what_a_task_leaves_behind_is_ended_too() {
    let app = TestDir::with(FAMILY);
    app.program("family", PROGRAM).write("go", "");
    let mut worker = app.worker(&["-c", "1"]);
    app.must(&["call", "family", "--wait"]);
    let pid: i32 = await_lines(&app, "pids", 1)[0].parse().unwrap();
    eventually("the end of what was left", || (!process::is_alive(pid)).then_some(()));
    assert_eq!(worker.stop(Signal::SIGTERM), 0);
}

#[test]
fn no_descriptor_of_the_worker_leaks_into_a_task() {
    let app = TestDir::with("fds: {shell: 'ls /proc/$$/fd', result: text}\n");
    app.write("go", "");
    let mut worker = app.worker(&["-c", "4"]);
    // Several at once, with each other's pipes open.
    let ids = send_many(&app, "fds", 20);
    for id in ids {
        assert_eq!(app.must(&["result", &id, "--wait"]), "0\n1\n2");
    }
    assert_eq!(worker.stop(Signal::SIGTERM), 0);
}

/// A worker that dies again and again is not started for ever.
#[test]
fn the_guard_gives_up_on_a_worker_that_dies_six_times() {
    let app = TestDir::with(SLOW);
    let mut worker = app.worker(&[]);
    let mut last = 0;
    for death in 1..=6 {
        let pid = eventually("another worker", || Some(worker.pid()).filter(|pid| *pid != last));
        process::send(pid, Signal::SIGKILL);
        last = pid;
        if death < 6 {
            eventually("the guard to notice", || {
                (worker.log().matches("worker killed by SIGKILL").count() == death).then_some(())
            });
        }
    }
    assert_eq!(worker.wait(), 1);
    worker.expect_line("death 6 within 10 s; giving up");
    worker.expect_no_survivors();
}

#[test]
fn what_a_running_task_put_into_the_background_lives_as_long_as_the_task() {
    let app = TestDir::with(
        "helped:\n  shell: '(setsid sh -c \"echo \\$\\$ >helper; while :; do echo x >>beats; sleep 0.1; done\" \
         >/dev/null 2>&1 &); while [ ! -e go ]; do sleep 0.02; done'\n",
    );
    let worker = app.worker(&["-c", "1"]);
    let id = send_many(&app, "helped", 1).remove(0);
    // The worker has looked for strays a few times by then.
    await_lines(&app, "beats", 35);
    let helper: i32 = app.read("helper").trim().parse().unwrap();
    assert!(process::is_alive(helper) && worker.family().contains(&helper));
    app.write("go", "");
    app.must(&["result", &id, "--wait"]);
    eventually("the helper's end", || (!process::is_alive(helper)).then_some(()));
}
