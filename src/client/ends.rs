//! What a worker has of its broker and its result store: each pair does what becomes of a task in
//! as few steps as it can, and every pair keeps the same promises.

use super::Client;
use crate::backend::{self, Store};
use crate::broker::{Consumer, Disposition, Error, Item, Results, Settler, WorkerIdentity};
use crate::wire::Record;
use std::sync::Arc;

/// Where results go, and where deliveries are settled.
#[derive(Clone)]
pub struct Ends {
    store: Store,
    settler: Settler,
    /// Both are in one place, so the settler stores results in the same step: not even a crash
    /// between a result and its acknowledgement can run a task twice.
    together: bool,
}

impl Client {
    /// Registers a worker: gives what hands out messages, and what becomes of them.
    ///
    /// # Errors
    /// The broker or the result store cannot be reached.
    pub async fn consume(&self, who: WorkerIdentity<'_>) -> Result<(Consumer, Ends), Error> {
        let (mut consumer, settler) = self.broker.consume(who).await?;
        let store = self.store.of_worker(settler.connection()).await?;
        consumer.see_results(&results_of(&store));
        Ok((consumer, Ends::new(store, settler)))
    }
}

impl Ends {
    /// The pair of these.
    pub fn new(store: Store, mut settler: Settler) -> Ends {
        // What no script can look into is stored by the store alone.
        let together = !store.is_opaque() && settler.keep_results(&results_of(&store));
        Ends { store, settler, together }
    }

    /// Where results go.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Does all of each item, or nothing of it; if the two are in different places, results first,
    /// so a crash in between repeats work and loses none. May be asked again if it failed: nothing
    /// is done twice, and what was done is [`Disposition::Lost`].
    ///
    /// # Errors
    /// It is not known to be done, of any of them. If the store refuses them
    /// ([`crate::link::error::StoreErrorKind::Refused`]), it may be because of a single one.
    pub async fn commit(&self, items: Arc<Vec<Item>>) -> Result<Vec<Disposition>, Error> {
        if !self.together && items.iter().any(|item| item.record.is_some()) {
            // Nothing is stored for what somebody else runs by now.
            let lost = self.settler.lost(items.clone()).await?;
            let held = items.iter().zip(&lost).filter(|(_, lost)| !**lost);
            let records: Vec<Record> = held.filter_map(|(item, _)| item.record.clone()).collect();
            if !records.is_empty() {
                // What is acknowledged elsewhere is not undone by a power cut here.
                self.store.put_synced(records).await?;
            }
        }
        self.settler.commit(items).await
    }

    /// Do both answer, and do what [`Ends::commit`] needs in general?
    pub async fn answer(&self) -> bool {
        let store = if self.together { Ok(()) } else { self.store.answers().await };
        self.settler.answers().await.and(store).is_ok()
    }

    /// See [`Settler::is_member`].
    ///
    /// # Errors
    /// The broker cannot be reached.
    pub async fn is_member(&self) -> Result<bool, Error> {
        self.settler.is_member().await
    }

    /// See [`Settler::surrender`].
    ///
    /// # Errors
    /// What the broker said; other workers notice the death then.
    pub async fn surrender(&self) -> Result<(), Error> {
        self.settler.surrender().await
    }
}

/// A result store as a broker sees it that may be in the same place.
pub fn results_of(store: &Store) -> Results {
    match store {
        Store::Sqlite(store) => {
            let (woken, kept) = (store.clone(), store.clone());
            Results::Sqlite {
                db: store.db().clone(),
                revoked: backend::sqlite::Store::revoked_within,
                put: Arc::new(move |c, record| kept.put_within(c, record)),
                stored: Arc::new(move || woken.notify()),
            }
        }
        #[cfg(feature = "redis")]
        Store::Redis(store) => {
            let of = store.clone();
            Results::Redis {
                server: store.link().server().clone(),
                stem: store.stem(),
                entry: Arc::new(move |record| of.entry(record)),
            }
        }
        Store::Disabled(_) => Results::Elsewhere,
    }
}
