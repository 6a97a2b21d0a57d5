//! From the texts of files to keys, and everything that is wrong with them.

use super::Keys;
use chrono::{DateTime, Utc};

/// Why a program without the feature does not know `auth`.
pub const NO_AUTH: &str =
    "auth: this qworker is built without signed messages; expected one with the feature auth";

/// Why nothing is signed.
#[cfg_attr(not(feature = "auth"), allow(dead_code))]
pub(super) const NEEDS_KEY: &str =
    "auth: expected the settings security_key and security_certificate";

/// Why nothing is verified.
#[cfg_attr(not(feature = "auth"), allow(dead_code))]
pub(super) const NEEDS_STORE: &str = "auth: expected the setting security_cert_store";

/// The texts of the files that the settings name, each with the name of its file.
#[derive(Default)]
pub struct KeyFiles<'a> {
    /// `security_key`
    pub key: Option<(String, String)>,
    /// `security_key_password`
    pub password: Option<&'a str>,
    /// `security_certificate`
    pub certificate: Option<(String, String)>,
    /// The files of `security_cert_store`, if it is set.
    pub store: Option<Vec<(String, String)>>,
    /// `security_digest`
    pub digest: &'a str,
}

/// What is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyFault {
    /// The setting that names it.
    pub setting: &'static str,
    /// Its name, and what is wrong.
    pub message: String,
    /// Everything works as it is, and messages are refused all the same.
    pub is_warning: bool,
}

/// Reads keys and certificates.
#[cfg(feature = "auth")]
pub fn load(files: KeyFiles<'_>, now: DateTime<Utc>) -> (Keys, Vec<KeyFault>) {
    use super::certificate::{Certificate, HashName, Trusted};
    use super::{Loaded, key};

    let mut faults = Vec::new();
    let mut fault = |setting, file: &str, why: String, is_warning| {
        faults.push(KeyFault { setting, message: format!("{file} {why}"), is_warning });
    };
    let hash = HashName::named(files.digest).unwrap_or(HashName::Sha256);
    let mut trusted = files.store.as_ref().map(|_| Trusted::new(hash));
    if let Some(trusted) = &mut trusted {
        for (name, pem) in files.store.iter().flatten() {
            let added = Certificate::read(pem).and_then(|certificate| {
                if let Some(expired) = certificate.expired(now) {
                    fault("security_cert_store", name, expired, true);
                }
                trusted.add(certificate)
            });
            if let Err(why) = added {
                fault("security_cert_store", name, why, false);
            }
        }
    }
    let mut certificate = None;
    if let Some((name, pem)) = &files.certificate {
        match Certificate::read(pem) {
            Ok(read) => {
                if let Some(expired) = read.expired(now) {
                    fault("security_certificate", name, expired, true);
                }
                if trusted.as_ref().is_some_and(|trusted| !trusted.has(read.id())) {
                    let why = "is not in security_cert_store: messages that are sent from here are \
                               refused here";
                    fault("security_certificate", name, why.into(), true);
                }
                certificate = Some(read);
            }
            Err(why) => fault("security_certificate", name, why, false),
        }
    }
    let mut signer = None;
    if let Some((name, pem)) = &files.key {
        let read = key::read(pem, files.password);
        let made = read.and_then(|key| {
            let of = certificate.as_ref();
            of.map(|certificate| key::Signer::new(key, certificate, hash)).transpose()
        });
        match made {
            Ok(made) => signer = made,
            Err(why) => fault("security_key", name, why, false),
        }
    }
    let loaded = Loaded { signer, trusted };
    (Keys(Some(std::sync::Arc::new(loaded))), faults)
}

/// Nothing is read without the feature: the settings say so.
#[cfg(not(feature = "auth"))]
pub fn load(files: KeyFiles<'_>, _now: DateTime<Utc>) -> (Keys, Vec<KeyFault>) {
    let KeyFiles { key, password, certificate, store, digest } = files;
    let _ = (key, password, certificate, store, digest);
    (Keys::default(), Vec::new())
}
