//! The log: its file, its forms, and what becomes of it when the file moves, the disk is full or
//! nobody reads.

use crate::harness::{TestDir, Worker, eventually, process};
use nix::sys::signal::Signal;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Command;

const TASKS: &str = "say: {shell: 'echo said'}\nbad: {shell: 'exit 3'}\n";

fn started(app: &TestDir, args: &[&str]) -> Worker {
    let worker = Worker::spawn(app, args);
    eventually("a worker", || (app.qworker(&["status"]).code == 0).then_some(()));
    worker
}

/// Runs one task to its end; gives its id.
fn run(app: &TestDir, task: &str) -> String {
    let id = app.must(&["call", task]);
    app.qworker(&["result", &id, "--wait"]);
    id
}

/// Lines of Celery's form, without their time.
fn told(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    assert!(!text.contains(['\x1b', '\0']), "{text:?}");
    let line = |line: &str| line.split_once(": ").map(|(_, rest)| rest.to_string());
    text.lines().map(|text| line(text).unwrap_or_else(|| panic!("{text:?}"))).collect()
}

#[test]
fn a_file_gets_the_lines_and_standard_error_does_not() {
    let app = TestDir::with(TASKS);
    let mut worker =
        started(&app, &["-n", "w@host.example", "-l", "info", "-f", "%n-%h-%d%I%%.log"]);
    let id = run(&app, "say");
    assert_eq!(worker.stop(Signal::SIGTERM), 0);
    let lines = told(&app.file("w-host.example-example%.log"));
    assert_eq!(lines[0], "INFO/MainProcess] w@host.example ready.");
    assert_eq!(lines[1], format!("INFO/MainProcess] Task say[{id}] received"));
    assert!(lines[2].starts_with(&format!("INFO/MainProcess] Task say[{id}] succeeded in ")));
    assert_eq!(lines[3], "WARNING/MainProcess] worker: Warm shutdown (0 running)");
    assert_eq!(worker.log(), "");
    worker.expect_banner("[queues]");
}

#[test]
fn levels_hold_and_lines_are_added_to_what_is_there() {
    let app = TestDir::with(TASKS);
    app.write("log", "[2026-11-20 17:30:39,120: INFO/MainProcess] before\n");
    let mut worker = started(&app, &["-l", "ERROR", "-f", "log"]);
    run(&app, "say");
    run(&app, "bad");
    assert_eq!(worker.stop(Signal::SIGTERM), 0);
    let lines = told(&app.file("log"));
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[1].starts_with("ERROR/MainProcess] Task bad["), "{lines:?}");
}

#[test]
fn json_lines_say_which_task_they_are_about() {
    let app = TestDir::with(TASKS);
    app.settings("task_unregistered: dead\n");
    let options = ["-n", "w@h", "-l", "INFO", "-f", "log", "--log-format", "json"];
    let mut worker = started(&app, &options);
    let (pid, guard) = (worker.pid(), worker.guard());
    let (good, bad) = (run(&app, "say"), run(&app, "bad"));
    let strange = app.must(&["call", "no\"such\\task", "--unregistered"]);
    eventually("its first refusal", || app.read("log").contains("unregistered").then_some(()));
    process::send(pid, Signal::SIGKILL);
    eventually("a word of the guard", || app.read("log").contains("SIGKILL").then_some(()));
    eventually("a second worker", || {
        (app.read("log").matches("ready.").count() == 2).then_some(())
    });
    assert_eq!(worker.stop(Signal::SIGTERM), 0);
    let lines: Vec<serde_json::Value> =
        app.lines("log").iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    for line in &lines {
        let time = line["time"].as_str().unwrap();
        assert!(chrono::DateTime::parse_from_rfc3339(time).is_ok(), "{line}");
        assert_eq!(line["node"], "w@h");
        let text = line["message"].as_str().unwrap();
        for (id, task) in [(&good, "say"), (&bad, "bad"), (&strange, "no\"such\\task")] {
            if text.contains(id.as_str()) {
                assert_eq!((&line["id"], &line["task"]), (&(**id).into(), &task.into()), "{line}");
            }
        }
    }
    assert_eq!(lines.iter().filter(|line| line["id"] == *good).count(), 2);
    assert_eq!((&lines[0]["level"], &lines[0]["pid"]), (&"INFO".into(), &pid.into()));
    assert_eq!((&lines[0]["process"], &lines[0]["id"]), (&"worker".into(), &().into()));
    let note = lines.iter().find(|line| line["process"] == "guard").unwrap();
    assert_eq!((&note["pid"], &note["level"]), (&guard.into(), &"WARNING".into()));
}

#[test]
fn a_file_that_cannot_be_is_told_before_the_start() {
    let app = TestDir::with(TASKS);
    for (file, why) in [
        ("none/log", format!("{0}/none/log: there is no folder {0}/none", app.path().display())),
        ("tasks.d", format!("{}/tasks.d: is a directory", app.path().display())),
        ("%x", "%x: %x means nothing; expected %n, %h, %d, %p, %i, %I or %%".into()),
    ] {
        let output = app.qworker(&["worker", "-f", file]);
        assert_eq!((output.code, output.stderr), (2, format!("Error: --logfile {why}\n")));
    }
    let output = app.qworker(&["worker", "--log-format", "xml"]);
    assert!(output.code == 2 && output.stderr.contains("[possible values: celery, json]"));
}

#[test]
fn a_file_of_our_own_rotation_has_every_line() {
    let app = TestDir::with(TASKS);
    app.settings("worker_log_max_bytes: 2000\nworker_log_backups: 300\n");
    let mut worker = started(&app, &["-l", "INFO", "-f", "log"]);
    let ids = super::send_many(&app, "say", 500);
    super::await_empty(&app);
    assert_eq!(worker.stop(Signal::SIGTERM), 0);
    let mut lines = told(&app.file("log"));
    let aside = (1..).map(|n| app.file(&format!("log.{n}"))).take_while(|path| path.exists());
    let mut files = 0;
    for path in aside {
        assert!(path.metadata().unwrap().len() <= 2000);
        lines.extend(told(&path));
        files += 1;
    }
    assert!((50..300).contains(&files), "{files}");
    for id in ids {
        let count = |what: &str| {
            let start = format!("INFO/MainProcess] Task say[{id}] {what}");
            lines.iter().filter(|line| line.starts_with(&start)).count()
        };
        // What waits for a slot on a busy machine is given back, and received again.
        assert!(count("received") >= 1 && count("succeeded in ") == 1, "{id}");
    }
}

#[test]
fn a_full_disk_stops_nothing_and_lines_are_counted() {
    let app = TestDir::with(TASKS);
    fs::create_dir(app.file("disk")).unwrap();
    // Mounting a disk takes root.
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let disk = Disk::of(app.file("disk"), "64k");
    let mut worker = started(&app, &["-l", "INFO", "-f", "disk/log"]);
    let ids = super::send_many(&app, "say", 2000);
    super::await_empty(&app);
    disk.resize("30m");
    let last = run(&app, "say");
    assert_eq!(worker.stop(Signal::SIGTERM), 0);
    let lines = told(&app.file("disk/log"));
    let of_last = lines.iter().filter(|line| line.contains(&last)).count();
    assert!(of_last >= 2, "{lines:?}");
    let note = |line: &str| {
        let text = line.strip_prefix("WARNING/MainProcess] ")?;
        let (count, why) = text.split_once(" log line")?;
        assert!(why.ends_with(" dropped: No space left on device"), "{line}");
        count.parse::<usize>().ok()
    };
    let dropped: usize = lines.iter().filter_map(|line| note(line)).sum();
    let there =
        lines.iter().filter(|line| line.contains("INFO/MainProcess] Task say[")).count() - of_last;
    assert!(there > 100 && dropped > 1000, "{there} and {dropped}");
    // What waits for a slot on a busy machine is given back, and received again.
    assert!(there + dropped >= 2 * ids.len(), "every line is there, whole, or counted");
}

/// A tmpfs of its own, until it is dropped.
struct Disk(String);

impl Disk {
    fn of(folder: std::path::PathBuf, size: &str) -> Self {
        let disk = Self(folder.display().to_string());
        run_well(&["mount", "-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs", &disk.0]);
        disk
    }

    fn resize(&self, size: &str) {
        run_well(&["mount", "-o", &format!("remount,size={size}"), &self.0]);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["-l", &self.0]).status();
    }
}

fn run_well(words: &[&str]) {
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
    assert!(output.status.success(), "{words:?}: {output:?}");
}

#[test]
fn a_reader_that_sleeps_stops_nothing() {
    let app = TestDir::with(TASKS);
    let path = app.file("pipe");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let reader = fs::File::options().read(true).write(true).open(&path).unwrap();
    let mut worker = started(&app, &["-l", "INFO", "-f", "pipe"]);
    app.write("batch", &"[]\n".repeat(6000));
    app.must(&["call", "say", "--from-jsonl", "batch"]);
    super::await_empty(&app);
    // Now somebody reads.
    let mut lines = BufReader::new(reader).lines().map(Result::unwrap);
    let (mut there, mut dropped) = (0, 0);
    while there + dropped < 12_000 {
        let line = lines.next().unwrap();
        if let Some((count, why)) = line.split_once(" log lines were dropped: ") {
            assert_eq!(why, "they came faster than they could be written");
            dropped += count.rsplit_once(' ').unwrap().1.parse::<usize>().unwrap();
        } else {
            there += usize::from(line.contains("INFO/MainProcess] Task say["));
        }
    }
    assert!(there > 8192 && dropped > 1000, "{there} and {dropped}");
    assert_eq!(worker.stop(Signal::SIGTERM), 0);
}

#[test]
fn what_comes_from_outside_forges_no_line() {
    let app =
        TestDir::with("bad: {shell: 'printf \"[x: INFO] one\\\\n\\\\033[2Jtwo\" >&2; exit 3'}\n");
    let forged = "x\n[2026-01-01 00:00:00,000: ERROR/MainProcess] forged\u{1b}[2J\u{202e}";
    app.must(&["call", "bad", "--task-id", "mark"]);
    app.must(&["call", "mark", "--unregistered", "--task-id", "y"]);
    // No client of ours sends that.
    let sql = rusqlite::Connection::open(app.database()).unwrap();
    let forge = "UPDATE kombu_message SET payload = replace(payload, '\"mark\"', ?1),
                 task_id = iif(task_id = 'mark', ?2, task_id)";
    let json = serde_json::Value::from(forged).to_string();
    assert_eq!(sql.execute(forge, [&json, forged]).unwrap(), 2);
    drop(sql);
    let mut worker = started(&app, &["-l", "INFO", "-f", "log"]);
    eventually("both are told", || {
        let log = app.read("log");
        (log.contains("raised unexpected") && log.contains("not in tasks.d")).then_some(())
    });
    assert_eq!(worker.stop(Signal::SIGTERM), 0);
    let log = app.read("log");
    assert!(!log.contains(['\x1b', '\u{202e}']), "{log:?}");
    assert!(log.contains("forged\\x1b[2J\\u202e"), "{log}");
    for line in log.lines() {
        let is_ours = line.starts_with("[20") && !line.starts_with("[2026-01-01");
        assert!(is_ours || line.starts_with("  "), "{line:?} in {log}");
    }
}

/// What can never be written is told where somebody looks: by the program that begins, and by `health`.
#[test]
fn a_log_that_takes_no_lines_is_told() {
    let app = TestDir::with("tiny: {shell: ':'}\n");
    let why =
        "Warning: the log /dev/full takes no lines: No space left on device; they are dropped";
    for command in ["worker", "beat"] {
        let mut program = Worker::run(&app, &[command, "-l", "INFO", "-f", "/dev/full"]);
        program.expect_line(why);
        if command == "worker" {
            eventually("its start", || (app.qworker(&["health"]).code == 0).then_some(()));
            app.must(&["call", "tiny", "--wait"]);
            let health = app.must(&["health"]);
            assert!(health.contains("slots run a task; its log: "), "{health}");
            assert!(
                health.contains(" log lines were dropped: No space left on device"),
                "{health}"
            );
            let health: serde_json::Value =
                serde_json::from_str(&app.must(&["health", "--json"])).unwrap();
            assert!(health["log"].as_str().unwrap().contains("log lines"), "{health}");
        }
        assert_eq!(program.stop(Signal::SIGTERM), 0);
        assert_eq!(program.log().matches("takes no lines").count(), 1, "{}", program.log());
    }
}
