//! What a result store keeps, in the form of `result_serializer` and `result_compression`, and
//! what others have kept there in any form.
//!
//! Source: celery 5.7 `backends/base.py` (`encode`, `decode`, `compress_payload`). A reader there
//! decodes with its own `result_serializer`; here the bytes tell which one it was.

use super::auth;
use super::decode::{self, Exceptions};
use super::encode::{BodyFormat, EncodeError, pack};
use super::message::Malformed;
use super::serializer::{AcceptedContent, Serializer, shown};
use chrono::{DateTime, Utc};

/// For scripts on a Redis server: `state_of(key)`, the state of a stored result.
pub const STATE_OF: &str = include_str!("state.lua");

/// What compressed bytes begin with; the name of the compression and a zero follow.
const COMPRESSED: &[u8] = b"\0celery-compressed\0";

/// How results are written, and which are read.
#[derive(Debug, Clone, Default)]
pub struct ResultFormat {
    /// How they are written.
    pub format: BodyFormat,
    /// `result_accept_content`
    pub accept: AcceptedContent,
}

/// What bytes are to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// A whole result, an object.
    Document,
    /// A part of a chord, an array.
    Part,
    /// A value alone; of a task that has failed, an exception.
    Value {
        /// Has it failed?
        is_failed: bool,
    },
}

impl ResultFormat {
    /// Can only the one who has written a document tell its state? It is compressed or signed.
    pub fn is_opaque(&self) -> bool {
        self.format.compression.is_some() || self.format.serializer == Serializer::Auth
    }

    /// Is JSON read?
    pub fn reads_json(&self) -> bool {
        self.accept.has(Serializer::Json)
    }

    /// What is kept of a JSON text in a store that keeps no opaque ones. What the serializer has not is
    /// a text.
    pub fn write_open(&self, json: String) -> Vec<u8> {
        self.format.stored(json)
    }

    /// What a store keeps that has no compression of its own: a table.
    ///
    /// # Errors
    /// Nothing can be signed.
    pub fn write_value(&self, json: String) -> Result<Vec<u8>, EncodeError> {
        self.format.signed(self.format.stored(json))
    }

    /// What a store keeps of a JSON text.
    ///
    /// # Errors
    /// Nothing can be signed or compressed.
    pub fn write(&self, json: String) -> Result<Vec<u8>, EncodeError> {
        let bytes = self.write_value(json)?;
        let Some(compression) = self.format.compression else { return Ok(bytes) };
        let name = compression.content_type().as_bytes();
        Ok([COMPRESSED, name, b"\0", &pack(compression, &bytes)?].concat())
    }

    /// The JSON text of what a store keeps, in whatever form. JSON itself is read by others first:
    /// see [`ResultFormat::reads_json`].
    ///
    /// # Errors
    /// Says what it is, and that it is not accepted or cannot be read.
    pub fn read(
        &self,
        bytes: &[u8],
        shape: Shape,
        now: DateTime<Utc>,
    ) -> Result<String, Malformed> {
        let unpacked;
        let mut bytes = bytes;
        if let Some(rest) = bytes.strip_prefix(COMPRESSED) {
            let end = rest.iter().position(|byte| *byte == 0).unwrap_or(rest.len());
            let name = String::from_utf8_lossy(&rest[..end]);
            let packed = rest.get(end + 1..).unwrap_or_default();
            unpacked = decode::unpack(&name, packed).map_err(of_result)?;
            bytes = &unpacked;
        }
        if auth::looks_signed(bytes) {
            self.check(Serializer::Auth)?;
            let verified = self.format.keys.verify(bytes, now).map_err(of_result)?;
            let inner = Serializer::named(&verified.content_type);
            let inner = inner.filter(|inner| *inner != Serializer::Auth).ok_or_else(|| {
                let shown = shown(&verified.content_type);
                Malformed(format!("the signed result is {shown}, which is not known"))
            })?;
            return read(inner, &verified.body, shape);
        }
        let (mut refused, mut broken) = (None, None);
        for one in self.candidates(bytes, shape) {
            match read(one, bytes, shape) {
                Ok(text) if self.accept.has(one) => return Ok(text),
                Ok(_) => refused = refused.or(self.check(one).err()),
                Err(why) => broken = broken.or(Some(why)),
            }
        }
        let none = || Malformed("the stored result is of no serializer".into());
        Err(refused.or(broken).unwrap_or_else(none))
    }

    fn check(&self, serializer: Serializer) -> Result<(), Malformed> {
        match self.accept.has(serializer) {
            true => Ok(()),
            false => Err(Malformed(format!(
                "the stored result is {}, which is not accepted; result_accept_content has: {}",
                serializer.name(),
                self.accept
            ))),
        }
    }

    /// What these bytes may be, the likeliest first.
    fn candidates(&self, bytes: &[u8], shape: Shape) -> Vec<Serializer> {
        use Serializer::{Json, Msgpack, Pickle, Yaml};
        let own = self.format.serializer;
        let is_pickle = matches!(bytes, [0x80, 2..=5, .., b'.']);
        let is_text = std::str::from_utf8(bytes).is_ok();
        let mut all = Vec::new();
        match shape {
            _ if is_pickle => all.push(Pickle),
            // Of a value alone, bytes tell little.
            Shape::Value { .. } if own != Pickle && own != Serializer::Auth => all.push(own),
            _ => {}
        }
        all.extend(if is_text { [Json, Yaml] } else { [Msgpack, Pickle] });
        all.extend((!is_pickle && is_text).then_some(Msgpack));
        all
    }
}

fn read(serializer: Serializer, bytes: &[u8], shape: Shape) -> Result<String, Malformed> {
    let exceptions = match shape {
        Shape::Document | Shape::Part => Exceptions::OfFailed,
        Shape::Value { is_failed: true } => Exceptions::Whole,
        Shape::Value { is_failed: false } => Exceptions::Refused,
    };
    let text = decode::stored(serializer, bytes, exceptions).map_err(of_result)?;
    let text = match serializer {
        Serializer::Json => super::body::finite(&text).into_owned(),
        _ => text,
    };
    let is_json = || serde_json::from_str::<&serde_json::value::RawValue>(&text).is_ok();
    let fits = match shape {
        Shape::Document => text.trim_start().starts_with('{'),
        Shape::Part => text.trim_start().starts_with('['),
        Shape::Value { .. } => true,
    };
    match fits && (serializer != Serializer::Json || is_json()) {
        true => Ok(text),
        false => Err(Malformed("the stored result cannot be read".into())),
    }
}

fn of_result(Malformed(why): Malformed) -> Malformed {
    Malformed(format!("the stored result cannot be read: {why}"))
}

#[cfg(test)]
mod tests {
    use super::super::compression::Compression;
    use super::*;
    use serde_json::json;

    fn format(serializer: Serializer, accept: &[&str]) -> ResultFormat {
        ResultFormat {
            format: BodyFormat { serializer, ..BodyFormat::default() },
            accept: AcceptedContent::of(accept.iter().copied()),
        }
    }

    const ALL: &[&str] = &["json", "yaml", "msgpack", "pickle"];

    fn same(one: &str, other: &str) {
        let parsed = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(parsed(one), parsed(other));
    }

    #[test]
    fn what_is_written_is_read_whatever_the_reader_writes() {
        let now = crate::clock::now();
        let document =
            json!({"status": "SUCCESS", "result": {"a": [1, "ü", null]}, "task_id": "T"});
        let document = document.to_string();
        for one in [Serializer::Json, Serializer::Yaml, Serializer::Msgpack, Serializer::Pickle] {
            for compression in [None, Some(Compression::Zlib), Some(Compression::Zstd)] {
                let mut writer = format(one, ALL);
                writer.format.compression = compression;
                let bytes = writer.write(document.clone()).unwrap();
                let text = format(Serializer::Json, ALL).read(&bytes, Shape::Document, now);
                same(&text.unwrap(), &document);
                let part = writer.write("[1, \"T\", \"SUCCESS\", 5]".into()).unwrap();
                let text = format(Serializer::Json, ALL).read(&part, Shape::Part, now);
                same(&text.unwrap(), "[1, \"T\", \"SUCCESS\", 5]");
            }
            for value in ["5", "\"text\"", "null", "[1, {\"a\": 0.5}]", "true", "\"5\""] {
                let bytes = format(one, ALL).write_value(value.into()).unwrap();
                let shape = Shape::Value { is_failed: false };
                same(&format(one, ALL).read(&bytes, shape, now).unwrap(), value);
            }
        }
    }

    #[test]
    fn what_is_not_accepted_is_named() {
        let now = crate::clock::now();
        for one in [Serializer::Yaml, Serializer::Msgpack, Serializer::Pickle] {
            let bytes = format(one, ALL).write("{\"status\": \"SUCCESS\", \"b\": 1}".into());
            let reader = format(Serializer::Json, &["json"]);
            let read = reader.read(&bytes.unwrap(), Shape::Document, now);
            // This much of YAML is JSON too.
            if one == Serializer::Yaml {
                assert!(read.is_ok());
                continue;
            }
            let why = read.unwrap_err().0;
            let expected = format!(
                "the stored result is {}, which is not accepted; result_accept_content has: json",
                one.name()
            );
            assert_eq!(why, expected);
        }
        let reader = format(Serializer::Yaml, &["yaml"]);
        let json = reader.read(b"{\"status\": \"SUCCESS\"}", Shape::Document, now);
        assert!(json.is_ok(), "it is YAML too");
    }

    #[test]
    fn damaged_bytes_are_no_more_than_wrong() {
        let reader = format(Serializer::Json, ALL);
        let (now, mut random) = (crate::clock::now(), fastrand::Rng::with_seed(5));
        let samples: [&[u8]; 4] = [
            b"\0celery-compressed\0application/x-gzip\0\x78\x9c\x4b\x04\0\0\x62\0\x62",
            b"\x80\x04}(\x8c\x06status\x8c\x07SUCCESSu.",
            b"\x81\xa6status\xa7SUCCESS",
            b"{\"status\": \"SUCCESS\"}",
        ];
        for _ in 0..2000 {
            for sample in samples {
                let mut bytes = sample.to_vec();
                let at = random.usize(..bytes.len());
                bytes[at] = random.u8(..);
                bytes.truncate(random.usize(..=bytes.len()));
                for shape in [Shape::Document, Shape::Part, Shape::Value { is_failed: true }] {
                    let _ = reader.read(&bytes, shape, now);
                }
            }
        }
    }
}
