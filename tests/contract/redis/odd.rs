//! Keys that are something else, and members that others have put into ours: each spoils what
//! goes through it, and nothing besides.

use super::super::broker::text;
use super::*;
use qworker::broker::{Consumer, Disposition, Item, Posting, Settle, Tag};
use qworker::clock;
use qworker::link::error::StoreErrorKind;
use qworker::wire::{Record, value};
use serde_json::json;
use std::sync::Arc;

fn to(queue: &str, id: &str) -> Posting {
    Posting { queue: queue.into(), ..posting(id) }
}

fn number(server: &Server, words: &[&str]) -> usize {
    server.run(words)
}

/// A worker of two queues that has taken one message of each.
async fn with_two(server: &Server) -> (Consumer, Worker, Vec<Delivery>) {
    let (mut consumer, worker) = Redis::at(&server.url()).worker("one@test", &["a", "b"]).await;
    worker.producer().publish(vec![to("a", "a"), to("b", "b")]).await.unwrap();
    let mut taken = take_until(&mut consumer, MANY, 2).await;
    taken.sort_by_key(|one| one.queue.clone());
    (consumer, worker, taken)
}

#[test]
fn a_list_that_is_something_else_loses_nothing() {
    block_on(async {
        let server = Server::start();
        let (mut consumer, worker, taken) = with_two(&server).await;
        server.run::<String>(&["SET", "test:a", "a text"]);
        let back = [(taken[0].tag, Settle::Release), (taken[1].tag, Settle::Release)];
        worker.settle(back.to_vec()).await.unwrap();
        assert_eq!(ids(&take_until(&mut consumer, MANY, 1).await), ["b"]);
        let kept: Vec<String> = server.run(&["ZRANGE", "test:qworker.scheduled.a", "0", "-1"]);
        assert!(kept.len() == 1 && kept[0].contains("\"id\": \"a\""), "{kept:?}");
        // It is due, and cannot go back yet.
        server.run::<u32>(&["ZADD", "test:qworker.scheduled.a", "XX", "1", &kept[0]]);
        assert!(consumer.take(MANY).await.unwrap().is_empty());
        assert_eq!(number(&server, &["ZCARD", "test:qworker.scheduled.a"]), 1);
        let error = worker.producer().publish(vec![to("a", "c")]).await.unwrap_err();
        assert!(
            error.kind() == StoreErrorKind::Refused && error.to_string().contains("test:a"),
            "{error}"
        );
        let error = worker.producer().publish(vec![to("b", "d"), to("a", "e")]).await.unwrap_err();
        assert!(error.to_string().contains("the key test:a is a string"), "{error}");
        assert_eq!(number(&server, &["EXISTS", "test:b"]), 0, "all or none");
        // To purge removes what is ours.
        let error = worker.admin().purge(vec!["a".into()]).await.unwrap_err().to_string();
        assert!(error.contains("1 were removed") && error.contains("test:a"), "{error}");
        assert_eq!(server.run::<String>(&["GET", "test:a"]), "a text");
        let queues = worker.admin().queues().await.unwrap();
        let odd: Vec<bool> = queues.iter().map(|queue| queue.odd.is_some()).collect();
        assert_eq!(odd, [true, false], "{queues:?}");
    });
}

#[test]
fn a_key_of_ours_that_is_something_else_is_named() {
    block_on(async {
        let server = Server::start();
        let (mut consumer, _) = Redis::at(&server.url()).worker("one@test", &["a"]).await;
        assert!(consumer.take(MANY).await.unwrap().is_empty());
        let workers: Vec<String> = server.run(&["KEYS", "test:qworker.worker.*"]);
        server.run::<u32>(&["DEL", &workers[0]]);
        server.run::<u32>(&["RPUSH", &workers[0], "x"]);
        let error = consumer.take(MANY).await.unwrap_err().to_string();
        let said = format!("WRONGTYPE the key {} is a list, and a hash is expected", workers[0]);
        assert!(error.contains(&said), "{error}");
        let (mut consumer, _) = Redis::at(&server.url()).worker("two@test", &["a"]).await;
        server.run::<u32>(&["RPUSH", "test:unacked", "x"]);
        let error = consumer.take(MANY).await.unwrap_err().to_string();
        assert!(error.contains(": WRONGTYPE the key test:unacked is a list"), "{error}");
    });
}

#[test]
fn what_others_have_put_among_the_scheduled_hides_nothing() {
    block_on(async {
        let server = Server::start();
        let (mut consumer, worker) = Redis::at(&server.url()).worker("one@test", &[QUEUE]).await;
        server.run::<u32>(&["ZADD", "test:qworker.scheduled.celery", "1", "garbage"]);
        let due = Posting { eta: Some(clock::now()), ..posting("due") };
        worker.producer().publish(vec![due]).await.unwrap();
        let mut found = take_until(&mut consumer, MANY, 2).await;
        found.sort_by_key(|one| text(one).to_string());
        assert_eq!(ids(&found), ["garbage", "due"]);
    });
}

#[test]
fn a_set_that_is_something_else_leaves_the_other_queues() {
    block_on(async {
        let server = Server::start();
        let (mut consumer, worker, taken) = with_two(&server).await;
        server.run::<String>(&["SET", "test:qworker.scheduled.a", "a text"]);
        let later = clock::now() + Duration::from_secs(100);
        let park = |n: usize| Item {
            tag: Some(taken[n].tag),
            settle: Some(Settle::Park(later)),
            ..Item::default()
        };
        let fates = worker.settler.commit(Arc::new(vec![park(0), park(1)])).await.unwrap();
        let Disposition::Refused(why) = &fates[0] else { panic!("{fates:?}") };
        assert!(why.contains("test:qworker.scheduled.a is a string"), "{why}");
        assert_eq!(fates[1], Disposition::Done);
        assert_eq!(number(&server, &["HLEN", "test:unacked"]), 1, "it is still held");
        worker.producer().publish(vec![to("a", "new")]).await.unwrap();
        assert_eq!(ids(&take_until(&mut consumer, MANY, 1).await), ["new"]);
    });
}

#[test]
fn what_cannot_be_kept_is_held_and_the_rest_goes_on() {
    block_on(async {
        let server = Server::start();
        let (_consumer, worker, taken) = with_two(&server).await;
        server.run::<String>(&["SET", "test:qworker.dead", "a text"]);
        server.run::<u32>(&["LPUSH", "result-a", "x"]);
        let death = qworker::broker::Death {
            reason: "lost",
            detail: String::new(),
            task_id: None,
            task: None,
            counts: true,
        };
        let dead =
            Item { tag: Some(taken[0].tag), settle: Some(Settle::Dead(death)), ..Item::default() };
        let result = |id: &str, n: usize| Item {
            tag: Some(taken[n].tag),
            record: Some(Record::success(id, value::raw(&json!(1)), clock::now())),
            settle: Some(Settle::Ack),
            ..Item::default()
        };
        let document =
            |record: &Record| (format!("result-{}", record.task_id), None, b"1".to_vec());
        let settler = keeping(&worker, &server.url(), document);
        let items = vec![dead, result("a", 0), result("b", 1)];
        let fates = settler.commit(Arc::new(items)).await.unwrap();
        let why = |n: usize| match &fates[n] {
            Disposition::Refused(why) => why.clone(),
            fate => panic!("{fate:?}"),
        };
        assert!(why(0).contains("test:qworker.dead is a string"), "{fates:?}");
        assert!(why(1).contains("result-a is a list"), "{fates:?}");
        assert_eq!(fates[2], Disposition::Done);
        assert_eq!(server.run::<String>(&["GET", "result-b"]), "1");
        assert_eq!(number(&server, &["HLEN", "test:unacked"]), 1);
    });
}

#[test]
fn keys_that_all_need_are_waited_for() {
    block_on(async {
        let server = Server::start();
        let (mut consumer, worker, taken) = with_two(&server).await;
        server.run::<String>(&["RENAME", "test:unacked", "aside"]);
        server.run::<String>(&["SET", "test:unacked", "a text"]);
        worker.producer().publish(vec![to("a", "c")]).await.unwrap();
        let error = consumer.take(MANY).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Damaged);
        assert!(error.to_string().contains("test:unacked is a string, and a hash"), "{error}");
        let ack = || worker.settle(vec![(taken[0].tag, Settle::Ack)]);
        assert_eq!(ack().await.unwrap_err().kind(), StoreErrorKind::Damaged);
        server.run::<u32>(&["DEL", "test:unacked"]);
        server.run::<String>(&["RENAME", "aside", "test:unacked"]);
        ack().await.unwrap();
        assert_eq!(ids(&take_until(&mut consumer, MANY, 1).await), ["c"]);
    });
}

#[test]
fn dead_letters_of_others_are_shown_and_stay() {
    block_on(async {
        let site = Redis::create();
        let (server, client) = (site.server(), site.client());
        server.run::<u32>(&["HSET", "test:qworker.dead", "last", "7", "7", "what?", "name", "x"]);
        let note = r#"{"died_at":"","reason":"lost","detail":"","task_id":"a","task":"t"}"#;
        let letter = format!("{note}\n1\n0\nqueue\nthe message");
        server.run::<u32>(&["HSET", "test:qworker.dead", "3", &letter]);
        server.run::<String>(&["SET", "test:queue", "a text"]);
        let found: Vec<(i64, String)> = client
            .dead_letters()
            .list()
            .await
            .unwrap()
            .into_iter()
            .map(|one| (one.number, one.reason))
            .collect();
        assert_eq!(found, [(3, "lost".into()), (7, "unreadable".into())]);
        let error = client.dead_letters().requeue(None).await.unwrap_err().to_string();
        assert!(error.contains("dead letter 3") && error.contains("test:queue"), "{error}");
        assert_eq!(client.dead_letters().list().await.unwrap().len(), 2, "nothing is lost");
        server.run::<u32>(&["DEL", "test:queue"]);
        let error = client.dead_letters().requeue(None).await.unwrap_err().to_string();
        assert!(error.contains("1 were sent again, but dead letter 7"), "{error}");
        assert_eq!(
            server.run::<Vec<String>>(&["LRANGE", "test:queue", "0", "-1"]),
            ["the message"]
        );
    });
}

/// `*` as the name of a worker would be every worker's.
#[test]
fn names_of_no_worker_are_left_alone() {
    block_on(async {
        let site = Redis::create();
        let server = site.server();
        server.run::<u32>(&["ZADD", "test:qworker.workers", "1", "*", "1", "nobody"]);
        server.run::<String>(&["SET", "test:qworker.worker.nobody", "a text"]);
        let (_consumer, worker) = site.worker("one@test", &[QUEUE]).await;
        let nodes = worker.admin().nodes().await.unwrap();
        assert_eq!(nodes.len(), 1, "{nodes:?}");
        assert_eq!(nodes[0].hostname, "one@test");
    });
}

#[test]
fn what_was_handed_out_again_is_told_and_not_stored() {
    block_on(async {
        let server = Server::start();
        let (mut consumer, worker, taken) = with_two(&server).await;
        let mut losses = consumer.losses().unwrap();
        // As another worker does that takes this one for dead.
        let members: Vec<String> = server.run(&["ZRANGE", "test:qworker.workers", "0", "-1"]);
        let key = format!("test:qworker.worker.{}", members[0]);
        server.run::<u32>(&["HSET", &key, "epoch", "dead"]);
        server.run::<u32>(&["DEL", "test:unacked", "test:unacked_index"]);
        let lost = tokio::time::timeout(SOON, losses.recv()).await.unwrap().unwrap();
        assert_eq!(lost.len(), 2);
        let item = Item {
            tag: Some(taken[0].tag),
            record: Some(Record::success("a", value::raw(&json!(1)), clock::now())),
            settle: Some(Settle::Ack),
            ..Item::default()
        };
        let document = |_: &Record| ("result".to_string(), None, b"1".to_vec());
        let settler = keeping(&worker, &server.url(), document);
        assert_eq!(settler.commit(Arc::new(vec![item])).await.unwrap(), [Disposition::Lost]);
        assert_eq!(number(&server, &["EXISTS", "result"]), 0);
    });
}

#[test]
fn of_many_acknowledged_at_once_those_that_are_lost_are_told() {
    block_on(async {
        let server = Server::start();
        let site = Redis::at(&server.url());
        let (mut consumer, worker) = site.worker("one@test", &[QUEUE]).await;
        let sent = (0..5).map(|n| posting(&n.to_string())).collect();
        worker.producer().publish(sent).await.unwrap();
        let taken = take_until(&mut consumer, MANY, 5).await;
        let tags: Vec<String> = server.run(&["HKEYS", "test:unacked"]);
        let tag_of = |place: usize| {
            let Tag::Number(number) = taken[place].tag else { panic!() };
            tags.iter().find(|tag| tag.contains(&format!(":{number}:"))).unwrap()
        };
        server.run::<u32>(&["HDEL", "test:unacked", tag_of(1)]);
        server.run::<u32>(&["ZREM", "test:unacked_index", tag_of(1)]);
        // Without a lease it is held nevertheless.
        server.run::<u32>(&["ZREM", "test:unacked_index", tag_of(3)]);
        let ack = |one: &Delivery| Item {
            tag: Some(one.tag),
            settle: Some(Settle::Ack),
            ..Item::default()
        };
        let fates = worker.settler.commit(Arc::new(taken.iter().map(ack).collect())).await;
        let expected = [
            Disposition::Done,
            Disposition::Lost,
            Disposition::Done,
            Disposition::Done,
            Disposition::Done,
        ];
        assert_eq!(fates.unwrap(), expected);
        assert_eq!(number(&server, &["EXISTS", "test:unacked", "test:unacked_index"]), 0);
    });
}

#[test]
fn a_server_that_was_emptied_gets_the_results_of_what_ran() {
    block_on(async {
        let server = Server::start();
        let (mut consumer, worker, taken) = with_two(&server).await;
        server.run::<String>(&["FLUSHALL"]);
        worker.producer().publish(vec![to("a", "c")]).await.unwrap();
        assert_eq!(ids(&take_until(&mut consumer, MANY, 1).await), ["c"]);
        let item = Item {
            tag: Some(taken[0].tag),
            record: Some(Record::success("a", value::raw(&json!(1)), clock::now())),
            settle: Some(Settle::Ack),
            ..Item::default()
        };
        let document = |_: &Record| ("result".to_string(), None, b"1".to_vec());
        let settler = keeping(&worker, &server.url(), document);
        assert_eq!(settler.commit(Arc::new(vec![item])).await.unwrap(), [Disposition::Done]);
        assert_eq!(server.run::<String>(&["GET", "result"]), "1");
    });
}

#[test]
fn what_a_user_may_not_is_named() {
    block_on(async {
        let server = Server::start();
        let rules = ["on", "nopass", "~*", "+@all", "-rpop", "-zadd", "resetchannels"];
        server.run::<String>(&[&["ACL", "SETUSER", "me"][..], &rules].concat());
        server.run::<String>(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
        let url = format!("redis://me:x@127.0.0.1:{}/0", server.port());
        let admin = Redis::at(&url).client().admin();
        let results = results_at(&url, "celery-task-meta-", |_| Default::default());
        let checks = admin.check_server(&[QUEUE.into()], &results).await.unwrap();
        assert_eq!(checks.refused.len(), 2, "{checks:?}");
        assert!(checks.refused[0].starts_with("RPOP (test:celery, "), "{checks:?}");
        let all = checks.warnings.join("\n");
        for part in ["allkeys-lru", "appendonly", "PUBLISH"] {
            assert!(all.contains(part), "no {part} in {checks:?}");
        }
        // Who is told nothing says nothing.
        server.run::<String>(&["ACL", "SETUSER", "me", "+@all", "-info", "-config", "allchannels"]);
        let checks = admin.check_server(&[QUEUE.into()], &results).await.unwrap();
        assert_eq!(checks, qworker::broker::ServerChecks::default());
    });
}
