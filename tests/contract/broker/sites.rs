//! Places where a broker is, one for each kind.

use qworker::broker::{Inlet, Outlet, sqlite};
use qworker::link::sqlite::Db;
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
    /// The folder whose disk keeps the messages, if they are kept on one.
    fn folder(&self) -> &Path;
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

    fn folder(&self) -> &Path {
        self.file.parent().unwrap()
    }

    async fn worker(&self, name: &str, queues: &[&str]) -> (Inlet, Outlet) {
        let db = self.open();
        let queues: Vec<String> = queues.iter().map(|queue| queue.to_string()).collect();
        let lease = sqlite::lease_path(db.path());
        let inlet = sqlite::Inlet::open(&db, lease, name, &queues).await.unwrap();
        let outlet = inlet.outlet();
        (Inlet::Sqlite(inlet), Outlet::Sqlite(outlet))
    }

    fn client(&self) -> Outlet {
        Outlet::Sqlite(sqlite::Outlet::open(&self.open()).unwrap())
    }
}
