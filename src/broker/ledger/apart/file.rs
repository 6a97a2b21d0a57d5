//! The SQLite file of a ledger: its tables, and what is done with one that is damaged.
//!
//! Values and parcels carry a sum of what they say, for SQLite notices damage of its own pages
//! but not of a text.

use super::memory::Memory;
use super::parcel::{self, Parcel};
use super::{LEFT_AFTER, Step};
use crate::broker::Error;
use crate::broker::ledger::Outcome;
use crate::clock;
use crate::link::error::Kind;
use crate::link::sqlite::{Db, Durability, log_of};
use chrono::{DateTime, Utc};
use rusqlite::config::DbConfig;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row, params};
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// What makes the tables, as the file keeps it.
const TABLES: [&str; 2] = [
    "CREATE TABLE beat_entry (
    grp TEXT NOT NULL,
    name TEXT NOT NULL,
    state TEXT NOT NULL,
    sum INTEGER NOT NULL,
    PRIMARY KEY (grp, name)
) WITHOUT ROWID",
    "CREATE TABLE beat_outbox (
    id INTEGER NOT NULL PRIMARY KEY,
    grp TEXT NOT NULL,
    owner TEXT NOT NULL,
    at REAL NOT NULL,
    token TEXT NOT NULL UNIQUE,
    messages TEXT NOT NULL,
    sum INTEGER NOT NULL
)",
];

/// `PRAGMA user_version` of a file with these tables: one that was lost is not taken for new.
const MARK: i64 = 7_173_217;

/// No database but an empty one is smaller.
const PAGE_MIN: u64 = 512;

/// Where a database says who may write and read it: 1 is any version, 2 one with a log.
const FORMS_AT: u64 = 18;

/// Parcels that are read at once: some ten megabytes.
const PARCELS_MAX: usize = 32;

/// Who opens a file waits so long for others who have it locked; nothing else is done meanwhile.
const PATIENCE: Duration = Duration::from_millis(250);

/// Who sets a file aside waits so often, so long, for another one who does.
const TURNS: (usize, Duration) = (100, Duration::from_millis(10));

/// Whose parcels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// Of this ledger, and what others have left.
    Ours,
    /// What others have left.
    Left,
    /// Of all that use the file.
    Anybodys,
}

/// An open file.
pub struct File {
    db: Db,
    group: Arc<str>,
    /// Tells our parcels from those of others.
    owner: Arc<str>,
    number: Number,
    failures: usize,
}

/// Device and inode.
pub type Number = (u64, u64);

/// Opens the file, or sets it aside and begins a new one if it is at fault.
///
/// # Errors
/// It can neither be used nor set aside, or something else is at fault.
pub fn open_or_replace(path: &Path, group: &str) -> Result<File, Error> {
    let before = number_of(path);
    match File::open(path, group) {
        Err(error) if error.kind() == Kind::Damaged => {
            replace(path, group, &error, before.unwrap_or_default())
        }
        done => done,
    }
}

/// Sets the file of this number aside, since `why`, and begins a new one.
///
/// # Errors
/// It cannot be set aside, or there can be no new one.
pub fn replace(path: &Path, group: &str, why: &Error, number: Number) -> Result<File, Error> {
    match set_aside(path, number) {
        Ok(Some(to)) => tracing::warn!(
            "{} is damaged ({why}): set aside as {}, a new one is begun",
            path.display(),
            to.display()
        ),
        // Another beat was quicker, and says so.
        Ok(None) => {}
        Err(error) => {
            return Err(Error::misuse(format!("{why}; it cannot be set aside either: {error}")));
        }
    }
    File::open(path, group)
}

/// Of what is at that path.
pub fn number_of(path: &Path) -> Option<Number> {
    fs::metadata(path).ok().map(|found| number_in(&found))
}

fn number_in(found: &fs::Metadata) -> Number {
    (found.dev(), found.ino())
}

/// Renames the file and its log; nothing if there is another file by now.
fn set_aside(path: &Path, number: Number) -> io::Result<Option<PathBuf>> {
    // One after the other, or somebody would set aside what somebody else has just begun.
    let folder = fs::File::open(folder_of(path))?;
    for _ in 0..TURNS.0 {
        if folder.try_lock().is_ok() {
            break;
        }
        std::thread::sleep(TURNS.1);
    }
    if number_of(path) != Some(number) {
        return Ok(None);
    }
    let stamp = clock::now().format("%Y%m%dT%H%M%S");
    let mut to = with_end(path, &format!(".damaged-{stamp}"));
    for n in 2.. {
        if to.symlink_metadata().is_err() {
            break;
        }
        to = with_end(path, &format!(".damaged-{stamp}-{n}"));
    }
    for end in ["-wal", "-shm"] {
        let _ = fs::rename(with_end(path, end), with_end(&to, end));
    }
    fs::rename(path, &to)?;
    Ok(Some(to))
}

/// Is the file of this number one that was set aside?
pub fn aside(path: &Path, number: Number) -> bool {
    let begin = with_end(path, ".damaged-");
    let files = fs::read_dir(folder_of(path)).into_iter().flatten().flatten();
    let mut files = files.filter(|entry| entry.metadata().is_ok_and(|of| number_in(&of) == number));
    files.any(|entry| {
        let (name, begin) = (entry.file_name(), begin.file_name().unwrap_or_default());
        name.as_encoded_bytes().starts_with(begin.as_encoded_bytes())
    })
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

fn with_end(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(end);
    name.into()
}

fn damaged(why: impl Into<String>) -> Error {
    Error::of(Kind::Damaged, why)
}

/// Is it a file that can be read and written? It is made if there is none.
fn look_at(path: &Path) -> Result<(), Error> {
    let folder = folder_of(path);
    fs::create_dir_all(folder).map_err(|error| Error::io(folder.display(), &error))?;
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => return Err(damaged("it is a directory")),
        Ok(found) if !found.is_file() => return Err(Error::misuse("it is no file")),
        // A log is begun only after the first page is written.
        Ok(found) if found.len() == 0 && log_of(path).exists() => {
            return Err(damaged("it is empty, its log is not"));
        }
        // SQLite would take it for empty.
        Ok(found) if found.len() > 0 && found.len() < PAGE_MIN => {
            return Err(damaged("it is too short"));
        }
        _ => {}
    }
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
    let opened = opened.map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => damaged(error.to_string()),
        io::ErrorKind::StorageFull => Error::of(Kind::Full, error.to_string()),
        _ => Error::misuse(error.to_string()),
    })?;
    let mut forms = [0; 2];
    match opened.read_exact_at(&mut forms, FORMS_AT) {
        // Of a form that it does not know SQLite says only that it must not be written.
        Ok(()) if !forms.iter().all(|form| [1, 2].contains(form)) => {
            Err(damaged("its header is of no known form"))
        }
        _ => Ok(()),
    }
}

/// Makes the tables, and looks at every page and every text.
fn set_up(c: &Connection) -> Result<(), Error> {
    // A file that was set aside must not take the log of the new one with it when it is closed.
    c.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    let said: String = c.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    if said != "ok" {
        return Err(damaged(said.lines().last().unwrap_or_default()));
    }
    c.execute_batch("BEGIN IMMEDIATE")?;
    make_tables(c)?;
    c.execute_batch("COMMIT")?;
    // What was in a group may be in none now.
    for sql in [
        "SELECT grp, name, state, sum FROM beat_entry",
        "SELECT grp, token, messages, sum FROM beat_outbox",
    ] {
        let mut statement = c.prepare(sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            check(row, 3, &[&text(row, 0)?, &text(row, 1)?, &text(row, 2)?])?;
        }
    }
    Ok(())
}

fn make_tables(c: &Connection) -> Result<(), Error> {
    let mark: i64 = c.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let mut named = c.prepare(
        "SELECT sql FROM sqlite_schema WHERE name IN ('beat_entry', 'beat_outbox') ORDER BY name",
    )?;
    let found: Vec<String> = named.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    match mark {
        MARK if found == TABLES => Ok(()),
        0 if found.is_empty() => {
            TABLES.iter().try_for_each(|table| c.execute_batch(table))?;
            Ok(c.pragma_update(None, "user_version", MARK)?)
        }
        _ if found.is_empty() && mark != MARK => {
            Err(Error::of(Kind::Unopened, "it is a database of another program"))
        }
        _ => Err(damaged("its tables are not those of a beat")),
    }
}

impl File {
    fn open(path: &Path, group: &str) -> Result<File, Error> {
        look_at(path)?;
        let db = Db::open_alone(path, PATIENCE, set_up).map_err(|error| match error.kind() {
            // These statements are right, and the file can be written, so it is what is wrong.
            Kind::Other => damaged(error.to_string()),
            _ => error,
        })?;
        let number = number_of(path).ok_or_else(|| Error::misuse("it was removed"))?;
        let owner = uuid::Uuid::new_v4().simple().to_string();
        Ok(File { db, group: group.into(), owner: owner.into(), number, failures: 0 })
    }

    /// Device and inode.
    pub fn number(&self) -> Number {
        self.number
    }

    /// Is this the file at that path?
    pub fn is_in_place(&self, path: &Path) -> bool {
        number_of(path) == Some(self.number)
    }

    /// Counts one more failure.
    pub fn has_failed(&mut self) -> usize {
        self.failures += 1;
        self.failures
    }

    /// It is the same file as this one.
    pub fn failed_before(&mut self, other: &File) {
        self.failures = other.failures;
        self.owner = other.owner.clone();
    }

    /// Does the steps in one transaction; gives the parcels of those that are done.
    pub async fn apply(
        &mut self,
        steps: Arc<Vec<Step>>,
        until: Option<DateTime<Utc>>,
    ) -> Result<(Vec<Outcome>, Vec<Parcel>), Error> {
        let sends = steps.iter().any(|step| !step.postings.is_empty());
        let (group, owner) = (self.group.clone(), self.owner.clone());
        let durability = if sends { Durability::Disk } else { Durability::Process };
        let done = self
            .db
            .run(durability, move |c| {
                // It has waited for the lock.
                if until.is_some_and(|until| clock::now() > until) {
                    return Ok((vec![Outcome::Late; steps.len()], Vec::new()));
                }
                let mut postings = Vec::new();
                let mut outcomes = Vec::with_capacity(steps.len());
                for step in steps.iter() {
                    let actual = get(c, &group, &step.name)?;
                    if actual != step.expected {
                        outcomes.push(Outcome::Conflict(actual));
                        continue;
                    }
                    set(c, &group, &step.name, step.state.as_deref())?;
                    postings.extend(step.postings.iter().cloned());
                    outcomes.push(Outcome::Done);
                }
                let parcels = parcel::cut(postings.into_iter());
                parcels.iter().try_for_each(|parcel| put(c, &group, &owner, parcel))?;
                Ok((outcomes, parcels))
            })
            .await?;
        self.failures = 0;
        Ok(done)
    }

    /// Takes over what was done in memory; these parcels have been published meanwhile.
    pub async fn restore(&self, memory: Memory, published: Vec<String>) -> Result<(), Error> {
        let (group, owner) = (self.group.clone(), self.owner.clone());
        self.db
            .run(Durability::Disk, move |c| {
                for (name, state) in memory.changes() {
                    set(c, &group, name, state.as_deref())?;
                }
                memory.parcels().iter().try_for_each(|parcel| put(c, &group, &owner, parcel))?;
                remove(c, &published)
            })
            .await
    }

    /// The values of these names.
    pub async fn read(&self, names: Arc<Vec<String>>) -> Result<Vec<Option<String>>, Error> {
        let group = self.group.clone();
        let get_all = move |c: &Connection| names.iter().map(|name| get(c, &group, name)).collect();
        self.db.run(Durability::Read, get_all).await
    }

    /// All values.
    pub async fn all(&self) -> Result<Vec<(String, String)>, Error> {
        let group = self.group.clone();
        self.db
            .run(Durability::Read, move |c| {
                let sql = "SELECT name, state, sum FROM beat_entry WHERE grp = ?";
                let mut statement = c.prepare_cached(sql)?;
                let mut rows = statement.query([&*group])?;
                let mut all = Vec::new();
                while let Some(row) = rows.next()? {
                    let (name, state) = (text(row, 0)?, text(row, 1)?);
                    check(row, 2, &[&group, &name, &state])?;
                    all.push((name, state));
                }
                Ok(all)
            })
            .await
    }

    /// All parcels of this ledger, and what others have left.
    pub async fn all_parcels(&self) -> Result<Vec<Parcel>, Error> {
        let (mut all, mut after) = (Vec::new(), 0);
        while let (some, Some(last)) = self.parcels(Whose::Ours, after).await? {
            all.extend(some);
            after = last;
        }
        Ok(all)
    }

    /// Some of the parcels, the oldest first, from behind this place on; and the last one's place.
    pub async fn parcels(
        &self,
        whose: Whose,
        after: i64,
    ) -> Result<(Vec<Parcel>, Option<i64>), Error> {
        let (group, owner) = (self.group.clone(), self.owner.clone());
        let now = clock::epoch(clock::now());
        self.db
            .run(Durability::Read, move |c| {
                let sql = "SELECT token, messages, sum, id FROM beat_outbox
                    WHERE grp = ?1 AND id > ?8 AND (?2 OR (?3 AND owner = ?4) OR abs(?5 - at) > ?6)
                    ORDER BY id LIMIT ?7";
                let mut statement = c.prepare_cached(sql)?;
                let mut rows = statement.query(params![
                    &*group,
                    whose == Whose::Anybodys,
                    whose == Whose::Ours,
                    &*owner,
                    now,
                    LEFT_AFTER.as_secs_f64(),
                    PARCELS_MAX as i64,
                    after,
                ])?;
                let (mut found, mut last) = (Vec::new(), None);
                while let Some(row) = rows.next()? {
                    let (token, messages) = (text(row, 0)?, text(row, 1)?);
                    check(row, 2, &[&group, &token, &messages])?;
                    let parcel = Parcel::read(token, &messages);
                    found.push(parcel.ok_or_else(|| damaged("strange messages"))?);
                    last = Some(row.get(3)?);
                }
                Ok((found, last))
            })
            .await
    }

    /// Removes these parcels.
    pub async fn remove(&self, tokens: Arc<Vec<String>>) -> Result<(), Error> {
        self.db.run(Durability::Process, move |c| remove(c, &tokens)).await
    }
}

fn remove(c: &Connection, tokens: &[String]) -> Result<(), Error> {
    let mut delete = c.prepare_cached("DELETE FROM beat_outbox WHERE token = ?")?;
    tokens.iter().try_for_each(|token| Ok(delete.execute([token]).map(drop)?))
}

fn get(c: &Connection, group: &str, name: &str) -> Result<Option<String>, Error> {
    let sql = "SELECT state, sum FROM beat_entry WHERE grp = ? AND name = ?";
    let mut statement = c.prepare_cached(sql)?;
    let mut rows = statement.query([group, name])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let state = text(row, 0)?;
    check(row, 1, &[group, name, &state])?;
    Ok(Some(state))
}

fn set(c: &Connection, group: &str, name: &str, state: Option<&str>) -> Result<(), Error> {
    match state {
        Some(state) => c
            .prepare_cached(
                "INSERT INTO beat_entry (grp, name, state, sum) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (grp, name) DO UPDATE SET state = ?3, sum = ?4",
            )?
            .execute(params![group, name, state, sum(&[group, name, state])])?,
        None => c
            .prepare_cached("DELETE FROM beat_entry WHERE grp = ? AND name = ?")?
            .execute([group, name])?,
    };
    Ok(())
}

fn put(c: &Connection, group: &str, owner: &str, parcel: &Parcel) -> Result<(), Error> {
    let messages = parcel.messages();
    c.prepare_cached(
        "INSERT INTO beat_outbox (grp, owner, at, token, messages, sum) VALUES (?, ?, ?, ?, ?, ?)
         ON CONFLICT (token) DO NOTHING",
    )?
    .execute(params![
        group,
        owner,
        clock::epoch(clock::now()),
        parcel.token,
        messages,
        sum(&[group, &parcel.token, &messages]),
    ])?;
    Ok(())
}

/// What stands there. A text that has become something else has no place in the order any more.
fn text(row: &Row, column: usize) -> Result<String, Error> {
    match row.get_ref(column)? {
        ValueRef::Text(bytes) => Ok(String::from_utf8_lossy(bytes).into_owned()),
        _ => Err(damaged("a text has become something else")),
    }
}

fn check(row: &Row, column: usize, texts: &[&str]) -> Result<(), Error> {
    match row.get_ref(column)?.as_i64() {
        Ok(found) if found == sum(texts) => Ok(()),
        _ => Err(damaged("a text is not what was written")),
    }
}

/// FNV-1a: one flipped bit always gives another sum.
pub fn sum(texts: &[&str]) -> i64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for text in texts {
        for byte in text.bytes().chain([0xff]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    hash as i64
}
