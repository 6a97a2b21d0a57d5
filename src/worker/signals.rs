//! What a signal does to a worker: one table of states and signals, for the code and the manual.

use crate::os::signal::WorkerSignal;

/// Where a worker is in its life. A state is only left for a later one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum WorkerState {
    /// Takes messages and runs tasks.
    Running,
    /// Takes nothing; running tasks may finish, for as long as the soft shutdown allows.
    Draining,
    /// The tasks that still run were asked to end (TERM).
    Stopping,
    /// The tasks that still run are killed.
    Killing,
    /// Nothing runs; the worker's end of the broker is being closed.
    Closing,
}

/// What a signal does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignalAction {
    /// Enters [`WorkerState::Draining`], a warm shutdown, with this exit code.
    Drain(u8),
    /// Enters [`WorkerState::Stopping`].
    Stop,
    /// Enters [`WorkerState::Killing`], a cold shutdown.
    Kill,
    /// Logs what the worker is doing.
    Explain,
    /// Nothing: it happens already.
    Nothing,
}

/// Every state in its order.
pub const STATES: [WorkerState; 5] = [
    WorkerState::Running,
    WorkerState::Draining,
    WorkerState::Stopping,
    WorkerState::Killing,
    WorkerState::Closing,
];

/// Every meaning of a signal, with the name of the signal.
pub const SIGNALS: [(&str, WorkerSignal); 5] = [
    ("TERM", WorkerSignal::Warm),
    ("INT", WorkerSignal::Interrupt),
    ("QUIT", WorkerSignal::Cold),
    ("HUP", WorkerSignal::Hup),
    ("USR1", WorkerSignal::Explain),
];

/// The table.
pub const fn action(state: WorkerState, meaning: WorkerSignal) -> SignalAction {
    match (state, meaning) {
        (_, WorkerSignal::Explain) => SignalAction::Explain,
        // After HUP, the guard starts a new worker.
        (WorkerState::Running, WorkerSignal::Warm | WorkerSignal::Hup) => SignalAction::Drain(0),
        // Celery ends with 1 after INT, even when it was idle.
        (WorkerState::Running, WorkerSignal::Interrupt) => SignalAction::Drain(1),
        (WorkerState::Draining, WorkerSignal::Warm) => SignalAction::Stop,
        (WorkerState::Running, WorkerSignal::Cold)
        | (WorkerState::Draining, WorkerSignal::Interrupt | WorkerSignal::Cold)
        | (
            WorkerState::Stopping,
            WorkerSignal::Warm | WorkerSignal::Interrupt | WorkerSignal::Cold,
        ) => SignalAction::Kill,
        (WorkerState::Draining | WorkerState::Stopping, WorkerSignal::Hup) => SignalAction::Nothing,
        (WorkerState::Killing | WorkerState::Closing, _) => SignalAction::Nothing,
    }
}

impl WorkerState {
    /// Its name on the local socket and in `multi status`.
    pub fn name(self) -> &'static str {
        match self {
            WorkerState::Running => "running",
            WorkerState::Draining => "draining",
            WorkerState::Stopping => "stopping",
            WorkerState::Killing => "killing",
            WorkerState::Closing => "closing",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_never_leads_back() {
        for state in STATES {
            for (name, meaning) in SIGNALS {
                let next = match action(state, meaning) {
                    SignalAction::Drain(_) => WorkerState::Draining,
                    SignalAction::Stop => WorkerState::Stopping,
                    SignalAction::Kill => WorkerState::Killing,
                    SignalAction::Explain | SignalAction::Nothing => continue,
                };
                assert!(next > state, "{name} in {state:?} leads to {next:?}");
            }
        }
    }

    #[test]
    fn a_signal_that_is_repeated_kills() {
        for (name, meaning) in &SIGNALS[..3] {
            let mut state = WorkerState::Running;
            for _ in 0..3 {
                match action(state, *meaning) {
                    SignalAction::Drain(_) => state = WorkerState::Draining,
                    SignalAction::Stop => state = WorkerState::Stopping,
                    SignalAction::Kill => state = WorkerState::Killing,
                    SignalAction::Explain | SignalAction::Nothing => {}
                }
            }
            assert_eq!(state, WorkerState::Killing, "{name} three times");
        }
    }
}
