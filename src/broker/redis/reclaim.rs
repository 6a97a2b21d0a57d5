//! Returns the messages of dead workers to their queues.

use super::call::Call;
use super::instance::remove_lease;
use super::layout::Layout;
use super::unacked::number_of;
use crate::broker::Disposition;
use crate::broker::loss::loss;
use crate::clock;
use crate::link::error::{Error, StoreErrorKind};
use crate::link::redis::Link;
use redis::Script;
use std::collections::HashSet;
use std::sync::LazyLock;
use std::time::Duration;

/// How long the server remembers that a worker was taken for dead.
const DEAD_FOR: Duration = Duration::from_secs(24 * 3600);

/// The epoch of a worker that was taken for dead.
pub(super) const DEAD: &str = "dead";

static HELD: LazyLock<Script> = LazyLock::new(|| super::script(include_str!("held.lua")));

/// Redelivers what a dead worker held.
pub(super) async fn bury(link: &Link, layout: &Layout, instance: &str) -> Result<(), Error> {
    // Should it live after all, it takes nothing from now on before it has entered anew.
    let mut fence = redis::cmd("HSET");
    fence.arg(layout.worker(instance)).arg("epoch").arg(DEAD);
    link.run(async |c| fence.exec_async(c).await).await.map_err(|error| match error.kind() {
        StoreErrorKind::Refused => error.with(format!("the key {}", layout.worker(instance))),
        _ => error,
    })?;
    let held = held_by(link, layout, instance).await?;
    if !held.is_empty() {
        let now = clock::now();
        let mut call = Call::new(layout);
        for one in &held {
            // A suspect counts from its start on.
            let loss = loss(one.deliveries, !one.suspect || one.marked, now);
            let call = call.item(&one.tag, "").arg("again");
            call.arg(loss.until.map_or(0.0, clock::epoch)).arg(u8::from(loss.counts));
        }
        let fates = call.ask(link).await?;
        let done = fates.iter().filter(|fate| **fate == Disposition::Done).count();
        if done > 0 {
            tracing::warn!("redelivered {done} messages of a dead worker");
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

/// Logs messages that cannot go back; their worker stays registered, so that others try again.
pub(super) fn tell_kept(fates: &[Disposition]) -> bool {
    let mut refused = fates.iter().filter_map(|fate| match fate {
        Disposition::Refused(why) => Some(why),
        _ => None,
    });
    let first = refused.next();
    if let Some(why) = first {
        let count = 1 + refused.count();
        tracing::error!("{count} messages of a dead worker cannot be redelivered yet: {why}");
    }
    first.is_some()
}

/// Forgets a worker that holds nothing any more.
pub(super) async fn strike(link: &Link, layout: &Layout, instance: &str) -> Result<(), Error> {
    let mut pipe = redis::pipe();
    pipe.atomic();
    pipe.cmd("DEL").arg(layout.worker(instance));
    pipe.cmd("ZREM").arg(layout.workers()).arg(instance);
    link.run(async |c| pipe.exec_async(c).await).await?;
    // It has one only if it was of this host.
    remove_lease(instance);
    Ok(())
}

/// A delivery that some worker holds.
pub(super) struct HeldDelivery {
    pub(super) tag: String,
    deliveries: u32,
    suspect: bool,
    marked: bool,
}

pub(super) async fn held_by(
    link: &Link,
    layout: &Layout,
    instance: &str,
) -> Result<Vec<HeldDelivery>, Error> {
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
                found.push(HeldDelivery { tag, deliveries, suspect, marked });
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
