//! The log file. Others may rename, remove or truncate it at any time; we rotate it when it is too
//! large or too old.

use super::sink::{BATCH_BYTES, Target};
use std::fs::{self, File, Metadata};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

/// After a failed rotation, the next attempt is made this much later.
const ROTATION_PAUSE: Duration = Duration::from_secs(60);

/// When a log file is rotated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rotation {
    /// Before it gets larger than this, in bytes.
    pub max_bytes: Option<u64>,
    /// When it is older than this.
    pub max_age: Option<Duration>,
    /// How many old files are kept, at least one.
    pub backups: u64,
}

/// Opens a log file for appending: several processes may write to it, and truncating it leaves no
/// hole. Root does not follow a link that another user created: it could lead to any file.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let link = fs::symlink_metadata(path).ok().filter(Metadata::is_symlink);
    if link.is_some_and(|link| link.uid() != 0) && nix::unistd::geteuid().is_root() {
        let text = "found a link of another user, expected a file, or a link of root";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    }
    File::options().append(true).create(true).open(path)
}

/// A log file, by its path.
pub(super) struct LogFile {
    path: PathBuf,
    rotation: Rotation,
    open: Option<Open>,
    /// No rotation before this.
    rest: Option<Instant>,
}

struct Open {
    file: File,
    id: (u64, u64),
    /// When it was created, if the file system knows.
    born: SystemTime,
}

impl LogFile {
    /// Opens nothing yet.
    pub(super) fn new(path: PathBuf, rotation: Rotation) -> LogFile {
        LogFile { path, rotation, open: None, rest: None }
    }
}

impl Target for LogFile {
    /// Opens the file that is at the path now, if it is another one.
    fn ready(&mut self, bytes: usize) -> io::Result<(Option<String>, bool)> {
        let mut found = stat(&self.path)?;
        let mut note = None;
        if let Some(meta) = found.as_ref().filter(|meta| self.is_due(meta, bytes)) {
            match self.rotate(meta) {
                Ok(()) => found = None,
                Err(error) => {
                    self.rest = Some(Instant::now() + ROTATION_PAUSE);
                    note = Some(format!("cannot rotate the log file: {error}"));
                }
            }
        }
        let same = match (&self.open, &found) {
            (Some(open), Some(meta)) => open.id == id(meta),
            _ => false,
        };
        if !same {
            // Closed first: a removed file frees its space only then.
            self.open = None;
            let file = open(&self.path)?;
            let meta = file.metadata()?;
            let born = meta.created().unwrap_or_else(|_| SystemTime::now());
            self.open = Some(Open { id: id(&meta), born, file });
        }
        Ok((note, !same))
    }

    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        match &mut self.open {
            Some(open) => open.file.write(text),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn name(&self) -> Option<String> {
        Some(self.path.display().to_string())
    }

    /// A small size limit is not exceeded by a single batch.
    fn batch_bytes(&self) -> usize {
        let max = self.rotation.max_bytes.and_then(|max| usize::try_from(max).ok());
        max.unwrap_or(BATCH_BYTES).min(BATCH_BYTES)
    }
}

impl LogFile {
    /// Is it our file, and too large or too old?
    fn is_due(&self, meta: &Metadata, bytes: usize) -> bool {
        let Some(open) = self.open.as_ref().filter(|open| open.id == id(meta)) else {
            return false;
        };
        if !meta.is_file() || meta.len() == 0 || self.rest.is_some_and(|rest| Instant::now() < rest)
        {
            return false;
        }
        let large = self.rotation.max_bytes.is_some_and(|max| meta.len() + bytes as u64 > max);
        let age = || SystemTime::now().duration_since(open.born).unwrap_or_default();
        large || self.rotation.max_age.is_some_and(|max| age() > max)
    }

    /// `FILE.1` becomes `FILE.2` and so on, `FILE` becomes `FILE.1`, in the folder that a link
    /// leads to.
    fn rotate(&self, seen: &Metadata) -> io::Result<()> {
        let Some(open) = &self.open else { return Ok(()) };
        // Another process that shares the file would rotate it at the same time.
        open.file.lock()?;
        let rename = || -> io::Result<()> {
            if stat(&self.path)?.is_none_or(|meta| id(&meta) != id(seen)) {
                return Ok(());
            }
            let path = fs::canonicalize(&self.path)?;
            for number in (1..self.rotation.backups.max(1)).rev() {
                match fs::rename(aside(&path, number), aside(&path, number + 1)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
            fs::rename(&path, aside(&path, 1))
        };
        let renamed = rename();
        open.file.unlock()?;
        renamed
    }
}

fn aside(path: &Path, number: u64) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

fn stat(path: &Path) -> io::Result<Option<Metadata>> {
    match fs::metadata(path) {
        Ok(meta) => Ok(Some(meta)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn id(meta: &Metadata) -> (u64, u64) {
    (meta.dev(), meta.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(log: &mut LogFile, text: &str) -> bool {
        let (note, is_new) = log.ready(text.len()).unwrap();
        assert_eq!((note, log.write(text.as_bytes()).unwrap()), (None, text.len()));
        is_new
    }

    #[test]
    fn it_follows_its_path() {
        let dir = tempfile::tempdir().unwrap();
        let (path, aside) = (dir.path().join("log"), dir.path().join("aside"));
        let read = |path: &Path| fs::read_to_string(path).unwrap();
        let mut log = LogFile::new(path.clone(), Rotation::default());
        assert!(put(&mut log, "a\n"));
        assert!(!put(&mut log, "b\n"));
        fs::rename(&path, &aside).unwrap();
        assert!(put(&mut log, "c\n"));
        assert_eq!((read(&aside), read(&path)), ("a\nb\n".into(), "c\n".into()));
        fs::remove_file(&path).unwrap();
        assert!(put(&mut log, "d\n"));
        assert_eq!(read(&path), "d\n");
        // Copied and truncated: no hole.
        File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
        assert!(!put(&mut log, "e\n"));
        assert_eq!(read(&path), "e\n");
        fs::remove_dir_all(dir.path()).unwrap();
        assert_eq!(log.ready(1).err().unwrap().kind(), io::ErrorKind::NotFound);
        fs::create_dir(dir.path()).unwrap();
        assert!(put(&mut log, "f\n"));
    }

    #[test]
    fn behind_a_link_it_is_put_aside_there() {
        let (dir, disk) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let path = dir.path().join("log");
        std::os::unix::fs::symlink(disk.path().join("log"), &path).unwrap();
        let rotation = Rotation { max_bytes: Some(2), max_age: None, backups: 1 };
        let mut log = LogFile::new(path.clone(), rotation);
        put(&mut log, "a\n");
        put(&mut log, "b\n");
        assert!(fs::symlink_metadata(&path).unwrap().is_symlink());
        let read = |name: &str| fs::read_to_string(disk.path().join(name)).unwrap();
        assert_eq!((read("log"), read("log.1")), ("b\n".into(), "a\n".into()));
        if nix::unistd::geteuid().is_root() {
            std::os::unix::fs::lchown(&path, Some(12_345), None).unwrap();
            assert_eq!(open(&path).err().unwrap().kind(), io::ErrorKind::PermissionDenied);
        }
    }

    #[test]
    fn it_is_put_aside_by_size() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let rotation = Rotation { max_bytes: Some(4), max_age: None, backups: 2 };
        let mut log = LogFile::new(path.clone(), rotation);
        for text in ["a\n", "b\n", "c\n", "longer than a file may be\n", "d\n", "e\n"] {
            put(&mut log, text);
        }
        let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
        assert_eq!(read("log"), "d\ne\n");
        assert_eq!(read("log.1"), "longer than a file may be\n");
        assert_eq!(read("log.2"), "c\n");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
    }

    #[test]
    fn it_is_put_aside_by_age() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let day = Duration::from_secs(86_400);
        let mut log = LogFile::new(
            path.clone(),
            Rotation { max_bytes: None, max_age: Some(day), backups: 1 },
        );
        put(&mut log, "a\n");
        put(&mut log, "b\n");
        log.open.as_mut().unwrap().born -= day * 2;
        put(&mut log, "c\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "c\n");
        assert_eq!(fs::read_to_string(dir.path().join("log.1")).unwrap(), "a\nb\n");
    }
}
