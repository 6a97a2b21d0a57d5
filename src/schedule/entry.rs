//! One entry of a schedule: what is sent, when, and what happens when that was not possible.

use super::Schedule;
use super::zone::Calendar;
use crate::wire::{Compression, Serializer};
use chrono::{DateTime, Utc};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// An entry, checked.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its name, unique in the application.
    pub name: Arc<str>,
    /// The task that is sent.
    pub task: Arc<str>,
    /// When.
    pub schedule: Schedule,
    /// Where, and by which rules for the days on which clocks are changed. Shared by entries.
    pub calendar: Arc<Calendar>,
    /// Positional arguments, a JSON array.
    pub args: Arc<RawValue>,
    /// Keyword arguments, a JSON object.
    pub kwargs: Arc<RawValue>,
    /// What else is said of the messages; most entries say nothing.
    pub options: Option<Box<MessageOptions>>,
    /// What becomes of occurrences that were missed.
    pub misfire: Misfire,
    /// How late an occurrence may be sent; `None`: at any time ([`Misfire::Skip`]: not at all).
    pub grace: Option<Duration>,
    /// What becomes of an occurrence while the task of the one before is not done.
    pub overlap: Overlap,
    /// Each occurrence is sent up to this much later; how much follows from its identity.
    pub jitter: Duration,
    /// Whether anything is sent at all.
    pub enabled: bool,
    /// No occurrence before.
    pub from: Option<DateTime<Utc>>,
    /// No occurrence after.
    pub until: Option<DateTime<Utc>>,
    /// Where it is defined.
    pub origin: EntryLocation,
}

/// Where an entry is defined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryLocation {
    /// The file.
    pub file: Arc<str>,
    /// The line, from 1.
    pub line: u32,
}

/// What becomes of occurrences that could not be sent at their time: those of an entry whose
/// oldest unsent one is more than [`crate::bounds::BEAT_LATE`] late.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Misfire {
    /// None is sent, except the last one if it is within the entry's grace.
    Skip,
    /// The last one is sent.
    #[default]
    RunOnce,
    /// The last ones are sent, oldest first: at most this many.
    RunAll(u32),
}

/// What becomes of an occurrence while the task of the entry's last one is not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overlap {
    /// It is sent.
    #[default]
    Allow,
    /// It is left out.
    Skip,
    /// It waits until that task is done; those that gather meanwhile are missed ones.
    Queue,
}

/// What the messages of an entry have beside name and arguments; see Celery's `apply_async`.
#[derive(Debug, Clone, Default)]
pub struct MessageOptions {
    /// The queue; `None` as the task's route says.
    pub queue: Option<String>,
    /// A named exchange; with it goes a routing key.
    pub exchange: Option<String>,
    /// By which the exchange chooses its queues.
    pub routing_key: Option<String>,
    /// 0 to 9, higher is served first.
    pub priority: Option<u8>,
    /// Not started after.
    pub expires: Option<Expires>,
    /// The task does not start earlier than this long after the sending.
    pub countdown: Option<Duration>,
    /// Store no result.
    pub ignore_result: Option<bool>,
    /// The name shown in place of the task's.
    pub shadow: Option<String>,
    /// Seconds after which the task is ended by force.
    pub time_limit: Option<f64>,
    /// Seconds after which the task is asked to end.
    pub soft_time_limit: Option<f64>,
    /// The serializer of the body.
    pub serializer: Option<Serializer>,
    /// The compression of the body.
    pub compression: Option<Compression>,
    /// More headers of the message, in their order.
    pub headers: Vec<(String, Box<RawValue>)>,
}

/// When a message expires.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Expires {
    /// This long after its sending.
    After(Duration),
    /// Then.
    At(DateTime<Utc>),
}

impl Entry {
    /// Its first occurrence after `after`, within its time.
    pub fn next(&self, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let mut after = after;
        if let Some(from) = self.from {
            // What comes too early is left out; plain intervals are counted from there.
            let before = from - chrono::TimeDelta::microseconds(1);
            if after < before {
                after = self.schedule.latest(after, before, &self.calendar).unwrap_or(after);
            }
        }
        let due = self.schedule.next(after, &self.calendar)?;
        self.until.is_none_or(|until| due <= until).then_some(due)
    }

    /// Its last occurrence after `after` that is not later than `until`.
    pub fn latest(&self, after: DateTime<Utc>, until: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let until = self.until.map_or(until, |end| end.min(until));
        let due = self.schedule.latest(after, until, &self.calendar)?;
        self.from.is_none_or(|from| due >= from).then_some(due)
    }

    /// Says which occurrence this is: the same text on every host.
    pub fn occurrence(&self, due: DateTime<Utc>) -> String {
        format!("{}@{}", self.name, due.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true))
    }

    /// When this occurrence is sent: as late as its jitter says, the same on every host.
    pub fn sent_at(&self, due: DateTime<Utc>) -> DateTime<Utc> {
        let micros = u64::try_from(self.jitter.as_micros()).unwrap_or(u64::MAX);
        if micros == 0 {
            return due;
        }
        due + Duration::from_micros(self.hash_of(due) % micros)
    }

    /// A number that follows from the identity of this occurrence.
    pub fn hash_of(&self, due: DateTime<Utc>) -> u64 {
        sum(&self.occurrence(due))
    }

    /// Two sums of the definition: of when it is due, and of all the rest.
    pub fn fingerprint(&self) -> [u64; 2] {
        let Entry { schedule, calendar, enabled, from, until, jitter, .. } = self;
        let when = format!("{schedule}|{calendar}|{enabled}|{from:?}|{until:?}|{jitter:?}");
        let Entry { task, args, kwargs, options, misfire, grace, overlap, .. } = self;
        let what = format!("{task}|{args}|{kwargs}|{options:?}|{misfire}|{grace:?}|{overlap}");
        [sum(&when), sum(&what)]
    }
}

/// The beginning of a hash: enough to tell definitions of one name apart.
pub(super) fn sum(text: &str) -> u64 {
    Sha256::digest(text).iter().take(8).fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

impl fmt::Display for Misfire {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Misfire::Skip => out.write_str("skip"),
            Misfire::RunOnce => out.write_str("run_once"),
            Misfire::RunAll(most) => write!(out, "run_all({most})"),
        }
    }
}

impl fmt::Display for Overlap {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Overlap::Allow => "allow",
            Overlap::Skip => "skip",
            Overlap::Queue => "queue",
        })
    }
}
