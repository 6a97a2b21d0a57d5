//! The current folder, by its name: if the name is a link to the release in use, the link counts,
//! so that entering the folder again enters the release that is in use then.

use std::ffi::OsString;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The name by which a process has entered its folder, as shells set it.
const VARIABLE: &str = "PWD";

/// The current folder by the name with which it was entered, absolute; else by the kernel's name.
///
/// # Errors
/// It was removed.
pub fn current() -> io::Result<PathBuf> {
    let inode = |path: &Path| path.metadata().map(|found| (found.dev(), found.ino()));
    let named = std::env::var_os(VARIABLE).map(PathBuf::from).filter(|path| path.is_absolute());
    match (named, inode(Path::new("."))) {
        (Some(named), Ok(here)) if inode(&named).is_ok_and(|there| there == here) => Ok(named),
        _ => std::env::current_dir(),
    }
}

/// `path` relative to the current folder by its name, without dots. No link is resolved.
///
/// # Errors
/// As [`current`].
pub fn absolute(path: &Path) -> io::Result<PathBuf> {
    match path.is_absolute() {
        true => std::path::absolute(path),
        false => std::path::absolute(current()?.join(path)),
    }
}

/// Changes to a folder, before any thread exists.
///
/// # Errors
/// It is no folder, or we may not enter it.
pub fn enter(path: &Path) -> io::Result<()> {
    let name = absolute(path)?;
    std::env::set_current_dir(path)?;
    // SAFETY: no thread exists yet that could read the environment meanwhile.
    unsafe { std::env::set_var(VARIABLE, name) };
    Ok(())
}

/// The first word of this process's command line. A path is made absolute, so that it means the
/// same in any folder.
pub fn program() -> OsString {
    let word = std::env::args_os().next().unwrap_or_default();
    let path = Path::new(&word);
    match path.components().count() {
        0 | 1 => word,
        _ => absolute(path).map_or(word, PathBuf::into_os_string),
    }
}
