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
//! | `qworker.queues` | set | queues that workers of ours have taken from |
//! | `qworker.workers` | sorted set | our workers by their last sign of life |
//! | `qworker.worker.INSTANCE` | hash | one of them, and which of its suspects have started |
//! | `qworker.scheduled.QUEUE` | sorted set | messages that are for later, `STEP:NAME:ELEMENT` by due time |
//! | `qworker.dead` | hash | number to note, deliveries, step, queue and message, a line each |
//! | `qworker.once.TOKEN` | string | messages that a worker has sent; gone after an hour |
//! | `qworker.beat.GROUP` | hash | what the beats of a group know of their entries, by name |
//!
//! A tag of ours is `INSTANCE:NUMBER:STEP:QUEUE`, so it tells whose it is and where its message
//! came from. Whatever changes more than one key is a script, hence one step.

mod admin;
mod call;
mod consumer;
mod dead_letters;
mod instance;
mod layout;
mod ledger;
mod member;
mod messages;
mod producer;
mod reclaim;
mod restore;
mod server_checks;
mod settler;
mod unacked;
mod watch;

pub use call::Document;
pub use consumer::Consumer;
pub use ledger::Ledger;
pub use settler::Settler;

use super::{Abilities, PriorityRule};
use crate::link::error::{Error, StoreErrorKind};
use crate::link::redis::Link;
use crate::link::url::Server;
use layout::Layout;
use redis::{FromRedisValue, Script};
use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What this broker can do.
pub const ABILITIES: Abilities = Abilities {
    atomic: true,
    leases: true,
    counts: true,
    finds: true,
    native_eta: true,
    priorities: PriorityRule::LowFirst,
};

/// A script of this folder, with what all of them share before it.
fn script(own: &str) -> Script {
    Script::new(&format!("{}{own}", include_str!("common.lua")))
}

/// A connection to the server, and the names of its keys.
#[derive(Clone)]
pub struct Broker {
    link: Link,
    layout: Arc<Layout>,
    /// Queues that need not be declared again.
    declared: Arc<Mutex<HashSet<String>>>,
}

impl Broker {
    /// The broker on this server; an answer is waited for up to `patience`. Connects when it is
    /// used.
    ///
    /// # Errors
    /// A certificate cannot be read.
    pub fn open(server: &Server, prefix: &str, patience: Duration) -> Result<Broker, Error> {
        let link = Link::new(server, patience, Vec::new())?;
        let layout = Arc::new(Layout { prefix: prefix.into() });
        Ok(Broker { link, layout, declared: Arc::default() })
    }

    /// The connection.
    pub fn link(&self) -> &Link {
        &self.link
    }

    async fn ask<T: FromRedisValue>(&self, command: &redis::Cmd) -> Result<T, Error> {
        self.link.run(async |c| command.query_async(c).await).await
    }
}

/// The same with the key that it is about, which the server does not name.
fn naming(error: &Error, key: &str) -> Error {
    match error.kind() {
        StoreErrorKind::Refused | StoreErrorKind::Forbidden => {
            Error::of(error.kind(), format!("{error} (key {key})"))
        }
        kind => Error::of(kind, error.to_string()),
    }
}
