//! The private key that signs: RSA-PSS with the longest salt that fits.
//!
//! Source: celery `security/key.py`.

use super::certificate::{Certificate, HashName, salt_length};
use crate::wire::encode::EncodeError;
use rsa::PrivateKey;
use rsa::pkcs1::DecodeRsaPrivateKey;
use rsa::pkcs8::DecodePrivateKey;
use rsa::pss::SigningKey;
use rsa::sha2::{Sha224, Sha256, Sha384, Sha512};
use rsa::signature::{SignatureEncoding, Signer as _};

/// A private key and the name of its certificate.
pub(super) struct Signer {
    key: Key,
    id: String,
}

/// A key for one digest.
enum Key {
    Sha224(SigningKey<Sha224>),
    Sha256(SigningKey<Sha256>),
    Sha384(SigningKey<Sha384>),
    Sha512(SigningKey<Sha512>),
}

/// Reads a private key, PEM.
///
/// # Errors
/// Says why it is none.
pub(super) fn read(pem: &str, password: Option<&str>) -> Result<PrivateKey, String> {
    let wrong = |error: &dyn std::fmt::Display| format!("is no RSA private key: {error}");
    if pem.contains("BEGIN ENCRYPTED PRIVATE KEY") {
        let Some(password) = password else {
            return Err("is encrypted; expected security_key_password".into());
        };
        return PrivateKey::from_pkcs8_encrypted_pem(pem, password)
            .map_err(|error| format!("cannot be decrypted with security_key_password: {error}"));
    }
    if pem.contains("Proc-Type: 4,ENCRYPTED") {
        let how = "openssl pkcs8 -topk8 -in OLD -out NEW";
        return Err(format!("is encrypted in OpenSSL's old form; expected PKCS #8: {how}"));
    }
    if password.is_some() {
        // As the library of Celery's has it.
        return Err("is not encrypted, and there is a security_key_password".into());
    }
    match pem.contains("BEGIN RSA PRIVATE KEY") {
        true => PrivateKey::from_pkcs1_pem(pem).map_err(|error| wrong(&error)),
        false => PrivateKey::from_pkcs8_pem(pem).map_err(|error| wrong(&error)),
    }
}

impl Signer {
    /// A signer of messages that this certificate verifies.
    ///
    /// # Errors
    /// The key is not that of the certificate, or signs nothing.
    pub(super) fn new(
        key: PrivateKey,
        certificate: &Certificate,
        hash: HashName,
    ) -> Result<Signer, String> {
        if key.as_public_key() != certificate.key() {
            return Err("is not the key of security_certificate".into());
        }
        let salt = salt_length(key.as_public_key(), hash)?;
        let key = match hash {
            HashName::Sha224 => Key::Sha224(SigningKey::new_with_salt_len(key, salt)),
            HashName::Sha256 => Key::Sha256(SigningKey::new_with_salt_len(key, salt)),
            HashName::Sha384 => Key::Sha384(SigningKey::new_with_salt_len(key, salt)),
            HashName::Sha512 => Key::Sha512(SigningKey::new_with_salt_len(key, salt)),
        };
        let signer = Signer { key, id: certificate.id().into() };
        signer.sign(b"").map(|_| signer).map_err(|EncodeError(why)| why)
    }

    /// The name of its certificate.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// The signature of these bytes.
    pub(super) fn sign(&self, bytes: &[u8]) -> Result<Vec<u8>, EncodeError> {
        let signed = match &self.key {
            Key::Sha224(key) => key.try_sign(bytes),
            Key::Sha256(key) => key.try_sign(bytes),
            Key::Sha384(key) => key.try_sign(bytes),
            Key::Sha512(key) => key.try_sign(bytes),
        };
        let failed = |error| EncodeError(format!("auth: cannot sign: {error}"));
        signed.map(|signature| signature.to_vec()).map_err(failed)
    }
}
