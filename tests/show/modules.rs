//! Modules that real toolchains made (`tests/wasm/build` makes or fetches them), and
//! modules that misbehave, beside tasks that must not notice.

use super::{call, call_with, post, value, wait};
use crate::harness::{TestDir, eventually, process};
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// A module of `target/wasm-fixtures`.
pub fn fixture(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/wasm-fixtures").join(name);
    assert!(path.exists(), "{} is missing: run tests/wasm/build", path.display());
    path
}

/// The same C program as a module and as a component: both behave the same.
const PROBES: [(&str, &str); 2] = [("module", "probe.wasm"), ("component", "probe.component.wasm")];

/// An application with one task for each probe, with these options.
fn probes(options: &str) -> TestDir {
    let task = |(name, file): (&str, &str)| {
        format!("{name}: {{wasm: {}, {options}}}\n", fixture(file).display())
    };
    TestDir::with(&PROBES.map(task).concat())
}

#[test]
fn c_programs_see_their_world() {
    let app = probes("env: {A: b}, stdin: json, dirs: ['data:/data:rw']");
    app.write("data/in", "content\n");
    let _worker = app.worker(&["-c", "2"]);
    for (task, _) in PROBES {
        let run = |args: Value| value(&app, task, &args.to_string());
        assert_eq!(run(json!(["args", [1], "a b"])), format!("{task}\nargs\n[1]\na b"));
        let env = run(json!(["env"]));
        assert!(env.as_str().unwrap().starts_with("A=b\n"), "{env}");
        assert!(!env.as_str().unwrap().contains("HOME="), "{env}");
        assert_eq!(run(json!(["cat", "/data/in"])), "content");
        assert_eq!(run(json!(["cat"]))["args"], json!(["cat"]));
        assert_eq!(run(json!(["write", format!("/data/{task}"), "text"])), Value::Null);
        assert_eq!(app.read(&format!("data/{task}")), "text");
        let listed = run(json!(["ls", "/data"]));
        assert!(listed.as_str().unwrap().lines().any(|name| name == "in"), "{listed}");
        assert!(run(json!(["time"])).as_u64().unwrap() > 1_700_000_000);
    }
    let exit = call(&app, "module", r#"["3"]"#);
    assert_eq!(exit.class(), "subprocess.CalledProcessError");
    assert_eq!(exit.message()[0], 3);
    // Preview 2 knows but success and failure; the adapter that jco uses traps on other codes.
    assert_eq!(call(&app, "component", r#"["3"]"#).status(), "FAILURE");
}

#[test]
fn assemblyscript_functions() {
    let module = fixture("numbers.wasm");
    let task = |name: &str| format!("{name}: {{wasm: {}, export: {name}}}\n", module.display());
    let app = TestDir::with(&["fib", "mean", "sorted"].map(task).concat());
    let _worker = app.worker(&[]);
    assert_eq!(value(&app, "fib", "[90]"), json!(2880067194370816120u64));
    assert_eq!(value(&app, "mean", "[1, 2]"), 1.5);
    assert_eq!(value(&app, "sorted", "[1000]"), 999);
    assert_eq!(call(&app, "fib", "[3000000000]").class(), "builtins.OverflowError");
}

/// CPython as it is published for WASI, unchanged.
#[test]
fn python_runs_a_script_given_as_arguments() {
    let app = TestDir::with(&format!(
        "python: {{wasm: {}, dirs: ['scripts:/scripts'], stdin: json}}\n",
        fixture("python.wasm").display()
    ));
    app.write(
        "scripts/sum.py",
        "import sys, json\nread = json.load(sys.stdin)\n\
         print(json.dumps({'argv': sys.argv, 'sum': sum(map(int, sys.argv[1:])), 'id': read['request']['id']}))\n",
    );
    let cache = fixture("python.wasm").with_file_name("cache");
    app.settings(&format!("wasm_cache_dir: {}\n", cache.display()));
    let _worker = app.worker(&["-c", "2"]);
    let script = "import sys; print(sys.platform, sys.version_info[0], sum(range(10 ** 5)))";
    let said = value(&app, "python", &json!(["-c", script]).to_string());
    assert_eq!(said, "wasi 3 4999950000");
    let args = r#"["/scripts/sum.py", 1, 2, 39]"#;
    let said = call_with(&app, "python", &["--args", args, "--task-id", "an-id"]).value();
    assert_eq!(
        said,
        json!({"argv": ["/scripts/sum.py", "1", "2", "39"], "sum": 42, "id": "an-id"})
    );
    let raised = call(&app, "python", &json!(["-c", "raise KeyError('x')"]).to_string());
    assert_eq!(raised.message()[0], 1);
    assert!(raised.traceback().ends_with("KeyError: 'x'"), "{raised:?}");
    let exit = call(&app, "python", &json!(["-c", "import sys; sys.exit(5)"]).to_string());
    assert_eq!(exit.message()[0], 5);
    let escape = json!(["-c", "open('/scripts/../../etc/passwd')"]).to_string();
    assert_eq!(call(&app, "python", &escape).message()[0], 1);
}

/// Sends a task that is to fail, and while it runs another one that is to succeed on the
/// same worker; gives the failure.
fn beside_others(app: &TestDir, task: &str, args: &str) -> super::Ended {
    let id = post(app, task, args);
    for n in 0..3 {
        assert_eq!(value(app, "add", &format!("[{n}, 1]")), n + 1, "beside {task}");
    }
    let ended = wait(app, &id);
    assert_eq!(value(app, "add", "[40, 2]"), 42, "after {task}");
    ended
}

/// `add` as a module, to run in the same process as the others.
const ADD: &str = r#"(module (func (export "add") (param i32 i32) (result i32)
  local.get 0 local.get 1 i32.add))"#;

fn with_add(app: &TestDir) {
    app.write("tasks.d/add.yaml", "add: {wasm: add.wat, export: add, time_limit: 10s}\n");
    app.write("tasks.d/add.wat", ADD);
}

#[test]
fn loops_bombs_and_traps_fail_alone() {
    let app = probes("time_limit: 1s, memory: 64MiB");
    with_add(&app);
    let worker = app.worker(&["-c", "2"]);
    let pid = worker.pid();
    for (task, _) in PROBES {
        // Compiled first: that time is not the task's.
        assert!(value(&app, task, r#"["time"]"#).is_u64());
        for what in ["spin", "sleep"] {
            let ended = beside_others(&app, task, &json!([what]).to_string());
            assert_eq!(ended.class(), "billiard.exceptions.TimeLimitExceeded", "{task} {what}");
        }
        for what in ["abort", "deep"] {
            let ended = beside_others(&app, task, &json!([what]).to_string());
            assert_eq!(ended.class(), "qworker.wasm.Trap", "{task} {what}");
        }
        let eaten = beside_others(&app, task, r#"["eat"]"#).value().as_u64().unwrap();
        assert!((32 << 20..64 << 20).contains(&eaten), "{task} {eaten}");
    }
    assert_eq!(worker.pid(), pid, "the worker is another one");
}

#[test]
fn paths_do_not_lead_out() {
    let app = probes("dirs: [{host: inside, guest: /data, mode: rw}]");
    with_add(&app);
    app.write("inside/file", "x").write("secret", "hidden");
    for (target, link) in [("../secret", "link"), ("/etc/passwd", "absolute"), ("..", "up")] {
        std::os::unix::fs::symlink(target, app.file("inside").join(link)).unwrap();
    }
    let _worker = app.worker(&["-c", "2"]);
    for (task, _) in PROBES {
        assert_eq!(value(&app, task, r#"["cat", "/data/file"]"#), "x");
        for path in [
            "/data/../secret",
            "/data/link",
            "/data/absolute",
            "/data/up/secret",
            "/data/./../inside/../secret",
            "/secret",
            "/etc/passwd",
            "../secret",
        ] {
            for args in [json!(["cat", path]), json!(["write", path, "overwritten"])] {
                let ended = beside_others(&app, task, &args.to_string());
                assert_eq!(ended.message()[0], 1, "{task} {args}");
            }
        }
    }
    assert_eq!(app.read("secret"), "hidden");
}

/// A module of so many large functions; with 1500 no compiler is through in three seconds.
fn heavy(functions: usize) -> String {
    let mut body = String::new();
    for n in 0..400 {
        write!(body, "(local.set 0 (i32.xor (i32.mul (local.get 0) (i32.const {})) (i32.rotl (local.get 1) (local.get 0))))", n * 7 + 3).unwrap();
        write!(
            body,
            "(if (local.get 0) (then (local.set 1 (i32.add (local.get 1) (i32.const {n})))))"
        )
        .unwrap();
    }
    let function = format!("(func (param i32 i32) (result i32) {body} (local.get 0))");
    format!(
        "(module {} (func (export \"f\") (result i32) (call 0 (i32.const 1) (i32.const 2))))",
        function.repeat(functions)
    )
}

#[test]
fn what_takes_long_to_compile_fails_alone() {
    let app = TestDir::with("heavy: {wasm: heavy.wat, export: f}\n");
    with_add(&app);
    app.write("tasks.d/heavy.wat", &heavy(1500));
    app.settings("wasm_compile_timeout: 3s\n");
    let worker = app.worker(&["-c", "2"]);
    let id = post(&app, "heavy", "[]");
    let compiling = || {
        let family = worker.family();
        family.into_iter().find(|pid| process::command(*pid).contains(" compile "))
    };
    let compiler = eventually("the compiler", compiling);
    let added = call(&app, "add", "[1, 2]");
    assert_eq!(added.value(), 3);
    let ended = wait(&app, &id);
    assert_eq!(ended.status(), "FAILURE");
    let why = "compiling took longer than wasm_compile_timeout, 3s";
    assert!(ended.text().contains(why), "{ended:?}");
    // The other one, compiled at the same time, did not wait for it.
    let done = |ended: &super::Ended| ended.document["date_done"].as_str().unwrap().to_string();
    assert!(done(&added) < done(&ended), "{added:?} {ended:?}");
    assert!(!process::is_alive(compiler));
    // It is known now, and not tried again.
    assert!(call(&app, "heavy", "[]").text().contains(why));
    assert_eq!(compiling(), None);
}

#[test]
fn compiling_is_not_the_tasks_time() {
    let app = TestDir::with("heavy: {wasm: heavy.wat, export: f, time_limit: 200ms}\n");
    app.write("tasks.d/heavy.wat", &heavy(300));
    let _worker = app.worker(&["-c", "2"]);
    let ids = [post(&app, "heavy", "[]"), post(&app, "heavy", "[]")];
    let values = ids.map(|id| wait(&app, &id).value());
    assert!(values[0].is_i64() && values[0] == values[1], "{values:?}");
}
