//! Real processes, real signals: what becomes of tasks when somebody ends, kills or
//! multiplies their worker.

mod database;
mod descendants;
mod detached;
pub mod faults;
mod fences;
mod host;
mod logs;
mod lost;
mod multi;
mod scale;
mod shared;
mod shutdown;
mod torture;
mod unstorable;

use crate::harness::{TestDir, block_on, eventually};
use qworker::client::send::{Sender, send};
use qworker::client::{Client, Options};
use qworker::clock;
use qworker::link::url::Url;
use qworker::wire::Draft;
use std::time::Duration;

/// A task that says that it runs, and ends when the file `go` is there.
const SLOW: &str = r#"
slow:
  shell: 'echo "$QWORKER_TASK_ID" >>started; while [ ! -e go ]; do sleep 0.02; done; echo done'
tiny:
  shell: ':'
"#;

/// Sends `count` tasks of this name in one step; gives their ids.
fn send_many(app: &TestDir, task: &str, count: usize) -> Vec<String> {
    block_on(async {
        let url = Url::parse("sqlite:///var/qworker.sqlite", app.path()).unwrap();
        let client = Client::connect(&url, None, &Options::default()).unwrap();
        let draft = || Draft { task: task.into(), queue: "celery".into(), ..Draft::default() };
        let sender = Sender::new("test");
        let postings: Vec<_> = (0..count)
            .map(|_| sender.posting(&client.outlet, draft(), None, clock::now()))
            .collect();
        let ids = postings.iter().map(|posting| posting.task_id.clone()).collect();
        send(&client.outlet, postings, Duration::from_secs(30)).await.unwrap();
        ids
    })
}

/// Waits until the file has so many lines.
fn await_lines(app: &TestDir, file: &str, count: usize) -> Vec<String> {
    eventually(&format!("{count} lines in {file}"), || {
        let lines = app.lines(file);
        (lines.len() >= count).then_some(lines)
    })
}

/// `(task id, can be taken, deliveries)` of every message, by its id.
fn messages(app: &TestDir) -> Vec<(String, bool, u32)> {
    let file = rusqlite::Connection::open(app.database()).unwrap();
    file.busy_timeout(Duration::from_secs(10)).unwrap();
    let mut query = file
        .prepare("SELECT task_id, visible, deliveries FROM kombu_message ORDER BY task_id")
        .unwrap();
    let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
    rows.map(Result::unwrap).collect()
}

/// Waits until no message is left. Hundreds of processes take their time on a busy machine; what
/// counts is that they go on.
fn await_empty(app: &TestDir) {
    let mut left = messages(app).len();
    while left > 0 {
        left = eventually("the end of one more message", || {
            let now = messages(app).len();
            (now < left).then_some(now)
        });
    }
}
