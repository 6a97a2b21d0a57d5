//! Redelivers what Python workers left, after their visibility timeout, as each of them would.

use super::layout::step_of;
use super::member::Member;
use crate::broker::Produce;
use crate::clock;
use crate::link::error::{Error, StoreErrorKind};
use redis::Script;
use serde_json::{Map, Value};
use std::sync::LazyLock;

/// Most messages redelivered in one look; the rest follows with the next look.
const RESTORE_MAX: usize = 500;

/// Redelivers what Python workers have held for longer than their visibility timeout (kombu
/// `transport/redis.py`, `restore_visible`). The first `stuck` are known to stay; gives how many
/// more do, and whether that was all.
pub(super) async fn restore(member: &Member, stuck: usize) -> Result<(usize, bool), Error> {
    let limit = clock::epoch(clock::now()) - member.visibility_timeout.as_secs_f64();
    let mut ask = redis::cmd("ZRANGEBYSCORE");
    ask.arg(member.layout.unacked_index())
        .arg("-inf")
        .arg(limit)
        .arg("LIMIT")
        .arg(stuck)
        .arg(RESTORE_MAX);
    let tags: Vec<String> = member.link.run(async |c| ask.query_async(c).await).await?;
    let (mut stay, all) = (0, tags.len() < RESTORE_MAX);
    for tag in tags {
        let mut get = redis::cmd("HGET");
        get.arg(member.layout.unacked()).arg(&tag);
        let value: Option<Vec<u8>> = member.link.run(async |c| get.query_async(c).await).await?;
        let value = value.map(|value| String::from_utf8_lossy(&value).into_owned());
        stay += usize::from(!restore_one(member, &tag, value.as_deref()).await?);
    }
    Ok((stay, all))
}

/// A message that cannot be read, or that has no queue, stays where it is.
async fn restore_one(member: &Member, tag: &str, value: Option<&str>) -> Result<bool, Error> {
    type Held = (Map<String, Value>, String, String);
    let parsed: Option<Held> = value.and_then(|value| serde_json::from_str(value).ok());
    let mut lists = Vec::new();
    let mut element = String::new();
    if let Some((envelope, exchange, key)) = parsed {
        let priority = envelope.get("properties").and_then(|all| all["priority"].as_u64());
        let priority = priority.unwrap_or(0);
        let step = step_of(u8::try_from(priority).unwrap_or(u8::MAX));
        let queues = match exchange.is_empty() {
            true => vec![key],
            false => match member.broker.route(exchange, key).await {
                // A key of bindings that is something else.
                Err(error) if error.kind() == StoreErrorKind::Refused => Vec::new(),
                routed => routed?,
            },
        };
        lists.extend(queues.iter().map(|queue| member.layout.list(queue, step)));
        element = restored(envelope);
    }
    if lists.is_empty() && value.is_some() {
        return Ok(false);
    }
    let mut call = RESTORE.prepare_invoke();
    call.key(member.layout.unacked()).key(member.layout.unacked_index()).key(lists);
    call.arg(tag).arg(element);
    member.broker.link.run(async |c| call.invoke_async(c).await).await
}

/// The message as Python marks it, and our own counts where and as we look for them.
fn restored(mut envelope: Map<String, Value>) -> String {
    let counts = envelope.shift_remove("qworker");
    if let Some(Value::Object(headers)) = envelope.get_mut("headers") {
        headers.insert("redelivered".into(), true.into());
    }
    let properties = envelope.get_mut("properties");
    if let Some(Value::Object(info)) = properties.and_then(|all| all.get_mut("delivery_info")) {
        info.insert("redelivered".into(), true.into());
    }
    let message = Value::Object(envelope).to_string();
    match counts.as_ref().and_then(Value::as_array).map(Vec::as_slice) {
        Some([deliveries, suspect]) if message != "{}" => {
            format!("{{\"qworker\": [{deliveries}, {suspect}], {}", &message[1..])
        }
        _ => message,
    }
}

static RESTORE: LazyLock<Script> = LazyLock::new(|| {
    super::script(
        "-- KEYS: unacked, unacked_index, lists; ARGV: tag, message. Gives 0 if it has to stay.
         redis.call('ZREM', KEYS[2], '')
         if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1 then
           for n = 3, #KEYS do
             if misfit(KEYS[n], 'list', 'RPUSH') then return 0 end
           end
           for n = 3, #KEYS do redis.call('RPUSH', KEYS[n], ARGV[2]) end
           redis.call('HDEL', KEYS[1], ARGV[1])
         end
         redis.call('ZREM', KEYS[2], ARGV[1])
         return 1",
    )
});
