//! Maps: a task runs for each item inside one request, under one time limit. Pure.
//!
//! Source: celery 5.7 `app/builtins.py` (`xmap`, `xstarmap`).

use super::finish;
use super::request::Limits;
use crate::canvas::builtin::{self, BuiltIn};
use crate::runner::{Ending, Limit, Outcome, Usage, Why};
use crate::task::{Task, bind};
use crate::wire::{Arguments, Exception, body};
use serde_json::value::RawValue;
use std::time::{Duration, Instant};

/// Bytes of all values together, at most: they are one result.
const BYTES_MAX: usize = 64 * 1024 * 1024;

/// How long an item waits that the host cannot start now.
const PAUSE: Duration = Duration::from_secs(1);

/// A map, and how far it has come.
#[derive(Debug, Clone)]
pub struct Map {
    /// Each item is all arguments.
    is_star: bool,
    items: Vec<Box<RawValue>>,
    values: Vec<Box<RawValue>>,
    bytes: usize,
    /// When the first item began.
    begun: Option<Instant>,
    runtime: Duration,
    usage: Usage,
    /// The soft limit has struck; it does so once.
    was_asked: bool,
    /// Its next item waits until then.
    pub(super) pause: Option<Instant>,
}

/// What becomes of a map after an outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// The next item runs.
    Item,
    /// The same item is tried again: at once, or at that time.
    Again(Option<Instant>),
    /// It is over, as the outcome says.
    Over,
}

type Bound = Vec<(String, Box<RawValue>)>;

impl Map {
    /// The map that a message with these arguments asks for.
    ///
    /// # Errors
    /// There are no items in them.
    pub(super) fn of(built_in: BuiltIn, arguments: &Arguments) -> Result<Map, Exception> {
        let Arguments { args, kwargs, .. } = arguments;
        let bound = super::builtins::bind(built_in, args, kwargs)?;
        let items = crate::wire::signature::find(&bound, "it").unwrap_or(RawValue::NULL);
        Ok(Map {
            is_star: built_in == BuiltIn::Starmap,
            items: builtin::items(items)?,
            values: Vec::new(),
            bytes: 0,
            begun: None,
            runtime: Duration::ZERO,
            usage: Usage::default(),
            was_asked: false,
            pause: None,
        })
    }

    /// Is no item left?
    pub(super) fn is_over(&self) -> bool {
        self.values.len() == self.items.len()
    }

    /// The values of all items so far.
    pub(super) fn result(&self) -> Box<RawValue> {
        RawValue::from_string(body::array(&self.values)).unwrap_or_default()
    }

    /// The arguments of the next item.
    pub(super) fn args(&self) -> Vec<Box<RawValue>> {
        match self.items.get(self.values.len()) {
            Some(item) if self.is_star => builtin::items(item).unwrap_or_default(),
            item => item.cloned().into_iter().collect(),
        }
    }

    /// The arguments of the next item by the names of `params`.
    ///
    /// # Errors
    /// They do not fit, or are none.
    pub(super) fn bind(&self, task: &Task) -> Result<Bound, Exception> {
        if self.is_star
            && let Some(item) = self.items.get(self.values.len())
        {
            builtin::items(item)?;
        }
        bind::bind(&task.name, task.params.as_deref(), &self.args(), &[])
    }

    /// What is left of the limits.
    pub(super) fn left(&self, limits: Limits, now: Instant) -> Limits {
        let gone = self.begun.map_or(Duration::ZERO, |begun| now.saturating_duration_since(begun));
        let soft = limits.soft.filter(|_| !self.was_asked);
        Limits {
            soft: soft.map(|soft| soft.saturating_sub(gone)),
            hard: limits.hard.map(|hard| hard.saturating_sub(gone)),
        }
    }

    /// Takes in how an item has ended; `outcome` becomes that of the whole. `ends`: the worker starts
    /// nothing any more.
    pub(super) fn after(
        &mut self,
        task: &Task,
        outcome: &mut Outcome,
        ends: bool,
        now: Instant,
    ) -> Next {
        let is_first = self.begun.is_none();
        if !is_first && let Some(next) = self.postponed(outcome, ends, now) {
            return next;
        }
        if outcome.has_run() {
            self.add(outcome);
        }
        self.was_asked |= outcome.limit == Some(Limit::Soft);
        match finish::value(task, outcome) {
            Some(Ok(value)) => {
                self.bytes += value.get().len();
                self.values.push(value);
            }
            Some(Err(exception)) => return over(outcome, Ending::Refused(exception)),
            None => return Next::Over,
        }
        if self.bytes > BYTES_MAX {
            let why = format!("the values of a map are larger than the limit of {BYTES_MAX} bytes");
            return over(outcome, Ending::Refused(Exception::new("builtins", "ValueError", why)));
        }
        match self.bind(task) {
            _ if self.is_over() => Next::Over,
            _ if ends => over(outcome, Ending::Cancelled(Why::Shutdown)),
            Ok(_) => Next::Item,
            Err(exception) => over(outcome, Ending::Refused(exception)),
        }
    }

    /// An item that did not begin, after others that did: these are not run again for it.
    fn postponed(&self, outcome: &mut Outcome, ends: bool, now: Instant) -> Option<Next> {
        let pause = match outcome.ending {
            Ending::Cancelled(Why::Recalled) => None,
            Ending::NoCapacity(_) | Ending::Unavailable(_) => now.checked_add(PAUSE),
            _ => return None,
        };
        Some(match ends {
            true => over(outcome, Ending::Cancelled(Why::Shutdown)),
            false => Next::Again(pause),
        })
    }

    fn add(&mut self, outcome: &mut Outcome) {
        let begun = *self.begun.get_or_insert(outcome.started);
        self.runtime += outcome.runtime;
        self.usage.user += outcome.usage.user;
        self.usage.system += outcome.usage.system;
        self.usage.memory_peak = self.usage.memory_peak.max(outcome.usage.memory_peak);
        (outcome.started, outcome.runtime, outcome.usage) = (begun, self.runtime, self.usage);
    }
}

fn over(outcome: &mut Outcome, ending: Ending) -> Next {
    (outcome.ending, outcome.limit) = (ending, None);
    Next::Over
}
