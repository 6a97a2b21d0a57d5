//! A ledger in an SQLite file of its own, while messages go to any broker.
//!
//! Two stores cannot change in one step. So the file takes the messages together with the new
//! values, into an [`outbox`]; from there they are published under a token, which the broker
//! accepts once, and then removed. What a beat that was killed in between has left is published by
//! the next one that uses the file.
//!
//! The file is disposable: one that is damaged is set aside, if it is recognisably a beat's, and a
//! running beat writes what it knows to a new one. Anything else stays as it is. Where there can be
//! no file, nothing is done: the error names the file, and each call tries again.

mod database;
mod inspect;
mod outbox;
mod set_aside;

use super::{Step, StepOutcome, StepResponse};
use crate::broker::{Error, Producer};
use crate::clock;
use crate::link::error::StoreErrorKind;
use chrono::{DateTime, Utc};
use database::LedgerDatabase;
use outbox::Batch;
use set_aside::{FileId, is_aside, number_of};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// Steps of one transaction, at most.
const STEPS_MAX: usize = 4096;

/// A batch of another beat that is older was left by one that died.
const LEFT_AFTER: Duration = Duration::from_secs(1);

/// How many times in a row a file is set aside: then it is the disk that is at fault.
const REPLACED_MAX: usize = 3;

/// How often a queue whose messages are refused is tried again.
const REFUSED_FOR: Duration = Duration::from_secs(25);

/// See [`super::Ledger::in_file`].
#[derive(Clone)]
pub struct FileLedger(Arc<Mutex<Inner>>);

/// Only one call at a time has it: batches are published in the order in which they were accepted.
struct Inner {
    path: PathBuf,
    group: Arc<str>,
    producer: Producer,
    /// `None` while it cannot be used.
    database: Option<LedgerDatabase>,
    /// How many times in a row it was set aside.
    replaced: usize,
    /// There may be batches in the outbox that have to be published before others.
    backlog: bool,
    /// Tokens of batches that are published and still in the outbox.
    published: Vec<String>,
    /// Queues whose messages the broker refuses, why, and since when. Their batches wait.
    refused: HashMap<String, (String, Instant)>,
}

impl FileLedger {
    /// See [`super::Ledger::in_file`].
    pub fn open(path: &Path, group: &str, producer: Producer) -> Result<FileLedger, Error> {
        let mut inner = Inner {
            path: path.into(),
            group: group.into(),
            producer,
            database: None,
            replaced: 0,
            backlog: true,
            published: Vec::new(),
            refused: HashMap::new(),
        };
        match inner.open().map(drop) {
            Err(error) if error.kind() != StoreErrorKind::Busy => Err(error),
            _ => Ok(FileLedger(Arc::new(Mutex::new(inner)))),
        }
    }

    /// See [`super::Ledger::commit_by`].
    pub async fn commit(
        &self,
        mut steps: Vec<Step>,
        until: Option<DateTime<Utc>>,
    ) -> Result<StepResponse, Error> {
        let mut inner = self.0.lock().await;
        let mut outcomes = Vec::with_capacity(steps.len());
        while !steps.is_empty() {
            let rest = steps.split_off(steps.len().min(STEPS_MAX));
            let batch = std::mem::replace(&mut steps, rest);
            outcomes.extend(inner.commit(batch, until).await?);
        }
        Ok(StepResponse { outcomes, clock: clock::now() })
    }

    /// See [`super::Ledger::read`].
    pub async fn read(&self, names: Vec<String>) -> Result<Vec<Option<String>>, Error> {
        let names: Arc<[String]> = names.into();
        let read = async |database: &LedgerDatabase| database.read(names.clone()).await;
        self.0.lock().await.with_database(read).await
    }

    /// See [`super::Ledger::all`].
    pub async fn all(&self) -> Result<Vec<(String, String)>, Error> {
        self.0.lock().await.with_database(async |database| database.all().await).await
    }

    /// See [`super::Ledger::tend`].
    pub async fn tend(&self) -> Result<(), Error> {
        self.0.lock().await.publish_outbox().await
    }
}

/// See [`super::refusal`].
pub(super) fn refusal(path: &Path) -> Option<String> {
    inspect::look(path)
        .err()
        .filter(|error| error.kind() == StoreErrorKind::Unopened)
        .map(|e| e.to_string())
}

/// See [`super::prepare`].
pub(super) fn prepare(path: &Path) -> Result<(), Error> {
    match inspect::prepare(path) {
        // It is set aside when it is opened.
        Err(error) if error.kind() == StoreErrorKind::Damaged => Ok(()),
        done => done,
    }
}

/// See [`super::peek`].
pub(super) fn peek(
    path: &Path,
    group: &str,
    names: &[String],
) -> Result<Vec<Option<String>>, Error> {
    database::peek(path, group, names).map_err(|error| match error.kind() {
        StoreErrorKind::Damaged => {
            let path = path.display();
            let text = format!("{path} is damaged ({error}): a beat that starts sets it aside");
            Error::of(StoreErrorKind::Damaged, text)
        }
        _ => error.with(path.display()),
    })
}

impl Inner {
    fn open(&mut self) -> Result<&LedgerDatabase, Error> {
        self.backlog = true;
        let opened = database::open_or_replace(&self.path, &self.group);
        let opened = opened.map_err(|error| match error.kind() {
            StoreErrorKind::Busy => {
                let text = format!("{} is locked by another process", self.path.display());
                Error::of(StoreErrorKind::Busy, text)
            }
            _ => error,
        })?;
        Ok(self.database.insert(opened))
    }

    /// The file that is at the path.
    fn database(&mut self) -> Result<LedgerDatabase, Error> {
        let old = match &self.database {
            Some(database) if database.is_in_place(&self.path) => return Ok(database.clone()),
            old => old.as_ref().map(LedgerDatabase::number),
        };
        let found = number_of(&self.path);
        self.database = None;
        let database = self.open()?.clone();
        if let Some(old) = old {
            self.log_another(old, found, database.number());
        }
        Ok(database)
    }

    /// The file of the number `old` is no longer at the path. One warning is enough: of what was
    /// `found` there instead, another one may have said that it is of no use.
    fn log_another(&self, old: FileId, found: Option<FileId>, new: FileId) {
        let path = self.path.display();
        if is_aside(&self.path, old) {
            // By another beat, which says so.
            tracing::info!("{path} is another file now");
        } else if found.is_none_or(|found| found == new) {
            tracing::warn!(
                "{path} was removed or replaced while it was in use: it is opened again"
            );
        }
    }

    /// Uses the file. One that turns out to be damaged is set aside, and a new one is used.
    async fn with_database<T>(
        &mut self,
        work: impl AsyncFn(&LedgerDatabase) -> Result<T, Error>,
    ) -> Result<T, Error> {
        loop {
            let database = self.database()?;
            let error = match work(&database).await {
                Ok(done) => {
                    self.replaced = 0;
                    return Ok(done);
                }
                Err(error) => error,
            };
            // It may have been done nevertheless.
            self.backlog = true;
            match error.kind() {
                StoreErrorKind::Busy | StoreErrorKind::Full => return Err(error),
                StoreErrorKind::Damaged if self.replaced < REPLACED_MAX => {
                    database.leave();
                    self.replaced += 1;
                    self.database = None;
                    let new = database::replace(&self.path, &self.group, &error, database.number());
                    self.database = Some(new.map_err(|error| error.with(self.path.display()))?);
                }
                _ => {
                    // The next call opens and checks it again.
                    self.database = None;
                    return Err(error);
                }
            }
        }
    }

    async fn commit(
        &mut self,
        steps: Vec<Step>,
        until: Option<DateTime<Utc>>,
    ) -> Result<Vec<StepOutcome>, Error> {
        self.database()?;
        if self.backlog
            && let Err(error) = self.publish_outbox().await
            && steps.iter().any(|step| !step.postings.is_empty())
        {
            // When the broker will be back is unknown, and so is what is due then.
            return Err(error);
        }
        let began = Instant::now();
        let refusals: Vec<Option<String>> = steps.iter().map(|step| self.refusal(step)).collect();
        let taken = steps.into_iter().zip(&refusals);
        let taken = taken.filter_map(|(step, refusal)| refusal.is_none().then_some(step));
        let taken: Arc<[Step]> = taken.collect();
        let commit = async |database: &LedgerDatabase| database.commit(taken.clone(), until).await;
        let (outcomes, batches) = self.with_database(commit).await?;
        let mut outcomes = outcomes.into_iter();
        let outcomes = refusals
            .into_iter()
            .filter_map(|why| why.map(StepOutcome::Refused).or_else(|| outcomes.next()))
            .collect();
        for batch in batches {
            if began.elapsed() > LEFT_AFTER {
                // Others may have published and removed it by now.
                self.backlog = true;
                let _ = self.publish_outbox().await;
                break;
            }
            if self.publish(vec![batch]).await.is_err() {
                self.backlog = true;
                break;
            }
        }
        self.remove_published().await;
        Ok(outcomes)
    }

    /// Publishes what is in the outbox, the oldest first, and stops where it fails. Without a
    /// backlog, what is younger is about to be published by another beat.
    async fn publish_outbox(&mut self) -> Result<(), Error> {
        let min_age = if self.backlog { Duration::ZERO } else { LEFT_AFTER };
        let mut after = 0;
        loop {
            self.remove_published().await;
            let list = async |database: &LedgerDatabase| database.outbox(min_age, after).await;
            let (batches, Some(last)) = self.with_database(list).await? else { break };
            after = last;
            self.publish(batches).await?;
        }
        self.backlog = false;
        Ok(())
    }

    async fn publish(&mut self, batches: Vec<Batch>) -> Result<(), Error> {
        for Batch { token, postings } in batches {
            let Some(queue) = postings.first().map(|first| first.queue.clone()) else { continue };
            if self.published.contains(&token) || self.why_refused(&queue).is_some() {
                continue;
            }
            match self.producer.publish_once(token.clone(), postings).await {
                Err(error)
                    if matches!(
                        error.kind(),
                        StoreErrorKind::Refused | StoreErrorKind::Forbidden
                    ) =>
                {
                    tracing::error!("messages for the queue {queue} wait: {error}");
                    self.refused.insert(queue, (error.to_string(), Instant::now()));
                }
                Err(error) => {
                    tracing::debug!("messages wait in {}: {error}", self.path.display());
                    return Err(error);
                }
                Ok(()) => {
                    self.refused.remove(&queue);
                    self.published.push(token);
                }
            }
        }
        Ok(())
    }

    fn why_refused(&self, queue: &str) -> Option<&str> {
        let (why, since) = self.refused.get(queue)?;
        (since.elapsed() < REFUSED_FOR).then_some(why)
    }

    /// Why the messages of this step are refused, if they are.
    fn refusal(&self, step: &Step) -> Option<String> {
        let mut whys = step.postings.iter().map(|posting| self.why_refused(&posting.queue));
        whys.find_map(|why| why.map(str::to_string))
    }

    /// Removes what is published; what cannot be removed now is removed with the next call.
    async fn remove_published(&mut self) {
        let Some(database) = self.database.as_ref().filter(|_| !self.published.is_empty()) else {
            return;
        };
        let tokens = std::mem::take(&mut self.published);
        if let Err(error) = database.remove(tokens.clone().into()).await {
            tracing::debug!("{}: {error}", self.path.display());
            self.published = tokens;
        }
    }
}
