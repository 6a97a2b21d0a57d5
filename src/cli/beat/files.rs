//! The files that define a schedule: which they are, when they have changed, what they say.

use crate::beat::{Definitions, Destination, Route, Source};
use crate::cli;
use crate::cli::app::{App, Global};
use crate::cli::zones::{self, Zones};
use crate::clock;
use crate::config::diagnostic::Weight;
use crate::config::{Diagnostic, Given};
use crate::os;
use crate::schedule::entry::Entry;
use crate::schedule::load::{self, Defaults};
use crate::schedule::table;
use crate::task::set::Set;
use std::collections::HashMap;
use std::fs::DirEntry;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

/// Names that the file of entries may have.
const SCHEDULES: [&str; 2] = ["schedule.yaml", "schedule.yml"];

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
    /// Mistakes and notes that have been told.
    told: Vec<String>,
    /// That the files cannot be seen, and why, if so.
    unseen: Option<String>,
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
pub(in crate::cli) struct Read {
    /// Entries without mistakes, with names of their own.
    pub(in crate::cli) entries: Vec<Arc<Entry>>,
    /// What is wrong with the others.
    pub(in crate::cli) faults: Vec<Diagnostic>,
    /// What means nothing here, and what the host lacks.
    pub(in crate::cli) notes: Vec<Diagnostic>,
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
            unseen: None,
            app: None,
        }
    }

    /// The files as they are, that of the settings first; no folder before it is known.
    fn look(&self) -> Result<Vec<Trace>, Box<Diagnostic>> {
        let Some(app) = &self.app else { return Ok(Vec::new()) };
        let mut paths = cli::files::SETTINGS.map(|name| app.folder.join(name)).to_vec();
        paths.extend(paths_of(&app.folder, &self.chosen)?);
        Ok(paths.into_iter().map(Trace::of).collect())
    }

    /// What cannot be seen is told once, and again when it can.
    fn tell_unseen(&mut self, why: Option<String>) {
        if self.unseen == why {
            return;
        }
        match &why {
            Some(why) => tracing::error!("{why}; all entries stay as they were"),
            None => tracing::info!("beat: the schedule can be read again"),
        }
        self.unseen = why;
    }

    /// The settings, and the files as they are.
    fn examine(&mut self, faults: &mut Vec<Diagnostic>) -> Result<Vec<Trace>, String> {
        match App::examine(&self.global, &self.given).map_err(|error| error.to_string())? {
            app if app.faults.is_empty() || self.app.is_none() => self.app = Some(app),
            app => faults.extend(app.faults),
        }
        self.look().map_err(|unseen| unseen.to_string())
    }
}

/// The files that define entries.
///
/// # Errors
/// The folder does not show what is in it: that says nothing about the files.
pub(super) fn paths_of(folder: &Path, chosen: &[PathBuf]) -> Result<Vec<PathBuf>, Box<Diagnostic>> {
    if !chosen.is_empty() {
        return Ok(chosen.to_vec());
    }
    let listed =
        cli::files::list(folder).map_err(|error| Box::new(Diagnostic::unseen(folder, &error)))?;
    let mut paths: Vec<PathBuf> =
        listed.iter().map(DirEntry::path).filter(|path| is_schedule(path)).collect();
    paths.sort();
    Ok(paths)
}

/// Does a file of this name define entries?
fn is_schedule(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    SCHEDULES.iter().any(|schedule| schedule.as_bytes() == name)
        || is_table(path) && !name.starts_with(b".")
}

/// Is it a crontab?
fn is_table(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "crontab")
        || path.file_name().is_some_and(|name| name == "crontab")
}

/// Two files of which one would do: nobody knows which of them is meant.
fn rival(path: &Path, paths: &[PathBuf]) -> Option<Diagnostic> {
    let [long, short] = SCHEDULES.map(|name| path.with_file_name(name));
    (path == short && paths.contains(&long)).then(|| {
        let text = format!("is not read, for there is a {} too", SCHEDULES[0]);
        let fault = Diagnostic::new(&short.display().to_string(), None, text);
        Diagnostic { expected: Some("one of them".into()), ..fault }
    })
}

/// What the settings and the host say to those who read entries.
fn defaults(app: &App, zones: &Rc<Zones>) -> Defaults {
    let boot = os::host::boot_time().unwrap_or_else(clock::now);
    Defaults { host: zones.clone(), ..Defaults::new(&app.settings, boot) }
}

/// What one file says.
pub(super) fn read_file(path: &Path, defaults: &Defaults) -> (Vec<Entry>, Vec<Diagnostic>) {
    let name = path.display().to_string();
    match cli::files::read(path) {
        Ok(text) if is_table(path) => table::crontab(&name, &text, defaults),
        Ok(text) => load::yaml(&name, &text, defaults),
        Err(fault) => (Vec::new(), vec![*fault]),
    }
}

/// What the setting `beat_schedule` says.
pub(super) fn of_settings(app: &App, defaults: &Defaults) -> (Vec<Entry>, Vec<Diagnostic>) {
    load::setting(&app.settings.beat_schedule, defaults)
}

/// What all files of an application say, for commands that look once.
pub(super) fn read_all(app: &App, chosen: &[PathBuf]) -> Read {
    let zones = Rc::new(Zones::of_host());
    let defaults = defaults(app, &zones);
    let mut read = Read::default();
    let mut sets = vec![of_settings(app, &defaults)];
    let paths = paths_of(&app.folder, chosen).unwrap_or_else(|unseen| {
        read.faults.push(*unseen);
        Vec::new()
    });
    for path in &paths {
        sets.push(match rival(path, &paths) {
            Some(fault) => (Vec::new(), vec![fault]),
            None => read_file(path, &defaults),
        });
    }
    let mut all = Vec::new();
    for (entries, mut found) in sets {
        zones::name_foreign(&mut found);
        all.push(entries.into_iter().map(Arc::new).collect());
        let (notes, faults): (Vec<_>, Vec<_>) = found.into_iter().partition(Diagnostic::is_note);
        read.faults.extend(faults);
        read.notes.extend(notes);
    }
    read.notes.extend(zones.faults());
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

impl Source for Files {
    fn changed(&mut self) -> bool {
        let now = match self.look() {
            Ok(now) => now,
            Err(unseen) => {
                self.tell_unseen(Some(unseen.to_string()));
                return false;
            }
        };
        if now == self.read {
            self.tell_unseen(None);
            self.seen = None;
            return false;
        }
        // A file that is still being written is another one at the next look.
        let settled = self.seen.as_ref() == Some(&now);
        self.seen = Some(now);
        settled
    }

    fn read(&mut self) -> Option<Definitions> {
        let mut faults = Vec::new();
        let traces = match self.examine(&mut faults) {
            Ok(traces) => traces,
            Err(why) => {
                self.tell_unseen(Some(why));
                return None;
            }
        };
        let app = self.app.as_ref()?;
        // Without its tasks nobody knows where an entry is sent to.
        let (tasks, of_tasks) = app.examine_tasks();
        if let Err(unseen) = App::seen(&of_tasks) {
            self.tell_unseen(Some(unseen.to_string()));
            return None;
        }
        let mut found = app.notes.clone();
        // Whenever files are read, so are the zones.
        let zones = Rc::new(Zones::of_host());
        let defaults = defaults(app, &zones);
        let paths: Vec<PathBuf> = traces.iter().map(|trace| trace.path.clone()).collect();
        let count = cli::files::SETTINGS.len();
        let mut sets = Vec::new();
        let mut good = HashMap::new();
        for (n, path) in paths.iter().enumerate() {
            let (entries, found_here) = match n {
                0 => of_settings(app, &defaults),
                n if n < count => continue,
                _ => match rival(path, &paths) {
                    Some(fault) => {
                        found.push(fault);
                        continue;
                    }
                    None => read_file(path, &defaults),
                },
            };
            let mut entries: Vec<Arc<Entry>> = entries.into_iter().map(Arc::new).collect();
            if !found_here.iter().all(Diagnostic::is_note) {
                // Half of a file is worse than how it was.
                if let Some(before) = self.good.remove(path) {
                    let text = "has mistakes: its entries stay as they were";
                    found.push(Diagnostic::new(&path.display().to_string(), None, text));
                    entries = before;
                }
            }
            found.extend(found_here);
            good.insert(path.clone(), entries.clone());
            sets.push(entries);
        }
        found.extend(zones.faults());
        zones::name_foreign(&mut found);
        let route = route_of(app, tasks);
        self.tell_unseen(None);
        (self.good, self.read, self.seen) = (good, traces, None);
        let entries = distinct(sets, &mut faults);
        faults.splice(0..0, found);
        self.tell(&faults);
        Some(Definitions { entries, route })
    }
}

impl Files {
    /// Tells what has not been told before.
    fn tell(&mut self, found: &[Diagnostic]) {
        let lines: Vec<String> = found.iter().map(ToString::to_string).collect();
        for (line, one) in lines.iter().zip(found).filter(|(line, _)| !self.told.contains(line)) {
            match one.weight {
                Weight::Note => tracing::info!("Note: {line}"),
                Weight::Warning => tracing::warn!("{line}"),
                Weight::Mistake | Weight::Unseen => tracing::error!("{line}"),
            }
        }
        self.told = lines;
    }
}

/// Where the tasks of an application are sent to.
pub(super) fn route(app: &App) -> Route {
    route_of(app, app.examine_tasks().0)
}

fn route_of(app: &App, tasks: Set) -> Route {
    let app = app.clone();
    Box::new(move |entry| {
        let task = tasks.get(&entry.task).cloned();
        Destination {
            queue: app.queue_of(&entry.task, task.as_deref()),
            priority: app.priority_of(&entry.task, task.as_deref()),
            task,
        }
    })
}
