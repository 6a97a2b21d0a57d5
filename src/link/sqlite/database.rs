//! An open file: which one it is, how it is opened, and how large its log may become.

use super::super::error::{Error, StoreErrorKind};
use super::{Access, log_of};
use crate::os::file;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a job waits for another process that holds the write lock, before it fails.
pub(super) const BUSY_MAX: Duration = Duration::from_secs(10);

/// The log is cut when it is larger. Moving what is in it to the file begins at a quarter of this.
const LOG_MAX: u64 = 16 * 1024 * 1024;

/// How long cutting the log waits for readers.
const CUT_PATIENCE: Duration = Duration::from_millis(100);

/// A log that could not be cut because of a reader is left alone for this time.
const CUT_EVERY: Duration = Duration::from_secs(1);

/// After this time without a write, the log is emptied.
pub(super) const QUIET: Duration = Duration::from_secs(1);

/// Makes tables, or looks whether they are there.
pub(super) type Setup = Box<dyn Fn(&Connection) -> Result<(), Error> + Send>;

/// The path of a database.
pub(super) struct DatabasePath {
    /// As it was named, absolute: it may lead elsewhere one day.
    given: PathBuf,
    /// Where it leads; `None` is in memory.
    real: Option<PathBuf>,
}

impl DatabasePath {
    /// Finds it. A file that is not there is made by who creates, and is an empty one in memory
    /// for all others.
    pub(super) fn find(path: &Path, access: Access) -> Result<DatabasePath, Error> {
        let given = std::path::absolute(path).map_err(|e| Error::io(path.display(), &e))?;
        if access == Access::Create && fs::symlink_metadata(&given).is_err() {
            file::make_folders(file::folder_of(&given), 0o777)
                .map_err(|error| Error::io("create folder", &error))?;
        }
        let real = match (file::resolve(&given), access) {
            (Ok(real), _) => real,
            (Err(error), Access::Change | Access::Look) if error.kind() == ErrorKind::NotFound => {
                return Ok(DatabasePath { given, real: None });
            }
            (Err(error), _) => return Err(Error::io("find the database", &error)),
        };
        match fs::metadata(&real) {
            Ok(found) => examine(&real, &found)?,
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(Error::io(real.display(), &error));
            }
            Err(_) if access == Access::Create => match file::create(&real, 0o660) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                    return Err(Error::io(real.display(), &error));
                }
                _ => {}
            },
            Err(_) => return Ok(DatabasePath { given, real: None }),
        }
        Ok(DatabasePath { given, real: Some(real) })
    }

    /// The file, or where it would be.
    pub(super) fn path(&self) -> &Path {
        self.real.as_deref().unwrap_or(&self.given)
    }
}

/// Can SQLite have it? It keeps a log beside the name, so a file must have one name.
fn examine(path: &Path, found: &fs::Metadata) -> Result<(), Error> {
    let refused = |why: String| {
        Err(Error::of(StoreErrorKind::Unopened, format!("{}: {why}", path.display())))
    };
    if !found.is_file() {
        return refused("expected a file with a database, found something else".into());
    }
    if found.nlink() > 1 {
        return refused(format!(
            "the file has {} names (hard links): whoever uses another one has another log, and \
             destroys what is in it; remove the others, or make a link with `ln -s`",
            found.nlink()
        ));
    }
    if file::is_mount(path) {
        return refused(
            "the file is mounted by itself, so its log would stay outside; mount its folder".into(),
        );
    }
    Ok(())
}

/// Device and inode.
type FileId = (u64, u64);

fn number_of(found: &fs::Metadata) -> FileId {
    (found.dev(), found.ino())
}

/// An open database.
pub(super) struct Database {
    pub(super) connection: Connection,
    path: DatabasePath,
    access: Access,
    setup: Setup,
    patience: Duration,
    number: Option<FileId>,
    log: Log,
    /// Whether what stands at the path is the one that is open is asked.
    pub(super) follows: bool,
    changes: u64,
    wrote: Option<Instant>,
    cut: Option<Instant>,
}

impl Database {
    /// Opens it, and runs `setup`; waits for others who have it locked for `patience`.
    pub(super) fn open(
        path: DatabasePath,
        access: Access,
        patience: Duration,
        setup: Setup,
    ) -> Result<Database, Error> {
        let (connection, number) = connect(&path, access, patience, &setup)?;
        let log = Log { path: log_of(path.path()), file: None };
        let changes = connection.total_changes();
        Ok(Database {
            connection,
            path,
            access,
            setup,
            patience,
            number,
            log,
            follows: access == Access::Create,
            changes,
            wrote: Some(Instant::now()),
            cut: None,
        })
    }

    /// The file.
    pub(super) fn path(&self) -> &Path {
        self.path.path()
    }

    /// Is what stands at the path still this file? Another one is opened in its place; one that
    /// is gone is waited for, and what cannot be seen may be there.
    pub(super) fn look(&mut self) -> Result<(), Error> {
        if !self.follows {
            return Ok(());
        }
        match fs::metadata(&self.path.given) {
            Ok(found) if Some(number_of(&found)) == self.number => Ok(()),
            Ok(_) => self.reopen(),
            Err(error) if error.kind() == ErrorKind::NotFound => Err(Error::of(
                StoreErrorKind::Unopened,
                "the database was removed while it was in use; expected it there again",
            )),
            Err(_) => Ok(()),
        }
    }

    fn reopen(&mut self) -> Result<(), Error> {
        let path = DatabasePath::find(&self.path.given, self.access)?;
        let (connection, number) = connect(&path, self.access, self.patience, &self.setup)?;
        self.connection = connection;
        self.log = Log { path: log_of(path.path()), file: None };
        (self.path, self.number) = (path, number);
        self.changes = self.connection.total_changes();
        tracing::warn!(
            "{} was replaced while it was in use: the new file is opened",
            self.path.given.display()
        );
        Ok(())
    }

    /// Puts on the disk what has been committed.
    pub(super) fn sync(&mut self) -> Result<(), Error> {
        if self.path.real.is_none() {
            return Ok(());
        }
        self.log.sync().map_err(|error| {
            let text = format!("it was written, but the disk does not confirm: {error}");
            Error::of(StoreErrorKind::Full, text)
        })
    }

    /// After a commit: cuts the log if it has become too large.
    pub(super) fn has_written(&mut self) {
        let changes = self.connection.total_changes();
        if changes == self.changes {
            return;
        }
        self.changes = changes;
        self.wrote = Some(Instant::now());
        let rests = self.cut.is_some_and(|at| at.elapsed() < CUT_EVERY);
        if !rests && self.log.length() > LOG_MAX {
            self.cut = Some(Instant::now());
            self.cut_log(CUT_PATIENCE);
        }
    }

    /// When it is quiet the log is emptied, so that the file alone has all there is.
    pub(super) fn rest(&mut self) {
        if self.wrote.is_some_and(|at| at.elapsed() >= QUIET) {
            self.wrote = None;
            self.cut_log(Duration::ZERO);
        }
    }

    /// As [`Database::rest`], right before the database is closed.
    pub(super) fn end(&mut self) {
        self.cut_log(CUT_PATIENCE);
    }

    /// Will [`Database::rest`] have something to do?
    pub(super) fn is_restless(&self) -> bool {
        self.wrote.is_some()
    }

    /// Moves what is in the log to the file. Others who use it are no trouble: it stays then.
    pub(super) fn cut_log(&mut self, patience: Duration) {
        if self.access == Access::Look || self.path.real.is_none() {
            return;
        }
        let c = &mut self.connection;
        let done = c.busy_timeout(patience).and_then(|()| {
            c.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0))
        });
        let back = c.busy_handler(Some(wait_for_lock));
        if let Err(error) = done.and(back) {
            tracing::debug!("{}: the log cannot be cut: {error}", self.path().display());
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
    fn sync(&mut self) -> std::io::Result<()> {
        // It exists while the database is open, and it is open here.
        let file = match self.file.take() {
            Some(file) => file,
            None => File::open(&self.path).map_err(|error| file::naming(&self.path, &error))?,
        };
        file.sync_data()?;
        self.file = Some(file);
        Ok(())
    }

    fn length(&self) -> u64 {
        let found = match &self.file {
            Some(file) => file.metadata(),
            None => fs::metadata(&self.path),
        };
        found.map_or(0, |found| found.len())
    }
}

fn connect(
    at: &DatabasePath,
    access: Access,
    patience: Duration,
    setup: &Setup,
) -> Result<(Connection, Option<FileId>), Error> {
    let Some(path) = &at.real else {
        let connection = Connection::open_in_memory()?;
        setup(&connection)?;
        return Ok((connection, None));
    };
    let done = try_connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE, access, patience, setup);
    let done = match done {
        // A reader that may not create a log needs none if there is none.
        Err(error) if access == Access::Look && log_is_empty(path) => {
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
            try_connect(&as_it_is(path), flags, access, patience, setup).map_err(|_| error)
        }
        done => done,
    };
    let connection = done.map_err(|error| {
        let may = matches!(
            error.kind(),
            StoreErrorKind::Unopened | StoreErrorKind::Full | StoreErrorKind::Other
        );
        match file::refusal(path).filter(|_| may) {
            Some(why) => Error::of(StoreErrorKind::Unopened, format!("{error}: {why}")),
            None => error,
        }
    })?;
    Ok((connection, fs::metadata(&at.given).ok().map(|found| number_of(&found))))
}

fn log_is_empty(path: &Path) -> bool {
    match fs::metadata(log_of(path)) {
        Ok(found) => found.len() == 0,
        Err(error) => error.kind() == ErrorKind::NotFound,
    }
}

/// The address of a file that nobody changes.
pub fn as_it_is(path: &Path) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    let bytes = path.as_os_str().as_bytes();
    let name = percent_encoding::percent_encode(bytes, percent_encoding::NON_ALPHANUMERIC);
    format!("file:{}?immutable=1", name.to_string().replace("%2F", "/")).into()
}

fn try_connect(
    path: &Path,
    flags: OpenFlags,
    access: Access,
    patience: Duration,
    setup: &Setup,
) -> Result<Connection, Error> {
    let mut connection =
        Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    // Many programs may make the file at once, and not every step of it waits for its turn.
    connection.busy_timeout(Duration::ZERO)?;
    let until = Instant::now() + patience;
    until_free(until, || prepare(&connection, access))?;
    until_free(until, || {
        let done = setup(&connection);
        if done.is_err() && !connection.is_autocommit() {
            connection.execute_batch("ROLLBACK")?;
        }
        done
    })?;
    connection.busy_handler(Some(wait_for_lock))?;
    Ok(connection)
}

fn until_free(until: Instant, mut step: impl FnMut() -> Result<(), Error>) -> Result<(), Error> {
    loop {
        match step() {
            Err(error) if error.kind() == StoreErrorKind::Busy && Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(2));
            }
            done => return done,
        }
    }
}

fn prepare(connection: &Connection, access: Access) -> Result<(), Error> {
    connection.set_prepared_statement_cache_capacity(64);
    // Else each new value of a parameter that the planner looked at prepares its statement anew.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    // A slice of the file that is worth keeping: an idle worker keeps none of it.
    connection.pragma_update(None, "cache_size", -4096)?;
    if access == Access::Look {
        return Ok(());
    }
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "journal_size_limit", LOG_MAX as i64)?;
    // Syncs where the log begins anew and where it is moved to the file; `Log` does the rest.
    connection.pragma_update(None, "synchronous", "NORMAL")?;
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
