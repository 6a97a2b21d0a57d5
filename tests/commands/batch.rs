//! `qworker call --from-jsonl`: what a line may say, what becomes of the others when one is
//! wrong, and how far it got when the broker ends.

use super::{TASKS, app, refused, with_env};
use crate::harness::{Output, Place, SOON, TestDir, Waiting, in_every_place};
use qworker::clock;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Stdio};
use std::time::Instant;

in_every_place! {
    a_line_is_a_task_and_the_ids_come_in_order
    what_is_wrong_is_named_and_the_rest_goes_on
    what_is_written_is_sent_at_once
}

fn call(app: &TestDir, args: &[&str], lines: &str) -> Output {
    app.qworker_with_input(&[&["call"], args, &["--from-jsonl", "-"]].concat(), lines)
}

/// The command with its input open; what it says on standard error goes to `err`.
fn start(app: &TestDir, args: &[&str], err: Stdio) -> (Child, BufReader<impl Read + use<>>) {
    let mut command = app.command(&[args, &["--from-jsonl", "-"]].concat());
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(err).spawn().unwrap();
    let ids = BufReader::new(child.stdout.take().unwrap());
    (child, ids)
}

fn write(child: &Child, text: &str) {
    child.stdin.as_ref().unwrap().write_all(text.as_bytes()).unwrap();
}

fn line(from: &mut impl BufRead) -> String {
    let mut line = String::new();
    from.read_line(&mut line).unwrap();
    line.trim_end().into()
}

fn a_line_is_a_task_and_the_ids_come_in_order(place: Place) {
    let app = place.app(TASKS);
    let lines: String = (0..1234).map(|n| format!("[{n}, 1]\n")).collect();
    app.write("lines.jsonl", &lines);
    let output = app.qworker(&["call", "add", "--from-jsonl", "lines.jsonl"]);
    assert_eq!((output.code, output.stderr.as_str()), (0, "Sent 1234 tasks.\n"));
    let sent = app.waiting();
    let ids: Vec<String> = sent.iter().map(|sent| sent.message().id.to_string()).collect();
    assert_eq!(output.stdout.lines().collect::<Vec<_>>(), ids);
    for (n, sent) in sent.iter().enumerate() {
        assert_eq!(sent.args(), [n.to_string(), "1".into()]);
    }
}

#[test]
fn a_line_goes_before_the_options() {
    let app = app();
    let lines = r#"
[]
{"id": "own", "kwargs": {"name": "Ada"}}

{"queue": "fast", "priority": 9, "eta": "2099-05-01T12:00:00+02:00"}
  {"countdown": 1000, "expires": 2000}
{"expires": "2099-05-01", "args": ["B"]}"#;
    let options = ["greet", "--queue", "q", "--priority", "3", "--countdown", "100"];
    let before = qworker::clock::now();
    let output = call(&app, &options, lines);
    let after = qworker::clock::now();
    assert_eq!((output.code, output.stderr.as_str()), (0, "Sent 5 tasks.\n"));
    let [plain, own, there, later, until] = &app.waiting()[..] else { panic!("{output:?}") };
    let eta = |sent: &Waiting, seconds| {
        let eta = sent.message().eta.unwrap() - chrono::TimeDelta::seconds(seconds);
        assert!((before..=after).contains(&eta), "{eta}");
        assert!(sent.due.is_some());
    };
    assert_eq!((plain.queue.as_str(), plain.priority), ("q", 3));
    eta(plain, 100);
    assert_eq!(own.message().id, "own");
    assert_eq!(own.message().arguments().unwrap().kwargs[0].1.get(), "\"Ada\"");
    let at = clock::parse("2099-05-01T10:00:00Z");
    assert_eq!((there.queue.as_str(), there.priority, there.message().eta), ("fast", 9, at));
    eta(later, 1000);
    let expires = later.message().expires.unwrap() - chrono::TimeDelta::seconds(2000);
    assert!((before..=after).contains(&expires), "{expires}");
    assert_eq!(until.message().expires, clock::parse("2099-05-01"));
    assert_eq!(until.args(), ["\"B\""]);
}

fn what_is_wrong_is_named_and_the_rest_goes_on(place: Place) {
    let app = place.app(TASKS);
    let lines = [
        (r#"[1, 2]"#, ""),
        ("nope", "expected a JSON array of arguments, or an object with args, kwargs, id, "),
        ("[1, 2", "expected a JSON array: EOF while parsing a list, in column 5"),
        ("[1, 2] x", "expected a JSON array: trailing characters, in column 8"),
        (r#"{"arg": [1]}"#, "unknown key \"arg\"; expected args, kwargs, id, countdown, eta, "),
        ("[1]", "TypeError: add() missing 1 required positional argument: 'b'"),
        (r#"{"args": 5}"#, "args: expected a JSON array, found 5"),
        (r#"{"kwargs": []}"#, "kwargs: expected a JSON object, found []"),
        (r#"{"id": 7}"#, "id: expected a task's id: text, not empty, without"),
        (
            r#"{"queue": ""}"#,
            "queue: expected a queue's name without blanks, and without commas, which stand between names in -Q, found \"\"",
        ),
        (
            r#"{"countdown": "soon"}"#,
            "countdown: expected a duration up to 36500d: seconds, or words",
        ),
        (
            r#"{"countdown": 1e99}"#,
            "countdown: expected a duration up to 36500d: seconds, or words such as 90s, 5m, 1h30m, 1d, found 1e99",
        ),
        (r#"{"eta": "soon"}"#, "eta: expected ISO 8601 like 2026-11-20T17:30:00+01:00 (UTC"),
        (r#"{"countdown": 1, "eta": "2099-01-01"}"#, "countdown: expected either this or eta"),
        (r#"{"expires": null}"#, "expires: expected seconds, or ISO 8601 like"),
        (r#"{"priority": 10}"#, "priority: expected a priority from 0 to 9, found 10"),
        (r#"{"args": [3, 4]}"#, ""),
    ];
    let text: Vec<&str> = lines.iter().map(|(line, _)| *line).collect();
    let output = call(&app, &["add"], &text.join("\n"));
    assert_eq!((output.code, output.stdout.lines().count()), (1, 2), "{output:?}");
    let mut said = output.stderr.lines();
    for (n, (line, why)) in lines.iter().enumerate().filter(|(_, (_, why))| !why.is_empty()) {
        let begin = format!("Error: line {}: {why}", n + 1);
        let found = said.next().unwrap();
        assert!(found.starts_with(&begin), "{line}: expected {begin:?} in {found:?}");
    }
    assert_eq!(said.collect::<Vec<_>>(), ["Sent 2 tasks; refused 15 lines."]);
    let sent: Vec<_> = app.waiting().iter().map(Waiting::args).collect();
    assert_eq!(sent, [["1", "2"], ["3", "4"]]);
}

#[test]
fn many_wrong_lines_are_counted_and_a_long_one_is_refused() {
    let app = app();
    let output = call(&app, &["add"], &"nope\n".repeat(1000));
    assert_eq!((output.code, output.stdout.as_str()), (1, ""));
    let said: Vec<&str> = output.stderr.lines().collect();
    assert_eq!(said.len(), 22, "{output:?}");
    assert_eq!(said[20..], ["Error: 980 more lines refused", "Sent 0 tasks; refused 1000 lines."]);

    let long = format!("[\"{}\"]\n[]\n", "x".repeat(17 * 1024 * 1024));
    let output = call(&app, &["greet"], &long);
    let said = "Error: line 1: longer than 16 MB\nSent 1 task; refused 1 line.\n";
    assert_eq!((output.code, output.stderr.as_str()), (1, said));
}

#[test]
fn quiet_is_quiet_but_for_errors() {
    let app = app();
    let input =
        |lines: &str| app.qworker_with_input(&["-q", "call", "greet", "--from-jsonl", "-"], lines);
    assert_eq!(input("[]\n").stderr, "");
    assert_eq!(input("").stdout, "");
    let wrong = input("[]\n{\"args\": 1}\n");
    assert_eq!(wrong.stderr, "Error: line 2: args: expected a JSON array, found 1\n");
    app.write("lines.jsonl", "[]\n");
    let output = with_env(&app, &[("QWORKER_CALL_FROM_JSONL", "lines.jsonl")], &["call", "greet"]);
    assert_eq!((output.code, output.stderr.as_str()), (0, "Sent 1 task.\n"));
}

/// Who writes a line now and then need not fill a batch.
fn what_is_written_is_sent_at_once(place: Place) {
    let app = place.app(TASKS);
    let (mut child, mut ids) = start(&app, &["call", "greet"], Stdio::null());
    for n in 0..3 {
        write(&child, &format!("{{\"id\": \"t{n}\"}}\n"));
        assert_eq!(line(&mut ids), format!("t{n}"));
        assert_eq!(app.waiting().len(), n + 1);
    }
    drop(child.stdin.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_broker_that_ends_is_told_with_the_line() {
    let app = app();
    let (child, mut ids) = start(&app, &["call", "greet"], Stdio::piped());
    write(&child, "[]\n\n[]\n");
    line(&mut ids);
    line(&mut ids);
    let file = rusqlite::Connection::open(app.database()).unwrap();
    file.busy_timeout(SOON).unwrap();
    file.execute_batch("DROP TABLE kombu_message").unwrap();
    write(&child, "nope\n[]\n");
    let output = Output::from(child.wait_with_output().unwrap());
    assert_eq!(output.code, 69, "{output:?}");
    for part in [
        "qworker.sqlite: no such table: kombu_message",
        "; 2 tasks accepted, line 5 was the first not accepted\n",
        "Hint: send the rest from line 5 on",
    ] {
        assert!(output.stderr.contains(part), "no {part:?} in {output:?}");
    }
}

#[test]
fn a_terminal_sees_how_far_it_is() {
    let app = app();
    let terminal = nix::pty::openpty(None, None).unwrap();
    let (mut child, mut ids) = start(&app, &["call", "greet"], terminal.slave.into());
    let mut screen = File::from(terminal.master);
    write(&child, "[]\n[]\n");
    let (mut seen, mut bytes, begin) = (String::new(), [0; 1024], Instant::now());
    while !seen.contains("2 tasks") {
        let read = screen.read(&mut bytes).unwrap();
        seen.push_str(&String::from_utf8_lossy(&bytes[..read]));
        assert!(begin.elapsed() < SOON, "{seen:?}");
    }
    assert!(!seen.contains("Sent"), "{seen:?}");
    assert_eq!((line(&mut ids).len(), line(&mut ids).len()), (36, 36));
    drop(child.stdin.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_is_read() {
    let app = app();
    for (args, parts) in [
        (&["add", "--from-jsonl", "x", "-a", "[]"][..], &["cannot be used with", "--args"][..]),
        (&["add", "--from-jsonl", "x", "-k", "{}"], &["cannot be used with", "--kwargs"]),
        (&["add", "--from-jsonl", "x", "--task-id", "t"], &["cannot be used with", "--task-id"]),
        (&["add", "--from-jsonl", "x", "--wait"], &["cannot be used with", "--wait"]),
        (&["add", "--from-jsonl", "x", "-w", "--json"], &["cannot be used with"]),
        (&["add", "--from-jsonl", "x", "-w", "--timeout", "1"], &["cannot be used with"]),
        (&["add", "--from-jsonl", "/no/such"], &["--from-jsonl: /no/such: No such file"]),
        (&["add", "--from-jsonl", "."], &["--from-jsonl: .: is a directory"]),
        (&["ad", "--from-jsonl", "-"], &["no task \"ad\" in tasks.d", "did you mean add?"]),
        (&["add", "--from-jsonl", "-", "--eta", "soon"], &["Error: --eta soon: expected ISO"]),
    ] {
        refused(&app.qworker(&[&["call"], args].concat()), 2, parts);
    }
}
