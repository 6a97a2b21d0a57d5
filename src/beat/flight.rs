//! What is asked of the ledger and of the stores, and the answers when they come.

use super::action::{Claim, Key};
use super::{Address, mail};
use crate::backend::Store;
use crate::broker::ledger::{Answer, Step};
use crate::broker::{Admin, Error, Producer, Whereabouts};
use crate::client::send::{self, Sender};
use chrono::{DateTime, Utc};
use std::sync::Arc;
use std::time::Duration;

/// Something that was asked for, and its answer.
pub(super) enum Flown {
    Claims(Vec<Claim>, Result<Answer, Error>, DateTime<Utc>),
    Looked(Key, Result<bool, Error>),
    Learned(Vec<(Key, Arc<str>)>, Result<Vec<Option<String>>, Error>),
    Mark(Result<Mark, Error>),
    Tended(Result<(), Error>),
}

/// What the ledger is known by, if it has it, and its clock, seen between two instants of ours.
pub(super) struct Mark {
    pub(super) text: Option<String>,
    pub(super) clock: DateTime<Utc>,
    pub(super) asked: DateTime<Utc>,
    pub(super) answered: DateTime<Utc>,
}

/// A claim as the ledger is asked for it, with its messages.
pub(super) async fn step(
    claim: &Claim,
    to: &Address,
    sender: &Sender,
    producer: &Producer,
    patience: Duration,
    now: DateTime<Utc>,
) -> Result<Step, Error> {
    let mut step = bare_step(claim);
    let Some(entry) = claim.entry.as_ref().filter(|_| !claim.sends.is_empty()) else {
        return Ok(step);
    };
    let bound = match mail::route(entry) {
        Some(route) => send::bound(producer, &route, patience).await?,
        None => Vec::new(),
    };
    step.postings =
        mail::postings(sender, producer.abilities(), entry, &claim.sends, (to, &bound), now);
    Ok(step)
}

pub(super) fn bare_step(claim: &Claim) -> Step {
    Step {
        name: claim.name.to_string(),
        expected: claim.expected.clone(),
        state: claim.text.clone(),
        postings: Vec::new(),
    }
}

/// Is the task of this id done, as far as anybody can tell? `ours`: it is run by workers of ours, which
/// hold its message for as long as it runs.
pub(super) async fn is_done(
    store: &Store,
    admin: &Admin,
    id: String,
    ours: bool,
) -> Result<bool, Error> {
    if store.get(&id).await?.is_some_and(|meta| meta.is_ready()) {
        return Ok(true);
    }
    let place = admin.find(id).await?;
    Ok(match place {
        Whereabouts::Waiting { .. } | Whereabouts::Held { .. } => false,
        Whereabouts::Dead(_) => true,
        Whereabouts::Absent => ours,
        // Only its result tells, and there is none.
        Whereabouts::Untold => false,
    })
}
