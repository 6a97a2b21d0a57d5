//! One message that may run, from its delivery to its settlement.

use super::map::Map;
use super::plan::{Plan, Policy};
use super::told::Told;
use crate::broker::{Posting, Tag};
use crate::canvas::builtin::{self, BuiltIn};
use crate::canvas::{self, ResultTree};
use crate::log::{About, escape};
use crate::runner::Attempt;
use crate::task::{Stdin, Task};
use crate::wire::result::Extended;
use crate::wire::{Arguments, Exception, Message, Payload, Record, TaskState, body, value};
use chrono::{DateTime, Utc};
use serde_json::value::RawValue;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Names a request, and its attempt, inside this worker.
pub use crate::pool::AttemptKey;

/// The time limits of an attempt, from its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeLimits {
    /// `soft_time_limit`
    pub soft: Option<Duration>,
    /// `time_limit`
    pub hard: Option<Duration>,
}

/// A message that may run.
#[derive(Debug, Clone)]
pub struct Request {
    /// Names its delivery to the broker.
    pub tag: Tag,
    /// Queue it came from.
    pub queue: Arc<str>,
    /// How many times it was lost before.
    pub deliveries: u32,
    /// It was lost before, so its start must be marked.
    pub suspect: bool,
    /// The message as it came; a retry is made from it.
    pub payload: Payload,
    /// What it says.
    pub message: Message,
    /// What runs.
    pub task: Arc<Task>,
    /// Its arguments.
    pub arguments: Arguments,
    /// The arguments by the names of `params`.
    pub bound: Vec<(String, Box<RawValue>)>,
    /// When it was delivered.
    pub received: Instant,
    /// Has it been acknowledged before its start?
    pub acked: bool,
    /// When its attempt began.
    pub began: Option<DateTime<Utc>>,
    /// What its attempt has told the worker, if anything.
    pub told: Option<Box<Told>>,
    /// The built-in task that it is for; of a map, `task` is that of the items.
    pub built_in: Option<BuiltIn>,
    /// How far it has come, if it runs its task for each item of a map.
    pub map: Option<Box<Map>>,
}

impl Request {
    /// Is it acknowledged after it has run?
    pub fn acks_late(&self, policy: &Policy) -> bool {
        self.task.acks_late.unwrap_or(policy.acks_late)
    }

    /// Reads the items of a map, and binds the first.
    ///
    /// # Errors
    /// There are none, or the first does not fit.
    pub(super) fn begin_map(&mut self, built_in: BuiltIn) -> Result<(), Exception> {
        let map = Map::of(built_in, &self.arguments)?;
        let Arguments { args, kwargs, .. } = &self.arguments;
        if builtin::inner(args, kwargs).is_none_or(|name| name != self.task.name) {
            let why = format!("{}: task: expected a signature or a name", self.message.task);
            return Err(Exception::new("builtins", "TypeError", why));
        }
        if !map.is_over() {
            self.bound = map.bind(&self.task)?;
        }
        self.map = Some(Box::new(map));
        Ok(())
    }

    /// Is its record with this state stored?
    pub fn stores(&self, plan: &Plan, state: TaskState) -> bool {
        plan.stores(state, &self.message, &self.task, self.arguments.embed.as_deref())
    }

    /// Its time limits: the message's own come first, then the task's.
    pub fn time_limits(&self, policy: &Policy) -> TimeLimits {
        let (message, task) = (&self.message, &self.task);
        TimeLimits {
            soft: message.soft_time_limit.or(task.soft_time_limit).or(policy.soft_time_limit),
            hard: message.time_limit.or(task.time_limit).or(policy.time_limit),
        }
    }

    /// What the runner gets: of a map, for its next item.
    pub fn attempt(&self, plan: &Plan, now: Instant) -> Attempt {
        let message = &self.message;
        let limits = self.time_limits(&plan.policy);
        let (args, kwargs) = match &self.map {
            Some(map) => (map.args(), Vec::new()),
            None => (self.arguments.args.clone(), self.arguments.kwargs.clone()),
        };
        let limits = match &self.map {
            Some(map) => map.left(limits, now),
            None => limits,
        };
        Attempt {
            task: self.task.clone(),
            id: message.id.clone(),
            root_id: message.root_id.clone(),
            parent_id: message.parent_id.clone(),
            retries: message.retries,
            hostname: plan.hostname.clone(),
            queue: self.queue.clone(),
            args,
            kwargs,
            bound: self.bound.clone(),
            details: if self.task.stdin == Stdin::Json { self.details() } else { Vec::new() },
            access: None,
            worker: None,
            soft_time_limit: limits.soft,
            time_limit: limits.hard,
            env: plan.policy.env.clone(),
        }
    }

    /// What its message says beside the arguments, for [`crate::runner::context::document`].
    pub fn details(&self) -> Vec<(String, Box<RawValue>)> {
        let mut details = self.payload.details();
        let embed = self.arguments.embed.as_deref().cloned().unwrap_or_default();
        details.extend(embed.details());
        details.push(("deliveries".into(), value::raw(&self.deliveries.into())));
        details
    }

    /// The tasks that its attempt has called, as a result lists them.
    pub fn children(&self) -> &[ResultTree] {
        self.told.as_ref().map_or(&[], |told| &told.children)
    }

    /// Adds the group, the parent, the children, and the fields of `result_extended` if that is set.
    pub fn extend(&self, plan: &Plan, record: Record) -> Record {
        let message = &self.message;
        let parent_id = Some(message.parent_id.clone()).filter(|parent| !parent.is_empty());
        let children = self.children();
        let children = (!children.is_empty()).then(|| canvas::listed(children));
        let group_id = message.group.clone();
        let record = Record { group_id, parent_id, children, ..record };
        if !plan.policy.result_extended {
            return record;
        }
        let extended = Extended {
            name: self.message.task.clone(),
            args: body::array(&self.arguments.args),
            kwargs: body::object(&self.arguments.kwargs),
            worker: plan.hostname.to_string(),
            retries: self.message.retries,
            queue: self.queue.to_string(),
            usage: None,
        };
        Record { extended: Some(Box::new(extended)), ..record }
    }

    /// The same message, to be sent to its queue again.
    pub fn posting(&self, eta: Option<DateTime<Utc>>) -> Posting {
        Posting {
            queue: self.queue.to_string(),
            task_id: self.message.id.clone(),
            priority: self.message.priority.unwrap_or(0).clamp(0, 9) as u8,
            eta,
            payload: self.payload.clone(),
        }
    }

    /// `name[id]`, as log lines name it.
    pub fn label(&self) -> String {
        label(&self.message)
    }
}

/// `name[id]`, as log lines name a task.
pub fn label(message: &Message) -> String {
    format!("{}[{}]", escape::name(message.display_name()), escape::name(&message.id))
}

/// The task of a message, for a log line about it.
pub fn about(message: &Message) -> About {
    About { task: message.task.clone(), id: message.id.clone() }
}
