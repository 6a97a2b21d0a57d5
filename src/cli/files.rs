//! Reads what an application is made of, and hands its text to those who understand it.

use super::exit::Error;
use crate::config::{Diagnostic, Given, Layers, Settings};
use crate::task::Task;
use crate::task::load::{self, Content, File, Sort};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Folders in folders of `tasks.d` at the most: a link that leads back to its own folder
/// must come to an end.
const DEPTH_MAX: usize = 8;

/// The settings of the application in `folder`, and what is wrong with them.
///
/// # Errors
/// There is a settings file that cannot be read.
pub(super) fn settings(
    folder: &Path,
    options: &[Given],
) -> Result<(Settings, Vec<Diagnostic>), Error> {
    let path = folder.join("qworker.yaml");
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(Error::usage(format!("{}: {error}", path.display()))),
    };
    let name = path.display().to_string();
    let files: Vec<(&str, &str)> = text.iter().map(|text| (name.as_str(), text.as_str())).collect();
    // What is no text cannot be a setting of ours.
    let environment: Vec<(String, String)> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| name.starts_with("QWORKER_"))
        .collect();
    let layers = Layers { files: &files, environment: &environment, command_line: options };
    Ok(Settings::load(layers))
}

/// The tasks of the application in `folder`, and what is wrong with the others.
pub(super) fn tasks(folder: &Path) -> (Vec<Task>, Vec<Diagnostic>) {
    let root = folder.join("tasks.d");
    let mut files = Vec::new();
    let mut faults = Vec::new();
    walk(&root, Path::new(""), 0, &mut files, &mut faults);
    let (tasks, more) = load::load(&files, &root, &|path| path.is_file());
    faults.extend(more);
    (tasks, faults)
}

/// A file from outside: path, inode, size and the time of its last change.
pub(super) type Looks = (PathBuf, u64, u64, (i64, i64));

/// All files below `root`, in order: whoever changes one changes what is seen here.
pub(super) fn looks(root: &Path) -> Vec<Looks> {
    let (mut found, mut folders) = (Vec::new(), vec![(root.to_path_buf(), 0)]);
    while let Some((folder, depth)) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let Ok(seen) = std::fs::metadata(&path) else { continue };
            if seen.is_dir() && depth < DEPTH_MAX {
                folders.push((path.clone(), depth + 1));
            }
            found.push((path, seen.ino(), seen.size(), (seen.ctime(), seen.ctime_nsec())));
        }
    }
    found.sort();
    found
}

fn walk(
    root: &Path,
    inside: &Path,
    depth: usize,
    files: &mut Vec<File>,
    faults: &mut Vec<Diagnostic>,
) {
    let unreadable = |path: &Path, error: std::io::Error| {
        Diagnostic::new(&root.join(path).display().to_string(), None, error.to_string())
    };
    let entries = match std::fs::read_dir(root.join(inside)) {
        Ok(entries) => entries,
        // An application of settings alone.
        Err(error) if depth == 0 && error.kind() == std::io::ErrorKind::NotFound => return,
        Err(error) => return faults.push(unreadable(inside, error)),
    };
    for entry in entries.flatten() {
        let path = inside.join(entry.file_name());
        // Links are followed: people keep their programs elsewhere.
        let kind = match std::fs::metadata(entry.path()) {
            Ok(kind) => kind,
            Err(error) => {
                if load::sort(&path, true).is_some() {
                    faults.push(unreadable(&path, error));
                }
                continue;
            }
        };
        if kind.is_dir() {
            if depth < DEPTH_MAX && !entry.file_name().to_string_lossy().starts_with('.') {
                walk(root, &path, depth + 1, files, faults);
            }
            continue;
        }
        let executable = kind.is_file() && kind.permissions().mode() & 0o111 != 0;
        let content = match load::sort(&path, executable) {
            None => continue,
            Some(Sort::Program) => Content::Program,
            Some(Sort::Wasm) => Content::Wasm,
            Some(Sort::Yaml) => match std::fs::read_to_string(entry.path()) {
                Ok(text) => Content::Yaml(text),
                Err(error) => {
                    faults.push(unreadable(&path, error));
                    continue;
                }
            },
        };
        files.push(File { path, content });
    }
}
