//! A ledger in an SQLite file of its own, while messages go to any broker.
//!
//! Two stores cannot change in one step. So the file takes down the messages together with the
//! new values, as *parcels*; a parcel is published under a token, which the broker accepts once,
//! and then removed. What a beat that was killed in between has left is published by the next
//! one that uses the file.
//!
//! The file is worth less than the beat: damaged, it is set aside, if it is recognisably a beat's;
//! what is somebody else's stays as it is. Where there can be none, the
//! values are in memory for a while, and whoever knows a value is believed. One beat of the host
//! does that, by a claim that needs no disk; for as long nobody else changes anything, neither in
//! memory nor in the file, until the one has put there what it knows. If it dies before, what it sent last
//! may be sent again. A file that is locked by somebody is waited for, and nothing else.

mod aside;
mod file;
mod found;
mod memory;
mod parcel;

use super::{Answer, Outcome, Step};
use crate::broker::{Error, Producer};
use crate::clock;
use crate::link::error::Kind;
use crate::os::claim::Claim;
use aside::{Number, number_of};
use chrono::{DateTime, Utc};
use file::{File, Whose};
use found::{damaged, sum};
use memory::Memory;
use parcel::Parcel;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// Steps of one transaction at the most.
const STEPS_MAX: usize = 4096;

/// A parcel of somebody else that is older was left by one who died.
const LEFT_AFTER: Duration = Duration::from_secs(1);

/// How often a file that cannot be used is tried again.
const RETRY_EVERY: Duration = Duration::from_secs(5);

/// A file that fails so often in a row is not usable, whatever it says when it is opened.
const TRIES_MAX: usize = 3;

/// How often a queue whose messages are refused is tried again.
const REFUSED_FOR: Duration = Duration::from_secs(25);

/// See [`super::Ledger::apart`].
#[derive(Clone)]
pub struct Apart(Arc<Mutex<Desk>>);

/// Whoever has it works alone: parcels leave in the order in which they were accepted.
struct Desk {
    path: PathBuf,
    group: Arc<str>,
    producer: Producer,
    store: Store,
    /// Parcels wait whose publishing failed, or of which nobody here knows yet.
    waiting: Option<Whose>,
    /// Parcels that are published and still there.
    published: Vec<String>,
    /// Queues whose messages the broker refuses, why, and since when. Parcels for them wait.
    refused: HashMap<String, (String, Instant)>,
    /// The name that whoever works in memory has.
    name: String,
}

enum Store {
    /// The file is not open yet: somebody has it locked.
    Closed,
    File(File),
    /// Nobody else works while the claim is there.
    Memory(Memory, #[expect(dead_code, reason = "it is held, not used")] Option<Claim>),
}

impl Apart {
    /// See [`super::Ledger::apart`].
    pub fn open(path: &Path, group: &str, producer: Producer) -> Apart {
        let mut desk = Desk {
            path: path.into(),
            group: group.into(),
            producer,
            store: Store::Closed,
            waiting: Some(Whose::Anybodys),
            published: Vec::new(),
            refused: HashMap::new(),
            name: name_of(path, group),
        };
        if let Err(error) = desk.open() {
            tracing::debug!("{}: {error}", path.display());
        }
        Apart(Arc::new(Mutex::new(desk)))
    }

    /// See [`super::Ledger::commit_by`].
    pub async fn commit(
        &self,
        mut steps: Vec<Step>,
        until: Option<DateTime<Utc>>,
    ) -> Result<Answer, Error> {
        let mut desk = self.0.lock().await;
        desk.look().await?;
        desk.stand_back()?;
        let mut outcomes = Vec::with_capacity(steps.len());
        while !steps.is_empty() {
            let rest = steps.split_off(steps.len().min(STEPS_MAX));
            let batch = std::mem::replace(&mut steps, rest);
            outcomes.extend(desk.commit(batch, until).await?);
        }
        Ok(Answer { outcomes, clock: clock::now() })
    }

    /// See [`super::Ledger::read`].
    pub async fn read(&self, names: Vec<String>) -> Result<Vec<Option<String>>, Error> {
        let mut desk = self.0.lock().await;
        desk.look().await?;
        let names = Arc::new(names);
        loop {
            let error = match &desk.store {
                Store::Closed => return Err(desk.busy()),
                Store::Memory(memory, _) => return Ok(memory.read(&names)),
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
        desk.look().await?;
        loop {
            let error = match &desk.store {
                Store::Closed => return Err(desk.busy()),
                Store::Memory(memory, _) => return Ok(memory.all()),
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
        desk.look().await?;
        let whose = desk.waiting.unwrap_or(Whose::Left);
        desk.publish_waiting(whose).await
    }
}

/// See [`super::refusal`].
pub fn refusal(path: &Path) -> Option<String> {
    found::look(path).err().filter(|error| error.kind() == Kind::Unopened).map(|e| e.to_string())
}

/// See [`super::peek`].
pub fn peek(path: &Path, group: &str, names: &[String]) -> Result<Vec<Option<String>>, Error> {
    if Claim::is_taken(&name_of(path, group)).unwrap_or(false) {
        return Err(is_in_memory(path));
    }
    file::peek(path, group, names).map_err(|error| match error.kind() {
        Kind::Damaged => {
            let path = path.display();
            damaged(format!("{path} is damaged ({error}): a beat that starts sets it aside"))
        }
        _ => error.with(path.display()),
    })
}

/// The name that whoever works in memory has.
fn name_of(path: &Path, group: &str) -> String {
    let place = std::path::absolute(path).unwrap_or_else(|_| path.into());
    let place = place.canonicalize().unwrap_or(place);
    format!("qworker.beat.{:016x}", sum(&[&place.to_string_lossy(), group]))
}

fn is_in_memory(path: &Path) -> Error {
    let path = path.display();
    let text = format!("another beat of this host has in memory what {path} is to hold");
    Error::of(Kind::Busy, text)
}

impl Desk {
    async fn commit(
        &mut self,
        steps: Vec<Step>,
        until: Option<DateTime<Utc>>,
    ) -> Result<Vec<Outcome>, Error> {
        if let Some(whose) = self.waiting
            && let Err(error) = self.publish_waiting(whose).await
            && steps.iter().any(|step| !step.postings.is_empty())
        {
            // Nobody knows when the broker is back, and what is due then is not for us to say.
            return Err(error);
        }
        let began = Instant::now();
        let refusals: Vec<Option<String>> = steps.iter().map(|step| self.refusal(step)).collect();
        let taken = steps.into_iter().zip(&refusals);
        let taken = taken.filter_map(|(step, refusal)| refusal.is_none().then_some(step));
        let (outcomes, parcels) = self.apply(taken.collect(), until).await?;
        let mut outcomes = outcomes.into_iter();
        let outcomes = refusals
            .into_iter()
            .filter_map(|why| why.map(Outcome::Refused).or_else(|| outcomes.next()))
            .collect();
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

    async fn apply(
        &mut self,
        steps: Vec<Step>,
        until: Option<DateTime<Utc>>,
    ) -> Result<(Vec<Outcome>, Vec<Parcel>), Error> {
        let steps = Arc::new(steps);
        loop {
            let error = match &mut self.store {
                Store::Closed => return Err(self.busy()),
                Store::Memory(..) if until.is_some_and(|until| clock::now() > until) => {
                    return Ok((vec![Outcome::Late; steps.len()], Vec::new()));
                }
                Store::Memory(memory, _) => return Ok(memory.apply(&steps)),
                Store::File(file) => match file.apply(steps.clone(), until).await {
                    Ok(applied) => return Ok(applied),
                    Err(error) => error,
                },
            };
            self.recover(error).await?;
        }
    }

    /// Publishes what waits, the oldest first, and stops where it fails.
    async fn publish_waiting(&mut self, whose: Whose) -> Result<(), Error> {
        let mut after = 0;
        loop {
            self.remove_published().await;
            let error = match &self.store {
                Store::Closed => return Err(self.busy()),
                Store::Memory(memory, _) => {
                    self.publish(memory.parcels()).await?;
                    self.remove_published().await;
                    break;
                }
                Store::File(file) => match file.parcels(whose, after).await {
                    Ok((_, None)) => break,
                    Ok((some, Some(last))) => {
                        after = last;
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
        for Parcel { token, postings } in parcels {
            let Some(queue) = postings.first().map(|first| first.queue.clone()) else { continue };
            if self.published.contains(&token) || self.why_refused(&queue).is_some() {
                continue;
            }
            match self.producer.publish_once(token.clone(), postings).await {
                Err(error) if matches!(error.kind(), Kind::Refused | Kind::Forbidden) => {
                    tracing::error!("messages for the queue {queue} wait: {error}");
                    self.refused.insert(queue, (error.to_string(), Instant::now()));
                }
                done => {
                    done?;
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

    /// Why the messages of this step are not taken, if they are not.
    fn refusal(&self, step: &Step) -> Option<String> {
        let mut whys = step.postings.iter().map(|posting| self.why_refused(&posting.queue));
        whys.find_map(|why| why.map(str::to_string))
    }

    /// Removes what is published; what cannot be removed now is with the next call. Says whether
    /// nothing is left.
    async fn remove_published(&mut self) -> bool {
        if self.published.is_empty() {
            return true;
        }
        let tokens = Arc::new(std::mem::take(&mut self.published));
        let error = match &mut self.store {
            Store::Closed => return false,
            Store::Memory(memory, _) => {
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

    /// The file has another number than before. One warning is enough: of what was found there
    /// instead another one may have said that it is of no use.
    fn tell_of_another(&self, old: Number, found: Option<Number>) {
        let path = self.path.display();
        let Store::File(file) = &self.store else { return };
        if aside::aside(&self.path, old) {
            // By another beat, which says so.
            tracing::info!("{path} is another file now");
        } else if found.is_none_or(|found| found == file.number()) {
            tracing::warn!("{path} was removed or replaced while it was in use: it is opened anew");
        }
    }

    /// Opens the file, or goes on in memory if it cannot be used.
    fn open(&mut self) -> Result<(), Error> {
        self.stand_back()?;
        self.waiting = Some(Whose::Anybodys);
        match file::open_or_replace(&self.path, &self.group) {
            Ok(file) => self.store = Store::File(file),
            Err(error) if error.kind() == Kind::Busy => {
                self.store = Store::Closed;
                return Err(error);
            }
            Err(error) => {
                self.store = Store::Closed;
                self.store = self.in_memory(&error)?;
            }
        }
        Ok(())
    }

    fn busy(&self) -> Error {
        Error::of(Kind::Busy, format!("{} is locked by another process", self.path.display()))
    }

    /// Does another beat do in memory what the file is for? Where there are no such names,
    /// nobody knows.
    fn stand_back(&self) -> Result<(), Error> {
        let is_ours = matches!(self.store, Store::Memory(..));
        if !is_ours && Claim::is_taken(&self.name).unwrap_or(false) {
            return Err(is_in_memory(&self.path));
        }
        Ok(())
    }

    /// The place of values while there is no file, and a warning.
    fn in_memory(&self, why: &Error) -> Result<Store, Error> {
        let claim = match Claim::take(&self.name) {
            Ok(Some(claim)) => Some(claim),
            Ok(None) => return Err(is_in_memory(&self.path)),
            Err(error) => {
                tracing::debug!("{}: {error}", self.name);
                None
            }
        };
        tracing::warn!(
            "{} cannot be used ({why}): what it would hold is in memory until it can be",
            self.path.display()
        );
        Ok(Store::Memory(Memory::new(), claim))
    }

    /// Looks whether the file is still the one that we have open, and whether one can be had
    /// again.
    async fn look(&mut self) -> Result<(), Error> {
        match &mut self.store {
            Store::Closed => return self.open(),
            Store::File(file) if file.is_in_place(&self.path) => {}
            Store::File(file) => {
                let (old, found) = (file.number(), number_of(&self.path));
                self.store = Store::Closed;
                self.open()?;
                self.tell_of_another(old, found);
            }
            Store::Memory(memory, _) if memory.is_due() => {
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
            Store::Memory(..) => {}
        }
        Ok(())
    }

    /// After this the same may be tried again.
    ///
    /// # Errors
    /// Others have the file: that passes.
    async fn recover(&mut self, error: Error) -> Result<(), Error> {
        let Store::File(file) = &mut self.store else { return Ok(()) };
        let why = match error.kind() {
            Kind::Busy => return Err(error),
            // Perhaps there is room now that its log was cut.
            Kind::Full if file.has_failed() == 1 => return Ok(()),
            Kind::Full => error,
            _ if file.has_failed() > TRIES_MAX => error,
            Kind::Damaged => {
                file.leave();
                match file::replace(&self.path, &self.group, &error, file.number()) {
                    Ok(mut opened) => {
                        opened.failed_before(file);
                        self.store = Store::File(opened);
                        return Ok(());
                    }
                    Err(error) => error,
                }
            }
            _ => match file::open_or_replace(&self.path, &self.group) {
                Ok(mut opened) => {
                    opened.failed_before(file);
                    self.store = Store::File(opened);
                    return Ok(());
                }
                Err(error) => error,
            },
        };
        if why.kind() == Kind::Busy {
            self.store = Store::Closed;
            return Err(why);
        }
        self.fall_back(why).await
    }

    async fn fall_back(&mut self, why: Error) -> Result<(), Error> {
        let mut store = self.in_memory(&why)?;
        // A file that cannot be written can be read, most often.
        if let Store::File(file) = &self.store
            && let Store::Memory(memory, _) = &mut store
            && let (Ok(values), Ok(parcels)) = (file.all().await, file.all_parcels().await)
        {
            memory.know(values, parcels);
        }
        self.store = store;
        self.waiting = Some(Whose::Ours);
        Ok(())
    }
}
