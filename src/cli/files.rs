//! Reads the files of an application and passes their text to the loaders.

use super::exit::Error;
use super::{utf8, zones};
use crate::config::settings::{Setting, TABLE};
use crate::config::{Diagnostic, Given, Layers, Settings, load as layers};
use crate::task::Task;
use crate::task::load::{self, File, Sort, TaskFileKind};
use nix::errno::Errno;
use std::ffi::OsStr;
use std::fs::DirEntry;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Names that the file of the settings may have.
pub(super) const SETTINGS: [&str; 2] = ["qworker.yaml", "qworker.yml"];

/// Maximum depth of folders in `tasks.d`.
pub(super) const DEPTH_MAX: usize = 8;

/// The settings of the application in `folder`, and what is wrong with them.
///
/// # Errors
/// There is a settings file that cannot be read.
pub(super) fn settings(
    folder: &Path,
    options: &[Given],
) -> Result<(Settings, Vec<Diagnostic>), Error> {
    let path = settings_file(folder)?;
    let there = is_there(&path)?;
    let text = there.then(|| read(&path)).transpose();
    let text = text.map_err(|fault| Error::usage(fault.to_string()))?;
    let name = path.display().to_string();
    let files: Vec<(&str, &str)> = text.iter().map(|text| (name.as_str(), text.as_str())).collect();
    let (mut environment, mut no_text) = (Vec::new(), Vec::new());
    for (name, value) in std::env::vars_os() {
        let name = name.into_string().ok().filter(|name| name.starts_with("QWORKER_"));
        let Some(name) = name else { continue };
        match value.into_string() {
            Ok(value) => environment.push((name, value)),
            Err(value) => no_text.extend(not_text(&name, &value)),
        }
    }
    let layers = Layers { files: &files, environment: &environment, command_line: options };
    let (settings, mut found) = Settings::load(layers);
    found.extend(no_text);
    zones::name_foreign(&mut found);
    Ok((settings, found))
}

/// What is wrong with a variable whose value is no text, if it is one of a setting.
fn not_text(name: &str, value: &OsStr) -> Option<Diagnostic> {
    let of_setting = |entry: &&Setting| layers::variables(entry.name).iter().any(|one| one == name);
    let setting = TABLE.iter().find(of_setting)?;
    let found = if setting.secret { "\"**\"".into() } else { format!("{value:?}") };
    let fault = Diagnostic::new("environment", None, format!("found bytes {found}")).of_key(name);
    Some(Diagnostic { expected: Some(utf8::EXPECTED.into()), ..fault })
}

/// The file of the settings, whether it is there or not.
///
/// # Errors
/// There are two.
pub(super) fn settings_file(folder: &Path) -> Result<PathBuf, Error> {
    let [long, short] = SETTINGS.map(|name| folder.join(name));
    match (is_there(&long)?, is_there(&short)?) {
        (true, true) => Err(Error::usage(format!(
            "found both {} and {}, expected one of them",
            long.display(),
            SETTINGS[1]
        ))),
        (false, true) => Ok(short),
        _ => Ok(long),
    }
}

/// Is there something at this path? A host that does not say so has not said no.
///
/// # Errors
/// The host does not say.
pub(super) fn is_there(path: &Path) -> Result<bool, Error> {
    match std::fs::metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Ok(false)
        }
        Err(error) => Err(Error::failure(format!("{}: {error}", path.display()))),
    }
}

/// The tasks of the application in `folder`, and what is wrong with the others.
pub(super) fn tasks(folder: &Path) -> (Vec<Task>, Vec<Diagnostic>) {
    let root = folder.join("tasks.d");
    let mut files = Vec::new();
    let mut faults = Vec::new();
    let mut above = identity(&root).into_iter().collect();
    walk(&root, Path::new(""), &mut above, &mut files, &mut faults);
    let (tasks, more) = load::load(&files, &root, &|path| path.is_file());
    faults.extend(more);
    (tasks, faults)
}

/// A folder, whatever path leads to it: its device and its number there.
type FileId = (u64, u64);

fn identity(folder: &Path) -> Option<FileId> {
    std::fs::metadata(folder).map(|seen| (seen.dev(), seen.ino())).ok()
}

/// A file from outside: path, inode, size and the time of its last change.
pub(super) type Looks = (PathBuf, u64, u64, (i64, i64));

/// All files below `root`, in order: whoever changes one changes what is seen here.
pub(super) fn looks(root: &Path) -> Vec<Looks> {
    let begin: Vec<FileId> = identity(root).into_iter().collect();
    let (mut found, mut folders) = (Vec::new(), vec![(root.to_path_buf(), begin)]);
    while let Some((folder, above)) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let Ok(seen) = std::fs::metadata(&path) else { continue };
            let this = (seen.dev(), seen.ino());
            if seen.is_dir() && above.len() <= DEPTH_MAX && !above.contains(&this) {
                folders.push((path.clone(), above.iter().copied().chain([this]).collect()));
            }
            found.push((path, seen.ino(), seen.size(), (seen.ctime(), seen.ctime_nsec())));
        }
    }
    found.sort();
    found
}

/// All that is in a folder.
///
/// # Errors
/// Some of it cannot be seen.
pub(super) fn list(folder: &Path) -> std::io::Result<Vec<DirEntry>> {
    std::fs::read_dir(folder)?.collect()
}

/// The text of a file.
///
/// # Errors
/// It cannot be read, or is none: the line and the byte are named.
pub(super) fn read(path: &Path) -> Result<String, Box<Diagnostic>> {
    let bytes = std::fs::read(path).map_err(|error| Box::new(unreadable(path, &error)))?;
    let text = utf8::text(&bytes).map(str::to_string);
    text.map_err(|(line, why)| {
        Box::new(Diagnostic::new(&path.display().to_string(), Some(line), why))
    })
}

/// A file that is of no use as it is, or that the host refuses to show.
fn unreadable(path: &Path, error: &std::io::Error) -> Diagnostic {
    let is_of_file = matches!(
        error.kind(),
        ErrorKind::NotFound | ErrorKind::PermissionDenied | ErrorKind::InvalidFilename
    ) || error.raw_os_error() == Some(Errno::ELOOP as i32);
    match is_of_file {
        true => Diagnostic::new(&path.display().to_string(), None, error.to_string()),
        false => Diagnostic::unseen(path, error),
    }
}

/// Reads the folder `inside` of `root`; `above` are the folders that it is in, itself the last.
fn walk(
    root: &Path,
    inside: &Path,
    above: &mut Vec<FileId>,
    files: &mut Vec<File>,
    faults: &mut Vec<Diagnostic>,
) {
    let depth = above.len().saturating_sub(1);
    let folder = if depth == 0 { root.to_path_buf() } else { root.join(inside) };
    let entries = match list(&folder) {
        Ok(entries) => entries,
        // An application of settings alone.
        Err(error) if depth == 0 && error.kind() == ErrorKind::NotFound => return,
        Err(error) => return faults.push(Diagnostic::unseen(&folder, &error)),
    };
    for entry in entries {
        let path = inside.join(entry.file_name());
        // Links are followed: people keep their programs elsewhere.
        let kind = match std::fs::metadata(entry.path()) {
            Ok(kind) => kind,
            Err(error) => {
                if load::sort(&path, true).is_some() {
                    faults.push(unreadable(&root.join(&path), &error));
                }
                continue;
            }
        };
        if kind.is_dir() {
            let this = (kind.dev(), kind.ino());
            let refused = match (above.contains(&this), depth < DEPTH_MAX) {
                _ if entry.file_name().to_string_lossy().starts_with('.') => continue,
                (true, _) => "is not read: the link leads back to a folder that it is in".into(),
                (_, false) => format!("is not read: it is deeper than {DEPTH_MAX} folders"),
                _ => {
                    above.push(this);
                    walk(root, &path, above, files, faults);
                    above.pop();
                    continue;
                }
            };
            let file = root.join(&path).display().to_string();
            faults.push(Diagnostic::new(&file, None, refused));
            continue;
        }
        let executable = kind.is_file() && kind.permissions().mode() & 0o111 != 0;
        let content = match load::sort(&path, executable) {
            None => {
                if kind.is_file() && load::sort(&path, true).is_some() && is_script(&entry.path()) {
                    faults.push(not_executable(root, &path));
                }
                continue;
            }
            Some(Sort::Program) => TaskFileKind::Program,
            Some(Sort::Wasm) => TaskFileKind::Wasm,
            Some(Sort::Yaml) => match read(&root.join(&path)) {
                Ok(text) => TaskFileKind::Yaml(text),
                Err(fault) => {
                    faults.push(*fault);
                    continue;
                }
            },
        };
        files.push(File { path, content });
    }
}

/// A file that starts with `#!` is meant to be a program.
fn not_executable(root: &Path, path: &Path) -> Diagnostic {
    let file = root.join(path).display().to_string();
    let name = load::name_in(path, &path.file_stem().unwrap_or_default().to_string_lossy());
    let why = format!("begins with #! and is not executable, so it is not a task; chmod +x {file}");
    Diagnostic::new(&file, None, why).costing(&name, &file)
}

fn is_script(path: &Path) -> bool {
    let mut begin = [0; 2];
    std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut begin)).is_ok()
        && begin == *b"#!"
}
