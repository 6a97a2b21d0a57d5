//! Looks at messages without taking them: held ones, and those in the lists and sets of all queues.

use super::Broker;
use super::admin::queue_of;
use super::layout::STEPS;
use crate::broker::{Administer, SeenMessage, Whereabouts};
use crate::link::error::{Error, StoreErrorKind};
use crate::wire::Payload;
use redis::FromRedisValue;
use serde_json::value::RawValue;

/// Messages that are read in one step.
const SLICE: usize = 200;

/// What others may have put there.
type Bytes = Vec<u8>;

/// What was seen so far, and for how many bytes there is room.
struct Seen {
    all: Vec<SeenMessage>,
    room: usize,
}

impl Seen {
    fn add(&mut self, place: Whereabouts, envelope: &str) {
        self.room = self.room.saturating_sub(envelope.len());
        self.all.push(SeenMessage { place, payload: Payload::from_envelope(envelope) });
    }
}

/// See [`crate::broker::Admin::messages`].
pub(super) async fn all(broker: &Broker, bytes: usize) -> Result<(Vec<SeenMessage>, bool), Error> {
    let mut seen = Seen { all: Vec::new(), room: bytes };
    held(broker, &mut seen).await?;
    for queue in broker.queues().await?.into_iter().map(|queue| queue.name) {
        for step in STEPS {
            waiting(broker, &queue, &broker.layout.list(&queue, step), &mut seen).await?;
        }
        scheduled(broker, &queue, &mut seen).await?;
    }
    Ok((seen.all, seen.room == 0))
}

async fn held(broker: &Broker, seen: &mut Seen) -> Result<(), Error> {
    let mut cursor = 0_u64;
    while seen.room > 0 {
        let mut scan = redis::cmd("HSCAN");
        scan.arg(broker.layout.unacked()).arg(cursor).arg("COUNT").arg(SLICE);
        let Some((next, found)): Option<(u64, Vec<(Bytes, Bytes)>)> = ask(broker, &scan).await?
        else {
            return Ok(());
        };
        for (tag, value) in found {
            let (tag, value) = (String::from_utf8_lossy(&tag), String::from_utf8_lossy(&value));
            let queue = queue_of(&tag, &value);
            // `[envelope, exchange, routing key]`
            let parts: Option<Vec<&RawValue>> = serde_json::from_str(&value).ok();
            let envelope = parts.as_ref().and_then(|parts| parts.first());
            if let Some(envelope) = envelope {
                seen.add(Whereabouts::Held { queue }, envelope.get());
            }
        }
        cursor = next;
        if cursor == 0 {
            break;
        }
    }
    Ok(())
}

async fn waiting(broker: &Broker, queue: &str, list: &str, seen: &mut Seen) -> Result<(), Error> {
    let mut from = 0;
    while seen.room > 0 {
        let mut range = redis::cmd("LRANGE");
        range.arg(list).arg(from).arg(from + SLICE - 1);
        let found: Vec<Bytes> = ask(broker, &range).await?.unwrap_or_default();
        for element in &found {
            let place = Whereabouts::Waiting { queue: queue.into(), eta: None };
            seen.add(place, &String::from_utf8_lossy(element));
        }
        from += SLICE;
        if found.len() < SLICE {
            break;
        }
    }
    Ok(())
}

async fn scheduled(broker: &Broker, queue: &str, seen: &mut Seen) -> Result<(), Error> {
    let mut from = 0;
    while seen.room > 0 {
        let mut range = redis::cmd("ZRANGE");
        range.arg(broker.layout.scheduled(queue)).arg(from).arg(from + SLICE - 1).arg("WITHSCORES");
        let found: Vec<(Bytes, f64)> = ask(broker, &range).await?.unwrap_or_default();
        for (member, due) in &found {
            let eta = Some(due.to_string());
            let place = Whereabouts::Waiting { queue: queue.into(), eta };
            // `STEP:UNIQUE:ENVELOPE`
            let member = String::from_utf8_lossy(member);
            seen.add(place, member.splitn(3, ':').nth(2).unwrap_or_default());
        }
        from += SLICE;
        if found.len() < SLICE {
            break;
        }
    }
    Ok(())
}

/// What the server answers; nothing where a key is something else.
async fn ask<T: FromRedisValue>(broker: &Broker, command: &redis::Cmd) -> Result<Option<T>, Error> {
    match broker.ask(command).await {
        Err(error) if error.kind() == StoreErrorKind::Refused => Ok(None),
        found => found.map(Some),
    }
}
