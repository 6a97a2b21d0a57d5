//! Chords: a store counts their members, or tells what they have returned.

#[cfg(feature = "redis")]
mod redis;

use super::{Error, Keep, Store};
use crate::canvas::{ChordMember, ChordStart, Chords, ResultTree, Returned};
use crate::wire::{Exception, body};
use serde_json::value::RawValue;
use std::collections::HashMap;

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
    /// How does it notice that a chord's header has ended?
    pub fn chords(&self) -> Chords {
        match self {
            #[cfg(feature = "redis")]
            Store::Redis(_) => Chords::Counted,
            Store::Sqlite(_) => Chords::Polled,
            Store::Disabled(_) => Chords::Unsupported,
        }
    }

    /// What these members of a header have returned, in their order; `None` while any has not.
    ///
    /// # Errors
    /// The store cannot be reached, or refuses to give one.
    pub async fn polled(&self, header: &[ResultTree]) -> Result<Option<Vec<Returned>>, Error> {
        match self {
            #[cfg(feature = "redis")]
            Store::Redis(store) => polled(store, header).await,
            Store::Sqlite(store) => polled(store, header).await,
            Store::Disabled(store) => polled(store, header).await,
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

    /// Counts members of chords that have ended; each once, however often it is asked. With the last
    /// one of a chord the caller has a claim under its token, for a few seconds, and calls the body.
    ///
    /// # Errors
    /// The store cannot be reached, or refuses the value of a member.
    pub async fn count(&self, parts: &[(&ChordMember, &str)]) -> Result<Vec<Counted>, Error> {
        match self {
            #[cfg(feature = "redis")]
            Store::Redis(store) => store.count(parts).await,
            _ => Ok(vec![Counted::More; parts.len()]),
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

async fn polled<K: Keep>(store: &K, header: &[ResultTree]) -> Result<Option<Vec<Returned>>, Error> {
    let (mut all, none) = (Vec::new(), HashMap::new());
    for node in header {
        match returned(store, node, &none).await? {
            Some(one) => all.push(one),
            None => return Ok(None),
        }
    }
    Ok(Some(all))
}

/// What the result `node` has come to; `None`: nothing yet. `known` are results that are not stored
/// yet, by their tasks' ids.
async fn returned<K: Keep>(
    store: &K,
    node: &ResultTree,
    known: &HashMap<String, Returned>,
) -> Result<Option<Returned>, Error> {
    let members = match node {
        ResultTree::Group { members, .. } => members,
        ResultTree::Task { id, .. } => {
            if let Some(returned) = known.get(id) {
                return Ok(Some(returned.clone()));
            }
            let found = store.get(id).await?.filter(|meta| meta.is_ready());
            return Ok(found.map(|meta| match meta.status.as_str() {
                "SUCCESS" => Returned::Value(meta.result),
                _ => Returned::Failed(id.clone(), Exception::read(&meta.result)),
            }));
        }
    };
    let (mut values, mut failed) = (Vec::new(), None);
    for member in members {
        match Box::pin(returned(store, member, known)).await? {
            Some(Returned::Value(value)) => values.push(value),
            Some(one) => failed = failed.or(Some(one)),
            None => return Ok(None),
        }
    }
    let all = || RawValue::from_string(body::array(&values)).unwrap_or_default();
    Ok(Some(failed.unwrap_or_else(|| Returned::Value(all()))))
}
