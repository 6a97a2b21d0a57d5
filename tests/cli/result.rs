//! `qworker result`.

use super::refused;
use crate::harness::TestDir;
use serde_json::{Value, json};

const TASKS: &str = r#"
add: {shell: 'echo $(( $1 + $2 ))'}
fail: {shell: 'echo line 1 >&2; echo line 2 >&2; exit 3'}
text: {shell: 'echo two words'}
"#;

#[test]
fn an_unknown_id_is_told_from_a_waiting_one() {
    let app = TestDir::with(TASKS);
    refused(&app.qworker(&["result", "nobody"]), 69, &["unknown task id nobody"]);
    let id = app.must(&["call", "add", "-a", "[1, 2]"]);
    refused(&app.qworker(&["result", &id]), 75, &["PENDING: waits in queue celery"]);
    let later = app.must(&["call", "add", "-a", "[1, 2]", "--eta", "2099-01-02T03:04:05"]);
    refused(&app.qworker(&["result", &later]), 75, &["until 2099-01-02T03:04:05.000000+00:00"]);
    refused(&app.qworker(&["result", &id, "--wait", "--timeout", "0.1"]), 75, &["not ready"]);
    let json = app.qworker(&["result", &id, "--json"]);
    let document: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(document, json!({"status": "PENDING", "result": null, "task_id": id}));
    // Waiting for one that nobody knows would never end.
    assert_eq!(app.qworker(&["result", "nobody", "--wait"]).code, 69);
}

#[test]
fn success_prints_its_value() {
    let app = TestDir::with(TASKS);
    let _worker = app.worker(&[]);
    let id = app.must(&["call", "add", "-a", "[1, 2]"]);
    assert_eq!(app.must(&["result", &id, "--wait"]), "3");
    assert_eq!(app.must(&["result", &id]), "3");
    assert_eq!(app.must(&["result", &id, "--traceback"]), "");
    let document: Value = serde_json::from_str(&app.must(&["result", &id, "--json"])).unwrap();
    assert_eq!((&document["status"], &document["result"]), (&json!("SUCCESS"), &json!(3)));
    assert_eq!(app.must(&["call", "text", "--wait"]), "two words", "texts without quotes");
}

#[test]
fn failure_is_one_and_says_why() {
    let app = TestDir::with(TASKS);
    let _worker = app.worker(&[]);
    let id = app.must(&["call", "fail"]);
    let output = app.qworker(&["result", &id, "--wait"]);
    refused(&output, 1, &["FAILURE: CalledProcessError: 3", "line 1\nline 2"]);
    let output = app.qworker(&["result", &id, "--traceback"]);
    assert_eq!((output.code, output.stdout.as_str()), (1, "line 1\nline 2\n"));
    let output = app.qworker(&["result", &id, "--json"]);
    let document: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(output.code, 1);
    assert_eq!(document["result"]["exc_type"], json!("CalledProcessError"));
    assert_eq!(document["result"]["exc_module"], json!("subprocess"));
}

#[test]
fn who_waits_is_woken() {
    let app =
        TestDir::with("gate: {shell: 'while [ ! -e open ]; do sleep 0.01; done; echo through'}\n");
    let _worker = app.worker(&[]);
    let id = app.must(&["call", "gate"]);
    let mut command = app.command(&["result", &id, "--wait"]);
    let waiting = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    crate::harness::eventually("the task to begin", || {
        (app.must(&["list", "queues", "--json"]).contains("\"held\":1")).then_some(())
    });
    app.write("open", "");
    let output = waiting.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "through\n");
}
