//! The message: kombu's envelope with Celery's protocol 2 in it (and 1, on reading).
//!
//! Source: celery `app/amqp.py` (`as_task_v2`), kombu `transport/virtual/base.py`.
//! The body stays as it came until [`Message::arguments`] asks for it.

use super::body::{self, Arguments, Pairs};
use super::value;
use crate::clock;
use chrono::{DateTime, NaiveDateTime, Utc};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

/// A message that cannot be understood, with the reason; it is kept, never dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed(pub String);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Malformed {}

/// What a worker reads of a message. Names are Celery's header names.
#[derive(Debug, Clone)]
pub struct Message {
    /// Registered task name.
    pub task: String,
    /// Task id; any text.
    pub id: String,
    /// First task of the workflow; the id itself when there is none.
    pub root_id: String,
    /// The task that sent this one, or empty.
    pub parent_id: String,
    /// The group that it is a member of.
    pub group: Option<String>,
    /// Name for people in place of `task`.
    pub shadow: Option<String>,
    /// Not before.
    pub eta: Option<DateTime<Utc>>,
    /// Not after.
    pub expires: Option<DateTime<Utc>>,
    /// Retries that came before.
    pub retries: u32,
    /// Hard limit of this message, over the task's.
    pub time_limit: Option<Duration>,
    /// Soft limit of this message, over the task's.
    pub soft_time_limit: Option<Duration>,
    /// Store no result; `None` leaves it to the task.
    pub ignore_result: Option<bool>,
    /// Priority as the sender gave it.
    pub priority: Option<i64>,
    content: Content,
}

#[derive(Debug, Clone)]
struct Content {
    body: String,
    base64: bool,
    kind: String,
    compression: Option<String>,
    protocol: u8,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    body: Cow<'a, str>,
    #[serde(rename = "content-type", default)]
    content_type: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    headers: Option<&'a RawValue>,
    #[serde(default, deserialize_with = "null_is_default")]
    properties: Properties,
}

#[derive(Deserialize, Default)]
struct Properties {
    #[serde(default)]
    body_encoding: Option<String>,
    #[serde(default)]
    priority: Option<i64>,
    #[serde(default)]
    correlation_id: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Headers {
    task: Option<String>,
    id: Option<String>,
    root_id: Option<String>,
    parent_id: Option<String>,
    group: Option<String>,
    shadow: Option<String>,
    eta: Option<String>,
    expires: Option<Value>,
    retries: Option<u32>,
    timelimit: Option<(Option<f64>, Option<f64>)>,
    ignore_result: Option<bool>,
    compression: Option<String>,
    // Protocol 1 keeps these beside the others, in the body.
    utc: Option<bool>,
}

fn null_is_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    from: D,
) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(from)?.unwrap_or_default())
}

impl Message {
    /// Reads the envelope and its headers.
    ///
    /// # Errors
    /// Says which part is not as the protocol has it.
    pub fn decode(payload: &str) -> Result<Message, Malformed> {
        let envelope: Envelope = serde_json::from_str(payload)
            .map_err(|error| Malformed(format!("envelope: {error}")))?;
        let headers: Headers = match envelope.headers {
            None => Headers::default(),
            // Derived readers take a list for the fields in their order.
            Some(raw) if !raw.get().starts_with(['{', 'n']) => {
                return Err(Malformed("headers: expected an object".into()));
            }
            Some(raw) if raw.get() == "null" => Headers::default(),
            Some(raw) => serde_json::from_str(raw.get())
                .map_err(|error| Malformed(format!("headers: {error}")))?,
        };
        let properties = envelope.properties;
        let content = Content {
            body: envelope.body.into_owned(),
            base64: properties.body_encoding.as_deref() == Some("base64"),
            kind: envelope.content_type.map_or_else(|| "application/json".into(), Cow::into_owned),
            compression: headers.compression.clone(),
            protocol: 2,
        };
        if headers.task.is_some() {
            return build(headers, &properties, content);
        }
        // Protocol 1: no `task` header; everything is in the body.
        let content = Content { protocol: 1, ..content };
        let text = content.text()?;
        let fields: Headers = serde_json::from_str(&body::finite(&text)).map_err(|_| {
            Malformed("neither a `task` header nor a body of protocol 1 that names a task".into())
        })?;
        if fields.utc == Some(false) && (fields.eta.is_some() || fields.expires.is_some()) {
            return Err(Malformed("utc: false is not supported; send times in UTC".into()));
        }
        build(fields, &properties, content)
    }

    /// Reads the body: arguments, and what is to follow the task.
    ///
    /// # Errors
    /// Says what of the body is not as the protocol has it.
    pub fn arguments(&self) -> Result<Arguments, Malformed> {
        let text = self.content.text()?;
        match self.content.protocol {
            1 => body::decode_v1(&text),
            _ => body::decode(&text),
        }
    }

    /// The name that people see: `shadow` if the sender gave one.
    pub fn display_name(&self) -> &str {
        self.shadow.as_deref().filter(|shadow| !shadow.is_empty()).unwrap_or(&self.task)
    }
}

impl Content {
    fn text(&self) -> Result<Cow<'_, str>, Malformed> {
        if let Some(kind) = &self.compression {
            return Err(Malformed(format!("compression {kind} is not supported")));
        }
        if self.kind != "application/json" {
            return Err(Malformed(format!(
                "content-type {} is not accepted; expected application/json",
                self.kind
            )));
        }
        if !self.base64 {
            return Ok(Cow::Borrowed(&self.body));
        }
        let bytes = body::from_base64(&self.body)
            .ok_or_else(|| Malformed("body: not base64, as body_encoding says".into()))?;
        String::from_utf8(bytes)
            .map(Cow::Owned)
            .map_err(|_| Malformed("body: not UTF-8, as JSON must be".into()))
    }
}

fn build(
    headers: Headers,
    properties: &Properties,
    content: Content,
) -> Result<Message, Malformed> {
    let task = headers.task.filter(|name| !name.is_empty());
    let task = task.ok_or_else(|| Malformed("no task name".into()))?;
    let id = headers.id.or_else(|| properties.correlation_id.clone());
    let id = id.filter(|id| !id.is_empty());
    let id = id.ok_or_else(|| Malformed(format!("task {task}: no id")))?;
    let (hard, soft) = headers.timelimit.unwrap_or_default();
    let eta = headers.eta.as_deref().map(|text| instant("eta", text)).transpose()?;
    let expires = match headers.expires {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => Some(instant("expires", &text)?),
        Some(Value::Number(n)) => n.as_f64().and_then(from_epoch),
        Some(other) => return Err(Malformed(format!("expires: {other} is no instant"))),
    };
    Ok(Message {
        root_id: headers.root_id.unwrap_or_else(|| id.clone()),
        parent_id: headers.parent_id.unwrap_or_default(),
        group: headers.group,
        shadow: headers.shadow,
        eta,
        expires,
        retries: headers.retries.unwrap_or(0),
        time_limit: seconds(hard),
        soft_time_limit: seconds(soft),
        ignore_result: headers.ignore_result,
        priority: properties.priority,
        content,
        task,
        id,
    })
}

/// Zero and negative limits are none, as in Celery.
fn seconds(limit: Option<f64>) -> Option<Duration> {
    limit.filter(|s| *s > 0.0).and_then(|s| Duration::try_from_secs_f64(s).ok())
}

fn from_epoch(seconds: f64) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_micros((seconds * 1e6) as i64)
}

/// ISO 8601 as Python prints it; without an offset it is UTC.
fn instant(field: &str, text: &str) -> Result<DateTime<Utc>, Malformed> {
    parse_instant(text)
        .ok_or_else(|| Malformed(format!("{field}: {text:?} is no ISO 8601 instant")))
}

/// Reads an ISO 8601 instant; without an offset it is UTC. `None` if it is none.
pub fn parse_instant(text: &str) -> Option<DateTime<Utc>> {
    let text = text.trim();
    if let Ok(at) = DateTime::parse_from_rfc3339(&text.replacen(' ', "T", 1)) {
        return Some(at.with_timezone(&Utc));
    }
    ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M"]
        .iter()
        .find_map(|form| NaiveDateTime::parse_from_str(text, form).ok())
        .or_else(|| {
            let day = chrono::NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
            day.and_hms_opt(0, 0, 0)
        })
        .map(|at| at.and_utc())
}

/// The message that retries the one in `payload`: the same id, one retry more, due at
/// `eta`; everything else stays as it came (celery `app/task.py`, `signature_from_request`).
pub fn retry_of(payload: &str, message: &Message, eta: DateTime<Utc>) -> Result<String, Malformed> {
    let mut envelope: Map<String, Value> =
        serde_json::from_str(payload).map_err(|error| Malformed(format!("envelope: {error}")))?;
    if message.content.protocol == 1 {
        let text = message.content.text()?;
        // Values unread: an integer of thirty digits keeps them.
        let Pairs(mut fields) = serde_json::from_str(&body::finite(&text))
            .map_err(|error| Malformed(format!("body: {error}")))?;
        fields.retain(|(name, _)| name != "retries" && name != "eta");
        fields.push(("retries".into(), value::raw(&json!(message.retries + 1))));
        fields.push(("eta".into(), value::raw(&json!(clock::iso(eta)))));
        let text = body::object(&fields);
        let text = if message.content.base64 { body::to_base64(text.as_bytes()) } else { text };
        envelope.insert("body".into(), Value::String(text));
    } else if let Some(Value::Object(headers)) = envelope.get_mut("headers") {
        headers.insert("retries".into(), json!(message.retries + 1));
        headers.insert("eta".into(), json!(clock::iso(eta)));
        headers.insert("parent_id".into(), json!(message.id));
    }
    if let Some(Value::Object(properties)) = envelope.get_mut("properties") {
        properties.insert("delivery_tag".into(), json!(uuid::Uuid::new_v4().to_string()));
    }
    Ok(Value::Object(envelope).to_string())
}

#[cfg(test)]
mod tests {
    use super::super::draft::{Draft, encode};
    use super::*;

    fn draft() -> Draft {
        let raw = |text: &str| RawValue::from_string(text.into()).unwrap();
        Draft {
            task: "add".into(),
            id: "T".into(),
            args: vec![raw("2"), raw("3")],
            kwargs: vec![("k".into(), raw("\"v\""))],
            queue: "celery".into(),
            origin: "gen1@h".into(),
            ..Draft::default()
        }
    }

    #[test]
    fn what_is_sent_is_what_is_read() {
        let now = clock::now();
        let eta = parse_instant("2026-11-20T17:34:55.019470+00:00");
        let sent = Draft { eta, expires: eta, priority: 3, ..draft() };
        let message = Message::decode(&encode(&sent, now)).unwrap();
        assert_eq!((message.task.as_str(), message.id.as_str()), ("add", "T"));
        assert_eq!((message.eta, message.expires, message.priority), (eta, eta, Some(3)));
        assert_eq!(message.root_id, "T");
        let arguments = message.arguments().unwrap();
        assert_eq!(arguments.args[1].get(), "3");
        assert_eq!(arguments.kwargs[0].1.get(), "\"v\"");
    }

    #[test]
    fn a_retry_keeps_all_but_its_count_its_time_and_its_parent() {
        let payload = encode(&draft(), clock::now());
        let message = Message::decode(&payload).unwrap();
        let eta = clock::now();
        let retry = Message::decode(&retry_of(&payload, &message, eta).unwrap()).unwrap();
        assert_eq!((retry.retries, retry.parent_id.as_str(), retry.id.as_str()), (1, "T", "T"));
        assert_eq!(retry.eta.map(clock::iso), Some(clock::iso(eta)));
        assert_eq!(retry.arguments().unwrap().args[0].get(), "2");
    }

    #[test]
    fn two_headers_and_a_plain_body_are_enough() {
        let message = Message::decode(
            r#"{"body": "[[], {}, null]", "headers": {"task": "t", "id": "i"}, "properties": {}}"#,
        )
        .unwrap();
        assert!(message.arguments().is_ok());
    }

    #[test]
    fn protocol_one_is_read_from_the_body() {
        let body =
            r#"{\"task\": \"t\", \"id\": \"i\", \"args\": [1], \"kwargs\": {}, \"retries\": 2}"#;
        let payload = format!(r#"{{"body": "{body}", "headers": {{}}, "properties": {{}}}}"#);
        let message = Message::decode(&payload).unwrap();
        assert_eq!((message.task.as_str(), message.retries), ("t", 2));
        let retry = retry_of(&payload, &message, clock::now()).unwrap();
        assert_eq!(Message::decode(&retry).unwrap().retries, 3);
    }

    #[test]
    fn what_is_malformed_says_where() {
        for (payload, part) in [
            ("", "envelope"),
            ("[]", "envelope"),
            (r#"{"body": "x", "headers": []}"#, "headers"),
            (r#"{"body": "x", "headers": {}}"#, "neither"),
            (r#"{"body": "x", "headers": {"task": "t"}}"#, "no id"),
            (r#"{"body": "x", "headers": {"task": "t", "id": "i", "eta": "soon"}}"#, "eta"),
        ] {
            let error = Message::decode(payload).unwrap_err();
            assert!(error.0.contains(part), "{payload}: {error}");
        }
        let bodies = [
            ("%%", r#""base64""#, "base64"),
            ("[1]", "null", "three elements"),
            ("[1, {}, {}]", "null", "args"),
            ("[[], 1, {}]", "null", "kwargs"),
        ];
        for (body, encoding, part) in bodies {
            let payload = format!(
                r#"{{"body": "{body}", "headers": {{"task": "t", "id": "i"}}, "properties": {{"body_encoding": {encoding}}}}}"#
            );
            let error = Message::decode(&payload).unwrap().arguments().unwrap_err();
            assert!(error.0.contains(part), "{payload}: {error}");
        }
    }

    #[test]
    fn instants_of_python_are_read_naive_ones_as_utc() {
        for text in ["2026-01-02T03:04:05", "2026-01-02 03:04:05", "2026-01-02T05:04:05+02:00"] {
            assert_eq!(
                parse_instant(text).map(clock::iso).unwrap(),
                "2026-01-02T03:04:05.000000+00:00"
            );
        }
        assert_eq!(parse_instant("soon"), None);
    }
}
