//! A message on its way, unread: what brokers carry and the dead-letter list keeps.
//!
//! Source of the envelope: kombu `transport/virtual/base.py`.

use super::body::{self, Pairs};
use super::lenient::{self, Name, Object, ObjectFields};
use super::message::{Malformed, Message};
use crate::clock;
use chrono::{DateTime, Utc};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::borrow::Cow;
use std::fmt;

/// A message as a value: only this file knows how it is written. Today that is kombu's envelope,
/// one JSON text; whatever it is, readers get its [`MessageParts`].
///
/// Nothing is parsed before somebody asks: a message that passes through costs nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload(String);

/// The parts of a message, unread.
pub(super) struct MessageParts<'a> {
    pub headers: ObjectFields<'a>,
    pub properties: ObjectFields<'a>,
    pub content_type: Option<&'a RawValue>,
    pub body: Cow<'a, str>,
}

impl Payload {
    /// The message in an envelope; any text may be one, a malformed one.
    pub fn from_envelope(text: impl Into<String>) -> Payload {
        Payload(text.into())
    }

    /// The message as kombu's virtual transports carry it.
    pub fn to_envelope(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.0)
    }

    /// Bytes that it takes on its way.
    pub fn size(&self) -> usize {
        self.0.len()
    }

    /// The name of the task in the headers, if there is one.
    pub fn task(&self) -> Option<String> {
        lenient::text("task", self.header("task")).ok().flatten()
    }

    /// The id of the task, if it can be read.
    pub fn id(&self) -> Option<String> {
        let id = lenient::text("id", self.header("id")).ok().flatten();
        id.or_else(|| self.decode().ok().map(|message| message.id))
    }

    /// Reads headers and properties; the body is read by [`Message::arguments`].
    ///
    /// # Errors
    /// Says which part is not as the protocol has it.
    pub fn decode(&self) -> Result<Message, Malformed> {
        match parts(&self.0).and_then(Message::read) {
            // Numbers that Python writes and JSON has not.
            Err(malformed) => match body::finite(&self.0) {
                Cow::Owned(text) => parts(&text).and_then(Message::read),
                Cow::Borrowed(_) => Err(malformed),
            },
            read => read,
        }
    }

    /// Task and id of a message that cannot be decoded, if both can be read; all else is empty.
    pub fn outline(&self) -> Option<Message> {
        Some(Message::outline(self.task()?, self.id()?))
    }

    /// The message that retries this one, which says `message`: the same id, one retry more, due
    /// at `eta`; everything else stays as it came (celery `app/task.py`,
    /// `signature_from_request`). What changes of protocol 1 is in the body, which is written again
    /// in its serializer, or in JSON where it has a value that could only be read.
    ///
    /// # Errors
    /// It is not the one that was decoded.
    pub fn retry(&self, message: &Message, eta: DateTime<Utc>) -> Result<Payload, Malformed> {
        let mut changes = vec![
            ("retries", json!(message.retries.saturating_add(1))),
            ("eta", json!(clock::iso(eta))),
        ];
        // Values unread: an integer of thirty digits keeps them.
        let mut envelope = Pairs::read("envelope", &self.0)?;
        if message.is_named_outside() {
            changes.push(("parent_id", json!(message.id)));
            envelope.set_within("headers", &changes);
        } else {
            let written = message.body_with(&changes)?;
            envelope.set(&[("body", Value::String(written.text))]);
            if let Some((content_type, content_encoding)) = written.is_now {
                envelope.set(&[
                    ("content-type", json!(content_type)),
                    ("content-encoding", json!(content_encoding)),
                ]);
                envelope.set_within("headers", &[("compression", Value::Null)]);
            }
        }
        let tag = json!(uuid::Uuid::new_v4().to_string());
        envelope.set_within("properties", &[("delivery_tag", tag)]);
        Ok(Payload(body::object(&envelope.0)))
    }

    /// What the message says beside its body: `headers`, `properties`, `content_type`,
    /// `content_encoding` and `delivery_info`, each as it came.
    pub fn details(&self) -> Vec<(String, Box<RawValue>)> {
        let read = |text: &str| serde_json::from_str::<Pairs>(text).map(|Pairs(pairs)| pairs);
        let fields = read(&self.0).or_else(|_| read(&body::finite(&self.0))).unwrap_or_default();
        let find = |pairs: &[(String, Box<RawValue>)], name: &str| {
            let found = pairs.iter().rev().find(|(field, _)| field == name);
            found.map_or_else(|| RawValue::NULL.to_owned(), |(_, value)| value.clone())
        };
        let properties = find(&fields, "properties");
        let info = find(&read(properties.get()).unwrap_or_default(), "delivery_info");
        let mut details: Vec<_> = ["headers", "content-type", "content-encoding"]
            .map(|name| (name.replace('-', "_"), find(&fields, name)))
            .into();
        details.extend([("properties".into(), properties), ("delivery_info".into(), info)]);
        details
    }

    fn header(&self, name: &str) -> Option<&RawValue> {
        let envelope = ObjectFields::read(&self.0).ok()?;
        ObjectFields::read(envelope.get("headers")?.get()).ok()?.get(name)
    }
}

/// The parts of an envelope.
fn parts(envelope: &str) -> Result<MessageParts<'_>, Malformed> {
    let read: Envelope =
        serde_json::from_str(envelope).map_err(|error| Malformed(format!("envelope: {error}")))?;
    Ok(MessageParts {
        headers: read.headers,
        properties: read.properties,
        content_type: read.content_type,
        body: match read.body {
            Some(raw) => lenient::string(raw)
                .ok_or_else(|| Malformed("envelope: body: expected a string".into()))?,
            None => return Err(Malformed("envelope: no body".into())),
        },
    })
}

/// An envelope, read in one pass; the last of two fields of one name counts, as in Python.
#[derive(Default)]
struct Envelope<'a> {
    headers: ObjectFields<'a>,
    properties: ObjectFields<'a>,
    content_type: Option<&'a RawValue>,
    body: Option<&'a RawValue>,
}

impl<'de: 'a, 'a> Deserialize<'de> for Envelope<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Envelope<'a>, D::Error> {
        struct InOnePass;
        impl<'de> Visitor<'de> for InOnePass {
            type Value = Envelope<'de>;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Envelope<'de>, A::Error> {
                let mut read = Envelope::default();
                while let Some(Name(name)) = map.next_key()? {
                    match &*name {
                        "headers" => read.headers = map.next_value_seed(Object("headers"))?,
                        "properties" => {
                            read.properties = map.next_value_seed(Object("properties"))?
                        }
                        "content-type" => read.content_type = Some(map.next_value()?),
                        "body" => read.body = Some(map.next_value()?),
                        _ => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(read)
            }
        }
        from.deserialize_map(InOnePass)
    }
}

#[cfg(test)]
mod tests {
    use super::super::draft::Draft;
    use super::super::encode::BodyFormat;
    use super::super::message::RETRIES_MAX;
    use super::*;
    use std::time::Duration;

    fn decode(envelope: &str) -> Result<Message, Malformed> {
        Payload::from_envelope(envelope).decode()
    }

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
        let eta = clock::parse("2026-11-20T17:34:55.019470+00:00");
        let sent = Draft { eta, expires: eta, ..draft() };
        let message = sent.encode(3, now, &BodyFormat::default()).unwrap().decode().unwrap();
        assert_eq!((message.task.as_str(), message.id.as_str()), ("add", "T"));
        assert_eq!((message.eta, message.expires, message.priority), (eta, eta, Some(3)));
        assert_eq!(message.root_id, "T");
        let arguments = message.arguments().unwrap();
        assert_eq!(arguments.args[1].get(), "3");
        assert_eq!(arguments.kwargs[0].1.get(), "\"v\"");
    }

    #[test]
    fn a_retry_keeps_all_but_its_count_its_time_and_its_parent() {
        let payload = draft().encode(0, clock::now(), &BodyFormat::default()).unwrap();
        let message = payload.decode().unwrap();
        let eta = clock::now();
        let retry = payload.retry(&message, eta).unwrap().decode().unwrap();
        assert_eq!((retry.retries, retry.parent_id.as_str(), retry.id.as_str()), (1, "T", "T"));
        assert_eq!(retry.eta.map(clock::iso), Some(clock::iso(eta)));
        assert_eq!(retry.arguments().unwrap().args[0].get(), "2");
    }

    #[test]
    fn two_headers_and_a_plain_body_are_enough() {
        let message = decode(
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
            decode(&payload).unwrap_or_else(|error| panic!("{fields}: {error}"))
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
        assert_eq!(read(&format!(r#""eta": {typed}"#)).eta, clock::parse("2026-01-02T03:04:05"));
        for nothing in [r#""""#, "0", "false", "[]"] {
            assert_eq!(read(&format!(r#""eta": {nothing}, "expires": {nothing}"#)).eta, None);
        }
        assert_eq!(read(r#""ctx": {"eta": "2099-01-01"}, "nan": NaN"#).eta, None);
        let both = read(r#""shadow": "a", "shadow": "b", "compression": """#);
        assert_eq!((both.display_name(), both.arguments().is_ok()), ("b", true));
    }

    #[test]
    fn what_python_takes_for_false_is_an_object_without_fields() {
        let read = |properties: &str| {
            decode(&format!(
                r#"{{"properties": {properties}, "body": "", "headers": {{"task": "t", "id": "i"}}}}"#
            ))
        };
        for nothing in ["null", "false", "0", "-0", "0.0", "\"\"", "[]", "[ ]", "{}"] {
            assert_eq!(read(nothing).unwrap().priority, None, "{nothing}");
        }
        for wrong in ["true", "1", "-1", "0.5", "\"x\"", "[0]", "[[], {}]"] {
            let error = read(wrong).unwrap_err().0;
            assert!(error.starts_with("envelope: properties: invalid type"), "{wrong}: {error}");
        }
        let last = r#"{"headers": {"task": "u", "id": "i"}, "headers": {"task": "t", "id": "j"}, "body": ""}"#;
        assert_eq!(decode(last).unwrap().id, "j");
    }

    #[test]
    fn a_retry_keeps_numbers_that_no_machine_has() {
        let payload = r#"{"body": "[[], {}, {}]", "headers": {"task": "t", "id": "i", "big": 123456789012345678901234567890, "huge": 1e400}}"#;
        let payload = Payload::from_envelope(payload);
        let retry = payload.retry(&payload.decode().unwrap(), clock::now()).unwrap();
        let text = retry.to_envelope();
        assert!(text.contains("123456789012345678901234567890") && text.contains("1e400"));
        assert_eq!(retry.decode().unwrap().retries, 1);
    }

    #[test]
    fn protocol_one_is_read_from_the_body() {
        let body =
            r#"{\"task\": \"t\", \"id\": \"i\", \"args\": [1], \"kwargs\": {}, \"retries\": 2}"#;
        let payload = format!(r#"{{"body": "{body}", "headers": {{}}, "properties": {{}}}}"#);
        let payload = Payload::from_envelope(payload);
        let message = payload.decode().unwrap();
        assert_eq!((message.task.as_str(), message.retries), ("t", 2));
        let retry = payload.retry(&message, clock::now()).unwrap();
        assert_eq!(retry.decode().unwrap().retries, 3);
    }

    #[test]
    fn of_what_is_malformed_name_and_id_may_be_known() {
        let outline = |envelope: &str| Payload::from_envelope(envelope).outline();
        let payload = r#"{"body": "x", "headers": {"task": "t", "id": "i", "timelimit": [1]}}"#;
        let known = decode(payload).err().and(outline(payload)).unwrap();
        assert_eq!((&*known.task, &*known.id, known.ignore_result), ("t", "i", None));
        assert!(outline(r#"{"headers": {"id": "i"}}"#).is_none());
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
            let error = decode(payload).unwrap_err();
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
            let error = decode(&payload).unwrap().arguments().unwrap_err();
            assert!(error.0.contains(part), "{payload}: {error}");
        }
    }
}
