//! The files that define a schedule: which they are, when they have changed, what they say.

use crate::beat::{DefinitionSource, Definitions, Destination, Router, message};
use crate::cli;
use crate::cli::app::{App, GlobalOptions};
use crate::cli::zones::{self, Zones};
use crate::clock;
use crate::config::diagnostic::Weight;
use crate::config::{Diagnostic, Given};
use crate::os;
use crate::schedule::crontab_file;
use crate::schedule::entry::Entry;
use crate::schedule::load::{self, Defaults};
use crate::task::set::Set;
use crate::wire::BodyFormat;
use chrono::DateTime;
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
    global: GlobalOptions,
    given: Vec<Given>,
    /// Instead of those in the application's folder.
    chosen: Vec<PathBuf>,
    /// What each said when it had no mistakes.
    good: HashMap<PathBuf, Vec<Arc<Entry>>>,
    /// Their state when they were read.
    read: Vec<Trace>,
    /// Their state when they were last looked at, if it is another one than when they were read.
    seen: Option<Vec<Trace>>,
    /// Mistakes and notes that have been logged.
    logged: Vec<String>,
    /// Why the files cannot be seen, if they cannot.
    unseen: Option<String>,
    app: Option<App>,
}

/// A file, and what changes when it is written.
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
    pub(super) fn new(global: GlobalOptions, given: Vec<Given>, chosen: Vec<PathBuf>) -> Files {
        let chosen =
            chosen.into_iter().map(|path| std::path::absolute(&path).unwrap_or(path)).collect();
        Files {
            global,
            given,
            chosen,
            good: HashMap::new(),
            read: Vec::new(),
            seen: None,
            logged: Vec::new(),
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

    /// Logs once that the files cannot be seen, and once that they can be again.
    fn log_unseen(&mut self, why: Option<String>) {
        if self.unseen == why {
            return;
        }
        match &why {
            Some(why) => tracing::error!("{why}; all entries stay unchanged"),
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

/// Whether a file of this name defines entries.
fn is_schedule(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    SCHEDULES.iter().any(|schedule| schedule.as_bytes() == name)
        || is_crontab(path) && !name.starts_with(b".")
}

/// Whether it is a crontab.
fn is_crontab(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "crontab")
        || path.file_name().is_some_and(|name| name == "crontab")
}

/// Reports the second of two files that exclude each other: it is unclear which one is meant.
fn rival(path: &Path, paths: &[PathBuf]) -> Option<Diagnostic> {
    let [long, short] = SCHEDULES.map(|name| path.with_file_name(name));
    (path == short && paths.contains(&long)).then(|| {
        let text = format!("is not read, for there is a {} too", SCHEDULES[0]);
        let fault = Diagnostic::new(&short.display().to_string(), None, text);
        Diagnostic { expected: Some("one of them".into()), ..fault }
    })
}

/// What one file, or the setting `beat_schedule`, says.
struct FileEntries {
    /// The file, unless another one is read in its place.
    path: Option<PathBuf>,
    entries: Vec<Arc<Entry>>,
    found: Vec<Diagnostic>,
}

/// Reads the setting, which is in the file `settings`, and these files.
fn read_parts(
    app: &App,
    settings: PathBuf,
    paths: &[PathBuf],
    zones: &Rc<Zones>,
) -> Vec<FileEntries> {
    let boot = os::host::boot_time().unwrap_or_else(clock::now);
    let defaults = Defaults { host: zones.clone(), ..Defaults::new(&app.settings, boot) };
    let part = |path, (mut entries, mut found): (Vec<Entry>, Vec<Diagnostic>)| {
        zones::name_foreign(&mut found);
        entries.retain(|entry| match unwritable(entry, &app.forms.messages) {
            Some(fault) => {
                found.push(fault);
                false
            }
            None => true,
        });
        FileEntries { path, entries: entries.into_iter().map(Arc::new).collect(), found }
    };
    let setting = part(Some(settings), load::setting(&app.settings.beat_schedule, &defaults));
    let files = paths.iter().map(|path| match rival(path, paths) {
        Some(fault) => part(None, (Vec::new(), vec![fault])),
        None => part(Some(path.clone()), read_file(path, &defaults)),
    });
    std::iter::once(setting).chain(files).collect()
}

/// An entry whose arguments have no form in the serializer of its messages.
fn unwritable(entry: &Entry, format: &BodyFormat) -> Option<Diagnostic> {
    let options = entry.options.as_deref();
    let has_own = options.is_some_and(|it| it.serializer.is_some() || it.compression.is_some());
    if format.is_plain() && !has_own {
        return None;
    }
    let draft = message::draft(entry, None, &Destination::default(), DateTime::UNIX_EPOCH);
    let error = draft.encode(0, DateTime::UNIX_EPOCH, format).err()?;
    let line = Some(entry.origin.line as usize).filter(|line| *line > 0);
    let fault = Diagnostic::new(&entry.origin.file, line, error.to_string());
    Some(fault.of_key(format!("{}.args", entry.name)))
}

fn read_file(path: &Path, defaults: &Defaults) -> (Vec<Entry>, Vec<Diagnostic>) {
    let name = path.display().to_string();
    match cli::files::read(path) {
        Ok(text) if is_crontab(path) => crontab_file::crontab(&name, &text, defaults),
        Ok(text) => load::yaml(&name, &text, defaults),
        Err(fault) => (Vec::new(), vec![*fault]),
    }
}

/// What all files of an application say, for commands that read them once.
pub(super) fn read_all(app: &App, chosen: &[PathBuf]) -> Read {
    let zones = Rc::new(Zones::of_host());
    let mut read = Read::default();
    let paths = paths_of(&app.folder, chosen).unwrap_or_else(|unseen| {
        read.faults.push(*unseen);
        Vec::new()
    });
    let mut all = Vec::new();
    for part in read_parts(app, app.folder.clone(), &paths, &zones) {
        let (notes, faults): (Vec<_>, Vec<_>) =
            part.found.into_iter().partition(Diagnostic::is_note);
        read.faults.extend(faults);
        read.notes.extend(notes);
        all.push(part.entries);
    }
    read.notes.extend(zones.faults());
    let (entries, doubles) = load::merge(all);
    read.entries = entries;
    read.faults.extend(doubles);
    read
}

impl DefinitionSource for Files {
    fn changed(&mut self) -> bool {
        let now = match self.look() {
            Ok(now) => now,
            Err(unseen) => {
                self.log_unseen(Some(unseen.to_string()));
                return false;
            }
        };
        if now == self.read {
            self.log_unseen(None);
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
                self.log_unseen(Some(why));
                return None;
            }
        };
        let app = self.app.as_ref()?;
        // Without the tasks it is unknown where an entry is sent.
        let (tasks, of_tasks) = app.examine_tasks();
        if let Err(unseen) = App::seen(&of_tasks) {
            self.log_unseen(Some(unseen.to_string()));
            return None;
        }
        let mut found = app.notes.clone();
        // Whenever files are read, so are the zones.
        let zones = Rc::new(Zones::of_host());
        let (settings, paths) = traces.split_at(cli::files::SETTINGS.len());
        let paths: Vec<PathBuf> = paths.iter().map(|trace| trace.path.clone()).collect();
        let (mut all, mut good) = (Vec::new(), HashMap::new());
        for mut part in read_parts(app, settings[0].path.clone(), &paths, &zones) {
            if let Some(path) = part.path {
                // Half of a file is worse than its state before.
                if !part.found.iter().all(Diagnostic::is_note)
                    && let Some(before) = self.good.remove(&path)
                {
                    let text = "has mistakes: its entries stay as they were";
                    found.push(Diagnostic::new(&path.display().to_string(), None, text));
                    part.entries = before;
                }
                good.insert(path, part.entries.clone());
            }
            found.extend(part.found);
            all.push(part.entries);
        }
        found.extend(zones.faults());
        let router = router_of(app, tasks);
        self.log_unseen(None);
        (self.good, self.read, self.seen) = (good, traces, None);
        let (entries, doubles) = load::merge(all);
        found.extend(faults.into_iter().chain(doubles));
        self.log(&found);
        Some(Definitions { entries, router })
    }
}

impl Files {
    /// Logs what has not been logged before.
    fn log(&mut self, found: &[Diagnostic]) {
        let lines: Vec<String> = found.iter().map(ToString::to_string).collect();
        for (line, one) in lines.iter().zip(found).filter(|(line, _)| !self.logged.contains(line)) {
            match one.weight {
                Weight::Note => tracing::info!("Note: {line}"),
                Weight::Warning => tracing::warn!("{line}"),
                Weight::Mistake | Weight::Unseen => tracing::error!("{line}"),
            }
        }
        self.logged = lines;
    }
}

/// Where the tasks of an application are sent.
pub(super) fn router(app: &App) -> Router {
    router_of(app, app.examine_tasks().0)
}

fn router_of(app: &App, tasks: Set) -> Router {
    let app = app.clone();
    Box::new(move |entry| {
        let task = tasks.get(&entry.task).cloned();
        Destination {
            queue: app.queue_of(&entry.task, task.as_deref()),
            priority: app.priority_of(&entry.task, task.as_deref()),
            task,
            format: app.forms.messages.clone(),
        }
    })
}
