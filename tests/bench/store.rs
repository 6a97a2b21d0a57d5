//! Messages in, through the client; and out again, by the barest loop.

use qworker::broker::Posting;
use qworker::client::send::Sender;
use qworker::client::{Client, ClientOptions};
use qworker::clock;
use qworker::link::url::BrokerUrl;
use qworker::wire::{BodyFormat, Draft};
use rusqlite::{Connection, params};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

/// Messages of one transaction when many are sent.
const BATCH: usize = 1000;

/// Messages that the bare loop takes at once.
const TAKE: i64 = 100;

/// Whoever sends: the product's client.
struct Outbox {
    runtime: tokio::runtime::Runtime,
    client: Client,
    sender: Sender,
}

impl Outbox {
    fn open(url: &str) -> Outbox {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let url = BrokerUrl::parse(url, Path::new("/")).unwrap();
        let client = {
            let _entered = runtime.enter();
            Client::connect(&url, None, &ClientOptions::default()).unwrap()
        };
        Outbox { runtime, client, sender: Sender::new("bench", BodyFormat::default()) }
    }

    fn posting(&self, task: &str, queue: &str) -> Posting {
        let draft = Draft { task: task.into(), queue: queue.into(), ..Draft::default() };
        self.sender.posting(self.client.broker.abilities(), draft, None, clock::now()).unwrap()
    }

    fn publish(&self, postings: Vec<Posting>) {
        self.runtime.block_on(self.client.broker.producer().publish(postings)).unwrap();
    }
}

/// Enqueues `count` messages as fast as the broker accepts them; prints their ids.
pub fn send(url: &str, count: usize, task: &str, queue: &str) {
    let outbox = Outbox::open(url);
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let mut left = count;
    while left > 0 {
        let batch: Vec<_> = (0..left.min(BATCH)).map(|_| outbox.posting(task, queue)).collect();
        left -= batch.len();
        batch.iter().for_each(|posting| writeln!(out, "{}", posting.task_id).unwrap());
        outbox.publish(batch);
    }
}

/// Enqueues `count` messages, `batch` of them at a time, each batch accepted before the
/// next; messages per second, from when the first was accepted.
pub fn enqueue(url: &str, count: usize, task: &str, batch: usize) -> f64 {
    let outbox = Outbox::open(url);
    outbox.publish(vec![outbox.posting(task, "celery")]);
    let (start, mut left) = (Instant::now(), count - 1);
    while left > 0 {
        let batch: Vec<_> = (0..left.min(batch)).map(|_| outbox.posting(task, "celery")).collect();
        left -= batch.len();
        outbox.publish(batch);
    }
    (count - 1) as f64 / start.elapsed().as_secs_f64()
}

/// Enqueues `count` messages, one every `pause`, each accepted before the next. The time
/// printed is taken before the client begins, so its commit is part of what is measured.
pub fn pace(url: &str, count: usize, pause: Duration, task: &str) {
    let outbox = Outbox::open(url);
    let start = Instant::now();
    for n in 0..count {
        std::thread::sleep((start + pause * n as u32).saturating_duration_since(Instant::now()));
        let asked = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let posting = outbox.posting(task, "celery");
        println!("{} {}", posting.task_id, asked.as_nanos());
        outbox.publish(vec![posting]);
    }
}

/// Takes, stores a result if they are kept, and deletes, in batches: what a worker has to
/// write, and nothing else. The taking is a transaction of its own, since work comes after it.
pub fn drain(database: &Path, kept: bool) -> f64 {
    let c = Connection::open(database).unwrap();
    c.pragma_update(None, "journal_mode", "WAL").unwrap();
    c.pragma_update(None, "synchronous", "NORMAL").unwrap();
    let mut take = c
        .prepare(
            "UPDATE kombu_message SET visible = 0, owner = 1 WHERE id IN
             (SELECT id FROM kombu_message WHERE queue_id = 1 AND visible = 1 AND eta IS NULL AND task IS NULL
              ORDER BY priority DESC, id LIMIT ?) RETURNING id, task_id, payload",
        )
        .unwrap();
    let mut store = c
        .prepare(
            "INSERT INTO celery_taskmeta (task_id, status, result, date_done)
             VALUES (?, 'SUCCESS', ?, '2026-01-01 00:00:00.000000')",
        )
        .unwrap();
    let mut delete = c.prepare("DELETE FROM kombu_message WHERE id = ?").unwrap();
    let (start, mut drained) = (Instant::now(), 0);
    loop {
        c.execute_batch("BEGIN IMMEDIATE").unwrap();
        let row = |row: &rusqlite::Row| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
        let taken: Vec<(i64, String, String)> =
            take.query_map([TAKE], row).unwrap().collect::<Result<_, _>>().unwrap();
        c.execute_batch("COMMIT").unwrap();
        if taken.is_empty() {
            return f64::from(drained) / start.elapsed().as_secs_f64();
        }
        c.execute_batch("BEGIN IMMEDIATE").unwrap();
        for (id, task_id, _) in &taken {
            if kept {
                store.execute(params![task_id, b"null"]).unwrap();
            }
            delete.execute([id]).unwrap();
            drained += 1;
        }
        c.execute_batch("COMMIT").unwrap();
    }
}
