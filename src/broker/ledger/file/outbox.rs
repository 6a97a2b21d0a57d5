//! The outbox of a state file: messages that were accepted together with new values, and are not
//! published yet.

use crate::broker::{Error, Posting};
use crate::clock;
use crate::link::error::StoreErrorKind;
use crate::link::sqlite::cell;
use crate::wire::Payload;
use chrono::DateTime;
use rusqlite::{Connection, params};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::time::Duration;

/// Messages of one batch, at most: the broker takes it in one step.
const MESSAGES_MAX: usize = 256;

/// Bytes of one batch, at most, unless a single message is larger; likewise.
const BYTES_MAX: usize = 256 * 1024;

/// Batches that are read at once: some ten megabytes.
const BATCHES_MAX: usize = 32;

/// Messages that are published together.
#[derive(Debug, Clone)]
pub(super) struct Batch {
    /// The broker accepts it once.
    pub token: String,
    /// In their order; all for one queue.
    pub postings: Vec<Posting>,
}

impl Batch {
    fn text(&self) -> String {
        let one = |posting: &Posting| {
            let eta = posting.eta.map(|eta| eta.timestamp_micros());
            let payload = posting.payload.to_envelope();
            json!([posting.queue, posting.task_id, posting.priority, eta, payload])
        };
        Value::from_iter(self.postings.iter().map(one)).to_string()
    }

    fn read(token: String, text: &str) -> Option<Batch> {
        type One = (String, String, u8, Option<i64>, String);
        let all: Vec<One> = serde_json::from_str(text).ok()?;
        let one = |(queue, task_id, priority, eta, payload): One| {
            let eta = match eta {
                Some(eta) => Some(DateTime::from_timestamp_micros(eta)?),
                None => None,
            };
            let payload = Payload::from_envelope(payload);
            Some(Posting { queue, task_id, priority, eta, payload })
        };
        let postings = all.into_iter().map(one).collect::<Option<_>>()?;
        Some(Batch { token, postings })
    }
}

/// Makes batches, each for one place of the broker: one that it refuses must not hold up others.
pub(super) fn batches<'a>(postings: impl Iterator<Item = &'a Posting>) -> Vec<Batch> {
    let mut found: Vec<Batch> = Vec::new();
    let mut open: HashMap<(String, u8, bool), (usize, usize)> = HashMap::new();
    for posting in postings {
        let more = posting.payload.size();
        let place = (posting.queue.clone(), posting.priority, posting.eta.is_some());
        let (at, bytes) = open.entry(place).or_insert((usize::MAX, 0));
        *bytes += more;
        match found.get_mut(*at) {
            Some(last) if last.postings.len() < MESSAGES_MAX && *bytes <= BYTES_MAX => {
                last.postings.push(posting.clone());
            }
            _ => {
                (*at, *bytes) = (found.len(), more);
                let token = format!("beat.{}", uuid::Uuid::new_v4().simple());
                found.push(Batch { token, postings: vec![posting.clone()] });
            }
        }
    }
    found
}

/// Adds a batch.
pub(super) fn add(c: &Connection, group: &str, batch: &Batch) -> Result<(), Error> {
    let sql = "INSERT INTO beat_outbox (grp, at, token, messages) VALUES (?, ?, ?, ?)";
    let now = clock::epoch(clock::now());
    c.prepare_cached(sql)?.execute(params![group, now, batch.token, batch.text()])?;
    Ok(())
}

/// Some of the batches that are at least this old, the oldest first, from behind the place `after`
/// on; and the place of the last one.
pub(super) fn list(
    c: &Connection,
    group: &str,
    min_age: Duration,
    after: i64,
) -> Result<(Vec<Batch>, Option<i64>), Error> {
    // One from a time that has not come yet counts as old.
    let sql = "SELECT token, messages, id FROM beat_outbox
        WHERE grp = ?1 AND id > ?2 AND abs(?3 - at) >= ?4 ORDER BY id LIMIT ?5";
    let mut statement = c.prepare_cached(sql)?;
    let (now, age) = (clock::epoch(clock::now()), min_age.as_secs_f64());
    let mut rows = statement.query(params![group, after, now, age, BATCHES_MAX as i64])?;
    let (mut found, mut last) = (Vec::new(), None);
    while let Some(row) = rows.next()? {
        let batch = Batch::read(cell::text(row, 0), &cell::text(row, 1));
        found.push(batch.ok_or_else(|| Error::of(StoreErrorKind::Damaged, "strange messages"))?);
        last = Some(row.get(2)?);
    }
    Ok((found, last))
}

/// Removes the batches with these tokens.
pub(super) fn remove(c: &Connection, tokens: &[String]) -> Result<(), Error> {
    let mut delete = c.prepare_cached("DELETE FROM beat_outbox WHERE token = ?")?;
    tokens.iter().try_for_each(|token| Ok(delete.execute([token]).map(drop)?))
}
