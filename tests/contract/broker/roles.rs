//! What children of the contract do. Each works until it is killed, or until it cannot.

use super::sites::{Site, at};
use super::{QUEUE, posting, settle, take_until};
use crate::harness::block_on;
use crate::harness::child::say;
use qworker::broker::{Posting, Settle, Want};
use qworker::wire::Payload;

/// Plays a role; see the functions below.
pub fn play(role: &str, args: &[&str]) {
    match (role, args) {
        ("hold" | "run", [address, count]) => {
            let (count, runs) = (count.parse().unwrap(), role == "run");
            at!(address, site => block_on(hold(site, count, runs)));
        }
        ("publish", [address, prefix, bytes]) => {
            let bytes = bytes.parse().unwrap();
            at!(address, site => block_on(publish(site, prefix, bytes)));
        }
        ("beat", [address, file]) => block_on(crate::contract::ledger::beat(address, file)),
        _ => say(&format!("no such role: {role}")),
    }
}

/// Takes `count` messages, marks them as started if it `runs` them, says `held`, and never
/// lets go.
async fn hold(site: impl Site, count: usize, runs: bool) {
    let (mut consumer, worker) = site.worker("holder@test", &[QUEUE]).await;
    let taken = take_until(&mut consumer, Want { slots: count, ahead: 0 }, count).await;
    for one in taken.iter().filter(|_| runs) {
        settle(&worker, one, Settle::Mark).await;
    }
    say("held");
    std::future::pending::<()>().await;
}

/// Publishes messages of that many bytes one by one without end, and says the id of each when
/// it was accepted, or `refused: why` and ends.
async fn publish(site: impl Site, prefix: &str, bytes: usize) {
    let client = site.client();
    for number in 0.. {
        let id = format!("{prefix}{number}");
        let filled = Posting {
            payload: Payload::from_envelope(format!("{id} {}", "x".repeat(bytes))),
            ..posting(&id)
        };
        match client.producer().publish(vec![filled]).await {
            Ok(()) => say(&id),
            Err(error) => return say(&format!("refused: {error}")),
        }
    }
}
