//! Wake-ups between processes: a process that changed something writes to a file, and processes
//! that wait for a change watch the file with inotify. A notification without a watcher costs one
//! system call.

use super::{file, last_error, rundir};
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

/// Holds a few dozen events. The kernel returns whole events only; the longest has 272 bytes.
const EVENTS_BYTES: usize = 4096;

/// The fixed part of an event: watch, mask, cookie, length of the name; 4 bytes each.
const EVENT_HEAD_BYTES: usize = 16;

/// Watches files for changes by any process of this machine.
#[derive(Debug)]
pub struct Watcher {
    source: Source,
    names: HashMap<i32, Vec<OsString>>,
    folders: Vec<CString>,
    paused: Cell<bool>,
}

/// Where the news of a change comes from.
#[derive(Debug)]
enum Source {
    /// The kernel reports changes.
    Inotify(AsyncFd<OwnedFd>),
    /// It cannot: assume a change after each interval.
    Timer(Duration),
}

/// Events that count as a change.
const CHANGES: u32 = libc::IN_MODIFY | libc::IN_CREATE | libc::IN_CLOSE_WRITE | libc::IN_MOVED_TO;

/// An event that does not occur to the folder of a database in use. A watch needs at least one.
const NO_CHANGES: u32 = libc::IN_MOVE_SELF;

impl Watcher {
    /// Watches these files. They need not exist, and may be replaced, because their folders are
    /// what is watched; the folders must exist.
    ///
    /// # Errors
    /// A folder does not exist, or the user's inotify watches are used up
    /// (`fs.inotify.max_user_instances`).
    pub fn watch<P: AsRef<Path>>(paths: &[P]) -> io::Result<Watcher> {
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
            let watch = add(fd.as_raw_fd(), &folder, CHANGES);
            let watch = watch.map_err(|error| {
                file::naming(Path::new(OsStr::from_bytes(folder.as_bytes())), &error)
            })?;
            names.entry(watch).or_default().push(name.into());
            folders.push(folder);
        }
        // SAFETY: an `OwnedFd` stays open, and is the same descriptor, while it lives.
        let events = unsafe { AsyncFd::register(fd) }?;
        Ok(Watcher { source: Source::Inotify(events), names, folders, paused: Cell::new(false) })
    }

    /// Where nothing can be watched: reports a change after each `interval`.
    pub fn polling(interval: Duration) -> Watcher {
        let (names, folders) = (HashMap::new(), Vec::new());
        Watcher { source: Source::Timer(interval), names, folders, paused: Cell::new(false) }
    }

    /// Stops watching, or watches again. For callers that are not waiting: each event costs the
    /// process that causes it, and wakes the event loop here.
    ///
    /// # Errors
    /// A folder does not exist any more.
    pub fn pause(&self, paused: bool) -> io::Result<()> {
        let Source::Inotify(events) = &self.source else { return Ok(()) };
        if self.paused.replace(paused) != paused {
            for folder in &self.folders {
                // The same folder has the same watch: only its events change.
                add(events.as_raw_fd(), folder, if paused { NO_CHANGES } else { CHANGES })?;
            }
        }
        Ok(())
    }

    /// Waits until one of the files has changed since the last call. Any number of changes
    /// counts as one. Dropping this future loses none.
    ///
    /// # Errors
    /// The kernel does not let us read the events, which is not expected.
    pub async fn changed(&self) -> io::Result<()> {
        let events = match &self.source {
            Source::Inotify(events) => events,
            Source::Timer(interval) => {
                tokio::time::sleep(*interval).await;
                return Ok(());
            }
        };
        loop {
            let mut ready = events.readable().await?;
            let mut changed = false;
            loop {
                match ready.try_io(|fd| self.read_events(fd)) {
                    Ok(Ok(one)) => changed |= one,
                    Ok(Err(error)) => return Err(error),
                    Err(_would_block) => break,
                }
            }
            if changed {
                return Ok(());
            }
        }
    }

    /// Reads pending events. True if one of them is a change of a watched file.
    fn read_events(&self, fd: &AsyncFd<OwnedFd>) -> io::Result<bool> {
        let mut events = [0; EVENTS_BYTES];
        // SAFETY: the buffer is ours and has this length.
        let count = unsafe { libc::read(fd.as_raw_fd(), events.as_mut_ptr().cast(), events.len()) };
        if count < 0 {
            return Err(io::Error::from_raw_os_error(last_error()));
        }
        Ok(self.has_change(&events[..count as usize]))
    }

    fn has_change(&self, mut events: &[u8]) -> bool {
        while events.len() >= EVENT_HEAD_BYTES {
            let word = |at: usize| {
                u32::from_ne_bytes([events[at], events[at + 1], events[at + 2], events[at + 3]])
            };
            let (watch, mask, length) = (word(0) as i32, word(4), word(12) as usize);
            // Events were lost, or a folder is gone: a needless look costs less than a missed one.
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

/// Watches a folder for the events of `mask`, which replace those of an earlier call.
fn add(fd: RawFd, folder: &CStr, mask: u32) -> io::Result<i32> {
    // SAFETY: the path is NUL-terminated and lives through the call.
    let watch = unsafe { libc::inotify_add_watch(fd, folder.as_ptr(), mask | libc::IN_ONLYDIR) };
    if watch < 0 { Err(io::Error::from_raw_os_error(last_error())) } else { Ok(watch) }
}

/// Notifies the watchers of a file beside a database: the file stays open, a notification is one
/// write.
#[derive(Debug)]
pub struct Notifier {
    database: PathBuf,
    name: &'static str,
    file: Mutex<Option<File>>,
}

impl Notifier {
    /// For the file of this name in the folder beside this database. The file is created by the
    /// first notification.
    pub fn new(database: &Path, name: &'static str) -> Notifier {
        Notifier { database: database.into(), name, file: Mutex::new(None) }
    }

    /// Wakes all watchers of the file.
    ///
    /// # Errors
    /// The file cannot be written to, or was removed and cannot be created again; its folder is
    /// not to be trusted.
    pub fn notify(&self) -> io::Result<()> {
        // A panic cannot leave the file in a bad state.
        let mut held = self.file.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let file = match held.take() {
            // One that was removed has no watchers.
            Some(file) if file.metadata()?.nlink() > 0 => file,
            _ => rundir::wakeup_file(&self.database, self.name)?,
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
    async fn any_number_of_notifications_is_one_change() {
        let dir = tempfile::tempdir().unwrap();
        let (database, wal) = (dir.path().join("db"), dir.path().join("db-wal"));
        std::fs::write(&database, "").unwrap();
        let tasks = rundir::create(&database).unwrap().join("tasks");
        let watcher = Watcher::watch(&[&tasks, &wal]).unwrap();
        let notifier = Notifier::new(&database, "tasks");
        for _ in 0..1000 {
            notifier.notify().unwrap();
        }
        timeout(SOON, watcher.changed()).await.unwrap().unwrap();
        std::fs::write(tasks.with_file_name("other"), "x").unwrap();
        assert!(
            timeout(Duration::from_millis(50), watcher.changed()).await.is_err(),
            "another file"
        );
        std::fs::write(&wal, "x").unwrap();
        timeout(SOON, watcher.changed()).await.unwrap().unwrap();

        watcher.pause(true).unwrap();
        notifier.notify().unwrap();
        watcher.pause(false).unwrap();
        assert!(timeout(Duration::from_millis(50), watcher.changed()).await.is_err(), "paused");

        std::fs::remove_file(&tasks).unwrap();
        notifier.notify().unwrap();
        timeout(SOON, watcher.changed()).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn an_overflow_counts_as_a_change() {
        let dir = tempfile::tempdir().unwrap();
        let watcher = Watcher::watch(&[dir.path().join("tasks")]).unwrap();
        let mut event = vec![0xff; 4];
        event.extend(libc::IN_Q_OVERFLOW.to_ne_bytes());
        event.extend([0; 8]);
        assert!(watcher.has_change(&event));
        assert!(Watcher::watch(&["/nowhere/x"]).is_err());
        let watcher = Watcher::polling(Duration::from_millis(1));
        timeout(SOON, watcher.changed()).await.unwrap().unwrap();
        watcher.pause(true).unwrap();
    }
}
