//! Values and parcels in memory, for as long as there can be no file.

use super::parcel::{self, Parcel};
use super::{RETRY_EVERY, Step};
use crate::broker::ledger::Outcome;
use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Instant;

/// What is known; `None` for a name whose value was removed.
#[derive(Clone)]
pub struct Memory {
    values: HashMap<String, Option<String>>,
    parcels: VecDeque<Parcel>,
    /// Tokens of parcels that the file has too.
    filed: HashSet<String>,
    tried: Instant,
}

impl Memory {
    /// One that knows nothing.
    pub fn new() -> Memory {
        Memory {
            values: HashMap::new(),
            parcels: VecDeque::new(),
            filed: HashSet::new(),
            tried: Instant::now(),
        }
    }

    /// Takes over what the file could still tell.
    pub fn know(&mut self, values: Vec<(String, String)>, parcels: Vec<Parcel>) {
        self.filed.extend(parcels.iter().map(|parcel| parcel.token.clone()));
        self.parcels.extend(parcels);
        self.values.extend(values.into_iter().map(|(name, value)| (name, Some(value))));
    }

    /// Is it time to try the file again?
    pub fn is_due(&self) -> bool {
        self.tried.elapsed() >= RETRY_EVERY
    }

    /// It was tried just now.
    pub fn wait(&mut self) {
        self.tried = Instant::now();
    }

    /// Does the steps. Who says something of a name that is not known is believed.
    pub fn apply(&mut self, steps: &[Step]) -> (Vec<Outcome>, Vec<Parcel>) {
        let mut postings = Vec::new();
        let mut outcomes = Vec::with_capacity(steps.len());
        for step in steps {
            let known = self.values.get(&step.name);
            outcomes.push(match known.filter(|known| **known != step.expected) {
                Some(actual) => Outcome::Conflict(actual.clone()),
                None => {
                    self.values.insert(step.name.clone(), step.state.clone());
                    postings.extend(step.postings.iter().cloned());
                    Outcome::Done
                }
            });
        }
        let parcels = parcel::cut(postings.into_iter());
        self.parcels.extend(parcels.iter().cloned());
        (outcomes, parcels)
    }

    /// The values of these names.
    pub fn read(&self, names: &[String]) -> Vec<Option<String>> {
        names.iter().map(|name| self.values.get(name).cloned().flatten()).collect()
    }

    /// All values.
    pub fn all(&self) -> Vec<(String, String)> {
        let all = self.values.iter();
        all.filter_map(|(name, value)| Some((name.clone(), value.clone()?))).collect()
    }

    /// All names, with what became of them.
    pub fn changes(&self) -> &HashMap<String, Option<String>> {
        &self.values
    }

    /// What is not published yet, the oldest first.
    pub fn parcels(&self) -> Vec<Parcel> {
        self.parcels.iter().cloned().collect()
    }

    /// These are published; gives those that are to be removed from the file, once there is one.
    pub fn remove(&mut self, tokens: &[String]) -> Vec<String> {
        let ours: HashSet<String> = self.parcels.iter().map(|one| one.token.clone()).collect();
        self.parcels.retain(|parcel| !tokens.contains(&parcel.token));
        let in_file = |token: &&String| !ours.contains(*token) || self.filed.contains(*token);
        tokens.iter().filter(in_file).cloned().collect()
    }
}
