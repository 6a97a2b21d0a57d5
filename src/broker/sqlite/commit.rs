//! Messages and settlements in one transaction, and what a caller who shares the file stores
//! with them.

use super::{Outlet, insert, settle};
use crate::broker::{Fate, Item, Posting, Settle};
use crate::clock;
use crate::link::error::Error;
use crate::link::sqlite::Durability;
use crate::wire::Record;
use rusqlite::{Connection, OptionalExtension, params};
use std::sync::Arc;
use std::time::Duration;

/// Who has not heard that its messages were accepted asks again much sooner than after this.
const TOKEN_LIFE: Duration = Duration::from_secs(3600);

impl Outlet {
    /// See [`crate::broker::Outlet::publish_once`].
    pub async fn publish_once(&self, token: String, postings: Vec<Posting>) -> Result<(), Error> {
        let item = Item { token, postings, durable: true, ..Item::default() };
        self.commit(Arc::new(vec![item]), |_, _| Ok(())).await.map(drop)
    }

    /// Sends messages and settles deliveries in one transaction; `put` stores a record within
    /// it. May be asked again if the answer was lost: what was done then is [`Fate::Lost`].
    ///
    /// # Errors
    /// Nothing is done then; or all is, and the disk does not confirm it.
    pub async fn commit(
        &self,
        items: Arc<Vec<Item>>,
        put: impl Fn(&Connection, &Record) -> Result<(), Error> + Send + 'static,
    ) -> Result<Vec<Fate>, Error> {
        let synced = items.iter().any(|item| item.durable || !item.postings.is_empty());
        let durability = if synced { Durability::Disk } else { Durability::Process };
        let moves = |item: &Item| item.settle.as_ref().is_some_and(Settle::moves);
        let moved = items.iter().any(|item| !item.postings.is_empty() || moves(item));
        let owner = self.owner;
        let all =
            move |c: &Connection| items.iter().map(|item| one(c, owner, item, &put)).collect();
        let fates = self.db.run(durability, all).await?;
        if moved {
            self.ring();
        }
        Ok(fates)
    }
}

impl Outlet {
    /// Which of these are about a delivery that is not held any more?
    pub async fn lost(&self, items: Arc<Vec<Item>>) -> Result<Vec<bool>, Error> {
        let owner = self.owner;
        let all = move |c: &Connection| {
            items.iter().map(|item| Ok(!is_held(c, owner, item)?)).collect::<Result<_, Error>>()
        };
        self.db.run(Durability::Read, all).await
    }
}

/// What is about no delivery is as good as held.
fn is_held(c: &Connection, owner: Option<i64>, item: &Item) -> Result<bool, Error> {
    let Some(tag) = item.tag else { return Ok(true) };
    let sql = "SELECT 1 FROM kombu_message WHERE id = ? AND owner IS ?";
    let mut held = c.prepare_cached(sql)?;
    let held = held.query_row(params![super::row_of(tag), owner], |_| Ok(())).optional()?;
    Ok(held.is_some())
}

fn one(
    c: &Connection,
    owner: Option<i64>,
    item: &Item,
    put: impl Fn(&Connection, &Record) -> Result<(), Error>,
) -> Result<Fate, Error> {
    // Settling looks for the row itself; but it comes after what is sent, or a new row could get
    // the number of the one that is removed.
    let at_once = item.postings.is_empty().then_some(item.tag.zip(item.settle.as_ref())).flatten();
    let is_held = match at_once {
        Some((tag, how)) => settle(c, owner, tag, how)?,
        None => is_held(c, owner, item)?,
    };
    if !is_held {
        return Ok(Fate::Lost);
    }
    if let Some(record) = &item.record {
        put(c, record)?;
    }
    if is_fresh(c, &item.token)? {
        item.postings.iter().try_for_each(|posting| insert(c, posting))?;
    }
    if let (None, Some(tag), Some(how)) = (at_once, item.tag, &item.settle) {
        settle(c, owner, tag, how)?;
    }
    Ok(Fate::Done)
}

/// Notes the token; false if it was known.
fn is_fresh(c: &Connection, token: &str) -> Result<bool, Error> {
    if token.is_empty() {
        return Ok(true);
    }
    let now = clock::epoch(clock::now());
    c.prepare_cached("DELETE FROM qworker_once WHERE at < ?")?
        .execute([now - TOKEN_LIFE.as_secs_f64()])?;
    let sql = "INSERT OR IGNORE INTO qworker_once (token, at) VALUES (?, ?)";
    Ok(c.prepare_cached(sql)?.execute(params![token, now])? > 0)
}
