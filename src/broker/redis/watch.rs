//! Monitors the other workers: detects dead ones, and redelivers what Python workers left.
//!
//! A worker on this host is dead when its lease file is not held any more, neither by itself nor by
//! its guard. Of workers on other hosts only the signs of life are visible.

use super::instance::{lease_says, leases, says};
use super::member::{Member, SIGN_EVERY};
use super::reclaim::bury;
use super::restore::restore;
use crate::broker::membership::Membership;
use crate::link::error::{Error, StoreErrorKind};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often the leases of this host are looked at; the server is not asked for it.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How often others are judged by their signs; on this host their leases tell sooner.
const JUDGE_EVERY: Duration = Duration::from_secs(8);

/// How long the lease file of a dead worker of another server stays: workers of that server have
/// had time to see it. Later its signs alone tell that it is dead.
const STRANGER_MAX: Duration = Duration::from_secs(60);

/// How often what Python workers hold is looked at, as kombu does by default.
const RESTORE_EVERY: Duration = Duration::from_secs(100);

/// Works until it is aborted.
pub(super) async fn run(member: Arc<Member>) {
    let mut looks = tokio::time::interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut watch = PeerMonitor::default();
    loop {
        looks.tick().await;
        if let Err(error) = watch.look(&member).await {
            // Whoever takes messages says so; here it only means that we cannot judge.
            tracing::debug!("cannot monitor other workers: {error}");
            watch.others.forget();
        }
    }
}

/// What one worker has seen of the others.
#[derive(Default)]
struct PeerMonitor {
    signed: Option<Instant>,
    judged: Option<Instant>,
    restored: Option<Instant>,
    /// Unreadable messages of Python workers, seen in this round.
    stuck: usize,
    /// Those that are quiet.
    others: Membership,
    /// Dead workers of this host that belong to other servers, and since when we know them.
    strangers: HashMap<String, Instant>,
}

impl PeerMonitor {
    async fn look(&mut self, member: &Member) -> Result<(), Error> {
        let mut dead = Vec::new();
        for (instance, lease) in leases() {
            if let Some(since) = self.strangers.get(&instance) {
                if since.elapsed() >= STRANGER_MAX {
                    let _ = std::fs::remove_file(&lease);
                    self.strangers.remove(&instance);
                }
            } else if instance != member.hold.instance() && says(&lease) == Some(false) {
                dead.push(instance);
            }
        }
        if !dead.is_empty() {
            let registered = member.are_registered(&dead).await?;
            for (instance, registered) in dead.into_iter().zip(registered) {
                if registered {
                    bury(&member.broker.link, &member.layout, &instance).await?;
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
                Err(error) if error.kind() == StoreErrorKind::Fenced => {
                    *member.entered.lock().await = None;
                    member.enter().await.map(drop)?;
                }
                done => done?,
            }
            self.signed = Some(Instant::now());
        }
        if self.judged.is_none_or(|at| at.elapsed() >= JUDGE_EVERY) {
            for instance in self.others.judge(member.quiet().await?, Instant::now()) {
                if lease_says(&instance) != Some(true) {
                    bury(&member.broker.link, &member.layout, &instance).await?;
                }
            }
            self.judged = Some(Instant::now());
        }
        if self.restored.is_none_or(|at| at.elapsed() >= RESTORE_EVERY) {
            let (stay, all) = restore(member, self.stuck).await?;
            self.stuck += stay;
            if all {
                self.stuck = 0;
                self.restored = Some(Instant::now());
            }
        }
        Ok(())
    }
}
