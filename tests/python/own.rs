//! What a Python task does by `self`, done by a shell task: its states, the meaning of its end, its
//! children, and what takes its place, as real Celery sees them.

use super::celery;
use super::worker::PythonWorker;
use crate::harness::{Place, TestDir, Worker, in_every_place};
use serde_json::{Value, json};

const QWORKER: &str = env!("CARGO_BIN_EXE_qworker");

const TASKS: &str = r#"
steps:
  shell: |
    QW task progress 3 10
    read -r _ <go1
    QW task update-state UPLOADING --meta '{"file": "ä.png", "parts": [1, 2]}'
    read -r _ <go2
    echo '"done"'
fails: {shell: 'QW task fail --type "$1" --message "no such key" --module "$2"'}
item: {shell: 'echo "$1" >>items; [ "$1" != bad ] || QW task fail --type KeyError --message bad; echo "$1"'}
rejects: {shell: 'QW task reject'}
requeues: {shell: 'echo >>requeues; [ "$(wc -l <requeues)" -gt 2 ] && { echo 3; exit; }; QW task reject --requeue'}
ignores: {shell: 'QW task update-state LEFT --meta 7; QW task ignore'}
again: {shell: '[ "$QWORKER_TASK_RETRIES" = 2 ] && { echo 2; exit; }; QW task retry --countdown 0'}
retries: {shell: 'QW task retry --countdown 30'}
urgent: {shell: 'QW task call whole --priority 9', result: text}
toomany: {shell: 'QW task retry --countdown 0 --max-retries 1'}
inner: {shell: 'printf "[\"%s\", \"%s\"]" "$QWORKER_TASK_ROOT_ID" "$QWORKER_TASK_PARENT_ID"'}
parent:
  shell: |
    one=$(QW task call inner)
    two=$(QW task call inner --countdown 0.05 --task-id "child-$one")
    echo "[\"$one\", \"$two\"]"
passes: {shell: 'QW task call whole', result: text}
replaces: {shell: 'QW task replace "$1"'}
whole: {shell: 'QW task request'}
add: {shell: 'echo $(( $1 + ${2:-0} ))'}
breaks: {shell: 'exit 3'}
note: {shell: 'echo "$*" >> notes'}
"#;

/// Signatures, as `tests/python/canvas.rs` has them.
const SIGNATURES: &str = r#"
from celery import chain, chord, group
from celery.result import AsyncResult
app.conf.task_routes = {"py.*": {"queue": "celery"}, "celery.*": {"queue": "celery"}, "*": {"queue": "ours"}}
def sig(name):
    return lambda *args, **options: app.signature(name, args=args, **options)
add, breaks, note, padd = map(sig, ["add", "breaks", "note", "py.add"])
def got(result):
    try:
        return result.get(timeout=60)
    except Exception as error:
        return [type(error).__module__, type(error).__name__, str(error)]
def until(look):
    # A store tells nobody of a state that does not end a task.
    import time
    while not look(): time.sleep(0.01)
"#;

fn start(place: Place) -> (TestDir, Worker) {
    let app = place.app(&TASKS.replace("QW ", &format!("{QWORKER} ")));
    app.settings("task_default_queue: ours\ntask_routes: {'py.*': celery, 'celery.*': celery}\n");
    let worker = app.worker(&["-c", "4"]);
    (app, worker)
}

fn run(app: &TestDir, script: &str) -> Value {
    let folder = app.path().display().to_string();
    celery(app, &format!("{SIGNATURES}\nfolder = {folder:?}\n{script}"))
}

in_every_place! {
    states_of_its_own_are_those_of_update_state
    its_end_means_what_it_said
    what_an_item_says_is_said_of_its_map
    what_it_calls_is_its_child
    what_replaces_it_is_what_python_would_make_of_it
}

fn states_of_its_own_are_those_of_update_state(place: Place) {
    let (app, _worker) = start(place);
    app.fifo("go1").fifo("go2");
    let script = r#"
# Opening a pipe waits for its reader.
def go(pipe): open(f"{folder}/{pipe}", "w").close()
result = app.send_task("steps")
until(lambda: result.state == "PROGRESS")
states = [result.state, result.info]
go("go1")
until(lambda: result.state == "UPLOADING")
states += [result.state, result.info, result.ready()]
go("go2")
states += [result.get(timeout=60), result.state]
quiet = app.send_task("steps", ignore_result=True, task_id="quiet")
go("go1")
go("go2")
after = app.send_task("steps")
go("go1")
go("go2")
after.get(timeout=60)
say([states, quiet.state])
"#;
    let expected = json!([
        ["PROGRESS", {"current": 3, "total": 10}, "UPLOADING",
         {"file": "ä.png", "parts": [1, 2]}, false, "done", "SUCCESS"],
        "PENDING"
    ]);
    assert_eq!(run(&app, script), expected);
}

fn its_end_means_what_it_said(place: Place) {
    let (app, _worker) = start(place);
    let script = r#"
app.conf.task_routes = {"*": {"queue": "ours"}}
def end(name, *args):
    result = app.send_task(name, args)
    return [got(result), result.state]
left = app.send_task("ignores")
until(lambda: left.state == "LEFT")
later = app.send_task("retries")
until(lambda: later.state == "RETRY")
failed = app.send_task("fails", ("KeyError", "builtins"), link_error=note("after"))
say({
    "fails": got(failed),
    "module": end("fails", "TooSmall", "shop.errors"),
    "rejects": end("rejects"),
    "requeues": end("requeues"),
    "again": end("again"),
    "toomany": end("toomany")[0][:2],
    "left": [left.state, left.info],
    "retries": later.info,
    "chord": got(chord([add(1, 1), sig("ignores")()], sig("add")()).apply_async()),
})
"#;
    let ended = run(&app, script);
    // Celery's would wait for ever. Where chords are polled, the member has a result, which a client
    // raises before that of the body.
    let error = if place == Place::Redis { "ChordError" } else { "Ignore" };
    assert_eq!(ended["chord"][1], error, "{ended}");
    assert_eq!(ended["fails"], json!(["builtins", "KeyError", "'no such key'"]));
    let module = json!([["celery.exceptions", "TooSmall", "no such key"], "FAILURE"]);
    assert_eq!(ended["module"], module);
    let rejects = json!([["celery.exceptions", "Reject", "(None, False)"], "FAILURE"]);
    assert_eq!(ended["rejects"], rejects);
    assert_eq!(ended["requeues"], json!([3, "SUCCESS"]));
    assert_eq!(ended["again"], json!([2, "SUCCESS"]));
    assert_eq!(ended["toomany"], json!(["celery.exceptions", "MaxRetriesExceededError"]));
    assert_eq!(ended["left"], json!(["LEFT", 7]));
    assert_eq!(ended["retries"], json!(null));
    let dead = app.must(&["dead", "list", "--json"]);
    assert!(dead.contains("rejected"), "{dead}");
}

fn what_an_item_says_is_said_of_its_map(place: Place) {
    let (app, _worker) = start(place);
    let script = r#"
from celery.canvas import xmap
say(got(xmap(app.signature("item"), ["a", "bad", "b"], app=app).apply_async(queue="ours")))
"#;
    assert_eq!(run(&app, script), json!(["builtins", "KeyError", "'bad'"]));
    assert_eq!(app.lines("items"), ["a", "bad"]);
}

fn what_it_calls_is_its_child(place: Place) {
    let (app, _worker) = start(place);
    let script = r#"
result = app.send_task("parent", root_id="ROOT")
ids = result.get(timeout=60)
inner = [AsyncResult(id, app=app).get(timeout=60) for id in ids]
urgent = AsyncResult(app.send_task("passes", priority=5).get(timeout=60), app=app)
number = lambda result: result.get(timeout=60)["request"]["properties"]["priority"]
asked = AsyncResult(app.send_task("urgent").get(timeout=60), app=app)
# A signature has the broker's number, as in Celery.
chained = chain(add(1, 2), sig("whole")(priority=3)).apply_async()
say([[child.id for child in result.children] == ids, inner == [["ROOT", result.id]] * 2,
     ids[1] == f"child-{ids[0]}", number(urgent), number(asked), number(chained)])
"#;
    // On Redis the lowest number is served first.
    let urgent = if place == Place::Redis { 0 } else { 9 };
    // Priorities are not inherited, unless `task_inherit_parent_priority` is set.
    assert_eq!(run(&app, script), json!([true, true, true, 0, urgent, 3]));
}

fn what_replaces_it_is_what_python_would_make_of_it(place: Place) {
    let (app, _worker) = start(place);
    let _python = PythonWorker::start(
        &app,
        r#"
app.conf.task_routes = {"py.*": {"queue": "celery"}, "celery.*": {"queue": "celery"}, "*": {"queue": "ours"}}
@app.task(name="py.total")
def total(values): return sum(values)
@app.task(name="py.replaces", bind=True)
def replaces(self, by): return self.replace(app.signature(json.loads(by)))
"#,
    );
    let script = r#"
kinds = {
    "task": lambda: add(1, 2),
    "chain": lambda: chain(add(1, 2), padd(10), add(100)),
    "failing": lambda: chain(add(1, 2), breaks(), add(100)),
}
kinds["group"] = lambda: group(add(n, n) for n in range(3))
kinds["chord"] = lambda: chord([add(1, 1), padd(2, 2)], sig("py.total")())
kinds["ends in a group"] = lambda: chain(add(1, 2), group(add(1), padd(2)))
def frozen(kind):
    return json.dumps(kinds[kind](), default=dict)
ends, ids = {}, []
for kind in kinds:
    for name in "replaces", "py.replaces":
        replaced = sig(name)(frozen(kind))
        alone = replaced.apply_async()
        ids.append(alone.id)
        ends[f"{name} {kind}"] = [got(alone), alone.state]
        if kind in ("task", "chain", "failing"):
            # In the middle of a chain, with a callback.
            whole = chain(add(0, 0), sig(name)(frozen(kind), immutable=True), add(1000))
            ends[f"{name} {kind} in a chain"] = got(whole.apply_async())
        if kind in ("task", "chain"):
            in_chord = chord([add(5, 5), sig(name)(frozen(kind))], sig("py.total")())
            ends[f"{name} {kind} in a chord"] = got(in_chord.apply_async())
say(ends)
"#;
    let ends = run(&app, script);
    for (name, end) in ends.as_object().unwrap() {
        if let Some(kind) = name.strip_prefix("py.") {
            assert_eq!(end, &ends[kind], "{kind}: {ends}");
        }
    }
    assert_eq!(ends["replaces task"], json!([3, "SUCCESS"]));
    assert_eq!(ends["replaces chain"], json!([113, "SUCCESS"]));
    assert_eq!(ends["replaces chain in a chain"], json!(1113));
    assert_eq!(ends["replaces group"], json!([[0, 2, 4], "SUCCESS"]));
    assert_eq!(ends["replaces task in a chord"], json!(13));
}
