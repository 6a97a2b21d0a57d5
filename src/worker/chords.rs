//! What is done with chords before a verdict is carried out: their sizes are stored, their members
//! counted, and who counts the last one calls the body.
//!
//! The store counts a member once, however often it runs, and lets one worker at a time call the
//! body: it has a claim, which runs out if it dies. The body's messages are accepted once by the
//! broker, under the name of the chord.

use super::follow::{self, Chords};
use super::plan::Plan;
use super::verdict::Verdict;
use crate::backend::{Counted, Store};
use crate::broker::Item;
use crate::canvas::{self, ChordMember, Context, Ended};
use crate::clock;
use crate::link::error::Error;
use crate::wire::{Exception, Malformed, Record};
use std::sync::Arc;

/// Chords within chords that end with one task, at most.
const NESTED_MAX: usize = 64;

/// A body that was called: its chord, and the claim to it.
#[derive(Debug, Clone)]
pub(super) struct BodyClaim {
    group_id: String,
    token: String,
}

/// What came of the chords of a verdict.
pub(super) enum ChordResult {
    /// These items are to be done before it, and the claims are released after that.
    Ready(Vec<Item>, Vec<BodyClaim>),
    /// Another worker is about to call a body, or has died in it: ask again.
    Later,
}

/// Counts members, and calls bodies.
#[derive(Clone)]
pub(super) struct Counter {
    store: Store,
    plan: Arc<Plan>,
}

impl Counter {
    pub(super) fn new(store: Store, plan: Arc<Plan>) -> Counter {
        Counter { store, plan }
    }

    /// Does what is to be done before the verdict is carried out. May be asked again.
    ///
    /// # Errors
    /// The store does not answer, or refuses it.
    pub(super) async fn join(&self, chords: &Chords) -> Result<ChordResult, Error> {
        if !chords.begun.is_empty() {
            self.store.begin_chords(&chords.begun).await?;
        }
        let (mut items, mut claims) = (Vec::new(), Vec::new());
        let mut left = chords.parts.clone();
        let mut rounds = 0;
        while let Some(part) = left.pop() {
            rounds += 1;
            if rounds > NESTED_MAX + chords.parts.len() {
                tracing::error!("chord {}: nested deeper than the limit", part.group_id);
                break;
            }
            let token = uuid::Uuid::new_v4().simple().to_string();
            match self.store.count(&part, &token).await? {
                Counted::More => {}
                Counted::Claimed => return Ok(ChordResult::Later),
                Counted::Last => {
                    let (item, parts, begun) = self.end(&part).await?;
                    if !begun.is_empty() {
                        self.store.begin_chords(&begun).await?;
                    }
                    left.extend(parts);
                    items.extend(item);
                    claims.push(BodyClaim { group_id: part.group_id, token });
                }
            }
        }
        Ok(ChordResult::Ready(items, claims))
    }

    /// The items that end the chord of this last member, the members of other chords that end with
    /// it, and chords that begin.
    async fn end(
        &self,
        part: &ChordMember,
    ) -> Result<(Vec<Item>, Vec<ChordMember>, Vec<canvas::ChordStart>), Error> {
        let now = clock::now();
        let returned = self.store.chord_results(&part.group_id).await?;
        let context = Context { root_id: &part.root_id, parent_id: &part.task_id, now };
        let ended = canvas::complete(part, &returned, context);
        let mut verdict = Verdict::default();
        let calls = match ended {
            Ok(Ended::Called(calls)) => calls,
            Ok(Ended::Failed { error, skipped, calls }) => {
                tracing::error!("Chord {:?} raised: {}", part.group_id, said(&error));
                let root = &part.root_id;
                follow::add_skipped(&mut verdict, &skipped, &error, None, true, root, now);
                calls
            }
            Err(Malformed(why)) => {
                tracing::error!("Chord {:?}: its body cannot be called: {why}", part.group_id);
                return Ok((Vec::new(), Vec::new(), Vec::new()));
            }
        };
        let token = format!("chord-{}", part.group_id);
        let postings = follow::postings(&calls, &self.plan, &self.plan.tasks, now);
        let sent = Item { postings, token, ..Item::default() };
        let record = |record: Record| Item { record: Some(record), ..Item::default() };
        let items = std::iter::once(sent).filter(|item| !item.postings.is_empty());
        let items = items.chain(verdict.skipped.into_iter().map(record)).collect();
        let parts = verdict.chords.map(|chords| chords.parts).unwrap_or_default();
        Ok((items, parts, calls.chords))
    }

    /// The bodies of these chords are called: what is left of them goes.
    pub(super) async fn release(&self, claims: &[BodyClaim]) {
        for BodyClaim { group_id, token } in claims {
            if let Err(error) = self.store.end_chord(group_id, token).await {
                // Everything of it expires.
                tracing::warn!("chord {group_id}: {error}; its keys are left to expire");
            }
        }
    }
}

fn said(error: &Exception) -> String {
    error.exc_message.first().map(ToString::to_string).unwrap_or_default()
}
