//! `qworker list`: the application's tasks, the broker's queues.

use super::{TASKS, app, json, printed, refused};
use crate::harness::{Place, TestDir, in_every_place};

#[test]
fn tasks_in_a_table_and_as_json() {
    let app = app();
    app.program("tasks.d/media/shrink", "#!/bin/sh\n");
    let table = app.qworker(&["list", "tasks"]);
    printed(
        &table,
        "Task          Kind     Arguments     Queue   Description\n\
         add           exec     a, b          celery  adds two numbers\n\
         fail          shell    any           celery\n\
         greet         exec     name=\"world\"  celery\n\
         later         shell    any           celery\n\
         media.shrink  program  any           celery\n\
         thumb         shell    any           media\n",
    );
    let all = json(&app.must(&["list", "tasks", "--json"]));
    let add = &all[0];
    assert_eq!(
        (&add["name"], &add["params"], &add["line"]),
        (&"add".into(), &"a, b".into(), &2.into())
    );
    assert!(add["file"].as_str().unwrap().ends_with("tasks.d/tasks.yaml"));
    printed(&TestDir::new().qworker(&["list", "tasks", "--json"]), "[]\n");
}

/// A broken task is told of, and does not hide the others.
#[test]
fn broken_tasks_are_a_warning() {
    let app = app();
    app.write("tasks.d/broken.yaml", "one: {shel: ':'}\n");
    let output = app.qworker(&["list", "tasks"]);
    assert_eq!(output.code, 0);
    assert!(output.stdout.contains("greet") && !output.stdout.contains("one"));
    assert!(output.stderr.starts_with("Warning: ") && output.stderr.contains("broken.yaml:1: one"));
}

in_every_place! {
    queues_and_what_is_in_them
}

fn queues_and_what_is_in_them(place: Place) {
    let app = place.app(TASKS);
    let none = app.qworker(&["list", "queues"]);
    assert_eq!((none.code, none.stdout.as_str()), (0, ""));
    assert_eq!(none.stderr, "No queues: nothing was ever sent.\n");
    app.must(&["call", "greet"]);
    app.must(&["call", "greet", "--countdown", "1000"]);
    app.must(&["call", "thumb"]);
    printed(
        &app.qworker(&["list", "queues"]),
        "Queue   Ready  Scheduled  Held\n\
         celery  1      1          0\n\
         media   1      0          0\n",
    );
    let all = json(&app.must(&["list", "queues", "-j"]));
    assert_eq!(
        all[0],
        serde_json::json!({"name": "celery", "ready": 1, "scheduled": 1, "held": 0})
    );
    refused(&app.qworker(&["list", "queues", "extra"]), 2, &["'extra'"]);
}
