//! What beats know of their entries, kept where their messages go: a map of texts. A value is
//! changed only by a beat that knows it, in one step with the publishing of messages. So any number
//! of beats may try, and exactly one sends.
//!
//! The contract, which `tests/contract/ledger` checks for every kind:
//!
//! * A step is done entirely or not at all, and of many that expect the same value one is done.
//! * What [`Ledger::commit`] answered [`StepOutcome::Done`] for is sent once, whatever dies.
//! * After an error each step was done or not; asked again, one that was done is answered by
//!   [`StepOutcome::Conflict`] with the state that it was to set.
//! * A step of [`Ledger::commit_by`] is not done after its time, however long it was on its way.
//! * Groups do not see each other.

mod file;

#[cfg(feature = "redis")]
use super::redis;
use super::{Broker, Error, Posting, sqlite};
use chrono::{DateTime, Utc};
use std::path::Path;

/// A change of one value, and what is sent with it.
#[derive(Debug, Clone)]
pub struct Step {
    /// Whose value.
    pub name: String,
    /// The value that it must have for the step to be done; `None`: none.
    pub expected: Option<String>,
    /// The value it gets; `None` removes it.
    pub state: Option<String>,
    /// Messages that are accepted if the step is done.
    pub postings: Vec<Posting>,
}

/// What became of a [`Step`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepOutcome {
    /// It is done, its messages are accepted, durably.
    Done,
    /// The value is another one, this one; nothing was done. If it is the one that the step was
    /// to set, an earlier try of it was done, whose answer was lost.
    Conflict(Option<String>),
    /// The broker refuses its messages, and why; nothing was done. Other steps of the same batch are
    /// not affected: what is wrong is one queue. It may be tried again, but not at once.
    Refused(String),
    /// It came too late; nothing was done.
    Late,
}

/// What the store answers to steps.
#[derive(Debug, Clone)]
pub struct StepResponse {
    /// One for each step, in their order.
    pub outcomes: Vec<StepOutcome>,
    /// The store's clock.
    pub clock: DateTime<Utc>,
}

/// The values of one group of beats. Clones are the same ledger.
#[derive(Clone)]
pub enum Ledger {
    /// In the broker's file.
    Sqlite(sqlite::Ledger),
    /// On the broker's server.
    #[cfg(feature = "redis")]
    Redis(redis::Ledger),
    /// In a file of its own.
    File(file::FileLedger),
}

macro_rules! each {
    ($self:ident, $ledger:ident => $call:expr) => {
        match $self {
            Ledger::Sqlite($ledger) => $call,
            #[cfg(feature = "redis")]
            Ledger::Redis($ledger) => $call,
            Ledger::File($ledger) => $call,
        }
    };
}

impl Ledger {
    /// The ledger of this group in the store of the messages.
    pub fn of(broker: &Broker, group: &str) -> Ledger {
        match broker {
            Broker::Sqlite(broker) => Ledger::Sqlite(sqlite::Ledger::new(broker, group)),
            #[cfg(feature = "redis")]
            Broker::Redis(broker) => Ledger::Redis(redis::Ledger::new(broker, group)),
        }
    }

    /// The ledger of this group in the SQLite file at `path`, which is made if it is missing, while
    /// messages go to `broker`. Several beats of one host may share the file. A beat's file that is
    /// damaged is set aside, and a warning is logged. Blocks while it checks the whole file, but not
    /// for another process that has it locked: then calls return an error until it is free.
    ///
    /// # Errors
    /// The file cannot be made, or cannot be used.
    pub fn in_file(path: &Path, group: &str, broker: &Broker) -> Result<Ledger, Error> {
        if let Broker::Sqlite(broker) = broker
            && is_same_file(broker.db().path(), path)
        {
            // The broker's messages must never be set aside.
            return Ok(Ledger::Sqlite(sqlite::Ledger::new(broker, group)));
        }
        Ok(Ledger::File(file::FileLedger::open(path, group, broker.producer())?))
    }

    /// Does these steps independently: one that cannot be done does not hold up others. Several of
    /// the same name are done in their order.
    ///
    /// # Errors
    /// The store does not answer, or refuses. Some steps may have been done.
    pub async fn commit(&self, steps: Vec<Step>) -> Result<StepResponse, Error> {
        self.commit_by(steps, None).await
    }

    /// As [`Ledger::commit`]; but steps that reach the store after `until`, by the store's clock,
    /// are not done: they may have waited for a lock or for the network, and have to be decided
    /// again.
    ///
    /// # Errors
    /// As [`Ledger::commit`].
    pub async fn commit_by(
        &self,
        steps: Vec<Step>,
        until: Option<DateTime<Utc>>,
    ) -> Result<StepResponse, Error> {
        each!(self, ledger => ledger.commit(steps, until).await)
    }

    /// The values of these names, in their order.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn read(&self, names: Vec<String>) -> Result<Vec<Option<String>>, Error> {
        each!(self, ledger => ledger.read(names).await)
    }

    /// All names and values, in no order.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn all(&self) -> Result<Vec<(String, String)>, Error> {
        each!(self, ledger => ledger.all().await)
    }

    /// Whether it may fall back to an older state, or lose everything, although no message is lost.
    /// It then logs that itself, and what a beat knows is the truth.
    pub fn is_disposable(&self) -> bool {
        matches!(self, Ledger::File(_))
    }

    /// Publishes messages that were accepted and could not be published before. To be called about
    /// once a second, whether or not anything is committed.
    ///
    /// # Errors
    /// The broker or the file does not answer; the next call tries again.
    pub async fn tend(&self) -> Result<(), Error> {
        match self {
            Ledger::File(ledger) => ledger.tend().await,
            _ => Ok(()),
        }
    }
}

/// Why what is at `path` cannot be the file of [`Ledger::in_file`], if it cannot. Changes nothing.
pub fn refusal(path: &Path) -> Option<String> {
    file::refusal(path)
}

/// Makes the file of [`Ledger::in_file`] if it is missing.
///
/// # Errors
/// It cannot be made, or cannot be opened.
pub fn prepare(path: &Path) -> Result<(), Error> {
    file::prepare(path)
}

/// The values of these names in the file of [`Ledger::in_file`], for a command that only reads: nothing is
/// made, written or set aside.
///
/// # Errors
/// The file is damaged, cannot be read, or is not a beat's.
pub fn peek(path: &Path, group: &str, names: &[String]) -> Result<Vec<Option<String>>, Error> {
    file::peek(path, group, names)
}

fn is_same_file(one: &Path, other: &Path) -> bool {
    match (one.canonicalize(), other.canonicalize()) {
        (Ok(one), Ok(other)) => one == other,
        _ => one == other,
    }
}
