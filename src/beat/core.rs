//! What beat decides, without a clock and without a store: which entries are due, what becomes
//! of occurrences that were missed or overlap, and what the ledger is to be asked for.
//!
//! An entry of whom the ledger knows the state `last` is due at the first occurrence after
//! `last`. Whoever wants to send it asks the ledger to replace the state by one whose `last` is
//! that occurrence. One of any number of beats succeeds; the others learn the state, and go on
//! from there. So every state follows from the one before by the rules of this file and of
//! `missed`, whoever computes it.

pub use super::action::{Action, Claim, Key, Loaded, Note, Verdict};

use super::heap::Heap;
use super::missed::{gone, remedy};
use super::state::{Definition, State, since, task_id};
use crate::bounds::{BEAT_BACK, BEAT_GONE, BEAT_LATE, BEAT_LOOK_AGAIN};
use crate::schedule::Schedule;
use crate::schedule::entry::{Entry, Overlap};
use chrono::{DateTime, Utc};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// Where an entry is in its life.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Phase {
    /// Its state is not known yet.
    New,
    /// Nothing will be sent until the files or the ledger say otherwise.
    Off,
    /// In the heap, for this occurrence.
    Due(DateTime<Utc>),
    /// For this occurrence; the task of the one before is being looked up.
    Looking(DateTime<Utc>),
    /// For this occurrence; that task is not done.
    Waiting(DateTime<Utc>),
    /// The ledger is being asked for this state.
    Claiming(Box<State>),
}

/// An entry and what is known of it.
pub(super) struct Slot {
    pub(super) entry: Arc<Entry>,
    definition: Definition,
    /// What the ledger has.
    pub(super) state: Option<State>,
    /// Its text, where that is not what the state is written as.
    pub(super) raw: Option<Box<str>>,
    pub(super) phase: Phase,
    pub(super) turn: u32,
}

/// Every entry, and which of them is next.
#[derive(Default)]
pub struct Core {
    pub(super) slots: Vec<Option<Slot>>,
    free: Vec<usize>,
    by_name: HashMap<Arc<str>, usize>,
    heap: Heap,
    /// What happened, for the log.
    notes: Vec<(Arc<str>, Note)>,
    /// Entries that the last beat of this group has defined otherwise, paused or removed.
    off: Vec<usize>,
    /// How many intervals were begun, to keep them apart.
    begun: u32,
    /// How often an entry was defined.
    turns: u32,
    /// The ledger may have an older state than is known here, though nothing that was sent is
    /// lost: it is brought up to that. (A broker that went back has lost messages too.)
    leads: bool,
}

impl Core {
    /// Without entries; `leads`: the ledger may have older states than are known here, and is
    /// brought up to them.
    pub fn new(leads: bool) -> Core {
        Core { leads, ..Core::default() }
    }

    /// When something is to be done next.
    pub fn next(&self) -> Option<DateTime<Utc>> {
        self.heap.next()
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Is there no entry?
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// What happened since this was last asked.
    pub fn notes(&mut self) -> Vec<(Arc<str>, Note)> {
        std::mem::take(&mut self.notes)
    }

    /// Replaces all definitions. What is defined as before goes on as before.
    pub fn load(&mut self, entries: Vec<(Arc<Entry>, Definition)>, now: DateTime<Utc>) -> Loaded {
        let mut loaded = Loaded::default();
        let mut before = std::mem::take(&mut self.by_name);
        self.begun = 0;
        for (entry, definition) in entries {
            let name = entry.name.clone();
            let slot = before.remove(&name);
            let same = |slot: &usize| self.slot(*slot).is_some_and(|s| s.definition == definition);
            let slot = match slot.filter(same) {
                // Only the lines may have moved.
                Some(slot) => {
                    if let Some(known) = &mut self.slots[slot] {
                        known.entry = entry;
                    }
                    self.by_name.insert(name, slot);
                    continue;
                }
                None => slot.unwrap_or_else(|| self.free.pop().unwrap_or(self.slots.len())),
            };
            self.turns += 1;
            let (turn, phase) = (self.turns, Phase::New);
            let new = Slot { entry, definition, state: None, raw: None, phase, turn };
            match self.slots.get_mut(slot) {
                Some(place) => *place = Some(new),
                None => self.slots.push(Some(new)),
            }
            loaded.unknown.push((Key { slot, turn }, name.clone()));
            self.by_name.insert(name, slot);
        }
        for (name, slot) in before {
            if let Some(Slot { state: Some(state), raw, .. }) = self.slots[slot].take() {
                let expected = raw.map_or_else(|| state.text(), Into::into);
                loaded.claims.extend(gone(&name, Some(state), expected, now));
            }
        }
        // A number that is free belongs to no heap entry: those have a turn of their own.
        self.heap.forget(|slot| self.slots[slot].is_none());
        self.free = (0..self.slots.len()).filter(|slot| self.slots[*slot].is_none()).collect();
        self.off.retain(|slot| self.slots[*slot].is_some());
        loaded
    }

    /// What the ledger has of an entry that was loaded; says what it is to have.
    pub fn register(&mut self, key: Key, text: Option<&str>, now: DateTime<Utc>) -> Option<Claim> {
        let slot = self.of(key)?;
        let (entry, definition) = (slot.entry.clone(), slot.definition);
        let known = match text.map(State::read) {
            None => None,
            Some(Ok(state)) => Some(state),
            Some(Err(why)) => {
                self.notes.push((entry.name.clone(), Note::Damaged(why)));
                None
            }
        };
        let returns = |state: &State| state.gone.is_none_or(|gone| now - gone < BEAT_GONE);
        let state = match known.clone().filter(returns) {
            Some(mut state) => {
                if state.definition.when != definition.when && is_due(&entry, state.last, now) {
                    // What the new definition would have sent before it was one is not missed.
                    state.last = now;
                }
                State { definition, gone: None, ..state }
            }
            None => {
                let last = self.begin(&entry, now);
                State::new(definition, last)
            }
        };
        if known.as_ref() == Some(&state) {
            self.adopt(key, state, text, now);
            return None;
        }
        let slot = self.of(key)?;
        slot.phase = Phase::Claiming(Box::new(state.clone()));
        Some(Claim {
            key: Some(key),
            name: entry.name.clone(),
            entry: Some(entry),
            expected: text.map(Into::into),
            text: Some(state.text()),
            sends: Vec::new(),
            missed: None,
        })
    }

    /// Since when an entry that nobody knew is in force. Intervals that begin at once are set a
    /// millisecond apart, so that ten thousand of them are not due in the same instant.
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

    /// An entry of the ledger that no file defines: what it is to have.
    pub fn stale(&self, name: &str, text: &str, now: DateTime<Utc>) -> Option<Claim> {
        if self.by_name.contains_key(name) {
            return None;
        }
        gone(name, State::read(text).ok(), text.into(), now)
    }

    /// What is to be done now with what was due by `by`, `most` actions at the most.
    pub fn due(&mut self, by: DateTime<Utc>, now: DateTime<Utc>, most: usize) -> Vec<Action> {
        let mut actions = Vec::new();
        while actions.len() < most
            && let Some((slot, turn)) = self.heap.pop(by)
        {
            let key = Key { slot, turn };
            let Some(slot) = self.of(key) else { continue };
            let (due, waits) = match slot.phase {
                Phase::Due(due) => (due, false),
                Phase::Waiting(due) => (due, true),
                _ => continue,
            };
            if slot.entry.sent_at(due) > now {
                // What was pushed for an occurrence before.
                continue;
            }
            let Some(state) = slot.state.clone() else { continue };
            let entry = slot.entry.clone();
            let asks = entry.overlap != Overlap::Allow && state.id.is_some();
            if asks || waits {
                slot.phase = Phase::Looking(due);
                actions.push(Action::Look { key, entry, state });
            } else {
                actions.extend(self.send(key, due, now).map(Action::Claim));
            }
        }
        actions
    }

    /// Is the task of [`Action::Look`] done?
    pub fn looked(&mut self, key: Key, done: bool, now: DateTime<Utc>) -> Option<Claim> {
        let slot = self.of(key)?;
        let Phase::Looking(due) = slot.phase else { return None };
        match slot.entry.overlap {
            _ if done => self.send(key, due, now),
            Overlap::Queue => {
                slot.phase = Phase::Waiting(due);
                self.heap.push(now + BEAT_LOOK_AGAIN, key.slot, key.turn);
                None
            }
            _ => {
                let last = slot.entry.latest(slot.state.as_ref()?.last, now).unwrap_or(due);
                let name = slot.entry.name.clone();
                self.notes.push((name, Note::Overlap(due)));
                self.claim(key, last.max(due), Vec::new(), now)
            }
        }
    }

    /// The task could not be looked up: look again then.
    pub fn look_again(&mut self, key: Key, at: DateTime<Utc>) {
        let Some(slot) = self.of(key) else { return };
        if let Phase::Looking(due) = slot.phase {
            slot.phase = Phase::Waiting(due);
            self.heap.push(at, key.slot, key.turn);
        }
    }

    /// Claims the occurrence `due`, or what is to be sent in its place if it was missed.
    fn send(&mut self, key: Key, due: DateTime<Utc>, now: DateTime<Utc>) -> Option<Claim> {
        let slot = self.of(key)?;
        let entry = slot.entry.clone();
        let last = slot.state.as_ref()?.last;
        let is_late = now - entry.sent_at(due) > BEAT_LATE && entry.schedule != Schedule::Reboot;
        if !is_late {
            return self.claim(key, due, vec![due], now);
        }
        let latest = entry.latest(last, now).unwrap_or(due).max(due);
        let mut sends = remedy(&entry, last, latest, now);
        let mut to = latest;
        match entry.overlap {
            // One after the other: the rest is looked at again when the first of them is done.
            Overlap::Queue if sends.len() > 1 => {
                to = sends[0];
                sends.truncate(1);
            }
            Overlap::Skip => sends.drain(..sends.len().saturating_sub(1)).for_each(drop),
            _ => {}
        }
        let claim = self.claim(key, to, sends, now)?;
        Some(Claim { missed: Some(due), ..claim })
    }

    fn claim(
        &mut self,
        key: Key,
        last: DateTime<Utc>,
        sends: Vec<DateTime<Utc>>,
        now: DateTime<Utc>,
    ) -> Option<Claim> {
        let slot = self.of(key)?;
        let known = slot.state.as_ref()?;
        let mut state = State { last, ..known.clone() };
        if let Some(due) = sends.last() {
            state.total += sends.len() as u64;
            state.ran = Some(now);
            state.id = Some(task_id(&slot.entry, *due));
        }
        let expected = match &slot.raw {
            Some(raw) => raw.to_string(),
            None => known.text(),
        };
        slot.phase = Phase::Claiming(Box::new(state.clone()));
        Some(Claim {
            key: Some(key),
            name: slot.entry.name.clone(),
            entry: Some(slot.entry.clone()),
            expected: Some(expected),
            text: Some(state.text()),
            sends,
            missed: None,
        })
    }

    /// What has become of the claim of an entry. `true`: another beat was quicker.
    pub fn claimed(&mut self, key: Key, verdict: Verdict, now: DateTime<Utc>) -> bool {
        let leads = self.leads;
        let Some(slot) = self.of(key) else { return false };
        let Phase::Claiming(wanted) = &slot.phase else { return false };
        let wanted = (**wanted).clone();
        match verdict {
            Verdict::Done => self.adopt(key, wanted, None, now),
            // An earlier try, whose answer was lost.
            Verdict::Conflict(Some(text)) if text == wanted.text() => {
                self.adopt(key, wanted, None, now);
            }
            Verdict::Conflict(Some(text)) => {
                let known = slot.state.clone();
                match State::read(&text) {
                    Ok(state) => {
                        let behind = |known: &State| {
                            leads && known.last > state.last && known.is_like(&state)
                        };
                        if let Some(known) = known.clone().filter(behind) {
                            self.adopt(key, known, Some(&text), now);
                            return false;
                        }
                        let quicker = known.is_some_and(|known| known.last < state.last);
                        self.adopt(key, state, Some(&text), now);
                        return quicker;
                    }
                    Err(why) => {
                        let (name, state) = (slot.entry.name.clone(), slot.state.clone());
                        self.notes.push((name, Note::Damaged(why)));
                        // What is known here takes its place.
                        let state = state.unwrap_or(wanted);
                        self.adopt(key, state, Some(&text), now);
                    }
                }
            }
            Verdict::Conflict(None) => {
                slot.phase = Phase::Off;
                self.off.push(key.slot);
            }
            Verdict::Failed(again) => match &slot.state {
                // To be registered again.
                None => slot.phase = Phase::New,
                Some(state) => {
                    let due = slot.entry.next(state.last);
                    slot.phase = due.map_or(Phase::Off, Phase::Due);
                    if due.is_some() {
                        self.heap.push(again, key.slot, key.turn);
                    }
                }
            },
        }
        false
    }

    /// Entries that are due by `now`, `most` at once, to be learned from another beat that is
    /// quicker. They stay due.
    pub fn soon(&mut self, now: DateTime<Utc>, most: usize) -> Vec<(Key, Arc<str>)> {
        let mut keys = Vec::new();
        while keys.len() < most
            && let Some((slot, turn)) = self.heap.pop(now)
        {
            let key = Key { slot, turn };
            if let Some(slot) = self.of(key) {
                keys.push((key, slot.entry.name.clone()));
            }
        }
        // They stay due: what is learned moves them.
        keys.iter().for_each(|(key, _)| self.heap.push(now, key.slot, key.turn));
        keys
    }

    /// Entries that are off and may not stay so; each is named in its turn, `most` at once.
    pub fn resting(&mut self, most: usize) -> Vec<(Key, Arc<str>)> {
        let some = self.off.len().min(most);
        let slots: Vec<usize> = self.off.drain(..some).collect();
        let slots = slots.into_iter().filter_map(|slot| {
            let of = self.slots[slot].as_ref().filter(|of| of.phase == Phase::Off)?;
            Some((slot, of.turn, of.entry.name.clone()))
        });
        let slots: Vec<_> = slots.collect();
        self.off.extend(slots.iter().map(|(slot, ..)| *slot));
        slots.into_iter().map(|(slot, turn, name)| (Key { slot, turn }, name)).collect()
    }

    /// What the ledger has of an entry now. `true`: it has lost what it had.
    pub fn learn(&mut self, key: Key, text: Option<&str>, now: DateTime<Utc>) -> bool {
        let Some(slot) = self.of(key) else { return false };
        if matches!(slot.phase, Phase::Claiming(_) | Phase::Looking(_) | Phase::New) {
            return false;
        }
        let Some(text) = text else { return slot.phase != Phase::Off };
        let Ok(state) = State::read(text) else { return false };
        if slot.state.as_ref() == Some(&state) && slot.phase != Phase::Off {
            return false;
        }
        if slot.phase == Phase::Off && !is_on(&state, slot.definition) {
            return false;
        }
        self.adopt(key, state, Some(text), now);
        false
    }

    /// This is what the ledger has: the entry goes on from there.
    fn adopt(&mut self, key: Key, state: State, text: Option<&str>, now: DateTime<Utc>) {
        let Some(slot) = self.of(key) else { return };
        let mut state = state;
        slot.raw = text.filter(|text| *text != state.text()).map(Into::into);
        if state.last - now > BEAT_BACK {
            // As the others see it too: they ask the same clock.
            let name = slot.entry.name.clone();
            let from = state.last;
            slot.raw.get_or_insert_with(|| state.text().into());
            state.last = now;
            self.notes.push((name, Note::ClockSetBack(from)));
        }
        let Some(slot) = self.of(key) else { return };
        let on = is_on(&state, slot.definition);
        let superseded = state.definition != slot.definition && state.gone.is_none();
        let due = slot.entry.next(state.last).filter(|_| on && slot.entry.enabled);
        slot.state = Some(state);
        slot.phase = due.map_or(Phase::Off, Phase::Due);
        let name = slot.entry.name.clone();
        match due {
            Some(due) => {
                let at = slot.entry.sent_at(due);
                self.heap.push(at, key.slot, key.turn);
            }
            None if !on => {
                self.off.push(key.slot);
                if superseded {
                    self.notes.push((name, Note::Superseded));
                }
            }
            None => {}
        }
    }

    /// The clock shows less than it did: what was put off until then is due by the new time, and
    /// states from a time that has not come yet count from now.
    pub fn set_back(&mut self, now: DateTime<Utc>) {
        self.heap.forget(|_| true);
        for slot in 0..self.slots.len() {
            let Some(of) = self.slots[slot].as_ref() else { continue };
            let key = Key { slot, turn: of.turn };
            match (&of.phase, &of.state) {
                (Phase::Due(_), Some(state)) => {
                    let (state, raw) = (state.clone(), of.raw.clone());
                    self.adopt(key, state, raw.as_deref(), now);
                }
                (Phase::Waiting(_), _) => self.heap.push(now, slot, key.turn),
                _ => {}
            }
        }
    }

    fn slot(&self, slot: usize) -> Option<&Slot> {
        self.slots.get(slot)?.as_ref()
    }

    fn of(&mut self, key: Key) -> Option<&mut Slot> {
        self.slots.get_mut(key.slot)?.as_mut().filter(|slot| slot.turn == key.turn)
    }
}

/// May an entry of this definition be sent from here?
fn is_on(state: &State, definition: Definition) -> bool {
    !state.paused && state.gone.is_none() && state.definition == definition
}

/// Would an entry with this state be due by now?
fn is_due(entry: &Entry, last: DateTime<Utc>, now: DateTime<Utc>) -> bool {
    entry.next(last).is_none_or(|due| due <= now)
}
