//! A message that a client writes, and its written form: Celery's protocol 2.
//!
//! Source: celery `app/amqp.py` (`as_task_v2`). Written straight from the draft, with no tree of
//! values between: clients send by the thousand.

use super::Payload;
use super::compression::Compression;
use super::encode::{Body, BodyFormat, EncodeError};
use super::{Embed, body, saferepr, serializer};
use crate::clock;
use chrono::{DateTime, Utc};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Number;
use serde_json::value::RawValue;

/// Headers that say what a message is: whoever adds headers of their own may not name these.
const OWN: [&str; 22] = [
    "argsrepr",
    "celery_beat_task",
    "compression",
    "eta",
    "expires",
    "group",
    "group_index",
    "id",
    "ignore_result",
    "kwargsrepr",
    "lang",
    "origin",
    "parent_id",
    "replaced_task_nesting",
    "reply_to",
    "retries",
    "root_id",
    "shadow",
    "stamped_headers",
    "stamps",
    "task",
    "timelimit",
];

/// Does a header of this name say what a message is?
pub fn is_own_header(name: &str) -> bool {
    OWN.contains(&name)
}

/// A named exchange, and what it is to choose its queues by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExchangeRoute {
    /// The exchange.
    pub exchange: String,
    /// The routing key.
    pub routing_key: String,
}

/// A task to be sent. Who asks for it fills in what is wanted, [`crate::client::send::Sender`]
/// the rest.
#[derive(Debug, Clone, Default)]
pub struct Draft {
    /// Registered task name.
    pub task: String,
    /// Task id; the sender makes one up if it is empty.
    pub id: String,
    /// Positional arguments.
    pub args: Vec<Box<RawValue>>,
    /// Keyword arguments, in their order.
    pub kwargs: Vec<(String, Box<RawValue>)>,
    /// Queue; the routing key of the anonymous exchange.
    pub queue: String,
    /// The named exchange that leads to the queue, if one does.
    pub route: Option<ExchangeRoute>,
    /// The task whose route leads to its queue, if it names no queue; `None` is the task itself.
    pub route_name: Option<String>,
    /// Not before.
    pub eta: Option<DateTime<Utc>>,
    /// Not after.
    pub expires: Option<DateTime<Utc>>,
    /// 0 to 9, higher is served first; `None` leaves it to the task.
    pub priority: Option<u8>,
    /// The number that a signature asks for, as the broker counts: Celery writes it as it is.
    pub wire_priority: Option<u8>,
    /// `gen{pid}@{host}`; the sender's.
    pub origin: String,
    /// A UUID that names the sending process; the sender's.
    pub reply_to: String,
    /// First task of the workflow, if a task sends this one.
    pub root_id: Option<String>,
    /// The task that sends this one.
    pub parent_id: Option<String>,
    /// Store no result; `None` leaves it to the task.
    pub ignore_result: Option<bool>,
    /// The name that people see in place of the task's.
    pub shadow: Option<String>,
    /// Seconds until the task is ended by force; `None` leaves it to the task.
    pub time_limit: Option<f64>,
    /// Seconds until the task is asked to end; likewise.
    pub soft_time_limit: Option<f64>,
    /// What is to follow it.
    pub embed: Embed,
    /// The group that it is a member of.
    pub group: Option<String>,
    /// Its place in the group, from 0.
    pub group_index: Option<i64>,
    /// How many tasks were replaced by it, one after the other.
    pub replaced_task_nesting: u32,
    /// Stamps, by their names.
    pub stamps: Vec<(String, Box<RawValue>)>,
    /// Properties beside those of the protocol.
    pub properties: Vec<(String, Box<RawValue>)>,
    /// Headers beside those of the protocol, none of which they may be named like.
    pub headers: Vec<(String, Box<RawValue>)>,
    /// The serializer of its body; `None` is that of the sender.
    pub serializer: Option<serializer::Serializer>,
    /// The compression of its body; likewise.
    pub compression: Option<Compression>,
}

impl Draft {
    /// Writes the message, with a priority as the broker counts. `format` is that of the sender.
    ///
    /// # Errors
    /// A value of its body has no form in its serializer.
    pub fn encode(
        &self,
        priority: u8,
        now: DateTime<Utc>,
        format: &BodyFormat,
    ) -> Result<Payload, EncodeError> {
        let text = body::encode(&self.args, &self.kwargs, &self.embed);
        let body = match self.serializer.is_none() && self.compression.is_none() {
            true => format.body(text),
            false => format.with(self.serializer, self.compression).body(text),
        };
        let Body { bytes, content_type, content_encoding, compression } =
            body.map_err(|EncodeError(why)| EncodeError(format!("task {}: {why}", self.task)))?;
        let envelope = Envelope {
            body: body::to_base64(&bytes),
            content_encoding,
            content_type,
            headers: Headers(self, compression),
            properties: Properties(self, priority, now),
        };
        // Texts and numbers alone: nothing in it can fail to be written.
        Ok(Payload::from_envelope(serde_json::to_string(&envelope).unwrap_or_default()))
    }
}

/// As kombu's virtual transports carry it.
#[derive(serde::Serialize)]
struct Envelope<'a> {
    body: String,
    #[serde(rename = "content-encoding")]
    content_encoding: &'static str,
    #[serde(rename = "content-type")]
    content_type: &'static str,
    headers: Headers<'a>,
    properties: Properties<'a>,
}

/// The draft, and the compression of its body.
struct Headers<'a>(&'a Draft, Option<&'static str>);

impl Serialize for Headers<'_> {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        let draft = self.0;
        let limits = (draft.time_limit.and_then(number), draft.soft_time_limit.and_then(number));
        let mut headers = out.serialize_map(None)?;
        headers.serialize_entry("lang", "rust")?;
        headers.serialize_entry("task", &draft.task)?;
        headers.serialize_entry("id", &draft.id)?;
        headers.serialize_entry("shadow", &draft.shadow)?;
        headers.serialize_entry("eta", &draft.eta.map(clock::iso))?;
        headers.serialize_entry("expires", &draft.expires.map(clock::iso))?;
        headers.serialize_entry("group", &draft.group)?;
        headers.serialize_entry("group_index", &draft.group_index)?;
        headers.serialize_entry("retries", &0)?;
        headers.serialize_entry("timelimit", &limits)?;
        headers.serialize_entry("root_id", draft.root_id.as_ref().unwrap_or(&draft.id))?;
        headers.serialize_entry("parent_id", &draft.parent_id)?;
        headers.serialize_entry("argsrepr", &saferepr::args(&draft.args))?;
        headers.serialize_entry("kwargsrepr", &saferepr::kwargs(&draft.kwargs))?;
        headers.serialize_entry("origin", &draft.origin)?;
        headers.serialize_entry("ignore_result", &draft.ignore_result)?;
        headers.serialize_entry("replaced_task_nesting", &draft.replaced_task_nesting)?;
        let names: Vec<&str> = draft.stamps.iter().map(|(name, _)| name.as_str()).collect();
        headers.serialize_entry("stamped_headers", &Some(names).filter(|it| !it.is_empty()))?;
        headers.serialize_entry("stamps", &Object(&draft.stamps))?;
        for (name, value) in &draft.headers {
            headers.serialize_entry(name, value)?;
        }
        if let Some(compression) = self.1 {
            headers.serialize_entry("compression", compression)?;
        }
        headers.end()
    }
}

/// The draft, its priority as the broker counts, and the time.
struct Properties<'a>(&'a Draft, u8, DateTime<Utc>);

impl Serialize for Properties<'_> {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        let Properties(draft, priority, now) = self;
        let mut properties = out.serialize_map(None)?;
        properties.serialize_entry("correlation_id", &draft.id)?;
        properties.serialize_entry("reply_to", &draft.reply_to)?;
        properties.serialize_entry("delivery_mode", &2)?;
        properties.serialize_entry("delivery_info", &DeliveryInfo::of(draft))?;
        properties.serialize_entry("priority", priority)?;
        properties.serialize_entry("body_encoding", "base64")?;
        properties.serialize_entry("delivery_tag", &uuid::Uuid::new_v4().to_string())?;
        if let Some(expires) = draft.expires {
            let left = (expires - *now).num_milliseconds().max(0);
            properties.serialize_entry("expiration", &left.to_string())?;
        }
        for (name, value) in &draft.properties {
            properties.serialize_entry(name, value)?;
        }
        properties.end()
    }
}

#[derive(serde::Serialize)]
struct DeliveryInfo<'a> {
    exchange: &'a str,
    routing_key: &'a str,
}

impl DeliveryInfo<'_> {
    fn of(draft: &Draft) -> DeliveryInfo<'_> {
        match &draft.route {
            Some(ExchangeRoute { exchange, routing_key }) => DeliveryInfo { exchange, routing_key },
            None => DeliveryInfo { exchange: "", routing_key: &draft.queue },
        }
    }
}

/// Pairs as a JSON object.
struct Object<'a>(&'a [(String, Box<RawValue>)]);

impl Serialize for Object<'_> {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

/// Whole seconds as a whole number, as who writes 20 sends it.
fn number(seconds: f64) -> Option<Number> {
    let whole = seconds as u64;
    if whole as f64 == seconds { Some(whole.into()) } else { Number::from_f64(seconds) }
}
