//! The key `options` of an entry: those of Celery's `apply_async` that mean something for a
//! message which is sent again and again, and for each other one the reason why it does not.

use super::entry::{Expires, MessageOptions};
use super::moment::{self, Moment};
use super::zone::Calendar;
use crate::config::Faults;
use crate::config::forms::{CompressionName, SerializerName};
use crate::config::kind::{Countdown, Flag, Limit, Priority, Queue, Text, ValueKind, Word};
use crate::config::node::{Data, YamlKey, YamlNode};
use crate::config::units;
use crate::wire::draft::is_own_header;
use crate::wire::{Compression, Serializer};
use serde_json::value::RawValue;
use std::time::Duration;

/// The options, in the order of the manual.
pub const OPTIONS: [&str; 13] = [
    "queue",
    "exchange",
    "routing_key",
    "priority",
    "expires",
    "countdown",
    "ignore_result",
    "shadow",
    "time_limit",
    "soft_time_limit",
    "serializer",
    "compression",
    "headers",
];

const BEAT_HOLDS: &str = "beat holds what the broker does not take, and sends it when the broker \
    is back, as misfire says";
const OF_SERIALIZER: &str = "it is that of the serializer";
const SINGLE: &str = "beat sends single tasks; what follows one is sent by that task";
const OF_WORKFLOWS: &str = "it belongs to messages of a workflow, and beat sends single tasks";
const PYTHON_OBJECT: &str = "it is an object of a Python program";
const ON_DISK: &str = "messages are on disk, always";
const OF_AMQP: &str = "it is a word of AMQP, which no broker here speaks";
const SET_HERE: &str = "beat sets it for each message";

/// Options of Celery's that mean nothing here, and why.
const MEANINGLESS: &[(&str, &str)] = &[
    ("eta", "one instant would be that of every message; countdown counts from each sending"),
    ("task_id", "every message has an id of its own"),
    ("message_id", "every message has an id of its own"),
    ("correlation_id", SET_HERE),
    ("timestamp", SET_HERE),
    ("reply_to", SET_HERE),
    ("origin", SET_HERE),
    ("argsrepr", SET_HERE),
    ("kwargsrepr", SET_HERE),
    ("retries", SET_HERE),
    ("retry", BEAT_HOLDS),
    ("retry_policy", BEAT_HOLDS),
    ("timeout", BEAT_HOLDS),
    ("confirm_timeout", BEAT_HOLDS),
    ("content_type", OF_SERIALIZER),
    ("content_encoding", OF_SERIALIZER),
    ("link", SINGLE),
    ("link_error", SINGLE),
    ("callbacks", SINGLE),
    ("errbacks", SINGLE),
    ("chain", SINGLE),
    ("chord", SINGLE),
    ("group_id", OF_WORKFLOWS),
    ("group_index", OF_WORKFLOWS),
    ("parent_id", OF_WORKFLOWS),
    ("root_id", OF_WORKFLOWS),
    ("add_to_parent", OF_WORKFLOWS),
    ("replaced_task_nesting", OF_WORKFLOWS),
    ("stamped_headers", OF_WORKFLOWS),
    ("producer", PYTHON_OBJECT),
    ("publisher", PYTHON_OBJECT),
    ("connection", PYTHON_OBJECT),
    ("router", PYTHON_OBJECT),
    ("result_cls", PYTHON_OBJECT),
    ("task_type", PYTHON_OBJECT),
    ("app", PYTHON_OBJECT),
    ("event_dispatcher", PYTHON_OBJECT),
    ("route_name", "see task_routes; the route is that of the task"),
    ("exchange_type", "an exchange has the type that it was declared with"),
    ("declare", "a queue exists when it is first named"),
    ("delivery_mode", ON_DISK),
    ("mandatory", OF_AMQP),
    ("immediate", OF_AMQP),
    ("expiration", "say expires"),
    ("args", "it is a key of the entry itself"),
    ("kwargs", "it is a key of the entry itself"),
];

/// Reads the mapping `options`; local instants are those of `calendar`.
pub fn read_all(
    options: &mut MessageOptions,
    node: &YamlNode,
    calendar: &Calendar,
    faults: &mut Faults,
) {
    match &node.data {
        Data::Map(map) => {
            for (key, value) in map {
                faults.within(&key.text, |f| read(options, key, value, calendar, f));
            }
        }
        _ if node.is_null() => {}
        _ => faults.mismatch(node.line, node.found_kind(), "a mapping of options"),
    }
}

/// Reads one option. Null is as if it were not there.
pub fn read(
    options: &mut MessageOptions,
    key: &YamlKey,
    value: &YamlNode,
    calendar: &Calendar,
    faults: &mut Faults,
) {
    let known = OPTIONS.contains(&key.text.as_str());
    if known && value.is_null() {
        return;
    }
    match key.text.as_str() {
        "queue" => options.queue = Queue::read(value, faults),
        "exchange" => options.exchange = Word::read(value, faults),
        "routing_key" => options.routing_key = Word::read(value, faults),
        "priority" => options.priority = Priority::read(value, faults),
        "expires" => options.expires = expires(value, calendar, faults),
        "countdown" => options.countdown = countdown(value, faults),
        "ignore_result" => options.ignore_result = Flag::read(value, faults),
        "shadow" => options.shadow = Text::read(value, faults),
        "time_limit" => options.time_limit = limit(value, faults),
        "soft_time_limit" => options.soft_time_limit = limit(value, faults),
        "headers" => headers(options, value, faults),
        "serializer" => {
            let read = SerializerName::read(value, faults);
            options.serializer = read.and_then(|name| Serializer::named(&name));
        }
        "compression" => {
            let read = CompressionName::read(value, faults);
            options.compression = read.and_then(|name| Compression::named(&name));
        }
        other => refuse(other, key.line, faults),
    }
}

fn limit(node: &YamlNode, faults: &mut Faults) -> Option<f64> {
    Limit::read(node, faults).map(|span| span.as_secs_f64())
}

/// What is past is due at once.
fn countdown(node: &YamlNode, faults: &mut Faults) -> Option<Duration> {
    Countdown::read(node, faults).map(|after| units::duration_of(after).unwrap_or_default())
}

fn expires(node: &YamlNode, calendar: &Calendar, faults: &mut Faults) -> Option<Expires> {
    let expected = "seconds, a span such as 10m, or a time such as 2027-01-31T12:00:00";
    let span = match (node.as_number(), node.as_text()) {
        (Some(seconds), _) => units::duration_of(seconds),
        (_, Some(text)) => units::duration(text),
        _ => None,
    };
    let at = || match node.as_text().and_then(Moment::parse)? {
        // A day alone would be its beginning or its end.
        Moment::Day(_) => None,
        moment => moment::instant(moment, calendar),
    };
    let expires = match span {
        Some(span) => Some(Expires::After(span)).filter(|_| !span.is_zero()),
        None => at().map(Expires::At),
    };
    if expires.is_none() {
        faults.mismatch(node.line, &node.found(), expected);
    }
    expires
}

fn headers(options: &mut MessageOptions, node: &YamlNode, faults: &mut Faults) {
    let Data::Map(map) = &node.data else {
        return faults.mismatch(node.line, node.found_kind(), "a mapping of names to values");
    };
    for (key, value) in map {
        if is_own_header(&key.text) {
            faults.within(&key.text, |f| {
                f.add(key.line, "is a header of every message, which beat sets").line
            });
        }
        options.headers.push((key.text.clone(), raw(value)));
    }
}

/// A value as JSON.
pub fn raw(node: &YamlNode) -> Box<RawValue> {
    RawValue::from_string(node.to_json_text()).unwrap_or_default()
}

fn refuse(name: &str, line: usize, faults: &mut Faults) {
    match MEANINGLESS.iter().find(|(known, _)| *known == name) {
        Some((_, why)) => {
            faults.add(line, format!("means nothing here: {why}"));
        }
        None => faults.unknown(line, "option", name, OPTIONS),
    }
}

/// The rules between options.
pub fn check(options: &MessageOptions, line: usize, faults: &mut Faults) {
    match (&options.exchange, &options.routing_key, &options.queue) {
        (Some(_), _, Some(_)) => {
            faults.add(line, "has queue and exchange, expected only one of them");
        }
        (Some(_), None, _) => {
            faults.add(line, "has an exchange without a routing_key");
        }
        (None, Some(_), _) => {
            faults.add(line, "has a routing_key without an exchange");
        }
        _ => {}
    }
    if let (Some(soft), Some(hard)) = (options.soft_time_limit, options.time_limit)
        && soft >= hard
    {
        faults.within("soft_time_limit", |f| f.add(line, "must be shorter than time_limit").line);
    }
}

impl MessageOptions {
    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        let MessageOptions { queue, exchange, routing_key, priority, expires, countdown, .. } =
            self;
        let MessageOptions { ignore_result, shadow, time_limit, soft_time_limit, headers, .. } =
            self;
        let MessageOptions { serializer, compression, .. } = self;
        queue.is_none()
            && exchange.is_none()
            && routing_key.is_none()
            && priority.is_none()
            && expires.is_none()
            && countdown.is_none()
            && ignore_result.is_none()
            && shadow.is_none()
            && time_limit.is_none()
            && soft_time_limit.is_none()
            && serializer.is_none()
            && compression.is_none()
            && headers.is_empty()
    }
}
