//! Many at once, and nobody at all.

use super::*;
use crate::contract::sites::{Site, WOKEN};
use std::collections::BTreeSet;

pub async fn many_writers_lose_nothing<S: Site>(site: S) {
    const WRITERS: usize = 8;
    const EACH: usize = 500;
    let address = site.address();
    // A folder that two processes make at once is one of the things that could go wrong.
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let address = &address;
            scope.spawn(move || {
                crate::harness::block_on(async {
                    let client = S::at(address).client();
                    for batch in 0..EACH / 25 {
                        let sends = (0..25).map(|n| {
                            let id = format!("{writer}-{}", batch * 25 + n);
                            let client = client.clone();
                            async move { client.producer().publish(vec![posting(&id)]).await }
                        });
                        for sent in join_all(sends).await {
                            sent.unwrap();
                        }
                    }
                });
            });
        }
    });
    let (mut consumer, _worker) = site.worker("one@test", &[QUEUE]).await;
    let taken = take_until(&mut consumer, MANY, WRITERS * EACH).await;
    let distinct: BTreeSet<&str> = ids(&taken).into_iter().collect();
    assert_eq!((taken.len(), distinct.len()), (WRITERS * EACH, WRITERS * EACH));
}

async fn join_all<F>(all: impl Iterator<Item = F>) -> Vec<F::Output>
where
    F: Future + 'static,
    F::Output: 'static,
{
    let local = tokio::task::LocalSet::new();
    let running: Vec<_> = all.map(|one| local.spawn_local(one)).collect();
    local
        .run_until(async {
            let mut done = Vec::new();
            for one in running {
                done.push(one.await.unwrap());
            }
            done
        })
        .await
}

pub async fn many_readers_share_without_doubles<S: Site>(site: S) {
    const COUNT: usize = 1000;
    site.client()
        .producer()
        .publish((0..COUNT).map(|n| posting(&n.to_string())).collect())
        .await
        .unwrap();
    let address = site.address();
    let read = || {
        crate::harness::block_on(async {
            let (mut consumer, worker) = S::at(&address).worker("w@test", &[QUEUE]).await;
            let mut mine = Vec::new();
            loop {
                let taken = consumer.take(Want { slots: 3, ahead: 4 }).await.unwrap();
                if taken.is_empty() {
                    return mine;
                }
                ack(&worker, &taken).await;
                mine.extend(taken.iter().map(|one| id(one).to_string()));
            }
        })
    };
    let all: Vec<String> = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..4).map(|_| scope.spawn(read)).collect();
        readers.into_iter().flat_map(|reader| reader.join().unwrap()).collect()
    });
    let distinct: BTreeSet<&String> = all.iter().collect();
    assert_eq!((all.len(), distinct.len()), (COUNT, COUNT));
}

pub async fn a_publish_wakes_a_waiting_worker(site: impl Site) {
    let (mut consumer, worker) = site.worker("one@test", &[QUEUE]).await;
    let client = site.client();
    let mut delays = Vec::new();
    for n in 0..15 {
        while !consumer.take(MANY).await.unwrap().is_empty() {}
        let waits = async {
            let taken = take_until(&mut consumer, MANY, 1).await;
            (Instant::now(), taken)
        };
        let sends = async {
            // The worker begins to wait first: both are on this one thread.
            tokio::task::yield_now().await;
            client.producer().publish(vec![posting(&n.to_string())]).await.unwrap();
            Instant::now()
        };
        let ((arrived, taken), sent) = tokio::join!(waits, sends);
        ack(&worker, &taken).await;
        delays.push(arrived.saturating_duration_since(sent));
    }
    delays.sort();
    assert!(delays[7] < WOKEN, "delays: {delays:?}");
}

pub async fn a_dropped_wait_loses_no_wake_up(site: impl Site) {
    let (mut consumer, worker) = site.worker("one@test", &[QUEUE]).await;
    let client = site.client();
    let mut delays = Vec::new();
    for n in 0..15 {
        assert!(consumer.take(MANY).await.unwrap().is_empty());
        let _ = tokio::time::timeout(Duration::from_millis(1), consumer.wait()).await;
        client.producer().publish(vec![posting(&n.to_string())]).await.unwrap();
        let _ = tokio::time::timeout(Duration::ZERO, consumer.wait()).await;
        let begin = Instant::now();
        let taken = take_until(&mut consumer, MANY, 1).await;
        delays.push(begin.elapsed());
        ack(&worker, &taken).await;
    }
    delays.sort();
    assert!(delays[7] < WOKEN, "delays: {delays:?}");
}

pub async fn an_idle_worker_does_not_poll(site: impl Site) {
    let (mut consumer, worker) = site.worker("one@test", &[QUEUE]).await;
    worker.producer().publish(vec![posting("a")]).await.unwrap();
    let taken = take_until(&mut consumer, MANY, 1).await;
    ack(&worker, &taken).await;
    let (begin, mut looks) = (Instant::now(), 0);
    while begin.elapsed() < Duration::from_secs(3) {
        assert!(consumer.take(MANY).await.unwrap().is_empty());
        let left = Duration::from_secs(3).saturating_sub(begin.elapsed());
        let _ = tokio::time::timeout(left, consumer.wait()).await;
        looks += 1;
    }
    // A few right after the last message, then about one a second.
    assert!(looks <= 20, "{looks} looks at an empty queue in three seconds");
}
