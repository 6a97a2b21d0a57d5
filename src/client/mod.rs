//! The hands of every program that is no worker: connect, send, wait.

pub mod send;
pub mod wait;

use crate::backend::{self, Store};
use crate::broker::{self, Outlet};
use crate::link::sqlite::{Db, Error};
use crate::link::url::Url;

/// A broker and the result store that belongs to it.
#[derive(Clone)]
pub struct Client {
    /// Takes messages.
    pub outlet: Outlet,
    /// Has results.
    pub store: Store,
}

impl Client {
    /// Opens both; without a `backend` results are in the broker's own store.
    ///
    /// # Errors
    /// Names the store and what is wrong with it.
    pub fn connect(broker: &Url, backend: Option<&Url>) -> Result<Client, ConnectError> {
        let backend = backend.unwrap_or(broker);
        let Url::Sqlite(path) = broker else {
            let error = Error::misuse("a broker is needed here, and this is none");
            return Err(ConnectError { url: broker.clone(), error });
        };
        let named = |url: &Url| {
            let url = url.clone();
            move |error| ConnectError { url, error }
        };
        let db = Db::open(path, |c| {
            broker::sqlite::SCHEMA.create(c)?;
            if backend == broker { backend::sqlite::SCHEMA.create(c) } else { Ok(()) }
        })
        .map_err(named(broker))?;
        let outlet = broker::sqlite::Outlet::open(&db).map_err(named(broker))?;
        let store = match backend {
            Url::Disabled => Store::Disabled,
            same if same == broker => {
                Store::Sqlite(backend::sqlite::Store::open(&db).map_err(named(backend))?)
            }
            Url::Sqlite(path) => {
                let db = Db::open(path, |c| backend::sqlite::SCHEMA.create(c))
                    .map_err(named(backend))?;
                Store::Sqlite(backend::sqlite::Store::open(&db).map_err(named(backend))?)
            }
        };
        Ok(Client { outlet: Outlet::Sqlite(outlet), store })
    }
}

/// A store that could not be opened.
#[derive(Debug)]
pub struct ConnectError {
    /// Which.
    pub url: Url,
    /// Why.
    pub error: Error,
}

impl std::fmt::Display for ConnectError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "cannot open {}: {}", self.url, self.error)
    }
}

impl std::error::Error for ConnectError {}
