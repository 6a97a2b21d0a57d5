//! Every way a task can end: the state, the exception and the traceback that it leaves in
//! the result store, the exit code of `qworker result`, and the dead letter where there is one.

use super::{Ended, call, call_with, post, post_unchecked, value, wait};
use crate::harness::process::is_alive;
use crate::harness::{TestDir, Worker, eventually};
use serde_json::{Value, json};

/// The dead letters of an application.
fn dead(app: &TestDir) -> Vec<Value> {
    serde_json::from_str(&app.must(&["dead", "list", "--json"])).unwrap()
}

/// What a failed task left: exception, its arguments, traceback; and no dead letter, for
/// its failure is its answer. `qworker result` says the same in its ways.
fn expect_failure(app: &TestDir, ended: &Ended, class: &str, message: Value, traceback: &str) {
    assert_eq!(ended.class(), class, "{}", ended.document);
    assert_eq!(ended.message(), &message);
    assert_eq!(ended.traceback(), traceback);
    assert!(ended.document["date_done"].is_string(), "{}", ended.document);
    assert_eq!(dead(app), [] as [Value; 0]);
    let plain = app.qworker(&["result", ended.id()]);
    let name = class.rsplit('.').next().unwrap();
    assert!(plain.stderr.contains(&format!("FAILURE: {name}")), "{plain:?}");
    assert_eq!((plain.code, plain.stdout.as_str()), (1, ""));
    let told = app.qworker(&["result", ended.id(), "--traceback"]);
    assert_eq!((told.code, told.stdout.trim_end()), (1, traceback.trim_end()));
}

#[test]
fn exit_codes() {
    let command = "echo out; echo err >&2; exit $1";
    let app = TestDir::with(&format!("end: {{shell: '{command}', max_retries: 0}}\n"));
    let _worker = app.worker(&[]);
    let good = call(&app, "end", "[0]");
    assert_eq!(good.value(), "out");
    assert_eq!(good.document["traceback"], Value::Null);
    assert_eq!(good.document["children"], json!([]));
    let read = app.qworker(&["result", good.id()]);
    assert_eq!((read.code, read.stdout.as_str()), (0, "out\n"));
    for code in [1, 2, 64, 75, 126, 127, 128, 137, 255] {
        let ended = call(&app, "end", &format!("[{code}]"));
        let message = json!([code, "end", "out", "err"]);
        expect_failure(&app, &ended, "subprocess.CalledProcessError", message, "err");
    }
}

#[test]
fn a_failure_without_a_word_has_no_traceback() {
    let app = TestDir::with("end: {exec: ['false']}\n");
    let _worker = app.worker(&[]);
    let ended = call(&app, "end", "[]");
    let message = json!([1, "end", null, null]);
    expect_failure(&app, &ended, "subprocess.CalledProcessError", message, "");
    assert_eq!(ended.document["traceback"], Value::Null);
}

/// What a task prints before it fails is not lost: not in the exception, nor in the log and the
/// traceback where it says nothing on standard error.
#[test]
fn the_output_of_a_failed_task() {
    let app = TestDir::with(
        "deploy: {shell: \"set -eu\\necho 3 tests failed\\nexit 1\"}\n\
         loud: {shell: 'head -c 100000 /dev/zero | tr \"\\\\0\" x; echo end; exit 1'}\n\
         soft: {shell: 'echo so far; exec sleep 100', soft_time_limit: 0.2}\n\
         wrong: {shell: 'echo not JSON', result: json}\n\
         again: {shell: 'echo not yet; exit 75', max_retries: 1, retry_backoff: 0}\n",
    );
    let worker = app.worker(&["-l", "INFO"]);
    let ended = call(&app, "deploy", "[]");
    let message = json!([1, "deploy", "3 tests failed", null]);
    expect_failure(&app, &ended, "subprocess.CalledProcessError", message, "3 tests failed");
    let shown = app.qworker(&["result", ended.id()]).stderr;
    let first = "FAILURE: CalledProcessError: Command 'deploy' returned non-zero exit status 1.\n";
    assert_eq!(shown, format!("{first}3 tests failed\n"));
    worker.expect_line("3 tests failed");
    let loud = call(&app, "loud", "[]");
    let output = loud.message()[2].as_str().unwrap();
    assert!(output.len() <= 8192 && output.ends_with("xxxend"), "{}", output.len());
    let soft = call(&app, "soft", "[]");
    assert_eq!((soft.message(), soft.traceback()), (&json!([]), "so far"));
    assert_eq!(
        app.qworker(&["result", soft.id()]).stderr,
        "FAILURE: SoftTimeLimitExceeded\nso far\n"
    );
    worker.expect_line("SoftTimeLimitExceeded() after its soft_time_limit of 0.2s");
    assert_eq!(call(&app, "wrong", "[]").traceback(), "not JSON");
    assert_eq!(call(&app, "again", "[]").traceback(), "not yet");
    worker.expect_line("Retry in 0.0s (1 of 1): CalledProcessError(75, 'again'): not yet");
}

#[test]
fn retries_to_success() {
    let command =
        "echo try $QWORKER_TASK_RETRIES >&2; test $QWORKER_TASK_RETRIES = 3 || exit 75; echo done";
    let app = TestDir::with(&format!("r: {{shell: '{command}', retry_backoff: 0}}\n"));
    let worker = app.worker(&["-l", "INFO"]);
    let ended = call(&app, "r", "[]");
    assert_eq!(ended.value(), "done");
    assert_eq!(ended.document["traceback"], Value::Null);
    let log = worker.log();
    let retries = log.lines().filter(|line| line.contains("retry: Retry in"));
    assert_eq!(retries.count(), 3, "{log}");
}

#[test]
fn retries_to_exhaustion() {
    let command = "echo try $QWORKER_TASK_RETRIES >&2; exit 75";
    let app = TestDir::with(&format!("r: {{shell: '{command}', retry_backoff: 0}}\n"));
    let _worker = app.worker(&[]);
    let ended = call(&app, "r", "[]");
    let message = json!([75, "r", null, "try 3"]);
    expect_failure(&app, &ended, "subprocess.CalledProcessError", message, "try 3");
}

#[test]
fn between_two_tries_its_state_is_retry() {
    let app = TestDir::with(
        "r: {shell: 'echo not yet >&2; exit 75', retry_backoff: 1h, retry_backoff_max: 1h, retry_jitter: false}\n",
    );
    let worker = app.worker(&["-l", "INFO"]);
    let id = post(&app, "r", "[]");
    worker.expect_line("Retry in 3600.0s");
    let document = eventually("the state RETRY", || {
        let output = app.qworker(&["result", &id, "--json"]);
        assert_eq!(output.code, 75, "{output:?}");
        let document: Value = serde_json::from_str(&output.stdout).unwrap();
        (document["status"] == "RETRY").then_some(document)
    });
    assert_eq!(document["result"]["exc_type"], "CalledProcessError");
    assert_eq!(document["traceback"], "not yet");
    assert_eq!(document["date_done"], Value::Null);
    let late = app.qworker(&["result", &id, "--wait", "--timeout", "0.01"]);
    assert_eq!(late.code, 75, "{late:?}");
}

/// The signals up to 31 whose default action ends a process.
const DEADLY: [(i32, &str); 23] = [
    (1, "SIGHUP"),
    (2, "SIGINT"),
    (3, "SIGQUIT"),
    (4, "SIGILL"),
    (5, "SIGTRAP"),
    (6, "SIGABRT"),
    (7, "SIGBUS"),
    (8, "SIGFPE"),
    (9, "SIGKILL"),
    (10, "SIGUSR1"),
    (11, "SIGSEGV"),
    (12, "SIGUSR2"),
    (13, "SIGPIPE"),
    (14, "SIGALRM"),
    (15, "SIGTERM"),
    (16, "SIGSTKFLT"),
    (24, "SIGXCPU"),
    (25, "SIGXFSZ"),
    (26, "SIGVTALRM"),
    (27, "SIGPROF"),
    (29, "SIGIO"),
    (30, "SIGPWR"),
    (31, "SIGSYS"),
];

fn letter_of(app: &TestDir, id: &str) -> Value {
    dead(app).into_iter().find(|letter| letter["id"] == id).unwrap()
}

#[test]
fn every_deadly_signal() {
    let app = TestDir::with("die: {shell: 'ulimit -c 0; echo last words >&2; kill -$1 $$'}\n");
    app.settings("task_max_deliveries: 1\n");
    let _worker = app.worker(&[]);
    for (count, (number, name)) in (1..).zip(DEADLY) {
        let ended = call(&app, "die", &format!("[{number}]"));
        assert_eq!(ended.class(), "billiard.exceptions.WorkerLostError", "{name}");
        let text = ended.text();
        let begin = format!("Worker exited prematurely: signal {number} ({name}); ");
        assert!(text.starts_with(&begin), "{text}");
        assert!(text.ends_with("; its output ended: last words"), "{text}");
        assert!(!text.contains("peak memory 0.0"), "{text}");
        assert_eq!(letter_of(&app, ended.id())["deliveries"], 1, "{name}");
        assert_eq!(ended.traceback(), "last words");
        let letters = dead(&app);
        assert_eq!(letters.len(), count, "{name}");
        let letter = &letters[count - 1];
        assert_eq!(letter["reason"], "lost");
        assert_eq!(letter["id"], ended.id());
        assert_eq!(letter["task"], "die");
        assert_eq!(letter["detail"], text);
    }
}

#[test]
fn signals_that_do_not_kill() {
    let app = TestDir::with("live: {shell: 'kill -$1 $$; echo alive'}\n");
    let _worker = app.worker(&[]);
    for number in [17, 18, 23, 28] {
        assert_eq!(value(&app, "live", &format!("[{number}]")), "alive", "{number}");
    }
}

#[test]
fn a_stopped_process_meets_its_limits() {
    let limits = "soft_time_limit: 1s, time_limit: 1500ms";
    let app = TestDir::with(&format!(
        "stop: {{shell: 'kill -$1 $$', {limits}}}\n\
         deaf: {{shell: 'trap \"\" TERM; kill -STOP $$; sleep 100', {limits}}}\n"
    ));
    let _worker = app.worker(&["-c", "5"]);
    let stopped = [19, 20, 21, 22].map(|number| post(&app, "stop", &format!("[{number}]")));
    let deaf = post(&app, "deaf", "[]");
    // It is continued for its TERM.
    let class = "billiard.exceptions.SoftTimeLimitExceeded";
    for id in stopped {
        expect_failure(&app, &wait(&app, &id), class, json!([]), "");
    }
    let class = "billiard.exceptions.TimeLimitExceeded";
    expect_failure(&app, &wait(&app, &deaf), class, json!([1.5]), "");
}

#[test]
fn a_dead_letter_is_whole_and_can_be_sent_again() {
    let app = TestDir::with(
        "die: {shell: 'echo x >> starts; test -e cured || kill -9 $$; echo cured'}\n",
    );
    app.settings("task_max_deliveries: 3\n");
    let worker = app.worker(&["-l", "INFO"]);
    let ended = call(&app, "die", r#"["an argument"]"#);
    assert_eq!(ended.class(), "billiard.exceptions.WorkerLostError");
    assert_eq!(app.lines("starts").len(), 3);
    let log = worker.log();
    assert!(
        log.contains("redelivered in 0s (1 of 3)") && log.contains("redelivered in 1s (2 of 3)"),
        "{log}"
    );
    assert_eq!(dead(&app)[0]["deliveries"], 3, "as often as it was run");
    let number = dead(&app)[0]["number"].to_string();
    let letter: Value = serde_json::from_str(&app.must(&["dead", "show", &number])).unwrap();
    assert!(letter["message"].to_string().contains(ended.id()), "{letter}");
    app.write("cured", "");
    assert_eq!(app.must(&["dead", "requeue", &number]), "Requeued 1 message.");
    // The old failure is not what whoever waits for the new run is told.
    assert_eq!(app.must(&["result", ended.id(), "--wait"]), "cured");
    assert_eq!(dead(&app), [] as [Value; 0]);
}

/// Ignores TERM, starts a child of the same kind and that one a grandchild, and sleeps.
const FAMILY: &str = r#"#!/bin/sh
# family DEPTH [setsid]
trap '' TERM
test "$1" -gt 0 && $2 "$0" $(($1 - 1)) $2 &
echo $$ >> pids
sleep 1000
sleep 1000
"#;

fn expect_nobody(app: &TestDir, worker: &Worker, count: usize) {
    let pids: Vec<i32> = app.lines("pids").iter().map(|line| line.parse().unwrap()).collect();
    assert_eq!(pids.len(), count, "not all of them had begun");
    eventually("the end of the family", || (!pids.iter().any(|pid| is_alive(*pid))).then_some(()));
    // And of what those started themselves: guard and worker are left.
    eventually("the end of all that the task started", || {
        (worker.family().len() == 2).then_some(())
    });
}

#[test]
fn the_hard_limit_ends_three_generations() {
    for session in ["", "setsid"] {
        let app = TestDir::with(&format!(
            "family: {{exec: [./family, 2, '{session}'], soft_time_limit: 2s, time_limit: 3s}}\n"
        ));
        app.program("family", FAMILY);
        let worker = app.worker(&[]);
        let ended = call(&app, "family", "[]");
        expect_failure(&app, &ended, "billiard.exceptions.TimeLimitExceeded", json!([3]), "");
        expect_nobody(&app, &worker, 3);
    }
}

#[test]
fn the_soft_limit() {
    let app = TestDir::with(
        r#"
group: {shell: 'trap "echo bye >&2; exit 7" TERM; sh -c "echo \$\$ > pids; exec sleep 1000" & wait', soft_time_limit: 1s}
late: {shell: 'trap "" TERM; sleep 1.2; echo finished', soft_time_limit: 500ms}
again: {shell: 'test $QWORKER_TASK_RETRIES = 0 || { echo again; exit; }; trap "exit 75" TERM; sleep 1000 & wait', soft_time_limit: 1s, retry_backoff: 0}
"#,
    );
    let worker = app.worker(&["-c", "2"]);
    let ended = call(&app, "group", "[]");
    expect_failure(&app, &ended, "billiard.exceptions.SoftTimeLimitExceeded", json!([]), "bye");
    expect_nobody(&app, &worker, 1);
    // Who goes on and comes to a good end in spite of it, has succeeded; who asks to be
    // tried again, is.
    assert_eq!(value(&app, "late", "[]"), "finished");
    assert_eq!(value(&app, "again", "[]"), "again");
}

#[test]
fn what_cannot_start() {
    let app = TestDir::with(
        "missing: {exec: [no-such-program]}\n\
         plain: {exec: [./plain]}\n\
         folder: {exec: [./tasks.d]}\n\
         garbage: {exec: [./garbage]}\n\
         interpreter: {exec: [./script]}\n\
         shell: {shell: no-such-command}\n",
    );
    app.write("plain", "no program");
    app.program("garbage", "\u{7f}ELF, but not really");
    app.program("script", "#!/no/such/interpreter\n");
    let _worker = app.worker(&[]);
    let fail = |task: &str, class: &str, message: Value| {
        expect_failure(&app, &call(&app, task, "[]"), class, message, "");
    };
    let gone = "No such file or directory";
    let nowhere = format!("{gone}: not on PATH {}", std::env::var("PATH").unwrap());
    fail("missing", "builtins.FileNotFoundError", json!([2, nowhere, "no-such-program"]));
    let plain = app.file("./plain").display().to_string();
    let denied = format!("Permission denied: it is not executable; chmod +x {plain}");
    fail("plain", "builtins.PermissionError", json!([13, denied, "./plain"]));
    let folder = "Permission denied: it is a folder; name a program in it";
    fail("folder", "builtins.PermissionError", json!([13, folder, "./tasks.d"]));
    fail("garbage", "builtins.OSError", json!([8, "Exec format error", "./garbage"]));
    let missing = format!("{gone}: its interpreter /no/such/interpreter, of line 1, is not there");
    fail("interpreter", "builtins.FileNotFoundError", json!([2, missing, "./script"]));
    app.program("script", "#!/bin/sh\r\necho\r\n");
    let ended = call(&app, "interpreter", "[]");
    assert!(ended.message()[1].as_str().unwrap().contains("carriage return (CRLF)"), "{ended:?}");
    app.program("script", "echo\n");
    let ended = call(&app, "interpreter", "[]");
    assert!(ended.message()[1].as_str().unwrap().contains("no interpreter (#!)"), "{ended:?}");
    let shell = call(&app, "shell", "[]");
    assert_eq!(shell.message()[0], 127);
    assert!(shell.traceback().contains("no-such-command"), "{shell:?}");
}

#[test]
fn arguments_that_do_not_fit() {
    let app = TestDir::with(
        "say: {exec: [echo, '{who}'], params: [who]}\nnamed: {exec: [echo, '{who}']}\n\
         nul: {exec: [echo, '{1}']}\n",
    );
    let _worker = app.worker(&[]);
    let fail = |task: &str, args: &str, class: &str, why: &str| {
        let ended = wait(&app, &post_unchecked(&app, task, args));
        expect_failure(&app, &ended, class, json!([why]), "");
    };
    let missing = "say() missing 1 required positional argument: 'who'";
    fail("say", "[]", "builtins.TypeError", missing);
    let many = "say() takes 1 positional argument but 2 were given";
    fail("say", "[1, 2]", "builtins.TypeError", many);
    let nothing = "named() was called without the argument 'who' of its command";
    fail("named", "[]", "builtins.TypeError", nothing);
    fail("nul", r#"["a\u0000b"]"#, "builtins.ValueError", "embedded null byte in argument 1");
}

#[test]
fn a_name_that_nobody_knows() {
    let app = TestDir::new();
    app.settings("task_max_deliveries: 2\ntask_unregistered: dead\n");
    let _worker = app.worker(&[]);
    let id = app.must(&["call", "nobody.knows", "--unregistered"]);
    let ended = wait(&app, &id);
    assert_eq!(ended.class(), "celery.exceptions.NotRegistered");
    assert_eq!(ended.message(), &json!(["nobody.knows"]));
    let letters = dead(&app);
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0]["id"], id);
    assert_eq!(letters[0]["task"], "nobody.knows");
    // Once it is known, it can be sent again.
    app.write("tasks.d/nobody.yaml", "nobody.knows: {shell: echo known}\n");
    let _second = app.worker(&["-n", "second", "-Q", "second"]);
    app.must(&["dead", "purge", "--all"]);
    assert_eq!(call_with(&app, "nobody.knows", &["--queue", "second"]).value(), "known");
    assert_eq!(dead(&app), [] as [Value; 0]);
}

#[test]
fn a_message_that_cannot_be_read() {
    let app = TestDir::with("add: {shell: 'echo $(($1 + $2))'}\n");
    let worker = app.worker(&["-l", "INFO"]);
    let payload = "{\"headers\": 5} and no more";
    super::post_raw(&app, payload);
    let letter = eventually("a dead letter", || dead(&app).pop());
    assert_eq!(letter["reason"], "malformed");
    let number = letter["number"].to_string();
    let whole: Value = serde_json::from_str(&app.must(&["dead", "show", &number])).unwrap();
    assert_eq!(whole["message"], payload);
    assert_eq!(value(&app, "add", "[1, 2]"), 3);
    assert_eq!(app.must(&["dead", "purge", &number]), "Removed 1 message.");
    drop(worker);
}

#[test]
fn resource_limits_of_processes() {
    let app = TestDir::with(
        "memory: {exec: [dd, if=/dev/zero, of=/dev/null, bs=200M, count=1], memory: 64M}\n\
         cpu: {shell: 'echo working >&2; while :; do :; done', cpu_seconds: 1}\n",
    );
    let _worker = app.worker(&[]);
    let ended = call(&app, "memory", "[]");
    assert_eq!(ended.class(), "subprocess.CalledProcessError");
    assert_eq!(ended.message()[0], 1);
    assert!(ended.traceback().contains("memory exhausted"), "{ended:?}");
    let ended = call(&app, "cpu", "[]");
    let message = json!(["cpu_seconds: 1 used up (signal 24)"]);
    expect_failure(&app, &ended, "qworker.exceptions.ResourceLimitExceeded", message, "working");
}

const MODULE: &str = r#"(module $m
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (func $trap (export "trap") unreachable)
  (func (export "divide") (param i32) (result i32) (i32.div_s (i32.const 1) (local.get 0)))
  (func (export "outside") (drop (i32.load (i32.const -8))))
  (func $deep (export "deep") (call $deep))
  (func (export "loop") (loop br 0))
  (func (export "bomb") (loop
    (if (i32.eq (memory.grow (i32.const 1)) (i32.const -1)) (then unreachable))
    (br 0)))
  (func (export "exit") (param i32) (call $exit (local.get 0))))"#;

#[test]
fn ends_of_modules() {
    let functions = ["trap", "divide", "outside", "deep", "bomb"];
    let mut tasks =
        functions.map(|name| format!("{name}: {{wasm: m.wat, export: {name}}}\n")).concat();
    tasks += "fuel: {wasm: m.wat, export: loop, fuel: 5000}\n\
              loop: {wasm: m.wat, export: loop, time_limit: 200ms}\n\
              soft: {wasm: m.wat, export: loop, soft_time_limit: 200ms, time_limit: 1h}\n\
              exit: {wasm: m.wat, export: exit, retry_backoff: 0}\n\
              start: {wasm: start.wat}\nneeds: {wasm: start.wat, memory: 64K}\n\
              broken: {wasm: broken.wat}\n";
    let app = TestDir::with(&tasks);
    app.write("tasks.d/m.wat", MODULE);
    app.write(
        "tasks.d/start.wat",
        r#"(module $s (memory (export "memory") 2) (func $main (export "_start") unreachable))"#,
    );
    app.write("tasks.d/broken.wat", "(module (func i32.const))");
    let _worker = app.worker(&["-c", "2"]);
    for (task, args, why) in [
        ("trap", "[]", "wasm `unreachable` instruction executed"),
        ("divide", "[0]", "integer divide by zero"),
        ("outside", "[]", "out of bounds memory access"),
        ("deep", "[]", "call stack exhausted"),
        ("bomb", "[]", "wasm `unreachable` instruction executed"),
        ("start", "[]", "wasm `unreachable` instruction executed"),
    ] {
        let ended = call(&app, task, args);
        let traceback = ended.traceback().to_string();
        assert!(
            traceback.starts_with("WASM backtrace (innermost first):\n"),
            "{task}: {traceback}"
        );
        expect_failure(&app, &ended, "qworker.wasm.Trap", json!([why]), &traceback);
    }
    let deepest = call(&app, "trap", "[]");
    assert!(deepest.traceback().contains("m!trap"), "{deepest:?}");
    assert_eq!(value(&app, "divide", "[1]"), 1);

    let fuel = call(&app, "fuel", "[]");
    assert_eq!(fuel.class(), "qworker.wasm.OutOfFuel");
    assert_eq!(fuel.text(), "used up its fuel of 5000 instructions");
    let looped = call(&app, "loop", "[]");
    assert_eq!(looped.class(), "billiard.exceptions.TimeLimitExceeded");
    assert_eq!(looped.message(), &json!([0.2]));
    let soft = call(&app, "soft", "[]");
    assert_eq!(soft.class(), "billiard.exceptions.SoftTimeLimitExceeded");
    let needs = call(&app, "needs", "[]");
    assert_eq!(needs.class(), "builtins.MemoryError");
    let broken = call(&app, "broken", "[]");
    assert_eq!(broken.class(), "qworker.wasm.CompileError");
    assert!(broken.text().contains("i32.const"), "{broken:?}");

    assert_eq!(call(&app, "exit", "[0]").status(), "SUCCESS");
    for code in [3, 75] {
        let ended = call(&app, "exit", &format!("[{code}]"));
        assert_eq!(ended.class(), "subprocess.CalledProcessError");
        assert_eq!(ended.message()[0], code);
    }
    assert_eq!(dead(&app), [] as [Value; 0]);
}
