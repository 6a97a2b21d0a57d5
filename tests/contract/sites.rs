//! Places where a broker and a result store are, one for each kind.

use crate::harness::SOON;
use crate::harness::redis::Server;
use qworker::backend::{Store, StoreOptions};
use qworker::broker::{
    Broker, BrokerOptions, Consumer, Disposition, Error, Item, Settle, Settler, Tag, WorkerIdentity,
};
use qworker::link::error::StoreErrorKind;
use qworker::link::sqlite::Access;
use qworker::link::url::{BackendUrl, BrokerUrl};
use qworker::wire::ResultFormat;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Who waits for messages or results is told of them, half of the times at least, before the shortest
/// pause is over after which one that nobody tells looks again.
pub const WOKEN: Duration = Duration::from_millis(200);

/// How long a store of [`Site::store`] keeps a result, if results expire by themselves there.
pub const RESULT_EXPIRES: Duration = Duration::from_secs(3600);

/// A broker and a result store, empty at first. Each client that is opened has a connection of its own, as if it
/// were in another process.
pub trait Site {
    /// A new, empty one.
    fn create() -> Self;
    /// The one that is there; for children, which get the address as an argument.
    fn at(address: &str) -> Self;
    /// Leads a child here.
    fn address(&self) -> String;
    /// Its address as a broker's.
    fn url(&self) -> BrokerUrl;

    /// A client.
    fn client(&self) -> Broker {
        // A prefix, so that every key is seen to have it.
        let options =
            BrokerOptions { prefix: "test:", patience: SOON, access: Access::Create, beside: &[] };
        Broker::open(&self.url(), options).unwrap()
    }

    /// A client of its results.
    fn store(&self) -> Store {
        let (prefix, expires) = ("test_", Some(RESULT_EXPIRES));
        let (format, patience) = (&ResultFormat::default(), SOON);
        let options = StoreOptions { prefix, expires, format, patience, access: Access::Create };
        Store::open(&BackendUrl::from(self.url()), None, options).unwrap()
    }

    /// A worker of this name that takes from these queues.
    async fn worker(&self, name: &str, queues: &[&str]) -> (Consumer, Worker) {
        let queues: Vec<String> = queues.iter().map(|queue| queue.to_string()).collect();
        let who = WorkerIdentity {
            hostname: name,
            queues: &queues,
            visibility_timeout: Duration::from_secs(3600),
            hold: Box::new(|_| Ok(())),
        };
        let client = self.client();
        let (consumer, settler) = client.consume(who).await.unwrap();
        (consumer, Worker { settler, client })
    }
}

/// What settles a worker's deliveries, and a client beside it.
pub struct Worker {
    pub settler: Settler,
    client: Broker,
}

impl Deref for Worker {
    type Target = Broker;

    fn deref(&self) -> &Broker {
        &self.client
    }
}

impl Worker {
    /// Settles these, in one step; the first refusal is an error.
    pub async fn settle(&self, settlements: Vec<(Tag, Settle)>) -> Result<(), Error> {
        let item = |(tag, settle)| Item { tag: Some(tag), settle: Some(settle), ..Item::default() };
        let items = settlements.into_iter().map(item).collect();
        for fate in self.settler.commit(Arc::new(items)).await? {
            if let Disposition::Refused(why) = fate {
                return Err(Error::of(StoreErrorKind::Refused, why));
            }
        }
        Ok(())
    }
}

/// The value of an expression for the site that is at an address; a child knows no more of it. An
/// address of no site is an error, so a new one is not taken for a file.
macro_rules! at {
    ($address:expr, $site:ident => $body:expr) => {{
        let address: &str = $address;
        if address.starts_with("redis://") {
            let $site =
                <$crate::contract::sites::Redis as $crate::contract::sites::Site>::at(address);
            $body
        } else if address.starts_with('/') {
            let $site =
                <$crate::contract::sites::Sqlite as $crate::contract::sites::Site>::at(address);
            $body
        } else {
            panic!("no site has addresses like {address:?}; see tests/contract/sites.rs")
        }
    }};
}
pub(crate) use at;

/// One SQLite file.
pub struct Sqlite {
    file: PathBuf,
    _folder: Option<tempfile::TempDir>,
}

impl Sqlite {
    /// The folder whose disk keeps the messages.
    pub fn folder(&self) -> &Path {
        self.file.parent().unwrap()
    }
}

impl Site for Sqlite {
    fn create() -> Sqlite {
        let folder = tempfile::tempdir().unwrap();
        Sqlite { file: folder.path().join("q.sqlite"), _folder: Some(folder) }
    }

    fn at(address: &str) -> Sqlite {
        Sqlite { file: address.into(), _folder: None }
    }

    fn address(&self) -> String {
        self.file.display().to_string()
    }

    fn url(&self) -> BrokerUrl {
        BrokerUrl::Sqlite(self.file.clone())
    }
}

/// A Redis server.
pub struct Redis {
    url: String,
    server: Option<Server>,
}

impl Redis {
    /// The server, if this is where it was started.
    pub fn server(&self) -> &Server {
        self.server.as_ref().unwrap()
    }
}

impl Site for Redis {
    fn create() -> Redis {
        let server = Server::start();
        Redis { url: server.url(), server: Some(server) }
    }

    fn at(address: &str) -> Redis {
        Redis { url: address.into(), server: None }
    }

    fn address(&self) -> String {
        self.url.clone()
    }

    fn url(&self) -> BrokerUrl {
        BrokerUrl::parse(&self.url, Path::new("/")).unwrap()
    }
}
