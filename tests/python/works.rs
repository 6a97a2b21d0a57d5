//! We send, a real Python worker runs it, and we read its result.

use super::celery;
use super::worker::PythonWorker;
use crate::harness::{Place, eventually, in_every_place};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

in_every_place! {
    a_python_worker_runs_what_we_send
    what_python_sends_for_later_stays_pythons
}

fn a_python_worker_runs_what_we_send(place: Place) {
    let app = place.app("");
    // We make the file, with our columns; Python works on it.
    let call = |args: &[&str]| {
        let args = [&["call", "--unregistered"], args].concat();
        app.must(&args)
    };
    let sum = call(&["py.add", "--args", "[2, 3]"]);
    let large = call(&["py.add", "--args", "[12345678901234567890123]", "--kwargs", r#"{"b": 2}"#]);
    let typed = call(&["py.kind", "--args", r#"[{"__type__": "base64", "__value__": "/w=="}]"#]);
    let text = call(&["py.kind", "--args", "[\"ü\\u0000\"]"]);
    let fail = call(&["py.fail"]);
    let me = call(&["py.me", "--task-id", "our-own-id"]);
    assert_eq!(me, "our-own-id");
    let later = call(&["py.add", "--args", "[20, 22]", "--countdown", "1"]);
    let _worker = PythonWorker::start(&app, "");
    let result = |id: &str| -> Value {
        let output = eventually("a result", || {
            let output = app.qworker(&["result", id, "--json", "--wait", "--timeout", "60"]);
            (output.code < 2).then_some(output)
        });
        serde_json::from_str(&output.stdout).unwrap()
    };
    assert_eq!(result(&sum)["result"], json!(5));
    assert_eq!(app.must(&["result", &sum]), "5");
    let digits = result(&large).to_string();
    assert!(digits.contains("\"SUCCESS\""), "{digits}");
    assert_eq!(result(&typed)["result"], json!(["bytes", "b'\\xff'"]));
    assert_eq!(result(&text)["result"], json!(["str", "'ü\\x00'"]));
    let failed = result(&fail);
    assert_eq!(failed["status"], json!("FAILURE"));
    assert_eq!(failed["result"]["exc_type"], json!("KeyError"));
    assert!(failed["traceback"].as_str().unwrap().contains("raise KeyError"));
    assert_eq!(result(&later)["result"], json!(42));
    assert_eq!(result(&me)["result"], json!(["our-own-id", "our-own-id", 0]));
}

/// A worker of ours that gets them first, does not know their names and is stopped then, has put none by.
fn what_python_sends_for_later_stays_pythons(place: Place) {
    let app = place.app("ours: {shell: 'echo ran'}\n");
    let mut worker = app.worker(&["-c", "2"]);
    let script = r#"
sent = [app.send_task(name, (1,), countdown=4) for name in ("ours", "py.add", "py.add", "ours", "py.add")]
say([result.id for result in sent])
"#;
    let ids = celery(&app, script);
    let queues =
        || -> Value { serde_json::from_str(&app.must(&["list", "queues", "--json"])).unwrap() };
    let counts = |queue: &Value| {
        let of = |name: &str| queue[name].as_u64().unwrap();
        (of("ready"), of("scheduled"), of("held"))
    };
    // On a slow machine ours have run before anybody looks.
    eventually("ours are put by, and no others", || {
        matches!(counts(&queues()[0]), (3, 0..=2, 0)).then_some(())
    });
    let result = |n: usize| -> Value {
        let id = ids[n].as_str().unwrap();
        let output = app.must(&["result", id, "--json", "--wait", "--timeout", "60"]);
        serde_json::from_str(&output).unwrap()
    };
    assert_eq!((&result(0)["result"], &result(3)["result"]), (&json!("ran"), &json!("ran")));
    assert_eq!(worker.stop(Signal::SIGTERM), 0);
    let _python = PythonWorker::start(&app, "");
    for n in [1, 2, 4] {
        assert_eq!((n, &result(n)["result"]), (n, &json!(2)));
    }
}
