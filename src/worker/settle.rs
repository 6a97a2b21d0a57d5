//! Stores, publishes and settles what the worker decided, in batches and in that
//! order: a crash in between repeats work and loses none. A store that fails is asked
//! again until it answers; meanwhile nothing counts as done.

use super::core::Event;
use super::finish::Verdict;
use super::outage::Outage;
use super::pulse::Pulse;
use super::request::Key;
use crate::backend::Store;
use crate::broker::redis::Commit;
use crate::broker::{Error, Outlet, Posting, Settle, Tag};
use crate::link::sqlite::Durability;
use crate::wire::Record;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

/// Orders handled in one step at the most.
const BATCH_MAX: usize = 512;

/// Orders wait for company for so long at the most.
const COMPANY_WAIT: Duration = Duration::from_millis(2);

/// Bytes of results up to which they are stored in the same step as all else of a batch.
const STEP_MAX: usize = 4 * 1024 * 1024;

/// One thing to be settled.
#[derive(Debug)]
pub enum Order {
    /// What became of a request.
    Verdict(Key, Tag, Box<Verdict>),
    /// A record that nobody waits for.
    Record(Box<Record>),
}

/// Works until the last sender of `orders` is gone. While `hurry` is false, some orders
/// are waited for.
pub async fn run(
    store: Store,
    outlet: Outlet,
    mut orders: mpsc::UnboundedReceiver<Order>,
    mut hurry: watch::Receiver<bool>,
    events: mpsc::UnboundedSender<Event>,
    pulse: Pulse,
) {
    let mut waiting = Vec::new();
    while orders.recv_many(&mut waiting, BATCH_MAX).await > 0 {
        // Whichever ends the wait, the orders there are get settled.
        let _ = timeout(COMPANY_WAIT, hurry.wait_for(|hurry| *hurry)).await;
        while waiting.len() < BATCH_MAX
            && let Ok(order) = orders.try_recv()
        {
            waiting.push(order);
        }
        let batch = Batch::of(waiting.drain(..));
        settle_until_done(&store, &outlet, &batch, &pulse).await;
        // The worker's loop ends after this task: somebody listens.
        let _ = events.send(Event::Settled(batch.keys));
    }
}

#[derive(Default)]
struct Batch {
    keys: Vec<Key>,
    records: Vec<Record>,
    postings: Vec<Posting>,
    settlements: Vec<(Tag, Settle)>,
    durable: bool,
    /// Names its messages, should it have to be sent twice.
    token: String,
}

impl Batch {
    fn commit(&self, results: Vec<(String, Option<u64>, String)>) -> Commit<'_> {
        Commit {
            results,
            postings: &self.postings,
            token: &self.token,
            settlements: &self.settlements,
        }
    }

    fn of(orders: impl Iterator<Item = Order>) -> Batch {
        let mut batch = Batch::default();
        for order in orders {
            match order {
                Order::Record(record) => batch.records.push(*record),
                Order::Verdict(key, tag, verdict) => {
                    batch.keys.push(key);
                    batch.durable |= verdict.durable || verdict.publish.is_some();
                    batch.records.extend(verdict.record);
                    batch.postings.extend(verdict.publish);
                    batch.settlements.extend(verdict.settle.map(|settle| (tag, settle)));
                }
            }
        }
        if !batch.postings.is_empty() {
            batch.token = uuid::Uuid::now_v7().simple().to_string();
        }
        batch
    }
}

async fn settle_until_done(store: &Store, outlet: &Outlet, batch: &Batch, pulse: &Pulse) {
    let mut outage = Outage::new("cannot store results or acknowledge", pulse.clone());
    while let Err(error) = settle(store, outlet, batch).await {
        outage.endure(&error).await;
    }
    outage.end("the store");
}

async fn settle(store: &Store, outlet: &Outlet, batch: &Batch) -> Result<(), Error> {
    match (store, outlet) {
        (Store::Sqlite(s), Outlet::Sqlite(o)) if s.db().same(o.db()) => {
            return settle_in_one_file(s, o, batch).await;
        }
        (Store::Redis(s), Outlet::Redis(o)) if s.link().same(o.link()) => {
            return settle_in_one_step(s, o, batch).await;
        }
        _ => {}
    }
    if !batch.records.is_empty() {
        store.put(batch.records.clone()).await?;
    }
    if let Outlet::Redis(outlet) = outlet {
        return outlet.commit(batch.commit(Vec::new())).await;
    }
    if !batch.postings.is_empty() {
        outlet.publish(batch.postings.clone()).await?;
    }
    if !batch.settlements.is_empty() {
        outlet.settle(batch.settlements.clone()).await?;
    }
    Ok(())
}

/// Results and messages on the same server: one step, likewise.
async fn settle_in_one_step(
    store: &crate::backend::redis::Store,
    outlet: &crate::broker::redis::Outlet,
    batch: &Batch,
) -> Result<(), Error> {
    let large =
        batch.records.iter().map(|record| record.result.get().len()).sum::<usize>() > STEP_MAX;
    if large {
        store.put(batch.records.clone()).await?;
        return outlet.commit(batch.commit(Vec::new())).await;
    }
    let results = batch.records.iter().map(|record| store.entry(record)).collect();
    outlet.commit(batch.commit(results)).await
}

/// Results and messages in the same file: one transaction, so not even a crash between
/// a result and its acknowledgement can run a task twice.
async fn settle_in_one_file(
    store: &crate::backend::sqlite::Store,
    outlet: &crate::broker::sqlite::Outlet,
    batch: &Batch,
) -> Result<(), Error> {
    let (records, settlements) = (batch.records.clone(), batch.settlements.clone());
    let postings = batch.postings.clone();
    let moved = !postings.is_empty() || settlements.iter().any(|(_, settle)| settle.moves());
    let durability = if batch.durable { Durability::Disk } else { Durability::Process };
    let inner = outlet.clone();
    outlet
        .db()
        .run(durability, move |c| {
            crate::backend::sqlite::Store::put_within(c, &records)?;
            inner.publish_within(c, &postings)?;
            inner.settle_within(c, &settlements)
        })
        .await?;
    if !batch.records.is_empty() {
        store.ring();
    }
    if moved {
        outlet.ring();
    }
    Ok(())
}
