//! Signed messages, the serializer `auth`: a text in another serializer with the signature of its
//! sender, whose certificate the reader has.
//!
//! Source: celery `security/serialization.py` (`_pack`, `_unpack`), `security/certificate.py`,
//! `security/key.py`. The signature is that of the body alone: headers are not signed.

#[cfg(feature = "auth")]
mod certificate;
#[cfg(feature = "auth")]
mod key;
mod load;

use super::body::{from_base64, to_base64};
use super::encode::EncodeError;
use super::message::Malformed;
use chrono::{DateTime, Utc};
use std::fmt;
use std::sync::Arc;

pub use load::{KeyFault, KeyFiles, NO_AUTH, load};

/// What stands between the fields of a signed text.
const SEPARATOR: &[u8] = b"\0\x01";

/// What signs messages, and whose messages are trusted. Cheap to clone.
#[derive(Clone, Default)]
pub struct Keys(Option<Arc<Loaded>>);

#[derive(Default)]
struct Loaded {
    #[cfg(feature = "auth")]
    signer: Option<key::Signer>,
    #[cfg(feature = "auth")]
    trusted: Option<certificate::Trusted>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Keys(..)" } else { "Keys" })
    }
}

/// A text whose signature was verified.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Verified {
    pub content_type: String,
    pub body: Vec<u8>,
}

/// The fields of a signed text.
struct Signed<'a> {
    signer: String,
    signature: Vec<u8>,
    content_type: &'a [u8],
    body: &'a [u8],
}

impl<'a> Signed<'a> {
    fn unpack(fields: &'a [u8]) -> Option<Signed<'a>> {
        let mut rest = fields;
        let mut next = || {
            let at = rest.windows(SEPARATOR.len()).position(|two| two == SEPARATOR)?;
            let (field, left) = (&rest[..at], &rest[at + SEPARATOR.len()..]);
            rest = left;
            Some(field)
        };
        let (signer, signature, content_type, _encoding) = (next()?, next()?, next()?, next()?);
        let text = |field: &[u8]| from_base64(std::str::from_utf8(field).ok()?);
        let signer = String::from_utf8(text(signer)?).ok()?;
        Some(Signed { signer, signature: text(signature)?, content_type, body: rest })
    }
}

/// Does this look like a signed text?
pub(super) fn looks_signed(bytes: &[u8]) -> bool {
    let text = std::str::from_utf8(bytes).ok().and_then(from_base64);
    text.is_some_and(|fields| Signed::unpack(&fields).is_some())
}

impl Keys {
    /// Can it sign?
    pub fn can_sign(&self) -> bool {
        #[cfg(feature = "auth")]
        return self.0.as_ref().is_some_and(|keys| keys.signer.is_some());
        #[cfg(not(feature = "auth"))]
        false
    }

    /// A JSON text with its signature.
    ///
    /// # Errors
    /// There is no key.
    pub(super) fn sign(&self, body: &[u8]) -> Result<Vec<u8>, EncodeError> {
        let (signer, signature) = self.signature(body)?;
        let (signer, signature) = (to_base64(signer.as_bytes()), to_base64(&signature));
        let fields: [&[u8]; 5] =
            [signer.as_bytes(), signature.as_bytes(), b"application/json", b"utf-8", body];
        Ok(to_base64(&fields.join(SEPARATOR)).into_bytes())
    }

    /// The text that was signed, if its signer is trusted at this time.
    ///
    /// # Errors
    /// Says what is wrong with the signature.
    pub(super) fn verify(&self, bytes: &[u8], now: DateTime<Utc>) -> Result<Verified, Malformed> {
        let fields = std::str::from_utf8(bytes).ok().and_then(from_base64);
        let signed = fields.as_deref().and_then(Signed::unpack);
        let signed = signed.ok_or_else(|| Malformed("auth: the body has no signature".into()))?;
        self.check(&signed, now).map_err(|why| Malformed(format!("auth: {why}")))?;
        let content_type = String::from_utf8_lossy(signed.content_type).into_owned();
        Ok(Verified { content_type, body: signed.body.to_vec() })
    }

    #[cfg(feature = "auth")]
    fn signature(&self, body: &[u8]) -> Result<(&str, Vec<u8>), EncodeError> {
        let signer = self.0.as_ref().and_then(|keys| keys.signer.as_ref());
        let signer = signer.ok_or_else(|| EncodeError(load::NEEDS_KEY.into()))?;
        signer.sign(body).map(|signature| (signer.id(), signature))
    }

    #[cfg(not(feature = "auth"))]
    fn signature(&self, _body: &[u8]) -> Result<(&str, Vec<u8>), EncodeError> {
        Err(EncodeError(NO_AUTH.into()))
    }

    #[cfg(feature = "auth")]
    fn check(&self, signed: &Signed<'_>, now: DateTime<Utc>) -> Result<(), String> {
        let trusted = self.0.as_ref().and_then(|keys| keys.trusted.as_ref());
        let trusted = trusted.ok_or_else(|| load::NEEDS_STORE.to_string())?;
        trusted.check(&signed.signer, signed.body, &signed.signature, now)
    }

    #[cfg(not(feature = "auth"))]
    fn check(&self, signed: &Signed<'_>, _now: DateTime<Utc>) -> Result<(), String> {
        let _ = (&signed.signer, &signed.signature);
        Err(NO_AUTH.into())
    }
}

#[cfg(test)]
#[cfg(feature = "auth")]
mod tests;
