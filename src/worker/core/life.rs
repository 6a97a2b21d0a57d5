//! Where the worker is in its life, when it goes on by itself, and its exit code.

use crate::bounds;
use crate::os::signal::WorkerSignal;
use crate::worker::signals::{self, SignalAction, WorkerState};
use std::time::{Duration, Instant};

/// How long a cold shutdown waits for its broker.
const COLD_MAX: Duration = Duration::from_secs(5);

/// How long a shutdown that only waits for its stores waits after their last answer. What is not
/// settled then is redelivered.
const SETTLE_MAX: Duration = Duration::from_secs(10);

/// EX_UNAVAILABLE of sysexits.h: the worker ends without having settled everything.
const EX_UNAVAILABLE: u8 = 69;

/// See the module.
pub(super) struct Life {
    state: WorkerState,
    /// When the state is left for the next one.
    deadline: Option<Instant>,
    exit: u8,
    /// The guard starts a new worker after this one (HUP).
    restarting: bool,
    /// Since when a shutdown waits for nothing but the stores.
    unsettled: Option<Instant>,
}

/// What time brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// The next state.
    State(WorkerState),
    /// The end, without waiting for the stores.
    GiveUp,
}

impl Life {
    pub(super) fn new() -> Life {
        Life {
            state: WorkerState::Running,
            deadline: None,
            exit: 0,
            restarting: false,
            unsettled: None,
        }
    }

    pub(super) fn state(&self) -> WorkerState {
        self.state
    }

    pub(super) fn is_running(&self) -> bool {
        self.state == WorkerState::Running
    }

    /// What a signal does now.
    pub(super) fn signal(&mut self, meaning: WorkerSignal) -> SignalAction {
        let ends = matches!(meaning, WorkerSignal::Warm | WorkerSignal::Interrupt);
        if ends && std::mem::take(&mut self.restarting) && self.state == WorkerState::Draining {
            // The first signal to end: the worker drains already, but for a restart.
            self.exit = u8::from(meaning == WorkerSignal::Interrupt);
            return SignalAction::Nothing;
        }
        let action = signals::action(self.state, meaning);
        if let SignalAction::Drain(exit) = action {
            self.restarting = meaning == WorkerSignal::Hup;
            self.exit = exit;
        }
        action
    }

    /// Enters a state. `soft_shutdown` is how long draining may take.
    pub(super) fn enter(
        &mut self,
        state: WorkerState,
        soft_shutdown: Option<Duration>,
        now: Instant,
    ) {
        self.state = state;
        self.deadline = match state {
            WorkerState::Draining => soft_shutdown.and_then(|bound| now.checked_add(bound)),
            WorkerState::Stopping => Some(now + bounds::STOP_GRACE),
            WorkerState::Killing => Some(now + COLD_MAX),
            WorkerState::Running | WorkerState::Closing => None,
        };
    }

    /// Notes whether the worker waits for nothing but its stores.
    pub(super) fn wait_for_stores(&mut self, waits: bool, now: Instant) {
        self.unsettled = match waits && !self.is_running() {
            true => self.unsettled.or(Some(now)),
            false => None,
        };
    }

    /// A store has answered.
    pub(super) fn store_answered(&mut self) {
        self.unsettled = None;
    }

    /// Does the passing of time change anything?
    pub(super) fn is_timed(&self) -> bool {
        self.deadline.is_some() || self.unsettled.is_some()
    }

    /// What is due now.
    pub(super) fn due(&self, now: Instant) -> Option<Due> {
        if self.unsettled.is_some_and(|since| now.duration_since(since) >= SETTLE_MAX) {
            return Some(Due::GiveUp);
        }
        if self.deadline.is_none_or(|at| now < at) {
            return None;
        }
        Some(match self.state {
            WorkerState::Draining => Due::State(WorkerState::Stopping),
            WorkerState::Stopping => Due::State(WorkerState::Killing),
            // A worker that is to end at once does not wait for a broker that is gone.
            WorkerState::Running | WorkerState::Killing | WorkerState::Closing => Due::GiveUp,
        })
    }

    /// Stops all waiting; gives the exit code with this many messages unsettled.
    pub(super) fn give_up(&mut self, unsettled: usize) -> u8 {
        (self.deadline, self.unsettled) = (None, None);
        if unsettled == 0 { self.exit } else { EX_UNAVAILABLE }
    }

    /// The exit code of an orderly end.
    pub(super) fn exit(&self) -> u8 {
        self.exit
    }
}
