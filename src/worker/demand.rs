//! When the consumer takes messages: the decisions of its loop, without I/O.

use crate::broker::Want;

/// What the worker wants from the broker, and whether it has got it.
#[derive(Debug)]
pub struct Demand {
    /// The latest wish and its number; `None` once the worker closes its end of the broker.
    wanted: Option<(u64, Want)>,
    /// The number of the last wish that was fulfilled.
    fulfilled: Option<u64>,
}

/// The next action of the consumer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConsumerAction {
    /// Takes up to this many messages; see [`Demand::fulfil`].
    Take(u64, Want),
    /// Waits until something else is wanted.
    Wait,
    /// Closes its end of the broker.
    Close,
}

impl Default for Demand {
    /// Nothing is wanted yet.
    fn default() -> Demand {
        Demand { wanted: Some((0, Want::default())), fulfilled: None }
    }
}

impl Demand {
    /// Replaces what is wanted; `None` closes.
    pub fn set(&mut self, wanted: Option<(u64, Want)>) {
        self.wanted = wanted;
    }

    /// What follows from it.
    pub fn next(&self) -> ConsumerAction {
        match self.wanted {
            None => ConsumerAction::Close,
            Some((number, want)) if want == Want::default() || self.fulfilled == Some(number) => {
                ConsumerAction::Wait
            }
            Some((number, want)) => ConsumerAction::Take(number, want),
        }
    }

    /// Notes that messages were taken for the wish of this number: it is not fulfilled twice,
    /// although the worker may change its mind about how much it wants before they arrive.
    pub fn fulfil(&mut self, number: u64) {
        self.fulfilled = Some(number);
    }
}
