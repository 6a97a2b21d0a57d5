//! `qworker check`.

use crate::harness::TestDir;

#[test]
fn all_is_right() {
    let app = TestDir::with("add: {shell: 'true'}\n");
    let said = app.must(&["check"]);
    assert!(said.ends_with(": settings and 1 tasks are right."), "{said}");
}

#[test]
fn all_errors_in_one_run_with_file_line_and_key() {
    let app = TestDir::with("good: {shell: 'true'}\nbad:\n  shell: 'true'\n  time_limitt: 3\n");
    app.settings(
        "task_acks_late: maybe\nworker_poool: x\ntask_serializer: pickle\nbroker_url: kafka://x\n",
    );
    app.write("tasks.d/other.yaml", "a: [1]\nb: {exec: []}\n");
    app.write("tasks.d/torn.yaml", "a: {shell: 'x'\n");
    app.write("tasks.d/no.wat", "(module (func (export \"f\") unreachable_))");
    let output = app.qworker(&["check"]);
    assert_eq!(output.code, 1, "{output:?}");
    for part in [
        "qworker.yaml:1: task_acks_late: ",
        "expected true or false",
        "qworker.yaml:2: worker_poool: ",
        "qworker.yaml:3: task_serializer: ",
        "kafka://x",
        "tasks.yaml:4: time_limitt: ",
        "did you mean time_limit?",
        "other.yaml:1: ",
        "other.yaml:2: ",
        "torn.yaml",
        "no.wat",
    ] {
        assert!(output.stdout.contains(part), "{part:?} is not in\n{}", output.stdout);
    }
    assert!(output.stderr.contains("errors found; "), "{output:?}");
}
