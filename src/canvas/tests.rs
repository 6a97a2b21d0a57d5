//! Calls against what Celery makes of them.

use super::*;
use crate::clock;
use serde_json::Value;

fn sig(task: &str, options: Value) -> Value {
    json!({"task": task, "args": [7], "kwargs": {}, "options": options, "subtask_type": null, "immutable": false})
}

fn canvas(kind: &str, kwargs: Value) -> Value {
    json!({"task": format!("celery.{kind}"), "args": [], "kwargs": kwargs, "options": {}, "subtask_type": kind, "immutable": false})
}

fn raw(value: &Value) -> Box<RawValue> {
    crate::wire::value::raw(value)
}

fn context() -> Context<'static> {
    Context {
        root_id: "root",
        parent_id: "parent",
        now: clock::parse("2030-01-01T00:00:00").unwrap(),
    }
}

fn after(callbacks: &[Value], chain: &[Value]) -> Result<Calls, Malformed> {
    let all = |list: &[Value]| list.iter().map(raw).collect();
    let embed = Embed { callbacks: all(callbacks), chain: all(chain), ..Embed::default() };
    after_success(&embed, &raw(&json!([1])), context())
}

fn texts(values: &[Box<RawValue>]) -> Vec<&str> {
    values.iter().map(|value| value.get()).collect()
}

#[test]
fn the_result_comes_before_the_arguments_unless_they_are_fixed() {
    let mut fixed = sig("b", json!({}));
    fixed["immutable"] = json!(true);
    let calls = after(&[sig("a", json!({})), fixed], &[]).unwrap();
    let args: Vec<_> = calls.drafts.iter().map(|draft| texts(&draft.args)).collect();
    assert_eq!(args, [vec!["[1]", "7"], vec!["7"]]);
    for draft in &calls.drafts {
        assert_eq!(
            (draft.root_id.as_deref(), draft.parent_id.as_deref()),
            (Some("root"), Some("parent"))
        );
        assert!(
            draft.group.is_some() && draft.group_index.is_some(),
            "several callbacks are a group"
        );
    }
}

#[test]
fn options_become_what_a_message_says() {
    let options = json!({
        "task_id": "T", "queue": "q", "countdown": 1.5, "expires": "2030-01-02T00:00:00", "priority": 4,
        "time_limit": 9, "link": [sig("c", json!({}))], "headers": {"h": 1}, "serializer": "json",
        "stamped_headers": ["s"], "s": ["x"], "MessageGroupId": "g", "ignore_result": true,
    });
    let calls = after(&[sig("a", options)], &[]).unwrap();
    let draft = &calls.drafts[0];
    assert_eq!((&draft.id[..], &draft.queue[..], draft.priority), ("T", "q", Some(4)));
    assert_eq!(draft.eta.map(clock::iso).as_deref(), Some("2030-01-01T00:00:01.500000+00:00"));
    assert_eq!(draft.expires.map(clock::iso).as_deref(), Some("2030-01-02T00:00:00.000000+00:00"));
    assert_eq!((draft.time_limit, draft.ignore_result), (Some(9.0), Some(true)));
    assert_eq!(draft.embed.callbacks.len(), 1);
    let names = |pairs: &[(String, Box<RawValue>)]| -> Vec<String> {
        pairs.iter().map(|(name, _)| name.clone()).collect()
    };
    assert_eq!((names(&draft.stamps), names(&draft.headers)), (vec!["s".into()], vec!["h".into()]));
    assert_eq!(names(&draft.properties), ["MessageGroupId"]);
    assert_eq!(calls.children(), r#"[[["T", null], null]]"#);
}

#[test]
fn a_chain_gives_its_rest_to_its_next_step() {
    let steps = ["3", "2", "1"].map(|n| sig(n, json!({"task_id": n})));
    let calls = after(&[], &steps).unwrap();
    assert_eq!(calls.drafts.len(), 1);
    assert_eq!(calls.drafts[0].task, "1");
    let rest: Vec<String> =
        calls.drafts[0].embed.chain.iter().map(|raw| Signature::read(raw).unwrap().task).collect();
    assert_eq!(rest, ["3", "2"]);
}

#[test]
fn a_group_before_a_step_is_a_chord() {
    let group = canvas("group", json!({"tasks": [sig("a", json!({})), sig("b", json!({}))]}));
    let inner = canvas(
        "chain",
        json!({"tasks": [group, sig("body", json!({"task_id": "B"})), sig("last", json!({"task_id": "L"}))]}),
    );
    let calls = after(&[inner], &[]).unwrap();
    assert_eq!(calls.chords.len(), 1);
    assert_eq!((calls.chords[0].size, calls.chords[0].results.is_none()), (2, true));
    for draft in &calls.drafts {
        assert_eq!(draft.group.as_ref(), Some(&calls.chords[0].group_id));
        let body = Signature::read(draft.embed.chord.as_ref().unwrap()).unwrap();
        assert_eq!((body.task.as_str(), body.text("task_id").unwrap()), ("body", Some("B".into())));
        let rest = crate::wire::signature::list(body.option("chain").unwrap());
        assert_eq!(Signature::read(&rest[0]).unwrap().task, "last");
        assert!(draft.embed.chain.is_empty());
    }
}

#[test]
fn a_chord_whose_member_failed_fails_its_body_and_what_follows_it() {
    let mut body = sig("body", json!({"task_id": "B", "link_error": [sig("err", json!({}))]}));
    body["options"]["chain"] = json!([sig("last", json!({"task_id": "L"}))]);
    let part = ChordMember {
        group_id: "G".into(),
        group_index: Some(0),
        task_id: "M".into(),
        state: "FAILURE",
        result: raw(&json!({})),
        body: raw(&body),
        root_id: "root".into(),
    };
    let returned = [Returned::Value(raw(&json!(1))), Returned::Failed("M".into(), "E('x')".into())];
    let Ended::Failed { error, skipped, calls } = complete(&part, &returned, context()).unwrap()
    else {
        panic!("it was called")
    };
    assert_eq!(error.exc_message, [json!("Dependency M raised E('x')")]);
    let ids: Vec<&str> = skipped.iter().map(|one| one.task_id.as_str()).collect();
    assert_eq!(ids, ["L", "B"]);
    assert_eq!(
        (calls.drafts[0].task.as_str(), texts(&calls.drafts[0].args)),
        ("err", vec!["\"B\"", "7"])
    );
}

#[test]
fn what_is_too_deep_or_too_large_is_refused() {
    // As text: a tree of values so deep could not even be dropped.
    let chord =
        r#"{"task": "celery.chord", "kwargs": {"kwargs": {}, "header": [{"task": "h"}], "body": "#;
    let end = r#"}, "subtask_type": "chord"}"#;
    let deep = format!("{}{{\"task\": \"a\"}}{}", chord.repeat(10_000), end.repeat(10_000));
    let callbacks = vec![RawValue::from_string(deep).unwrap()];
    let embed = Embed { callbacks, ..Embed::default() };
    let error = after_success(&embed, RawValue::NULL, context()).map(|_| ()).unwrap_err();
    assert!(error.0.contains("deeper than the limit of 64"), "{error}");
    let mut body = sig("body", json!({}));
    body["kwargs"]["text"] = json!("x".repeat(1024 * 1024));
    let header: Vec<Value> = (0..200).map(|_| sig("h", json!({}))).collect();
    let wide = canvas("chord", json!({"kwargs": {}, "header": header, "body": body}));
    let error = after(&[wide], &[]).map(|_| ()).unwrap_err();
    assert!(error.0.contains("larger than the limit of 67108864 bytes"), "{error}");
}

#[test]
fn what_is_no_signature_is_told() {
    for (value, told) in [
        (json!("x"), "signature: expected an object with a task, found \"x\""),
        (json!({"args": []}), "signature: no task in {\"args\":[]}"),
        (json!({"task": "a", "args": 1}), "signature of a: args: expected an array, found 1"),
        (
            sig("a", json!({"countdown": "soon"})),
            "signature of a: countdown: expected a number, found \"soon\"",
        ),
        (
            sig("a", json!({"eta": "soon"})),
            "signature of a: eta: expected an ISO 8601 instant, found \"soon\"",
        ),
        (
            sig("a", json!({"exchange": "x", "routing_key": "k"})),
            "signature of a: exchange \"x\" with routing key \"k\" is not supported; expected a queue",
        ),
    ] {
        assert_eq!(after(&[value], &[]).unwrap_err().0, told);
    }
}

#[test]
fn only_a_store_that_counts_can_have_chords() {
    let chord = canvas(
        "chord",
        json!({"kwargs": {}, "header": [sig("h", json!({}))], "body": sig("b", json!({}))}),
    );
    let embed = Embed { callbacks: vec![raw(&chord)], ..Embed::default() };
    assert!(check(&embed, true, context()).is_ok());
    assert!(check(&embed, false, context()).unwrap_err().0.contains("does not count its members"));
}

#[test]
fn a_chord_that_begins_a_chain_gets_the_result() {
    let header = json!([sig("a", json!({})), sig("b", json!({}))]);
    let chord =
        canvas("chord", json!({"kwargs": {}, "header": header, "body": sig("body", json!({}))}));
    let inner = canvas("chain", json!({"tasks": [chord, sig("last", json!({}))]}));
    for next in [inner.clone(), canvas("group", json!({"tasks": [inner.clone(), inner]}))] {
        for draft in after(&[], std::slice::from_ref(&next)).unwrap().drafts {
            assert_eq!(texts(&draft.args), ["[1]", "7"], "{next}");
        }
    }
}

#[test]
fn the_body_of_a_chord_may_be_a_group() {
    let body = canvas("group", json!({"tasks": [sig("x", json!({})), sig("y", json!({}))]}));
    let inner =
        canvas("chord", json!({"kwargs": {}, "header": [sig("a", json!({}))], "body": body}));
    let outer =
        json!({"kwargs": {}, "header": [inner, sig("b", json!({}))], "body": sig("z", json!({}))});
    let calls = after(&[canvas("chord", outer)], &[]).unwrap();
    let sizes: Vec<usize> = calls.chords.iter().map(|begun| begun.size).collect();
    assert_eq!(sizes, [1, 3]);
    let results = calls.chords[1].results.as_deref().unwrap();
    let results: Value = serde_json::from_str(results).unwrap();
    assert_eq!(results[1][0][1].as_array().map(Vec::len), Some(2), "{results}");
}
