//! The state of an entry, as it is stored in the ledger.

use crate::schedule::Schedule;
use crate::schedule::entry::Entry;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use uuid::Uuid;

/// Entries with the fingerprints of their definitions.
pub type Fingerprinted = Vec<(Arc<Entry>, Fingerprint)>;

/// The value of an entry in the ledger: one line of JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryState {
    /// Everything up to this instant has been sent, or will never be.
    pub last: DateTime<Utc>,
    /// How many times it was sent.
    #[serde(default)]
    pub total: u64,
    /// When it was last sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ran: Option<DateTime<Utc>>,
    /// The id of the task that was sent then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Uuid>,
    /// Of the definition that is in force.
    #[serde(rename = "definition")]
    pub fingerprint: Fingerprint,
    /// Nothing is sent until it is resumed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
    /// Since when no file defines it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone: Option<DateTime<Utc>>,
}

/// Sums of a definition, which tell two definitions of one name apart; see [`Entry::fingerprint`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// Of when it is due.
    #[serde(with = "hexadecimal")]
    pub when: u64,
    /// Of the rest.
    #[serde(with = "hexadecimal")]
    pub what: u64,
}

impl Fingerprint {
    /// Of this entry.
    pub fn of(entry: &Entry) -> Fingerprint {
        let [when, what] = entry.fingerprint();
        Fingerprint { when, what }
    }

    /// Each of these entries with its own. This is the slow part of loading.
    pub fn of_all(entries: Vec<Arc<Entry>>) -> Fingerprinted {
        let each = entries.into_iter().map(|entry| {
            let fingerprint = Fingerprint::of(&entry);
            (entry, fingerprint)
        });
        each.collect()
    }
}

impl EntryState {
    /// Of an entry that is due for the first time after `last`.
    pub fn new(fingerprint: Fingerprint, last: DateTime<Utc>) -> EntryState {
        EntryState { last, total: 0, ran: None, id: None, fingerprint, paused: false, gone: None }
    }

    /// Whether nothing but sendings lies between the two.
    pub fn is_like(&self, other: &EntryState) -> bool {
        let of = |state: &EntryState| (state.fingerprint, state.paused, state.gone);
        of(self) == of(other)
    }

    /// Reads what the ledger has.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn read(text: &str) -> Result<EntryState, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    /// As the ledger has it: the same state is the same text.
    pub fn text(&self) -> String {
        // Texts and numbers alone: nothing in it can fail to be written.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// A number as text, since JSON's readers do not agree on numbers beyond 2^53.
mod hexadecimal {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(number: &u64, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(&format_args!("{number:016x}"))
    }

    pub(super) fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<u64, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(from)?;
        u64::from_str_radix(&text, 16).map_err(serde::de::Error::custom)
    }
}

/// Since when a new entry is in force.
pub fn since(entry: &Entry, now: DateTime<Utc>) -> DateTime<Utc> {
    match entry.schedule {
        // The host was started before the entry was known.
        Schedule::Reboot => DateTime::UNIX_EPOCH,
        _ => now,
    }
}

/// The id of the task that an occurrence sends, a UUID of version 7: the same from every beat.
pub fn task_id(entry: &Entry, due: DateTime<Utc>) -> Uuid {
    let random = entry.hash_of(due).to_be_bytes();
    let mut bytes = [0; 10];
    bytes[..8].copy_from_slice(&random);
    bytes[8..].copy_from_slice(&random[3..5]);
    let millis = u64::try_from(due.timestamp_millis()).unwrap_or_default();
    uuid::Builder::from_unix_timestamp_millis(millis, &bytes).into_uuid()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_one_text() {
        let mut state = EntryState::new(
            Fingerprint { when: 0xabc, what: u64::MAX },
            "2026-11-21T15:00:00.000001Z".parse().unwrap(),
        );
        assert_eq!(
            state.text(),
            "{\"last\":\"2026-11-21T15:00:00.000001Z\",\"total\":0,\"definition\":\
             {\"when\":\"0000000000000abc\",\"what\":\"ffffffffffffffff\"}}"
        );
        state.ran = Some(state.last);
        state.id = Some(Uuid::nil());
        state.paused = true;
        state.gone = Some(state.last);
        assert_eq!(EntryState::read(&state.text()), Ok(state.clone()));
        assert!(EntryState::read(&state.text()[1..]).is_err() && EntryState::read("").is_err());
    }
}
