//! What a message says: Celery's protocol 2, and 1. [`super::Payload::decode`] reads it.
//!
//! Source: celery `app/amqp.py` (`as_task_v2`, `as_task_v1`). The body stays as it came until
//! [`Message::arguments`] asks for it.

use super::auth::Keys;
use super::body::{self, Arguments, Pairs};
use super::compression::Compression;
use super::decode;
use super::encode::{Body, BodyFormat};
use super::lenient::{self, ObjectFields};
use super::payload::MessageParts;
use super::serializer::{AcceptedContent, Serializer};
use crate::clock;
use chrono::{DateTime, Utc};
use serde_json::Value;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

/// A count of retries is no larger, whatever a message says.
pub(super) const RETRIES_MAX: u32 = 1_000_000_000;

/// A time limit of more than a hundred years is none: instants can be computed with the others.
const LIMIT_MAX: Duration = Duration::from_secs(100 * 365 * 86_400);

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
    /// Its place there.
    pub group_index: Option<i64>,
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
    /// How many tasks it has replaced, one after the other.
    pub replaced_task_nesting: u32,
    /// Priority as the sender gave it.
    pub priority: Option<i64>,
    /// Of a map: the task that it runs for each item, as far as its headers tell.
    pub mapped: Option<String>,
    content: Content,
}

/// A body that was written again.
pub(super) struct Rewritten {
    pub text: String,
    /// Its content type and encoding, if they are others than before; then it has no compression.
    pub is_now: Option<(&'static str, &'static str)>,
}

#[derive(Debug, Clone, Default)]
struct Content {
    body: String,
    base64: bool,
    kind: String,
    compression: Option<String>,
    protocol: u8,
    /// `body` is the JSON that the body said, in whatever form it came.
    decoded: bool,
}

/// The content type of most messages, and of those that say none.
const JSON: &str = "application/json";

/// The fields of a message that a worker reads, unread; see [`super::lenient`].
#[derive(Default)]
struct Headers<'a>(ObjectFields<'a>);

impl<'a> Headers<'a> {
    fn text(&self, name: &str) -> Result<Option<String>, Malformed> {
        lenient::text(name, self.0.get(name))
    }

    fn instant(&self, name: &str) -> Result<Option<DateTime<Utc>>, Malformed> {
        let Some(raw) = self.0.get(name).filter(|raw| lenient::is_true(raw)) else {
            return Ok(None);
        };
        if let Some(seconds) = lenient::number(raw).filter(|_| !raw.get().starts_with('"')) {
            return clock::from_epoch(seconds).map(Some).ok_or_else(|| {
                Malformed(format!("{name}: {} is no instant", lenient::shown(raw)))
            });
        }
        let text = lenient::text(name, Some(raw))?.unwrap_or_default();
        clock::parse(&text).map(Some).ok_or_else(|| {
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

impl Message {
    /// A message whose headers or properties cannot be read: its task and its id alone.
    pub(super) fn outline(task: String, id: String) -> Message {
        let content = Content { protocol: 2, ..Content::default() };
        Message { root_id: id.clone(), task, id, content, ..Message::default() }
    }

    /// Reads what came.
    pub(super) fn read(parts: MessageParts<'_>) -> Result<Message, Malformed> {
        let (headers, properties) = (Headers(parts.headers), Headers(parts.properties));
        let content = Content {
            body: parts.body.into_owned(),
            base64: properties.text("body_encoding")?.as_deref() == Some("base64"),
            kind: lenient::text("content-type", parts.content_type)?.unwrap_or_else(|| JSON.into()),
            compression: headers.text("compression")?.filter(|name| !name.is_empty()),
            protocol: 2,
            decoded: false,
        };
        if headers.0.get("task").is_some() {
            return build(&headers, &properties, content);
        }
        // Protocol 1: no `task` header; everything is in the body.
        let content = Content { protocol: 1, ..content }.decoded()?;
        let text = content.text()?;
        let text = body::finite(&text).into_owned();
        let fields = ObjectFields::read(&text).ok().filter(|fields| fields.get("task").is_some());
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

    /// Is its body in a form that is taken (`accept_content`)? A body of protocol 1 was read
    /// before anybody could ask, for the name of its task.
    ///
    /// # Errors
    /// Names its form, and those that are taken.
    pub fn accepted(&self, accept: &AcceptedContent) -> Result<(), Malformed> {
        accept.check(&self.content.kind)
    }

    /// Verifies the signature of a body that has one, if such are taken: from then on the body is
    /// what was signed.
    ///
    /// # Errors
    /// Says what is wrong with the signature, or with what was signed.
    pub fn verify(
        &mut self,
        accept: &AcceptedContent,
        keys: &Keys,
        now: DateTime<Utc>,
    ) -> Result<(), Malformed> {
        let content = &self.content;
        let is_signed = content.kind == Serializer::Auth.content_type() && !content.decoded;
        if !is_signed || !accept.has(Serializer::Auth) {
            return Ok(());
        }
        let bytes = content.bytes()?;
        let bytes = match content.compression.as_deref() {
            Some(name) => Cow::Owned(decode::unpack(name, &bytes)?),
            None => bytes,
        };
        let verified = keys.verify(&bytes, now)?;
        let text = decode::text(&verified.content_type, None, Cow::Owned(verified.body))?;
        (self.content.body, self.content.decoded) = (text, true);
        Ok(())
    }

    /// Do the headers name the task (protocol 2), or the body alone (protocol 1)?
    pub fn is_named_outside(&self) -> bool {
        self.content.protocol == 2
    }

    /// The fields of a body of protocol 1 with these changes: in its form, or in JSON; in base64 if
    /// it came so.
    pub(super) fn body_with(&self, changes: &[(&str, Value)]) -> Result<Rewritten, Malformed> {
        let content = &self.content;
        let mut fields = Pairs::read("body", &content.text()?)?;
        fields.set(changes);
        let text = body::object(&fields.0);
        let form = BodyFormat {
            serializer: Serializer::named(&content.kind).unwrap_or_default(),
            compression: content.compression.as_deref().and_then(Compression::named),
            ..BodyFormat::default()
        };
        let plain = form.is_plain();
        let written = (!plain && content.base64).then(|| form.body(text.clone()).ok()).flatten();
        if let Some(Body { bytes, .. }) = written {
            return Ok(Rewritten { text: body::to_base64(&bytes), is_now: None });
        }
        let text = if content.base64 { body::to_base64(text.as_bytes()) } else { text };
        Ok(Rewritten { text, is_now: (!plain).then_some((JSON, "utf-8")) })
    }

    /// The name that people see: `shadow` if the sender gave one.
    pub fn display_name(&self) -> &str {
        self.shadow.as_deref().filter(|shadow| !shadow.is_empty()).unwrap_or(&self.task)
    }
}

impl Content {
    /// The body as JSON.
    fn text(&self) -> Result<Cow<'_, str>, Malformed> {
        let is_json = self.kind == JSON && self.compression.is_none() && !self.base64;
        if self.decoded || is_json {
            return Ok(Cow::Borrowed(&self.body));
        }
        decode::text(&self.kind, self.compression.as_deref(), self.bytes()?).map(Cow::Owned)
    }

    /// The body as it came, out of base64.
    fn bytes(&self) -> Result<Cow<'_, [u8]>, Malformed> {
        match self.base64 {
            true => body::from_base64(&self.body)
                .map(Cow::Owned)
                .ok_or_else(|| Malformed("body: not base64, as body_encoding says".into())),
            false => Ok(Cow::Borrowed(self.body.as_bytes())),
        }
    }

    /// The same, read once for all that asks.
    fn decoded(self) -> Result<Content, Malformed> {
        let body = match self.text()? {
            Cow::Owned(text) => text,
            Cow::Borrowed(_) => return Ok(self),
        };
        Ok(Content { body, decoded: true, ..self })
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
        group_index: headers.0.get("group_index").and_then(lenient::number).map(|n| n as i64),
        shadow: headers.text("shadow")?,
        eta: headers.instant("eta")?,
        expires: headers.instant("expires")?,
        // From outside: no count that a worker adds to may overflow.
        retries: retries.clamp(0.0, f64::from(RETRIES_MAX)) as u32,
        time_limit,
        soft_time_limit,
        ignore_result: ignore_result.map(lenient::is_true),
        replaced_task_nesting: headers
            .0
            .get("replaced_task_nesting")
            .and_then(lenient::number)
            .map_or(0, |count| count as u32),
        priority: properties.0.get("priority").and_then(lenient::number).map(|n| n as i64),
        mapped: mapped(&task, headers),
        content,
        task,
        id,
    })
}

/// The task of a map by `kwargsrepr`: a broker that reads no bodies sorts by it (`take.lua`).
fn mapped(task: &str, headers: &Headers) -> Option<String> {
    matches!(task, "celery.map" | "celery.starmap").then_some(())?;
    let repr = headers.text("kwargsrepr").ok().flatten()?;
    let rest = repr.strip_prefix("{'task': ")?;
    let rest = rest.strip_prefix("{'task': ").unwrap_or(rest).strip_prefix('\'')?;
    let (name, _) = rest.split_once('\'')?;
    (!name.is_empty() && !name.contains('\\')).then(|| name.to_string())
}

/// Zero and negative limits are none, as in Celery; so are those of centuries.
fn seconds(limit: f64) -> Option<Duration> {
    let limit = Duration::try_from_secs_f64(limit).ok()?;
    (!limit.is_zero() && limit <= LIMIT_MAX).then_some(limit)
}
