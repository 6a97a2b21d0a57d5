//! Processes by their pid, safe against reuse of the pid.

use super::{Pid, tree};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant, SystemTime};

/// How often the end of a process is polled where the kernel has no pidfds.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A process that was alive when it was opened.
#[derive(Debug)]
pub struct Process {
    pid: i32,
    /// Never refers to another process with the same pid. `None` where the kernel has no pidfds:
    /// before 5.3, in gVisor, behind filters of system calls.
    handle: Option<OwnedFd>,
    /// When it started, in the kernel's ticks: unique together with the pid.
    start: Option<u64>,
}

impl Process {
    /// The living process with this pid. Exact for a child that was not waited for; any other pid
    /// may have been reused already.
    pub fn open(pid: i32) -> Option<Process> {
        let handle = match handle(pid) {
            Ok(handle) => Some(handle),
            Err(Errno::ESRCH) => return None,
            // A kernel without pidfds says nothing about the process.
            Err(_) => None,
        };
        let process = Process { pid, handle, start: stat(pid).map(|stat| stat.start) };
        (!process.is_gone()).then_some(process)
    }

    /// Its living children.
    pub fn children(&self) -> Vec<Process> {
        let all = tree::children(Pid::from_raw(self.pid)).into_iter();
        let all: Vec<Process> = all.filter_map(Process::open).collect();
        // If it is gone, they may be those of another process.
        if self.is_gone() { Vec::new() } else { all }
    }

    /// Its pid.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Sends a signal; false if the process is gone.
    ///
    /// # Errors
    /// We may not.
    pub fn signal(&self, signal: Signal) -> io::Result<bool> {
        let sent = match &self.handle {
            Some(handle) => send(handle, signal),
            None => Err(Errno::ENOSYS),
        };
        let sent = match sent {
            // A filter of system calls may answer with either.
            Err(Errno::ENOSYS | Errno::EPERM) if self.is_gone() => Err(Errno::ESRCH),
            Err(Errno::ENOSYS | Errno::EPERM) => kill(Pid::from_raw(self.pid), signal),
            sent => sent,
        };
        match sent {
            Ok(()) => Ok(true),
            Err(Errno::ESRCH) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until it is gone, at most for this time; is it?
    pub fn wait(&self, at_most: Duration) -> bool {
        let end = Instant::now() + at_most;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let Some(handle) = &self.handle else {
                if left.is_zero() || self.is_gone() {
                    return self.is_gone();
                }
                std::thread::sleep(left.min(LOOK_EVERY));
                continue;
            };
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            let mut fds = [PollFd::new(handle.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, timeout) {
                Ok(0) if left < Duration::from_millis(1) => return false,
                Ok(0) | Err(Errno::EINTR) => {}
                // A failed call says nothing about the process.
                Ok(_) | Err(_) => return self.is_gone(),
            }
        }
    }

    /// Has it ended? A zombie has; a process that is not visible has not.
    pub fn is_gone(&self) -> bool {
        if let Some(handle) = &self.handle {
            let mut fds = [PollFd::new(handle.as_fd(), PollFlags::POLLIN)];
            return poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0);
        }
        if kill(Pid::from_raw(self.pid), None) == Err(Errno::ESRCH) {
            return true;
        }
        let is_another = |stat: &Stat| self.start.is_some_and(|start| start != stat.start);
        stat(self.pid).is_some_and(|stat| stat.is_over || is_another(&stat))
    }

    /// The user that it runs as; `None` if it is gone, or not visible.
    pub fn uid(&self) -> Option<u32> {
        // The folder in `/proc` belongs to root until a process that changed its user executes a
        // program.
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
        line.split_ascii_whitespace().nth(1)?.parse().ok()
    }

    /// When it started.
    pub fn started(&self) -> Option<SystemTime> {
        let ticks = stat(self.pid)?.start;
        let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok()??;
        let after_boot = Duration::from_millis(ticks * 1000 / u64::try_from(per_second).ok()?);
        let uptime = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).ok()?;
        SystemTime::now().checked_sub(Duration::from(uptime))?.checked_add(after_boot)
    }

    /// Is this process a descendant of it? A task may ask about its own worker.
    pub fn is_above_us(&self) -> bool {
        let mut below = std::process::id().cast_signed();
        while below > 1 {
            if below == self.pid {
                return true;
            }
            let Some(parent) = tree::parent(below) else { return false };
            below = parent;
        }
        false
    }
}

fn handle(pid: i32) -> nix::Result<OwnedFd> {
    #[cfg(test)]
    if tests::WITHOUT_HANDLES.get() {
        return Err(Errno::ENOSYS);
    }
    // SAFETY: takes numbers only.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = Errno::result(fd)? as RawFd;
    // SAFETY: the kernel just gave us this descriptor; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn send(handle: &OwnedFd, signal: Signal) -> nix::Result<()> {
    let none = std::ptr::null_mut::<libc::siginfo_t>();
    let fd = handle.as_raw_fd();
    // SAFETY: the descriptor is open while it is borrowed; no information is passed.
    let sent = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal as i32, none, 0) };
    Errno::result(sent).map(drop)
}

/// What `/proc` says about a process in one line.
struct Stat {
    /// It is a zombie.
    is_over: bool,
    /// When it started, in ticks since the boot.
    start: u64,
}

fn stat(pid: i32) -> Option<Stat> {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    let stat = String::from_utf8_lossy(&stat);
    // The name, in parentheses, may contain anything. Fields 3 and 22.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let is_over = ["Z", "X"].contains(&fields.next()?);
    Some(Stat { is_over, start: fields.nth(18)?.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::process::Command;

    thread_local! {
        /// Makes calls of this thread behave as on a kernel without pidfds.
        pub(super) static WITHOUT_HANDLES: Cell<bool> = const { Cell::new(false) };
    }

    #[test]
    fn a_process_is_known_with_and_without_handles() {
        for without in [false, true] {
            WITHOUT_HANDLES.set(without);
            let mut child = Command::new("sleep").arg("100").spawn().unwrap();
            let process = Process::open(child.id() as i32).unwrap();
            assert_eq!(process.handle.is_none(), without);
            assert!(!process.wait(Duration::from_millis(30)) && !process.is_gone());
            assert_eq!(process.uid(), Some(nix::unistd::geteuid().as_raw()));
            assert!(process.started().unwrap() <= SystemTime::now());
            assert!(process.signal(Signal::SIGTERM).unwrap());
            // It is a zombie now.
            assert!(process.wait(Duration::from_secs(30)) && process.is_gone());
            child.wait().unwrap();
            assert!(!process.signal(Signal::SIGTERM).unwrap() && process.is_gone());
            assert!(Process::open(child.id() as i32).is_none());
            let parent = Process::open(std::os::unix::process::parent_id() as i32).unwrap();
            assert!(parent.is_above_us() && !process.is_above_us());
            // Another process that has the pid is not meant.
            let mut other = Process::open(std::process::id() as i32).unwrap();
            other.start = other.start.map(|start| start + 1);
            assert_eq!(other.is_gone(), without);
        }
    }
}
