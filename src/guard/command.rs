//! The program that a guard runs: as a worker below it, as a probe, or in its own place.

use super::{PROBE_VARIABLE, RESTARTED_VARIABLE, VARIABLES};
use crate::link::guard::{FD, FD_VARIABLE, HEARTBEAT_VARIABLE};
use crate::os::pidfile::Pidfile;
use crate::os::signal::FORWARDED;
use crate::os::spawn::{ChildSetup, Orphan, Spawn, SpawnError};
use crate::os::{Pid, describe, environment, exec, sd_notify, which};
use std::ffi::{CStr, CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Heartbeats within the time after which the service manager considers the worker stuck.
const HEARTBEATS: u32 = 4;

/// A program with its command line.
#[derive(Debug)]
pub(super) struct WorkerCommand {
    /// What a worker executes.
    program: CString,
    /// What a probe and a restart execute.
    next: CString,
    argv: Vec<CString>,
    folder: CString,
    /// That of this process, without [`VARIABLES`].
    environment: Vec<Arc<CStr>>,
}

impl WorkerCommand {
    /// # Errors
    /// A word has a NUL in it.
    pub(super) fn new(
        argv: &[OsString],
        executable: Option<&Path>,
        folder: &Path,
    ) -> io::Result<WorkerCommand> {
        let c_text = |word: &OsStr| CString::new(word.as_bytes()).map_err(io::Error::from);
        let (program, next) = match executable {
            Some(path) => (path.to_path_buf(), path.to_path_buf()),
            // The link, and not its target: the very file that runs, even if it was replaced by
            // another version meanwhile.
            None => {
                let name = argv.first().map_or(OsStr::new(""), AsRef::as_ref);
                (PathBuf::from("/proc/self/exe"), which::own_program(name))
            }
        };
        Ok(WorkerCommand {
            program: c_text(program.as_os_str())?,
            next: c_text(next.as_os_str())?,
            argv: argv.iter().map(|word| c_text(word)).collect::<io::Result<_>>()?,
            folder: c_text(folder.as_os_str())?,
            environment: environment::all_but(&VARIABLES),
        })
    }

    /// Starts a worker in a session of its own, with this end of the link. A terminal's signals
    /// then reach the guard alone, which passes them on once. `heartbeat` is the time in which
    /// the service manager expects one.
    ///
    /// # Errors
    /// Names the file or folder.
    pub(super) fn start_worker(
        &self,
        link: BorrowedFd<'_>,
        heartbeat: Option<Duration>,
        log: &dyn Fn(&str),
    ) -> io::Result<Pid> {
        let mut envp = vec![entry(FD_VARIABLE, FD)?];
        if let Some(patience) = heartbeat {
            envp.push(entry(HEARTBEAT_VARIABLE, (patience / HEARTBEATS).as_millis())?);
        }
        // What is meant for the guard alone reaches neither the worker nor its tasks.
        let inherited = self.environment.iter().filter(|entry| {
            let name = entry.to_bytes().split(|byte| *byte == b'=').next().unwrap_or_default();
            !sd_notify::VARIABLES.iter().any(|ours| ours.as_bytes() == name)
        });
        envp.extend(inherited.cloned());
        let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
        let stdio = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()];
        let spawn = Spawn {
            envp: &envp,
            cwd: Some(&self.folder),
            inherit: Some(link),
            // Until the worker listens, an early signal would kill it.
            blocked: &FORWARDED,
            // Without a terminal, or a task that reads from it would be stopped for ever. Not a
            // session for each task: the kernel shares the processor among sessions, so nice
            // would mean nothing among tasks, and the worker would get one share of many.
            new_session: true,
            // It has to end its tasks when we die, and then ends itself.
            orphan: Orphan::Lives,
            ..Spawn::plain(&self.program, &self.argv, stdio)
        };
        let started = match spawn.start() {
            Err(SpawnError { step: ChildSetup::Folder, errno }) => {
                let (folder, why) = (self.folder.to_string_lossy(), describe(errno));
                log(&format!("cannot enter {folder}: {why}; a worker starts where we are"));
                Spawn { cwd: None, ..spawn }.start()
            }
            started => started,
        };
        started.map_err(|error| self.named(error, &self.program))
    }

    /// Starts a probe, with this end of the link and these standard streams.
    ///
    /// # Errors
    /// Names the file or folder.
    pub(super) fn start_probe(
        &self,
        link: BorrowedFd<'_>,
        stdio: [BorrowedFd<'_>; 3],
    ) -> io::Result<Pid> {
        let mut envp = self.environment.clone();
        envp.extend([entry(PROBE_VARIABLE, 1)?, entry(FD_VARIABLE, FD)?]);
        let spawn = Spawn {
            envp: &envp,
            cwd: Some(&self.folder),
            inherit: Some(link),
            ..Spawn::plain(&self.next, &self.argv, stdio)
        };
        spawn.start().map_err(|error| self.named(error, &self.next))
    }

    /// Executes the program as it is now in this process; the pidfile stays ours. Returns why
    /// that failed.
    pub(super) fn execute(&self, pidfile: Option<&Pidfile>) -> String {
        let prepared = nix::unistd::chdir(self.folder.as_c_str())
            .map_err(io::Error::from)
            .and_then(|()| pidfile.map(Pidfile::bequeath).transpose());
        let error = match prepared {
            Ok(fd) => {
                let text = fd.map_or("-".to_string(), |fd| fd.to_string());
                let (program, argv) = (&self.next, &self.argv);
                exec::execute(program, argv, &self.environment, RESTARTED_VARIABLE, &text)
            }
            Err(error) => error,
        };
        pidfile.inspect(|pidfile| pidfile.keep());
        let (program, folder) = (self.next.to_string_lossy(), self.folder.to_string_lossy());
        format!("cannot execute {program} in {folder}: {error}")
    }

    /// A failed start, with the name of what failed.
    fn named(&self, error: SpawnError, program: &CStr) -> io::Error {
        let what = match error.step {
            ChildSetup::Execute => program,
            ChildSetup::Folder => &self.folder,
            _ => return io::Error::other(error),
        };
        io::Error::other(format!("{}: {}", what.to_string_lossy(), describe(error.errno)))
    }
}

/// `NAME=value`.
fn entry(name: &str, value: impl std::fmt::Display) -> io::Result<Arc<CStr>> {
    Ok(CString::new(format!("{name}={value}"))?.into())
}
