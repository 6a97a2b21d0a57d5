//! From a wish to a message in a queue.

use crate::broker::{Error, Outlet, Posting};
use crate::task::Task;
use crate::wire::draft::{self, Draft, Route};
use chrono::{DateTime, TimeDelta, Utc};
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
    /// Where to.
    pub queue: String,
    /// The named exchange that led there, if one did.
    pub route: Option<Route>,
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
    /// Store no result; `None` leaves it to the task.
    pub ignore_result: Option<bool>,
    /// The name that people see in place of the task's.
    pub shadow: Option<String>,
    /// Seconds until the task is ended by force; `None` leaves it to the task.
    pub time_limit: Option<f64>,
    /// Seconds until the task is asked to end; likewise.
    pub soft_time_limit: Option<f64>,
    /// Headers beside those of the protocol.
    pub headers: Vec<(String, Box<RawValue>)>,
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

    /// The message that fulfils `wish` at the broker of `outlet`. `task` is its definition if
    /// it is known here: it gives a time to live and a priority where the wish has none.
    pub fn posting(
        &self,
        outlet: &Outlet,
        wish: Wish,
        task: Option<&Task>,
        now: DateTime<Utc>,
    ) -> Posting {
        let id = if wish.id.is_empty() { new_id() } else { wish.id };
        let lifetime = task.and_then(|task| task.expires);
        let expires = wish.expires.or_else(|| {
            lifetime.and_then(|after| {
                // What would expire beyond the end of all calendars does not.
                wish.eta.unwrap_or(now).checked_add_signed(TimeDelta::from_std(after).ok()?)
            })
        });
        let priority = wish.priority.or(task.and_then(|task| task.priority));
        let priority = outlet.wire_priority(priority);
        let draft = Draft {
            task: wish.task,
            id: id.clone(),
            args: wish.args,
            kwargs: wish.kwargs,
            queue: wish.queue.clone(),
            route: wish.route,
            eta: wish.eta,
            expires,
            priority,
            origin: self.origin.clone(),
            reply_to: self.identity.clone(),
            root_id: wish.root_id,
            parent_id: wish.parent_id,
            ignore_result: wish.ignore_result.or(task.and_then(|task| task.ignore_result)),
            shadow: wish.shadow,
            time_limits: (wish.time_limit, wish.soft_time_limit),
            headers: wish.headers,
        };
        let payload = draft::encode(&draft, now);
        // A task that is not ours may be one of a Celery worker, which looks only at what can
        // be taken, and waits for the time itself. A worker of ours parks what comes early.
        let eta = task.and(wish.eta);
        Posting { queue: wish.queue, task_id: id, priority, eta, payload }
    }

    /// The messages that fulfil `wish`: a copy for each of `bound`, the queues that its route
    /// leads to, or the one for its own queue if it has no route.
    pub fn postings(
        &self,
        outlet: &Outlet,
        mut wish: Wish,
        bound: &[String],
        task: Option<&Task>,
        now: DateTime<Utc>,
    ) -> Vec<Posting> {
        if wish.route.is_none() {
            return vec![self.posting(outlet, wish, task, now)];
        }
        if wish.id.is_empty() {
            wish.id = new_id();
        }
        let copy = |queue: &String| Wish { queue: queue.clone(), ..wish.clone() };
        bound.iter().map(|queue| self.posting(outlet, copy(queue), task, now)).collect()
    }
}

/// An id for a task: ordered by time, so that neighbours in time are neighbours in the
/// indexes of a store, not scattered over them.
fn new_id() -> String {
    uuid::Uuid::now_v7().to_string()
}

/// The queues that `route` leads to at this broker, asked for within `deadline`.
///
/// # Errors
/// What the broker answered, or that it did not in time; or no queue is bound so, and
/// whatever is sent there would be lost.
pub async fn bound(
    outlet: &Outlet,
    route: &Route,
    deadline: Duration,
) -> Result<Vec<String>, Error> {
    let Route { exchange, routing_key } = route.clone();
    let asked = outlet.route(exchange, routing_key);
    let queues = tokio::time::timeout(deadline, asked)
        .await
        .unwrap_or_else(|_| Err(Error::late(deadline)))?;
    if queues.is_empty() {
        let Route { exchange, routing_key } = route;
        return Err(Error::misuse(format!(
            "no queue is bound to exchange {exchange:?} for routing key {routing_key:?}"
        )));
    }
    Ok(queues)
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
