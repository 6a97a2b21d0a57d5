//! What is true of the Redis broker and store alone: keys that Python shares, servers that
//! fail, and who is let in.

mod access;
mod accidents;
mod leases;
mod odd;
pub mod proxy;
mod wire;

use super::broker::sites::{Redis, Site};
use super::broker::{MANY, QUEUE, ack, ids, posting, settle, take_until};
use crate::harness::redis::Server;
use crate::harness::{SOON, block_on};
use qworker::broker::{Delivery, Inlet, Want};
use std::time::{Duration, Instant};

/// Asks until `look` finds something, while the inlet's own work goes on; panics with `what`.
async fn meanwhile<T>(inlet: &mut Inlet, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begin.elapsed() < SOON, "not in time: {what}");
        let _ = tokio::time::timeout(Duration::from_millis(20), inlet.wait()).await;
    }
}

/// Takes until something comes; a server that is not there yet is asked again.
async fn take_in_spite(inlet: &mut Inlet, count: usize) -> Vec<Delivery> {
    let begin = Instant::now();
    let mut taken = Vec::new();
    while taken.len() < count {
        assert!(begin.elapsed() < SOON, "only these came: {taken:?}");
        if let Ok(some) = inlet.take(MANY).await {
            taken.extend(some);
        }
        let _ = tokio::time::timeout(Duration::from_millis(20), inlet.wait()).await;
    }
    taken
}
