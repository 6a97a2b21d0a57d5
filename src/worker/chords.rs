//! What is done with chords before a verdict is carried out: their sizes are stored, their members
//! counted, and who counts the last one calls the body.
//!
//! The store counts a member once, however often it runs, and lets one worker at a time call the
//! body: it has a claim, which runs out if it dies. The body's messages are accepted once by the
//! broker, under the name of the chord.

use super::follow::{self, Chords, Failed};
use super::plan::Plan;
use super::verdict::Verdict;
use crate::backend::{Counted, Store};
use crate::broker::Item;
use crate::canvas::{self, ChordMember, ChordStart, Context, Ended};
use crate::clock;
use crate::link::error::Error;
use crate::wire::{Malformed, Record};
use serde_json::value::RawValue;
use std::sync::Arc;

/// The items that a chord's end brings, members of other chords, and chords that begin.
pub(super) type Brought = (Vec<Item>, Vec<ChordMember>, Vec<ChordStart>);

/// Chords within chords that end with one task, at most.
const NESTED_MAX: usize = 64;

/// Members that are counted in one step at most: a server does nothing else meanwhile.
const COUNT_MAX: usize = 256;

/// Bytes of their values; a single one may be larger.
const COUNT_BYTES: usize = 1024 * 1024;

/// A body that was called: its chord, and the claim to it.
#[derive(Debug, Clone)]
pub(super) struct BodyClaim {
    group_id: String,
    token: String,
}

/// What came of the chords of a verdict: its messages are sent before it, and the claims released.
#[derive(Default)]
pub(super) struct ChordResult {
    pub items: Vec<Item>,
    pub claims: Vec<BodyClaim>,
    /// Another worker is about to call the bodies of these, or has died in it: ask again.
    pub later: Vec<ChordMember>,
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

    /// Does what is to be done before the verdict is carried out. May be asked again, with the same
    /// `token` for its claims.
    ///
    /// # Errors
    /// The store does not answer, or refuses it.
    pub(super) async fn join(&self, chords: &Chords, token: &str) -> Result<ChordResult, Error> {
        if !chords.begun.is_empty() {
            self.store.begin_chords(&chords.begun).await?;
        }
        let mut joined = ChordResult::default();
        let mut left = chords.parts.clone();
        let mut rounds = 0;
        while let Some(part) = left.pop() {
            rounds += 1;
            if rounds > NESTED_MAX + chords.parts.len() {
                tracing::error!("chord {}: nested deeper than the limit", part.group_id);
                break;
            }
            match self.store.count(&[(&part, token)]).await?.first() {
                Some(Counted::More) | None => {}
                Some(Counted::Claimed) => joined.later.push(part),
                Some(Counted::Last) => {
                    let (items, parts, begun) = self.end(&part).await?;
                    if !begun.is_empty() {
                        self.store.begin_chords(&begun).await?;
                    }
                    left.extend(parts);
                    joined.items.extend(items);
                    let token = token.to_string();
                    joined.claims.push(BodyClaim { group_id: part.group_id, token });
                }
            }
        }
        Ok(joined)
    }

    /// Stores the sizes of all chords of these that begin, and counts all members that have ended,
    /// together; tells which of them end no chord. The others are to be joined, under the same token:
    /// what is counted already is not counted again.
    ///
    /// # Errors
    /// As for [`Counter::join`]; then nothing is known of any.
    pub(super) async fn join_all(&self, all: &[(Box<Chords>, String)]) -> Result<Vec<bool>, Error> {
        let begun = all.iter().flat_map(|(chords, _)| chords.begun.iter().cloned());
        let begun: Vec<ChordStart> = begun.collect();
        if !begun.is_empty() {
            self.store.begin_chords(&begun).await?;
        }
        let mut parts: Vec<(&ChordMember, &str)> = Vec::new();
        for (chords, token) in all {
            parts.extend(chords.parts.iter().map(|part| (part, token.as_str())));
        }
        let mut counted = Vec::with_capacity(parts.len());
        let mut rest = &parts[..];
        while !rest.is_empty() {
            let mut bytes = 0;
            let fitting = rest.iter().take_while(|(part, _)| {
                bytes += part.result.get().len();
                bytes <= COUNT_BYTES
            });
            let (now, later) = rest.split_at(fitting.count().clamp(1, COUNT_MAX));
            counted.extend(self.store.count(now).await?);
            rest = later;
        }
        let mut counted = counted.into_iter();
        let of_job = |(chords, _): &(Box<Chords>, String)| {
            let own: Vec<Counted> = counted.by_ref().take(chords.parts.len()).collect();
            own.len() == chords.parts.len() && own.iter().all(|one| *one == Counted::More)
        };
        Ok(all.iter().map(of_job).collect())
    }

    /// The store that tells of members.
    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    /// The worker's plan.
    pub(super) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The items that end the chord of this last member, the members of other chords that end with
    /// it, and chords that begin.
    async fn end(&self, part: &ChordMember) -> Result<Brought, Error> {
        let returned = self.store.chord_results(&part.group_id).await?;
        let context = Context {
            root_id: &part.root_id,
            parent_id: &part.task_id,
            priority: part.priority.filter(|_| self.plan.policy.inherit_priority),
            now: clock::now(),
            chords: self.plan.chords,
        };
        let takes_all = follow::takes_all(&self.plan.tasks);
        let ended = canvas::complete(&part.body, &returned, &takes_all, context);
        Ok(self.ended((&part.group_id, &part.body), ended, context))
    }

    /// What the end of a chord with this body brings.
    pub(super) fn ended(
        &self,
        (group_id, body): (&str, &RawValue),
        ended: Result<Ended, Malformed>,
        context: Context<'_>,
    ) -> Brought {
        let mut verdict = Verdict::default();
        let Context { root_id, now, .. } = context;
        let ended = match ended {
            Ok(Ended::Called(calls)) => match follow::check_form(&calls, &self.plan, now) {
                Ok(()) => Ok(Ended::Called(calls)),
                Err(why) => {
                    let takes_all = follow::takes_all(&self.plan.tasks);
                    let why = format!("Callback error: {why}");
                    canvas::fail(body, &why, None, &takes_all, context)
                }
            },
            ended => ended,
        };
        let calls = match ended {
            Ok(Ended::Called(calls)) => calls,
            Ok(Ended::Failed { error, skipped, calls }) => {
                tracing::error!("Chord {group_id:?} raised: {}", error.repr(1));
                for (one, exception) in &skipped {
                    let failed = Failed { exception, traceback: None, stores: true, root_id, now };
                    follow::add_skipped(
                        &mut verdict,
                        std::slice::from_ref(one),
                        &failed,
                        &self.plan,
                    );
                }
                calls
            }
            Err(Malformed(why)) => {
                tracing::error!("Chord {group_id:?}: its body cannot be called: {why}");
                return Brought::default();
            }
        };
        let token = format!("chord-{group_id}");
        // Only errbacks may have no form: nobody waits for those.
        let postings = follow::postings(&calls, &self.plan, now).unwrap_or_else(|why| {
            tracing::error!("Chord {group_id:?}: its errbacks cannot be called: {why}");
            Vec::new()
        });
        let sent = Item { postings, token, ..Item::default() };
        let record = |record: Record| Item { record: Some(record), ..Item::default() };
        let items = std::iter::once(sent).filter(|item| !item.postings.is_empty());
        let items = items.chain(verdict.skipped.into_iter().map(record)).collect();
        let parts = verdict.chords.map(|chords| chords.parts).unwrap_or_default();
        (items, parts, calls.chords)
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
