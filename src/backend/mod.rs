//! Where results are kept. A closed enum, as brokers are.
//!
//! The contract, which `tests/contract/backend.rs` checks for every variant: a stored
//! SUCCESS or REVOKED is never overwritten; whoever waits is woken, and need not poll.

pub mod redis;
pub mod sqlite;

pub use crate::link::error::Error;
use crate::wire::Record;
use crate::wire::result::Meta;
use chrono::{DateTime, Utc};
use std::collections::HashSet;

/// A result store.
#[derive(Clone)]
pub enum Store {
    /// One file.
    Sqlite(sqlite::Store),
    /// A Redis server.
    Redis(redis::Store),
    /// `disabled://`: keeps nothing.
    Disabled,
}

impl Store {
    /// Stores these records, all or none.
    pub async fn put(&self, records: Vec<Record>) -> Result<(), Error> {
        match self {
            Store::Sqlite(store) => store.put(records).await,
            Store::Redis(store) => store.put(records).await,
            Store::Disabled => Ok(()),
        }
    }

    /// The result of this task, if one is stored.
    pub async fn get(&self, task_id: &str) -> Result<Option<Meta>, Error> {
        match self {
            Store::Sqlite(store) => store.get(task_id.to_string()).await,
            Store::Redis(store) => store.get(task_id).await,
            Store::Disabled => Ok(None),
        }
    }

    /// Those of these tasks that were revoked.
    pub async fn revoked(&self, task_ids: &[String]) -> Result<HashSet<String>, Error> {
        match self {
            Store::Sqlite(store) => store.revoked(task_ids.to_vec()).await,
            Store::Redis(store) => store.revoked(task_ids).await,
            Store::Disabled => Ok(HashSet::new()),
        }
    }

    /// Removes the results of these tasks, as if they had never run.
    pub async fn forget(&self, task_ids: Vec<String>) -> Result<(), Error> {
        match self {
            Store::Sqlite(store) => store.forget(task_ids).await,
            Store::Redis(store) => store.forget(task_ids).await,
            Store::Disabled => Ok(()),
        }
    }

    /// Removes results that were done before `limit`; says how many. At most a bounded
    /// number in one call: call again until it says zero.
    pub async fn expire(&self, limit: DateTime<Utc>) -> Result<u64, Error> {
        match self {
            Store::Sqlite(store) => store.expire(limit).await,
            // Its results expire by themselves.
            Store::Redis(_) | Store::Disabled => Ok(0),
        }
    }

    /// Begins to listen for the result of this task; listen first, then look.
    pub async fn listen(&self, task_id: &str) -> Result<Listener, Error> {
        match self {
            Store::Sqlite(store) => Ok(Listener::Sqlite(store.listen())),
            Store::Redis(store) => Ok(Listener::Redis(store.listen(task_id).await?)),
            Store::Disabled => Ok(Listener::Disabled),
        }
    }
}

/// Wakes those who wait for results.
pub enum Listener {
    /// One file.
    Sqlite(sqlite::Listener),
    /// A Redis server.
    Redis(redis::Listener),
    /// Never.
    Disabled,
}

impl Listener {
    /// Waits until the result was stored, by whomever; perhaps too short, never too long.
    pub async fn stored(&mut self) {
        match self {
            Listener::Sqlite(listener) => listener.stored().await,
            Listener::Redis(listener) => listener.stored().await,
            Listener::Disabled => std::future::pending().await,
        }
    }
}
