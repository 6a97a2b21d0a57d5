//! How much work the worker takes and runs at once, and how long outcomes wait to be batched.

use super::requests::{Requests, Stage};
use crate::bounds;
use crate::broker::Want;
use crate::runner::Outcome;
use crate::worker::autoscale::{Scale, ScaleChange};
use crate::worker::capacity::Capacity;
use crate::worker::event::Now;
use crate::worker::plan::Plan;
use std::time::{Duration, Instant};

/// How many messages are being settled at most before no more are taken: a store that is slower than
/// the tasks must slow them down.
const SETTLING_MAX: usize = 1024;

/// Messages are taken ahead for this long, at the pace of the last tasks.
const AHEAD: Duration = Duration::from_millis(20);

/// A message that was taken ahead and found no slot for this long is given back: another worker may
/// have one.
const AHEAD_WAIT_MAX: Duration = Duration::from_millis(200);

/// Attempts that end this fast are handed to their threads before these are free: waking a thread
/// for each takes longer.
const TINY: Duration = Duration::from_micros(200);

/// How many tiny attempts wait for threads at most.
const BEYOND_SLOTS: usize = 64;

/// Outcomes are batched until they hold one in this many slots.
const BATCH_SHARE: usize = 3;

/// See the module.
pub(super) struct Flow {
    /// How many slots there are.
    pub(super) scale: Scale,
    /// How many of them the host has capacity for.
    pub(super) capacity: Capacity,
    /// The host is too short of something for new tasks.
    short: bool,
    /// How many times messages have come.
    deliveries: u64,
    /// What was asked for last.
    wanted: Option<(u64, Want)>,
    /// Smoothed runtime of a task in seconds; `None` until one has ended.
    pace: Option<f64>,
    /// When the last one ended.
    ended: Option<Instant>,
}

impl Flow {
    pub(super) fn new(plan: &Plan) -> Flow {
        let scale = match plan.autoscale {
            Some(scale) => Scale::new(scale.min, plan.slots, scale.keepalive),
            None => Scale::new(plan.slots, plan.slots, Duration::MAX),
        };
        let capacity = Capacity::default();
        Flow { scale, capacity, short: false, deliveries: 0, wanted: None, pace: None, ended: None }
    }

    /// Is a slot free?
    pub(super) fn has_slot(&self, requests: &Requests) -> bool {
        requests.busy() < self.capacity.of(self.scale.slots())
    }

    /// May the request that has waited longest start now? A tiny one may do so before a slot is free.
    pub(super) fn starts_next(&self, requests: &Requests) -> bool {
        let scales = self.scale.is_fixed() && !self.capacity.is_limited();
        let is_tiny = self.pace.is_some_and(|pace| pace < TINY.as_secs_f64());
        self.has_slot(requests)
            || is_tiny
                && scales
                && requests.may_wait_for_threads()
                && requests.busy() < self.scale.slots() + BEYOND_SLOTS
    }

    /// How many attempts were started for which there is no slot.
    pub(super) fn beyond_slots(&self, requests: &Requests) -> usize {
        requests.running().saturating_sub(self.scale.slots())
    }

    /// Has the host what a new task needs?
    pub(super) fn is_open(&self) -> bool {
        !self.short && self.capacity.of(1) > 0
    }

    /// Follows the demand for slots; gives the line to log about a change.
    pub(super) fn rescale(&mut self, requests: &Requests, now: Now) -> Option<String> {
        match self.scale.follow(requests.busy() + requests.ready(), now.mono)? {
            ScaleChange::Up(count) => Some(format!("Scaling up {count} processes.")),
            ScaleChange::Down(count) => Some(format!("Scaling down {count} processes.")),
        }
    }

    /// A shortage of the host has begun, or is over; gives the line to log if that is new.
    pub(super) fn host(&mut self, shortage: Option<&str>) -> Option<String> {
        let is_new = self.short != shortage.is_some();
        self.short = shortage.is_some();
        is_new.then(|| match shortage {
            Some(why) => format!("worker: takes no new tasks: {why}"),
            None => "worker: takes tasks again".into(),
        })
    }

    /// Messages have come.
    pub(super) fn delivered(&mut self) {
        self.deliveries += 1;
    }

    /// An attempt has ended that was run.
    pub(super) fn ended(&mut self, outcome: &Outcome, now: Now) {
        self.ended = Some(now.mono);
        let took = outcome.runtime.as_secs_f64();
        // Quick to believe that tasks are long, slow to believe that they are short.
        self.pace = Some(match self.pace {
            Some(pace) if took < pace => pace * 0.9 + took * 0.1,
            Some(pace) => pace * 0.5 + took * 0.5,
            None => took,
        });
    }

    /// Has something waited too long for a slot that was taken or started ahead? Then tasks count as
    /// long.
    pub(super) fn is_stuck(&mut self, requests: &Requests, now: Now) -> bool {
        let is_long = |since: Instant| now.mono - since > AHEAD_WAIT_MAX;
        let waits = requests.oldest_ready().is_some_and(|one| is_long(one.received));
        let halts = self.beyond_slots(requests) > 0 && self.ended.is_none_or(is_long);
        let stuck = halts || waits && !self.has_slot(requests);
        if stuck {
            self.pace = Some(AHEAD.as_secs_f64() * 2.0);
        }
        stuck
    }

    /// What to ask the broker for, if that has changed. It is nothing unless the worker is `taking`.
    pub(super) fn want(
        &mut self,
        requests: &Requests,
        plan: &Plan,
        taking: bool,
    ) -> Option<(u64, Want)> {
        let want = match taking && self.is_open() && requests.settling() < SETTLING_MAX {
            true => self.need(requests, plan),
            false => Want::default(),
        };
        let wanted = Some((self.deliveries, want));
        if self.wanted == wanted {
            return None;
        }
        self.wanted = wanted;
        wanted
    }

    /// How many messages the worker can use.
    fn need(&self, requests: &Requests, plan: &Plan) -> Want {
        let ready = requests.ready();
        // With autoscale, slots are added when the messages for them are here.
        let slots = self.capacity.of(plan.slots).saturating_sub(requests.busy() + ready);
        let ahead = self.ahead(plan);
        // One take for many messages, not many takes for one each; and while it is under way, there
        // are still enough.
        let room = ahead.saturating_sub(ready);
        let ahead = if room * 4 < ahead { 0 } else { room };
        Want { slots, ahead }
    }

    /// How many messages may wait in memory: many while tasks are tiny, none while they are long.
    fn ahead(&self, plan: &Plan) -> usize {
        if plan.policy.disable_prefetch || self.capacity.is_limited() {
            return 0;
        }
        match self.pace {
            Some(pace) if pace < AHEAD.as_secs_f64() => {
                let fits = self.scale.slots() as f64 * AHEAD.as_secs_f64() / pace.max(1e-6);
                (fits as usize).min(bounds::TAKE_MAX)
            }
            _ => 0,
        }
    }

    /// Must outcomes be settled at once? Not while enough tasks run and more wait for a slot: one
    /// transaction for several outcomes costs little more than one for each.
    pub(super) fn hurries(&self, requests: &Requests) -> bool {
        let held = requests.count(Stage::Acking) + requests.count(Stage::Finishing);
        let alone = requests.ready() == 0 || requests.running() == 0;
        alone || held == 0 || held * BATCH_SHARE >= self.scale.slots()
    }
}
