//! Pidfiles: who has one is known by its number, its start and a lock on the file.
//!
//! The holder has a record lock on the file for as long as it lives, also when it executes
//! another program, and the kernel tells who that is (`F_GETLK`). A number alone says
//! nothing: it may be of another process by now. Files of programs that do not lock theirs
//! are believed if the process is older than the file. In any case a file speaks only for processes
//! of its owner, and only a file that can be a pidfile of ours is replaced or removed.

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

/// A number is at most 7 digits; whoever wrote more wrote no pidfile.
const BYTES_MAX: u64 = 32;

/// A file is stamped with the kernel's clock of the last tick, and a start is rounded to one.
const CLOCK_SLACK: Duration = Duration::from_millis(20);

/// Whose a pidfile is.
#[derive(Debug)]
pub enum Holder {
    /// There is no file, or nothing in it.
    Nobody,
    /// The process of this number that wrote it is gone.
    Stale(i32),
    /// This one.
    Live(Process),
}

/// Why a pidfile is not ours.
#[derive(Debug)]
pub enum Refused {
    /// A living process has it.
    Held(i32),
    /// What stands there is no pidfile of ours: this was found.
    Foreign(String),
    /// The file cannot be written.
    Failed(io::Error),
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Refused {
        Refused::Failed(error)
    }
}

impl From<Refused> for io::Error {
    fn from(refused: Refused) -> io::Error {
        match refused {
            Refused::Failed(error) => error,
            Refused::Held(pid) => io::Error::other(format!("process {pid} has it")),
            Refused::Foreign(found) => {
                io::Error::other(format!("found {found}, expected a pidfile of its owner"))
            }
        }
    }
}

/// A pidfile that names this process, until it is dropped: then it is removed.
#[derive(Debug)]
pub struct Pidfile {
    file: File,
    path: PathBuf,
    /// Who made it: after a fork the file is not the child's to remove.
    pid: u32,
    /// Where it will be, and whose place that is.
    place: Option<(PathBuf, Process)>,
}

/// Where the pidfile of a successor is until it is ready: `w1.pid.next` for `w1.pid`.
pub fn next(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".next");
    name.into()
}

impl Pidfile {
    /// Makes `path`, an absolute path, the pidfile of this process. One of a process that is gone
    /// is replaced. Of any number that try at the same time one succeeds.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn claim(path: &Path) -> Result<Pidfile, Refused> {
        loop {
            let old = match look(path, true)? {
                Found::File(old) => old,
                Found::Nothing => match create(path) {
                    // Somebody else was quicker.
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                    made => made?,
                },
            };
            may_replace(&old)?;
            if !lock(&old)? {
                return Err(Refused::Held(owner(&old).or(number(&old)).unwrap_or(0)));
            }
            if !is_at(&old, path) {
                // Somebody replaced or removed it in between.
                continue;
            }
            // We hold the lock, so whoever is named does not.
            if let Holder::Live(process) = unlocked(&old, path)? {
                return Err(Refused::Held(process.pid()));
            }
            return Ok(Pidfile::replace(path)?);
        }
    }

    /// As [`Pidfile::claim`], but if the process of this pid has it, it has it until
    /// [`Pidfile::publish`].
    ///
    /// # Errors
    /// As [`Pidfile::claim`]; another one is its successor already.
    pub fn succeed(path: &Path, pid: i32) -> Result<Pidfile, Refused> {
        match holder(path) {
            Ok(Holder::Live(old)) if old.pid() == pid => {
                let mut own = Pidfile::claim(&next(path))?;
                own.place = Some((path.to_path_buf(), old));
                Ok(own)
            }
            _ => Pidfile::claim(path),
        }
    }

    /// Puts the file of a successor in its place, and asks the process that had the place to end.
    ///
    /// # Errors
    /// The file cannot be moved: then the old process goes on.
    pub fn publish(&mut self) -> io::Result<()> {
        let Some((path, old)) = self.place.take() else { return Ok(()) };
        if let Found::File(there) = look(&path, true)? {
            may_replace(&there)?;
        }
        std::fs::rename(&self.path, &path)?;
        self.path = path;
        old.signal(Signal::SIGTERM).map(drop)
    }

    /// Puts a new file in the place of one that is locked by us: never half written, and
    /// locked before it can be seen.
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
        let pid = std::process::id();
        if is_at(&file, path) && lock(&file).unwrap_or(false) {
            return Some(Pidfile { file, path: path.to_path_buf(), pid, place: None });
        }
        // The folder that its name begins with is another one by now: the old one goes.
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

/// What stands at the path of a pidfile.
enum Found {
    Nothing,
    File(File),
}

/// Opens what stands at `path` if it can be a pidfile: a regular file of one name, and no link.
fn look(path: &Path, write: bool) -> Result<Found, Refused> {
    let there = match path.symlink_metadata() {
        Ok(there) => there,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(error) => return Err(error.into()),
    };
    // Looked at first: to open a device or a pipe may do something.
    regular(&there)?;
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = match OpenOptions::new().read(true).write(write).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {
            return Err(Refused::Foreign("a symbolic link".into()));
        }
        Err(error) => return Err(error.into()),
    };
    regular(&file.metadata()?)?;
    Ok(Found::File(file))
}

fn regular(found: &Metadata) -> Result<(), Refused> {
    let kind = found.file_type();
    let what = match () {
        () if kind.is_symlink() => "a symbolic link",
        () if kind.is_dir() => "a folder",
        () if kind.is_fifo() => "a named pipe",
        () if kind.is_socket() => "a socket",
        () if !kind.is_file() => "a device",
        // The other name may be that of somebody else's file.
        () if found.nlink() > 1 => "a file with several names",
        () => return Ok(()),
    };
    Err(Refused::Foreign(what.into()))
}

/// Makes an empty file that was not there.
fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().create_new(true).read(true).write(true).mode(0o644).open(path)
}

/// An empty file beside `path`, and its name.
fn beside(path: &Path, pid: u32) -> io::Result<(File, PathBuf)> {
    let mut number = u64::from(pid);
    loop {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{number}"));
        let new = PathBuf::from(name);
        match create(&new) {
            // Whatever has this name is not ours to replace.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                number = fastrand::u64(..)
            }
            made => return Ok((made?, new)),
        }
    }
}

/// Only what is ours, or root's, and holds a number or nothing, makes room for ours.
fn may_replace(file: &File) -> Result<(), Refused> {
    let uid = file.metadata()?.uid();
    if uid != nix::unistd::geteuid().as_raw() && uid != fsuid() && uid != 0 {
        return Err(Refused::Foreign(format!("a file of user {uid}")));
    }
    named(file).map(drop)
}

/// The number in a file that has one or nothing.
fn named(file: &File) -> Result<Option<i32>, Refused> {
    let text = text(file)?;
    match parse(&text) {
        None if !text.trim_ascii().is_empty() => {
            Err(Refused::Foreign("a file with something else in it than a process number".into()))
        }
        number => Ok(number),
    }
}

/// As whom this thread works on files.
fn fsuid() -> u32 {
    nix::unistd::setfsuid(nix::unistd::Uid::from_raw(u32::MAX)).as_raw()
}

/// Whose pidfile is this?
///
/// # Errors
/// It cannot be read, is no pidfile, or names a process that its owner has nothing to do with.
pub fn holder(path: &Path) -> io::Result<Holder> {
    let Found::File(file) = look(path, false)? else { return Ok(Holder::Nobody) };
    let Some(pid) = owner(&file) else { return Ok(unlocked(&file, path)?) };
    let process = Process::open(pid);
    // Asked again: then the handle is of the one that holds the lock, or of nobody who lives.
    match process {
        Some(process) if owner(&file) == Some(pid) => {
            believe(&file, &process)?;
            Ok(Holder::Live(process))
        }
        _ => Ok(Holder::Stale(pid)),
    }
}

/// The process that has this file locked, whoever it is: to wait for its end, and nothing else.
pub fn locker(path: &Path) -> Option<Process> {
    let Ok(Found::File(file)) = look(path, false) else { return None };
    let pid = owner(&file)?;
    Process::open(pid).filter(|_| owner(&file) == Some(pid))
}

/// Removes a pidfile whose process is gone; did it?
///
/// # Errors
/// It is there and cannot be removed.
pub fn remove_stale(path: &Path) -> io::Result<bool> {
    let Found::File(file) = look(path, true)? else { return Ok(false) };
    let found = file.metadata()?;
    if nix::unistd::geteuid().as_raw() != 0 {
        may_replace(&file)?;
    }
    // While we have the lock nobody makes it his.
    let ours = parse(&text(&file)?).is_some() && lock(&file)? && is_at(&file, path);
    if !ours || matches!(unlocked(&file, path), Ok(Holder::Live(_)) | Err(_)) {
        return Ok(false);
    }
    // Root goes no further in somebody else's folder than he could himself.
    let owner = Ids { uid: found.uid(), gid: found.gid(), groups: vec![found.gid()] };
    owner.acting(|| std::fs::remove_file(path))?.map(|()| true)
}

/// Whose is a file that nobody has locked? A process younger than the file has only got the number.
fn unlocked(file: &File, path: &Path) -> Result<Holder, Refused> {
    let Some(pid) = named(file)? else { return Ok(Holder::Nobody) };
    if pid == std::process::id().cast_signed() {
        // Ours is locked; this one was left by a process that had our number.
        return Ok(Holder::Stale(pid));
    }
    let Some(process) = Process::open(pid) else { return Ok(Holder::Stale(pid)) };
    let found = file.metadata()?;
    match (process.started(), found.modified()) {
        (Some(started), Ok(written)) if started <= written + CLOCK_SLACK => {}
        _ => return Ok(Holder::Stale(pid)),
    }
    believe(file, &process)?;
    // Who has the folder can put there what others have written.
    let folder = path.parent().map(|folder| folder.join(".").metadata()).transpose()?;
    let other = folder.map(|folder| folder.uid()).filter(|uid| ![0, found.uid()].contains(uid));
    match other {
        Some(uid) => Err(Refused::Foreign(format!(
            "a file of user {} in a folder of user {uid}, which names process {pid}",
            found.uid()
        ))),
        None => Ok(Holder::Live(process)),
    }
}

/// A file speaks for the processes of its owner only.
fn believe(file: &File, process: &Process) -> Result<(), Refused> {
    let (owner, pid) = (file.metadata()?.uid(), process.pid());
    match process.uid() {
        Some(uid) if uid == owner => Ok(()),
        // It has ended meanwhile, which whoever waits for it will see.
        None if process.is_gone() => Ok(()),
        Some(uid) => Err(Refused::Foreign(format!(
            "a file of user {owner} that names process {pid} of user {uid}"
        ))),
        None => Err(Refused::Foreign(format!(
            "a file of user {owner} that names process {pid}, whose user cannot be seen"
        ))),
    }
}

/// The number that stands in a pidfile.
fn number(file: &File) -> Option<i32> {
    parse(&text(file).ok()?)
}

/// The beginning of a file: more than a pidfile has.
fn text(mut file: &File) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    file.rewind()?;
    file.take(BYTES_MAX).read_to_end(&mut text)?;
    Ok(text)
}

/// A number and nothing else but white space.
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
    let there = path.symlink_metadata().map(inode).ok();
    there.is_some() && there == file.metadata().map(inode).ok()
}
