//! Decisions: everything that a beat decides, without a clock, a ledger or a log. [`Core::on`] takes
//! what happened and returns what has to be done; [`Core::wake`] says when to come back.

mod clock;
pub mod entries;
mod heap;
mod loading;
mod missed;
mod pace;
mod recovery;
mod slot;

use super::claim::{Claim, ClaimResult, DueAction, EntryId, Unread};
use super::event::{Effect, Event, MarkCheck, Note, Now, StoreRequest};
use super::state::{EntryState, Fingerprinted};
use super::{Destination, Plan, Router};
use crate::bounds::{BEAT_BATCH, BEAT_GATHER, BEAT_LAG, BEAT_REFUSED};
use crate::broker::Error;
use crate::broker::ledger::{StepOutcome, StepResponse};
use crate::schedule::entry::Entry;
use chrono::{DateTime, TimeDelta, Utc};
use clock::Clock;
use entries::Entries;
use loading::Loading;
use pace::{Pace, Tally};
pub use recovery::MARK;
use recovery::{Recovery, Trust, mark};
use std::time::Duration;

/// Where a beat is in its life.
enum Stage {
    /// No definitions were read yet.
    Starting,
    /// Definitions are on their way into force; nothing else is done.
    Loading(Loading),
    /// What is due is sent.
    Running,
}

/// A beat.
pub struct Core {
    max_interval: Duration,
    result_expires: Option<TimeDelta>,
    /// The ledger says itself when it has lost its values.
    disposable: bool,
    stage: Stage,
    entries: Entries,
    clock: Clock,
    pace: Pace,
    trust: Trust,
    router: Router,
    /// Definitions that come into force when all requests are answered.
    read: Option<(Fingerprinted, Router)>,
    /// How many messages were sent.
    sent: u64,
    /// The time of the event that is being handled, and what has to be done about it.
    at: Now,
    out: Vec<Effect>,
}

impl Core {
    /// A beat without definitions. `disposable`: see
    /// [`crate::broker::ledger::Ledger::is_disposable`].
    pub fn new(plan: &Plan, disposable: bool, at: Now) -> Core {
        Core {
            max_interval: plan.max_interval,
            result_expires: plan.result_expires.and_then(|kept| TimeDelta::from_std(kept).ok()),
            disposable,
            entries: Entries::new(disposable),
            stage: Stage::Starting,
            clock: Clock::new(at),
            pace: Pace::default(),
            trust: Trust::default(),
            router: Box::new(|_| Destination::default()),
            read: None,
            sent: 0,
            at,
            out: Vec::new(),
        }
    }

    /// Whether definitions are on their way into force.
    pub fn is_loading(&self) -> bool {
        matches!(self.stage, Stage::Loading(_))
    }

    /// When [`Event::Due`] is, by this host's clock; `None`: not before something else happens.
    pub fn wake(&self, at: Now) -> Option<DateTime<Utc>> {
        let now = self.clock.now(at);
        let time = match &self.stage {
            Stage::Starting => return None,
            Stage::Loading(Loading { retry: None, .. }) => return None,
            Stage::Loading(_) => self.pace.retry_at().unwrap_or(now),
            Stage::Running if self.read.is_some() || !self.pace.has_room() => return None,
            // The mark is checked while nothing else is under way.
            Stage::Running if !self.is_sure() && self.pace.in_flight > 0 => return None,
            Stage::Running => {
                let longest = now + self.max_interval;
                let next = self.entries.next().map(|next| next + self.pace.lag());
                let next = match self.trust.check_after() {
                    _ if self.clock.is_unsure() => self.pace.asked,
                    Some(after) => self.pace.asked + after,
                    None => next.map_or(longest, |next| next.min(longest)),
                };
                // What is due a moment later is sent along.
                let next = next.max(self.pace.asked + BEAT_GATHER);
                self.pace.retry_at().map_or(next, |retry| next.max(retry))
            }
        };
        Some(self.clock.local(time))
    }

    /// Takes what happened, and adds what has to be done.
    pub fn on(&mut self, event: Event, at: Now, effects: &mut Vec<Effect>) {
        self.at = at;
        self.clock.watch(at);
        match event {
            Event::Due => self.due(),
            Event::Tick => self.follow_clock(),
            Event::Look => self.look(),
            Event::Defined(entries, router) => self.read = Some((entries, router)),
            Event::Explain => self.out.push(Effect::Log(self.status())),
            answer => {
                self.pace.in_flight -= 1;
                self.answer(answer);
            }
        }
        if self.pace.in_flight == 0
            && !self.is_loading()
            && let Some((entries, router)) = self.read.take()
        {
            self.load(entries, router);
        }
        effects.append(&mut self.out);
    }

    /// The time of the event.
    fn now(&self) -> DateTime<Utc> {
        self.clock.now(self.at)
    }

    /// Takes an answer.
    fn answer(&mut self, answer: Event) {
        match answer {
            Event::Listed(Ok(values)) => {
                self.answered();
                if let Stage::Loading(loading) = &mut self.stage {
                    loading.learn(values);
                }
                self.load_on();
            }
            Event::Listed(Err(error)) => self.failed(&error, StoreRequest::List),
            Event::Read(names, Ok(texts)) => {
                self.answered();
                self.learn(names, texts);
            }
            Event::Read(names, Err(error)) => self.failed(&error, StoreRequest::Read(names)),
            Event::Committed(claims, Ok(answer), asked) => {
                self.answered();
                if !self.clock.is_unsure() {
                    self.compare(answer.clock, asked, self.at.wall);
                }
                self.settle(claims, answer);
                self.load_on();
            }
            Event::Committed(claims, Err(error), _) => {
                let (until, now) = (None, self.now());
                self.failed(&error, StoreRequest::Commit { claims, until, now });
            }
            // It is measured again.
            Event::MarkChecked(Ok(_)) if !self.clock.is_steady() => self.load_on(),
            Event::MarkChecked(Ok(check)) => self.mark_checked(&check),
            Event::MarkChecked(Err(error)) => self.failed(&error, StoreRequest::CheckMark),
            Event::Tended(Err(error)) => self.failed(&error, StoreRequest::Tend),
            Event::LookedUp(id, done) => self.looked_up(id, done),
            _ => {}
        }
    }

    fn ask(&mut self, request: StoreRequest) {
        if matches!(request, StoreRequest::CheckMark) {
            self.clock.measure();
        }
        self.pace.in_flight += 1;
        self.out.push(Effect::Ask(request));
    }

    fn log_notes(&mut self) {
        self.out.extend(self.entries.notes().into_iter().map(Effect::Log));
    }

    fn status(&self) -> Note {
        Note::Status {
            entries: self.entries.len(),
            sent: self.sent,
            next: self.entries.next(),
            follows: self.pace.follows(),
            outage: self.pace.is_out(),
        }
    }

    // Definitions

    fn load(&mut self, entries: Fingerprinted, router: Router) {
        let first = self.entries.is_empty();
        self.router = router;
        let loaded = self.entries.load(entries, self.now());
        self.stage = Stage::Loading(Loading::new(first, loaded));
        self.load_on();
    }

    /// The next step of loading, if definitions are being loaded.
    fn load_on(&mut self) {
        let now = self.now();
        let Stage::Loading(loading) = &mut self.stage else { return };
        if self.clock.is_unsure() {
            // By a wrong clock, states would be from a time that has not come yet.
            return self.ask(StoreRequest::CheckMark);
        }
        let next = loading.next(&mut self.entries, now);
        self.log_notes();
        if let Some(request) = next {
            return self.ask(request);
        }
        self.stage = Stage::Running;
        self.pace.lead();
        let loaded = Effect::Log(Note::Loaded(self.entries.len()));
        self.out.extend([Effect::Loaded, loaded, Effect::Ready]);
    }

    // What is due

    fn due(&mut self) {
        if let Stage::Loading(loading) = &mut self.stage {
            if let Some(request) = loading.retry.take() {
                self.ask(request);
            }
            return;
        }
        self.follow_clock();
        let now = self.now();
        self.pace.asked = now;
        if !self.is_sure() {
            self.ask(StoreRequest::CheckMark);
        } else if self.pace.follows() {
            let left = self.entries.soon(now - BEAT_LAG, self.pace.batch());
            if !left.is_empty() {
                self.ask(StoreRequest::Read(left));
            }
        } else {
            self.send(now, self.pace.batch());
        }
    }

    /// Whether entries may be claimed before the ledger's mark is checked.
    fn is_sure(&self) -> bool {
        self.trust == Trust::Sure && !self.clock.is_unsure()
    }

    /// Claims what was due by `by`, at most `most` entries.
    fn send(&mut self, by: DateTime<Utc>, most: usize) {
        let now = self.now();
        let mut claims = Vec::new();
        for action in self.entries.due(by, now, most) {
            match action {
                DueAction::Claim(claim) => claims.push(claim),
                DueAction::LookUp { id, entry, state } => {
                    claims.extend(self.look_up(id, &entry, &state, now));
                }
            }
        }
        self.log_notes();
        self.commit(claims);
    }

    fn commit(&mut self, mut claims: Vec<Claim>) {
        let now = self.now();
        let until = Some(self.pace.until(now));
        for claim in claims.iter_mut().filter(|claim| !claim.sends.is_empty()) {
            claim.to = claim.entry.as_ref().map(|entry| (self.router)(entry)).unwrap_or_default();
        }
        while !claims.is_empty() {
            let rest = claims.split_off(claims.len().min(BEAT_BATCH));
            let claims = std::mem::replace(&mut claims, rest);
            self.ask(StoreRequest::Commit { claims, until, now });
        }
    }

    /// Asks whether the entry's last task is done. Returns its claim if that is known.
    fn look_up(
        &mut self,
        id: EntryId,
        entry: &Entry,
        state: &EntryState,
        now: DateTime<Utc>,
    ) -> Option<Claim> {
        let age = state.ran.map(|ran| now - ran);
        if age.zip(self.result_expires).is_some_and(|(age, kept)| age > kept) {
            // Its result would be forgotten by now.
            return self.entries.looked_up(id, true, now);
        }
        let task_id = state.id?.to_string();
        let ours = (self.router)(entry).task.is_some();
        self.ask(StoreRequest::LookUp { id, task_id, ours });
        None
    }

    fn looked_up(&mut self, id: EntryId, done: Result<bool, Error>) {
        match done {
            Ok(done) => {
                let claim = self.entries.looked_up(id, done, self.now());
                self.log_notes();
                self.commit(claim.into_iter().collect());
            }
            Err(error) => {
                let again = self.outage(&error);
                self.entries.look_up_again(id, again);
            }
        }
    }

    /// What became of claims.
    fn settle(&mut self, claims: Vec<Claim>, answer: StepResponse) {
        let now = self.now();
        let mut tally = Tally::default();
        for (claim, outcome) in claims.into_iter().zip(answer.outcomes) {
            let Some(id) = claim.id else { continue };
            let result = match outcome {
                StepOutcome::Done => {
                    tally.done += 1;
                    self.sent += claim.sends.len() as u64;
                    if !claim.sends.is_empty() || claim.missed.is_some() {
                        self.out.push(Effect::Log(Note::Sent(Box::new(claim))));
                    }
                    ClaimResult::Done
                }
                StepOutcome::Late => {
                    tally.late += 1;
                    ClaimResult::Retry(now)
                }
                StepOutcome::Conflict(text) => {
                    if text.is_none() {
                        self.trust.doubt();
                    }
                    ClaimResult::Conflict(text)
                }
                StepOutcome::Refused(why) => {
                    let again = now + BEAT_REFUSED;
                    self.out.push(Effect::Log(Note::Refused(claim.name, why, again)));
                    ClaimResult::Retry(again)
                }
            };
            tally.beaten += usize::from(self.entries.claimed(id, result, now));
        }
        self.pace.judge(&tally);
        self.log_notes();
    }

    // The ledger

    /// Checks whether the ledger has lost anything, and whether entries were resumed.
    fn look(&mut self) {
        self.follow_clock();
        if !matches!(self.stage, Stage::Running) || self.read.is_some() {
            return;
        }
        if self.pace.in_flight == 0 {
            // A loss is noticed before anything is due.
            self.ask(StoreRequest::CheckMark);
        }
        self.ask(StoreRequest::Tend);
        if !self.pace.is_out() {
            self.read_resting();
        }
    }

    fn read_resting(&mut self) {
        let resting = self.entries.resting(BEAT_BATCH);
        if !resting.is_empty() {
            self.ask(StoreRequest::Read(resting));
        }
    }

    /// What the ledger has of these entries.
    fn learn(&mut self, names: Vec<Unread>, texts: Vec<Option<String>>) {
        let known = names.into_iter().zip(texts);
        if let Stage::Loading(loading) = &mut self.stage {
            loading.learn(known.filter_map(|((_, name), text)| Some((name.to_string(), text?))));
            return self.load_on();
        }
        let now = self.now();
        for ((id, _), text) in known {
            if self.entries.learn(id, text.as_deref(), now) {
                self.trust.doubt();
            }
        }
        self.log_notes();
        if self.pace.follows() && self.is_sure() {
            // What the others have left.
            self.send(now - BEAT_LAG, BEAT_BATCH);
        }
    }

    fn mark_checked(&mut self, check: &MarkCheck) {
        self.answered();
        self.compare(check.clock, check.asked, check.answered);
        if self.is_loading() {
            return self.load_on();
        }
        self.follow_clock();
        let now = self.now();
        match self.trust.checked(check.present, self.pace.follows(), now) {
            Recovery::None => {}
            Recovery::ReadAgain => self.read_resting(),
            Recovery::Restore => {
                // A state file says itself that it was lost.
                if !self.disposable {
                    self.out.push(Effect::Log(Note::Lost));
                }
                let mut claims = self.entries.restore();
                claims.push(mark(now));
                self.commit(claims);
            }
        }
    }

    fn answered(&mut self) {
        if self.pace.answered() {
            self.out.push(Effect::Log(Note::Reachable));
        }
    }

    /// This request was not answered.
    fn failed(&mut self, error: &Error, request: StoreRequest) {
        let again = self.outage(error);
        if let Stage::Loading(loading) = &mut self.stage {
            loading.retry = Some(request);
            // A broker that does not answer is no reason not to start.
            self.out.push(Effect::Ready);
        } else if let StoreRequest::Commit { claims, .. } = request {
            let now = self.now();
            for id in claims.iter().filter_map(|claim| claim.id) {
                self.entries.claimed(id, ClaimResult::Retry(again), now);
            }
        }
    }

    /// The ledger does not answer; returns when to ask again.
    fn outage(&mut self, error: &Error) -> DateTime<Utc> {
        let (again, begins) = self.pace.failed(self.now());
        if begins {
            self.out.push(Effect::Log(Note::Unreachable(error.clone())));
        }
        again
    }

    // The clock

    /// The ledger's clock showed `theirs` between two instants of this host's clock.
    fn compare(&mut self, theirs: DateTime<Utc>, asked: DateTime<Utc>, answered: DateTime<Utc>) {
        if let Some(skew) = self.clock.compare(theirs, asked, answered) {
            self.out.push(Effect::Log(Note::Skew(skew.num_milliseconds() as f64 / 1000.0)));
        }
    }

    /// Forgets the times that a clock which was wrong has put off.
    fn follow_clock(&mut self) {
        if !self.clock.went_back(self.at) {
            return;
        }
        let now = self.now();
        self.pace.set_back(now);
        self.trust.set_back(now);
        self.entries.set_back(now);
        self.log_notes();
    }
}
