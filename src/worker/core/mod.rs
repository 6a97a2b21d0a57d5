//! Decisions: everything the worker decides is decided here, from an event and the time. Nothing is
//! performed; what is to be done comes out as effects.
//!
//! | file | decides |
//! | --- | --- |
//! | `admit` | which messages may run |
//! | `requests` | what is done with each message in which stage |
//! | `maps` | whether the next item of a map runs |
//! | `flow` | how much is taken and runs at once |
//! | `life` | when the worker goes on to its end |
//! | `told` | what an attempt tells the worker while it runs |

mod admit;
mod flow;
mod life;
mod maps;
mod requests;
mod told;

pub use super::event::{Effect, Event, Now, Snapshot};

use super::finish;
use super::plan::Plan;
use super::refusal;
use super::request::AttemptKey;
use super::signals::{SignalAction, WorkerState};
use super::undecided::{Undecided, is_terminated};
use crate::broker::Delivery;
use crate::os::signal::WorkerSignal;
use crate::runner::{CancelReason, Ending, Outcome};
use admit::Admission;
use flow::Flow;
use life::{Due, Life};
use requests::{Requests, Stage};
use std::sync::Arc;
use std::time::Duration;
use told::Telling;
use tracing::Level;

pub(super) use told::state_record;

/// The worker's state; see the module.
pub struct Core {
    plan: Arc<Plan>,
    admission: Admission,
    requests: Requests,
    /// Of the requests that run, those whose attempts have ended for a reason that is not clear yet.
    undecided: Undecided,
    telling: Telling,
    flow: Flow,
    life: Life,
}

impl Core {
    /// A worker that has done nothing yet.
    pub fn new(plan: Arc<Plan>) -> Core {
        Core {
            admission: Admission::new(plan.clone()),
            requests: Requests::new(plan.clone()),
            undecided: Undecided::default(),
            telling: Telling::default(),
            flow: Flow::new(&plan),
            life: Life::new(),
            plan,
        }
    }

    /// Takes in one event. Call [`Core::plan_ahead`] after the last of a batch.
    pub fn on(&mut self, event: Event, now: Now, out: &mut Vec<Effect>) {
        match event {
            Event::Delivered(deliveries) => self.delivered(deliveries, now, out),
            Event::Revoked(deliveries) => {
                for delivery in deliveries {
                    let verdict = refusal::revoked(&delivery.payload, &self.plan, now);
                    self.requests.refuse(delivery.tag, verdict, out);
                }
            }
            Event::Cleared(keys) => {
                for key in keys {
                    self.requests.cleared(key, now, out);
                }
            }
            Event::Asked(key, asked) => self.asked(key, *asked, now, out),
            Event::Sent(number, done) => self.sent(number, done, out),
            Event::Stored(keys) => self.stored(keys, now, out),
            Event::Ended(key, outcome) => self.ended(key, outcome, now, out),
            Event::Settled(keys) => {
                self.life.store_answered();
                for key in keys {
                    self.requests.settled(key, now, out);
                }
            }
            Event::Lost(keys) => {
                self.life.store_answered();
                for key in keys {
                    self.requests.lost(key, out);
                }
            }
            Event::Forfeited(tags) => self.requests.forfeit(&tags, out),
            Event::Signal(meaning) => self.signal(meaning, now, out),
            Event::Tick => self.tick(now, out),
            Event::Tasks(tasks) => {
                let effects = self.admission.redefine(tasks);
                if self.life.state() != WorkerState::Closing {
                    out.extend(effects);
                }
            }
            Event::Host(shortage) => {
                warn(self.flow.host(shortage.as_deref()), out);
                if shortage.is_some() {
                    self.requests.release_ready(out);
                }
            }
            Event::Closed => out.push(Effect::Exit(self.life.exit())),
        }
    }

    /// Fills free slots, asks for more work, and completes a shutdown.
    pub fn plan_ahead(&mut self, now: Now, out: &mut Vec<Effect>) {
        if self.life.state() == WorkerState::Closing {
            // Whatever is wanted now would reopen the broker's end.
            return;
        }
        if self.life.is_running()
            && let Some(line) = self.flow.rescale(&self.requests, now)
        {
            out.push(Effect::Log(Level::INFO, line));
        }
        while self.flow.starts_next(&self.requests) && self.requests.start_next(now, out) {}
        let taking = !self.admission.rounds.pauses(now.mono) && self.life.is_running();
        if let Some((number, want)) = self.flow.want(&self.requests, &self.plan, taking) {
            out.push(Effect::Want { number, want });
        }
        self.life.wait_for_stores(self.requests.waits_for_stores(), now.mono);
        if !self.life.is_running() && self.requests.is_empty() {
            self.enter(WorkerState::Closing, now, out);
        }
    }

    /// Can the passing of time alone change anything?
    pub fn needs_ticks(&self) -> bool {
        let shrinks = self.life.is_running() && self.flow.scale.may_shrink();
        let tries = !self.undecided.is_empty() || self.flow.capacity.is_limited();
        let waits = self.life.is_timed() || self.admission.rounds.has_pause();
        let ahead = self.requests.ready() > 0 || self.flow.beyond_slots(&self.requests) > 0;
        let paused = !self.requests.paused.is_empty() || self.telling.waits();
        ahead || paused || waits || tries || shrinks
    }

    /// Must outcomes be settled at once, and not be batched?
    pub fn hurries(&self) -> bool {
        self.flow.hurries(&self.requests)
    }

    /// Stops all attempts, because the guard is gone.
    pub fn stop_all(&mut self, out: &mut Vec<Effect>) {
        self.requests.stop_all(out);
    }

    /// What others may know of the worker.
    pub fn snapshot(&self) -> Snapshot {
        let starting = self.requests.count(Stage::Clearing) + self.requests.count(Stage::Acking);
        let beyond = self.flow.beyond_slots(&self.requests);
        Snapshot {
            state: self.life.state(),
            slots: self.flow.scale.slots(),
            running: self.requests.running() - beyond,
            reserved: self.requests.ready() + starting + beyond,
            unknown: self.admission.unknown.list(),
            limited: self.flow.capacity.why(),
        }
    }

    fn delivered(&mut self, deliveries: Vec<Delivery>, now: Now, out: &mut Vec<Effect>) {
        self.flow.delivered();
        if self.life.state() == WorkerState::Closing {
            // Closing the broker's end gives them back.
            return;
        }
        for delivery in deliveries {
            let tag = delivery.tag;
            let taking = self.life.is_running() && self.flow.is_open();
            match self.admission.admit(delivery, taking, now, out) {
                Ok(request) => self.requests.add(request),
                Err(verdict) => self.requests.refuse(tag, *verdict, out),
            }
        }
    }

    fn ended(
        &mut self,
        key: AttemptKey,
        mut outcome: Box<Outcome>,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let Some((request, _)) = self.requests.attempt(key) else { return };
        if is_terminated(&outcome, &request.task) {
            if self.life.is_running() {
                return self.undecided.add(key, outcome, now.mono);
            }
            // The signal that ended the worker was sent to its tasks too.
            outcome.asked = true;
        }
        self.end(key, *outcome, now, out);
    }

    /// Ends the attempts that were undecided for long enough; with `asked`, all of them, because the
    /// worker was signalled too.
    fn decide(&mut self, asked: bool, now: Now, out: &mut Vec<Effect>) {
        for (key, outcome) in self.undecided.take(asked, now.mono) {
            self.end(key, Outcome { asked, ..*outcome }, now, out);
        }
    }

    fn end(&mut self, key: AttemptKey, mut outcome: Outcome, now: Now, out: &mut Vec<Effect>) {
        let Some((request, stage)) = self.requests.attempt(key) else { return };
        if stage == Stage::Forfeited {
            // However it ended meanwhile.
            outcome.ending = Ending::Cancelled(CancelReason::ConnectionLost);
        }
        outcome.said = request.told.as_ref().and_then(|told| told.said.clone());
        let mut pause = Duration::ZERO;
        let no_capacity = matches!(outcome.ending, Ending::NoCapacity(_));
        match &outcome.ending {
            Ending::NoCapacity(why) => {
                // Without this one.
                let running = self.requests.running() - 1;
                warn(self.flow.capacity.refused(why, running, now.mono).map(of_worker), out);
            }
            Ending::Unavailable(why) => {
                let line;
                (pause, line) =
                    self.admission.unavailable.refused(&request.task.name, why, now.mono);
                warn(line, out);
            }
            _ => {}
        }
        // What an item of a map says is said of the map.
        let is_said = outcome.said.is_some() && outcome.is_its_own();
        if is_said || !self.requests.goes_on(key, &mut outcome, now, out) {
            self.end_whole(key, &outcome, pause, now, out);
        }
        if no_capacity {
            self.requests.release_ready(out);
        }
    }

    /// A request has ended. If its task is unavailable, it is parked for `pause`.
    fn end_whole(
        &mut self,
        key: AttemptKey,
        outcome: &Outcome,
        pause: Duration,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let Some((request, _)) = self.requests.attempt(key) else { return };
        let keep_slot = !matches!(
            outcome.ending,
            Ending::NoCapacity(_)
                | Ending::Unavailable(_)
                | Ending::Cancelled(CancelReason::ConnectionLost | CancelReason::Recalled)
        );
        if keep_slot {
            if outcome.has_run() {
                let name = &request.task.name;
                warn(self.admission.unavailable.began(name, outcome.started), out);
            }
            self.flow.ended(outcome, now);
        }
        let verdict = finish::verdict(request, outcome, &self.plan, pause, now);
        self.requests.finish(key, verdict, keep_slot, now, out);
    }

    fn signal(&mut self, meaning: WorkerSignal, now: Now, out: &mut Vec<Effect>) {
        match self.life.signal(meaning) {
            SignalAction::Drain(_) => {
                if meaning == WorkerSignal::Interrupt {
                    let hint = "hitting Ctrl+C again stops all running tasks; they are redelivered";
                    warn(Some(of_worker(hint.into())), out);
                }
                self.enter(WorkerState::Draining, now, out);
            }
            SignalAction::Stop => self.enter(WorkerState::Stopping, now, out),
            SignalAction::Kill => self.enter(WorkerState::Killing, now, out),
            SignalAction::Explain => self.log_requests(now, out),
            SignalAction::Nothing => {}
        }
    }

    fn tick(&mut self, now: Now, out: &mut Vec<Effect>) {
        self.decide(false, now, out);
        self.store_states(now, out);
        for (key, why) in self.requests.resume(now, out) {
            self.end(key, Outcome::immediate(Ending::Cancelled(why)), now, out);
        }
        warn(self.flow.capacity.raise(self.plan.slots, now.mono).map(of_worker), out);
        if self.flow.is_stuck(&self.requests, now) {
            self.requests.release_ready(out);
            out.push(Effect::Recall);
        }
        match self.life.due(now.mono) {
            Some(Due::State(state)) => self.enter(state, now, out),
            Some(Due::GiveUp) => self.give_up(out),
            None => {}
        }
    }

    /// Enters a state of the worker's life, and does what belongs to it.
    fn enter(&mut self, state: WorkerState, now: Now, out: &mut Vec<Effect>) {
        if state == WorkerState::Killing && self.life.is_running() {
            self.enter(WorkerState::Draining, now, out);
        }
        self.life.enter(state, self.plan.soft_shutdown, now.mono);
        if state == WorkerState::Draining {
            self.decide(true, now, out);
        }
        let running = self.snapshot().running;
        let mut say = |line: String| warn(Some(of_worker(line)), out);
        match state {
            WorkerState::Running => {}
            WorkerState::Draining => {
                say(format!("Warm shutdown ({running} running)"));
                self.requests.release_ready(out);
            }
            WorkerState::Stopping => {
                say(format!("Soft shutdown ({running} asked to end)"));
                self.requests.ask_all(out);
            }
            WorkerState::Killing => {
                say(format!("Cold shutdown ({running} stopped)"));
                self.requests.stop_all(out);
            }
            WorkerState::Closing => out.push(Effect::Close),
        }
    }

    /// Ends without waiting for the stores.
    fn give_up(&mut self, out: &mut Vec<Effect>) {
        let count = self.requests.unsettled();
        let line = format!(
            "worker: ends with {count} tasks not settled, since the store does not answer; they are \
             handed out again"
        );
        out.push(Effect::Log(Level::ERROR, line));
        out.push(Effect::Exit(self.life.give_up(count)));
    }

    /// What the worker is doing, for the log (USR1).
    fn log_requests(&self, now: Now, out: &mut Vec<Effect>) {
        let beyond = self.flow.beyond_slots(&self.requests);
        let summary = format!(
            "{}; {} of {} slots running, {} taken ahead, {} being settled",
            self.life.state().name(),
            self.requests.running() - beyond,
            self.flow.scale.slots(),
            self.requests.ready() + beyond,
            self.requests.count(Stage::Clearing) + self.requests.unsettled(),
        );
        let lines = std::iter::once(summary).chain(self.requests.lines(now));
        lines.for_each(|line| warn(Some(of_worker(line)), out));
    }
}

fn warn(line: Option<String>, out: &mut Vec<Effect>) {
    out.extend(line.map(|line| Effect::Log(Level::WARN, line)));
}

fn of_worker(line: String) -> String {
    format!("worker: {line}")
}
