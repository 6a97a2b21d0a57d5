//! What is true of the SQLite broker and store alone: files of others, and accidents.

use super::broker::{MANY, QUEUE, ack, ids, posting, settle, take_until};
use super::sites::{Site, Sqlite, WOKEN};
use crate::harness::block_on;
use qworker::backend;
use qworker::broker::{Death, Settle, Whereabouts};
use qworker::link::sqlite::Db;
use qworker::os::rundir;
use qworker::wire::ResultFormat;
use rusqlite::Connection;
use serde_json::json;
use std::path::Path;

#[test]
fn a_stray_blob_is_a_message_like_any_other_to_its_end_in_the_dead_list() {
    block_on(async {
        let site = Sqlite::create();
        let (mut consumer, worker) = site.worker("one@test", &[QUEUE]).await;
        let other = Connection::open(site.address()).unwrap();
        let sql =
            "INSERT INTO kombu_message (payload, queue_id) SELECT x'00ff7b', id FROM kombu_queue";
        other.execute(sql, []).unwrap();
        let taken = take_until(&mut consumer, MANY, 1).await;
        assert_eq!(taken[0].payload.to_envelope(), "\u{0}\u{fffd}{");
        let death = Death {
            reason: "malformed",
            detail: "x".into(),
            task_id: None,
            task: None,
            counts: true,
        };
        settle(&worker, &taken[0], Settle::Dead(death)).await;
        assert_eq!(
            worker.dead_letters().list().await.unwrap()[0].payload.to_envelope(),
            "\u{0}\u{fffd}{"
        );
        assert_eq!(worker.dead_letters().requeue(None).await.unwrap(), 1);
        assert_eq!(take_until(&mut consumer, MANY, 1).await.len(), 1);
    });
}

#[test]
fn a_python_row_is_served_at_once_although_nobody_rings() {
    block_on(async {
        let site = Sqlite::create();
        let (mut consumer, worker) = site.worker("one@test", &[QUEUE]).await;
        let other = Connection::open(site.address()).unwrap();
        let mut delays = Vec::new();
        for n in 0..15 {
            while !consumer.take(MANY).await.unwrap().is_empty() {}
            let insert = "INSERT INTO kombu_message (visible, payload, version, queue_id)
                          SELECT 1, ?, 1, id FROM kombu_queue";
            other.execute(insert, [n.to_string()]).unwrap();
            let begin = std::time::Instant::now();
            let taken = take_until(&mut consumer, MANY, 1).await;
            delays.push(begin.elapsed());
            ack(&worker, &taken).await;
        }
        delays.sort();
        assert!(delays[7] < WOKEN, "delays: {delays:?}");
    });
}

#[test]
fn what_a_python_worker_took_is_not_taken_again() {
    block_on(async {
        let site = Sqlite::create();
        let (mut consumer, worker) = site.worker("one@test", &[QUEUE]).await;
        worker.producer().publish(vec![posting("a"), posting("b")]).await.unwrap();
        let other = Connection::open(site.address()).unwrap();
        let take = "UPDATE kombu_message SET visible = 0, version = 2 WHERE task_id = 'a'";
        assert_eq!(other.execute(take, []).unwrap(), 1);
        assert_eq!(ids(&consumer.take(MANY).await.unwrap()), ["b"]);
        assert_eq!(
            worker.admin().queues().await.unwrap()[0].held,
            1,
            "only b: a is no one's any more"
        );
    });
}

#[test]
fn a_task_that_python_sent_is_found_by_its_id() {
    block_on(async {
        let site = Sqlite::create();
        let (_consumer, worker) = site.worker("one@test", &[QUEUE]).await;
        let other = Connection::open(site.address()).unwrap();
        let sql = "INSERT INTO kombu_message (payload, queue_id)
                   SELECT '{\"headers\": {\"id\": \"the-id\"}}', id FROM kombu_queue";
        other.execute(sql, []).unwrap();
        let place = worker.admin().find("the-id".into()).await.unwrap();
        assert_eq!(place, Whereabouts::Waiting { queue: QUEUE.into(), eta: None });
        assert_eq!(worker.admin().find("another".into()).await.unwrap(), Whereabouts::Absent);
    });
}

#[test]
fn bells_that_were_removed_are_hung_again() {
    block_on(async {
        let site = Sqlite::create();
        let (mut consumer, worker) = site.worker("one@test", &[QUEUE]).await;
        let run = rundir::path(Path::new(&site.address()));
        worker.producer().publish(vec![posting("first")]).await.unwrap();
        assert_eq!(ids(&take_until(&mut consumer, MANY, 1).await), ["first"]);
        std::fs::remove_file(run.join("tasks")).unwrap();
        worker.producer().publish(vec![posting("a")]).await.unwrap();
        assert_eq!(ids(&take_until(&mut consumer, MANY, 1).await), ["a"]);
        assert!(run.join("tasks").exists());
    });
}

#[test]
fn many_processes_may_create_the_file_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("deep/er/q.sqlite");
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                Db::open(&file, |c| {
                    qworker::broker::sqlite::SCHEMA.create(c)?;
                    backend::sqlite::SCHEMA.create(c)
                })
                .unwrap();
            });
        }
    });
}

#[test]
fn a_file_that_is_no_database_is_named_as_such() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("q.sqlite");
    std::fs::write(&file, "this is a text of more than a hundred bytes, which SQLite would need to have at the beginning of one").unwrap();
    let error = Db::open(&file, |c| qworker::broker::sqlite::SCHEMA.create(c)).err().unwrap();
    assert!(error.to_string().contains("not a database"), "{error}");
}

#[test]
fn a_job_that_fails_spoils_only_itself() {
    block_on(async {
        let site = Sqlite::create();
        let client = site.client();
        let qworker::broker::Broker::Sqlite(inner) = &client else { panic!() };
        let db = inner.db().clone();
        let fails = async {
            db.run(qworker::link::sqlite::Durability::Process, |c| {
                c.execute("INSERT INTO kombu_queue (name) VALUES ('half')", [])?;
                Ok(c.execute("INSERT INTO nowhere VALUES (1)", [])?)
            })
            .await
        };
        let producer = client.producer();
        // All in one group: they are queued before the thread gets to them.
        let (one, failed, two) = tokio::join!(
            producer.publish(vec![posting("a")]),
            fails,
            producer.publish(vec![posting("b")])
        );
        one.unwrap();
        two.unwrap();
        assert!(failed.unwrap_err().to_string().contains("nowhere"));
        let names: Vec<String> =
            client.admin().queues().await.unwrap().into_iter().map(|queue| queue.name).collect();
        assert_eq!(names, [QUEUE], "what the failed job had done is undone");
        assert_eq!(client.admin().queues().await.unwrap()[0].ready, 2);
    });
}

#[test]
fn a_pickle_of_an_older_celery_is_said_to_be_one() {
    block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let db = Db::open(&folder.path().join("r.sqlite"), |c| {
            backend::sqlite::SCHEMA.create(c)?;
            c.execute_batch("INSERT INTO celery_taskmeta (task_id, status, result) VALUES ('a', 'SUCCESS', x'80044b03')")?;
            Ok(())
        })
        .unwrap();
        let store =
            backend::Store::Sqlite(backend::sqlite::Store::open(&db, &ResultFormat::default()));
        let meta = store.get("a").await.unwrap().unwrap();
        assert_eq!(meta.value()["exc_type"], json!("DecodeError"));
        assert!(meta.date_done.is_none());
    });
}
