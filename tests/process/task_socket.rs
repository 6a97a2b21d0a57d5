//! The socket of tasks: who may use it, what a bad client can do, and what becomes of what was said
//! when somebody is killed.

use super::await_lines;
use crate::harness::{Place, TestDir, Worker, eventually, process};
use nix::sys::signal::Signal;
use qworker::client::task::{Fault, Session};
use serde_json::{Value, json};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::time::Instant;

const QWORKER: &str = env!("CARGO_BIN_EXE_qworker");

/// Tells how it reaches its worker, and stays until somebody writes to the pipe `go`.
const OPEN: &str = r#"
open:
  shell: |
    echo "$QWORKER_TASK_SOCKET $QWORKER_TASK_TOKEN" >>open
    read -r _ <go
    echo done
"#;

/// An application with a worker that runs [`OPEN`], its task's id, and its address and token.
fn open() -> (TestDir, Worker, String, String, String) {
    let app = TestDir::with(OPEN);
    app.fifo("go");
    let worker = app.worker(&["-c", "4"]);
    let id = app.must(&["call", "open"]);
    let line = await_lines(&app, "open", 1).remove(0);
    let (address, token) = line.split_once(' ').unwrap();
    (app, worker, id, address.to_string(), token.to_string())
}

fn result(app: &TestDir, id: &str) -> Value {
    let text = app.qworker(&["result", id, "--json"]).stdout;
    serde_json::from_str(&text).unwrap_or_default()
}

fn code(fault: Fault) -> String {
    match fault {
        Fault::Refused(code, _) => code,
        Fault::Io(error) => panic!("{error}"),
    }
}

/// Sends these bytes; gives the answer, and whether the connection is closed after it.
fn raw(stream: &mut UnixStream, bytes: &[u8]) -> Value {
    stream.write_all(bytes).unwrap();
    let mut head = [0; 4];
    stream.read_exact(&mut head).unwrap();
    let mut text = vec![0; u32::from_be_bytes(head) as usize];
    stream.read_exact(&mut text).unwrap();
    serde_json::from_slice(&text).unwrap()
}

fn framed(text: &str) -> Vec<u8> {
    [&(text.len() as u32).to_be_bytes(), text.as_bytes()].concat()
}

fn is_closed(stream: &mut UnixStream) -> bool {
    stream.read(&mut [0]).is_ok_and(|count| count == 0)
}

#[test]
fn only_a_running_task_with_its_token_is_answered() {
    let (app, _worker, id, address, token) = open();
    let mut session = Session::open(&address, &token).unwrap();
    let request = session.ask("request", "{}").unwrap();
    let request: Value = serde_json::from_str(request.get()).unwrap();
    assert_eq!(request["request"]["id"], id);
    assert_eq!(request["request"]["headers"]["task"], "open");
    let other = match token.ends_with('0') {
        true => format!("{}1", &token[..token.len() - 1]),
        false => format!("{}0", &token[..token.len() - 1]),
    };
    for wrong in ["", "x", "1-", &other, &token[1..]] {
        assert_eq!(code(Session::open(&address, wrong).unwrap_err()), "token", "{wrong:?}");
    }
    let said = app.qworker(&["task", "ignore"]);
    assert!(said.code == 2 && said.stderr.contains("no worker runs this"), "{said:?}");
    app.write_fifo("go");
    app.must(&["result", &id, "--wait"]);
    // What was open is closed, and nothing new is.
    let fault = session.ask("request", "{}").unwrap_err();
    assert!(matches!(&fault, Fault::Io(_)) || code(fault) == "ended");
    assert_eq!(code(Session::open(&address, &token).unwrap_err()), "token");
}

#[test]
fn a_bad_frame_hurts_its_connection_alone() {
    let (app, _worker, id, address, token) = open();
    let mut good = Session::open(&address, &token).unwrap();
    let hello = |version: u64| {
        let params = json!({"version": version, "token": token});
        framed(&json!({"id": 7, "method": "hello", "params": params}).to_string())
    };
    for (bytes, expected) in [
        (vec![255; 4], "malformed"),
        (vec![0; 4], "malformed"),
        (framed("{{{"), "malformed"),
        (framed("[1, 2]"), "malformed"),
        (framed("\u{0}\u{1}"), "malformed"),
        (framed(r#"{"id": 1, "method": "ignore"}"#), "hello"),
        (hello(99), "version"),
    ] {
        let mut stream = UnixStream::connect(&address).unwrap();
        let answer = raw(&mut stream, &bytes);
        assert_eq!(answer["error"]["code"], expected, "{answer}");
        assert!(answer["error"]["message"].as_str().unwrap().contains(' '), "{answer}");
        assert!(is_closed(&mut stream), "{expected}");
    }
    // After the hello, what is wrong with a request leaves the connection open.
    let mut stream = UnixStream::connect(&address).unwrap();
    assert_eq!(raw(&mut stream, &hello(1))["result"]["version"], 1);
    for (text, expected) in [
        (r#"{"id": 8, "method": "explode"}"#, "unknown"),
        (r#"{"id": 8, "method": "update-state", "params": {"state": "SUCCESS"}}"#, "invalid"),
        (r#"{"id": 8, "method": "replace", "params": {"signature": []}}"#, "invalid"),
        (r#"{"id": 8, "method": "call", "params": {"signature": {"task": "none"}}}"#, "invalid"),
    ] {
        let answer = raw(&mut stream, &framed(text));
        assert_eq!((&answer["error"]["code"], &answer["id"]), (&json!(expected), &json!(8)));
    }
    // Bytes that come one by one are a frame too.
    for byte in &framed(r#"{"id": 9, "method": "progress", "params": {"done": 1, "total": 2}}"#) {
        stream.write_all(&[*byte]).unwrap();
    }
    assert_eq!(raw(&mut stream, &[])["result"]["stored"], true);
    good.ask("progress", r#"{"done": 2, "total": 2}"#).unwrap();
    eventually("the state", || (result(&app, &id)["result"]["current"] == 2).then_some(()));
    app.write_fifo("go");
    assert_eq!(app.must(&["result", &id, "--wait"]), "done");
}

#[test]
fn a_flood_is_thinned_out_and_its_last_state_counts() {
    let (app, _worker, id, address, token) = open();
    let mut session = Session::open(&address, &token).unwrap();
    for done in 1..=3000 {
        session.ask("progress", &format!(r#"{{"done": {done}, "total": 3000}}"#)).unwrap();
    }
    eventually("the last state", || (result(&app, &id)["result"]["current"] == 3000).then_some(()));
    // A megabyte, and as much as a frame holds.
    for size in [1_000_000, 4_000_000] {
        let meta = json!({"state": "LARGE", "meta": "x".repeat(size)}).to_string();
        session.ask("update-state", &meta).unwrap();
        eventually("a large state", || {
            let found = result(&app, &id);
            let length = found["result"].as_str().map(str::len);
            (found["status"] == "LARGE" && length == Some(size)).then_some(())
        });
    }
    let meta = json!({"state": "LARGE", "meta": "x".repeat(5_000_000)}).to_string();
    assert_eq!(code(session.ask("update-state", &meta).unwrap_err()), "malformed");
    app.write_fifo("go");
    assert_eq!(app.must(&["result", &id, "--wait"]), "done");
}

#[test]
fn a_flood_reaches_the_store_a_few_times_a_second() {
    let app = Place::Redis.app(OPEN);
    app.fifo("go");
    let _worker = app.worker(&[]);
    let id = app.must(&["call", "open"]);
    let line = await_lines(&app, "open", 1).remove(0);
    let (address, token) = line.split_once(' ').unwrap();
    let mut session = Session::open(address, token).unwrap();
    let published = || -> u64 {
        let stats: String = app.server().run(&["INFO", "commandstats"]);
        let calls = stats.split("cmdstat_publish:calls=").nth(1);
        calls.map_or(0, |rest| rest.split(',').next().unwrap().parse().unwrap())
    };
    let (before, began) = (published(), Instant::now());
    for done in 1..=2000 {
        session.ask("progress", &format!(r#"{{"done": {done}, "total": 2000}}"#)).unwrap();
    }
    eventually("the last state", || (result(&app, &id)["result"]["current"] == 2000).then_some(()));
    let most = 5 * (began.elapsed().as_secs() + 1) + 1;
    let stored = published() - before;
    assert!((2..=most).contains(&stored), "{stored} in {:?}", began.elapsed());
}

#[test]
fn many_processes_of_one_task_speak_at_once() {
    let app = TestDir::with(&format!(
        r#"
many:
  shell: |
    for n in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
      ({QWORKER} task progress $n 20 || echo $n >>failed) &
    done
    wait
    # Without any descriptor of its parent, in a session of its own.
    setsid sh -c 'exec 3>&- 4>&- 5>&-; exec {QWORKER} task update-state SET --meta 1' || echo no >>failed
    {QWORKER} task ignore
"#
    ));
    let _worker = app.worker(&[]);
    let id = app.must(&["call", "many"]);
    eventually("the state", || (result(&app, &id)["status"] == "SET").then_some(()));
    assert_eq!(app.lines("failed"), Vec::<String>::new());
}

#[test]
fn a_fenced_task_and_one_of_another_user_reach_their_worker() {
    // Where another user may execute it.
    let dir = tempfile::tempdir_in("/tmp").unwrap();
    let program = dir.path().join("qworker");
    if fs::hard_link(QWORKER, &program).is_err() {
        fs::copy(QWORKER, &program).unwrap();
    }
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let fail = format!("{} task fail --type UserError --message", program.display());
    let app = TestDir::with(&format!(
        "fenced: {{shell: '{fail} fenced', open_files: 50, processes: 4000}}\n\
         nobody: {{shell: '{fail} \"$(id -un)\"', cwd: /, user: nobody}}\n"
    ));
    let _worker = app.worker(&[]);
    let tasks = match nix::unistd::geteuid().is_root() {
        true => &["fenced", "nobody"][..],
        false => &["fenced"],
    };
    for task in tasks {
        let output = app.qworker(&["call", task, "--wait"]);
        assert!(output.stderr.contains(&format!("UserError: {task}")), "{output:?}");
    }
}

#[test]
fn what_a_killed_worker_was_told_is_forgotten_and_its_task_runs_again() {
    // Its sleep is work that only a kill ends.
    let app = TestDir::with(&format!(
        r#"
told:
  shell: |
    echo >>runs
    [ "$(wc -l <runs)" -gt 1 ] && {{ echo again; exit; }}
    {QWORKER} task fail --type ValueError --message no
    {QWORKER} task progress 1 2
    echo >>told
    exec sleep 100
"#
    ));
    let mut worker = app.worker(&[]);
    let id = app.must(&["call", "told"]);
    await_lines(&app, "told", 1);
    worker.kill_with_guard();
    let _second = app.worker(&[]);
    assert_eq!(app.must(&["result", &id, "--wait"]), "again");
    assert_eq!(app.lines("runs").len(), 2);
}

#[test]
fn the_last_word_counts_however_the_process_ends() {
    // A sleep is work that only a signal ends.
    let app = TestDir::with(&format!(
        r#"
twice: {{shell: '{QWORKER} task retry; {QWORKER} task fail --type LastError --message second; exit 0'}}
killed: {{shell: '{QWORKER} task fail --type LastError --message killed; kill -KILL $$'}}
timed: {{shell: '{QWORKER} task fail --type LastError --message timed; sleep 100', time_limit: 1}}
stopped: {{shell: '{QWORKER} task fail --type LastError --message stopped; echo >>stopped; sleep 100'}}
"#
    ));
    let mut worker = app.worker(&["--soft-shutdown-timeout", "0.1"]);
    for task in ["twice", "killed", "timed"] {
        let output = app.qworker(&["call", task, "--wait"]);
        assert!(output.stderr.contains("LastError"), "{task}: {output:?}");
    }
    let id = app.must(&["call", "stopped"]);
    await_lines(&app, "stopped", 1);
    worker.stop(Signal::SIGTERM);
    assert_eq!(result(&app, &id)["result"]["exc_type"], "LastError");
}

#[test]
fn a_chord_can_be_called() {
    let app = Place::Redis.app(&format!(
        "{OPEN}\nadd: {{shell: 'echo $(( $1 + $2 ))'}}\n\
         total: {{shell: 'echo $(( $(echo \"$1\" | tr -d \"[]\" | tr , +) ))'}}\n"
    ));
    app.fifo("go");
    let _worker = app.worker(&["-c", "4"]);
    let id = app.must(&["call", "open"]);
    let line = await_lines(&app, "open", 1).remove(0);
    let (address, token) = line.split_once(' ').unwrap();
    let mut session = Session::open(address, token).unwrap();
    let add = |n: u32| json!({"task": "add", "args": [n, n], "options": {}, "kwargs": {}});
    let total = json!({"task": "total", "args": [], "options": {}, "kwargs": {}});
    let chord = json!({"task": "celery.chord", "args": [], "options": {}, "subtask_type": "chord",
        "kwargs": {"header": [add(1), add(2)], "body": total, "kwargs": {}}});
    let answer = session.ask("call", &json!({ "signature": chord }).to_string()).unwrap();
    let answer: Value = serde_json::from_str(answer.get()).unwrap();
    assert_eq!(app.must(&["result", answer["id"].as_str().unwrap(), "--wait"]), "6");
    app.write_fifo("go");
    app.must(&["result", &id, "--wait"]);
    let header = &answer["tuple"][0][1];
    assert_eq!(result(&app, &id)["children"], json!([header]), "{answer}");
}

#[test]
fn a_module_says_what_its_end_means() {
    let app = TestDir::with("says: {wasm: says.wat, export: run}\ncommand: {wasm: says.wat}\n");
    app.write(
        "tasks.d/says.wat",
        r#"(module
          (import "qworker" "update_state" (func $update (param i32 i32) (result i32)))
          (import "qworker" "ignore" (func $ignore (param i32 i32) (result i32)))
          (memory (export "memory") 1)
          (data (i32.const 0) "{\"state\": \"OWN\", \"meta\": [1, 2]}")
          (func $say (export "run")
            (drop (call $update (i32.const 0) (i32.const 32)))
            (drop (call $ignore (i32.const 0) (i32.const 0))))
          (func (export "_start") (call $say)))"#,
    );
    let _worker = app.worker(&[]);
    for task in ["says", "command"] {
        let id = app.must(&["call", task]);
        eventually("the state", || (result(&app, &id)["result"] == json!([1, 2])).then_some(()));
        assert_eq!(result(&app, &id)["status"], "OWN");
    }
}

#[test]
fn the_socket_is_gone_with_its_worker() {
    let (_app, mut worker, _, address, _) = open();
    assert!(std::path::Path::new(&address).exists());
    let pid = worker.pid();
    worker.stop(Signal::SIGQUIT);
    assert!(!process::is_alive(pid) && !std::path::Path::new(&address).exists());
}
