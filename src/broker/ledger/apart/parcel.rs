//! Parcels: messages that leave together, and how a file keeps them.

use crate::broker::Posting;
use crate::wire::Payload;
use chrono::DateTime;
use serde_json::{Value, json};
use std::collections::HashMap;

/// Messages of one parcel at the most: the broker takes it in one step.
const MESSAGES_MAX: usize = 256;

/// Bytes of one parcel at the most, but for a single larger message; likewise.
const BYTES_MAX: usize = 256 * 1024;

/// Messages that are to be published together, once.
#[derive(Debug, Clone)]
pub struct Parcel {
    /// The broker accepts it once.
    pub token: String,
    /// In their order; of one queue.
    pub postings: Vec<Posting>,
}

impl Parcel {
    /// Its messages as a text.
    pub fn messages(&self) -> String {
        let one = |posting: &Posting| {
            let eta = posting.eta.map(|eta| eta.timestamp_micros());
            json!([
                posting.queue,
                posting.task_id,
                posting.priority,
                eta,
                posting.payload.to_envelope()
            ])
        };
        Value::from_iter(self.postings.iter().map(one)).to_string()
    }

    /// The parcel of this token and text; nothing if it is none.
    pub fn read(token: String, messages: &str) -> Option<Parcel> {
        type One = (String, String, u8, Option<i64>, String);
        let all: Vec<One> = serde_json::from_str(messages).ok()?;
        let one = |(queue, task_id, priority, eta, payload): One| {
            let eta = match eta {
                Some(eta) => Some(DateTime::from_timestamp_micros(eta)?),
                None => None,
            };
            let payload = Payload::from_envelope(payload);
            Some(Posting { queue, task_id, priority, eta, payload })
        };
        let postings = all.into_iter().map(one).collect::<Option<_>>()?;
        Some(Parcel { token, postings })
    }
}

/// Cuts messages into parcels, each for one place of the broker: one that it refuses must not take
/// others with it.
pub fn cut(postings: impl Iterator<Item = Posting>) -> Vec<Parcel> {
    let mut found: Vec<Parcel> = Vec::new();
    let mut open: HashMap<(String, u8, bool), (usize, usize)> = HashMap::new();
    for posting in postings {
        let more = posting.payload.size();
        let place = (posting.queue.clone(), posting.priority, posting.eta.is_some());
        let (at, bytes) = open.entry(place).or_insert((usize::MAX, 0));
        *bytes += more;
        match found.get_mut(*at) {
            Some(last) if last.postings.len() < MESSAGES_MAX && *bytes <= BYTES_MAX => {
                last.postings.push(posting);
            }
            _ => {
                (*at, *bytes) = (found.len(), more);
                let token = format!("beat.{}", uuid::Uuid::new_v4().simple());
                found.push(Parcel { token, postings: vec![posting] });
            }
        }
    }
    found
}
