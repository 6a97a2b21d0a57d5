//! Every message that is here, from its admission to its settlement, each in one stage. All changes
//! of stage are made here, together with the effects that belong to them.
//!
//! ```text
//!  Ready ─▶ Clearing ─▶ Acking ─▶ Running ─▶ Finishing ─▶ gone
//!                                   └▶ Forfeited ─▶ gone
//! ```
//!
//! A stage can be skipped, and is only left for a later one. From every stage before `Running` a
//! request can be released. A message that is not admitted is only ever in `Settling`.

use crate::broker::{Settle, Tag};
use crate::runner::CancelReason;
use crate::wire::{self, Record, value};
use crate::worker::event::{Effect, Now};
use crate::worker::plan::Plan;
use crate::worker::request::{AttemptKey, Request, about};
use crate::worker::verdict::Verdict;
use chrono::{DateTime, Utc};
use rustc_hash::FxHashMap;
use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use tracing::Level;

/// Where a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// Waits for a free slot.
    Ready,
    /// Waits until nothing of an earlier attempt runs on this machine.
    Clearing,
    /// Is being acknowledged, or marked, before its start.
    Acking,
    /// Runs.
    Running,
    /// Still runs although another worker has its message; is being stopped.
    Forfeited,
    /// Has ended, and keeps its slot until it is settled; see [`crate::task::Program::holds_slot`].
    Finishing,
    /// Is being settled without a slot.
    Settling,
}

const STAGES: usize = Stage::Settling as usize + 1;

struct Entry {
    stage: Stage,
    /// Its task is a process, which takes a slot from the start to the end.
    is_process: bool,
    /// `None` from [`Stage::Finishing`] on: a message may be large.
    request: Option<Box<Request>>,
}

/// See the module.
pub(super) struct Requests {
    plan: Arc<Plan>,
    entries: FxHashMap<AttemptKey, Entry>,
    /// Those in [`Stage::Ready`], oldest first.
    queue: VecDeque<AttemptKey>,
    /// How many entries are in each stage.
    counts: [usize; STAGES],
    /// How many processes there are, as requests.
    processes: usize,
    last_key: AttemptKey,
    /// Nothing starts any more.
    ends: bool,
    /// Those that run, and whose next item waits.
    pub(super) paused: Vec<AttemptKey>,
}

impl Requests {
    pub(super) fn new(plan: Arc<Plan>) -> Requests {
        Requests {
            plan,
            entries: FxHashMap::default(),
            queue: VecDeque::new(),
            counts: [0; STAGES],
            processes: 0,
            last_key: 0,
            ends: false,
            paused: Vec::new(),
        }
    }

    /// How many are in this stage.
    pub(super) fn count(&self, stage: Stage) -> usize {
        self.counts[stage as usize]
    }

    /// How many attempts run.
    pub(super) fn running(&self) -> usize {
        self.count(Stage::Running) + self.count(Stage::Forfeited)
    }

    /// How many wait for a slot.
    pub(super) fn ready(&self) -> usize {
        self.count(Stage::Ready)
    }

    /// How many slots are taken.
    pub(super) fn busy(&self) -> usize {
        let starting = self.count(Stage::Clearing) + self.count(Stage::Acking);
        starting + self.running() + self.count(Stage::Finishing)
    }

    /// How many are being settled for good.
    pub(super) fn settling(&self) -> usize {
        self.count(Stage::Finishing) + self.count(Stage::Settling)
    }

    /// How many wait for the stores.
    pub(super) fn unsettled(&self) -> usize {
        self.count(Stage::Acking) + self.settling()
    }

    /// Is the store all that is waited for?
    pub(super) fn waits_for_stores(&self) -> bool {
        let others = self.running() + self.count(Stage::Clearing);
        others == 0 && self.unsettled() > 0
    }

    /// Is nothing here?
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The request that has waited longest for a slot.
    pub(super) fn oldest_ready(&self) -> Option<&Request> {
        self.queue.front().and_then(|key| self.get(*key))
    }

    /// May the request that has waited longest wait for a thread instead? From there it can be given
    /// back if it is not acknowledged or marked before; where there are processes too, slots count.
    pub(super) fn may_wait_for_threads(&self) -> bool {
        let policy = &self.plan.policy;
        let next = self.oldest_ready();
        self.processes == 0
            && next.is_some_and(|it| it.acks_late(policy) && !it.suspect && it.deliveries == 0)
    }

    /// A request whose attempt runs, and its stage.
    pub(super) fn attempt(&self, key: AttemptKey) -> Option<(&Request, Stage)> {
        let entry = self.entries.get(&key)?;
        let runs = matches!(entry.stage, Stage::Running | Stage::Forfeited);
        Some((entry.request.as_deref().filter(|_| runs)?, entry.stage))
    }

    /// The same, to be changed.
    pub(super) fn attempt_mut(&mut self, key: AttemptKey) -> Option<(&mut Request, Stage)> {
        let entry = self.entries.get_mut(&key)?;
        let runs = matches!(entry.stage, Stage::Running | Stage::Forfeited);
        Some((entry.request.as_deref_mut().filter(|_| runs)?, entry.stage))
    }

    /// Does nothing start any more?
    pub(super) fn ends(&self) -> bool {
        self.ends
    }

    /// The worker's plan.
    pub(super) fn plan(&self) -> Arc<Plan> {
        self.plan.clone()
    }

    /// The requests with this task id. A scan: it is asked for only when a message was lost before,
    /// and an index would cost every message two hashes of its id.
    fn of_task(&self, id: &str) -> impl Iterator<Item = (AttemptKey, Stage)> {
        self.iter()
            .filter(move |(.., request)| request.message.id == id)
            .map(|(key, stage, _)| (key, stage))
    }

    /// A request whose attempt runs and counts.
    pub(super) fn running_mut(&mut self, key: AttemptKey) -> Option<&mut Request> {
        let entry = self.entries.get_mut(&key)?;
        entry.request.as_deref_mut().filter(|_| entry.stage == Stage::Running)
    }

    fn get(&self, key: AttemptKey) -> Option<&Request> {
        self.entries.get(&key)?.request.as_deref()
    }

    fn iter(&self) -> impl Iterator<Item = (AttemptKey, Stage, &Request)> {
        self.entries
            .iter()
            .filter_map(|(key, entry)| Some((*key, entry.stage, entry.request.as_deref()?)))
    }

    fn insert(&mut self, stage: Stage, request: Option<Box<Request>>) -> AttemptKey {
        self.last_key += 1;
        self.counts[stage as usize] += 1;
        let is_process = request.as_ref().is_some_and(|it| it.task.program.is_process());
        self.processes += usize::from(is_process);
        self.entries.insert(self.last_key, Entry { stage, is_process, request });
        self.last_key
    }

    /// Moves an entry to a later stage; gives it.
    fn enter(&mut self, key: AttemptKey, stage: Stage) -> Option<&mut Entry> {
        let entry = self.entries.get_mut(&key)?;
        debug_assert!(stage >= entry.stage, "{:?} after {:?}", stage, entry.stage);
        self.counts[entry.stage as usize] -= 1;
        self.counts[stage as usize] += 1;
        entry.stage = stage;
        Some(entry)
    }

    fn remove(&mut self, key: AttemptKey) -> Option<Entry> {
        let entry = self.entries.remove(&key)?;
        self.counts[entry.stage as usize] -= 1;
        self.processes -= usize::from(entry.is_process);
        Some(entry)
    }

    /// Adds an admitted request, behind all that wait.
    pub(super) fn add(&mut self, request: Box<Request>) {
        let key = self.insert(Stage::Ready, Some(request));
        self.queue.push_back(key);
    }

    /// Starts the request that has waited longest; `false` if none waits.
    pub(super) fn start_next(&mut self, now: Now, out: &mut Vec<Effect>) -> bool {
        let Some(key) = self.queue.pop_front() else { return false };
        self.start(key, now, out);
        true
    }

    /// Starts a request, unless something of an earlier attempt may still run: an attempt of this
    /// worker that is being stopped, or processes that a worker left when it and its guard were
    /// killed at once. Those end first.
    fn start(&mut self, key: AttemptKey, now: Now, out: &mut Vec<Effect>) {
        let Some(request) = self.get(key) else { return };
        if request.deliveries == 0 {
            return self.begin(key, now, out);
        }
        let id = request.message.id.clone();
        let is_process = request.task.program.is_process();
        let runs_here = self.of_task(&id).any(|(_, stage)| stage == Stage::Forfeited);
        match (runs_here, is_process) {
            (true, _) => {}
            (false, true) => out.push(Effect::Clear(key, id)),
            (false, false) => return self.begin(key, now, out),
        }
        self.enter(key, Stage::Clearing);
    }

    /// Nothing of an earlier attempt runs any more.
    pub(super) fn cleared(&mut self, key: AttemptKey, now: Now, out: &mut Vec<Effect>) {
        match self.entries.get(&key).map(|entry| entry.stage) {
            Some(Stage::Clearing) if self.ends => self.release(key, out),
            Some(Stage::Clearing) => self.begin(key, now, out),
            _ => {}
        }
    }

    /// Acknowledges or marks the message first where that is due, and starts it otherwise.
    fn begin(&mut self, key: AttemptKey, now: Now, out: &mut Vec<Effect>) {
        let Some(request) = self.get(key) else { return };
        let late = request.acks_late(&self.plan.policy);
        if late && !request.suspect {
            return self.run(key, now, out);
        }
        let settle = if late { Settle::Mark } else { Settle::Ack };
        // Once its message is gone, only the result store shows that the task is known.
        let record = if late { None } else { started(&self.plan, request, now.wall) };
        let verdict = Verdict { record, durable: !late, ..Verdict::only(settle) };
        out.push(Effect::Settle(key, request.tag, Box::new(verdict)));
        if let Some(request) = self.enter(key, Stage::Acking).and_then(|it| it.request.as_mut()) {
            request.acked = !late;
        }
    }

    fn run(&mut self, key: AttemptKey, now: Now, out: &mut Vec<Effect>) {
        let Some(request) = self.get(key) else { return };
        if self.plan.policy.track_started && !request.acked {
            let record = started(&self.plan, request, now.wall);
            out.extend(record.map(|record| Effect::Store(request.tag, Box::new(record))));
        }
        out.push(Effect::Start(key, Box::new(request.attempt(&self.plan, now.mono))));
        if let Some(request) = self.enter(key, Stage::Running).and_then(|it| it.request.as_mut()) {
            request.began = Some(now.wall);
        }
    }

    /// What was asked of the stores is done: a request that was acknowledged or marked starts.
    pub(super) fn settled(&mut self, key: AttemptKey, now: Now, out: &mut Vec<Effect>) {
        match self.entries.get(&key).map(|entry| entry.stage) {
            Some(Stage::Acking) if self.ends => self.release(key, out),
            Some(Stage::Acking) => self.run(key, now, out),
            Some(Stage::Finishing | Stage::Settling) => drop(self.remove(key)),
            _ => {}
        }
    }

    /// The delivery that was to be settled is another worker's by now.
    pub(super) fn lost(&mut self, key: AttemptKey, out: &mut Vec<Effect>) {
        self.lost_before_start(key, out);
        self.remove(key);
    }

    /// These deliveries are other workers' by now: what waits is dropped, what runs is stopped.
    pub(super) fn forfeit(&mut self, tags: &[Tag], out: &mut Vec<Effect>) {
        let tags: HashSet<Tag> = tags.iter().copied().collect();
        let ours = |(key, stage, request): (AttemptKey, Stage, &Request)| {
            (tags.contains(&request.tag) && !request.acked).then_some((key, stage))
        };
        let forfeited: Vec<(AttemptKey, Stage)> = self.iter().filter_map(ours).collect();
        for (key, stage) in forfeited {
            match stage {
                Stage::Ready | Stage::Clearing => drop(self.remove(key)),
                Stage::Acking => self.lost_before_start(key, out),
                Stage::Running => self.stop_forfeited(key, out),
                Stage::Forfeited | Stage::Finishing | Stage::Settling => {}
            }
        }
        let entries = &self.entries;
        self.queue.retain(|key| entries.contains_key(key));
    }

    /// Does not start, whatever the store answers.
    fn lost_before_start(&mut self, key: AttemptKey, out: &mut Vec<Effect>) {
        let entry = self.enter(key, Stage::Settling);
        if let Some(request) = entry.and_then(|entry| entry.request.take()) {
            let line = format!("Task {} was handed out again; not started here", request.label());
            out.push(Effect::LogAbout(Level::ERROR, about(&request.message), line));
        }
    }

    fn stop_forfeited(&mut self, key: AttemptKey, out: &mut Vec<Effect>) {
        self.enter(key, Stage::Forfeited);
        let Some(request) = self.get(key) else { return };
        let line = format!(
            "Task {} was handed out again, for this worker was taken for dead; stopped here",
            request.label()
        );
        out.push(Effect::LogAbout(Level::ERROR, about(&request.message), line));
        if !self.paused.contains(&key) {
            out.push(Effect::Stop(key, CancelReason::ConnectionLost));
        }
    }

    /// An attempt has ended, with this verdict. With `keep_slot`, a process keeps its slot until the
    /// verdict is carried out.
    pub(super) fn finish(
        &mut self,
        key: AttemptKey,
        verdict: Verdict,
        keep_slot: bool,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let Some((request, _)) = self.attempt(key) else { return };
        let next = match keep_slot && request.task.program.holds_slot() {
            true => Stage::Finishing,
            false => Stage::Settling,
        };
        let verdict = log(verdict, out);
        match verdict.is_empty() {
            true => self.forget(key, now, out),
            false => self.settle(key, next, verdict, out),
        }
    }

    /// Removes a request that needs nothing of the stores. If another worker had its message, and it
    /// has come back meanwhile, it starts now.
    fn forget(&mut self, key: AttemptKey, now: Now, out: &mut Vec<Effect>) {
        let Some(Entry { stage: Stage::Forfeited, request: Some(request), .. }) = self.remove(key)
        else {
            return;
        };
        let ours = self.of_task(&request.message.id);
        let waiting: Vec<AttemptKey> =
            ours.filter(|(_, stage)| *stage == Stage::Clearing).map(|(key, _)| key).collect();
        for key in waiting {
            match self.ends {
                true => self.release(key, out),
                false => self.start(key, now, out),
            }
        }
    }

    /// A message is not admitted, with this verdict.
    pub(super) fn refuse(&mut self, tag: Tag, verdict: Verdict, out: &mut Vec<Effect>) {
        let verdict = log(verdict, out);
        let key = self.insert(Stage::Settling, None);
        out.push(Effect::Settle(key, tag, Box::new(verdict)));
    }

    /// Gives back a request that has not begun, uncounted.
    fn release(&mut self, key: AttemptKey, out: &mut Vec<Effect>) {
        let Some(request) = self.get(key) else { return };
        let verdict = Verdict::release(request);
        self.settle(key, Stage::Settling, verdict, out);
    }

    /// Gives back all that wait for a slot.
    pub(super) fn release_ready(&mut self, out: &mut Vec<Effect>) {
        for key in std::mem::take(&mut self.queue) {
            self.release(key, out);
        }
    }

    fn settle(&mut self, key: AttemptKey, stage: Stage, verdict: Verdict, out: &mut Vec<Effect>) {
        let entry = self.enter(key, stage);
        if let Some(request) = entry.and_then(|entry| entry.request.take()) {
            out.push(Effect::Settle(key, request.tag, Box::new(verdict)));
        }
    }

    /// Asks what runs to end. From now on nothing starts.
    pub(super) fn ask_all(&mut self, out: &mut Vec<Effect>) {
        self.ends = true;
        out.extend(self.keys_of_attempts().map(Effect::Ask));
    }

    /// Stops what runs at once. From now on nothing starts.
    pub(super) fn stop_all(&mut self, out: &mut Vec<Effect>) {
        self.ends = true;
        out.extend(self.keys_of_attempts().map(|key| Effect::Stop(key, CancelReason::Shutdown)));
    }

    /// Those that something runs of.
    fn keys_of_attempts(&self) -> impl Iterator<Item = AttemptKey> {
        let runs = |stage| matches!(stage, Stage::Running | Stage::Forfeited);
        let attempts = self.iter().filter(move |(_, stage, _)| runs(*stage));
        attempts.map(|(key, ..)| key).filter(|key| !self.paused.contains(key))
    }

    /// A line for each request, for the log: those that run, those that wait, those that start.
    pub(super) fn lines(&self, now: Now) -> Vec<String> {
        let line = |(key, stage, request): (AttemptKey, Stage, &Request)| {
            let (label, queue) = (request.label(), &request.queue);
            match stage {
                Stage::Ready => (1, key, format!("waiting for a slot {label} from {queue}")),
                Stage::Clearing | Stage::Acking => (2, key, format!("to be started {label}")),
                _ => {
                    let age = now.mono.duration_since(request.received).as_secs_f64();
                    (0, key, format!("running {label} from {queue}, here for {age:.1}s"))
                }
            }
        };
        let mut lines: Vec<(u8, AttemptKey, String)> = self.iter().map(line).collect();
        lines.sort_unstable();
        lines.into_iter().map(|(.., line)| line).collect()
    }
}

/// Logs what a verdict says; gives the rest of it.
fn log(mut verdict: Verdict, out: &mut Vec<Effect>) -> Verdict {
    if let Some((level, line)) = verdict.log.take() {
        out.push(match verdict.about.take() {
            Some(about) => Effect::LogAbout(level, about, line),
            None => Effect::Log(level, line),
        });
    }
    verdict
}

/// The record that a request runs here, if it is to be stored.
fn started(plan: &Plan, request: &Request, now: DateTime<Utc>) -> Option<Record> {
    let state = wire::TaskState::Started;
    if !request.stores(plan, state) {
        return None;
    }
    let info = value::raw(&serde_json::json!({"pid": plan.pid, "hostname": &*plan.hostname}));
    let record = Record::success(&request.message.id, info, now);
    Some(request.extend(plan, Record { state, ..record }))
}
