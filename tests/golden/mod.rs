//! Bytes of the real Celery: `messages.json`, made by `record.py`, read by us.

use chrono::{DateTime, Utc};
use qworker::clock;
use qworker::runner::Attempt;
use qworker::runner::context::AttemptArguments;
use qworker::task::{Program, keys};
use qworker::wire::{self, Message, Payload};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

struct Case {
    name: String,
    payload: Payload,
    expect: Value,
    /// The sender's clock, before and after.
    window: [i64; 2],
}

fn cases() -> Vec<Case> {
    let document: Value = serde_json::from_str(include_str!("messages.json")).unwrap();
    assert!(document["celery"].as_str().unwrap().starts_with("5.7."));
    let cases = document["cases"].as_array().unwrap().iter().map(|case| Case {
        name: case["name"].as_str().unwrap().into(),
        payload: Payload::from_envelope(case["payload"].as_str().unwrap()),
        expect: case["expect"].clone(),
        window: [0, 1].map(|n| case["window"][n].as_i64().unwrap()),
    });
    let cases: Vec<Case> = cases.collect();
    assert!(cases.len() > 35);
    cases
}

/// An attempt at a task without `params`.
fn attempt(arguments: wire::Arguments) -> Attempt {
    let program = Program::Shell(String::new());
    Attempt {
        task: Arc::new(keys::plain("add", Path::new("add.yaml"), 1, program)),
        id: String::new(),
        root_id: String::new(),
        parent_id: String::new(),
        retries: 0,
        hostname: "".into(),
        queue: "".into(),
        args: arguments.args,
        kwargs: arguments.kwargs,
        bound: Vec::new(),
        details: vec![],
        access: None,
        worker: None,
        soft_time_limit: None,
        time_limit: None,
        env: Arc::default(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Compares an instant with what was asked for: a number, null, or `window+SECONDS`.
fn same_instant(case: &Case, found: Option<DateTime<Utc>>, field: &str) {
    let found = found.map(|at| at.timestamp_micros());
    let context = format!("{}: {field}", case.name);
    match case.expect[field].as_str() {
        None => assert_eq!(found, case.expect[field].as_i64(), "{context}"),
        Some(window) => {
            let after = window.strip_prefix("window+").unwrap().parse::<i64>().unwrap() * 1_000_000;
            let found = found.expect(&context);
            let (from, to) = (case.window[0] + after, case.window[1] + after);
            assert!((from..=to).contains(&found), "{context}: {found} not in {from}..{to}");
        }
    }
}

#[test]
fn headers_are_read_as_python_meant_them() {
    for case in cases() {
        let message = case.payload.decode().unwrap();
        let seconds = |limit: Option<Duration>| json!(limit.map(|limit| limit.as_secs_f64()));
        let expect = &case.expect;
        for (field, found) in [
            ("task", json!(message.task)),
            ("id", json!(message.id)),
            ("root_id", json!(message.root_id)),
            ("parent_id", json!(message.parent_id)),
            ("retries", json!(message.retries)),
            ("ignore_result", json!(message.ignore_result)),
            ("priority", json!(message.priority)),
            ("display", json!(message.display_name())),
        ] {
            assert_eq!(found, expect[field], "{}: {field}", case.name);
        }
        for (n, found) in
            [seconds(message.time_limit), seconds(message.soft_time_limit)].iter().enumerate()
        {
            assert_eq!(found.as_f64(), expect["timelimit"][n].as_f64(), "{}: limit {n}", case.name);
        }
        same_instant(&case, message.eta, "eta");
        same_instant(&case, message.expires, "expires");
    }
}

#[test]
fn arguments_reach_a_program_as_python_sent_them() {
    for case in cases() {
        let arguments = case.payload.decode().unwrap().arguments().unwrap();
        let follow_ups =
            json!(arguments.embed.as_ref().map_or_else(Vec::new, |embed| embed.names()));
        let seen = AttemptArguments::of(&attempt(arguments));
        let (args, kwargs) = seen.all().split_at(seen.positional().len());
        let args: Vec<String> = args.iter().map(|arg| hex(&arg.text)).collect();
        assert_eq!(json!(args), case.expect["args"], "{}", case.name);
        let expected = case.expect["kwargs"].as_object().unwrap();
        let names: Vec<&String> = kwargs.iter().filter_map(|arg| arg.name.as_ref()).collect();
        assert_eq!(names, expected.keys().collect::<Vec<_>>(), "{}: in their order", case.name);
        for arg in kwargs {
            let name = arg.name.as_ref().unwrap();
            assert_eq!(json!(hex(&arg.text)), expected[name], "{}: {name}", case.name);
        }
        assert_eq!(follow_ups, case.expect["follow_ups"], "{}", case.name);
    }
}

#[test]
fn a_retry_changes_three_headers_of_any_message() {
    for case in cases() {
        let message = case.payload.decode().unwrap();
        let eta = clock::now();
        let payload = case.payload.retry(&message, eta).unwrap();
        let retry = payload.decode().unwrap();
        assert_eq!(retry.retries, message.retries + 1, "{}", case.name);
        assert_eq!(retry.eta.map(clock::iso), Some(clock::iso(eta)), "{}", case.name);
        assert_eq!((&retry.id, &retry.root_id), (&message.id, &message.root_id));
        let texts = |message: &Message| -> Vec<String> {
            message.arguments().unwrap().args.iter().map(|arg| arg.get().to_string()).collect()
        };
        assert_eq!(texts(&retry), texts(&message), "{}: to the letter", case.name);
        let strip = |payload: &Payload| {
            let mut document: Value = serde_json::from_str(&payload.to_envelope()).unwrap();
            for (map, key) in [
                ("headers", "retries"),
                ("headers", "eta"),
                ("headers", "parent_id"),
                ("properties", "delivery_tag"),
            ] {
                document[map].as_object_mut().unwrap().shift_remove(key);
            }
            if document["headers"].as_object().unwrap().is_empty() {
                // Protocol 1 has all of that in its body.
                document.as_object_mut().unwrap().shift_remove("body");
            }
            document
        };
        assert_eq!(strip(&payload), strip(&case.payload), "{}", case.name);
    }
}
