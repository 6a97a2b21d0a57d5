//! From the options of a call to a message.
//!
//! Source: celery `app/base.py` (`send_task`) and `app/amqp.py` (`as_task_v2`, `send_task_message`).

use super::Context;
use crate::clock;
use crate::wire::signature::list;
use crate::wire::{Compression, Draft, Malformed, Serializer, Signature, value};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::value::RawValue;

/// Options of how a message is sent, which say nothing of the task.
const OF_SENDING: [&str; 16] = [
    "add_to_parent",
    "connection",
    "declare",
    "delivery_mode",
    "exchange_type",
    "immediate",
    "mandatory",
    "producer",
    "publisher",
    "result_cls",
    "retries",
    "retry",
    "retry_policy",
    "route_name",
    "router",
    "task_type",
];

/// The message of a call with these options.
pub(super) fn draft(one: Signature, context: Context<'_>) -> Result<Draft, Malformed> {
    let stamped: Vec<String> = one
        .option("stamped_headers")
        .and_then(|raw| serde_json::from_str(raw.get()).ok())
        .unwrap_or_default();
    let mut draft = Draft {
        root_id: given(context.root_id),
        parent_id: given(context.parent_id),
        wire_priority: context.priority,
        ..Draft::default()
    };
    let (mut exchange, mut routing_key) = (None, None);
    for (name, raw) in one.options.iter().filter(|(_, raw)| raw.get() != "null") {
        let text = || one.text(name).map(Option::unwrap_or_default);
        let number = || {
            let read = raw.get().parse::<f64>().ok().filter(|number| number.is_finite());
            read.ok_or_else(|| wrong(&one, name, "a number", raw))
        };
        match name.as_str() {
            "task_id" => draft.id = text()?,
            "root_id" => draft.root_id = Some(text()?),
            "parent_id" => draft.parent_id = Some(text()?),
            "group_id" => draft.group = Some(text()?),
            "group_index" => draft.group_index = Some(number()? as i64),
            "reply_to" => draft.reply_to = text()?,
            "shadow" => draft.shadow = Some(text()?),
            "queue" => draft.queue = queue(raw, text()),
            "exchange" => exchange = Some(text()?),
            "routing_key" => routing_key = Some(text()?),
            "priority" => draft.wire_priority = Some(number()?.clamp(0.0, 9.0) as u8),
            "ignore_result" => draft.ignore_result = Some(raw.get() == "true"),
            "time_limit" => draft.time_limit = Some(number()?),
            "soft_time_limit" => draft.soft_time_limit = Some(number()?),
            "countdown" => draft.eta = Some(after(&one, name, number()?, context.now)?),
            // A countdown comes first.
            "eta" if one.option("countdown").is_none() => {
                draft.eta = Some(instant(&one, name, raw)?)
            }
            "eta" => {}
            "expires" => {
                draft.expires = Some(match number() {
                    Ok(seconds) => after(&one, name, seconds, context.now)?,
                    Err(_) => instant(&one, name, raw)?,
                });
            }
            "serializer" => draft.serializer = Some(serializer(&one, &text()?)?),
            "compression" => {
                draft.compression =
                    Some(Compression::named(&text()?).ok_or_else(|| {
                        wrong(&one, name, "a compression such as gzip or zstd", raw)
                    })?);
            }
            "replaced_task_nesting" => draft.replaced_task_nesting = number()? as u32,
            "link" => draft.embed.callbacks = list(raw),
            "link_error" => draft.embed.errbacks = list(raw),
            "chain" => draft.embed.chain = list(raw),
            "chord" => draft.embed.chord = Some(raw.clone()),
            "headers" => draft.headers = headers(&one, raw)?,
            "stamped_headers" => {}
            _ if stamped.contains(name) => draft.stamps.push((name.clone(), raw.clone())),
            _ if OF_SENDING.contains(&name.as_str()) => {}
            _ => draft.properties.push((name.clone(), raw.clone())),
        }
    }
    route(&mut draft, &one, exchange, routing_key)?;
    if draft.id.is_empty() {
        draft.id = super::new_id();
    }
    draft.route_name = super::builtin::route_name(&one.task, &one.args, &one.kwargs);
    Ok(Draft { task: one.task, args: one.args, kwargs: one.kwargs, ..draft })
}

/// The serializer of a call; one of a library of Python's is not known here.
fn serializer(one: &Signature, name: &str) -> Result<Serializer, Malformed> {
    Serializer::named(name).ok_or_else(|| {
        let all = Serializer::ALL.map(Serializer::name).join(", ");
        let task = &one.task;
        Malformed(format!("signature of {task}: serializer: expected one of {all}, found {name:?}"))
    })
}

fn given(id: &str) -> Option<String> {
    (!id.is_empty()).then(|| id.into())
}

/// A routing key is the name of the queue, unless an exchange says otherwise.
fn route(
    draft: &mut Draft,
    one: &Signature,
    exchange: Option<String>,
    routing_key: Option<String>,
) -> Result<(), Malformed> {
    if draft.queue.is_empty()
        && let Some(key) = routing_key
    {
        if exchange.as_ref().is_some_and(|exchange| !exchange.is_empty() && *exchange != key) {
            let exchange = exchange.unwrap_or_default();
            return Err(Malformed(format!(
                "signature of {}: exchange {exchange:?} with routing key {key:?} is not supported; \
                 expected a queue",
                one.task
            )));
        }
        draft.queue = key;
    }
    Ok(())
}

/// The queue's name; Python programs may have a queue's whole description there.
fn queue(raw: &RawValue, text: Result<String, Malformed>) -> String {
    text.unwrap_or_else(|_| {
        let read = serde_json::from_str::<serde_json::Value>(raw.get()).unwrap_or_default();
        read["name"].as_str().unwrap_or_default().to_string()
    })
}

fn headers(one: &Signature, raw: &RawValue) -> Result<Vec<(String, Box<RawValue>)>, Malformed> {
    let pairs = serde_json::from_str::<crate::wire::body::Pairs>(raw.get());
    pairs.map(|pairs| pairs.0).map_err(|_| wrong(one, "headers", "an object", raw))
}

fn after(
    one: &Signature,
    name: &str,
    seconds: f64,
    now: DateTime<Utc>,
) -> Result<DateTime<Utc>, Malformed> {
    let span = TimeDelta::try_milliseconds((seconds * 1000.0) as i64);
    span.and_then(|span| now.checked_add_signed(span)).ok_or_else(|| {
        Malformed(format!("signature of {}: {name}: {seconds} s is beyond all calendars", one.task))
    })
}

fn instant(one: &Signature, name: &str, raw: &RawValue) -> Result<DateTime<Utc>, Malformed> {
    let text = match value::typed(raw) {
        Some(bytes) => String::from_utf8(bytes).unwrap_or_default(),
        None => serde_json::from_str(raw.get()).unwrap_or_default(),
    };
    clock::parse(&text).ok_or_else(|| wrong(one, name, "an ISO 8601 instant", raw))
}

fn wrong(one: &Signature, name: &str, expected: &str, raw: &RawValue) -> Malformed {
    let found: String = raw.get().chars().take(60).collect();
    Malformed(format!("signature of {}: {name}: expected {expected}, found {found}", one.task))
}
