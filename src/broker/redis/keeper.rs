//! Who is alive: renews what this worker holds, and hands out again what dead ones held.
//!
//! A worker on this host is dead when nobody holds its lease file any more: neither it, nor
//! its guard, nor so any of its processes. Of another host only the signs are seen: it is
//! dead when this worker, with a connection that works, has seen no new one for a while.

use super::commit::Call;
use super::hold::Hold;
use super::inlet::{Identity, LEASE};
use super::instance::{is_instance, lease_says, leases, remove_lease};
use super::{Layout, Outlet};
use crate::bounds;
use crate::broker::{Fate, Tag};
use crate::clock;
use crate::link::error::{Error, Kind};
use crate::link::redis::Link;
use redis::Script;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, MutexGuard, mpsc};

/// How often the leases of this host are looked at; the server is not asked for it.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A sign of life is sent every so often, and what is held for longer is renewed.
const SIGN_EVERY: Duration = Duration::from_secs(4);

/// Others are looked at every so often; for those of this host their leases tell sooner.
const JUDGE_EVERY: Duration = Duration::from_secs(8);

/// A sign older than this is looked at twice.
const SIGN_OLD: Duration = Duration::from_secs(6);

/// A worker of another host whose sign stays the same for so long is dead.
const LOST_AFTER: Duration = Duration::from_secs(15);

/// The lease of a dead worker that nobody asked for stays for so long: whoever works on its
/// server had time to see it. Later its signs alone tell of its death.
const STRANGER_MAX: Duration = Duration::from_secs(60);

/// Quiet workers looked at in one step at the most.
const QUIET_MAX: usize = 100;

/// How often what Python workers hold is looked at, as kombu does by default.
const RESTORE_EVERY: Duration = Duration::from_secs(100);

/// That a worker was taken for dead is known for so long.
const DEAD_FOR: Duration = Duration::from_secs(24 * 3600);

/// The epoch of a worker that was taken for dead.
pub(super) const DEAD: &str = "dead";

static KEEP: LazyLock<Script> = LazyLock::new(|| super::script(include_str!("keep.lua")));
static HELD: LazyLock<Script> = LazyLock::new(|| super::script(include_str!("held.lua")));

/// One worker among the others.
pub(super) struct Member {
    /// The connection that messages are taken on.
    pub(super) link: Link,
    pub(super) hold: Arc<Hold>,
    pub(super) outlet: Outlet,
    pub(super) layout: Arc<Layout>,
    hostname: String,
    queues: Vec<String>,
    pub(super) visibility_timeout: Duration,
    /// Hears of deliveries that are not held any more, though nobody here has settled them.
    losses: mpsc::UnboundedSender<Vec<Tag>>,
    /// Which connection of ours is the last one; a command of an earlier one that comes late
    /// is refused.
    epoch: AtomicU64,
    /// What the server's clock is ahead of ours, in microseconds.
    ahead: AtomicI64,
    /// The connection on which the worker has entered. Held while messages are taken, since
    /// what is taken and not known yet looks like what an earlier connection left.
    entered: Mutex<Option<u32>>,
}

impl Member {
    pub(super) fn new(
        link: Link,
        outlet: Outlet,
        hold: Arc<Hold>,
        who: &Identity,
        losses: mpsc::UnboundedSender<Vec<Tag>>,
    ) -> Member {
        Member {
            losses,
            link,
            hold,
            layout: outlet.layout.clone(),
            outlet,
            hostname: who.hostname.into(),
            queues: who.queues.to_vec(),
            visibility_timeout: who.visibility_timeout,
            epoch: AtomicU64::new(0),
            ahead: AtomicI64::new(0),
            entered: Mutex::default(),
        }
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Relaxed)
    }

    /// Makes sure that this worker is known, on the connection there is now. What an earlier
    /// connection took, and its answer was lost, goes back first.
    pub(super) async fn enter(&self) -> Result<MutexGuard<'_, Option<u32>>, Error> {
        let mut entered = self.entered.lock().await;
        let session = self.link.session().await?;
        if *entered != Some(session) {
            let found = self.register().await?;
            self.give_back_the_unknown(found).await?;
            *entered = Some(session);
        }
        Ok(entered)
    }

    /// Gives what the server has known of this worker.
    async fn register(&self) -> Result<Before, Error> {
        let epoch = self.epoch.fetch_add(1, Ordering::Relaxed) + 1;
        let layout = &self.layout;
        let (seconds, micros): (i64, i64) =
            self.link.run(async |c| redis::cmd("TIME").query_async(c).await).await?;
        let ahead = seconds * 1_000_000 + micros - clock::now().timestamp_micros();
        self.ahead.store(ahead, Ordering::Relaxed);
        let mut pipe = redis::pipe();
        pipe.atomic().cmd("HGET").arg(layout.worker(self.hold.instance())).arg("epoch");
        pipe.cmd("PERSIST").arg(layout.worker(self.hold.instance())).ignore();
        pipe.cmd("HSET")
            .arg(layout.worker(self.hold.instance()))
            .arg("node")
            .arg(&self.hostname)
            .arg("pid")
            .arg(std::process::id())
            .arg("epoch")
            .arg(epoch)
            .ignore();
        pipe.cmd("ZADD").arg(layout.workers()).arg(self.server_clock()).arg(self.hold.instance());
        pipe.ignore();
        let (before,): (Option<String>,) =
            self.link.run(async |c| pipe.query_async(c).await).await.map_err(|error| {
                let keys = [layout.worker(self.hold.instance()), layout.workers()];
                match error.kind() {
                    Kind::Refused => error.with(format!(
                        "the key {}, expected to be a hash, or {}, expected to be a zset",
                        keys[0], keys[1]
                    )),
                    _ => error,
                }
            })?;
        let before = match before.as_deref() {
            None => Before::Unknown,
            Some(DEAD) => Before::Dead,
            Some(_) => Before::Alive,
        };
        let mut bind = redis::pipe();
        self.queues.iter().for_each(|queue| layout.bind(queue, &mut bind));
        match self.link.run(async |c| bind.exec_async(c).await).await {
            // Messages come all the same, but for those to an exchange.
            Err(error) if matches!(error.kind(), Kind::Refused | Kind::Forbidden) => {
                let key = layout.bindings("");
                tracing::warn!("cannot declare queues to Python programs ({key}QUEUE): {error}");
            }
            done => done?,
        }
        Ok(before)
    }

    async fn give_back_the_unknown(&self, before: Before) -> Result<(), Error> {
        let mut known = self.hold.numbers();
        let mut unknown = Vec::new();
        for found in held_by(&self.link, &self.layout, self.hold.instance()).await? {
            if !known.remove(&number_of(&found.tag)) {
                unknown.push(found.tag);
            }
        }
        let mut call = Call::new(&self.layout);
        for tag in &unknown {
            call.item(tag, "").arg("release");
        }
        call.ask(&self.link).await?;
        let missing: Vec<u64> = known.into_iter().collect();
        match before {
            // It was emptied, or started without its data: nobody else has them.
            Before::Unknown => self.hold.orphan(&missing),
            Before::Alive | Before::Dead => self.forfeit(missing),
        }
        Ok(())
    }

    /// They are not held any more. Perhaps they are settled by a command that is under way, or
    /// whose answer was lost; the worker knows which of its tasks still run.
    fn forfeit(&self, numbers: Vec<u64>) {
        if !numbers.is_empty() {
            self.hold.forget(&numbers);
            // Nobody may listen any more.
            let _ = self.losses.send(numbers.into_iter().map(Tag::Number).collect());
        }
    }

    /// Gives back what is held, uncounted, and goes.
    pub(super) async fn leave(&self) -> Result<(), Error> {
        let _entered = self.enter().await?;
        let mut call = Call::new(&self.layout);
        for found in held_by(&self.link, &self.layout, self.hold.instance()).await? {
            call.item(&found.tag, "").arg("release");
        }
        let fates = call.ask(&self.link).await?;
        match tell_kept(&fates) {
            // Others find it by this worker's name, when it has said nothing for a while.
            true => Ok(()),
            false => strike(&self.link, &self.layout, self.hold.instance()).await,
        }
    }

    /// Sends a sign of life, and renews what has been held for a while.
    async fn sign(&self) -> Result<(), Error> {
        let old = self.hold.older_than(SIGN_EVERY / 2);
        let instance = self.hold.instance();
        if !old.is_empty() {
            let mut call = KEEP.prepare_invoke();
            call.key(self.layout.worker(instance)).key(self.layout.unacked_index());
            call.key(self.layout.unacked());
            call.arg(self.epoch()).arg(LEASE.as_secs());
            for (_, tag) in &old {
                call.arg(tag);
            }
            let gone: Vec<String> = self.link.run(async |c| call.invoke_async(c).await).await?;
            self.hold.renewed(&old);
            self.forfeit(gone.iter().map(|tag| number_of(tag)).collect());
        }
        let mut sign = redis::cmd("ZADD");
        // Only who has entered and was not struck out.
        sign.arg(self.layout.workers()).arg("XX").arg(self.server_clock()).arg(instance);
        self.link.run(async |c| sign.exec_async(c).await).await
    }

    /// The workers whose last sign is old.
    async fn quiet(&self) -> Result<Vec<(String, f64)>, Error> {
        let limit = self.server_clock() - SIGN_OLD.as_secs_f64();
        let mut ask = redis::cmd("ZRANGEBYSCORE");
        ask.arg(self.layout.workers()).arg("-inf").arg(limit).arg("WITHSCORES");
        ask.arg("LIMIT").arg(0).arg(QUIET_MAX);
        let quiet: Vec<(Vec<u8>, f64)> = self.link.run(async |c| ask.query_async(c).await).await?;
        let named = quiet.into_iter().filter_map(|(name, sign)| {
            Some((String::from_utf8(name).ok().filter(|name| is_instance(name))?, sign))
        });
        Ok(named.collect())
    }

    /// Seconds since the epoch, as the server's clock shows them.
    pub(super) fn server_clock(&self) -> f64 {
        let ahead = self.ahead.load(Ordering::Relaxed);
        clock::epoch(clock::now()) + ahead as f64 / 1e6
    }

    async fn is_registered(&self, instance: &str) -> Result<bool, Error> {
        let mut ask = redis::cmd("ZSCORE");
        ask.arg(self.layout.workers()).arg(instance);
        let sign: Option<f64> = self.link.run(async |c| ask.query_async(c).await).await?;
        Ok(sign.is_some())
    }
}

/// What the server knew of a worker that enters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    /// Nothing: it is new, or the server has lost what it knew.
    Unknown,
    /// It was there.
    Alive,
    /// It was taken for dead.
    Dead,
}

/// Hands out again what a dead worker held, with a growing delay from the second loss on: the
/// first is most often the worker's own end, not the task's doing.
pub(super) async fn bury(link: &Link, layout: &Layout, instance: &str) -> Result<(), Error> {
    // Should it live after all, it takes nothing from now on before it has entered anew.
    let mut fence = redis::cmd("HSET");
    fence.arg(layout.worker(instance)).arg("epoch").arg(DEAD);
    link.run(async |c| fence.exec_async(c).await).await.map_err(|error| match error.kind() {
        Kind::Refused => error.with(format!("the key {}", layout.worker(instance))),
        _ => error,
    })?;
    let held = held_by(link, layout, instance).await?;
    if !held.is_empty() {
        let now = clock::now();
        let mut call = Call::new(layout);
        for one in &held {
            // A suspect counts from its start on.
            let counted = !one.suspect || one.marked;
            let delay = bounds::redelivery_delay(if counted { one.deliveries } else { 0 });
            let call = call.item(&one.tag, "").arg("again");
            call.arg(if delay.is_zero() { 0.0 } else { clock::epoch(now + delay) });
            call.arg(u8::from(counted));
        }
        let fates = call.ask(link).await?;
        let done = fates.iter().filter(|fate| **fate == Fate::Done).count();
        if done > 0 {
            tracing::warn!("handed out again {done} messages of a dead worker");
        }
        if tell_kept(&fates) {
            return Ok(());
        }
    }
    strike(link, layout, instance).await?;
    // Should it live after all, it has to hear that its messages are somebody else's.
    let mut note = redis::pipe();
    let key = layout.worker(instance);
    note.atomic().cmd("HSET").arg(&key).arg("epoch").arg(DEAD);
    note.cmd("EXPIRE").arg(&key).arg(DEAD_FOR.as_secs());
    link.run(async |c| note.exec_async(c).await).await
}

/// Tells of messages that cannot go back; the worker that held them is not forgotten, so that
/// somebody tries again.
fn tell_kept(fates: &[Fate]) -> bool {
    let mut refused = fates.iter().filter_map(|fate| match fate {
        Fate::Refused(why) => Some(why),
        _ => None,
    });
    let first = refused.next();
    if let Some(why) = first {
        let count = 1 + refused.count();
        tracing::error!("{count} messages of a dead worker cannot be handed out again yet: {why}");
    }
    first.is_some()
}

/// Forgets a worker that holds nothing any more.
async fn strike(link: &Link, layout: &Layout, instance: &str) -> Result<(), Error> {
    let mut pipe = redis::pipe();
    pipe.atomic();
    pipe.cmd("DEL").arg(layout.worker(instance));
    pipe.cmd("ZREM").arg(layout.workers()).arg(instance);
    link.run(async |c| pipe.exec_async(c).await).await?;
    // It has one only if it was of this host.
    remove_lease(instance);
    Ok(())
}

/// A delivery in some worker's hands.
struct Found {
    tag: String,
    deliveries: u32,
    suspect: bool,
    marked: bool,
}

async fn held_by(link: &Link, layout: &Layout, instance: &str) -> Result<Vec<Found>, Error> {
    let mut cursor = "0".to_string();
    let mut found = Vec::new();
    let mut seen = HashSet::new();
    loop {
        let mut call = HELD.prepare_invoke();
        call.key(layout.unacked())
            .key(layout.worker(instance))
            .arg(&cursor)
            .arg(format!("{instance}:"));
        let (next, slice): (String, Vec<(String, u32, bool, bool)>) = link
            .run(async |c| {
                let flat: Vec<redis::Value> = call.invoke_async(c).await?;
                let mut flat = flat.into_iter();
                let next = redis::from_redis_value(flat.next().unwrap_or_default())?;
                Ok((next, redis::from_redis_value(redis::Value::Array(flat.collect()))?))
            })
            .await?;
        for (tag, deliveries, suspect, marked) in slice {
            // A table that is being resized shows some twice.
            if seen.insert(tag.clone()) {
                found.push(Found { tag, deliveries, suspect, marked });
            }
        }
        if next == "0" {
            // In the order in which they were taken, the last first: each goes back to the head.
            found.sort_by_key(|found| std::cmp::Reverse(number_of(&found.tag)));
            return Ok(found);
        }
        cursor = next;
    }
}

fn number_of(tag: &str) -> u64 {
    tag.split(':').nth(1).and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// Works until it is aborted.
pub(super) async fn run(member: Arc<Member>) {
    let mut looks = tokio::time::interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut watch = Watch::default();
    loop {
        looks.tick().await;
        if let Err(error) = watch.look(&member).await {
            // Whoever takes messages says so; here it only means that we cannot judge.
            tracing::debug!("cannot look after other workers: {error}");
            watch.quiet.clear();
        }
    }
}

/// What one worker has seen of the others.
#[derive(Default)]
struct Watch {
    signed: Option<Instant>,
    judged: Option<Instant>,
    restored: Option<Instant>,
    /// What Python workers left and nobody can read, seen in this round.
    stuck: usize,
    /// The last sign of each worker that is quiet, and since when we know it.
    quiet: HashMap<String, (f64, Instant)>,
    /// Dead workers of this host that belong to other servers, and since when we know them.
    strangers: HashMap<String, Instant>,
}

impl Watch {
    async fn look(&mut self, member: &Member) -> Result<(), Error> {
        for instance in leases().into_iter().filter(|one| one != member.hold.instance()) {
            if let Some(since) = self.strangers.get(&instance) {
                if since.elapsed() >= STRANGER_MAX {
                    remove_lease(&instance);
                    self.strangers.remove(&instance);
                }
            } else if lease_says(&instance) == Some(false) {
                if member.is_registered(&instance).await? {
                    bury(&member.outlet.link, &member.layout, &instance).await?;
                } else {
                    self.strangers.insert(instance, Instant::now());
                }
            }
        }
        if self.signed.is_none_or(|at| at.elapsed() >= SIGN_EVERY) {
            // Who is taking has entered, or is about to.
            if let Ok(entered) = member.entered.try_lock() {
                drop(entered);
                member.enter().await.map(drop)?;
            }
            match member.sign().await {
                // Somebody took this worker for dead, while it stood still.
                Err(error) if error.kind() == Kind::Fenced => {
                    *member.entered.lock().await = None;
                    member.enter().await.map(drop)?;
                }
                done => done?,
            }
            self.signed = Some(Instant::now());
        }
        if self.judged.is_none_or(|at| at.elapsed() >= JUDGE_EVERY) {
            self.judge(member, member.quiet().await?).await?;
            self.judged = Some(Instant::now());
        }
        if self.restored.is_none_or(|at| at.elapsed() >= RESTORE_EVERY) {
            let (stay, all) = member.restore(self.stuck).await?;
            self.stuck += stay;
            if all {
                self.stuck = 0;
                self.restored = Some(Instant::now());
            }
        }
        Ok(())
    }

    async fn judge(&mut self, member: &Member, quiet: Vec<(String, f64)>) -> Result<(), Error> {
        self.quiet.retain(|instance, _| quiet.iter().any(|(quiet, _)| quiet == instance));
        for (instance, sign) in quiet {
            let since = self.quiet.entry(instance.clone()).or_insert((sign, Instant::now()));
            if since.0 != sign {
                *since = (sign, Instant::now());
            }
            if since.1.elapsed() >= LOST_AFTER && lease_says(&instance) != Some(true) {
                bury(&member.outlet.link, &member.layout, &instance).await?;
                self.quiet.remove(&instance);
            }
        }
        Ok(())
    }
}
