//! Results in a SQLite file: Celery's own tables.
//!
//! Source: celery 5.7 `backends/database/models.py` (`TaskExtended`, `TaskSet`). The
//! extended columns are always there; Celery's plain model does not mind them.

use super::Keep;
use crate::clock;
use crate::link::error::{Error, StoreErrorKind};
use crate::link::sqlite::{Db, Durability, Schema, cell};
use crate::os::rundir;
use crate::os::wakeup::{Notifier, Watcher};
use crate::wire::result::Meta;
use crate::wire::{EncodeError, Exception, Record, ResultFormat, Serializer, Shape, body, value};
use chrono::{DateTime, NaiveDateTime, Utc};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::borrow::Cow;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Rows removed in one step of [`Store::expire`]: keeps the lock short.
const EXPIRE_MAX: usize = 1000;

/// A Python worker notifies nobody: listeners look again after this long anyway.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// How SQLAlchemy writes a DATETIME in SQLite: naive, UTC.
pub(super) const DATETIME: &str = "%Y-%m-%d %H:%M:%S%.6f";

const TABLES: &str = "
CREATE TABLE IF NOT EXISTS celery_taskmeta (
    id INTEGER NOT NULL PRIMARY KEY,
    task_id VARCHAR(155) UNIQUE,
    status VARCHAR(50),
    result BLOB,
    date_done DATETIME,
    traceback TEXT,
    children BLOB,
    name VARCHAR(155),
    args BLOB,
    kwargs BLOB,
    worker VARCHAR(155),
    retries INTEGER,
    queue VARCHAR(155),
    stamps BLOB,
    usage TEXT
);
CREATE TABLE IF NOT EXISTS celery_tasksetmeta (
    id INTEGER NOT NULL PRIMARY KEY,
    taskset_id VARCHAR(155) UNIQUE,
    result BLOB,
    date_done DATETIME,
    graph TEXT
);
";

/// Columns that a table made by Celery lacks: without `result_extended` all of them, else
/// `usage` and `graph`, which are ours. Celery names the columns that it reads and writes, and so does not
/// mind one more.
const COLUMNS: &[(&str, &str, &str)] = &[
    ("celery_taskmeta", "children", "BLOB"),
    ("celery_taskmeta", "name", "VARCHAR(155)"),
    ("celery_taskmeta", "args", "BLOB"),
    ("celery_taskmeta", "kwargs", "BLOB"),
    ("celery_taskmeta", "worker", "VARCHAR(155)"),
    ("celery_taskmeta", "retries", "INTEGER"),
    ("celery_taskmeta", "queue", "VARCHAR(155)"),
    ("celery_taskmeta", "stamps", "BLOB"),
    ("celery_taskmeta", "usage", "TEXT"),
    // Which task follows which, of a workflow that was sent here.
    ("celery_tasksetmeta", "graph", "TEXT"),
];

const INDEXES: &str = "
CREATE INDEX IF NOT EXISTS ix_celery_taskmeta_date_done ON celery_taskmeta (date_done);
CREATE INDEX IF NOT EXISTS ix_celery_tasksetmeta_date_done ON celery_tasksetmeta (date_done);
CREATE INDEX IF NOT EXISTS qworker_revoked ON celery_taskmeta (status) WHERE status = 'REVOKED';
";

const ANY_REVOKED: &str = "SELECT 1 FROM celery_taskmeta WHERE status = 'REVOKED' LIMIT 1";

/// Celery's tables of results.
pub const SCHEMA: Schema = Schema { tables: TABLES, columns: COLUMNS, indexes: INDEXES };

/// The name of the wake-up file for results.
const WAKEUP: &str = "results";

/// See [`super::Store`].
#[derive(Clone)]
pub struct Store {
    db: Db,
    notifier: Arc<Notifier>,
    format: Arc<ResultFormat>,
}

impl Store {
    /// Results in the file of `db`, whose tables exist.
    pub fn open(db: &Db, format: &ResultFormat) -> Store {
        Store {
            db: db.clone(),
            notifier: Arc::new(Notifier::new(db.path(), WAKEUP)),
            format: Arc::new(format.clone()),
        }
    }

    /// The connection.
    pub fn db(&self) -> &Db {
        &self.db
    }

    /// How results are written, and which are read.
    pub(super) fn format(&self) -> &ResultFormat {
        &self.format
    }

    /// Stores inside a transaction of the caller's, who shares the file and rings later.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn put_within(&self, c: &Connection, record: &Record) -> Result<(), Error> {
        put(c, std::slice::from_ref(record), &self.format)
    }

    /// Wakes those who wait for results.
    pub fn notify(&self) {
        let done = self.notifier.notify().or_else(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                // A file that has results alone: no worker has made the folder.
                rundir::create(self.db.path()).and_then(|_| self.notifier.notify())
            }
            _ => Err(error),
        });
        // What is committed stays so; listeners look again on their own.
        if let Err(error) = done {
            tracing::debug!("cannot wake listeners: {error}");
        }
    }

    /// The same inside a transaction of the caller's, who shares the file.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn revoked_within(
        c: &Connection,
        task_ids: &mut dyn Iterator<Item = String>,
    ) -> Result<HashSet<String>, Error> {
        let mut revoked = HashSet::new();
        // Mostly there is none, which the index of them tells at once.
        if !c.prepare_cached(ANY_REVOKED)?.exists([])? {
            return Ok(revoked);
        }
        let mut ask = c.prepare_cached(
            "SELECT 1 FROM celery_taskmeta WHERE task_id = ? AND status = 'REVOKED'",
        )?;
        for id in task_ids {
            if ask.exists([&id])? {
                revoked.insert(id);
            }
        }
        Ok(revoked)
    }
}

impl Keep for Store {
    async fn put(&self, records: Vec<Record>) -> Result<(), Error> {
        let format = self.format.clone();
        self.db.run(Durability::Process, move |c| put(c, &records, &format)).await?;
        self.notify();
        Ok(())
    }

    async fn put_synced(&self, records: Vec<Record>) -> Result<(), Error> {
        let format = self.format.clone();
        self.db.run(Durability::Disk, move |c| put(c, &records, &format)).await?;
        self.notify();
        Ok(())
    }

    async fn get(&self, task_id: &str) -> Result<Option<Meta>, Error> {
        let found = self.get_many(&[task_id.to_string()]).await?;
        Ok(found.into_iter().next())
    }

    async fn get_many(&self, task_ids: &[String]) -> Result<Vec<Meta>, Error> {
        let (task_ids, format) = (task_ids.to_vec(), self.format.clone());
        self.db
            .run(Durability::Read, move |c| {
                let sql =
                    "SELECT status, result, traceback, children, date_done, name, args, kwargs,
                           worker, retries, queue, usage FROM celery_taskmeta WHERE task_id = ?";
                let mut statement = c.prepare_cached(sql)?;
                let mut found = Vec::new();
                for id in &task_ids {
                    let read = statement.query_row([id], |row| read(row, id, &format));
                    found.extend(read.optional()?);
                }
                Ok(found)
            })
            .await
    }

    async fn revoked(&self, task_ids: &[String]) -> Result<HashSet<String>, Error> {
        let task_ids = task_ids.to_vec();
        let look = move |c: &Connection| Store::revoked_within(c, &mut task_ids.iter().cloned());
        self.db.run(Durability::Read, look).await
    }

    async fn forget(&self, task_ids: Vec<String>) -> Result<(), Error> {
        self.db
            .run(Durability::Process, move |c| {
                let mut forget =
                    c.prepare_cached("DELETE FROM celery_taskmeta WHERE task_id = ?")?;
                task_ids.iter().try_for_each(|id| Ok(forget.execute([id]).map(drop)?))
            })
            .await
    }

    async fn expire(&self, limit: DateTime<Utc>) -> Result<u64, Error> {
        let limit = limit.format(DATETIME).to_string();
        self.db
            .run(Durability::Process, move |c| {
                let mut removed = 0;
                for table in ["celery_taskmeta", "celery_tasksetmeta"] {
                    let sql = format!(
                        "DELETE FROM {table} WHERE id IN
                         (SELECT id FROM {table} WHERE date_done < ? LIMIT ?)"
                    );
                    removed += c.execute(&sql, params![limit, EXPIRE_MAX as i64])?;
                }
                Ok(removed as u64)
            })
            .await
    }

    async fn listen(&self, _task_ids: &[String]) -> Result<super::Listener, Error> {
        let path = self.db.path().to_path_buf();
        let listener = match watch(&path) {
            Ok(watcher) => Listener { watcher, later: None },
            Err(_) => Listener { watcher: Watcher::polling(LOOK_AGAIN), later: Some(path) },
        };
        Ok(super::Listener::Sqlite(listener))
    }
}

/// See [`super::Listener`].
pub struct Listener {
    watcher: Watcher,
    /// The database whose wake-up file is to be watched as soon as that is possible.
    later: Option<PathBuf>,
}

/// Watches the wake-up file of results, if its folder can be trusted.
fn watch(database: &Path) -> std::io::Result<Watcher> {
    rundir::open(database)?;
    Watcher::watch(&[rundir::path(database).join(WAKEUP)])
}

impl Listener {
    /// See [`super::Listener::stored`].
    pub async fn stored(&mut self) {
        if let Some(path) = &self.later
            && let Ok(watcher) = watch(path)
        {
            // Before a look, for something may be there already.
            (self.watcher, self.later) = (watcher, None);
            return;
        }
        // A timeout is as good as a notification: the caller looks either way.
        let _ = tokio::time::timeout(LOOK_AGAIN, self.watcher.changed()).await;
    }
}

/// What a column has of a JSON text.
fn encode<'a>(json: &'a str, format: &ResultFormat) -> Result<Cow<'a, [u8]>, Error> {
    if format.format.serializer == Serializer::Json {
        return Ok(Cow::Borrowed(json.as_bytes()));
    }
    let refused = |error: EncodeError| Error::of(StoreErrorKind::Refused, error.to_string());
    format.write_value(json.into()).map(Cow::Owned).map_err(refused)
}

fn put(c: &Connection, records: &[Record], format: &ResultFormat) -> Result<(), Error> {
    let encode = |json| encode(json, format);
    for record in records {
        let done = record.date_done.format(DATETIME).to_string();
        let children = record.children.as_deref().map(encode).transpose()?;
        let result = encode(record.result.get())?;
        if let Some(e) = record.extended.as_deref() {
            c.prepare_cached(
                "INSERT INTO celery_taskmeta (task_id, status, result, traceback, date_done,
                     name, args, kwargs, worker, retries, queue, usage, children)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)
                 ON CONFLICT (task_id) DO UPDATE SET status = ?2, result = ?3, traceback = ?4,
                     date_done = ?5, name = ?6, args = ?7, kwargs = ?8, worker = ?9,
                     retries = ?10, queue = ?11, usage = ?12, children = ?13
                     WHERE ifnull(status, '') NOT IN ('SUCCESS', 'REVOKED')",
            )?
            .execute(params![
                record.task_id,
                record.status(),
                result,
                record.traceback,
                done,
                e.name,
                encode(&e.args)?,
                encode(&e.kwargs)?,
                e.worker,
                e.retries,
                e.queue,
                e.usage.map(|usage| usage.to_json().to_string()),
                children
            ])?;
        } else {
            c.prepare_cached(
                "INSERT INTO celery_taskmeta (task_id, status, result, traceback, date_done, children)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT (task_id) DO UPDATE SET status = ?2, result = ?3, traceback = ?4,
                     date_done = ?5, children = ?6 WHERE ifnull(status, '') NOT IN ('SUCCESS', 'REVOKED')",
            )?
            .execute(params![
                record.task_id,
                record.status(),
                result,
                record.traceback,
                done,
                children
            ])?;
        }
    }
    Ok(())
}

fn read(row: &Row, task_id: &str, format: &ResultFormat) -> rusqlite::Result<Meta> {
    // What is not set is what Celery sets by default.
    let status = cell::text_or_none(row, 0).unwrap_or_else(|| "PENDING".into());
    let is_failed = matches!(&*status, "FAILURE" | "RETRY" | "REVOKED");
    let json_of = |column: usize| -> rusqlite::Result<Option<Box<RawValue>>> {
        let shape = Shape::Value { is_failed: is_failed && column == 1 };
        Ok(match row.get_ref(column)? {
            ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(decode(bytes, shape, format)),
            _ => None,
        })
    };
    let null = || value::raw(&Value::Null);
    let date_done = cell::text_or_none(row, 4).and_then(|text| {
        let naive = NaiveDateTime::parse_from_str(&text, "%Y-%m-%d %H:%M:%S%.f").ok()?;
        Some(naive.and_utc())
    });
    let mut extended = Vec::new();
    if let Some(name) = cell::text_or_none(row, 5) {
        let worker = json!(cell::text_or_none(row, 8));
        let retries = json!(cell::number_or_none(row, 9));
        let queue = json!(cell::text_or_none(row, 10));
        for (name, value) in [
            ("name", Some(value::raw(&json!(name)))),
            ("args", Some(json_of(6)?.unwrap_or_else(null))),
            ("kwargs", Some(json_of(7)?.unwrap_or_else(null))),
            ("worker", Some(value::raw(&worker))),
            ("retries", Some(value::raw(&retries))),
            ("queue", Some(value::raw(&queue))),
            ("usage", json_of(11)?),
        ] {
            extended.extend(value.map(|value| (name.to_string(), value)));
        }
    }
    let ready =
        crate::wire::TaskState::named(&status).is_some_and(crate::wire::TaskState::is_ready);
    Ok(Meta {
        result: json_of(1)?.unwrap_or_else(null),
        traceback: cell::text_or_none(row, 2),
        children: json_of(3)?.unwrap_or_else(|| value::raw(&json!([]))),
        date_done: date_done.filter(|_| ready),
        extended,
        task_id: task_id.into(),
        status,
    })
}

/// A stored value. Rows of Celery before 5.7 are pickles, whatever its `result_serializer` says.
pub(super) fn decode(bytes: &[u8], shape: Shape, format: &ResultFormat) -> Box<RawValue> {
    let text = String::from_utf8_lossy(bytes);
    // Python writes numbers that JSON has not.
    let plain = || {
        let read = serde_json::from_str(&text);
        read.or_else(|_| serde_json::from_str(&body::finite(&text))).ok()
    };
    // Of a value alone, the bytes of some serializers may be JSON too.
    let is_json = format.format.serializer == Serializer::Json && format.reads_json();
    if let Some(found) = is_json.then(plain).flatten() {
        return found;
    }
    let read = format.read(bytes, shape, clock::now()).map(RawValue::from_string);
    match read {
        Ok(Ok(found)) => found,
        Ok(Err(_)) => value::raw(&Value::String(text.into_owned())),
        Err(why) => {
            let error = Exception::new("kombu.exceptions", "DecodeError", why.to_string());
            value::raw(&error.to_json())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whether_any_is_revoked_is_told_by_their_index() {
        let c = Connection::open_in_memory().unwrap();
        SCHEMA.create(&c).unwrap();
        let plan = format!("EXPLAIN QUERY PLAN {ANY_REVOKED}");
        let plan: String = c.query_row(&plan, [], |row| row.get(3)).unwrap();
        assert!(plan.contains("qworker_revoked"), "{plan}");
    }
}
