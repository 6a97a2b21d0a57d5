//! Requests that run their task for each item of a map.

use super::requests::{Requests, Stage};
use crate::runner::{CancelReason, Outcome};
use crate::worker::event::{Effect, Now};
use crate::worker::map::Next;
use crate::worker::request::AttemptKey;
use std::time::Instant;

impl Requests {
    /// An attempt has ended with this. Does its map go on? If not, `outcome` is that of the whole.
    pub(super) fn goes_on(
        &mut self,
        key: AttemptKey,
        outcome: &mut Outcome,
        now: Now,
        out: &mut Vec<Effect>,
    ) -> bool {
        let ends = self.ends();
        let Some((request, Stage::Running)) = self.attempt_mut(key) else { return false };
        let Some(map) = &mut request.map else { return false };
        match map.after(&request.task, outcome, ends, now.mono) {
            Next::Over => return false,
            Next::Item | Next::Again(None) => self.run_item(key, now, out),
            Next::Again(Some(until)) => {
                map.pause = Some(until);
                self.paused.push(key);
            }
        }
        true
    }

    /// Starts the next item of a map.
    fn run_item(&mut self, key: AttemptKey, now: Now, out: &mut Vec<Effect>) {
        let plan = self.plan();
        let Some((request, _)) = self.attempt_mut(key) else { return };
        if let Some(map) = &mut request.map {
            map.pause = None;
            // It was tried before.
            request.bound = map.bind(&request.task).unwrap_or_default();
        }
        out.push(Effect::Start(key, Box::new(request.attempt(&plan, now.mono))));
    }

    /// Starts the items whose pause is over; gives the requests that end instead, and why.
    pub(super) fn resume(
        &mut self,
        now: Now,
        out: &mut Vec<Effect>,
    ) -> Vec<(AttemptKey, CancelReason)> {
        let mut over = Vec::new();
        for key in std::mem::take(&mut self.paused) {
            let ends = self.ends();
            let Some((request, stage)) = self.attempt(key) else { continue };
            let until: Option<Instant> = request.map.as_ref().and_then(|map| map.pause);
            match stage {
                Stage::Running if ends => over.push((key, CancelReason::Shutdown)),
                Stage::Running if until.is_some_and(|until| until > now.mono) => {
                    self.paused.push(key);
                }
                Stage::Running => self.run_item(key, now, out),
                _ => over.push((key, CancelReason::ConnectionLost)),
            }
        }
        over
    }
}
