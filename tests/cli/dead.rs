//! `qworker dead`.

use super::refused;
use crate::harness::{TestDir, eventually};
use rusqlite::Connection;
use serde_json::{Value, json};

/// An application with one malformed message and one of a task that killed its process.
fn app_with_two() -> TestDir {
    let app = TestDir::with("die: {shell: 'kill -KILL $$'}\nfine: {shell: 'true'}\n");
    app.settings("task_max_deliveries: 1\n");
    app.must(&["call", "fine"]);
    let db = Connection::open(app.database()).unwrap();
    let sql =
        "INSERT INTO kombu_message (payload, queue_id) SELECT 'not { json', id FROM kombu_queue";
    db.execute(sql, []).unwrap();
    let _worker = app.worker(&[]);
    eventually("the malformed one", || (dead(&app).len() == 1).then_some(()));
    app.must(&["call", "die", "--task-id", "D"]);
    eventually("the one that dies", || (dead(&app).len() == 2).then_some(()));
    app
}

fn dead(app: &TestDir) -> Vec<Value> {
    serde_json::from_str(&app.must(&["dead", "list", "--json"])).unwrap()
}

#[test]
fn nothing_is_acknowledged_and_forgotten() {
    let app = app_with_two();
    let all = dead(&app);
    assert_eq!((&all[0]["reason"], &all[1]["reason"]), (&json!("malformed"), &json!("lost")));
    assert_eq!(
        (&all[1]["task"], &all[1]["id"], &all[1]["queue"]),
        (&json!("die"), &json!("D"), &json!("celery"))
    );
    let table = app.must(&["dead", "list"]);
    assert!(table.starts_with("No ") && table.lines().count() == 3, "{table}");
    let number = |n: usize| all[n]["number"].to_string();
    let whole: Value = serde_json::from_str(&app.must(&["dead", "show", &number(0)])).unwrap();
    assert_eq!(whole["message"], json!("not { json"));
    let whole: Value = serde_json::from_str(&app.must(&["dead", "show", &number(1)])).unwrap();
    assert_eq!(whole["message"]["headers"]["task"], json!("die"));
    refused(&app.qworker(&["dead", "show", "999"]), 1, &["no number 999"]);
    let result = app.qworker(&["result", "D"]);
    refused(&result, 1, &["FAILURE: WorkerLostError", "signal 9 (SIGKILL)"]);
}

#[test]
fn they_can_be_sent_again_or_removed() {
    let app = app_with_two();
    let number = |n: usize| dead(&app)[n]["number"].to_string();
    refused(&app.qworker(&["dead", "requeue"]), 2, &["--all"]);
    let (malformed, lost) = (number(0), number(1));
    assert_eq!(app.must(&["dead", "purge", &malformed]), "Removed 1 message.");
    let output = app.qworker(&["dead", "requeue", &lost, "999"]);
    assert_eq!((output.code, output.stdout.as_str()), (1, "Requeued 1 message.\n"));
    assert!(output.stderr.contains("1 of the numbers"), "{output:?}");
    assert!(dead(&app).is_empty());
    let queues = app.must(&["list", "queues", "--json"]);
    assert!(queues.contains("\"ready\":1"), "{queues}");
    let _worker = app.worker(&[]);
    eventually("it dies again", || (dead(&app).len() == 1).then_some(()));
    assert_eq!(app.must(&["dead", "requeue", "--all"]), "Requeued 1 message.");
    eventually("and again", || (dead(&app).len() == 1).then_some(()));
    assert_eq!(app.must(&["dead", "purge", "--all"]), "Removed 1 message.");
}
