//! The message: kombu's envelope with Celery's protocol 2 in it (and 1, on reading).
//!
//! Source: celery `app/amqp.py` (`as_task_v2`), kombu `transport/virtual/base.py`.
//! The body stays as it came until [`Message::arguments`] asks for it.

use super::body::{self, Arguments, Pairs};
pub use super::instant::parse_instant;
use super::lenient::{self, Fields};
use crate::clock;
use chrono::{DateTime, Utc};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

/// A count of retries is no larger, whatever a message says.
const RETRIES_MAX: u32 = 1_000_000_000;

/// A time limit of more than a hundred years is none: instants can be computed with the others.
const LIMIT_MAX: Duration = Duration::from_secs(100 * 365 * 86_400);

/// The name of the task in the headers of `payload`, where there is one.
pub fn task_of(payload: &str) -> Option<String> {
    let envelope = Fields::read(payload).ok()?;
    let headers = Fields::read(envelope.get("headers")?.get()).ok()?;
    lenient::text("task", headers.get("task")).ok()?
}

/// The id of the task that `payload` is about, where it can be read.
pub fn id_of(payload: &str) -> Option<String> {
    let envelope = Fields::read(payload).ok()?;
    let headers = envelope.get("headers").and_then(|raw| Fields::read(raw.get()).ok());
    let id = headers.and_then(|headers| lenient::text("id", headers.get("id")).ok()?);
    match id {
        Some(id) => Some(id),
        None => Message::decode(payload).ok().map(|message| message.id),
    }
}

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
#[derive(Debug, Clone, Default)]
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

#[derive(Debug, Clone, Default)]
struct Content {
    body: String,
    base64: bool,
    kind: String,
    compression: Option<String>,
    protocol: u8,
}

/// The fields of a message that a worker reads, unread; see [`super::lenient`].
#[derive(Default)]
struct Headers<'a>(Fields<'a>);

impl<'a> Headers<'a> {
    fn text(&self, name: &str) -> Result<Option<String>, Malformed> {
        lenient::text(name, self.0.get(name))
    }

    fn instant(&self, name: &str) -> Result<Option<DateTime<Utc>>, Malformed> {
        let Some(raw) = self.0.get(name).filter(|raw| lenient::is_true(raw)) else {
            return Ok(None);
        };
        if let Some(seconds) = lenient::number(raw).filter(|_| !raw.get().starts_with('"')) {
            return from_epoch(seconds).map(Some).ok_or_else(|| {
                Malformed(format!("{name}: {} is no instant", lenient::shown(raw)))
            });
        }
        let text = lenient::text(name, Some(raw))?.unwrap_or_default();
        parse_instant(&text).map(Some).ok_or_else(|| {
            let found = lenient::shown(raw);
            Malformed(format!(
                "{name}: {found} is no ISO 8601 instant, such as 2026-01-31T08:00:00+00:00"
            ))
        })
    }

    /// Hard and soft limit.
    fn limits(&self) -> Result<(Option<Duration>, Option<Duration>), Malformed> {
        let Some(raw) = self.0.get("timelimit").filter(|raw| lenient::is_true(raw)) else {
            return Ok((None, None));
        };
        let wrong = || {
            let found = lenient::shown(raw);
            Malformed(format!("timelimit: expected [HARD, SOFT] in seconds or null, found {found}"))
        };
        let [hard, soft]: [&RawValue; 2] = serde_json::from_str(raw.get()).map_err(|_| wrong())?;
        let read = |raw: &RawValue| match raw.get() {
            "null" => Ok(None),
            _ => lenient::number(raw).map(seconds).ok_or_else(wrong),
        };
        Ok((read(hard)?, read(soft)?))
    }
}

/// An object, empty where Python takes the value for false.
fn object<'a>(what: &str, raw: Option<&'a RawValue>) -> Result<Fields<'a>, Malformed> {
    match raw {
        Some(raw) if lenient::is_true(raw) => {
            Fields::read(raw.get()).map_err(|error| Malformed(format!("{what}: {error}")))
        }
        _ => Ok(Fields::default()),
    }
}

impl Message {
    /// Reads the envelope and its headers.
    ///
    /// # Errors
    /// Says which part is not as the protocol has it.
    pub fn decode(payload: &str) -> Result<Message, Malformed> {
        match Message::decode_json(payload) {
            // Numbers that Python writes and JSON has not.
            Err(malformed) => match body::finite(payload) {
                Cow::Owned(text) => Message::decode_json(&text),
                Cow::Borrowed(_) => Err(malformed),
            },
            read => read,
        }
    }

    /// Task and id of a message that cannot be read, where they can; all else is empty.
    pub fn outline(payload: &str) -> Option<Message> {
        let (task, id) = (task_of(payload)?, id_of(payload)?);
        let content = Content { protocol: 2, ..Content::default() };
        Some(Message { root_id: id.clone(), task, id, content, ..Message::default() })
    }

    fn decode_json(payload: &str) -> Result<Message, Malformed> {
        let envelope =
            Fields::read(payload).map_err(|error| Malformed(format!("envelope: {error}")))?;
        let headers = Headers(object("headers", envelope.get("headers"))?);
        let properties = Headers(object("properties", envelope.get("properties"))?);
        let body: Cow<str> = match envelope.get("body") {
            Some(raw) => lenient::string(raw)
                .ok_or_else(|| Malformed("envelope: body: expected a string".into()))?,
            None => return Err(Malformed("envelope: no body".into())),
        };
        let content = Content {
            body: body.into_owned(),
            base64: properties.text("body_encoding")?.as_deref() == Some("base64"),
            kind: lenient::text("content-type", envelope.get("content-type"))?
                .unwrap_or_else(|| "application/json".into()),
            compression: headers.text("compression")?.filter(|name| !name.is_empty()),
            protocol: 2,
        };
        if headers.0.get("task").is_some() {
            return build(&headers, &properties, content);
        }
        // Protocol 1: no `task` header; everything is in the body.
        let content = Content { protocol: 1, ..content };
        let text = content.text()?;
        let text = body::finite(&text).into_owned();
        let fields = Fields::read(&text).ok().filter(|fields| fields.get("task").is_some());
        let fields = Headers(fields.ok_or_else(|| {
            Malformed("neither a `task` header nor a body of protocol 1 that names a task".into())
        })?);
        let local = fields.0.get("utc").is_some_and(|raw| raw.get() == "false");
        if local && (fields.instant("eta")?.is_some() || fields.instant("expires")?.is_some()) {
            return Err(Malformed("utc: false is not supported; send times in UTC".into()));
        }
        build(&fields, &properties, content)
    }

    /// Reads the body: arguments, and what is to follow the task.
    ///
    /// # Errors
    /// Says what of the body is not as the protocol has it.
    pub fn arguments(&self) -> Result<Arguments, Malformed> {
        let text = self.content.text()?;
        match self.content.protocol {
            1 => body::decode_v1(&text),
            // Celery's worker takes this form under both protocols.
            _ if text.trim_start().starts_with('{') => body::decode_v1(&text),
            _ => body::decode(&text),
        }
    }

    /// Does the envelope name the task, so that it can be told without reading the body?
    pub fn is_named_outside(&self) -> bool {
        self.content.protocol == 2
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

fn build(headers: &Headers, properties: &Headers, content: Content) -> Result<Message, Malformed> {
    let task = headers.text("task")?.filter(|name| !name.is_empty());
    let task = task.ok_or_else(|| Malformed("no task name".into()))?;
    let given = |id: Option<String>| id.filter(|id| !id.is_empty());
    let id = match given(headers.text("id")?) {
        Some(id) => id,
        None => given(properties.text("correlation_id")?)
            .ok_or_else(|| Malformed(format!("task {task}: no id")))?,
    };
    let (time_limit, soft_time_limit) = headers.limits()?;
    let ignore_result = headers.0.get("ignore_result").filter(|raw| raw.get() != "null");
    let retries = headers.0.get("retries").and_then(lenient::number).unwrap_or(0.0);
    Ok(Message {
        root_id: headers.text("root_id")?.unwrap_or_else(|| id.clone()),
        parent_id: headers.text("parent_id")?.unwrap_or_default(),
        group: headers.text("group")?,
        shadow: headers.text("shadow")?,
        eta: headers.instant("eta")?,
        expires: headers.instant("expires")?,
        // From outside: no count that a worker adds to may overflow.
        retries: retries.clamp(0.0, f64::from(RETRIES_MAX)) as u32,
        time_limit,
        soft_time_limit,
        ignore_result: ignore_result.map(lenient::is_true),
        priority: properties.0.get("priority").and_then(lenient::number).map(|n| n as i64),
        content,
        task,
        id,
    })
}

/// Zero and negative limits are none, as in Celery; so are those of centuries.
fn seconds(limit: f64) -> Option<Duration> {
    let limit = Duration::try_from_secs_f64(limit).ok()?;
    (!limit.is_zero() && limit <= LIMIT_MAX).then_some(limit)
}

fn from_epoch(seconds: f64) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_micros((seconds * 1e6) as i64)
}

/// The message that retries the one in `payload`: the same id, one retry more, due at
/// `eta`; everything else stays as it came (celery `app/task.py`, `signature_from_request`).
pub fn retry_of(payload: &str, message: &Message, eta: DateTime<Utc>) -> Result<String, Malformed> {
    let read = |what: &str, text: &str| {
        serde_json::from_str::<Pairs>(&body::finite(text))
            .map_err(|error| Malformed(format!("{what}: {error}")))
    };
    let mut changes = vec![
        ("retries", json!(message.retries.saturating_add(1))),
        ("eta", json!(clock::iso(eta))),
    ];
    // Values unread: an integer of thirty digits keeps them.
    let mut envelope = read("envelope", payload)?;
    if message.content.protocol == 1 {
        let mut fields = read("body", &message.content.text()?)?;
        fields.set(&changes);
        let text = body::object(&fields.0);
        let text = if message.content.base64 { body::to_base64(text.as_bytes()) } else { text };
        envelope.set(&[("body", Value::String(text))]);
    } else {
        changes.push(("parent_id", json!(message.id)));
        envelope.set_within("headers", &changes);
    }
    let tag = json!(uuid::Uuid::new_v4().to_string());
    envelope.set_within("properties", &[("delivery_tag", tag)]);
    Ok(body::object(&envelope.0))
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
    fn headers_are_read_as_celery_reads_them() {
        let read = |fields: &str| {
            let headers = format!(r#""task": "t", "id": "i", {fields}"#);
            let payload = format!(r#"{{"body": "[[], {{}}, {{}}]", "headers": {{{headers}}}}}"#);
            Message::decode(&payload).unwrap_or_else(|error| panic!("{fields}: {error}"))
        };
        let uuid =
            r#"{"__type__": "uuid", "__value__": {"hex": "0123456789abcdef0123456789abcdef"}}"#;
        let name = "01234567-89ab-cdef-0123-456789abcdef";
        let all = read(&format!(
            r#""id": {uuid}, "root_id": {uuid}, "parent_id": {uuid}, "group": {uuid}"#
        ));
        assert_eq!((&all.id[..], &all.root_id[..], &all.parent_id[..]), (name, name, name));
        assert_eq!(all.group.as_deref(), Some(name));
        for (value, expected) in
            [("1", Some(true)), ("0", Some(false)), ("[]", Some(false)), ("null", None)]
        {
            assert_eq!(read(&format!(r#""ignore_result": {value}"#)).ignore_result, expected);
        }
        for (value, expected) in
            [("null", 0), ("-3", 0), ("2.0", 2), (r#""7""#, 7), ("1e400", RETRIES_MAX), ("[]", 0)]
        {
            assert_eq!(read(&format!(r#""retries": {value}"#)).retries, expected, "{value}");
        }
        let minute = Some(Duration::from_secs(60));
        for (value, hard, soft) in [
            ("null", None, None),
            ("[]", None, None),
            ("[60, null]", minute, None),
            (r#"["60", 60.0]"#, minute, minute),
            ("[1e19, -1]", None, None),
            ("[0, NaN]", None, None),
        ] {
            let found = read(&format!(r#""timelimit": {value}"#));
            assert_eq!((found.time_limit, found.soft_time_limit), (hard, soft), "{value}");
        }
        let typed = r#"{"__type__": "datetime", "__value__": "2026-01-02T03:04:05+00:00"}"#;
        assert_eq!(read(&format!(r#""eta": {typed}"#)).eta, parse_instant("2026-01-02T03:04:05"));
        for nothing in [r#""""#, "0", "false", "[]"] {
            assert_eq!(read(&format!(r#""eta": {nothing}, "expires": {nothing}"#)).eta, None);
        }
        assert_eq!(read(r#""ctx": {"eta": "2099-01-01"}, "nan": NaN"#).eta, None);
        let both = read(r#""shadow": "a", "shadow": "b", "compression": """#);
        assert_eq!((both.display_name(), both.arguments().is_ok()), ("b", true));
    }

    #[test]
    fn a_retry_keeps_numbers_that_no_machine_has() {
        let payload = r#"{"body": "[[], {}, {}]", "headers": {"task": "t", "id": "i", "big": 123456789012345678901234567890, "huge": 1e400}}"#;
        let message = Message::decode(payload).unwrap();
        let retry = retry_of(payload, &message, clock::now()).unwrap();
        assert!(retry.contains("123456789012345678901234567890") && retry.contains("1e400"));
        assert_eq!(Message::decode(&retry).unwrap().retries, 1);
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
    fn of_what_is_malformed_name_and_id_may_be_known() {
        let payload = r#"{"body": "x", "headers": {"task": "t", "id": "i", "timelimit": [1]}}"#;
        let outline = Message::decode(payload).err().and(Message::outline(payload)).unwrap();
        assert_eq!((&*outline.task, &*outline.id, outline.ignore_result), ("t", "i", None));
        assert!(Message::outline(r#"{"headers": {"id": "i"}}"#).is_none());
    }

    #[test]
    fn what_is_malformed_says_where() {
        for (payload, part) in [
            ("", "envelope"),
            ("[]", "envelope"),
            (r#"{"body": "x", "headers": [1]}"#, "headers"),
            (r#"{"body": "x", "headers": {"task": ["t"], "id": "i"}}"#, "task: expected a text"),
            (
                r#"{"body": "x", "headers": {"task": "t", "id": "i", "eta": "2026-13-01T00:00:00"}}"#,
                "eta",
            ),
            (
                r#"{"body": "x", "headers": {"task": "t", "id": "i", "timelimit": [1]}}"#,
                "timelimit",
            ),
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
}
