//! `qworker check`: all mistakes of the settings and of every task file, in one run.

use super::{app, printed, with_env};
use crate::harness::TestDir;
use nix::sys::signal::Signal;

#[test]
fn a_right_application() {
    let app = app();
    let name = app.path().display().to_string();
    printed(&app.qworker(&["check"]), &format!("{name}: no error in the settings and 5 tasks.\n"));
    let one = TestDir::with("one: {shell: ':'}\n");
    assert!(one.must(&["check"]).ends_with(" and 1 task."));
}

#[test]
fn all_mistakes_in_one_run_each_with_file_line_and_key() {
    let app = app();
    app.settings("worker_concurrency: many\n\ntask_serializer: pickle\nnonsense: 1\n");
    app.write(
        "tasks.d/a.yaml",
        "good:\n  shell: ':'\nwrong:\n  shell: ':'\n  time_limit: soon\n  nise: 3\nboth:\n  shell: ':'\n  exec: [ls]\nnone:\n  queue: x\n",
    );
    app.write(
        "tasks.d/media/b.yaml",
        "fine: {shell: ':'}\nthumb: {exec: [convert, \"{path}\"], params: [pat]}\n",
    );
    app.write("tasks.d/c.yaml", "here:\n  shell: ':'\n broken yaml\n");
    app.write("tasks.d/d.yaml", "lost:\n  wasm: nowhere.wasm\n");
    app.write("tasks.d/bad.wat", "(module (nonsense))");
    app.write("tasks.d/twice.yaml", "add: {shell: ':'}\n");
    let output = app.qworker(&["check"]);
    assert_eq!(output.code, 1);
    let line = |parts: &[&str]| {
        let found = output.stdout.lines().any(|line| parts.iter().all(|part| line.contains(part)));
        assert!(found, "no line with {parts:?} in\n{}", output.stdout);
    };
    line(&["qworker.yaml:1: worker_concurrency: found text \"many\", expected"]);
    line(&["qworker.yaml:3: task_serializer: "]);
    line(&["qworker.yaml:4: nonsense: unknown setting"]);
    line(&["tasks.d/a.yaml:5: wrong.time_limit: found text \"soon\", expected"]);
    line(&["tasks.d/a.yaml:6: wrong.nise: ", "did you mean nice?"]);
    line(&["tasks.d/a.yaml:", "both"]);
    line(&["tasks.d/a.yaml:", "none"]);
    line(&["tasks.d/media/b.yaml:2: ", "thumb", "path"]);
    line(&["tasks.d/c.yaml:3"]);
    line(&["tasks.d/d.yaml:", "lost", "nowhere.wasm"]);
    line(&["bad.wat"]);
    line(&["tasks.d/twice.yaml:1: add"]);
    let errors = output.stdout.lines().count();
    assert!(
        output.stderr.starts_with(&format!("{errors} errors found; "))
            && output.stderr.ends_with(" can be used.\n"),
        "{output:?}"
    );
}

/// A worker starts with what is whole; wrong settings stop it.
#[test]
fn tasks_of_other_files_stay() {
    let app = app();
    app.write("tasks.d/broken.yaml", "mine:\n  shel: ':'\nwhole: {shell: 'echo 1'}\n");
    let output = app.qworker(&["check"]);
    assert_eq!(
        (output.code, output.stderr.as_str()),
        (1, "2 errors found; 6 tasks can be used.\n")
    );
    let mut worker = app.worker(&[]);
    worker.expect_line("Warning: ");
    assert_eq!(app.must(&["call", "add", "-a", "[1, 2]", "--wait"]), "3");
    assert_eq!(app.must(&["call", "whole", "--wait"]), "1");
    assert_eq!(worker.stop(Signal::SIGTERM), 0);
}

#[test]
fn the_environment_and_the_options_are_checked_too() {
    let app = app();
    let output = with_env(&app, &[("QWORKER_TASK_TIME_LIMIT", "soon")], &["check"]);
    assert_eq!(output.code, 1);
    assert!(output.stdout.starts_with("environment: QWORKER_TASK_TIME_LIMIT: "), "{output:?}");
    let output = app.qworker(&["-b", "kafka://h/", "check"]);
    assert_eq!(output.code, 1);
    assert!(output.stdout.contains("--broker"), "{output:?}");
}
