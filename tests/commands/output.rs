//! What becomes of what a command prints: on a full disk, without a standard output, on a terminal.

use super::{TASKS, app, json};
use crate::harness::{Output, TestDir, eventually};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

/// `qworker ARGS` by a shell, in whose text `$@` is the command line.
fn by_shell(app: &TestDir, text: &str, args: &[&str]) -> Output {
    let program = app.command(args);
    let mut shell = Command::new("sh");
    shell.args(["-c", text, "sh"]).arg(program.get_program()).args(args);
    for (name, value) in program.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    Output::of(shell.current_dir(app.path()).stdin(Stdio::null()))
}

/// Every command that prints something, each after the one before.
const PRINT: &[&[&str]] = &[
    &["--version"],
    &["--help"],
    &[],
    &["call", "--help"],
    &["check"],
    &["report"],
    &["report", "--json"],
    &["call", "greet"],
    &["list", "tasks"],
    &["list", "tasks", "--json"],
    &["list", "queues"],
    &["list", "queues", "--json"],
    &["dead", "list", "--json"],
    &["dead", "purge", "--all"],
    &["purge", "-f"],
    &["completions", "bash"],
    &["multi", "names", "3"],
    &["multi", "--help"],
    &["beat", "check"],
    &["beat", "check", "--json"],
];

#[test]
fn what_cannot_be_printed_fails_every_command_after_its_work() {
    let app = app();
    let told = "Error: standard output: ";
    for args in PRINT {
        let full = by_shell(&app, "exec \"$@\" >/dev/full", args);
        assert_eq!(full.code, 74, "{args:?}: {full:?}");
        assert!(full.stderr.contains(&format!("{told}No space left")), "{args:?}: {full:?}");
        let closed = by_shell(&app, "exec \"$@\" >&-", args);
        assert_eq!(closed.code, 74, "{args:?}: {closed:?}");
        assert!(
            closed.stderr.contains(&format!("{told}Bad file descriptor")),
            "{args:?}: {closed:?}"
        );
        // Whoever reads may go away, and may not want to hear it at all.
        let gone = by_shell(&app, "{ \"$@\"; echo $? >code; } | true", args);
        assert!(!gone.stderr.contains(told), "{args:?}: {gone:?}");
        assert_eq!(app.read("code"), "0\n", "{args:?}: {gone:?}");
        let nowhere = by_shell(&app, "exec \"$@\" >/dev/null", args);
        assert_eq!(nowhere.code, 0, "{args:?}: {nowhere:?}");
    }
}

/// What was accepted is known to nobody else.
#[test]
fn an_id_that_cannot_be_printed_is_said() {
    let app = app();
    let full = by_shell(&app, "exec \"$@\" >/dev/full", &["call", "greet", "--task-id", "mine"]);
    assert!(full.code == 74 && full.stderr.starts_with("mine\n"), "{full:?}");
    app.write("many.jsonl", "{\"id\": \"one\"}\n{\"id\": \"two\"}\n");
    let many = ["call", "greet", "--from-jsonl", "many.jsonl"];
    let full = by_shell(&app, "exec \"$@\" >/dev/full", &many);
    assert!(full.code == 74 && full.stderr.starts_with("one\ntwo\n"), "{full:?}");
    let mut worker = app.worker(&[]);
    for id in ["mine", "one", "two"] {
        assert_eq!(app.must(&["result", id, "--wait"]), "Hello, world!");
    }
    let full = by_shell(&app, "exec \"$@\" >/dev/full", &["result", "mine"]);
    assert_eq!(full.code, 74, "{full:?}");
    let full = by_shell(&app, "exec \"$@\" >/dev/full", &["status"]);
    assert_eq!(full.code, 74, "{full:?}");
    // A task that failed has failed, printed or not.
    app.qworker(&["call", "fail", "--task-id", "bad", "--wait"]);
    let full = by_shell(&app, "exec \"$@\" >/dev/full", &["result", "bad", "--json"]);
    assert!(full.code == 1 && full.stderr.contains("Error: standard output"), "{full:?}");
    assert_eq!(worker.stop(Signal::SIGTERM), 0);
}

/// `qworker ARGS` on a terminal of 80 columns that knows colours; what stands there then.
fn on_terminal(app: &TestDir, args: &[&str]) -> String {
    on_terminal_of(app, 80, args)
}

fn on_terminal_of(app: &TestDir, width: usize, args: &[&str]) -> String {
    let mut command = app.command(&[]);
    let program = command.get_program().to_owned();
    let mut words = vec![format!("stty cols {width} rows 24;"), program.to_string_lossy().into()];
    words.extend(args.iter().map(|word| format!("'{word}'")));
    let log = app.file("typescript");
    let script = ["--quiet", "--return", "--command", &words.join(" ")];
    let mut typed = Command::new("script");
    typed.args(script).arg(&log);
    for (name, value) in command.env_remove("NO_COLOR").env("TERM", "xterm").get_envs() {
        match value {
            Some(value) => typed.env(name, value),
            None => typed.env_remove(name),
        };
    }
    let output = Output::of(typed.current_dir(app.path()).stdin(Stdio::null()));
    output.stdout.replace("\r\n", "\n")
}

#[test]
fn tables_are_no_wider_than_the_terminal() {
    let app = TestDir::with(
        "add:\n  exec: [expr, '{a}', +, '{b}']\n  params: [a, b]\n  description: adds two numbers of \
         any size that a person may come to think of in a long life, and prints the sum\n\
         größe: {shell: ':', description: \"日本語 \\e[31mred\"}\n",
    );
    let shown = on_terminal(&app, &["list", "tasks"]);
    assert!(shown.lines().all(|line| line.chars().count() <= 80), "{shown}");
    let words: Vec<&str> = shown.split_whitespace().collect();
    for word in ["numbers", "person", "think", "prints", "sum"] {
        assert!(words.contains(&word), "{word} is cut: {shown}");
    }
    assert!(shown.contains("\\x1b[31mred") && !shown.contains("\u{1b}[31m"), "{shown}");
    // Elsewhere one task is one line.
    assert_eq!(app.must(&["list", "tasks"]).lines().count(), 3);
}

/// Ids are there to be copied, however narrow the terminal is.
#[test]
fn no_id_is_broken() {
    let app = TestDir::with("a.rather.long.name.of.a.task: {shell: ':', description: two words}\n");
    for width in [40, 80] {
        let shown = on_terminal_of(&app, width, &["list", "tasks"]);
        assert!(shown.contains("a.rather.long.name.of.a.task"), "{shown}");
        assert_eq!(shown.contains("Description: two words"), width == 40, "{shown}");
    }
}

/// What somebody types, and what is in a file, is shown by all commands without doing anything to
/// the terminal; what goes elsewhere is as it is.
#[test]
fn what_is_repeated_does_nothing_to_a_terminal() {
    let app = app();
    let odd = "\u{1b}[31mx";
    app.write(&format!("{odd}/tasks.d/t.yaml"), "t: {shell: ':'}\n");
    app.write("s.yaml", "entries: {\"\\x1b[31mx\": {task: \"\\x1b[31mx\", schedule: 5}}\n");
    let with = format!("--wait={odd}");
    let unknown = format!("--{odd}");
    for args in [
        &[odd][..],
        &[&unknown],
        &["-A", odd, "check"],
        &["-A", odd, "report"],
        &["call", odd],
        &["result", odd],
        &["call", "greet", "--task-id", odd],
        &["call", "greet", "--countdown", odd],
        &["call", "greet", "--priority", odd],
        &["call", "greet", &with],
        &["call", "greet", &unknown],
        &["call", "greet", odd],
        &["call", "greet", "--from-jsonl", odd],
        &["list", odd],
        &["dead", "show", odd],
        &["health", "-n", odd],
        &["worker", "--concurrency", odd],
        &["worker", "--loglevel", odd],
        &["beat", "--entries", odd],
        &["beat", "check", "s.yaml"],
        &["completions", odd],
        &["multi", odd],
        &["multi", "names", odd],
        &["multi", "stop", odd],
        &["multi", "show", odd],
    ] {
        let shown = on_terminal(&app, args);
        assert!(!shown.contains(odd), "{args:?}: {shown:?}");
        let is_there = ["\\x1b[31mx", "\\u{1b}[31mx"].iter().any(|form| shown.contains(form));
        assert!(is_there, "{args:?}: {shown:?}");
    }
    // Elsewhere an id is what it is; this one turns the writing around.
    let turned = "\u{202e}x";
    assert_eq!(app.must(&["call", "greet", "--task-id", turned]), turned);
}

#[test]
fn an_empty_table_is_a_sentence() {
    let app = TestDir::new();
    for (args, none) in [
        (&["list", "tasks"], "No tasks in tasks.d.\n"),
        (&["list", "queues"], "No queues: nothing was ever sent.\n"),
        (&["dead", "list"], "No dead letters.\n"),
    ] {
        let output = app.qworker(args);
        assert_eq!((output.code, output.stdout.as_str(), output.stderr.as_str()), (0, "", none));
    }
}

/// The log of a worker on a terminal is coloured, and begins with the worker's own words.
#[test]
fn the_log_on_a_terminal() {
    let app = app();
    app.must(&["call", "fail", "--task-id", "one"]);
    let worker = r#"& "$QW" -q result "$ID" --wait >/dev/null 2>&1; kill $!; wait $!"#;
    let log = app.file("typescript");
    let mut command = app.command(&[]);
    let program = command.get_program().to_owned();
    command.env("QW", &program).env("TERM", "xterm").env_remove("NO_COLOR");
    let mut typed = Command::new("script");
    let text = format!("\"$QW\" worker -l INFO {worker}");
    typed.args(["--quiet", "--command", &text]).arg(&log).current_dir(app.path());
    typed.env("SHELL", "/bin/sh").env("QW", &program).env("TERM", "xterm").env_remove("NO_COLOR");
    let said = Output::of(typed.stdin(Stdio::null()).env("ID", "one")).stdout;
    assert!(!said.contains("tracing-subscriber"), "{said}");
    assert!(said.contains("\u{1b}[31m[") && said.contains("ERROR/MainProcess"), "{said}");
    typed.env("TERM", "dumb").env("ID", "two");
    app.must(&["call", "fail", "--task-id", "two"]);
    let said = Output::of(&mut typed).stdout;
    assert!(!said.contains("\u{1b}[") && said.contains("ERROR/MainProcess"), "{said}");
}

/// Who waits is told for what, and when it is interrupted how to go on.
#[test]
fn waiting_is_not_silent() {
    let app = TestDir::with(TASKS);
    app.must(&["call", "thumb", "--task-id", "t"]);
    for (args, id, signal, code) in [
        (&["call", "greet", "--task-id", "g", "--wait"][..], "g", Signal::SIGINT, 130),
        (&["result", "t", "--wait"], "t", Signal::SIGTERM, 143),
    ] {
        let mut command = app.command(args);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
        let line = said.next().unwrap().unwrap();
        let queue = if id == "t" { "media" } else { "celery" };
        assert!(
            line.starts_with(&format!("Task {id} waits in queue {queue}; no worker")),
            "{line}"
        );
        kill(Pid::from_raw(child.id() as i32), signal).unwrap();
        let line = said.next().unwrap().unwrap();
        assert!(line.contains(&format!("`qworker result {id} --wait`")), "{line}");
        assert_eq!(child.wait().unwrap().code(), Some(code));
    }
    // Of a workflow the first task is told of, and how to go on with the whole.
    let chain = ["call", "--chain", "greet", "greet", "--task-id", "last", "--wait"];
    let mut command = app.command(&chain);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
    let line = said.next().unwrap().unwrap();
    assert!(line.contains(" waits in queue celery; no worker"), "{line}");
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).unwrap();
    let line = said.next().unwrap().unwrap();
    assert!(line.contains("`qworker graph last`") && line.contains("--wait`"), "{line}");
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let mut command = app.command(&["result", "nobodys", "--wait"]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(said.next().unwrap().unwrap().starts_with("Task nobodys is not known here: waiting"));
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).unwrap();
    let line = said.next().unwrap().unwrap();
    assert!(line.starts_with("Task nobodys is not known here, and nobody waits"), "{line}");
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let quiet = app.qworker(&["-q", "result", "t", "--wait", "--timeout", "1.3"]);
    assert_eq!(quiet.stderr.lines().count(), 1, "{quiet:?}");
}

/// Task files that are edited under a worker, and a folder that cannot be read.
#[test]
fn a_changed_task_file_is_told_once_and_hup_loads_it() {
    let app = app();
    let mut worker = app.worker(&[]);
    app.write("tasks.d/tasks.yaml", "greet: {shell: 'echo anew'}\n");
    worker.expect_line("tasks.d has changed since its tasks were read");
    assert_eq!(app.must(&["call", "greet", "--wait"]), "Hello, world!");
    worker.signal(Signal::SIGHUP);
    eventually("the new text", || (app.must(&["call", "greet", "--wait"]) == "anew").then_some(()));
    assert_eq!(worker.log().matches("has changed since").count(), 1, "{}", worker.log());
    // What is no folder cannot be read either, by root too.
    fs::rename(app.file("tasks.d"), app.file("aside")).unwrap();
    app.write("tasks.d", "").settings("task_default_queue: celery\n");
    for args in [&["call", "greet"][..], &["list", "tasks"], &["check"], &["worker"]] {
        let output = app.qworker(args);
        assert_eq!(output.code, 1, "{args:?}: {output:?}");
        assert!(
            output.stderr.contains("tasks.d: cannot be read: Not a directory"),
            "{args:?}: {output:?}"
        );
    }
    worker.signal(Signal::SIGHUP);
    worker.expect_line("tasks.d: cannot be read: Not a directory");
    fs::remove_file(app.file("tasks.d")).unwrap();
    fs::rename(app.file("aside"), app.file("tasks.d")).unwrap();
    assert_eq!(app.must(&["call", "greet", "--wait"]), "anew");
    let queues = json(&app.must(&["list", "queues", "--json"]));
    assert!(queues.is_array());
    assert_eq!(worker.stop(Signal::SIGTERM), 0);
}
