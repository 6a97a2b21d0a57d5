//! Messages and results in every serializer and compression, between us and Python.

use super::celery;
use super::worker::PythonWorker;
use crate::harness::{Place, TestDir, eventually, in_every_place};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

const SERIALIZERS: [&str; 4] = ["json", "yaml", "msgpack", "pickle"];

const COMPRESSIONS: [&str; 9] =
    ["gzip", "zlib", "bzip2", "bzip", "xz", "lzma", "brotli", "zstd", "zstandard"];

/// What a reader of everything is set to.
const ALL: &str = "[json, yaml, msgpack, pickle]";

const TASKS: &str = r#"
value: {shell: 'printf %s "$1"'}
fails: {shell: 'echo "it broke" >&2; exit 3'}
note: {shell: 'echo "$1" >>notes'}
"#;

in_every_place! {
    a_python_worker_reads_every_form_that_we_write
    python_reads_our_results_in_every_serializer
    we_read_pythons_results_in_every_serializer
    what_is_done_stays_done_in_every_serializer
    follow_ups_are_written_as_they_ask
    beat_writes_as_its_entries_ask
}

fn result(app: &TestDir, id: &str) -> Value {
    let output = app.qworker(&["result", id, "--json", "--wait", "--timeout", "60"]);
    serde_json::from_str(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

/// A value of kombu's JSON, the serializers that have a form for it, and what Python makes of it.
const TYPED: [(&str, &[&str], &str, &str); 9] = [
    (
        r#"{"__type__": "datetime", "__value__": "2030-01-02T03:04:05.000006"}"#,
        &["json", "yaml", "pickle"],
        "datetime",
        "datetime.datetime(2030, 1, 2, 3, 4, 5, 6)",
    ),
    (
        r#"{"__type__": "datetime", "__value__": "2030-01-02T03:04:05-05:30"}"#,
        &["json", "yaml", "pickle"],
        "datetime",
        "datetime.datetime(2030, 1, 2, 3, 4, 5, tzinfo=datetime.timezone(datetime.timedelta(days=-1, seconds=66600)))",
    ),
    (
        r#"{"__type__": "date", "__value__": "2030-01-02"}"#,
        &["json", "yaml", "pickle"],
        "date",
        "datetime.date(2030, 1, 2)",
    ),
    (
        r#"{"__type__": "time", "__value__": "03:04:05"}"#,
        &["json", "pickle"],
        "time",
        "datetime.time(3, 4, 5)",
    ),
    (
        r#"{"__type__": "decimal", "__value__": "1.10"}"#,
        &["json", "pickle"],
        "Decimal",
        "Decimal('1.10')",
    ),
    (
        r#"{"__type__": "uuid", "__value__": {"hex": "f0000000000000000000000000000001"}}"#,
        &["json", "pickle"],
        "UUID",
        "UUID('f0000000-0000-0000-0000-000000000001')",
    ),
    (
        r#"{"__type__": "base64", "__value__": "/wA="}"#,
        &["json", "yaml", "msgpack", "pickle"],
        "bytes",
        r"b'\xff\x00'",
    ),
    (
        "123456789012345678901234567890",
        &["json", "yaml", "pickle"],
        "int",
        "123456789012345678901234567890",
    ),
    (
        r#"["\ud83d\ude00\u00fc", -1, 2.5, true, null, 1e300, {"k": ""}, "yes", "1e5"]"#,
        &["json", "yaml", "msgpack", "pickle"],
        "list",
        "['😀ü', -1, 2.5, True, None, 1e+300, {'k': ''}, 'yes', '1e5']",
    ),
];

fn a_python_worker_reads_every_form_that_we_write(place: Place) {
    let app = place.app("");
    app.settings(&format!("accept_content: {ALL}\ntask_serializer: yaml\ntask_compression: xz\n"));
    let call = |args: &[&str]| app.qworker(&[&["call", "--unregistered"], args].concat());
    let sent = |args: &[&str]| {
        let output = call(args);
        assert_eq!(output.code, 0, "{args:?}: {output:?}");
        output.stdout.trim_end().to_string()
    };
    let mut sums = vec![sent(&["py.add", "-a", "[20, 22]"])];
    for serializer in SERIALIZERS {
        for compression in COMPRESSIONS {
            let form = ["--serializer", serializer, "--compression", compression];
            sums.push(sent(&[&["py.add", "-a", "[20]", "-k", r#"{"b": 22}"#], &form[..]].concat()));
        }
    }
    let mut kinds = Vec::new();
    for (value, serializers, kind, repr) in TYPED {
        for serializer in SERIALIZERS {
            let args = format!("[{value}]");
            let words = ["py.kind", "-a", &args, "--serializer", serializer];
            if serializers.contains(&serializer) {
                kinds.push((sent(&words), json!([kind, repr])));
                continue;
            }
            let refused = call(&words);
            assert_eq!((refused.code, &*refused.stdout), (2, ""), "{refused:?}");
            let why = format!("task py.kind: {serializer}: the ");
            assert!(refused.stderr.contains(&why), "{serializer} {value}: {}", refused.stderr);
        }
    }
    let lines = "[1, 2]\n[123456789012345678901234567890]\n[3, 4]\n";
    let batch =
        ["call", "--unregistered", "py.add", "--from-jsonl", "-", "--serializer", "msgpack"];
    let batch = app.qworker_with_input(&batch, lines);
    assert!(batch.stderr.contains("line 2: task py.add: msgpack: the integer"), "{batch:?}");
    let batch: Vec<String> = batch.stdout.lines().map(str::to_string).collect();
    let accept = r#"app.conf.accept_content = ["json", "yaml", "msgpack", "pickle"]"#;
    let _worker = PythonWorker::start(&app, accept);
    for id in &sums {
        assert_eq!(result(&app, id)["result"], json!(42), "{id}");
    }
    for (id, expected) in &kinds {
        assert_eq!(&result(&app, id)["result"], expected);
    }
    assert_eq!(result(&app, &batch[0])["result"], json!(3));
    assert_eq!((result(&app, &batch[1])["result"].clone(), batch.len()), (json!(7), 2));
}

/// How results are written: serializer and compression.
fn forms(place: Place) -> Vec<(&'static str, Option<&'static str>)> {
    let mut forms: Vec<_> = SERIALIZERS.map(|serializer| (serializer, None)).into();
    // A table has no compressed results.
    if place == Place::Redis {
        let more = [("json", "gzip"), ("yaml", "bzip2"), ("msgpack", "xz"), ("pickle", "brotli")];
        forms.extend(more.map(|(serializer, compression)| (serializer, Some(compression))));
        forms.push(("json", Some("zstd")));
    }
    forms
}

fn settings((serializer, compression): (&str, Option<&str>)) -> String {
    let compression = compression.unwrap_or("null");
    format!(
        "accept_content: {ALL}\nresult_serializer: {serializer}\nresult_compression: {compression}\n\
         result_extended: true\ntask_track_started: true\n"
    )
}

/// The same for Python.
fn conf((serializer, compression): (&str, Option<&str>)) -> String {
    format!(
        "app.conf.update(result_serializer={}, result_compression={}, result_extended=True, \
         result_accept_content=['json', 'yaml', 'msgpack', 'pickle'])\n",
        json!(serializer),
        compression.map_or("None".into(), |name| json!(name).to_string())
    )
}

fn python_reads_our_results_in_every_serializer(place: Place) {
    for form in forms(place) {
        let app = place.app(TASKS);
        app.settings(&settings(form));
        let mut worker = app.worker(&["-c", "2"]);
        let text =
            r#"{"a": [1, 2.5, null, "ü\u0000"], "b": {"__type__": "base64", "__value__": "/w=="}}"#;
        let script = r#"
ok = app.send_task("value", (TEXT,))
typed = app.send_task("value", ('{"__type__": "uuid", "__value__": {"hex": "00000000000000000000000000000007"}}',))
bad = app.send_task("fails")
try:
    bad.get(timeout=60)
except Exception as error:
    raised = [type(error).__module__, type(error).__name__, error.args[0], bad.state]
value = ok.get(timeout=60)
say({"value": value["a"], "bytes": value["b"] == b"\xff", "typed": str(typed.get(timeout=60)),
     "raised": raised, "args": ok.args, "name": ok.name, "worker": ok.worker is not None,
     "traceback": "it broke" in bad.traceback, "ids": [ok.id, bad.id]})
"#;
        let script = script.replace("TEXT", &json!(text).to_string());
        let got = celery(&app, &format!("{}{script}", conf(form)));
        assert_eq!(got["value"], json!([1, 2.5, null, "ü\0"]), "{form:?}");
        assert_eq!(got["bytes"], json!(true), "{form:?}");
        assert_eq!(got["typed"], json!("00000000-0000-0000-0000-000000000007"), "{form:?}");
        let raised = json!(["subprocess", "CalledProcessError", 3, "FAILURE"]);
        assert_eq!((&got["raised"], &got["traceback"]), (&raised, &json!(true)), "{form:?}");
        assert_eq!((&got["args"], &got["name"]), (&json!([text]), &json!("value")), "{form:?}");
        let ours = result(&app, got["ids"][0].as_str().unwrap());
        assert_eq!((&ours["status"], &ours["result"]["a"]), (&json!("SUCCESS"), &got["value"]));
        let ours = result(&app, got["ids"][1].as_str().unwrap());
        assert_eq!(ours["result"]["exc_type"], json!("CalledProcessError"), "{form:?}");
        assert_eq!(worker.stop(Signal::SIGTERM), 0);
    }
}

/// Results of every state, and exceptions of every kind.
const STORE: &str = r#"
import datetime, decimal
from celery.exceptions import Retry
class Local(Exception):
    def __init__(self, one): super().__init__(one, ValueError("inner"), {"k": [1]})
    def __reduce__(self): return (KeyError, self.args)
class Odd(Exception):
    def __init__(self, one, two): super().__init__("odd", one)
b = app.backend
b.store_result("ok", {"ü": [1, None, "x"], "big": 2**60}, "SUCCESS")
b.store_result("text", "5", "SUCCESS")
b.store_result("number", 5, "SUCCESS")
b.store_result("bad", KeyError("k", 5), "FAILURE", traceback="line 1\nline 2")
b.store_result("nested", Local("x"), "FAILURE")
b.store_result("odd", Odd(1, 2), "FAILURE")
b.store_result("again", ValueError("x"), "RETRY")
b.store_result("custom", {"percent": 5}, "PROGRESS")
b.mark_as_revoked("revoked", "terminated")
if b.serializer == "pickle":
    b.store_result("object", Local, "SUCCESS")
    b.store_result("typed", [decimal.Decimal("1.5"), datetime.date(2030, 1, 2)], "SUCCESS")
say(None)
"#;

fn we_read_pythons_results_in_every_serializer(place: Place) {
    let app = place.app("");
    std::fs::create_dir(app.file("var")).unwrap();
    for form @ (serializer, _) in forms(place) {
        app.settings("");
        celery(&app, &format!("{}{STORE}", conf(form)));
        let result = |id: &str| {
            let output = app.qworker(&["result", id, "--json"]);
            (output.code, serde_json::from_str::<Value>(&output.stdout).unwrap())
        };
        let (code, refused) = result("ok");
        let why = refused["result"]["exc_message"][0].as_str().unwrap_or_default();
        match serializer {
            "json" => assert_eq!((code, refused["result"]["big"].as_i64()), (0, Some(1 << 60))),
            _ => {
                let expected = format!(
                    "the stored result is {serializer}, which is not accepted; \
                     result_accept_content has: json"
                );
                assert_eq!(why, expected, "{form:?}: {refused}");
            }
        }
        // What a table has does not tell its form: it has to be known.
        let known = if place == Place::File { serializer } else { "json" };
        app.settings(&format!("result_accept_content: {ALL}\nresult_serializer: {known}\n"));
        let (code, ok) = result("ok");
        let expected = json!({"ü": [1, null, "x"], "big": 1_i64 << 60});
        assert_eq!((code, &ok["result"]), (0, &expected), "{form:?}");
        assert_eq!(result("text").1["result"], json!("5"), "{form:?}");
        assert_eq!(result("number").1["result"], json!(5), "{form:?}");
        let (code, bad) = result("bad");
        let expected =
            json!({"exc_type": "KeyError", "exc_message": ["k", 5], "exc_module": "builtins"});
        assert_eq!((code, &bad["result"]), (1, &expected), "{form:?}");
        assert_eq!(bad["traceback"], json!("line 1\nline 2"), "{form:?}");
        assert_eq!(result("again").1["result"]["exc_type"], json!("ValueError"), "{form:?}");
        assert_eq!(result("custom").1["result"], json!({"percent": 5}), "{form:?}");
        assert_eq!(result("revoked").1["status"], json!("REVOKED"), "{form:?}");
        exceptions(&|id| result(id).1, serializer);
        let ids = ["ok", "text", "number", "bad", "nested", "odd", "again", "custom", "revoked"];
        celery(&app, &format!("for id in {}: app.backend.forget(id)\nsay(None)", json!(ids)));
    }
}

/// Exceptions are class and arguments, also of objects in a pickle.
fn exceptions(result: &dyn Fn(&str) -> Value, serializer: &str) {
    let nested = &result("nested")["result"];
    let odd = &result("odd")["result"];
    if serializer == "pickle" {
        let expected = json!({"exc_type": "KeyError", "exc_module": "builtins",
            "exc_message": ["x", "ValueError('inner')", {"k": [1]}]});
        assert_eq!(nested, &expected);
        // What Python cannot pickle, it wraps.
        assert_eq!((&odd["exc_type"], &odd["exc_module"]), (&json!("Odd"), &json!("__main__")));
        assert_eq!(odd["exc_message"], json!(["odd", 1]));
        let object = result("object")["result"].to_string();
        assert!(object.contains("__main__.Local is not data"), "{object}");
        let typed = result("typed")["result"].clone();
        assert_eq!(typed[1], json!({"__type__": "date", "__value__": "2030-01-02"}));
    } else {
        assert_eq!(nested["exc_type"], json!("Local"), "{serializer}");
    }
}

fn what_is_done_stays_done_in_every_serializer(place: Place) {
    for form in forms(place) {
        let app = place.app(TASKS);
        app.settings(&settings(form));
        app.must(&["call", "fails", "--task-id", "done"]);
        app.must(&["call", "note", "-a", "[\"gone\"]", "--task-id", "gone"]);
        celery(
            &app,
            &format!(
                "{}app.backend.store_result('done', [7], 'SUCCESS')\n\
                 app.backend.mark_as_revoked('gone', 'revoked')\nsay(None)",
                conf(form)
            ),
        );
        let mut worker = app.worker(&["-c", "1"]);
        app.must(&["call", "note", "-a", "[\"stays\"]", "--wait"]);
        let both = ["done", "gone"].map(|id| result(&app, id));
        assert_eq!((&both[0]["status"], &both[0]["result"]), (&json!("SUCCESS"), &json!([7])));
        assert_eq!((&both[1]["status"], app.read("notes")), (&json!("REVOKED"), "stays\n".into()));
        // What we have stored ourselves stays too.
        let id = app.must(&["call", "value", "-a", "[\"1\"]", "--task-id", "own"]);
        assert_eq!(result(&app, &id)["result"], json!(1), "{form:?}");
        app.must(&["call", "fails", "--task-id", "own"]);
        app.must(&["call", "note", "-a", "[\"end\"]", "--wait"]);
        assert_eq!(result(&app, "own")["status"], json!("SUCCESS"), "{form:?}");
        assert_eq!(worker.stop(Signal::SIGTERM), 0);
    }
}

fn follow_ups_are_written_as_they_ask(place: Place) {
    let app = place.app(TASKS);
    app.settings(&format!(
        "accept_content: {ALL}\ntask_serializer: msgpack\ntask_compression: gzip\n"
    ));
    let _worker = app.worker(&["-c", "2"]);
    let script = r#"
from celery import chain, group, chord, signature
import uuid
app.conf.task_default_queue = "celery"
def value(x): return signature("value", (x,), app=app, immutable=True)
py = lambda name, *args, **options: signature(name, args, app=app).set(queue="python", **options)
text = '{"__type__": "uuid", "__value__": {"hex": "00000000000000000000000000000007"}}'
say({
    "pickle": chain(value(text), py("py.kind", serializer="pickle", compression="zstd")).apply_async().id,
    "default": chain(value("[1, 2]"), py("py.kind")).apply_async().id,
    "refused": chain(value("1"), signature("py.add", (uuid.uuid4(),), app=app).set(queue="python")).apply_async().parent.id,
    "unknown": chain(value("1"), py("py.kind", serializer="raw")).apply_async().parent.id,
    "late": chain(value(text), py("py.kind")).apply_async().parent.id,
    "chord": chord([value("1"), py("py.add", 1, 1), value("3")], py("py.kind", serializer="yaml")).apply_async().id,
})
"#;
    let ids = celery(&app, script);
    let id = |name: &str| ids[name].as_str().unwrap();
    let accept = "app.conf.accept_content = ['json', 'yaml', 'msgpack', 'pickle']\n\
                  app.conf.task_default_queue = 'python'";
    let _python = PythonWorker::start(&app, accept);
    let uuid = "UUID('00000000-0000-0000-0000-000000000007')";
    assert_eq!(result(&app, id("pickle"))["result"], json!(["UUID", uuid]));
    assert_eq!(result(&app, id("default"))["result"], json!(["list", "[1, 2]"]));
    assert_eq!(result(&app, id("chord"))["result"], json!(["list", "[1, 2, 3]"]));
    // They are looked at before the task runs.
    for (name, why) in [
        ("refused", "task py.add: msgpack: the uuid"),
        (
            "unknown",
            "signature of py.kind: serializer: expected one of json, yaml, msgpack, pickle",
        ),
    ] {
        let ended = result(&app, id(name));
        assert_eq!(ended["result"]["exc_type"], json!("InvalidTaskError"), "{name}: {ended}");
        assert!(ended["result"].to_string().contains(why), "{name}: {ended}");
    }
    // The result of the task itself has no form.
    let ended = result(&app, id("late"));
    assert_eq!(ended["status"], json!("FAILURE"), "{ended}");
    assert!(ended["result"].to_string().contains("task py.kind: msgpack: the uuid"), "{ended}");
}

fn beat_writes_as_its_entries_ask(place: Place) {
    let app = place.app("");
    app.settings("task_serializer: yaml\ntask_compression: gzip\naccept_content: [yaml]\n");
    app.write(
        "schedule.yaml",
        r#"
entries:
  plain: {task: py.note, schedule: 3600, args: [plain]}
  pickled: {task: py.note, schedule: 3600, args: [pickled], options: {serializer: pickle, compression: zstd}}
  wrong: {task: py.note, schedule: 3600, args: [123456789012345678901234567890], options: {serializer: msgpack}}
"#,
    );
    let check = app.qworker(&["beat", "check"]);
    assert!(check.stdout.contains("wrong.args: task py.note: msgpack: the integer"), "{check:?}");
    for name in ["plain", "pickled"] {
        app.must(&["beat", "run", name]);
    }
    let accept = "app.conf.accept_content = ['yaml', 'pickle']";
    let _worker = PythonWorker::start(&app, accept);
    eventually("both", || (app.lines("notes").len() == 2).then_some(()));
    assert_eq!(app.lines("notes"), ["plain", "pickled"]);
}

/// Members and bodies of Python's and ours, whose parts on the server are in one form.
#[test]
fn chords_of_both_in_every_form() {
    for form in forms(Place::Redis) {
        let app = Place::Redis.app(TASKS);
        app.settings(&settings(form));
        let mut worker = app.worker(&["-c", "2"]);
        let conf = conf(form);
        let python =
            PythonWorker::start(&app, &format!("{conf}\napp.conf.task_default_queue = 'python'"));
        let script = r#"
from celery import chain, group, chord, signature
ours = lambda x: signature("value", (x,), app=app, immutable=True)
py = lambda name, *args: signature(name, args, app=app).set(queue="python")
pyi = lambda name, *args: signature(name, args, app=app, immutable=True).set(queue="python")
fails = signature("fails", app=app, immutable=True)
say([
    chord([ours("1"), py("py.add", 1, 1), ours("[3]")], py("py.kind")).apply_async().id,
    chord([py("py.add", 1, 0), chain(ours("9"), group(ours("2"), pyi("py.add", 1, 2))), ours("4")], py("py.kind")).apply_async().id,
    chord([ours("1"), py("py.fail")], py("py.kind")).apply_async().id,
    chord([fails, py("py.add", 1, 1)], ours("1")).apply_async().id,
])
"#;
        let ids = celery(&app, &format!("{conf}{script}"));
        let of = |n: usize| result(&app, ids[n].as_str().unwrap());
        assert_eq!(of(0)["result"], json!(["list", "[1, 2, [3]]"]), "{form:?}");
        assert_eq!(of(1)["result"], json!(["list", "[1, [2, 3], 4]"]), "{form:?}");
        for n in [2, 3] {
            let ended = of(n);
            assert_eq!(ended["result"]["exc_type"], json!("ChordError"), "{form:?}: {ended}");
        }
        drop(python);
        assert_eq!(worker.stop(Signal::SIGTERM), 0);
    }
}
