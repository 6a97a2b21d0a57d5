//! A broker's end and a result store as one: each pair does what becomes of a task in as few
//! steps as it can, and every pair keeps the same promises.

use crate::backend::{self, Store};
use crate::broker::{self, Error, Fate, Item, Outlet};
use crate::wire::Record;
use std::sync::Arc;

/// Where results go, and where deliveries are settled.
#[derive(Clone)]
pub enum Ends {
    /// Both in one file: one transaction, so not even a crash between a result and its
    /// acknowledgement can run a task twice.
    File(backend::sqlite::Store, broker::sqlite::Outlet),
    /// Both on one server: one script.
    Server(backend::redis::Store, broker::redis::Outlet),
    /// Results first, then the rest: a crash in between repeats work and loses none.
    Apart(Store, Outlet),
}

impl Ends {
    /// The pair of these.
    pub fn new(store: Store, outlet: Outlet) -> Ends {
        match (store, outlet) {
            (Store::Sqlite(store), Outlet::Sqlite(outlet)) if store.db().same(outlet.db()) => {
                Ends::File(store, outlet)
            }
            (Store::Redis(store), Outlet::Redis(outlet)) if store.link().same(outlet.link()) => {
                Ends::Server(store, outlet)
            }
            (store, outlet) => Ends::Apart(store, outlet),
        }
    }

    /// Does all of each item, or nothing of it. May be asked again if it failed: nothing is done
    /// twice, and what was done is [`Fate::Lost`].
    ///
    /// # Errors
    /// It is not known to be done, of any of them. If the store refuses them
    /// ([`crate::link::error::Kind::Refused`]), it may be because of a single one.
    pub async fn commit(&self, items: Arc<Vec<Item>>) -> Result<Vec<Fate>, Error> {
        match self {
            Ends::File(store, outlet) => {
                let records = items.iter().any(|item| item.record.is_some());
                let put = |c: &_, record: &Record| {
                    backend::sqlite::Store::put_within(c, std::slice::from_ref(record))
                };
                let fates = outlet.commit(items, put).await?;
                if records {
                    store.ring();
                }
                Ok(fates)
            }
            Ends::Server(store, outlet) => {
                outlet.commit(&items, |record| Some(store.entry(record))).await
            }
            Ends::Apart(store, outlet) => apart(store, outlet, items).await,
        }
    }

    /// Do both ends answer, and do what [`Ends::commit`] needs in general?
    pub async fn answer(&self) -> bool {
        let broker = match self {
            Ends::File(..) | Ends::Apart(_, Outlet::Sqlite(_)) => Ok(()),
            Ends::Server(_, outlet) | Ends::Apart(_, Outlet::Redis(outlet)) => {
                outlet.answers().await
            }
        };
        let store = match self {
            Ends::Apart(Store::Redis(store), _) => store.answers().await,
            _ => Ok(()),
        };
        broker.and(store).is_ok()
    }

    /// Does the broker still know this worker? One that it has taken for dead holds nothing.
    pub async fn is_member(&self) -> Result<bool, Error> {
        match self {
            Ends::File(..) | Ends::Apart(_, Outlet::Sqlite(_)) => Ok(true),
            Ends::Server(_, outlet) | Ends::Apart(_, Outlet::Redis(outlet)) => {
                outlet.is_member().await
            }
        }
    }
}

async fn apart(store: &Store, outlet: &Outlet, items: Arc<Vec<Item>>) -> Result<Vec<Fate>, Error> {
    // Nothing is stored for what somebody else runs by now.
    let lost = match outlet {
        _ if items.iter().all(|item| item.record.is_none()) => vec![false; items.len()],
        Outlet::Redis(outlet) => outlet.lost(&items).await?,
        Outlet::Sqlite(outlet) => outlet.lost(items.clone()).await?,
    };
    let held = items.iter().zip(&lost).filter(|(_, lost)| !**lost);
    let records: Vec<Record> = held.filter_map(|(item, _)| item.record.clone()).collect();
    if !records.is_empty() {
        match store {
            // What is acknowledged elsewhere is not undone by a power cut here.
            Store::Sqlite(store) => store.put_synced(records).await?,
            store => store.put(records).await?,
        }
    }
    match outlet {
        Outlet::Sqlite(outlet) => outlet.commit(items, |_, _| Ok(())).await,
        Outlet::Redis(outlet) => outlet.commit(&items, |_| None).await,
    }
}
