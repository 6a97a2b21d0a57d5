//! Pidfiles. Who holds one is known by its number, the start of the process, and a lock on the
//! file.
//!
//! The holder has a record lock on the file for as long as it lives, even when it executes another
//! program, and the kernel tells who that is (`F_GETLK`). A number alone says nothing: it may
//! belong to another process by now. A file of a program that does not lock it is valid if the
//! process is older than the file. In any case, a file counts only for processes of its owner, and
//! only a file that can be a pidfile of ours is replaced or removed.

use super::process::Process;
use super::user::Ids;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::Signal;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A number has at most 7 digits; a longer text is no pidfile.
const BYTES_MAX: u64 = 32;

/// The time of a file is that of the kernel's last tick, and the start of a process is rounded to
/// one.
const CLOCK_SLACK: Duration = Duration::from_millis(20);

/// Who holds a pidfile.
#[derive(Debug)]
pub enum Holder {
    /// There is no file, or nothing in it.
    Nobody,
    /// The process with this pid that wrote it is gone.
    Stale(i32),
    /// This process.
    Live(Process),
}

/// Why a pidfile cannot be ours.
#[derive(Debug)]
pub enum PidfileRefusal {
    /// A living process holds it.
    Held(i32),
    /// What is there is no pidfile of ours, but this.
    Foreign(String),
    /// The file cannot be written.
    Failed(io::Error),
}

impl From<io::Error> for PidfileRefusal {
    fn from(error: io::Error) -> PidfileRefusal {
        PidfileRefusal::Failed(error)
    }
}

impl From<PidfileRefusal> for io::Error {
    fn from(refused: PidfileRefusal) -> io::Error {
        match refused {
            PidfileRefusal::Failed(error) => error,
            PidfileRefusal::Held(pid) => io::Error::other(format!("process {pid} has it")),
            PidfileRefusal::Foreign(found) => {
                io::Error::other(format!("found {found}, expected a pidfile of its owner"))
            }
        }
    }
}

/// A pidfile that names this process. It is removed when this is dropped.
#[derive(Debug)]
pub struct Pidfile {
    file: File,
    path: PathBuf,
    /// The process that created it: after a fork, the child must not remove the file.
    pid: u32,
    /// Its final path, and the process that holds the file there.
    place: Option<(PathBuf, Process)>,
}

/// The path of a successor's pidfile until it is ready: `w1.pid.next` for `w1.pid`.
pub fn next(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".next");
    name.into()
}

impl Pidfile {
    /// Makes `path`, an absolute path, the pidfile of this process. One of a dead process is
    /// replaced. Of any number of processes that try at the same time, one succeeds.
    ///
    /// # Errors
    /// See [`PidfileRefusal`].
    pub fn claim(path: &Path) -> Result<Pidfile, PidfileRefusal> {
        loop {
            let old = match look(path, true)? {
                PidfileContent::File(old) => old,
                PidfileContent::Nothing => match create(path) {
                    // Another process was faster.
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                    made => made?,
                },
            };
            may_replace(&old)?;
            if !lock(&old)? {
                return Err(PidfileRefusal::Held(owner(&old).or(number(&old)).unwrap_or(0)));
            }
            if !is_at(&old, path) {
                // It was replaced or removed in between.
                continue;
            }
            // We hold the lock, so the named process does not.
            if let Holder::Live(process) = unlocked(&old, path)? {
                return Err(PidfileRefusal::Held(process.pid()));
            }
            return Ok(Pidfile::replace(path)?);
        }
    }

    /// As [`Pidfile::claim`], but a process with this pid that holds it keeps it until
    /// [`Pidfile::publish`].
    ///
    /// # Errors
    /// As [`Pidfile::claim`]; or the process has a successor already.
    pub fn succeed(path: &Path, pid: i32) -> Result<Pidfile, PidfileRefusal> {
        match holder(path) {
            Ok(Holder::Live(old)) if old.pid() == pid => {
                let mut own = Pidfile::claim(&next(path))?;
                own.place = Some((path.to_path_buf(), old));
                Ok(own)
            }
            _ => Pidfile::claim(path),
        }
    }

    /// Moves the file of a successor to its final path, and asks the previous holder to end.
    ///
    /// # Errors
    /// The file cannot be moved: then the previous process continues.
    pub fn publish(&mut self) -> io::Result<()> {
        let Some((path, old)) = self.place.take() else { return Ok(()) };
        if let PidfileContent::File(there) = look(&path, true)? {
            may_replace(&there)?;
        }
        std::fs::rename(&self.path, &path)?;
        self.path = path;
        old.signal(Signal::SIGTERM).map(drop)
    }

    /// Replaces a file that we have locked: the new one is never half written, and locked before it
    /// is visible.
    fn replace(path: &Path) -> io::Result<Pidfile> {
        let pid = std::process::id();
        let (mut file, new) = beside(path, pid)?;
        let written = file
            .write_all(format!("{pid}\n").as_bytes())
            .and_then(|()| lock(&file))
            .and_then(|_| std::fs::rename(&new, path));
        if let Err(error) = written {
            let _ = std::fs::remove_file(&new);
            return Err(error);
        }
        Ok(Pidfile { file, path: path.to_path_buf(), pid, place: None })
    }

    /// Keeps the file open when this process executes another program, which takes it over with
    /// [`Pidfile::inherit`]. Returns the descriptor.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn bequeath(&self) -> io::Result<RawFd> {
        fcntl(&self.file, FcntlArg::F_SETFD(FdFlag::empty()))?;
        Ok(self.file.as_raw_fd())
    }

    /// Undoes [`Pidfile::bequeath`]: children do not inherit it.
    pub fn keep(&self) {
        // It is open, so its flags can be set.
        let _ = fcntl(&self.file, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC));
    }

    /// Takes over the descriptor that the previous program of this process has left; `None` if it
    /// is not the pidfile at `path`.
    pub fn inherit(fd: RawFd, path: &Path) -> Option<Pidfile> {
        // SAFETY: only borrowed for a question; if it is not open, that fails.
        let open = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
        fcntl(open, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).ok()?;
        // SAFETY: it is open, and was left for us to own.
        let file = unsafe { File::from_raw_fd(fd) };
        let pid = std::process::id();
        if is_at(&file, path) && lock(&file).unwrap_or(false) {
            return Some(Pidfile { file, path: path.to_path_buf(), pid, place: None });
        }
        // The path now leads to another folder: the old file is removed.
        let old = std::fs::read_link(format!("/proc/self/fd/{fd}")).ok()?;
        drop(Pidfile { file, path: old, pid, place: None });
        None
    }
}

impl Drop for Pidfile {
    fn drop(&mut self) {
        if self.pid == std::process::id() && is_at(&self.file, &self.path) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// What is at the path of a pidfile.
enum PidfileContent {
    Nothing,
    File(File),
}

/// Opens what is at `path` if it can be a pidfile: a regular file with one name, and no link.
fn look(path: &Path, write: bool) -> Result<PidfileContent, PidfileRefusal> {
    let there = match path.symlink_metadata() {
        Ok(there) => there,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(PidfileContent::Nothing);
        }
        Err(error) => return Err(error.into()),
    };
    // Examined first: opening a device or a pipe may have effects.
    regular(&there)?;
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = match OpenOptions::new().read(true).write(write).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(PidfileContent::Nothing);
        }
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {
            return Err(PidfileRefusal::Foreign("a symbolic link".into()));
        }
        Err(error) => return Err(error.into()),
    };
    regular(&file.metadata()?)?;
    Ok(PidfileContent::File(file))
}

fn regular(found: &Metadata) -> Result<(), PidfileRefusal> {
    let kind = found.file_type();
    let what = match () {
        () if kind.is_symlink() => "a symbolic link",
        () if kind.is_dir() => "a folder",
        () if kind.is_fifo() => "a named pipe",
        () if kind.is_socket() => "a socket",
        () if !kind.is_file() => "a device",
        // The other name may belong to another user's file.
        () if found.nlink() > 1 => "a file with several names",
        () => return Ok(()),
    };
    Err(PidfileRefusal::Foreign(what.into()))
}

/// Creates an empty file.
fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().create_new(true).read(true).write(true).mode(0o644).open(path)
}

/// Creates an empty file beside `path`; returns its path too.
fn beside(path: &Path, pid: u32) -> io::Result<(File, PathBuf)> {
    let mut number = u64::from(pid);
    loop {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{number}"));
        let new = PathBuf::from(name);
        match create(&new) {
            // An existing file of this name is not ours to replace.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                number = fastrand::u64(..)
            }
            made => return Ok((made?, new)),
        }
    }
}

/// Only a file that is ours or root's, and contains a number or nothing, may be replaced.
fn may_replace(file: &File) -> Result<(), PidfileRefusal> {
    let uid = file.metadata()?.uid();
    if uid != nix::unistd::geteuid().as_raw() && uid != fsuid() && uid != 0 {
        return Err(PidfileRefusal::Foreign(format!("a file of user {uid}")));
    }
    named(file).map(drop)
}

/// The number in a file that contains one or nothing.
fn named(file: &File) -> Result<Option<i32>, PidfileRefusal> {
    let text = text(file)?;
    match parse(&text) {
        None if !text.trim_ascii().is_empty() => Err(PidfileRefusal::Foreign(
            "a file with something else in it than a process number".into(),
        )),
        number => Ok(number),
    }
}

/// The user with whose rights this thread accesses files.
fn fsuid() -> u32 {
    nix::unistd::setfsuid(nix::unistd::Uid::from_raw(u32::MAX)).as_raw()
}

/// Who holds this pidfile?
///
/// # Errors
/// It cannot be read, is no pidfile, or names a process of another user.
pub fn holder(path: &Path) -> io::Result<Holder> {
    let PidfileContent::File(file) = look(path, false)? else { return Ok(Holder::Nobody) };
    let Some(pid) = owner(&file) else { return Ok(unlocked(&file, path)?) };
    let process = Process::open(pid);
    // Asked again: then the handle belongs to the process that holds the lock, or that one is dead.
    match process {
        Some(process) if owner(&file) == Some(pid) => {
            believe(&file, &process)?;
            Ok(Holder::Live(process))
        }
        _ => Ok(Holder::Stale(pid)),
    }
}

/// The process that has locked this file, of any user: to wait for its end, and nothing else.
pub fn locker(path: &Path) -> Option<Process> {
    let Ok(PidfileContent::File(file)) = look(path, false) else { return None };
    let pid = owner(&file)?;
    Process::open(pid).filter(|_| owner(&file) == Some(pid))
}

/// Removes the pidfile of a dead process; did it?
///
/// # Errors
/// It exists and cannot be removed.
pub fn remove_stale(path: &Path) -> io::Result<bool> {
    let PidfileContent::File(file) = look(path, true)? else { return Ok(false) };
    let found = file.metadata()?;
    if nix::unistd::geteuid().as_raw() != 0 {
        may_replace(&file)?;
    }
    // While we hold the lock, no other process can claim it.
    let ours = parse(&text(&file)?).is_some() && lock(&file)? && is_at(&file, path);
    if !ours || matches!(unlocked(&file, path), Ok(Holder::Live(_)) | Err(_)) {
        return Ok(false);
    }
    // Root uses no more rights than the owner of the file has.
    let owner = Ids { uid: found.uid(), gid: found.gid(), groups: vec![found.gid()] };
    owner.acting(|| std::fs::remove_file(path))?.map(|()| true)
}

/// Who holds a file that nobody has locked? A process that is younger than the file only has the
/// same pid.
fn unlocked(file: &File, path: &Path) -> Result<Holder, PidfileRefusal> {
    let Some(pid) = named(file)? else { return Ok(Holder::Nobody) };
    if pid == std::process::id().cast_signed() {
        // Ours would be locked; this one was left by a process that had our pid.
        return Ok(Holder::Stale(pid));
    }
    let Some(process) = Process::open(pid) else { return Ok(Holder::Stale(pid)) };
    let found = file.metadata()?;
    match (process.started(), found.modified()) {
        (Some(started), Ok(written)) if started <= written + CLOCK_SLACK => {}
        _ => return Ok(Holder::Stale(pid)),
    }
    believe(file, &process)?;
    // The owner of the folder can put files of others there.
    let folder = path.parent().map(|folder| folder.join(".").metadata()).transpose()?;
    let other = folder.map(|folder| folder.uid()).filter(|uid| ![0, found.uid()].contains(uid));
    match other {
        Some(uid) => Err(PidfileRefusal::Foreign(format!(
            "a file of user {} in a folder of user {uid}, which names process {pid}",
            found.uid()
        ))),
        None => Ok(Holder::Live(process)),
    }
}

/// A file counts only for processes of its owner.
fn believe(file: &File, process: &Process) -> Result<(), PidfileRefusal> {
    let (owner, pid) = (file.metadata()?.uid(), process.pid());
    match process.uid() {
        Some(uid) if uid == owner => Ok(()),
        // It has ended meanwhile; waiting for it will show that.
        None if process.is_gone() => Ok(()),
        Some(uid) => Err(PidfileRefusal::Foreign(format!(
            "a file of user {owner} that names process {pid} of user {uid}"
        ))),
        None => Err(PidfileRefusal::Foreign(format!(
            "a file of user {owner} that names process {pid}, whose user cannot be seen"
        ))),
    }
}

/// The number in a pidfile.
fn number(file: &File) -> Option<i32> {
    parse(&text(file).ok()?)
}

/// The beginning of a file, longer than a pidfile.
fn text(mut file: &File) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    file.rewind()?;
    file.take(BYTES_MAX).read_to_end(&mut text)?;
    Ok(text)
}

/// A number, surrounded by nothing but white space.
fn parse(text: &[u8]) -> Option<i32> {
    let text = std::str::from_utf8(text).ok().filter(|text| (text.len() as u64) < BYTES_MAX)?;
    text.trim().parse().ok().filter(|pid| *pid > 0)
}

fn record(kind: i32) -> libc::flock {
    // SAFETY: a structure of numbers, all of which may be 0: from the start to the end.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as i16;
    lock.l_whence = libc::SEEK_SET as i16;
    lock
}

/// Locks a file for this process; false if another process has locked it.
fn lock(file: &File) -> io::Result<bool> {
    match fcntl(file, FcntlArg::F_SETLK(&record(libc::F_WRLCK))) {
        Ok(_) => Ok(true),
        Err(Errno::EACCES | Errno::EAGAIN) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The other process that has locked it.
fn owner(file: &File) -> Option<i32> {
    let mut lock = record(libc::F_WRLCK);
    fcntl(file, FcntlArg::F_GETLK(&mut lock)).ok()?;
    (i32::from(lock.l_type) != libc::F_UNLCK && lock.l_pid > 0).then_some(lock.l_pid)
}

fn is_at(file: &File, path: &Path) -> bool {
    let inode = |found: std::fs::Metadata| (found.dev(), found.ino());
    let there = path.symlink_metadata().map(inode).ok();
    there.is_some() && there == file.metadata().map(inode).ok()
}
