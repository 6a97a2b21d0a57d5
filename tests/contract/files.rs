//! The file of the embedded broker under other names, gone, replaced, and with strange rows.

use super::broker::{MANY, QUEUE, ack, ids, posting, take_until};
use super::sites::{Site, Sqlite};
use crate::harness::{block_on, eventually};
use qworker::backend;
use qworker::broker::{Broker, Consumer, WorkerIdentity, sqlite};
use qworker::link::sqlite::{Access, Db, log_of};
use qworker::os::rundir;
use qworker::wire::{Payload, ResultFormat};
use rusqlite::Connection;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

fn open(path: &Path, access: Access) -> Result<Db, String> {
    let opened = Db::open_as(path, access, move |c| {
        let all = [&sqlite::SCHEMA, &backend::sqlite::SCHEMA];
        all.iter().try_for_each(|schema| match access {
            Access::Look => schema.imagine(c),
            _ => schema.create(c),
        })
    });
    opened.map_err(|error| error.to_string())
}

async fn worker_on(path: &Path, name: &str) -> (Consumer, Broker) {
    let client = client(path);
    let who = WorkerIdentity {
        hostname: name,
        queues: &[QUEUE.to_string()],
        visibility_timeout: Duration::ZERO,
        hold: Box::new(|_| Ok(())),
    };
    let (consumer, _settler) = client.consume(who).await.unwrap();
    (consumer, client)
}

fn client(path: &Path) -> Broker {
    broker(&open(path, Access::Create).unwrap())
}

fn broker(db: &Db) -> Broker {
    Broker::Sqlite(sqlite::Broker::new(db))
}

fn names(folder: &Path) -> Vec<String> {
    let mut all: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    all.sort();
    all
}

async fn names_of_nodes(worker: &Broker) -> Vec<String> {
    let nodes = worker.admin().nodes().await.unwrap();
    nodes.into_iter().map(|node| node.hostname).collect()
}

#[test]
fn whatever_path_leads_to_a_file_its_workers_see_each_other() {
    block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().join(OsStr::from_bytes(b"caf\xe9")).join("var");
        fs::create_dir_all(&real).unwrap();
        symlink(&real, dir.path().join("folder")).unwrap();
        symlink("folder/q.sqlite", dir.path().join("relative")).unwrap();
        symlink(dir.path().join("relative"), dir.path().join("chain")).unwrap();
        // Through a link to nothing, the first of them.
        let (mut one, _) = worker_on(&dir.path().join("chain"), "one@test").await;
        client(&dir.path().join("relative")).producer().publish(vec![posting("a")]).await.unwrap();
        assert_eq!(ids(&take_until(&mut one, MANY, 1).await), ["a"]);
        let (mut two, worker) = worker_on(&real.join("q.sqlite"), "two@test").await;
        let (mut three, _) = worker_on(&dir.path().join("folder/q.sqlite"), "three@test").await;
        assert!(two.take(MANY).await.unwrap().is_empty());
        assert!(three.take(MANY).await.unwrap().is_empty());
        assert_eq!(names_of_nodes(&worker).await, ["one@test", "three@test", "two@test"]);
        assert_eq!(names(&real).first().map(String::as_str), Some("q.sqlite"));
        assert!(!names(dir.path()).iter().any(|name| name.contains('-') || name.contains(".run")));
        // Its death is seen through each of them.
        drop(one);
        assert_eq!(ids(&take_until(&mut three, MANY, 1).await), ["a"]);
    });
}

#[test]
fn a_file_with_two_names_or_that_is_none_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    drop(open(&at("q"), Access::Create).unwrap());
    fs::hard_link(at("q"), at("other")).unwrap();
    for access in [Access::Create, Access::Change, Access::Look] {
        let error = open(&at("other"), access).err().unwrap();
        assert!(error.contains("/other: the file has 2 names (hard links)"), "{error}");
    }
    fs::create_dir(at("folder")).unwrap();
    nix::unistd::mkfifo(&at("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    symlink("loop", at("loop")).unwrap();
    symlink("nowhere/q", at("dangling")).unwrap();
    fs::write(at("text"), "").unwrap();
    for (name, part) in [
        ("folder", "/folder: expected a file"),
        ("pipe", "/pipe: expected a file"),
        ("loop", "/loop: Too many levels"),
        ("dangling", "/nowhere: No such file"),
        ("text/q", "/text: "),
    ] {
        let error = open(&at(name), Access::Create).err().unwrap();
        assert!(error.contains(part), "{name}: {error}");
    }
    assert_eq!(names(dir.path()).len(), 7, "nothing was made");
}

#[test]
fn names_that_mean_something_elsewhere_are_names_here() {
    block_on(async {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a?mode=memory", "b#c", "d%20e", "f g", "file:h", "i\nj"] {
            let path = dir.path().join(name);
            client(&path).producer().publish(vec![posting("a")]).await.unwrap();
            assert!(path.exists(), "{name}");
            let look = broker(&open(&path, Access::Look).unwrap());
            assert_eq!(look.admin().queues().await.unwrap()[0].ready, 1, "{name}");
        }
    });
}

#[test]
fn who_only_looks_leaves_all_as_it_is() {
    block_on(async {
        let dir = tempfile::tempdir().unwrap();
        for access in [Access::Look, Access::Change] {
            let path = dir.path().join("var/q.sqlite");
            let client = broker(&open(&path, access).unwrap());
            assert!(client.admin().queues().await.unwrap().is_empty());
            assert!(client.admin().nodes().await.unwrap().is_empty());
            assert!(client.dead_letters().list().await.unwrap().is_empty());
            assert_eq!(client.admin().purge(vec![QUEUE.into()]).await.unwrap(), 0);
            assert_eq!(client.dead_letters().requeue(None).await.unwrap(), 0);
            assert!(names(dir.path()).is_empty());
        }
        // A Python program has made it, and nobody of ours was there.
        let path = dir.path().join("q.sqlite");
        let python = Connection::open(&path).unwrap();
        python
            .execute_batch(
                "CREATE TABLE kombu_queue (id INTEGER NOT NULL PRIMARY KEY, name VARCHAR(200));
                 CREATE TABLE kombu_message (id INTEGER NOT NULL PRIMARY KEY, visible BOOLEAN,
                     timestamp DATETIME, payload TEXT NOT NULL, version SMALLINT NOT NULL,
                     queue_id INTEGER);
                 INSERT INTO kombu_queue (name) VALUES ('celery');
                 INSERT INTO kombu_message (visible, payload, version, queue_id)
                     VALUES (1, '{\"id\": \"x\"}', 1, 1);",
            )
            .unwrap();
        drop(python);
        let before = fs::read(&path).unwrap();
        let db = open(&path, Access::Look).unwrap();
        let looks = broker(&db);
        assert_eq!(looks.admin().queues().await.unwrap()[0].ready, 1);
        assert!(
            looks.admin().find("x".into()).await.unwrap() != qworker::broker::Whereabouts::Absent
        );
        let store =
            backend::Store::Sqlite(backend::sqlite::Store::open(&db, &ResultFormat::default()));
        assert!(store.get("x").await.unwrap().is_none());
        drop((looks, store, db));
        assert_eq!(fs::read(&path).unwrap(), before);
        assert_eq!(names(dir.path()), ["q.sqlite"]);
        // One that sends completes it.
        client(&path).producer().publish(vec![posting("a")]).await.unwrap();
        assert_eq!(client(&path).admin().queues().await.unwrap()[0].ready, 2);
    });
}

#[test]
fn leases_that_were_removed_are_made_anew_and_nobody_is_buried() {
    block_on(async {
        let site = Sqlite::create();
        let path = PathBuf::from(site.address());
        let (mut one, _) = site.worker("one@test", &[QUEUE]).await;
        let (mut two, worker) = site.worker("two@test", &[QUEUE]).await;
        worker.producer().publish(vec![posting("a")]).await.unwrap();
        assert_eq!(ids(&take_until(&mut one, MANY, 1).await), ["a"]);
        let run = rundir::path(&path);
        assert_eq!(fs::metadata(&run).unwrap().permissions().mode() & 0o777, 0o700);
        fs::remove_dir_all(&run).unwrap();
        // More than one look at the others, each of them judged without its lease at first.
        let until = std::time::Instant::now() + std::time::Duration::from_millis(2500);
        while std::time::Instant::now() < until {
            assert!(two.take(MANY).await.unwrap().is_empty());
            two.wait().await;
        }
        assert_eq!(names_of_nodes(&worker).await, ["one@test", "two@test"]);
        assert!(one.take(MANY).await.unwrap().is_empty());
        let leases = || names(&run).iter().filter(|name| name.ends_with(".lease")).count();
        eventually("two leases", || (leases() == 2).then_some(()));
        drop(one);
        assert_eq!(ids(&take_until(&mut two, MANY, 1).await), ["a"]);
    });
}

#[test]
fn a_worker_without_a_lease_is_known_by_its_processes() {
    block_on(async {
        let site = Sqlite::create();
        let path = PathBuf::from(site.address());
        drop(site.client());
        // Somebody has put a file where the folder has to be.
        fs::write(rundir::path(&path), "").unwrap();
        let (mut one, _) = site.worker("one@test", &[QUEUE]).await;
        let (mut two, worker) = site.worker("two@test", &[QUEUE]).await;
        worker.producer().publish(vec![posting("a")]).await.unwrap();
        assert_eq!(ids(&take_until(&mut one, MANY, 1).await), ["a"]);
        assert!(two.take(MANY).await.unwrap().is_empty());
        let sql = Connection::open(&path).unwrap();
        let change = |kin: &str| {
            sql.execute("UPDATE qworker_worker SET kin = ? WHERE hostname = 'one@test'", [kin])
                .unwrap();
        };
        let kin: String =
            sql.query_row("SELECT kin FROM qworker_worker LIMIT 1", [], |row| row.get(0)).unwrap();
        let words: Vec<&str> = kin.split(' ').collect();
        // Of another container: not seen, and so not dead.
        change(&format!("{} pid:[1],time:[1] 1:1 2:2", words[0]));
        let until = std::time::Instant::now() + std::time::Duration::from_millis(1500);
        while std::time::Instant::now() < until {
            assert!(two.take(MANY).await.unwrap().is_empty());
            two.wait().await;
        }
        // Another process has the number by now.
        change(&format!("{} {} 1:123456789 1:123456789", words[0], words[1]));
        assert_eq!(ids(&take_until(&mut two, MANY, 1).await), ["a"]);
    });
}

#[test]
fn a_file_that_was_removed_is_waited_for_and_another_one_is_opened() {
    block_on(async {
        let site = Sqlite::create();
        let path = PathBuf::from(site.address());
        let (mut consumer, worker) = site.worker("one@test", &["other", QUEUE]).await;
        worker.producer().publish(vec![posting("old"), posting("kept")]).await.unwrap();
        let old = take_until(&mut consumer, MANY, 2).await;
        // A copy as an operator makes one, while two messages are held.
        Connection::open(&path).unwrap().execute_batch("PRAGMA wal_checkpoint(FULL)").unwrap();
        fs::copy(&path, path.with_extension("copy")).unwrap();
        fs::remove_file(&path).unwrap();
        let error = consumer.take(MANY).await.unwrap_err().to_string();
        assert!(error.contains(&site.address()) && error.contains("was removed"), "{error}");
        client(&path).producer().publish(vec![posting("new")]).await.unwrap();
        let new = take_until(&mut consumer, MANY, 1).await;
        assert_eq!(ids(&new), ["new"]);
        // What was held in the old one has the same numbers here.
        ack(&worker, &old).await;
        assert_eq!(
            worker.admin().queues().await.unwrap().iter().map(|queue| queue.held).sum::<u32>(),
            0
        );
        let _ = fs::remove_file(log_of(&path));
        fs::rename(path.with_extension("copy"), &path).unwrap();
        let (mut two, worker) = site.worker("two@test", &[QUEUE]).await;
        assert!(two.take(MANY).await.unwrap().is_empty(), "still held by a worker that lives");
        assert!(consumer.take(MANY).await.unwrap().is_empty());
        assert_eq!(names_of_nodes(&worker).await, ["one@test", "two@test"]);
        drop(consumer);
        assert_eq!(take_until(&mut two, MANY, 2).await.len(), 2);
    });
}

/// A number of rows, each with one strange value, and what is said of it.
const ODD: [(&str, &str, &str); 15] = [
    ("visible", "7", "visible is \"7\", expected 0 or 1"),
    ("visible", "NULL", "visible is NULL"),
    ("eta", "'soon'", "eta is \"soon\", expected seconds"),
    ("eta", "9e999", "eta is \"inf\""),
    ("eta", "1e300", "eta is "),
    ("eta", "x'00'", "eta is "),
    ("priority", "'high'", "priority is \"high\""),
    ("priority", "-9223372036854775808", "priority is "),
    ("deliveries", "-1", "deliveries is \"-1\", expected a count"),
    ("deliveries", "4294967296", "deliveries is "),
    ("suspect", "'x'", "suspect is "),
    ("task", "x'41'", "task is \"A\", expected a name"),
    ("queue_id", "'celery'", "queue_id is "),
    ("owner", "'zz', visible = 0", "owner is \"zz\", expected the number of a worker"),
    ("owner", "1.5", "owner is \"1.5\""),
];

#[test]
fn a_strange_row_is_set_aside_and_holds_up_no_other() {
    block_on(async {
        let site = Sqlite::create();
        let (mut consumer, worker) = site.worker("one@test", &[QUEUE]).await;
        let sql = Connection::open(site.address()).unwrap();
        sql.execute_batch("PRAGMA foreign_keys = OFF").unwrap();
        for (n, (column, value, _)) in ODD.iter().enumerate() {
            sql.execute_batch(&format!(
                "INSERT INTO kombu_message (payload, queue_id, task_id)
                     SELECT '{{}}', id, 'odd{n}' FROM kombu_queue;
                 UPDATE kombu_message SET {column} = {value} WHERE id = last_insert_rowid();"
            ))
            .unwrap();
        }
        worker.producer().publish(vec![posting("a"), posting("b")]).await.unwrap();
        let taken = take_until(&mut consumer, MANY, 2).await;
        assert_eq!(ids(&taken), ["a", "b"]);
        let dead = worker.dead_letters().list().await.unwrap();
        assert_eq!(dead.len(), ODD.len());
        for (letter, (_, _, said)) in dead.iter().zip(ODD) {
            assert!(letter.detail.contains(said), "{}: {said}", letter.detail);
            assert_eq!(letter.reason, "malformed");
        }
        // As they are sent again they are like any other.
        assert_eq!(worker.dead_letters().requeue(Some(vec![dead[6].number])).await.unwrap(), 1);
        assert_eq!(take_until(&mut consumer, MANY, 1).await.len(), 1);
        // What is held is nobody else's to set aside.
        sql.execute("UPDATE kombu_message SET deliveries = 'x' WHERE task_id = 'a'", []).unwrap();
        assert!(consumer.take(MANY).await.unwrap().is_empty());
        ack(&worker, &taken).await;
        assert_eq!(worker.dead_letters().list().await.unwrap().len(), ODD.len() - 1);
    });
}

/// A worker is in the table before it takes, and until it has given back.
#[test]
fn what_a_worker_holds_that_is_in_no_table_is_handed_out_again() {
    block_on(async {
        let site = Sqlite::create();
        let (mut one, worker) = site.worker("one@test", &[QUEUE]).await;
        let sql = Connection::open(site.address()).unwrap();
        let take = "UPDATE kombu_message SET visible = 0, owner = 4611686018427387904, started = 1";
        worker.producer().publish(vec![posting("a")]).await.unwrap();
        sql.execute(take, []).unwrap();
        let taken = take_until(&mut one, MANY, 1).await;
        assert_eq!((ids(&taken), taken[0].deliveries), (vec!["a"], 1));
        ack(&worker, &taken).await;
        // Somebody has removed the row of one that lives: its lease speaks for it.
        let (mut two, _) = site.worker("two@test", &[QUEUE]).await;
        worker.producer().publish(vec![posting("b")]).await.unwrap();
        assert_eq!(take_until(&mut two, MANY, 1).await.len(), 1);
        sql.execute("DELETE FROM qworker_worker WHERE hostname = 'two@test'", []).unwrap();
        let until = std::time::Instant::now() + std::time::Duration::from_millis(1500);
        while std::time::Instant::now() < until {
            assert!(one.take(MANY).await.unwrap().is_empty());
            one.wait().await;
        }
        drop(two);
        assert_eq!(ids(&take_until(&mut one, MANY, 1).await), ["b"]);
    });
}

#[test]
fn strange_values_of_lists_and_results_are_shown_as_they_can_be() {
    block_on(async {
        let site = Sqlite::create();
        let path = PathBuf::from(site.address());
        let (mut consumer, worker) = site.worker("one@test", &[QUEUE]).await;
        let sql = Connection::open(&path).unwrap();
        let store = backend::Store::Sqlite(backend::sqlite::Store::open(
            &open(&path, Access::Create).unwrap(),
            &ResultFormat::default(),
        ));
        sql.execute_batch(
            "INSERT INTO kombu_queue (name) VALUES (x'ff41'), (NULL), (5);
             INSERT INTO qworker_dead (died_at, reason, detail, task_id, task, queue, priority,
                 deliveries, payload) VALUES (1, x'41', 2.5, x'42', 3, x'ff', 'p', 'd', x'00');
             INSERT INTO qworker_dead (died_at, reason, detail, queue, priority, deliveries, payload)
                 VALUES ('', '', '', '', 0, -5, '');
             INSERT INTO qworker_worker (lease, hostname, pid) VALUES (x'ff', x'ff', 'me');
             INSERT INTO celery_taskmeta (task_id, status, result, date_done, traceback, name,
                 retries, worker) VALUES ('r', NULL, NULL, 'never', x'41', x'42', 'x', 7);
             INSERT INTO celery_taskmeta (task_id, status, result) VALUES ('s', x'41', 5);",
        )
        .unwrap();
        assert!(consumer.take(MANY).await.unwrap().is_empty());
        let queues: Vec<String> =
            worker.admin().queues().await.unwrap().into_iter().map(|queue| queue.name).collect();
        assert!(queues.contains(&"\u{fffd}A".to_string()) && queues.contains(&QUEUE.to_string()));
        let dead = worker.dead_letters().list().await.unwrap();
        assert_eq!((dead[0].reason.as_str(), dead[0].task_id.as_str()), ("A", "B"));
        assert_eq!((dead[0].deliveries, dead[1].deliveries), (0, 0));
        assert_eq!(worker.dead_letters().requeue(Some(vec![dead[0].number])).await.unwrap(), 1);
        assert_eq!(worker.admin().nodes().await.unwrap().len(), 2, "of one nothing can be seen");
        let meta = store.get("r").await.unwrap().unwrap();
        assert_eq!((meta.status.as_str(), meta.traceback.as_deref()), ("PENDING", Some("A")));
        assert_eq!(store.get("s").await.unwrap().unwrap().status, "A");
    });
}

#[test]
fn tables_of_others_are_named_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    for (n, (made, said)) in [
        ("CREATE TABLE qworker_dead (id INTEGER, text TEXT)", "qworker_dead"),
        ("CREATE VIEW kombu_queue AS SELECT 1", "kombu_queue is not the table that it has to be"),
        ("CREATE TABLE celery_taskmeta (task TEXT)", "no such column: id"),
    ]
    .into_iter()
    .enumerate()
    {
        let path = dir.path().join(n.to_string());
        Connection::open(&path).unwrap().execute_batch(made).unwrap();
        for access in [Access::Create, Access::Look] {
            let error = open(&path, access).err().unwrap();
            assert!(error.contains(said), "{error}");
        }
        let sql = Connection::open(&path).unwrap();
        let count = "SELECT count(*) FROM sqlite_schema WHERE sql = ?";
        let same: i64 = sql.query_row(count, [made], |row| row.get(0)).unwrap();
        assert_eq!(same, 1, "{made}");
    }
}

#[test]
fn the_log_is_emptied_when_it_is_quiet_and_when_the_last_one_leaves() {
    block_on(async {
        let site = Sqlite::create();
        let path = PathBuf::from(site.address());
        let log = || fs::metadata(log_of(&path)).map_or(0, |found| found.len());
        let client = site.client();
        let reader = Connection::open(&path).unwrap();
        reader.execute_batch("BEGIN; SELECT * FROM kombu_message").unwrap();
        for _ in 0..20 {
            let large = |n: u32| {
                let mut one = posting(&format!("large{n}"));
                one.payload = Payload::from_envelope("x".repeat(100_000));
                one
            };
            client.producer().publish((0..20).map(large).collect()).await.unwrap();
        }
        assert!(log() > 20_000_000, "a reader keeps all of it");
        reader.execute_batch("ROLLBACK").unwrap();
        client.producer().publish(vec![posting("last")]).await.unwrap();
        eventually("an empty log", || (log() == 0).then_some(()));
        client.producer().publish(vec![posting("after")]).await.unwrap();
        drop(client);
        assert!(log() > 0, "somebody else has it open");
        drop(reader);
        drop(site.client());
        assert_eq!(names(path.parent().unwrap()), ["q.sqlite"], "the file alone has all there is");
    });
}
