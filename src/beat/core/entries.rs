//! The entries of a schedule, and what the ledger is known to have of each: which are due, what
//! becomes of occurrences that were missed or overlap, and what the ledger is asked for.
//!
//! An entry for which the ledger has the state `last` is due at the first occurrence after `last`.
//! To send it, a beat asks the ledger to replace that state by one whose `last` is the occurrence.
//! One of any number of beats succeeds; the others learn the new state and continue from there. So
//! each state follows from the one before by the rules of this file and of [`super::missed`],
//! whichever beat computes it.

use super::heap::Heap;
use super::missed::{gone, remedy};
use super::slot::{EntryPhase, Slot};
use crate::beat::claim::{Claim, ClaimResult, DueAction, EntryId, LoadRequests, Unread};
use crate::beat::event::Note;
use crate::beat::state::{EntryState, Fingerprint, since, task_id};
use crate::bounds::{BEAT_BACK, BEAT_GONE, BEAT_LATE, BEAT_LOOK_AGAIN};
use crate::schedule::Schedule;
use crate::schedule::entry::{Entry, Overlap};
use chrono::{DateTime, Utc};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// Every entry, and which of them is next.
#[derive(Default)]
pub struct Entries {
    slots: Vec<Option<Slot>>,
    free: Vec<usize>,
    by_name: HashMap<Arc<str>, usize>,
    heap: Heap,
    /// What happened, for the log.
    notes: Vec<Note>,
    /// Entries that are paused or removed, or that another beat has defined otherwise.
    off: Vec<usize>,
    /// How many intervals were begun, to spread them.
    begun: u32,
    /// How many definitions there were.
    generations: u32,
    /// See [`Entries::new`].
    disposable: bool,
}

impl Entries {
    /// No entries. `disposable`: the ledger may fall back to an older state although no message is
    /// lost, and is then brought up to date. (A broker that fell back has lost messages too.)
    pub fn new(disposable: bool) -> Entries {
        Entries { disposable, ..Entries::default() }
    }

    /// When an entry is due next.
    pub fn next(&self) -> Option<DateTime<Utc>> {
        self.heap.next()
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// What happened since the last call.
    pub fn notes(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.notes)
    }

    /// Replaces all definitions. An unchanged entry continues unchanged.
    pub fn load(
        &mut self,
        entries: Vec<(Arc<Entry>, Fingerprint)>,
        now: DateTime<Utc>,
    ) -> LoadRequests {
        let mut loaded = LoadRequests::default();
        let mut before = std::mem::take(&mut self.by_name);
        self.begun = 0;
        for (entry, fingerprint) in entries {
            let name = entry.name.clone();
            let slot = before.remove(&name);
            let same =
                |slot: &usize| self.slot(*slot).is_some_and(|s| s.fingerprint == fingerprint);
            let slot = match slot.filter(same) {
                // At most its line in the file is another one.
                Some(slot) => {
                    if let Some(known) = &mut self.slots[slot] {
                        known.entry = entry;
                    }
                    self.by_name.insert(name, slot);
                    continue;
                }
                None => slot.unwrap_or_else(|| self.free.pop().unwrap_or(self.slots.len())),
            };
            self.generations += 1;
            let (generation, phase) = (self.generations, EntryPhase::New);
            let new = Slot { entry, fingerprint, state: None, raw: None, phase, generation };
            match self.slots.get_mut(slot) {
                Some(place) => *place = Some(new),
                None => self.slots.push(Some(new)),
            }
            loaded.unread.push((EntryId { slot, generation }, name.clone()));
            self.by_name.insert(name, slot);
        }
        for (name, slot) in before {
            if let Some(of) = self.slots[slot].take()
                && let Some(expected) = of.expected()
            {
                loaded.claims.extend(gone(&name, of.state, expected, now));
            }
        }
        self.heap.forget(|slot| self.slots[slot].is_none());
        self.free = (0..self.slots.len()).filter(|slot| self.slots[*slot].is_none()).collect();
        self.off.retain(|slot| self.slots[*slot].is_some());
        loaded
    }

    /// Takes what the ledger has of an entry that was loaded. Returns what it is to have, if that is
    /// something else.
    pub fn register(
        &mut self,
        id: EntryId,
        text: Option<&str>,
        now: DateTime<Utc>,
    ) -> Option<Claim> {
        let slot = self.of(id)?;
        let (entry, fingerprint) = (slot.entry.clone(), slot.fingerprint);
        let known = match text.map(EntryState::read) {
            None => None,
            Some(Ok(state)) => Some(state),
            Some(Err(why)) => {
                self.notes.push(Note::Damaged(entry.name.clone(), why));
                None
            }
        };
        let returns = |state: &EntryState| state.gone.is_none_or(|gone| now - gone < BEAT_GONE);
        let state = match known.clone().filter(returns) {
            Some(mut state) => {
                let is_moved = state.fingerprint.when != fingerprint.when;
                if is_moved && is_due(&entry, state.last, now) {
                    // Occurrences of the new definition from before its time are not missed.
                    state.last = now;
                }
                EntryState { fingerprint, gone: None, ..state }
            }
            None => {
                let last = self.begin(&entry, now);
                EntryState::new(fingerprint, last)
            }
        };
        if known.as_ref() == Some(&state) {
            self.adopt(id, state, text, now);
            return None;
        }
        Some(self.of(id)?.claim(id.slot, text.map(Into::into), state))
    }

    /// Since when a new entry is in force. Intervals that begin together are set a millisecond apart,
    /// so that ten thousand of them are not due in the same instant.
    fn begin(&mut self, entry: &Entry, now: DateTime<Utc>) -> DateTime<Utc> {
        match &entry.schedule {
            Schedule::Every(every) => {
                let micros = every.period().as_micros().clamp(1, 1 << 50) as u64;
                let apart = u64::from(self.begun) * 1000 % micros;
                self.begun += 1;
                now + Duration::from_micros(apart)
            }
            _ => since(entry, now),
        }
    }

    /// What the ledger is to have of an entry that no file defines.
    pub fn stale(&self, name: &str, text: &str, now: DateTime<Utc>) -> Option<Claim> {
        if self.by_name.contains_key(name) {
            return None;
        }
        gone(name, EntryState::read(text).ok(), text.into(), now)
    }

    /// What has to be done now for what was due by `by`, at most `most` actions.
    pub fn due(&mut self, by: DateTime<Utc>, now: DateTime<Utc>, most: usize) -> Vec<DueAction> {
        let mut actions = Vec::new();
        while actions.len() < most
            && let Some(id) = self.heap.pop(by)
        {
            let Some(slot) = self.of(id) else { continue };
            let (due, waits) = match slot.phase {
                EntryPhase::Due(due) => (due, false),
                EntryPhase::Waiting(due) => (due, true),
                _ => continue,
            };
            if slot.entry.sent_at(due) > now {
                // This was pushed for an earlier occurrence.
                continue;
            }
            let Some(state) = slot.state.clone() else { continue };
            let entry = slot.entry.clone();
            let asks = entry.overlap != Overlap::Allow && state.id.is_some();
            if asks || waits {
                slot.phase = EntryPhase::Looking(due);
                actions.push(DueAction::LookUp { id, entry, state });
            } else {
                actions.extend(self.send(id, due, now).map(DueAction::Claim));
            }
        }
        actions
    }

    /// Whether the task of [`DueAction::LookUp`] is done.
    pub fn looked_up(&mut self, id: EntryId, done: bool, now: DateTime<Utc>) -> Option<Claim> {
        let slot = self.of(id)?;
        let EntryPhase::Looking(due) = slot.phase else { return None };
        match slot.entry.overlap {
            _ if done => self.send(id, due, now),
            Overlap::Queue => {
                slot.phase = EntryPhase::Waiting(due);
                self.heap.push(now + BEAT_LOOK_AGAIN, id);
                None
            }
            _ => {
                let last = slot.entry.latest(slot.state.as_ref()?.last, now).unwrap_or(due);
                let name = slot.entry.name.clone();
                self.notes.push(Note::Overlap(name, due));
                self.claim(id, last.max(due), Vec::new(), now)
            }
        }
    }

    /// The task could not be looked up: tries again at this time.
    pub fn look_up_again(&mut self, id: EntryId, at: DateTime<Utc>) {
        let Some(slot) = self.of(id) else { return };
        if let EntryPhase::Looking(due) = slot.phase {
            slot.phase = EntryPhase::Waiting(due);
            self.heap.push(at, id);
        }
    }

    /// Claims the occurrence `due`, or what is to be sent in its place if it was missed.
    fn send(&mut self, id: EntryId, due: DateTime<Utc>, now: DateTime<Utc>) -> Option<Claim> {
        let slot = self.of(id)?;
        let entry = slot.entry.clone();
        let last = slot.state.as_ref()?.last;
        let is_late = now - entry.sent_at(due) > BEAT_LATE && entry.schedule != Schedule::Reboot;
        if !is_late {
            return self.claim(id, due, vec![due], now);
        }
        let latest = entry.latest(last, now).unwrap_or(due).max(due);
        let mut sends = remedy(&entry, last, latest, now);
        let mut to = latest;
        match entry.overlap {
            // One after the other: the rest follows when the first of them is done.
            Overlap::Queue if sends.len() > 1 => {
                to = sends[0];
                sends.truncate(1);
            }
            Overlap::Skip => sends.drain(..sends.len().saturating_sub(1)).for_each(drop),
            _ => {}
        }
        let claim = self.claim(id, to, sends, now)?;
        Some(Claim { missed: Some(due), ..claim })
    }

    fn claim(
        &mut self,
        id: EntryId,
        last: DateTime<Utc>,
        sends: Vec<DateTime<Utc>>,
        now: DateTime<Utc>,
    ) -> Option<Claim> {
        let slot = self.of(id)?;
        let mut state = EntryState { last, ..slot.state.clone()? };
        if let Some(due) = sends.last() {
            state.total += sends.len() as u64;
            state.ran = Some(now);
            state.id = Some(task_id(&slot.entry, *due));
        }
        let claim = slot.claim(id.slot, slot.expected(), state);
        Some(Claim { sends, ..claim })
    }

    /// The ledger has lost everything: all that is known of it, to be claimed again.
    pub fn restore(&mut self) -> Vec<Claim> {
        let slots = self.slots.iter_mut().enumerate();
        let known = slots.filter_map(|(slot, of)| {
            let of = of.as_mut()?;
            let state = of.state.clone()?;
            of.raw = None;
            Some(of.claim(slot, None, state))
        });
        known.collect()
    }

    /// Takes the result of a claim. Returns whether another beat was faster.
    pub fn claimed(&mut self, id: EntryId, result: ClaimResult, now: DateTime<Utc>) -> bool {
        let Some(slot) = self.of(id) else { return false };
        let EntryPhase::Claiming(wanted) = &slot.phase else { return false };
        let wanted = (**wanted).clone();
        match result {
            ClaimResult::Done => self.adopt(id, wanted, None, now),
            // An earlier try was done, and its answer lost.
            ClaimResult::Conflict(Some(text)) if text == wanted.text() => {
                self.adopt(id, wanted, None, now);
            }
            ClaimResult::Conflict(Some(text)) => return self.beaten(id, wanted, &text, now),
            ClaimResult::Conflict(None) => {
                slot.phase = EntryPhase::Off;
                self.off.push(id.slot);
            }
            ClaimResult::Retry(again) => match &slot.state {
                // It has to be registered again.
                None => slot.phase = EntryPhase::New,
                Some(state) => {
                    let due = slot.entry.next(state.last);
                    slot.phase = due.map_or(EntryPhase::Off, EntryPhase::Due);
                    if due.is_some() {
                        self.heap.push(again, id);
                    }
                }
            },
        }
        false
    }

    /// The ledger has another text than the one expected. Returns whether another beat was faster.
    fn beaten(&mut self, id: EntryId, wanted: EntryState, text: &str, now: DateTime<Utc>) -> bool {
        let disposable = self.disposable;
        let Some(slot) = self.of(id) else { return false };
        let (name, known) = (slot.entry.name.clone(), slot.state.clone());
        match EntryState::read(text) {
            Ok(state) => {
                let is_ahead = |known: &EntryState| {
                    disposable && known.last > state.last && known.is_like(&state)
                };
                if let Some(known) = known.clone().filter(is_ahead) {
                    self.adopt(id, known, Some(text), now);
                    return false;
                }
                let faster = known.is_some_and(|known| known.last < state.last);
                self.adopt(id, state, Some(text), now);
                faster
            }
            Err(why) => {
                self.notes.push(Note::Damaged(name, why));
                // What is known here takes its place.
                self.adopt(id, known.unwrap_or(wanted), Some(text), now);
                false
            }
        }
    }

    /// At most `most` entries that were due by `now`, to be read before they are claimed. They stay
    /// due: what is read moves them.
    pub fn soon(&mut self, now: DateTime<Utc>, most: usize) -> Vec<Unread> {
        let mut unread = Vec::new();
        while unread.len() < most
            && let Some(id) = self.heap.pop(now)
        {
            unread.extend(self.of(id).map(|slot| (id, slot.entry.name.clone())));
        }
        unread.iter().for_each(|(id, _)| self.heap.push(now, *id));
        unread
    }

    /// At most `most` entries that are off, each in its turn: they may have been resumed.
    pub fn resting(&mut self, most: usize) -> Vec<Unread> {
        let some = self.off.len().min(most);
        let slots: Vec<usize> = self.off.drain(..some).collect();
        let slots = slots.into_iter().filter_map(|slot| {
            let of = self.slots[slot].as_ref().filter(|of| of.phase == EntryPhase::Off)?;
            let id = EntryId { slot, generation: of.generation };
            Some((id, of.entry.name.clone()))
        });
        let unread: Vec<Unread> = slots.collect();
        self.off.extend(unread.iter().map(|(id, _)| id.slot));
        unread
    }

    /// Takes what the ledger has of an entry now. Returns whether the ledger has lost what it had.
    pub fn learn(&mut self, id: EntryId, text: Option<&str>, now: DateTime<Utc>) -> bool {
        let Some(slot) = self.of(id) else { return false };
        if matches!(slot.phase, EntryPhase::Claiming(_) | EntryPhase::Looking(_) | EntryPhase::New)
        {
            return false;
        }
        let Some(text) = text else { return slot.phase != EntryPhase::Off };
        let Ok(state) = EntryState::read(text) else { return false };
        let is_off = slot.phase == EntryPhase::Off;
        let is_known = slot.state.as_ref() == Some(&state) && !is_off;
        if !is_known && (!is_off || slot.allows(&state)) {
            self.adopt(id, state, Some(text), now);
        }
        false
    }

    /// This is what the ledger has: the entry continues from there.
    fn adopt(
        &mut self,
        id: EntryId,
        mut state: EntryState,
        text: Option<&str>,
        now: DateTime<Utc>,
    ) {
        let Some(slot) = self.slots.get_mut(id.slot).and_then(Option::as_mut) else { return };
        slot.raw = text.filter(|text| *text != state.text()).map(Into::into);
        if state.last - now > BEAT_BACK {
            // Other beats decide the same: they follow the same clock.
            slot.raw.get_or_insert_with(|| state.text().into());
            self.notes.push(Note::ClockSetBack(slot.entry.name.clone(), state.last));
            state.last = now;
        }
        let on = slot.allows(&state);
        let superseded = state.fingerprint != slot.fingerprint && state.gone.is_none();
        let due = slot.entry.next(state.last).filter(|_| on && slot.entry.enabled);
        slot.state = Some(state);
        slot.phase = due.map_or(EntryPhase::Off, EntryPhase::Due);
        match due {
            Some(due) => self.heap.push(slot.entry.sent_at(due), id),
            None if !on => {
                self.off.push(id.slot);
                if superseded {
                    self.notes.push(Note::Superseded(slot.entry.name.clone()));
                }
            }
            None => {}
        }
    }

    /// The clock was set back: entries that were put off are due by the new time, and states from a
    /// time that has not come yet count from now.
    pub fn set_back(&mut self, now: DateTime<Utc>) {
        self.heap.forget(|_| true);
        for slot in 0..self.slots.len() {
            let Some(of) = self.slots[slot].as_ref() else { continue };
            let id = EntryId { slot, generation: of.generation };
            match (&of.phase, &of.state) {
                (EntryPhase::Due(_), Some(state)) => {
                    let (state, raw) = (state.clone(), of.raw.clone());
                    self.adopt(id, state, raw.as_deref(), now);
                }
                (EntryPhase::Waiting(_), _) => self.heap.push(now, id),
                _ => {}
            }
        }
    }

    fn slot(&self, slot: usize) -> Option<&Slot> {
        self.slots.get(slot)?.as_ref()
    }

    fn of(&mut self, id: EntryId) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(id.slot)?.as_mut();
        slot.filter(|slot| slot.generation == id.generation)
    }
}

/// Whether an entry with this state would be due by now.
fn is_due(entry: &Entry, last: DateTime<Utc>, now: DateTime<Utc>) -> bool {
    entry.next(last).is_none_or(|due| due <= now)
}
