//! The guard: the small process above the worker that survives it.
//!
//! Whichever of the two is killed, by the kernel's memory killer say, the other ends every
//! process of every task: the guard because all orphans become its children, the
//! worker because its end of their socket closes. The guard has one thread and no
//! state but its worker's number and leases, so that there is little in it that could fail.

mod link;

pub use link::GuardLink;

use super::Pid;
use super::become_subreaper;
use super::lease::Lease;
use super::reap::{Status, Waited, wait_any};
use super::signal::FORWARDED;
use super::spawn::{Orphan, Spawn};
use super::tree::kill_all_descendants_of_self;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};
use signal_hook::consts::{SIGCHLD, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::{flag, low_level};
use std::collections::VecDeque;
use std::ffi::{CStr, CString, OsStr, OsString};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Tells the worker that it has a guard, and on which descriptor.
const FD_VARIABLE: &str = "QWORKER_GUARD_FD";

/// Which descriptor that is: the first after the standard streams.
const FD_IN_WORKER: i32 = 3;

/// A worker that dies more often than this within [`DEATHS_WINDOW`] will not recover by
/// being started once more.
const DEATHS_MAX: usize = 5;

/// How long a death is counted.
const DEATHS_WINDOW: Duration = Duration::from_secs(10);

/// Pause before the first new start; it doubles with each death in the window.
const RESTART_DELAY: Duration = Duration::from_millis(100);

/// After so long with killed processes still there (they hang in the kernel, in a dead
/// network file system for instance) the guard says so, and goes on waiting.
const LAST_RITES: Duration = Duration::from_secs(10);

/// A request is a path, and those have at most 4096 bytes.
const REQUEST_BYTES: usize = 4096;

/// Runs the worker, this same program with these arguments (the name first), for as long
/// as it takes; returns the exit code for this process. `note` gets a sentence when
/// something out of the ordinary happened.
///
/// # Panics
/// If a thread has been started already: the guard must not share its signals.
pub fn run(argv: &[OsString], note: impl Fn(&str)) -> i32 {
    let threads = std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    assert_eq!(threads, 1, "the guard must begin before any thread does");
    match Guard::begin(argv, note) {
        Ok(mut guard) => guard.keep_running(),
        Err((error, note)) => {
            note(&format!("cannot guard a worker: {error}"));
            1
        }
    }
}

/// The worker's side: the link to the guard that started this process, if one did. Call it
/// first of all, before any thread exists. The worker then adopts orphans, and may
/// write to the terminal although the guard's process group has it.
pub fn join() -> Option<GuardLink> {
    link::join()
}

struct Guard<N> {
    note: N,
    program: CString,
    argv: Vec<CString>,
    envp: Vec<Arc<CStr>>,
    arrived: Vec<(i32, Arc<AtomicBool>)>,
    wake: UnixStream,
    deaths: VecDeque<Instant>,
    /// Somebody asked the worker to end: it will not be started again.
    ending: bool,
}

/// One life of the worker.
struct Worker {
    pid: Pid,
    link: OwnedFd,
    /// The leases that it asked us to hold too.
    leases: Vec<Lease>,
}

impl<N: Fn(&str)> Guard<N> {
    fn begin(argv: &[OsString], note: N) -> Result<Guard<N>, (io::Error, N)> {
        let prepare = || -> io::Result<_> {
            become_subreaper()?;
            let (wake, theirs) = UnixStream::pair()?;
            wake.set_nonblocking(true)?;
            let mut arrived = Vec::new();
            for signal in FORWARDED {
                let flag = Arc::new(AtomicBool::new(false));
                flag::register(signal, Arc::clone(&flag))?;
                low_level::pipe::register(signal, theirs.try_clone()?)?;
                arrived.push((signal, flag));
            }
            low_level::pipe::register(SIGCHLD, theirs)?;
            let argv = argv.iter().map(|word| text(word)).collect::<io::Result<_>>()?;
            let link = CString::new(format!("{FD_VARIABLE}={FD_IN_WORKER}"))?;
            let mut envp: Vec<Arc<CStr>> = vec![link.into()];
            for (name, value) in std::env::vars_os().filter(|(name, _)| name != FD_VARIABLE) {
                envp.push(
                    text(&OsString::from_vec([name.as_bytes(), b"=", value.as_bytes()].concat()))?
                        .into(),
                );
            }
            // The link and not what it points to: the very file we run, even if it was
            // replaced by a new version meanwhile.
            Ok((CString::new("/proc/self/exe")?, argv, envp, arrived, wake))
        };
        match prepare() {
            Ok((program, argv, envp, arrived, wake)) => Ok(Guard {
                note,
                program,
                argv,
                envp,
                arrived,
                wake,
                deaths: VecDeque::new(),
                ending: false,
            }),
            Err(error) => Err((error, note)),
        }
    }

    /// One worker after the other, until one exits, or too many died.
    fn keep_running(&mut self) -> i32 {
        loop {
            let mut worker = match self.start() {
                Ok(worker) => worker,
                Err(error) => {
                    (self.note)(&format!("cannot start a worker: {error}"));
                    return 1;
                }
            };
            let status = self.attend(&mut worker);
            self.bury_all();
            // Only now: a lease that can be locked says that no process of a task is left.
            drop(worker);
            match status {
                Status::Exited(code) => return code,
                Status::Signaled(signal) => {
                    if let Some(code) = self.after_death(signal) {
                        return code;
                    }
                }
            }
        }
    }

    /// Starts a worker in its own process group: what a terminal sends arrives here
    /// only, and is passed on once.
    fn start(&self) -> io::Result<Worker> {
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
        let spawn = Spawn {
            program: &self.program,
            argv: &self.argv,
            envp: &self.envp,
            cwd: None,
            stdio: [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()],
            inherit: Some(theirs.as_fd()),
            rlimits: &[],
            nice: None,
            ids: None,
            // Kept back until the worker listens, or an early one would kill it.
            blocked: &FORWARDED,
            // It has to end its tasks when we die, and ends itself afterwards.
            orphan: Orphan::Lives,
        };
        Ok(Worker { pid: spawn.start()?, link: ours, leases: vec![] })
    }

    /// Passes on signals and serves the link until the worker is dead.
    fn attend(&mut self, worker: &mut Worker) -> Status {
        let mut linked = true;
        loop {
            self.forward(worker.pid);
            if let Some(status) = bury_ended(worker.pid) {
                return status;
            }
            if self.sleep(linked.then_some(&worker.link), None) {
                linked = worker.answer();
            }
        }
    }

    fn forward(&mut self, worker: Pid) {
        for (signal, arrived) in &self.arrived {
            if arrived.swap(false, Ordering::SeqCst) {
                self.ending |= [SIGTERM, SIGINT, SIGQUIT].contains(signal);
                if let Ok(signal) = Signal::try_from(*signal) {
                    // Not yet waited for, so the number is still the worker's.
                    let _ = kill(worker, signal);
                }
            }
        }
    }

    /// Sleeps until a signal arrives or the link has something (then true).
    fn sleep(&mut self, link: Option<&OwnedFd>, at_most: Option<Duration>) -> bool {
        let timeout =
            at_most.and_then(|time| PollTimeout::try_from(time).ok()).unwrap_or(PollTimeout::NONE);
        let wake = self.wake.as_fd();
        let mut fds: Vec<PollFd<'_>> = [Some(wake), link.map(AsFd::as_fd)]
            .into_iter()
            .flatten()
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .collect();
        // An interruption is a signal, which is what we wait for.
        let _ = poll(&mut fds, timeout);
        let asked = fds.get(1).and_then(PollFd::any).unwrap_or(false);
        let _ = (&self.wake).read(&mut [0; 256]);
        asked
    }

    /// Ends all that is left of a worker.
    fn bury_all(&self) {
        while !kill_all_descendants_of_self(LAST_RITES) {
            (self.note)("processes of tasks were killed but do not end; waiting for them");
        }
    }

    /// The worker died by a signal: start another (`None`), or end with an exit code?
    fn after_death(&mut self, signal: i32) -> Option<i32> {
        let name = Signal::try_from(signal).map_or("unknown signal", Signal::as_str);
        if self.ending {
            (self.note)(&format!("worker ended by {name} while stopping"));
            return Some(128 + signal);
        }
        let now = Instant::now();
        self.deaths.push_back(now);
        self.deaths.retain(|&death| now - death < DEATHS_WINDOW);
        let count = self.deaths.len();
        if count > DEATHS_MAX {
            (self.note)(&format!(
                "worker killed by {name}, death {count} within {} s; giving up",
                DEATHS_WINDOW.as_secs()
            ));
            return Some(1);
        }
        (self.note)(&format!(
            "worker killed by {name}; its tasks were ended, starting a new worker"
        ));
        self.pause(RESTART_DELAY * (1 << (count - 1)))
    }

    /// Waits before a new start; an exit code if we are told to end meanwhile.
    fn pause(&mut self, delay: Duration) -> Option<i32> {
        let end = Instant::now() + delay;
        loop {
            let asked_to_end = |(signal, arrived): &(i32, Arc<AtomicBool>)| {
                [SIGTERM, SIGINT, SIGQUIT].contains(signal) && arrived.load(Ordering::SeqCst)
            };
            if self.arrived.iter().any(asked_to_end) {
                return Some(0);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            // A whole millisecond at least, or the last one would be spent spinning.
            self.sleep(None, Some(left.max(Duration::from_millis(1))));
        }
    }
}

impl Worker {
    /// Serves one request: "hold this lease too". False when the worker has hung up.
    fn answer(&mut self) -> bool {
        let fd = self.link.as_raw_fd();
        let mut request = [0; REQUEST_BYTES];
        let length = match recv(fd, &mut request, MsgFlags::MSG_DONTWAIT) {
            Ok(0) => return false,
            Ok(length) => length,
            Err(nix::Error::EAGAIN | nix::Error::EINTR) => return true,
            Err(_) => return false,
        };
        let errno = match Lease::hold(Path::new(OsStr::from_bytes(&request[..length]))) {
            Ok(lease) => {
                self.leases.push(lease);
                0
            }
            Err(error) => error.raw_os_error().unwrap_or(libc::EIO),
        };
        send(fd, &errno.to_ne_bytes(), MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL).is_ok()
    }
}

/// Buries whoever has ended; the worker's end if it is among them.
fn bury_ended(worker: Pid) -> Option<Status> {
    let mut status = None;
    while let Waited::Ended(pid, exit) = wait_any() {
        if pid == worker.as_raw() {
            status = Some(exit.status);
        }
    }
    status
}

fn text(word: &OsStr) -> io::Result<CString> {
    CString::new(word.as_bytes()).map_err(io::Error::from)
}
