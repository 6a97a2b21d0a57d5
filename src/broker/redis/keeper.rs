//! Who is alive: renews what this worker holds, and hands out again what dead ones held.
//!
//! A worker on this host is dead when nobody holds its lease file any more: neither it, nor
//! its guard, nor so any of its processes. Of another host only the signs are seen: it is
//! dead when this worker, with a connection that works, has seen no new one for a while.

use super::hold::Hold;
use super::inlet::{Identity, LEASE};
use super::{Layout, Outlet, settle_call};
use crate::bounds;
use crate::clock;
use crate::link::error::Error;
use crate::link::redis::Link;
use crate::os::lease::{self, Lease, Sign};
use redis::Script;
use serde_json::{Map, Value};
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, MutexGuard};

/// How often the leases of this host are looked at; the server is not asked for it.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A sign of life is sent every so often, and what is held for longer is renewed.
const SIGN_EVERY: Duration = Duration::from_secs(4);

/// Others are looked at every so often; for those of this host their leases tell sooner.
const JUDGE_EVERY: Duration = Duration::from_secs(8);

/// A sign older than this is looked at twice.
const SIGN_OLD: Duration = Duration::from_secs(6);

/// A worker of another host whose sign stays the same for so long, while we watch, is dead.
const LOST_AFTER: Duration = Duration::from_secs(15);

/// The lease of a dead worker that nobody asked for stays for so long: whoever works on its
/// server had time to see it. Later its signs alone tell of its death.
const STRANGER_MAX: Duration = Duration::from_secs(60);

/// Quiet workers looked at in one step at the most.
const QUIET_MAX: usize = 100;

/// How often what Python workers hold is looked at, as kombu does by default.
const RESTORE_EVERY: Duration = Duration::from_secs(100);

/// Messages of Python workers handed out again in one look at the most; the rest follows with
/// the next look.
const RESTORE_MAX: usize = 500;

static KEEP: LazyLock<Script> = LazyLock::new(|| super::script(include_str!("keep.lua")));
static HELD: LazyLock<Script> = LazyLock::new(|| super::script(include_str!("held.lua")));

/// One worker among the others.
pub(super) struct Member {
    /// The connection that is told when there is something to take; not of what it does itself,
    /// so what is for others goes over the connection of `outlet`.
    pub(super) link: Link,
    pub(super) hold: Arc<Hold>,
    outlet: Outlet,
    layout: Arc<Layout>,
    hostname: String,
    queues: Vec<String>,
    visibility_timeout: Duration,
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
    pub(super) fn new(link: Link, outlet: Outlet, hold: Arc<Hold>, who: &Identity) -> Member {
        Member {
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
            self.register().await?;
            self.give_back_the_unknown().await?;
            *entered = Some(session);
        }
        Ok(entered)
    }

    async fn register(&self) -> Result<(), Error> {
        let epoch = self.epoch.fetch_add(1, Ordering::Relaxed) + 1;
        let layout = &self.layout;
        let (seconds, micros): (i64, i64) =
            self.link.run(async |c| redis::cmd("TIME").query_async(c).await).await?;
        let ahead = seconds * 1_000_000 + micros - clock::now().timestamp_micros();
        self.ahead.store(ahead, Ordering::Relaxed);
        let mut pipe = redis::pipe();
        pipe.atomic()
            .cmd("HSET")
            .arg(layout.worker(self.hold.instance()))
            .arg("node")
            .arg(&self.hostname)
            .arg("pid")
            .arg(std::process::id())
            .arg("epoch")
            .arg(epoch);
        pipe.cmd("ZADD").arg(layout.workers()).arg(self.server_clock()).arg(self.hold.instance());
        for queue in &self.queues {
            layout.bind(queue, &mut pipe);
        }
        self.link.run(async |c| pipe.exec_async(c).await).await
    }

    async fn give_back_the_unknown(&self) -> Result<(), Error> {
        let mut known = self.hold.numbers();
        let mut unknown = Vec::new();
        for found in held_by(&self.link, &self.layout, self.hold.instance()).await? {
            if !known.remove(&number_of(&found.tag)) {
                unknown.push(found.tag);
            }
        }
        if !unknown.is_empty() {
            let mut call = settle_call(&self.layout, None);
            for tag in &unknown {
                call.arg("release").arg(tag);
            }
            self.link.run(async |c| call.invoke_async::<()>(c).await).await?;
        }
        // Those may also be settled by now, by a command whose answer was lost.
        if !known.is_empty() {
            tracing::debug!("{} deliveries of this worker are not held any more", known.len());
        }
        Ok(())
    }

    /// Gives back what is held, uncounted, and goes.
    pub(super) async fn leave(&self) -> Result<(), Error> {
        let _entered = self.enter().await?;
        let mut call = settle_call(&self.layout, None);
        for found in held_by(&self.link, &self.layout, self.hold.instance()).await? {
            call.arg("release").arg(found.tag);
        }
        self.link.run(async |c| call.invoke_async::<()>(c).await).await?;
        strike(&self.link, &self.layout, self.hold.instance()).await
    }

    /// Sends a sign of life, and renews what has been held for a while.
    async fn sign(&self) -> Result<(), Error> {
        let old = self.hold.older_than(SIGN_EVERY / 2);
        let instance = self.hold.instance();
        if !old.is_empty() {
            let mut call = KEEP.prepare_invoke();
            call.key(self.layout.worker(instance)).key(self.layout.unacked_index());
            call.arg(self.epoch()).arg(LEASE.as_secs());
            for (_, tag) in &old {
                call.arg(tag);
            }
            self.link.run(async |c| call.invoke_async::<()>(c).await).await?;
            self.hold.renewed(&old);
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
        self.link.run(async |c| ask.query_async(c).await).await
    }

    /// Seconds since the epoch, as the server's clock shows them.
    pub(super) fn server_clock(&self) -> f64 {
        let ahead = self.ahead.load(Ordering::Relaxed);
        clock::epoch(clock::now()) + ahead as f64 / 1e6
    }

    async fn is_registered(&self, instance: &str) -> Result<bool, Error> {
        let mut ask = redis::cmd("EXISTS");
        ask.arg(self.layout.worker(instance));
        self.link.run(async |c| ask.query_async(c).await).await
    }

    /// What Python workers have held for longer than their visibility timeout is handed out
    /// again, as each of them would do it (kombu `transport/redis.py`, `restore_visible`). The
    /// first `stuck` are known to stay; gives how many more do, and whether that was all.
    async fn restore(&self, stuck: usize) -> Result<(usize, bool), Error> {
        let limit = clock::epoch(clock::now()) - self.visibility_timeout.as_secs_f64();
        let mut ask = redis::cmd("ZRANGEBYSCORE");
        ask.arg(self.layout.unacked_index())
            .arg("-inf")
            .arg(limit)
            .arg("LIMIT")
            .arg(stuck)
            .arg(RESTORE_MAX);
        let tags: Vec<String> = self.link.run(async |c| ask.query_async(c).await).await?;
        let (mut stay, all) = (0, tags.len() < RESTORE_MAX);
        for tag in tags {
            let mut get = redis::cmd("HGET");
            get.arg(self.layout.unacked()).arg(&tag);
            let value: Option<Vec<u8>> = self.link.run(async |c| get.query_async(c).await).await?;
            let value = value.map(|value| String::from_utf8_lossy(&value).into_owned());
            stay += usize::from(!self.restore_one(&tag, value.as_deref()).await?);
        }
        Ok((stay, all))
    }

    /// A message that nobody can read, or that has no queue, stays where it is.
    async fn restore_one(&self, tag: &str, value: Option<&str>) -> Result<bool, Error> {
        type Held = (Map<String, Value>, String, String);
        let parsed: Option<Held> = value.and_then(|value| serde_json::from_str(value).ok());
        let mut lists = Vec::new();
        let mut element = String::new();
        if let Some((envelope, exchange, key)) = parsed {
            let priority = envelope.get("properties").and_then(|all| all["priority"].as_u64());
            let priority = priority.unwrap_or(0);
            let step = super::step_of(u8::try_from(priority).unwrap_or(u8::MAX));
            let queues = match exchange.is_empty() {
                true => vec![key],
                false => self.outlet.route(exchange, key).await?,
            };
            lists.extend(queues.iter().map(|queue| self.layout.list(queue, step)));
            element = restored(envelope);
        }
        if lists.is_empty() && value.is_some() {
            return Ok(false);
        }
        let mut call = RESTORE.prepare_invoke();
        call.key(self.layout.unacked()).key(self.layout.unacked_index()).key(lists);
        call.arg(tag).arg(element);
        self.outlet.link.run(async |c| call.invoke_async::<()>(c).await).await?;
        Ok(true)
    }
}

/// The message as Python marks it, and our own marks where and as we look for them.
fn restored(mut envelope: Map<String, Value>) -> String {
    let marks = envelope.shift_remove("qworker");
    if let Some(Value::Object(headers)) = envelope.get_mut("headers") {
        headers.insert("redelivered".into(), true.into());
    }
    let properties = envelope.get_mut("properties");
    if let Some(Value::Object(info)) = properties.and_then(|all| all.get_mut("delivery_info")) {
        info.insert("redelivered".into(), true.into());
    }
    let message = Value::Object(envelope).to_string();
    match marks.as_ref().and_then(Value::as_array).map(Vec::as_slice) {
        Some([deliveries, suspect]) if message != "{}" => {
            format!("{{\"qworker\": [{deliveries}, {suspect}], {}", &message[1..])
        }
        _ => message,
    }
}

static RESTORE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "-- KEYS: unacked, unacked_index, lists; ARGV: tag, message
         redis.call('ZREM', KEYS[2], ARGV[1])
         if redis.call('HDEL', KEYS[1], ARGV[1]) == 1 then
           for n = 3, #KEYS do redis.call('RPUSH', KEYS[n], ARGV[2]) end
         end",
    )
});

/// Hands out again what a dead worker held, with a growing delay from the second loss on: the
/// first is most often the worker's own end, not the task's doing.
pub(super) async fn bury(link: &Link, layout: &Layout, instance: &str) -> Result<(), Error> {
    // Should it live after all, it takes nothing from now on before it has entered anew.
    let mut fence = redis::cmd("HSET");
    fence.arg(layout.worker(instance)).arg("epoch").arg("dead");
    link.run(async |c| fence.exec_async(c).await).await?;
    let held = held_by(link, layout, instance).await?;
    if !held.is_empty() {
        let now = clock::now();
        let mut call = settle_call(layout, None);
        for one in &held {
            // A suspect counts from its start on.
            let counted = !one.suspect || one.marked;
            let delay = bounds::redelivery_delay(if counted { one.deliveries } else { 0 });
            call.arg("again").arg(&one.tag);
            call.arg(if delay.is_zero() { 0.0 } else { clock::epoch(now + delay) });
            call.arg(u8::from(counted));
        }
        link.run(async |c| call.invoke_async::<()>(c).await).await?;
        tracing::warn!("handed out again {} messages of a dead worker", held.len());
    }
    strike(link, layout, instance).await
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
            member.sign().await?;
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

/// Instances that have a lease on this host.
fn leases() -> Vec<String> {
    let Ok(folder) = lease::folder() else { return Vec::new() };
    let Ok(files) = std::fs::read_dir(&folder) else { return Vec::new() };
    let names = files.flatten().filter_map(|file| file.file_name().into_string().ok());
    names.filter_map(|name| Some(name.strip_suffix(".lease")?.to_string())).collect()
}

/// The lease of an instance, if it is of this host.
pub(super) fn lease_of(instance: &str) -> std::io::Result<PathBuf> {
    Ok(lease::folder()?.join(format!("{instance}.lease")))
}

fn remove_lease(instance: &str) {
    if let Ok(path) = lease_of(instance) {
        let _ = std::fs::remove_file(path);
    }
}

/// Does the worker live? Only a lease of this host can tell.
pub(super) fn lease_says(instance: &str) -> Option<bool> {
    match Lease::ask(&lease_of(instance).ok()?) {
        Sign::Held => Some(true),
        Sign::Free => Some(false),
        Sign::Unseen(_) => None,
    }
}
