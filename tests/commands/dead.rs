//! `qworker dead`: what could not be run, kept whole.

use super::{TASKS, json, printed, refused};
use crate::harness::{Place, TestDir, block_on, eventually, in_every_place};
use nix::sys::signal::Signal;
use qworker::broker::Posting;
use qworker::client::{Client, ClientOptions};
use qworker::link::url::BrokerUrl;
use qworker::wire::Payload;

/// Puts `payload` into the queue as it is, as a faulty program might.
fn publish(app: &TestDir, id: &str, payload: &str) {
    block_on(async {
        let url = BrokerUrl::parse(&app.broker(), app.path()).unwrap();
        let client = Client::connect(&url, None, &ClientOptions::default()).unwrap();
        let (queue, payload) = ("celery".to_string(), Payload::from_envelope(payload));
        let posting = Posting { queue, task_id: id.into(), priority: 0, eta: None, payload };
        client.broker.producer().publish(vec![posting]).await.unwrap();
    });
}

/// An application with two dead letters, and nobody at work.
fn with_two(place: Place) -> TestDir {
    let app = place.app(TASKS);
    publish(&app, "x", "this is no message");
    publish(
        &app,
        "y",
        r#"{"body": "[[], {}]", "headers": {"task": "greet", "id": "y"}, "properties": {}}"#,
    );
    let mut worker = app.worker(&[]);
    eventually("two dead letters", || {
        (json(&app.must(&["dead", "list", "--json"])).as_array()?.len() == 2).then_some(())
    });
    worker.expect_line("malformed");
    assert_eq!(worker.stop(Signal::SIGTERM), 0);
    app
}

in_every_place! {
    list_and_show
    requeue_and_purge
}

fn list_and_show(place: Place) {
    let app = with_two(place);
    let table = app.must(&["dead", "list"]);
    let lines: Vec<Vec<&str>> = table
        .lines()
        .map(|line| line.split("  ").filter(|cell| !cell.is_empty()).map(str::trim).collect())
        .collect();
    assert_eq!(lines[0], ["No", "Died", "Reason", "Task", "Id", "Queue", "Detail"]);
    assert_eq!((lines[1][2], lines[2][2]), ("malformed", "malformed"));
    assert_eq!((lines[2][3], lines[2][4], lines[2][5]), ("greet", "y", "celery"));
    let all = json(&app.must(&["dead", "list", "--json"]));
    assert!(all[0]["detail"].as_str().unwrap().starts_with("envelope: "), "{all}");
    assert!(all[0].get("message").is_none());
    let number = all[0]["number"].to_string();
    let whole = json(&app.must(&["dead", "show", &number]));
    assert_eq!(whole["message"], "this is no message");
    let number = all[1]["number"].to_string();
    let whole = json(&app.must(&["dead", "show", &number]));
    assert_eq!(whole["message"]["headers"]["id"], "y", "JSON is shown as JSON");
    refused(
        &app.qworker(&["dead", "show", "99"]),
        1,
        &["no number 99", "Hint: `qworker dead list`"],
    );
    // Whoever asks for the result is told where it is.
    let result = app.qworker(&["result", "y"]);
    assert_eq!(result.code, 1, "{result:?}");
    assert!(result.stderr.starts_with("FAILURE: InvalidTaskError: "), "{result:?}");
}

fn requeue_and_purge(place: Place) {
    let empty = TestDir::new();
    for args in [&["show"][..], &["requeue", "1"], &["purge"]] {
        let output = empty.qworker(&[&["dead"], args, &["some-id"]].concat());
        refused(&output, 2, &["'some-id'", "expected a number of the list", "dead list"]);
    }
    let app = with_two(place);
    let all = json(&app.must(&["dead", "list", "--json"]));
    let (first, second) = (all[0]["number"].to_string(), all[1]["number"].to_string());
    refused(&app.qworker(&["dead", "requeue"]), 2, &["<NUMBERS>..."]);
    refused(&app.qworker(&["dead", "purge", "--all", &first]), 2, &["cannot be used with"]);
    refused(&app.qworker(&["dead", "show", "x"]), 2, &["'x'"]);
    printed(&app.qworker(&["dead", "requeue", &second]), "Requeued 1 message.\n");
    assert!(app.must(&["list", "queues"]).contains("celery  1      0          0"));
    let result = app.qworker(&["result", "y"]);
    let said = format!("{result:?}");
    assert!(said.contains("waits in queue"), "its failure is not the last word: {said}");
    let output = app.qworker(&["dead", "purge", &first, "99"]);
    assert_eq!((output.code, output.stdout.as_str()), (1, "Removed 1 message.\n"));
    assert!(output.stderr.contains("the dead-letter list has no number 99"), "{output:?}");
    printed(&app.qworker(&["dead", "list", "--json"]), "[]\n");
    // It is no better than it was, and comes back under a new number.
    let mut worker = app.worker(&[]);
    eventually("its return", || {
        (json(&app.must(&["dead", "list", "--json"])).as_array()?.len() == 1).then_some(())
    });
    assert_eq!(worker.stop(Signal::SIGTERM), 0);
    printed(&app.qworker(&["dead", "purge", "--all"]), "Removed 1 message.\n");
    printed(&app.qworker(&["dead", "requeue", "--all"]), "Requeued 0 messages.\n");
}
