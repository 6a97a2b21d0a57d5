//! The hands of every program that is no worker: connect, send, wait.

pub mod ends;
pub mod local;
pub mod send;
pub mod wait;

use crate::backend::{self, Store};
use crate::bounds;
use crate::broker::{self, Outlet};
use crate::link::error::Error;
use crate::link::sqlite::{Access, Db, Schema};
use crate::link::url::Url;
use std::path::Path;
use std::time::Duration;

/// A broker and the result store that belongs to it.
#[derive(Clone)]
pub struct Client {
    /// Takes messages.
    pub outlet: Outlet,
    /// Has results.
    pub store: Store,
}

/// What settings say of the two beside their addresses.
#[derive(Debug, Clone)]
pub struct Options {
    /// In front of every key of the broker, on Redis.
    pub prefix: String,
    /// In front of every key of a result, on Redis.
    pub result_prefix: String,
    /// How long a result is kept; `None` is for ever.
    pub result_expires: Option<Duration>,
    /// How long an answer of a server is waited for.
    pub timeout: Duration,
    /// What a file is opened for.
    pub access: Access,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            prefix: String::new(),
            result_prefix: String::new(),
            result_expires: None,
            timeout: bounds::CLIENT_TIMEOUT,
            access: Access::Create,
        }
    }
}

impl Options {
    /// A little less than the whole: then the one who waits can say for what.
    fn patience(&self) -> Duration {
        self.timeout.mul_f64(0.96)
    }
}

impl Client {
    /// Opens both; without a `backend` results are in the broker's own store. A server is
    /// connected to when it is first asked.
    ///
    /// # Errors
    /// Names the store and what is wrong with it.
    pub fn connect(
        broker: &Url,
        backend: Option<&Url>,
        options: &Options,
    ) -> Result<Client, ConnectError> {
        let access = options.access;
        let backend = backend.unwrap_or(broker);
        let at = |url: &Url| {
            let url = url.clone();
            move |error| ConnectError { url, error }
        };
        let outlet = match broker {
            Url::Sqlite(path) => {
                let all: &[&Schema] = match backend == broker {
                    true => &[&broker::sqlite::SCHEMA, &backend::sqlite::SCHEMA],
                    false => &[&broker::sqlite::SCHEMA],
                };
                open(path, access, all).map(|db| Outlet::Sqlite(broker::sqlite::Outlet::open(&db)))
            }
            Url::Redis(server) => {
                let opened =
                    broker::redis::Outlet::open(server, &options.prefix, options.patience());
                opened.map(Outlet::Redis)
            }
            Url::Disabled => Err(Error::misuse("a broker is needed here, and this is none")),
        };
        let outlet = outlet.map_err(at(broker))?;
        let shared = backend == broker;
        let store = store(backend, &outlet, shared, options).map_err(at(backend))?;
        Ok(Client { outlet, store })
    }
}

/// Opens a file with these tables; who only looks makes none of them.
fn open(path: &Path, access: Access, all: &'static [&'static Schema]) -> Result<Db, Error> {
    Db::open_as(path, access, move |c| {
        all.iter().try_for_each(|schema| match access {
            Access::Look => schema.imagine(c),
            Access::Create | Access::Change => schema.create(c),
        })
    })
}

impl Client {
    /// What there is to know of the broker for a worker of these queues. A file is as it is.
    ///
    /// # Errors
    /// The broker cannot be reached, or refuses what everything else needs.
    pub async fn survey(&self, queues: &[String]) -> Result<broker::Survey, Error> {
        let Outlet::Redis(outlet) = &self.outlet else { return Ok(broker::Survey::default()) };
        let result = match &self.store {
            Store::Redis(store) if store.link().same(outlet.link()) => Some(store.key("ID")),
            _ => None,
        };
        outlet.survey(queues, result.as_deref()).await
    }
}

/// Opens the result store; if it is the broker's own, on the same connection.
fn store(url: &Url, outlet: &Outlet, shared: bool, options: &Options) -> Result<Store, Error> {
    let (prefix, expires) = (&options.result_prefix, options.result_expires);
    Ok(match (url, outlet) {
        (Url::Disabled, _) => Store::Disabled,
        (Url::Sqlite(_), Outlet::Sqlite(outlet)) if shared => {
            Store::Sqlite(backend::sqlite::Store::open(outlet.db()))
        }
        (Url::Sqlite(path), _) => {
            let db = open(path, options.access, &[&backend::sqlite::SCHEMA])?;
            Store::Sqlite(backend::sqlite::Store::open(&db))
        }
        (Url::Redis(_), Outlet::Redis(outlet)) if shared => {
            Store::Redis(backend::redis::Store::on(outlet.link().clone(), prefix, expires))
        }
        (Url::Redis(server), _) => {
            Store::Redis(backend::redis::Store::open(server, prefix, expires, options.patience())?)
        }
    })
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
