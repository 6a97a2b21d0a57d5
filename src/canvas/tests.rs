//! Calls against what Celery makes of them.

use super::*;
use crate::clock;
use crate::wire::Exception;
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
        priority: None,
        now: clock::parse("2030-01-01T00:00:00").unwrap(),
        chords: Chords::Counted,
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
    assert_eq!((&draft.id[..], &draft.queue[..], draft.wire_priority), ("T", "q", Some(4)));
    assert_eq!(draft.eta.map(clock::iso).as_deref(), Some("2030-01-01T00:00:01.500000+00:00"));
    assert_eq!(draft.expires.map(clock::iso).as_deref(), Some("2030-01-02T00:00:00.000000+00:00"));
    assert_eq!((draft.time_limit, draft.ignore_result), (Some(9.0), Some(true)));
    assert_eq!(draft.embed.callbacks.len(), 1);
    let names = |pairs: &[(String, Box<RawValue>)]| -> Vec<String> {
        pairs.iter().map(|(name, _)| name.clone()).collect()
    };
    assert_eq!((names(&draft.stamps), names(&draft.headers)), (vec!["s".into()], vec!["h".into()]));
    assert_eq!(names(&draft.properties), ["MessageGroupId"]);
    assert_eq!(super::listed(&calls.children), r#"[[["T", null], null]]"#);
}

#[test]
fn what_follows_inherits_a_priority_and_what_is_called_may_have_its_own() {
    let inherits = Context { priority: Some(7), ..context() };
    let own = raw(&sig("a", json!({"priority": 3})));
    let embed = Embed { callbacks: vec![own.clone()], ..Embed::default() };
    let calls = after_success(&embed, &raw(&json!(1)), inherits).unwrap();
    assert_eq!(calls.drafts[0].wire_priority, Some(7));
    for (one, priority) in [(own, Some(3)), (raw(&sig("b", json!({}))), Some(7))] {
        let (calls, _) = call(Signature::read(&one).unwrap(), inherits).unwrap();
        assert_eq!(calls.drafts[0].wire_priority, priority);
    }
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
    let returned = [
        Returned::Value(raw(&json!(1))),
        Returned::Failed("M".into(), Exception::new("m", "E", "x")),
    ];
    let Ended::Failed { error, skipped, calls } =
        complete(&raw(&body), &returned, &|_| false, context()).unwrap()
    else {
        panic!("it was called")
    };
    assert_eq!(error.exc_message, [json!("Dependency M raised E('x')")]);
    let ids: Vec<&str> = skipped.iter().map(|(one, _)| one.task_id.as_str()).collect();
    assert_eq!(ids, ["B", "L"]);
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

fn chord_of_two() -> Value {
    let header = json!([sig("h", json!({"task_id": "H"})), sig("i", json!({"task_id": "I"}))]);
    let body = sig("b", json!({"task_id": "B", "queue": "q"}));
    canvas("chord", json!({"kwargs": {}, "header": header, "body": body}))
}

#[test]
fn without_a_result_store_there_are_no_chords() {
    let embed = Embed { callbacks: vec![raw(&chord_of_two())], ..Embed::default() };
    for chords in [Chords::Counted, Chords::Polled] {
        assert!(check(&embed, Context { chords, ..context() }).is_ok());
    }
    let error = check(&embed, Context { chords: Chords::Unsupported, ..context() }).unwrap_err();
    assert!(error.0.contains("no results are stored here"), "{error}");
}

#[test]
fn where_nobody_counts_a_task_polls() {
    let mut chord = chord_of_two();
    chord["options"] = json!({"interval": 0.5, "max_retries": 7});
    let embed = Embed { callbacks: vec![raw(&chord)], ..Embed::default() };
    let context = Context { chords: Chords::Polled, ..context() };
    let calls = after_success(&embed, &raw(&json!([1])), context).unwrap();
    let unlock = calls.drafts.last().unwrap();
    assert_eq!((unlock.task.as_str(), unlock.queue.as_str()), ("celery.chord_unlock", "q"));
    assert_eq!(unlock.route_name.as_deref(), Some("b"));
    assert_eq!(unlock.eta.map(clock::iso).as_deref(), Some("2030-01-01T00:00:01.000000+00:00"));
    let read = builtin::Unlock::read(&unlock.args, &unlock.kwargs).unwrap();
    let group = calls.drafts[0].group.clone().unwrap();
    assert_eq!((read.group_id, read.interval, read.max_retries), (group, 0.5, Some(7)));
    assert_eq!(read.header, ["H", "I"].map(ResultTree::task));
    assert_eq!(Signature::read(&read.body).unwrap().text("task_id").unwrap(), Some("B".into()));
}

#[test]
fn an_errback_gets_all_if_it_takes_all() {
    let fixed = json!({"task": "new", "args": [], "immutable": true});
    let errbacks = [sig("new", json!({})), sig("old", json!({})), fixed];
    let errbacks: Vec<_> = errbacks.iter().map(raw).collect();
    let failure = Failure {
        request: raw(&json!({"id": "T"})),
        exception: raw(&json!({"exc_type": "E"})),
        traceback: raw(&json!("text")),
        takes_all: &|one| one.task == "new",
    };
    let calls = after_failure(&errbacks, &failure, context()).unwrap();
    let args: Vec<_> = calls.drafts.iter().map(|draft| texts(&draft.args)).collect();
    let all = vec![r#"{"id":"T"}"#, r#"{"exc_type":"E"}"#, r#""text""#, "7"];
    assert_eq!(args, [all, vec![r#""parent""#, "7"], vec![]]);
}

#[test]
fn a_body_that_cannot_be_called_fails() {
    let body = raw(&sig("b", json!({"task_id": "B", "countdown": "soon"})));
    let ended = complete(&body, &[], &|_| false, context()).unwrap();
    let Ended::Failed { error, skipped, .. } = ended else { panic!("it was called") };
    assert_eq!(
        error.exc_message,
        [json!("Callback error: signature of b: countdown: expected a number, found \"soon\"")]
    );
    assert_eq!(skipped[0].0.task_id, "B");
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

#[test]
fn the_body_of_a_chord_in_a_group_counts_for_the_chord_around_that() {
    let header = json!([sig("h", json!({}))]);
    let inner =
        canvas("chord", json!({"kwargs": {}, "header": header, "body": sig("b", json!({}))}));
    let group = canvas("group", json!({"tasks": [inner, sig("c", json!({}))]}));
    let member = canvas("chain", json!({"tasks": [sig("a", json!({})), group]}));
    let outer = json!({"kwargs": {}, "header": [member], "body": sig("z", json!({}))});
    let begun = after(&[canvas("chord", outer)], &[]).unwrap();
    assert_eq!(begun.chords[0].size, 2);
    let outer = Some(begun.chords[0].group_id.clone());
    // The task before the group has ended.
    let embed = Embed { chain: begun.drafts[0].embed.chain.clone(), ..Embed::default() };
    let calls = after_success(&embed, &raw(&json!(1)), context()).unwrap();
    let [h, c] = &calls.drafts[..] else { panic!("{:?}", calls.drafts) };
    let name = |raw: &RawValue| Signature::read(raw).unwrap().task;
    let body = Signature::read(h.embed.chord.as_ref().unwrap()).unwrap();
    assert_eq!((h.task.as_str(), body.task.as_str()), ("h", "b"));
    assert_eq!(body.text("group_id").unwrap(), outer);
    assert_eq!(name(body.option("chord").unwrap()), "z");
    assert_eq!((c.task.as_str(), &c.group), ("c", &outer));
    assert_eq!(name(c.embed.chord.as_ref().unwrap()), "z");
}

#[test]
fn the_structure_of_results_is_that_of_its_own_header() {
    let body = canvas("group", json!({"tasks": [sig("x", json!({}))]}));
    let inner =
        canvas("chord", json!({"kwargs": {}, "header": [sig("a", json!({}))], "body": body}));
    let outer = json!({"kwargs": {}, "header": [inner], "body": sig("z", json!({}))});
    let calls = after(&[canvas("chord", outer)], &[]).unwrap();
    let [outer, inner] = &calls.chords[..] else { panic!("{:?}", calls.chords) };
    assert_eq!((outer.size, outer.results.is_some()), (1, true));
    assert_eq!((inner.size, inner.results.is_some()), (1, false));
}

#[test]
fn what_replaces_a_task_counts_for_its_group() {
    let stale = json!({"group_id": "stale"});
    let header = json!([sig("h", json!({}))]);
    let body = sig("b", stale.clone());
    let chord = canvas("chord", json!({"kwargs": {}, "header": header, "body": body}));
    let replaced =
        Replaced { id: "T", group: Some("G"), group_index: None, nesting: 0, embed: None };
    for one in [sig("b", stale), chord] {
        let one = Signature::read(&raw(&one)).unwrap();
        let calls = replace(one, replaced, context()).unwrap();
        let draft = &calls.drafts[0];
        let group = match &draft.embed.chord {
            Some(body) => Signature::read(body).unwrap().text("group_id").unwrap(),
            None => draft.group.clone(),
        };
        assert_eq!(group.as_deref(), Some("G"));
    }
}

#[test]
fn the_members_of_a_group_that_is_a_body_fail_with_the_cause() {
    let own = json!([sig("own", json!({}))]);
    let inner = canvas(
        "chain",
        json!({"tasks": [sig("c", json!({"task_id": "C"})), sig("d", json!({"task_id": "D"}))]}),
    );
    let mut body = canvas(
        "group",
        json!({"tasks": [sig("a", json!({"task_id": "A", "link_error": own})), inner]}),
    );
    body["options"] = json!({
        "task_id": "G", "link_error": [sig("both", json!({}))],
        "chain": [sig("last", json!({"task_id": "L"}))],
    });
    let cause = Exception::new("m", "E", "x");
    let returned = [Returned::Failed("M".into(), cause)];
    let ended = complete(&raw(&body), &returned, &|_| false, context()).unwrap();
    let Ended::Failed { skipped, calls, .. } = ended else { panic!("it was called") };
    let mut failed: Vec<_> =
        skipped.iter().map(|(it, e)| (&it.task_id[..], &e.exc_type[..])).collect();
    failed.sort_unstable();
    assert_eq!(failed, [("A", "E"), ("C", "E"), ("D", "E"), ("L", "ChordError")]);
    let told: Vec<_> =
        calls.drafts.iter().map(|draft| (&draft.task[..], draft.args[0].get())).collect();
    assert_eq!(told, [("own", "\"A\""), ("both", "\"A\""), ("both", "\"D\"")]);
}

#[test]
fn the_members_of_a_group_that_is_skipped_count_for_the_chord_around_it() {
    let chain = canvas("chain", json!({"tasks": [sig("d", json!({})), sig("e", json!({}))]}));
    let group =
        canvas("group", json!({"tasks": [sig("b", json!({})), sig("c", json!({})), chain]}));
    let member = canvas("chain", json!({"tasks": [sig("a", json!({})), group]}));
    let outer = json!({"kwargs": {}, "header": [member], "body": sig("z", json!({}))});
    let begun = after(&[canvas("chord", outer)], &[]).unwrap();
    let (chord, first) = (&begun.chords[0], &begun.drafts[0]);
    assert_eq!((first.task.as_str(), chord.size), ("a", 3));
    let counted: Vec<Skipped> =
        skipped(&first.embed.chain).unwrap().into_iter().filter(|it| it.chord.is_some()).collect();
    assert_eq!(counted.len(), chord.size, "{counted:?}");
    let ids: std::collections::BTreeSet<&str> = counted.iter().map(|it| &it.task_id[..]).collect();
    assert_eq!(ids.len(), chord.size);
    assert!(counted.iter().all(|it| it.group_id.as_ref() == Some(&chord.group_id)), "{counted:?}");
}
