//! Where messages wait. A broker has two ends: the [`Inlet`] waits for messages, the
//! [`Outlet`] does everything else. Both are closed enums: forgetting a broker in a
//! `match` does not compile.
//!
//! The contract, which `tests/contract/broker.rs` checks for every variant:
//!
//! * What [`Outlet::publish`] answered `Ok` for survives any crash.
//! * A delivery belongs to its worker until it is settled, or until that worker *and*
//!   everything it started are dead; then it is handed out again, counted.
//! * Messages that are not due are not delivered, however many there are.
//! * Within a queue higher priorities come first (as [`Outlet::wire_priority`] writes them),
//!   then older messages. No queue starves another.
//! * To add a broker: a file with both ends, a variant here, a scheme in `link::url`, a
//!   line in the suite.

pub mod ledger;
pub mod redis;
pub mod sqlite;

pub use crate::link::error::Error;
use crate::wire::{Payload, Record};
use chrono::{DateTime, Utc};
pub use redis::Survey;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// One message in our hands.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// Names it to the broker.
    pub tag: Tag,
    /// The queue it waited in.
    pub queue: Arc<str>,
    /// The message, unread.
    pub payload: Payload,
    /// How often it was handed out and lost or sent back, counted.
    pub deliveries: u32,
    /// It was lost before: mark it before it starts, so that the count stays exact.
    pub suspect: bool,
    /// Whether its task was revoked, if the results are where the messages are; see
    /// [`Inlet::see_results`].
    pub revoked: Option<bool>,
}

/// Names of tasks.
pub type Names = Arc<[Arc<str>]>;

/// What a broker does by the names of tasks, without asking the worker.
#[derive(Debug, Clone, Default)]
pub struct Sorting {
    /// Messages of these names are left to others.
    pub left: Names,
    /// Those of these names that are not due are put by for this kind of worker.
    pub parked: Names,
}

/// A delivery's name; plain data, so that it can travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Tag {
    /// Row of `kombu_message`.
    Row(i64),
    /// A number that the worker gave it.
    Number(u64),
}

/// What becomes of a delivery.
#[derive(Debug, Clone)]
pub enum Settle {
    /// Done with: remove it.
    Ack,
    /// Still ours, and about to start: if this worker dies from now on, that counts. For
    /// suspects; the first loss of a message always counts, since it may have started.
    Mark,
    /// Never started: back to its place, uncounted.
    Release,
    /// Nobody here knows a task of this name: others may have it at once, uncounted.
    Pass(String),
    /// Not now: hand it out from then on, uncounted.
    Park(DateTime<Utc>),
    /// It cost a process or found no task: hand it out again from then on, counted.
    Redeliver(DateTime<Utc>),
    /// Replace it by this message, due then (a retry), in one step.
    Replace(Payload, DateTime<Utc>),
    /// Keep it in the dead-letter list.
    Dead(Death),
}

impl Settle {
    /// May it be there for others after this?
    pub fn moves(&self) -> bool {
        !matches!(self, Settle::Ack | Settle::Mark)
    }
}

/// What becomes of one task: all of it, or nothing.
#[derive(Debug, Clone, Default)]
pub struct Item {
    /// The delivery that this is about; nothing is done unless it is still held.
    pub tag: Option<Tag>,
    /// Stored.
    pub record: Option<Record>,
    /// Sent.
    pub postings: Vec<Posting>,
    /// Names the postings: sent again under the same name within an hour, they are accepted
    /// once. Empty if nobody asks twice.
    pub token: String,
    /// What becomes of the delivery; `None` leaves it as it is.
    pub settle: Option<Settle>,
    /// Not even a power cut may undo it.
    pub durable: bool,
}

/// What has become of an [`Item`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It is done.
    Done,
    /// Its delivery is not held any more: it was settled before, or handed out again.
    Lost,
    /// Nothing of it can be done, and why; others may.
    Refused(String),
}

/// Why a message is in the dead-letter list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Death {
    /// One word: `malformed`, `unregistered`, `lost`.
    pub reason: &'static str,
    /// A sentence.
    pub detail: String,
    /// Task id, if the message has one that can be read.
    pub task_id: Option<String>,
    /// Task name, likewise.
    pub task: Option<String>,
    /// It was handed out once more than was counted before.
    pub counts: bool,
}

/// A message on its way to a queue.
#[derive(Debug, Clone)]
pub struct Posting {
    /// The queue.
    pub queue: String,
    /// Task id.
    pub task_id: String,
    /// As the message has it; see [`Outlet::wire_priority`].
    pub priority: u8,
    /// Not before.
    pub eta: Option<DateTime<Utc>>,
    /// The message.
    pub payload: Payload,
}

/// How many messages a worker can use now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Want {
    /// Free slots: so many may start at once.
    pub slots: usize,
    /// So many more may wait in memory; never one that was lost before, since a crash
    /// would count against it though it had not started.
    pub ahead: usize,
}

/// A kept message.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    /// Number in the list.
    pub number: i64,
    /// When it died.
    pub died_at: String,
    /// Why; see [`Death`].
    pub reason: String,
    /// A sentence.
    pub detail: String,
    /// Task id, or empty.
    pub task_id: String,
    /// Task name, or empty.
    pub task: String,
    /// The queue it came from.
    pub queue: String,
    /// How often it was handed out.
    pub deliveries: u32,
    /// The message as it was.
    pub payload: Payload,
}

/// Where a task is, as the broker knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whereabouts {
    /// In a queue, not before the time if there is one (seconds since the epoch).
    Waiting {
        /// The queue.
        queue: String,
        /// Not before; seconds since the epoch, as text.
        eta: Option<String>,
    },
    /// With a worker.
    Held {
        /// The queue it came from.
        queue: String,
    },
    /// In the dead-letter list, under this number.
    Dead(i64),
    /// Not here.
    Unknown,
}

/// A queue and what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueInfo {
    /// Its name.
    pub name: String,
    /// Can be handed out now.
    pub ready: u32,
    /// Not due yet.
    pub scheduled: u32,
    /// With workers.
    pub held: u32,
    /// What is wrong with the keys that should have its messages; what is there is not counted.
    pub odd: Option<String>,
}

/// A worker that holds a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Node name.
    pub hostname: String,
    /// Its process.
    pub pid: u32,
}

/// The end that hands out messages.
pub enum Inlet {
    /// One file.
    Sqlite(sqlite::Inlet),
    /// A Redis server.
    Redis(redis::Inlet),
}

/// The end that takes everything else.
#[derive(Clone)]
pub enum Outlet {
    /// One file.
    Sqlite(sqlite::Outlet),
    /// A Redis server.
    Redis(redis::Outlet),
}

macro_rules! each {
    ($self:ident, $type:ident, $end:ident => $call:expr) => {
        match $self {
            $type::Sqlite($end) => $call,
            $type::Redis($end) => $call,
        }
    };
}

/// The first refusal among these is the error of all.
fn first_refusal(fates: Vec<Fate>) -> Result<(), Error> {
    let refusal = fates.into_iter().find_map(|fate| match fate {
        Fate::Refused(why) => Some(why),
        Fate::Done | Fate::Lost => None,
    });
    refusal.map_or(Ok(()), |why| Err(Error::of(crate::link::error::Kind::Refused, why)))
}

/// Where results are, as far as a broker may look at them.
pub enum Results {
    /// In this file.
    Sqlite(crate::link::sqlite::Db, sqlite::LookUp),
    /// On this server, each at its task's id after this.
    Redis(crate::link::url::Server, String),
    /// Nowhere that a broker could be.
    Elsewhere,
}

/// See [`Inlet::contact`].
pub type Contact = Box<dyn Fn() -> (Duration, Option<String>)>;

impl Inlet {
    /// Tells, for as long as the inlet lives, how long ago the broker last answered it, and
    /// what went wrong since. A file always answers.
    pub fn contact(&self) -> Contact {
        match self {
            Inlet::Sqlite(_) => Box::new(|| (Duration::ZERO, None)),
            Inlet::Redis(inlet) => {
                let link = inlet.link().clone();
                Box::new(move || link.heard())
            }
        }
    }

    /// Takes what is there and `want` allows, at once; often nothing.
    pub async fn take(&mut self, want: Want) -> Result<Vec<Delivery>, Error> {
        each!(self, Inlet, inlet => inlet.take(want).await)
    }

    /// Sorts messages by these names from now on, and by no others.
    pub fn sort(&mut self, names: Sorting) {
        each!(self, Inlet, inlet => inlet.sort(names))
    }

    /// Has whatever takes a message look at its task's result in the same step, if `store` is where the
    /// messages are; see [`Delivery::revoked`].
    pub fn see_results(&mut self, store: Results) {
        match (self, store) {
            (Inlet::Sqlite(inlet), Results::Sqlite(db, look)) => inlet.see_results(&db, look),
            (Inlet::Redis(inlet), Results::Redis(server, prefix)) => {
                inlet.see_results(&server, prefix);
            }
            _ => {}
        }
    }

    /// Is another [`Inlet::take`] sure to find nothing, as far as is known here? Then there is
    /// no need to ask: [`Inlet::wait`].
    pub fn is_dry(&self) -> bool {
        match self {
            // To look costs less than to be told.
            Inlet::Sqlite(_) => false,
            Inlet::Redis(inlet) => inlet.is_dry(),
        }
    }

    /// Waits until another [`Inlet::take`] may find something. May be dropped at any time.
    pub async fn wait(&mut self) {
        each!(self, Inlet, inlet => inlet.wait().await)
    }

    /// Tells which deliveries are not held any more, though nobody here has settled them; `None`
    /// where that cannot be, and when it was asked before.
    pub fn losses(&mut self) -> Option<mpsc::UnboundedReceiver<Vec<Tag>>> {
        match self {
            Inlet::Sqlite(_) => None,
            Inlet::Redis(inlet) => inlet.losses(),
        }
    }

    /// Gives up the lease: nothing is held any more.
    pub async fn close(self) -> Result<(), Error> {
        each!(self, Inlet, inlet => inlet.close().await)
    }
}

impl Outlet {
    /// Accepts these messages, all or none, durably.
    pub async fn publish(&self, postings: Vec<Posting>) -> Result<(), Error> {
        each!(self, Outlet, outlet => outlet.publish(postings).await)
    }

    /// Accepts these messages, all or none, durably; once, however often it is asked within an
    /// hour under the same token, for an answer may be lost.
    ///
    /// # Errors
    /// Nothing was accepted, or all was and the answer was lost.
    pub async fn publish_once(&self, token: String, postings: Vec<Posting>) -> Result<(), Error> {
        each!(self, Outlet, outlet => outlet.publish_once(token, postings).await)
    }

    /// The ledger of the beats of this group, in the broker's own store.
    pub fn ledger(&self, group: &str) -> ledger::Ledger {
        ledger::Ledger::of(self, group)
    }

    /// Settles deliveries of this worker, all or none.
    pub async fn settle(&self, settlements: Vec<(Tag, Settle)>) -> Result<(), Error> {
        each!(self, Outlet, outlet => outlet.settle(settlements).await)
    }

    /// The number that a message of this priority (0 to 9, higher is served first; `None`: the
    /// sender does not care) carries here, so that Celery programs on this broker understand it.
    pub fn wire_priority(&self, priority: Option<u8>) -> u8 {
        each!(self, Outlet, outlet => outlet.wire_priority(priority))
    }

    /// The queues that are bound to a named exchange for messages of this routing key.
    pub async fn route(&self, exchange: String, routing_key: String) -> Result<Vec<String>, Error> {
        each!(self, Outlet, outlet => outlet.route(exchange, routing_key).await)
    }

    /// What this worker holds goes back at once, counted, where others could not tell soon
    /// that it dies. None of its tasks may live any more.
    pub async fn surrender(&self) -> Result<(), Error> {
        match self {
            // Its lease tells, and is free in a moment.
            Outlet::Sqlite(_) => Ok(()),
            Outlet::Redis(outlet) => outlet.surrender().await,
        }
    }

    /// Removes what waits in these queues, due or not; says how much it was. What
    /// workers hold stays.
    pub async fn purge(&self, queues: Vec<String>) -> Result<u64, Error> {
        each!(self, Outlet, outlet => outlet.purge(queues).await)
    }

    /// Every queue that was ever used.
    pub async fn queues(&self) -> Result<Vec<QueueInfo>, Error> {
        each!(self, Outlet, outlet => outlet.queues().await)
    }

    /// Every worker alive.
    pub async fn nodes(&self) -> Result<Vec<Node>, Error> {
        each!(self, Outlet, outlet => outlet.nodes().await)
    }

    /// Where the task of this id is.
    pub async fn find(&self, task_id: String) -> Result<Whereabouts, Error> {
        each!(self, Outlet, outlet => outlet.find(task_id).await)
    }

    /// The dead-letter list, oldest first.
    pub async fn dead(&self) -> Result<Vec<DeadLetter>, Error> {
        each!(self, Outlet, outlet => outlet.dead().await)
    }

    /// Sends these dead letters to their queues again, their count back at zero; `None`
    /// is all of them. Says how many there were.
    pub async fn requeue_dead(&self, numbers: Option<Vec<i64>>) -> Result<u64, Error> {
        each!(self, Outlet, outlet => outlet.requeue_dead(numbers).await)
    }

    /// Removes these dead letters; `None` is all of them. Says how many there were.
    pub async fn purge_dead(&self, numbers: Option<Vec<i64>>) -> Result<u64, Error> {
        each!(self, Outlet, outlet => outlet.purge_dead(numbers).await)
    }
}
