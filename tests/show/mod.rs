//! What the worker promises, shown on real processes and modules, through the real worker
//! and the real command line.

mod abuse;
mod keys;
mod modules;
mod outcomes;
mod tour;

use crate::harness::{Output, SOON, TestDir, block_on};
use qworker::broker::Posting;
use qworker::client::send::{self, Sender};
use qworker::client::{Client, ClientOptions};
use qworker::link::url::BrokerUrl;
use qworker::wire::{BodyFormat, Draft, Payload};
use serde_json::Value;

/// How a task ended, as the result store has it.
#[derive(Debug)]
struct Ended {
    document: Value,
}

/// Calls a task with a JSON array of arguments and waits for its end.
fn call(app: &TestDir, task: &str, args: &str) -> Ended {
    call_with(app, task, &["--args", args])
}

/// Calls a task with these options and waits for its end.
fn call_with(app: &TestDir, task: &str, options: &[&str]) -> Ended {
    let words = [&["call", task, "--wait", "--timeout", "120", "--json"], options].concat();
    Ended::read(app.qworker(&words))
}

/// Calls a task that succeeds; gives its value.
fn value(app: &TestDir, task: &str, args: &str) -> Value {
    call(app, task, args).value()
}

/// Waits for the end of a task that was sent before.
fn wait(app: &TestDir, id: &str) -> Ended {
    Ended::read(app.qworker(&["result", id, "--wait", "--timeout", "120", "--json"]))
}

/// Sends a task and does not wait; gives its id.
fn post(app: &TestDir, task: &str, args: &str) -> String {
    app.must(&["call", task, "--args", args])
}

/// Sends a task as a program elsewhere would, that does not know `tasks.d` and has no
/// command line to be too long; gives its id.
fn post_unchecked(app: &TestDir, task: &str, args: &str) -> String {
    let draft = Draft {
        task: task.into(),
        queue: "celery".into(),
        args: serde_json::from_str(args).unwrap(),
        ..Draft::default()
    };
    block_on(async {
        let client = client(app);
        let now = qworker::clock::now();
        let sender = Sender::new("elsewhere", BodyFormat::default());
        let posting = sender.posting(client.broker.abilities(), draft, None, now).unwrap();
        let id = posting.task_id.clone();
        send::send(&client.broker.producer(), vec![posting], SOON).await.unwrap();
        id
    })
}

/// Sends anything.
fn post_raw(app: &TestDir, payload: &str) {
    let posting = Posting {
        queue: "celery".into(),
        task_id: "no-task".into(),
        priority: 0,
        eta: None,
        payload: Payload::from_envelope(payload),
    };
    block_on(async {
        send::send(&client(app).broker.producer(), vec![posting], SOON).await.unwrap()
    });
}

fn client(app: &TestDir) -> Client {
    Client::connect(&BrokerUrl::Sqlite(app.database()), None, &ClientOptions::default()).unwrap()
}

impl Ended {
    fn read(output: Output) -> Ended {
        let document: Value = serde_json::from_str(&output.stdout)
            .unwrap_or_else(|error| panic!("no document ({error}): {output:?}"));
        // The exit code says the same as the document.
        let code = if document["status"] == "SUCCESS" { 0 } else { 1 };
        assert_eq!(output.code, code, "{output:?}");
        Ended { document }
    }

    fn status(&self) -> &str {
        self.document["status"].as_str().unwrap()
    }

    /// Its value; panics if it did not succeed.
    fn value(&self) -> Value {
        assert_eq!(self.status(), "SUCCESS", "{}", self.document);
        self.document["result"].clone()
    }

    /// Module and name of the exception it failed with; panics if it did not fail.
    fn class(&self) -> String {
        assert_eq!(self.status(), "FAILURE", "{}", self.document);
        let part = |name: &str| self.document["result"][name].as_str().unwrap();
        format!("{}.{}", part("exc_module"), part("exc_type"))
    }

    /// The arguments of the exception.
    fn message(&self) -> &Value {
        &self.document["result"]["exc_message"]
    }

    /// The first argument of the exception, a text.
    fn text(&self) -> &str {
        self.message()[0].as_str().unwrap_or_else(|| panic!("no text: {}", self.document))
    }

    fn traceback(&self) -> &str {
        self.document["traceback"].as_str().unwrap_or_default()
    }

    fn id(&self) -> &str {
        self.document["task_id"].as_str().unwrap()
    }
}
