//! Messages that are for later.

use super::*;
use crate::contract::sites::Site;

/// Late by less than the pause after which a worker looks again anyway.
const PROMPT: Duration = Duration::from_millis(500);

pub async fn not_before_its_time_and_then_at_once(site: impl Site) {
    let (mut consumer, _worker) = site.worker("one@test", &[QUEUE]).await;
    let mut delays = Vec::new();
    for _ in 0..5 {
        let at = after_ms(200);
        site.client().producer().publish(vec![due("later", at), posting("now")]).await.unwrap();
        assert_eq!(ids(&take_until(&mut consumer, MANY, 1).await), ["now"]);
        assert_eq!(ids(&take_until(&mut consumer, MANY, 1).await), ["later"]);
        let late = clock::now() - at;
        assert!(late.num_microseconds() >= Some(0), "{late} early");
        delays.push(late.to_std().unwrap());
    }
    delays.sort();
    assert!(delays[2] < PROMPT, "delays: {delays:?}");
}

pub async fn any_number_of_scheduled_ones_hides_no_ready_one(site: impl Site) {
    let (mut consumer, worker) = site.worker("one@test", &[QUEUE]).await;
    let hour = after_ms(3_600_000);
    let mut sent: Vec<Posting> = (0..3000).map(|n| due(&n.to_string(), hour)).collect();
    sent.push(posting("ready"));
    worker.producer().publish(sent).await.unwrap();
    assert_eq!(ids(&consumer.take(Want { slots: 10, ahead: 100 }).await.unwrap()), ["ready"]);
    // And all of them arrive when many are due at once.
    let at = after_ms(100);
    worker
        .producer()
        .publish((0..1500).map(|n| due(&format!("due{n}"), at)).collect())
        .await
        .unwrap();
    let taken = take_until(&mut consumer, MANY, 1500).await;
    assert!(taken.iter().all(|one| id(one).starts_with("due")) && taken.len() == 1500);
}

pub async fn parked_until_a_time_uncounted(site: impl Site) {
    let (mut consumer, worker) = site.worker("one@test", &[QUEUE]).await;
    worker.producer().publish(vec![posting("a")]).await.unwrap();
    for _ in 0..3 {
        let taken = take_until(&mut consumer, MANY, 1).await;
        assert_eq!(counted(&taken), [("a", 0)]);
        let at = after_ms(60);
        settle(&worker, &taken[0], Settle::Park(at)).await;
        assert!(consumer.take(MANY).await.unwrap().is_empty() || clock::now() >= at);
    }
}
