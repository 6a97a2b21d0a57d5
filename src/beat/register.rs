//! How definitions come into force: every entry is made known to the ledger, however long that
//! takes.

use super::action::Claim;
use super::drive::Beat;
use super::flight::bare_step;
use super::shelf::Read;
use super::tell::second;
use crate::bounds::{BEAT_BATCH, BEAT_FLIGHTS};
use crate::broker::Error;
use crate::broker::ledger::Step;
use crate::clock;
use crate::os::memory;
use chrono::{DateTime, Utc};
use std::collections::HashMap;

/// The name of a value that no entry has: it is there as long as the ledger has lost nothing.
pub(super) const MARK: &str = "";

impl Beat {
    /// Makes this the schedule; returns when every entry is known to the ledger, however long
    /// it does not answer.
    pub(super) async fn load(&mut self, read: Read, ready: &mut Option<impl FnOnce()>) {
        let first = self.core.is_empty();
        self.address = read.address;
        let loaded = self.core.load(read.entries, self.clock.now());
        let mut states: HashMap<String, String> = HashMap::new();
        let ledger = self.ledger.clone();
        if first {
            let all = self.persist(ready, || ledger.all()).await;
            states.extend(all);
        } else {
            for names in loaded.unknown.chunks(BEAT_BATCH) {
                let names: Vec<String> = names.iter().map(|(_, name)| name.to_string()).collect();
                let texts = self.persist(ready, || ledger.read(names.clone())).await;
                let known = names.into_iter().zip(texts);
                states.extend(known.filter_map(|(name, text)| Some((name, text?))));
            }
        }
        let mut claims = loaded.claims;
        if first && !states.contains_key(MARK) {
            claims.push(mark(self.clock.now()));
        }
        self.register(claims, ready).await;
        // Piece by piece: what is asked for a hundred thousand entries at once needs more memory
        // than they do.
        for unknown in loaded.unknown.chunks(BEAT_BATCH * BEAT_FLIGHTS) {
            let now = self.clock.now();
            let claims = unknown.iter().filter_map(|(key, name)| {
                let text = states.remove(&**name);
                self.core.register(*key, text.as_deref(), now)
            });
            let claims = claims.collect();
            self.register(claims, ready).await;
        }
        if first {
            let now = self.clock.now();
            states.remove(MARK);
            let stale = states.iter().filter_map(|(name, text)| self.core.stale(name, text, now));
            let stale = stale.collect();
            self.register(stale, ready).await;
        }
        drop((loaded.unknown, states));
        memory::give_back();
        self.lags = false;
        match self.core.len() {
            1 => tracing::info!("beat: loaded 1 entry"),
            count => tracing::info!("beat: loaded {count} entries"),
        }
        ready.take().into_iter().for_each(|ready| ready());
    }

    /// Asks for these, which send nothing.
    async fn register(&mut self, claims: Vec<Claim>, ready: &mut Option<impl FnOnce()>) {
        self.tell();
        let ledger = self.ledger.clone();
        let steps: Vec<Step> = claims.iter().map(bare_step).collect();
        if steps.is_empty() {
            return;
        }
        let asked = clock::now();
        let answer = self.persist(ready, || ledger.commit(steps.clone())).await;
        self.compare(answer.clock, asked, clock::now());
        self.settle(claims, answer.outcomes, self.clock.now());
    }

    /// Asks until there is an answer.
    async fn persist<T>(
        &mut self,
        ready: &mut Option<impl FnOnce()>,
        ask: impl AsyncFn() -> Result<T, Error>,
    ) -> T {
        loop {
            match ask().await {
                Ok(answer) => {
                    self.answered();
                    return answer;
                }
                Err(error) => {
                    let now = self.clock.now();
                    let again = self.failed(&error, now);
                    ready.take().into_iter().for_each(|ready| ready());
                    tokio::time::sleep((again - now).to_std().unwrap_or_default()).await;
                }
            }
        }
    }
}

/// The claim that puts the mark in its place.
pub(super) fn mark(now: DateTime<Utc>) -> Claim {
    Claim {
        key: None,
        name: MARK.into(),
        entry: None,
        expected: None,
        text: Some(format!("{{\"since\":\"{}\"}}", second(now))),
        sends: Vec::new(),
        missed: None,
    }
}
