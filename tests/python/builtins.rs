//! Celery's built-in tasks, sent by Python and run by us: maps of our tasks, and of Python's, which are
//! left to Python.

use super::celery;
use super::worker::PythonWorker;
use crate::harness::{Place, TestDir, Worker, eventually, in_every_place};
use serde_json::{Value, json};

/// A time limit is about time that passes, so `slow` takes some; `once` hangs until its worker is
/// killed.
const TASKS: &str = r#"
double: {shell: 'echo $(( $1 * 2 ))'}
add: {params: [a, {b: 10}], shell: 'echo $(( $1 + $2 ))'}
note: {shell: 'echo "$1" >> notes; [ "$1" != stop ]'}
again: {shell: 'echo "$1" >> notes; exit 75'}
slow: {shell: 'echo "$1" >> notes; sleep 0.4', time_limit: 1}
greedy: {shell: 'head -c 200000000 /dev/zero | tail | wc -c', memory: 64MiB}
square: {wasm: square.wat, export: square}
whoami: {shell: 'echo "$QWORKER_TASK_NAME $QWORKER_TASK_ID"', result: text}
once: {shell: 'echo "$1" >> notes; if [ "$1" = hang ] && mkdir hung; then sleep 60; fi; echo "$1"'}
"#;

const SQUARE: &str = "(module (func (export \"square\") (param i32) (result i32)
    local.get 0 local.get 0 i32.mul))";

/// `sig`, `xmap` and others by the names of tasks.
const NAMES: &str = r#"
from celery import chain, chord, group
from celery.canvas import xmap, xstarmap, chunks
def sig(name, *args, **options):
    return app.signature(name, args=args, app=app, **options)
"#;

fn start(place: Place) -> (TestDir, Worker) {
    let app = place.app(TASKS);
    app.write("tasks.d/square.wat", SQUARE);
    let worker = app.worker(&["-c", "2"]);
    (app, worker)
}

fn run(app: &TestDir, script: &str) -> Value {
    celery(app, &format!("{NAMES}\n{script}"))
}

in_every_place! {
    a_map_gives_a_list
    the_first_failure_is_that_of_the_whole
    a_map_has_one_time_limit
    a_map_of_an_unknown_task_is_left_to_others
    a_map_that_follows_goes_where_its_task_goes
    a_killed_worker_costs_a_map_nothing
    the_other_built_in_tasks
}

fn a_map_gives_a_list(place: Place) {
    let (app, _worker) = start(place);
    let found = run(
        &app,
        r#"
m = lambda name, it, kind=xmap: kind(sig(name), it, app=app).apply_async()
one = m("whoami", [1, 2])
say([got(m("double", [1, 2, 3])), got(m("square", [3, 4])), got(m("double", [])),
     got(m("add", [1, 2])), got(m("add", [(1, 2), (3,)], xstarmap)), got(m("add", [[1, 2]], xstarmap)),
     got(chunks(sig("add"), [(n, n) for n in range(5)], 2, app=app).apply_async()),
     got(chain(sig("double", 1), xmap(sig("double"), [1, 2], app=app), sig("note")).apply_async()),
     got(chord([xmap(sig("double"), [1, 2], app=app), sig("double", 3)])(sig("whoami").set(immutable=True)))[:6],
     got(one) == [f"whoami {one.id}"] * 2,
     got(app.send_task("celery.map", args=["double", [4]])),
     got(m("double", range(200))), got(xmap(sig("double"), [5], app=app).apply_async(countdown=1))])
"#,
    );
    let expected = json!([
        [2, 4, 6],
        [9, 16],
        [],
        [11, 12],
        [3, 13],
        [3],
        [[0, 2], [4, 6], [8]],
        null,
        "whoami",
        true,
        [8],
        (0..200).map(|n| n * 2).collect::<Vec<_>>(),
        [10],
    ]);
    assert_eq!(found, expected);
    assert_eq!(app.lines("notes"), ["[2,4]"].map(|text| text.replace(',', ", ")));
}

fn the_first_failure_is_that_of_the_whole(place: Place) {
    let (app, _worker) = start(place);
    let found = run(
        &app,
        r#"
m = lambda name, it, kind=xmap: got(kind(sig(name), it, app=app).apply_async())
say([m("note", ["a", "stop", "b"]), m("again", ["c", "d"]), m("add", [(1,), (1, 2, 3)], xstarmap),
     m("add", [(1,), 5], xstarmap), got(app.send_task("celery.map", args=["double"])),
     got(app.send_task("celery.map", args=["double", 7])), m("greedy", [1])])
"#,
    );
    let names: Vec<&Value> = found.as_array().unwrap().iter().map(|one| &one[0]).collect();
    let expected = [
        "CalledProcessError",
        "CalledProcessError",
        "TypeError",
        "TypeError",
        "TypeError",
        "TypeError",
    ];
    assert_eq!(names[..6], expected);
    assert_eq!(app.lines("notes"), ["a", "stop", "c"]);
    assert_eq!(found[2][1], "add() takes from 1 to 2 positional arguments but 3 were given");
    assert_eq!(found[3][1], "'int' object is not iterable");
    assert_eq!(found[4][1], "map() missing 1 required positional argument: 'it'");
}

fn a_map_has_one_time_limit(place: Place) {
    let (app, _worker) = start(place);
    let found = run(&app, r#"say(got(xmap(sig("slow"), [1, 2, 3, 4, 5], app=app).apply_async()))"#);
    assert_eq!(found, json!(["TimeLimitExceeded", "TimeLimitExceeded(1,)"]));
    let notes = app.lines("notes");
    assert!(notes.len() < 5, "{notes:?}");
}

fn a_map_of_an_unknown_task_is_left_to_others(place: Place) {
    let (app, worker) = start(place);
    // Ours are taken past those of nobody.
    let found = run(
        &app,
        r#"
m = lambda name, it, kind=xmap: kind(sig(name), it, app=app)
for n in range(20):
    m("py.add", [n, n]).set(task_id=f"py-{n}").apply_async(countdown=n % 2)
m("later", [7]).set(task_id="later").apply_async()
say([got(m("double", [n]).apply_async()) for n in range(20)])
"#,
    );
    assert_eq!(found, json!((0..20).map(|n| vec![n * 2]).collect::<Vec<_>>()));
    worker.expect_line("holds tasks of the name \"celery.map(py.add)\"");
    assert!(!worker.log().contains("holds tasks of the name \"celery.map\""), "{}", worker.log());
    // A task that is defined later finds its maps.
    app.write("tasks.d/later.yaml", "later: {shell: 'echo $1'}\n");
    assert_eq!(run(&app, r#"say(got(app.AsyncResult("later")))"#), json!([7]));
    // Python's worker has the others, which were not counted.
    let python = PythonWorker::start(&app, "");
    let found = run(&app, r#"say([got(app.AsyncResult(f"py-{n}")) for n in range(20)])"#);
    assert_eq!(found, json!((0..20).map(|n| vec![n + 1; 2]).collect::<Vec<_>>()));
    drop(python);
}

fn a_map_that_follows_goes_where_its_task_goes(place: Place) {
    let app = place.app(TASKS);
    app.settings("task_default_queue: ours\ntask_routes: {'py.*': celery}\n");
    let _worker = app.worker(&["-c", "2"]);
    let _python = PythonWorker::start(&app, "");
    let found = run(
        &app,
        r#"
double = sig("double", 1).set(queue="ours")
maps = [xmap(sig("py.add"), [1, 2], app=app), xstarmap(sig("add"), [[1, 2]], app=app)]
say([got(chain(double, one).apply_async()) for one in maps + [chunks(sig("py.add"), [[1], [2]], 1, app=app)]])
"#,
    );
    assert_eq!((&found[0], &found[1]), (&json!([2, 3]), &json!([3])));
    // The value of chunks is what they were called as.
    assert_eq!(found[2][1].as_array().map(Vec::len), Some(2), "{found}");
}

fn a_killed_worker_costs_a_map_nothing(place: Place) {
    let (app, worker) = start(place);
    run(
        &app,
        r#"
xmap(sig("once"), ["a", "hang", "b"], app=app).set(task_id="M").apply_async()
say(1)"#,
    );
    eventually("it hangs", || app.file("hung").exists().then_some(()));
    crate::harness::process::send(worker.pid(), nix::sys::signal::Signal::SIGKILL);
    assert_eq!(run(&app, r#"say(got(app.AsyncResult("M")))"#), json!(["a", "hang", "b"]));
    // The whole runs again.
    assert_eq!(app.lines("notes"), ["a", "hang", "a", "hang", "b"]);
}

fn the_other_built_in_tasks(place: Place) {
    let (app, _worker) = start(place);
    let found = run(
        &app,
        r#"
send = lambda name, *args, **kwargs: app.send_task(f"celery.{name}", args=args, kwargs=kwargs)
from celery.result import result_from_tuple
chunked = got(send("chunks", sig("double"), [[1], [2], [3]], 2))
header = [sig("double", 1).set(task_id="H1"), sig("double", 2).set(task_id="H2")]
called = got(send("chord", header, sig("whoami", immutable=True)))
members = [sig("add", 5).set(task_id="G1"), sig("add", 6).set(task_id="G2")]
result = [["GROUP", None], [[["G1", None], None], [["G2", None], None]]]
grouped = got(send("group", members, result, "GROUP", [1]))
say([got(send("accumulate", 1, "b")), got(send("accumulate", 1, "b", index=-1)), got(send("accumulate", index=3)),
     got(send("backend_cleanup")), got(send("chain"))[0], got(result_from_tuple(chunked)),
     got(result_from_tuple(called)).split()[0], got(app.AsyncResult("G1")), got(app.AsyncResult("G2")), grouped == result])
"#,
    );
    assert_eq!(
        found,
        json!([
            [1, "b"],
            "b",
            ["IndexError", "tuple index out of range"],
            null,
            "NotImplementedError",
            [[2, 4], [6]],
            "whoami",
            6,
            7,
            true
        ])
    );
}
