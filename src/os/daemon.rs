//! `--detach`: the process continues without its terminal, and its launcher learns whether it came
//! up.
//!
//! ```text
//!  launcher ──fork, setsid, fork──▶ daemon (the guard, then the worker below it)
//!     ▲  ▲──── standard error, until it is ready ────┘ │
//!     └─────── report: 0 when ready, else its exit code ┘
//! ```

use super::file;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{Mode, umask};
use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, OwnedFd};

/// Which of the two processes this is.
pub enum Side {
    /// The one that the user started: the daemon is ready (0), or ended with this code.
    Launcher(u8),
    /// The daemon, with its report to the launcher.
    Daemon(LaunchReport),
}

/// The daemon's report to its launcher. Dropped without one, when the daemon dies for instance, it
/// reports a failure.
#[derive(Debug)]
pub struct LaunchReport(PipeWriter);

/// Continues in a session of its own, in the same folder, with empty standard input and output. The
/// launcher shows its standard error until the report.
///
/// # Errors
/// No process can be started.
///
/// # Panics
/// If another thread exists: it would not exist in the daemon.
pub fn detach() -> io::Result<Side> {
    let threads = std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    assert_eq!(threads, 1, "a process detaches before any thread begins");
    let (said, stderr) = io::pipe()?;
    let (reported, report) = io::pipe()?;
    let folder = std::env::current_dir()?;
    // There is no call that only reads the mask.
    let mask = umask(Mode::empty());
    umask(mask);
    let daemon = daemonize::Daemonize::new()
        .working_directory(folder)
        .umask(mask.bits())
        .stderr(File::from(OwnedFd::from(stderr)));
    let failed = |error: daemonize::Error| io::Error::other(error.to_string());
    match daemon.execute() {
        daemonize::Outcome::Child(Ok(_)) => Ok(Side::Daemon(LaunchReport(report))),
        daemonize::Outcome::Child(Err(error)) => Err(failed(error)),
        daemonize::Outcome::Parent(Ok(_)) => {
            drop(report);
            Ok(Side::Launcher(listen(said, reported)))
        }
        daemonize::Outcome::Parent(Err(error)) => Err(failed(error)),
    }
}

/// Shows the daemon's standard error until it reports; its code.
fn listen(mut said: PipeReader, mut reported: PipeReader) -> u8 {
    let mut open = true;
    loop {
        let mut fds = vec![PollFd::new(reported.as_fd(), PollFlags::POLLIN)];
        if open {
            fds.push(PollFd::new(said.as_fd(), PollFlags::POLLIN));
        }
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return 1,
        }
        let is_set = |n: usize| fds.get(n).and_then(PollFd::any).unwrap_or(false);
        let (report, text) = (is_set(0), is_set(1));
        // What was written before the report is read before it.
        if text {
            open = show(&mut said);
        } else if report {
            let mut code = [1];
            // No byte means that it died.
            let _ = reported.read(&mut code);
            return code[0];
        }
    }
}

/// Passes on one piece; is there more to come?
fn show(said: &mut PipeReader) -> bool {
    let mut piece = [0; 4096];
    match said.read(&mut piece) {
        Ok(0) => false,
        Ok(length) => {
            // A terminal that is gone cannot be told.
            let _ = io::stderr().write_all(&piece[..length]);
            true
        }
        Err(error) => error.kind() == io::ErrorKind::Interrupted,
    }
}

impl LaunchReport {
    /// It works. From now on, standard error is discarded.
    pub fn ready(self) {
        silence();
        self.say(0);
    }

    /// It ended with this code.
    pub fn failed(self, code: u8) {
        self.say(code);
    }

    fn say(mut self, code: u8) {
        // The launcher may have been interrupted.
        let _ = self.0.write_all(&[code]);
    }
}

/// Discards standard output and error from now on.
pub fn silence() {
    let Ok(null) = file::null() else { return };
    // Their descriptors are open, so they can be replaced.
    let _ = nix::unistd::dup2_stdout(&null);
    let _ = nix::unistd::dup2_stderr(&null);
}
