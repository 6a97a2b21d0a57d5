//! Processes that die with messages in their hands.

use super::*;
use crate::contract::sites::Site;
use crate::harness::child::Child;

pub async fn a_killed_worker_gives_back_what_it_held_counted(site: impl Site) {
    let (mut consumer, worker) = site.worker("survivor@test", &[QUEUE]).await;
    worker.producer().publish((0..5).map(|n| posting(&n.to_string())).collect()).await.unwrap();
    let child = Child::start("hold", &[&site.address(), "3"]);
    assert_eq!(child.hear(), "held");
    assert_eq!(counted(&consumer.take(MANY).await.unwrap()), [("3", 0), ("4", 0)]);
    // For longer than a worker looks for dead ones: the living keep theirs.
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_millis(1500) {
        let _ = tokio::time::timeout(Duration::from_millis(300), consumer.wait()).await;
        assert!(consumer.take(MANY).await.unwrap().is_empty(), "its holder is alive");
    }
    child.kill();
    let taken = take_until(&mut consumer, MANY, 3).await;
    assert_eq!(counted(&taken), [("0", 1), ("1", 1), ("2", 1)]);
}

pub async fn from_the_second_loss_on_it_waits_longer(site: impl Site) {
    site.client().producer().publish(vec![posting("a")]).await.unwrap();
    for _ in 0..2 {
        let child = Child::start("run", &[&site.address(), "1"]);
        assert_eq!(child.hear(), "held");
        child.kill();
    }
    let (mut consumer, _worker) = site.worker("survivor@test", &[QUEUE]).await;
    let begin = Instant::now();
    let taken = take_until(&mut consumer, MANY, 1).await;
    assert_eq!(counted(&taken), [("a", 2)]);
    let waited = begin.elapsed();
    let delay = qworker::bounds::redelivery_delay(1);
    assert!(waited + Duration::from_millis(100) >= delay, "after {waited:?} only");
}

pub async fn a_suspect_counts_from_its_marked_start_on(site: impl Site) {
    site.client().producer().publish(vec![posting("a"), posting("b")]).await.unwrap();
    // The first loss counts: it may have started. The second and third had not.
    for _ in 0..3 {
        let child = Child::start("hold", &[&site.address(), "2"]);
        assert_eq!(child.hear(), "held");
        child.kill();
    }
    let (mut consumer, worker) = site.worker("survivor@test", &[QUEUE]).await;
    let taken = take_until(&mut consumer, MANY, 2).await;
    assert_eq!(counted(&taken), [("a", 1), ("b", 1)]);
    assert!(taken.iter().all(|one| one.suspect));
    settle(&worker, &taken[0], Settle::Mark).await;
    settle(&worker, &taken[0], Settle::Release).await;
    let again = take_until(&mut consumer, MANY, 1).await;
    assert_eq!(counted(&again), [("a", 1)], "a mark alone does not count");
}

pub async fn a_closed_worker_gives_back_uncounted(site: impl Site) {
    let (mut consumer, worker) = site.worker("one@test", &[QUEUE]).await;
    let (mut other, _) = site.worker("two@test", &[QUEUE]).await;
    worker.producer().publish((0..3).map(|n| posting(&n.to_string())).collect()).await.unwrap();
    let taken = consumer.take(MANY).await.unwrap();
    settle(&worker, &taken[1], Settle::Ack).await;
    consumer.close().await.unwrap();
    assert_eq!(counted(&take_until(&mut other, MANY, 2).await), [("0", 0), ("2", 0)]);
}

pub async fn what_publish_accepted_survives_a_kill(site: impl Site) {
    let child = Child::start("publish", &[&site.address(), "p", "100"]);
    let mut accepted: Vec<String> = (0..50).map(|_| child.hear()).collect();
    accepted.extend(child.kill());
    let (mut consumer, _worker) = site.worker("one@test", &[QUEUE]).await;
    let taken = consumer.take(MANY).await.unwrap();
    let found: Vec<&str> = taken.iter().map(|one| text(one).split_once(' ').unwrap().0).collect();
    assert!(accepted.len() >= 50);
    // One more may be there: accepted, and killed before it could say so.
    assert!(found.len() <= accepted.len() + 1, "{} of {}", found.len(), accepted.len());
    assert_eq!(found[..accepted.len()], accepted);
}
