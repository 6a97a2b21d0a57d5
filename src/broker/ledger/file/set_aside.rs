//! Renames a damaged ledger file together with its log. Nothing is removed.

use super::inspect;
use crate::broker::Error;
use crate::clock;
use crate::os::file::folder_of;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How many times, and how long each time, one that sets a file aside waits for another one.
const WAITS: (usize, Duration) = (100, Duration::from_millis(10));

/// Device and inode.
pub(super) type FileId = (u64, u64);

/// The number of what is at that path.
pub(super) fn number_of(path: &Path) -> Option<FileId> {
    fs::metadata(path).ok().map(|found| number_in(&found))
}

fn number_in(found: &fs::Metadata) -> FileId {
    (found.dev(), found.ino())
}

/// Renames the file and its log, unless there is another file by now.
///
/// # Errors
/// It cannot be renamed, or is not recognisably a beat's.
pub(super) fn set_aside(path: &Path, number: FileId) -> Result<Option<PathBuf>, Error> {
    let cannot = |error: io::Error| Error::io("rename", &error);
    // One after the other, or one would set aside the file that another one has just begun.
    let folder = fs::File::open(folder_of(path)).map_err(cannot)?;
    for _ in 0..WAITS.0 {
        if folder.try_lock().is_ok() {
            break;
        }
        std::thread::sleep(WAITS.1);
    }
    if number_of(path) != Some(number) {
        return Ok(None);
    }
    // Another program may have written over it while it was in use. An emptied file says nothing,
    // and the log beside it is ours.
    if fs::metadata(path).is_ok_and(|found| found.len() > 0) {
        inspect::look(path)?;
    }
    let stamp = clock::now().format("%Y%m%dT%H%M%S");
    let mut to = with_end(path, &format!(".damaged-{stamp}"));
    for n in 2.. {
        if to.symlink_metadata().is_err() {
            break;
        }
        to = with_end(path, &format!(".damaged-{stamp}-{n}"));
    }
    for end in ["-wal", "-shm"] {
        let _ = fs::rename(with_end(path, end), with_end(&to, end));
    }
    fs::rename(path, &to).map_err(cannot)?;
    Ok(Some(to))
}

/// Whether the file of this number was set aside.
pub(super) fn is_aside(path: &Path, number: FileId) -> bool {
    let begin = with_end(path, ".damaged-");
    let files = fs::read_dir(folder_of(path)).into_iter().flatten().flatten();
    let mut files = files.filter(|entry| entry.metadata().is_ok_and(|of| number_in(&of) == number));
    files.any(|entry| {
        let (name, begin) = (entry.file_name(), begin.file_name().unwrap_or_default());
        name.as_encoded_bytes().starts_with(begin.as_encoded_bytes())
    })
}

fn with_end(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(end);
    name.into()
}
