//! Registration of this worker in the file, and whether other workers are alive.
//!
//! A worker is dead when its lease can be locked. Where there is no lease to ask, because the
//! folder was removed, cannot be read or could not be made, its processes tell, if they can be
//! seen from here. What neither tells is not dead.

use crate::broker::HoldLease;
use crate::link::error::Error;
use crate::link::sqlite::cell;
use crate::os::file;
use crate::os::identity::ProcessIdentity;
use crate::os::lease::{Lease, LeaseState};
use crate::os::rundir;
use rusqlite::{Connection, params};
use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Numbers of workers are drawn, so that one keeps its own in whatever file stands at the path.
const NUMBERS: std::ops::Range<i64> = 1 << 40..1 << 52;

/// A row of `qworker_worker`.
#[derive(Debug, Clone)]
pub(super) struct Card {
    pub(super) id: i64,
    /// The path of its lease; its name counts, for the folder is beside the file, whatever path
    /// leads there.
    lease: String,
    pub(super) hostname: String,
    pub(super) pid: i64,
    /// See [`ProcessIdentity`].
    identity: Option<String>,
}

/// What is known of a worker.
pub(super) enum Liveness {
    Alive,
    Dead,
    /// Nothing can be seen of it; the reason.
    Unseen(io::Error),
}

impl Card {
    /// All workers but this one.
    pub(super) fn others(c: &Connection, me: i64) -> Result<Vec<Card>, Error> {
        let sql = "SELECT id, lease, hostname, pid, kin FROM qworker_worker WHERE id <> ?
                   ORDER BY hostname, id";
        let mut all = c.prepare_cached(sql)?;
        let all = all.query_map([me], |row| {
            Ok(Card {
                id: row.get(0)?,
                lease: cell::text(row, 1),
                hostname: cell::text(row, 2),
                pid: cell::number(row, 3),
                identity: cell::text_or_none(row, 4),
            })
        })?;
        Ok(all.collect::<Result<_, _>>()?)
    }

    /// Where its lease is.
    pub(super) fn lease(&self, database: &Path) -> PathBuf {
        let name = Path::new(&self.lease).file_name().unwrap_or_default();
        rundir::path(database).join(name)
    }

    /// Is it dead?
    pub(super) fn judge(&self, database: &Path) -> Liveness {
        // What is in another folder says nothing.
        let sign = match rundir::open(database) {
            Ok(_) => Lease::state(&self.lease(database)),
            Err(error) => LeaseState::Unknown(error),
        };
        let error = match sign {
            LeaseState::Held => return Liveness::Alive,
            LeaseState::Free => return Liveness::Dead,
            LeaseState::Unknown(error) => error,
        };
        let dead = match &self.identity {
            Some(identity) => {
                let worker = ProcessIdentity::parse(identity);
                if worker.precedes(&ProcessIdentity::of_self()) {
                    Some(true)
                } else {
                    worker.is_dead()
                }
            }
            // Of an older version.
            None => {
                i32::try_from(self.pid).is_ok_and(ProcessIdentity::no_such_process).then_some(true)
            }
        };
        match dead {
            Some(true) => Liveness::Dead,
            Some(false) => Liveness::Alive,
            None => Liveness::Unseen(error),
        }
    }

    /// Writes it down, unless it is; says whether it was not.
    pub(super) fn register(&self, c: &Connection) -> Result<bool, Error> {
        if c.prepare_cached("SELECT 1 FROM qworker_worker WHERE id = ?")?.exists([self.id])? {
            return Ok(false);
        }
        c.prepare_cached(
            "INSERT INTO qworker_worker (id, lease, hostname, pid, kin) VALUES (?, ?, ?, ?, ?)",
        )?
        .execute(params![self.id, self.lease, self.hostname, self.pid, self.identity])?;
        Ok(true)
    }
}

/// Workers that hold messages and are not registered.
pub(super) fn strangers(c: &Connection, me: i64) -> Result<Vec<i64>, Error> {
    let sql = "SELECT DISTINCT owner FROM kombu_message
               WHERE owner IS NOT NULL AND typeof(owner) = 'integer' AND owner <> ?
                   AND NOT EXISTS (SELECT 1 FROM qworker_worker w WHERE w.id = owner)";
    let mut found = c.prepare_cached(sql)?;
    Ok(found.query_map([me], |row| row.get(0))?.collect::<Result<_, _>>()?)
}

/// This worker.
pub(super) struct Member {
    pub(super) card: Arc<Card>,
    path: PathBuf,
    /// Those whose file was removed are kept: it may be seen elsewhere.
    held: Vec<Lease>,
    hold: HoldLease,
    /// That there can be no lease was logged.
    warned: bool,
    /// Owners already reported as not visible.
    unseen: HashSet<i64>,
}

impl Member {
    /// Holds a lease. Without one, others look for its processes.
    pub(super) fn new(database: &Path, hostname: &str, hold: HoldLease) -> Member {
        let name = format!("{}.lease", uuid::Uuid::new_v4());
        let path = rundir::path(database).join(name);
        let card = Card {
            id: fastrand::i64(NUMBERS),
            lease: path.display().to_string(),
            hostname: hostname.into(),
            pid: std::process::id().into(),
            identity: Some(ProcessIdentity::of_self().text().into()),
        };
        let (held, unseen) = (Vec::new(), HashSet::new());
        let mut member = Member { card: Arc::new(card), path, held, hold, warned: false, unseen };
        member.keep(database);
        member
    }

    /// Makes the lease, if it is not where it has to be.
    pub(super) fn keep(&mut self, database: &Path) {
        if self.held.last().is_some_and(Lease::is_in_place) {
            return;
        }
        match self.make(database) {
            Ok(lease) => {
                if !self.held.is_empty() {
                    let path = self.path.display();
                    tracing::warn!("{path} was removed while it was in use: it is created again");
                }
                self.warned = false;
                self.held.push(lease);
            }
            Err(error) if !self.warned => {
                self.warned = true;
                tracing::warn!(
                    "no lease and no wake-up file: {error}; others check for the processes of this \
                     worker instead, and changes of the database announce new messages"
                );
            }
            Err(_) => {}
        }
    }

    fn make(&self, database: &Path) -> io::Result<Lease> {
        rundir::create(database)?;
        let lease = Lease::create(&self.path).map_err(|error| file::naming(&self.path, &error))?;
        if let Err(error) = (self.hold)(&self.path) {
            tracing::warn!("the guard cannot hold {}: {error}", self.path.display());
        }
        Ok(lease)
    }

    /// Why what a worker holds that is not registered may not be handed out again: another one lives
    /// that is not registered either, or nobody can say. A worker is registered before it takes,
    /// and until it has given back; but somebody may have removed its row.
    pub(super) fn doubt(&self, others: &[Card], database: &Path) -> Option<String> {
        let registered: HashSet<PathBuf> = others.iter().map(|card| card.lease(database)).collect();
        let folder = rundir::path(database);
        let all = match std::fs::read_dir(&folder).and_then(Iterator::collect::<io::Result<Vec<_>>>)
        {
            Ok(all) => all,
            // Without the folder nobody has a lease.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => return Some(format!("{}: {error}", folder.display())),
        };
        let leases = all.iter().map(std::fs::DirEntry::path).filter(|path| {
            let is_lease = path.extension().is_some_and(|name| name == "lease");
            is_lease && path.file_name() != self.path.file_name() && !registered.contains(path)
        });
        leases.map(|path| (Lease::state(&path), path)).find_map(|(sign, path)| match sign {
            LeaseState::Free => None,
            LeaseState::Held => {
                Some(format!("somebody who is not registered holds {}", path.display()))
            }
            LeaseState::Unknown(error) => Some(format!("{}: {error}", path.display())),
        })
    }

    /// Logs once a worker that is not registered, and may still live.
    pub(super) fn tell_unknown(&mut self, owner: i64, why: &str) {
        if self.unseen.insert(owner) {
            tracing::warn!(
                "messages are held by worker {owner}, which is not in qworker_worker, and are kept \
                 for it: {why}; if that worker is dead, remove the file"
            );
        }
    }

    /// Tells once of a worker that nothing can be seen of.
    pub(super) fn tell_unseen(&mut self, other: &Card, database: &Path, why: &io::Error) {
        if self.unseen.insert(other.id) {
            let lease = other.lease(database);
            tracing::warn!(
                "worker {} (process {}) cannot be seen from here ({}: {why}), so it is not \
                 considered dead, and its messages are kept for it; if it is dead, run `touch {}`",
                other.hostname,
                other.pid,
                lease.display(),
                lease.display()
            );
        }
    }

    /// Lets go.
    pub(super) fn end(self) {
        if self.held.last().is_some_and(Lease::is_in_place) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
