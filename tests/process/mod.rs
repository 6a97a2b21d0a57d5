//! Real processes, real signals: what becomes of tasks when somebody ends, kills or
//! multiplies their worker.

mod clients;
mod database;
mod descendants;
mod detached;
pub mod faults;
mod host;
mod logs;
mod lost;
mod multi;
mod resource_limits;
mod scale;
mod shared;
mod shutdown;
mod task_socket;
mod torture;
mod unstorable;

use crate::harness::{SOON, TestDir, block_on, eventually};
use qworker::broker::{QueueInfo, Want, WorkerIdentity};
use qworker::client::send::{Sender, send};
use qworker::client::{Client, ClientOptions};
use qworker::clock;
use qworker::link::url::BrokerUrl;
use qworker::wire::{BodyFormat, Draft};
use std::time::Duration;

/// A task that says that it runs, and ends when the file `go` is there.
const SLOW: &str = r#"
slow:
  shell: 'echo "$QWORKER_TASK_ID" >>started; while [ ! -e go ]; do sleep 0.02; done; echo done'
tiny:
  shell: ':'
"#;

fn client(app: &TestDir) -> Client {
    let url = BrokerUrl::parse(&app.broker(), app.path()).unwrap();
    Client::connect(&url, None, &ClientOptions::default()).unwrap()
}

/// Sends `count` tasks of this name in one step; gives their ids.
fn send_many(app: &TestDir, task: &str, count: usize) -> Vec<String> {
    block_on(async {
        let client = client(app);
        let draft = || Draft { task: task.into(), queue: "celery".into(), ..Draft::default() };
        let sender = Sender::new("test", BodyFormat::default());
        let postings: Vec<_> = (0..count)
            .map(|_| {
                sender.posting(client.broker.abilities(), draft(), None, clock::now()).unwrap()
            })
            .collect();
        let ids = postings.iter().map(|posting| posting.task_id.clone()).collect();
        send(&client.broker.producer(), postings, Duration::from_secs(30)).await.unwrap();
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

/// How many messages wait, and how many workers hold.
fn counts(app: &TestDir) -> (usize, usize) {
    let queues = block_on(async { client(app).broker.admin().queues().await.unwrap() });
    let sum = |of: &dyn Fn(&QueueInfo) -> u32| queues.iter().map(of).sum::<u32>() as usize;
    (sum(&|queue| queue.ready + queue.scheduled), sum(&|queue| queue.held))
}

/// How many messages there are.
fn left(app: &TestDir) -> usize {
    let (waiting, held) = counts(app);
    waiting + held
}

/// `(task id, losses)` of every message that can be taken, by its id: they are taken and given
/// back.
fn ready(app: &TestDir) -> Vec<(String, u32)> {
    let mut ready: Vec<(String, u32)> = block_on(async {
        let who = WorkerIdentity {
            hostname: "reader@test",
            queues: &["celery".into()],
            visibility_timeout: SOON,
            hold: Box::new(|_| Ok(())),
        };
        let (mut consumer, _settler) = client(app).broker.consume(who).await.unwrap();
        let taken = consumer.take(Want { slots: 10_000, ahead: 0 }).await.unwrap();
        consumer.close().await.unwrap();
        taken.into_iter().map(|one| (one.payload.id().unwrap(), one.deliveries)).collect()
    });
    ready.sort();
    ready
}

/// How often messages were lost, those too that are put by and that no worker can take.
fn losses(app: &TestDir) -> u32 {
    let file = rusqlite::Connection::open(app.database()).unwrap();
    file.busy_timeout(SOON).unwrap();
    let sql = "SELECT ifnull(sum(deliveries), 0) FROM kombu_message";
    file.query_row(sql, [], |row| row.get(0)).unwrap()
}

/// Waits until no message is left. Hundreds of processes take their time on a busy machine; what
/// counts is that they go on.
fn await_empty(app: &TestDir) {
    let mut before = left(app);
    while before > 0 {
        before = eventually("the end of one more message", || {
            let now = left(app);
            (now < before).then_some(now)
        });
    }
}
