//! What people ask a broker, and what they order.

use super::*;
use crate::contract::sites::Site;
use qworker::broker::{Death, QueueInfo, Whereabouts, WorkerInfo};

fn death() -> Death {
    Death {
        reason: "malformed",
        detail: "body: expected three elements".into(),
        task_id: Some("a".into()),
        task: Some("add".into()),
        counts: true,
    }
}

pub async fn the_dead_are_kept_whole_and_can_be_sent_again(site: impl Site) {
    let (mut consumer, worker) = site.worker("one@test", &[QUEUE]).await;
    let payload = "neither \u{0} JSON nor {".to_string();
    let with = |id: &str, priority| Posting {
        priority: worker.abilities().priorities.number(Some(priority)),
        ..posting(id)
    };
    let sent = Posting { payload: Payload::from_envelope(&*payload), ..with("a", 4) };
    worker.producer().publish(vec![sent, with("b", 0)]).await.unwrap();
    let taken = consumer.take(Want { slots: 1, ahead: 0 }).await.unwrap();
    settle(&worker, &taken[0], Settle::Redeliver(clock::now())).await;
    let taken = take_until(&mut consumer, Want { slots: 1, ahead: 0 }, 1).await;
    settle(&worker, &taken[0], Settle::Dead(death())).await;

    let client = site.client();
    let dead = client.dead_letters().list().await.unwrap();
    assert_eq!(dead.len(), 1);
    let letter = &dead[0];
    assert_eq!(
        (letter.reason.as_str(), letter.detail.as_str()),
        ("malformed", death().detail.as_str())
    );
    assert_eq!((letter.task_id.as_str(), letter.task.as_str()), ("a", "add"));
    assert_eq!((letter.queue.as_str(), letter.deliveries), (QUEUE, 2));
    assert_eq!(letter.payload.to_envelope(), payload);
    assert!(letter.died_at.starts_with("20") && letter.died_at.ends_with("+00:00"));
    assert_eq!(client.admin().find("a".into()).await.unwrap(), Whereabouts::Dead(letter.number));

    assert_eq!(client.dead_letters().requeue(Some(vec![letter.number + 1])).await.unwrap(), 0);
    assert_eq!(client.dead_letters().requeue(Some(vec![letter.number])).await.unwrap(), 1);
    assert!(client.dead_letters().list().await.unwrap().is_empty());
    let again = consumer.take(MANY).await.unwrap();
    assert_eq!(counted(&again), [(payload.as_str(), 0), ("b", 0)], "its priority is kept");
}

pub async fn the_dead_can_be_removed(site: impl Site) {
    let (mut consumer, worker) = site.worker("one@test", &[QUEUE]).await;
    worker.producer().publish((0..4).map(|n| posting(&n.to_string())).collect()).await.unwrap();
    let taken = consumer.take(MANY).await.unwrap();
    let unknown = Death { task_id: None, task: None, ..death() };
    let all = taken.iter().map(|one| (one.tag, Settle::Dead(unknown.clone()))).collect();
    worker.settle(all).await.unwrap();
    let numbers: Vec<i64> =
        worker.dead_letters().list().await.unwrap().iter().map(|one| one.number).collect();
    assert_eq!(numbers.len(), 4);
    assert!(numbers.is_sorted(), "oldest first");
    assert_eq!(worker.dead_letters().purge(Some(vec![numbers[1], 99_999])).await.unwrap(), 1);
    assert_eq!(worker.dead_letters().requeue(Some(vec![numbers[0]])).await.unwrap(), 1);
    assert_eq!(worker.dead_letters().purge(None).await.unwrap(), 2);
    assert_eq!(worker.dead_letters().requeue(None).await.unwrap(), 0);
    assert_eq!(ids(&consumer.take(MANY).await.unwrap()), ["0"]);
}

pub async fn purge_takes_what_waits_and_leaves_what_is_held(site: impl Site) {
    let (mut consumer, worker) = site.worker("one@test", &[QUEUE]).await;
    let other = Posting { queue: "other".into(), ..posting("elsewhere") };
    worker
        .producer()
        .publish(vec![posting("held"), posting("ready"), due("later", after_ms(3_600_000)), other])
        .await
        .unwrap();
    let held = consumer.take(Want { slots: 1, ahead: 0 }).await.unwrap();
    let client = site.client();
    assert_eq!(client.admin().purge(vec![QUEUE.into(), "unheard of".into()]).await.unwrap(), 2);
    assert_eq!(client.admin().purge(vec![QUEUE.into()]).await.unwrap(), 0);
    settle(&worker, &held[0], Settle::Release).await;
    assert_eq!(ids(&consumer.take(MANY).await.unwrap()), ["held"]);
    assert_eq!(client.admin().purge(vec!["other".into()]).await.unwrap(), 1);
}

pub async fn queues_are_counted(site: impl Site) {
    let (mut consumer, worker) = site.worker("one@test", &[QUEUE, "media"]).await;
    let to_media = Posting { queue: "media".into(), ..due("m", after_ms(3_600_000)) };
    worker
        .producer()
        .publish(vec![posting("a"), posting("b"), posting("c"), to_media])
        .await
        .unwrap();
    let taken = consumer.take(Want { slots: 1, ahead: 0 }).await.unwrap();
    let info = |name: &str, ready, scheduled, held| QueueInfo {
        name: name.into(),
        ready,
        scheduled,
        held,
        odd: None,
    };
    let expected = [info(QUEUE, 2, 0, 1), info("media", 0, 1, 0)];
    assert_eq!(site.client().admin().queues().await.unwrap(), expected);
    ack(&worker, &taken).await;
    assert_eq!(site.client().admin().queues().await.unwrap()[0], info(QUEUE, 2, 0, 0));
}

pub async fn a_task_is_found_wherever_it_is(site: impl Site) {
    let (mut consumer, worker) = site.worker("one@test", &[QUEUE]).await;
    let client = site.client();
    if !client.abilities().finds {
        let place = client.admin().find("a".into()).await.unwrap();
        return assert_eq!(place, Whereabouts::Untold, "nobody takes it for gone");
    }
    let find = async |id: &str| client.admin().find(id.into()).await.unwrap();
    assert_eq!(find("a").await, Whereabouts::Absent);
    let hour = after_ms(3_600_000);
    worker.producer().publish(vec![posting("a"), due("later", hour)]).await.unwrap();
    assert_eq!(find("a").await, Whereabouts::Waiting { queue: QUEUE.into(), eta: None });
    let eta = Some(clock::epoch(hour).to_string());
    assert_eq!(find("later").await, Whereabouts::Waiting { queue: QUEUE.into(), eta });
    let taken = consumer.take(MANY).await.unwrap();
    assert_eq!(find("a").await, Whereabouts::Held { queue: QUEUE.into() });
    ack(&worker, &taken).await;
    assert_eq!(find("a").await, Whereabouts::Absent);
}

pub async fn messages_are_seen_without_being_taken(site: impl Site) {
    let (mut consumer, worker) = site.worker("one@test", &[QUEUE]).await;
    let text = |id: &str| format!("{{\"id\": \"{id}\"}}");
    let with = |posting: Posting| Posting {
        payload: Payload::from_envelope(text(&posting.task_id)),
        ..posting
    };
    let hour = after_ms(3_600_000);
    worker.producer().publish(vec![with(posting("a"))]).await.unwrap();
    let taken = consumer.take(MANY).await.unwrap();
    let more = vec![
        with(posting("b")),
        with(Posting { priority: 9, ..posting("c") }),
        with(due("d", hour)),
    ];
    worker.producer().publish(more).await.unwrap();
    let client = site.client();
    let (seen, is_cut) = client.admin().messages(1 << 20).await.unwrap();
    assert!(!is_cut);
    let mut seen: Vec<_> =
        seen.into_iter().map(|one| (one.payload.to_envelope().into_owned(), one.place)).collect();
    seen.sort_by(|a, b| a.0.cmp(&b.0));
    let waits = |eta| Whereabouts::Waiting { queue: QUEUE.into(), eta };
    let expected = [
        (text("a"), Whereabouts::Held { queue: QUEUE.into() }),
        (text("b"), waits(None)),
        (text("c"), waits(None)),
        (text("d"), waits(Some(clock::epoch(hour).to_string()))),
    ];
    assert_eq!(seen, expected);
    let (some, is_cut) = client.admin().messages(10).await.unwrap();
    assert!(is_cut && (1..4).contains(&some.len()), "{}", some.len());
    ack(&worker, &taken).await;
    assert_eq!(consumer.take(MANY).await.unwrap().len(), 2, "they are where they were");
}

pub async fn nodes_are_those_alive(site: impl Site) {
    let client = site.client();
    assert!(client.admin().nodes().await.unwrap().is_empty());
    let (one, _worker) = site.worker("one@test", &[QUEUE]).await;
    let child = crate::harness::child::Child::start("hold", &[&site.address(), "0"]);
    assert_eq!(child.hear(), "held");
    let names = async || -> Vec<String> {
        let nodes: Vec<WorkerInfo> = client.admin().nodes().await.unwrap();
        assert!(nodes.iter().all(|node| node.pid > 0));
        nodes.into_iter().map(|node| node.hostname).collect()
    };
    assert_eq!(names().await, ["holder@test", "one@test"]);
    child.kill();
    assert_eq!(names().await, ["one@test"]);
    one.close().await.unwrap();
    assert!(names().await.is_empty());
}
