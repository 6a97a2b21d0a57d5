//! The SQLite file of a ledger, and what is done with one that is damaged.

use super::inspect::{self, PATIENCE, StateFileKind};
use super::outbox::{self, Batch};
use super::set_aside::{FileId, number_of, set_aside};
use crate::broker::ledger::{Step, StepOutcome};
use crate::broker::sqlite::Values;
use crate::broker::{Error, Posting};
use crate::link::error::StoreErrorKind;
use crate::link::sqlite::{Db, Durability};
use chrono::{DateTime, Utc};
use rusqlite::Connection;
use rusqlite::config::DbConfig;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// An open file. Clones are the same.
#[derive(Clone)]
pub(super) struct LedgerDatabase {
    db: Db,
    values: Values,
    number: FileId,
}

fn values_of(group: &str) -> Values {
    Values { table: "beat_entry", group: group.into() }
}

/// Opens the file. One that is damaged is set aside, and a new one is begun.
///
/// # Errors
/// It can neither be used nor set aside.
pub(super) fn open_or_replace(path: &Path, group: &str) -> Result<LedgerDatabase, Error> {
    let before = number_of(path);
    let opened = match LedgerDatabase::open(path, group) {
        Err(error) if error.kind() == StoreErrorKind::Damaged => {
            replace(path, group, &error, before.unwrap_or_default())
        }
        opened => opened,
    };
    opened.map_err(|error| error.with(path.display()))
}

/// Sets the file of this number aside, because of `why`, and begins a new one.
///
/// # Errors
/// It cannot be set aside, or no new one can be made.
pub(super) fn replace(
    path: &Path,
    group: &str,
    why: &Error,
    number: FileId,
) -> Result<LedgerDatabase, Error> {
    match set_aside(path, number) {
        Ok(Some(to)) => tracing::warn!(
            "{} is damaged ({why}): set aside as {}, a new one is created",
            path.display(),
            to.display()
        ),
        // Another beat was faster, and says so.
        Ok(None) => {}
        Err(error) => {
            return Err(Error::misuse(format!("{why}; it cannot be set aside either: {error}")));
        }
    }
    LedgerDatabase::open(path, group)
}

/// The values of these names, for a command that only reads: nothing is made, written or set aside.
///
/// # Errors
/// The file is damaged, cannot be read, or is not a beat's.
pub(super) fn peek(
    path: &Path,
    group: &str,
    names: &[String],
) -> Result<Vec<Option<String>>, Error> {
    let values = values_of(group);
    match inspect::look(path)? {
        StateFileKind::New => Ok(vec![None; names.len()]),
        StateFileKind::Ours => {
            inspect::read(path, |c| names.iter().map(|name| values.get(c, name)).collect())
        }
    }
}

/// Makes the tables, and looks at every page.
fn set_up(c: &Connection) -> Result<(), Error> {
    // A file that was set aside must not take the log of the new one with it when it is closed.
    // One that is closed in its place has had its log moved to it before.
    c.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    inspect::inspect_pages(c)?;
    inspect::make_tables(c)
}

impl LedgerDatabase {
    fn open(path: &Path, group: &str) -> Result<LedgerDatabase, Error> {
        inspect::look(path)?;
        inspect::prepare(path)?;
        let db = Db::open_alone(path, PATIENCE, set_up).map_err(|error| match error.kind() {
            // These statements are right, and the file can be written, so it is what is wrong.
            StoreErrorKind::Other => Error::of(StoreErrorKind::Damaged, error.to_string()),
            _ => error,
        })?;
        let number = number_of(path).ok_or_else(|| Error::misuse("it was removed"))?;
        Ok(LedgerDatabase { db, values: values_of(group), number })
    }

    /// Device and inode.
    pub(super) fn number(&self) -> FileId {
        self.number
    }

    /// Whether this is the file at that path.
    pub(super) fn is_in_place(&self, path: &Path) -> bool {
        number_of(path) == Some(self.number)
    }

    /// It is damaged: it and its log stay as they are.
    pub(super) fn leave(&self) {
        self.db.leave_log();
    }

    /// Does the steps in one transaction. Returns the batches that were added to the outbox.
    pub(super) async fn commit(
        &self,
        steps: Arc<[Step]>,
        until: Option<DateTime<Utc>>,
    ) -> Result<(Vec<StepOutcome>, Vec<Batch>), Error> {
        let group = self.values.group.clone();
        let accept = move |c: &Connection, postings: Vec<&Posting>| {
            let batches = outbox::batches(postings.into_iter());
            batches.iter().try_for_each(|batch| outbox::add(c, &group, batch))?;
            Ok(batches)
        };
        self.values.commit(&self.db, steps, until, accept).await
    }

    /// The values of these names.
    pub(super) async fn read(&self, names: Arc<[String]>) -> Result<Vec<Option<String>>, Error> {
        self.values.read(&self.db, names).await
    }

    /// All names and values.
    pub(super) async fn all(&self) -> Result<Vec<(String, String)>, Error> {
        self.values.all(&self.db).await
    }

    /// See [`outbox::list`].
    pub(super) async fn outbox(
        &self,
        min_age: Duration,
        after: i64,
    ) -> Result<(Vec<Batch>, Option<i64>), Error> {
        let group = self.values.group.clone();
        let list = move |c: &Connection| outbox::list(c, &group, min_age, after);
        self.db.run(Durability::Read, list).await
    }

    /// Removes the batches with these tokens from the outbox.
    pub(super) async fn remove(&self, tokens: Arc<[String]>) -> Result<(), Error> {
        self.db.run(Durability::Process, move |c| outbox::remove(c, &tokens)).await
    }
}
