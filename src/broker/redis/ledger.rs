//! The ledger of beats on a Redis server: one hash of values for each group, and a script that
//! does a few hundred steps at once.

use super::call::planned;
use super::layout::{Layout, step_of};
use super::{Broker, script};
use crate::broker::Posting;
use crate::broker::ledger::{Step, StepOutcome, StepResponse};
use crate::link::error::Error;
use chrono::{DateTime, Utc};
use redis::{ErrorKind, FromRedisValue, Pipeline, Script, ServerErrorKind, Value};
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::{Arc, LazyLock, PoisonError};

static LEDGER: LazyLock<Script> = LazyLock::new(|| script(include_str!("ledger.lua")));

/// Steps of one call of the script, at most: the server does nothing else meanwhile.
const STEPS_MAX: usize = 256;

/// Bytes of one call, at most, unless a single step is larger; likewise.
const BYTES_MAX: usize = 256 * 1024;

/// Calls at the same time, at most: what they carry is in memory twice.
const CALLS_MAX: usize = 32;

/// Values that are read at once, at most: likewise.
const VALUES_MAX: usize = 1000;

/// The values of one group, beside the messages.
#[derive(Clone)]
pub struct Ledger {
    broker: Broker,
    key: Arc<str>,
}

/// Name and value, as the server has them.
type Field = (Vec<u8>, Vec<u8>);

impl Ledger {
    /// Of the beats of this group.
    pub fn new(broker: &Broker, group: &str) -> Ledger {
        let key = format!("{}qworker.beat.{group}", broker.layout.prefix);
        Ledger { broker: broker.clone(), key: key.into() }
    }

    /// See [`crate::broker::ledger::Ledger::commit_by`].
    pub async fn commit(
        &self,
        steps: Vec<Step>,
        until: Option<DateTime<Utc>>,
    ) -> Result<StepResponse, Error> {
        let mut outcomes = vec![StepOutcome::Done; steps.len()];
        let mut time = None;
        let batches: Vec<Range<usize>> = batches(&steps);
        for window in batches.chunks(CALLS_MAX) {
            for (range, said) in window.iter().zip(self.call(&steps, window, until).await?) {
                time = Some(note(said, &mut outcomes[range.clone()])?);
            }
        }
        let clock = match time {
            Some(time) => time,
            None => self.time().await?,
        };
        Ok(StepResponse { outcomes, clock })
    }

    /// Calls the script for each of these batches, in their order and without waiting in between.
    async fn call(
        &self,
        steps: &[Step],
        batches: &[Range<usize>],
        until: Option<DateTime<Utc>>,
    ) -> Result<Vec<Vec<Value>>, Error> {
        let mut pipe = redis::pipe();
        let all = batches.iter().flat_map(|range| &steps[range.clone()]);
        let new = self.broker.declarations(all.flat_map(|step| &step.postings), &mut pipe);
        for range in batches {
            self.call_of(&steps[range.clone()], until, &mut pipe);
        }
        let said = self
            .broker
            .link
            .run(async |c| match pipe.query_async(c).await {
                Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                    LEDGER.load_async(c).await?;
                    pipe.query_async(c).await
                }
                said => said,
            })
            .await?;
        self.broker.declared.lock().unwrap_or_else(PoisonError::into_inner).extend(new);
        Ok(said)
    }

    /// Adds one call of the script.
    fn call_of(&self, steps: &[Step], until: Option<DateTime<Utc>>, pipe: &mut Pipeline) {
        let postings = || steps.iter().flat_map(|step| &step.postings);
        let (places, lists) = places(&self.broker.layout, postings());
        let mut keys = vec![""; places.len()];
        for (key, place) in &places {
            keys[place - 1] = key;
        }
        let call = pipe.cmd("EVALSHA");
        call.arg(LEDGER.get_hash()).arg(1).arg(&*self.key);
        call.arg(steps.len()).arg(lists).arg(keys.len() - lists);
        call.arg(until.map_or(0, |until| until.timestamp_micros())).arg(keys);
        for step in steps {
            let has = u8::from(step.expected.is_some()) + 2 * u8::from(step.state.is_some());
            let mut shape = vec![has];
            for posting in &step.postings {
                let place = places.get(&key_of(&self.broker.layout, posting)).map_or(0, |at| *at);
                shape.extend_from_slice(&(place as u32).to_be_bytes()[1..]);
            }
            call.arg(&step.name).arg(shape);
            for text in step.expected.iter().chain(&step.state) {
                call.arg(text);
            }
            for posting in &step.postings {
                match posting.eta {
                    None => call.arg(&*posting.payload.to_envelope()),
                    Some(eta) => call.arg(&planned(posting, step_of(posting.priority), eta)),
                };
            }
        }
    }

    async fn time(&self) -> Result<DateTime<Utc>, Error> {
        let time = redis::cmd("TIME");
        let (seconds, micros): (i64, i64) =
            self.broker.link.run(async |c| time.query_async(c).await).await?;
        instant(seconds, micros)
    }

    /// See [`crate::broker::ledger::Ledger::read`].
    pub async fn read(&self, names: Vec<String>) -> Result<Vec<Option<String>>, Error> {
        let mut values = Vec::with_capacity(names.len());
        for some in names.chunks(VALUES_MAX) {
            let mut ask = redis::cmd("HMGET");
            ask.arg(&*self.key).arg(some);
            let found: Vec<Option<Vec<u8>>> =
                self.broker.link.run(async |c| ask.query_async(c).await).await?;
            values.extend(found.into_iter().map(|value| value.map(text)));
        }
        Ok(values)
    }

    /// See [`crate::broker::ledger::Ledger::all`].
    pub async fn all(&self) -> Result<Vec<(String, String)>, Error> {
        // The server may return a name twice; then the later value is the right one.
        let mut all: HashMap<String, String> = HashMap::new();
        let mut cursor = String::from("0");
        loop {
            let mut ask = redis::cmd("HSCAN");
            ask.arg(&*self.key).arg(&cursor).arg("COUNT").arg(VALUES_MAX);
            let (next, found): (String, Vec<Field>) =
                self.broker.link.run(async |c| ask.query_async(c).await).await?;
            all.extend(found.into_iter().map(|(name, value)| (text(name), text(value))));
            if next == "0" {
                return Ok(all.into_iter().collect());
            }
            cursor = next;
        }
    }
}

/// The key that a message goes to.
fn key_of(layout: &Layout, posting: &Posting) -> String {
    match posting.eta {
        None => layout.list(&posting.queue, step_of(posting.priority)),
        Some(_) => layout.scheduled(&posting.queue),
    }
}

/// The keys that these messages go to with their places, from 1 on, the lists first; and how many
/// lists there are.
fn places<'a>(
    layout: &Layout,
    postings: impl Iterator<Item = &'a Posting>,
) -> (HashMap<String, usize>, usize) {
    let (mut lists, mut sets) = (HashSet::new(), HashSet::new());
    for posting in postings {
        let kind = if posting.eta.is_none() { &mut lists } else { &mut sets };
        kind.insert(key_of(layout, posting));
    }
    let count = lists.len();
    (lists.into_iter().chain(sets).zip(1..).collect(), count)
}

fn bytes_of(step: &Step) -> usize {
    let texts = [Some(&step.name), step.expected.as_ref(), step.state.as_ref()];
    texts.into_iter().flatten().map(String::len).sum::<usize>()
        + step.postings.iter().map(|posting| posting.payload.size()).sum::<usize>()
}

/// Which steps go into which call.
fn batches(steps: &[Step]) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let (mut from, mut bytes) = (0, 0);
    for (at, step) in steps.iter().enumerate() {
        let more = bytes_of(step);
        if at > from && (at - from == STEPS_MAX || bytes + more > BYTES_MAX) {
            found.push(from..at);
            (from, bytes) = (at, 0);
        }
        bytes += more;
    }
    if from < steps.len() {
        found.push(from..steps.len());
    }
    found
}

/// Takes what the script has answered for a batch. Returns the server's clock.
fn note(said: Vec<Value>, outcomes: &mut [StepOutcome]) -> Result<DateTime<Utc>, Error> {
    let strange = || Error::misuse("the ledger's script has said what nobody understands");
    let number = |value: &Value| i64::from_redis_value_ref(value).map_err(|_| strange());
    let [seconds, micros, late @ ..] = &said[..] else { return Err(strange()) };
    for pair in late.chunks(2) {
        let [place, actual] = pair else { return Err(strange()) };
        let place = number(place)?;
        if place == 0 {
            outcomes.fill(StepOutcome::Late);
            continue;
        }
        let said = Option::<Vec<u8>>::from_redis_value_ref(actual).map_err(|_| strange())?;
        let said = said.map(text);
        let at = usize::try_from(place.abs() - 1).map_err(|_| strange())?;
        *outcomes.get_mut(at).ok_or_else(strange)? = match place {
            1.. => StepOutcome::Conflict(said),
            _ => StepOutcome::Refused(said.unwrap_or_default()),
        };
    }
    instant(number(seconds)?, number(micros)?)
}

fn instant(seconds: i64, micros: i64) -> Result<DateTime<Utc>, Error> {
    let at = DateTime::from_timestamp_micros(seconds.saturating_mul(1_000_000) + micros);
    at.ok_or_else(|| Error::misuse("the server's clock is out of this world"))
}

/// What another program has put there may be no text.
fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}
