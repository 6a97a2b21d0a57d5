//! Takes messages when the worker wants some, and waits while the queues are empty.

use super::core::Event;
use super::demand::{ConsumerAction, Demand};
use super::health::troubles::Troubles;
use super::outage::Outage;
use crate::backend::Store;
use crate::broker::{self, Delivery, Error, Sorting, Want};
use std::collections::HashSet;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// How long closing the worker's end of the broker may take.
const CLOSE_MAX: Duration = Duration::from_secs(5);

/// The worker's end of the broker.
pub(super) struct Consumer {
    pub broker: broker::Consumer,
    /// See [`Demand::set`].
    pub wanted: watch::Receiver<Option<(u64, Want)>>,
    /// What the broker does by the names of tasks.
    pub sorting: watch::Receiver<Sorting>,
    /// Knows which tasks were revoked.
    pub store: Store,
}

impl Consumer {
    /// Works until the worker closes its end of the broker.
    pub(super) async fn run(mut self, events: mpsc::UnboundedSender<Event>, troubles: Troubles) {
        let mut demand = Demand::default();
        let mut outage = Outage::new("cannot take messages", troubles.clone());
        let mut unread = Outage::new("cannot read results", troubles);
        loop {
            if self.sorting.has_changed().unwrap_or(false) {
                let names = self.sorting.borrow_and_update().clone();
                self.broker.sort(names);
            }
            demand.set(*self.wanted.borrow_and_update());
            let (number, want) = match demand.next() {
                ConsumerAction::Close => break,
                ConsumerAction::Wait if self.wanted.changed().await.is_err() => break,
                ConsumerAction::Wait => continue,
                ConsumerAction::Take(number, want) => (number, want),
            };
            if self.broker.is_dry() {
                self.wait().await;
                continue;
            }
            match self.broker.take(want).await {
                Ok(deliveries) => {
                    outage.end("the broker");
                    if deliveries.is_empty() {
                        self.wait().await;
                        continue;
                    }
                    let revoked = self.revoked(&deliveries, &mut unread).await;
                    let (others, revoked) = split(deliveries, &revoked);
                    demand.fulfil(number);
                    let _ = events.send(Event::Delivered(others));
                    if !revoked.is_empty() {
                        let _ = events.send(Event::Revoked(revoked));
                    }
                }
                Err(error) => outage.wait(&error).await,
            }
        }
        let closed = tokio::time::timeout(CLOSE_MAX, self.broker.close()).await;
        if let Err(error) = closed.unwrap_or_else(|_| Err(Error::late(CLOSE_MAX))) {
            let who = "other workers take over what was held";
            tracing::error!("cannot close the broker: {error}; {who}");
        }
        let _ = events.send(Event::Closed);
    }

    async fn wait(&mut self) {
        tokio::select! {
            () = self.broker.wait() => {}
            _ = self.wanted.changed() => {}
            _ = self.sorting.changed() => self.sorting.mark_changed(),
        }
    }

    /// Which of these tasks the result store has as revoked, as far as the broker could not look
    /// there itself. Retries until the store answers, since no answer does not mean "no", or until
    /// the worker closes.
    async fn revoked(&mut self, deliveries: &[Delivery], unread: &mut Outage) -> HashSet<String> {
        if matches!(self.store, Store::Disabled(_)) {
            return HashSet::new();
        }
        let unseen = deliveries.iter().filter(|one| one.revoked.is_none());
        let ids: Vec<String> = unseen.filter_map(|one| one.payload.id()).collect();
        while !ids.is_empty() && self.wanted.borrow().is_some() {
            match self.store.revoked(&ids).await {
                Ok(revoked) => {
                    unread.end("the result store");
                    return revoked;
                }
                Err(error) => unread.wait(&error).await,
            }
        }
        HashSet::new()
    }
}

/// Those to be run, and the revoked ones, `ids` among them.
fn split(mut all: Vec<Delivery>, ids: &HashSet<String>) -> (Vec<Delivery>, Vec<Delivery>) {
    let is_revoked = |one: &mut Delivery| {
        let found = || !ids.is_empty() && one.payload.id().is_some_and(|id| ids.contains(&id));
        one.revoked.unwrap_or_else(found)
    };
    // Nearly always there is none, and nothing is moved.
    let revoked = all.extract_if(.., is_revoked).collect();
    (all, revoked)
}
