//! Execution: the loop, which builds events; `perform` carries out effects.

use super::consumer::Consumer;
use super::core::{Core, Effect, Event, Now};
use super::health::Health;
use super::health::socket::{self, Socket};
use super::health::troubles::Troubles;
use super::orphans::{self, Cleaner, Processes};
use super::plan::Plan;
use super::reload::{Reload, TaskReader};
use super::settle::{self, SettleWork};
use super::task_socket::TaskSocket;
use super::{expire, pressure};
use crate::broker::{self, Sorting, Tag, Want};
use crate::client::ends::Ends;
use crate::clock;
use crate::link::guard::GuardLink;
use crate::os::reap::Reaper;
use crate::os::signal::{Signals, WorkerSignal};
use crate::os::tree;
use crate::pool::Pool;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::MissedTickBehavior;

/// Events handled before the effects of all of them are performed: acknowledgements and
/// results are batched by that alone.
const EVENTS_MAX: usize = 256;

/// How often the worker checks what only time changes, while there is such a thing.
const TICK: Duration = Duration::from_millis(100);

/// How long the tasks' processes may take to die when the guard is gone.
const KILL_MAX: Duration = Duration::from_secs(5);

/// How long giving everything back to the broker may take when the guard is gone.
const SURRENDER_MAX: Duration = Duration::from_secs(2);

/// What connects one worker with the outside.
pub struct Io {
    /// Where messages come from.
    pub consumer: broker::Consumer,
    /// Where they are settled, and where results go.
    pub ends: Ends,
    /// What runs attempts; its outcomes arrive as [`Event::Ended`] through `events`.
    pub pool: Pool,
    /// Knows which processes are tasks.
    pub reaper: Rc<Reaper>,
    /// Reads the definitions of tasks.
    pub tasks: TaskReader,
    /// The events of everything here.
    pub events: (mpsc::UnboundedSender<Event>, mpsc::UnboundedReceiver<Event>),
    /// Signals of the process.
    pub signals: Signals,
    /// The parent process.
    pub guard: Rc<GuardLink>,
}

/// Works until a signal ends it; `ready` is called once it takes messages. Returns the exit code.
/// Must run inside a `LocalSet`.
pub async fn run(plan: Arc<Plan>, io: Io, ready: impl FnOnce()) -> u8 {
    let (guard, ends) = (io.guard.clone(), io.ends.clone());
    let (mut drive, inputs) = start(plan.clone(), io);
    let Inputs { mut events, mut signals, sender, consumer } = inputs;
    let (_socket, mut clients) = Socket::open(&plan);
    let (mut core, mut effects) = (Core::new(plan.clone()), Vec::new());
    if let Some(event) = pressure::watch(plan.pressure, sender) {
        core.on(event, now(), &mut effects);
    }
    core.plan_ahead(now(), &mut effects);
    drive.perform(&mut effects);
    ready();
    crate::os::memory::release_startup_pages();
    guard.ready();
    let (mut batch, mut lost) = (Vec::with_capacity(EVENTS_MAX), std::pin::pin!(guard.lost()));
    let mut heartbeats = tokio::time::interval(guard.heartbeat_every().unwrap_or(TICK));
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while drive.exit.is_none() {
        tokio::select! {
            biased;
            meaning = signals.next() => batch.push(Event::Signal(meaning)),
            _ = &mut lost => {
                core.stop_all(&mut effects);
                drive.perform(&mut effects);
                surrender(consumer, &ends).await;
                return 1;
            }
            // Before the events: a busy worker is alive.
            _ = heartbeats.tick(), if guard.heartbeat_every().is_some() => {
                guard.heartbeat();
                guard.status(&drive.health.line(&core.snapshot()));
            }
            Some(stream) = clients.recv() => {
                socket::answer(stream, &drive.health.status(&core.snapshot()));
            }
            _ = events.recv_many(&mut batch, EVENTS_MAX) => {}
            _ = ticks.tick(), if core.needs_ticks() => batch.push(Event::Tick),
        }
        let now = now();
        drive.handle(&mut batch, &mut core, now, &mut effects);
        core.plan_ahead(now, &mut effects);
        let hurries = core.hurries();
        drive.hurry.send_if_modified(|hurry| std::mem::replace(hurry, hurries) != hurries);
        drive.perform(&mut effects);
    }
    drive.exit.unwrap_or_default()
}

/// What the loop listens to.
struct Inputs {
    events: mpsc::UnboundedReceiver<Event>,
    signals: Signals,
    /// For further sources of events.
    sender: mpsc::UnboundedSender<Event>,
    consumer: JoinHandle<()>,
}

/// Starts everything that works beside the loop.
fn start(plan: Arc<Plan>, io: Io) -> (Drive, Inputs) {
    let Io { mut consumer, ends, pool, reaper, tasks, events, signals, .. } = io;
    let (sender, events) = events;
    let (settler, work) = mpsc::unbounded_channel();
    let (wants, wanted) = watch::channel(Some((0, Want::default())));
    let (hurry, hurries) = watch::channel(true);
    let (sort, sorting) = watch::channel(Sorting::default());
    let (troubles, contact) = (Troubles::default(), consumer.contact());
    let health = Health::new(plan.clone(), contact, troubles.clone());
    let settling =
        settle::run(ends.clone(), plan.clone(), work, hurries, sender.clone(), troubles.clone());
    spawn_local(settling);
    spawn_local(forward_losses(consumer.losses(), sender.clone()));
    let reload = Reload::new(tasks, sender.clone(), sorting.clone());
    let store = ends.store().clone();
    let consumer = Consumer { broker: consumer, wanted, sorting, store: store.clone() };
    let consumer = spawn_local(consumer.run(sender.clone(), troubles));
    let expire = Rc::new(Notify::new());
    spawn_local(expire::run(store, plan.result_expires, expire.clone()));
    let processes = Processes::default();
    spawn_local(orphans::sweep(reaper, processes.clone()));
    let task_socket = TaskSocket::open(sender.clone());
    let cleaner = Cleaner::new(sender.clone());
    let settler = Some(settler);
    let exit = None;
    let drive = Drive {
        pool,
        processes,
        reload,
        cleaner,
        sort,
        settler,
        wants,
        hurry,
        health,
        task_socket,
        expire,
        exit,
    };
    (drive, Inputs { events, signals, sender, consumer })
}

/// Ends all tasks and gives back what is held: this worker's guard is gone.
async fn surrender(consumer: JoinHandle<()>, ends: &Ends) {
    tree::kill_all_descendants_of_self(KILL_MAX);
    // Otherwise it would take what is given back.
    consumer.abort();
    let _ = consumer.await;
    match tokio::time::timeout(SURRENDER_MAX, ends.surrender()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::error!("cannot return unfinished messages: {error}"),
        Err(_) => tracing::error!("cannot return unfinished messages: no answer"),
    }
}

fn now() -> Now {
    Now { mono: Instant::now(), wall: clock::now(), random: fastrand::f64() }
}

struct Drive {
    pool: Pool,
    processes: Processes,
    reload: Reload,
    cleaner: Cleaner,
    /// What the broker does by the names of tasks.
    sort: watch::Sender<Sorting>,
    /// `None` once the worker closes.
    settler: Option<mpsc::UnboundedSender<SettleWork>>,
    /// See [`super::demand::Demand::set`].
    wants: watch::Sender<Option<(u64, Want)>>,
    /// See [`Core::hurries`].
    hurry: watch::Sender<bool>,
    health: Health,
    /// Where attempts reach the worker.
    task_socket: TaskSocket,
    /// Asks for the removal of expired results.
    expire: Rc<Notify>,
    exit: Option<u8>,
}

impl Drive {
    /// Hands a batch of events to the core.
    fn handle(
        &mut self,
        batch: &mut Vec<Event>,
        core: &mut Core,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        for event in batch.drain(..) {
            match &event {
                Event::Signal(WorkerSignal::Explain) => {
                    tracing::warn!("worker: {}", self.health.line(&core.snapshot()));
                }
                Event::Ended(key, _) => {
                    self.pool.forget(*key);
                    self.processes.borrow_mut().remove(key);
                    self.task_socket.dismiss(*key);
                }
                _ => {}
            }
            core.on(event, now, effects);
        }
    }

    fn perform(&mut self, effects: &mut Vec<Effect>) {
        for effect in effects.drain(..) {
            match effect {
                Effect::Want { number, want } => {
                    self.wants.send_replace(Some((number, want)));
                }
                Effect::Clear(key, id) => self.cleaner.clear(key, id),
                Effect::Sort(names) => drop(self.sort.send_replace(names)),
                Effect::Start(key, mut attempt) => {
                    if attempt.task.program.is_process() {
                        self.processes.borrow_mut().insert(key, attempt.id.clone());
                        attempt.access = self.task_socket.admit(key);
                    } else {
                        attempt.worker = Some(self.task_socket.of_thread(key));
                    }
                    self.pool.start(key, *attempt);
                }
                Effect::Ask(key) => self.pool.ask(key),
                Effect::Stop(key, why) => self.pool.stop(key, why),
                Effect::Recall => self.pool.recall(),
                Effect::Settle(key, tag, verdict) => {
                    self.settle(SettleWork::Verdict(key, tag, verdict))
                }
                Effect::Store(tag, record) => self.settle(SettleWork::Record(tag, record)),
                Effect::StoreState(key, tag, record) => {
                    self.settle(SettleWork::State(key, tag, record))
                }
                Effect::Send(number, sending) => self.settle(SettleWork::Send(number, sending)),
                Effect::Answer(reply, answer) => reply.send(answer),
                Effect::Expire => self.expire.notify_one(),
                Effect::ReadTasks => self.reload.read(),
                Effect::Log(level, line) => crate::log::line(level, &line),
                Effect::LogAbout(level, about, line) => {
                    crate::log::line_about(level, &about, &line);
                }
                Effect::Close => {
                    self.settler = None;
                    self.wants.send_replace(None);
                }
                Effect::Exit(code) => self.exit = Some(code),
            }
        }
    }

    fn settle(&self, work: SettleWork) {
        if let Some(settler) = &self.settler {
            // The settling task lives as long as this sender.
            let _ = settler.send(work);
        }
    }
}

/// Sends [`Event::Forfeited`] for deliveries that the broker has given to another worker.
async fn forward_losses(
    losses: Option<mpsc::UnboundedReceiver<Vec<Tag>>>,
    events: mpsc::UnboundedSender<Event>,
) {
    let Some(mut losses) = losses else { return };
    while let Some(tags) = losses.recv().await {
        let _ = events.send(Event::Forfeited(tags));
    }
}
