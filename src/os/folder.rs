//! The current folder, by its name: of a link to the release in use it is the link that counts,
//! so that whoever enters the folder again enters the release that is in use by then.

use std::ffi::OsString;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Where a process says by which name it has entered its folder, as shells do.
const VARIABLE: &str = "PWD";

/// The current folder by the name with which it was entered, absolute; by the kernel's name if
/// that is not known.
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

/// `path` from the current folder on, by its name; without dots, and no link is resolved.
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
/// It is none, or we may not.
pub fn enter(path: &Path) -> io::Result<()> {
    let name = absolute(path)?;
    std::env::set_current_dir(path)?;
    // SAFETY: no thread exists yet that could read the environment meanwhile.
    unsafe { std::env::set_var(VARIABLE, name) };
    Ok(())
}

/// The first word of this process's command line: where it is a path, from the root on, so that
/// it is the same in any folder.
pub fn program() -> OsString {
    let word = std::env::args_os().next().unwrap_or_default();
    let path = Path::new(&word);
    match path.components().count() {
        0 | 1 => word,
        _ => absolute(path).map_or(word, PathBuf::into_os_string),
    }
}
