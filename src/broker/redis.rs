//! Messages on a Redis server: kombu's keys, and some of ours beside them.
//!
//! Source: kombu 5.7 `transport/redis.py`. All keys have the `global_keyprefix` in front.
//!
//! | key | kind | what |
//! | --- | --- | --- |
//! | `QUEUE`, `QUEUE\x06\x16{3,6,9}` | list | ready messages; served from the right, the lowest step first |
//! | `unacked` | hash | what workers hold: tag to `[envelope, exchange, routing key]` |
//! | `unacked_index` | sorted set | tags by lease: kombu hands out again what is older than its `visibility_timeout` |
//! | `_kombu.binding.EXCHANGE`, `_kombu.binding_permanent.EXCHANGE` | set | queues of an exchange |
//! | `qworker.workers` | sorted set | our workers by their last sign of life |
//! | `qworker.worker.INSTANCE` | hash | one of them, and which of its suspects have started |
//! | `qworker.scheduled.QUEUE` | sorted set | messages that are for later, `STEP:NAME:ELEMENT` by due time |
//! | `qworker.dead` | hash | number to note, deliveries, step, queue and message, a line each |
//! | `qworker.once.TOKEN` | string | messages that a worker has sent; gone after an hour |
//! | `qworker.beat.GROUP` | hash | what the beats of a group know of their entries, by name |
//!
//! A tag of ours is `INSTANCE:NUMBER:STEP:QUEUE`, so it tells whose it is and where its message
//! came from. Whatever changes more than one key is a script, hence one step.

mod commit;
mod dead;
mod hold;
mod inlet;
mod instance;
mod keeper;
mod ledger;
mod lists;
mod restore;
mod survey;

pub use commit::Document;
pub use inlet::{Identity, Inlet};
pub use ledger::Ledger;
pub use survey::Survey;

use super::{Death, Fate, Item, Posting, Settle, Tag};
use crate::clock;
use crate::link::error::{Error, Kind};
use crate::link::redis::Link;
use crate::link::url::Server;
use chrono::{DateTime, Utc};
use hold::Hold;
use redis::Script;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// kombu's priority steps: 0, served first, is a queue's own list.
const STEPS: [u8; 4] = [0, 3, 6, 9];

/// Stands between a queue and its step.
const SEPARATOR: &str = "\u{6}\u{16}";

/// A script of this folder, with what all of them share before it.
fn script(own: &str) -> Script {
    Script::new(&format!("{}{own}", include_str!("redis/common.lua")))
}

/// The names of keys.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Layout {
    prefix: String,
}

impl Layout {
    fn list(&self, queue: &str, step: u8) -> String {
        match step {
            0 => format!("{}{queue}", self.prefix),
            _ => format!("{}{queue}{SEPARATOR}{step}", self.prefix),
        }
    }

    fn scheduled(&self, queue: &str) -> String {
        format!("{}qworker.scheduled.{queue}", self.prefix)
    }

    fn unacked(&self) -> String {
        format!("{}unacked", self.prefix)
    }

    fn unacked_index(&self) -> String {
        format!("{}unacked_index", self.prefix)
    }

    fn dead(&self) -> String {
        format!("{}qworker.dead", self.prefix)
    }

    fn workers(&self) -> String {
        format!("{}qworker.workers", self.prefix)
    }

    fn worker(&self, instance: &str) -> String {
        format!("{}qworker.worker.{instance}", self.prefix)
    }

    fn token(&self, token: &str) -> String {
        format!("{}qworker.once.{token}", self.prefix)
    }

    fn bindings(&self, exchange: &str) -> String {
        format!("{}_kombu.binding.{exchange}", self.prefix)
    }

    /// Binds a queue to the exchange of its name, so that whoever asks finds it, and what is
    /// sent to the exchange too.
    fn bind(&self, queue: &str, pipe: &mut redis::Pipeline) {
        for key in [self.bindings(queue), self.lasting_bindings(queue)] {
            pipe.cmd("SADD").arg(key).arg(binding(queue)).ignore();
        }
    }

    fn lasting_bindings(&self, exchange: &str) -> String {
        format!("{}_kombu.binding_permanent.{exchange}", self.prefix)
    }
}

/// kombu rounds a priority down to a step.
fn step_of(priority: u8) -> u8 {
    STEPS.into_iter().rev().find(|step| *step <= priority).unwrap_or(0)
}

/// On Redis kombu serves 0 first, and 0 is what nobody asked for.
fn wire_priority(priority: Option<u8>) -> u8 {
    priority.map_or(0, |priority| 9 - priority.min(9))
}

/// See [`super::Outlet`].
#[derive(Clone)]
pub struct Outlet {
    link: Link,
    layout: Arc<Layout>,
    /// What the worker holds whose deliveries this end settles.
    hold: Option<Arc<Hold>>,
    /// Queues that need not be declared again.
    declared: Arc<Mutex<HashSet<String>>>,
}

impl Outlet {
    /// The end for programs that are no worker: they settle nothing, and wait for an answer up
    /// to `patience`. Connects when it is used.
    ///
    /// # Errors
    /// A certificate cannot be read.
    pub fn open(server: &Server, prefix: &str, patience: Duration) -> Result<Outlet, Error> {
        let link = Link::new(server, patience, Vec::new())?;
        let layout = Arc::new(Layout { prefix: prefix.into() });
        Ok(Outlet { link, layout, hold: None, declared: Arc::default() })
    }

    /// The connection.
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// What this worker holds goes back, counted, as if it were dead; the caller sees to it that
    /// none of its tasks lives.
    ///
    /// # Errors
    /// What the server said; other workers notice the death then.
    pub async fn surrender(&self) -> Result<(), Error> {
        match &self.hold {
            Some(hold) => keeper::bury(&self.link, &self.layout, hold.instance()).await,
            None => Ok(()),
        }
    }

    /// See [`super::Outlet::wire_priority`].
    pub fn wire_priority(&self, priority: Option<u8>) -> u8 {
        wire_priority(priority)
    }

    /// See [`super::Outlet::publish`].
    pub async fn publish(&self, postings: Vec<Posting>) -> Result<(), Error> {
        self.declare(&postings).await?;
        if let [posting] = &postings[..]
            && posting.eta.is_none()
        {
            // The common case, and as cheap as can be.
            let key = self.layout.list(&posting.queue, step_of(posting.priority));
            let mut push = redis::cmd("LPUSH");
            push.arg(&key).arg(&*posting.payload.to_envelope());
            let push = async |c: &mut _| push.query_async(c).await;
            let done = match self.hold {
                None => self.link.run_eagerly(push).await,
                Some(_) => self.link.run(push).await,
            };
            return done.map_err(|error| naming(&error, &key));
        }
        self.send(Item { postings, ..Item::default() }).await
    }

    /// All of its messages, or none.
    async fn send(&self, item: Item) -> Result<(), Error> {
        match self.commit(&[item], |_| None).await?.pop() {
            Some(Fate::Refused(why)) => {
                Err(Error::of(Kind::Refused, format!("{}: {why}", self.link.server())))
            }
            _ => Ok(()),
        }
    }

    /// Declares the queues that this end has not sent to before, as kombu does it.
    async fn declare(&self, postings: &[Posting]) -> Result<(), Error> {
        let mut pipe = redis::pipe();
        let new = self.declarations(postings, &mut pipe);
        if !new.is_empty() {
            let done = self.link.run(async |c| pipe.exec_async(c).await).await;
            done.map_err(|error| naming(&error, &self.layout.bindings(&new.join(", "))))?;
            self.declared.lock().unwrap_or_else(PoisonError::into_inner).extend(new);
        }
        Ok(())
    }

    /// Adds the declarations of the queues that this end has not sent to before; gives their
    /// names.
    fn declarations<'a>(
        &self,
        postings: impl IntoIterator<Item = &'a Posting>,
        pipe: &mut redis::Pipeline,
    ) -> Vec<String> {
        let declared = self.declared.lock().unwrap_or_else(PoisonError::into_inner);
        let mut new: HashSet<&str> = HashSet::new();
        for Posting { queue, .. } in postings {
            if !declared.contains(queue) && new.insert(queue) {
                self.layout.bind(queue, pipe);
            }
        }
        new.into_iter().map(str::to_string).collect()
    }

    /// See [`super::Outlet::publish_once`].
    pub async fn publish_once(&self, token: String, postings: Vec<Posting>) -> Result<(), Error> {
        self.declare(&postings).await?;
        self.send(Item { postings, token, ..Item::default() }).await
    }

    /// See [`super::Outlet::settle`].
    pub async fn settle(&self, settlements: Vec<(Tag, Settle)>) -> Result<(), Error> {
        let items: Vec<Item> = settlements
            .into_iter()
            .map(|(tag, settle)| Item { tag: Some(tag), settle: Some(settle), ..Item::default() })
            .collect();
        let fates = self.commit(&items, |_| None).await?;
        super::first_refusal(fates)
    }
}

/// The same with the key that it is about, which the server does not name.
fn naming(error: &Error, key: &str) -> Error {
    match error.kind() {
        Kind::Refused | Kind::Forbidden => Error::of(error.kind(), format!("{error} (key {key})")),
        kind => Error::of(kind, error.to_string()),
    }
}

/// Score and member of a message for later.
fn planned(posting: &Posting, step: u8, eta: DateTime<Utc>) -> [String; 2] {
    let member = format!("{step}:{}:{}", unique(), posting.payload.to_envelope());
    [clock::epoch(eta).to_string(), member]
}

/// Tells two scheduled messages with the same text apart.
fn unique() -> String {
    uuid::Uuid::now_v7().simple().to_string()
}

/// One line of JSON.
fn note(death: &Death) -> String {
    json!({
        "died_at": clock::iso(clock::now()),
        "reason": death.reason,
        "detail": death.detail,
        "task_id": death.task_id,
        "task": death.task,
        "counts": death.counts,
    })
    .to_string()
}

/// The member of a set of bindings: routing key, pattern (none) and queue.
fn binding(queue: &str) -> String {
    format!("{queue}{SEPARATOR}{SEPARATOR}{queue}")
}

/// A text of a note, empty if there is none.
fn text_of(note: &Value, name: &str) -> String {
    note[name].as_str().unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_of_kombu() {
        let layout = Layout { prefix: "app:".into() };
        assert_eq!(layout.list("celery", 0), "app:celery");
        assert_eq!(layout.list("celery", 6), "app:celery\u{6}\u{16}6");
        assert_eq!(binding("celery"), "celery\u{6}\u{16}\u{6}\u{16}celery");
        let steps: Vec<u8> = (0..=10).map(step_of).collect();
        assert_eq!(steps, [0, 0, 0, 3, 3, 3, 6, 6, 6, 9, 9]);
    }

    #[test]
    fn a_higher_priority_is_a_lower_number_there() {
        let steps = [None, Some(9), Some(5), Some(0)].map(|p| step_of(wire_priority(p)));
        assert_eq!(steps, [0, 0, 3, 9]);
    }
}
