//! A world around `worker::core`: a broker, a settler and a pool without I/O, on a clock of
//! its own, driven by one seed. It checks after each step what must never be otherwise.

use fastrand::Rng;
use qworker::broker::{Delivery, Settle, Tag, Want};
use qworker::clock;
use qworker::os::signal::Meaning;
use qworker::runner::{Attempt, Ending, Limit, Outcome};
use qworker::task::load::{Content, File, load};
use qworker::task::set::Set;
use qworker::wire::{Draft, Payload, State};
use qworker::worker::core::{Core, Effect, Event, Now};
use qworker::worker::finish::Verdict;
use qworker::worker::plan::{Autoscale, Plan, Policy};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

const TASKS: &str = "
late: {shell: x, retry_backoff: 1, max_retries: 2}
early: {shell: x, acks_late: false, max_retries: 2}
rated: {shell: x, rate_limit: 20/s, max_retries: 0}
picky: {shell: x, params: [a]}
";

/// Retries of the tasks above at the most.
pub const RETRIES_MAX: usize = 2;

/// Where a message is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Place {
    /// Waits, not before this time.
    Queue(f64),
    /// With the worker.
    Held,
    /// Acknowledged.
    Gone,
    /// In the dead-letter list.
    Dead(&'static str),
}

/// A message of the broker and its history.
#[derive(Debug)]
pub struct Letter {
    pub id: String,
    payload: Payload,
    pub place: Place,
    pub deliveries: u32,
    /// It was lost before: it counts from its marked start on.
    suspect: bool,
    /// Held, and its loss would count.
    counts: bool,
    /// An order to settle this delivery was given.
    ordered: bool,
    /// Attempts that began.
    pub starts: usize,
}

/// An attempt that runs.
struct Running {
    ends: f64,
    row: usize,
    cancelled: bool,
    asked: bool,
}

/// See the module.
pub struct World {
    pub rng: Rng,
    pub now: f64,
    epoch: (Instant, chrono::DateTime<chrono::Utc>),
    pub plan: Arc<Plan>,
    core: Core,
    pub letters: Vec<Letter>,
    by_id: HashMap<String, usize>,
    running: BTreeMap<u64, Running>,
    orders: Vec<(u64, Tag, Verdict)>,
    settled_at: Option<f64>,
    want: Option<(u64, Want)>,
    done: Option<u64>,
    taking: Option<(f64, u64, Want)>,
    ticks_at: f64,
    closing: bool,
    pub shutting: bool,
    pub exit: Option<u8>,
    /// Results by task id, as a store would keep them.
    pub results: HashMap<String, State>,
    /// How tasks end, drawn for each attempt.
    pub fate: fn(&mut Rng) -> (Ending, Option<Limit>),
    /// The longest time that a task, the settler or the broker takes.
    pub slowness: [f64; 3],
    /// The host is short: nothing may be taken.
    short: bool,
    /// What is left to others.
    left: Arc<[Arc<str>]>,
    /// Tasks whose earlier attempts are looked for, until then.
    clearing: Vec<(f64, u64)>,
    /// What the worker said, and when.
    pub said: Vec<(f64, String)>,
    /// What happened, for a failure's message.
    pub story: Vec<String>,
}

impl World {
    pub fn new(seed: u64, slots: usize) -> World {
        let files = [File { path: "t.yaml".into(), content: Content::Yaml(TASKS.into()) }];
        let (tasks, faults) = load(&files, Path::new("tasks.d"), &|_| true);
        assert!(faults.is_empty(), "{faults:?}");
        let plan = Arc::new(Plan {
            soft_shutdown: Some(Duration::from_secs(5)),
            hostname: "w@sim".into(),
            app: "/".into(),
            broker: String::new(),
            slots,
            autoscale: None,
            admission: Default::default(),
            queues: vec!["celery".into()],
            tasks: Arc::new(Set::new(tasks)),
            policy: Policy::default(),
            chatty: false,
            wasm_cache: "/".into(),
            wasm_memory: 0,
            wasm_compile_timeout: Duration::ZERO,
            result_expires: None,
        });
        World {
            rng: Rng::with_seed(seed),
            now: 0.0,
            epoch: (Instant::now(), clock::now()),
            core: Core::new(plan.clone()),
            plan,
            letters: Vec::new(),
            by_id: HashMap::new(),
            running: BTreeMap::new(),
            orders: Vec::new(),
            settled_at: None,
            want: None,
            done: None,
            taking: None,
            ticks_at: 0.0,
            closing: false,
            shutting: false,
            exit: None,
            results: HashMap::new(),
            fate: |_| (Ending::Exited(0), None),
            slowness: [0.05, 0.02, 0.01],
            short: false,
            left: Arc::default(),
            clearing: Vec::new(),
            said: Vec::new(),
            story: vec![format!("seed {seed}, {slots} slots")],
        }
    }

    /// The same with slots that follow the work.
    pub fn scaling(seed: u64, min: usize, max: usize, keepalive: Duration) -> World {
        let world = World::new(seed, max);
        let autoscale = Some(Autoscale { min, keepalive });
        let plan = Arc::new(Plan { autoscale, ..(*world.plan).clone() });
        World { core: Core::new(plan.clone()), plan, ..world }
    }

    /// The host becomes short of something, or has enough again.
    pub fn host(&mut self, shortage: Option<String>) {
        self.short = shortage.is_some();
        self.happen(vec![Event::Host(shortage)]);
    }

    /// Nothing happens for so long, but what time brings.
    pub fn pass(&mut self, seconds: f64) {
        let until = self.now + seconds;
        while self.now < until && self.step() {}
        self.now = self.now.max(until);
    }

    /// Attempts that run.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// Sends a call of `task`, `eta` and `expires` in seconds from now.
    pub fn send(&mut self, task: &str, eta: Option<f64>, expires: Option<f64>) {
        let id = format!("{task}-{}", self.letters.len());
        let at = |seconds: f64| self.wall(self.now + seconds);
        let draft = Draft {
            task: task.into(),
            id: id.clone(),
            queue: "celery".into(),
            eta: eta.map(at),
            expires: expires.map(at),
            ..Draft::default()
        };
        let payload = draft.encode(0, at(0.0));
        self.post(id, payload, eta.map_or(0.0, |eta| self.now + eta));
    }

    /// Sends text that is no message.
    pub fn send_nonsense(&mut self) {
        let id = format!("nonsense-{}", self.letters.len());
        self.post(id, Payload::from_envelope("{"), 0.0);
    }

    fn post(&mut self, id: String, payload: Payload, due: f64) {
        let place = Place::Queue(due);
        self.letters.push(Letter {
            id,
            payload,
            place,
            deliveries: 0,
            suspect: false,
            counts: false,
            ordered: false,
            starts: 0,
        });
    }

    fn wall(&self, at: f64) -> chrono::DateTime<chrono::Utc> {
        self.epoch.1 + Duration::from_secs_f64(at.max(0.0))
    }

    fn seconds(&self, at: chrono::DateTime<chrono::Utc>) -> f64 {
        (at - self.epoch.1).num_microseconds().unwrap() as f64 / 1e6
    }

    fn clock(&mut self) -> Now {
        let mono = self.epoch.0 + Duration::from_secs_f64(self.now);
        Now { mono, wall: self.wall(self.now), random: self.rng.f64() }
    }

    /// Begins: the worker says what it wants.
    pub fn begin(&mut self) {
        let mut effects = Vec::new();
        self.core.plan_ahead(&mut effects);
        self.perform(effects);
    }

    /// Gives the worker these events, and does what it says.
    pub fn happen(&mut self, events: Vec<Event>) {
        let (now, mut effects) = (self.clock(), Vec::new());
        for event in events {
            self.story.push(format!("{:.4} {}", self.now, brief(&event)));
            self.core.on(event, now, &mut effects);
        }
        self.core.plan_ahead(&mut effects);
        let has_company = self.core.hurries() || self.core.snapshot().running > 0;
        assert!(has_company, "outcomes wait for others, and none run");
        self.perform(effects);
    }

    /// A signal from outside.
    pub fn signal(&mut self, meaning: Meaning) {
        self.shutting = true;
        self.happen(vec![Event::Signal(meaning)]);
    }

    /// The worker dies, and another one begins. What it held comes back, counted.
    pub fn crash(&mut self) {
        self.story.push(format!("{:.4} CRASH", self.now));
        self.core = Core::new(self.plan.clone());
        self.running.clear();
        self.orders.clear();
        (self.settled_at, self.want, self.done, self.taking) = (None, None, None, None);
        self.left = Arc::default();
        self.clearing.clear();
        for letter in self.letters.iter_mut().filter(|letter| letter.place == Place::Held) {
            letter.place = Place::Queue(self.now);
            letter.deliveries += u32::from(letter.counts);
            letter.suspect = true;
            letter.ordered = false;
        }
        self.begin();
    }

    /// Lets the next thing happen; `false` when nothing ever will.
    pub fn step(&mut self) -> bool {
        self.look_for_work();
        let ended = self.running.values().map(|one| one.ends).min_by(f64::total_cmp);
        let tick = self.core.needs_ticks().then_some(self.ticks_at.max(self.now));
        let waits = self.want.is_some_and(|(turn, want)| {
            want != Want::default() && self.done != Some(turn) && self.taking.is_none()
        });
        let dues = self.letters.iter().filter_map(|letter| match letter.place {
            Place::Queue(due) if waits && due > self.now && fits(letter, due, true, &self.left) => {
                Some(due)
            }
            _ => None,
        });
        let due = dues.min_by(f64::total_cmp);
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
            let (done, left) = self.clearing.drain(..).partition(|(at, _)| *at <= next);
            self.clearing = left;
            let done: Vec<(f64, u64)> = done;
            self.happen(vec![Event::Cleared(done.into_iter().map(|(_, key)| key).collect())]);
        } else if tick == Some(next) {
            self.ticks_at = self.now + 0.1;
            self.happen(vec![Event::Tick]);
        }
        true
    }

    fn look_for_work(&mut self) {
        if self.closing && self.taking.is_none() && self.orders.is_empty() && self.exit.is_none() {
            for letter in self.letters.iter_mut().filter(|letter| letter.place == Place::Held) {
                letter.place = Place::Queue(self.now);
            }
            return self.happen(vec![Event::Closed]);
        }
        let Some((turn, want)) = self.want else { return };
        if self.taking.is_some() || want == Want::default() || self.done == Some(turn) {
            return;
        }
        let now = self.now;
        if self.letters.iter().any(|letter| fits(letter, now, want.slots > 0, &self.left)) {
            let at = now + self.rng.f64() * self.slowness[2];
            self.taking = Some((at, turn, want));
        }
    }

    fn deliver(&mut self) {
        let Some((_, turn, want)) = self.taking.take() else { return };
        let mut taken = Vec::new();
        for (limit, suspects) in [(want.slots, true), (want.slots + want.ahead, false)] {
            for (row, letter) in self.letters.iter_mut().enumerate() {
                if taken.len() < limit && fits(letter, self.now, suspects, &self.left) {
                    letter.place = Place::Held;
                    letter.ordered = false;
                    letter.counts = !letter.suspect;
                    taken.push(Delivery {
                        tag: Tag::Row(row as i64),
                        queue: "celery".into(),
                        payload: letter.payload.clone(),
                        deliveries: letter.deliveries,
                        suspect: letter.suspect,
                        revoked: None,
                    });
                    self.by_id.insert(letter.id.clone(), row);
                }
            }
        }
        if !taken.is_empty() {
            self.done = Some(turn);
            self.happen(vec![Event::Delivered(taken)]);
        }
    }

    fn end_one(&mut self, at: f64) {
        let key = *self.running.iter().find(|(_, one)| one.ends == at).unwrap().0;
        let one = self.running.remove(&key).unwrap();
        let (ending, limit) = match one.cancelled {
            true => (Ending::Cancelled, None),
            false => (self.fate)(&mut self.rng),
        };
        let runtime = Duration::from_secs_f64(self.rng.f64() * self.slowness[0]);
        let outcome = Outcome { limit, runtime, asked: one.asked, ..Outcome::immediate(ending) };
        self.happen(vec![Event::Ended(key, Box::new(outcome))]);
    }

    /// The settler is done with all that was ordered before.
    fn settle(&mut self) {
        self.settled_at = None;
        let mut keys = Vec::new();
        for (key, tag, verdict) in std::mem::take(&mut self.orders) {
            let Tag::Row(row) = tag else { panic!("{tag:?}") };
            keys.push(key);
            if let Some(record) = &verdict.record {
                self.results.insert(record.task_id.clone(), record.state);
            }
            if let Some(posting) = verdict.publish {
                let due = posting.eta.map_or(0.0, |eta| self.seconds(eta));
                self.post(posting.task_id, posting.payload, due);
            }
            let at = |time| self.seconds(time);
            let place = match verdict.settle {
                None => continue,
                Some(Settle::Ack) => (Place::Gone, 0),
                Some(Settle::Mark) => {
                    self.letters[row as usize].counts = true;
                    (Place::Held, 0)
                }
                Some(Settle::Release) => (Place::Queue(0.0), 0),
                Some(Settle::Pass(name)) => {
                    assert!(self.left.iter().any(|left| **left == *name), "{name} comes again");
                    (Place::Queue(0.0), 0)
                }
                Some(Settle::Park(until)) => (Place::Queue(at(until)), 0),
                Some(Settle::Redeliver(until)) => (Place::Queue(at(until)), 1),
                Some(Settle::Dead(death)) => (Place::Dead(death.reason), 0),
                Some(Settle::Replace(ref payload, due)) => {
                    let place = Place::Queue(at(due));
                    let letter = &mut self.letters[row as usize];
                    letter.payload.clone_from(payload);
                    letter.deliveries = 0;
                    letter.suspect = false;
                    (place, 0)
                }
            };
            let letter = &mut self.letters[row as usize];
            assert_eq!(letter.place, Place::Held, "{} settled, but not held", letter.id);
            letter.place = place.0;
            letter.deliveries += place.1;
            letter.suspect |= place.1 > 0;
        }
        self.happen(vec![Event::Settled(keys)]);
    }

    fn perform(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            assert!(
                !self.closing
                    || matches!(effect, Effect::Exit(_) | Effect::Log(..) | Effect::LogAbout(..)),
                "after the close: {effect:?}"
            );
            match effect {
                Effect::Want { turn, want } => {
                    assert!(!self.shutting || want == Want::default(), "{want:?} in a shutdown");
                    assert!(!self.short || want == Want::default(), "{want:?} in a shortage");
                    self.want = Some((turn, want));
                }
                Effect::Start(key, attempt) => self.start(key, &attempt),
                Effect::Ask(key) => {
                    let one = self.running.get_mut(&key).expect("what is asked runs");
                    one.asked = true;
                    // Some obey, and some do not care.
                    if self.rng.bool() {
                        one.ends = one.ends.min(self.now + self.rng.f64() * 0.5);
                    }
                }
                Effect::Stop(key) => {
                    let one = self.running.get_mut(&key).expect("what is stopped runs");
                    one.cancelled = true;
                    one.ends = self.now + self.rng.f64() * 0.01;
                }
                Effect::Settle(key, tag, verdict) => self.order(key, tag, *verdict),
                Effect::Sort(names) => self.left = names.left,
                Effect::Clear(key, _) => {
                    self.clearing.push((self.now + self.rng.f64() * 0.1, key));
                }
                Effect::Store(..) => {}
                Effect::Log(_, line) | Effect::LogAbout(_, _, line) => {
                    self.said.push((self.now, line))
                }
                Effect::Close => {
                    assert!(self.running.is_empty(), "closed while tasks run");
                    assert!(self.orders.is_empty(), "closed while something is to be settled");
                    self.closing = true;
                }
                // No file ever changes here.
                Effect::ReadTasks => {}
                Effect::Exit(code) => self.exit = Some(code),
            }
        }
    }

    fn start(&mut self, key: u64, attempt: &Attempt) {
        let row = self.by_id[&attempt.id];
        let early = attempt.task.acks_late == Some(false);
        let letter = &mut self.letters[row];
        letter.starts += 1;
        match early {
            true => assert_eq!(letter.place, Place::Gone, "{}: not acknowledged yet", letter.id),
            false => {
                assert_eq!(letter.place, Place::Held, "{}: whose is it?", letter.id);
                assert!(!letter.ordered, "{}: settled before its start", letter.id);
                assert!(letter.counts, "{}: a suspect starts unmarked", letter.id);
            }
        }
        let ends = self.now + self.rng.f64() * self.slowness[0];
        let before =
            self.running.insert(key, Running { ends, row, cancelled: false, asked: false });
        assert!(before.is_none(), "the key {key} runs already");
        assert!(self.running.len() <= self.plan.slots, "more than {} at once", self.plan.slots);
    }

    fn order(&mut self, key: u64, tag: Tag, verdict: Verdict) {
        let Tag::Row(row) = tag else { panic!("{tag:?}") };
        if verdict.settle.as_ref().is_some_and(|settle| !matches!(settle, Settle::Mark)) {
            let letter = &mut self.letters[row as usize];
            assert!(!letter.ordered, "{} settled twice", letter.id);
            assert_eq!(letter.place, Place::Held, "{} settled, but not held", letter.id);
            letter.ordered = true;
            let runs = self.running.values().any(|one| one.row == row as usize);
            assert!(!runs, "{} settled while it runs", letter.id);
        }
        self.orders.push((key, tag, verdict));
        let at = self.now + self.rng.f64() * self.slowness[1];
        self.settled_at.get_or_insert(at);
    }
}

fn fits(letter: &Letter, now: f64, suspects: bool, left: &[Arc<str>]) -> bool {
    if left.iter().any(|name| letter.id.rsplit_once('-').is_some_and(|(task, _)| *task == **name)) {
        return false;
    }
    let due = matches!(letter.place, Place::Queue(due) if due <= now);
    due && (suspects || !letter.suspect)
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
