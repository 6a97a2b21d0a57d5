//! Does what [`super::core`] decides: asks the ledger, reads definitions again, waits for what
//! is next.

use super::action::{Action, Claim, Key, Verdict};
use super::core::Core;
use super::flight::{Flown, Mark, is_done, step};
use super::register::MARK;
use super::shelf::{Read, Shelf};
use super::skew::Clock;
use super::state::State;
use super::tell::refused;
use super::{Address, Definitions};
use crate::backend::Store;
use crate::bounds::{BEAT_BATCH, BEAT_FLIGHTS, BEAT_GATHER, BEAT_LAG, BEAT_LATE, BEAT_PAUSE_MAX};
use crate::broker::Broker;
use crate::broker::ledger::{Ledger, Outcome};
use crate::client::send::Sender;
use crate::clock;
use crate::os::alarm::Alarm;
use crate::schedule::entry::Entry;
use chrono::{DateTime, TimeDelta, Utc};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::{JoinError, JoinSet};
use tokio::time::MissedTickBehavior;

/// So often whoever watches is told that all is well, and the clock is looked at.
const TICK: Duration = Duration::from_secs(1);

/// How often the time doubles that is given to a ledger which gets everything too late.
const LATE_MAX: u8 = 4;

/// Everything decided before the start.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The host's name, for the origin of messages.
    pub host: String,
    /// So often definitions, the ledger, and entries that are off are looked at.
    pub max_interval: Duration,
    /// How long the result of a task is kept; one that has none by then is done.
    pub result_expires: Option<Duration>,
    /// How long an answer of the broker is waited for.
    pub patience: Duration,
}

/// What a beat works with.
pub struct Doors {
    /// Where entries are claimed.
    pub ledger: Ledger,
    /// Where messages go.
    pub broker: Broker,
    /// Where results are.
    pub store: Store,
    /// The schedule.
    pub definitions: Box<dyn Definitions>,
    /// What the outside wants.
    pub orders: UnboundedReceiver<Order>,
    /// Called every second.
    pub alive: Box<dyn Fn()>,
}

/// What the outside wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// End.
    Stop,
    /// Read the definitions again.
    Reload,
    /// Say what is being done.
    Explain,
}

/// A beat at work.
pub(super) struct Beat {
    pub(super) plan: Plan,
    pub(super) ledger: Ledger,
    broker: Broker,
    store: Store,
    pub(super) core: Core,
    pub(super) clock: Clock,
    sender: Sender,
    pub(super) address: Box<dyn Fn(&Entry) -> Address + Send>,
    flight: JoinSet<Flown>,
    /// Another beat was quicker: it goes ahead.
    pub(super) lags: bool,
    /// So often in a row the ledger has got what was asked for too late.
    late: u8,
    /// The ledger does not answer; the pause before it is asked again, and until when.
    pub(super) outage: Option<(Duration, DateTime<Utc>)>,
    /// When something was asked for last.
    asked: DateTime<Utc>,
    /// The ledger has none of what it should have: it may have lost everything.
    pub(super) doubts: bool,
    /// Since when its mark is known to be lost.
    pub(super) lost: Option<DateTime<Utc>>,
    /// The host's clock was set: ask for the broker's before anything is sent.
    unsure: bool,
    /// How many messages were sent.
    pub(super) sent: u64,
}

/// Sends what is due until it is told to stop. `ready` is called once: when everything is in
/// place, or when the broker does not answer, which is no reason not to start.
pub async fn run(plan: Plan, doors: Doors, ready: impl FnOnce()) {
    let Doors { ledger, broker, store, mut definitions, mut orders, alive } = doors;
    let alarm = match Alarm::new() {
        Ok(alarm) => alarm,
        Err(error) => return tracing::error!("beat: no timer: {error}"),
    };
    let mut beat = Beat::new(plan, ledger, broker, store);
    let mut ready = Some(ready);
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut look = tokio::time::interval(beat.plan.max_interval);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let read = Read::from(&mut *definitions);
    let definitions = Some(definitions);
    let mut shelf = Shelf { definitions, reading: None, stale: false, read };
    loop {
        if let Some(read) = shelf.read.take_if(|_| beat.flight.is_empty()) {
            let loaded = beat.load(read, &mut ready);
            tokio::pin!(loaded);
            loop {
                tokio::select! {
                    biased;
                    () = stopped(&mut orders) => return,
                    () = &mut loaded => break,
                    _ = tick.tick() => alive(),
                }
            }
        }
        shelf.begin();
        let wake = beat.wake();
        let may_ask = shelf.read.is_none() && beat.flight.len() < BEAT_FLIGHTS;
        tokio::select! {
            biased;
            order = orders.recv() => match order {
                Some(Order::Stop) | None => break,
                Some(Order::Reload) => shelf.stale = true,
                Some(Order::Explain) => beat.explain(),
            },
            Some(flown) = beat.flight.join_next() => beat.landed(flown),
            () = shelf.done() => {}
            _ = tick.tick() => {
                alive();
                beat.follow_clock(beat.clock.now());
            }
            _ = look.tick() => {
                shelf.look();
                beat.tick();
            }
            _ = alarm.ring_at(wake), if may_ask => beat.round(),
        }
    }
    // What was asked for is done or not, whether we wait or not; but the log should say it.
    let answers = async {
        while let Some(flown) = beat.flight.join_next().await {
            beat.landed(flown);
        }
    };
    let _ = tokio::time::timeout(BEAT_PAUSE_MAX, answers).await;
}

/// Resolves when there is an order to stop; others do not matter yet.
async fn stopped(orders: &mut UnboundedReceiver<Order>) {
    while !matches!(orders.recv().await, Some(Order::Stop) | None) {}
}

impl Beat {
    fn new(plan: Plan, ledger: Ledger, broker: Broker, store: Store) -> Beat {
        // Only there a state can be older than what was sent.
        let leads = matches!(ledger, Ledger::Apart(_));
        Beat {
            sender: Sender::new(&plan.host),
            plan,
            ledger,
            broker,
            store,
            core: Core::new(leads),
            clock: Clock::new(),
            address: Box::new(|_| Address::default()),
            flight: JoinSet::new(),
            lags: false,
            late: 0,
            outage: None,
            asked: DateTime::UNIX_EPOCH,
            doubts: false,
            lost: None,
            unsure: true,
            sent: 0,
        }
    }

    /// When the next round is, by this host's clock, since the epoch.
    fn wake(&self) -> Duration {
        let now = self.clock.now();
        let lag = if self.lags { BEAT_LAG } else { TimeDelta::zero() };
        let longest = now + self.plan.max_interval;
        let mut at = self.core.next().map_or(longest, |next| (next + lag).min(longest));
        if self.doubts {
            at = self.asked + self.lost.map_or(TimeDelta::zero(), |_| BEAT_LAG);
        }
        // What is due a moment later goes along.
        at = at.max(self.asked + BEAT_GATHER);
        if let Some((_, until)) = self.outage {
            at = at.max(until);
        }
        let since_epoch = self.clock.local(at).signed_duration_since(DateTime::UNIX_EPOCH);
        since_epoch.to_std().unwrap_or_default()
    }

    /// Instants that were reckoned by a clock which was wrong are none to wait for.
    fn follow_clock(&mut self, now: DateTime<Utc>) {
        if !self.clock.went_back() {
            return;
        }
        self.asked = self.asked.min(now);
        self.lost = self.lost.map(|lost| lost.min(now));
        self.outage = self.outage.map(|(pause, until)| (pause, until.min(now + pause)));
        self.core.set_back(now);
        self.tell();
    }

    /// Asks for what is due.
    fn round(&mut self) {
        let now = self.clock.now();
        self.follow_clock(now);
        self.unsure |= self.clock.was_set();
        self.asked = now;
        if self.doubts || self.unsure {
            // One question, before anything else is under way.
            if self.flight.is_empty() {
                self.ask_for_mark();
            }
            return;
        }
        // While nobody answers, one claim is enough to find out.
        let most = if self.outage.is_some() { 1 } else { BEAT_BATCH };
        if self.lags {
            let left = self.core.soon(now - BEAT_LAG, most);
            if !left.is_empty() {
                self.learn(left);
            }
            return;
        }
        self.send(now, now, most);
    }

    /// Claims what was due by `by`.
    fn send(&mut self, by: DateTime<Utc>, now: DateTime<Utc>, most: usize) {
        let mut claims = Vec::new();
        for action in self.core.due(by, now, most) {
            match action {
                Action::Claim(claim) => claims.push(claim),
                Action::Look { key, entry, state } => self.look(key, &entry, &state),
            }
        }
        self.tell();
        if !claims.is_empty() {
            self.commit(claims);
        }
    }

    /// Sends these claims to the ledger.
    fn commit(&mut self, claims: Vec<Claim>) {
        let now = self.clock.now();
        // What is on its way for longer is decided anew: by then it may have been missed.
        let until = now + BEAT_LATE * (1 << self.late);
        let addresses: Vec<Address> = claims.iter().map(|claim| self.to(claim)).collect();
        let (ledger, producer) = (self.ledger.clone(), self.broker.producer());
        let (sender, patience) = (self.sender.clone(), self.plan.patience);
        self.flight.spawn_local(async move {
            let asked = clock::now();
            let mut steps = Vec::with_capacity(claims.len());
            for (claim, to) in claims.iter().zip(&addresses) {
                match step(claim, to, &sender, &producer, patience, now).await {
                    Ok(step) => steps.push(step),
                    Err(error) => return Flown::Claims(claims, Err(error), asked),
                }
            }
            let asked = clock::now();
            let answer = ledger.commit_by(steps, Some(until)).await;
            Flown::Claims(claims, answer, asked)
        });
    }

    fn to(&self, claim: &Claim) -> Address {
        let sends = claim.entry.as_ref().filter(|_| !claim.sends.is_empty());
        sends.map(|entry| (self.address)(entry)).unwrap_or_default()
    }

    /// Finds out whether the entry's last task is done.
    fn look(&mut self, key: Key, entry: &Entry, state: &State) {
        let Some(id) = state.id.map(|id| id.to_string()) else { return };
        let (store, admin) = (self.store.clone(), self.broker.admin());
        let ours = (self.address)(entry).task.is_some();
        // By then a result would be forgotten.
        let kept = self.plan.result_expires.and_then(|kept| TimeDelta::from_std(kept).ok());
        let old = state.ran.zip(kept).is_some_and(|(ran, kept)| self.clock.now() - ran > kept);
        self.flight.spawn_local(async move {
            Flown::Looked(key, is_done(&store, &admin, id, ours).await.map(|done| done || old))
        });
    }

    pub(super) fn learn(&mut self, names: Vec<(Key, Arc<str>)>) {
        let ledger = self.ledger.clone();
        self.flight.spawn_local(async move {
            let read = ledger.read(names.iter().map(|(_, name)| name.to_string()).collect()).await;
            Flown::Learned(names, read)
        });
    }

    /// Asks whether the ledger still has what it is known by, and what its clock shows.
    fn ask_for_mark(&mut self) {
        let ledger = self.ledger.clone();
        self.flight.spawn_local(async move {
            let asked = clock::now();
            let read = async {
                let answer = ledger.commit(Vec::new()).await?;
                let answered = clock::now();
                let mark = ledger.read(vec![MARK.into()]).await?;
                let text = mark.into_iter().next().flatten();
                Ok(Mark { text, clock: answer.clock, asked, answered })
            };
            Flown::Mark(read.await)
        });
    }

    /// Takes an answer.
    fn landed(&mut self, flown: Result<Flown, JoinError>) {
        let now = self.clock.now();
        match flown {
            Ok(Flown::Claims(claims, Ok(answer), asked)) => {
                self.answered();
                self.compare(answer.clock, asked, clock::now());
                self.settle(claims, answer.outcomes, now);
            }
            Ok(Flown::Claims(claims, Err(error), _)) => {
                let again = self.failed(&error, now);
                for key in claims.iter().filter_map(|claim| claim.key) {
                    self.core.claimed(key, Verdict::Failed(again), now);
                }
            }
            Ok(Flown::Looked(key, Ok(done))) => {
                let claim = self.core.looked(key, done, now);
                self.tell();
                claim.into_iter().for_each(|claim| self.commit(vec![claim]));
            }
            Ok(Flown::Looked(key, Err(error))) => {
                let again = self.failed(&error, now);
                self.core.look_again(key, again);
            }
            Ok(Flown::Learned(names, Ok(texts))) => {
                self.answered();
                for ((key, _), text) in names.iter().zip(texts) {
                    self.doubts |= self.core.learn(*key, text.as_deref(), now);
                }
                self.tell();
                if self.lags && !self.doubts {
                    // What the others have left.
                    self.send(now - BEAT_LAG, now, BEAT_BATCH);
                }
            }
            Ok(Flown::Learned(_, Err(error))) => {
                self.failed(&error, now);
            }
            Ok(Flown::Mark(Ok(Mark { text, clock, asked, answered }))) => {
                self.answered();
                self.compare(clock, asked, answered);
                self.unsure = false;
                self.regain(text.is_some(), now);
            }
            Ok(Flown::Mark(Err(error)) | Flown::Tended(Err(error))) => {
                self.failed(&error, now);
            }
            Ok(Flown::Tended(Ok(()))) => {}
            Err(error) => tracing::error!("beat: {error}"),
        }
    }

    pub(super) fn commit_all(&mut self, mut claims: Vec<Claim>) {
        while !claims.is_empty() {
            let rest = claims.split_off(claims.len().min(BEAT_BATCH));
            self.commit(std::mem::replace(&mut claims, rest));
        }
    }

    /// What has become of claims.
    pub(super) fn settle(
        &mut self,
        claims: Vec<Claim>,
        outcomes: Vec<Outcome>,
        now: DateTime<Utc>,
    ) {
        let (mut done, mut late, mut behind_time) = (0, 0, false);
        for (claim, outcome) in claims.into_iter().zip(outcomes) {
            let Some(key) = claim.key else { continue };
            let verdict = match outcome {
                Outcome::Done => {
                    done += 1;
                    self.late = 0;
                    self.log(&claim);
                    Verdict::Done
                }
                Outcome::Late => {
                    behind_time = true;
                    Verdict::Failed(now)
                }
                Outcome::Conflict(text) => {
                    self.doubts |= text.is_none();
                    Verdict::Conflict(text)
                }
                Outcome::Refused(why) => refused(&claim, &why, now),
            };
            late += usize::from(self.core.claimed(key, verdict, now));
        }
        if behind_time {
            // A store that is slow for its reasons is given longer.
            self.late = (self.late + 1).min(LATE_MAX);
        }
        if late > 0 && late >= done {
            self.lags = true;
        } else if done > 0 {
            self.lags = false;
        }
        self.tell();
    }

    pub(super) fn compare(
        &mut self,
        theirs: DateTime<Utc>,
        asked: DateTime<Utc>,
        answered: DateTime<Utc>,
    ) {
        if let Some(skew) = self.clock.compare(theirs, asked, answered) {
            let seconds = skew.num_milliseconds() as f64 / 1000.0;
            tracing::warn!(
                "this host's clock and the broker's differ by {seconds:+.1} s: the broker's is followed"
            );
        }
    }

    /// What is done now and then: looks whether the ledger has lost anything, and at what is off,
    /// since somebody may have resumed it.
    fn tick(&mut self) {
        self.follow_clock(self.clock.now());
        if self.flight.is_empty() {
            // What is lost is noticed before anything is due.
            self.ask_for_mark();
        }
        let ledger = self.ledger.clone();
        self.flight.spawn_local(async move { Flown::Tended(ledger.tend().await) });
        if self.outage.is_none() {
            let resting = self.core.resting(BEAT_BATCH);
            if !resting.is_empty() {
                self.learn(resting);
            }
        }
    }
}
