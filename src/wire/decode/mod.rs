//! A body in any serializer and compression that Celery has, as the JSON text that the rest of
//! the program reads. Values are data and never run anything; what a body unpacks to is bounded.
//!
//! Source: kombu `serialization.py`, `compression.py`; for the text `utils/json.py`.

mod json;
mod moment;
mod msgpack;
pub(super) mod number;
pub(super) mod pickle;
mod unpack;
mod yaml;

use super::message::Malformed;
use super::serializer::Serializer::{self, Auth, Json, Msgpack, Pickle, Yaml};
use super::serializer::{RAW, shown};
use std::borrow::Cow;

pub(super) use unpack::unpack;

/// Maximum number of values of one body: a hundred megabytes of memory while they are read. The JSON
/// that they become has a limit of its own ([`crate::bounds::BODY_MAX`]).
const VALUES_MAX: usize = 1 << 22;

/// The serializers that are not a signature around another one.
const PLAIN: [Serializer; 4] = [Json, Yaml, Msgpack, Pickle];

/// The JSON text of a body of this content type, which came under this compression, if any.
///
/// # Errors
/// Says which step does not go, and why.
pub(super) fn text(
    content_type: &str,
    compression: Option<&str>,
    body: Cow<'_, [u8]>,
) -> Result<String, Malformed> {
    let Some(serializer) = PLAIN.into_iter().find(|s| s.content_type() == content_type) else {
        let raw = RAW.contains(&content_type) || content_type == Auth.content_type();
        let what = if raw { "is raw data" } else { "is not known" };
        let all = PLAIN.map(Serializer::name).join(", ");
        let shown = shown(content_type);
        return Err(Malformed(format!(
            "content-type {shown} {what}; a body is [args, kwargs, embed] in one of {all}"
        )));
    };
    let body = match compression {
        Some(name) => Cow::Owned(unpack(name, &body)?),
        None => body,
    };
    match serializer {
        Json => String::from_utf8(body.into_owned())
            .map_err(|_| Malformed("body: not UTF-8, as JSON must be".into())),
        Yaml => yaml::text(&body),
        Msgpack => msgpack::text(&body),
        _ => pickle::text(&body, Exceptions::Refused),
    }
}

/// Where the objects of Python's exceptions are read as what Celery's JSON has of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exceptions {
    /// Nowhere.
    Refused,
    /// As the result in a document or a part of a chord that says that its task has failed.
    OfFailed,
    /// As the whole value.
    Whole,
}

/// The JSON text of a stored value in this serializer.
///
/// # Errors
/// It is none of it.
pub(super) fn stored(
    serializer: Serializer,
    bytes: &[u8],
    exceptions: Exceptions,
) -> Result<String, Malformed> {
    match serializer {
        Pickle => pickle::text(bytes, exceptions),
        other => text(other.content_type(), None, Cow::Borrowed(bytes)),
    }
}

#[cfg(test)]
mod tests;
