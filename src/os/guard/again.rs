//! A restart in place (`HUP`): whether the program, as it is now, would start; and its
//! execution in this very process.

use super::{BEAT_VARIABLE, BEATS, FD_IN_WORKER, FD_VARIABLE, Guard, link, text};
use crate::os::pidfile::Pidfile;
use crate::os::reap::Status;
use crate::os::signal::FORWARDED;
use crate::os::spawn::{Spawn, SpawnError, Step, signal_set};
use crate::os::{Pid, describe, file, notify};
use nix::sys::signal::{Signal, kill};
use std::ffi::{CStr, CString, OsStr, OsString};
use std::fs::File;
use std::io::{self, PipeReader, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Tells the program that it is only to say whether it would start.
pub(super) const PROBE_VARIABLE: &str = "QWORKER_PROBE";

/// Tells the program that it goes on where another ended, and which descriptor its pidfile is.
pub(super) const AGAIN_VARIABLE: &str = "QWORKER_RESTARTED";

/// As what the file shows that one program leaves for the next.
const WILL: &CStr = c"qworker-restart";

/// Settings are read within milliseconds; a program that says nothing for so long never will.
const PROBE_MAX: Duration = Duration::from_secs(10);

/// So much of what a probe says is told.
const SAID_MAX: usize = 4096;

/// A process that says whether a new start would succeed.
pub(super) struct Probe {
    pid: Pid,
    said: PipeReader,
    /// By its other end it knows whose it is.
    _link: OwnedFd,
    text: Vec<u8>,
    begun: Instant,
}

impl Probe {
    /// Starts one.
    pub(super) fn start(
        program: &CStr,
        argv: &[CString],
        envp: &[Arc<CStr>],
        folder: &CStr,
    ) -> io::Result<Probe> {
        let (said, stderr) = io::pipe()?;
        let null = file::null()?;
        let flags = nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK);
        nix::fcntl::fcntl(&said, flags)?;
        let mut envp = envp.to_vec();
        envp.push(CString::new(format!("{PROBE_VARIABLE}=1"))?.into());
        envp.push(CString::new(format!("{FD_VARIABLE}={FD_IN_WORKER}"))?.into());
        let stdio = [null.as_fd(), null.as_fd(), stderr.as_fd()];
        let (ours, theirs) = link::pair()?;
        let spawn = Spawn {
            envp: &envp,
            cwd: Some(folder),
            inherit: Some(theirs.as_fd()),
            ..Spawn::plain(program, argv, stdio)
        };
        let pid = spawn.start().map_err(|error| named(error, program, folder))?;
        Ok(Probe { pid, said, _link: ours, text: Vec::new(), begun: Instant::now() })
    }

    /// Its number.
    pub(super) fn pid(&self) -> Pid {
        self.pid
    }

    /// Where it speaks.
    pub(super) fn said(&self) -> BorrowedFd<'_> {
        self.said.as_fd()
    }

    /// Until when it may take.
    pub(super) fn left(&self) -> Duration {
        PROBE_MAX.saturating_sub(self.begun.elapsed())
    }

    /// Reads what it has said by now.
    pub(super) fn listen(&mut self) {
        let mut piece = [0; 1024];
        while let Ok(length @ 1..) = self.said.read(&mut piece) {
            if self.text.len() < SAID_MAX {
                self.text.extend_from_slice(&piece[..length]);
            }
        }
    }

    /// It has taken too long.
    pub(super) fn kill(&self) {
        // Not yet waited for, so the number is still its own.
        let _ = kill(self.pid, Signal::SIGKILL);
    }

    /// Its verdict, once it has ended: why a new start would fail.
    pub(super) fn verdict(mut self, status: Status) -> Result<(), String> {
        self.listen();
        let text = String::from_utf8_lossy(&self.text).trim().replace('\n', "; ");
        match status {
            Status::Exited(0) => Ok(()),
            Status::Exited(_) if !text.is_empty() => Err(text),
            Status::Exited(code) => Err(format!("it would end with {code}")),
            Status::Signaled(_) if self.begun.elapsed() >= PROBE_MAX => {
                Err(format!("the settings were not read within {} s", PROBE_MAX.as_secs()))
            }
            Status::Signaled(signal) => Err(format!("it would be killed by signal {signal}")),
        }
    }
}

/// Why a start failed, with the name of what it failed at.
pub(super) fn named(error: SpawnError, program: &CStr, folder: &CStr) -> io::Error {
    let what = match error.step {
        Step::Execute => program,
        Step::Folder => folder,
        _ => return io::Error::other(error),
    };
    io::Error::other(format!("{}: {}", what.to_string_lossy(), describe(error.errno)))
}

/// The file that a restart executes: what the first word of the command line names now, so
/// that a link to the current version, or a file that was replaced, is followed anew.
pub(super) fn program(name: &OsStr) -> io::Result<CString> {
    let path = Path::new(name);
    let found = if path.components().count() > 1 {
        std::path::absolute(path).ok()
    } else {
        let search = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&search).map(|folder| folder.join(path)).find(|file| file.is_file())
    };
    let found = found.filter(|file| file.is_file());
    let own = || std::env::current_exe().unwrap_or_else(|_| PathBuf::from("/proc/self/exe"));
    text(found.unwrap_or_else(own).as_os_str())
}

/// Executes `program` in this process and in this folder; the pidfile stays ours. Returns only if
/// that fails.
pub(super) fn execute(
    program: &CStr,
    argv: &[CString],
    envp: &[Arc<CStr>],
    folder: &CStr,
    pidfile: Option<&Pidfile>,
) -> io::Error {
    let will = nix::unistd::chdir(folder).map_err(io::Error::from).and_then(|()| {
        let pidfile = pidfile.map(Pidfile::bequeath).transpose()?;
        let will = leave(pidfile)?;
        Ok((CString::new(format!("{AGAIN_VARIABLE}={}", will.as_raw_fd()))?, will))
    });
    // Open until then.
    let (said, _will) = match will {
        Ok(will) => will,
        Err(error) => return error,
    };
    let mut envp: Vec<&CStr> = envp.iter().map(AsRef::as_ref).collect();
    envp.push(&said);
    // Until the next guard listens: the default of these would end it.
    let set = signal_set(&FORWARDED);
    // SAFETY: the set is our own plain memory.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) };
    let Err(error) = nix::unistd::execve(program, argv, &envp);
    // SAFETY: as above.
    unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, &set, std::ptr::null_mut()) };
    pidfile.inspect(|pidfile| pidfile.keep());
    error.into()
}

/// What the program before leaves in this process, and no other process can: a file in memory that
/// names the process and the descriptor of its pidfile. The next program inherits it.
fn leave(pidfile: Option<RawFd>) -> io::Result<File> {
    let will = file::in_memory_as(WILL)?;
    let fd = pidfile.map_or("-".to_string(), |fd| fd.to_string());
    will.write_all_at(format!("{} {fd}", std::process::id()).as_bytes(), 0)?;
    nix::fcntl::fcntl(&will, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty()))?;
    Ok(will)
}

/// The descriptor of the pidfile that [`execute`] has left for this program; `None` within if
/// there is none, `None` if this is no restart.
pub(super) fn inherited() -> Option<Option<RawFd>> {
    let fd: RawFd = link::take_variable(AGAIN_VARIABLE)?.parse().ok()?;
    let shown = std::fs::read_link(format!("/proc/self/fd/{fd}")).ok()?;
    let ours = format!("/memfd:{} (deleted)", WILL.to_str().ok()?);
    if shown.as_os_str() != OsStr::new(&ours) {
        return None;
    }
    // SAFETY: it is open, and was left for us to own.
    let mut will = unsafe { File::from_raw_fd(fd) };
    let mut text = String::new();
    will.read_to_string(&mut text).ok()?;
    let (pid, pidfile) = text.split_once(' ')?;
    (pid == std::process::id().to_string()).then(|| pidfile.parse().ok())
}

/// All variables of this process but those that are between guard and worker, `NAME=value`.
pub(super) fn environment() -> io::Result<Vec<Arc<CStr>>> {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let ours = [super::FD_VARIABLE, super::BEAT_VARIABLE, PROBE_VARIABLE, AGAIN_VARIABLE];
    std::env::vars_os()
        .filter(|(name, _)| !ours.iter().any(|ours| name == ours))
        .map(|(name, value)| {
            let entry = [name.as_bytes(), b"=", value.as_bytes()].concat();
            Ok(text(&OsString::from_vec(entry))?.into())
        })
        .collect()
}

/// The variables of a worker: what is for its guard alone it does not get, and so no task. It is to
/// beat some times within `patience`.
pub(super) fn of_worker(
    environment: &[Arc<CStr>],
    patience: Option<Duration>,
) -> io::Result<Vec<Arc<CStr>>> {
    let mut envp = vec![CString::new(format!("{FD_VARIABLE}={FD_IN_WORKER}"))?.into()];
    if let Some(patience) = patience {
        let every = (patience / BEATS).as_millis();
        envp.push(CString::new(format!("{BEAT_VARIABLE}={every}"))?.into());
    }
    let is_ours = |entry: &CStr| {
        let name = entry.to_bytes().split(|byte| *byte == b'=').next().unwrap_or_default();
        notify::VARIABLES.iter().any(|ours| ours.as_bytes() == name)
    };
    envp.extend(environment.iter().filter(|entry| !is_ours(entry)).cloned());
    Ok(envp)
}

impl<N: Fn(&str)> Guard<N> {
    /// First of all a new start has to be possible.
    pub(super) fn try_again(&mut self) {
        if self.ending || self.restarting || self.probe.is_some() {
            return;
        }
        self.manager.reloading();
        match Probe::start(&self.next, &self.argv, &self.environment, &self.folder) {
            Ok(probe) => self.probe = Some(probe),
            Err(error) => self.refuse(&error.to_string()),
        }
    }

    fn refuse(&self, why: &str) {
        (self.note)(&format!("restart refused, the worker goes on: {why}"));
        self.manager.tell("READY=1");
    }

    /// Somebody ended; if it is the probe, it says whether the worker is to make room.
    pub(super) fn hear_probe(&mut self, pid: i32, status: Status, worker: Pid) {
        let Some(probe) = self.probe.take_if(|probe| probe.pid().as_raw() == pid) else { return };
        if self.ending {
            return;
        }
        match probe.verdict(status) {
            Ok(()) => {
                self.restarting = true;
                // Not yet waited for, so the number is still the worker's.
                let _ = kill(worker, Signal::SIGHUP);
            }
            Err(why) => self.refuse(&why),
        }
    }
}
