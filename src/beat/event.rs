//! What happens to a beat, and what it does about it: the closed lists between [`super::core`] and
//! [`super::drive`].

use super::Router;
use super::claim::{Claim, EntryId, Unread};
use super::state::Fingerprinted;
use crate::broker::Error;
use crate::broker::ledger::StepResponse;
use chrono::{DateTime, Utc};
use std::sync::Arc;
use std::time::Instant;

/// What can happen to a beat.
pub enum Event {
    /// The time of [`super::core::Core::wake`] has come.
    Due,
    /// A second has passed.
    Tick,
    /// The longest interval between two looks at the ledger has passed.
    Look,
    /// The definitions have been read.
    Defined(Fingerprinted, Router),
    /// The log is to say what this beat does.
    Explain,
    /// The answer to [`StoreRequest::List`].
    Listed(Result<Vec<(String, String)>, Error>),
    /// The answer to [`StoreRequest::Read`]: a value for each name.
    Read(Vec<Unread>, Result<Vec<Option<String>>, Error>),
    /// The answer to [`StoreRequest::Commit`], and when it was asked for by the host's clock.
    Committed(Vec<Claim>, Result<StepResponse, Error>, DateTime<Utc>),
    /// The answer to [`StoreRequest::CheckMark`].
    MarkChecked(Result<MarkCheck, Error>),
    /// The answer to [`StoreRequest::Tend`].
    Tended(Result<(), Error>),
    /// The answer to [`StoreRequest::LookUp`]: whether the task is done.
    LookedUp(EntryId, Result<bool, Error>),
}

/// What a beat can do about it.
#[derive(Debug)]
pub enum Effect {
    /// Ask for this; then say the event that belongs to it.
    Ask(StoreRequest),
    /// Log this.
    Log(Note),
    /// The beat works, or works as soon as the broker answers: tell the service manager, once.
    Ready,
    /// Definitions are in force: return the memory that only loading needed.
    Loaded,
}

/// What is asked of the ledger and of the stores. Each request has one answer.
#[derive(Debug)]
pub enum StoreRequest {
    /// All values of the ledger.
    List,
    /// The values of these entries.
    Read(Vec<Unread>),
    /// Make these changes, unless they reach the ledger after `until`.
    Commit {
        /// In their order.
        claims: Vec<Claim>,
        /// By the ledger's clock.
        until: Option<DateTime<Utc>>,
        /// When the messages are sent, by the beat's clock.
        now: DateTime<Utc>,
    },
    /// Whether the ledger has its mark, and what its clock shows.
    CheckMark,
    /// Let the ledger publish what waits.
    Tend,
    /// Whether a task is done.
    LookUp {
        /// The entry that sent it.
        id: EntryId,
        /// The task's id.
        task_id: String,
        /// Workers of this application run it: they hold its message for as long as it runs.
        ours: bool,
    },
}

/// Whether the ledger has its mark; and its clock, read between two instants of the host's clock.
#[derive(Debug, Clone)]
pub struct MarkCheck {
    /// The mark is there.
    pub present: bool,
    /// The ledger's clock.
    pub clock: DateTime<Utc>,
    /// When it was asked.
    pub asked: DateTime<Utc>,
    /// When it had answered.
    pub answered: DateTime<Utc>,
}

/// The time of an event, by the clocks of this host.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// For durations.
    pub mono: Instant,
    /// For what others read; it may be set.
    pub wall: DateTime<Utc>,
}

/// Something that is worth a line in the log.
#[derive(Debug, Clone)]
pub enum Note {
    /// Definitions are in force: how many entries there are.
    Loaded(usize),
    /// The occurrences of this claim were sent.
    Sent(Box<Claim>),
    /// The broker refuses the messages of this entry: why, and when they are tried again.
    Refused(Arc<str>, String, DateTime<Utc>),
    /// This occurrence is skipped: the previous task is not done.
    Overlap(Arc<str>, DateTime<Utc>),
    /// Another beat has loaded a newer definition.
    Superseded(Arc<str>),
    /// What the ledger had cannot be read, and why.
    Damaged(Arc<str>, String),
    /// The state is from this time, which is later than now: the clock was set back.
    ClockSetBack(Arc<str>, DateTime<Utc>),
    /// This host's clock and the broker's differ by so many seconds.
    Skew(f64),
    /// The ledger, or the broker, does not answer.
    Unreachable(Error),
    /// It answers again.
    Reachable,
    /// The ledger has lost its values.
    Lost,
    /// What this beat does.
    Status {
        /// How many entries there are.
        entries: usize,
        /// How many messages it has sent.
        sent: u64,
        /// What is due next.
        next: Option<DateTime<Utc>>,
        /// Another beat goes first.
        follows: bool,
        /// The ledger does not answer.
        outage: bool,
    },
}
