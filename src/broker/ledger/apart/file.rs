//! The SQLite file of a ledger, and what is done with one that is damaged.
//!
//! Values and parcels carry a sum of what they say, for SQLite notices damage of its own pages
//! but not of a text.

use super::aside::{Number, number_of, set_aside};
use super::found::{self, Found, PATIENCE, check, damaged, sum, text};
use super::memory::Memory;
use super::parcel::{self, Parcel};
use super::{LEFT_AFTER, Step};
use crate::broker::Error;
use crate::broker::ledger::Outcome;
use crate::clock;
use crate::link::error::Kind;
use crate::link::sqlite::{Db, Durability};
use chrono::{DateTime, Utc};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, params};
use std::path::Path;
use std::sync::Arc;

/// Parcels that are read at once: some ten megabytes.
const PARCELS_MAX: usize = 32;

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

/// The values of these names, for one who only looks: nothing is made, written or set aside.
///
/// # Errors
/// The file is damaged, cannot be read, or is somebody else's.
pub fn peek(path: &Path, group: &str, names: &[String]) -> Result<Vec<Option<String>>, Error> {
    match found::look(path)? {
        Found::New => Ok(vec![None; names.len()]),
        Found::Ours => {
            found::read(path, |c| names.iter().map(|name| get(c, group, name)).collect())
        }
    }
}

/// Makes the tables, and looks at every page and every text.
fn set_up(c: &Connection) -> Result<(), Error> {
    // A file that was set aside must not take the log of the new one with it when it is closed.
    // Who closes one in its place has moved the log to it before.
    c.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    found::inspect_pages(c)?;
    found::make_tables(c)?;
    found::inspect_texts(c)
}

impl File {
    fn open(path: &Path, group: &str) -> Result<File, Error> {
        found::look(path)?;
        found::prepare(path)?;
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

    /// It is damaged: it and its log stay as they are.
    pub fn leave(&self) {
        self.db.leave_log();
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
