//! All that is around the core, played by a generator of random numbers: the broker with
//! its messages, the pool, the store that settles late.

use chrono::{DateTime, TimeDelta, Utc};
use qworker::broker::{Delivery, Settle, Tag, Want};
use qworker::os::signal::Meaning;
use qworker::runner::{Captured, Ending, Limit, Outcome, Usage};
use qworker::task::load::{Content, File, load};
use qworker::task::set::Set;
use qworker::wire::message::{Draft, encode};
use qworker::wire::{Exception, Message, State};
use qworker::worker::core::{Core, Effect, Event, Now};
use qworker::worker::finish::Verdict;
use qworker::worker::plan::{Plan, Policy};
use serde_json::value::RawValue;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

const TASKS: &str = "
late: {shell: a}
early: {shell: a, acks_late: false}
strict: {shell: a, params: [x], max_retries: 1}
ignored: {shell: a, ignore_result: true, acks_late: true}
slow: {shell: a, rate_limit: 20/s}
";

/// Nobody needs more steps than this; a core that does goes in a circle.
const STEPS_MAX: usize = 200_000;

static SET: LazyLock<Arc<Set>> = LazyLock::new(|| {
    let files = [File { path: "t.yaml".into(), content: Content::Yaml(TASKS.into()) }];
    let (tasks, faults) = load(&files, Path::new("tasks.d"), &|_| true);
    assert!(faults.is_empty(), "{faults:?}");
    Arc::new(Set::new(tasks))
});

/// How a life ended, and what was met in it.
#[derive(Debug, Default, Clone)]
pub struct End {
    pub exit: Option<u8>,
    pub signals: Vec<Meaning>,
    /// Messages that the broker still has.
    pub left: usize,
    pub started: usize,
    pub retried: usize,
    pub redelivered: usize,
    pub dead: usize,
    pub parked: usize,
    pub released: usize,
    pub early: usize,
    pub stopped: usize,
    pub returned: usize,
    pub closed: usize,
}

impl std::ops::AddAssign for End {
    fn add_assign(&mut self, end: End) {
        self.left += end.left;
        self.started += end.started;
        self.retried += end.retried;
        self.redelivered += end.redelivered;
        self.dead += end.dead;
        self.parked += end.parked;
        self.released += end.released;
        self.early += end.early;
        self.stopped += end.stopped;
        self.returned += end.returned;
        self.closed += end.closed;
    }
}

/// A message in the broker.
#[derive(Debug, Clone)]
struct Waiting {
    payload: String,
    deliveries: u32,
    due: DateTime<Utc>,
}

/// A message in the core's hands.
#[derive(Debug)]
struct Held {
    /// As it was delivered.
    waiting: Waiting,
    task: Option<String>,
    /// Settled in an effect, if not yet in the store.
    settled: bool,
    /// Acknowledged before its start, in the store.
    acked: bool,
    /// Its attempt, while it runs.
    running: Option<u64>,
    started: bool,
}

pub struct World {
    pub random: fastrand::Rng,
    core: Core,
    policy: Policy,
    slots: usize,
    begin: (Instant, DateTime<Utc>),
    passed: Duration,
    /// In the order of arrival.
    queue: Vec<Waiting>,
    next_tag: i64,
    held: BTreeMap<i64, Held>,
    /// Tags by task id; ids are unique among what is held.
    ids: BTreeMap<String, i64>,
    running: BTreeMap<u64, i64>,
    stopping: BTreeSet<u64>,
    /// Settlements on their way to the store, in order.
    orders: VecDeque<(u64, i64, Box<Verdict>)>,
    /// Taken by the feed, not yet told to the core.
    taken: Vec<Delivery>,
    want: (u64, Want),
    done: Option<u64>,
    keys: BTreeSet<u64>,
    asked_to_end: bool,
    cold: bool,
    closing: bool,
    effects: Vec<Effect>,
    end: End,
}

impl World {
    pub fn new(seed: u64) -> World {
        let mut random = fastrand::Rng::with_seed(seed);
        let policy = Policy {
            acks_late: random.u8(..4) > 0,
            store_errors: random.bool(),
            track_started: random.bool(),
            max_deliveries: random.u32(1..6),
            disable_prefetch: random.u8(..4) == 0,
            ..Policy::default()
        };
        let slots = random.usize(1..6);
        let plan = Plan {
            hostname: "w@h".into(),
            app: "/app".into(),
            slots,
            queues: vec!["celery".into()],
            tasks: SET.clone(),
            policy: policy.clone(),
            chatty: random.bool(),
            wasm_cache: "/cache".into(),
            wasm_memory: 1,
            wasm_compile_timeout: Duration::from_secs(1),
            result_expires: None,
        };
        let wall = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let mut world = World {
            core: Core::new(Arc::new(plan)),
            policy,
            slots,
            begin: (Instant::now(), wall),
            passed: Duration::ZERO,
            queue: Vec::new(),
            next_tag: 0,
            held: BTreeMap::new(),
            ids: BTreeMap::new(),
            running: BTreeMap::new(),
            stopping: BTreeSet::new(),
            orders: VecDeque::new(),
            taken: Vec::new(),
            want: (0, Want::default()),
            done: None,
            keys: BTreeSet::new(),
            asked_to_end: false,
            cold: false,
            closing: false,
            effects: Vec::new(),
            end: End::default(),
            random,
        };
        for number in 0..world.random.usize(1..60) {
            let message = world.message(number);
            world.queue.push(message);
        }
        world
    }

    fn message(&mut self, number: usize) -> Waiting {
        let wall = self.begin.1;
        let random = &mut self.random;
        let mut later = |chance: u8, from: i64, to: i64| {
            let ms = random.i64(from..to);
            (random.u8(..100) < chance).then(|| wall + TimeDelta::milliseconds(ms))
        };
        let (eta, expires) = (later(10, -500, 3000), later(10, -500, 3000));
        let tasks = ["late", "late", "late", "early", "strict", "ignored", "slow", "nobody"];
        let args = if random.u8(..6) > 0 { vec!["1"] } else { vec!["1", "2"] };
        let draft = Draft {
            task: random.choice(tasks).unwrap().to_string(),
            id: format!("id{number}"),
            args: args.into_iter().map(|a| RawValue::from_string(a.into()).unwrap()).collect(),
            queue: "celery".into(),
            eta,
            expires,
            ..Draft::default()
        };
        let payload = match random.u8(..20) {
            0 => "no message".to_string(),
            1 => encode(&draft, wall).replace("application/json", "application/x-pickle"),
            _ => encode(&draft, wall),
        };
        // Some were lost by workers before this one.
        let deliveries = if random.u8(..5) == 0 { random.u32(1..7) } else { 0 };
        // A foreign program does not set the store's own time.
        let due = eta.filter(|_| random.bool()).unwrap_or(wall);
        Waiting { payload, deliveries, due }
    }

    fn now(&mut self) -> Now {
        Now { mono: self.begin.0 + self.passed, wall: self.wall(), random: self.random.f64() }
    }

    fn wall(&self) -> DateTime<Utc> {
        self.begin.1 + self.passed
    }

    /// Lives; after `until` steps signals come.
    pub fn run(mut self, until: usize) -> End {
        self.settle_down();
        for step in 0.. {
            assert!(step < STEPS_MAX, "no end: {:?}", self.end);
            if self.end.exit.is_some() {
                break;
            }
            let signal =
                step >= until && (self.end.signals.is_empty() || self.random.u8(..40) == 0);
            let events = if signal { vec![self.signal()] } else { self.step() };
            if events.is_empty() && until == usize::MAX && self.is_over() {
                break;
            }
            for event in events {
                let now = self.now();
                self.core.on(event, now, &mut self.effects);
            }
            self.settle_down();
        }
        self.end.left = self.queue.len();
        self.end
    }

    fn is_over(&self) -> bool {
        self.queue.is_empty()
            && self.held.is_empty()
            && self.taken.is_empty()
            && self.orders.is_empty()
    }

    fn signal(&mut self) -> Event {
        let all = [Meaning::Warm, Meaning::Interrupt, Meaning::Cold, Meaning::Hup];
        let first = self.end.signals.is_empty();
        // One that asks for nothing may come first.
        let meaning = match first && !self.asked_to_end && self.random.u8(..5) == 0 {
            true => Meaning::Explain,
            false => *self.random.choice(&all).unwrap(),
        };
        if meaning == Meaning::Explain {
            return Event::Signal(meaning);
        }
        self.cold |= meaning == Meaning::Cold || (!first && meaning == Meaning::Interrupt);
        self.asked_to_end = true;
        self.end.signals.push(meaning);
        Event::Signal(meaning)
    }

    /// What happens next: one thing, or several that one batch of events tells of.
    fn step(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        for _ in 0..self.random.usize(1..4) {
            match self.random.u8(..8) {
                0 => self.passed += Duration::from_micros(self.random.u64(..50_000)),
                1 | 2 => self.take(),
                3 | 4 => events.extend(self.finish()),
                5 => events.extend(self.store()),
                6 if !self.taken.is_empty() => {
                    events.push(Event::Delivered(std::mem::take(&mut self.taken)));
                }
                // The loop ticks only when it is needed.
                7 if self.core.needs_ticks() => {
                    self.passed += Duration::from_millis(100);
                    events.push(Event::Tick);
                }
                _ => {}
            }
        }
        let nothing_to_do =
            self.running.is_empty() && self.orders.is_empty() && self.taken.is_empty();
        if nothing_to_do && events.is_empty() {
            // Everything waits for a time to come.
            if let Some(due) = self.queue.iter().map(|waiting| waiting.due).min() {
                let wait = (due - self.wall()).to_std().unwrap_or_default();
                self.passed += wait;
            }
            if self.closing {
                // Closing gives back what is still held.
                for (_, held) in std::mem::take(&mut self.held) {
                    self.end.closed += 1;
                    self.queue.push(held.waiting);
                }
                events.push(Event::Closed);
            }
        }
        events
    }

    /// The feed: takes once for each turn, as much as is wanted.
    fn take(&mut self) {
        let (turn, Want { slots, ahead }) = self.want;
        let none_wanted = slots + ahead == 0 || self.done == Some(turn) || !self.taken.is_empty();
        if none_wanted || (self.closing && self.random.bool()) {
            return;
        }
        let wall = self.wall();
        let (mut slots, mut ahead, mut left) = (slots, ahead, Vec::new());
        for waiting in std::mem::take(&mut self.queue) {
            let goes = waiting.due <= wall
                && match (slots, ahead, waiting.deliveries) {
                    (1.., _, _) => {
                        slots -= 1;
                        true
                    }
                    // Suspects only into free slots.
                    (0, 1.., 0) => {
                        ahead -= 1;
                        true
                    }
                    _ => false,
                };
            match goes {
                true => self.hand_out(waiting),
                false => left.push(waiting),
            }
        }
        self.queue = left;
        if !self.taken.is_empty() {
            self.done = Some(turn);
        }
    }

    fn hand_out(&mut self, waiting: Waiting) {
        self.next_tag += 1;
        let tag = self.next_tag;
        self.taken.push(Delivery {
            tag: Tag::Row(tag),
            queue: "celery".into(),
            payload: waiting.payload.clone(),
            deliveries: waiting.deliveries,
        });
        let message = Message::decode(&waiting.payload).ok();
        if let Some(message) = &message {
            let other = self.ids.insert(message.id.clone(), tag);
            assert!(other.is_none_or(|tag| !self.held.contains_key(&tag)));
        }
        let task = message.map(|message| message.task);
        let held =
            Held { waiting, task, settled: false, acked: false, running: None, started: false };
        self.held.insert(tag, held);
    }

    /// One attempt ends.
    fn finish(&mut self) -> Option<Event> {
        let keys: Vec<u64> = self.running.keys().copied().collect();
        let key = *self.random.choice(&keys)?;
        let tag = self.running.remove(&key)?;
        if let Some(held) = self.held.get_mut(&tag) {
            held.running = None;
        }
        let stopped = self.stopping.remove(&key);
        let ending = match self.random.u8(..10) {
            // It may have ended in the same instant.
            _ if stopped && self.random.u8(..4) > 0 => Ending::Cancelled,
            0..4 => Ending::Exited(0),
            4 => Ending::Exited(1),
            5 => Ending::Exited(75),
            6 | 7 => Ending::Signaled(9),
            8 => Ending::Returned,
            _ => Ending::Refused(Exception::new("builtins", "FileNotFoundError", "none")),
        };
        let limit = match self.random.u8(..20) {
            0 => Some(Limit::Soft),
            1 => Some(Limit::Hard),
            _ => None,
        };
        // Never both a stop and no ending.
        let limit = if ending == Ending::Cancelled { None } else { limit };
        let runtime = Duration::from_micros(self.random.u64(..30_000));
        self.passed += Duration::from_micros(self.random.u64(..2_000));
        Some(Event::Ended(
            key,
            Box::new(Outcome {
                ending,
                limit,
                stdout: Captured { bytes: b"1".to_vec(), dropped: 0 },
                stderr: Captured::default(),
                usage: Usage::default(),
                started: self.begin.0 + self.passed,
                runtime,
            }),
        ))
    }

    /// The store settles some of what was ordered, in order.
    fn store(&mut self) -> Option<Event> {
        let count = self.random.usize(..=self.orders.len());
        let mut keys = Vec::new();
        for (key, tag, verdict) in self.orders.drain(..count).collect::<Vec<_>>() {
            self.settle(tag, *verdict);
            keys.push(key);
        }
        (count > 0).then_some(Event::Settled(keys))
    }

    fn settle(&mut self, tag: i64, verdict: Verdict) {
        let starts = is_start(&verdict);
        if let Some(posting) = verdict.publish {
            let due = posting.eta.unwrap_or_else(|| self.wall());
            self.queue.push(Waiting { payload: posting.payload, deliveries: 0, due });
        }
        let Some(settle) = verdict.settle else {
            let held =
                self.held.remove(&tag).expect("it was acknowledged, and is settled once more");
            assert!(held.acked, "nothing became of a message");
            return;
        };
        let wall = self.wall();
        let held = self.held.get(&tag).expect("settled, and settled again");
        let Waiting { payload, deliveries, .. } = held.waiting.clone();
        let back = match settle {
            Settle::Ack if !held.started && self.is_early(tag) && starts => {
                // Before its start: the row is gone, the core still has the request.
                let held = self.held.get_mut(&tag).unwrap();
                (held.acked, held.settled) = (true, false);
                self.end.early += 1;
                return;
            }
            Settle::Ack => None,
            Settle::Release => {
                self.end.released += 1;
                Some(Waiting { payload, deliveries, due: wall })
            }
            Settle::Park(due) => {
                assert!(due > wall - TimeDelta::seconds(60), "parked into the past");
                self.end.parked += 1;
                Some(Waiting { payload, deliveries, due })
            }
            Settle::Redeliver(due) => {
                self.end.redelivered += 1;
                let deliveries = deliveries + 1;
                assert!(
                    deliveries < self.policy.max_deliveries,
                    "redelivered at the bound: {deliveries} of {}",
                    self.policy.max_deliveries
                );
                Some(Waiting { payload, deliveries, due })
            }
            Settle::Replace(payload, due) => {
                self.end.retried += 1;
                let (old, new) = (&held.waiting.payload, &payload);
                let (old, new) = (Message::decode(old).unwrap(), Message::decode(new).unwrap());
                assert_eq!(
                    (old.id, old.retries + 1, Some(whole(due))),
                    (new.id, new.retries, new.eta.map(whole))
                );
                Some(Waiting { payload, deliveries: 0, due })
            }
            Settle::Dead(death) => {
                self.end.dead += 1;
                assert!(!death.detail.is_empty());
                None
            }
        };
        self.held.remove(&tag);
        self.queue.extend(back);
    }

    fn is_early(&self, tag: i64) -> bool {
        let task = self.held[&tag].task.as_deref();
        task.and_then(|name| SET.get(name))
            .is_some_and(|task| !task.acks_late.unwrap_or(self.policy.acks_late))
    }

    /// What the drive does after a batch of events.
    fn settle_down(&mut self) {
        self.core.plan_ahead(&mut self.effects);
        for effect in std::mem::take(&mut self.effects) {
            self.perform(effect);
        }
        let starting = self.orders.iter().filter(|(key, tag, _)| self.is_starting(*key, *tag));
        let busy = self.running.len() + starting.count();
        assert!(busy <= self.slots, "{busy} run in {} slots", self.slots);
        assert_eq!(self.core.running(), self.running.len());
        if self.core.needs_ticks() {
            assert_eq!(busy, self.slots, "a slot is free, and something waits in memory");
            assert!(!self.asked_to_end, "something waits in memory in a shutdown");
        }
        let nothing_wanted = self.want.1 == Want::default();
        if self.asked_to_end {
            assert!(nothing_wanted, "wants {:?} in a shutdown", self.want.1);
        } else if busy < self.slots {
            assert!(!nothing_wanted, "a slot is free, and nothing is wanted");
            assert!(self.want.1.slots <= self.slots - busy);
        }
        if self.policy.disable_prefetch {
            assert_eq!(self.want.1.ahead, 0);
        }
    }

    /// Is this order the acknowledgement of a request that will start after it?
    fn is_starting(&self, key: u64, tag: i64) -> bool {
        self.held.get(&tag).is_some_and(|held| !held.started && held.settled)
            && self.is_early(tag)
            && self.orders.iter().any(|(k, _, verdict)| {
                *k == key && is_start(verdict) && matches!(verdict.settle, Some(Settle::Ack))
            })
    }

    fn perform(&mut self, effect: Effect) {
        assert!(self.end.exit.is_none(), "{effect:?} after the end");
        match effect {
            Effect::Want { turn, want } => self.want = (turn, want),
            Effect::Clear(id) => {
                let tag = self.ids[&id];
                assert!(self.held[&tag].waiting.deliveries > 0, "nothing is left of a first try");
            }
            Effect::Start(key, attempt) => {
                assert!(!self.closing && !self.cold, "starts in a cold shutdown");
                assert!(self.keys.insert(key), "key {key} twice");
                let tag = self.ids[&attempt.id];
                let early = self.is_early(tag);
                let held = self.held.get_mut(&tag).expect("runs what it does not hold");
                assert_eq!(
                    held.acked, early,
                    "acknowledged before its start, or not, as it should"
                );
                assert!(!held.settled && !held.started, "starts what is settled or was started");
                assert!(held.waiting.deliveries < self.policy.max_deliveries);
                assert!(!self.asked_to_end || early, "starts in a shutdown");
                (held.running, held.started) = (Some(key), true);
                self.running.insert(key, tag);
                self.end.started += 1;
            }
            Effect::Stop(key) => {
                assert!(self.cold, "stops a task though nobody asked for that");
                if self.running.contains_key(&key) {
                    self.stopping.insert(key);
                    self.end.stopped += 1;
                }
            }
            Effect::Settle(key, Tag::Row(tag), verdict) => self.order(key, tag, verdict),
            Effect::Store(record) => {
                assert_eq!((record.state, record.date_done), (State::Started, self.wall()));
            }
            Effect::Log(_, line) => assert!(!line.is_empty()),
            Effect::Close => {
                assert!(self.asked_to_end && !self.closing, "closes, and nobody asked for it");
                assert!(self.running.is_empty(), "closes, and something runs");
                assert!(self.orders.is_empty(), "closes, and something is not settled");
                // Only what it was never told of may be held.
                let untold: BTreeSet<i64> =
                    self.taken.iter().map(|delivery| row(delivery.tag)).collect();
                let forgotten: Vec<_> =
                    self.held.keys().filter(|tag| !untold.contains(tag)).collect();
                assert!(forgotten.is_empty(), "closes with {forgotten:?} unsettled");
                self.closing = true;
            }
            Effect::Exit(code) => {
                assert!(self.closing && self.held.is_empty());
                self.end.exit = Some(code);
            }
        }
    }

    fn order(&mut self, key: u64, tag: i64, verdict: Box<Verdict>) {
        assert!(!self.closing, "settles after closing");
        let early = self.is_early(tag);
        let held = self.held.get_mut(&tag).expect("settles what it does not hold");
        assert!(held.running.is_none(), "settled while it runs: {verdict:?}");
        assert!(!held.settled, "settled twice: {verdict:?}");
        held.settled = true;
        assert_eq!(verdict.settle.is_none(), held.acked, "{verdict:?}");
        if held.acked && !held.started {
            assert!(self.cold && verdict.publish.is_some(), "lost by a shutdown: {verdict:?}");
            self.end.returned += 1;
        }
        assert!(verdict.publish.is_none() || held.acked, "sent again, and still here");
        let ignored = held.task.as_deref() == Some("ignored");
        let is_final = matches!(verdict.settle, Some(Settle::Ack)) && (held.started || !early);
        if is_final && !ignored {
            let record = verdict.record.as_ref().expect("an end that nobody hears of");
            assert!(record.state.is_ready());
        }
        // The core has no clock of its own.
        let times = verdict.record.as_ref().map(|record| record.date_done);
        assert!(times.is_none_or(|at| at == self.wall()), "{verdict:?}");
        if ignored && !self.policy.store_errors {
            assert!(verdict.record.is_none(), "a result that nobody wants: {verdict:?}");
        }
        self.orders.push_back((key, tag, verdict));
    }
}

/// Messages carry microseconds.
fn whole(at: DateTime<Utc>) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(at.timestamp_micros()).unwrap()
}

/// Is it known from now on that it runs?
fn is_start(verdict: &Verdict) -> bool {
    verdict.record.as_ref().is_some_and(|record| record.state == State::Started)
}

fn row(tag: Tag) -> i64 {
    let Tag::Row(row) = tag;
    row
}
