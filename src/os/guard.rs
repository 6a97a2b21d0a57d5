//! The guard: the small process above the worker that survives it.
//!
//! Whichever of the two is killed, by the kernel's memory killer say, the other ends every
//! process of every task: the guard because all orphans become its children, the
//! worker because its end of their socket closes. The guard is also what the outside knows:
//! its number is in the pidfile, it speaks with the service manager, and it is the process
//! that stays when the worker is restarted in place. It has one thread and little state, so
//! that there is little in it that could fail.

mod again;
mod link;

pub use link::GuardLink;

use super::Pid;
use super::cgroup::clear_abandoned;
use super::daemon::Report;
use super::lease::Lease;
use super::memory::forget_start;
use super::notify::Manager;
use super::pidfile::Pidfile;
use super::reap::{Status, Waited, wait_any};
use super::signal::{FORWARDED, ends_by_hup, unblock};
use super::spawn::{Orphan, Spawn, SpawnError, Step};
use super::tree::kill_all_descendants_of_self;
use super::{become_subreaper, describe};
use again::Probe;
use link::Word;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{MsgFlags, recv, send};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::{flag, low_level};
use std::collections::VecDeque;
use std::ffi::{CStr, CString, OsStr, OsString};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Tells the worker that it has a guard, and on which descriptor.
const FD_VARIABLE: &str = "QWORKER_GUARD_FD";

/// Tells the worker how often its beat is awaited, in milliseconds.
const BEAT_VARIABLE: &str = "QWORKER_BEAT";

/// Variables that pass between a guard, its worker and the programs that go on in their places.
pub const VARIABLES: [&str; 4] =
    [FD_VARIABLE, BEAT_VARIABLE, again::PROBE_VARIABLE, again::AGAIN_VARIABLE];

/// So often within the service manager's patience a beat is passed on.
const BEATS: u32 = 4;

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

/// A packet is a letter and a path, and those have at most 4096 bytes.
const REQUEST_BYTES: usize = 4097;

/// What a guard is to do.
#[derive(Debug)]
pub struct Orders {
    /// The command line, the name first.
    pub argv: Vec<OsString>,
    /// Another program than this one, for the worker and for restarts.
    pub executable: Option<PathBuf>,
    /// Where the worker is started, and started anew: looked up by this name each time.
    pub folder: PathBuf,
    /// Removed in the end.
    pub pidfile: Option<Pidfile>,
    /// Who waits until the worker is ready.
    pub launcher: Option<Report>,
}

/// As what this process was started.
#[derive(Debug)]
pub enum Role {
    /// By a user, or a service manager.
    Fresh,
    /// As a worker, by its guard.
    Worker(GuardLink),
    /// To say whether it would start, and no more.
    Probe,
    /// In the place of an earlier guard, whose pidfile has this descriptor.
    Again(Option<RawFd>),
}

/// Runs the worker with these orders for as long as it takes; returns the exit code for
/// this process. `note` gets a sentence when something out of the ordinary happened.
///
/// # Panics
/// If a thread has been started already: the guard must not share its signals.
pub fn run(orders: Orders, note: impl Fn(&str)) -> i32 {
    let threads = std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    assert_eq!(threads, 1, "the guard must begin before any thread does");
    match Guard::begin(orders, note) {
        Ok(mut guard) => guard.keep_running(),
        Err((error, note)) => {
            note(&format!("cannot guard a worker: {error}"));
            1
        }
    }
}

/// What this process is to be. Call it first of all, before any thread exists. A worker then
/// adopts orphans.
///
/// Anybody may set variables, so they only say where to look: a worker and a probe have a socket
/// that their parent has made, and who goes on in the place of another has a file of its own process.
pub fn role() -> Role {
    let again = again::inherited();
    let probe = link::take_variable(again::PROBE_VARIABLE).is_some();
    match (link::join(), again) {
        (Some(_), _) if probe => Role::Probe,
        (Some(link), _) => Role::Worker(link),
        (None, Some(pidfile)) => Role::Again(pidfile),
        (None, None) => Role::Fresh,
    }
}

struct Guard<N> {
    note: N,
    /// What the worker executes.
    program: CString,
    /// What a restart executes.
    next: CString,
    argv: Vec<CString>,
    folder: CString,
    /// Ours, and a restart's.
    environment: Vec<Arc<CStr>>,
    arrived: Vec<(i32, Arc<AtomicBool>)>,
    wake: UnixStream,
    deaths: VecDeque<Instant>,
    pidfile: Option<Pidfile>,
    launcher: Option<Report>,
    manager: Manager,
    probe: Option<Probe>,
    /// When the worker has ended, the program is executed anew.
    restarting: bool,
    /// Somebody asked the worker to end: it will not be started again.
    ending: bool,
    /// The signals that ask for that.
    ends: Vec<i32>,
}

/// One life of the worker.
struct Worker {
    pid: Pid,
    link: OwnedFd,
    /// The leases that it asked us to hold too.
    leases: Vec<Lease>,
}

impl<N: Fn(&str)> Guard<N> {
    fn begin(orders: Orders, note: N) -> Result<Guard<N>, (io::Error, N)> {
        let Orders { argv, executable, folder, pidfile, launcher } = orders;
        // Asked now: a terminal that is closed is none any more.
        let hup = ends_by_hup().then_some(SIGHUP);
        let ends = [SIGTERM, SIGINT, SIGQUIT].into_iter().chain(hup).collect();
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
            // A guard before us in this process has kept them back.
            unblock();
            let words = argv.iter().map(|word| text(word)).collect::<io::Result<Vec<_>>>()?;
            // The link and not what it points to: the very file we run, even if it was
            // replaced by a new version meanwhile.
            let own = CString::new("/proc/self/exe")?;
            let (program, next) = match &executable {
                Some(path) => (text(path.as_os_str())?, text(path.as_os_str())?),
                None => (own, again::program(argv.first().map_or(OsStr::new(""), AsRef::as_ref))?),
            };
            let folder = text(folder.as_os_str())?;
            Ok((program, next, words, folder, again::environment()?, arrived, wake))
        };
        match prepare() {
            Ok((program, next, argv, folder, environment, arrived, wake)) => Ok(Guard {
                note,
                program,
                next,
                argv,
                folder,
                environment,
                arrived,
                wake,
                deaths: VecDeque::new(),
                pidfile,
                launcher,
                manager: Manager::of_environment(),
                probe: None,
                restarting: false,
                ending: false,
                ends,
            }),
            Err(error) => Err((error, note)),
        }
    }

    /// One worker after the other, until one exits, or too many died.
    fn keep_running(&mut self) -> i32 {
        let code = loop {
            let mut worker = match self.start() {
                Ok(worker) => worker,
                Err(error) => {
                    (self.note)(&format!("cannot start a worker: {error}"));
                    break 1;
                }
            };
            let status = self.attend(&mut worker);
            self.probe = None;
            self.bury_all();
            // Only now: a lease that can be locked says that no process of a task is left.
            drop(worker);
            if std::mem::take(&mut self.restarting) {
                self.start_anew();
                continue;
            }
            match status {
                Status::Exited(code) => break code,
                Status::Signaled(signal) => {
                    if let Some(code) = self.after_death(signal) {
                        break code;
                    }
                }
            }
        };
        if let Some(launcher) = self.launcher.take() {
            launcher.failed(u8::try_from(code).unwrap_or(1));
        }
        code
    }

    /// The program, as it is now, in this process. If that cannot be, the one that runs goes on.
    fn start_anew(&mut self) {
        let pidfile = self.pidfile.as_ref();
        let error =
            again::execute(&self.next, &self.argv, &self.environment, &self.folder, pidfile);
        let program = self.next.to_string_lossy();
        let folder = self.folder.to_string_lossy();
        (self.note)(&format!(
            "cannot execute {program} in {folder}: {error}; the version that ran goes on"
        ));
    }

    /// Starts a worker in its own session: what a terminal sends arrives here only, and is
    /// passed on once.
    fn start(&self) -> io::Result<Worker> {
        let (ours, theirs) = link::pair()?;
        let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
        let spawn = Spawn {
            program: &self.program,
            argv: &self.argv,
            envp: &again::of_worker(&self.environment, self.manager.watchdog())?,
            cwd: Some(&self.folder),
            stdio: [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()],
            inherit: Some(theirs.as_fd()),
            rlimits: &[],
            nice: None,
            ids: None,
            // Kept back until the worker listens, or an early one would kill it.
            blocked: &FORWARDED,
            // Without a terminal, or a task that reads from it would be stopped for ever. Not a
            // session for each task: the kernel shares the processor among sessions, so nice
            // would mean nothing among tasks, and the worker would get one share of many.
            new_session: true,
            // It has to end its tasks when we die, and ends itself afterwards.
            orphan: Orphan::Lives,
            group: None,
        };
        let pid = match spawn.start() {
            Err(SpawnError { step: Step::Folder, errno }) => {
                let (folder, why) = (self.folder.to_string_lossy(), describe(errno));
                (self.note)(&format!("cannot enter {folder}: {why}; a worker starts where we are"));
                Spawn { cwd: None, ..spawn }.start()
            }
            started => started,
        };
        let pid = pid.map_err(|error| again::named(error, &self.program, &self.folder))?;
        Ok(Worker { pid, link: ours, leases: vec![] })
    }

    /// Passes on signals and serves the link until the worker is dead.
    fn attend(&mut self, worker: &mut Worker) -> Status {
        let mut linked = true;
        loop {
            self.forward(worker.pid);
            let mut ended = None;
            while let Waited::Ended(pid, exit) = wait_any() {
                if pid == worker.pid.as_raw() {
                    ended = Some(exit.status);
                } else {
                    self.hear_probe(pid, exit.status, worker.pid);
                }
            }
            if let Some(status) = ended {
                return status;
            }
            if self.sleep(linked.then_some(&worker.link), None) {
                linked = self.serve(worker);
            }
        }
    }

    fn forward(&mut self, worker: Pid) {
        let arrived = self.arrived.iter().filter(|(_, flag)| flag.swap(false, Ordering::SeqCst));
        let arrived: Vec<i32> = arrived.map(|(signal, _)| *signal).collect();
        for signal in arrived {
            let ends = self.ends.contains(&signal);
            if signal == SIGHUP && !ends {
                self.try_again();
                continue;
            }
            if ends {
                if !std::mem::replace(&mut self.ending, true) {
                    self.manager.tell("STOPPING=1");
                    if signal == SIGHUP {
                        (self.note)("HUP: standard output is a terminal, so the worker ends");
                    }
                }
                // There will be no new start after its end.
                self.restarting = false;
            }
            if let Ok(signal) = Signal::try_from(signal) {
                // Not yet waited for, so the number is still the worker's.
                let _ = kill(worker, signal);
            }
        }
    }

    /// Sleeps until a signal arrives, the probe speaks, or the link has something (then true).
    fn sleep(&mut self, link: Option<&OwnedFd>, at_most: Option<Duration>) -> bool {
        let most = [at_most, self.probe.as_ref().map(Probe::left)].into_iter().flatten().min();
        // A whole millisecond at least, or the last one would be spent spinning.
        let most = most.map(|time| time.max(Duration::from_millis(1)));
        let timeout =
            most.and_then(|time| PollTimeout::try_from(time).ok()).unwrap_or(PollTimeout::NONE);
        let fds =
            [Some(self.wake.as_fd()), link.map(AsFd::as_fd), self.probe.as_ref().map(Probe::said)];
        let mut fds: Vec<PollFd<'_>> =
            fds.into_iter().flatten().map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        // An interruption is a signal, which is what we wait for.
        let _ = poll(&mut fds, timeout);
        let asked = link.is_some() && fds.get(1).and_then(PollFd::any).unwrap_or(false);
        let _ = (&self.wake).read(&mut [0; 256]);
        if let Some(probe) = &mut self.probe {
            probe.listen();
            if probe.left().is_zero() {
                probe.kill();
            }
        }
        asked
    }

    /// Serves one packet of the worker. False when it has hung up.
    fn serve(&mut self, worker: &mut Worker) -> bool {
        let fd = worker.link.as_raw_fd();
        let mut packet = [0; REQUEST_BYTES];
        let length = match recv(fd, &mut packet, MsgFlags::MSG_DONTWAIT) {
            Ok(0) => return false,
            Ok(length) => length,
            Err(nix::Error::EAGAIN | nix::Error::EINTR) => return true,
            Err(_) => return false,
        };
        match Word::of(&packet[..length]) {
            Some((Word::Hold, path)) => return worker.hold(Path::new(OsStr::from_bytes(path))),
            Some((Word::Ready, _)) => {
                self.manager.tell("READY=1");
                forget_start();
                if let Some(Err(error)) = self.pidfile.as_mut().map(Pidfile::publish) {
                    (self.note)(&format!("the worker before this one goes on: {error}"));
                }
                if let Some(launcher) = self.launcher.take() {
                    launcher.ready();
                }
            }
            Some((Word::Beat, _)) => self.manager.tell("WATCHDOG=1"),
            Some((Word::Status, line)) => {
                self.manager.tell(&format!("STATUS={}", String::from_utf8_lossy(line)));
            }
            // A worker of another version: what we do not know we cannot do.
            None => {}
        }
        true
    }

    /// Ends all that is left of a worker.
    fn bury_all(&self) {
        while !kill_all_descendants_of_self(LAST_RITES) {
            (self.note)("processes of tasks were killed but do not end; waiting for them");
        }
        clear_abandoned();
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
                self.ends.contains(signal) && arrived.load(Ordering::SeqCst)
            };
            if self.arrived.iter().any(asked_to_end) {
                return Some(0);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            self.sleep(None, Some(left));
        }
    }
}

impl Worker {
    /// Holds this lease too, and says so. False when the worker has hung up.
    fn hold(&mut self, path: &Path) -> bool {
        let errno = match Lease::hold(path) {
            Ok(lease) => {
                self.leases.push(lease);
                0
            }
            Err(error) => error.raw_os_error().unwrap_or(libc::EIO),
        };
        let fd = self.link.as_raw_fd();
        send(fd, &errno.to_ne_bytes(), MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL).is_ok()
    }
}

fn text(word: &OsStr) -> io::Result<CString> {
    CString::new(word.as_bytes()).map_err(io::Error::from)
}
