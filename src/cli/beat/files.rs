//! The files that define a schedule: which they are, when they have changed, what they say.

use crate::beat::{Address, Book, Definitions};
use crate::cli::app::{App, Global};
use crate::clock;
use crate::config::{Diagnostic, Given};
use crate::os;
use crate::schedule::entry::Entry;
use crate::schedule::load::{self, Defaults};
use crate::schedule::table;
use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The definitions of an application.
pub(super) struct Files {
    global: Global,
    given: Vec<Given>,
    /// Instead of those in the application's folder.
    chosen: Vec<PathBuf>,
    /// What each said when it had no mistakes.
    good: HashMap<PathBuf, Vec<Arc<Entry>>>,
    /// How they were when they were read.
    read: Vec<Trace>,
    /// How they were when they were last looked at, if that is not how they were read.
    seen: Option<Vec<Trace>>,
    /// Mistakes that have been told.
    told: Vec<String>,
    app: Option<App>,
}

/// A file, and what would be another one if it were written anew.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Trace {
    path: PathBuf,
    /// Inode, bytes, and when it was changed: seconds and nanoseconds.
    state: Option<(u64, u64, i64, i64)>,
}

impl Trace {
    fn of(path: PathBuf) -> Trace {
        let state = std::fs::metadata(&path).ok();
        let state = state.map(|m| (m.ino(), m.len(), m.mtime(), m.mtime_nsec()));
        Trace { path, state }
    }
}

/// What files say.
#[derive(Default)]
pub(super) struct Read {
    /// Entries without mistakes, with names of their own.
    pub(super) entries: Vec<Arc<Entry>>,
    /// What is wrong with the others.
    pub(super) faults: Vec<Diagnostic>,
}

impl Files {
    pub(super) fn new(global: Global, given: Vec<Given>, chosen: Vec<PathBuf>) -> Files {
        let chosen =
            chosen.into_iter().map(|path| std::path::absolute(&path).unwrap_or(path)).collect();
        Files {
            global,
            given,
            chosen,
            good: HashMap::new(),
            read: Vec::new(),
            seen: None,
            told: Vec::new(),
            app: None,
        }
    }

    /// The files as they are, that of the settings among them.
    fn look(&self) -> Vec<Trace> {
        let Some(app) = &self.app else { return Vec::new() };
        let mut paths = vec![app.folder.join("qworker.yaml")];
        paths.extend(paths_of(&app.folder, &self.chosen));
        paths.into_iter().map(Trace::of).collect()
    }
}

/// The files that define entries.
fn paths_of(folder: &Path, chosen: &[PathBuf]) -> Vec<PathBuf> {
    if !chosen.is_empty() {
        return chosen.to_vec();
    }
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            path.file_name().is_some_and(|name| name == "schedule.yaml")
                || (path.extension().is_some_and(|extension| extension == "crontab")
                    && path.file_name().is_none_or(|name| name.as_encoded_bytes()[0] != b'.'))
        })
        .collect();
    paths.sort();
    paths
}

/// What the settings say to those who read entries.
pub(super) fn defaults(app: &App) -> Defaults {
    Defaults::new(&app.settings, os::host::boot_time().unwrap_or_else(clock::now))
}

/// What one file says.
pub(super) fn read_file(path: &Path, defaults: &Defaults) -> (Vec<Entry>, Vec<Diagnostic>) {
    let name = path.display().to_string();
    match std::fs::read_to_string(path) {
        Ok(text) if path.extension().is_some_and(|extension| extension == "crontab") => {
            table::crontab(&name, &text, defaults)
        }
        Ok(text) => load::yaml(&name, &text, defaults),
        Err(error) => (Vec::new(), vec![Diagnostic::new(&name, None, error.to_string())]),
    }
}

/// What the setting `beat_schedule` says.
pub(super) fn of_settings(app: &App, defaults: &Defaults) -> (Vec<Entry>, Vec<Diagnostic>) {
    load::setting(&app.settings.beat_schedule, defaults)
}

/// What all files of an application say, for commands that look once.
pub(super) fn read_all(app: &App, chosen: &[PathBuf]) -> Read {
    let defaults = defaults(app);
    let mut read = Read::default();
    let mut sets = vec![of_settings(app, &defaults)];
    sets.extend(paths_of(&app.folder, chosen).iter().map(|path| read_file(path, &defaults)));
    let mut all = Vec::new();
    for (entries, faults) in sets {
        all.push(entries.into_iter().map(Arc::new).collect());
        read.faults.extend(faults);
    }
    read.entries = distinct(all, &mut read.faults);
    read
}

/// All entries; of two with one name the first.
fn distinct(sets: Vec<Vec<Arc<Entry>>>, faults: &mut Vec<Diagnostic>) -> Vec<Arc<Entry>> {
    let mut by_name: HashMap<Arc<str>, Arc<Entry>> = HashMap::new();
    let mut all = Vec::new();
    for entry in sets.into_iter().flatten() {
        if let Some(first) = by_name.get(&entry.name) {
            let (at, first) = (&entry.origin, &first.origin);
            let text = format!("an entry of this name is in {}:{} already", first.file, first.line);
            let line = Some(at.line as usize).filter(|line| *line > 0);
            faults.push(Diagnostic::new(&at.file, line, text).of_key(entry.name.to_string()));
            continue;
        }
        by_name.insert(entry.name.clone(), entry.clone());
        all.push(entry);
    }
    all
}

impl Definitions for Files {
    fn changed(&mut self) -> bool {
        let now = self.look();
        if now == self.read {
            self.seen = None;
            return false;
        }
        // A file that is still being written is another one at the next look.
        let settled = self.seen.as_ref() == Some(&now);
        self.seen = Some(now);
        settled
    }

    fn read(&mut self) -> Book {
        let mut faults = Vec::new();
        match App::examine(&self.global, &self.given) {
            Ok(app) if app.faults.is_empty() || self.app.is_none() => self.app = Some(app),
            Ok(app) => faults.extend(app.faults),
            Err(error) => faults.push(Diagnostic::new("settings", None, error.to_string())),
        }
        self.read = self.look();
        self.seen = None;
        let Some(app) = &self.app else {
            return Book { entries: Vec::new(), address: Box::new(|_| Address::default()) };
        };
        let defaults = defaults(app);
        let mut paths: Vec<PathBuf> = vec![app.folder.join("qworker.yaml")];
        paths.extend(paths_of(&app.folder, &self.chosen));
        let mut sets = Vec::new();
        let mut good = HashMap::new();
        for (n, path) in paths.into_iter().enumerate() {
            let (entries, found) = match n {
                0 => of_settings(app, &defaults),
                _ => read_file(&path, &defaults),
            };
            let mut entries: Vec<Arc<Entry>> = entries.into_iter().map(Arc::new).collect();
            if !found.is_empty() {
                faults.extend(found);
                // Half of a file is worse than how it was.
                if let Some(before) = self.good.remove(&path) {
                    let text = "has mistakes: its entries stay as they were";
                    faults.push(Diagnostic::new(&path.display().to_string(), None, text));
                    entries = before;
                }
            }
            good.insert(path, entries.clone());
            sets.push(entries);
        }
        self.good = good;
        let entries = distinct(sets, &mut faults);
        let lines: Vec<String> = faults.iter().map(ToString::to_string).collect();
        for line in lines.iter().filter(|line| !self.told.contains(line)) {
            tracing::error!("{line}");
        }
        self.told = lines;
        Book { entries, address: address(app) }
    }
}

/// Where the tasks of an application are sent to.
pub(super) fn address(app: &App) -> Box<dyn Fn(&Entry) -> Address + Send> {
    let (app, tasks) = (app.clone(), app.examine_tasks().0);
    Box::new(move |entry| {
        let task = tasks.get(&entry.task).cloned();
        Address {
            queue: app.queue_of(&entry.task, task.as_deref()),
            priority: app.priority_of(&entry.task, task.as_deref()),
            task,
        }
    })
}
