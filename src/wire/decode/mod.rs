//! A body in any serializer and compression that Celery has, as the JSON text that the rest of
//! the program reads. Values are data and never run anything; what a body unpacks to is bounded.
//!
//! Source: kombu `serialization.py`, `compression.py`; for the text `utils/json.py`.

mod json;
mod moment;
mod msgpack;
mod number;
mod pickle;
mod unpack;
mod yaml;

use super::message::Malformed;
use std::borrow::Cow;
use std::fmt;

/// Maximum number of values of one body: a hundred megabytes of memory while they are read. The JSON
/// that they become has a limit of its own ([`crate::bounds::BODY_MAX`]).
const VALUES_MAX: usize = 1 << 22;

/// Content types that kombu takes whatever `accept_content` says: raw texts and bytes, which no
/// task is called with (`serialization.py`, `TRUSTED_CONTENT`, `dumps`).
const RAW: &[&str] = &["application/data", "application/text", "text/plain"];

/// A form of text or bytes that a body may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Serializer {
    /// `application/json`
    Json,
    /// `application/x-yaml`, by PyYAML's safe loader.
    Yaml,
    /// `application/x-msgpack`
    Msgpack,
    /// `application/x-python-serialize`, its data alone.
    Pickle,
}

use Serializer::{Json, Msgpack, Pickle, Yaml};

impl Serializer {
    /// All of them, in the order in which they are listed.
    pub const ALL: [Serializer; 4] = [Json, Yaml, Msgpack, Pickle];

    /// The name that kombu registers it under.
    pub fn name(self) -> &'static str {
        match self {
            Json => "json",
            Yaml => "yaml",
            Msgpack => "msgpack",
            Pickle => "pickle",
        }
    }

    /// The content type of its messages.
    pub fn content_type(self) -> &'static str {
        match self {
            Json => "application/json",
            Yaml => "application/x-yaml",
            Msgpack => "application/x-msgpack",
            Pickle => "application/x-python-serialize",
        }
    }

    /// The one with this name or content type.
    pub fn named(word: &str) -> Option<Serializer> {
        Serializer::ALL.into_iter().find(|one| one.name() == word || one.content_type() == word)
    }
}

/// The serializers whose messages are taken (`accept_content`); by default JSON alone, as in
/// Celery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AcceptedContent([bool; Serializer::ALL.len()]);

impl AcceptedContent {
    /// Those with these names or content types; other words are left out.
    pub fn of<'a>(words: impl IntoIterator<Item = &'a str>) -> AcceptedContent {
        let mut accept = AcceptedContent([false; Serializer::ALL.len()]);
        for one in words.into_iter().filter_map(Serializer::named) {
            accept.0[one as usize] = true;
        }
        accept
    }

    /// Is a message of this content type taken? Raw ones pass; the decoder refuses them.
    ///
    /// # Errors
    /// Says that it is not, and what is.
    pub(super) fn check(&self, content_type: &str) -> Result<(), Malformed> {
        let is_one = |one: &Serializer| self.0[*one as usize] && one.content_type() == content_type;
        if RAW.contains(&content_type) || Serializer::ALL.iter().any(is_one) {
            return Ok(());
        }
        let shown = shown(content_type);
        Err(Malformed(format!("content-type {shown} is not accepted; accept_content has: {self}")))
    }
}

impl Default for AcceptedContent {
    fn default() -> AcceptedContent {
        AcceptedContent::of([Json.name()])
    }
}

impl fmt::Display for AcceptedContent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = Serializer::ALL.into_iter().filter(|one| self.0[*one as usize]);
        f.write_str(&all.map(Serializer::name).collect::<Vec<_>>().join(", "))
    }
}

/// The JSON text of a body of this content type, which came under this compression, if any.
///
/// # Errors
/// Says which step does not go, and why.
pub(super) fn text(
    content_type: &str,
    compression: Option<&str>,
    body: Cow<'_, [u8]>,
) -> Result<String, Malformed> {
    let Some(serializer) = Serializer::ALL.into_iter().find(|s| s.content_type() == content_type)
    else {
        let raw = RAW.contains(&content_type);
        let what = if raw { "is raw data" } else { "is not known" };
        let all = Serializer::ALL.map(Serializer::name).join(", ");
        let shown = shown(content_type);
        return Err(Malformed(format!(
            "content-type {shown} {what}; a body is [args, kwargs, embed] in one of {all}"
        )));
    };
    let body = match compression {
        Some(name) => Cow::Owned(unpack::unpack(name, &body)?),
        None => body,
    };
    match serializer {
        Json => String::from_utf8(body.into_owned())
            .map_err(|_| Malformed("body: not UTF-8, as JSON must be".into())),
        Yaml => yaml::text(&body),
        Msgpack => msgpack::text(&body),
        Pickle => pickle::text(&body),
    }
}

/// A name of a message in an error: on one line, and not too long.
fn shown(name: &str) -> String {
    const CHARS_MAX: usize = 60;
    let mut text: String = name.chars().take(CHARS_MAX).flat_map(char::escape_debug).collect();
    if name.chars().nth(CHARS_MAX).is_some() {
        text.push_str("...");
    }
    text
}

#[cfg(test)]
mod tests;
