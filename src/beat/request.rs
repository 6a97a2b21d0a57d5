//! Asks the ledger and the stores.

use super::claim::Claim;
use super::core::MARK;
use super::event::{Event, MarkCheck, StoreRequest};
use super::message;
use crate::backend::Store;
use crate::broker::ledger::{Ledger, Step, StepResponse};
use crate::broker::{Admin, Error, Producer, Whereabouts};
use crate::client::send::{self, Sender};
use crate::clock;
use chrono::{DateTime, Utc};
use std::time::Duration;

/// What is asked. Clones are the same.
#[derive(Clone)]
pub(super) struct Stores {
    pub(super) ledger: Ledger,
    pub(super) producer: Producer,
    pub(super) admin: Admin,
    pub(super) store: Store,
    pub(super) sender: Sender,
    /// How long an answer of the broker is waited for.
    pub(super) patience: Duration,
}

impl Stores {
    /// Asks, and returns the answer.
    pub(super) async fn answer(self, request: StoreRequest) -> Event {
        match request {
            StoreRequest::List => Event::Listed(self.ledger.all().await),
            StoreRequest::Read(entries) => {
                let names = entries.iter().map(|(_, name)| name.to_string()).collect();
                let texts = self.ledger.read(names).await;
                Event::Read(entries, texts)
            }
            StoreRequest::Commit { claims, until, now } => {
                let steps = self.steps(&claims, now).await;
                let asked = clock::now();
                let answer = match steps {
                    Ok(steps) => self.ledger.commit_by(steps, until).await,
                    Err(error) => Err(error),
                };
                Event::Committed(claims, answer, asked)
            }
            StoreRequest::CheckMark => Event::MarkChecked(self.check_mark().await),
            StoreRequest::Tend => Event::Tended(self.ledger.tend().await),
            StoreRequest::LookUp { id, task_id, ours } => {
                Event::LookedUp(id, self.is_done(task_id, ours).await)
            }
        }
    }

    async fn steps(&self, claims: &[Claim], now: DateTime<Utc>) -> Result<Vec<Step>, Error> {
        let mut steps = Vec::with_capacity(claims.len());
        for claim in claims {
            steps.push(self.step(claim, now).await?);
        }
        Ok(steps)
    }

    /// A claim as the ledger takes it, with its messages.
    async fn step(&self, claim: &Claim, now: DateTime<Utc>) -> Result<Step, Error> {
        let mut step = Step {
            name: claim.name.to_string(),
            expected: claim.expected.clone(),
            state: claim.text.clone(),
            postings: Vec::new(),
        };
        let Some(entry) = claim.entry.as_ref().filter(|_| !claim.sends.is_empty()) else {
            return Ok(step);
        };
        let bound = match message::route(entry) {
            Some(route) => send::bound(&self.producer, &route, self.patience).await?,
            None => Vec::new(),
        };
        let (sender, to) = (&self.sender, (&claim.to, &bound[..]));
        let abilities = self.producer.abilities();
        // Entries whose arguments have no form are not loaded.
        step.postings = message::postings(sender, abilities, entry, &claim.sends, to, now)
            .map_err(|error| Error::misuse(error.to_string()))?;
        Ok(step)
    }

    async fn check_mark(&self) -> Result<MarkCheck, Error> {
        let asked = clock::now();
        let StepResponse { clock, .. } = self.ledger.commit(Vec::new()).await?;
        let answered = clock::now();
        let values = self.ledger.read(vec![MARK.into()]).await?;
        let present = values.into_iter().next().flatten().is_some();
        Ok(MarkCheck { present, clock, asked, answered })
    }

    /// Whether the task of this id is done, as far as anybody can tell. `ours`: workers of this
    /// application run it, which hold its message for as long as it runs.
    async fn is_done(&self, id: String, ours: bool) -> Result<bool, Error> {
        if self.store.get(&id).await?.is_some_and(|meta| meta.is_ready()) {
            return Ok(true);
        }
        Ok(match self.admin.find(id).await? {
            Whereabouts::Waiting { .. } | Whereabouts::Held { .. } => false,
            Whereabouts::Dead(_) => true,
            Whereabouts::Absent => ours,
            // Only its result tells, and there is none.
            Whereabouts::Untold => false,
        })
    }
}
