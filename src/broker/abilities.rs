//! What a broker can do, and what its user may, as data: decided upon by pure code, checked by the
//! contract.

/// What a broker promises beside the least that all do; see [`super`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Abilities {
    /// An [`super::Item`] is done entirely or not at all.
    pub atomic: bool,
    /// A worker holds its messages for as long as it lives, however long that is.
    pub leases: bool,
    /// A delivery says how often it was lost.
    pub counts: bool,
    /// The place of a task can be found by its id.
    pub finds: bool,
    /// It keeps messages back until they are due.
    pub native_eta: bool,
    /// How priorities are written.
    pub priorities: PriorityRule,
}

/// Which number a priority is in a message, so that Celery programs on the same broker understand
/// it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PriorityRule {
    /// 9 is served first, and 0 is what nobody asked for.
    HighFirst,
    /// 0 is served first, and is what nobody asked for.
    LowFirst,
}

impl PriorityRule {
    /// The number for a priority of 0 to 9, higher served first; `None` if the sender does not
    /// care.
    pub fn number(self, priority: Option<u8>) -> u8 {
        match self {
            PriorityRule::HighFirst => priority.unwrap_or(0),
            PriorityRule::LowFirst => priority.map_or(0, |priority| 9 - priority.min(9)),
        }
    }

    /// The priority of 0 to 9, higher served first, that a message has with this number.
    pub fn read(self, number: i64) -> u8 {
        let number = number.clamp(0, 9) as u8;
        match self {
            PriorityRule::HighFirst => number,
            PriorityRule::LowFirst => 9 - number,
        }
    }
}

/// What a worker has to know of its server before it begins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerChecks {
    /// What its user may not do and a worker must: a sentence for each command, with the keys.
    pub refused: Vec<String>,
    /// What a worker can do without, or what endangers its messages.
    pub warnings: Vec<String>,
}
