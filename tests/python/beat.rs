//! Our beat beside Celery's, and a Python worker that runs what ours sends.

use super::celery;
use super::worker::PythonWorker;
use crate::harness::python::python;
use crate::harness::{Output, Place, eventually, in_every_place};
use serde_json::{Value, json};
use std::process::Command;

in_every_place! {
    a_python_worker_runs_what_our_beat_sends
}

/// The same schedule in YAML and in Python: the same messages, as often, at the same times.
#[test]
fn our_beat_and_celerys_send_the_same() {
    crate::process::faults::trial("beside");
}

const TASK: &str = r#"
@app.task(name="py.occurrence", bind=True)
def occurrence(self, a, b):
    headers = [self.request.get(name) for name in ("celery_beat_task", "qworker_occurrence")]
    return [a + b, self.request.id, *headers]
"#;

fn a_python_worker_runs_what_our_beat_sends(place: Place) {
    let app = place.app("");
    app.write(
        "schedule.yaml",
        "entries:\n  sum: {task: py.occurrence, schedule: 0.5, args: [2], kwargs: {b: 3}, \
         options: {expires: 600}}\n",
    );
    let _worker = PythonWorker::start(&app, TASK);
    let mut beat = app.beat(&[]);
    beat.expect_line("Scheduler: Sending due task sum (py.occurrence)");
    assert_eq!(beat.stop(nix::sys::signal::Signal::SIGTERM), 0);
    let listed: Value = serde_json::from_str(&app.must(&["beat", "list", "--json"])).unwrap();
    let id = listed[0]["last_task_id"].as_str().unwrap();
    let seen = celery(&app, &format!("say(app.AsyncResult({id:?}).get(timeout=30))"));
    assert_eq!((&seen[0], &seen[1], &seen[2]), (&json!(5), &json!(id), &json!(true)));
    let due = seen[3].as_str().unwrap().strip_prefix("sum@").unwrap();
    let due: chrono::DateTime<chrono::Utc> = due.parse().unwrap();
    let ran: chrono::DateTime<chrono::Utc> =
        listed[0]["last_run_at"].as_str().unwrap().parse().unwrap();
    assert!((ran - due).num_seconds().abs() < 2, "due at {due}, sent at {ran}");
    // Celery's own command finds it too.
    let [broker, backend] = app.celery_addresses();
    let result = eventually("a result", || {
        let mut command = Command::new(python());
        command.args(["-m", "celery", "-b", &broker, "--result-backend", &backend, "result", id]);
        let output = Output::of(command.current_dir(app.path()));
        (output.code == 0 && output.stdout.contains(id)).then_some(output.stdout)
    });
    assert!(result.starts_with("[5, "), "{result}");
    let ours: Value = serde_json::from_str(&app.must(&["result", id, "--json"])).unwrap();
    assert_eq!(ours["result"], seen);
}
