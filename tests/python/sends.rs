//! Python sends, we run, Python reads the result.

use super::celery;
use crate::harness::wasm::wasi_printer;
use crate::harness::{Place, TestDir, in_every_place};
use serde_json::json;

const TASKS: &str = r#"
add: {shell: 'echo $(( $1 + $2 ))', params: [a, {b: 10}]}
echo: {exec: [printf, '%s', '{x}'], params: [x], result: text}
all: {shell: 'cat', stdin: json}
size: {shell: 'wc -c', stdin: json}
now: {shell: 'date +%s.%N'}
"#;

/// Each way in which a task finds its arguments.
const SEEN: &str = r#"
shell: {shell: 'printf "%s\n" "$@"', params: [a, b, c, d, e, f, g, h], result: text}
variables: {shell: 'printf "%s\n" "$ARG_1" "$ARG_2" "$ARG_3" "$ARG_4" "$ARG_5" "$ARG_6" "$ARG_7" "$ARG_8"', result: text}
exec: {exec: [printf, '%s\n', '{a}', '{b}', '{c}', '{d}', '{e}', '{f}', '{g}', '{h}'], params: [a, b, c, d, e, f, g, h], result: text}
places: {exec: [printf, '%s\n', '{1}', '{*}'], result: text}
module: {wasm: argv.wat, result: text}
"#;

in_every_place! {
    into_a_store_that_we_made
    headers_and_typed_values_reach_the_program
    every_program_sees_typed_values_as_plain_text
    countdown_and_expiry_are_kept
    a_time_is_the_same_time_however_it_is_written
    ten_megabytes_arrive
}

fn into_a_store_that_we_made(place: Place) {
    let app = place.app(TASKS);
    let _worker = app.worker(&["-c", "2"]);
    let got = celery(
        &app,
        r#"
say([
    app.send_task("add", (2, 3)).get(timeout=60),
    app.send_task("add", (2,)).get(timeout=60),
    app.send_task("add", kwargs={"b": 1, "a": 2**40}).get(timeout=60),
    app.send_task("echo", ("Grüße\n'\" $(rm -rf) \U0001f600",)).get(timeout=60),
    app.send_task("echo", (b"bytes",)).get(timeout=60),
])
"#,
    );
    assert_eq!(got, json!([5, 12, 1_099_511_627_777_i64, "Grüße\n'\" $(rm -rf) 😀", "bytes"]));
}

#[test]
fn into_a_file_that_python_made() {
    let app = TestDir::with(TASKS);
    std::fs::create_dir(app.file("var")).unwrap();
    let ids = celery(
        &app,
        r#"
from sqlalchemy import create_engine, inspect
results = [app.send_task("add", (n, n)) for n in range(5)]
# The table of results too, as a Python worker makes it.
app.backend.store_result("earlier", {"n": 1}, "SUCCESS")
columns = [c["name"] for c in inspect(create_engine(sys.argv[1][5:])).get_columns("kombu_message")]
assert "owner" not in columns, columns
say([result.id for result in results])
"#,
    );
    let ids: Vec<String> = serde_json::from_value(ids).unwrap();
    assert_eq!(app.must(&["result", "earlier"]), r#"{"n": 1}"#);
    let waiting = app.qworker(&["result", &ids[0]]);
    assert_eq!(waiting.code, 75, "{waiting:?}");
    let _worker = app.worker(&["-c", "2"]);
    for (n, id) in ids.iter().enumerate() {
        assert_eq!(app.must(&["result", id, "--wait", "--timeout", "60"]), (n * 2).to_string());
    }
    let got = celery(&app, r#"say(app.send_task("add", (20, 22)).get(timeout=60))"#);
    assert_eq!(got, json!(42), "and Python still works on the columns that we added");
}

fn headers_and_typed_values_reach_the_program(place: Place) {
    let app = place.app(TASKS);
    let _worker = app.worker(&["-c", "2"]);
    let got = celery(
        &app,
        r#"
import datetime, decimal, uuid
when = datetime.datetime(2030, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc)
sent = app.send_task("all", (b"\xff\x01", when, decimal.Decimal("1.10")), {"k": [1, None]},
                     root_id="root", parent_id="parent", priority=3)
got = sent.get(timeout=60)
say({"args": got["args"][0] == b"\xff\x01" and got["args"][1] == when
             and got["args"][2] == decimal.Decimal("1.10"),
     "kwargs": got["kwargs"],
     "same": got["request"]["id"] == sent.id, "root": got["request"]["root_id"]})
"#,
    );
    assert_eq!(
        got,
        json!({"args": true, "kwargs": {"k": [1, null]}, "same": true, "root": "root"})
    );
}

fn every_program_sees_typed_values_as_plain_text(place: Place) {
    let app = place.app(SEEN);
    app.write("tasks.d/argv.wat", &wasi_printer("args"));
    let _worker = app.worker(&["-c", "2"]);
    let got = celery(
        &app,
        r#"
import datetime, decimal, uuid
one = uuid.UUID("11111111-2222-4333-8444-555555555555")
when = datetime.datetime(2030, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc)
price = decimal.Decimal("1.10")
args = (one, when, price, when.date(), when.time(), "text".encode(), 2**70,
        [{"id": one, "price": price, "raw": b"\xff", "n": 2**70}])
sent = {name: app.send_task(name, args)
        for name in ("shell", "variables", "exec", "places", "module")}
got = {name: result.get(timeout=60) for name, result in sent.items()}
got["module"] = got["module"].rstrip("\0").replace("\0", "\n")
say({name: text.split("\n") for name, text in got.items()})
"#,
    );
    let seen = json!([
        "11111111-2222-4333-8444-555555555555",
        "2030-01-02T03:04:05+00:00",
        "1.10",
        "2030-01-02",
        "03:04:05",
        "text",
        "1180591620717411303424",
        r#"[{"id": "11111111-2222-4333-8444-555555555555", "price": "1.10", "raw": "/w==", "n": 1180591620717411303424}]"#,
    ]);
    for name in ["shell", "variables", "exec", "places", "module"] {
        let mut lines = got[name].as_array().unwrap().clone();
        // The first argument of a module is the task's name.
        if name == "module" {
            assert_eq!(lines.remove(0), "module");
        }
        assert_eq!(json!(lines), seen, "{name}");
    }
}

fn countdown_and_expiry_are_kept(place: Place) {
    let app = place.app(TASKS);
    let _worker = app.worker(&["-c", "2"]);
    let got = celery(
        &app,
        r#"
import time
begin = time.time()
late = app.send_task("add", (1, 1), countdown=1)
gone = app.send_task("add", (1, 1), countdown=0.3, expires=0.1)
value = late.get(timeout=60)
took = time.time() - begin
try:
    gone.get(timeout=60)
except Exception as error:
    why = [type(error).__module__, type(error).__name__, str(error), gone.state]
say({"value": value, "early": took < 1, "late": took > 20, "why": why})
"#,
    );
    let why = ["celery.exceptions", "TaskRevokedError", "expired", "REVOKED"];
    assert_eq!(got, json!({"value": 2, "early": false, "late": false, "why": why}));
}

fn a_time_is_the_same_time_however_it_is_written(place: Place) {
    let app = place.app(TASKS);
    let _worker = app.worker(&["-c", "4"]);
    let got = celery(
        &app,
        r#"
from datetime import datetime, timedelta, timezone
when = datetime.now(timezone.utc) + timedelta(seconds=0.6)
india = timezone(timedelta(hours=5, minutes=30))
forms = [when, when.astimezone(india), when.replace(tzinfo=None), when.replace(microsecond=0)]
sent = [app.send_task("now", eta=form) for form in forms]
ran = [result.get(timeout=60) for result in sent]
say([at >= when.timestamp() - 0.001 and at < when.timestamp() + 10 for at in ran[:3]]
    + [ran[3] >= int(when.timestamp())])
"#,
    );
    assert_eq!(got, json!([true, true, true, true]));
}

fn ten_megabytes_arrive(place: Place) {
    let app = place.app(TASKS);
    let _worker = app.worker(&["-c", "1"]);
    let script = r#"say(app.send_task("size", ("x" * 10_000_000,)).get(timeout=60))"#;
    let got = celery(&app, script);
    assert!(got.as_u64().unwrap() > 10_000_000, "{got}");
}
