//! The command line on a Redis server: what is said of one that is not there, and what a
//! worker makes of messages in forms that only other programs write.

use super::{TASKS, app, printed, refused};
use crate::harness::redis::free_port;
use crate::harness::{Place, eventually};
use nix::sys::signal::Signal;
use std::net::TcpListener;
use std::time::Duration;

#[test]
fn a_server_that_is_not_there_is_named_at_once() {
    let app = app();
    let port = free_port();
    let url = format!("redis://me:geheim@127.0.0.1:{port}/0");
    for args in [
        &["call", "greet"][..],
        &["call", "greet", "--wait"],
        &["call", "greet", "--exchange", "news", "--routing-key", "eu"],
        &["result", "a"],
        &["result", "a", "--wait"],
        &["purge", "-f"],
        &["list", "queues"],
        &["status"],
        &["dead", "list"],
        &["dead", "show", "1"],
        &["dead", "requeue", "--all"],
        &["dead", "purge", "1"],
        &["worker"],
    ] {
        let output = app.qworker(&[&["-b", &url], args].concat());
        let shown = format!("redis://me:**@127.0.0.1:{port}/0: ");
        refused(&output, 69, &["Error: ", &shown, "onnection refused"]);
        assert!(!output.stderr.contains("geheim"), "{output:?}");
        let sentences = output.stderr.lines().filter(|line| !line.starts_with("Hint: "));
        assert_eq!(sentences.count(), 1, "{args:?}: {}", output.stderr);
    }
    // It may come with the worker.
    let name = app.path().display().to_string();
    let said = format!("{name}: no error in the settings and 5 tasks.\n");
    let output = app.qworker(&["-b", &url, "check"]);
    assert_eq!((output.code, output.stdout), (0, said));
    assert!(
        output.stderr.starts_with("The broker was not asked: redis://me:**@"),
        "{}",
        output.stderr
    );
}

#[test]
fn a_server_that_says_nothing_is_given_up_soon() {
    let app = app();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}/0", silent.local_addr().unwrap());
    std::thread::scope(|scope| {
        for args in [&["call", "greet"][..], &["result", "a"], &["status"]] {
            let (app, url) = (&app, &url);
            scope.spawn(move || {
                let output = app.qworker(&[&["-b", url], args].concat());
                refused(&output, 69, &[url, "no answer within"]);
            });
        }
    });
}

#[test]
fn a_worker_may_begin_with_empty_queues() {
    let app = Place::Redis.app(TASKS);
    app.must(&["call", "greet", "--task-id", "a"]);
    app.must(&["call", "greet", "--task-id", "b", "--countdown", "1000"]);
    let mut worker = app.worker(&["--purge"]);
    for id in ["a", "b"] {
        refused(&app.qworker(&["result", id]), 69, &["unknown task id"]);
    }
    printed(&app.qworker(&["call", "add", "-a", "[2, 3]", "--wait"]), "5\n");
    assert_eq!(worker.stop(Signal::SIGTERM), 0);
}

#[test]
fn a_message_that_a_worker_has_is_said_to_be_there() {
    let app =
        Place::Redis.app("slow: {shell: 'while [ ! -e go ]; do sleep 0.01; done; echo done'}\n");
    let mut worker = app.worker(&["-c", "1"]);
    app.must(&["call", "slow", "--task-id", "a"]);
    eventually("its taking", || {
        let said = app.qworker(&["result", "a"]);
        assert_eq!(said.code, 75, "{said:?}");
        said.stderr.contains("a worker has taken it from queue celery").then_some(())
    });
    app.write("go", "");
    printed(&app.qworker(&["result", "a", "--wait"]), "done\n");
    assert_eq!(worker.stop(Signal::SIGTERM), 0);
}

/// `Z` is what other programs write, and naive times are UTC; both are parked by the worker.
#[test]
fn times_in_other_forms_are_kept_too() {
    let app = Place::Redis.app("now: {shell: 'date +%s.%N'}\n");
    let mut worker = app.worker(&["-c", "2"]);
    let due = qworker::clock::now() + Duration::from_millis(600);
    let bare = due.format("%Y-%m-%dT%H:%M:%S%.6f").to_string();
    for (id, eta) in [("zulu", format!("{bare}Z")), ("naive", bare.clone())] {
        let headers = format!("{{\"task\": \"now\", \"id\": \"{id}\", \"eta\": \"{eta}\"}}");
        let message = format!(
            "{{\"body\": \"[[], {{}}, {{}}]\", \"content-type\": \"application/json\", \
             \"content-encoding\": \"utf-8\", \"headers\": {headers}, \"properties\": {{}}}}"
        );
        app.server().run::<u32>(&["LPUSH", "celery", &message]);
    }
    for id in ["zulu", "naive"] {
        let ran: f64 = app.must(&["result", id, "--wait", "--timeout", "60"]).parse().unwrap();
        assert!(ran >= due.timestamp_millis() as f64 / 1e3, "{id}: {ran}");
    }
    assert_eq!(worker.stop(Signal::SIGTERM), 0);
}
