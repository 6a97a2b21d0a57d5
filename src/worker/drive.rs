//! DO: the loop. Its inputs only build events, its `perform` only carries out effects.

use super::admission::Watch;
use super::chores::Chores;
use super::core::{Core, Effect, Event, Now};
use super::feed::Feed;
use super::plan::Plan;
use super::pulse::{self, Door, Portrait, Pulse};
use super::settle::{self, Order};
use crate::backend::Store;
use crate::broker::{Inlet, Outlet, Sorting, Tag, Want};
use crate::clock;
use crate::os::guard::GuardLink;
use crate::os::reap::Reaper;
use crate::os::signal::{Meaning, Signals};
use crate::os::tree;
use crate::pool::{Key, Pool};
use crate::task::Program;
use crate::task::set::Set;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

/// Events handled before the effects of all of them are performed: acknowledgements and
/// results batch by themselves.
const EVENTS_MAX: usize = 256;

/// How often the worker looks at what only time changes, while there is such a thing.
const TICK: Duration = Duration::from_millis(100);

/// How often processes are looked for whose task has ended.
const STRAYS_EVERY: Duration = Duration::from_secs(1);

/// How often the host is looked at, if there is a rule about it.
const HOST_EVERY: Duration = Duration::from_secs(1);

/// How often expired results are removed.
const EXPIRE_EVERY: Duration = Duration::from_secs(300);

/// How long what is left of the tasks may take to die when the guard is gone.
const LAST_RITES: Duration = Duration::from_secs(5);

/// How long the broker may take to hear that this worker is lost.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Reads the definitions of tasks, if their files have changed since the last time.
pub type Reader = Box<dyn FnMut() -> Option<Set> + Send>;

/// The outside of one worker.
pub struct Doors {
    /// Where messages come from.
    pub inlet: Inlet,
    /// Where they are settled.
    pub outlet: Outlet,
    /// Where results go.
    pub store: Store,
    /// What runs attempts; its outcomes arrive as [`Event::Ended`] through `events`.
    pub pool: Pool,
    /// Knows which processes are tasks.
    pub reaper: Rc<Reaper>,
    /// Reads the definitions of tasks.
    pub tasks: Reader,
    /// The events of everything here.
    pub events: (mpsc::UnboundedSender<Event>, mpsc::UnboundedReceiver<Event>),
    /// Signals of the process.
    pub signals: Signals,
    /// The process above.
    pub guard: Rc<GuardLink>,
}

/// Works until a signal ends it; `ready` is called once messages are awaited. Gives the exit
/// code. Must run inside a `LocalSet`.
pub async fn run(plan: Arc<Plan>, doors: Doors, ready: impl FnOnce()) -> u8 {
    let Doors { mut inlet, outlet, store, pool, reaper, tasks, events, mut signals, guard } = doors;
    let (sender, mut receiver) = events;
    let (orders, queue) = mpsc::unbounded_channel();
    let (wants, watched) = watch::channel(Some((0, Want::default())));
    let (hurry, hurries) = watch::channel(true);
    let (pulse, contact) = (Pulse::default(), inlet.contact());
    tokio::task::spawn_local(settle::run(
        store.clone(),
        outlet.clone(),
        queue,
        hurries,
        sender.clone(),
        pulse.clone(),
    ));
    let told = sender.clone();
    tokio::task::spawn_local(hear_losses(inlet.losses(), sender.clone()));
    let (sort, sorting) = watch::channel(Sorting::default());
    let chores = Chores::new(tasks, told.clone(), sorting.clone());
    let feeding = Feed { inlet, wants: watched, sorting, store: store.clone() };
    let feeding = tokio::task::spawn_local(feeding.run(sender, pulse.clone()));
    tokio::task::spawn_local(expire(store, plan.result_expires));
    let processes = Processes::default();
    tokio::task::spawn_local(sweep(reaper, processes.clone()));
    let portrait = Portrait::new(plan.clone(), contact, pulse);
    let (orders, exit) = (Some(orders), None);
    let mut drive = Drive { pool, processes, chores, sort, orders, wants, exit, portrait };
    let (_door, mut questions) = Door::open(&plan);
    let (mut core, mut effects) = (Core::new(plan.clone()), Vec::new());
    if let Some(change) = begin_with_host(&plan, told) {
        core.on(Event::Host(change), now(), &mut effects);
    }
    core.plan_ahead(&mut effects);
    drive.perform(&mut effects);
    ready();
    crate::os::memory::forget_start();
    guard.ready();
    let (mut batch, mut lost) = (Vec::with_capacity(EVENTS_MAX), std::pin::pin!(guard.lost()));
    let mut beats = tokio::time::interval(guard.beat_every().unwrap_or(TICK));
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while drive.exit.is_none() {
        tokio::select! {
            biased;
            meaning = signals.next() => batch.push(Event::Signal(meaning)),
            _ = &mut lost => {
                core.stop_all(&mut effects);
                drive.perform(&mut effects);
                surrender(feeding, &outlet).await;
                return 1;
            }
            // Before the events: a busy worker is alive.
            _ = beats.tick(), if guard.beat_every().is_some() => {
                guard.beat();
                guard.status(&drive.portrait.line(&core.snapshot()));
            }
            Some(stream) = questions.recv() => {
                pulse::answer(stream, &drive.portrait.status(&core.snapshot()));
            }
            _ = receiver.recv_many(&mut batch, EVENTS_MAX) => {}
            _ = ticks.tick(), if core.needs_ticks() => batch.push(Event::Tick),
        }
        let now = now();
        drive.hand_over(&mut batch, &mut core, now, &mut effects);
        core.plan_ahead(&mut effects);
        let hurries = core.hurries();
        hurry.send_if_modified(|hurry| std::mem::replace(hurry, hurries) != hurries);
        drive.perform(&mut effects);
    }
    drive.exit.unwrap_or_default()
}

/// Ends all tasks and gives back what is held: this worker's guard is gone.
async fn surrender(feeding: JoinHandle<()>, outlet: &Outlet) {
    tree::kill_all_descendants_of_self(LAST_RITES);
    // Else it would take what is given back.
    feeding.abort();
    let _ = feeding.await;
    match tokio::time::timeout(LAST_WORDS, outlet.surrender()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::error!("cannot give back what was held: {error}"),
        Err(_) => tracing::error!("cannot give back what was held: no answer"),
    }
}

fn now() -> Now {
    Now { mono: Instant::now(), wall: clock::now(), random: fastrand::f64() }
}

/// Ids of the tasks that run as processes.
type Processes = Rc<RefCell<HashMap<Key, String>>>;

struct Drive {
    pool: Pool,
    processes: Processes,
    chores: Chores,
    /// What the broker does by the names of tasks.
    sort: watch::Sender<Sorting>,
    orders: Option<mpsc::UnboundedSender<Order>>,
    /// `None` closes the inlet.
    wants: watch::Sender<Option<(u64, Want)>>,
    exit: Option<u8>,
    portrait: Portrait,
}

impl Drive {
    /// What has happened goes to the core.
    fn hand_over(
        &mut self,
        batch: &mut Vec<Event>,
        core: &mut Core,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        for event in batch.drain(..) {
            match &event {
                Event::Signal(Meaning::Explain) => {
                    tracing::warn!("worker: {}", self.portrait.line(&core.snapshot()));
                }
                Event::Ended(key, _) => {
                    self.pool.forget(*key);
                    self.processes.borrow_mut().remove(key);
                }
                _ => {}
            }
            core.on(event, now, effects);
        }
    }

    fn perform(&mut self, effects: &mut Vec<Effect>) {
        for effect in effects.drain(..) {
            match effect {
                Effect::Want { turn, want } => {
                    self.wants.send_replace(Some((turn, want)));
                }
                Effect::Clear(key, id) => self.chores.clear(key, id),
                Effect::Sort(names) => drop(self.sort.send_replace(names)),
                Effect::Start(key, attempt) => {
                    if !matches!(attempt.task.program, Program::Wasm { .. }) {
                        self.processes.borrow_mut().insert(key, attempt.id.clone());
                    }
                    self.pool.start(key, *attempt);
                }
                Effect::Ask(key) => self.pool.ask(key),
                Effect::Stop(key) => self.pool.stop(key),
                Effect::Settle(key, tag, verdict) => self.order(Order::Verdict(key, tag, verdict)),
                Effect::Store(tag, record) => self.order(Order::Record(tag, record)),
                Effect::ReadTasks => self.chores.read_tasks(),
                Effect::Log(level, line) => crate::log::line(level, &line),
                Effect::LogAbout(level, about, line) => {
                    crate::log::line_about(level, &about, &line);
                }
                Effect::Close => {
                    self.orders = None;
                    self.wants.send_replace(None);
                }
                Effect::Exit(code) => self.exit = Some(code),
            }
        }
    }

    fn order(&self, order: Order) {
        if let Some(orders) = &self.orders {
            // The settling task lives as long as this sender.
            let _ = orders.send(order);
        }
    }
}

/// Tells of deliveries that the broker has given to somebody else.
async fn hear_losses(
    losses: Option<mpsc::UnboundedReceiver<Vec<Tag>>>,
    events: mpsc::UnboundedSender<Event>,
) {
    let Some(mut losses) = losses else { return };
    while let Some(tags) = losses.recv().await {
        let _ = events.send(Event::Forfeited(tags));
    }
}

/// Ends what tasks left behind in process groups of its own: nothing outlives its task for
/// long. What a running task has put into the background is that task's.
async fn sweep(reaper: Rc<Reaper>, processes: Processes) {
    let mut every = tokio::time::interval(STRAYS_EVERY);
    loop {
        every.tick().await;
        let marks: Vec<String> =
            processes.borrow().values().map(|id| format!("{}={id}", tree::TASK)).collect();
        tree::kill_strays(&|pid| {
            reaper.watches(pid) || marks.iter().any(|mark| tree::has_mark(pid, mark.as_bytes()))
        });
    }
}

/// The state of the host, and whatever it becomes, if there is a rule about it.
fn begin_with_host(plan: &Plan, events: mpsc::UnboundedSender<Event>) -> Option<Option<String>> {
    if !plan.admission.is_set() {
        return None;
    }
    let mut host = Watch::new(plan.admission);
    let change = host.look();
    tokio::task::spawn_local(attend_host(host, events));
    change
}

/// Tells when the host becomes short of something, and when that is over.
async fn attend_host(mut watch: Watch, events: mpsc::UnboundedSender<Event>) {
    let mut every = tokio::time::interval(HOST_EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        let change = watch.look();
        if change.is_some_and(|change| events.send(Event::Host(change)).is_err()) {
            return;
        }
    }
}

/// Removes results that nobody fetched in time.
async fn expire(store: Store, after: Option<Duration>) {
    let Some(after) = after else { return };
    let mut every = tokio::time::interval(EXPIRE_EVERY);
    loop {
        every.tick().await;
        let limit = clock::now() - after;
        loop {
            match store.expire(limit).await {
                Ok(0) => break,
                Ok(count) => tracing::debug!("removed {count} expired results"),
                Err(error) => {
                    tracing::warn!("cannot remove expired results: {error}");
                    break;
                }
            }
        }
    }
}
