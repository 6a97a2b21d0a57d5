//! Messages in one SQLite file: kombu's SQLAlchemy tables with columns of ours.
//!
//! Source of the tables: kombu `transport/sqlalchemy/models.py`. A Python program on
//! `sqla+sqlite:///` inserts rows without our columns; their defaults mean "ready now".
//!
//! | a row is | `visible` | `owner` | `eta` |
//! | --- | --- | --- | --- |
//! | ready | 1 | null | null |
//! | scheduled | 1 | null | seconds since the epoch |
//! | held by one of our workers | 0 | its row in `qworker_worker` | null |
//! | taken by a Python worker (never deleted by it) | 0 | null | null |

mod admin;
mod consumer;
mod dead_letters;
mod ledger;
mod malformed;
mod member;
mod producer;
mod schema;
mod settler;
mod take;

pub use consumer::Consumer;
pub use ledger::Ledger;
pub(super) use ledger::Values;
pub use schema::SCHEMA;
pub use settler::{Put, Settler};
pub use take::LookUp;

use super::{Abilities, PriorityRule};
use crate::link::error::Error;
use crate::link::sqlite::Db;
use crate::os::wakeup::Notifier;
use crate::wire::Payload;
use rusqlite::{Connection, OptionalExtension, Row};
use std::sync::Arc;

/// What this broker can do.
pub const ABILITIES: Abilities = Abilities {
    atomic: true,
    leases: true,
    counts: true,
    finds: true,
    native_eta: true,
    priorities: PriorityRule::HighFirst,
};

/// The name of the wake-up file for tasks.
const WAKEUP: &str = "tasks";

/// The file, and what wakes the workers on it.
#[derive(Clone)]
pub struct Broker {
    db: Db,
    notifier: Arc<Notifier>,
}

impl Broker {
    /// The broker in the file of `db`, whose tables exist.
    pub fn new(db: &Db) -> Broker {
        Broker { db: db.clone(), notifier: Arc::new(Notifier::new(db.path(), WAKEUP)) }
    }

    /// The connection.
    pub fn db(&self) -> &Db {
        &self.db
    }

    /// Tells waiting workers that there may be something for them. What is committed stays so if
    /// nobody can be woken: they look once a second anyway.
    fn notify(&self) {
        if let Err(error) = self.notifier.notify() {
            tracing::debug!("cannot wake workers: {error}");
        }
    }
}

fn queue_id(c: &Connection, name: &str) -> Result<i64, Error> {
    let find = "SELECT id FROM kombu_queue WHERE name = ?";
    if let Some(id) = c.prepare_cached(find)?.query_row([name], |row| row.get(0)).optional()? {
        return Ok(id);
    }
    c.prepare_cached("INSERT INTO kombu_queue (name) VALUES (?)")?.execute([name])?;
    Ok(c.last_insert_rowid())
}

/// A payload that is no text (a stray blob) is still a message: a malformed one.
fn payload_of(row: &Row, column: usize) -> rusqlite::Result<Payload> {
    Ok(Payload::from_envelope(match row.get_ref(column)?.as_bytes() {
        Ok(bytes) => String::from_utf8_lossy(bytes),
        Err(_) => "".into(),
    }))
}
