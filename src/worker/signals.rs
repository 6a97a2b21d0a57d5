//! What a signal does to a worker: one table of states and signals, for the code and the manual.

use crate::os::signal::Meaning;

/// Where a worker is in its life. A state is only left for a later one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
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
pub enum Action {
    /// Enters [`State::Draining`], a warm shutdown, with this exit code.
    Drain(u8),
    /// Enters [`State::Stopping`].
    Stop,
    /// Enters [`State::Killing`], a cold shutdown.
    Kill,
    /// Logs what the worker is doing.
    Explain,
    /// Nothing: it happens already.
    Nothing,
}

/// Every state in its order.
pub const STATES: [State; 5] =
    [State::Running, State::Draining, State::Stopping, State::Killing, State::Closing];

/// Every meaning of a signal, with the name of the signal.
pub const SIGNALS: [(&str, Meaning); 5] = [
    ("TERM", Meaning::Warm),
    ("INT", Meaning::Interrupt),
    ("QUIT", Meaning::Cold),
    ("HUP", Meaning::Hup),
    ("USR1", Meaning::Explain),
];

/// The table.
pub const fn action(state: State, meaning: Meaning) -> Action {
    match (state, meaning) {
        (_, Meaning::Explain) => Action::Explain,
        // After HUP, the guard starts a new worker.
        (State::Running, Meaning::Warm | Meaning::Hup) => Action::Drain(0),
        // Celery ends with 1 after INT, even when it was idle.
        (State::Running, Meaning::Interrupt) => Action::Drain(1),
        (State::Draining, Meaning::Warm) => Action::Stop,
        (State::Running, Meaning::Cold)
        | (State::Draining, Meaning::Interrupt | Meaning::Cold)
        | (State::Stopping, Meaning::Warm | Meaning::Interrupt | Meaning::Cold) => Action::Kill,
        (State::Draining | State::Stopping, Meaning::Hup) => Action::Nothing,
        (State::Killing | State::Closing, _) => Action::Nothing,
    }
}

impl State {
    /// Its name on the local socket and in `multi status`.
    pub fn name(self) -> &'static str {
        match self {
            State::Running => "running",
            State::Draining => "draining",
            State::Stopping => "stopping",
            State::Killing => "killing",
            State::Closing => "closing",
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
                    Action::Drain(_) => State::Draining,
                    Action::Stop => State::Stopping,
                    Action::Kill => State::Killing,
                    Action::Explain | Action::Nothing => continue,
                };
                assert!(next > state, "{name} in {state:?} leads to {next:?}");
            }
        }
    }

    #[test]
    fn a_signal_that_is_repeated_kills() {
        for (name, meaning) in &SIGNALS[..3] {
            let mut state = State::Running;
            for _ in 0..3 {
                match action(state, *meaning) {
                    Action::Drain(_) => state = State::Draining,
                    Action::Stop => state = State::Stopping,
                    Action::Kill => state = State::Killing,
                    Action::Explain | Action::Nothing => {}
                }
            }
            assert_eq!(state, State::Killing, "{name} three times");
        }
    }
}
