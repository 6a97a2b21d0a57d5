//! The contract of `src/backend/mod.rs` for every result store. To add one: an
//! implementation of [`Site`] and its name below.

use super::sites::{Redis, Site, Sqlite, WOKEN};
use crate::harness::{SOON, block_on};
use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use qworker::backend::{Disabled, Store};
use qworker::clock;
use qworker::wire::result::{Extended, Usage};
use qworker::wire::{Exception, Record, TaskState};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

macro_rules! for_every_store {
    ($($name:ident: $site:ty),* => $clauses:tt) => { $(suite! { $name, $site, $clauses })* };
}

macro_rules! suite {
    ($name:ident, $site:ty, { $($clause:ident)* }) => {
        mod $name {
            use super::*;
            $(
                #[test]
                fn $clause() {
                    block_on(super::$clause(<$site>::create()));
                }
            )*
        }
    };
}

for_every_store! { on_sqlite: Sqlite, on_redis: Redis => {
    every_state_is_read_as_it_was_written
    a_success_is_never_overwritten
    values_keep_their_shape
    extended_fields_come_back_by_name
    all_records_of_a_batch_are_there
    what_is_forgotten_is_unknown
    many_results_are_read_at_once
    groups_are_saved_and_found
    a_listener_is_woken_by_another_connection
    many_writers_lose_nothing
} }

suite! { on_a_disk, Sqlite, { expired_results_go_in_bounded_steps } }

#[test]
fn on_redis_every_result_has_its_time() {
    block_on(async {
        let site = Redis::create();
        site.store().put(vec![record("a", TaskState::Success, &json!(1))]).await.unwrap();
        let left: u64 = site.server().run(&["TTL", "test_celery-task-meta-a"]);
        assert!((3590..=3600).contains(&left), "{left}");
    });
}

fn raw(value: &Value) -> Box<RawValue> {
    qworker::wire::value::raw(value)
}

/// Stores keep microseconds.
fn now() -> DateTime<Utc> {
    clock::now().trunc_subsecs(6)
}

fn record(id: &str, state: TaskState, value: &Value) -> Record {
    Record { state, ..Record::success(id, raw(value), now()) }
}

async fn every_state_is_read_as_it_was_written(site: impl Site) {
    let (ours, theirs) = (site.store(), site.store());
    assert!(theirs.get("a").await.unwrap().is_none());
    for state in [
        TaskState::Started,
        TaskState::Retry,
        TaskState::Success,
        TaskState::Failure,
        TaskState::Revoked,
    ] {
        let exception = Exception::new("builtins", "ValueError", "bad");
        let traceback = Some("line 1\nline 2 ü".to_string());
        let at = now();
        let record = Record::exception(state.name(), state, &exception, traceback.clone(), at);
        ours.put(vec![record]).await.unwrap();
        let meta = theirs.get(state.name()).await.unwrap().unwrap();
        assert_eq!(meta.status, state.name());
        assert_eq!(meta.value(), exception.to_json());
        assert_eq!(meta.traceback, traceback);
        assert_eq!(
            meta.date_done,
            state.is_ready().then_some(at),
            "{state}: only final ones have a time"
        );
        assert_eq!(meta.is_ready(), state.is_ready());
        let document: Value = serde_json::from_str(&meta.document()).unwrap();
        let keys: Vec<&String> = document.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["status", "result", "traceback", "children", "date_done", "task_id"]);
        assert_eq!(document["children"], json!([]));
    }
}

async fn a_success_is_never_overwritten(site: impl Site) {
    let (ours, theirs) = (site.store(), site.store());
    let all = [
        TaskState::Started,
        TaskState::Retry,
        TaskState::Failure,
        TaskState::Revoked,
        TaskState::Success,
    ];
    for last in [TaskState::Success, TaskState::Revoked] {
        for state in [TaskState::Started, TaskState::Retry, TaskState::Failure, last] {
            ours.put(vec![record(last.name(), state, &json!(state.name()))]).await.unwrap();
            assert_eq!(theirs.get(last.name()).await.unwrap().unwrap().status, state.name());
        }
        for state in all {
            theirs.put(vec![record(last.name(), state, &json!("late"))]).await.unwrap();
        }
        let meta = ours.get(last.name()).await.unwrap().unwrap();
        assert_eq!((meta.status.as_str(), meta.value()), (last.name(), json!(last.name())));
    }
    let asked = ["SUCCESS", "nobody", "REVOKED"].map(String::from);
    let revoked: Vec<String> = ours.revoked(&asked).await.unwrap().into_iter().collect();
    assert_eq!(revoked, ["REVOKED"]);
}

async fn values_keep_their_shape(site: impl Site) {
    let store = site.store();
    let values = [
        "null",
        "\"\"",
        "\"\\u0000 ü \u{1f600}\"",
        "12345678901234567890",
        "-1.5e300",
        "1e400",
        "123456789012345678901234567890",
        "{\n  \"a\": 1.10, \"a\": 2\n}",
        &format!("{}1{}", "[".repeat(300), "]".repeat(300)),
        "[1, [2, {\"b\": 1, \"a\": null}]]",
        r#"{"__type__": "base64", "__value__": "/w=="}"#,
    ];
    for (n, text) in values.into_iter().enumerate() {
        let value = RawValue::from_string(text.into()).unwrap();
        let id = n.to_string();
        store.put(vec![Record::success(&id, value, now())]).await.unwrap();
        let meta = store.get(&id).await.unwrap().unwrap();
        assert_eq!(meta.result.get(), text, "{text}");
    }
    let large = json!("x".repeat(8_000_000));
    store.put(vec![record("large", TaskState::Success, &large)]).await.unwrap();
    assert!(store.get("large").await.unwrap().unwrap().value() == large);
}

async fn extended_fields_come_back_by_name(site: impl Site) {
    let store = site.store();
    let extended = Extended {
        name: "add".into(),
        args: "[2, \"ü\"]".into(),
        kwargs: "{\"k\": null}".into(),
        worker: "w@h".into(),
        retries: 3,
        queue: "media".into(),
        usage: Some(Usage { user: Duration::from_millis(20), ..Usage::default() }),
    };
    let plain = record("a", TaskState::Started, &json!(1));
    store.put(vec![plain]).await.unwrap();
    assert!(store.get("a").await.unwrap().unwrap().extended.is_empty());
    let full =
        Record { extended: Some(Box::new(extended)), ..record("a", TaskState::Success, &json!(5)) };
    store.put(vec![full]).await.unwrap();
    let document = store.get("a").await.unwrap().unwrap().document();
    let document: Value = serde_json::from_str(&document).unwrap();
    let expected = json!({"name": "add", "args": [2, "ü"], "kwargs": {"k": null}, "worker": "w@h",
                          "retries": 3, "queue": "media",
                          "usage": {"runtime": 0.0, "user": 0.02, "system": 0.0, "memory_peak": null}});
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(&document[key], value, "{key}");
    }
}

async fn all_records_of_a_batch_are_there(site: impl Site) {
    let (ours, theirs) = (site.store(), site.store());
    let batch = (0..300).map(|n| record(&n.to_string(), TaskState::Success, &json!(n))).collect();
    ours.put(batch).await.unwrap();
    ours.put(Vec::new()).await.unwrap();
    for n in 0..300 {
        assert_eq!(theirs.get(&n.to_string()).await.unwrap().unwrap().value(), json!(n));
    }
}

async fn what_is_forgotten_is_unknown(site: impl Site) {
    let (ours, theirs) = (site.store(), site.store());
    let stored = ["a", "b", "c"].map(|id| record(id, TaskState::Failure, &json!(null)));
    ours.put(stored.to_vec()).await.unwrap();
    theirs.forget(vec!["a".into(), "c".into(), "no such".into()]).await.unwrap();
    assert!(ours.get("a").await.unwrap().is_none() && ours.get("c").await.unwrap().is_none());
    assert!(ours.get("b").await.unwrap().is_some());
}

async fn expired_results_go_in_bounded_steps(site: impl Site) {
    const OLD: u64 = 2500;
    let store = site.store();
    let hour_ago = now() - TimeDelta::hours(1);
    let old = |n: u64| Record {
        date_done: hour_ago,
        ..record(&n.to_string(), TaskState::Success, &json!(n))
    };
    store.put((0..OLD).map(old).collect()).await.unwrap();
    store.put(vec![record("fresh", TaskState::Failure, &json!(1))]).await.unwrap();
    let limit = now() - TimeDelta::minutes(1);
    assert_eq!(store.expire(hour_ago - TimeDelta::minutes(1)).await.unwrap(), 0);
    let mut steps = Vec::new();
    loop {
        match store.expire(limit).await.unwrap() {
            0 => break,
            removed => steps.push(removed),
        }
    }
    assert_eq!(steps.iter().sum::<u64>(), OLD);
    assert!(steps.len() > 1, "one step holds the lock for the others: {steps:?}");
    assert!(store.get("7").await.unwrap().is_none());
    assert!(store.get("fresh").await.unwrap().is_some());
}

async fn many_results_are_read_at_once(site: impl Site) {
    let store = site.store();
    let ids: Vec<String> = (0..1200).map(|n| n.to_string()).collect();
    let even = ids.iter().step_by(2).map(|id| record(id, TaskState::Success, &json!(id)));
    store.put(even.collect()).await.unwrap();
    let found = store.get_many(&ids).await.unwrap();
    assert_eq!(found.len(), 600);
    assert!(found.iter().all(|meta| meta.value() == json!(meta.task_id)));
    assert!(store.get_many(&[]).await.unwrap().is_empty());
}

async fn groups_are_saved_and_found(site: impl Site) {
    let store = site.store();
    let result = json!([["G", null], [[["A", null], null], [["B \"", null], null]]]);
    let graph = json!({"nodes": [{"id": "C"}]}).to_string();
    store.save_group("G", &result.to_string(), Some(graph.clone())).await.unwrap();
    store.save_group("H", "[[\"H\", null], []]", None).await.unwrap();
    let group = site.store().group("G").await.unwrap().unwrap();
    assert_eq!((&group.id[..], &group.result), ("G", &result));
    assert_eq!(
        group.graph.map(|text| serde_json::from_str(&text).unwrap()),
        Some(json!({"nodes": [{"id": "C"}]}))
    );
    assert!(store.group("H").await.unwrap().unwrap().graph.is_none());
    assert!(store.group("A").await.unwrap().is_none());
    for id in ["A", "B \"", "C", "G"] {
        assert_eq!(
            store.group_with(id).await.unwrap().map(|group| group.id).as_deref(),
            Some("G"),
            "{id}"
        );
    }
    assert!(store.group_with("nobody").await.unwrap().is_none());
    // Saved again it is another one.
    store.save_group("G", "[[\"G\", null], []]", None).await.unwrap();
    assert!(store.group_with("A").await.unwrap().is_none());
}

async fn a_listener_is_woken_by_another_connection(site: impl Site) {
    let (ours, theirs) = (site.store(), site.store());
    let mut delays = Vec::new();
    for n in 0..15 {
        let id = n.to_string();
        let mut listener = theirs.listen(std::slice::from_ref(&id)).await.unwrap();
        let looked = Notify::new();
        let waits = async {
            let begin = Instant::now();
            while theirs.get(&id).await.unwrap().is_none() {
                assert!(begin.elapsed() < SOON);
                looked.notify_one();
                listener.stored().await;
            }
            Instant::now()
        };
        let stores = async {
            looked.notified().await;
            ours.put(vec![record(&id, TaskState::Success, &json!(n))]).await.unwrap();
            Instant::now()
        };
        let (arrived, stored) = tokio::join!(waits, stores);
        delays.push(arrived.saturating_duration_since(stored));
    }
    delays.sort();
    assert!(delays[7] < WOKEN, "delays: {delays:?}");
}

async fn many_writers_lose_nothing(site: impl Site + Sync) {
    let write = |writer: usize| {
        let site = &site;
        move || {
            block_on(async {
                let store = site.store();
                for n in 0..200 {
                    let id = format!("{writer}-{n}");
                    store.put(vec![record(&id, TaskState::Success, &json!(n))]).await.unwrap();
                }
            });
        }
    };
    std::thread::scope(|scope| {
        (0..8).for_each(|writer| drop(scope.spawn(write(writer))));
    });
    let store = site.store();
    for writer in 0..8 {
        for n in 0..200 {
            assert!(store.get(&format!("{writer}-{n}")).await.unwrap().is_some());
        }
    }
}

#[test]
fn a_disabled_store_keeps_nothing() {
    block_on(async {
        let store = Store::Disabled(Disabled);
        store.put(vec![record("a", TaskState::Success, &json!(1))]).await.unwrap();
        assert!(store.get("a").await.unwrap().is_none());
        assert_eq!(store.expire(now()).await.unwrap(), 0);
        let listener = store.listen(&["a".into()]).await;
        let heard = async { listener.unwrap().stored().await };
        let waited = tokio::time::timeout(Duration::from_millis(20), heard).await;
        assert!(waited.is_err(), "nobody stores, nobody wakes");
    });
}
