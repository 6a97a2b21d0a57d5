//! What an unmodified Python client raises, and what it reads.

use super::celery;
use crate::harness::{Place, TestDir, in_every_place};
use serde_json::{Value, json};

const TASKS: &str = r#"
fails: {shell: 'echo "it broke" >&2; exit 3'}
picky: {shell: 'true', params: [a]}
hard: {shell: 'sleep 60', time_limit: 0.3}
soft: {shell: 'sleep 60', soft_time_limit: 0.3}
killed: {shell: 'kill -KILL $$'}
binary: {shell: 'printf "\377\000x"'}
nothing: {shell: 'true'}
json: {shell: 'echo "{\"a\": [1, 2.5, null]}"'}
"#;

/// Sends `task`, and says what `get` raised.
fn raised(app: &TestDir, task: &str, args: &str) -> Value {
    let script = format!(
        r#"
sent = app.send_task("{task}", {args})
try:
    say(["returned", sent.get(timeout=60)])
except Exception as error:
    import subprocess, billiard.exceptions as billiard, celery.exceptions
    kinds = [kind.__name__ for kind in
             (subprocess.CalledProcessError, TypeError, billiard.TimeLimitExceeded,
              billiard.SoftTimeLimitExceeded, billiard.WorkerLostError,
              celery.exceptions.NotRegistered)
             if isinstance(error, kind)]
    say({{"kinds": kinds, "text": str(error), "state": sent.state,
         "traceback": sent.traceback, "code": getattr(error, "returncode", None)}})
"#
    );
    celery(app, &script)
}

in_every_place! {
    exceptions_are_the_true_kinds
    values_are_the_values
    the_whole_document_is_as_python_has_it
    results_of_python_are_read_by_us_in_every_state
    what_python_has_revoked_is_not_started
    what_a_task_prints_is_what_all_read
}

fn exceptions_are_the_true_kinds(place: Place) {
    let app = place.app(TASKS);
    app.settings("task_max_deliveries: 1\ntask_unregistered: dead\n");
    let _worker = app.worker(&["-c", "4"]);

    let error = raised(&app, "fails", "()");
    assert_eq!(error["kinds"], json!(["CalledProcessError"]));
    assert_eq!((&error["code"], &error["state"]), (&json!(3), &json!("FAILURE")));
    assert!(error["traceback"].as_str().unwrap().contains("it broke"), "{error}");

    let error = raised(&app, "picky", "(1, 2)");
    assert_eq!(error["kinds"], json!(["TypeError"]));
    assert_eq!(error["text"], json!("picky() takes 1 positional argument but 2 were given"));
    assert_eq!(error["traceback"], json!(null));

    let error = raised(&app, "hard", "()");
    assert_eq!(error["kinds"], json!(["TimeLimitExceeded"]));
    assert_eq!(error["text"], json!("TimeLimitExceeded(0.3,)"));

    let error = raised(&app, "soft", "()");
    assert_eq!(error["kinds"], json!(["SoftTimeLimitExceeded"]));

    let error = raised(&app, "killed", "()");
    assert_eq!(error["kinds"], json!(["WorkerLostError"]));
    assert!(error["text"].as_str().unwrap().contains("signal 9 (SIGKILL)"), "{error}");

    let error = raised(&app, "unheard.of", "()");
    assert_eq!(error["kinds"], json!(["NotRegistered"]), "{error}");
}

fn values_are_the_values(place: Place) {
    let app = place.app(TASKS);
    let _worker = app.worker(&["-c", "2"]);
    let got = celery(
        &app,
        r#"
binary = app.send_task("binary").get(timeout=60)
say([binary == b"\xff\x00x", app.send_task("nothing").get(timeout=60),
     app.send_task("json").get(timeout=60)])
"#,
    );
    assert_eq!(got, json!([true, null, {"a": [1, 2.5, null]}]));
}

fn the_whole_document_is_as_python_has_it(place: Place) {
    let app = place.app("add: {shell: 'echo $(( $1 + $2 ))'}\n");
    app.settings("result_extended: true\n");
    let _worker = app.worker(&["-n", "w1@here", "-Q", "sums"]);
    let id = app.must(&["call", "add", "--args", "[2, 3]", "--queue", "sums", "--wait", "--json"]);
    let ours: Value = serde_json::from_str(&id).unwrap();
    // A field of ours, which Python's clients carry along or never see.
    let usage = ours["usage"].as_object().unwrap();
    assert_eq!(usage.keys().collect::<Vec<_>>(), ["runtime", "user", "system", "memory_peak"]);
    assert!(usage["runtime"].as_f64().unwrap() > 0.0, "{usage:?}");
    let script = r#"
app.conf.result_extended = True
from celery.result import AsyncResult
r = AsyncResult("ID", app=app)
say({"value": r.get(timeout=5), "state": r.state, "name": r.name, "args": r.args, "kwargs": r.kwargs,
     "worker": r.worker, "retries": r.retries, "queue": r.queue, "children": r.children,
     "traceback": r.traceback, "done": r.date_done.isoformat(),
     "usage": r.backend.get_task_meta(r.id).get("usage")})
"#;
    let got = celery(&app, &script.replace("ID", ours["task_id"].as_str().unwrap()));
    let done = ours["date_done"].as_str().unwrap().trim_end_matches("+00:00");
    let expected = json!({"value": 5, "state": "SUCCESS", "name": "add", "args": [2, 3], "kwargs": {},
        "worker": "w1@here", "retries": 0, "queue": "sums", "traceback": null,
        // As each of Celery's own stores has none.
        "children": if place == Place::Redis { json!([]) } else { json!(null) },
        "usage": if place == Place::Redis { ours["usage"].clone() } else { json!(null) }});
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(&got[key], value, "{key}: {got}");
    }
    assert!(got["done"].as_str().unwrap().starts_with(done), "{got} {ours}");
}

fn results_of_python_are_read_by_us_in_every_state(place: Place) {
    let app = place.app("");
    std::fs::create_dir(app.file("var")).unwrap();
    celery(
        &app,
        r#"
app.conf.result_extended = True
b = app.backend
b.store_result("ok", {"ü": [1, b"\xff"]}, "SUCCESS")
b.store_result("bad", KeyError("k", 5), "FAILURE", traceback="line 1\nline 2")
b.store_result("going", {"pid": 1, "hostname": "h"}, "STARTED")
b.store_result("again", ValueError("x"), "RETRY")
b.store_result("custom", {"percent": 5}, "PROGRESS")
b.mark_as_revoked("revoked", "terminated")
say(None)
"#,
    );
    let result = |id: &str| {
        let output = app.qworker(&["result", id, "--json"]);
        (output.code, serde_json::from_str::<Value>(&output.stdout).unwrap())
    };
    let (code, ok) = result("ok");
    let bytes = json!({"__type__": "base64", "__value__": "/w=="});
    assert_eq!((code, &ok["result"]), (0, &json!({"ü": [1, bytes]})));
    assert!(ok["date_done"].as_str().unwrap().ends_with("+00:00"));
    let (code, bad) = result("bad");
    let expected =
        json!({"exc_type": "KeyError", "exc_message": ["k", 5], "exc_module": "builtins"});
    assert_eq!((code, &bad["result"], &bad["traceback"]), (1, &expected, &json!("line 1\nline 2")));
    for (id, state) in [("going", "STARTED"), ("again", "RETRY"), ("custom", "PROGRESS")] {
        let (code, meta) = result(id);
        assert_eq!((code, &meta["status"], &meta["date_done"]), (75, &json!(state), &json!(null)));
    }
    let (code, revoked) = result("revoked");
    assert_eq!((code, &revoked["status"]), (1, &json!("REVOKED")));
    // The table has our columns now, and Python goes on with it.
    let got = celery(
        &app,
        r#"
app.conf.result_extended = True
from celery.result import AsyncResult
app.backend.store_result("later", [1], "SUCCESS")
say([AsyncResult("later", app=app).get(timeout=5), AsyncResult("ok", app=app).state])
"#,
    );
    assert_eq!(got, json!([[1], "SUCCESS"]));
    assert_eq!(result("later").1["result"], json!([1]));
}

fn what_python_has_revoked_is_not_started(place: Place) {
    let app = place.app("say: {shell: 'echo \"$1\" >>ran'}\n");
    app.must(&["call", "say", "-a", "[\"gone\"]", "--task-id", "gone"]);
    celery(&app, "app.backend.mark_as_revoked('gone', 'revoked')\nsay(None)");
    let _worker = app.worker(&["-c", "1"]);
    app.must(&["call", "say", "-a", "[\"stays\"]", "--wait"]);
    assert_eq!(app.read("ran"), "stays\n");
    let output = app.qworker(&["result", "gone", "--json"]);
    let document: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(document["status"], "REVOKED");
    let queues = app.must(&["list", "queues", "--json"]);
    let queues: Value = serde_json::from_str(&queues).unwrap();
    assert_eq!((&queues[0]["ready"], &queues[0]["held"]), (&json!(0), &json!(0)), "{queues}");
}

fn what_a_task_prints_is_what_all_read(place: Place) {
    let app = place.app("show: {shell: 'printf %s \"$1\"'}\n");
    let _worker = app.worker(&["-c", "2"]);
    let deep = format!("{}1{}", "[".repeat(200), "]".repeat(200));
    let (deeper, long) = ("[".repeat(600) + &"]".repeat(600), "1".repeat(4301));
    let odd = r#"{"__type__": "set", "__value__": 1}"#;
    let all = ["1e400", "123456789012345678901234567890", &deep, &deeper, &long, odd];
    let script = r#"
import json
say([repr(app.AsyncResult(id).get(timeout=60)) for id in IDS])
"#;
    let ids: Vec<String> = all
        .iter()
        .map(|text| {
            let args = json!([text]).to_string();
            let id = app.must(&["call", "show", "-a", &args]);
            let output = app.qworker(&["result", &id, "--wait"]);
            assert_eq!((output.code, output.stdout.trim_end()), (0, *text), "{}", output.stderr);
            id
        })
        .collect();
    let read = celery(&app, &script.replace("IDS", &json!(ids).to_string()));
    assert_eq!((&read[0], &read[1]), (&json!("inf"), &json!(all[1])));
    assert_eq!(read[2], json!(deep));
    for n in 3..6 {
        assert_eq!(read[n], json!(format!("'{}'", all[n])), "a text");
    }
}
