//! A message on its way out: kombu's envelope with Celery's protocol 2 in it.
//!
//! Source: celery `app/amqp.py` (`as_task_v2`), kombu `transport/virtual/base.py`. Written
//! straight from what is known, with no tree of values between: clients send by the thousand.

use super::{body, saferepr};
use crate::clock;
use chrono::{DateTime, Utc};
use serde::{Serialize, Serializer};
use serde_json::Number;
use serde_json::value::RawValue;

/// A named exchange, and what it is to choose its queues by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The exchange.
    pub exchange: String,
    /// The routing key.
    pub routing_key: String,
}

/// What a client sends.
#[derive(Debug, Clone, Default)]
pub struct Draft {
    /// Registered task name.
    pub task: String,
    /// Task id.
    pub id: String,
    /// JSON array.
    pub args: Vec<Box<RawValue>>,
    /// JSON object, in its order.
    pub kwargs: Vec<(String, Box<RawValue>)>,
    /// Queue; the routing key of the anonymous exchange.
    pub queue: String,
    /// The named exchange that led to the queue, if one did.
    pub route: Option<Route>,
    /// Not before.
    pub eta: Option<DateTime<Utc>>,
    /// Not after.
    pub expires: Option<DateTime<Utc>>,
    /// 0 to 9, as the broker counts.
    pub priority: u8,
    /// `gen{pid}@{host}` of the sender.
    pub origin: String,
    /// Identity of the sender, a UUID.
    pub reply_to: String,
    /// First task of the workflow when a task sends this one.
    pub root_id: Option<String>,
    /// The task that sends this one.
    pub parent_id: Option<String>,
    /// Store no result; `None` leaves it to the task.
    pub ignore_result: Option<bool>,
    /// The name that people see in place of the task's.
    pub shadow: Option<String>,
    /// Seconds until the task is ended by force, and until it is asked to end.
    pub time_limits: (Option<f64>, Option<f64>),
    /// Headers beside those of the protocol, none of which they may be named like.
    pub headers: Vec<(String, Box<RawValue>)>,
}

#[derive(Serialize)]
struct Envelope<'a> {
    body: String,
    #[serde(rename = "content-encoding")]
    content_encoding: &'static str,
    #[serde(rename = "content-type")]
    content_type: &'static str,
    headers: Headers<'a>,
    properties: Properties<'a>,
}

#[derive(Serialize)]
struct Headers<'a> {
    lang: &'static str,
    task: &'a str,
    id: &'a str,
    shadow: Option<&'a str>,
    eta: Option<String>,
    expires: Option<String>,
    group: (),
    group_index: (),
    retries: u32,
    timelimit: (Option<Number>, Option<Number>),
    root_id: &'a str,
    parent_id: Option<&'a str>,
    argsrepr: String,
    kwargsrepr: String,
    origin: &'a str,
    ignore_result: Option<bool>,
    replaced_task_nesting: u32,
    stamped_headers: (),
    stamps: Empty,
    #[serde(flatten)]
    more: More<'a>,
}

#[derive(Serialize)]
struct Empty {}

/// Headers of the sender's own.
struct More<'a>(&'a [(String, Box<RawValue>)]);

impl Serialize for More<'_> {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

#[derive(Serialize)]
struct Properties<'a> {
    correlation_id: &'a str,
    reply_to: &'a str,
    delivery_mode: u8,
    delivery_info: DeliveryInfo<'a>,
    priority: u8,
    body_encoding: &'static str,
    delivery_tag: String,
    /// Milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    expiration: Option<String>,
}

#[derive(Serialize)]
struct DeliveryInfo<'a> {
    exchange: &'a str,
    routing_key: &'a str,
}

/// Whole seconds as a whole number, as who writes 20 sends it.
fn number(seconds: f64) -> Option<Number> {
    let whole = seconds as u64;
    if whole as f64 == seconds { Some(whole.into()) } else { Number::from_f64(seconds) }
}

/// Writes `draft` as the envelope that kombu's virtual transports carry.
pub fn encode(draft: &Draft, now: DateTime<Utc>) -> String {
    let (exchange, routing_key) = match &draft.route {
        Some(route) => (route.exchange.as_str(), &route.routing_key),
        None => ("", &draft.queue),
    };
    let left = |expires: DateTime<Utc>| (expires - now).num_milliseconds().max(0).to_string();
    let envelope = Envelope {
        body: body::to_base64(body::encode(&draft.args, &draft.kwargs).as_bytes()),
        content_encoding: "utf-8",
        content_type: "application/json",
        headers: Headers {
            lang: "rust",
            task: &draft.task,
            id: &draft.id,
            shadow: draft.shadow.as_deref(),
            eta: draft.eta.map(clock::iso),
            expires: draft.expires.map(clock::iso),
            group: (),
            group_index: (),
            retries: 0,
            timelimit: (draft.time_limits.0.and_then(number), draft.time_limits.1.and_then(number)),
            root_id: draft.root_id.as_deref().unwrap_or(&draft.id),
            parent_id: draft.parent_id.as_deref(),
            argsrepr: saferepr::args(&draft.args),
            kwargsrepr: saferepr::kwargs(&draft.kwargs),
            origin: &draft.origin,
            ignore_result: draft.ignore_result,
            replaced_task_nesting: 0,
            stamped_headers: (),
            stamps: Empty {},
            more: More(&draft.headers),
        },
        properties: Properties {
            correlation_id: &draft.id,
            reply_to: &draft.reply_to,
            delivery_mode: 2,
            delivery_info: DeliveryInfo { exchange, routing_key },
            priority: draft.priority,
            body_encoding: "base64",
            delivery_tag: uuid::Uuid::new_v4().to_string(),
            expiration: draft.expires.map(left),
        },
    };
    // Texts and numbers alone: nothing in it can fail to be written.
    serde_json::to_string(&envelope).unwrap_or_default()
}
