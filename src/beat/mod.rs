//! Sends tasks at the times of a schedule. [`core`] decides, [`drive`] does the I/O, [`event`] is
//! what passes between the two; [`state`] is what the ledger keeps of an entry; [`message`] builds
//! what is sent.

pub mod claim;
pub mod core;
pub mod drive;
pub mod event;
pub mod message;
pub mod state;

mod log;
mod reload;
mod request;

pub use drive::{BeatControl, Services, run};

use crate::schedule::entry::Entry;
use crate::task::Task;
use crate::wire::BodyFormat;
use std::sync::Arc;
use std::time::Duration;

/// What is decided before the start.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The host's name, for the origin of messages.
    pub host: String,
    /// The longest time between two looks at definitions, at the ledger, and at entries that are
    /// off.
    pub max_interval: Duration,
    /// How long the result of a task is kept; a task that was sent earlier counts as done.
    pub result_expires: Option<Duration>,
    /// How long an answer of the broker is waited for.
    pub patience: Duration,
}

/// Where the definitions of an application come from. They may change at any time.
pub trait DefinitionSource: Send {
    /// Whether they may have changed since they were last read. Called every
    /// [`Plan::max_interval`], so it must be cheap.
    fn changed(&mut self) -> bool;

    /// Reads them, and logs what is wrong with them. `None`: they cannot be seen at present, which
    /// says nothing about them.
    fn read(&mut self) -> Option<Definitions>;
}

/// What is to be sent, and where to.
pub struct Definitions {
    /// The entries, each with a name of its own.
    pub entries: Vec<Arc<Entry>>,
    /// Where the task of an entry is sent.
    pub router: Router,
}

/// Where the task of an entry is sent.
pub type Router = Box<dyn Fn(&Entry) -> Destination + Send>;

/// Where a task is sent.
#[derive(Debug, Clone, Default)]
pub struct Destination {
    /// The queue.
    pub queue: String,
    /// The priority, 0 to 9.
    pub priority: Option<u8>,
    /// Its definition, if the application has it.
    pub task: Option<Arc<Task>>,
    /// In which form bodies are written.
    pub format: BodyFormat,
}
