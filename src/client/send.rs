//! From a wish to a message in a queue.

use crate::broker::{Error, Outlet, Posting};
use crate::task::Task;
use crate::wire::message::{self, Draft};
use chrono::{DateTime, Utc};
use serde_json::value::RawValue;
use std::time::Duration;

/// A task to be sent.
#[derive(Debug, Clone, Default)]
pub struct Wish {
    /// Its name.
    pub task: String,
    /// Its id; made up if empty.
    pub id: String,
    /// Positional arguments.
    pub args: Vec<Box<RawValue>>,
    /// Keyword arguments.
    pub kwargs: Vec<(String, Box<RawValue>)>,
    /// Where to; the task's queue, its route, or the default queue if empty.
    pub queue: String,
    /// Not before.
    pub eta: Option<DateTime<Utc>>,
    /// Not after.
    pub expires: Option<DateTime<Utc>>,
    /// 0 to 9, higher is served first.
    pub priority: Option<u8>,
    /// The workflow's first task, when a task sends this one.
    pub root_id: Option<String>,
    /// The task that sends this one.
    pub parent_id: Option<String>,
}

/// What the sender's settings add to a wish.
#[derive(Debug, Clone)]
pub struct Sender {
    /// `gen{pid}@{host}`
    pub origin: String,
    /// A UUID that names this process.
    pub identity: String,
}

impl Sender {
    /// This process on `hostname`.
    pub fn new(hostname: &str) -> Sender {
        Sender {
            origin: format!("gen{}@{hostname}", std::process::id()),
            identity: uuid::Uuid::new_v4().to_string(),
        }
    }

    /// The message that fulfils `wish`. `task` is its definition if it is known here: it
    /// gives a time to live and a priority where the wish has none.
    pub fn posting(&self, wish: Wish, task: Option<&Task>, now: DateTime<Utc>) -> Posting {
        // Ordered by time: neighbours in the indexes of a store, not scattered over them.
        let id = if wish.id.is_empty() { uuid::Uuid::now_v7().to_string() } else { wish.id };
        let lifetime = task.and_then(|task| task.expires);
        let expires =
            wish.expires.or_else(|| lifetime.map(|after| wish.eta.unwrap_or(now) + after));
        let priority = wish.priority.or(task.and_then(|task| task.priority)).unwrap_or(0);
        let draft = Draft {
            task: wish.task,
            id: id.clone(),
            args: wish.args,
            kwargs: wish.kwargs,
            queue: wish.queue.clone(),
            eta: wish.eta,
            expires,
            priority,
            origin: self.origin.clone(),
            reply_to: self.identity.clone(),
            root_id: wish.root_id,
            parent_id: wish.parent_id,
            ignore_result: task.and_then(|task| task.ignore_result),
        };
        let payload = message::encode(&draft, now);
        Posting { queue: wish.queue, task_id: id, priority, eta: wish.eta, payload }
    }
}

/// Sends these, all or none, within `deadline`.
///
/// # Errors
/// What the broker answered, or that it did not in time. After a time-out the messages
/// may have been accepted all the same.
pub async fn send(
    outlet: &Outlet,
    postings: Vec<Posting>,
    deadline: Duration,
) -> Result<(), Error> {
    match tokio::time::timeout(deadline, outlet.publish(postings)).await {
        Ok(answer) => answer,
        Err(_) => Err(Error::late(deadline)),
    }
}
