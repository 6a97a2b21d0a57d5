//! Files of an application that look like definitions or settings but are not read, judged by their
//! names, for `qworker check`.

use super::files::{self, SETTINGS};
use crate::config::Diagnostic;
use crate::config::diagnostic::Weight;
use crate::task::load::{self, Sort};
use std::ffi::OsStr;
use std::fs::DirEntry;
use std::path::Path;

/// Files beside the settings, in lower case, and what is read in their place.
const BESIDE: &[(&str, &str)] = &[
    ("celeryconfig.py", SETTINGS_ARE),
    ("qworker.yaml", SETTINGS_ARE),
    ("qworker.yml", SETTINGS_ARE),
    ("qworker.json", SETTINGS_ARE),
    ("qworker.toml", SETTINGS_ARE),
    (".qworker.yaml", SETTINGS_ARE),
    ("schedule.yaml", SCHEDULE_IS),
    ("schedule.yml", SCHEDULE_IS),
    ("schedule.json", SCHEDULE_IS),
    ("schedule.toml", SCHEDULE_IS),
    ("tasks.yaml", TASKS_ARE),
    ("tasks.yml", TASKS_ARE),
];

const SETTINGS_ARE: &str = "settings are read from qworker.yaml, where they have Celery's names";
const SCHEDULE_IS: &str = "entries are read from schedule.yaml and *.crontab";
const TASKS_ARE: &str = "tasks are read from tasks.d: *.yaml, *.yml and programs";
const DEFINITIONS_ARE: &str = "definitions are read from *.yaml and *.yml, in lower case";
const HIDDEN: &str = "names that begin with a dot are left out";

/// What of the application in `folder` looks as if it were read, and is not.
pub(super) fn find(folder: &Path) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let is_read = |name: &str| SETTINGS.contains(&name) || name.starts_with("schedule.y");
    for entry in list(folder) {
        let Some(name) = entry.file_name().to_str().map(String::from) else { continue };
        let lower = name.to_lowercase();
        if let Some((_, why)) = BESIDE.iter().find(|(known, _)| *known == lower)
            && !is_read(&name)
        {
            found.push(note(&entry.path(), why));
        }
    }
    in_tasks(&folder.join("tasks.d"), 0, &mut found);
    found
}

/// Definitions by the look of their names, below `folder`.
fn in_tasks(folder: &Path, depth: usize, found: &mut Vec<Diagnostic>) {
    for entry in list(folder) {
        let path = entry.path();
        let name = entry.file_name();
        let is_hidden = name.as_encoded_bytes().starts_with(b".");
        // Links are left to those who read: they may lead back.
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            if is_hidden {
                let all = list(&path);
                // What other programs keep there is JSON or TOML.
                let within = all.iter().filter(|entry| {
                    load::sort(Path::new(&entry.file_name()), false) == Some(Sort::Yaml)
                });
                found.extend(within.map(|entry| note(&entry.path(), HIDDEN)));
            } else if depth < files::DEPTH_MAX {
                in_tasks(&path, depth + 1, found);
            }
            continue;
        }
        let of_name = Path::new(&name);
        if [".yaml", ".yml"].iter().any(|bare| name == OsStr::new(bare)) {
            found.push(note(&path, HIDDEN));
        } else if is_definition(of_name) && !is_hidden && load::sort(of_name, false).is_none() {
            found.push(note(&path, DEFINITIONS_ARE));
        }
    }
}

/// Would its author call it a definition?
fn is_definition(path: &Path) -> bool {
    let extension = path.extension().and_then(OsStr::to_str).unwrap_or_default();
    let is_copy = path
        .file_name()
        .is_some_and(|name| name.to_string_lossy().to_uppercase().starts_with("README"));
    ["yaml", "yml", "json", "toml"].iter().any(|one| extension.eq_ignore_ascii_case(one))
        && !is_copy
}

fn note(path: &Path, why: &str) -> Diagnostic {
    let note = Diagnostic::new(&path.display().to_string(), None, format!("is not read: {why}"));
    Diagnostic { weight: Weight::Note, ..note }
}

/// A folder that cannot be listed is reported by those who read it.
fn list(folder: &Path) -> Vec<DirEntry> {
    let mut all = files::list(folder).unwrap_or_default();
    all.sort_by_key(DirEntry::file_name);
    all
}
