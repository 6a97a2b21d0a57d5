//! What programs do with a broker and a result store: connect, send, wait, settle.

pub mod ends;
pub mod graph;
pub mod health;
pub mod send;
pub mod task;
pub mod wait;
pub mod workflow;

use crate::backend::{self, Store};
use crate::bounds;
use crate::broker::{self, Broker};
use crate::link::error::Error;
use crate::link::sqlite::Access;
use crate::link::url::{BackendUrl, BrokerUrl};
use crate::wire::ResultFormat;
use std::time::Duration;

/// A broker and the result store that belongs to it.
#[derive(Clone)]
pub struct Client {
    /// Has messages.
    pub broker: Broker,
    /// Has results.
    pub store: Store,
}

/// What settings say of the two beside their addresses.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// In front of every key of the broker, on Redis.
    pub prefix: String,
    /// In front of every key of a result, on Redis.
    pub result_prefix: String,
    /// How long a result is kept; `None` is forever.
    pub result_expires: Option<Duration>,
    /// How results are written, and which are read.
    pub results: ResultFormat,
    /// How long an answer of a server is waited for.
    pub timeout: Duration,
    /// What a file is opened for.
    pub access: Access,
}

impl Default for ClientOptions {
    fn default() -> ClientOptions {
        ClientOptions {
            prefix: String::new(),
            result_prefix: String::new(),
            result_expires: None,
            results: ResultFormat::default(),
            timeout: bounds::CLIENT_TIMEOUT,
            access: Access::Create,
        }
    }
}

impl Client {
    /// Opens both; without a `backend` results are in the broker's own store. A server is
    /// connected to when it is first asked.
    ///
    /// # Errors
    /// Names the store and what is wrong with it.
    pub fn connect(
        broker: &BrokerUrl,
        backend: Option<&BackendUrl>,
        options: &ClientOptions,
    ) -> Result<Client, ConnectError> {
        let own = BackendUrl::from(broker.clone());
        let url = backend.unwrap_or(&own);
        let is_shared = *url == own;
        // A little less than the whole: then the one who waits can say for what.
        let patience = options.timeout.mul_f64(0.96);
        let beside: &[_] = if is_shared { &[&backend::sqlite::SCHEMA] } else { &[] };
        let (prefix, access) = (&options.prefix[..], options.access);
        let broker =
            Broker::open(broker, broker::BrokerOptions { prefix, patience, access, beside })
                .map_err(|error| ConnectError { url: own.clone(), error })?;
        let (prefix, expires) = (&options.result_prefix[..], options.result_expires);
        let shared = is_shared.then(|| broker.connection());
        let format = &options.results;
        let options = backend::StoreOptions { prefix, expires, format, patience, access };
        let store = Store::open(url, shared, options)
            .map_err(|error| ConnectError { url: url.clone(), error })?;
        Ok(Client { broker, store })
    }

    /// What there is to know of the broker for a worker of these queues. A file is as it is.
    ///
    /// # Errors
    /// The broker cannot be reached, or refuses what everything else needs.
    pub async fn check_server(&self, queues: &[String]) -> Result<broker::ServerChecks, Error> {
        self.broker.admin().check_server(queues, &ends::results_of(&self.store)).await
    }
}

/// A store that could not be opened.
#[derive(Debug)]
pub struct ConnectError {
    /// Which.
    pub url: BackendUrl,
    /// Why.
    pub error: Error,
}

impl std::fmt::Display for ConnectError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "cannot open {}: {}", self.url, self.error)
    }
}

impl std::error::Error for ConnectError {}
