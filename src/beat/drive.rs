//! Execution: the loop, which builds events and carries out effects.

use super::core::Core;
use super::event::{Effect, Event, Now};
use super::reload::Reloader;
use super::request::Stores;
use super::{DefinitionSource, Plan, log};
use crate::backend::Store;
use crate::bounds::BEAT_PAUSE_MAX;
use crate::broker::Broker;
use crate::broker::ledger::Ledger;
use crate::client::send::Sender;
use crate::clock;
use crate::os::memory;
use crate::os::wall_timer::WallTimer;
use crate::wire::BodyFormat;
use chrono::{DateTime, Utc};
use std::future::pending;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinSet;
use tokio::time::{Interval, MissedTickBehavior};

/// How often the service manager hears that all is well, and the clock is looked at.
const TICK: Duration = Duration::from_secs(1);

/// What a beat works with.
pub struct Services {
    /// Where entries are claimed.
    pub ledger: Ledger,
    /// Where messages go.
    pub broker: Broker,
    /// Where results are.
    pub store: Store,
    /// The definitions.
    pub source: Box<dyn DefinitionSource>,
    /// What the outside wants.
    pub commands: UnboundedReceiver<BeatControl>,
    /// Called every second.
    pub alive: Box<dyn Fn()>,
}

/// What the outside wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BeatControl {
    /// End.
    Stop,
    /// Read the definitions again.
    Reload,
    /// Log what is being done.
    Explain,
}

/// Sends what is due until [`BeatControl::Stop`]. `ready` is called once: when everything is in place,
/// or when the broker does not answer, which is no reason not to start. Must run inside a
/// `LocalSet`.
pub async fn run(plan: Plan, services: Services, ready: impl FnOnce()) {
    let Services { ledger, broker, store, source, mut commands, alive } = services;
    let timer = match WallTimer::new() {
        Ok(timer) => timer,
        Err(error) => return tracing::error!("beat: no timer: {error}"),
    };
    let mut core = Core::new(&plan, ledger.is_disposable(), now());
    let (sender, patience) = (Sender::new(&plan.host, BodyFormat::default()), plan.patience);
    let (producer, admin) = (broker.producer(), broker.admin());
    let stores = Stores { ledger, producer, admin, store, sender, patience };
    let (mut effects, mut requests, mut ready) = (Vec::new(), JoinSet::new(), Some(ready));
    let (mut ticks, mut looks) = (every(TICK), every(plan.max_interval));
    let mut reloader = Reloader::new(source);
    loop {
        let wake = core.wake(now());
        let event = tokio::select! {
            biased;
            command = commands.recv() => match command {
                Some(BeatControl::Stop) | None => break,
                Some(BeatControl::Reload) => {
                    reloader.mark_stale();
                    continue;
                }
                Some(BeatControl::Explain) => Event::Explain,
            },
            event = answer(&mut requests) => event,
            (entries, router) = reloader.next() => Event::Defined(entries, router),
            _ = ticks.tick() => {
                alive();
                Event::Tick
            }
            _ = looks.tick() => {
                reloader.look();
                Event::Look
            }
            () = wait_until(&timer, wake) => Event::Due,
        };
        core.on(event, now(), &mut effects);
        for effect in effects.drain(..) {
            match effect {
                Effect::Ask(request) => drop(requests.spawn_local(stores.clone().answer(request))),
                Effect::Log(note) => log::write(&note),
                Effect::Ready => ready.take().into_iter().for_each(|ready| ready()),
                Effect::Loaded => memory::trim_heap(),
            }
        }
    }
    if core.is_loading() {
        return;
    }
    // Whether we wait or not, what was asked for is done or not; but the log should say it.
    let _ = tokio::time::timeout(BEAT_PAUSE_MAX, last_answers(core, requests)).await;
}

async fn last_answers(mut core: Core, mut requests: JoinSet<Event>) {
    let mut effects = Vec::new();
    while !requests.is_empty() {
        core.on(answer(&mut requests).await, now(), &mut effects);
        for effect in effects.drain(..) {
            if let Effect::Log(note) = effect {
                log::write(&note);
            }
        }
    }
}

/// The next answer to a request.
async fn answer(requests: &mut JoinSet<Event>) -> Event {
    match requests.join_next().await {
        Some(Ok(event)) => event,
        Some(Err(error)) => std::panic::resume_unwind(error.into_panic()),
        None => pending().await,
    }
}

async fn wait_until(timer: &WallTimer, wake: Option<DateTime<Utc>>) {
    let Some(wake) = wake else { return pending().await };
    let since_epoch = wake.signed_duration_since(DateTime::UNIX_EPOCH).to_std();
    let waited = timer.wait_until(since_epoch.unwrap_or_default()).await;
    if let Err(error) = waited {
        tracing::debug!("beat: the timer: {error}");
    }
}

fn every(period: Duration) -> Interval {
    let mut interval = tokio::time::interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

fn now() -> Now {
    Now { mono: Instant::now(), wall: clock::now() }
}
