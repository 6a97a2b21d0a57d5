//! Membership of this worker: registers it on the server and renews its leases.

use super::Broker;
use super::call::Call;
use super::instance::is_instance;
use super::layout::Layout;
use super::reclaim::{DEAD, held_by, strike, tell_kept};
use super::unacked::{LEASE, Unacked, number_of};
use crate::broker::{Tag, WorkerIdentity};
use crate::clock;
use crate::link::error::{Error, StoreErrorKind};
use crate::link::redis::Link;
use redis::Script;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tokio::sync::{Mutex, MutexGuard, mpsc};

/// How often a sign of life is sent, and what has been held for a while is renewed.
pub(super) const SIGN_EVERY: Duration = Duration::from_secs(4);

/// A sign older than this is looked at twice.
const SIGN_OLD: Duration = Duration::from_secs(6);

/// Most quiet workers looked at in one step.
const QUIET_MAX: usize = 100;

static KEEP: LazyLock<Script> = LazyLock::new(|| super::script(include_str!("keep.lua")));

/// One worker among the others.
pub(super) struct Member {
    /// The connection that messages are taken on.
    pub(super) link: Link,
    pub(super) hold: Arc<Unacked>,
    /// The connection that deliveries are settled on.
    pub(super) broker: Broker,
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
    pub(super) entered: Mutex<Option<u32>>,
}

impl Member {
    pub(super) fn new(
        link: Link,
        broker: Broker,
        hold: Arc<Unacked>,
        who: &WorkerIdentity<'_>,
        losses: mpsc::UnboundedSender<Vec<Tag>>,
    ) -> Member {
        Member {
            losses,
            link,
            hold,
            layout: broker.layout.clone(),
            broker,
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
                    StoreErrorKind::Refused => error.with(format!(
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
        let mut keep = redis::cmd("SADD");
        keep.arg(layout.queues()).arg(&self.queues);
        match self.link.run(async |c| keep.exec_async(c).await).await {
            // They are found by a walk over all keys then.
            Err(error)
                if matches!(error.kind(), StoreErrorKind::Refused | StoreErrorKind::Forbidden) =>
            {
                tracing::warn!("cannot store the names of queues ({}): {error}", layout.queues());
            }
            done => done?,
        }
        let mut bind = redis::pipe();
        self.queues.iter().for_each(|queue| layout.bind(queue, &mut bind));
        match self.link.run(async |c| bind.exec_async(c).await).await {
            // Messages still come, except those to an exchange.
            Err(error)
                if matches!(error.kind(), StoreErrorKind::Refused | StoreErrorKind::Forbidden) =>
            {
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
            // The server was emptied, or started without its data: no other worker has them.
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
    pub(super) async fn sign(&self) -> Result<(), Error> {
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
        // XX: only a worker that has entered and was not struck out.
        sign.arg(self.layout.workers()).arg("XX").arg(self.server_clock()).arg(instance);
        self.link.run(async |c| sign.exec_async(c).await).await
    }

    /// The workers whose last sign is old.
    pub(super) async fn quiet(&self) -> Result<Vec<(String, f64)>, Error> {
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

    /// Which of these the server knows as workers.
    pub(super) async fn are_registered(&self, instances: &[String]) -> Result<Vec<bool>, Error> {
        let mut pipe = redis::pipe();
        for instance in instances {
            pipe.zscore(self.layout.workers(), instance);
        }
        let signs: Vec<Option<f64>> = self.link.run(async |c| pipe.query_async(c).await).await?;
        Ok(signs.iter().map(Option::is_some).collect())
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
