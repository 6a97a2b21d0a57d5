//! The forms of messages and results by the settings, with the keys and certificates of signed
//! ones, which are read here.

use super::files;
use crate::clock;
use crate::config::diagnostic::Weight;
use crate::config::{Diagnostic, Settings};
use crate::wire::auth::{self, KeyFiles, Keys};
use crate::wire::{AcceptedContent, BodyFormat, Compression, ResultFormat, Serializer};
use std::path::{Path, PathBuf};

/// How messages and results are written, and which are read.
#[derive(Clone, Default)]
pub(super) struct Forms {
    /// Messages that are written.
    pub(super) messages: BodyFormat,
    /// Messages that are taken.
    pub(super) accept: AcceptedContent,
    /// Results.
    pub(super) results: ResultFormat,
}

/// The forms that these settings ask for, and what is wrong with the files that they name.
pub(super) fn read(settings: &Settings, folder: &Path) -> (Forms, Vec<Diagnostic>) {
    let (keys, found) = keys(settings, folder);
    let serializer = |name: &str| Serializer::named(name).unwrap_or_default();
    let compression = |name: &Option<String>| name.as_deref().and_then(Compression::named);
    let accept = |all: &[String]| AcceptedContent::of(all.iter().map(String::as_str));
    let results = settings.result_accept_content.as_ref().unwrap_or(&settings.accept_content);
    let forms = Forms {
        messages: BodyFormat {
            serializer: serializer(&settings.task_serializer),
            compression: compression(&settings.task_compression),
            keys: keys.clone(),
        },
        accept: accept(&settings.accept_content),
        results: ResultFormat {
            format: BodyFormat {
                serializer: serializer(&settings.result_serializer),
                compression: compression(&settings.result_compression),
                keys,
            },
            accept: accept(results),
        },
    };
    (forms, found)
}

fn keys(settings: &Settings, folder: &Path) -> (Keys, Vec<Diagnostic>) {
    let mut found = Vec::new();
    let mut file = |setting: &str, path: &Path| {
        let path = folder.join(path);
        let name = path.display().to_string();
        match files::read(&path) {
            Ok(text) => Some((name, text)),
            Err(fault) => {
                let line = fault.line.map_or_else(String::new, |line| format!(":{line}"));
                let why = format!("{name}{line}: {}", fault.message);
                found.push(settings.fault(setting, why));
                None
            }
        }
    };
    let key = settings.security_key.as_ref().and_then(|path| file("security_key", path));
    let certificate = settings.security_certificate.as_ref();
    let certificate = certificate.and_then(|path| file("security_certificate", path));
    let mut store = None;
    if let Some(pattern) = &settings.security_cert_store {
        let setting = "security_cert_store";
        match matches(folder, pattern) {
            Ok(paths) => {
                store = Some(paths.iter().filter_map(|path| file(setting, path)).collect());
            }
            Err(why) => found.push(settings.fault(setting, why)),
        }
    }
    if key.is_none() && certificate.is_none() && store.is_none() {
        return (Keys::default(), found);
    }
    let password = settings.security_key_password.as_deref();
    let files = KeyFiles { key, password, certificate, store, digest: &settings.security_digest };
    let (keys, faults) = auth::load(files, clock::now());
    found.extend(faults.into_iter().map(|fault| {
        let weight = if fault.is_warning { Weight::Warning } else { Weight::Mistake };
        Diagnostic { weight, ..settings.fault(fault.setting, fault.message) }
    }));
    (keys, found)
}

/// The files of a folder, or those that match a pattern; hidden ones are left out.
fn matches(app: &Path, pattern: &Path) -> Result<Vec<PathBuf>, String> {
    let path = &app.join(pattern);
    let shown = path.display();
    if path.is_dir() {
        let listed = files::list(path).map_err(|error| format!("{shown}: {error}"))?;
        let is_shown = |name: &std::ffi::OsString| !name.as_encoded_bytes().starts_with(b".");
        let mut paths: Vec<PathBuf> = listed
            .iter()
            .filter(|entry| is_shown(&entry.file_name()))
            .map(std::fs::DirEntry::path)
            .collect();
        paths.sort();
        return match paths.is_empty() {
            true => Err(format!("{shown}: found an empty folder, expected certificates in it")),
            false => Ok(paths),
        };
    }
    #[cfg(feature = "auth")]
    {
        let options =
            glob::MatchOptions { require_literal_leading_dot: true, ..Default::default() };
        let not_text = || format!("{shown}: is not UTF-8");
        let text = pattern.to_str().ok_or_else(not_text)?;
        let pattern = match pattern.is_absolute() {
            true => text.to_string(),
            // The application's folder is no pattern.
            false => {
                let folder = glob::Pattern::escape(app.to_str().ok_or_else(not_text)?);
                format!("{folder}/{text}")
            }
        };
        let found = glob::glob_with(&pattern, options)
            .map_err(|error| format!("{shown}: is no pattern: {error}"))?;
        let paths = found.collect::<Result<Vec<_>, _>>();
        let paths = paths.map_err(|error| format!("{shown}: {error}"))?;
        if !paths.is_empty() {
            return Ok(paths);
        }
    }
    Err(format!("{shown}: found nothing, expected a folder of certificates, or a pattern of them"))
}
