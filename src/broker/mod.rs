//! Where messages wait. What a broker offers is split by role; each role is a closed enum, and
//! forgetting a broker in one of them does not compile.
//!
//! | role | what it does | used by |
//! | --- | --- | --- |
//! | [`Consumer`] | hands out messages | a worker |
//! | [`Settler`] | says what becomes of them | a worker: only [`Broker::consume`] gives one |
//! | [`Producer`] | accepts messages | everybody who sends |
//! | [`Admin`] | counts, finds and removes what waits, names workers | everybody who looks |
//! | [`DeadLetters`] | keeps what could not be run | likewise |
//! | [`ledger::Ledger`] | keeps what beats know | beat |
//!
//! The contract, which `tests/contract/broker` checks for every broker:
//!
//! * What [`Producer::publish`] answered `Ok` for survives any crash.
//! * A delivery belongs to its worker until it is settled, or until that worker *and*
//!   everything it started are dead; then it is redelivered. Without [`Abilities::leases`] it may be
//!   redelivered while the worker lives, if the broker has lost contact to it.
//! * With [`Abilities::counts`] a delivery says how often it was lost. Without, a message that
//!   kills its worker is redelivered up to the broker's own limit.
//! * With [`Abilities::atomic`] an [`Item`] is done entirely or not at all. Without, its messages
//!   are sent before its delivery is settled, so a crash repeats work and loses none.
//! * With [`Abilities::native_eta`] messages that are not due are not delivered, however many
//!   there are. Without, a worker holds them until they are due.
//! * With [`Abilities::finds`] [`Admin::find`] knows of every message. Without, it answers
//!   [`Whereabouts::Untold`], and only the result store tells what became of a task.
//! * Within a queue higher priorities come first (as [`PriorityRule`] writes them), then older
//!   messages. No queue starves another.

mod abilities;
mod about;
mod delivery;
pub mod ledger;
mod loss;
#[cfg(feature = "redis")]
mod membership;
#[cfg(feature = "redis")]
pub mod redis;
pub mod sqlite;

use crate::link::Connection;
pub use crate::link::error::Error;
use crate::link::sqlite::{Access, Db, Schema};
use crate::link::url::BrokerUrl;
#[cfg(not(feature = "redis"))]
use crate::link::url::NO_REDIS;
#[cfg(feature = "redis")]
use crate::link::url::Server;
use crate::role::role;
pub use abilities::{Abilities, PriorityRule, ServerChecks};
pub use about::{DeadLetter, QueueInfo, SeenMessage, Whereabouts, WorkerInfo};
pub use delivery::{
    Death, Delivery, Disposition, Item, Posting, Settle, Sorting, Tag, TaskNames, Want,
};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// An opened broker: gives its roles. A server is connected to when it is first asked.
#[derive(Clone)]
pub enum Broker {
    /// One file.
    Sqlite(sqlite::Broker),
    /// A Redis server.
    #[cfg(feature = "redis")]
    Redis(redis::Broker),
}

/// How a broker is opened.
#[derive(Clone, Copy)]
pub struct BrokerOptions<'a> {
    /// In front of every key, on a server that has keys.
    pub prefix: &'a str,
    /// How long an answer of a server is waited for.
    pub patience: Duration,
    /// What a file is opened for.
    pub access: Access,
    /// Tables that others have in the same file.
    pub beside: &'static [&'static Schema],
}

/// A worker, as its broker knows it.
pub struct WorkerIdentity<'a> {
    /// Node name.
    pub hostname: &'a str,
    /// Queues that it takes from.
    pub queues: &'a [String],
    /// How long Python workers may hold a message before it is redelivered, as kombu does.
    pub visibility_timeout: Duration,
    /// Has the guard hold the worker's lease too.
    pub hold: HoldLease,
}

/// See [`WorkerIdentity::hold`]; takes the lease's path.
pub type HoldLease = Box<dyn Fn(&Path) -> std::io::Result<()>>;

/// Matches a role of each broker.
macro_rules! each {
    ($self:ident, $role:ident, $store:ident => $call:expr) => {
        match $self {
            $role::Sqlite($store) => $call,
            #[cfg(feature = "redis")]
            $role::Redis($store) => $call,
        }
    };
}

/// Gives a role of an opened broker.
macro_rules! give {
    ($self:ident, $role:ident) => {
        match $self {
            Broker::Sqlite(broker) => $role::Sqlite(broker.clone()),
            #[cfg(feature = "redis")]
            Broker::Redis(broker) => $role::Redis(broker.clone()),
        }
    };
}

impl Broker {
    /// Opens the broker at this address.
    ///
    /// # Errors
    /// The file cannot be opened, or a certificate cannot be read.
    pub fn open(url: &BrokerUrl, options: BrokerOptions<'_>) -> Result<Broker, Error> {
        Ok(match url {
            BrokerUrl::Sqlite(path) => {
                let all = std::iter::once(&sqlite::SCHEMA).chain(options.beside.iter().copied());
                let db = Db::open_with(path, options.access, all.collect())?;
                Broker::Sqlite(sqlite::Broker::new(&db))
            }
            #[cfg(not(feature = "redis"))]
            BrokerUrl::Redis(_) => return Err(Error::misuse(NO_REDIS)),
            #[cfg(feature = "redis")]
            BrokerUrl::Redis(server) => {
                Broker::Redis(redis::Broker::open(server, options.prefix, options.patience)?)
            }
        })
    }

    /// What it can do.
    pub fn abilities(&self) -> &'static Abilities {
        match self {
            Broker::Sqlite(_) => &sqlite::ABILITIES,
            #[cfg(feature = "redis")]
            Broker::Redis(_) => &redis::ABILITIES,
        }
    }

    /// The connection to it.
    pub fn connection(&self) -> Connection<'_> {
        match self {
            Broker::Sqlite(broker) => Connection::Sqlite(broker.db()),
            #[cfg(feature = "redis")]
            Broker::Redis(broker) => Connection::Redis(broker.link()),
        }
    }

    /// The role that accepts messages.
    pub fn producer(&self) -> Producer {
        give!(self, Producer)
    }

    /// The role that looks, and removes what waits.
    pub fn admin(&self) -> Admin {
        give!(self, Admin)
    }

    /// The role that keeps what could not be run.
    pub fn dead_letters(&self) -> DeadLetters {
        give!(self, DeadLetters)
    }

    /// The ledger of the beats of this group, in the broker's own store.
    pub fn ledger(&self, group: &str) -> ledger::Ledger {
        ledger::Ledger::of(self, group)
    }

    /// Registers a worker, which holds a lease until the consumer is closed or the process ends.
    /// Must be called inside a `LocalSet`.
    ///
    /// # Errors
    /// The broker cannot be reached or written, or the guard cannot hold the lease.
    pub async fn consume(&self, who: WorkerIdentity<'_>) -> Result<(Consumer, Settler), Error> {
        Ok(match self {
            Broker::Sqlite(broker) => {
                let consumer = sqlite::Consumer::open(broker, who).await?;
                let settler = Settler::Sqlite(consumer.settler());
                (Consumer::Sqlite(consumer), settler)
            }
            #[cfg(feature = "redis")]
            Broker::Redis(broker) => {
                let consumer = redis::Consumer::open(broker, who).await?;
                let settler = Settler::Redis(consumer.settler());
                (Consumer::Redis(consumer), settler)
            }
        })
    }
}

/// Where results are, as far as a broker may look at them and write them within its own steps.
#[derive(Clone)]
pub enum Results {
    /// In this file.
    Sqlite {
        /// The file.
        db: Db,
        /// Finds revoked tasks within a transaction.
        revoked: sqlite::LookUp,
        /// Stores a record within a transaction.
        put: sqlite::Put,
        /// Called after the transaction: wakes those who wait for results.
        stored: Arc<dyn Fn() + Send + Sync>,
    },
    /// On this server.
    #[cfg(feature = "redis")]
    Redis {
        /// The server.
        server: Server,
        /// The key of a result is its task's id after this.
        stem: String,
        /// What is stored of a record.
        entry: Arc<dyn Fn(&crate::wire::Record) -> redis::Document + Send + Sync>,
    },
    /// Nowhere that a broker could be.
    Elsewhere,
}

/// How long ago a broker last answered, and what went wrong since.
pub type Contact = Box<dyn Fn() -> (Duration, Option<String>)>;

/// Hands out messages.
pub enum Consumer {
    /// One file.
    Sqlite(sqlite::Consumer),
    /// A Redis server.
    #[cfg(feature = "redis")]
    Redis(redis::Consumer),
}

/// See the methods of [`Consumer`].
trait Consume {
    async fn take(&mut self, want: Want) -> Result<Vec<Delivery>, Error>;
    async fn wait(&mut self);
    async fn close(self) -> Result<(), Error>;
    fn sort(&mut self, names: Sorting);
    fn see_results(&mut self, results: &Results);

    fn is_dry(&self) -> bool {
        false
    }

    fn losses(&mut self) -> Option<mpsc::UnboundedReceiver<Vec<Tag>>> {
        None
    }

    fn contact(&self) -> Contact {
        Box::new(|| (Duration::ZERO, None))
    }
}

impl Consumer {
    /// Takes what is there and `want` allows, at once; often nothing.
    pub async fn take(&mut self, want: Want) -> Result<Vec<Delivery>, Error> {
        each!(self, Consumer, consumer => consumer.take(want).await)
    }

    /// Waits until another [`Consumer::take`] may find something. May be dropped at any time.
    pub async fn wait(&mut self) {
        each!(self, Consumer, consumer => consumer.wait().await)
    }

    /// Gives up the lease: nothing is held any more.
    pub async fn close(self) -> Result<(), Error> {
        each!(self, Consumer, consumer => consumer.close().await)
    }

    /// Sorts messages by these names from now on, and by no others.
    pub fn sort(&mut self, names: Sorting) {
        each!(self, Consumer, consumer => consumer.sort(names))
    }

    /// Has each take look at the results of its tasks in the same step, if they are where the
    /// messages are; see [`Delivery::revoked`].
    pub fn see_results(&mut self, results: &Results) {
        each!(self, Consumer, consumer => consumer.see_results(results))
    }

    /// Is another [`Consumer::take`] sure to find nothing, as far as is known here? Then there is
    /// no need to ask: [`Consumer::wait`].
    pub fn is_dry(&self) -> bool {
        each!(self, Consumer, consumer => consumer.is_dry())
    }

    /// Tells which deliveries are not held any more, though nobody here has settled them; `None`
    /// where that cannot be, and when it was asked before.
    pub fn losses(&mut self) -> Option<mpsc::UnboundedReceiver<Vec<Tag>>> {
        each!(self, Consumer, consumer => consumer.losses())
    }

    /// Tells for as long as the consumer lives when the broker last answered it. A file always
    /// answers.
    pub fn contact(&self) -> Contact {
        each!(self, Consumer, consumer => consumer.contact())
    }
}

role! {
    /// Says what becomes of deliveries, of one worker.
    Settler as Settles { Sqlite(sqlite::Settler), #[cfg(feature = "redis")] Redis(redis::Settler) }

    /// Stores results, sends messages and settles deliveries, all items in one step. Records are
    /// stored only after [`Settler::keep_results`] has said so. May be asked again if the answer
    /// was lost: what was done then is [`Disposition::Lost`].
    async fn commit(&self, items: Arc<Vec<Item>>) -> Result<Vec<Disposition>, Error>;

    /// Which of these are about a delivery that is not held any more?
    async fn lost(&self, items: Arc<Vec<Item>>) -> Result<Vec<bool>, Error>;

    /// Does the broker do what [`Settler::commit`] needs, whatever it is asked?
    async fn answers(&self) -> Result<(), Error> = Ok(());

    /// Does the broker still know this worker? One that it has taken for dead holds nothing.
    async fn is_member(&self) -> Result<bool, Error> = Ok(true);

    /// Requeues at once, counted, what this worker holds, where other workers could not detect its
    /// death quickly. None of its tasks may live any more.
    async fn surrender(&self) -> Result<(), Error> = Ok(());
}

impl Settler {
    /// Has [`Settler::commit`] store records in the same step, if results are where the messages
    /// are; says whether they are.
    pub fn keep_results(&mut self, results: &Results) -> bool {
        match (self, results) {
            (Settler::Sqlite(settler), Results::Sqlite { db, put, stored, .. }) => {
                settler.keep_results(db, put.clone(), stored.clone())
            }
            #[cfg(feature = "redis")]
            (Settler::Redis(settler), Results::Redis { server, entry, .. }) => {
                settler.keep_results(server, entry.clone())
            }
            _ => false,
        }
    }

    /// The connection that it settles on.
    pub fn connection(&self) -> Connection<'_> {
        match self {
            Settler::Sqlite(settler) => Connection::Sqlite(settler.db()),
            #[cfg(feature = "redis")]
            Settler::Redis(settler) => Connection::Redis(settler.link()),
        }
    }
}

role! {
    /// Accepts messages.
    Producer as Produce { Sqlite(sqlite::Broker), #[cfg(feature = "redis")] Redis(redis::Broker) }

    /// Accepts these messages, all or none, durably.
    async fn publish(&self, postings: Vec<Posting>) -> Result<(), Error>;

    /// Accepts these messages, all or none, durably; once, however often it is asked within an
    /// hour under the same token, for an answer may be lost.
    ///
    /// # Errors
    /// Nothing was accepted, or all was and the answer was lost.
    async fn publish_once(&self, token: String, postings: Vec<Posting>) -> Result<(), Error>;

    /// The queues that are bound to a named exchange for messages of this routing key.
    async fn route(&self, exchange: String, routing_key: String) -> Result<Vec<String>, Error>;
}

impl Producer {
    /// What its broker can do.
    pub fn abilities(&self) -> &'static Abilities {
        match self {
            Producer::Sqlite(_) => &sqlite::ABILITIES,
            #[cfg(feature = "redis")]
            Producer::Redis(_) => &redis::ABILITIES,
        }
    }
}

role! {
    /// Counts, finds and removes what waits, and names the workers.
    Admin as Administer { Sqlite(sqlite::Broker), #[cfg(feature = "redis")] Redis(redis::Broker) }

    /// Removes what waits in these queues, due or not; says how much it was. What
    /// workers hold stays.
    async fn purge(&self, queues: Vec<String>) -> Result<u64, Error>;

    /// Every queue that was ever used.
    async fn queues(&self) -> Result<Vec<QueueInfo>, Error>;

    /// The names of the queues that programs of ours use, without counting what is in them.
    async fn names(&self) -> Result<Vec<String>, Error>;

    /// Every worker alive.
    async fn nodes(&self) -> Result<Vec<WorkerInfo>, Error>;

    /// Names of Python workers that have announced themselves here, for whatever queues.
    async fn python_nodes(&self) -> Result<Vec<String>, Error> = Ok(Vec::new());

    /// Where the task of this id is.
    async fn find(&self, task_id: String) -> Result<Whereabouts, Error> = Ok(Whereabouts::Untold);

    /// Messages that wait or are held, up to about so many bytes of them; whether there are more.
    async fn messages(&self, bytes: usize) -> Result<(Vec<SeenMessage>, bool), Error>
        = Ok((Vec::new(), true));

    /// What there is to know for a worker of these queues, with these results.
    ///
    /// # Errors
    /// The broker cannot be reached, or refuses what everything else needs.
    async fn check_server(&self, queues: &[String], results: &Results) -> Result<ServerChecks, Error>
        = Ok(ServerChecks::default());
}

role! {
    /// Keeps what could not be run.
    DeadLetters as KeepDead { Sqlite(sqlite::Broker), #[cfg(feature = "redis")] Redis(redis::Broker) }

    /// All of them, oldest first.
    async fn list(&self) -> Result<Vec<DeadLetter>, Error>;

    /// Sends these dead letters to their queues again, their count back at zero; `None`
    /// is all of them. Says how many there were.
    async fn requeue(&self, numbers: Option<Vec<i64>>) -> Result<u64, Error>;

    /// Removes these dead letters; `None` is all of them. Says how many there were.
    async fn purge(&self, numbers: Option<Vec<i64>>) -> Result<u64, Error>;
}
