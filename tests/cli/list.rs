//! `qworker list tasks` and `list queues`.

use crate::harness::TestDir;
use serde_json::{Value, json};

#[test]
fn tasks_with_kind_arguments_queue_and_description() {
    let app = TestDir::with(
        "add: {shell: 'true', params: [a, {b: 1}], description: Add numbers}\nrun: {exec: [ls], queue: media}\n",
    );
    app.program("tasks.d/media/tool.sh", "#!/bin/sh\n");
    let table = app.must(&["list", "tasks"]);
    let lines: Vec<&str> = table.lines().collect();
    let words = |n: usize| lines[n].split_whitespace().collect::<Vec<_>>();
    assert_eq!(words(0), ["Task", "Kind", "Arguments", "Queue", "Description"]);
    assert_eq!(words(1), ["add", "shell", "a,", "b=1", "celery", "Add", "numbers"]);
    assert_eq!(words(2), ["media.tool", "program", "any", "celery"]);
    assert_eq!(words(3), ["run", "exec", "any", "media"]);
    assert_eq!(lines.len(), 4);
    let all: Value = serde_json::from_str(&app.must(&["list", "tasks", "--json"])).unwrap();
    assert_eq!(all[0]["name"], json!("add"));
    assert_eq!((&all[0]["params"], &all[0]["line"]), (&json!("a, b=1"), &json!(1)));
    assert_eq!(all.as_array().unwrap().len(), 3);
}

#[test]
fn queues_with_what_is_in_them() {
    let app = TestDir::with("add: {shell: 'true'}\n");
    assert_eq!(app.must(&["list", "queues"]), "Queue  Ready  Scheduled  Held");
    app.must(&["call", "add"]);
    app.must(&["call", "add", "--countdown", "600"]);
    let table = app.must(&["list", "queues"]);
    let words: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(words, ["celery", "1", "1", "0"]);
    let all: Value = serde_json::from_str(&app.must(&["list", "queues", "--json"])).unwrap();
    assert_eq!(all, json!([{"name": "celery", "ready": 1, "scheduled": 1, "held": 0}]));
}

#[test]
fn a_reader_that_goes_away_ends_it_in_peace() {
    let app =
        TestDir::with(&(0..2000).map(|n| format!("task{n}: {{shell: x}}\n")).collect::<String>());
    let program = env!("CARGO_BIN_EXE_qworker");
    let script = format!("'{program}' list tasks | head -n 2; echo ${{PIPESTATUS[0]}}");
    let output = std::process::Command::new("/bin/bash")
        .args(["-c", &script])
        .current_dir(app.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(text.lines().last(), Some("0"), "{text}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}
