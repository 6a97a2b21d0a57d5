//! Collects ended children, ours and those we adopted.
//!
//! One owner, one thread. A child may end before anyone watches it; it stays a zombie
//! until the reaper's own task runs, so whoever starts a process calls
//! [`Reaper::watch`] before its next `await`.

use super::{Pid, become_subreaper};
use signal_hook::SigId;
use signal_hook::consts::SIGCHLD;
use signal_hook::low_level;
use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::net::UnixStream as StdStream;
use std::rc::{Rc, Weak};
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::sync::oneshot;

/// How a process ended, and what it used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// What ended it.
    pub status: Status,
    /// Largest resident memory in bytes. 0 if it never exceeded the worker's own: the
    /// kernel counts the memory that a process borrows between its start and its
    /// program, so a smaller figure is not to be had.
    pub memory_peak: u64,
    /// Processor time in user mode, its waited-for children included.
    pub user: Duration,
    /// Processor time in the kernel, its waited-for children included.
    pub system: Duration,
}

/// The two ways in which a process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// By itself, with this exit code.
    Exited(i32),
    /// By this signal.
    Signaled(i32),
}

/// Hands each watched process's end to whoever watches it, and buries all others.
#[derive(Debug)]
pub struct Reaper {
    watched: RefCell<HashMap<i32, oneshot::Sender<Exit>>>,
    signal: SigId,
}

impl Reaper {
    /// Makes this process a subreaper and begins to listen for ended children, in a task
    /// of the current `LocalSet`. Must be on the main thread to get adopted orphans; on
    /// another one it sees that thread's children only.
    ///
    /// # Errors
    /// No descriptors are left for the wake-up pipe.
    pub fn start() -> io::Result<Rc<Reaper>> {
        become_subreaper()?;
        let (ours, theirs) = StdStream::pair()?;
        ours.set_nonblocking(true)?;
        let wake = UnixStream::from_std(ours)?;
        let signal = low_level::pipe::register(SIGCHLD, theirs)?;
        let reaper = Rc::new(Reaper { watched: RefCell::default(), signal });
        tokio::task::spawn_local(listen(Rc::downgrade(&reaper), wake));
        Ok(reaper)
    }

    /// The end of `pid`, a child of this process that has not been waited for.
    pub fn watch(&self, pid: Pid) -> oneshot::Receiver<Exit> {
        let (sender, receiver) = oneshot::channel();
        self.watched.borrow_mut().insert(pid.as_raw(), sender);
        receiver
    }

    /// Is it a child that somebody watches? With this a task's group is told from a stray.
    pub fn watches(&self, pid: Pid) -> bool {
        self.watched.borrow().contains_key(&pid.as_raw())
    }

    fn reap(&self) {
        while let Waited::Ended(pid, exit) = wait_any(Whose::ThisThread) {
            if let Some(watcher) = self.watched.borrow_mut().remove(&pid) {
                // Nobody may be interested any more.
                let _ = watcher.send(exit);
            }
        }
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        // Closes the other end of the pipe, which ends the listening task.
        low_level::unregister(self.signal);
    }
}

async fn listen(reaper: Weak<Reaper>, wake: UnixStream) {
    let mut bytes = [0; 256];
    while wake.readable().await.is_ok() {
        match wake.try_read(&mut bytes) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(_) => return,
        }
        let Some(reaper) = reaper.upgrade() else { return };
        reaper.reap();
    }
}

/// Which children [`wait_any`] looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    /// Those that this thread started or adopted.
    ThisThread,
    /// Those of the whole process.
    ThisProcess,
}

/// What [`wait_any`] found.
#[derive(Debug)]
pub(super) enum Waited {
    /// This child had ended; it is buried now.
    Ended(i32, Exit),
    /// Children there are, but none has ended.
    NoneYet,
    /// There are no children.
    NoChildren,
}

/// Buries one ended child, without waiting for one to end.
pub(super) fn wait_any(whose: Whose) -> Waited {
    let flags = match whose {
        Whose::ThisThread => libc::WNOHANG | libc::__WNOTHREAD,
        Whose::ThisProcess => libc::WNOHANG,
    };
    let mut status = 0;
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: both pointers are to our own memory of the right type.
    match unsafe { libc::wait4(-1, &mut status, flags, usage.as_mut_ptr()) } {
        0 => Waited::NoneYet,
        pid if pid > 0 => {
            // SAFETY: zeroed at first, which is a valid value, then filled by the kernel.
            let usage = unsafe { usage.assume_init() };
            Waited::Ended(pid, Exit::new(status, &usage))
        }
        _ => Waited::NoChildren,
    }
}

impl Exit {
    fn new(status: i32, usage: &libc::rusage) -> Exit {
        let status = if libc::WIFSIGNALED(status) {
            Status::Signaled(libc::WTERMSIG(status))
        } else {
            Status::Exited(libc::WEXITSTATUS(status))
        };
        let peak = kilobytes(usage);
        Exit {
            status,
            memory_peak: if peak > own_peak() { peak } else { 0 },
            user: duration(usage.ru_utime),
            system: duration(usage.ru_stime),
        }
    }
}

/// The largest resident memory of this process so far, in bytes.
fn own_peak() -> u64 {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the pointer is to our own memory; zeroes are a valid value of it.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
        usage.assume_init()
    };
    kilobytes(&usage)
}

/// `ru_maxrss`, which Linux gives in units of 1024 bytes, in bytes.
fn kilobytes(usage: &libc::rusage) -> u64 {
    u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1024
}

fn duration(time: libc::timeval) -> Duration {
    Duration::from_secs(time.tv_sec as u64) + Duration::from_micros(time.tv_usec as u64)
}
