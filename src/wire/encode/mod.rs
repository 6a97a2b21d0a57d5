//! JSON text in any serializer and compression that Celery has: the way back of
//! [`super::decode`]. What is to be plain JSON never comes here.
//!
//! Source: kombu `serialization.py`, `messaging.py` (`_prepare`); for the types `utils/json.py`.

mod moment;
mod msgpack;
mod pickle;
mod tree;
mod yaml;

use super::auth::Keys;
use super::compression::Compression;
use super::message::Malformed;
use super::serializer::Serializer;
use std::fmt;
use tree::Unknown;

/// What cannot be written in a serializer, and why: kombu's `EncodeError`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodeError(pub String);

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for EncodeError {}

impl From<EncodeError> for Malformed {
    fn from(error: EncodeError) -> Malformed {
        Malformed(error.0)
    }
}

/// The form in which texts are written.
#[derive(Debug, Clone, Default)]
pub struct BodyFormat {
    /// `task_serializer`, `result_serializer`
    pub serializer: Serializer,
    /// `task_compression`, `result_compression`
    pub compression: Option<Compression>,
    /// What `auth` signs with, and trusts.
    pub keys: Keys,
}

/// A body in its form, and what a message says of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Body {
    pub bytes: Vec<u8>,
    pub content_type: &'static str,
    pub content_encoding: &'static str,
    /// The header `compression`.
    pub compression: Option<&'static str>,
}

impl BodyFormat {
    /// Is it JSON, as it stands?
    pub fn is_plain(&self) -> bool {
        self.serializer == Serializer::Json && self.compression.is_none()
    }

    /// The same with another serializer or compression, where one is given.
    pub fn with(
        &self,
        serializer: Option<Serializer>,
        compression: Option<Compression>,
    ) -> BodyFormat {
        BodyFormat {
            serializer: serializer.unwrap_or(self.serializer),
            compression: compression.or(self.compression),
            keys: self.keys.clone(),
        }
    }

    /// A body.
    ///
    /// # Errors
    /// A value in it cannot be written so.
    pub(super) fn body(&self, json: String) -> Result<Body, EncodeError> {
        let bytes = self.signed(transcode(self.serializer, json, Unknown::Refused)?)?;
        Ok(Body {
            bytes: match self.compression {
                Some(compression) => pack(compression, &bytes)?,
                None => bytes,
            },
            content_type: self.serializer.content_type(),
            content_encoding: self.serializer.content_encoding(),
            compression: self.compression.map(Compression::content_type),
        })
    }

    /// What a store keeps of a text, before it is signed and compressed. A value that the serializer
    /// has not is its text.
    pub(super) fn stored(&self, json: String) -> Vec<u8> {
        transcode(self.serializer, json, Unknown::Text).unwrap_or_default()
    }

    /// The same with a signature, if the serializer is `auth`.
    ///
    /// # Errors
    /// The key signs nothing.
    pub(super) fn signed(&self, bytes: Vec<u8>) -> Result<Vec<u8>, EncodeError> {
        match self.serializer {
            Serializer::Auth => self.keys.sign(&bytes),
            _ => Ok(bytes),
        }
    }
}

/// Bytes in a compression.
///
/// # Errors
/// The encoder has failed.
pub(super) fn pack(compression: Compression, bytes: &[u8]) -> Result<Vec<u8>, EncodeError> {
    let failed = |error| EncodeError(format!("{}: {error}", compression.content_type()));
    compression.pack(bytes).map_err(failed)
}

/// JSON in a serializer; of `auth`, what is to be signed.
fn transcode(
    serializer: Serializer,
    json: String,
    unknown: Unknown,
) -> Result<Vec<u8>, EncodeError> {
    let write = match serializer {
        Serializer::Json | Serializer::Auth => return Ok(json.into_bytes()),
        Serializer::Yaml => yaml::write,
        Serializer::Msgpack => msgpack::write,
        Serializer::Pickle => pickle::write,
    };
    let named = |EncodeError(why)| EncodeError(format!("{}: {why}", serializer.name()));
    let tree = tree::read(&json, unknown).map_err(named)?;
    let mut out = Vec::with_capacity(json.len());
    if serializer == Serializer::Pickle {
        out.extend(pickle::BEGIN);
    }
    write(&tree, unknown, &mut out).map_err(named)?;
    if serializer == Serializer::Pickle {
        out.push(pickle::STOP);
    }
    Ok(out)
}

#[cfg(test)]
mod tests;
