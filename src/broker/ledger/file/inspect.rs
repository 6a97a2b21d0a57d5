//! Classifies what is at the path of a state file. Only a recognisable state file is opened for
//! writing or set aside; anything else stays unchanged.

use crate::broker::Error;
use crate::link::error::StoreErrorKind;
use crate::link::sqlite::{as_it_is, cell, log_of};
use crate::os;
use rusqlite::{Connection, OpenFlags};
use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

/// What makes the tables, as the file keeps it.
const TABLES: [&str; 2] = [
    "CREATE TABLE beat_entry (
    grp TEXT NOT NULL,
    name TEXT NOT NULL,
    state TEXT NOT NULL,
    PRIMARY KEY (grp, name)
) WITHOUT ROWID",
    "CREATE TABLE beat_outbox (
    id INTEGER NOT NULL PRIMARY KEY,
    grp TEXT NOT NULL,
    at REAL NOT NULL,
    token TEXT NOT NULL UNIQUE,
    messages TEXT NOT NULL
)",
];

/// Takes over the tables of earlier versions, which had more columns.
const UPGRADE: &str = "
ALTER TABLE beat_entry RENAME TO old_entry;
ALTER TABLE beat_outbox RENAME TO old_outbox;";
const UPGRADED: &str = "
INSERT INTO beat_entry SELECT grp, name, state FROM old_entry;
INSERT INTO beat_outbox SELECT id, grp, at, token, messages FROM old_outbox;
DROP TABLE old_entry;
DROP TABLE old_outbox;";

/// In the texts of the first page, the name of a table that one of them makes follows this.
const CREATE: &[u8] = b"CREATE TABLE ";

/// `PRAGMA user_version` of a file with these tables: one that has lost them is not taken for new.
const MARK: i64 = 7_173_218;

/// The same, of a file with the tables of earlier versions.
const OLD_MARK: i64 = 7_173_217;

/// `PRAGMA application_id` of our files, "qwBt" in ASCII. It says whose a file is when SQLite
/// cannot read it any more. Files of earlier versions have none until they are opened.
const APPLICATION: i32 = 0x7177_4274;

/// Where the header has it, big-endian.
const APPLICATION_AT: usize = 68;

/// What every database begins with.
const MAGIC: &[u8] = b"SQLite format 3\0";

/// The first page of a file of ours: its header, and the texts that make the tables.
const HEAD: u64 = 4096;

/// No database but an empty one is smaller.
const PAGE_MIN: u64 = 512;

/// Where a database says which versions may write and read it: 1 is any, 2 one with a log.
const FORMS_AT: u64 = 18;

/// How long opening a file waits for others that have it locked; nothing else is done meanwhile.
pub(super) const PATIENCE: Duration = Duration::from_millis(250);

/// A file that is being made is empty for a moment: how many times it is looked at, and the pauses.
const LOOKS: (usize, Duration) = (5, Duration::from_millis(20));

/// How many names of other tables are named.
const TOLD: usize = 3;

/// What may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StateFileKind {
    /// Nothing, an empty file, or a database without tables.
    New,
    /// What a beat made, damaged or not.
    Ours,
}

/// A database as it describes itself.
struct Schema {
    /// Name, and what made it, in the order of the names.
    tables: Vec<(String, String)>,
    mark: i64,
    id: i32,
}

/// Looks at what is there, and changes nothing.
///
/// # Errors
/// [`StoreErrorKind::Unopened`]: it is not a beat's; the text says what was found.
pub(super) fn look(path: &Path) -> Result<StateFileKind, Error> {
    let mut pauses = 0..LOOKS.0;
    let found = loop {
        let found = match fs::metadata(path) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(StateFileKind::New),
            Err(error) => return Err(Error::misuse(error.to_string())),
        };
        if found.is_dir() {
            return Err(refused("a folder"));
        } else if !found.is_file() {
            return Err(refused("no regular file"));
        } else if found.len() > 0 {
            break found;
        } else if log_is_empty(path) {
            return Ok(StateFileKind::New);
        } else if pauses.next().is_none() {
            // A log is begun only after the first page is written.
            let log = log_of(path);
            return Err(refused(&format!("an empty file with the log {}", log.display())));
        }
        std::thread::sleep(LOOKS.1);
    };
    let mut head = Vec::new();
    let read = fs::File::open(path).and_then(|file| file.take(HEAD).read_to_end(&mut head));
    read.map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => refused(&format!("a file that cannot be read: {error}")),
        _ => Error::misuse(error.to_string()),
    })?;
    let id = head.get(APPLICATION_AT..).and_then(|rest| rest.first_chunk());
    if id.is_some_and(|id| i32::from_be_bytes(*id) == APPLICATION) {
        return Ok(StateFileKind::Ours);
    }
    let has_our_texts = has_our_texts(&head);
    if !head.starts_with(MAGIC) && !has_our_texts {
        return Err(refused(&match os::file::is_text(path) {
            true => "a text".into(),
            false => format!("a file of another program ({} bytes)", found.len()),
        }));
    }
    match read_schema(path) {
        Ok(schema) => schema.whose(),
        Err(error) if error.kind() == StoreErrorKind::Busy => Err(error),
        Err(_) if has_our_texts => Ok(StateFileKind::Ours),
        Err(error) if error.kind() == StoreErrorKind::Damaged => Err(refused(&format!(
            "a damaged SQLite database, not known as one of a beat ({error})"
        ))),
        // Perhaps it is being made: its tables are checked again when it is opened.
        Err(_) => Ok(StateFileKind::New),
    }
}

fn refused(what: &str) -> Error {
    Error::of(StoreErrorKind::Unopened, format!("found {what}, expected no file, or one of a beat"))
}

/// It is damaged, and how.
fn damaged(why: impl Into<String>) -> Error {
    Error::of(StoreErrorKind::Damaged, why)
}

/// Whether the log has nothing that the file has not.
fn log_is_empty(path: &Path) -> bool {
    fs::metadata(log_of(path)).map_or(true, |found| found.len() == 0)
}

/// Whether the page makes our tables and no others, as far as it can be read.
fn has_our_texts(page: &[u8]) -> bool {
    let names = page.windows(CREATE.len()).enumerate().filter(|(_, text)| *text == CREATE);
    let names: Vec<&[u8]> = names.map(|(at, _)| &page[at + CREATE.len()..]).collect();
    names.iter().any(|name| name.starts_with(b"beat_entry ("))
        && names
            .iter()
            .all(|name| name.starts_with(b"beat_entry (") || name.starts_with(b"beat_outbox ("))
}

impl Schema {
    fn of(c: &Connection) -> Result<Schema, Error> {
        let mut all = c.prepare(
            "SELECT name, coalesce(sql, '') FROM sqlite_schema
             WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name",
        )?;
        let mut rows = all.query([])?;
        let mut tables = Vec::new();
        while let Some(row) = rows.next()? {
            tables.push((cell::text(row, 0), cell::text(row, 1)));
        }
        let mark = c.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        let id = c.query_row("PRAGMA application_id", [], |row| row.get(0))?;
        Ok(Schema { tables, mark, id })
    }

    /// Whether our tables can be used.
    ///
    /// # Errors
    /// They are damaged.
    fn check(&self) -> Result<(), Error> {
        let is_there = |table: &&str| self.tables.iter().any(|(_, sql)| sql == table);
        match self.mark {
            OLD_MARK => Ok(()),
            MARK if TABLES.iter().all(is_there) => Ok(()),
            _ => Err(damaged("its tables are not those of a beat")),
        }
    }

    /// Whose it is, if it can be read.
    fn whose(&self) -> Result<StateFileKind, Error> {
        let names: Vec<&str> = self.tables.iter().map(|(name, _)| name.as_str()).collect();
        let is_marked = [MARK, OLD_MARK].contains(&self.mark);
        if self.id == APPLICATION || is_marked && names == ["beat_entry", "beat_outbox"] {
            return Ok(StateFileKind::Ours);
        }
        if names.is_empty() && self.mark == 0 && self.id == 0 {
            return Ok(StateFileKind::New);
        }
        let told = names[..names.len().min(TOLD)].join(", ");
        Err(refused(&match names.len() {
            0 => "another program's SQLite database (without tables)".to_string(),
            1 => format!("another program's SQLite database (with the table {told})"),
            2..=TOLD => format!("another program's SQLite database (with the tables {told})"),
            more => format!(
                "another program's SQLite database (with the tables {told} and {} more)",
                more - TOLD
            ),
        }))
    }
}

/// Reads how a database describes itself, and leaves it, its log and its folder as they are, if
/// the log has nothing that is needed.
fn read_schema(path: &Path) -> Result<Schema, Error> {
    match open_as_it_is(path).and_then(|c| Schema::of(&c)) {
        Ok(schema) if !schema.tables.is_empty() => Ok(schema),
        done if log_is_empty(path) => done,
        _ => Schema::of(&open_with_log(path)?),
    }
}

/// Opens it as one that does not change: nothing is made beside it.
fn open_as_it_is(path: &Path) -> Result<Connection, Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    Ok(Connection::open_with_flags(as_it_is(path), flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?)
}

/// Opens it to be read while others change it.
fn open_with_log(path: &Path) -> Result<Connection, Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(PATIENCE)?;
    Ok(connection)
}

/// Reads one of ours that is whole, and makes and changes nothing.
///
/// # Errors
/// It is damaged, or cannot be read.
pub(super) fn read<T>(
    path: &Path,
    read: impl Fn(&Connection) -> Result<T, Error>,
) -> Result<T, Error> {
    let read_by = |open: fn(&Path) -> Result<Connection, Error>| {
        may_be_whole(path)?;
        let connection = open(path)?;
        inspect(&connection)?;
        read(&connection)
    };
    let had_log = log_of(path).exists();
    match read_by(if had_log { open_with_log } else { open_as_it_is }) {
        // Where no index of the log can be made, none is needed for an empty one.
        Err(error) if had_log && error.kind() == StoreErrorKind::Unopened && log_is_empty(path) => {
            read_by(open_as_it_is).map_err(|_| error)
        }
        // Another process has begun to change it.
        Err(_) if !had_log && log_of(path).exists() => read_by(open_with_log),
        done => done,
    }
    .map_err(|error| match error.kind() {
        StoreErrorKind::Other => damaged(error.to_string()),
        _ => error,
    })
}

/// Makes the file if it is missing, and checks that it can be read and written.
///
/// # Errors
/// It is damaged, or cannot be made.
pub(super) fn prepare(path: &Path) -> Result<(), Error> {
    os::file::make_folders(os::file::folder_of(path), 0o777)
        .map_err(|error| Error::io("create folder", &error))?;
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
    opened.map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => damaged(error.to_string()),
        io::ErrorKind::StorageFull => Error::of(StoreErrorKind::Full, error.to_string()),
        _ => Error::misuse(error.to_string()),
    })?;
    may_be_whole(path)
}

/// Finds damage that SQLite does not report, or reports as something else.
fn may_be_whole(path: &Path) -> Result<(), Error> {
    let file = fs::File::open(path).map_err(|error| Error::misuse(error.to_string()))?;
    // SQLite would take it for an empty one.
    if file.metadata().is_ok_and(|found| found.len() > 0 && found.len() < PAGE_MIN) {
        return Err(damaged("it is too short"));
    }
    let mut forms = [0; 2];
    match file.read_exact_at(&mut forms, FORMS_AT) {
        // Of an unknown form, SQLite says only that it must not be written.
        Ok(()) if !forms.iter().all(|form| [1, 2].contains(form)) => {
            Err(damaged("its header is of no known form"))
        }
        _ => Ok(()),
    }
}

/// Makes the tables if there are none, and writes into the header whose they are. A file that is not
/// a beat's stays as it is.
///
/// # Errors
/// It is damaged, or not a beat's.
pub(super) fn make_tables(c: &Connection) -> Result<(), Error> {
    c.execute_batch("BEGIN IMMEDIATE")?;
    let schema = Schema::of(c)?;
    let is_new = schema.whose()? == StateFileKind::New;
    if !is_new {
        schema.check()?;
    }
    if is_new || schema.mark == OLD_MARK {
        let [before, after] = if is_new { ["", ""] } else { [UPGRADE, UPGRADED] };
        c.execute_batch(&[before, &TABLES.join(";"), ";", after].concat())?;
        c.pragma_update(None, "user_version", MARK)?;
    }
    if schema.id != APPLICATION {
        c.pragma_update(None, "application_id", APPLICATION)?;
    }
    c.execute_batch("COMMIT")?;
    if schema.id != APPLICATION {
        // From now on the header says it, also when the log is lost. If it cannot, later.
        let moved = c.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
        moved.unwrap_or_else(|error| tracing::debug!("the log stays: {error}"));
    }
    Ok(())
}

/// Looks at every page.
///
/// # Errors
/// One is damaged.
pub(super) fn inspect_pages(c: &Connection) -> Result<(), Error> {
    let said: String = c.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    match said.as_str() {
        "ok" => Ok(()),
        _ => Err(damaged(said.lines().last().unwrap_or_default())),
    }
}

fn inspect(c: &Connection) -> Result<(), Error> {
    inspect_pages(c)?;
    Schema::of(c)?.check()
}
