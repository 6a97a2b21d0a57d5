//! Whether the ledger still has what it was given. It has a mark, a value that belongs to no entry:
//! if the mark is missing, the ledger has lost everything, as a server that was emptied, and beats
//! give it back what they know.
//!
//! | trust | a value is missing | the mark is there | the mark is missing |
//! | --- | --- | --- | --- |
//! | sure | doubted | sure | restore; a follower: lost |
//! | doubted | doubted | sure, read again | restore; a follower: lost |
//! | lost | lost | sure, read again | restore after [`BEAT_DEFER`] |

use crate::beat::claim::Claim;
use crate::bounds::{BEAT_DEFER, BEAT_LAG};
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};

/// The name of the mark.
pub const MARK: &str = "";

/// See the module.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    /// Nothing speaks against it.
    #[default]
    Sure,
    /// The ledger lacks a value: its mark is checked before anything is sent.
    Doubted,
    /// The mark has been missing since then. The beat that goes first knows best what was sent, so
    /// it is the one to restore it.
    Lost(DateTime<Utc>),
}

/// What follows from a check of the mark.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Recovery {
    /// Nothing.
    None,
    /// Read again what is off: another beat may have restored it.
    ReadAgain,
    /// Give the ledger all that is known.
    Restore,
}

impl Trust {
    /// The ledger lacks a value.
    pub(super) fn doubt(&mut self) {
        if *self == Trust::Sure {
            *self = Trust::Doubted;
        }
    }

    /// How long after the last request the mark is checked, if it has to be before anything else.
    pub(super) fn check_after(&self) -> Option<TimeDelta> {
        match self {
            Trust::Sure => None,
            Trust::Doubted => Some(TimeDelta::zero()),
            Trust::Lost(_) => Some(BEAT_LAG),
        }
    }

    /// The mark is there, or is missing. `follows`: another beat goes first.
    pub(super) fn checked(&mut self, present: bool, follows: bool, now: DateTime<Utc>) -> Recovery {
        let since = match *self {
            Trust::Lost(since) => since,
            Trust::Sure | Trust::Doubted => now,
        };
        let before = std::mem::take(self);
        match present {
            true if before == Trust::Sure => Recovery::None,
            true => Recovery::ReadAgain,
            false if follows && now - since < BEAT_DEFER => {
                *self = Trust::Lost(since);
                Recovery::None
            }
            false => Recovery::Restore,
        }
    }

    /// The clock was set back: no time that it showed before is waited for.
    pub(super) fn set_back(&mut self, now: DateTime<Utc>) {
        if let Trust::Lost(since) = self {
            *since = (*since).min(now);
        }
    }
}

/// The claim that writes the mark.
pub(super) fn mark(now: DateTime<Utc>) -> Claim {
    let since = now.to_rfc3339_opts(SecondsFormat::Secs, true);
    Claim::of_value(MARK.into(), None, Some(format!("{{\"since\":\"{since}\"}}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_above_holds() {
        let now = DateTime::UNIX_EPOCH + TimeDelta::days(1);
        let (recent, old) = (Trust::Lost(now), Trust::Lost(now - BEAT_DEFER));
        let rows = [
            (Trust::Sure, true, false, Trust::Sure, Recovery::None),
            (Trust::Doubted, true, true, Trust::Sure, Recovery::ReadAgain),
            (recent, true, true, Trust::Sure, Recovery::ReadAgain),
            (Trust::Sure, false, false, Trust::Sure, Recovery::Restore),
            (Trust::Sure, false, true, recent, Recovery::None),
            (Trust::Doubted, false, false, Trust::Sure, Recovery::Restore),
            (Trust::Doubted, false, true, recent, Recovery::None),
            (recent, false, true, recent, Recovery::None),
            (recent, false, false, Trust::Sure, Recovery::Restore),
            (old, false, true, Trust::Sure, Recovery::Restore),
        ];
        for (before, present, follows, after, recovery) in rows {
            let mut trust = before;
            assert_eq!(trust.checked(present, follows, now), recovery, "{before:?}");
            assert_eq!(trust, after, "{before:?}");
        }
        for (before, after) in
            [(Trust::Sure, Trust::Doubted), (Trust::Doubted, Trust::Doubted), (old, old)]
        {
            let mut trust = before;
            trust.doubt();
            assert_eq!(trust, after);
        }
    }
}
