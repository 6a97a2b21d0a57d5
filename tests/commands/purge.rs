//! `qworker purge`: asks, and takes nothing but a yes for one.

use super::{TASKS, printed, refused};
use crate::harness::{Place, TestDir, in_every_place};
use nix::sys::signal::Signal;

fn filled(place: Place) -> TestDir {
    let app = place.app(TASKS);
    app.must(&["call", "greet"]);
    app.must(&["call", "greet", "--countdown", "1000"]);
    app.must(&["call", "thumb"]);
    app
}

fn left(app: &TestDir) -> String {
    app.must(&["list", "queues"])
}

in_every_place! {
    it_asks
    all_queues_of_the_application_or_some_of_them
    what_runs_is_not_touched
}

fn it_asks(place: Place) {
    let app = filled(place);
    let before = left(&app);
    for answer in ["n\n", "\n", "", "nonsense\n", "yeah\n"] {
        let output = app.qworker_with_input(&["purge"], answer);
        refused(
            &output,
            1,
            &[
                "WARNING: This will remove all waiting tasks from: celery, media.",
                "There is no undo",
                "[y/N]: ",
                "Aborted!\n",
            ],
        );
        assert_eq!(left(&app), before);
    }
    for answer in ["y\n", "YES\n"] {
        let output = app.qworker_with_input(&["purge"], answer);
        assert_eq!(output.code, 0, "{output:?}");
        assert!(!output.stderr.contains("Aborted"));
    }
    printed(&app.qworker(&["purge", "-f"]), "No messages purged from 2 queues.\n");
}

fn all_queues_of_the_application_or_some_of_them(place: Place) {
    let app = filled(place);
    let output = app.qworker_with_input(&["purge", "-Q", "media"], "y\n");
    assert!(output.stderr.contains("from: media."), "{output:?}");
    assert_eq!(output.stdout, "Purged 1 message from 1 known task queue.\n");
    // What is scheduled waits too.
    printed(&app.qworker(&["purge", "-f"]), "Purged 2 messages from 2 known task queues.\n");
    let app = filled(place);
    printed(
        &app.qworker(&["purge", "-f", "-X", "celery"]),
        "Purged 1 message from 1 known task queue.\n",
    );
    assert!(left(&app).contains("celery  1      1          0"));
    refused(
        &app.qworker(&["purge", "-f", "-X", "celery,media"]),
        2,
        &["no queue is left to purge"],
    );
    printed(&app.qworker(&["purge", "-f", "-Q", "unknown"]), "No messages purged from 1 queue.\n");
}

fn what_runs_is_not_touched(place: Place) {
    let app = place.app(
        "slow: {shell: 'echo >>started; while [ ! -e go ]; do sleep 0.02; done; echo done'}\n",
    );
    let mut worker = app.worker(&["-c", "1"]);
    app.must(&["call", "slow", "--task-id", "a"]);
    crate::harness::eventually("its start", || (!app.lines("started").is_empty()).then_some(()));
    app.must(&["call", "slow"]);
    printed(&app.qworker(&["purge", "-f"]), "Purged 1 message from 1 known task queue.\n");
    app.write("go", "");
    assert_eq!(app.must(&["result", "a", "--wait"]), "done");
    assert_eq!(worker.stop(Signal::SIGTERM), 0);
    assert_eq!(app.lines("started").len(), 1);
}
