//! One SQLite file, owned by one thread that commits in groups.
//!
//! A job is a closure over the connection. All jobs that wait are run in one
//! transaction, each in a savepoint of its own, and answered after the commit:
//! ten callers pay for one commit, and a failing job spoils only itself. What must be on the
//! disk is synced after the commit and before the answer: others see and use it meanwhile,
//! and nobody waits for the lock because somebody waits for the disk.

use super::error::{Error, Kind};
use crate::os::signal::deaf;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Jobs of one transaction at the most: bounds how long another process waits for the lock.
const GROUP_MAX: usize = 64;

/// How long a job waits for another process that holds the write lock, before it fails.
const BUSY_MAX: Duration = Duration::from_secs(10);

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
        let kind = match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Kind::Busy,
            Some(ErrorCode::DiskFull | ErrorCode::SystemIoFailure) => Kind::Full,
            Some(ErrorCode::CannotOpen | ErrorCode::OutOfMemory) => Kind::Unopened,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Kind::Damaged,
            _ => Kind::Other,
        };
        Error::of(kind, error.to_string())
    }
}

fn gone() -> Error {
    Error::misuse("the store's thread has ended")
}

/// Tables of one of our uses of the file.
pub struct Schema {
    /// `CREATE TABLE IF NOT EXISTS` statements.
    pub tables: &'static str,
    /// The table among them that a Python program may have made before us.
    pub shared: &'static str,
    /// Columns of ours that its version lacks: name, type and default.
    pub columns: &'static [(&'static str, &'static str)],
    /// `CREATE INDEX IF NOT EXISTS` statements.
    pub indexes: &'static str,
}

impl Schema {
    /// Creates what is missing, in one transaction.
    ///
    /// # Errors
    /// The file cannot be written, or holds other tables of these names.
    pub fn create(&self, c: &Connection) -> Result<(), Error> {
        let listed = format!("SELECT name FROM pragma_table_info('{}')", self.shared);
        c.execute_batch("BEGIN IMMEDIATE")?;
        c.execute_batch(self.tables)?;
        let mut found = c.prepare(&listed)?;
        let found: Vec<String> =
            found.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
        for (name, kind) in self.columns.iter().filter(|(name, _)| !found.iter().any(|f| f == name))
        {
            c.execute_batch(&format!("ALTER TABLE {} ADD COLUMN {name} {kind}", self.shared))?;
        }
        c.execute_batch(self.indexes)?;
        Ok(c.execute_batch("COMMIT")?)
    }
}

/// The folder of leases and bells that belongs to a database file.
pub fn run_folder(database: &Path) -> PathBuf {
    let mut name = database.file_name().unwrap_or_default().to_os_string();
    name.push(".run");
    database.with_file_name(name)
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
pub struct Db {
    jobs: crossbeam_channel::Sender<Box<dyn Job>>,
    path: Arc<PathBuf>,
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
        setup: impl Fn(&Connection) -> Result<(), Error>,
    ) -> Result<Db, Error> {
        make_folder(&run_folder(path))?;
        Db::open_alone(path, BUSY_MAX, setup)
    }

    /// As [`Db::open`], for a file that nobody is waked by: without the folder of bells and
    /// leases. Its folder must be there. Waits for others who have it locked for `patience`.
    ///
    /// # Errors
    /// The file is no database, or is locked, or `setup` fails.
    pub fn open_alone(
        path: &Path,
        patience: Duration,
        setup: impl Fn(&Connection) -> Result<(), Error>,
    ) -> Result<Db, Error> {
        let mut connection = Connection::open(path)?;
        // Many programs may make the file at once, and not every step of it waits for its turn.
        connection.busy_timeout(Duration::ZERO)?;
        let until = Instant::now() + patience;
        until_free(until, || prepare(&mut connection))?;
        until_free(until, || {
            let done = setup(&connection);
            if done.is_err() && !connection.is_autocommit() {
                connection.execute_batch("ROLLBACK")?;
            }
            done
        })?;
        connection.busy_handler(Some(wait_for_lock))?;
        let log = Log::of(path);
        let (jobs, queue) = crossbeam_channel::unbounded::<Box<dyn Job>>();
        let thread = std::thread::Builder::new().name("store".into());
        deaf(|| thread.spawn(move || serve(&connection, log, &queue))).map_err(Error::from)?;
        Ok(Db { jobs, path: Arc::new(path.to_path_buf()) })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Do both handles lead to the same connection?
    pub fn same(&self, other: &Db) -> bool {
        Arc::ptr_eq(&self.path, &other.path)
    }

    /// Runs `work` in a transaction and answers after its commit.
    pub async fn run<T, F>(&self, durability: Durability, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Error> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let call = Call { durability, work: Some(work), value: None, reply };
        self.jobs.send(Box::new(call)).map_err(|_| gone())?;
        answer.await.unwrap_or_else(|_| Err(gone()))
    }
}

fn make_folder(folder: &Path) -> Result<(), Error> {
    std::fs::create_dir_all(folder)
        .map_err(|error| Error::misuse(format!("create folder {}: {error}", folder.display())))
}

fn until_free(until: Instant, mut step: impl FnMut() -> Result<(), Error>) -> Result<(), Error> {
    loop {
        match step() {
            Err(error) if error.kind() == Kind::Busy && Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(2));
            }
            done => return done,
        }
    }
}

fn prepare(connection: &mut Connection) -> Result<(), Error> {
    connection.set_prepared_statement_cache_capacity(64);
    // Else each new value of a parameter that the planner looked at prepares its statement anew.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // Syncs where the log begins anew and where it is moved to the file; `Log` does the rest.
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    // A slice of the file that is worth keeping: an idle worker keeps none of it.
    connection.pragma_update(None, "cache_size", -4096)?;
    Ok(())
}

/// SQLite's own handler sleeps whole milliseconds from the start; commits here take
/// tens of microseconds, so the first waits are short.
fn wait_for_lock(tries: i32) -> bool {
    let wait = Duration::from_micros(match tries {
        0..20 => 50,
        20..100 => 250,
        _ => 2000,
    });
    std::thread::sleep(wait);
    // 20 x 50 us + 80 x 250 us + n x 2 ms
    tries < 100 + (BUSY_MAX.as_millis() / 2) as i32
}

fn serve(connection: &Connection, mut log: Log, queue: &crossbeam_channel::Receiver<Box<dyn Job>>) {
    let mut group: Vec<Box<dyn Job>> = Vec::new();
    while let Ok(first) = queue.recv() {
        group.push(first);
        group.extend(queue.try_iter().take(GROUP_MAX - 1));
        let wanted = group.iter().map(|job| job.durability()).max().unwrap_or(Durability::Disk);
        let begin = if wanted == Durability::Read { "BEGIN" } else { "BEGIN IMMEDIATE" };
        let mut commit = run_group(connection, begin, &mut group);
        if wanted == Durability::Disk && commit.is_ok() {
            commit = log.sync();
        }
        if commit.as_ref().is_err_and(|error| error.kind() == Kind::Full) {
            // The log may be what fills the disk. If this fails too, the next try is the caller's.
            let _ = connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)");
        }
        for job in group.drain(..) {
            job.answer(commit.clone());
        }
    }
}

/// The write-ahead log, where every commit is until it is moved to the file. That happens
/// only after a sync of the log, so one that we come too late to sync is on the disk already.
struct Log {
    path: PathBuf,
    file: Option<File>,
}

impl Log {
    fn of(database: &Path) -> Log {
        Log { path: log_of(database), file: None }
    }

    /// Puts on the disk what has been committed.
    fn sync(&mut self) -> Result<(), Error> {
        self.try_sync().map_err(|error| {
            let text = format!("it was written, but the disk does not confirm: {error}");
            Error::of(Kind::Full, text)
        })
    }

    fn try_sync(&mut self) -> std::io::Result<()> {
        // There for as long as somebody has the database open, and we have.
        let file = match self.file.take() {
            Some(file) => file,
            None => File::open(&self.path)?,
        };
        file.sync_data()?;
        self.file = Some(file);
        Ok(())
    }
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
                return Err(Error::of(Kind::Full, "the transaction was rolled back"));
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
