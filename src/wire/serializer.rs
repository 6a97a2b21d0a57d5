//! The serializers that messages and results may have, and which of them are taken.
//!
//! Source: kombu `serialization.py`; of `auth`, celery `security/serialization.py`.

use super::message::Malformed;
use std::fmt;

/// Content types of raw texts and bytes, which no task is called with (`serialization.py`,
/// `TRUSTED_CONTENT`, `dumps`). kombu takes them whatever `accept_content` says; the decoder refuses
/// them.
pub(super) const RAW: &[&str] = &["application/text", "text/plain"];

/// A form of text or bytes that a body may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Serializer {
    /// `application/json`
    #[default]
    Json,
    /// `application/x-yaml`, by PyYAML's safe loader.
    Yaml,
    /// `application/x-msgpack`
    Msgpack,
    /// `application/x-python-serialize`, its data alone.
    Pickle,
    /// `application/data`: JSON, or any of the others, with a signature.
    Auth,
}

use Serializer::{Auth, Json, Msgpack, Pickle, Yaml};

impl Serializer {
    /// All of them, in the order in which they are listed.
    pub const ALL: [Serializer; 5] = [Json, Yaml, Msgpack, Pickle, Auth];

    /// The name that kombu registers it under.
    pub fn name(self) -> &'static str {
        match self {
            Json => "json",
            Yaml => "yaml",
            Msgpack => "msgpack",
            Pickle => "pickle",
            Auth => "auth",
        }
    }

    /// The content type of its messages.
    pub fn content_type(self) -> &'static str {
        match self {
            Json => "application/json",
            Yaml => "application/x-yaml",
            Msgpack => "application/x-msgpack",
            Pickle => "application/x-python-serialize",
            Auth => "application/data",
        }
    }

    /// What kombu says of its bytes.
    pub(super) fn content_encoding(self) -> &'static str {
        match self {
            Json | Yaml | Auth => "utf-8",
            Msgpack | Pickle => "binary",
        }
    }

    /// The one with this name or content type.
    pub fn named(word: &str) -> Option<Serializer> {
        Serializer::ALL.into_iter().find(|one| one.name() == word || one.content_type() == word)
    }
}

/// The serializers that are taken (`accept_content`, `result_accept_content`); by default JSON
/// alone, as in Celery.
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

    /// Is this one among them?
    pub fn has(&self, serializer: Serializer) -> bool {
        self.0[serializer as usize]
    }

    /// Is a message of this content type taken? Raw ones pass; the decoder refuses them.
    ///
    /// # Errors
    /// Says that it is not, and what is.
    pub(super) fn check(&self, content_type: &str) -> Result<(), Malformed> {
        let is_one = |one: &Serializer| self.has(*one) && one.content_type() == content_type;
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
        let all = Serializer::ALL.into_iter().filter(|one| self.has(*one));
        f.write_str(&all.map(Serializer::name).collect::<Vec<_>>().join(", "))
    }
}

/// A name of a message in an error: on one line, and not too long.
pub(super) fn shown(name: &str) -> String {
    const CHARS_MAX: usize = 60;
    let mut text: String = name.chars().take(CHARS_MAX).flat_map(char::escape_debug).collect();
    if name.chars().nth(CHARS_MAX).is_some() {
        text.push_str("...");
    }
    text
}
