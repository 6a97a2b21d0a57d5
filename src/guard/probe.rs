//! A probe: the program as it is now, which reads its settings and says whether it would start.

use super::command::WorkerCommand;
use crate::link::guard::WorkerLink;
use crate::os::reap::Termination;
use crate::os::{Pid, file};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use std::io::{self, PipeReader, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

/// Settings are read within milliseconds; a program that takes longer will never be done.
const PROBE_MAX: Duration = Duration::from_secs(10);

/// Bytes of a probe's output that are logged.
const OUTPUT_MAX: usize = 4096;

/// A running probe.
#[derive(Debug)]
pub(super) struct Probe {
    pid: Pid,
    stderr: PipeReader,
    /// By its other end the probe knows its parent.
    _link: WorkerLink,
    output: Vec<u8>,
    started: Instant,
}

impl Probe {
    /// # Errors
    /// It cannot be started.
    pub(super) fn start(command: &WorkerCommand) -> io::Result<Probe> {
        let (stderr, writer) = io::pipe()?;
        fcntl(&stderr, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let null = file::null()?;
        let (link, theirs) = WorkerLink::pair()?;
        let stdio = [null.as_fd(), null.as_fd(), writer.as_fd()];
        let pid = command.start_probe(theirs.as_fd(), stdio)?;
        Ok(Probe { pid, stderr, _link: link, output: Vec::new(), started: Instant::now() })
    }

    pub(super) fn pid(&self) -> Pid {
        self.pid
    }

    /// Where its output arrives.
    pub(super) fn stderr(&self) -> BorrowedFd<'_> {
        self.stderr.as_fd()
    }

    /// The time that is left to it.
    pub(super) fn left(&self) -> Duration {
        PROBE_MAX.saturating_sub(self.started.elapsed())
    }

    /// Reads its output so far.
    pub(super) fn read(&mut self) {
        let mut piece = [0; 1024];
        while let Ok(length @ 1..) = self.stderr.read(&mut piece) {
            if self.output.len() < OUTPUT_MAX {
                self.output.extend_from_slice(&piece[..length]);
            }
        }
    }

    pub(super) fn kill(&self) {
        // Not reaped yet, so the pid is still its own.
        let _ = kill(self.pid, Signal::SIGKILL);
    }

    /// Its result, once it has ended: why the program would not start.
    pub(super) fn result(mut self, status: Termination) -> Result<(), String> {
        self.read();
        let output = String::from_utf8_lossy(&self.output).trim().replace('\n', "; ");
        match status {
            Termination::Exited(0) => Ok(()),
            Termination::Exited(_) if !output.is_empty() => Err(output),
            Termination::Exited(code) => Err(format!("it would end with {code}")),
            Termination::Signaled(_) if self.left().is_zero() => {
                Err(format!("the settings were not read within {} s", PROBE_MAX.as_secs()))
            }
            Termination::Signaled(signal) => Err(format!("it would be killed by signal {signal}")),
        }
    }
}
