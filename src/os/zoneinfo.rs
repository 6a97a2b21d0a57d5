//! The host's time zones: a folder with one file for each.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

/// Where hosts have them.
const FOLDERS: [&str; 2] = ["/usr/share/zoneinfo", "/usr/lib/zoneinfo"];

/// Bytes of a file; the longest ones in use have 4 KiB.
const FILE_MAX: u64 = 256 << 10;

/// The folder: the one that `TZDIR` names, as for the C library; else the first that exists.
pub fn folder(tzdir: Option<OsString>) -> Option<PathBuf> {
    if let Some(chosen) = tzdir.filter(|chosen| !chosen.is_empty()) {
        let chosen = PathBuf::from(chosen);
        return Some(std::path::absolute(&chosen).unwrap_or(chosen));
    }
    FOLDERS.iter().map(PathBuf::from).find(|folder| folder.is_dir())
}

/// The contents of a zone's file.
///
/// # Errors
/// There is no regular file of a sensible length; or the name leads out of the folder.
pub fn read(folder: &Path, name: &str) -> io::Result<Vec<u8>> {
    let wrong = |why| io::Error::new(io::ErrorKind::InvalidData, why);
    let is_plain = |part| matches!(part, Component::Normal(_));
    if name.is_empty() || !Path::new(name).components().all(is_plain) {
        return Err(wrong("found a path, expected the name of a time zone"));
    }
    // Opening a pipe or a device must not block.
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(folder.join(name))?;
    if !file.metadata()?.is_file() {
        return Err(wrong("found no regular file"));
    }
    let mut bytes = Vec::new();
    file.take(FILE_MAX + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > FILE_MAX {
        true => Err(wrong("found more than 256 KiB")),
        false => Ok(bytes),
    }
}

/// The version of the IANA database in a folder, if it is known.
pub fn version(folder: &Path) -> Option<String> {
    let first = |name: &str| {
        let bytes = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(folder.join(name))
            .and_then(|file| {
                let mut bytes = Vec::new();
                file.take(64).read_to_end(&mut bytes).map(|_| bytes)
            });
        let text = String::from_utf8_lossy(&bytes.ok()?).into_owned();
        let line = text.lines().next()?.trim_start_matches("# version").trim();
        let is_version = !line.is_empty() && line.chars().all(|c| c.is_ascii_alphanumeric());
        is_version.then(|| line.to_owned())
    };
    first("+VERSION").or_else(|| first("tzdata.zi"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_the_folder() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("zoneinfo");
        std::fs::create_dir_all(folder.join("Here")).unwrap();
        std::fs::write(root.path().join("outside"), "x").unwrap();
        std::fs::write(folder.join("Here/There"), "x").unwrap();
        assert_eq!(read(&folder, "Here/There").unwrap(), b"x");
        let outside = root.path().join("outside").display().to_string();
        for name in ["", "../outside", "Here/../../outside", &outside, "a\0b", "Here", "Nowhere"] {
            assert!(read(&folder, name).is_err(), "{name:?}");
        }
        std::fs::write(folder.join("tzdata.zi"), "# version 2031x\n# more\n").unwrap();
        assert_eq!(version(&folder).as_deref(), Some("2031x"));
        std::fs::write(folder.join("+VERSION"), "2032a\n").unwrap();
        assert_eq!(version(&folder).as_deref(), Some("2032a"));
        assert_eq!(version(root.path()), None);
    }
}
