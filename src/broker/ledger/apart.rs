//! A ledger in an SQLite file of its own, while messages go to any broker.
//!
//! Two stores cannot change in one step. So the file takes down the messages together with the
//! new values, as *parcels*; a parcel is published under a token, which the broker accepts once,
//! and then removed. What a beat that was killed in between has left is published by the next
//! one that uses the file.
//!
//! The file is worth less than the beat: damaged, it is set aside; where there can be none, the
//! values are in memory for a while, and whoever knows a value is believed.

mod file;
mod memory;

use super::{Answer, Outcome, Step};
use crate::broker::{Error, Outlet, Posting};
use crate::clock;
use crate::link::error::Kind;
use file::{File, Whose};
use memory::Memory;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// Steps of one transaction at the most.
const STEPS_MAX: usize = 4096;

/// Messages of one parcel at the most: the broker takes it in one step.
const MESSAGES_MAX: usize = 256;

/// Bytes of one parcel at the most, but for a single larger message; likewise.
const BYTES_MAX: usize = 256 * 1024;

/// A parcel of somebody else that is older was left by one who died.
const LEFT_AFTER: Duration = Duration::from_secs(1);

/// How often a file that cannot be used is tried again.
const RETRY_EVERY: Duration = Duration::from_secs(10);

/// A file that fails so often in a row is not usable, whatever it says when it is opened.
const TRIES_MAX: usize = 3;

/// Messages that are to be published together, once.
#[derive(Debug, Clone)]
pub struct Parcel {
    token: String,
    postings: Vec<Posting>,
}

/// See [`super::Ledger::apart`].
#[derive(Clone)]
pub struct Apart(Arc<Mutex<Desk>>);

/// Whoever has it works alone: parcels leave in the order in which they were accepted.
struct Desk {
    path: PathBuf,
    group: Arc<str>,
    outlet: Outlet,
    store: Store,
    /// Parcels wait whose publishing failed, or of which nobody here knows yet.
    waiting: Option<Whose>,
    /// Parcels that are published and still there.
    published: Vec<String>,
}

enum Store {
    File(File),
    Memory(Memory),
}

impl Apart {
    /// See [`super::Ledger::apart`].
    pub fn open(path: &Path, group: &str, outlet: &Outlet) -> Apart {
        let store = match file::open_or_replace(path, group) {
            Ok(file) => Store::File(file),
            Err(error) => Store::Memory(in_memory(path, &error)),
        };
        Apart(Arc::new(Mutex::new(Desk {
            path: path.into(),
            group: group.into(),
            outlet: outlet.clone(),
            store,
            waiting: Some(Whose::Anybodys),
            published: Vec::new(),
        })))
    }

    /// See [`super::Ledger::commit`].
    pub async fn commit(&self, mut steps: Vec<Step>) -> Result<Answer, Error> {
        let mut desk = self.0.lock().await;
        desk.look().await;
        let mut outcomes = Vec::with_capacity(steps.len());
        while !steps.is_empty() {
            let rest = steps.split_off(steps.len().min(STEPS_MAX));
            let batch = std::mem::replace(&mut steps, rest);
            outcomes.extend(desk.commit(batch).await?);
        }
        Ok(Answer { outcomes, clock: clock::now() })
    }

    /// See [`super::Ledger::read`].
    pub async fn read(&self, names: Vec<String>) -> Result<Vec<Option<String>>, Error> {
        let mut desk = self.0.lock().await;
        desk.look().await;
        let names = Arc::new(names);
        loop {
            let error = match &desk.store {
                Store::Memory(memory) => return Ok(memory.read(&names)),
                Store::File(file) => match file.read(names.clone()).await {
                    Ok(values) => return Ok(values),
                    Err(error) => error,
                },
            };
            desk.recover(error).await?;
        }
    }

    /// See [`super::Ledger::all`].
    pub async fn all(&self) -> Result<Vec<(String, String)>, Error> {
        let mut desk = self.0.lock().await;
        desk.look().await;
        loop {
            let error = match &desk.store {
                Store::Memory(memory) => return Ok(memory.all()),
                Store::File(file) => match file.all().await {
                    Ok(values) => return Ok(values),
                    Err(error) => error,
                },
            };
            desk.recover(error).await?;
        }
    }

    /// See [`super::Ledger::tend`].
    pub async fn tend(&self) -> Result<(), Error> {
        let mut desk = self.0.lock().await;
        desk.look().await;
        let whose = desk.waiting.unwrap_or(Whose::Left);
        desk.publish_waiting(whose).await
    }
}

impl Desk {
    async fn commit(&mut self, steps: Vec<Step>) -> Result<Vec<Outcome>, Error> {
        if let Some(whose) = self.waiting
            && let Err(error) = self.publish_waiting(whose).await
            && steps.iter().any(|step| !step.postings.is_empty())
        {
            // Nobody knows when the broker is back, and what is due then is not for us to say.
            return Err(error);
        }
        let began = Instant::now();
        let (outcomes, parcels) = self.apply(steps).await?;
        let mut late = false;
        for parcel in parcels {
            if began.elapsed() > LEFT_AFTER {
                // Others may have published it by now, and removed it.
                late = true;
                break;
            }
            if let Err(error) = self.publish(vec![parcel]).await {
                tracing::debug!("messages wait in {}: {error}", self.path.display());
                self.waiting = Some(Whose::Ours);
                break;
            }
        }
        self.remove_published().await;
        if late {
            self.waiting = Some(Whose::Ours);
            // They are accepted: that the broker has them not yet is not the caller's matter.
            let _ = self.publish_waiting(Whose::Ours).await;
        }
        Ok(outcomes)
    }

    async fn apply(&mut self, steps: Vec<Step>) -> Result<(Vec<Outcome>, Vec<Parcel>), Error> {
        let steps = Arc::new(steps);
        loop {
            let error = match &mut self.store {
                Store::Memory(memory) => return Ok(memory.apply(&steps)),
                Store::File(file) => match file.apply(steps.clone()).await {
                    Ok(applied) => return Ok(applied),
                    Err(error) => error,
                },
            };
            self.recover(error).await?;
        }
    }

    /// Publishes what waits, the oldest first, and stops where it fails.
    async fn publish_waiting(&mut self, whose: Whose) -> Result<(), Error> {
        loop {
            self.remove_published().await;
            let error = match &self.store {
                Store::Memory(memory) => {
                    let some = memory.parcels();
                    if some.is_empty() {
                        break;
                    }
                    self.publish(some).await?;
                    continue;
                }
                Store::File(file) => match file.parcels(whose).await {
                    Ok(some) if some.is_empty() => break,
                    Ok(some) => {
                        self.publish(some).await?;
                        if self.remove_published().await {
                            continue;
                        }
                        break;
                    }
                    Err(error) => error,
                },
            };
            self.recover(error).await?;
        }
        self.waiting = None;
        Ok(())
    }

    async fn publish(&mut self, parcels: Vec<Parcel>) -> Result<(), Error> {
        for parcel in parcels {
            if !self.published.contains(&parcel.token) {
                self.outlet.publish_once(parcel.token.clone(), parcel.postings).await?;
                self.published.push(parcel.token);
            }
        }
        Ok(())
    }

    /// Removes what is published; what cannot be removed now is with the next call. Says whether
    /// nothing is left.
    async fn remove_published(&mut self) -> bool {
        if self.published.is_empty() {
            return true;
        }
        let tokens = Arc::new(std::mem::take(&mut self.published));
        let error = match &mut self.store {
            Store::Memory(memory) => {
                self.published = memory.remove(&tokens);
                return true;
            }
            Store::File(file) => match file.remove(tokens.clone()).await {
                Ok(()) => return true,
                Err(error) => error,
            },
        };
        tracing::debug!("{}: {error}", self.path.display());
        self.published = tokens.to_vec();
        false
    }

    /// Looks whether the file is still the one that we have open, and whether one can be had
    /// again.
    async fn look(&mut self) {
        match &mut self.store {
            Store::File(file) if file.is_in_place(&self.path) => {}
            Store::File(_) => {
                // Another beat has set it aside, or somebody has removed it.
                tracing::info!("{} is another file now", self.path.display());
                match file::open_or_replace(&self.path, &self.group) {
                    Ok(file) => self.store = Store::File(file),
                    Err(error) => self.fall_back(error).await,
                }
                self.waiting = Some(Whose::Anybodys);
            }
            Store::Memory(memory) if memory.is_due() => {
                let found = file::open_or_replace(&self.path, &self.group);
                let done = match found {
                    Ok(file) => {
                        let published = std::mem::take(&mut self.published);
                        let done = file.restore(memory.clone(), published.clone()).await;
                        done.map(|()| file).inspect_err(|_| self.published = published)
                    }
                    Err(error) => Err(error),
                };
                match done {
                    Ok(file) => {
                        self.store = Store::File(file);
                        self.waiting = Some(Whose::Anybodys);
                        tracing::info!("{} is in use again", self.path.display());
                    }
                    Err(error) => {
                        tracing::debug!("{}: {error}", self.path.display());
                        memory.wait();
                    }
                }
            }
            Store::Memory(_) => {}
        }
    }

    /// After this the same may be tried again.
    ///
    /// # Errors
    /// Others have the file: that passes.
    async fn recover(&mut self, error: Error) -> Result<(), Error> {
        let Store::File(file) = &mut self.store else { return Ok(()) };
        let why = match error.kind() {
            Kind::Busy => return Err(error),
            Kind::Full => error,
            _ if file.has_failed() > TRIES_MAX => error,
            Kind::Damaged => match file::replace(&self.path, &self.group, &error, file.number()) {
                Ok(mut opened) => {
                    opened.failed_before(file);
                    return Ok(self.store = Store::File(opened));
                }
                Err(error) => error,
            },
            _ => match file::open_or_replace(&self.path, &self.group) {
                Ok(mut opened) => {
                    opened.failed_before(file);
                    return Ok(self.store = Store::File(opened));
                }
                Err(error) => error,
            },
        };
        self.fall_back(why).await;
        Ok(())
    }

    async fn fall_back(&mut self, why: Error) {
        let mut memory = in_memory(&self.path, &why);
        // A file that cannot be written can be read, most often.
        if let Store::File(file) = &self.store
            && let (Ok(values), Ok(parcels)) = (file.all().await, file.parcels(Whose::Ours).await)
        {
            memory.know(values, parcels);
        }
        self.store = Store::Memory(memory);
        self.waiting = Some(Whose::Ours);
    }
}

fn in_memory(path: &Path, why: &Error) -> Memory {
    let path = path.display();
    tracing::warn!(
        "{path} cannot be used ({why}): what it would hold is in memory until it can be"
    );
    Memory::new()
}

/// Cuts messages into parcels.
fn parcels(postings: impl Iterator<Item = Posting>) -> Vec<Parcel> {
    let mut found: Vec<Parcel> = Vec::new();
    let mut bytes = 0;
    for posting in postings {
        bytes += posting.payload.len();
        match found.last_mut() {
            Some(last) if last.postings.len() < MESSAGES_MAX && bytes <= BYTES_MAX => {
                last.postings.push(posting);
            }
            _ => {
                bytes = posting.payload.len();
                let token = format!("beat.{}", uuid::Uuid::new_v4().simple());
                found.push(Parcel { token, postings: vec![posting] });
            }
        }
    }
    found
}
