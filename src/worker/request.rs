//! One message that may run, from its delivery to its settlement.

use super::plan::{Plan, Policy};
use crate::broker::{Posting, Tag};
use crate::log::{About, escape};
use crate::runner::Attempt;
use crate::task::Task;
use crate::wire::result::Extended;
use crate::wire::{Arguments, Message, Payload, Record, body};
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
}

impl Request {
    /// Is it acknowledged after it has run?
    pub fn acks_late(&self, policy: &Policy) -> bool {
        self.task.acks_late.unwrap_or(policy.acks_late)
    }

    /// Its time limits: the message's own come first, then the task's.
    pub fn time_limits(&self, policy: &Policy) -> TimeLimits {
        let (message, task) = (&self.message, &self.task);
        TimeLimits {
            soft: message.soft_time_limit.or(task.soft_time_limit).or(policy.soft_time_limit),
            hard: message.time_limit.or(task.time_limit).or(policy.time_limit),
        }
    }

    /// What the runner gets.
    pub fn attempt(&self, plan: &Plan) -> Attempt {
        let message = &self.message;
        let limits = self.time_limits(&plan.policy);
        Attempt {
            task: self.task.clone(),
            id: message.id.clone(),
            root_id: message.root_id.clone(),
            parent_id: message.parent_id.clone(),
            retries: message.retries,
            hostname: plan.hostname.clone(),
            queue: self.queue.clone(),
            args: self.arguments.args.clone(),
            kwargs: self.arguments.kwargs.clone(),
            bound: self.bound.clone(),
            soft_time_limit: limits.soft,
            time_limit: limits.hard,
            env: plan.policy.env.clone(),
        }
    }

    /// Adds the group, the parent, and the fields of `result_extended` if that is set.
    pub fn extend(&self, plan: &Plan, record: Record) -> Record {
        let message = &self.message;
        let parent_id = Some(message.parent_id.clone()).filter(|parent| !parent.is_empty());
        let record = Record { group_id: message.group.clone(), parent_id, ..record };
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
