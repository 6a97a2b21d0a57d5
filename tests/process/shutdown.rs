//! TERM, INT, QUIT and HUP: what runs is finished or stopped, what does not run is given
//! back, and the exit codes are Celery's.

use super::{SLOW, await_empty, await_lines, counts, left, ready, send_many};
use crate::harness::{Place, SOON, TestDir, Worker, eventually, in_every_place};
use nix::sys::signal::Signal;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

// Those that give back what a broker hands out again.
in_every_place! {
    term_finishes_what_runs_and_gives_back_the_rest_at_once
    quit_is_cold_and_ends_with_0
    the_second_term_asks_the_tasks_to_end_and_then_they_are_killed
}

/// A worker with one slot that runs `slow`, and has taken more ahead if it does that.
fn busy(app: &TestDir, ids: &[&str]) -> Worker {
    let worker = app.worker(&["-c", "1"]);
    for id in ids {
        app.must(&["call", "slow", "--task-id", id]);
    }
    await_lines(app, "started", 1);
    worker
}

fn held(app: &TestDir) -> usize {
    counts(app).1
}

fn term_finishes_what_runs_and_gives_back_the_rest_at_once(place: Place) {
    let app = place.app(SLOW);
    let mut worker = app.worker(&["-c", "1"]);
    // Tiny ones first: then it takes work ahead.
    send_many(&app, "tiny", 100);
    await_empty(&app);
    let ids = send_many(&app, "slow", 20);
    await_lines(&app, "started", 1);
    worker.signal(Signal::SIGTERM);
    worker.expect_line("Warm shutdown (1 running)");
    eventually("the return of all but one", || (held(&app) == 1).then_some(()));
    assert_eq!(left(&app), 20, "one still runs");
    app.write("go", "");
    assert_eq!(worker.wait(), 0);
    let started = app.lines("started");
    assert_eq!(started.len(), 1, "it started something in its shutdown: {started:?}");
    assert_eq!(app.must(&["result", &started[0]]), "done");
    assert_eq!(counts(&app), (19, 0));
    let ready = ready(&app);
    assert_eq!(ready.len(), 19);
    for (id, losses) in ready {
        assert!(losses == 0 && id != started[0] && ids.contains(&id));
    }
    worker.expect_no_survivors();
}

/// Without a terminal HUP is a restart; one that is closed sends it to all programs on it.
#[test]
fn a_terminal_that_is_closed_ends_what_was_started_on_it() {
    let app = TestDir::with(SLOW);
    let ids = ["a", "b"].map(|id| app.must(&["call", "slow", "--task-id", id]));
    let args = ["worker", "-c", "1", "-l", "INFO", "-f", "log"];
    let (mut worker, terminal) = Worker::on_terminal(&app, &args);
    await_lines(&app, "started", 1);
    drop(terminal);
    let said = "HUP: standard output is a terminal, so the worker ends";
    eventually("a word of the guard", || app.read("log").contains(said).then_some(()));
    eventually("a warm shutdown", || app.read("log").contains("(1 running)").then_some(()));
    // Another one asks for nothing more.
    worker.signal(Signal::SIGHUP);
    worker.signal(Signal::SIGUSR1);
    eventually("an answer", || app.read("log").contains("worker: draining;").then_some(()));
    app.write("go", "");
    assert_eq!(worker.wait(), 0, "{}", app.read("log"));
    assert_eq!((app.lines("started").len(), left(&app)), (1, 1), "{}", app.read("log"));
    assert_eq!(app.must(&["result", &ids[0]]), "done");
    worker.expect_no_survivors();

    let (mut beat, terminal) = Worker::on_terminal(&app, &["beat", "-l", "INFO", "-f", "beat.log"]);
    eventually("its start", || app.read("beat.log").contains("beat: loaded ").then_some(()));
    drop(terminal);
    assert_eq!(beat.wait(), 0, "{}", app.read("beat.log"));
    assert!(app.read("beat.log").ends_with("beat: Shutting down...\n"));
}

#[test]
fn a_hup_that_would_not_start_is_refused_and_a_term_ends_a_restart() {
    let app = TestDir::with(SLOW);
    let mut worker = busy(&app, &["a"]);
    let inner = worker.pid();
    app.write("qworker.yaml", "worker_concurrency: many\n");
    worker.signal(Signal::SIGHUP);
    worker.expect_line("restart refused, the worker goes on: Error: wrong settings");
    worker.expect_line("qworker.yaml:1");
    std::fs::remove_file(app.file("qworker.yaml")).unwrap();
    assert_eq!(worker.pid(), inner, "the same worker");
    worker.signal(Signal::SIGHUP);
    worker.expect_line("Warm shutdown (1 running)");
    // It is on its way already: this does not hurry it, and there is no new start.
    worker.signal(Signal::SIGTERM);
    app.write("go", "");
    assert_eq!(worker.wait(), 0);
    assert_eq!(app.must(&["result", "a"]), "done");
    assert!(!worker.log().contains("Soft shutdown"));
}

#[test]
fn a_hup_whose_program_is_gone_names_the_program() {
    let app = TestDir::with(SLOW);
    let program = app.file("qworker-now");
    std::fs::copy(env!("CARGO_BIN_EXE_qworker"), &program).unwrap();
    let plain = app.command(&[]);
    let mut command = std::process::Command::new(&program);
    command.arg("worker").current_dir(app.path()).stdin(Stdio::null());
    for (name, value) in plain.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let mut worker = Worker::of(command);
    worker.expect_line(" ready.");
    let refused = format!("restart refused, the worker goes on: {}: ", program.display());
    std::fs::remove_file(&program).unwrap();
    worker.signal(Signal::SIGHUP);
    worker.expect_line(&format!("{refused}No such file or directory"));
    app.program("qworker-now", "garbage");
    worker.signal(Signal::SIGHUP);
    worker.expect_line(&format!("{refused}Exec format error"));
    assert_eq!(worker.stop(Signal::SIGTERM), 0);
    let failed = app.qworker(&["worker", "--executable", "qworker-now"]);
    assert!(failed.code == 1 && failed.stderr.contains("qworker-now: Exec format"), "{failed:?}");
}

#[test]
fn the_first_int_is_warm_says_so_and_ends_with_1() {
    let app = TestDir::with(SLOW);
    let mut worker = busy(&app, &["a"]);
    worker.signal(Signal::SIGINT);
    worker.expect_line("hitting Ctrl+C again stops all running tasks; they are redelivered");
    worker.expect_line("Warm shutdown (1 running)");
    app.write("go", "");
    assert_eq!(worker.wait(), 1);
    assert_eq!(app.must(&["result", "a"]), "done");
    // Even when it was idle, as Celery.
    assert_eq!(app.worker(&[]).stop(Signal::SIGINT), 1);
    assert_eq!(app.worker(&[]).stop(Signal::SIGTERM), 0);
}

/// What was stopped waits again, uncounted: it was no fault of its own.
fn expect_given_back(app: &TestDir, worker: &Worker, ids: &[&str]) {
    let expected: Vec<_> = ids.iter().map(|id| (id.to_string(), 0)).collect();
    assert_eq!((ready(app), left(app)), (expected, ids.len()));
    worker.expect_no_survivors();
    // And runs when somebody is there for it.
    app.write("go", "");
    let mut next = app.worker(&[]);
    for id in ids {
        assert_eq!(app.must(&["result", id, "--wait"]), "done");
    }
    assert_eq!(next.stop(Signal::SIGTERM), 0);
}

#[test]
fn the_second_int_is_cold() {
    let app = TestDir::with(SLOW);
    let mut worker = busy(&app, &["a", "b"]);
    worker.signal(Signal::SIGINT);
    worker.expect_line("Warm shutdown");
    worker.signal(Signal::SIGINT);
    worker.expect_line("Cold shutdown (1 stopped)");
    assert_eq!(worker.wait(), 1);
    worker.expect_line("stopped by shutdown; given back");
    expect_given_back(&app, &worker, &["a", "b"]);
}

fn quit_is_cold_and_ends_with_0(place: Place) {
    let app = place.app(SLOW);
    let mut worker = busy(&app, &["a", "b"]);
    assert_eq!(worker.stop(Signal::SIGQUIT), 0);
    worker.expect_line("Cold shutdown (1 stopped)");
    expect_given_back(&app, &worker, &["a", "b"]);
}

#[test]
fn quit_after_term_is_cold() {
    let app = TestDir::with(SLOW);
    let mut worker = busy(&app, &["a"]);
    worker.signal(Signal::SIGTERM);
    worker.expect_line("Warm shutdown");
    assert_eq!(worker.stop(Signal::SIGQUIT), 0);
    expect_given_back(&app, &worker, &["a"]);
}

/// A task that notes TERM and goes on for `more` seconds.
const STUBBORN: &str = r#"
stubborn:
  shell: |
    trap 'echo "$QWORKER_TASK_ID" >>asked; [ "$1" = obey ] && exit 0; [ "$1" = fail ] && exit 3' TERM
    echo "$QWORKER_TASK_ID" >>started; while [ ! -e go ]; do sleep 0.02; done; echo done
  params: [how]
"#;

fn the_second_term_asks_the_tasks_to_end_and_then_they_are_killed(place: Place) {
    let app = place.app(STUBBORN);
    let mut worker = app.worker(&["-c", "3"]);
    for how in ["obey", "fail", "ignore"] {
        app.must(&["call", "stubborn", "--task-id", how, "--args", &format!("[{how:?}]")]);
    }
    await_lines(&app, "started", 3);
    worker.signal(Signal::SIGTERM);
    worker.expect_line("Warm shutdown (3 running)");
    worker.signal(Signal::SIGTERM);
    worker.expect_line("Soft shutdown (3 asked to end)");
    assert_eq!(worker.wait(), 0);
    worker.expect_line("Cold shutdown (1 stopped)");
    assert_eq!(app.lines("asked").len(), 3);
    // Who did its work has done it; the others are given back, uncounted.
    assert_eq!(app.must(&["result", "obey"]), "null");
    expect_given_back(&app, &worker, &["fail", "ignore"]);
}

#[test]
fn a_soft_shutdown_is_bounded() {
    let app = TestDir::with(SLOW);
    let mut worker = app.worker(&["-c", "2", "--soft-shutdown-timeout", "0.2"]);
    for id in ["a", "b"] {
        app.must(&["call", "slow", "--task-id", id]);
    }
    await_lines(&app, "started", 2);
    worker.signal(Signal::SIGTERM);
    worker.expect_line("Soft shutdown (2 asked to end)");
    assert_eq!(worker.wait(), 0);
    expect_given_back(&app, &worker, &["a", "b"]);
}

#[test]
fn remap_sigterm_makes_term_cold() {
    let app = TestDir::with(SLOW);
    app.must(&["call", "slow", "--task-id", "a"]);
    let mut command = app.command(&["worker", "-c", "1"]);
    command.env("REMAP_SIGTERM", "SIGQUIT").stdout(Stdio::null()).stderr(Stdio::piped());
    let mut guard = command.spawn().unwrap();
    let mut said = BufReader::new(guard.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(said.any(|line| line.contains(" ready.")));
    await_lines(&app, "started", 1);
    crate::harness::process::send(guard.id() as i32, Signal::SIGTERM);
    // It would wait for the task for ever if it were warm.
    let (sender, ended) = std::sync::mpsc::channel();
    let pid = guard.id() as i32;
    std::thread::spawn(move || sender.send(guard.wait().unwrap()));
    let Ok(status) = ended.recv_timeout(SOON) else {
        crate::harness::process::send(pid, Signal::SIGKILL);
        panic!("TERM was warm");
    };
    assert_eq!(status.code(), Some(0));
    assert!(said.any(|line| line.contains("Cold shutdown (1 stopped)")));
    assert_eq!((ready(&app), left(&app)), (vec![("a".to_string(), 0)], 1));
}

#[test]
fn usr1_says_what_runs_and_usr2_is_survived() {
    let app = TestDir::with(SLOW);
    let mut worker = busy(&app, &["a"]);
    worker.signal(Signal::SIGUSR2);
    worker.signal(Signal::SIGUSR1);
    worker.expect_line("running; 1 of 1 slots running, 0 taken ahead, 0 being settled");
    worker.expect_line("running slow[a] from celery, here for 0.");
    app.write("go", "");
    assert_eq!(app.must(&["result", "a", "--wait"]), "done");
    assert_eq!(worker.stop(Signal::SIGTERM), 0);
}

/// A signal that comes before the worker listens is kept for it.
#[test]
fn a_signal_at_once_after_the_start_is_not_lost() {
    let app = TestDir::with(SLOW);
    for _ in 0..5 {
        let mut worker = Worker::spawn(&app, &[]);
        worker.pid();
        assert_eq!(worker.stop(Signal::SIGTERM), 0, "{}", worker.log());
        worker.expect_no_survivors();
    }
}
