//! Messages, settlements and results in one transaction.

use super::producer::{insert, is_fresh};
use super::{Broker, dead_letters};
use crate::broker::{Disposition, Item, Settle, Settles, Tag};
use crate::clock;
use crate::link::error::Error;
use crate::link::sqlite::{Db, Durability};
use crate::wire::Record;
use chrono::{DateTime, Utc};
use rusqlite::{Connection, OptionalExtension, params};
use std::sync::Arc;

/// Stores a record within a transaction.
pub type Put = Arc<dyn Fn(&Connection, &Record) -> Result<(), Error> + Send + Sync>;

/// See [`crate::broker::Settler`].
#[derive(Clone)]
pub struct Settler {
    broker: Broker,
    /// The worker whose deliveries it settles.
    owner: i64,
    /// Stores results in the same file, and wakes those who wait for them.
    results: Option<(Put, Arc<dyn Fn() + Send + Sync>)>,
}

impl Settler {
    /// Settles what the worker of this number holds.
    pub(super) fn new(broker: &Broker, owner: i64) -> Settler {
        Settler { broker: broker.clone(), owner, results: None }
    }

    /// The connection.
    pub fn db(&self) -> &Db {
        &self.broker.db
    }

    /// See [`crate::broker::Settler::keep_results`].
    pub fn keep_results(&mut self, db: &Db, put: Put, stored: Arc<dyn Fn() + Send + Sync>) -> bool {
        self.results = self.broker.db.same(db).then_some((put, stored));
        self.results.is_some()
    }
}

impl Settles for Settler {
    async fn commit(&self, items: Arc<Vec<Item>>) -> Result<Vec<Disposition>, Error> {
        let synced = items.iter().any(|item| item.durable || !item.postings.is_empty());
        let durability = if synced { Durability::Disk } else { Durability::Process };
        let moves = |item: &Item| item.settle.as_ref().is_some_and(Settle::moves);
        let moved = items.iter().any(|item| !item.postings.is_empty() || moves(item));
        let stored = items.iter().any(|item| item.record.is_some());
        let (owner, put) = (self.owner, self.results.as_ref().map(|(put, _)| put.clone()));
        let all = move |c: &Connection| {
            items.iter().map(|item| one(c, owner, item, put.as_ref())).collect()
        };
        let fates = self.broker.db.run(durability, all).await?;
        if moved {
            self.broker.notify();
        }
        if let (true, Some((_, wake))) = (stored, &self.results) {
            wake();
        }
        Ok(fates)
    }

    async fn lost(&self, items: Arc<Vec<Item>>) -> Result<Vec<bool>, Error> {
        let owner = self.owner;
        let all = move |c: &Connection| {
            items.iter().map(|item| Ok(!is_held(c, owner, item)?)).collect::<Result<_, Error>>()
        };
        self.broker.db.run(Durability::Read, all).await
    }
}

/// An item without a delivery counts as held.
fn is_held(c: &Connection, owner: i64, item: &Item) -> Result<bool, Error> {
    let Some(tag) = item.tag else { return Ok(true) };
    let sql = "SELECT 1 FROM kombu_message WHERE id = ? AND owner = ?";
    let mut held = c.prepare_cached(sql)?;
    let held = held.query_row(params![row_of(tag), owner], |_| Ok(())).optional()?;
    Ok(held.is_some())
}

fn one(c: &Connection, owner: i64, item: &Item, put: Option<&Put>) -> Result<Disposition, Error> {
    // Settling looks for the row itself; but it comes after what is sent, or a new row could get
    // the number of the one that is removed.
    let at_once = item.postings.is_empty().then_some(item.tag.zip(item.settle.as_ref())).flatten();
    let is_held = match at_once {
        Some((tag, how)) => settle(c, owner, tag, how)?,
        None => is_held(c, owner, item)?,
    };
    if !is_held {
        return Ok(Disposition::Lost);
    }
    if let (Some(record), Some(put)) = (&item.record, put) {
        put(c, record)?;
    }
    if is_fresh(c, &item.token)? {
        item.postings.iter().try_for_each(|posting| insert(c, posting))?;
    }
    if let (None, Some(tag), Some(how)) = (at_once, item.tag, &item.settle) {
        settle(c, owner, tag, how)?;
    }
    Ok(Disposition::Done)
}

/// Whether the row was held by `owner`; if not, nothing is done.
fn settle(c: &Connection, owner: i64, tag: Tag, settle: &Settle) -> Result<bool, Error> {
    let id = &row_of(tag);
    match settle {
        Settle::Ack => delete(c, owner, *id),
        Settle::Mark => {
            let sql = "UPDATE kombu_message SET started = 1 WHERE id = ? AND owner = ?";
            Ok(c.prepare_cached(sql)?.execute(params![id, owner])? > 0)
        }
        Settle::Release => give_back(c, owner, *id, None, 0),
        Settle::Pass(name) => pass(c, owner, *id, name),
        Settle::Park(until) => give_back(c, owner, *id, Some(*until), 0),
        Settle::Redeliver(until) => give_back(c, owner, *id, Some(*until), 1),
        Settle::Replace(payload, eta) => {
            let mut replace = c.prepare_cached(
                "UPDATE kombu_message SET visible = 1, owner = NULL, eta = ?, deliveries = 0,
                 suspect = 0, payload = ?, version = version + 1 WHERE id = ? AND owner = ?",
            )?;
            Ok(replace.execute(params![clock::epoch(*eta), payload.to_envelope(), id, owner])? > 0)
        }
        Settle::Dead(death) => {
            dead_letters::bury(c, owner, *id, death)?;
            delete(c, owner, *id)
        }
    }
}

/// No row has the number of what is no row.
pub(super) fn row_of(tag: Tag) -> i64 {
    match tag {
        Tag::Row(id) => id,
        Tag::Number(_) => -1,
    }
}

fn delete(c: &Connection, owner: i64, id: i64) -> Result<bool, Error> {
    let mut delete = c.prepare_cached("DELETE FROM kombu_message WHERE id = ? AND owner = ?")?;
    Ok(delete.execute(params![id, owner])? > 0)
}

fn give_back(
    c: &Connection,
    owner: i64,
    id: i64,
    until: Option<DateTime<Utc>>,
    counted: u32,
) -> Result<bool, Error> {
    let mut give_back = c.prepare_cached(
        "UPDATE kombu_message SET visible = 1, owner = NULL, eta = ?1,
         deliveries = deliveries + ?2, suspect = max(suspect, ?2), version = version + 1
         WHERE id = ?3 AND owner = ?4",
    )?;
    Ok(give_back.execute(params![until.map(clock::epoch), counted, id, owner])? > 0)
}

/// Back to its place, for workers that know a task of this name.
pub(super) fn pass(c: &Connection, owner: i64, id: i64, name: &str) -> Result<bool, Error> {
    let mut pass = c.prepare_cached(
        "UPDATE kombu_message SET visible = 1, owner = NULL, task = ?1, version = version + 1
         WHERE id = ?2 AND owner = ?3",
    )?;
    Ok(pass.execute(params![name, id, owner])? > 0)
}
