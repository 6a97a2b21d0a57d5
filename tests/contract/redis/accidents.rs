//! Servers without memory, restarted, emptied; connections that end at the worst moment.

use super::proxy::Proxy;
use super::*;
use crate::harness::eventually;
use qworker::broker::{Disposition, Item, Posting, Settle};
use qworker::clock;
use qworker::link::error::StoreErrorKind;
use qworker::wire::{Payload, Record, value};
use serde_json::json;
use std::sync::Arc;

fn lists(server: &Server) -> usize {
    server.run::<usize>(&["LLEN", "test:celery"])
}

fn held(server: &Server) -> usize {
    server.run::<usize>(&["HLEN", "test:unacked"])
}

/// Acknowledges over a connection that may have ended.
async fn acked_in_spite(worker: &Worker, delivery: &Delivery) {
    let mut tries = 0;
    while let Err(error) = worker.settle(vec![(delivery.tag, Settle::Ack)]).await {
        tries += 1;
        assert!(tries < 5, "{error}");
    }
}

#[test]
fn a_server_without_memory_refuses_and_loses_nothing() {
    block_on(async {
        let server = Server::start();
        let site = Redis::at(&server.url());
        let (mut consumer, worker) = site.worker("one@test", &[QUEUE]).await;
        let client = site.client();
        let filled = |id: &str| Posting {
            payload: Payload::from_envelope("x".repeat(100_000)),
            ..posting(id)
        };
        client.producer().publish(vec![filled("first")]).await.unwrap();
        let first = take_until(&mut consumer, MANY, 1).await;
        server.run::<String>(&["CONFIG", "SET", "maxmemory", "6mb"]);
        let mut accepted = 0;
        let error = loop {
            match client.producer().publish(vec![filled("one")]).await {
                Ok(()) => accepted += 1,
                Err(error) => break error,
            }
            assert!(accepted < 100, "6 MB hold no 10 MB");
        };
        assert_eq!(error.kind(), StoreErrorKind::Full);
        let said = error.to_string();
        assert!(said.contains(&server.url()) && said.contains("memory"), "{said}");
        // Several are refused as a whole, with the same words.
        let later = Posting { eta: Some(clock::now()), ..filled("two") };
        let error = client.producer().publish(vec![filled("two"), later]).await.unwrap_err();
        assert_eq!((error.kind(), error.to_string()), (StoreErrorKind::Full, said));
        assert_eq!(lists(&server), accepted);
        // Meanwhile what is there is done, and the worker is not taken for dead.
        let score = || {
            let all: Vec<String> =
                server.run(&["ZRANGE", "test:unacked_index", "0", "0", "WITHSCORES"]);
            all[1].parse::<f64>().unwrap()
        };
        let before = score();
        meanwhile(&mut consumer, "a renewed lease", || (score() > before).then_some(())).await;
        ack(&worker, &first).await;
        let rest = take_until(&mut consumer, MANY, accepted).await;
        ack(&worker, &rest).await;
        client.producer().publish(vec![filled("again")]).await.unwrap();
        assert_eq!(lists(&server), 1);
    });
}

#[test]
fn a_restarted_server_goes_on_with_what_it_had() {
    block_on(async {
        let mut server = Server::durable();
        let site = Redis::at(&server.url());
        let (mut consumer, worker) = site.worker("one@test", &[QUEUE]).await;
        let client = site.client();
        client.producer().publish(vec![posting("a")]).await.unwrap();
        let first = take_until(&mut consumer, MANY, 1).await;
        client.producer().publish(vec![posting("b")]).await.unwrap();
        server.restart();
        let second = take_in_spite(&mut consumer, 1).await;
        assert_eq!(ids(&second), ["b"], "a is still held");
        let mut tries = 0;
        while let Err(error) = client.producer().publish(vec![posting("c")]).await {
            tries += 1;
            let passes = matches!(error.kind(), StoreErrorKind::Busy | StoreErrorKind::Unheard);
            assert!(tries < 3 && passes, "{error}");
        }
        assert_eq!(ids(&take_in_spite(&mut consumer, 1).await), ["c"]);
        acked_in_spite(&worker, &first[0]).await;
        ack(&worker, &second).await;
        assert_eq!(held(&server), 1, "c");
    });
}

#[test]
fn scripts_and_keys_that_are_gone_come_back() {
    block_on(async {
        let server = Server::start();
        let site = Redis::at(&server.url());
        let (mut consumer, worker) = site.worker("one@test", &[QUEUE]).await;
        let client = site.client();
        client.producer().publish(vec![posting("a"), posting("b")]).await.unwrap();
        let taken = take_until(&mut consumer, MANY, 2).await;
        server.run::<String>(&["SCRIPT", "FLUSH"]);
        settle(&worker, &taken[0], Settle::Release).await;
        server.run::<String>(&["SCRIPT", "FLUSH"]);
        assert_eq!(ids(&take_until(&mut consumer, MANY, 1).await), ["a"]);
        server.run::<String>(&["FLUSHALL"]);
        client.producer().publish(vec![posting("c")]).await.unwrap();
        assert_eq!(ids(&take_until(&mut consumer, MANY, 1).await), ["c"]);
        ack(&worker, &taken).await;
        assert_eq!(held(&server), 1, "c");
        let queues = client.admin().queues().await.unwrap();
        assert_eq!((queues[0].name.as_str(), queues[0].held), (QUEUE, 1));
        let known = || (server.run::<usize>(&["ZCARD", "test:qworker.workers"]) == 1).then_some(());
        meanwhile(&mut consumer, "a sign of life", known).await;
        assert_eq!(client.admin().nodes().await.unwrap()[0].hostname, "one@test");
    });
}

#[test]
fn a_take_whose_answer_is_lost_hides_nothing() {
    block_on(async {
        let server = Server::start();
        let proxy = Proxy::start(&server);
        let (mut consumer, worker) = Redis::at(&proxy.url()).worker("one@test", &[QUEUE]).await;
        let client = Redis::at(&server.url()).client();
        client.producer().publish(vec![posting("a"), posting("b")]).await.unwrap();
        let begin = Instant::now();
        while held(&server) == 0 {
            assert!(begin.elapsed() < SOON, "no take reaches the server");
            proxy.cut(false);
            // A connection without anything under way.
            while consumer.take(Want::default()).await.is_err() {}
            proxy.cut(true);
            assert!(consumer.take(MANY).await.is_err(), "its answer is lost");
        }
        assert_eq!((held(&server), lists(&server)), (2, 0), "taken by nobody");
        proxy.cut(false);
        let taken = take_in_spite(&mut consumer, 2).await;
        let counted: Vec<(&str, u32)> = super::super::broker::counted(&taken);
        assert_eq!(counted, [("a", 0), ("b", 0)]);
        assert_eq!((held(&server), lists(&server)), (2, 0));
        acked_in_spite(&worker, &taken[0]).await;
        ack(&worker, &taken[1..]).await;
        assert_eq!(held(&server), 0);
    });
}

#[test]
fn a_take_that_comes_late_takes_nothing() {
    block_on(async {
        let server = Server::start();
        let proxy = Proxy::start(&server);
        let (mut consumer, _worker) = Redis::at(&proxy.url()).worker("one@test", &[QUEUE]).await;
        let client = Redis::at(&server.url()).client();
        // The server knows the script.
        assert!(consumer.take(MANY).await.unwrap().is_empty());
        proxy.hold();
        let error = consumer.take(MANY).await.unwrap_err();
        assert!(error.to_string().contains("no answer within"), "{error}");
        client.producer().publish(vec![posting("a")]).await.unwrap();
        assert_eq!(ids(&take_in_spite(&mut consumer, 1).await), ["a"]);
        client.producer().publish(vec![posting("b")]).await.unwrap();
        proxy.let_go();
        eventually("the answer to what came late", || {
            proxy.late().contains("FENCED").then_some(())
        });
        assert_eq!((held(&server), lists(&server)), (1, 1));
        assert_eq!(ids(&take_in_spite(&mut consumer, 1).await), ["b"]);
    });
}

#[test]
fn a_commit_whose_answer_is_lost_may_be_asked_for_again() {
    block_on(async {
        let server = Server::start();
        let proxy = Proxy::start(&server);
        let (mut consumer, worker) = Redis::at(&proxy.url()).worker("one@test", &[QUEUE]).await;
        let client = Redis::at(&server.url()).client();
        client.producer().publish((0..4).map(|n| posting(&n.to_string())).collect()).await.unwrap();
        let taken = take_until(&mut consumer, MANY, 4).await;
        let later = clock::now() + Duration::from_secs(1000);
        let of = |n: usize, settle| Item {
            tag: Some(taken[n].tag),
            settle: Some(settle),
            ..Item::default()
        };
        let planned = Posting { eta: Some(later), ..posting("planned") };
        let postings = vec![Posting { queue: "next".into(), ..posting("next") }, planned];
        let result = Record::success("a", value::raw(&json!(1)), later);
        let items = Arc::new(vec![
            Item { record: Some(result.clone()), ..of(0, Settle::Ack) },
            of(1, Settle::Release),
            of(2, Settle::Replace(Payload::from_envelope("retry"), later)),
            of(3, Settle::Redeliver(later)),
            Item { postings, token: "token".into(), ..Item::default() },
        ]);
        let document = |_: &Record| ("result".into(), Some(100), "document".into());
        let settler = keeping(&worker, &proxy.url(), document);
        let counts = || {
            let number = |words: &[&str]| server.run::<usize>(words);
            [
                lists(&server),
                held(&server),
                number(&["LLEN", "test:next"]),
                number(&["ZCARD", "test:qworker.scheduled.celery"]),
                number(&["EXISTS", "result"]),
            ]
        };
        let begin = Instant::now();
        while counts() == [0, 4, 0, 0, 0] {
            assert!(begin.elapsed() < SOON, "no commit reaches the server");
            proxy.cut(false);
            // A connection, and a server that knows the script.
            while settler.answers().await.is_err() {}
            proxy.cut(true);
            assert!(settler.commit(items.clone()).await.is_err(), "its answer is lost");
        }
        assert_eq!(counts(), [1, 0, 1, 3, 1]);
        proxy.cut(false);
        let fates = loop {
            if let Ok(fates) = settler.commit(items.clone()).await {
                break fates;
            }
        };
        use Disposition::{Done, Lost};
        assert_eq!(fates, [Lost, Lost, Lost, Lost, Done], "what was done is not held any more");
        settler.commit(items.clone()).await.unwrap();
        assert_eq!(counts(), [1, 0, 1, 3, 1]);
    });
}

/// A firewall forgets an idle connection without a word, a server or a proxy closes it.
#[test]
fn an_idle_connection_that_is_dead_is_opened_anew_in_silence() {
    block_on(async {
        let server = Server::start();
        let proxy = Proxy::start(&server);
        let (mut consumer, worker) = Redis::at(&proxy.url()).worker("one@test", &[QUEUE]).await;
        let client = Redis::at(&proxy.url()).client();
        client.producer().publish((0..3).map(|n| posting(&n.to_string())).collect()).await.unwrap();
        let taken = take_until(&mut consumer, MANY, 3).await;
        let ways: [(&str, &dyn Fn()); 2] =
            [("forgotten", &|| proxy.hold()), ("closed", &|| proxy.end())];
        for (n, (how, way)) in ways.into_iter().enumerate() {
            ack(&worker, &taken[n..=n]).await;
            // Only the time makes a connection an idle one.
            tokio::time::sleep(Duration::from_millis(8200)).await;
            way();
            let settled = worker.settle(vec![(taken[2].tag, Settle::Mark)]).await;
            assert!(settled.is_ok(), "{how}: {settled:?}");
            let id = format!("new{n}");
            let sent = client.producer().publish(vec![posting(&id)]).await;
            assert!(sent.is_ok(), "{how}: {sent:?}");
            let found = consumer.take(MANY).await;
            assert!(found.is_ok_and(|found| ids(&found) == [id]), "{how}");
        }
        proxy.let_go();
    });
}
