//! What is promised of every pair of a broker and a result store, the same or apart.

use super::broker::{MANY, QUEUE, posting, take_until};
use crate::harness::redis::Server;
use crate::harness::{SOON, block_on};
use qworker::backend::{self, Store};
use qworker::broker::{self, Fate, Inlet, Item, Outlet, Posting, Settle};
use qworker::client::ends::Ends;
use qworker::clock;
use qworker::link::sqlite::Db;
use qworker::link::url::Url;
use qworker::wire::{Payload, Record, value};
use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// A worker's ends of a pair.
struct Site {
    inlet: Inlet,
    outlet: Outlet,
    store: Store,
}

async fn on_file(path: &Path) -> (Inlet, Outlet, Db) {
    let db = Db::open(path, |c| {
        broker::sqlite::SCHEMA.create(c)?;
        backend::sqlite::SCHEMA.create(c)
    })
    .unwrap();
    let hold = Box::new(|_: &Path| Ok(()));
    let inlet = broker::sqlite::Inlet::open(&db, "w", &[QUEUE.into()], hold).await.unwrap();
    let outlet = inlet.outlet();
    (Inlet::Sqlite(inlet), Outlet::Sqlite(outlet), db)
}

async fn on_server(server: &Server) -> (Inlet, broker::redis::Outlet) {
    let Ok(Url::Redis(address)) = Url::parse(&server.url(), Path::new("/")) else { panic!() };
    let client = broker::redis::Outlet::open(&address, "test:", SOON).unwrap();
    let who = broker::redis::Identity {
        hostname: "w",
        queues: &[QUEUE.into()],
        visibility_timeout: Duration::from_secs(3600),
    };
    let inlet = broker::redis::Inlet::open(&client, who).await.unwrap();
    let outlet = inlet.outlet();
    (Inlet::Redis(inlet), outlet)
}

fn results_on(server: &Server) -> Store {
    let Ok(Url::Redis(address)) = Url::parse(&server.url(), Path::new("/")) else { panic!() };
    Store::Redis(backend::redis::Store::open(&address, "", None, SOON).unwrap())
}

fn results_in(path: &Path) -> Store {
    let db = Db::open(path, |c| backend::sqlite::SCHEMA.create(c)).unwrap();
    Store::Sqlite(backend::sqlite::Store::open(&db))
}

/// What is asked twice is done once, and what is not held any more leaves nothing.
async fn check(name: &str, mut site: Site) {
    let message = |id: &str| Posting {
        payload: Payload::from_envelope(format!("payload of \"id\": \"{id}\"")),
        ..posting(id)
    };
    site.outlet.publish(vec![message("first"), message("early")]).await.unwrap();
    let taken = take_until(&mut site.inlet, MANY, 2).await;
    let ends = Ends::new(site.store.clone(), site.outlet.clone());
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
        [Fate::Done, Fate::Done, Fate::Done],
        "{name}"
    );
    let again = ends.commit(items(2)).await.unwrap();
    assert_eq!(again, [Fate::Lost, Fate::Lost, Fate::Done], "{name}");
    let stored = site.store.get("first").await.unwrap();
    let stored = stored.map(|meta| meta.result.get().to_string());
    let expected = (!matches!(site.store, Store::Disabled)).then(|| "1".to_string());
    assert_eq!(stored, expected, "{name}");
    let queues = site.outlet.queues().await.unwrap();
    let counts: Vec<_> = queues.iter().map(|q| (q.ready, q.scheduled, q.held)).collect();
    assert_eq!(counts, [(1, 0, 0)], "{name}: the retry, once");
    // A failure of what somebody else has by now takes nobody's place.
    let late =
        Item { tag: Some(taken[0].tag), record: Some(record("other", 3)), ..Item::default() };
    assert_eq!(ends.commit(Arc::new(vec![late])).await.unwrap(), [Fate::Lost], "{name}");
    assert!(site.store.get("other").await.unwrap().is_none(), "{name}");
    assert!(ends.answer().await, "{name}");
    site.inlet.close().await.unwrap();
}

#[test]
fn every_pair_does_it_once_and_whole() {
    block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        let (inlet, outlet, db) = on_file(&file("same.sqlite")).await;
        let store = Store::Sqlite(backend::sqlite::Store::open(&db));
        check("one file", Site { inlet, outlet, store }).await;
        let (inlet, outlet, _db) = on_file(&file("a.sqlite")).await;
        check("two files", Site { inlet, outlet, store: results_in(&file("b.sqlite")) }).await;
        let (inlet, outlet, _db) = on_file(&file("c.sqlite")).await;
        check("a file, no results", Site { inlet, outlet, store: Store::Disabled }).await;
        let results = Server::start();
        let (inlet, outlet, _db) = on_file(&file("d.sqlite")).await;
        check("a file and a server", Site { inlet, outlet, store: results_on(&results) }).await;
        let server = Server::start();
        let (inlet, outlet) = on_server(&server).await;
        let store = backend::redis::Store::on(outlet.link().clone(), "", None);
        let outlet = Outlet::Redis(outlet);
        check("one server", Site { inlet, outlet, store: Store::Redis(store) }).await;
        for (name, store) in [
            ("two servers", results_on(&results)),
            ("a server and a file", results_in(&file("e.sqlite"))),
            ("a server, no results", Store::Disabled),
        ] {
            for one in [&server, &results] {
                one.run::<String>(&["FLUSHALL"]);
            }
            let (inlet, outlet) = on_server(&server).await;
            check(name, Site { inlet, outlet: Outlet::Redis(outlet), store }).await;
        }
    });
}
