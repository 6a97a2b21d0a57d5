//! The ledger of beats in the file of the messages: a table of values, and a transaction for
//! each batch of steps.

use super::Broker;
use super::producer::insert;
use crate::broker::ledger::{Answer, Outcome, Step};
use crate::clock;
use crate::link::error::Error;
use crate::link::sqlite::{Durability, cell};
use chrono::{DateTime, Utc};
use rusqlite::{Connection, OptionalExtension, params};
use std::sync::Arc;

/// Steps of one transaction at the most: nobody waits long for the lock because of them.
const STEPS_MAX: usize = 4096;

/// The values of one group, in the file of the messages.
#[derive(Clone)]
pub struct Ledger {
    broker: Broker,
    group: Arc<str>,
}

/// One value of a table `qworker_beat` in some file, as it is within a transaction.
struct Value<'a> {
    /// The group of beats.
    group: &'a str,
    /// Whose value.
    name: &'a str,
}

impl Value<'_> {
    /// What it is now.
    fn get(&self, c: &Connection) -> Result<Option<String>, Error> {
        let sql = "SELECT state FROM qworker_beat WHERE grp = ? AND name = ?";
        let found =
            c.prepare_cached(sql)?.query_row([self.group, self.name], |row| Ok(cell::text(row, 0)));
        Ok(found.optional()?)
    }

    /// Makes it this, or nothing.
    fn set(&self, c: &Connection, state: Option<&str>) -> Result<(), Error> {
        match state {
            Some(state) => c
                .prepare_cached(
                    "INSERT INTO qworker_beat (grp, name, state) VALUES (?1, ?2, ?3)
                     ON CONFLICT (grp, name) DO UPDATE SET state = ?3",
                )?
                .execute(params![self.group, self.name, state])?,
            None => c
                .prepare_cached("DELETE FROM qworker_beat WHERE grp = ? AND name = ?")?
                .execute([self.group, self.name])?,
        };
        Ok(())
    }
}

impl Ledger {
    /// Of the beats of this group.
    pub fn new(broker: &Broker, group: &str) -> Ledger {
        Ledger { broker: broker.clone(), group: group.into() }
    }

    /// See [`crate::broker::ledger::Ledger::commit_by`].
    pub async fn commit(
        &self,
        mut steps: Vec<Step>,
        until: Option<DateTime<Utc>>,
    ) -> Result<Answer, Error> {
        let mut outcomes = Vec::with_capacity(steps.len());
        while !steps.is_empty() {
            let rest = steps.split_off(steps.len().min(STEPS_MAX));
            outcomes.extend(self.commit_batch(std::mem::replace(&mut steps, rest), until).await?);
        }
        Ok(Answer { outcomes, clock: clock::now() })
    }

    async fn commit_batch(
        &self,
        steps: Vec<Step>,
        until: Option<DateTime<Utc>>,
    ) -> Result<Vec<Outcome>, Error> {
        // Of several beats most come too late: they need not wait for the lock to hear it.
        let (steps, group) = (Arc::new(steps), self.group.clone());
        let (asked, of) = (steps.clone(), group.clone());
        let db = self.broker.db();
        let late = db.run(Durability::Read, move |c| all_too_late(c, &of, &asked)).await?;
        if let Some(outcomes) = late {
            return Ok(outcomes);
        }
        let sends = steps.iter().any(|step| !step.postings.is_empty());
        let durability = if sends { Durability::Disk } else { Durability::Process };
        let outcomes = db
            .run(durability, move |c| {
                // It has waited for the lock.
                if until.is_some_and(|until| clock::now() > until) {
                    return Ok(vec![Outcome::Late; steps.len()]);
                }
                steps.iter().map(|step| take_step(c, &group, step)).collect::<Result<Vec<_>, _>>()
            })
            .await?;
        if sends && outcomes.contains(&Outcome::Done) {
            self.broker.ring();
        }
        Ok(outcomes)
    }

    /// See [`crate::broker::ledger::Ledger::read`].
    pub async fn read(&self, names: Vec<String>) -> Result<Vec<Option<String>>, Error> {
        let group = self.group.clone();
        let get = move |c: &Connection| {
            names.iter().map(|name| Value { group: &group, name }.get(c)).collect()
        };
        self.broker.db().run(Durability::Read, get).await
    }

    /// See [`crate::broker::ledger::Ledger::all`].
    pub async fn all(&self) -> Result<Vec<(String, String)>, Error> {
        let group = self.group.clone();
        self.broker
            .db()
            .run(Durability::Read, move |c| {
                let sql = "SELECT name, state FROM qworker_beat WHERE grp = ?";
                let mut all = c.prepare_cached(sql)?;
                let all =
                    all.query_map([&*group], |row| Ok((cell::text(row, 0), cell::text(row, 1))))?;
                Ok(all.collect::<Result<_, _>>()?)
            })
            .await
    }
}

/// The outcomes, if no step can be done.
fn all_too_late(
    c: &Connection,
    group: &str,
    steps: &[Step],
) -> Result<Option<Vec<Outcome>>, Error> {
    let mut outcomes = Vec::new();
    for step in steps {
        let actual = Value { group, name: &step.name }.get(c)?;
        if actual == step.expected {
            return Ok(None);
        }
        outcomes.push(Outcome::Conflict(actual));
    }
    Ok(Some(outcomes))
}

fn take_step(c: &Connection, group: &str, step: &Step) -> Result<Outcome, Error> {
    let value = Value { group, name: &step.name };
    let actual = value.get(c)?;
    if actual != step.expected {
        return Ok(Outcome::Conflict(actual));
    }
    value.set(c, step.state.as_deref())?;
    step.postings.iter().try_for_each(|posting| insert(c, posting))?;
    Ok(Outcome::Done)
}
