//! Messages that would grow: a few bytes that become gigabytes, or hours of comparing, when what
//! they ask for is made of them. Each is refused at its limit, or done in a moment; the fuzzer's inputs
//! are too short to show it.

use qworker::canvas::builtin::BuiltIn;
use qworker::canvas::{self, Chords, Context, Ended, Returned};
use qworker::clock;
use qworker::wire::{Embed, Exception, body, value};
use serde_json::value::RawValue;
use serde_json::{Value, json};

fn context() -> Context<'static> {
    let now = clock::parse("2030-01-01T00:00:00").unwrap();
    Context { root_id: "root", parent_id: "parent", priority: None, now, chords: Chords::Counted }
}

fn canvas(kind: &str, kwargs: Value, options: Value) -> Value {
    json!({"task": format!("celery.{kind}"), "kwargs": kwargs, "options": options, "subtask_type": kind})
}

/// Why it cannot follow a task.
fn refused(callback: &Value) -> String {
    let embed = Embed { callbacks: vec![value::raw(callback)], ..Embed::default() };
    canvas::check(&embed, context()).map(drop).unwrap_err().0
}

fn tasks(count: usize) -> Vec<Value> {
    vec![json!({"task": "a"}); count]
}

/// Signatures that differ, of so many bytes together.
fn errbacks(count: usize, bytes: usize) -> Vec<Value> {
    let args = "x".repeat(bytes / count);
    (0..count).map(|n| json!({"task": format!("e{n}"), "args": [args]})).collect()
}

#[test]
fn a_chain_is_as_long_as_python_goes() {
    let chain = |steps| canvas("chain", json!({"tasks": tasks(steps)}), json!({}));
    let embed = |steps| Embed { callbacks: vec![value::raw(&chain(steps))], ..Embed::default() };
    assert!(canvas::check(&embed(900), context()).is_ok());
    assert!(refused(&chain(100_000)).contains("limit of 1000 steps"));
}

#[test]
fn copies_for_each_part_are_bounded() {
    let too_large = |why: String| assert!(why.contains("larger than the limit"), "{why}");
    let options = json!({"link_error": errbacks(900, 100_000)});
    too_large(refused(&canvas("chain", json!({"tasks": tasks(900)}), options)));
    let group = |options| canvas("group", json!({"tasks": tasks(50_000)}), options);
    let large = json!({"task": "b", "args": ["x".repeat(100_000)]});
    too_large(refused(&group(json!({"chord": large}))));
    let last = json!({"tasks": [{"task": "a"}, group(json!({}))]});
    too_large(refused(&canvas("chain", last, json!({"chord": large}))));
    too_large(refused(&group(json!({"task_id": "x".repeat(100_000)}))));
    too_large(refused(&group(json!({"queue": "x".repeat(100_000)}))));
    too_large(refused(&group(json!({"headers": {"h": "x".repeat(100_000)}}))));
    let many: serde_json::Map<String, Value> =
        (0..300).map(|n| (format!("o{n}"), json!(n))).collect();
    let why = refused(&group(many.into()));
    assert!(why.contains("options: found 300"), "{why}");
}

#[test]
fn lists_are_compared_in_a_moment() {
    let link: Vec<Value> = (0..300_000).map(|n| json!({"task": n})).collect();
    let chain = canvas("chain", json!({"tasks": tasks(2)}), json!({"link": link}));
    let embed = Embed { callbacks: vec![value::raw(&chain)], ..Embed::default() };
    assert!(canvas::check(&embed, context()).is_ok());
}

#[test]
fn a_failed_group_tells_no_more_than_there_is_room_for() {
    let options = json!({"link_error": errbacks(1000, 10_000_000)});
    let body = value::raw(&canvas("group", json!({"tasks": tasks(2000)}), options));
    let failed = Returned::Failed("m".into(), Exception::new("builtins", "ValueError", "why"));
    let ended = canvas::complete(&body, &[failed], &|_| false, context()).unwrap();
    let Ended::Failed { calls, .. } = ended else { panic!("{ended:?}") };
    assert!(!calls.drafts.is_empty() && calls.drafts.len() < 10_000, "{}", calls.drafts.len());
}

#[test]
fn chunks_are_bounded() {
    let task = json!({"task": "a", "args": ["x".repeat(100_000)]});
    let kwargs = json!({"task": task, "it": vec![1; 1_000], "n": 1});
    let Value::Object(fields) = kwargs else { panic!() };
    let kwargs: Vec<(String, Box<RawValue>)> =
        fields.iter().map(|(name, value)| (name.clone(), value::raw(value))).collect();
    let why = BuiltIn::Chunks.run(&[], &kwargs, context()).map(drop).unwrap_err().repr(1);
    assert!(why.contains("larger than the limit"), "{why}");
}

/// Each element of two bytes would take fifty.
#[test]
fn a_body_has_no_more_elements_than_there_is_room_for() {
    let many = "1,".repeat(1_100_000);
    let fields: String = (0..1_100_000).map(|n| format!("\"{n}\":1,")).collect();
    for text in [
        format!("[[{many}1], {{}}, {{}}]"),
        format!("[{many}1]"),
        format!("[[], {{{fields}\"a\":1}}, {{}}]"),
        format!("[[], {{}}, {{{fields}\"a\":1}}]"),
    ] {
        let why = body::decode(&text).unwrap_err().0;
        assert!(why.contains("more than the limit of 1048576 elements"), "{why}");
    }
    let why = body::decode_v1(&format!("{{\"args\": [{many}1]}}")).unwrap_err().0;
    assert!(why.contains("more than the limit of 1048576 elements"), "{why}");
}
