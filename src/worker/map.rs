//! Maps: a task runs for each item inside one request, under one time limit. Pure.
//!
//! Source: celery 5.7 `app/builtins.py` (`xmap`, `xstarmap`).

use super::finish;
use super::request::TimeLimits;
use crate::canvas::builtin::{self, BuiltIn};
use crate::runner::{CancelReason, Ending, Outcome, ResourceUsage, TimeLimit};
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
    usage: ResourceUsage,
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
            usage: ResourceUsage::default(),
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
    pub(super) fn left(&self, limits: TimeLimits, now: Instant) -> TimeLimits {
        let gone = self.begun.map_or(Duration::ZERO, |begun| now.saturating_duration_since(begun));
        let soft = limits.soft.filter(|_| !self.was_asked);
        TimeLimits {
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
        self.was_asked |= outcome.limit == Some(TimeLimit::Soft);
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
            _ if ends => over(outcome, Ending::Cancelled(CancelReason::Shutdown)),
            Ok(_) => Next::Item,
            Err(exception) => over(outcome, Ending::Refused(exception)),
        }
    }

    /// An item that did not begin, after others that did: these are not run again for it.
    fn postponed(&self, outcome: &mut Outcome, ends: bool, now: Instant) -> Option<Next> {
        let pause = match outcome.ending {
            Ending::Cancelled(CancelReason::Recalled) => None,
            Ending::NoCapacity(_) | Ending::Unavailable(_) => now.checked_add(PAUSE),
            _ => return None,
        };
        Some(match ends {
            true => over(outcome, Ending::Cancelled(CancelReason::Shutdown)),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runner::Captured;
    use crate::task::keys::plain;
    use crate::task::{Param, Program};
    use serde_json::json;
    use std::path::Path;

    fn map(built_in: BuiltIn, items: serde_json::Value) -> Map {
        let args = [json!("t"), items].map(|value| crate::wire::value::raw(&value)).to_vec();
        Map::of(built_in, &Arguments { args, ..Arguments::default() }).unwrap()
    }

    fn task() -> Task {
        let mut task = plain("t", Path::new(""), 0, Program::Shell(String::new()));
        let param = |name: &str| Param { name: name.into(), default: None };
        task.params = Some(vec![param("a")]);
        task
    }

    fn exited(code: i32, text: &str) -> Outcome {
        let stdout = Captured { bytes: text.into(), dropped: 0 };
        let runtime = Duration::from_secs(1);
        let usage = ResourceUsage {
            memory_peak: text.len() as u64,
            user: runtime,
            ..ResourceUsage::default()
        };
        Outcome { stdout, runtime, usage, ..Outcome::immediate(Ending::Exited(code)) }
    }

    fn next(map: &mut Map, outcome: &mut Outcome) -> Next {
        map.after(&task(), outcome, false, Instant::now())
    }

    #[test]
    fn values_come_together() {
        let mut map = map(BuiltIn::Map, json!([1, 2]));
        assert_eq!(next(&mut map, &mut exited(0, "[1]")), Next::Item);
        assert_eq!(map.args()[0].get(), "2");
        let mut last = exited(0, "b");
        assert_eq!(next(&mut map, &mut last), Next::Over);
        assert_eq!((map.result().get(), map.is_over()), (r#"[[1], "b"]"#, true));
        // The last outcome is that of the whole.
        assert_eq!((last.runtime.as_secs(), last.usage.user.as_secs()), (2, 2));
        assert_eq!(last.usage.memory_peak, 3);
    }

    #[test]
    fn what_fails_ends_it() {
        for (mut outcome, ending) in [
            (exited(3, ""), Ending::Exited(3)),
            (Outcome { limit: Some(TimeLimit::Hard), ..exited(0, "") }, Ending::Exited(0)),
            (Outcome::immediate(Ending::Signaled(9)), Ending::Signaled(9)),
        ] {
            assert_eq!(next(&mut map(BuiltIn::Map, json!([1, 2])), &mut outcome), Next::Over);
            assert_eq!(outcome.ending, ending);
        }
        let mut star = map(BuiltIn::Starmap, json!([[1], [1, 2]]));
        let mut outcome = exited(0, "1");
        assert_eq!(next(&mut star, &mut outcome), Next::Over);
        let Ending::Refused(exception) = outcome.ending else { panic!("{:?}", outcome.ending) };
        assert_eq!(
            exception.repr(1),
            "TypeError('t() takes 1 positional argument but 2 were given')"
        );
    }

    #[test]
    fn items_that_ran_do_not_run_again_for_one_that_did_not_begin() {
        let now = Instant::now();
        for (ending, pause) in [
            (Ending::Cancelled(CancelReason::Recalled), None),
            (Ending::NoCapacity("x".into()), Some(now + PAUSE)),
            (Ending::Unavailable("x".into()), Some(now + PAUSE)),
        ] {
            let mut map = map(BuiltIn::Map, json!([1, 2]));
            let mut outcome = Outcome::immediate(ending);
            // Nothing has run: the whole is given back.
            assert_eq!(map.clone().after(&task(), &mut outcome, false, now), Next::Over);
            assert_eq!(next(&mut map, &mut exited(0, "1")), Next::Item);
            assert_eq!(map.after(&task(), &mut outcome, false, now), Next::Again(pause));
            assert_eq!(map.after(&task(), &mut outcome, true, now), Next::Over);
            assert_eq!(outcome.ending, Ending::Cancelled(CancelReason::Shutdown));
        }
    }

    #[test]
    fn a_shutdown_gives_back_what_is_not_over() {
        let mut map = map(BuiltIn::Map, json!([1, 2]));
        let mut outcome = exited(0, "1");
        assert_eq!(map.after(&task(), &mut outcome, true, Instant::now()), Next::Over);
        assert_eq!(outcome.ending, Ending::Cancelled(CancelReason::Shutdown));
        assert_eq!(map.after(&task(), &mut exited(0, "2"), true, Instant::now()), Next::Over);
        assert!(map.is_over());
    }

    #[test]
    fn one_limit_is_for_all_and_the_soft_one_strikes_once() {
        let mut map = map(BuiltIn::Map, json!([1, 2, 3]));
        let limits =
            TimeLimits { soft: Some(Duration::from_secs(5)), hard: Some(Duration::from_secs(8)) };
        let begun = Instant::now();
        assert_eq!(map.left(limits, begun), limits);
        next(&mut map, &mut Outcome { started: begun, ..exited(0, "1") });
        let left = map.left(limits, begun + Duration::from_secs(6));
        assert_eq!((left.soft, left.hard), (Some(Duration::ZERO), Some(Duration::from_secs(2))));
        next(&mut map, &mut Outcome { limit: Some(TimeLimit::Soft), ..exited(0, "1") });
        assert_eq!(map.left(limits, begun).soft, None);
    }
}
