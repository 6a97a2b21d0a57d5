//! What is promised of every pair of a broker and a result store, the same or apart.

use super::broker::{MANY, QUEUE, posting, take_until};
use crate::harness::block_on;
use crate::harness::redis::Server;
use qworker::backend::Store;
use qworker::broker::{Broker, Consumer, Disposition, Item, Posting, Settle, Want, WorkerIdentity};
use qworker::client::ends::Ends;
use qworker::client::{Client, ClientOptions};
use qworker::clock;
use qworker::link::url::{BackendUrl, BrokerUrl};
use qworker::wire::{Payload, Record, value};
use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// A worker on a broker, with results in a store.
struct Pair {
    consumer: Consumer,
    broker: Broker,
    ends: Ends,
}

impl Pair {
    /// A worker on this broker, with these results.
    async fn open(broker: &str, backend: Option<&str>) -> Pair {
        let root = Path::new("/");
        let broker = BrokerUrl::parse(broker, root).unwrap();
        let backend = backend.map(|url| BackendUrl::parse(url, root).unwrap());
        let options = ClientOptions { prefix: "test:".into(), ..ClientOptions::default() };
        let client = Client::connect(&broker, backend.as_ref(), &options).unwrap();
        let who = WorkerIdentity {
            hostname: "w",
            queues: &[QUEUE.into()],
            visibility_timeout: Duration::from_secs(3600),
            hold: Box::new(|_| Ok(())),
        };
        let (consumer, ends) = client.consume(who).await.unwrap();
        Pair { consumer, broker: client.broker, ends }
    }
}

/// What is asked twice is done once, and what is not held any more leaves nothing.
async fn check(name: &str, mut pair: Pair) {
    let message = |id: &str| Posting {
        payload: Payload::from_envelope(format!("payload of \"id\": \"{id}\"")),
        ..posting(id)
    };
    pair.broker.producer().publish(vec![message("first"), message("early")]).await.unwrap();
    let taken = take_until(&mut pair.consumer, MANY, 2).await;
    let ends = pair.ends.clone();
    let record = |id: &str, n: i32| Record::success(id, value::raw(&json!(n)), clock::now());
    let items = |n: i32| {
        Arc::new(vec![
            Item {
                tag: Some(taken[0].tag),
                record: Some(record("first", n)),
                settle: Some(Settle::Ack),
                ..Item::default()
            },
            Item {
                tag: Some(taken[1].tag),
                settle: Some(Settle::Ack),
                durable: true,
                ..Item::default()
            },
            Item { postings: vec![message("retry")], token: "once".into(), ..Item::default() },
        ])
    };
    assert_eq!(
        ends.commit(items(1)).await.unwrap(),
        [Disposition::Done, Disposition::Done, Disposition::Done],
        "{name}"
    );
    let again = ends.commit(items(2)).await.unwrap();
    assert_eq!(again, [Disposition::Lost, Disposition::Lost, Disposition::Done], "{name}");
    let stored = ends.store().get("first").await.unwrap();
    let stored = stored.map(|meta| meta.result.get().to_string());
    let expected = (!matches!(ends.store(), Store::Disabled(_))).then(|| "1".to_string());
    assert_eq!(stored, expected, "{name}");
    let queues = pair.broker.admin().queues().await.unwrap();
    let counts: Vec<_> = queues.iter().map(|q| (q.ready, q.scheduled, q.held)).collect();
    assert_eq!(counts, [(1, 0, 0)], "{name}: the retry, once");
    // A failure of what somebody else has by now takes nobody's place.
    let late =
        Item { tag: Some(taken[0].tag), record: Some(record("other", 3)), ..Item::default() };
    assert_eq!(ends.commit(Arc::new(vec![late])).await.unwrap(), [Disposition::Lost], "{name}");
    assert!(ends.store().get("other").await.unwrap().is_none(), "{name}");
    assert!(ends.answer().await, "{name}");
    pair.consumer.close().await.unwrap();
}

#[test]
fn every_pair_does_it_once_and_whole() {
    block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| format!("sqlite:///{}", folder.path().join(name).display());
        let (server, results) = (Server::start(), Server::start());
        let none = "disabled://".to_string();
        for (name, broker, backend) in [
            ("one file", file("same.sqlite"), None),
            ("two files", file("a.sqlite"), Some(file("b.sqlite"))),
            ("a file, no results", file("c.sqlite"), Some(none.clone())),
            ("a file and a server", file("d.sqlite"), Some(results.url())),
            ("one server", server.url(), None),
            ("two servers", server.url(), Some(results.url())),
            ("a server and a file", server.url(), Some(file("e.sqlite"))),
            ("a server, no results", server.url(), Some(none)),
        ] {
            for one in [&server, &results] {
                one.run::<String>(&["FLUSHALL"]);
            }
            check(name, Pair::open(&broker, backend.as_deref()).await).await;
        }
    });
}

/// A worker with very many slots asks in one step about the results of all that it takes.
#[test]
fn a_take_of_any_size_loses_nothing() {
    const COUNT: usize = 9_000;
    block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::start();
        for url in [format!("sqlite:///{}", folder.path().join("b.sqlite").display()), server.url()]
        {
            let mut pair = Pair::open(&url, None).await;
            let message = |n: usize| Posting {
                payload: Payload::from_envelope(format!("{{\"id\": \"{n}\"}}")),
                ..posting(&n.to_string())
            };
            let producer = pair.broker.producer();
            for from in (0..COUNT).step_by(1_000) {
                producer.publish((from..from + 1_000).map(message).collect()).await.unwrap();
            }
            let want = Want { slots: COUNT, ahead: 0 };
            let taken = take_until(&mut pair.consumer, want, COUNT).await;
            assert_eq!(taken.len(), COUNT, "{url}");
            pair.consumer.close().await.unwrap();
        }
    });
}
