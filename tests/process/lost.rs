//! Tasks that take their process, or their worker, with them.

use super::{SLOW, await_empty, await_lines, left, send_many};
use crate::harness::{Place, in_every_place, process};
use nix::sys::signal::Signal;
use serde_json::Value;

const POISON: &str = r#"
poison:
  shell: 'echo "$QWORKER_TASK_ID" >>started; echo bitter >&2; kill -9 $$'
once:
  shell: 'echo "$QWORKER_TASK_ID" >>started; kill -9 $$'
  acks_late: false
"#;

in_every_place! {
    a_task_that_kills_itself_is_started_max_deliveries_times_then_kept
    acks_early_is_at_most_once
    a_worker_that_dies_repeats_what_it_held_and_nothing_else
}

fn a_task_that_kills_itself_is_started_max_deliveries_times_then_kept(place: Place) {
    let app = place.app(POISON);
    app.settings("task_max_deliveries: 3\n");
    let mut worker = app.worker(&["-c", "2"]);
    let result = app.qworker(&["call", "poison", "--task-id", "p", "--wait", "--json"]);
    assert_eq!(result.code, 1, "{result:?}");
    let meta: Value = serde_json::from_str(&result.stdout).unwrap();
    assert_eq!(meta["status"], "FAILURE");
    assert_eq!(meta["result"]["exc_type"], "WorkerLostError");
    assert_eq!(meta["result"]["exc_module"], "billiard.exceptions");
    let what = meta["result"]["exc_message"][0].as_str().unwrap();
    assert!(what.contains("signal 9 (SIGKILL)") && !what.contains("memory 0.0"), "{what}");
    assert!(what.contains("bitter"), "the last lines of stderr: {what}");
    assert_eq!(meta["traceback"], "bitter");
    assert_eq!(app.lines("started"), ["p", "p", "p"]);
    let dead: Value = serde_json::from_str(&app.must(&["dead", "list", "--json"])).unwrap();
    assert_eq!(dead.as_array().map(Vec::len), Some(1), "{dead}");
    assert_eq!(
        (&dead[0]["reason"], &dead[0]["id"], &dead[0]["task"]),
        (&"lost".into(), &"p".into(), &"poison".into())
    );
    assert!(dead[0]["detail"].as_str().unwrap().contains("signal 9"), "{dead}");
    // Requeued, its count begins anew.
    app.must(&["dead", "requeue", "--all"]);
    await_lines(&app, "started", 6);
    await_empty(&app);
    assert_eq!(app.lines("started").len(), 6);
    assert_eq!(worker.stop(Signal::SIGTERM), 0);
}

fn acks_early_is_at_most_once(place: Place) {
    let app = place.app(&format!("{POISON}{SLOW}"));
    app.settings("task_acks_late: false\n");
    let mut worker = app.worker(&["-c", "2"]);
    // Its own death.
    let failed = app.qworker(&["call", "once", "--task-id", "o", "--wait"]);
    assert_eq!(failed.code, 1);
    assert!(failed.stderr.starts_with("FAILURE: WorkerLostError: "), "{failed:?}");
    // Its worker's.
    app.must(&["call", "slow", "--task-id", "s"]);
    await_lines(&app, "started", 2);
    assert_eq!(left(&app), 0, "acknowledged before the start");
    // No message, and no answer yet: its id is known all the same.
    let running = app.qworker(&["result", "s"]);
    assert_eq!((running.code, running.stderr.as_str()), (75, "STARTED: not ready yet\n"));
    let old = worker.pid();
    process::send(old, Signal::SIGKILL);
    worker.expect_line("starting a new worker");
    // The new one is at work, and has nothing to repeat.
    app.must(&["call", "tiny", "--wait"]);
    assert_ne!(worker.pid(), old);
    // A cold shutdown cannot give it back, and says so.
    app.must(&["call", "slow", "--task-id", "c"]);
    await_lines(&app, "started", 3);
    assert_eq!(worker.stop(Signal::SIGQUIT), 0);
    assert_eq!(app.lines("started"), ["o", "s", "c"]);
    let stopped = app.qworker(&["result", "c"]);
    assert_eq!(stopped.code, 1, "{stopped:?}");
    assert!(stopped.stderr.contains("WorkerLostError: stopped by the shutdown"), "{stopped:?}");
    assert_eq!(left(&app), 0);
    assert_eq!(app.must(&["dead", "list", "--json"]), "[]");
}

/// What a dead worker had taken ahead had not started; only what runs again is in danger.
fn a_worker_that_dies_repeats_what_it_held_and_nothing_else(place: Place) {
    let app = place.app(SLOW);
    let mut worker = app.worker(&["-c", "3"]);
    let done = send_many(&app, "tiny", 50);
    await_empty(&app);
    let ids = send_many(&app, "slow", 3);
    await_lines(&app, "started", 3);
    process::send(worker.pid(), Signal::SIGKILL);
    await_lines(&app, "started", 6);
    app.write("go", "");
    for id in ids.iter().chain(&done) {
        assert!(["done", "null"].contains(&app.must(&["result", id, "--wait"]).as_str()));
    }
    assert_eq!(worker.stop(Signal::SIGTERM), 0);
    let started = app.lines("started");
    assert_eq!(started.len(), 6);
    for id in &ids {
        assert_eq!(started.iter().filter(|line| *line == id).count(), 2);
    }
}
