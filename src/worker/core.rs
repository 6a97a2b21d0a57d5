//! DECIDE: everything the worker ever decides is decided here, from an event and the
//! time. Nothing is performed; what is wanted comes out as effects.

pub use super::event::{Effect, Event, Now, Snapshot};

use super::autoscale::{Change, Scale};
use super::doubt::{self, Doubts};
use super::finish::{self, Verdict};
use super::names::{Learned, Names, Rounds};
use super::plan::{Plan, Unregistered};
use super::refusal::{self, kept, kept_of, settle_only};
use super::request::{Key, Request, about, label};
use super::room::Room;
use super::signals::{self, Action, State};
use super::withheld::Withheld;
use crate::bounds;
use crate::broker::{Delivery, Settle, Sorting, Tag, Want};
use crate::log::escape;
use crate::os::signal::Meaning;
use crate::runner::{Ending, Outcome};
use crate::task::set::Set;
use crate::task::{Program, bind, rate};
use crate::wire::{self, Exception, Malformed, Message, Record};
use chrono::{DateTime, Utc};
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::Level;

/// Requests that are being settled at the most before nothing new is taken: a store
/// that is slower than the tasks must slow them down.
const SETTLING_MAX: usize = 1024;

/// Work is taken ahead for so long, as far as the pace of the last tasks tells.
const AHEAD: Duration = Duration::from_millis(20);

/// What was taken ahead and found no slot for so long is given back to whoever has one.
const AHEAD_MAX_WAIT: Duration = Duration::from_millis(200);

/// A cold shutdown waits for its broker for so long.
const COLD_MAX: Duration = Duration::from_secs(5);

/// A warm shutdown that only waits for its stores waits for so long after their last answer: what
/// is not settled then is handed out again, and whoever wants the end has his end.
const SETTLE_MAX: Duration = Duration::from_secs(10);

/// EX_UNAVAILABLE of sysexits.h: the end of a worker that could not settle what it had done.
const EX_UNAVAILABLE: u8 = 69;

/// Definitions are not read more often, however many tasks nobody knows.
const READ_TASKS_EVERY: Duration = Duration::from_millis(500);

/// Outcomes wait for company until one in so many slots is held by them.
const COMPANY: usize = 3;

/// The worker's state; see the module.
pub struct Core {
    plan: Arc<Plan>,
    tasks: Arc<Set>,
    /// When they were asked for again.
    asked: Option<Instant>,
    state: State,
    /// When the next state is entered by itself.
    deadline: Option<Instant>,
    exit: u8,
    /// It drains to be started anew.
    restarting: bool,
    running: HashMap<Key, Request>,
    /// Of those, the ends that wait for their reason.
    doubts: Doubts,
    ready: VecDeque<Request>,
    /// Acknowledged or marked first: run when that is done.
    acking: HashMap<Key, Request>,
    /// What earlier attempts have left is looked for first: run when that is done.
    clearing: HashMap<Key, Request>,
    settling: HashSet<Key>,
    /// Since when a shutdown waits for nothing but the stores.
    unsettled: Option<Instant>,
    /// They run, and their deliveries are somebody else's: nobody is told how they end.
    forfeited: HashSet<Key>,
    /// Those of `settling` that still have their slot; see [`keeps_slot`].
    slotted: HashSet<Key>,
    buckets: HashMap<String, rate::Bucket>,
    /// Left to others.
    unknown: Names,
    /// Ours, and put by by the broker if they are early.
    early: Names,
    /// Of those that no list of names keeps away.
    rounds: Rounds,
    next_key: Key,
    turn: u64,
    /// Time of the last event.
    wall: DateTime<Utc>,
    mono: Option<Instant>,
    /// How many slots there are.
    scale: Scale,
    /// Is the host too short of something to take tasks?
    short: bool,
    /// What the host has refused.
    room: Room,
    /// What it has refused to single tasks.
    withheld: Withheld,
    want: Option<(u64, Want)>,
    /// Smoothed runtime of a task in seconds; `None` until one has ended.
    pace: Option<f64>,
}

impl Core {
    /// A worker that has done nothing yet.
    pub fn new(plan: Arc<Plan>) -> Core {
        let scale = match plan.autoscale {
            Some(scale) => Scale::new(scale.min, plan.slots, scale.keepalive),
            None => Scale::new(plan.slots, plan.slots, Duration::MAX),
        };
        Core {
            tasks: plan.tasks.clone(),
            scale,
            short: false,
            room: Room::default(),
            withheld: Withheld::default(),
            mono: None,
            asked: None,
            plan,
            state: State::Running,
            deadline: None,
            exit: 0,
            restarting: false,
            running: HashMap::new(),
            doubts: Doubts::default(),
            ready: VecDeque::new(),
            acking: HashMap::new(),
            clearing: HashMap::new(),
            settling: HashSet::new(),
            unsettled: None,
            forfeited: HashSet::new(),
            slotted: HashSet::new(),
            buckets: HashMap::new(),
            unknown: Names::default(),
            early: Names::default(),
            rounds: Rounds::default(),
            next_key: 0,
            turn: 0,
            wall: DateTime::UNIX_EPOCH,
            want: None,
            pace: None,
        }
    }

    /// Takes in one event. Call [`Core::plan_ahead`] after the last of a batch.
    pub fn on(&mut self, event: Event, now: Now, out: &mut Vec<Effect>) {
        self.wall = now.wall;
        self.mono = Some(now.mono);
        match event {
            Event::Delivered(deliveries) => {
                self.turn += 1;
                for delivery in deliveries {
                    self.delivered(delivery, now, out);
                }
            }
            Event::Revoked(deliveries) => {
                for delivery in deliveries {
                    let verdict = refusal::revoked(&delivery.payload);
                    self.settle(delivery.tag, verdict, out);
                }
            }
            Event::Ended(key, outcome) => self.ended(key, outcome, now, out),
            Event::Cleared(keys) => {
                for key in keys {
                    self.cleared(key, out);
                }
            }
            Event::Settled(keys) => {
                self.unsettled = None;
                for key in keys {
                    self.settled(key, out);
                }
            }
            Event::Lost(keys) => {
                self.unsettled = None;
                for key in keys {
                    self.lost(key, out);
                }
            }
            Event::Forfeited(tags) => self.forfeit(&tags, out),
            Event::Signal(meaning) => self.signal(meaning, now, out),
            Event::Tick => {
                self.no_longer_doubt(false, now, out);
                if let Some(line) = self.room.look(self.plan.slots, now.mono) {
                    out.push(Effect::Log(Level::WARN, format!("worker: {line}")));
                }
                self.give_back_the_stuck(now, out);
                self.go_on(now, out);
            }
            Event::Tasks(tasks) => self.redefine(tasks, out),
            Event::Host(shortage) => self.host(shortage, out),
            Event::Closed => out.push(Effect::Exit(self.exit)),
        }
    }

    /// Fills free slots, asks for more work, and ends a shutdown that is complete.
    pub fn plan_ahead(&mut self, out: &mut Vec<Effect>) {
        if self.state == State::Closing {
            // To want something again would take back that the broker's end is to close.
            return;
        }
        self.scale(out);
        while self.free() > 0 {
            let Some(request) = self.ready.pop_front() else { break };
            self.start(request, out);
        }
        let want = (self.turn, self.wanted());
        if self.want != Some(want) {
            self.want = Some(want);
            out.push(Effect::Want { turn: want.0, want: want.1 });
        }
        let still = self.running.is_empty() && self.clearing.is_empty();
        let idle = still && self.acking.is_empty() && self.settling.is_empty();
        self.unsettled = match still && !idle && self.state != State::Running {
            true => self.unsettled.or(self.mono),
            false => None,
        };
        if self.state != State::Running && idle {
            self.state = State::Closing;
            self.deadline = None;
            out.push(Effect::Close);
        }
    }

    /// Is there anything that the passing of time alone can change?
    pub fn needs_ticks(&self) -> bool {
        let shrinks = self.state == State::Running && self.scale.may_shrink();
        let waits = self.deadline.is_some() || self.unsettled.is_some() || self.rests();
        let tries = !self.doubts.is_empty() || self.room.is_tight();
        !self.ready.is_empty() || waits || tries || shrinks
    }

    /// Must what is settled be settled at once? Not while enough others run, and more wait
    /// for a slot: one transaction for some outcomes costs little more than one for each.
    pub fn hurries(&self) -> bool {
        let waiting = self.acking.len() + self.slotted.len();
        let alone = self.ready.is_empty() || self.running.is_empty();
        alone || waiting == 0 || waiting * COMPANY >= self.scale.slots()
    }

    /// Stops whatever runs; nobody hears of it any more.
    pub fn stop_all(&self, out: &mut Vec<Effect>) {
        out.extend(self.running.keys().map(|key| Effect::Stop(*key)));
    }

    fn busy(&self) -> usize {
        self.running.len() + self.acking.len() + self.clearing.len() + self.slotted.len()
    }

    fn free(&self) -> usize {
        self.room.of(self.scale.slots()).saturating_sub(self.busy())
    }

    /// As many slots as the work at hand needs.
    fn scale(&mut self, out: &mut Vec<Effect>) {
        let Some(now) = self.mono.filter(|_| self.state == State::Running) else { return };
        let line = match self.scale.follow(self.busy() + self.ready.len(), now) {
            Some(Change::Up(count)) => format!("Scaling up {count} processes."),
            Some(Change::Down(count)) => format!("Scaling down {count} processes."),
            None => return,
        };
        out.push(Effect::Log(Level::INFO, line));
    }

    /// A host that is short gets nothing new to do; others may have what was taken ahead.
    fn host(&mut self, shortage: Option<String>, out: &mut Vec<Effect>) {
        let line = match &shortage {
            Some(why) => format!("worker: takes no new tasks: {why}"),
            None => "worker: takes tasks again".into(),
        };
        if self.short != shortage.is_some() {
            out.push(Effect::Log(Level::WARN, line));
        }
        self.short = shortage.is_some();
        if self.short {
            self.give_back_all(out);
        }
    }

    fn takes(&self) -> bool {
        self.state == State::Running && !self.short && self.room.of(1) > 0
    }

    fn rests(&self) -> bool {
        self.mono.is_some_and(|now| self.rounds.rest(now))
    }

    fn wanted(&self) -> Want {
        if !self.takes() || self.rests() || self.settling.len() >= SETTLING_MAX {
            return Want::default();
        }
        // Slots that are not there yet come with the work for them.
        let slots = self.room.of(self.plan.slots).saturating_sub(self.busy() + self.ready.len());
        let ahead = self.ahead();
        // Refill at half: one step for many messages, not many steps for one each.
        let ahead = if self.ready.len() * 2 > ahead { 0 } else { ahead - self.ready.len() };
        Want { slots, ahead }
    }

    /// How many requests may wait in memory: many tiny ones, and none when tasks are long.
    fn ahead(&self) -> usize {
        match self.pace {
            Some(pace)
                if !self.plan.policy.disable_prefetch
                    && !self.room.is_tight()
                    && pace < AHEAD.as_secs_f64() =>
            {
                let fits = self.scale.slots() as f64 * AHEAD.as_secs_f64() / pace.max(1e-6);
                (fits as usize).min(bounds::TAKE_MAX)
            }
            _ => 0,
        }
    }

    fn delivered(&mut self, delivery: Delivery, now: Now, out: &mut Vec<Effect>) {
        if self.state == State::Closing {
            // Closing the broker's end gives it back.
            return;
        }
        let tag = delivery.tag;
        match self.admit(delivery, now, out) {
            Ok(request) => self.ready.push_back(request),
            Err(verdict) => self.settle(tag, *verdict, out),
        }
    }

    /// What stands between a message and its start, in order.
    fn admit(
        &mut self,
        delivery: Delivery,
        now: Now,
        out: &mut Vec<Effect>,
    ) -> Result<Request, Box<Verdict>> {
        let (message, malformed) = match delivery.payload.decode() {
            Ok(message) => (message, None),
            Err(malformed) => match delivery.payload.outline() {
                Some(message) => (message, Some(malformed)),
                None => return Err(Box::new(kept("malformed", &malformed, None, now))),
            },
        };
        if !self.takes() {
            return Err(Box::new(settle_only(Settle::Release)));
        }
        let Some(task) = self.tasks.get(&message.task).cloned() else {
            return Err(Box::new(self.refuse_unknown(&delivery, &message, now, out)));
        };
        if let Some(malformed) = malformed {
            let policy = &self.plan.policy;
            return Err(kept_of("malformed", &malformed, &message, &task, policy, now));
        }
        if let Some(eta) = message.eta.filter(|eta| *eta > now.wall) {
            return Err(Box::new(self.put_by(&message, eta, out)));
        }
        // Who was sent away by a rate has been received before.
        let bucket = self.buckets.get(&message.task);
        let is_back = bucket.is_some_and(|bucket| bucket.due(&message.id).is_some());
        if self.plan.chatty && delivery.deliveries == 0 && !is_back {
            let line = format!("Task {} received", label(&message));
            out.push(Effect::LogAbout(Level::INFO, about(&message), line));
        }
        let arguments = match message.arguments() {
            Ok(arguments) => arguments,
            Err(malformed) => {
                let policy = &self.plan.policy;
                return Err(kept_of("malformed", &malformed, &message, &task, policy, now));
            }
        };
        if !arguments.follow_ups.is_empty() {
            let why = format!(
                "the message asks for {} after the task, which is not supported",
                arguments.follow_ups.join(", ")
            );
            let policy = &self.plan.policy;
            return Err(kept_of("unsupported", &Malformed(why), &message, &task, policy, now));
        }
        let bound =
            bind::bind(&task.name, task.params.as_deref(), &arguments.args, &arguments.kwargs);
        let (bound, misfit) = match bound {
            Ok(bound) => (bound, None),
            Err(exception) => (Vec::new(), Some(exception)),
        };
        let request = Request {
            tag: delivery.tag,
            queue: delivery.queue,
            deliveries: delivery.deliveries,
            suspect: delivery.suspect,
            payload: delivery.payload,
            message,
            task,
            arguments,
            bound,
            received: now.mono,
            acked: false,
        };
        self.admit_request(request, misfit, now)
    }

    fn admit_request(
        &mut self,
        request: Request,
        misfit: Option<Exception>,
        now: Now,
    ) -> Result<Request, Box<Verdict>> {
        let plan = &self.plan;
        if request.message.expires.is_some_and(|expires| expires <= now.wall) {
            return Err(Box::new(refusal::expired(&request, plan, now)));
        }
        if let Some(exception) = misfit {
            return Err(Box::new(refusal::misfit(&request, plan, &exception, now)));
        }
        if request.deliveries >= plan.policy.max_deliveries {
            let what = format!(
                "handed out {} times, and each time the worker or its process died under it",
                request.deliveries
            );
            return Err(Box::new(finish::lost(&request, plan, &what, None, now.wall)));
        }
        let wait = self.withheld.wait(&request.task.name, now.mono);
        match wait.or_else(|| self.pass_rate(&request, now)) {
            Some(wait) => Err(Box::new(settle_only(Settle::Park(now.wall + wait)))),
            None => Ok(request),
        }
    }

    /// How long the task's rate limit makes it wait; it waits in the broker, so others pass.
    fn pass_rate(&mut self, request: &Request, now: Now) -> Option<Duration> {
        let rate = request.task.rate_limit.or(self.plan.policy.rate_limit)?;
        let name = &request.task.name;
        if !self.buckets.contains_key(name) {
            self.buckets.insert(name.clone(), rate::Bucket::new(rate));
        }
        let bucket = self.buckets.get_mut(name)?;
        bucket.admit(&request.message.id, now.mono).err()
    }

    /// Unknown here is not unknown to others: they may have it at once, and it counts as nothing.
    /// Where a worker is told that there are no others, it is tried some times and then kept.
    fn refuse_unknown(
        &mut self,
        delivery: &Delivery,
        message: &Message,
        now: Now,
        out: &mut Vec<Effect>,
    ) -> Verdict {
        self.ask_for_tasks(now, out);
        let policy = &self.plan.policy;
        if policy.unregistered == Unregistered::Dead {
            return refusal::unknown(delivery.deliveries, message, policy, now);
        }
        let learned = self.unknown.learn(&message.task);
        if learned == Learned::New {
            out.push(self.sorting());
            out.push(Effect::Log(Level::WARN, refusal::left(message, &delivery.queue)));
        }
        if learned == Learned::TooMuch || !message.is_named_outside() {
            self.rounds.pass(&message.id, now.mono);
        }
        settle_only(Settle::Pass(message.task.clone()))
    }

    /// It is early. Not before its name is known to be ours: nobody else finds what is put by.
    fn put_by(&mut self, message: &Message, eta: DateTime<Utc>, out: &mut Vec<Effect>) -> Verdict {
        if message.is_named_outside() && self.early.learn(&message.task) == Learned::New {
            out.push(self.sorting());
        }
        settle_only(Settle::Park(eta))
    }

    fn sorting(&self) -> Effect {
        Effect::Sort(Sorting { left: self.unknown.list(), parked: self.early.list() })
    }

    /// The definitions were read again.
    fn redefine(&mut self, tasks: Arc<Set>, out: &mut Vec<Effect>) {
        self.tasks = tasks;
        let known = self.unknown.forget(|name| self.tasks.get(name).is_some());
        let gone = self.early.forget(|name| self.tasks.get(name).is_none());
        if known.is_empty() && gone.is_empty() || self.state == State::Closing {
            return;
        }
        out.push(self.sorting());
        for name in known {
            let name = escape::name(&name);
            let line = format!("worker: task \"{name}\" is known now, and taken");
            out.push(Effect::Log(Level::INFO, line));
        }
    }

    /// The file of a task that nobody knows may have come meanwhile.
    fn ask_for_tasks(&mut self, now: Now, out: &mut Vec<Effect>) {
        if self.asked.is_none_or(|at| now.mono.duration_since(at) >= READ_TASKS_EVERY) {
            self.asked = Some(now.mono);
            out.push(Effect::ReadTasks);
        }
    }

    /// A process of an earlier attempt may live, if worker and guard were killed at once: it ends
    /// before anything counts as a start.
    fn start(&mut self, request: Request, out: &mut Vec<Effect>) {
        self.next_key += 1;
        let key = self.next_key;
        if request.deliveries == 0 || !keeps_slot(&request) {
            return self.begin(key, request, out);
        }
        out.push(Effect::Clear(key, request.message.id.clone()));
        self.clearing.insert(key, request);
    }

    fn cleared(&mut self, key: Key, out: &mut Vec<Effect>) {
        let Some(request) = self.clearing.remove(&key) else { return };
        match self.state < State::Stopping {
            true => self.begin(key, request, out),
            false => self.give_back(key, request, out),
        }
    }

    fn begin(&mut self, key: Key, request: Request, out: &mut Vec<Effect>) {
        let late = request.acks_late(&self.plan.policy);
        if late && !request.suspect {
            return self.run(key, request, out);
        }
        let first = if late { Settle::Mark } else { Settle::Ack };
        // With its message gone the result store alone can tell that it is known.
        let record = if late { None } else { self.started(&request) };
        let verdict = Verdict { record, durable: !late, ..settle_only(first) };
        out.push(Effect::Settle(key, request.tag, Box::new(verdict)));
        self.acking.insert(key, Request { acked: !late, ..request });
    }

    fn run(&mut self, key: Key, request: Request, out: &mut Vec<Effect>) {
        if self.plan.policy.track_started && !request.acked {
            let record = self.started(&request);
            out.extend(record.map(|record| Effect::Store(request.tag, Box::new(record))));
        }
        out.push(Effect::Start(key, Box::new(request.attempt(&self.plan))));
        self.running.insert(key, request);
    }

    /// That it runs here, unless nobody is to know.
    fn started(&self, request: &Request) -> Option<Record> {
        let plan = &self.plan;
        if request.ignores_result(&plan.policy) {
            return None;
        }
        let info = serde_json::json!({"pid": std::process::id(), "hostname": plan.hostname});
        let info = crate::wire::value::raw(&info);
        let record = Record::success(&request.message.id, info, self.wall);
        Some(request.extend(plan, Record { state: wire::State::Started, ..record }))
    }

    fn ended(&mut self, key: Key, mut outcome: Box<Outcome>, now: Now, out: &mut Vec<Effect>) {
        let Some(request) = self.running.get(&key) else { return };
        if doubt::is_told(&outcome, &request.task) {
            if self.state == State::Running {
                return self.doubts.add(key, outcome, now.mono);
            }
            // Whoever has told all of us to end has told it too.
            outcome.asked = true;
        }
        self.end(key, &outcome, now, out);
    }

    /// Judges the ends that have waited long enough; with `told`, all of them, as ends of tasks
    /// that were asked to end.
    fn no_longer_doubt(&mut self, told: bool, now: Now, out: &mut Vec<Effect>) {
        for (key, mut outcome) in self.doubts.take(told, now.mono) {
            outcome.asked = told;
            self.end(key, &outcome, now, out);
        }
    }

    fn end(&mut self, key: Key, outcome: &Outcome, now: Now, out: &mut Vec<Effect>) {
        let Some(request) = self.running.remove(&key) else { return };
        if self.forfeited.remove(&key) {
            return;
        }
        if let Ending::NoRoom(why) = &outcome.ending {
            if let Some(line) = self.room.refused(why, self.running.len(), now.mono) {
                out.push(Effect::Log(Level::WARN, format!("worker: {line}")));
            }
            self.give_back_all(out);
            let verdict = finish::given_back(&request);
            return self.settle_as(key, request.tag, verdict, out);
        }
        if let Ending::Withheld(why) = &outcome.ending {
            let name = &request.task.name;
            let (wait, line) = self.withheld.refused(name, why, now.mono);
            out.extend(line.map(|line| Effect::Log(Level::WARN, line)));
            let verdict = finish::put_by(&request, now.wall + wait);
            return self.settle_as(key, request.tag, verdict, out);
        }
        if outcome.has_run() {
            let line = self.withheld.began(&request.task.name, outcome.started);
            out.extend(line.map(|line| Effect::Log(Level::WARN, line)));
        }
        let took = outcome.runtime.as_secs_f64();
        // Quick to believe that tasks are long, slow to believe that they are short.
        self.pace = Some(match self.pace {
            Some(pace) if took < pace => pace * 0.9 + took * 0.1,
            Some(pace) => pace * 0.5 + took * 0.5,
            None => took,
        });
        if keeps_slot(&request) {
            self.slotted.insert(key);
        }
        let mut verdict = finish::verdict(&request, outcome, &self.plan, now.wall, now.random);
        verdict.about = verdict.log.is_some().then(|| about(&request.message));
        self.settle_as(key, request.tag, verdict, out);
    }

    fn settle(&mut self, tag: Tag, verdict: Verdict, out: &mut Vec<Effect>) {
        self.next_key += 1;
        self.settle_as(self.next_key, tag, verdict, out);
    }

    fn settle_as(&mut self, key: Key, tag: Tag, mut verdict: Verdict, out: &mut Vec<Effect>) {
        if let Some((level, line)) = verdict.log.take() {
            out.push(match verdict.about.take() {
                Some(about) => Effect::LogAbout(level, about, line),
                None => Effect::Log(level, line),
            });
        }
        self.settling.insert(key);
        out.push(Effect::Settle(key, tag, Box::new(verdict)));
    }

    fn settled(&mut self, key: Key, out: &mut Vec<Effect>) {
        self.slotted.remove(&key);
        if self.settling.remove(&key) {
            return;
        }
        let Some(request) = self.acking.remove(&key) else { return };
        match self.state < State::Stopping {
            true => self.run(key, request, out),
            false => self.give_back(key, request, out),
        }
    }

    fn give_back(&mut self, key: Key, request: Request, out: &mut Vec<Effect>) {
        // Stopped before it began.
        let verdict = finish::given_back(&request);
        self.settle_as(key, request.tag, verdict, out);
    }

    /// What was to be settled is somebody else's by now.
    fn lost(&mut self, key: Key, out: &mut Vec<Effect>) {
        self.slotted.remove(&key);
        self.settling.remove(&key);
        if let Some(request) = self.acking.remove(&key) {
            let line = format!("Task {} was handed out again; not started here", request.label());
            out.push(Effect::LogAbout(Level::ERROR, about(&request.message), line));
        }
    }

    /// Nobody runs here what somebody else may run by now.
    fn forfeit(&mut self, tags: &[Tag], out: &mut Vec<Effect>) {
        let tags: HashSet<Tag> = tags.iter().copied().collect();
        self.ready.retain(|request| !tags.contains(&request.tag));
        for (key, request) in &self.running {
            if !request.acked && tags.contains(&request.tag) && self.forfeited.insert(*key) {
                let line = format!(
                    "Task {} was handed out again, for this worker was taken for dead; stopped \
                     here",
                    request.label()
                );
                out.push(Effect::LogAbout(Level::ERROR, about(&request.message), line));
                out.push(Effect::Stop(*key));
            }
        }
    }

    /// What was taken ahead of a slot that does not come free goes back: another worker
    /// may have one.
    fn give_back_the_stuck(&mut self, now: Now, out: &mut Vec<Effect>) {
        let stuck = self.ready.front().is_some_and(|r| now.mono - r.received > AHEAD_MAX_WAIT);
        if stuck && self.free() == 0 {
            self.pace = Some(AHEAD.as_secs_f64() * 2.0);
            self.give_back_all(out);
        }
    }

    /// What the passing of time does to a shutdown.
    fn go_on(&mut self, now: Now, out: &mut Vec<Effect>) {
        if self.unsettled.is_some_and(|since| now.mono.duration_since(since) >= SETTLE_MAX) {
            return self.give_up(out);
        }
        if self.deadline.is_none_or(|at| now.mono < at) {
            return;
        }
        match self.state {
            State::Draining => self.stop(now, out),
            State::Stopping => self.kill(now, out),
            // A broker that is gone must not keep alive whoever was told to end at once. What
            // is not settled is handed out again.
            _ => self.give_up(out),
        }
    }

    /// Ends without its stores.
    fn give_up(&mut self, out: &mut Vec<Effect>) {
        (self.deadline, self.unsettled) = (None, None);
        let count = self.settling.len() + self.acking.len();
        let line = format!(
            "worker: ends with {count} tasks not settled, since the store does not answer; they are \
             handed out again"
        );
        out.push(Effect::Log(Level::ERROR, line));
        out.push(Effect::Exit(if count == 0 { self.exit } else { EX_UNAVAILABLE }));
    }

    fn give_back_all(&mut self, out: &mut Vec<Effect>) {
        for request in std::mem::take(&mut self.ready) {
            self.settle(request.tag, settle_only(Settle::Release), out);
        }
    }

    fn signal(&mut self, meaning: Meaning, now: Now, out: &mut Vec<Effect>) {
        let ends = matches!(meaning, Meaning::Warm | Meaning::Interrupt);
        if ends && std::mem::take(&mut self.restarting) && self.state == State::Draining {
            // The first order to end: it comes to a drain that would not have been one.
            self.exit = u8::from(meaning == Meaning::Interrupt);
            return;
        }
        match signals::action(self.state, meaning) {
            Action::Drain(exit) => {
                self.restarting = meaning == Meaning::Hup;
                if meaning == Meaning::Interrupt {
                    let hint = "hitting Ctrl+C again stops all running tasks; they are redelivered";
                    out.push(Effect::Log(Level::WARN, format!("worker: {hint}")));
                }
                self.exit = exit;
                self.drain(now, out);
            }
            Action::Stop => self.stop(now, out),
            Action::Kill => self.kill(now, out),
            Action::Explain => self.explain(now, out),
            Action::Nothing => {}
        }
    }

    /// What the worker is doing, for whoever asks with USR1.
    fn explain(&self, now: Now, out: &mut Vec<Effect>) {
        let mut say = |line: String| out.push(Effect::Log(Level::WARN, format!("worker: {line}")));
        say(format!(
            "{}; {} of {} slots running, {} taken ahead, {} being settled",
            self.state.name(),
            self.running.len(),
            self.scale.slots(),
            self.ready.len(),
            self.acking.len() + self.clearing.len() + self.settling.len(),
        ));
        let mut running: Vec<_> = self.running.values().collect();
        running.sort_by_key(|request| request.received);
        for request in running {
            let age = now.mono.duration_since(request.received).as_secs_f64();
            say(format!("running {} from {}, here for {age:.1}s", request.label(), request.queue));
        }
        for request in &self.ready {
            say(format!("waiting for a slot {} from {}", request.label(), request.queue));
        }
        let being = self.acking.values().chain(self.clearing.values());
        let being = being.map(|request| ("to be started", request.label()));
        being.for_each(|(what, label)| say(format!("{what} {label}")));
    }

    /// What others may know of it.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            state: self.state,
            slots: self.scale.slots(),
            running: self.running.len(),
            reserved: self.ready.len() + self.acking.len() + self.clearing.len(),
            unknown: self.unknown.list(),
            no_room: self.room.why(),
        }
    }

    fn drain(&mut self, now: Now, out: &mut Vec<Effect>) {
        self.state = State::Draining;
        self.no_longer_doubt(true, now, out);
        self.deadline = self.plan.soft_shutdown.and_then(|bound| now.mono.checked_add(bound));
        let running = self.running.len();
        let line = format!("worker: Warm shutdown ({running} running)");
        out.push(Effect::Log(Level::WARN, line));
        self.give_back_all(out);
    }

    fn stop(&mut self, now: Now, out: &mut Vec<Effect>) {
        self.state = State::Stopping;
        self.deadline = Some(now.mono + bounds::STOP_GRACE);
        let running = self.running.len();
        let line = format!("worker: Soft shutdown ({running} asked to end)");
        out.push(Effect::Log(Level::WARN, line));
        out.extend(self.running.keys().map(|key| Effect::Ask(*key)));
    }

    fn kill(&mut self, now: Now, out: &mut Vec<Effect>) {
        if self.state == State::Running {
            self.drain(now, out);
        }
        self.state = State::Killing;
        self.deadline = Some(now.mono + COLD_MAX);
        let running = self.running.len();
        out.push(Effect::Log(Level::WARN, format!("worker: Cold shutdown ({running} stopped)")));
        out.extend(self.running.keys().map(|key| Effect::Stop(*key)));
    }
}

/// Does it keep its slot until it is settled? A process has acted on the world: if the
/// worker dies, no more of them may run again than there are slots. An instance costs
/// microseconds and mostly only computes: waiting would halve the pace.
fn keeps_slot(request: &Request) -> bool {
    !matches!(request.task.program, Program::Wasm { .. })
}
