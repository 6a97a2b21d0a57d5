//! The loop of a guard: turns what happens into events, and does what the lifecycle decides.

use super::Orders;
use super::command::WorkerCommand;
use super::lifecycle::{Effect, Event, Lifecycle, Notice};
use super::probe::Probe;
use super::signals::Signals;
use crate::link::guard::{Received, WorkerLink};
use crate::os::cgroup::clear_abandoned;
use crate::os::daemon::LaunchReport;
use crate::os::lease::Lease;
use crate::os::memory::release_startup_pages;
use crate::os::pidfile::Pidfile;
use crate::os::reap::{WaitResult, wait_any};
use crate::os::sd_notify::Manager;
use crate::os::signal::{block_forwarded, ends_by_hup, unblock_forwarded};
use crate::os::tree::kill_all_descendants_of_self;
use crate::os::{Pid, become_subreaper};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::kill;
use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

/// Killed processes that are still there after this long (they hang in the kernel, in a dead
/// network file system for instance) are reported; the guard keeps waiting for them.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

/// Everything that a guard does I/O with.
pub(super) struct Drive<'a> {
    log: &'a dyn Fn(&str),
    command: WorkerCommand,
    lifecycle: Lifecycle,
    events: VecDeque<Event>,
    signals: Signals,
    manager: Manager,
    pidfile: Option<Pidfile>,
    launcher: Option<LaunchReport>,
    worker: Option<Worker>,
    probe: Option<Probe>,
    /// When the pause is over.
    pause_end: Option<Instant>,
    exit: Option<i32>,
}

/// A worker, until nothing of it is left.
struct Worker {
    /// `None` once it was reaped: the number may belong to another process then.
    pid: Option<Pid>,
    /// `None` once the worker has closed its end.
    link: Option<WorkerLink>,
    /// The leases that it asked us to lock too.
    leases: Vec<Lease>,
}

impl<'a> Drive<'a> {
    /// # Errors
    /// The kernel refuses what a guard needs, or a word has a NUL in it.
    pub(super) fn new(orders: Orders, log: &'a dyn Fn(&str)) -> io::Result<Drive<'a>> {
        let Orders { argv, executable, folder, pidfile, launcher } = orders;
        // Asked now: a terminal that was closed is none any more.
        let lifecycle = Lifecycle::new(ends_by_hup());
        become_subreaper()?;
        Ok(Drive {
            log,
            signals: Signals::listen()?,
            command: WorkerCommand::new(&argv, executable.as_deref(), &folder)?,
            lifecycle,
            events: VecDeque::from([Event::Begin]),
            manager: Manager::of_environment(),
            pidfile,
            launcher,
            worker: None,
            probe: None,
            pause_end: None,
            exit: None,
        })
    }

    /// Runs until the lifecycle ends; the exit code.
    pub(super) fn run(&mut self) -> i32 {
        let code = loop {
            self.decide();
            if let Some(code) = self.exit {
                break code;
            }
            self.wait();
            // What the worker said before its end comes first, and it gets its signals while its
            // number is surely its own.
            self.hear_worker();
            self.events.extend(self.signals.take().into_iter().map(Event::Signal));
            self.decide();
            self.reap();
            if self.pause_end.take_if(|end| Instant::now() >= *end).is_some() {
                self.events.push_back(Event::PauseOver);
            }
        };
        if let Some(launcher) = self.launcher.take() {
            launcher.failed(u8::try_from(code).unwrap_or(1));
        }
        code
    }

    /// Passes the events to the lifecycle, and performs what it decides.
    fn decide(&mut self) {
        let mut effects = Vec::new();
        while let Some(event) = self.events.pop_front() {
            self.lifecycle.on(event, Instant::now(), &mut effects);
            for effect in effects.drain(..) {
                self.perform(effect);
            }
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Start => {
                let started = self.start();
                self.events.push_back(match started {
                    Ok(()) => Event::Started,
                    Err(error) => Event::NotStarted(error.to_string()),
                });
            }
            Effect::Signal(signal) => {
                if let Some(pid) = self.worker.as_ref().and_then(|worker| worker.pid) {
                    let _ = kill(pid, signal);
                }
            }
            Effect::StartProbe => match Probe::start(&self.command) {
                Ok(probe) => self.probe = Some(probe),
                Err(error) => self.events.push_back(Event::Probed(Err(error.to_string()))),
            },
            Effect::KillProbe => {
                self.probe.take().inspect(Probe::kill);
            }
            Effect::KillDescendants => {
                while !kill_all_descendants_of_self(KILL_TIMEOUT) {
                    (self.log)("processes of tasks were killed but do not end; waiting for them");
                }
                clear_abandoned();
                // Signals from now on stay pending, over an execution of the program too; those
                // before are known before it is decided.
                block_forwarded();
                self.events.extend(self.signals.take().into_iter().map(Event::Signal));
                self.events.push_back(Event::Cleaned);
            }
            Effect::LockLease(path) => {
                if let Some(worker) = &mut self.worker {
                    worker.lock_lease(&path);
                }
            }
            Effect::ReleaseLeases => self.worker = None,
            Effect::Execute => {
                let why = self.command.execute(self.pidfile.as_ref());
                self.events.push_back(Event::NotExecuted(why));
            }
            Effect::Pause(time) => self.pause_end = Some(Instant::now() + time),
            Effect::Notify(notice) => self.notify(notice),
            Effect::PublishPidfile => {
                if let Some(Err(error)) = self.pidfile.as_mut().map(Pidfile::publish) {
                    (self.log)(&format!("the worker before this one goes on: {error}"));
                }
            }
            Effect::ReportReady => {
                release_startup_pages();
                if let Some(launcher) = self.launcher.take() {
                    launcher.ready();
                }
            }
            Effect::Log(text) => (self.log)(&text),
            Effect::Exit(code) => self.exit = Some(code),
        }
    }

    fn start(&mut self) -> io::Result<()> {
        let (link, theirs) = WorkerLink::pair()?;
        let heartbeat = self.manager.watchdog();
        let pid = self.command.start_worker(theirs.as_fd(), heartbeat, self.log)?;
        self.worker = Some(Worker { pid: Some(pid), link: Some(link), leases: Vec::new() });
        Ok(())
    }

    fn notify(&self, notice: Notice) {
        match notice {
            Notice::Ready => self.manager.tell("READY=1"),
            Notice::Reloading => self.manager.reloading(),
            Notice::Stopping => self.manager.tell("STOPPING=1"),
            Notice::Watchdog => self.manager.tell("WATCHDOG=1"),
            Notice::Status(line) => self.manager.tell(&format!("STATUS={line}")),
        }
    }

    /// Sleeps until there is something to do. A probe that takes too long is killed.
    fn wait(&mut self) {
        // Also those that the guard before this one in this process has blocked.
        unblock_forwarded();
        let pause = self.pause_end.map(|end| end.saturating_duration_since(Instant::now()));
        let left = [pause, self.probe.as_ref().map(Probe::left)].into_iter().flatten().min();
        // At least a millisecond, or the last one would be spent spinning.
        let left = left.map(|time| time.max(Duration::from_millis(1)));
        let timeout = left.and_then(|time| PollTimeout::try_from(time).ok());
        let link = self.worker.as_ref().and_then(|worker| worker.link.as_ref());
        let stderr = self.probe.as_ref().map(Probe::stderr);
        let fds = [Some(self.signals.wake()), link.map(AsFd::as_fd), stderr].into_iter().flatten();
        let mut fds: Vec<PollFd<'_>> = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        // An interruption is a signal, which is waited for.
        let _ = poll(&mut fds, timeout.unwrap_or(PollTimeout::NONE));
        self.signals.clear_wake();
        if let Some(probe) = &mut self.probe {
            probe.read();
            if probe.left().is_zero() {
                probe.kill();
            }
        }
    }

    /// The messages of the worker.
    fn hear_worker(&mut self) {
        let Some(worker) = &mut self.worker else { return };
        while let Some(link) = &worker.link {
            match link.receive() {
                Received::Message(message) => self.events.push_back(Event::Message(message)),
                // Of a worker of another version: what we do not know we cannot do.
                Received::Unknown => {}
                Received::Nothing => return,
                Received::Closed => worker.link = None,
            }
        }
    }

    /// The children that have ended: the worker, the probe, and adopted orphans.
    fn reap(&mut self) {
        while let WaitResult::Ended(pid, exit) = wait_any() {
            if let Some(worker) = &mut self.worker
                && worker.pid.is_some_and(|worker| worker.as_raw() == pid)
            {
                worker.pid = None;
                self.events.push_back(Event::Ended(exit.status));
            }
            let probe = self.probe.take_if(|probe| probe.pid().as_raw() == pid);
            self.events.extend(probe.map(|probe| Event::Probed(probe.result(exit.status))));
        }
    }
}

impl Worker {
    /// Locks this lease too, and answers the worker.
    fn lock_lease(&mut self, path: &Path) {
        let result = Lease::join(path).map(|lease| self.leases.push(lease));
        // A worker that has gone needs no answer.
        self.link.as_ref().inspect(|link| link.answer(result));
    }
}
