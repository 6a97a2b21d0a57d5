//! Taking and settling.

use super::*;
use crate::contract::sites::Site;
use qworker::broker::Sorting;
use std::sync::Arc;

pub async fn published_then_taken_then_acknowledged(site: impl Site) {
    site.client().producer().publish(vec![posting("a"), posting("b")]).await.unwrap();
    let (mut consumer, worker) = site.worker("one@test", &[QUEUE]).await;
    let (mut other, _) = site.worker("two@test", &[QUEUE]).await;
    let taken = consumer.take(MANY).await.unwrap();
    assert_eq!(counted(&taken), [("a", 0), ("b", 0)]);
    assert_eq!(&*taken[0].queue, QUEUE);
    assert!(other.take(MANY).await.unwrap().is_empty(), "what one worker has no other gets");
    ack(&worker, &taken).await;
    worker.producer().publish(vec![posting("c")]).await.unwrap();
    assert_eq!(ids(&other.take(MANY).await.unwrap()), ["c"], "acknowledged, they are gone");
}

pub async fn higher_priorities_come_first_then_older_ones(site: impl Site) {
    let client = site.client();
    let with = |id: &str, priority| Posting {
        priority: client.abilities().priorities.number(Some(priority)),
        ..posting(id)
    };
    let sent = vec![with("0", 0), with("9a", 9), with("5", 5), with("9b", 9), with("0b", 0)];
    site.client().producer().publish(sent).await.unwrap();
    let (mut consumer, _worker) = site.worker("one@test", &[QUEUE]).await;
    let first = consumer.take(Want { slots: 3, ahead: 0 }).await.unwrap();
    let rest = consumer.take(MANY).await.unwrap();
    assert_eq!((ids(&first), ids(&rest)), (vec!["9a", "9b", "5"], vec!["0", "0b"]));
}

pub async fn no_queue_starves_another(site: impl Site) {
    let to =
        |queue: &str, n: usize| Posting { queue: queue.into(), ..posting(&format!("{queue}{n}")) };
    let mut sent: Vec<Posting> = (0..500).map(|n| to("full", n)).collect();
    sent.extend((0..10).flat_map(|n| [to("second", n), to("third", n)]));
    site.client().producer().publish(sent).await.unwrap();
    let (mut consumer, _worker) = site.worker("one@test", &["full", "second", "third"]).await;
    let mut rare = 0;
    for _ in 0..30 {
        let taken = consumer.take(Want { slots: 1, ahead: 0 }).await.unwrap();
        rare += taken.iter().filter(|one| &*one.queue != "full").count();
    }
    assert_eq!(rare, 20, "one by one, each queue gets its turn");
}

pub async fn no_more_is_taken_than_is_wanted(site: impl Site) {
    site.client()
        .producer()
        .publish((0..20).map(|n| posting(&n.to_string())).collect())
        .await
        .unwrap();
    let (mut consumer, _worker) = site.worker("one@test", &[QUEUE]).await;
    for (slots, ahead) in [(0, 0), (1, 0), (0, 3), (2, 4)] {
        let taken = consumer.take(Want { slots, ahead }).await.unwrap();
        assert_eq!(taken.len(), slots + ahead, "{slots} slots and {ahead} ahead");
    }
}

pub async fn a_suspect_is_taken_into_a_free_slot_only(site: impl Site) {
    let (mut consumer, worker) = site.worker("one@test", &[QUEUE]).await;
    worker.producer().publish(vec![posting("suspect")]).await.unwrap();
    let taken = consumer.take(MANY).await.unwrap();
    settle(&worker, &taken[0], Settle::Redeliver(clock::now())).await;
    worker.producer().publish(vec![posting("fresh")]).await.unwrap();
    let ahead = take_until(&mut consumer, Want { slots: 0, ahead: 10 }, 1).await;
    assert_eq!(counted(&ahead), [("fresh", 0)], "it would be blamed for a crash of others");
    let started = consumer.take(Want { slots: 1, ahead: 10 }).await.unwrap();
    assert_eq!(counted(&started), [("suspect", 1)]);
}

pub async fn released_it_is_back_in_its_place_uncounted(site: impl Site) {
    let (mut consumer, worker) = site.worker("one@test", &[QUEUE]).await;
    worker.producer().publish(vec![posting("a"), posting("b")]).await.unwrap();
    let taken = consumer.take(Want { slots: 1, ahead: 0 }).await.unwrap();
    settle(&worker, &taken[0], Settle::Release).await;
    assert_eq!(counted(&consumer.take(MANY).await.unwrap()), [("a", 0), ("b", 0)]);
}

pub async fn redelivered_it_is_counted(site: impl Site) {
    let (mut consumer, worker) = site.worker("one@test", &[QUEUE]).await;
    worker.producer().publish(vec![posting("a")]).await.unwrap();
    for lost in 0..4 {
        let taken = take_until(&mut consumer, MANY, 1).await;
        assert_eq!(counted(&taken), [("a", lost)]);
        settle(&worker, &taken[0], Settle::Redeliver(after_ms(10))).await;
    }
}

pub async fn replaced_by_its_retry_in_one_step(site: impl Site) {
    let (mut consumer, worker) = site.worker("one@test", &[QUEUE]).await;
    let with = |id: &str, priority| Posting {
        priority: worker.abilities().priorities.number(Some(priority)),
        ..posting(id)
    };
    worker.producer().publish(vec![with("a", 7), with("b", 3)]).await.unwrap();
    let taken = consumer.take(Want { slots: 1, ahead: 0 }).await.unwrap();
    settle(&worker, &taken[0], Settle::Redeliver(clock::now())).await;
    let taken = take_until(&mut consumer, Want { slots: 1, ahead: 0 }, 1).await;
    assert_eq!(counted(&taken), [("a", 1)]);
    let due = after_ms(50);
    settle(
        &worker,
        &taken[0],
        Settle::Replace(
            Payload::from_envelope(format!("{} \"id\": \"a\"", payload_of("retry"))),
            due,
        ),
    )
    .await;
    assert_eq!(worker.admin().find("a".into()).await.unwrap(), waiting(Some(due)));
    assert_eq!(ids(&consumer.take(MANY).await.unwrap()), ["b"], "the retry is not due yet");
    let retry = take_until(&mut consumer, MANY, 1).await;
    assert!(clock::now() >= due);
    assert!(text(&retry[0]).starts_with(&payload_of("retry")), "{retry:?}");
    assert_eq!(retry[0].deliveries, 0, "a new try begins to count anew");
}

pub async fn settled_by_its_owner_only(site: impl Site) {
    let (mut consumer, worker) = site.worker("one@test", &[QUEUE]).await;
    let (_other_consumer, other) = site.worker("two@test", &[QUEUE]).await;
    worker.producer().publish(vec![posting("a")]).await.unwrap();
    let taken = consumer.take(MANY).await.unwrap();
    for settle in
        [Settle::Ack, Settle::Release, Settle::Replace(Payload::from_envelope("x"), clock::now())]
    {
        other.settle(vec![(taken[0].tag, settle)]).await.unwrap();
    }
    assert!(consumer.take(MANY).await.unwrap().is_empty(), "it is held, as before");
    settle(&worker, &taken[0], Settle::Release).await;
    assert_eq!(counted(&consumer.take(MANY).await.unwrap()), [("a", 0)]);
}

pub async fn a_payload_travels_whole(site: impl Site) {
    let large = "ü".repeat(5_000_000);
    let payloads = ["", "no { JSON \u{0} at all \u{1f600}\r\n", "{\"a\": \"'\\\"\"}", &large];
    let with = |payload: &str| Posting { payload: Payload::from_envelope(payload), ..posting("x") };
    site.client()
        .producer()
        .publish(payloads.iter().map(|payload| with(payload)).collect())
        .await
        .unwrap();
    let (mut consumer, _worker) = site.worker("one@test", &[QUEUE]).await;
    let taken = consumer.take(MANY).await.unwrap();
    assert_eq!(taken.len(), payloads.len());
    for (one, sent) in taken.iter().zip(payloads) {
        assert!(text(one) == sent, "{} bytes became {}", sent.len(), one.payload.size());
    }
}

fn waiting(eta: Option<DateTime<Utc>>) -> qworker::broker::Whereabouts {
    qworker::broker::Whereabouts::Waiting {
        queue: QUEUE.into(),
        eta: eta.map(|eta| clock::epoch(eta).to_string()),
    }
}

/// A message to [`QUEUE`] for a task of this name.
fn call(task: &str, id: &str) -> Posting {
    let payload = format!(
        r#"{{"body": "", "headers": {{"task": "{task}", "id": "{id}"}}, "properties": {{}}}}"#
    );
    Posting { payload: Payload::from_envelope(payload), ..posting(id) }
}

pub async fn what_is_left_to_others_stays_for_them(site: impl Site) {
    let (mut consumer, worker) = site.worker("one@test", &[QUEUE]).await;
    let (mut other, theirs) = site.worker("two@test", &[QUEUE]).await;
    worker.producer().publish(vec![call("py.x", "first")]).await.unwrap();
    let taken = consumer.take(MANY).await.unwrap();
    settle(&worker, &taken[0], Settle::Pass("py.x".into())).await;
    consumer.sort(Sorting {
        left: Arc::from([Arc::from("py.x"), Arc::from("py.\"y\u{e9}")]),
        parked: Arc::default(),
    });
    assert!(consumer.take(MANY).await.unwrap().is_empty(), "it is left alone");
    let taken = other.take(MANY).await.unwrap();
    assert_eq!(taken.iter().map(|one| one.deliveries).collect::<Vec<_>>(), [0], "uncounted");
    ack(&theirs, &taken).await;
    // More than one look passes over, in three names, and what is ours behind them.
    let name = |n: usize| ["py.x", r#"py.\"y\u00e9"#, "py.x"][n % 3];
    let strange = (0..1500).map(|n| call(name(n), &format!("strange{n}"))).collect();
    worker.producer().publish(strange).await.unwrap();
    worker.producer().publish(vec![call("ours", "ours")]).await.unwrap();
    let found = take_until(&mut consumer, Want { slots: 2, ahead: 3 }, 1).await;
    assert_eq!(found.len(), 1);
    assert!(text(&found[0]).contains("ours"), "{found:?}");
    ack(&worker, &found).await;
    consumer.sort(Sorting::default());
    let all = take_until(&mut consumer, MANY, 1500).await;
    assert_eq!((all.len(), all.iter().all(|one| one.deliveries == 0)), (1500, true));
}
