//! Reaps children, our own and adopted ones.
//!
//! Processes are started on other threads, so one may end, and be reaped, before its starter
//! learns its number. While a start is in progress, the exits of unknown children are therefore
//! kept.

use super::spawn::SpawnError;
use super::spawn::threads;
use super::{Pid, become_subreaper};
use signal_hook::SigId;
use signal_hook::consts::SIGCHLD;
use signal_hook::low_level;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap};
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::net::UnixStream as StdStream;
use std::rc::{Rc, Weak};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::net::UnixStream;
use tokio::sync::oneshot;

/// How a process ended, and what it used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessExit {
    /// By what it ended.
    pub status: Termination,
    /// Largest resident memory in bytes. 0 if it never exceeded the worker's own: the kernel
    /// also counts the worker's memory, which a process shares until it executes its program.
    pub memory_peak: u64,
    /// Processor time in user mode, its waited-for children included.
    pub user: Duration,
    /// Processor time in the kernel, its waited-for children included.
    pub system: Duration,
}

/// The two ways in which a process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Termination {
    /// By itself, with this exit code.
    Exited(i32),
    /// By this signal.
    Signaled(i32),
}

/// Starts processes, passes each one's exit to its starter, and reaps all others.
#[derive(Debug)]
pub struct Reaper {
    watched: RefCell<HashMap<i32, oneshot::Sender<ProcessExit>>>,
    /// Numbers of the starts in progress.
    starts: RefCell<BTreeSet<u64>>,
    /// The number of the latest start.
    latest: Cell<u64>,
    unknown: RefCell<Vec<Unknown>>,
    signal: SigId,
}

/// The exit of a child that nobody watches.
#[derive(Debug)]
struct Unknown {
    pid: i32,
    exit: ProcessExit,
    /// It belongs to this start or to an earlier one.
    latest: u64,
}

/// A process that was started.
#[derive(Debug)]
pub struct StartedProcess {
    /// Its number.
    pub pid: Pid,
    /// When its start began.
    pub at: Instant,
    /// Its exit, once it has ended.
    pub exit: oneshot::Receiver<ProcessExit>,
}

impl Reaper {
    /// Makes this process a subreaper and reaps children in a task of the current `LocalSet`.
    /// All children of the process belong to the reaper: nobody else may wait for one.
    ///
    /// # Errors
    /// No descriptors are left for the wake-up pipe.
    pub fn start() -> io::Result<Rc<Reaper>> {
        become_subreaper()?;
        let (ours, theirs) = StdStream::pair()?;
        ours.set_nonblocking(true)?;
        let wake = UnixStream::from_std(ours)?;
        let signal = low_level::pipe::register(SIGCHLD, theirs)?;
        let reaper = Rc::new(Reaper {
            watched: RefCell::default(),
            starts: RefCell::default(),
            latest: Cell::new(0),
            unknown: RefCell::default(),
            signal,
        });
        tokio::task::spawn_local(listen(Rc::downgrade(&reaper), wake));
        Ok(reaper)
    }

    /// Starts a process: calls `start` on a thread that lives as long as this process. If this
    /// future is dropped, the process is killed.
    ///
    /// # Errors
    /// The error of `start`, or no thread can be started.
    pub async fn spawn<F>(&self, start: F) -> Result<StartedProcess, SpawnError>
    where
        F: FnOnce() -> Result<Pid, SpawnError> + Send + 'static,
    {
        // Held until the process is watched, or will not be.
        let ticket = Ticket::take(self);
        let unclaimed = threads::start(start).await?;
        let (at, pid) = (unclaimed.at, unclaimed.claim());
        let (sender, exit) = oneshot::channel();
        let mut unknown = self.unknown.borrow_mut();
        let is_this = |child: &Unknown| child.pid == pid.as_raw() && child.latest >= ticket.number;
        match unknown.iter().position(is_this) {
            Some(place) => {
                // The receiver is right here.
                let _ = sender.send(unknown.swap_remove(place).exit);
            }
            None => {
                self.watched.borrow_mut().insert(pid.as_raw(), sender);
            }
        }
        drop(unknown);
        Ok(StartedProcess { pid, at, exit })
    }

    /// Does somebody wait for this child? Tells a task's process from a stray one.
    pub fn watches(&self, pid: Pid) -> bool {
        self.watched.borrow().contains_key(&pid.as_raw())
    }

    fn reap(&self) {
        while let WaitResult::Ended(pid, exit) = wait_any() {
            if let Some(watcher) = self.watched.borrow_mut().remove(&pid) {
                // The starter may have gone.
                let _ = watcher.send(exit);
            } else if !self.starts.borrow().is_empty() {
                self.unknown.borrow_mut().push(Unknown { pid, exit, latest: self.latest.get() });
            }
        }
    }
}

/// A start in progress.
struct Ticket<'a> {
    reaper: &'a Reaper,
    number: u64,
}

impl Ticket<'_> {
    fn take(reaper: &Reaper) -> Ticket<'_> {
        let number = reaper.latest.get() + 1;
        reaper.latest.set(number);
        reaper.starts.borrow_mut().insert(number);
        Ticket { reaper, number }
    }
}

impl Drop for Ticket<'_> {
    /// Drops the exits that no start can ask for any more: those of adopted orphans.
    fn drop(&mut self) {
        let mut starts = self.reaper.starts.borrow_mut();
        starts.remove(&self.number);
        let oldest = starts.first().copied().unwrap_or(u64::MAX);
        self.reaper.unknown.borrow_mut().retain(|child| child.latest >= oldest);
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

/// The result of [`wait_any`].
#[derive(Debug)]
pub enum WaitResult {
    /// This child had ended; it has been reaped.
    Ended(i32, ProcessExit),
    /// There are children, but none has ended.
    NoneYet,
    /// There are no children.
    NoChildren,
}

/// Reaps one ended child of this process, without waiting for one to end.
pub fn wait_any() -> WaitResult {
    let mut status = 0;
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: both pointers are to our own memory of the right type.
    match unsafe { libc::wait4(-1, &mut status, libc::WNOHANG, usage.as_mut_ptr()) } {
        0 => WaitResult::NoneYet,
        pid if pid > 0 => {
            // SAFETY: zeroed at first, which is a valid value, then filled by the kernel.
            let usage = unsafe { usage.assume_init() };
            WaitResult::Ended(pid, ProcessExit::new(status, &usage))
        }
        _ => WaitResult::NoChildren,
    }
}

impl ProcessExit {
    fn new(status: i32, usage: &libc::rusage) -> ProcessExit {
        let status = if libc::WIFSIGNALED(status) {
            Termination::Signaled(libc::WTERMSIG(status))
        } else {
            Termination::Exited(libc::WEXITSTATUS(status))
        };
        let peak = kilobytes(usage);
        ProcessExit {
            status,
            memory_peak: if exceeds_own_peak(peak) { peak } else { 0 },
            user: duration(usage.ru_utime),
            system: duration(usage.ru_stime),
        }
    }
}

/// Processor time of the calling thread so far: in user mode, and in the kernel.
pub fn time_of_thread() -> (Duration, Duration) {
    let usage = usage_of(libc::RUSAGE_THREAD);
    (duration(usage.ru_utime), duration(usage.ru_stime))
}

fn usage_of(whom: libc::c_int) -> libc::rusage {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the pointer is to our own memory; zeroes are a valid value of it.
    unsafe {
        libc::getrusage(whom, usage.as_mut_ptr());
        usage.assume_init()
    }
}

/// Is this more than the largest resident memory of this process so far? Bytes.
fn exceeds_own_peak(peak: u64) -> bool {
    // It only grows: the last value usually answers.
    static OWN: AtomicU64 = AtomicU64::new(0);
    if peak <= OWN.load(Ordering::Relaxed) {
        return false;
    }
    let own = kilobytes(&usage_of(libc::RUSAGE_SELF));
    OWN.store(own, Ordering::Relaxed);
    peak > own
}

/// `ru_maxrss`, which Linux gives in units of 1024 bytes, in bytes.
fn kilobytes(usage: &libc::rusage) -> u64 {
    u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1024
}

fn duration(time: libc::timeval) -> Duration {
    Duration::from_secs(time.tv_sec as u64) + Duration::from_micros(time.tv_usec as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::file;
    use crate::os::spawn::Spawn;
    use nix::sys::signal::kill;
    use std::ffi::CStr;
    use std::io::{Read, Write};
    use std::os::fd::{AsFd, OwnedFd};
    use tokio::task::{JoinSet, LocalSet};
    use tokio::time::timeout;

    /// Starts a shell with this text.
    fn shell(text: &'static CStr) -> impl FnOnce() -> Result<Pid, SpawnError> + Send + 'static {
        shell_with(text, file::null().unwrap(), file::null().unwrap())
    }

    /// The same, with these as its standard input and output.
    fn shell_with(
        text: &'static CStr,
        stdin: OwnedFd,
        stdout: OwnedFd,
    ) -> impl FnOnce() -> Result<Pid, SpawnError> + Send + 'static {
        move || {
            let argv = [c"sh".into(), c"-c".into(), text.into()];
            Spawn::plain(c"/bin/sh", &argv, [stdin.as_fd(), stdout.as_fd(), stdout.as_fd()]).start()
        }
    }

    fn in_loop<T>(test: impl AsyncFnOnce(Rc<Reaper>) -> T) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        LocalSet::new().block_on(&runtime, async {
            let reaper = Reaper::start().unwrap();
            timeout(Duration::from_secs(20), test(reaper)).await.expect("an end was lost")
        })
    }

    #[test]
    fn every_end_finds_its_starter() {
        in_loop(async |reaper| {
            let mut all = JoinSet::new();
            for _ in 0..300 {
                let reaper = Rc::clone(&reaper);
                all.spawn_local(async move {
                    let started = reaper.spawn(shell(c"exit 7")).await.unwrap();
                    started.exit.await.unwrap().status
                });
            }
            while let Some(status) = all.join_next().await {
                assert_eq!(status.unwrap(), Termination::Exited(7));
            }
            assert!(reaper.unknown.borrow().is_empty() && reaper.starts.borrow().is_empty());
        });
    }

    #[test]
    fn an_end_before_the_news_of_the_start_is_kept() {
        in_loop(async |reaper| {
            // The start goes on for long after the process has ended and was reaped.
            let slow = || {
                let pid = shell(c"exit 3")()?;
                while kill(pid, None).is_ok() {
                    std::thread::yield_now();
                }
                Ok(pid)
            };
            let started = reaper.spawn(slow).await.unwrap();
            assert!(!reaper.watches(started.pid));
            assert_eq!(started.exit.await.unwrap().status, Termination::Exited(3));
        });
    }

    #[test]
    fn a_start_that_nobody_waits_for_is_undone() {
        in_loop(async |reaper| {
            let (mut output, writer) = std::io::pipe().unwrap();
            let (input, _never) = std::io::pipe().unwrap();
            let start = shell_with(c"read line", input.into(), writer.into());
            tokio::select! {
                biased;
                _ = reaper.spawn(start) => panic!("nothing was to be waited for"),
                () = std::future::ready(()) => {}
            }
            // Its end closes the pipe.
            let (told, tell) = oneshot::channel();
            std::thread::spawn(move || told.send(output.read_to_end(&mut vec![])));
            tell.await.unwrap().unwrap();
        });
    }

    #[test]
    fn a_start_that_panics_costs_no_thread() {
        in_loop(async |reaper| {
            for _ in 0..20 {
                assert!(reaper.spawn(|| panic!("a test's")).await.is_err());
            }
            let started = reaper.spawn(shell(c"exit 7")).await.unwrap();
            assert_eq!(started.exit.await.unwrap().status, Termination::Exited(7));
        });
    }

    #[test]
    fn a_process_outlives_the_thread_that_asked_for_it() {
        let (input, mut asks) = std::io::pipe().unwrap();
        let (mut answers, output) = std::io::pipe().unwrap();
        let start = shell_with(c"read line; echo $line", input.into(), output.into());
        let asker = std::thread::spawn(move || {
            in_loop(async |reaper| reaper.spawn(start).await.unwrap());
            // SAFETY: takes nothing.
            unsafe { libc::gettid() }
        });
        // Its entry goes when all that the kernel does about its end is done.
        let entry = format!("/proc/self/task/{}", asker.join().unwrap());
        while std::fs::exists(&entry).unwrap() {
            std::thread::yield_now();
        }
        asks.write_all(b"alive\n").unwrap();
        let mut said = String::new();
        answers.read_to_string(&mut said).unwrap();
        assert_eq!(said, "alive\n");
    }
}
