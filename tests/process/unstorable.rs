//! Outcomes that a store does not take, stores that are gone, and users who may not do all: what
//! hinders one task hinders no other, and no shutdown.

use crate::harness::redis::Server;
use crate::harness::{Place, TestDir, eventually};
use nix::sys::signal::Signal;
use serde_json::Value;

const TASKS: &str = "
big: {shell: 'head -c 900000 /dev/zero'}
small: {shell: 'echo done'}
odd: {shell: 'touch started; while [ ! -e go ]; do sleep 0.02; done; echo done'}
retried: {shell: 'exit 75', max_retries: 1, retry_backoff: 0}
";

fn result(app: &TestDir, id: &str) -> Value {
    let output = app.qworker(&["result", id, "--wait", "--timeout", "60", "--json"]);
    serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// An application on this server, as the user `me`.
fn app_of_user(server: &Server) -> TestDir {
    let app = TestDir::with(TASKS);
    app.settings(&format!("broker_url: redis://me:geheim@127.0.0.1:{}/0\n", server.port()));
    app
}

fn dead(app: &TestDir) -> Vec<(String, String)> {
    let dead: Value = serde_json::from_str(&app.must(&["dead", "list", "--json"])).unwrap();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
    dead.as_array().unwrap().iter().map(|one| (text(&one["id"]), text(&one["reason"]))).collect()
}

#[test]
fn a_result_that_no_server_takes_is_a_failure_that_says_so() {
    let app = TestDir::on(Server::with(&["--save", "", "--proto-max-bulk-len", "1mb"]), TASKS);
    let mut worker = app.worker(&["-c", "3"]);
    for n in 0..2 {
        app.must(&["call", "big", "--task-id", &format!("big{n}")]);
        app.must(&["call", "small", "--task-id", &format!("small{n}")]);
    }
    for id in ["small0", "small1"] {
        assert_eq!(result(&app, id)["status"], "SUCCESS");
    }
    for id in ["big0", "big1"] {
        let result = result(&app, id);
        assert_eq!(result["status"], "FAILURE");
        assert_eq!(result["result"]["exc_type"], "ResultNotStored", "{result}");
    }
    assert_eq!(dead(&app), []);
    worker.expect_line("Task big0: its result cannot be stored");
    assert_eq!(worker.stop(Signal::SIGTERM), 0);
    assert_eq!(app.server().run::<usize>(&["EXISTS", "unacked"]), 0);
}

#[test]
fn a_result_whose_key_is_something_else_leaves_the_task_among_the_dead() {
    let app = Place::Redis.app(TASKS);
    app.server().run::<u32>(&["LPUSH", "celery-task-meta-odd", "x"]);
    app.server().run::<u32>(&["LPUSH", "celery-task-meta-retried", "x"]);
    let mut worker = app.worker(&["-c", "2"]);
    app.write("go", "");
    app.must(&["call", "odd", "--task-id", "odd"]);
    app.must(&["call", "retried", "--task-id", "retried"]);
    app.must(&["call", "small", "--task-id", "small"]);
    assert_eq!(result(&app, "small")["status"], "SUCCESS");
    let mut found = eventually("two dead letters", || {
        let dead = dead(&app);
        (dead.len() == 2).then_some(dead)
    });
    found.sort();
    let unstorable = |id: &str| (id.to_string(), "unstorable".to_string());
    assert_eq!(found, [unstorable("odd"), unstorable("retried")]);
    let line = worker.expect_line("Task odd: its outcome cannot be stored");
    assert!(line.contains("celery-task-meta-odd is a list, and a string is expected"), "{line}");
    assert_eq!(worker.stop(Signal::SIGTERM), 0);
}

#[test]
fn a_user_without_channels_works_and_is_told() {
    let server = Server::start();
    let rules = ["on", ">geheim", "~*", "+@all", "resetchannels"];
    server.run::<String>(&[&["ACL", "SETUSER", "me"][..], &rules].concat());
    let app = app_of_user(&server);
    let mut worker = app.worker(&[]);
    worker.expect_line("this user may not PUBLISH");
    let output = app.qworker(&["call", "small", "--wait", "--timeout", "60"]);
    assert_eq!((output.code, &output.stdout[..]), (0, "done\n"), "{output:?}");
    assert_eq!(worker.stop(Signal::SIGTERM), 0);
    server.run::<String>(&["ACL", "SETUSER", "me", "-rpop"]);
    let output = app.qworker(&["worker"]);
    assert_eq!(output.code, 69, "{output:?}");
    assert!(output.stderr.contains("may not RPOP (celery, "), "{output:?}");
    assert!(!output.stderr.contains("geheim"), "{output:?}");
    let output = app.qworker(&["check"]);
    assert_eq!(output.code, 1, "{output:?}");
    assert!(output.stdout.contains("needs: RPOP (celery, "), "{output:?}");
}

#[test]
fn a_warm_shutdown_ends_without_its_server() {
    let mut server = Server::durable();
    let app = TestDir::with(TASKS);
    app.settings(&format!("broker_url: {}\n", server.url()));
    let mut worker = app.worker(&[]);
    app.must(&["call", "odd", "--task-id", "odd"]);
    eventually("its start", || app.file("started").exists().then_some(()));
    server.stop();
    app.write("go", "");
    worker.expect_line("cannot store results or acknowledge");
    assert_eq!(worker.stop(Signal::SIGTERM), 69);
    worker.expect_line("ends with 1 tasks not settled");
    worker.expect_no_survivors();
    server.restart();
    let mut worker = app.worker(&[]);
    assert_eq!(result(&app, "odd")["status"], "SUCCESS");
    assert_eq!(worker.stop(Signal::SIGTERM), 0);
}

/// The newest reason is told, in the log and to whoever asks.
#[test]
fn a_changed_password_is_told() {
    let server = Server::start();
    server.run::<String>(&["ACL", "SETUSER", "me", "on", ">geheim", "~*", "&*", "+@all"]);
    let app = app_of_user(&server);
    let mut worker = app.worker(&["-n", "pass@test"]);
    server.run::<String>(&["ACL", "SETUSER", "me", "resetpass", ">other"]);
    server.run::<u32>(&["CLIENT", "KILL", "USER", "me"]);
    worker.expect_line("WRONGPASS");
    eventually("the reason in health", || {
        let said = app.qworker(&["health", "-n", "pass@test"]);
        (said.stdout + &said.stderr).contains("WRONGPASS").then_some(())
    });
    // It will be as wrong tomorrow.
    let checked = app.qworker(&["check"]);
    assert!(
        checked.code == 1 && checked.stdout.contains("broker_url: redis://me:**@"),
        "{checked:?}"
    );
    worker.stop(Signal::SIGTERM);
}
