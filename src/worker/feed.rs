//! Takes messages as they are wanted, and waits when there are none.

use super::core::Event;
use super::outage::Outage;
use super::pulse::Pulse;
use crate::backend::Store;
use crate::broker::{Delivery, Error, Inlet, Results, Sorting, Want};
use std::collections::HashSet;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// How long the broker may take to hear that this worker ends.
const CLOSE_MAX: Duration = Duration::from_secs(5);

/// The worker's end of the broker.
pub(super) struct Feed {
    pub inlet: Inlet,
    /// `None` closes the inlet.
    pub wants: watch::Receiver<Option<(u64, Want)>>,
    /// What the broker does by the names of tasks.
    pub sorting: watch::Receiver<Sorting>,
    /// Tells which tasks were revoked.
    pub store: Store,
}

impl Feed {
    /// Works until nothing is ever wanted again.
    pub(super) async fn run(mut self, events: mpsc::UnboundedSender<Event>, pulse: Pulse) {
        self.inlet.see_results(results_of(&self.store));
        let mut done = None;
        let mut outage = Outage::new("cannot take messages", pulse.clone());
        let mut deaf = Outage::new("cannot read results", pulse);
        loop {
            if self.sorting.has_changed().unwrap_or(false) {
                let names = self.sorting.borrow_and_update().clone();
                self.inlet.sort(names);
            }
            let wanted = *self.wants.borrow_and_update();
            let Some((turn, want)) = wanted else { break };
            if want == Want::default() || done == Some(turn) {
                if self.wants.changed().await.is_err() {
                    break;
                }
                continue;
            }
            if self.inlet.is_dry() {
                self.wait().await;
                continue;
            }
            match self.inlet.take(want).await {
                Ok(deliveries) => {
                    outage.end("the broker");
                    if deliveries.is_empty() {
                        self.wait().await;
                        continue;
                    }
                    let revoked = self.revoked(&deliveries, &mut deaf).await;
                    let (gone, left) = split(deliveries, &revoked);
                    done = Some(turn);
                    let _ = events.send(Event::Delivered(left));
                    if !gone.is_empty() {
                        let _ = events.send(Event::Revoked(gone));
                    }
                }
                Err(error) => outage.endure(&error).await,
            }
        }
        let closed = tokio::time::timeout(CLOSE_MAX, self.inlet.close()).await;
        if let Err(error) = closed.unwrap_or_else(|_| Err(Error::late(CLOSE_MAX))) {
            let who = "other workers take over what was held";
            tracing::error!("cannot close the broker: {error}; {who}");
        }
        let _ = events.send(Event::Closed);
    }

    async fn wait(&mut self) {
        tokio::select! {
            () = self.inlet.wait() => {}
            _ = self.wants.changed() => {}
            _ = self.sorting.changed() => self.sorting.mark_changed(),
        }
    }

    /// Which of these tasks somebody has revoked, as the result store says where the broker could
    /// not. A store that does not
    /// answer is waited for: what it cannot say is not a no. A worker that is to end waits for
    /// nothing.
    async fn revoked(&mut self, deliveries: &[Delivery], deaf: &mut Outage) -> HashSet<String> {
        if matches!(self.store, Store::Disabled) {
            return HashSet::new();
        }
        let unseen = deliveries.iter().filter(|one| one.revoked.is_none());
        let ids: Vec<String> = unseen.filter_map(|one| one.payload.id()).collect();
        while !ids.is_empty() && self.wants.borrow().is_some() {
            match self.store.revoked(&ids).await {
                Ok(revoked) => {
                    deaf.end("the result store");
                    return revoked;
                }
                Err(error) => deaf.endure(&error).await,
            }
        }
        HashSet::new()
    }
}

/// Where a broker may look for results itself.
fn results_of(store: &Store) -> Results {
    match store {
        Store::Sqlite(store) => {
            Results::Sqlite(store.db().clone(), crate::backend::sqlite::Store::revoked_within)
        }
        Store::Redis(store) => Results::Redis(store.link().server().clone(), store.stem()),
        Store::Disabled => Results::Elsewhere,
    }
}

/// Those that were revoked, `ids` among them, and the others.
fn split(deliveries: Vec<Delivery>, ids: &HashSet<String>) -> (Vec<Delivery>, Vec<Delivery>) {
    deliveries.into_iter().partition(|one| {
        let asked = || !ids.is_empty() && one.payload.id().is_some_and(|id| ids.contains(&id));
        one.revoked.unwrap_or_else(asked)
    })
}
