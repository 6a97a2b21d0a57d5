//! Counts, finds and removes waiting messages, and lists the workers.

use super::instance::{is_instance, lease_says};
use super::layout::{SEPARATOR, STEPS};
use super::server_checks;
use super::{Broker, naming};
use crate::broker::{
    Administer, QueueInfo, Results, SeenMessage, ServerChecks, Whereabouts, WorkerInfo,
};
use crate::link::error::{Error, StoreErrorKind};
use redis::Script;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;
use std::time::Duration;

/// Elements looked through in one step: the server does nothing else meanwhile.
const SLICE: usize = 1000;

/// A worker whose last sign is older than this is not alive.
const SIGN_MAX: Duration = Duration::from_secs(12);

static SEEK: LazyLock<Script> = LazyLock::new(|| super::script(include_str!("seek.lua")));

/// Counts the messages of a queue, and removes them if that is asked for; never what is
/// something else.
static COUNT: LazyLock<Script> = LazyLock::new(|| {
    super::script(
        "-- KEYS: lists, and at last a sorted set; ARGV: 1 to remove them
         local counts, odd = {}, {}
         for n = 1, #KEYS do
           local wanted, command = 'list', 'LLEN'
           if n == #KEYS then wanted, command = 'zset', 'ZCARD' end
           local why = misfit(KEYS[n], wanted)
           if why then odd[#odd + 1] = why end
           counts[n] = why and 0 or redis.call(command, KEYS[n])
           if ARGV[1] == '1' and not why then redis.call('DEL', KEYS[n]) end
         end
         return { counts, table.concat(odd, '; ') }",
    )
});

/// A slice of all keys: those that begin so.
static SCAN: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "-- ARGV: cursor, how many, beginnings. Gives: the next cursor, and keys
         local slice, found = redis.call('SCAN', ARGV[1], 'COUNT', ARGV[2]), {}
         for _, key in ipairs(slice[2]) do
           for n = 3, #ARGV do
             if string.sub(key, 1, #ARGV[n]) == ARGV[n] then found[#found + 1] = key end
           end
         end
         return { slice[1], found }",
    )
});

/// What stands before an id in the headers, as Python and as we write it.
const IN_HEADERS: [&str; 2] = ["\"id\": ", "\"id\":"];

/// What others may have put there.
type Bytes = Vec<u8>;

/// A worker and the time of its last sign of life.
type Sign = (Bytes, f64);

/// A text that is looked for behind one of some others.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    text: &'a str,
    before: &'a [&'a str],
}

impl Administer for Broker {
    async fn purge(&self, queues: Vec<String>) -> Result<u64, Error> {
        let mut purged = 0;
        let mut odd = Vec::new();
        for queue in queues {
            let (counts, wrong) = self.count(&queue, true).await?;
            purged += counts.iter().sum::<u64>();
            odd.extend(wrong);
        }
        match &odd[..] {
            [] => Ok(purged),
            odd => {
                let why = odd.join("; ");
                let why = format!("{}: {purged} were removed, but {why}", self.link.server());
                Err(Error::of(StoreErrorKind::Refused, why))
            }
        }
    }

    async fn queues(&self) -> Result<Vec<QueueInfo>, Error> {
        let mut held = self.held().await?;
        let mut names: BTreeSet<String> = self.all_names().await?;
        names.extend(held.keys().cloned());
        let mut queues = Vec::new();
        for name in names {
            let (counts, odd) = self.count(&name, false).await?;
            let (scheduled, ready) =
                counts.split_last().map_or((0, 0), |(last, rest)| (*last, rest.iter().sum()));
            let number = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
            let (ready, scheduled) = (number(ready), number(scheduled));
            let held = held.remove(&name).unwrap_or(0);
            queues.push(QueueInfo { name, ready, scheduled, held, odd });
        }
        Ok(queues)
    }

    async fn names(&self) -> Result<Vec<String>, Error> {
        let found: Vec<Vec<u8>> = match self
            .ask(redis::cmd("SMEMBERS").arg(self.layout.queues()))
            .await
        {
            // Without them there is the walk over all keys.
            Err(error)
                if matches!(error.kind(), StoreErrorKind::Refused | StoreErrorKind::Forbidden) =>
            {
                Vec::new()
            }
            found => found?,
        };
        let mut names: Vec<String> =
            found.into_iter().filter_map(|name| String::from_utf8(name).ok()).collect();
        names.sort();
        Ok(names)
    }

    async fn nodes(&self) -> Result<Vec<WorkerInfo>, Error> {
        let mut ask = redis::pipe();
        ask.cmd("TIME").cmd("ZRANGE").arg(self.layout.workers()).arg(0).arg(-1).arg("WITHSCORES");
        let asked = self.link.run(async |c| ask.query_async(c).await).await;
        let ((now, _), signs): ((f64, u64), Vec<Sign>) =
            asked.map_err(|error| naming(&error, &self.layout.workers()))?;
        let mut nodes = Vec::new();
        for (instance, sign) in signs {
            // Somebody else may have put something there.
            let instance = String::from_utf8(instance).ok().filter(|name| is_instance(name));
            let Some(instance) = instance else { continue };
            let alive = lease_says(&instance).unwrap_or(now - sign < SIGN_MAX.as_secs_f64());
            let mut about = redis::cmd("HMGET");
            about.arg(self.layout.worker(&instance)).arg("node").arg("pid");
            let about: (Option<String>, Option<String>) = match self.ask(&about).await {
                Err(error) if error.kind() == StoreErrorKind::Refused => continue,
                about => about?,
            };
            let pid = about.1.and_then(|pid| pid.parse().ok());
            if let (true, Some(hostname), Some(pid)) = (alive, about.0, pid) {
                nodes.push(WorkerInfo { hostname, pid });
            }
        }
        nodes.sort_by(|a, b| a.hostname.cmp(&b.hostname));
        Ok(nodes)
    }

    async fn python_nodes(&self) -> Result<Vec<String>, Error> {
        let mut ask = redis::cmd("SUNION");
        ask.arg(self.layout.bindings("celery.pidbox"));
        ask.arg(self.layout.lasting_bindings("celery.pidbox"));
        let bindings: Vec<String> = self.ask(&ask).await?;
        let node = |binding: &String| {
            let queue = binding.rsplit(SEPARATOR).next()?;
            queue.strip_suffix(".celery.pidbox").map(str::to_string)
        };
        Ok(bindings.iter().filter_map(node).collect())
    }

    async fn find(&self, task_id: String) -> Result<Whereabouts, Error> {
        let quoted = Value::String(task_id).to_string();
        let wanted = Wanted { text: &quoted, before: &IN_HEADERS };
        if let Some((tag, value)) = self.seek("hash", &self.layout.unacked(), wanted).await? {
            return Ok(Whereabouts::Held { queue: queue_of(&tag, &value) });
        }
        let ours: BTreeSet<String> = self.names().await?.into_iter().collect();
        if let Some(found) = self.find_in(&ours, wanted).await? {
            return Ok(found);
        }
        // What was moved from one to the next while we looked.
        if let Some(found) = self.find_taken(&quoted, wanted).await? {
            return Ok(found);
        }
        // Queues that no worker of ours has taken from are known by a walk over all keys alone.
        let others = self.all_names().await?.difference(&ours).cloned().collect();
        if let Some(found) = self.find_in(&others, wanted).await? {
            return Ok(found);
        }
        Ok(self.find_taken(&quoted, wanted).await?.unwrap_or(Whereabouts::Absent))
    }

    async fn messages(&self, bytes: usize) -> Result<(Vec<SeenMessage>, bool), Error> {
        super::messages::all(self, bytes).await
    }

    async fn check_server(
        &self,
        queues: &[String],
        results: &Results,
    ) -> Result<ServerChecks, Error> {
        let result = match results {
            Results::Redis { server, stem, .. } if server == self.link.server() => {
                Some(format!("{stem}ID"))
            }
            _ => None,
        };
        server_checks::check_server(self, queues, result.as_deref()).await
    }
}

impl Broker {
    /// Finds a task that somebody has taken from its queue: held, or dead.
    async fn find_taken(
        &self,
        quoted: &str,
        wanted: Wanted<'_>,
    ) -> Result<Option<Whereabouts>, Error> {
        if let Some((tag, value)) = self.seek("hash", &self.layout.unacked(), wanted).await? {
            return Ok(Some(Whereabouts::Held { queue: queue_of(&tag, &value) }));
        }
        let noted = Wanted { text: quoted, before: &["\"task_id\":"] };
        let dead = self.seek("hash", &self.layout.dead(), noted).await?;
        Ok(dead.and_then(|(number, _)| number.parse().ok()).map(Whereabouts::Dead))
    }

    /// Messages in each list and in the set of a queue, which are removed if `purge` is set; and
    /// what is wrong with its keys.
    async fn count(&self, queue: &str, purge: bool) -> Result<(Vec<u64>, Option<String>), Error> {
        let mut call = COUNT.prepare_invoke();
        for step in STEPS {
            call.key(self.layout.list(queue, step));
        }
        call.key(self.layout.scheduled(queue)).arg(u8::from(purge));
        let (counts, odd): (Vec<u64>, String) =
            self.link.run(async |c| call.invoke_async(c).await).await?;
        Ok((counts, Some(odd).filter(|odd| !odd.is_empty())))
    }

    /// Queues that some program has declared, or that hold scheduled messages of ours: a walk over
    /// all keys of the server.
    async fn all_names(&self) -> Result<BTreeSet<String>, Error> {
        let mut names = BTreeSet::new();
        let (scheduled, bindings) = (self.layout.scheduled(""), self.layout.bindings(""));
        for key in self.scan(&[&scheduled, &bindings]).await? {
            if let Some(queue) = key.strip_prefix(&scheduled) {
                names.insert(queue.to_string());
                continue;
            }
            // Replies and events of remote control are no tasks.
            let exchange = key.strip_prefix(&bindings).unwrap_or_default();
            if exchange.contains("pidbox") || exchange.starts_with("celeryev") {
                continue;
            }
            let members: Vec<Vec<u8>> = match self.ask(redis::cmd("SMEMBERS").arg(&key)).await {
                // What is no set binds nothing.
                Err(error) if error.kind() == StoreErrorKind::Refused => continue,
                members => members?,
            };
            let members = members.iter().filter_map(|one| std::str::from_utf8(one).ok());
            names
                .extend(members.filter_map(|one| one.rsplit(SEPARATOR).next()).map(str::to_string));
        }
        Ok(names)
    }

    /// The keys that begin so, in one pass over all that there are.
    async fn scan(&self, beginnings: &[&str]) -> Result<BTreeSet<String>, Error> {
        let mut keys = BTreeSet::new();
        let mut cursor = String::from("0");
        loop {
            let mut call = SCAN.prepare_invoke();
            call.arg(&cursor).arg(SLICE).arg(beginnings);
            let (next, found): (String, Vec<Vec<u8>>) =
                self.link.run(async |c| call.invoke_async(c).await).await?;
            // What is no text is no key of ours or of Python's.
            keys.extend(found.into_iter().filter_map(|key| String::from_utf8(key).ok()));
            cursor = next;
            if cursor == "0" {
                return Ok(keys);
            }
        }
    }

    /// How many messages of each queue workers hold, Python's too.
    async fn held(&self) -> Result<BTreeMap<String, u32>, Error> {
        let mut held = BTreeMap::new();
        let mut cursor = 0_u64;
        loop {
            let mut scan = redis::cmd("HSCAN");
            scan.arg(self.layout.unacked()).arg(cursor).arg("COUNT").arg(SLICE);
            let (next, found): (u64, Vec<(Bytes, Bytes)>) = match self.ask(&scan).await {
                Err(error) => return Err(naming(&error, &self.layout.unacked())),
                found => found?,
            };
            for (tag, value) in found {
                let tag = String::from_utf8_lossy(&tag);
                *held.entry(queue_of(&tag, &String::from_utf8_lossy(&value))).or_insert(0) += 1;
            }
            cursor = next;
            if cursor == 0 {
                return Ok(held);
            }
        }
    }

    async fn find_in(
        &self,
        queues: &BTreeSet<String>,
        wanted: Wanted<'_>,
    ) -> Result<Option<Whereabouts>, Error> {
        for queue in queues {
            let waiting = |eta| Some(Whereabouts::Waiting { queue: queue.clone(), eta });
            for step in STEPS {
                if self.seek("list", &self.layout.list(queue, step), wanted).await?.is_some() {
                    return Ok(waiting(None));
                }
            }
            let scheduled = self.seek("zset", &self.layout.scheduled(queue), wanted).await?;
            if let Some((_, score)) = scheduled {
                return Ok(waiting(score.parse::<f64>().ok().map(|eta| eta.to_string())));
            }
        }
        Ok(None)
    }

    async fn seek(
        &self,
        kind: &str,
        key: &str,
        wanted: Wanted<'_>,
    ) -> Result<Option<(String, String)>, Error> {
        let mut from = 0_u64;
        loop {
            let mut call = SEEK.prepare_invoke();
            call.key(key).arg(kind).arg(from).arg(SLICE).arg(wanted.text).arg(wanted.before);
            let answer: Vec<redis::Value> =
                self.link.run(async |c| call.invoke_async(c).await).await?;
            let mut words = answer.into_iter().map(|value| match value {
                redis::Value::BulkString(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
                redis::Value::Int(number) => number.to_string(),
                _ => String::new(),
            });
            let next = words.next().and_then(|next| next.parse().ok()).unwrap_or(0);
            if let (Some(name), Some(value)) = (words.next(), words.next()) {
                return Ok(Some((name, value)));
            }
            if next == 0 {
                return Ok(None);
            }
            from = next;
        }
    }
}

/// The queue of a held message: part of a tag of ours, the routing key of Python's value
/// `[envelope, exchange, routing key]`.
pub(super) fn queue_of(tag: &str, value: &str) -> String {
    if let Some(queue) = tag.splitn(4, ':').nth(3) {
        return queue.into();
    }
    let key = value.trim_end_matches("\"]").rsplit('"').next();
    key.unwrap_or_default().into()
}
