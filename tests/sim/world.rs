//! A world around `worker::core`: a broker, a consumer, a settler and a pool without I/O, on a clock
//! of its own, driven by one seed. After each step it checks what must always hold.

use super::broker::{Broker, Place};
use chrono::{DateTime, Utc};
use fastrand::Rng;
use qworker::broker::{Settle, Tag, Want};
use qworker::client::send::{Routing, Sender};
use qworker::clock;
use qworker::config::routes::Routes;
use qworker::os::signal::WorkerSignal;
use qworker::runner::{Attempt, CancelReason, Ending, Outcome, TimeLimit};
use qworker::task::load::{File, TaskFileKind, load};
use qworker::task::set::Set;
use qworker::wire::{BodyFormat, TaskState};
use qworker::worker::core::{Core, Effect, Event, Now};
use qworker::worker::demand::ConsumerAction::{Close, Take};
use qworker::worker::demand::Demand;
use qworker::worker::plan::{Autoscale, Plan, Policy};
use qworker::worker::verdict::Verdict;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

const TASKS: &str = "
late: {shell: x, retry_backoff: 1, max_retries: 2}
early: {shell: x, acks_late: false, max_retries: 2}
rated: {shell: x, rate_limit: 20/s, max_retries: 0}
picky: {shell: x, params: [a]}
tiny: {wasm: x.wat, export: run}
";

/// How many items a map has at most.
pub const ITEMS_MAX: usize = 4;

/// How many times the tasks above are retried at most.
pub const RETRIES_MAX: usize = 2;

/// An attempt that runs.
struct Running {
    ends: f64,
    took: f64,
    row: usize,
    cancelled: Option<CancelReason>,
    asked: bool,
}

/// See the module.
pub struct World {
    pub rng: Rng,
    pub now: f64,
    epoch: (Instant, DateTime<Utc>),
    pub plan: Arc<Plan>,
    core: Core,
    pub broker: Broker,
    running: BTreeMap<u64, Running>,
    /// Attempts that wait for a thread: keys and messages.
    waiting: VecDeque<(u64, usize)>,
    /// Attempts that have ended before they began.
    given_up: Vec<(u64, CancelReason)>,
    /// How many attempts were recalled before they began.
    pub recalled: usize,
    orders: Vec<(u64, Tag, Verdict)>,
    settled_at: Option<f64>,
    demand: Demand,
    taking: Option<(f64, u64, Want)>,
    ticks_at: f64,
    pub shutting: bool,
    pub exit: Option<u8>,
    /// Results by task id, as a store would keep them.
    pub results: HashMap<String, TaskState>,
    /// Draws how an attempt ends.
    pub fate: fn(&mut Rng) -> (Ending, Option<TimeLimit>),
    /// How long a task, the settler or the broker takes at most.
    pub slowness: [f64; 3],
    /// The host is short of something: nothing may be taken.
    short: bool,
    /// When the leftovers of earlier attempts are dead, for each request that waits for that.
    clearing: Vec<(f64, u64)>,
    /// What the worker logged, and when.
    pub said: Vec<(f64, String)>,
    /// What happened, for the message of a failure.
    pub story: Vec<String>,
}

impl World {
    pub fn new(seed: u64, slots: usize) -> World {
        let files = [File { path: "t.yaml".into(), content: TaskFileKind::Yaml(TASKS.into()) }];
        let (tasks, faults) = load(&files, Path::new("tasks.d"), &|_| true);
        assert!(faults.is_empty(), "{faults:?}");
        let plan = Arc::new(Plan {
            soft_shutdown: Some(Duration::from_secs(5)),
            hostname: "w@sim".into(),
            app: "/".into(),
            pid: 1,
            broker: String::new(),
            slots,
            autoscale: None,
            pressure: Default::default(),
            queues: vec!["celery".into()],
            tasks: Arc::new(Set::new(tasks)),
            policy: Policy::default(),
            chatty: false,
            wasm_cache: "/".into(),
            wasm_memory: 0,
            wasm_compile_timeout: Duration::ZERO,
            result_expires: None,
            routing: Routing {
                sender: Sender::new("sim", BodyFormat::default()),
                abilities: qworker::broker::sqlite::ABILITIES,
                routes: Routes::default(),
                default_queue: "celery".into(),
                default_priority: None,
            },
            chords: qworker::canvas::Chords::Polled,
        });
        World {
            rng: Rng::with_seed(seed),
            now: 0.0,
            epoch: (Instant::now(), clock::now()),
            core: Core::new(plan.clone()),
            plan,
            broker: Broker::default(),
            running: BTreeMap::new(),
            waiting: VecDeque::new(),
            given_up: Vec::new(),
            recalled: 0,
            orders: Vec::new(),
            settled_at: None,
            demand: Demand::default(),
            taking: None,
            ticks_at: 0.0,
            shutting: false,
            exit: None,
            results: HashMap::new(),
            fate: |_| (Ending::Exited(0), None),
            slowness: [0.05, 0.02, 0.01],
            short: false,
            clearing: Vec::new(),
            said: Vec::new(),
            story: vec![format!("seed {seed}, {slots} slots")],
        }
    }

    /// The same with autoscaling.
    pub fn scaling(seed: u64, min: usize, max: usize, keepalive: Duration) -> World {
        let world = World::new(seed, max);
        let autoscale = Some(Autoscale { min, keepalive });
        let plan = Arc::new(Plan { autoscale, ..(*world.plan).clone() });
        World { core: Core::new(plan.clone()), plan, ..world }
    }

    /// The host becomes short of something, or no longer is.
    pub fn host(&mut self, shortage: Option<String>) {
        self.short = shortage.is_some();
        self.happen(vec![Event::Host(shortage)]);
    }

    /// Lets this much time pass.
    pub fn pass(&mut self, seconds: f64) {
        let until = self.now + seconds;
        while self.now < until && self.step() {}
        self.now = self.now.max(until);
    }

    /// Attempts that run.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    pub fn wall(&self, at: f64) -> DateTime<Utc> {
        self.epoch.1 + Duration::from_secs_f64(at.max(0.0))
    }

    fn seconds(&self, at: DateTime<Utc>) -> f64 {
        seconds(self.epoch.1, at)
    }

    fn clock(&mut self) -> Now {
        let mono = self.epoch.0 + Duration::from_secs_f64(self.now);
        Now { mono, wall: self.wall(self.now), random: self.rng.f64() }
    }

    /// Begins: the worker asks for messages.
    pub fn begin(&mut self) {
        let mut effects = Vec::new();
        let now = self.clock();
        self.core.plan_ahead(now, &mut effects);
        self.perform(effects);
    }

    /// Gives the worker these events and performs its effects.
    pub fn happen(&mut self, events: Vec<Event>) {
        let (now, mut effects) = (self.clock(), Vec::new());
        for event in events {
            self.story.push(format!("{:.4} {}", self.now, brief(&event)));
            self.core.on(event, now, &mut effects);
        }
        self.core.plan_ahead(now, &mut effects);
        let has_company = self.core.hurries() || self.core.snapshot().running > 0;
        assert!(has_company, "outcomes wait for others, and none run");
        self.perform(effects);
    }

    /// A signal from outside.
    pub fn signal(&mut self, meaning: WorkerSignal) {
        self.shutting = true;
        self.happen(vec![Event::Signal(meaning)]);
    }

    /// The worker dies, and another one begins. What it held comes back, counted.
    pub fn crash(&mut self) {
        self.story.push(format!("{:.4} CRASH", self.now));
        self.core = Core::new(self.plan.clone());
        self.running.clear();
        self.waiting.clear();
        self.given_up.clear();
        self.orders.clear();
        (self.settled_at, self.taking, self.demand) = (None, None, Demand::default());
        self.clearing.clear();
        self.broker.left = Arc::default();
        self.broker.lose(self.now);
        self.begin();
    }

    /// The connection is lost for so long that the worker counts as dead, and comes back.
    pub fn cut_off(&mut self) {
        let tags = self.broker.lose(self.now);
        self.happen(vec![Event::Forfeited(tags)]);
    }

    /// Lets the next thing happen; `false` when nothing ever will.
    pub fn step(&mut self) -> bool {
        if let Some((key, why)) = self.given_up.pop() {
            let outcome = Outcome::immediate(Ending::Cancelled(why));
            self.happen(vec![Event::Ended(key, Box::new(outcome))]);
            return true;
        }
        self.look_for_work();
        let ended = self.running.values().map(|one| one.ends).min_by(f64::total_cmp);
        let tick = self.core.needs_ticks().then_some(self.ticks_at.max(self.now));
        let waits = self.taking.is_none() && matches!(self.demand.next(), Take(..));
        let due = waits.then(|| self.broker.next_due(self.now)).flatten();
        let taken = self.taking.map(|(at, ..)| at);
        let cleared = self.clearing.iter().map(|(at, _)| *at).min_by(f64::total_cmp);
        let times = [ended, self.settled_at, taken, tick, due, cleared];
        let Some(next) = times.into_iter().flatten().min_by(f64::total_cmp) else { return false };
        self.now = next.max(self.now);
        if ended == Some(next) {
            self.end_one(next);
        } else if self.settled_at == Some(next) {
            self.settle();
        } else if taken == Some(next) {
            self.deliver();
        } else if cleared == Some(next) {
            let done = self.clearing.extract_if(.., |(at, _)| *at <= next);
            let done = done.map(|(_, key)| key).collect();
            self.happen(vec![Event::Cleared(done)]);
        } else if tick == Some(next) {
            self.ticks_at = self.now + 0.1;
            self.happen(vec![Event::Tick]);
        }
        true
    }

    fn is_closing(&self) -> bool {
        self.demand.next() == Close
    }

    fn look_for_work(&mut self) {
        if self.taking.is_some() {
            return;
        }
        match self.demand.next() {
            Close if self.orders.is_empty() && self.exit.is_none() => {
                self.broker.close(self.now);
                self.happen(vec![Event::Closed]);
            }
            Take(number, want) if self.broker.has_work(self.now, want.slots > 0) => {
                let at = self.now + self.rng.f64() * self.slowness[2];
                self.taking = Some((at, number, want));
            }
            _ => {}
        }
    }

    fn deliver(&mut self) {
        let Some((_, number, want)) = self.taking.take() else { return };
        let taken = self.broker.take(want, self.now);
        if !taken.is_empty() {
            self.demand.fulfil(number);
            self.happen(vec![Event::Delivered(taken)]);
        }
    }

    fn end_one(&mut self, at: f64) {
        let key = *self.running.iter().find(|(_, one)| one.ends == at).unwrap().0;
        let one = self.running.remove(&key).unwrap();
        if let Some((key, row)) = self.waiting.pop_front() {
            self.begin_tiny(key, row);
        }
        let (ending, limit) = match one.cancelled {
            Some(why) => (Ending::Cancelled(why), None),
            None => (self.fate)(&mut self.rng),
        };
        let runtime = Duration::from_secs_f64(one.took);
        let outcome = Outcome { limit, runtime, asked: one.asked, ..Outcome::immediate(ending) };
        self.happen(vec![Event::Ended(key, Box::new(outcome))]);
    }

    /// The settler is done with all that was ordered before.
    fn settle(&mut self) {
        self.settled_at = None;
        let (mut settled, mut lost) = (Vec::new(), Vec::new());
        for (key, tag, verdict) in std::mem::take(&mut self.orders) {
            let row = verdict.settle.as_ref().and_then(|_| self.broker.held(tag));
            if verdict.settle.is_some() && row.is_none() {
                lost.push(key);
                continue;
            }
            settled.push(key);
            if let Some(record) = &verdict.record {
                self.results.insert(record.task_id.clone(), record.state);
            }
            for posting in verdict.publish {
                let due = posting.eta.map_or(0.0, |eta| self.seconds(eta));
                self.broker.post(posting.task_id, posting.payload, due);
            }
            if let (Some(row), Some(settle)) = (row, verdict.settle) {
                let epoch = self.epoch.1;
                self.broker.settle(row, settle, |time| seconds(epoch, time));
            }
        }
        self.happen(vec![Event::Settled(settled)]);
        if !lost.is_empty() {
            self.happen(vec![Event::Lost(lost)]);
        }
    }

    fn perform(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            assert!(
                !self.is_closing()
                    || matches!(effect, Effect::Exit(_) | Effect::Log(..) | Effect::LogAbout(..)),
                "after the close: {effect:?}"
            );
            match effect {
                Effect::Want { number, want } => {
                    assert!(!self.shutting || want == Want::default(), "{want:?} in a shutdown");
                    assert!(!self.short || want == Want::default(), "{want:?} in a shortage");
                    self.demand.set(Some((number, want)));
                }
                Effect::Start(key, attempt) => self.start(key, &attempt),
                Effect::Ask(k) if self.is_waiting(k) => self.give_up(k, CancelReason::Shutdown),
                Effect::Stop(key, why) if self.is_waiting(key) => self.give_up(key, why),
                Effect::Recall => {
                    for (key, _) in self.waiting.clone() {
                        self.recalled += 1;
                        self.give_up(key, CancelReason::Recalled);
                    }
                }
                Effect::Ask(key) => {
                    let one = self.running.get_mut(&key).expect("what is asked runs");
                    one.asked = true;
                    // Some obey, and some do not care.
                    if self.rng.bool() {
                        one.ends = one.ends.min(self.now + self.rng.f64() * 0.5);
                    }
                }
                Effect::Stop(key, why) => {
                    let one = self.running.get_mut(&key).expect("what is stopped runs");
                    one.cancelled = Some(why);
                    one.ends = self.now + self.rng.f64() * 0.01;
                }
                Effect::Settle(key, tag, verdict) => self.order(key, tag, *verdict),
                Effect::Sort(names) => self.broker.left = names.left,
                Effect::Clear(key, _) => {
                    self.clearing.push((self.now + self.rng.f64() * 0.1, key));
                }
                Effect::Store(..) | Effect::StoreState(..) | Effect::Send(..) => {}
                Effect::Answer(reply, answer) => reply.send(answer),
                Effect::Log(_, line) | Effect::LogAbout(_, _, line) => {
                    self.said.push((self.now, line))
                }
                Effect::Close => {
                    assert!(self.running.is_empty(), "closed while tasks run");
                    assert!(self.orders.is_empty(), "closed while something is to be settled");
                    self.demand.set(None);
                }
                // No file ever changes here.
                Effect::ReadTasks | Effect::Expire => {}
                Effect::Exit(code) => self.exit = Some(code),
            }
        }
    }

    fn start(&mut self, key: u64, attempt: &Attempt) {
        let row = self.broker.row_of(&attempt.id);
        if !attempt.task.program.is_process() {
            self.waiting.push_back((key, row));
            if self.running.len() < self.plan.slots {
                let (key, row) = self.waiting.pop_front().unwrap();
                self.begin_tiny(key, row);
            }
            return;
        }
        let early = attempt.task.acks_late == Some(false);
        let letter = &mut self.broker.letters[row];
        letter.starts += 1;
        match early {
            true => assert_eq!(letter.place, Place::Gone, "{}: not acknowledged yet", letter.id),
            false => {
                assert_eq!(letter.place, Place::Held, "{}: whose is it?", letter.id);
                assert!(!letter.ordered, "{}: settled before its start", letter.id);
                assert!(letter.counts, "{}: a suspect starts unmarked", letter.id);
            }
        }
        let twice = self.running.values().any(|one| one.row == row);
        assert!(!twice, "{} runs twice at once", letter.id);
        let took = self.rng.f64() * self.slowness[0];
        self.run(key, row, took);
    }

    fn run(&mut self, key: u64, row: usize, took: f64) {
        let ends = self.now + took;
        let one = Running { ends, took, row, cancelled: None, asked: false };
        assert!(self.running.insert(key, one).is_none(), "the key {key} runs already");
        assert!(self.running.len() <= self.plan.slots, "more than {} at once", self.plan.slots);
    }

    /// A thread begins an attempt. Mostly it is tiny.
    fn begin_tiny(&mut self, key: u64, row: usize) {
        let letter = &mut self.broker.letters[row];
        letter.starts += 1;
        assert_eq!(letter.place, Place::Held, "{}: whose is it?", letter.id);
        assert!(letter.counts, "{}: a suspect starts unmarked", letter.id);
        let most = if self.rng.u8(0..40) == 0 { 2.0 } else { 0.0001 };
        let took = self.rng.f64() * most;
        self.run(key, row, took);
    }

    fn is_waiting(&self, key: u64) -> bool {
        self.waiting.iter().any(|(other, _)| *other == key)
    }

    /// An attempt ends that waits for a thread.
    fn give_up(&mut self, key: u64, why: CancelReason) {
        let at = self.waiting.iter().position(|(other, _)| *other == key).unwrap();
        self.waiting.remove(at);
        self.given_up.push((key, why));
    }

    fn order(&mut self, key: u64, tag: Tag, verdict: Verdict) {
        let is_final = !matches!(verdict.settle, None | Some(Settle::Mark));
        if is_final && let Some(row) = self.broker.held(tag) {
            let letter = &mut self.broker.letters[row];
            assert!(!letter.ordered, "{} settled twice", letter.id);
            letter.ordered = true;
            let runs = self.running.values().any(|one| one.row == row);
            assert!(!runs, "{} settled while it runs", letter.id);
        }
        self.orders.push((key, tag, verdict));
        let at = self.now + self.rng.f64() * self.slowness[1];
        self.settled_at.get_or_insert(at);
    }
}

fn seconds(epoch: DateTime<Utc>, at: DateTime<Utc>) -> f64 {
    (at - epoch).num_microseconds().unwrap() as f64 / 1e6
}

fn brief(event: &Event) -> String {
    match event {
        Event::Delivered(all) => {
            let tags: Vec<_> = all.iter().map(|one| (one.tag, one.deliveries)).collect();
            format!("delivered {tags:?}")
        }
        Event::Ended(key, outcome) => format!("ended {key}: {:?}", outcome.ending),
        other => format!("{other:?}"),
    }
}
