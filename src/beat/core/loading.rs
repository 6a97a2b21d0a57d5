//! How definitions come into force: every entry is made known to the ledger, step by step, before
//! anything is sent.

use super::entries::Entries;
use super::recovery::{MARK, mark};
use crate::beat::claim::{Claim, LoadRequests, Unread};
use crate::beat::event::StoreRequest;
use crate::bounds::{BEAT_BATCH, BEAT_FLIGHTS};
use chrono::{DateTime, Utc};
use std::collections::{HashMap, VecDeque};

/// Entries registered in one step: a request for a hundred thousand would need more memory than
/// they do.
const REGISTER_MAX: usize = BEAT_BATCH * BEAT_FLIGHTS;

/// Definitions on their way into force.
pub(super) struct Loading {
    /// The ledger has not been read by this beat: all of it is.
    first: bool,
    /// Whether all that has to be read has been asked for.
    read: bool,
    /// How many of `unread` have been asked for.
    asked: usize,
    /// Entries that are not registered yet.
    unread: VecDeque<Unread>,
    /// What the ledger has, by name.
    states: HashMap<String, String>,
    /// Changes for entries that are no longer defined.
    gone: Vec<Claim>,
    /// A request that was not answered.
    pub retry: Option<StoreRequest>,
}

impl Loading {
    /// Begins with what [`Entries::load`] asks for.
    pub(super) fn new(first: bool, loaded: LoadRequests) -> Loading {
        Loading {
            first,
            read: false,
            asked: 0,
            unread: loaded.unread.into(),
            states: HashMap::new(),
            gone: loaded.claims,
            retry: None,
        }
    }

    /// The ledger has these values.
    pub(super) fn learn(&mut self, values: impl IntoIterator<Item = (String, String)>) {
        self.states.extend(values);
    }

    /// What is asked next; `None`: the definitions are in force.
    pub(super) fn next(
        &mut self,
        entries: &mut Entries,
        now: DateTime<Utc>,
    ) -> Option<StoreRequest> {
        if !self.read {
            if let Some(request) = self.next_read() {
                return Some(request);
            }
            self.read = true;
            if self.first && self.states.remove(MARK).is_none() {
                self.gone.push(mark(now));
            }
        }
        loop {
            let mut claims = std::mem::take(&mut self.gone);
            if claims.is_empty() {
                let count = self.unread.len().min(REGISTER_MAX);
                let states = &mut self.states;
                let some = self.unread.drain(..count).filter_map(|(id, name)| {
                    let text = states.remove(&*name);
                    entries.register(id, text.as_deref(), now)
                });
                claims.extend(some);
                if claims.is_empty() && count > 0 {
                    continue;
                }
            }
            if claims.is_empty() {
                // What is left is of entries that no file defines.
                let left = std::mem::take(&mut self.states);
                claims
                    .extend(left.iter().filter_map(|(name, text)| entries.stale(name, text, now)));
            }
            return (!claims.is_empty()).then_some(StoreRequest::Commit {
                claims,
                until: None,
                now,
            });
        }
    }

    fn next_read(&mut self) -> Option<StoreRequest> {
        if self.first {
            return (std::mem::replace(&mut self.asked, 1) == 0).then_some(StoreRequest::List);
        }
        let some: Vec<Unread> =
            self.unread.iter().skip(self.asked).take(BEAT_BATCH).cloned().collect();
        self.asked += some.len();
        (!some.is_empty()).then_some(StoreRequest::Read(some))
    }
}
