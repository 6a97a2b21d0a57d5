//! What is true of the Redis broker and store alone: keys that Python shares, servers that
//! fail, and who is let in.

mod access;
mod accidents;
mod chords;
mod leases;
mod odd;
pub mod proxy;
mod wire;

use super::broker::{MANY, QUEUE, ack, ids, posting, settle, take_until};
use super::sites::{Redis, Site, Worker};
use crate::harness::redis::Server;
use crate::harness::{SOON, block_on};
use qworker::broker::redis::Document;
use qworker::broker::{Consumer, Delivery, Results, Settler, Want};
use qworker::link::url::BrokerUrl;
use qworker::wire::Record;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Results on this server, under keys that begin so.
fn results_at(
    url: &str,
    stem: &str,
    entry: impl Fn(&Record) -> Document + Send + Sync + 'static,
) -> Results {
    let Ok(BrokerUrl::Redis(at)) = BrokerUrl::parse(url, Path::new("/")) else { panic!() };
    Results::Redis { server: (*at).clone(), stem: stem.into(), entry: Arc::new(entry) }
}

/// Settles for this worker, and keeps such results on its server.
fn keeping(
    worker: &Worker,
    url: &str,
    entry: impl Fn(&Record) -> Document + Send + Sync + 'static,
) -> Settler {
    let mut settler = worker.settler.clone();
    assert!(settler.keep_results(&results_at(url, "", entry)));
    settler
}

/// Asks until `look` finds something, while the consumer's own work goes on; panics with `what`.
async fn meanwhile<T>(
    consumer: &mut Consumer,
    what: &str,
    mut look: impl FnMut() -> Option<T>,
) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begin.elapsed() < SOON, "not in time: {what}");
        let _ = tokio::time::timeout(Duration::from_millis(20), consumer.wait()).await;
    }
}

/// Takes until something comes; a server that is not there yet is asked again.
async fn take_in_spite(consumer: &mut Consumer, count: usize) -> Vec<Delivery> {
    let begin = Instant::now();
    let mut taken = Vec::new();
    while taken.len() < count {
        assert!(begin.elapsed() < SOON, "only these came: {taken:?}");
        if let Ok(some) = consumer.take(MANY).await {
            taken.extend(some);
        }
        let _ = tokio::time::timeout(Duration::from_millis(20), consumer.wait()).await;
    }
    taken
}
