//! Every key of a task file, by what it does to a real process or module. The test of a
//! key has its name; [`every_key_has_its_test`] sees to it that none is forgotten.

use super::{Ended, call, call_with, post, post_unchecked, value, wait};
use crate::harness::wasm::wasi_printer;
use crate::harness::{TestDir, Worker, eventually};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

/// A worker on these tasks: `(application, worker)`; the worker is to be dropped first.
fn open(tasks: &str) -> (Box<TestDir>, Worker) {
    let app = Box::new(TestDir::with(tasks));
    let worker = app.worker(&["-c", "4", "-l", "INFO"]);
    (app, worker)
}

/// Runs `work` beside a worker on these tasks.
fn shown(tasks: &str, work: impl FnOnce(&TestDir, &Worker)) {
    let (app, worker) = open(tasks);
    work(&app, &worker);
    drop(worker);
}

/// The delays in seconds that the worker announced for the retries of a task, in order.
fn delays(worker: &Worker, id: &str) -> Vec<f64> {
    let log = worker.log();
    let lines = log.lines().filter(|line| line.contains(id));
    let delay = |line: &str| line.split_once("Retry in ")?.1.split_once('s')?.0.parse().ok();
    lines.filter_map(delay).collect()
}

/// The numbers in a file, one a line.
fn numbers(app: &TestDir, file: &str) -> Vec<f64> {
    app.lines(file).iter().map(|line| line.parse().unwrap()).collect()
}

#[test]
fn every_key_has_its_test() {
    let tests = include_str!("keys.rs");
    let missing: Vec<&str> = qworker::task::keys::names()
        .filter(|key| !tests.contains(&format!("\n#[test]\nfn {key}() {{")))
        .collect();
    assert!(missing.is_empty(), "keys that no test shows: {missing:?}");
}

#[test]
fn shell() {
    let tasks = r#"
words: {shell: 'printf "%s|" "$0" "$#" "$1" "$2"', result: text}
pipe: {shell: 'echo one two | wc -w'}
"#;
    shown(tasks, |app, _| {
        assert_eq!(value(app, "words", r#"["a b", "$(reboot)"]"#), "words|2|a b|$(reboot)|");
        assert_eq!(value(app, "pipe", "[]"), 2);
    });
}

#[test]
fn exec() {
    let tasks = r#"
thumb:
  exec: [printf, '<%s>', '{path}', -s, 'x{size}.png', '{{}}']
  params: [path, {size: 9}]
  result: text
all: {exec: [printf, '<%s>', '{2}', '{*}'], result: text}
"#;
    shown(tasks, |app, _| {
        assert_eq!(value(app, "thumb", r#"["a;b $HOME"]"#), "<a;b $HOME><-s><x9.png><{}>");
        let named = call_with(app, "thumb", &["--kwargs", r#"{"size": "1 2", "path": ""}"#]);
        assert_eq!(named.value(), "<><-s><x1 2.png><{}>");
        assert_eq!(value(app, "all", r#"["a", "b", "c"]"#), "<b><a><c>");
    });
}

/// No key, but a program as well: an executable file in `tasks.d`.
#[test]
fn dropped_in_program() {
    let app = TestDir::new();
    app.program("tasks.d/tools/greet.sh", "#!/bin/sh\necho \"Hello, $1, from ${0##*/}\"\n");
    app.write("tasks.d/tools/notes.txt", "not executable, no task");
    let _worker = app.worker(&[]);
    assert_eq!(value(&app, "tools.greet", r#"["you"]"#), "Hello, you, from greet.sh");
    let tasks: Value = serde_json::from_str(&app.must(&["list", "tasks", "--json"])).unwrap();
    assert_eq!(tasks.as_array().unwrap().len(), 1, "{tasks}");
}

const FUNCTIONS: &str = r#"(module (memory 1)
  (func (export "multiply") (param i64 i64) (result i64) local.get 0 local.get 1 i64.mul)
  (func (export "half") (param f64) (result f64) local.get 0 f64.const 2 f64.div)
  (func (export "count") (param i32) (result i32) (local $i i32)
    (loop (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br_if 0 (i32.lt_s (local.get $i) (local.get 0))))
    (local.get $i))
  (func (export "grow") (param i32) (result i32) (memory.grow (local.get 0))))"#;

#[test]
fn wasm() {
    let app = TestDir::with("environment: {wasm: modules/environment.wat}\n");
    app.write("tasks.d/modules/environment.wat", &wasi_printer("environ"));
    app.write("tasks.d/dropped.wat", "(module (func (export \"_start\")))");
    let _worker = app.worker(&[]);
    let seen = value(&app, "environment", "[]");
    assert!(seen.as_str().unwrap().contains("QWORKER_TASK_NAME=environment\0"), "{seen}");
    assert_eq!(value(&app, "dropped", "[]"), Value::Null);
}

#[test]
fn export() {
    let tasks = "multiply: {wasm: f.wat, export: multiply}\nhalf: {wasm: f.wat, export: half}\n\
                 none: {wasm: f.wat, export: divide}\n";
    let app = TestDir::with(tasks);
    app.write("tasks.d/f.wat", FUNCTIONS);
    let _worker = app.worker(&[]);
    assert_eq!(value(&app, "multiply", "[6, 7]"), 42);
    assert_eq!(value(&app, "half", "[5]"), 2.5);
    let none = call(&app, "none", "[]");
    assert!(none.text().contains("it exports count, grow, half, multiply"), "{none:?}");
}

#[test]
fn description() {
    let app = TestDir::with("a: {shell: 'true', description: \"Says\\n  nothing\"}\n");
    let tasks: Value = serde_json::from_str(&app.must(&["list", "tasks", "--json"])).unwrap();
    assert_eq!(tasks[0]["description"], "Says nothing");
    assert!(app.must(&["list", "tasks"]).contains("Says nothing"));
}

#[test]
fn params() {
    let tasks = r#"
say: {shell: 'echo "$1/$2/$ARG_who/$ARG_what"', params: [who, {what: hello}]}
"#;
    shown(tasks, |app, _| {
        assert_eq!(value(app, "say", r#"["me"]"#), "me/hello/me/hello");
        let named = call_with(app, "say", &["--kwargs", r#"{"what": "bye", "who": "you"}"#]);
        assert_eq!(named.value(), "you/bye/you/bye");
        // Who knows the definition is told at once; who does not, by the worker.
        for (args, why) in [
            ("[]", "say() missing 1 required positional argument: 'who'"),
            ("[1, 2, 3]", "say() takes from 1 to 2 positional arguments but 3 were given"),
        ] {
            let refused = app.qworker(&["call", "say", "--args", args]);
            assert_eq!(refused.code, 2, "{refused:?}");
            assert!(refused.stderr.contains(&format!("TypeError: {why}")), "{refused:?}");
            let failed = wait(app, &post_unchecked(app, "say", args));
            assert_eq!((failed.class().as_str(), failed.text()), ("builtins.TypeError", why));
        }
        let unknown = app.qworker(&["call", "say", "--kwargs", r#"{"who": 1, "whom": 2}"#]);
        assert_eq!(unknown.code, 2, "{unknown:?}");
        assert!(unknown.stderr.contains("unexpected keyword argument 'whom'"), "{unknown:?}");
    });
}

#[test]
fn queue() {
    let app = TestDir::with("where: {shell: 'echo $QWORKER_TASK_QUEUE', queue: media}\n");
    let other = app.worker(&["-n", "other", "-Q", "celery"]);
    let id = post(&app, "where", "[]");
    // A task sent later to the other queue is done, so it was free to take the first one.
    assert_eq!(call_with(&app, "where", &["--queue", "celery"]).value(), "celery");
    let queues: Value = serde_json::from_str(&app.must(&["list", "queues", "--json"])).unwrap();
    let media = queues.as_array().unwrap().iter().find(|queue| queue["name"] == "media").unwrap();
    assert_eq!(media["ready"], 1, "{queues}");
    let media = app.worker(&["-n", "media", "-Q", "media"]);
    assert_eq!(wait(&app, &id).value(), "media");
    drop((media, other));
}

#[test]
fn priority() {
    let tasks = "low: {shell: 'echo low >> order', priority: 1}\n\
                 high: {shell: 'echo high >> order', priority: 9}\n\
                 none: {shell: 'echo none >> order'}\n";
    let app = TestDir::with(tasks);
    let mut ids: Vec<String> =
        ["none", "low", "none", "high", "low", "high"].map(|task| post(&app, task, "[]")).into();
    ids.push(app.must(&["call", "low", "--priority", "8"]));
    let _worker = app.worker(&["-c", "1"]);
    ids.iter().for_each(|id| assert_eq!(wait(&app, id).status(), "SUCCESS"));
    assert_eq!(app.lines("order"), ["high", "high", "low", "low", "low", "none", "none"]);
}

#[test]
fn time_limit() {
    shown("long: {shell: 'echo $$ > pid; exec sleep 1000', time_limit: 1500ms}\n", |app, _| {
        let ended = call(app, "long", "[]");
        assert_eq!(ended.class(), "billiard.exceptions.TimeLimitExceeded");
        assert_eq!(ended.message(), &json!([1.5]));
        let pid = app.read("pid").trim().parse().unwrap();
        assert!(!crate::harness::process::is_alive(pid));
    });
}

#[test]
fn soft_time_limit() {
    let tasks = r#"
stubborn: {shell: 'trap "exit 9" TERM; sleep 1000 & wait', soft_time_limit: 1s}
tidy: {shell: 'trap "echo saved; exit 0" TERM; sleep 1000 & wait', soft_time_limit: 1s}
plain: {shell: 'exec sleep 1000', soft_time_limit: 1s, time_limit: 1h}
"#;
    shown(tasks, |app, _| {
        for task in ["stubborn", "plain"] {
            let ended = call(app, task, "[]");
            assert_eq!(ended.class(), "billiard.exceptions.SoftTimeLimitExceeded", "{task}");
            assert_eq!(ended.message(), &json!([]));
        }
        // Whoever is told in time may still make the best of it.
        assert_eq!(value(app, "tidy", "[]"), "saved");
    });
}

#[test]
fn max_retries() {
    let tasks = r#"
twice: {shell: 'echo x >> twice; exit 75', max_retries: 2, retry_backoff: 0}
never: {shell: 'echo x >> never; exit 75', max_retries: 0}
default: {shell: 'echo x >> default; exit 75', retry_backoff: 0}
endless: {shell: 'test $QWORKER_TASK_RETRIES = 12 || exit 75; echo 12', max_retries: null, retry_backoff: 0}
"#;
    shown(tasks, |app, _| {
        for (task, starts) in [("twice", 3), ("never", 1), ("default", 4)] {
            let ended = call(app, task, "[]");
            assert_eq!(ended.class(), "subprocess.CalledProcessError");
            assert_eq!(ended.message()[0], 75);
            assert_eq!(app.lines(task).len(), starts, "{task}");
        }
        assert_eq!(value(app, "endless", "[]"), 12);
    });
}

#[test]
fn retry_backoff() {
    let tasks =
        "r: {shell: 'date +%s.%N >> times; exit 75', retry_backoff: 200ms, retry_jitter: false}\n";
    shown(tasks, |app, worker| {
        let ended = call(app, "r", "[]");
        worker.expect_line("raised unexpected: CalledProcessError");
        assert_eq!(delays(worker, ended.id()), [0.2, 0.4, 0.8]);
        let times = numbers(app, "times");
        let gaps: Vec<f64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert_eq!(gaps.len(), 3);
        for (gap, least) in gaps.iter().zip([0.2, 0.4, 0.8]) {
            assert!(*gap >= least - 0.002, "{gaps:?}");
        }
    });
}

#[test]
fn retry_backoff_max() {
    let tasks = "r: {shell: 'exit 75', retry_backoff: 100ms, retry_backoff_max: 200ms, \
                 retry_jitter: false, max_retries: 4}\n";
    shown(tasks, |app, worker| {
        let ended = call(app, "r", "[]");
        worker.expect_line("raised unexpected: CalledProcessError");
        assert_eq!(delays(worker, ended.id()), [0.1, 0.2, 0.2, 0.2]);
    });
}

#[test]
fn retry_jitter() {
    let options = "shell: 'exit 75', retry_backoff: 300ms, retry_backoff_max: 300ms";
    let tasks = format!(
        "drawn: {{{options}, max_retries: 7}}\n\
         fixed: {{{options}, max_retries: 2, retry_jitter: false}}\n"
    );
    shown(&tasks, |app, worker| {
        let (drawn, fixed) = (call(app, "drawn", "[]"), call(app, "fixed", "[]"));
        for id in [drawn.id(), fixed.id()] {
            worker.expect_line(&format!("{id}] raised unexpected: CalledProcessError"));
        }
        assert_eq!(delays(worker, fixed.id()), [0.3, 0.3]);
        let drawn = delays(worker, drawn.id());
        assert_eq!(drawn.len(), 7);
        // Seven draws that all come to the same tenth: once in ten thousand runs.
        assert!(drawn.iter().any(|delay| *delay != drawn[0]), "{drawn:?}");
        assert!(drawn.iter().all(|delay| *delay <= 0.3), "{drawn:?}");
    });
}

#[test]
fn retry_on() {
    let tasks = r#"
some: {shell: 'test $QWORKER_TASK_RETRIES = 2 || exit $1; echo done', retry_on: [3, 4], retry_backoff: 0}
"#;
    shown(tasks, |app, _| {
        for code in ["[3]", "[4]", "[75]"] {
            assert_eq!(value(app, "some", code), "done");
        }
        assert_eq!(call(app, "some", "[5]").message()[0], 5);
    });
}

#[test]
fn rate_limit() {
    let tasks = "slow: {shell: 'date +%s.%N >> times', rate_limit: 10/s}\n";
    shown(tasks, |app, _| {
        let ids: Vec<String> = (0..11).map(|_| post(app, "slow", "[]")).collect();
        ids.iter().for_each(|id| assert_eq!(wait(app, id).status(), "SUCCESS"));
        let mut times = numbers(app, "times");
        times.sort_by(f64::total_cmp);
        // Ten intervals; how slow the first process is to begin is taken off.
        assert!(times[10] - times[0] > 0.7, "{times:?}");
    });
}

#[test]
fn expires() {
    let tasks = "soon: {shell: 'echo ran >> ran', expires: 1ms}\n\
                 later: {shell: 'echo ran', expires: 1h}\n";
    let app = TestDir::with(tasks);
    let (soon, later) = (post(&app, "soon", "[]"), post(&app, "later", "[]"));
    let _worker = app.worker(&[]);
    let ended = wait(&app, &soon);
    assert_eq!(ended.status(), "REVOKED");
    assert_eq!(ended.document["result"]["exc_type"], "TaskRevokedError");
    assert_eq!(wait(&app, &later).value(), "ran");
    assert_eq!(app.read("ran"), "");
}

#[test]
fn acks_late() {
    let app = TestDir::with(
        "early: {shell: 'echo x >> early; kill -9 $$', acks_late: false}\n\
         late: {shell: 'echo x >> late; kill -9 $$', acks_late: true}\n\
         waits: {shell: 'echo x >> begun; until test -e go; do sleep 0.01; done; echo went', acks_late: false}\n",
    );
    app.settings("task_max_deliveries: 3\n");
    let _worker = app.worker(&[]);
    for (task, starts, dead) in [("early", 1, 0), ("late", 3, 1)] {
        let ended = call(&app, task, "[]");
        assert_eq!(ended.class(), "billiard.exceptions.WorkerLostError");
        assert_eq!(app.lines(task).len(), starts, "{task}");
        let list: Value = serde_json::from_str(&app.must(&["dead", "list", "--json"])).unwrap();
        assert_eq!(list.as_array().unwrap().len(), dead, "{task}");
    }
    // Without its message it is known all the same, and can be waited for.
    let id = post(&app, "waits", "[]");
    eventually("its begin", || (app.lines("begun").len() == 1).then_some(()));
    let running = app.qworker(&["result", &id]);
    assert_eq!((running.code, running.stderr.as_str()), (75, "STARTED: not ready yet\n"));
    let queues: Value = serde_json::from_str(&app.must(&["list", "queues", "--json"])).unwrap();
    assert_eq!(queues[0]["held"], 0, "{queues}");
    app.write("go", "");
    assert_eq!(wait(&app, &id).value(), "went");
}

#[test]
fn ignore_result() {
    let tasks = "quiet: {shell: 'echo 1; exit $1', ignore_result: true}\n\
                 loud: {shell: 'echo 1', ignore_result: false}\n";
    shown(tasks, |app, worker| {
        for code in ["[0]", "[3]"] {
            let id = post(app, "quiet", code);
            worker.expect_line(&format!(
                "{id}] {}",
                ["succeeded", "raised"][(code == "[3]") as usize]
            ));
            // Its message is gone when a task that was sent later is done.
            assert_eq!(value(app, "loud", "[]"), 1);
            let output = app.qworker(&["result", &id, "--json"]);
            assert_eq!(output.code, 69, "{output:?}");
            assert!(output.stderr.contains("unknown task id"), "{output:?}");
        }
    });
}

#[test]
fn env() {
    let tasks = r#"
greet: {shell: 'echo "$GREETING|$N|${HOME:+has home}"', env: {GREETING: 'a $HOME "b"', N: 010}}
"#;
    shown(tasks, |app, _| {
        // As it is written; beside what the worker has itself.
        assert_eq!(value(app, "greet", "[]"), r#"a $HOME "b"|010|has home"#);
    });
}

/// What every task is told, whatever its keys.
#[test]
fn facts() {
    let tasks = r#"
facts: {shell: 'env | grep "^QWORKER_TASK_" | sort', time_limit: 1h, queue: media, result: text}
child: {shell: '"$QWORKER" call facts --queue celery --wait', result: text}
"#;
    let app = TestDir::with(tasks);
    app.settings(&format!("task_env: {{QWORKER: {}}}\n", env!("CARGO_BIN_EXE_qworker")));
    let _worker = app.worker(&["-c", "2", "-n", "w1@here", "-Q", "media,celery"]);
    let now = chrono::Utc::now().timestamp();
    let told = call_with(&app, "facts", &["--task-id", "an-id"]).value();
    let mut told: Vec<&str> = told.as_str().unwrap().lines().collect();
    // Sorted: SOCKET, TOKEN and WORKER are the last.
    let [worker, token, socket] = [(); 3].map(|()| told.pop().unwrap());
    assert!(token.starts_with("QWORKER_TASK_TOKEN=") && token.len() > 50, "{token}");
    assert!(socket.starts_with("QWORKER_TASK_SOCKET=/"), "{socket}");
    let worker = worker.strip_prefix("QWORKER_TASK_WORKER=").unwrap();
    assert_eq!(worker.split(':').filter(|part| part.parse::<u64>().is_ok()).count(), 3, "{worker}");
    let deadline: i64 = told[0].strip_prefix("QWORKER_TASK_DEADLINE=").unwrap().parse().unwrap();
    assert!((now + 3600..now + 3660).contains(&deadline), "{deadline} at {now}");
    let names = ["HOSTNAME=w1@here", "ID=an-id", "NAME=facts", "PARENT_ID=", "QUEUE=media"];
    let names = names.iter().chain(&["RETRIES=0", "ROOT_ID=an-id"]);
    let expected: Vec<String> = names.map(|fact| format!("QWORKER_TASK_{fact}")).collect();
    assert_eq!(told[1..], expected);
    // A task that calls another one is its parent.
    let told = call_with(&app, "child", &["--task-id", "parent"]).value();
    for fact in ["PARENT_ID=parent", "ROOT_ID=parent", "NAME=facts", "QUEUE=celery"] {
        let line = format!("QWORKER_TASK_{fact}");
        assert!(told.as_str().unwrap().lines().any(|told| told == line), "{line} in {told}");
    }
}

#[test]
fn env_of_a_module() {
    let app = TestDir::with("see: {wasm: e.wat, env: {MODE: fast}, params: [size]}\n");
    app.write("tasks.d/e.wat", &wasi_printer("environ"));
    let _worker = app.worker(&[]);
    let seen = value(&app, "see", "[10]");
    let seen: Vec<&str> = seen.as_str().unwrap().split_terminator('\0').collect();
    assert!(seen.contains(&"MODE=fast") && seen.contains(&"ARG_size=10"), "{seen:?}");
    // Nothing of the host.
    let ours = |entry: &&&str| !entry.starts_with("QWORKER_TASK_");
    let rest: Vec<&&str> = seen.iter().filter(ours).collect();
    assert_eq!(rest, [&"MODE=fast", &"ARG_size=10"]);
}

#[test]
fn cwd() {
    let tasks = "here: {shell: pwd}\nthere: {shell: pwd, cwd: work/deep}\nabove: {shell: pwd, cwd: /}\n\
                 nowhere: {shell: pwd, cwd: gone}\n";
    shown(tasks, |app, _| {
        fs::create_dir_all(app.file("work/deep")).unwrap();
        let folder = |name: &str| json!(app.file(name).to_str().unwrap().trim_end_matches('/'));
        assert_eq!(value(app, "here", "[]"), folder(""));
        assert_eq!(value(app, "there", "[]"), folder("work/deep"));
        assert_eq!(value(app, "above", "[]"), "/");
        let nowhere = call(app, "nowhere", "[]");
        assert_eq!(nowhere.class(), "builtins.FileNotFoundError");
        assert_eq!(nowhere.message()[2], folder("gone"));
    });
}

#[test]
fn stdin() {
    let tasks = "json: {exec: [cat], stdin: json}\nnone: {exec: [cat], stdin: none}\n\
                 default: {exec: [cat]}\n";
    shown(tasks, |app, _| {
        let read = call_with(
            app,
            "json",
            &["--args", r#"[1.50, ["x"]]"#, "--kwargs", r#"{"k": null}"#, "--task-id", "an-id"],
        )
        .value();
        assert_eq!(read["args"], json!([1.50, ["x"]]));
        assert_eq!(read["kwargs"], json!({"k": null}));
        assert_eq!(read["request"]["id"], "an-id");
        assert_eq!(read["request"]["task"], "json");
        assert_eq!(read["request"]["retries"], 0);
        for task in ["none", "default"] {
            assert_eq!(value(app, task, "[1]"), Value::Null);
        }
    });
}

#[test]
fn result() {
    let print = "shell: 'printf \"$1\"'";
    let tasks: String = ["auto", "json", "text", "bytes", "none"]
        .map(|mode| format!("{mode}: {{{print}, result: {mode}}}\n"))
        .concat();
    shown(&tasks, |app, _| {
        let bytes = |base64: &str| json!({"__type__": "base64", "__value__": base64});
        for (mode, printed, expected) in [
            ("auto", r#"{"a": [1, 2.50]}\n"#, json!({"a": [1, 2.50]})),
            ("auto", r"a\nb\n\n", json!("a\nb\n")),
            ("auto", r"12 a\n", json!("12 a")),
            ("auto", r"\377\000", bytes("/wA=")),
            ("auto", "", Value::Null),
            ("json", r#" "text"\n"#, json!("text")),
            ("json", "null", Value::Null),
            ("text", r"12\n", json!("12")),
            ("text", r"a\377", json!("a\u{fffd}")),
            ("text", "", json!("")),
            ("bytes", r"12\n", json!({"__type__": "bytes", "__value__": "12\n"})),
            ("bytes", r"\377\000", bytes("/wA=")),
            ("none", "12", Value::Null),
        ] {
            let args = json!([printed]).to_string();
            assert_eq!(value(app, mode, &args), expected, "{mode} of {printed:?}");
        }
        for printed in ["no json", "1 2", ""] {
            let failed = call(app, "json", &json!([printed]).to_string());
            assert_eq!(failed.class(), "builtins.ValueError");
            assert!(failed.text().starts_with("result: json, but"), "{failed:?}");
        }
    });
}

#[test]
fn ok() {
    let tasks = "one: {shell: 'echo $1; exit $1', ok: 3}\nmany: {shell: 'echo $1; exit $1', ok: [0, 4, 75]}\n";
    shown(tasks, |app, _| {
        assert_eq!(value(app, "one", "[3]"), 3);
        assert_eq!(call(app, "one", "[0]").message()[0], 0);
        for code in [0, 4, 75] {
            assert_eq!(value(app, "many", &format!("[{code}]")), code);
        }
        assert_eq!(call(app, "many", "[3]").message()[0], 3);
    });
}

#[test]
fn max_output() {
    let tasks = "cut: {shell: 'printf 0123456789; printf abcdefghij >&2; exit $1', max_output: 4, result: text}\n\
                 json: {shell: 'echo 123456789', max_output: 4, result: json}\n";
    shown(tasks, |app, _| {
        assert_eq!(value(app, "cut", "[0]"), "6789");
        assert_eq!(call(app, "cut", "[1]").traceback(), "ghij");
        let failed = call(app, "json", "[]");
        assert_eq!(failed.text(), "result: json, but 6 bytes of output went over max_output");
    });
}

/// Another user than root is only for root to choose; others are refused.
fn as_root(ended: &Ended, expected: Value) {
    if nix::unistd::geteuid().is_root() {
        assert_eq!(ended.value(), expected);
    } else {
        assert_eq!(ended.class(), "builtins.PermissionError");
    }
}

#[test]
fn user() {
    let tasks = "who: {shell: 'id -un; id -gn', cwd: /, user: nobody}\n\
                 number: {shell: 'id -u', cwd: /, user: 65534}\n\
                 gone: {shell: 'id -u', cwd: /, user: no-such-user}\n";
    shown(tasks, |app, _| {
        as_root(&call(app, "who", "[]"), json!("nobody\nnogroup"));
        as_root(&call(app, "number", "[]"), json!(65534));
        let gone = call(app, "gone", "[]");
        assert_eq!(gone.class(), "builtins.LookupError");
        assert_eq!(gone.text(), "no user named no-such-user");
    });
}

#[test]
fn group() {
    let tasks = "both: {shell: 'id -un; id -Gn', cwd: /, user: nobody, group: daemon}\n\
                 only: {shell: 'id -gn', cwd: /, group: nogroup}\n";
    shown(tasks, |app, _| {
        let both = call(app, "both", "[]");
        as_root(&call(app, "only", "[]"), json!("nogroup"));
        if nix::unistd::geteuid().is_root() {
            let said = both.value();
            assert!(said.as_str().unwrap().starts_with("nobody\ndaemon"), "{said}");
        }
    });
}

#[test]
fn nice() {
    shown("polite: {exec: [nice], nice: 7}\nplain: {exec: [nice]}\n", |app, _| {
        assert_eq!(value(app, "polite", "[]"), 7);
        assert_ne!(value(app, "plain", "[]"), 7);
    });
}

#[test]
fn memory() {
    let dd = "dd if=/dev/zero of=/dev/null count=1 bs=$1 2>&1";
    let tasks = format!("small: {{shell: '{dd}', memory: 64M}}\nfree: {{shell: '{dd}'}}\n");
    // In a control group that bounds memory it would be killed: see tests/vm.py.
    let app = TestDir::with(&tasks);
    app.settings("task_cgroups: false\n");
    let worker = app.worker(&[]);
    assert_eq!(call(&app, "small", r#"["1M"]"#).status(), "SUCCESS");
    assert_eq!(call(&app, "small", r#"["100M"]"#).message()[0], 1);
    assert_eq!(call(&app, "free", r#"["100M"]"#).status(), "SUCCESS");
    drop(worker);
}

#[test]
fn memory_of_a_module() {
    let app = TestDir::with("grow: {wasm: f.wat, export: grow, memory: 1MiB}\n");
    app.write("tasks.d/f.wat", FUNCTIONS);
    let _worker = app.worker(&[]);
    // Pages of 64 KiB: one to begin with, and a MiB has sixteen.
    assert_eq!(value(&app, "grow", "[15]"), 1);
    assert_eq!(value(&app, "grow", "[16]"), -1);
}

#[test]
fn cpu_seconds() {
    let tasks = "burn: {shell: 'while :; do :; done', cpu_seconds: 1}\n\
                 deaf: {shell: 'trap \"\" XCPU; while :; do :; done', cpu_seconds: 1}\n\
                 idle: {shell: 'sleep 1.1; echo rested', cpu_seconds: 1}\n";
    shown(tasks, |app, _| {
        let ids = ["burn", "deaf"].map(|task| post(app, task, "[]"));
        assert_eq!(value(app, "idle", "[]"), "rested");
        for (id, signal) in ids.iter().zip([24, 9]) {
            let ended = wait(app, id);
            assert_eq!(ended.class(), "qworker.exceptions.ResourceLimitExceeded");
            assert_eq!(ended.text(), format!("cpu_seconds: 1 used up (signal {signal})"));
        }
    });
}

#[test]
fn open_files() {
    let open = "shell: 'exec 3</dev/null 4</dev/null 5</dev/null; ulimit -n'";
    let tasks = format!("few: {{{open}, open_files: 5}}\nenough: {{{open}, open_files: 16}}\n");
    shown(&tasks, |app, _| {
        let few = call(app, "few", "[]");
        assert_eq!(few.class(), "subprocess.CalledProcessError", "{few:?}");
        assert_eq!(value(app, "enough", "[]"), 16);
    });
}

#[test]
fn processes() {
    // The kernel counts nothing for root, so this needs a user, and thus root.
    let fork =
        "shell: 'for n in 1 2 3; do sleep 0.1 & done; wait; echo forked', cwd: /, user: nobody";
    let tasks = format!("few: {{{fork}, processes: 1}}\nenough: {{{fork}, processes: 4096}}\n");
    shown(&tasks, |app, _| {
        let few = call(app, "few", "[]");
        as_root(&call(app, "enough", "[]"), json!("forked"));
        if nix::unistd::geteuid().is_root() {
            assert_eq!(few.class(), "subprocess.CalledProcessError", "{few:?}");
            assert!(few.traceback().contains("fork"), "{few:?}");
        }
    });
}

#[test]
fn fuel() {
    let app = TestDir::with(
        "count: {wasm: f.wat, export: count, fuel: 10000}\nfree: {wasm: f.wat, export: count}\n",
    );
    app.write("tasks.d/f.wat", FUNCTIONS);
    let _worker = app.worker(&[]);
    assert_eq!(value(&app, "count", "[100]"), 100);
    let ended = call(&app, "count", "[100000]");
    assert_eq!(ended.class(), "qworker.wasm.OutOfFuel");
    assert_eq!(value(&app, "free", "[100000]"), 100000);
}

#[test]
fn dirs() {
    let app = TestDir::with(&format!(
        "ro: {{wasm: {probe}, dirs: ['shared:/data']}}\n\
         rw: {{wasm: {probe}, dirs: [{{host: shared, guest: /data, mode: rw}}, '/usr:/usr:ro']}}\n\
         none: {{wasm: {probe}}}\n",
        probe = super::modules::fixture("probe.wasm").display()
    ));
    app.write("shared/in", "content");
    let _worker = app.worker(&["-c", "2"]);
    for task in ["ro", "rw"] {
        assert_eq!(value(&app, task, r#"["cat", "/data/in"]"#), "content", "{task}");
    }
    let write = r#"["write", "/data/out", "text"]"#;
    assert_eq!(call(&app, "ro", write).message()[0], 1);
    assert!(!Path::new(&app.file("shared/out")).exists());
    assert_eq!(call(&app, "rw", write).status(), "SUCCESS");
    assert_eq!(app.read("shared/out"), "text");
    assert_eq!(call(&app, "rw", r#"["ls", "/usr"]"#).status(), "SUCCESS");
    assert_eq!(call(&app, "rw", r#"["write", "/usr/out", "x"]"#).message()[0], 1);
    assert_eq!(call(&app, "none", r#"["cat", "/data/in"]"#).message()[0], 1);
}
