//! `qworker purge`.

use super::refused;
use crate::harness::TestDir;

fn app_with_five() -> TestDir {
    let app = TestDir::with("add: {shell: 'true'}\nthumb: {shell: 'true', queue: media}\n");
    (0..3).for_each(|_| drop(app.must(&["call", "add"])));
    app.must(&["call", "thumb"]);
    app.must(&["call", "thumb", "--countdown", "60"]);
    app
}

#[test]
fn it_asks_before_it_acts() {
    let app = app_with_five();
    let output = app.qworker_with_input(&["purge"], "n\n");
    refused(&output, 1, &["celery, media", "There is no undo", "Aborted!"]);
    refused(&app.qworker(&["purge"]), 1, &["Aborted!"]);
    let output = app.qworker_with_input(&["purge"], "yes\n");
    assert_eq!(
        (output.code, output.stdout.as_str()),
        (0, "Purged 5 messages from 2 known task queues.\n")
    );
}

#[test]
fn it_takes_the_queues_that_it_is_given() {
    let app = app_with_five();
    assert_eq!(
        app.must(&["purge", "-f", "-Q", "media"]),
        "Purged 2 messages from 1 known task queue."
    );
    assert_eq!(app.must(&["purge", "-f", "-X", "celery"]), "No messages purged from 1 queue.");
    assert_eq!(app.must(&["purge", "--force"]), "Purged 3 messages from 2 known task queues.");
    refused(&app.qworker(&["purge", "-f", "-X", "celery,media"]), 2, &["no queue"]);
}
