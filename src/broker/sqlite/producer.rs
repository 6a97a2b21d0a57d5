//! Accepts messages.

use super::{Broker, queue_id};
use crate::broker::{Posting, Produce};
use crate::clock;
use crate::link::error::Error;
use crate::link::sqlite::Durability;
use rusqlite::{Connection, params};
use std::time::Duration;

/// Who has not heard that its messages were accepted asks again much sooner than after this.
const TOKEN_LIFE: Duration = Duration::from_secs(3600);

impl Produce for Broker {
    async fn publish(&self, postings: Vec<Posting>) -> Result<(), Error> {
        self.publish_once(String::new(), postings).await
    }

    async fn publish_once(&self, token: String, postings: Vec<Posting>) -> Result<(), Error> {
        self.db
            .run(Durability::Disk, move |c| match is_fresh(c, &token)? {
                true => postings.iter().try_for_each(|posting| insert(c, posting)),
                false => Ok(()),
            })
            .await?;
        self.notify();
        Ok(())
    }

    async fn route(&self, exchange: String, _routing_key: String) -> Result<Vec<String>, Error> {
        let why = "the embedded broker keeps no exchanges; name the queue with --queue";
        Err(Error::misuse(format!("exchange {exchange:?}: {why}")))
    }
}

/// Adds a message within a transaction.
pub(super) fn insert(c: &Connection, posting: &Posting) -> Result<(), Error> {
    let queue = queue_id(c, &posting.queue)?;
    c.prepare_cached(
        "INSERT INTO kombu_message (visible, version, payload, queue_id, eta, priority, task_id)
         VALUES (1, 1, ?, ?, ?, ?, ?)",
    )?
    .execute(params![
        posting.payload.to_envelope(),
        queue,
        posting.eta.map(clock::epoch),
        posting.priority,
        posting.task_id
    ])?;
    Ok(())
}

/// Notes the token; false if it was known.
pub(super) fn is_fresh(c: &Connection, token: &str) -> Result<bool, Error> {
    if token.is_empty() {
        return Ok(true);
    }
    let now = clock::epoch(clock::now());
    c.prepare_cached("DELETE FROM qworker_once WHERE at < ?")?
        .execute([now - TOKEN_LIFE.as_secs_f64()])?;
    let sql = "INSERT OR IGNORE INTO qworker_once (token, at) VALUES (?, ?)";
    Ok(c.prepare_cached(sql)?.execute(params![token, now])? > 0)
}
