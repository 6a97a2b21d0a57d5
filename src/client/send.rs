//! From a draft to a message in a queue.

use crate::broker::{Abilities, Error, Posting, Producer};
use crate::config::routes::Routes;
use crate::task::Task;
use crate::task::set::Set;
use crate::wire::{BodyFormat, Draft, EncodeError, ExchangeRoute};
use chrono::{DateTime, TimeDelta, Utc};
use std::time::Duration;

/// Completes drafts: names this process as their sender, and adds what a task's definition says.
#[derive(Debug, Clone)]
pub struct Sender {
    /// `gen{pid}@{host}`
    pub origin: String,
    /// A UUID that names this process.
    pub identity: String,
    /// In which form bodies are written.
    pub format: BodyFormat,
}

impl Sender {
    /// This process on `hostname`; `format` is the form of the bodies that it writes.
    pub fn new(hostname: &str, format: BodyFormat) -> Sender {
        Sender {
            origin: format!("gen{}@{hostname}", std::process::id()),
            identity: uuid::Uuid::new_v4().to_string(),
            format,
        }
    }

    /// The message of `draft` for a broker of these abilities. `task` is its definition if it is known
    /// here: it gives a time to live and a priority where the draft has none.
    ///
    /// # Errors
    /// A value has no form in the serializer.
    pub fn posting(
        &self,
        abilities: &Abilities,
        mut draft: Draft,
        task: Option<&Task>,
        now: DateTime<Utc>,
    ) -> Result<Posting, EncodeError> {
        if draft.id.is_empty() {
            draft.id = new_id();
        }
        let lifetime = task.and_then(|task| task.expires);
        draft.expires = draft.expires.or_else(|| {
            lifetime.and_then(|after| {
                // What would expire beyond the end of all calendars does not.
                draft.eta.unwrap_or(now).checked_add_signed(TimeDelta::from_std(after).ok()?)
            })
        });
        draft.ignore_result = draft.ignore_result.or(task.and_then(|task| task.ignore_result));
        draft.origin.clone_from(&self.origin);
        if draft.reply_to.is_empty() {
            draft.reply_to.clone_from(&self.identity);
        }
        let priority = draft.priority.or(task.and_then(|task| task.priority));
        let priority = abilities.priorities.number(priority);
        let priority = draft.wire_priority.unwrap_or(priority);
        let payload = draft.encode(priority, now, &self.format)?;
        // A task that is not ours may be one of a Celery worker, which looks only at what can
        // be taken, and waits for the time itself. A worker of ours parks what comes early.
        let eta = task.and(draft.eta);
        Ok(Posting { queue: draft.queue, task_id: draft.id, priority, eta, payload })
    }

    /// The messages of `draft`: a copy for each of `bound`, the queues that its route leads to, or
    /// the one for its own queue if it has no route.
    ///
    /// # Errors
    /// As for [`Sender::posting`].
    pub fn postings(
        &self,
        abilities: &Abilities,
        mut draft: Draft,
        bound: &[String],
        task: Option<&Task>,
        now: DateTime<Utc>,
    ) -> Result<Vec<Posting>, EncodeError> {
        if draft.route.is_none() {
            return self.posting(abilities, draft, task, now).map(|posting| vec![posting]);
        }
        if draft.id.is_empty() {
            draft.id = new_id();
        }
        let copy = |queue: &String| Draft { queue: queue.clone(), ..draft.clone() };
        bound.iter().map(|queue| self.posting(abilities, copy(queue), task, now)).collect()
    }
}

/// Where the messages go that a worker sends after its tasks.
#[derive(Debug, Clone)]
pub struct Routing {
    /// Who sends them.
    pub sender: Sender,
    /// Those of the broker.
    pub abilities: Abilities,
    /// `task_routes`
    pub routes: Routes,
    /// `task_default_queue`
    pub default_queue: String,
    /// `task_default_priority`
    pub default_priority: Option<u8>,
}

impl Routing {
    /// The message of `draft`, which goes to the queue that it names, else to that of its route, of its
    /// task if that is known here, or to the default one. `tasks` are those that are known.
    ///
    /// # Errors
    /// As for [`Sender::posting`].
    pub fn posting(
        &self,
        mut draft: Draft,
        tasks: &Set,
        now: DateTime<Utc>,
    ) -> Result<Posting, EncodeError> {
        let task = tasks.get(&draft.task).map(|task| &**task);
        if draft.queue.is_empty() {
            let name = draft.route_name.as_ref().unwrap_or(&draft.task);
            let own = tasks.get(name).and_then(|task| task.queue.as_ref());
            draft.queue = self.routes.queue_of(name, own, &self.default_queue);
        }
        let own = task.and_then(|task| task.priority);
        let priority = || self.routes.priority_of(&draft.task, own, self.default_priority);
        draft.priority = draft.priority.or_else(priority);
        self.sender.posting(&self.abilities, draft, task, now)
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
    producer: &Producer,
    route: &ExchangeRoute,
    deadline: Duration,
) -> Result<Vec<String>, Error> {
    let ExchangeRoute { exchange, routing_key } = route.clone();
    let asked = producer.route(exchange, routing_key);
    let queues = tokio::time::timeout(deadline, asked)
        .await
        .unwrap_or_else(|_| Err(Error::late(deadline)))?;
    if queues.is_empty() {
        let ExchangeRoute { exchange, routing_key } = route;
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
/// may still have been accepted.
pub async fn send(
    producer: &Producer,
    postings: Vec<Posting>,
    deadline: Duration,
) -> Result<(), Error> {
    match tokio::time::timeout(deadline, producer.publish(postings)).await {
        Ok(answer) => answer,
        Err(_) => Err(Error::late(deadline)),
    }
}
