//! A bell between processes: whoever changed something touches a file, whoever waits for
//! a change watches it with inotify. Ringing at nobody costs one system call.

use super::{file, last_error, run};
use std::cell::Cell;
use std::collections::HashMap;
use std::ffi::{CStr, CString, OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;
use tokio::io::unix::AsyncFd;

/// Room for a few dozen events; the kernel gives whole events only, the longest has 272 bytes.
const EVENTS_BYTES: usize = 4096;

/// The fixed part of an event: watch, mask, cookie, length of the name; 4 bytes each.
const EVENT_HEAD_BYTES: usize = 16;

/// Hears changes of files, whoever makes them on this machine.
#[derive(Debug)]
pub struct Bell {
    ear: Ear,
    names: HashMap<i32, Vec<OsString>>,
    folders: Vec<CString>,
    covered: Cell<bool>,
}

/// How changes are heard.
#[derive(Debug)]
enum Ear {
    /// The kernel tells.
    Inotify(AsyncFd<OwnedFd>),
    /// It does not: whoever waits looks again after so long.
    Clock(Duration),
}

/// What happens to a file that rings.
const HEARD: u32 = libc::IN_MODIFY | libc::IN_CREATE | libc::IN_CLOSE_WRITE | libc::IN_MOVED_TO;

/// What happens to no folder of a database in use; a watch has to be for something.
const UNHEARD: u32 = libc::IN_MOVE_SELF;

impl Bell {
    /// Watches these files. They need not exist, and may be replaced, because it is their
    /// folders that are watched; those must exist.
    ///
    /// # Errors
    /// A folder does not exist, or the user's inotify watches are used up
    /// (`fs.inotify.max_user_instances`).
    pub fn watch<P: AsRef<Path>>(paths: &[P]) -> io::Result<Bell> {
        // SAFETY: takes flags only.
        let fd = unsafe { libc::inotify_init1(libc::IN_NONBLOCK | libc::IN_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::from_raw_os_error(last_error()));
        }
        // SAFETY: the kernel just gave us this descriptor; nobody else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let mut names: HashMap<i32, Vec<OsString>> = HashMap::new();
        let mut folders = Vec::new();
        for path in paths.iter().map(AsRef::as_ref) {
            let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
            let folder = match path.parent() {
                Some(folder) if !folder.as_os_str().is_empty() => folder,
                _ => Path::new("."),
            };
            let folder = CString::new(folder.as_os_str().as_bytes())?;
            let watch = add(fd.as_raw_fd(), &folder, HEARD);
            let watch = watch.map_err(|error| {
                file::naming(Path::new(OsStr::from_bytes(folder.as_bytes())), &error)
            })?;
            names.entry(watch).or_default().push(name.into());
            folders.push(folder);
        }
        // SAFETY: an `OwnedFd` stays open, and is the same descriptor, while it lives.
        let events = unsafe { AsyncFd::register(fd) }?;
        Ok(Bell { ear: Ear::Inotify(events), names, folders, covered: Cell::new(false) })
    }

    /// Where nothing can be watched: one that rings each time after `pause`.
    pub fn clock(pause: Duration) -> Bell {
        let (names, folders) = (HashMap::new(), Vec::new());
        Bell { ear: Ear::Clock(pause), names, folders, covered: Cell::new(false) }
    }

    /// Hears nothing, or hears again. For whoever is not waiting: each event costs the one who
    /// makes it, and wakes this program's loop.
    ///
    /// # Errors
    /// A folder does not exist any more.
    pub fn cover(&self, covered: bool) -> io::Result<()> {
        let Ear::Inotify(events) = &self.ear else { return Ok(()) };
        if self.covered.replace(covered) != covered {
            for folder in &self.folders {
                // The same folder is the same watch: only what it hears changes.
                add(events.as_raw_fd(), folder, if covered { UNHEARD } else { HEARD })?;
            }
        }
        Ok(())
    }

    /// Waits until one of the files has changed since the last call. Any number of changes
    /// is one ring. Dropping this future loses none.
    ///
    /// # Errors
    /// The kernel refuses to say, which it has no reason to.
    pub async fn rung(&self) -> io::Result<()> {
        let events = match &self.ear {
            Ear::Inotify(events) => events,
            Ear::Clock(pause) => {
                tokio::time::sleep(*pause).await;
                return Ok(());
            }
        };
        loop {
            let mut ready = events.readable().await?;
            let mut heard = false;
            loop {
                match ready.try_io(|fd| self.hear(fd)) {
                    Ok(Ok(one)) => heard |= one,
                    Ok(Err(error)) => return Err(error),
                    Err(_would_block) => break,
                }
            }
            if heard {
                return Ok(());
            }
        }
    }

    /// Reads what events there are: was one of them for us?
    fn hear(&self, fd: &AsyncFd<OwnedFd>) -> io::Result<bool> {
        let mut events = [0; EVENTS_BYTES];
        // SAFETY: the buffer is ours and has this length.
        let count = unsafe { libc::read(fd.as_raw_fd(), events.as_mut_ptr().cast(), events.len()) };
        if count < 0 {
            return Err(io::Error::from_raw_os_error(last_error()));
        }
        Ok(self.concerns_us(&events[..count as usize]))
    }

    fn concerns_us(&self, mut events: &[u8]) -> bool {
        while events.len() >= EVENT_HEAD_BYTES {
            let word = |at: usize| {
                u32::from_ne_bytes([events[at], events[at + 1], events[at + 2], events[at + 3]])
            };
            let (watch, mask, length) = (word(0) as i32, word(4), word(12) as usize);
            // Events were lost, or a folder is gone: better look once too often.
            if mask & (libc::IN_Q_OVERFLOW | libc::IN_IGNORED) != 0 {
                return true;
            }
            let (event, rest) = events.split_at((EVENT_HEAD_BYTES + length).min(events.len()));
            let name =
                event[EVENT_HEAD_BYTES..].split(|&byte| byte == 0).next().unwrap_or_default();
            let names = self.names.get(&watch);
            if names.is_some_and(|names| names.iter().any(|known| known == OsStr::from_bytes(name)))
            {
                return true;
            }
            events = rest;
        }
        false
    }
}

/// Watches a folder for what is in `mask`, and nothing else from now on.
fn add(fd: RawFd, folder: &CStr, mask: u32) -> io::Result<i32> {
    // SAFETY: the path is NUL-terminated and lives through the call.
    let watch = unsafe { libc::inotify_add_watch(fd, folder.as_ptr(), mask | libc::IN_ONLYDIR) };
    if watch < 0 { Err(io::Error::from_raw_os_error(last_error())) } else { Ok(watch) }
}

/// Rings a bell beside a database: the file stays open, a ring is one write.
#[derive(Debug)]
pub struct Ringer {
    database: PathBuf,
    name: &'static str,
    file: Mutex<Option<File>>,
}

impl Ringer {
    /// For the bell of this name beside this database, which is hung when it is first rung.
    pub fn new(database: &Path, name: &'static str) -> Ringer {
        Ringer { database: database.into(), name, file: Mutex::new(None) }
    }

    /// Wakes everyone who watches the file.
    ///
    /// # Errors
    /// The file cannot be written to, or was removed and cannot be made again; its folder is not
    /// one that counts.
    pub fn ring(&self) -> io::Result<()> {
        // A file that cannot be broken by a panic: the lock is as good as it was.
        let mut held = self.file.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let file = match held.take() {
            // Somebody removed it; nobody would hear us.
            Some(file) if file.metadata()?.nlink() > 0 => file,
            _ => run::bell(&self.database, self.name)?,
        };
        let done = file.write_at(b"!", 0);
        *held = Some(file);
        done.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::timeout;

    const SOON: Duration = Duration::from_secs(2);

    #[tokio::test]
    async fn heard_once_however_often_rung() {
        let dir = tempfile::tempdir().unwrap();
        let (database, wal) = (dir.path().join("db"), dir.path().join("db-wal"));
        std::fs::write(&database, "").unwrap();
        let tasks = run::make(&database).unwrap().join("tasks");
        let bell = Bell::watch(&[&tasks, &wal]).unwrap();
        let ringer = Ringer::new(&database, "tasks");
        for _ in 0..1000 {
            ringer.ring().unwrap();
        }
        timeout(SOON, bell.rung()).await.unwrap().unwrap();
        std::fs::write(tasks.with_file_name("other"), "x").unwrap();
        assert!(timeout(Duration::from_millis(50), bell.rung()).await.is_err(), "no ring of ours");
        std::fs::write(&wal, "x").unwrap();
        timeout(SOON, bell.rung()).await.unwrap().unwrap();

        bell.cover(true).unwrap();
        ringer.ring().unwrap();
        bell.cover(false).unwrap();
        assert!(timeout(Duration::from_millis(50), bell.rung()).await.is_err(), "covered");

        std::fs::remove_file(&tasks).unwrap();
        ringer.ring().unwrap();
        timeout(SOON, bell.rung()).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn an_overflow_is_a_ring() {
        let dir = tempfile::tempdir().unwrap();
        let bell = Bell::watch(&[dir.path().join("tasks")]).unwrap();
        let mut event = vec![0xff; 4];
        event.extend(libc::IN_Q_OVERFLOW.to_ne_bytes());
        event.extend([0; 8]);
        assert!(bell.concerns_us(&event));
        assert!(Bell::watch(&["/nowhere/x"]).is_err());
        let bell = Bell::clock(Duration::from_millis(1));
        timeout(SOON, bell.rung()).await.unwrap().unwrap();
        bell.cover(true).unwrap();
    }
}
