//! What an attempt has told its worker so far.

use crate::canvas::ResultTree;
use crate::wire::task_protocol::{Answer, Ask, Said};
use serde_json::value::RawValue;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// A state of one task is stored at most once in so long; of those in between the last one counts.
pub const STATE_EVERY: Duration = Duration::from_millis(200);

/// A result lists as many children; what is called beyond is called all the same.
pub const CHILDREN_MAX: usize = 10_000;

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct Told {
    /// What its end is to mean.
    pub said: Option<Said>,
    /// What it has called.
    pub children: Vec<ResultTree>,
    /// A state that is not stored yet.
    pub state: Option<(String, Box<RawValue>)>,
    /// When the last one was handed to the store.
    pub stored_at: Option<Instant>,
    /// The store has not answered yet.
    pub is_storing: bool,
}

impl Told {
    /// May a state be stored now?
    pub fn may_store(&self, now: Instant) -> bool {
        let is_early =
            self.stored_at.is_some_and(|at| now.saturating_duration_since(at) < STATE_EVERY);
        !self.is_storing && !is_early
    }
}

/// A request of an attempt.
#[derive(Debug)]
pub struct Asked {
    /// What it asks for.
    pub ask: Ask,
    /// Where the answer goes.
    pub reply: Reply,
}

/// Where an answer goes; who waits there is told that the attempt is over if this is dropped.
#[derive(Debug)]
pub struct Reply(oneshot::Sender<Answer>);

impl Reply {
    /// A reply, and where it arrives.
    pub fn new() -> (Reply, oneshot::Receiver<Answer>) {
        let (sender, receiver) = oneshot::channel();
        (Reply(sender), receiver)
    }

    /// Answers. Who asked may be gone.
    pub fn send(self, answer: Answer) {
        let _ = self.0.send(answer);
    }
}
