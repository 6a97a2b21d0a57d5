//! `qworker worker`: banner, queues, options. How it ends is in `tests/process`.

use super::refused;
use crate::harness::TestDir;
use nix::sys::signal::Signal;

#[test]
fn the_banner_says_what_it_works_on() {
    let app = TestDir::with("add: {shell: 'true'}\nthumb: {shell: 'true', queue: media}\n");
    let mut worker = app.worker(&["-c", "3", "-n", "w1@%h", "-l", "INFO"]);
    assert_eq!(worker.stop(Signal::SIGTERM), 0);
    let banner = worker.banner();
    let host = nix::unistd::gethostname().unwrap().into_string().unwrap();
    for part in [
        format!("w1@{host}").as_str(),
        "concurrency: 3",
        "sqlite:///var/qworker.sqlite",
        " .> celery ",
        " .> media ",
        "  . add",
        "  . thumb",
    ] {
        assert!(banner.contains(part), "{part:?} is not in {banner}");
    }
    assert!(worker.log().contains("Warm shutdown"), "{}", worker.log());
}

#[test]
fn it_serves_the_queues_that_it_is_told_to() {
    let app =
        TestDir::with("add: {shell: 'echo sum'}\nthumb: {shell: 'echo small', queue: media}\n");
    let _worker = app.worker(&["-Q", "media"]);
    let skipped = app.must(&["call", "add"]);
    assert_eq!(app.must(&["call", "thumb", "--wait"]), "small");
    assert_eq!(app.qworker(&["result", &skipped]).code, 75);
    let _other = app.worker(&["-X", "media", "-n", "other@%h"]);
    assert_eq!(app.must(&["result", &skipped, "--wait"]), "sum");
    refused(&app.qworker(&["worker", "-Q", "a", "-X", "a"]), 2, &["no queue"]);
}

#[test]
fn as_many_tasks_at_once_as_it_has_slots() {
    let app = TestDir::with(
        "meet: {shell: 'echo x >> met; while [ $(wc -l < met) -lt 3 ]; do sleep 0.02; done; echo all'}\n",
    );
    let _worker = app.worker(&["-c", "3"]);
    let ids: Vec<String> = (0..3).map(|_| app.must(&["call", "meet"])).collect();
    for id in ids {
        assert_eq!(app.must(&["result", &id, "--wait", "--timeout", "20"]), "all");
    }
}

#[test]
fn purge_at_the_start_removes_what_waited() {
    let app = TestDir::with("add: {shell: 'echo sum'}\n");
    let old = app.must(&["call", "add"]);
    let worker = app.worker(&["--purge"]);
    assert!(worker.banner().contains("purge: Erased 1 message."), "{}", worker.banner());
    assert_eq!(app.must(&["call", "add", "--wait"]), "sum");
    assert_eq!(app.qworker(&["result", &old]).code, 69);
}

#[test]
fn limits_of_the_command_line_hold_for_all() {
    let app = TestDir::with("slow: {shell: 'sleep 60'}\n");
    let _worker = app.worker(&["--time-limit", "0.3"]);
    let output = app.qworker(&["call", "slow", "--wait", "--timeout", "20"]);
    assert_eq!(output.code, 1, "{output:?}");
    assert!(output.stderr.contains("TimeLimitExceeded"), "{output:?}");
}

#[test]
fn broken_task_files_do_not_stop_the_others() {
    let app = TestDir::with("add: {shell: 'echo sum'}\n");
    app.write("tasks.d/broken.yaml", "x: {shel: a}\n");
    let worker = app.worker(&[]);
    worker.expect_line("broken.yaml:1");
    assert_eq!(app.must(&["call", "add", "--wait"]), "sum");
}

#[test]
fn the_log_tells_the_life_of_a_task() {
    let app = TestDir::with("add: {shell: 'echo sum'}\nfail: {shell: 'echo why >&2; exit 3'}\n");
    let worker = app.worker(&["-l", "INFO"]);
    let id = app.must(&["call", "add"]);
    worker.expect_line(&format!("Task add[{id}] received"));
    let line = worker.expect_line(&format!("Task add[{id}] succeeded in "));
    assert!(line.starts_with('[') && line.contains(": INFO/MainProcess] "), "{line}");
    assert!(line.contains(": \"sum\""), "{line}");
    let id = app.must(&["call", "fail"]);
    let line =
        worker.expect_line(&format!("Task fail[{id}] raised unexpected: CalledProcessError(3"));
    assert!(line.contains(": ERROR/MainProcess] "), "{line}");
    worker.expect_line("why");
}
