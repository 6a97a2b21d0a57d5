//! Certificates of those who sign messages.
//!
//! Source: celery `security/certificate.py`: a certificate is found by its issuer and its number,
//! and verifies until it expires. Who has issued it is not looked at.

use super::super::decode::number;
use chrono::{DateTime, Utc};
use rsa::PublicKey;
use rsa::pkcs8::DecodePublicKey;
use rsa::pss::{Signature, VerifyingKey};
use rsa::sha2::{Sha224, Sha256, Sha384, Sha512};
use rsa::signature::Verifier;
use rsa::traits::PublicKeyParts;
use std::collections::HashMap;
use x509_cert::der::asn1::Any;
use x509_cert::der::{DecodePem, Encode, Tag, Tagged};

/// Begin and end of a certificate in PEM.
const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// The digests that there are (`security_digest`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HashName {
    Sha224,
    Sha256,
    Sha384,
    Sha512,
}

impl HashName {
    pub(super) fn named(name: &str) -> Option<HashName> {
        Some(match name {
            "sha224" => HashName::Sha224,
            "sha256" => HashName::Sha256,
            "sha384" => HashName::Sha384,
            "sha512" => HashName::Sha512,
            _ => return None,
        })
    }

    fn size(self) -> usize {
        match self {
            HashName::Sha224 => 28,
            HashName::Sha256 => 32,
            HashName::Sha384 => 48,
            HashName::Sha512 => 64,
        }
    }
}

/// The longest salt of a signature.
///
/// # Errors
/// The key is too short for any.
pub(super) fn salt_length(key: &PublicKey, hash: HashName) -> Result<usize, String> {
    let bits = key.n().bit_width_vartime() as usize;
    let room = (bits + 6) / 8;
    room.checked_sub(hash.size() + 2)
        .ok_or_else(|| format!("has {bits} bits, too few for the digest"))
}

/// A certificate.
#[derive(Debug, Clone)]
pub(super) struct Certificate {
    id: String,
    key: PublicKey,
    expires: DateTime<Utc>,
}

impl Certificate {
    /// Reads the first certificate of a PEM file.
    ///
    /// # Errors
    /// Says why it is none.
    pub(super) fn read(pem: &str) -> Result<Certificate, String> {
        let begin = pem.find(BEGIN).ok_or("is no certificate: expected PEM")?;
        let length = pem[begin..].find(END).ok_or("is no certificate: it is cut off")?;
        let block = &pem[begin..begin + length + END.len()];
        let wrong = |error: &dyn std::fmt::Display| format!("is no certificate: {error}");
        let read = x509_cert::Certificate::from_pem(block).map_err(|error| wrong(&error))?;
        let read = read.tbs_certificate();
        let issuer: Result<Vec<String>, String> =
            read.issuer().iter().map(|field| text(&field.value)).collect();
        let serial: Vec<u8> = read.serial_number().as_bytes().iter().rev().copied().collect();
        let serial =
            number::of_bytes(&serial).ok_or("is no certificate: its number is too long")?;
        let expires = read.validity().not_after.to_unix_duration().as_secs();
        let expires = i64::try_from(expires).ok().and_then(|at| DateTime::from_timestamp(at, 0));
        let key = read.subject_public_key_info().to_der().map_err(|error| wrong(&error))?;
        let key = PublicKey::from_public_key_der(&key)
            .map_err(|error| format!("is not of an RSA key: {error}"))?;
        Ok(Certificate {
            id: format!("{} {serial}", issuer?.join(" ")),
            key,
            expires: expires.ok_or("is no certificate: it expires beyond all calendars")?,
        })
    }

    /// Issuer and number.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// The key that verifies.
    pub(super) fn key(&self) -> &PublicKey {
        &self.key
    }

    /// Says that it has expired, if it has.
    pub(super) fn expired(&self, now: DateTime<Utc>) -> Option<String> {
        let expires = self.expires.format("%Y-%m-%d %H:%M:%S UTC");
        (now >= self.expires).then(|| format!("expired at {expires}"))
    }
}

/// A part of a name.
fn text(value: &Any) -> Result<String, String> {
    let bytes = value.value();
    let wide = |size: usize| -> Vec<u32> {
        let units = bytes.chunks_exact(size);
        units.map(|unit| unit.iter().fold(0, |code, byte| code << 8 | u32::from(*byte))).collect()
    };
    let read = match value.tag() {
        Tag::BmpString => {
            let units: Vec<u16> = wide(2).into_iter().map(|unit| unit as u16).collect();
            String::from_utf16(&units).ok()
        }
        Tag::Utf8String | Tag::PrintableString | Tag::Ia5String | Tag::TeletexString => {
            String::from_utf8(bytes.to_vec()).ok()
        }
        _ => None,
    };
    read.ok_or_else(|| "is no certificate: its issuer has a name that is no text".into())
}

/// The certificates whose messages are taken.
pub(super) struct Trusted {
    by_id: HashMap<String, Certificate>,
    hash: HashName,
}

impl Trusted {
    pub(super) fn new(hash: HashName) -> Trusted {
        Trusted { by_id: HashMap::new(), hash }
    }

    /// Adds a certificate.
    ///
    /// # Errors
    /// There is another one of its issuer and number.
    pub(super) fn add(&mut self, certificate: Certificate) -> Result<(), String> {
        let id = certificate.id.clone();
        match self.by_id.insert(id.clone(), certificate) {
            None => Ok(()),
            Some(_) => Err(format!("is the second certificate of {id:?}")),
        }
    }

    /// Is there one of this issuer and number?
    pub(super) fn has(&self, id: &str) -> bool {
        self.by_id.contains_key(id)
    }

    /// Verifies a signature.
    ///
    /// # Errors
    /// Says why it is not that of a certificate that is trusted now.
    pub(super) fn check(
        &self,
        id: &str,
        body: &[u8],
        signature: &[u8],
        now: DateTime<Utc>,
    ) -> Result<(), String> {
        let shown = super::super::serializer::shown(id);
        let Some(certificate) = self.by_id.get(id) else {
            return Err(format!("the certificate \"{shown}\" is not in security_cert_store"));
        };
        if let Some(expired) = certificate.expired(now) {
            return Err(format!("the certificate \"{shown}\" {expired}"));
        }
        let key = certificate.key.clone();
        let salt = salt_length(&key, self.hash)?;
        let forged = || format!("the signature is not that of \"{shown}\"");
        let signature = Signature::try_from(signature).map_err(|_| forged())?;
        let verified = match self.hash {
            HashName::Sha224 => {
                VerifyingKey::<Sha224>::new_with_salt_len(key, salt).verify(body, &signature)
            }
            HashName::Sha256 => {
                VerifyingKey::<Sha256>::new_with_salt_len(key, salt).verify(body, &signature)
            }
            HashName::Sha384 => {
                VerifyingKey::<Sha384>::new_with_salt_len(key, salt).verify(body, &signature)
            }
            HashName::Sha512 => {
                VerifyingKey::<Sha512>::new_with_salt_len(key, salt).verify(body, &signature)
            }
        };
        verified.map_err(|_| forged())
    }
}
