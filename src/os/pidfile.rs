//! Pidfiles: who has one is known by its number, its start and a lock on the file.
//!
//! The holder has a record lock on the file for as long as it lives, also when it executes
//! another program, and the kernel tells who that is (`F_GETLK`). A number alone says
//! nothing: it may be of another process by now. Files of programs that do not lock theirs
//! are believed if the process is older than the file.

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::Signal;
use std::fs::{File, OpenOptions, metadata};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// A number is at most 7 digits; whoever wrote more wrote no pidfile.
const BYTES_MAX: u64 = 32;

/// A file is stamped with the kernel's clock of the last tick, and a start is rounded to one.
const CLOCK_SLACK: Duration = Duration::from_millis(20);

/// Whose a pidfile is.
#[derive(Debug)]
pub enum Holder {
    /// There is no file, or nothing in it that names a process.
    Nobody,
    /// The process of this number that wrote it is gone.
    Stale(i32),
    /// This one.
    Live(Process),
}

/// A process that lived when it was looked at. The handle never means another one that has
/// got its number since.
#[derive(Debug)]
pub struct Process {
    pid: i32,
    handle: OwnedFd,
}

/// Why a pidfile is not ours.
#[derive(Debug)]
pub enum Refused {
    /// A living process has it.
    Held(i32),
    /// The file cannot be written.
    Failed(io::Error),
}

/// A pidfile that names this process, until it is dropped: then it is removed.
#[derive(Debug)]
pub struct Pidfile {
    file: File,
    path: PathBuf,
    /// Who made it: after a fork the file is not the child's to remove.
    pid: u32,
}

impl Pidfile {
    /// Makes `path`, an absolute path, the pidfile of this process. One of a process that is gone
    /// is replaced. Of any number that try at the same time one succeeds.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn claim(path: &Path) -> Result<Pidfile, Refused> {
        loop {
            let old = OpenOptions::new()
                .create(true)
                .truncate(false)
                .read(true)
                .write(true)
                .mode(0o644)
                .open(path)
                .map_err(Refused::Failed)?;
            if !lock(&old).map_err(Refused::Failed)? {
                return Err(Refused::Held(owner(&old).or(number(&old)).unwrap_or(0)));
            }
            if !is_at(&old, path) {
                // Somebody replaced or removed it in between.
                continue;
            }
            // We hold the lock, so whoever is named does not.
            if let Holder::Live(process) = unlocked(&old) {
                return Err(Refused::Held(process.pid));
            }
            return Pidfile::replace(path).map_err(Refused::Failed);
        }
    }

    /// Puts a new file in the place of one that is locked by us: never half written, and
    /// locked before it can be seen.
    fn replace(path: &Path) -> io::Result<Pidfile> {
        let pid = std::process::id();
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{pid}"));
        let new = PathBuf::from(name);
        let mut file =
            OpenOptions::new().create(true).truncate(true).write(true).mode(0o644).open(&new)?;
        let written = file
            .write_all(format!("{pid}\n").as_bytes())
            .and_then(|()| lock(&file))
            .and_then(|_| std::fs::rename(&new, path));
        if let Err(error) = written {
            let _ = std::fs::remove_file(&new);
            return Err(error);
        }
        Ok(Pidfile { file, path: path.to_path_buf(), pid })
    }

    /// Keeps the file through an execution of another program in this process, which takes it
    /// over with [`Pidfile::inherit`]; gives the number to name there.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn bequeath(&self) -> io::Result<RawFd> {
        fcntl(&self.file, FcntlArg::F_SETFD(FdFlag::empty()))?;
        Ok(self.file.as_raw_fd())
    }

    /// As if it had not been bequeathed: children do not get it.
    pub fn keep(&self) {
        // It is open, so its flags can be set.
        let _ = fcntl(&self.file, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC));
    }

    /// Takes over what the program before in this process has left; `None` if that is not the
    /// pidfile at `path`.
    pub fn inherit(fd: RawFd, path: &Path) -> Option<Pidfile> {
        // SAFETY: only borrowed for a question; if it is not open, that fails.
        let open = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
        fcntl(open, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).ok()?;
        // SAFETY: it is open, and was left for us to own.
        let file = unsafe { File::from_raw_fd(fd) };
        let ours = is_at(&file, path) && lock(&file).unwrap_or(false);
        ours.then(|| Pidfile { file, path: path.to_path_buf(), pid: std::process::id() })
    }
}

impl Drop for Pidfile {
    fn drop(&mut self) {
        if self.pid == std::process::id() && is_at(&self.file, &self.path) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Whose pidfile is this?
///
/// # Errors
/// It is there and cannot be read.
pub fn holder(path: &Path) -> io::Result<Holder> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Holder::Nobody),
        Err(error) => return Err(error),
    };
    let Some(pid) = owner(&file) else { return Ok(unlocked(&file)) };
    let process = Process::open(pid);
    // Asked again: then the handle is of the one that holds the lock, or of nobody who lives.
    match process {
        Some(process) if owner(&file) == Some(pid) => Ok(Holder::Live(process)),
        _ => Ok(Holder::Stale(pid)),
    }
}

/// Removes a pidfile whose process is gone; did it?
///
/// # Errors
/// It is there and cannot be removed.
pub fn remove_stale(path: &Path) -> io::Result<bool> {
    let file = match OpenOptions::new().read(true).write(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    // While we have the lock nobody makes it his.
    let ours = lock(&file)? && is_at(&file, path);
    if !ours || matches!(unlocked(&file), Holder::Live(_)) {
        return Ok(false);
    }
    std::fs::remove_file(path).map(|()| true)
}

/// Whose is a file that nobody has locked? A process younger than the file has only got the number.
fn unlocked(file: &File) -> Holder {
    let Some(pid) = number(file) else { return Holder::Nobody };
    if pid == std::process::id().cast_signed() {
        // Ours is locked; this one was left by a process that had our number.
        return Holder::Stale(pid);
    }
    let Some(process) = Process::open(pid) else { return Holder::Stale(pid) };
    let written = file.metadata().and_then(|file| file.modified());
    match (process.started(), written) {
        (Some(started), Ok(written)) if started <= written + CLOCK_SLACK => Holder::Live(process),
        _ => Holder::Stale(pid),
    }
}

impl Process {
    /// The living process of this number: of a child that was not waited for, or it may be
    /// another one by now.
    pub fn open(pid: i32) -> Option<Process> {
        // SAFETY: takes numbers only.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        let fd = RawFd::try_from(fd).ok().filter(|fd| *fd >= 0)?;
        // SAFETY: the kernel just gave us this descriptor; nobody else owns it.
        let process = Process { pid, handle: unsafe { OwnedFd::from_raw_fd(fd) } };
        (!process.is_gone()).then_some(process)
    }

    /// Its children, as far as they live.
    pub fn children(&self) -> Vec<Process> {
        let all = super::tree::children(super::Pid::from_raw(self.pid)).into_iter();
        let all: Vec<Process> = all.filter_map(Process::open).collect();
        // Those of another process are not meant.
        if self.is_gone() { Vec::new() } else { all }
    }

    /// Its number.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Sends a signal; false if the process is gone.
    ///
    /// # Errors
    /// We may not.
    pub fn signal(&self, signal: Signal) -> io::Result<bool> {
        let none = std::ptr::null_mut::<libc::siginfo_t>();
        let fd = self.handle.as_raw_fd();
        // SAFETY: the descriptor is open while we live; no information is passed.
        let sent =
            unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal as i32, none, 0) };
        match (sent, Errno::last()) {
            (0, _) => Ok(true),
            (_, Errno::ESRCH) => Ok(false),
            (_, error) => Err(error.into()),
        }
    }

    /// Waits until it is gone, at most so long; is it?
    pub fn wait(&self, at_most: Duration) -> bool {
        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        let end = std::time::Instant::now() + at_most;
        loop {
            let left = end.saturating_duration_since(std::time::Instant::now());
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            let mut fds = [PollFd::new(self.handle.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, timeout) {
                Ok(0) if left < Duration::from_millis(1) => return false,
                Ok(0) | Err(Errno::EINTR) => {}
                // An error of the call says nothing of the process.
                Ok(_) | Err(_) => return self.is_gone(),
            }
        }
    }

    /// Has it ended? One that nobody has waited for yet has.
    pub fn is_gone(&self) -> bool {
        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        let mut fds = [PollFd::new(self.handle.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
    }

    /// Whom it runs as.
    pub fn uid(&self) -> Option<u32> {
        metadata(format!("/proc/{}", self.pid)).ok().map(|found| found.uid())
    }

    /// When it started.
    pub fn started(&self) -> Option<SystemTime> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).ok()?;
        // The name, in parentheses, may have anything in it. Field 22 counts ticks since the boot.
        let ticks: u64 = stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()?;
        let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok()??;
        let after_boot = Duration::from_millis(ticks * 1000 / u64::try_from(per_second).ok()?);
        let uptime = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).ok()?;
        SystemTime::now().checked_sub(Duration::from(uptime))?.checked_add(after_boot)
    }
}

/// The number that stands in a pidfile: digits in its first line.
fn number(file: &File) -> Option<i32> {
    let mut text = String::new();
    let mut file = file;
    std::io::Seek::rewind(&mut file).ok()?;
    file.take(BYTES_MAX).read_to_string(&mut text).ok()?;
    let (line, _) = text.split_once('\n')?;
    line.trim().parse().ok().filter(|pid| *pid > 0)
}

fn record(kind: i32) -> libc::flock {
    // SAFETY: a structure of numbers, all of which may be 0: from the start to the end.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as i16;
    lock.l_whence = libc::SEEK_SET as i16;
    lock
}

/// Locks a file for this process; false if another has done so.
fn lock(file: &File) -> io::Result<bool> {
    match fcntl(file, FcntlArg::F_SETLK(&record(libc::F_WRLCK))) {
        Ok(_) => Ok(true),
        Err(Errno::EACCES | Errno::EAGAIN) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Which other process has it locked?
fn owner(file: &File) -> Option<i32> {
    let mut lock = record(libc::F_WRLCK);
    fcntl(file, FcntlArg::F_GETLK(&mut lock)).ok()?;
    (i32::from(lock.l_type) != libc::F_UNLCK && lock.l_pid > 0).then_some(lock.l_pid)
}

fn is_at(file: &File, path: &Path) -> bool {
    let inode = |found: std::fs::Metadata| (found.dev(), found.ino());
    let there = metadata(path).map(inode).ok();
    there.is_some() && there == file.metadata().map(inode).ok()
}
