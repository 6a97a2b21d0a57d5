//! The life of a guard: one table, state x event, which decides when a worker is started, which
//! signals it gets, and with which code the guard exits. Pure: `drive.rs` performs the effects.

use crate::link::guard::GuardMessage;
use crate::os::reap::Termination;
use nix::sys::signal::Signal;
use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// A worker that dies more often than this within [`DEATHS_WINDOW`] does not recover by being
/// started again.
pub const DEATHS_MAX: usize = 5;

/// How long a death counts.
pub const DEATHS_WINDOW: Duration = Duration::from_secs(10);

/// The pause before the first restart; it doubles with each death in the window.
pub const RESTART_DELAY: Duration = Duration::from_millis(100);

/// Where a guard is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuardState {
    /// A worker is being started.
    Starting,
    /// A worker runs.
    Running,
    /// A worker runs, and a probe checks whether the program as it is now would start.
    Probing,
    /// The probe has succeeded. The worker drains; then the program is executed anew.
    Restarting,
    /// The worker was asked to end. No other one is started.
    Stopping,
    /// The worker has ended so; the processes that it left are being killed.
    Cleaning(Termination, AfterExit),
    /// The program is being executed in the place of this one.
    Executing,
    /// The worker died; the pause before the next start.
    Pausing,
    /// The guard exits with this code.
    Ended(i32),
}

/// What the end of a worker leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterExit {
    /// Another worker if it died, the end of the guard if it exited.
    Restart,
    /// The program as it is now.
    Execute,
    /// The end of the guard.
    End,
}

/// What a guard learns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The guard begins.
    Begin,
    /// A worker was started.
    Started,
    /// No worker can be started: why.
    NotStarted(String),
    /// A signal was sent to the guard.
    Signal(Signal),
    /// The worker has sent a message.
    Message(GuardMessage),
    /// The worker has ended.
    Ended(Termination),
    /// The probe has ended: would the program start, and if not, why?
    Probed(Result<(), String>),
    /// No process of the worker is left.
    Cleaned,
    /// The program could not be executed: why.
    NotExecuted(String),
    /// The pause is over.
    PauseOver,
}

/// What a guard does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Starts a worker: [`Event::Started`] or [`Event::NotStarted`].
    Start,
    /// Sends a signal to the worker.
    Signal(Signal),
    /// Starts a probe: [`Event::Probed`].
    StartProbe,
    /// Kills the probe; its end is no event.
    KillProbe,
    /// Kills all processes below the guard, and waits until they are gone: [`Event::Cleaned`].
    KillDescendants,
    /// Locks this lease of the worker too, and answers it.
    LockLease(PathBuf),
    /// Unlocks the leases of the worker.
    ReleaseLeases,
    /// Executes the program as it is now: [`Event::NotExecuted`] if that fails.
    Execute,
    /// [`Event::PauseOver`] after this time.
    Pause(Duration),
    /// Tells the service manager.
    Notify(Notice),
    /// Puts the pidfile in its final place.
    PublishPidfile,
    /// Tells the process that detached this one that the worker is ready.
    ReportReady,
    /// Writes a line to the log.
    Log(String),
    /// Exits with this code.
    Exit(i32),
}

/// What is reported to the service manager.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// The worker takes messages.
    Ready,
    /// A reload has begun; [`Notice::Ready`] ends it.
    Reloading,
    /// The worker ends for good.
    Stopping,
    /// The worker's loop is alive.
    Watchdog,
    /// What the worker does, one line.
    Status(String),
}

/// What a signal means to a guard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum GuardSignal {
    /// The worker is to end.
    End,
    /// The program is to be executed anew.
    Restart,
    /// The worker's own business.
    Other,
}

/// The state of a guard.
#[derive(Debug)]
pub struct Lifecycle {
    state: GuardState,
    /// Does `SIGHUP` end the worker?
    hup_ends: bool,
    /// Signals that came while there was no worker; the next one gets them.
    pending: Vec<Signal>,
    /// When workers died, within the window.
    deaths: VecDeque<Instant>,
}

impl Lifecycle {
    /// A guard that has not begun. `hup_ends` is true if `SIGHUP` ends the worker rather than
    /// restarting it.
    pub fn new(hup_ends: bool) -> Lifecycle {
        Lifecycle {
            state: GuardState::Starting,
            hup_ends,
            pending: Vec::new(),
            deaths: VecDeque::new(),
        }
    }

    /// The present state.
    pub fn state(&self) -> GuardState {
        self.state
    }

    /// Decides what follows from an event at `now`.
    pub fn on(&mut self, event: Event, now: Instant, effects: &mut Vec<Effect>) {
        self.state = match event {
            _ if matches!(self.state, GuardState::Ended(_)) => return,
            Event::Signal(signal) => self.on_signal(signal, effects),
            Event::Message(message) if self.state.has_worker() => {
                pass_on(message, effects);
                self.state
            }
            event => self.on_change(event, now, effects),
        };
    }

    /// The table of signals.
    fn on_signal(&mut self, signal: Signal, effects: &mut Vec<Effect>) -> GuardState {
        use GuardState::*;
        match (self.state, self.meaning(signal)) {
            (Running | Probing | Restarting, GuardSignal::End) => {
                if self.state == Probing {
                    effects.push(Effect::KillProbe);
                }
                effects.push(Effect::Notify(Notice::Stopping));
                if signal == Signal::SIGHUP {
                    let why = "HUP: standard output is a terminal, so the worker ends";
                    effects.push(Effect::Log(why.into()));
                }
                effects.push(Effect::Signal(signal));
                Stopping
            }
            (Running, GuardSignal::Restart) => {
                effects.extend([Effect::Notify(Notice::Reloading), Effect::StartProbe]);
                Probing
            }
            (state @ (Probing | Restarting | Stopping), GuardSignal::Restart) => state,
            (Stopping, GuardSignal::End)
            | (Running | Probing | Restarting | Stopping, GuardSignal::Other) => {
                effects.push(Effect::Signal(signal));
                self.state
            }
            (Pausing, GuardSignal::End) => exit(0, effects),
            (state @ (Starting | Cleaning(..) | Executing | Pausing), _) => {
                if !self.pending.contains(&signal) {
                    self.pending.push(signal);
                }
                state
            }
            (state @ Ended(_), _) => state,
        }
    }

    /// The table of all other events.
    fn on_change(&mut self, event: Event, now: Instant, effects: &mut Vec<Effect>) -> GuardState {
        use GuardState::*;
        match (self.state, event) {
            (Starting, Event::Begin) | (Pausing, Event::PauseOver) => {
                effects.push(Effect::Start);
                Starting
            }
            (Starting, Event::Started) => {
                self.state = Running;
                for signal in std::mem::take(&mut self.pending) {
                    self.state = self.on_signal(signal, effects);
                }
                self.state
            }
            (Starting, Event::NotStarted(why)) => {
                effects.push(Effect::Log(format!("cannot start a worker: {why}")));
                exit(1, effects)
            }
            (Probing, Event::Probed(Ok(()))) => {
                effects.push(Effect::Signal(Signal::SIGHUP));
                Restarting
            }
            (Probing, Event::Probed(Err(why))) => {
                let text = format!("restart refused, the worker goes on: {why}");
                effects.extend([Effect::Log(text), Effect::Notify(Notice::Ready)]);
                Running
            }
            (Running, Event::Ended(status)) => clean(status, AfterExit::Restart, effects),
            (Probing, Event::Ended(status)) => {
                effects.push(Effect::KillProbe);
                clean(status, AfterExit::Restart, effects)
            }
            (Restarting, Event::Ended(status)) => clean(status, AfterExit::Execute, effects),
            (Stopping, Event::Ended(status)) => clean(status, AfterExit::End, effects),
            (Cleaning(status, next), Event::Cleaned) => {
                // Only now: an unlocked lease says that no process of a task is left.
                effects.push(Effect::ReleaseLeases);
                self.after_worker(status, next, now, effects)
            }
            (Executing, Event::NotExecuted(_)) if self.is_told_to_end() => exit(0, effects),
            (Executing, Event::NotExecuted(why)) => {
                effects.push(Effect::Log(format!("{why}; the version that ran goes on")));
                effects.push(Effect::Start);
                Starting
            }
            // An event of a worker or a probe that is no more.
            (state, _) => state,
        }
    }

    /// The state that follows when nothing of a worker is left.
    fn after_worker(
        &mut self,
        status: Termination,
        next: AfterExit,
        now: Instant,
        effects: &mut Vec<Effect>,
    ) -> GuardState {
        let told_to_end = self.is_told_to_end();
        let signal = match (next, status) {
            (AfterExit::Execute, _) if !told_to_end => {
                effects.push(Effect::Execute);
                return GuardState::Executing;
            }
            (_, Termination::Exited(code)) => return exit(code, effects),
            (AfterExit::End, Termination::Signaled(signal)) => {
                effects
                    .push(Effect::Log(format!("worker ended by {} while stopping", name(signal))));
                return exit(128 + signal, effects);
            }
            (AfterExit::Execute, Termination::Signaled(_)) => return exit(0, effects),
            (AfterExit::Restart, Termination::Signaled(signal)) => signal,
        };
        self.deaths.push_back(now);
        self.deaths.retain(|&death| now - death < DEATHS_WINDOW);
        let (count, name) = (self.deaths.len(), name(signal));
        if count > DEATHS_MAX {
            let window = DEATHS_WINDOW.as_secs();
            let text =
                format!("worker killed by {name}, death {count} within {window} s; giving up");
            effects.push(Effect::Log(text));
            return exit(1, effects);
        }
        let text = format!("worker killed by {name}; its tasks were ended, starting a new worker");
        effects.push(Effect::Log(text));
        if told_to_end {
            return exit(0, effects);
        }
        effects.push(Effect::Pause(RESTART_DELAY * (1 << (count - 1))));
        GuardState::Pausing
    }

    /// Did a signal that ends the worker come while there was none?
    fn is_told_to_end(&self) -> bool {
        self.pending.iter().any(|signal| self.meaning(*signal) == GuardSignal::End)
    }

    fn meaning(&self, signal: Signal) -> GuardSignal {
        match signal {
            Signal::SIGTERM | Signal::SIGINT | Signal::SIGQUIT => GuardSignal::End,
            Signal::SIGHUP if self.hup_ends => GuardSignal::End,
            Signal::SIGHUP => GuardSignal::Restart,
            _ => GuardSignal::Other,
        }
    }
}

impl GuardState {
    /// Does a worker run?
    pub fn has_worker(self) -> bool {
        matches!(
            self,
            GuardState::Running
                | GuardState::Probing
                | GuardState::Restarting
                | GuardState::Stopping
        )
    }
}

/// The worker has ended.
fn clean(status: Termination, next: AfterExit, effects: &mut Vec<Effect>) -> GuardState {
    effects.push(Effect::KillDescendants);
    GuardState::Cleaning(status, next)
}

/// What a message of the worker leads to, in any state.
fn pass_on(message: GuardMessage, effects: &mut Vec<Effect>) {
    match message {
        GuardMessage::LockLease(path) => effects.push(Effect::LockLease(path)),
        GuardMessage::Ready => effects.extend([
            Effect::Notify(Notice::Ready),
            Effect::PublishPidfile,
            Effect::ReportReady,
        ]),
        GuardMessage::Heartbeat => effects.push(Effect::Notify(Notice::Watchdog)),
        GuardMessage::Status(line) => effects.push(Effect::Notify(Notice::Status(line))),
    }
}

fn exit(code: i32, effects: &mut Vec<Effect>) -> GuardState {
    effects.push(Effect::Exit(code));
    GuardState::Ended(code)
}

fn name(signal: i32) -> &'static str {
    Signal::try_from(signal).map_or("unknown signal", Signal::as_str)
}
