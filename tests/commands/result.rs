//! `qworker result`: 0 succeeded, 1 failed, 69 unknown, 75 not ready.

use super::{TASKS, app, json, printed, refused, with_env};
use crate::harness::{Place, in_every_place};
use nix::sys::signal::Signal;

in_every_place! {
    unknown_is_not_waiting
    succeeded_failed_and_retried
    wait_waits
}

fn unknown_is_not_waiting(place: Place) {
    let app = place.app(TASKS);
    app.must(&["call", "greet", "--task-id", "a"]);
    app.must(&["call", "greet", "--task-id", "b", "--eta", "2099-05-01T10:00:00"]);
    refused(&app.qworker(&["result", "a"]), 75, &["PENDING: waits in queue celery\n"]);
    refused(
        &app.qworker(&["result", "b"]),
        75,
        &["PENDING: waits in queue celery until 2099-05-01 1"],
    );
    let unknown = ["Error: unknown task id c", "Hint: it was never sent to this broker"];
    refused(&app.qworker(&["result", "c"]), 69, &unknown);
    // It may be a Python worker's, which has acknowledged it already.
    let waited = app.qworker(&["result", "c", "--wait", "--timeout", "1.5"]);
    refused(&waited, 75, &["Task c is not known here: waiting", "not ready after"]);
    let output = app.qworker(&["result", "a", "--wait", "--timeout", "0.1"]);
    refused(
        &output,
        75,
        &["Task a is not ready after the given time; ask with `qworker result a`."],
    );
    let pending = app.qworker(&["result", "a", "--json"]);
    assert_eq!((pending.code, pending.stderr.as_str()), (75, ""));
    assert_eq!(json(&pending.stdout)["status"], "PENDING");
    let unknown = app.qworker(&["result", "c", "--json"]);
    assert_eq!((unknown.code, &json(&unknown.stdout)["status"]), (69, &"UNKNOWN".into()));
}

fn succeeded_failed_and_retried(place: Place) {
    let app = place.app(TASKS);
    let mut worker = app.worker(&["-c", "2"]);
    app.must(&["call", "add", "-a", "[20, 22]", "--task-id", "ok", "--wait"]);
    printed(&app.qworker(&["result", "ok"]), "42\n");
    printed(&app.qworker(&["result", "ok", "--wait"]), "42\n");
    printed(&app.qworker(&["result", "ok", "--traceback"]), "\n");
    let meta = json(&app.must(&["result", "ok", "--json"]));
    let keys: Vec<&String> = meta.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["status", "result", "traceback", "children", "date_done", "task_id"]);
    app.qworker(&["call", "fail", "--task-id", "bad", "--wait"]);
    for args in [&["result", "bad"][..], &["result", "bad", "--wait"]] {
        refused(
            &app.qworker(args),
            1,
            &[
                "FAILURE: CalledProcessError: Command 'fail' returned non-zero exit status 3.\noh no\n",
            ],
        );
    }
    let traceback = app.qworker(&["result", "bad", "--traceback"]);
    assert_eq!((traceback.code, traceback.stdout.as_str()), (1, "oh no\n"));
    let flag = with_env(&app, &[("QWORKER_RESULT_TRACEBACK", "1")], &["result", "bad"]);
    assert_eq!(flag, traceback);
    let output = app.qworker(&["result", "bad", "--json"]);
    assert_eq!(output.code, 1);
    let meta = json(&output.stdout);
    assert_eq!(meta["result"]["exc_module"], "subprocess");
    assert_eq!(meta["traceback"], "oh no");
    // Between two tries it is not ready.
    app.must(&["call", "later", "--task-id", "again"]);
    crate::harness::eventually("the first try", || {
        app.qworker(&["result", "again"]).stderr.starts_with("RETRY").then_some(())
    });
    refused(&app.qworker(&["result", "again"]), 75, &["RETRY: not ready yet"]);
    assert_eq!(worker.stop(Signal::SIGTERM), 0);
}

/// Who waits before a worker is there is woken when it is done.
fn wait_waits(place: Place) {
    let app = place.app(TASKS);
    app.must(&["call", "add", "-a", "[1, 1]", "--task-id", "a"]);
    let waits = ["result", "a", "--wait", "--timeout", "30"];
    let mut command = app.command(&waits);
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let child = command.spawn().unwrap();
    let mut worker = app.worker(&[]);
    printed(&child.wait_with_output().unwrap().into(), "2\n");
    assert_eq!(worker.stop(Signal::SIGTERM), 0);
}

#[test]
fn a_disabled_store_keeps_nothing() {
    let app = app();
    app.settings("result_backend: disabled://\n");
    app.must(&["call", "greet", "--task-id", "a"]);
    refused(&app.qworker(&["result", "a"]), 75, &["PENDING"]);
    let mut worker = app.worker(&[]);
    worker.expect_banner("results:     disabled://");
    crate::harness::eventually("its end", || {
        (app.qworker(&["result", "a"]).code == 69).then_some(())
    });
    assert_eq!(worker.stop(Signal::SIGTERM), 0);
}
