//! Chords, where a store counts their members. Where none does, Python's clients send a task that
//! polls (`celery.chord_unlock`), and there is nothing to do here.

#[cfg(feature = "redis")]
mod redis;

use super::{Error, Store};
use crate::canvas::{ChordMember, ChordStart, Returned};

/// What became of a member of a chord.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    /// Others are not done; or the body was called before.
    More,
    /// All are done, and the caller calls the body.
    Last,
    /// All are done, and somebody else has the claim.
    Claimed,
}

impl Store {
    /// Does it count the members of chords?
    pub fn counts(&self) -> bool {
        match self {
            #[cfg(feature = "redis")]
            Store::Redis(_) => true,
            Store::Sqlite(_) | Store::Disabled(_) => false,
        }
    }

    /// Stores the sizes of chords whose members are about to be sent.
    ///
    /// # Errors
    /// The store cannot be reached.
    pub async fn begin_chords(&self, chords: &[ChordStart]) -> Result<(), Error> {
        match self {
            #[cfg(feature = "redis")]
            Store::Redis(store) => store.begin_chords(chords).await,
            _ => {
                let _ = chords;
                Ok(())
            }
        }
    }

    /// Counts a member of a chord that has ended; once, however often it is asked. With the last one
    /// the caller has a claim under `token`, for a few seconds, and calls the body.
    ///
    /// # Errors
    /// The store cannot be reached, or refuses the member's value.
    pub async fn count(&self, part: &ChordMember, token: &str) -> Result<Counted, Error> {
        match self {
            #[cfg(feature = "redis")]
            Store::Redis(store) => store.count(part, token).await,
            _ => {
                let _ = (part, token);
                Ok(Counted::More)
            }
        }
    }

    /// What the members of a chord have returned, in their order.
    ///
    /// # Errors
    /// The store cannot be reached.
    pub async fn chord_results(&self, group_id: &str) -> Result<Vec<Returned>, Error> {
        match self {
            #[cfg(feature = "redis")]
            Store::Redis(store) => store.chord_results(group_id).await,
            _ => {
                let _ = group_id;
                Ok(Vec::new())
            }
        }
    }

    /// The body was called by the holder of the claim `token`.
    ///
    /// # Errors
    /// The store cannot be reached; then what is left of the chord expires.
    pub async fn end_chord(&self, group_id: &str, token: &str) -> Result<(), Error> {
        match self {
            #[cfg(feature = "redis")]
            Store::Redis(store) => store.end_chord(group_id, token).await,
            _ => {
                let _ = (group_id, token);
                Ok(())
            }
        }
    }
}
