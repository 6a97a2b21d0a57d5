//! The ledger of beats in an SQLite file: a table of values, and a transaction for each batch of
//! steps.

use super::Broker;
use super::producer::insert;
use crate::broker::Posting;
use crate::broker::ledger::{Step, StepOutcome, StepResponse};
use crate::clock;
use crate::link::error::Error;
use crate::link::sqlite::{Db, Durability, cell};
use chrono::{DateTime, Utc};
use rusqlite::{Connection, OptionalExtension, params};
use std::sync::Arc;

/// Steps of one transaction, at most: bounds how long others wait for the lock.
const STEPS_MAX: usize = 4096;

/// The values of one group, in the file of the messages.
#[derive(Clone)]
pub struct Ledger {
    broker: Broker,
    values: Values,
}

impl Ledger {
    /// Of the beats of this group.
    pub fn new(broker: &Broker, group: &str) -> Ledger {
        let values = Values { table: "qworker_beat", group: group.into() };
        Ledger { broker: broker.clone(), values }
    }

    /// See [`crate::broker::ledger::Ledger::commit_by`].
    pub async fn commit(
        &self,
        mut steps: Vec<Step>,
        until: Option<DateTime<Utc>>,
    ) -> Result<StepResponse, Error> {
        let mut outcomes = Vec::with_capacity(steps.len());
        while !steps.is_empty() {
            let rest = steps.split_off(steps.len().min(STEPS_MAX));
            let steps = std::mem::replace(&mut steps, rest);
            let accept = |c: &Connection, postings: Vec<&Posting>| {
                postings.iter().try_for_each(|posting| insert(c, posting))?;
                Ok(!postings.is_empty())
            };
            let (done, has_sent) =
                self.values.commit(self.broker.db(), steps.into(), until, accept).await?;
            outcomes.extend(done);
            if has_sent {
                self.broker.notify();
            }
        }
        Ok(StepResponse { outcomes, clock: clock::now() })
    }

    /// See [`crate::broker::ledger::Ledger::read`].
    pub async fn read(&self, names: Vec<String>) -> Result<Vec<Option<String>>, Error> {
        self.values.read(self.broker.db(), names.into()).await
    }

    /// See [`crate::broker::ledger::Ledger::all`].
    pub async fn all(&self) -> Result<Vec<(String, String)>, Error> {
        self.values.all(self.broker.db()).await
    }
}

/// The values of one group, in a table of some file.
#[derive(Clone)]
pub(in crate::broker) struct Values {
    /// A table with the columns `grp`, `name` and `state`.
    pub(in crate::broker) table: &'static str,
    /// The group of beats.
    pub(in crate::broker) group: Arc<str>,
}

impl Values {
    /// Does steps in one transaction. `accept` gets the messages of all that are done.
    pub(in crate::broker) async fn commit<T: Default + Send + 'static>(
        &self,
        db: &Db,
        steps: Arc<[Step]>,
        until: Option<DateTime<Utc>>,
        accept: impl FnOnce(&Connection, Vec<&Posting>) -> Result<T, Error> + Send + 'static,
    ) -> Result<(Vec<StepOutcome>, T), Error> {
        // Of several beats most come too late: they need not wait for the lock to hear it.
        let (values, asked) = (self.clone(), steps.clone());
        let late = db.run(Durability::Read, move |c| values.conflicts(c, &asked)).await?;
        if let Some(outcomes) = late {
            return Ok((outcomes, T::default()));
        }
        let sends = steps.iter().any(|step| !step.postings.is_empty());
        let durability = if sends { Durability::Disk } else { Durability::Process };
        let values = self.clone();
        db.run(durability, move |c| {
            // It has waited for the lock.
            if until.is_some_and(|until| clock::now() > until) {
                return Ok((vec![StepOutcome::Late; steps.len()], T::default()));
            }
            let mut outcomes = Vec::with_capacity(steps.len());
            let mut postings = Vec::new();
            for step in steps.iter() {
                let actual = values.get(c, &step.name)?;
                if actual != step.expected {
                    outcomes.push(StepOutcome::Conflict(actual));
                    continue;
                }
                values.set(c, &step.name, step.state.as_deref())?;
                postings.extend(&step.postings);
                outcomes.push(StepOutcome::Done);
            }
            Ok((outcomes, accept(c, postings)?))
        })
        .await
    }

    /// The outcomes, if no step can be done.
    fn conflicts(&self, c: &Connection, steps: &[Step]) -> Result<Option<Vec<StepOutcome>>, Error> {
        let mut outcomes = Vec::new();
        for step in steps {
            let actual = self.get(c, &step.name)?;
            if actual == step.expected {
                return Ok(None);
            }
            outcomes.push(StepOutcome::Conflict(actual));
        }
        Ok(Some(outcomes))
    }

    /// The values of these names.
    pub(in crate::broker) async fn read(
        &self,
        db: &Db,
        names: Arc<[String]>,
    ) -> Result<Vec<Option<String>>, Error> {
        let values = self.clone();
        let get = move |c: &Connection| names.iter().map(|name| values.get(c, name)).collect();
        db.run(Durability::Read, get).await
    }

    /// All names and values.
    pub(in crate::broker) async fn all(&self, db: &Db) -> Result<Vec<(String, String)>, Error> {
        let Values { table, group } = self.clone();
        db.run(Durability::Read, move |c| {
            let sql = format!("SELECT name, state FROM {table} WHERE grp = ?");
            let mut all = c.prepare_cached(&sql)?;
            let all =
                all.query_map([&*group], |row| Ok((cell::text(row, 0), cell::text(row, 1))))?;
            Ok(all.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// The value of this name.
    pub(in crate::broker) fn get(
        &self,
        c: &Connection,
        name: &str,
    ) -> Result<Option<String>, Error> {
        let Values { table, group } = self;
        let sql = format!("SELECT state FROM {table} WHERE grp = ? AND name = ?");
        let mut statement = c.prepare_cached(&sql)?;
        let found = statement.query_row([&**group, name], |row| Ok(cell::text(row, 0)));
        Ok(found.optional()?)
    }

    fn set(&self, c: &Connection, name: &str, state: Option<&str>) -> Result<(), Error> {
        let Values { table, group } = self;
        match state {
            Some(state) => c
                .prepare_cached(&format!(
                    "INSERT INTO {table} (grp, name, state) VALUES (?1, ?2, ?3)
                     ON CONFLICT (grp, name) DO UPDATE SET state = ?3"
                ))?
                .execute(params![group, name, state])?,
            None => c
                .prepare_cached(&format!("DELETE FROM {table} WHERE grp = ? AND name = ?"))?
                .execute([&**group, name])?,
        };
        Ok(())
    }
}
