//! Workflows that a client of ours sends: `qworker call --chain`, `--group`, `--chord` and `qworker
//! apply`, with tasks of Python's and ours in any mixture; what Python reads of them, and what
//! `qworker graph` tells. A Python worker has the queue `celery`, ours has the queue `ours`.

use super::celery;
use super::worker::{PythonWorker, beside_python};
use crate::harness::{Output, Place, TestDir, Worker, eventually, in_every_place};
use serde_json::{Value, json};

const TASKS: &str = r#"
add: {params: [x, {y: 0}], shell: 'echo $(( $1 + $2 ))'}
total: {params: [values], shell: 'echo "$1" | tr -d "[]" | tr , + | { read -r sum; echo $(( $sum )); }'}
echo: {shell: 'printf %s "$*"', result: text}
note: {shell: 'echo "$*" >> notes'}
hold: {params: [{value: 0}], shell: 'read -r _ < pipe; echo "$1"'}
other: {shell: 'read -r _ < pipe2; echo "$1"'}
fail: {shell: 'echo oh no >&2; exit 3'}
silent: {shell: 'echo 1', ignore_result: true}
"#;

fn start(place: Place) -> (TestDir, Worker, PythonWorker) {
    beside_python(place, TASKS)
}

fn call(app: &TestDir, args: &[&str]) -> Output {
    app.qworker(&[&["call", "--unregistered"], args].concat())
}

/// What a workflow gives that is waited for.
fn waited(app: &TestDir, args: &[&str]) -> String {
    let output = call(app, &[args, &["--wait"]].concat());
    assert_eq!(output.code, 0, "{args:?}: {output:?}");
    output.stdout.trim_end().to_string()
}

in_every_place! {
    a_workflow_is_called_and_waited_for
    options_are_for_what_celery_has_them_for
    who_failed_first_is_told_and_why
    python_reads_what_was_sent
    a_file_is_applied_with_its_parameters
    a_group_is_waited_for_by_its_id
    a_graph_tells_what_runs_and_what_ran
    a_graph_of_pythons_workflow
}

fn a_workflow_is_called_and_waited_for(place: Place) {
    let (app, _worker, _python) = start(place);
    let chain = ["--chain", "add [2, 3]", "py.add [10]", "add {\"y\": 100}"];
    assert_eq!(waited(&app, &chain), "115");
    assert_eq!(waited(&app, &["--group", "add [1, 2]", "py.add [3, 4]"]), "[3, 7]");
    for body in ["total", "py.total"] {
        assert_eq!(waited(&app, &["--chord", "add [1, 2]", "py.add [3, 4]", body]), "10");
    }
    // A whole signature, from a file too: a group in the middle of a chain is a header.
    let group = json!({"task": "celery.group", "subtask_type": "group", "kwargs": {"tasks": [
        {"task": "add", "args": [1]}, {"task": "py.add", "args": [2]},
        {"task": "celery.chain", "subtask_type": "chain", "kwargs": {"tasks": [{"task": "add"}, {"task": "py.add", "args": [3]}]}}]}});
    app.write("group.json", &group.to_string());
    let nested = ["--chain", "py.add [1, 1]", "@group.json", "total", "py.add [100]"];
    assert_eq!(waited(&app, &nested), "112");
    let chord = ["--chord", "@group.json", "add [10, 10]", "py.total"];
    let output = call(&app, &[&chord[..], &["--wait"]].concat());
    // The group's members get no argument before their own here.
    assert!(output.code == 2 && output.stderr.contains("missing 1 required"), "{output:?}");
    let json = call(&app, &["--group", "add [1, 2]", "add [3, 4]", "--wait", "--json"]);
    let documents: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!((&documents[0]["result"], &documents[1]["status"]), (&json!(3), &json!("SUCCESS")));
}

fn options_are_for_what_celery_has_them_for(place: Place) {
    let app = place.app(TASKS);
    app.settings("task_default_queue: ours\ntask_routes: {'py.*': celery}\n");
    let id = call(&app, &["--chain", "add [1, 2]", "add [3]", "--task-id", "last", "-q"]);
    assert_eq!(id.code, 2, "a short option of others: {id:?}");
    let sent = |args: &[&str]| {
        let output = call(&app, args);
        assert_eq!((output.code, &output.stderr[..]), (0, ""), "{args:?}");
        let mut all = app.waiting();
        all.sort_by_key(|one| one.message().group_index);
        app.must(&["purge", "-f", "-Q", "ours,celery,fast"]);
        (output.stdout.trim_end().to_string(), all)
    };
    let chain = ["--chain", "add [1, 2]", "py.add [3]", "--task-id", "last", "--queue", "fast"];
    let (id, all) = sent(&[&chain[..], &["--countdown", "600"]].concat());
    assert_eq!((&id[..], all.len(), &all[0].queue[..]), ("last", 1, "fast"));
    assert!(all[0].message().eta.is_some());
    let arguments = all[0].message().arguments().unwrap();
    let next: Value = serde_json::from_str(arguments.embed.unwrap().chain[0].get()).unwrap();
    assert_eq!(next["options"]["task_id"], json!("last"));
    assert!(next["options"].get("queue").is_none(), "{next}");
    let (id, all) =
        sent(&["--group", "add [1]", "py.add [2]", "--task-id", "g", "--queue", "fast"]);
    assert_eq!(id, "g");
    let groups: Vec<_> = all.iter().map(|one| (one.queue.clone(), one.message().group)).collect();
    assert_eq!(groups, vec![("fast".to_string(), Some("g".to_string())); 2]);
    let (_, all) = sent(&["--group", "add [1]", "add [2]", "--priority", "9"]);
    let number = if place == Place::File { 9 } else { 0 };
    assert!(all.iter().all(|one| one.message().priority == Some(number)), "as the broker counts");
    let (_, all) = sent(&["--group", "add [1]", "py.add [2]", "--task-id", "g", "--queue", "fast"]);
    // Each member is the first of its own.
    assert!(all.iter().all(|one| one.message().root_id == one.message().id));
    for (option, value) in [("-a", "[1]"), ("--exchange", "x"), ("--from-jsonl", "x")] {
        let refused = call(&app, &["--chain", "add [1]", option, value]);
        assert!(refused.code == 2 && refused.stderr.contains("cannot be used with"), "{refused:?}");
    }
}

fn who_failed_first_is_told_and_why(place: Place) {
    let (app, _worker, _python) = start(place);
    let failed = |args: &[&str], parts: &[&str]| {
        let output = call(&app, &[args, &["--wait"]].concat());
        assert_eq!((output.code, &output.stdout[..]), (1, ""), "{args:?}: {output:?}");
        for part in parts {
            assert!(output.stderr.contains(part), "no {part:?} in {output:?}");
        }
        output.stderr
    };
    let text = failed(
        &["--chain", "add [1, 2]", "fail", "add [3]"],
        &["FAILURE: task fail[", "CalledProcessError", "oh no"],
    );
    assert!(!text.contains("task add["), "{text}");
    let python = r#"{"task": "py.fail", "immutable": true}"#;
    let text = failed(&["--chain", "py.add [1]", python, "add"], &["task py.fail[", "KeyError"]);
    assert!(!text.contains("task add["), "{text}");
    let text = failed(&["--chord", "add [1]", "py.fail", "total"], &["task py.fail[", "KeyError"]);
    assert!(!text.contains("task total["), "{text}");
    failed(&["--group", "add [1]", "fail", "py.fail"], &["task fail[", "task py.fail["]);
    // Nobody waits for what is never stored.
    let silent = call(&app, &["--chain", "add [1]", "silent", "--wait"]);
    assert!(silent.code == 2 && silent.stderr.contains("silent ignores its result"), "{silent:?}");
    // Names and arguments are looked at before anything is sent.
    let output = app.qworker(&["call", "--chain", "ad [1]", "total [1]", "add [1, 2, 3]"]);
    assert_eq!((output.code, &output.stdout[..]), (2, ""));
    for part in [
        "no task \"ad\"",
        "did you mean add?",
        "takes 1 positional argument but 2",
        "takes from 1 to 2",
    ] {
        assert!(output.stderr.contains(part), "no {part:?} in {output:?}");
    }
    // What takes too long goes on.
    app.fifo("pipe");
    let late = call(
        &app,
        &["--chain", "hold [5]", "add [1]", "--task-id", "late", "--wait", "--timeout", "0.3"],
    );
    assert!(late.code == 75 && late.stderr.contains("qworker graph late"), "{late:?}");
    app.write_fifo("pipe");
    assert_eq!(app.must(&["result", "late", "--wait"]), "6");
}

fn python_reads_what_was_sent(place: Place) {
    let (app, _worker, _python) = start(place);
    let sent = |args: &[&str]| {
        let output = call(&app, args);
        assert_eq!(output.code, 0, "{output:?}");
        output.stdout.trim_end().to_string()
    };
    let chain = sent(&["--chain", "add [2, 3]", "py.add [10]"]);
    let group = sent(&["--group", "add [1, 2]", "py.add [3, 4]"]);
    let chord = sent(&["--chord", "add [1, 2]", "py.add [3, 4]", "py.total"]);
    let split = sent(&[
        "--chain",
        "add [1]",
        r#"{"task": "celery.group", "subtask_type": "group", "kwargs": {"tasks": [{"task": "add", "args": [1]}, {"task": "py.add", "args": [2]}]}}"#,
    ]);
    let found = celery(
        &app,
        &format!(
            r#"
from celery.result import AsyncResult, GroupResult
R, G = (lambda id: AsyncResult(id, app=app)), (lambda id: GroupResult.restore(id, app=app))
group, chord, split, chain = G("{group}"), G("{chord}"), G("{split}"), G("{chain}")
say([got(R("{chain}")), got(group), got(R("{chord}")), got(chord), got(split), got(chain),
     got(chain.results[0].parent), got(split.parent), len(chord.results[0].parent.results)])
"#
        ),
    );
    assert_eq!(found, json!([15, [3, 7], 10, [10], [2, 3], [15], 5, 1, 2]));
}

const FLOW: &str = "
params: [first, {rest: [3, 4]}, {queue: ours}]
chain:
  - {task: add, args: ['{first}', 2], queue: '{queue}'}
  - group:
      - {task: add, args: [10]}
      - {task: py.add, kwargs: {b: 20}}
      - chain: [add, {task: py.add, args: [30]}]
  - task: total
    link: {task: note, args: ['done {first}'], immutable: true}
  - chord:
      header:
        - {task: add, args: [1]}
        - {map: {task: add, it: '{rest}'}}
      body: echo
";

fn a_file_is_applied_with_its_parameters(place: Place) {
    let (app, _worker, _python) = start(place);
    app.write("flow.yaml", FLOW);
    let apply =
        |args: &[&str]| app.qworker(&[&["apply", "flow.yaml", "--unregistered"], args].concat());
    let output = apply(&["--param", "first=1", "--wait"]);
    // (3+10) + (3+20) + (3+30) = 69
    assert_eq!((output.code, output.stdout.trim_end()), (0, "[70, [3, 4]]"), "{output:?}");
    for part in ["Workflow ", "add[", "] SUCCESS", "total[", "echo["] {
        assert!(output.stderr.contains(part), "no {part:?} in {output:?}");
    }
    eventually("the callback", || (app.lines("notes") == ["done 1"]).then_some(()));
    let missing = apply(&["--params", "{\"frist\": 1}"]);
    assert_eq!(missing.code, 2);
    for part in ["no parameter \"frist\"; did you mean first?", "parameter first: no value"] {
        assert!(missing.stderr.contains(part), "no {part:?} in {missing:?}");
    }
    // The simplest one has three lines.
    app.write("short.yaml", "chain:\n  - {task: add, args: [2, 3]}\n  - {task: add, args: [4]}\n");
    let id = app.must(&["apply", "short.yaml"]);
    assert_eq!(app.must(&["result", &id, "--wait"]), "9");
    let chunks = "chunks: {task: add, it: [[1, 1], [2, 2], [3, 3]], n: 2}\n";
    let output = app.qworker_with_input(&["apply", "-", "--wait", "--json"], chunks);
    let documents: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!((&documents[0]["result"], &documents[1]["result"]), (&json!([2, 4]), &json!([6])));
    // A member that fails.
    app.write("bad.yaml", "group: [fail, {task: add, args: [1]}]\n");
    let output = app.qworker(&["apply", "bad.yaml", "--wait"]);
    assert_eq!((output.code, &output.stdout[..]), (1, ""), "{output:?}");
    assert!(output.stderr.contains("FAILURE: task fail["), "{output:?}");
}

fn a_group_is_waited_for_by_its_id(place: Place) {
    let (app, _worker, _python) = start(place);
    app.fifo("pipe");
    let id = call(&app, &["--group", "hold [7]", "add [1, 1]"]).stdout.trim_end().to_string();
    let output = eventually("one of two", || {
        let output = app.qworker(&["result", &id]);
        output.stderr.contains("1 of 2 tasks").then_some(output)
    });
    assert_eq!((output.code, &output.stdout[..]), (75, ""));
    app.write_fifo("pipe");
    assert_eq!(app.must(&["result", &id, "--wait"]), "[7, 2]");
    assert_eq!(app.must(&["result", &id]), "[7, 2]");
}

fn graph(app: &TestDir, id: &str, format: &str) -> String {
    app.must(&["graph", id, "--format", format])
}

fn a_graph_tells_what_runs_and_what_ran(place: Place) {
    let (app, _worker, _python) = start(place);
    app.fifo("pipe");
    let words = [
        "--chain",
        "hold [5]",
        r#"{"task": "celery.group", "subtask_type": "group", "kwargs": {"tasks": [{"task": "add", "args": [1]}, {"task": "py.add", "args": [2]}]}}"#,
        "py.total",
        "add [1]",
        "--task-id",
        "last",
    ];
    assert_eq!(call(&app, &words).stdout, "last\n");
    let lines = |id: &str| graph(&app, id, "text").lines().map(String::from).collect::<Vec<_>>();
    let running = eventually("a task that runs", || {
        let lines = lines("last");
        lines[0]
            .contains(" STARTED")
            .then_some(lines.clone())
            .or_else(|| lines[0].contains(" RECEIVED").then_some(lines))
    });
    let starts = ["hold ", "→ group ", "  ├─ add ", "  └─ py.add ", "→ py.total ", "→ add last"];
    assert_eq!(running.len(), starts.len(), "{running:?}");
    for (line, start) in running.iter().zip(starts) {
        assert!(line.starts_with(start), "{start:?}: {running:?}");
    }
    // The same from any id in it.
    let id_of =
        |line: &str| line.split_whitespace().find(|word| word.len() == 36).unwrap().to_string();
    for line in &running[..5] {
        assert_eq!(lines(&id_of(line)), running, "{line}");
    }
    let dot = graph(&app, "last", "dot");
    assert!(dot.starts_with("digraph workflow {") && dot.contains("label=\"py.total\\n"), "{dot}");
    let mermaid = graph(&app, "last", "mermaid");
    assert!(
        mermaid.starts_with("flowchart TD\n") && mermaid.contains("[\"py.total<br/>"),
        "{mermaid}"
    );
    app.write_fifo("pipe");
    // (5+1) + (5+2) + 1
    assert_eq!(app.must(&["result", "last", "--wait"]), "14");
    let after = lines("last");
    assert_eq!(after.len(), running.len(), "{after:?}");
    let done = |line: &String| line.contains(" SUCCESS") || line.contains(" 2/2");
    assert!(after.iter().all(done), "{after:?}");
    for line in &running[..5] {
        assert_eq!(lines(&id_of(line)), after, "{line}");
    }
    let unknown = app.qworker(&["graph", "nothing"]);
    assert!(
        unknown.code == 69 && unknown.stderr.contains("nothing is known of nothing"),
        "{unknown:?}"
    );
}

/// Of what Python sends, messages and results tell.
fn a_graph_of_pythons_workflow(place: Place) {
    let (app, _worker, _python) = start(place);
    app.fifo("pipe").fifo("pipe2");
    let ids = celery(
        &app,
        r#"
app.conf.task_routes = {"py.*": {"queue": "celery"}, "*": {"queue": "ours"}}
from celery import chain, chord
sig = lambda name, *args: app.signature(name, args=args)
result = chain(sig("hold", 5), sig("py.add", 1), sig("add", 2).on_error(sig("note"))).apply_async()
head = chord([sig("add", 1), sig("other", 2)], sig("py.total")).apply_async(queue="ours")
say([result.id, result.parent.id, head.id, head.parent.results[1].id])
"#,
    );
    let id = |at: usize| ids[at].as_str().unwrap().to_string();
    let text = eventually("both", || {
        let (one, two) = (graph(&app, &id(0), "text"), graph(&app, &id(2), "text"));
        let held = |text: &str| text.contains(" STARTED") || text.contains(" RECEIVED");
        (held(&one) && held(&two)).then_some((one, two))
    });
    let (chain, chord) = text;
    let starts = ["hold ", "→ py.add ", "→ add ", "  └─ link_error: note"];
    for (line, start) in chain.lines().zip(starts) {
        assert!(line.starts_with(start), "{start:?}: {chain}");
    }
    assert!(chord.contains("other ") && chord.contains("→ py.total "), "{chord}");
    assert_eq!(graph(&app, &id(1), "text"), chain);
    app.write_fifo("pipe");
    app.write_fifo("pipe2");
    assert_eq!(app.must(&["result", &id(0), "--wait"]), "8");
    let after = graph(&app, &id(1), "text");
    assert!(after.contains(&id(0)) && after.matches(" SUCCESS").count() >= 2, "{after}");
}
