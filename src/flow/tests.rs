//! Workflow files: what they come to, and everything that is wrong with them.

use super::check::Checker;
use super::{Misfit, ParamValues, WorkflowFile};
use crate::task::load::{File, TaskFileKind, load};
use crate::task::set::Set;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::path::Path;

fn tasks() -> Set {
    let text = "add: {params: [x, {y: 0}], shell: a}\ntotal: {params: [values], shell: a}\nany: {shell: a}\n";
    let files = [File { path: "t.yaml".into(), content: TaskFileKind::Yaml(text.into()) }];
    Set::new(load(&files, Path::new("tasks.d"), &|_| true).0)
}

fn given(pairs: Value) -> Vec<(String, Box<RawValue>)> {
    let pairs = pairs.as_object().unwrap();
    let raw = |value: &Value| RawValue::from_string(value.to_string()).unwrap();
    pairs.iter().map(|(name, value)| (name.clone(), raw(value))).collect()
}

/// The signature of a file with these parameters, or what is wrong with it.
fn read(text: &str, params: Value) -> Result<Value, Vec<String>> {
    let (flow, mut found) = WorkflowFile::parse("f.yaml", text);
    let tasks = tasks();
    let checker = Checker { tasks: &tasks, unregistered: false };
    let mut signature = None;
    if let Some(flow) = flow {
        let bound = match flow.bind(&given(params)) {
            Ok(bound) => bound,
            Err(misfits) => return Err(misfits.iter().map(ToString::to_string).collect()),
        };
        let (read, more) = flow.signature(&bound, &checker, &|priority| 9 - priority);
        found.extend(more);
        signature = read;
    }
    found.sort_by_key(|fault| fault.line);
    match (signature, &found[..]) {
        (Some(one), []) => Ok(serde_json::from_str(one.write().get()).unwrap()),
        _ => Err(found.iter().map(ToString::to_string).collect()),
    }
}

/// Everything but `task`, `args`, `kwargs` and `options` of what is not empty.
fn plain(value: &Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .iter()
            .filter(|(name, value)| {
                !["subtask_type"].contains(&name.as_str())
                    && **value != json!([])
                    && **value != json!({})
                    && **value != json!(false)
            })
            .map(|(name, value)| (name.clone(), plain(value)))
            .collect(),
        Value::Array(all) => all.iter().map(plain).collect(),
        other => other.clone(),
    }
}

fn of(text: &str) -> Value {
    plain(&read(text, json!({})).unwrap())
}

#[test]
fn nodes_are_signatures() {
    assert_eq!(of("any"), json!({"task": "any"}));
    assert_eq!(of("task: any"), json!({"task": "any"}));
    assert_eq!(
        of("{task: add, args: [1, '2'], queue: q, description: d}"),
        json!({"task": "add", "args": [1, "2"], "options": {"queue": "q"}})
    );
    assert_eq!(
        of("chain:\n- {task: add, kwargs: {x: 1.50, y: {a: [null]}}}\n- total\n"),
        json!({"task": "celery.chain", "kwargs": {"tasks": [
            {"task": "add", "kwargs": {"x": 1.50, "y": {"a": [null]}}}, {"task": "total"}]}})
    );
    let chord = of("chord: {header: [any, {group: [any]}], body: total}");
    assert_eq!(chord["kwargs"]["header"]["kwargs"]["tasks"][1]["task"], "celery.group");
    assert_eq!(chord["kwargs"]["body"], json!({"task": "total"}));
    let map = of("map: {task: add, it: [1, 2]}");
    assert_eq!(map["kwargs"]["it"], json!([1, 2]));
    assert_eq!((&map["immutable"], &map["task"]), (&json!(true), &json!("celery.map")));
    let chunks = of("chunks: {task: add, it: [[1, 1], [2], [3]], n: 2}");
    assert_eq!(chunks["task"], "celery.group");
    let parts = chunks["kwargs"]["tasks"].as_array().unwrap();
    let items: Vec<&Value> = parts.iter().map(|part| &part["kwargs"]["it"]).collect();
    assert_eq!(items, [&json!([[1, 1], [2]]), &json!([[3]])]);
}

#[test]
fn options_are_celerys() {
    let text = "{task: any, countdown: 5m, expires: 1h30m, priority: 9, time_limit: 10, soft_time_limit: 1.5, \
                ignore_result: true, task_id: me, shadow: s, headers: {h: [1]}, immutable: true}";
    assert_eq!(
        of(text),
        json!({"task": "any", "immutable": true, "options": {"countdown": 300, "expires": 5400, "priority": 0,
            "time_limit": 10, "soft_time_limit": 1.5, "ignore_result": true, "task_id": "me",
            "shadow": "s", "headers": {"h": [1]}}})
    );
    let text = "{task: any, eta: 2030-01-01T12:00:00+02:00, expires: 2030-01-02, link: any, link_error: [any, total]}";
    let options = &of(text)["options"];
    assert_eq!(options["eta"], "2030-01-01T10:00:00.000000+00:00");
    assert_eq!(options["link"], json!([{"task": "any"}]));
    assert_eq!(options["link_error"], json!([{"task": "any"}, {"task": "total"}]));
}

/// As `apply_async` has them; what a node says itself goes before what is said around it.
#[test]
fn options_of_a_canvas_are_for_what_celery_has_them_for() {
    let chain = of(
        "{chain: [any, {group: [any, {task: any, queue: r}]}, any], queue: q, link: any, task_id: t, link_error: total}",
    );
    let tasks = chain["kwargs"]["tasks"].as_array().unwrap();
    let errback = json!([{"task": "total"}]);
    assert_eq!(tasks[0]["options"], json!({"queue": "q", "link_error": errback}));
    let members = tasks[1]["kwargs"]["tasks"].as_array().unwrap();
    assert_eq!(members[1]["options"], json!({"queue": "r", "link_error": errback}));
    assert_eq!(
        tasks[2]["options"],
        json!({"link": [{"task": "any"}], "task_id": "t", "link_error": errback})
    );
    let group = of(
        "{group: [any, {task: any, queue: r, eta: 2030-01-01}], queue: q, countdown: 5, task_id: g}",
    );
    assert_eq!(group["options"], json!({"task_id": "g"}));
    assert_eq!(group["kwargs"]["tasks"][0]["options"], json!({"queue": "q", "countdown": 5}));
    let own = &group["kwargs"]["tasks"][1]["options"];
    assert_eq!((&own["queue"], own.get("countdown")), (&json!("r"), None));
    let chord =
        of("{chord: {header: [any], body: any}, queue: q, countdown: 5, task_id: t, interval: 2}");
    assert_eq!(chord["options"], json!({"interval": 2}));
    let header = &chord["kwargs"]["header"]["kwargs"]["tasks"][0]["options"];
    assert_eq!(header, &json!({"queue": "q", "countdown": 5}));
    assert_eq!(chord["kwargs"]["body"]["options"], json!({"queue": "q", "task_id": "t"}));
}

#[test]
fn parameters_are_filled_in() {
    let text = "params: [who, {n: 3}, {all: [1, {a: 2.50}]}]\n\
                task: any\nargs: ['{who}', 'for {who}: {n} of {all}', '{{who}}', '{all}', {k: '{n}'}]\ncountdown: '{n}'\n";
    let read = plain(&read(text, json!({"who": true, "n": 5})).unwrap());
    assert_eq!(
        read["args"],
        json!([true, "for true: 5 of [1,{\"a\":2.5}]", "{who}", [1, {"a": 2.5}], {"k": 5}])
    );
    assert_eq!(read["options"]["countdown"], 5);
    let whole = "params: [{a: [1, 2]}, {k: {y: 1}}, {t: add}]\n{}";
    let whole = whole.replace("{}", "task: '{t}'\nargs: '{a}'\n");
    assert_eq!(of(&whole), json!({"task": "add", "args": [1, 2]}));
    let (flow, _) = WorkflowFile::parse("f.yaml", text);
    let flow = flow.unwrap();
    assert_eq!(
        flow.bind(&given(json!({"whom": 1}))).unwrap_err(),
        [Misfit::Unknown("whom".into(), vec!["who".into()]), Misfit::Missing("who".into())]
    );
    assert_eq!(read_missing("any", json!({"x": 1})), ["no parameter \"x\""]);
}

fn read_missing(text: &str, params: Value) -> Vec<String> {
    read(text, params).unwrap_err()
}

#[track_caller]
fn wrong(text: &str, expected: &[&str]) {
    let found = read(text, json!({})).unwrap_err();
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{expected:?}: {found}");
    }
}

#[test]
fn all_faults_are_found_with_their_lines() {
    wrong(
        "chain:\n- {task: ad, args: [1]}\n- {task: add, args: [1, 2, 3], queue: 'a b'}\n- {taks: add}\n\
         - {task: any, chain: [any]}\n- {group: []}\n- {task: any, qeue: x, countdown: soon}\n- 5\n",
        &[
            "f.yaml:2: chain.1: no task \"ad\" in tasks.d; did you mean add?",
            "f.yaml:3: chain.2.queue: found text \"a b\", expected a queue's name",
            "f.yaml:3: chain.2: TypeError: add() takes from 1 to 2 positional arguments but 4 were given",
            "f.yaml:4: chain.3.taks: unknown key; did you mean task?",
            "f.yaml:4: chain.3: has none of task, chain, group",
            "f.yaml:5: chain.4: has task and chain, expected only one of them",
            "f.yaml:6: chain.5.group: found an empty list, expected at least one node",
            "f.yaml:7: chain.6.qeue: unknown key; did you mean queue?",
            "f.yaml:7: chain.6.countdown: found text \"soon\", expected",
            "f.yaml:8: chain.7: found 5, expected a task's name, or a mapping with",
        ],
    );
    wrong(
        "task: add\n",
        &["f.yaml:1: TypeError: add() missing 1 required positional argument: 'x'"],
    );
    wrong("", &["f.yaml:1: found null, expected a task's name"]);
    wrong("chain: any\n", &["f.yaml:1: chain: found text \"any\", expected a list of nodes"]);
    wrong(
        "chord: {header: [any], boddy: any}\n",
        &[
            "f.yaml:1: chord.boddy: unknown key; did you mean body?",
            "f.yaml:1: chord: has no body, expected a mapping with header",
        ],
    );
    wrong(
        "chunks: {task: add, it: [1]}\n",
        &["f.yaml:1: chunks: has no n, expected a mapping with task, it, n"],
    );
    wrong("map: {task: nobody, it: [1]}\n", &["f.yaml:1: map: no task \"nobody\" in tasks.d"]);
    wrong(
        "starmap: {task: add, it: [[1], [1, 2, 3]]}\n",
        &["f.yaml:1: starmap: TypeError: add() takes"],
    );
    wrong("{group: [any], link: any}\n", &["f.yaml:1: a group has no callbacks"]);
    wrong(
        "{task: any, exchange: x, chord: 1}\n",
        &[
            "f.yaml:1: exchange: means nothing here: a step names its queue",
            "f.yaml:1: has task and chord",
        ],
    );
    wrong(
        "{task: any, countdown: 1, eta: 2030-01-01, interval: 1}\n",
        &["f.yaml:1: interval: belongs to a chord", "f.yaml:1: has countdown and eta"],
    );
    wrong("{group: [any], args: [1]}\n", &["f.yaml:1: args: belongs to a task, not to a group"]);
    wrong("{task: any, steps: []}\n", &["f.yaml:1: steps: unknown key; did you mean chain?"]);
    wrong("{task: any, task: any}\n", &["f.yaml:1: task: is here twice"]);
}

#[test]
fn faults_of_parameters_are_found_with_their_lines() {
    wrong(
        "params: [day]\ntask: any\nargs: ['{dya} {', '{day']\n",
        &["parameter day: no value is given"],
    );
    wrong(
        "params: [{day: 1}]\ntask: any\nargs:\n- '{dya} x'\n- '{day'\n- '{1}'\n",
        &[
            "f.yaml:4: args: {dya} is no parameter; write {{ and }} for the characters themselves; did you mean day?",
            "f.yaml:5: args: a single {; write {{ for the character itself",
            "f.yaml:6: args: {1} is no parameter",
        ],
    );
    wrong(
        "params: {day: 1}\ntask: any\n",
        &["f.yaml:1: params: found a mapping, expected a list of names"],
    );
}

/// What a parameter without a value decides is not checked; all else is.
#[test]
fn a_file_is_checked_before_its_parameters_are_known() {
    let tasks = tasks();
    let checker = Checker { tasks: &tasks, unregistered: false };
    let found = |text: &str| {
        let flow = WorkflowFile::parse("f.yaml", text).0.unwrap();
        let found = flow.signature(&flow.unbound(), &checker, &|n| n).1;
        found.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let text = "params: [p]\nchain:\n- {task: add, args: ['{p}'], countdown: '{p}'}\n- {task: '{p}'}\n\
                - {map: {task: add, it: '{p}'}}\n- {task: total, args: '{p}'}\n";
    assert_eq!(found(text), [""; 0]);
    let text = "params: [p]\nchain:\n- {task: add, args: ['{p}', 1, 2]}\n- {task: nobody, args: ['{p}']}\n";
    assert_eq!(found(text).len(), 2, "{:?}", found(text));
}

/// Whatever a file holds, reading it ends, and what comes out can be called.
#[test]
fn any_text_is_read_or_refused() {
    let pieces = [
        "any",
        "add",
        ": ",
        "\n",
        "\n  ",
        "- ",
        "[",
        "]",
        "{",
        "}",
        "task",
        "chain",
        "group",
        "chord",
        "header",
        "body",
        "map",
        "it",
        "args",
        "kwargs",
        "params",
        "link",
        "countdown",
        "'{p}'",
        "5",
        ", ",
        "&x ",
        "*x",
        "é",
        "\u{0}",
    ];
    let mut random = fastrand::Rng::with_seed(7);
    let mut read = 0;
    let tasks = tasks();
    let checker = Checker { tasks: &tasks, unregistered: true };
    for _ in 0..20_000 {
        let mut text: String =
            (0..random.usize(..24)).map(|_| pieces[random.usize(..pieces.len())]).collect();
        if random.bool() {
            text = format!("chain:\n- any\n- {text}");
        }
        let (flow, found) = WorkflowFile::parse("f.yaml", &text);
        assert!(found.iter().all(|fault| fault.to_string().starts_with("f.yaml")));
        let Some(flow) = flow else { continue };
        let (signature, found) = flow.signature(&ParamValues::default(), &checker, &|n| n);
        read += usize::from(signature.is_some());
        assert!(found.iter().all(|fault| !fault.to_string().contains('\n')));
    }
    assert!(read > 100, "{read}");
}
