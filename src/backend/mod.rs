//! Where results are kept. A closed enum, as brokers are.
//!
//! The contract, which `tests/contract/backend.rs` checks for every variant: a stored
//! SUCCESS or REVOKED is never overwritten; waiters are woken, and need not poll.

mod chords;
mod groups;
#[cfg(feature = "redis")]
pub mod redis;
pub mod sqlite;

pub use chords::Counted;
pub use groups::GroupRecord;

use crate::link::Connection;
pub use crate::link::error::Error;
use crate::link::sqlite::{Access, Db};
use crate::link::url::BackendUrl;
#[cfg(not(feature = "redis"))]
use crate::link::url::NO_REDIS;
use crate::role::role;
use crate::wire::result::Meta;
use crate::wire::{Record, ResultFormat};
use chrono::{DateTime, Utc};
use std::collections::HashSet;
use std::time::Duration;

role! {
    /// A result store.
    Store as Keep { Sqlite(sqlite::Store), #[cfg(feature = "redis")] Redis(redis::Store), Disabled(Disabled) }

    /// Stores these records, all or none.
    async fn put(&self, records: Vec<Record>) -> Result<(), Error>;

    /// As [`Store::put`]; where a power cut could undo that, it cannot undo this.
    async fn put_synced(&self, records: Vec<Record>) -> Result<(), Error>
        = self.put(records).await;

    /// The result of this task, if one is stored.
    async fn get(&self, task_id: &str) -> Result<Option<Meta>, Error>;

    /// The results of these tasks, as far as some are stored.
    async fn get_many(&self, task_ids: &[String]) -> Result<Vec<Meta>, Error>;

    /// Those of these tasks that were revoked.
    async fn revoked(&self, task_ids: &[String]) -> Result<HashSet<String>, Error>;

    /// Removes the results of these tasks, as if they had never run.
    async fn forget(&self, task_ids: Vec<String>) -> Result<(), Error>;

    /// Removes results that were done before `limit`; says how many. At most a bounded
    /// number in one call: call again until it says zero. Results that expire by themselves need
    /// not be removed.
    async fn expire(&self, limit: DateTime<Utc>) -> Result<u64, Error> = Ok(0);

    /// Begins to listen for the results of these tasks; listen first, then look.
    async fn listen(&self, task_ids: &[String]) -> Result<Listener, Error>;

    /// Does it do what [`Store::put`] needs in general?
    async fn answers(&self) -> Result<(), Error> = Ok(());
}

/// How a result store is opened.
#[derive(Debug, Clone, Copy)]
pub struct StoreOptions<'a> {
    /// In front of every key, on a server that has keys.
    pub prefix: &'a str,
    /// How long a result is kept where results expire by themselves; `None` is forever.
    pub expires: Option<Duration>,
    /// How results are written, and which are read.
    pub format: &'a ResultFormat,
    /// How long an answer of a server is waited for.
    pub patience: Duration,
    /// What a file is opened for.
    pub access: Access,
}

impl Store {
    /// Opens the result store at this address, over the connection that there is, if there is one. A
    /// server is connected to when it is first asked.
    ///
    /// # Errors
    /// The file cannot be opened, or a certificate cannot be read.
    pub fn open(
        url: &BackendUrl,
        shared: Option<Connection<'_>>,
        options: StoreOptions<'_>,
    ) -> Result<Store, Error> {
        Ok(match (url, shared) {
            (_, Some(Connection::Sqlite(db))) => {
                Store::Sqlite(sqlite::Store::open(db, options.format))
            }
            #[cfg(feature = "redis")]
            (_, Some(Connection::Redis(link))) => {
                let StoreOptions { prefix, expires, format, .. } = options;
                Store::Redis(redis::Store::on(link.clone(), prefix, expires, format))
            }
            (BackendUrl::Sqlite(path), None) => {
                let db = Db::open_with(path, options.access, vec![&sqlite::SCHEMA])?;
                Store::Sqlite(sqlite::Store::open(&db, options.format))
            }
            #[cfg(not(feature = "redis"))]
            (BackendUrl::Redis(_), None) => return Err(Error::misuse(NO_REDIS)),
            #[cfg(feature = "redis")]
            (BackendUrl::Redis(server), None) => Store::Redis(redis::Store::open(server, options)?),
            (BackendUrl::Disabled, None) => Store::Disabled(Disabled),
        })
    }

    /// Are its documents compressed or signed, so that only this program tells their states?
    pub fn is_opaque(&self) -> bool {
        match self {
            #[cfg(feature = "redis")]
            Store::Redis(store) => store.format().is_opaque(),
            // A column has the state.
            Store::Sqlite(_) | Store::Disabled(_) => false,
        }
    }

    /// The same results, as a worker asks for them: over `connection` if that leads to the same
    /// server,
    /// else over a connection of its own that does not give up soon. An unreachable one is
    /// an error now, not with the first result.
    ///
    /// # Errors
    /// The server cannot be reached.
    pub async fn of_worker(&self, connection: Connection<'_>) -> Result<Store, Error> {
        match self {
            #[cfg(feature = "redis")]
            Store::Redis(store) => {
                let shared = match connection {
                    Connection::Redis(link) => Some(link),
                    Connection::Sqlite(_) => None,
                };
                let store = store.of_worker(shared)?;
                store.link().session().await?;
                Ok(Store::Redis(store))
            }
            _ => {
                let _ = connection;
                Ok(self.clone())
            }
        }
    }
}

/// `disabled://`: keeps nothing.
#[derive(Debug, Clone, Copy)]
pub struct Disabled;

impl Keep for Disabled {
    async fn put(&self, _records: Vec<Record>) -> Result<(), Error> {
        Ok(())
    }

    async fn get(&self, _task_id: &str) -> Result<Option<Meta>, Error> {
        Ok(None)
    }

    async fn get_many(&self, _task_ids: &[String]) -> Result<Vec<Meta>, Error> {
        Ok(Vec::new())
    }

    async fn revoked(&self, _task_ids: &[String]) -> Result<HashSet<String>, Error> {
        Ok(HashSet::new())
    }

    async fn forget(&self, _task_ids: Vec<String>) -> Result<(), Error> {
        Ok(())
    }

    async fn listen(&self, _task_ids: &[String]) -> Result<Listener, Error> {
        Ok(Listener::Disabled)
    }
}

/// Wakes those who wait for results.
pub enum Listener {
    /// One file.
    Sqlite(sqlite::Listener),
    /// A Redis server.
    #[cfg(feature = "redis")]
    Redis(redis::Listener),
    /// Never.
    Disabled,
}

impl Listener {
    /// Waits until the result was stored, by whomever; perhaps too short, never too long.
    pub async fn stored(&mut self) {
        match self {
            Listener::Sqlite(listener) => listener.stored().await,
            #[cfg(feature = "redis")]
            Listener::Redis(listener) => listener.stored().await,
            Listener::Disabled => std::future::pending().await,
        }
    }
}
