//! Servers without memory, restarted, emptied; connections that end at the worst moment.

use super::proxy::Proxy;
use super::*;
use crate::harness::eventually;
use qworker::broker::{Fate, Item, Outlet, Posting, Settle};
use qworker::clock;
use qworker::link::error::Kind;
use qworker::wire::{Payload, Record, value};
use serde_json::json;

fn lists(server: &Server) -> usize {
    server.run::<usize>(&["LLEN", "test:celery"])
}

fn held(server: &Server) -> usize {
    server.run::<usize>(&["HLEN", "test:unacked"])
}

/// Acknowledges over a connection that may have ended.
async fn acked_in_spite(outlet: &Outlet, delivery: &Delivery) {
    let mut tries = 0;
    while let Err(error) = outlet.settle(vec![(delivery.tag, Settle::Ack)]).await {
        tries += 1;
        assert!(tries < 5, "{error}");
    }
}

#[test]
fn a_server_without_memory_refuses_and_loses_nothing() {
    block_on(async {
        let server = Server::start();
        let site = Redis::at(&server.url());
        let (mut inlet, outlet) = site.worker("one@test", &[QUEUE]).await;
        let client = site.client();
        let filled = |id: &str| Posting {
            payload: Payload::from_envelope("x".repeat(100_000)),
            ..posting(id)
        };
        client.publish(vec![filled("first")]).await.unwrap();
        let first = take_until(&mut inlet, MANY, 1).await;
        server.run::<String>(&["CONFIG", "SET", "maxmemory", "6mb"]);
        let mut accepted = 0;
        let error = loop {
            match client.publish(vec![filled("one")]).await {
                Ok(()) => accepted += 1,
                Err(error) => break error,
            }
            assert!(accepted < 100, "6 MB hold no 10 MB");
        };
        assert_eq!(error.kind(), Kind::Full);
        let said = error.to_string();
        assert!(said.contains(&server.url()) && said.contains("memory"), "{said}");
        // Several are refused as a whole, with the same words.
        let later = Posting { eta: Some(clock::now()), ..filled("two") };
        let error = client.publish(vec![filled("two"), later]).await.unwrap_err();
        assert_eq!((error.kind(), error.to_string()), (Kind::Full, said));
        assert_eq!(lists(&server), accepted);
        // Meanwhile what is there is done, and the worker is not taken for dead.
        let score = || {
            let all: Vec<String> =
                server.run(&["ZRANGE", "test:unacked_index", "0", "0", "WITHSCORES"]);
            all[1].parse::<f64>().unwrap()
        };
        let before = score();
        meanwhile(&mut inlet, "a renewed lease", || (score() > before).then_some(())).await;
        ack(&outlet, &first).await;
        let rest = take_until(&mut inlet, MANY, accepted).await;
        ack(&outlet, &rest).await;
        client.publish(vec![filled("again")]).await.unwrap();
        assert_eq!(lists(&server), 1);
    });
}

#[test]
fn a_restarted_server_goes_on_with_what_it_had() {
    block_on(async {
        let mut server = Server::durable();
        let site = Redis::at(&server.url());
        let (mut inlet, outlet) = site.worker("one@test", &[QUEUE]).await;
        let client = site.client();
        client.publish(vec![posting("a")]).await.unwrap();
        let first = take_until(&mut inlet, MANY, 1).await;
        client.publish(vec![posting("b")]).await.unwrap();
        server.restart();
        let second = take_in_spite(&mut inlet, 1).await;
        assert_eq!(ids(&second), ["b"], "a is still held");
        let mut tries = 0;
        while let Err(error) = client.publish(vec![posting("c")]).await {
            tries += 1;
            let passes = matches!(error.kind(), Kind::Busy | Kind::Unheard);
            assert!(tries < 3 && passes, "{error}");
        }
        assert_eq!(ids(&take_in_spite(&mut inlet, 1).await), ["c"]);
        acked_in_spite(&outlet, &first[0]).await;
        ack(&outlet, &second).await;
        assert_eq!(held(&server), 1, "c");
    });
}

#[test]
fn scripts_and_keys_that_are_gone_come_back() {
    block_on(async {
        let server = Server::start();
        let site = Redis::at(&server.url());
        let (mut inlet, outlet) = site.worker("one@test", &[QUEUE]).await;
        let client = site.client();
        client.publish(vec![posting("a"), posting("b")]).await.unwrap();
        let taken = take_until(&mut inlet, MANY, 2).await;
        server.run::<String>(&["SCRIPT", "FLUSH"]);
        settle(&outlet, &taken[0], Settle::Release).await;
        server.run::<String>(&["SCRIPT", "FLUSH"]);
        assert_eq!(ids(&take_until(&mut inlet, MANY, 1).await), ["a"]);
        server.run::<String>(&["FLUSHALL"]);
        client.publish(vec![posting("c")]).await.unwrap();
        assert_eq!(ids(&take_until(&mut inlet, MANY, 1).await), ["c"]);
        ack(&outlet, &taken).await;
        assert_eq!(held(&server), 1, "c");
        let queues = client.queues().await.unwrap();
        assert_eq!((queues[0].name.as_str(), queues[0].held), (QUEUE, 1));
        let known = || (server.run::<usize>(&["ZCARD", "test:qworker.workers"]) == 1).then_some(());
        meanwhile(&mut inlet, "a sign of life", known).await;
        assert_eq!(client.nodes().await.unwrap()[0].hostname, "one@test");
    });
}

#[test]
fn a_take_whose_answer_is_lost_hides_nothing() {
    block_on(async {
        let server = Server::start();
        let proxy = Proxy::start(&server);
        let (mut inlet, outlet) = Redis::at(&proxy.url()).worker("one@test", &[QUEUE]).await;
        let client = Redis::at(&server.url()).client();
        client.publish(vec![posting("a"), posting("b")]).await.unwrap();
        let begin = Instant::now();
        while held(&server) == 0 {
            assert!(begin.elapsed() < SOON, "no take reaches the server");
            proxy.cut(false);
            // A connection without anything under way.
            while inlet.take(Want::default()).await.is_err() {}
            proxy.cut(true);
            assert!(inlet.take(MANY).await.is_err(), "its answer is lost");
        }
        assert_eq!((held(&server), lists(&server)), (2, 0), "taken by nobody");
        proxy.cut(false);
        let taken = take_in_spite(&mut inlet, 2).await;
        let counted: Vec<(&str, u32)> = super::super::broker::counted(&taken);
        assert_eq!(counted, [("a", 0), ("b", 0)]);
        assert_eq!((held(&server), lists(&server)), (2, 0));
        acked_in_spite(&outlet, &taken[0]).await;
        ack(&outlet, &taken[1..]).await;
        assert_eq!(held(&server), 0);
    });
}

#[test]
fn a_take_that_comes_late_takes_nothing() {
    block_on(async {
        let server = Server::start();
        let proxy = Proxy::start(&server);
        let (mut inlet, _outlet) = Redis::at(&proxy.url()).worker("one@test", &[QUEUE]).await;
        let client = Redis::at(&server.url()).client();
        // The server knows the script.
        assert!(inlet.take(MANY).await.unwrap().is_empty());
        proxy.hold();
        let error = inlet.take(MANY).await.unwrap_err();
        assert!(error.to_string().contains("no answer within"), "{error}");
        client.publish(vec![posting("a")]).await.unwrap();
        assert_eq!(ids(&take_in_spite(&mut inlet, 1).await), ["a"]);
        client.publish(vec![posting("b")]).await.unwrap();
        proxy.let_go();
        eventually("the answer to what came late", || {
            proxy.late().contains("FENCED").then_some(())
        });
        assert_eq!((held(&server), lists(&server)), (1, 1));
        assert_eq!(ids(&take_in_spite(&mut inlet, 1).await), ["b"]);
    });
}

#[test]
fn a_commit_whose_answer_is_lost_may_be_asked_for_again() {
    block_on(async {
        let server = Server::start();
        let proxy = Proxy::start(&server);
        let (mut inlet, outlet) = Redis::at(&proxy.url()).worker("one@test", &[QUEUE]).await;
        let Outlet::Redis(outlet) = outlet else { panic!() };
        let client = Redis::at(&server.url()).client();
        client.publish((0..4).map(|n| posting(&n.to_string())).collect()).await.unwrap();
        let taken = take_until(&mut inlet, MANY, 4).await;
        let later = clock::now() + Duration::from_secs(1000);
        let of = |n: usize, settle| Item {
            tag: Some(taken[n].tag),
            settle: Some(settle),
            ..Item::default()
        };
        let planned = Posting { eta: Some(later), ..posting("planned") };
        let postings = vec![Posting { queue: "next".into(), ..posting("next") }, planned];
        let result = Record::success("a", value::raw(&json!(1)), later);
        let items = [
            Item { record: Some(result.clone()), ..of(0, Settle::Ack) },
            of(1, Settle::Release),
            of(2, Settle::Replace(Payload::from_envelope("retry"), later)),
            of(3, Settle::Redeliver(later)),
            Item { postings, token: "token".into(), ..Item::default() },
        ];
        let document = |_: &Record| Some(("result".into(), Some(100), "document".into()));
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
            while outlet.answers().await.is_err() {}
            proxy.cut(true);
            assert!(outlet.commit(&items, document).await.is_err(), "its answer is lost");
        }
        assert_eq!(counts(), [1, 0, 1, 3, 1]);
        proxy.cut(false);
        let fates = loop {
            if let Ok(fates) = outlet.commit(&items, document).await {
                break fates;
            }
        };
        use Fate::{Done, Lost};
        assert_eq!(fates, [Lost, Lost, Lost, Lost, Done], "what was done is not held any more");
        outlet.commit(&items, document).await.unwrap();
        assert_eq!(counts(), [1, 0, 1, 3, 1]);
    });
}

/// A firewall forgets an idle connection without a word, a server or a proxy closes it.
#[test]
fn an_idle_connection_that_is_dead_is_opened_anew_in_silence() {
    block_on(async {
        let server = Server::start();
        let proxy = Proxy::start(&server);
        let (mut inlet, outlet) = Redis::at(&proxy.url()).worker("one@test", &[QUEUE]).await;
        let client = Redis::at(&proxy.url()).client();
        client.publish((0..3).map(|n| posting(&n.to_string())).collect()).await.unwrap();
        let taken = take_until(&mut inlet, MANY, 3).await;
        let ways: [(&str, &dyn Fn()); 2] =
            [("forgotten", &|| proxy.hold()), ("closed", &|| proxy.end())];
        for (n, (how, way)) in ways.into_iter().enumerate() {
            ack(&outlet, &taken[n..=n]).await;
            // Only the time makes a connection an idle one.
            tokio::time::sleep(Duration::from_millis(8200)).await;
            way();
            let settled = outlet.settle(vec![(taken[2].tag, Settle::Mark)]).await;
            assert!(settled.is_ok(), "{how}: {settled:?}");
            let id = format!("new{n}");
            let sent = client.publish(vec![posting(&id)]).await;
            assert!(sent.is_ok(), "{how}: {sent:?}");
            let found = inlet.take(MANY).await;
            assert!(found.is_ok_and(|found| ids(&found) == [id]), "{how}");
        }
        proxy.let_go();
    });
}
