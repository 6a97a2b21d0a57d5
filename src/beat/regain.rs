//! A ledger that does not answer, and one that has lost everything, as a server that was emptied:
//! what beats still know is given back to it.

use super::action::{Claim, Key};
use super::core::{Core, Phase};
use super::drive::Beat;
use super::register::mark;
use crate::bounds::{BEAT_BATCH, BEAT_DEFER, BEAT_PAUSE_MAX};
use crate::broker::Error;
use chrono::{DateTime, Utc};
use std::time::Duration;

/// The first pause before a ledger that did not answer is asked again.
const PAUSE: Duration = Duration::from_millis(100);

impl Core {
    /// The ledger has lost everything: what it is to have again.
    pub fn restore(&mut self) -> Vec<Claim> {
        let slots = self.slots.iter_mut().enumerate();
        let known = slots.filter_map(|(slot, place)| {
            let of = place.as_mut()?;
            let state = of.state.clone()?;
            of.raw = None;
            of.phase = Phase::Claiming(Box::new(state.clone()));
            Some(Claim {
                key: Some(Key { slot, turn: of.turn }),
                name: of.entry.name.clone(),
                entry: Some(of.entry.clone()),
                expected: None,
                text: Some(state.text()),
                sends: Vec::new(),
                missed: None,
            })
        });
        known.collect()
    }
}

impl Beat {
    /// The ledger has answered.
    pub(super) fn answered(&mut self) {
        if self.outage.take().is_some() {
            tracing::warn!("the broker answers again");
        }
    }

    /// The ledger has not answered; says when to ask again.
    pub(super) fn failed(&mut self, error: &Error, now: DateTime<Utc>) -> DateTime<Utc> {
        let pause = match self.outage {
            None => {
                tracing::error!("{error}; what is due is held");
                PAUSE
            }
            Some((pause, _)) => (pause * 2).min(BEAT_PAUSE_MAX),
        };
        let again = now + pause;
        self.outage = Some((pause, again));
        again
    }

    /// The ledger has its mark, or has lost it, and everything.
    pub(super) fn regain(&mut self, has_mark: bool, now: DateTime<Utc>) {
        if has_mark {
            self.lost = None;
            if std::mem::take(&mut self.doubts) {
                // What another one has given back.
                let resting = self.core.resting(BEAT_BATCH);
                self.learn(resting);
            }
            return;
        }
        let since = *self.lost.get_or_insert(now);
        // Who goes ahead knows what was sent last, and finds out within a second.
        self.doubts = self.lags && now - since < BEAT_DEFER;
        if self.doubts {
            return;
        }
        self.lost = None;
        self.tell_of_loss();
        let mut claims = self.core.restore();
        claims.push(mark(now));
        self.commit_all(claims);
    }
}
