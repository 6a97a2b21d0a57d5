//! One SQLite file, owned by one thread that commits in groups.
//!
//! A job is a closure over the connection. All jobs that wait are run in one
//! transaction, each in a savepoint of its own, and answered after the commit:
//! ten callers pay for one commit, and a failing job spoils only itself. What must be on the
//! disk is synced after the commit and before the answer: others see and use it meanwhile,
//! and nobody waits for the lock because somebody waits for the disk.

pub mod cell;
mod database;
mod schema;

pub use database::as_it_is;
pub use schema::Schema;

use super::error::{Error, StoreErrorKind};
use crate::os::signal::with_signals_blocked;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use database::{BUSY_MAX, Database, DatabasePath, QUIET};
use rusqlite::{Connection, ErrorCode};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, ThreadId};
use std::time::Duration;
use tokio::sync::oneshot;

/// Jobs in one transaction, at most: limits how long another process waits for the lock.
const GROUP_MAX: usize = 64;

/// How long the end of the program waits until the file is closed.
const LAST_WAIT: Duration = Duration::from_secs(2);

/// Seconds from the epoch to the end of year 9999: what is farther away is no instant.
pub const INSTANT_MAX: f64 = 253_402_300_799.0;

/// What a file is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// One who makes it, its folder and its tables, if they are not there; and opens another one
    /// that stands in its place later.
    Create,
    /// One who changes what is in it, if it is there.
    Change,
    /// One who reads what is in it, if it is there, and leaves all as it is.
    Look,
}

/// Must a commit survive a power cut before it is answered?
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Durability {
    /// It only reads, and waits for no writer.
    Read,
    /// Survives the death of any process; after a power cut it may be undone,
    /// whole. Enough where undoing only repeats work.
    Process,
    /// Synced to the disk: what a client was told is accepted.
    Disk,
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Error {
        let kind = match (&error, error.sqlite_error_code()) {
            (_, Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)) => StoreErrorKind::Busy,
            (_, Some(ErrorCode::DiskFull | ErrorCode::SystemIoFailure)) => StoreErrorKind::Full,
            (_, Some(ErrorCode::CannotOpen | ErrorCode::OutOfMemory)) => StoreErrorKind::Unopened,
            // It may be mounted anew, or given back its rights.
            (_, Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied)) => {
                StoreErrorKind::Unopened
            }
            (_, Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)) => {
                StoreErrorKind::Damaged
            }
            // What is too large, or of the wrong type, is so the next time too.
            (_, Some(ErrorCode::TooBig | ErrorCode::TypeMismatch)) => StoreErrorKind::Refused,
            (_, Some(ErrorCode::ConstraintViolation)) => StoreErrorKind::Refused,
            (rusqlite::Error::ToSqlConversionFailure(_), _) => StoreErrorKind::Refused,
            _ => StoreErrorKind::Other,
        };
        Error::of(kind, error.to_string())
    }
}

fn gone() -> Error {
    Error::misuse("the store's thread has ended")
}

/// The write-ahead log of a database file.
pub fn log_of(database: &Path) -> PathBuf {
    let mut name = database.as_os_str().to_os_string();
    name.push("-wal");
    name.into()
}

/// A handle to the thread that owns the connection. Clones share it; the thread
/// ends with the last of them.
#[derive(Clone)]
pub struct Db(Arc<Handle>);

struct Handle {
    jobs: Option<Sender<Box<dyn Job>>>,
    thread: ThreadId,
    ended: Receiver<()>,
    path: PathBuf,
    /// The log is moved to the file at the end, whoever else has it open.
    cuts: Arc<AtomicBool>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.jobs = None;
        // The last process to close the file moves its log to it. A job may hold the last handle
        // itself.
        if std::thread::current().id() != self.thread {
            let _ = self.ended.recv_timeout(LAST_WAIT);
        }
    }
}

trait Job: Send {
    fn durability(&self) -> Durability;
    /// Runs inside a savepoint; the error undoes this job alone.
    fn run(&mut self, connection: &Connection) -> Result<(), Error>;
    /// Answers the caller: after the commit, or with the reason why there was none.
    fn answer(self: Box<Self>, commit: Result<(), Error>);
}

struct Call<T, F> {
    durability: Durability,
    work: Option<F>,
    value: Option<Result<T, Error>>,
    reply: oneshot::Sender<Result<T, Error>>,
}

impl<T, F> Job for Call<T, F>
where
    T: Send,
    F: FnOnce(&Connection) -> Result<T, Error> + Send,
{
    fn durability(&self) -> Durability {
        self.durability
    }

    fn run(&mut self, connection: &Connection) -> Result<(), Error> {
        let Some(work) = self.work.take() else { return Ok(()) };
        let value = work(connection);
        let failed = value.as_ref().err().cloned();
        self.value = Some(value);
        failed.map_or(Ok(()), Err)
    }

    fn answer(self: Box<Self>, commit: Result<(), Error>) {
        let value = match (self.value, commit) {
            (Some(Err(error)), _) | (_, Err(error)) => Err(error),
            (Some(value), Ok(())) => value,
            (None, Ok(())) => Err(gone()),
        };
        // A caller that went away (a dropped future) does not want the answer.
        let _ = self.reply.send(value);
    }
}

impl Db {
    /// Opens or creates the file at `path` and its folder, runs `setup`, and
    /// starts the thread.
    ///
    /// # Errors
    /// The folder cannot be made, the file is no database, or `setup` fails.
    pub fn open(
        path: &Path,
        setup: impl Fn(&Connection) -> Result<(), Error> + Send + 'static,
    ) -> Result<Db, Error> {
        Db::open_as(path, Access::Create, setup)
    }

    /// As [`Db::open`], for one who may leave the file as it is. For [`Access::Look`] let `setup`
    /// be [`Schema::imagine`].
    ///
    /// # Errors
    /// As [`Db::open`].
    pub fn open_as(
        path: &Path,
        access: Access,
        setup: impl Fn(&Connection) -> Result<(), Error> + Send + 'static,
    ) -> Result<Db, Error> {
        let path = DatabasePath::find(path, access)?;
        Db::start(Database::open(path, access, BUSY_MAX, Box::new(setup))?, false)
    }

    /// As [`Db::open_as`], with these tables; one who only looks makes none of them.
    ///
    /// # Errors
    /// As [`Db::open`].
    pub fn open_with(
        path: &Path,
        access: Access,
        schemas: Vec<&'static Schema>,
    ) -> Result<Db, Error> {
        Db::open_as(path, access, move |c| {
            schemas.iter().try_for_each(|schema| match access {
                Access::Look => schema.imagine(c),
                Access::Create | Access::Change => schema.create(c),
            })
        })
    }

    /// As [`Db::open`], for one who looks himself whether the file is still in its place. Waits
    /// for others who have it locked for `patience`. At its end the log is moved to the file.
    ///
    /// # Errors
    /// The file is no database, or is locked, or `setup` fails.
    pub fn open_alone(
        path: &Path,
        patience: Duration,
        setup: impl Fn(&Connection) -> Result<(), Error> + Send + 'static,
    ) -> Result<Db, Error> {
        let path = DatabasePath::find(path, Access::Create)?;
        let mut database = Database::open(path, Access::Create, patience, Box::new(setup))?;
        database.follows = false;
        Db::start(database, true)
    }

    fn start(database: Database, cuts: bool) -> Result<Db, Error> {
        let path = database.path().to_path_buf();
        let (jobs, queue) = crossbeam_channel::unbounded::<Box<dyn Job>>();
        let (end, ended) = crossbeam_channel::bounded::<()>(0);
        let thread = std::thread::Builder::new().name("store".into());
        let cuts = Arc::new(AtomicBool::new(cuts));
        let cuts_at_end = cuts.clone();
        let thread: JoinHandle<()> = with_signals_blocked(|| {
            thread.spawn(move || {
                serve(database, &queue, &cuts_at_end);
                drop(end);
            })
        })
        .map_err(|error| Error::io("start a thread", &error))?;
        let thread = thread.thread().id();
        Ok(Db(Arc::new(Handle { jobs: Some(jobs), thread, ended, path, cuts })))
    }

    /// The file that was opened first, through any links.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// The log stays as it is at the end: who looks for the cause of a damage may need it.
    pub fn leave_log(&self) {
        self.0.cuts.store(false, Ordering::Relaxed);
    }

    /// Do both handles lead to the same connection?
    pub fn same(&self, other: &Db) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Runs `work` in a transaction and answers after its commit.
    pub async fn run<T, F>(&self, durability: Durability, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Error> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let call = Call { durability, work: Some(work), value: None, reply };
        let jobs = self.0.jobs.as_ref().ok_or_else(gone)?;
        jobs.send(Box::new(call)).map_err(|_| gone())?;
        let answer = answer.await.unwrap_or_else(|_| Err(gone()));
        answer.map_err(|error| error.with(self.path().display()))
    }
}

fn serve(mut database: Database, queue: &Receiver<Box<dyn Job>>, cuts: &AtomicBool) {
    let mut group: Vec<Box<dyn Job>> = Vec::new();
    loop {
        let first = match database.is_restless() {
            true => queue.recv_timeout(QUIET),
            false => queue.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match first {
            Ok(first) => group.push(first),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                if cuts.load(Ordering::Relaxed) {
                    database.end();
                }
                return;
            }
        }
        database.rest();
        group.extend(queue.try_iter().take(GROUP_MAX - 1));
        if group.is_empty() {
            continue;
        }
        let commit = database.look().and_then(|()| serve_group(&mut database, &mut group));
        for job in group.drain(..) {
            job.answer(commit.clone());
        }
        database.has_written();
    }
}

fn serve_group(database: &mut Database, group: &mut [Box<dyn Job>]) -> Result<(), Error> {
    let wanted = group.iter().map(|job| job.durability()).max().unwrap_or(Durability::Disk);
    let begin = if wanted == Durability::Read { "BEGIN" } else { "BEGIN IMMEDIATE" };
    let mut commit = run_group(&database.connection, begin, group);
    if wanted == Durability::Disk && commit.is_ok() {
        commit = database.sync();
    }
    if commit.as_ref().is_err_and(|error| error.kind() == StoreErrorKind::Full) {
        // The log may be what fills the disk. If this fails too, the next try is the caller's.
        database.cut_log(Duration::ZERO);
    }
    commit
}

fn run_group(
    connection: &Connection,
    begin: &str,
    group: &mut [Box<dyn Job>],
) -> Result<(), Error> {
    let result = try_group(connection, begin, group);
    if result.is_err() && !connection.is_autocommit() {
        // The error that led here is the one worth telling.
        let _ = connection.execute_batch("ROLLBACK");
    }
    result
}

fn try_group(
    connection: &Connection,
    begin: &str,
    group: &mut [Box<dyn Job>],
) -> Result<(), Error> {
    let step = |sql: &str| -> Result<(), Error> {
        connection.prepare_cached(sql)?.execute([])?;
        Ok(())
    };
    step(begin)?;
    let alone = group.len() == 1;
    for job in group.iter_mut() {
        if !alone {
            step("SAVEPOINT job")?;
        }
        if job.run(connection).is_err() {
            // A full disk may have rolled everything back already.
            if connection.is_autocommit() || alone {
                return Err(Error::of(StoreErrorKind::Full, "the transaction was rolled back"));
            }
            step("ROLLBACK TO job")?;
        }
        if !alone {
            step("RELEASE job")?;
        }
    }
    step("COMMIT")
}

/// The version of SQLite itself.
pub fn version() -> &'static str {
    rusqlite::version()
}
