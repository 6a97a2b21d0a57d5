//! Places where a broker is, one for each kind.

use crate::harness::redis::Server;
use qworker::broker::{Inlet, Outlet, redis, sqlite};
use qworker::link::sqlite::Db;
use qworker::link::url::Url;
use std::path::{Path, PathBuf};

/// A broker, empty at first. Each end that is opened has a connection of its own, as if it
/// were in another process.
pub trait Site {
    /// A new, empty one.
    fn create() -> Self;
    /// The one that is there; for children, which get the address as an argument.
    fn at(address: &str) -> Self;
    /// Leads a child here.
    fn address(&self) -> String;
    /// The end of a worker of this name that takes from these queues, and what settles.
    async fn worker(&self, name: &str, queues: &[&str]) -> (Inlet, Outlet);
    /// The end of a client.
    fn client(&self) -> Outlet;
}

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

    fn open(&self) -> Db {
        Db::open(&self.file, |c| sqlite::SCHEMA.create(c)).unwrap()
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

    async fn worker(&self, name: &str, queues: &[&str]) -> (Inlet, Outlet) {
        let db = self.open();
        let queues: Vec<String> = queues.iter().map(|queue| queue.to_string()).collect();
        let hold = Box::new(|_: &Path| Ok(()));
        let inlet = sqlite::Inlet::open(&db, name, &queues, hold).await.unwrap();
        let outlet = inlet.outlet();
        (Inlet::Sqlite(inlet), Outlet::Sqlite(outlet))
    }

    fn client(&self) -> Outlet {
        Outlet::Sqlite(sqlite::Outlet::open(&self.open()))
    }
}

/// A Redis server.
pub struct Redis {
    url: String,
    server: Option<Server>,
}

impl Redis {
    fn outlet(&self) -> redis::Outlet {
        let Ok(Url::Redis(server)) = Url::parse(&self.url, Path::new("/")) else {
            panic!("{}", self.url)
        };
        // A prefix, so that every key is seen to have it.
        redis::Outlet::open(&server, "test:", crate::harness::SOON).unwrap()
    }

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

    async fn worker(&self, name: &str, queues: &[&str]) -> (Inlet, Outlet) {
        let queues: Vec<String> = queues.iter().map(|queue| queue.to_string()).collect();
        let who = redis::Identity {
            hostname: name,
            queues: &queues,
            visibility_timeout: std::time::Duration::from_secs(3600),
        };
        let inlet = redis::Inlet::open(&self.outlet(), who).await.unwrap();
        let outlet = inlet.outlet();
        (Inlet::Redis(inlet), Outlet::Redis(outlet))
    }

    fn client(&self) -> Outlet {
        Outlet::Redis(self.outlet())
    }
}
