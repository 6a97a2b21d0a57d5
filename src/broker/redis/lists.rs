//! What people ask a broker, and what they order.

use super::keeper::lease_says;
use super::{Outlet, SEPARATOR, STEPS, text_of};
use crate::broker::{DeadLetter, Node, QueueInfo, Whereabouts};
use crate::link::error::Error;
use redis::{FromRedisValue, Script};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;
use std::time::Duration;

/// Elements looked through in one step: the server does nothing else meanwhile.
const SLICE: usize = 1000;

/// A worker whose last sign is older than this is not alive.
const SIGN_MAX: Duration = Duration::from_secs(12);

static SEEK: LazyLock<Script> = LazyLock::new(|| super::script(include_str!("seek.lua")));

/// Sends a dead letter to its queue, unless somebody else did.
static REVIVE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "-- KEYS: dead, list; ARGV: number, message
         if redis.call('HDEL', KEYS[1], ARGV[1]) == 0 then return 0 end
         redis.call('LPUSH', KEYS[2], ARGV[2])
         return 1",
    )
});

/// The field of the dead letters that is their last number.
const LAST: &str = "last";

/// A dead letter and the step it goes back to.
struct Kept {
    letter: DeadLetter,
    step: u8,
}

impl Outlet {
    async fn ask<T: FromRedisValue>(&self, command: &redis::Cmd) -> Result<T, Error> {
        self.link.run(async |c| command.query_async(c).await).await
    }

    /// See [`crate::broker::Outlet::purge`].
    pub async fn purge(&self, queues: Vec<String>) -> Result<u64, Error> {
        let mut purged = 0;
        for queue in queues {
            let lists = STEPS.map(|step| self.layout.list(&queue, step));
            let scheduled = self.layout.scheduled(&queue);
            let mut pipe = redis::pipe();
            pipe.atomic();
            for list in &lists {
                pipe.cmd("LLEN").arg(list);
            }
            pipe.cmd("ZCARD").arg(&scheduled).cmd("DEL").arg(&lists).arg(&scheduled).ignore();
            let counts: Vec<u64> = self.link.run(async |c| pipe.query_async(c).await).await?;
            purged += counts.iter().sum::<u64>();
        }
        Ok(purged)
    }

    /// See [`crate::broker::Outlet::queues`].
    pub async fn queues(&self) -> Result<Vec<QueueInfo>, Error> {
        let mut held = self.held().await?;
        let mut names: BTreeSet<String> = self.names().await?;
        names.extend(held.keys().cloned());
        let mut queues = Vec::new();
        for name in names {
            let mut pipe = redis::pipe();
            for step in STEPS {
                pipe.cmd("LLEN").arg(self.layout.list(&name, step));
            }
            pipe.cmd("ZCARD").arg(self.layout.scheduled(&name));
            let counts: Vec<u32> = self.link.run(async |c| pipe.query_async(c).await).await?;
            let (scheduled, ready) =
                counts.split_last().map_or((0, 0), |(last, rest)| (*last, rest.iter().sum()));
            let held = held.remove(&name).unwrap_or(0);
            queues.push(QueueInfo { name, ready, scheduled, held });
        }
        Ok(queues)
    }

    /// Queues that some program has declared, or that hold scheduled messages of ours.
    async fn names(&self) -> Result<BTreeSet<String>, Error> {
        let mut names = BTreeSet::new();
        let scheduled = self.layout.scheduled("");
        for key in self.scan(&format!("{}*", escaped(&scheduled))).await? {
            names.extend(key.strip_prefix(&scheduled).map(str::to_string));
        }
        let bindings = self.layout.bindings("");
        for key in self.scan(&format!("{}*", escaped(&bindings))).await? {
            // Replies and events of remote control are no tasks.
            let exchange = key.strip_prefix(&bindings).unwrap_or_default();
            if exchange.contains("pidbox") || exchange.starts_with("celeryev") {
                continue;
            }
            let members: Vec<String> = self.ask(redis::cmd("SMEMBERS").arg(&key)).await?;
            names.extend(
                members.iter().filter_map(|one| one.rsplit(SEPARATOR).next()).map(str::to_string),
            );
        }
        Ok(names)
    }

    async fn scan(&self, pattern: &str) -> Result<Vec<String>, Error> {
        let mut keys = Vec::new();
        let mut cursor = 0_u64;
        loop {
            let mut scan = redis::cmd("SCAN");
            scan.arg(cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(SLICE);
            let (next, found): (u64, Vec<String>) = self.ask(&scan).await?;
            keys.extend(found);
            cursor = next;
            if cursor == 0 {
                return Ok(keys);
            }
        }
    }

    /// How many messages of each queue are in hands, of whomever.
    async fn held(&self) -> Result<BTreeMap<String, u32>, Error> {
        let mut held = BTreeMap::new();
        let mut cursor = 0_u64;
        loop {
            let mut scan = redis::cmd("HSCAN");
            scan.arg(self.layout.unacked()).arg(cursor).arg("COUNT").arg(SLICE);
            let (next, found): (u64, Vec<(String, Vec<u8>)>) = self.ask(&scan).await?;
            for (tag, value) in found {
                *held.entry(queue_of(&tag, &String::from_utf8_lossy(&value))).or_insert(0) += 1;
            }
            cursor = next;
            if cursor == 0 {
                return Ok(held);
            }
        }
    }

    /// See [`crate::broker::Outlet::nodes`].
    pub async fn nodes(&self) -> Result<Vec<Node>, Error> {
        let mut ask = redis::pipe();
        ask.cmd("TIME").cmd("ZRANGE").arg(self.layout.workers()).arg(0).arg(-1).arg("WITHSCORES");
        let ((now, _), signs): ((f64, u64), Vec<(String, f64)>) =
            self.link.run(async |c| ask.query_async(c).await).await?;
        let mut nodes = Vec::new();
        for (instance, sign) in signs {
            let alive = lease_says(&instance).unwrap_or(now - sign < SIGN_MAX.as_secs_f64());
            let mut about = redis::cmd("HMGET");
            about.arg(self.layout.worker(&instance)).arg("node").arg("pid");
            let about: (Option<String>, Option<u32>) = self.ask(&about).await?;
            if let (true, (Some(hostname), Some(pid))) = (alive, about) {
                nodes.push(Node { hostname, pid });
            }
        }
        nodes.sort_by(|a, b| a.hostname.cmp(&b.hostname));
        Ok(nodes)
    }

    /// Python workers that have announced themselves on this server, for whatever queues.
    ///
    /// # Errors
    /// What the server said.
    pub async fn python_nodes(&self) -> Result<Vec<String>, Error> {
        let mut ask = redis::cmd("SUNION");
        ask.arg(self.layout.bindings("celery.pidbox"));
        ask.arg(self.layout.lasting_bindings("celery.pidbox"));
        let bindings: Vec<String> = self.ask(&ask).await?;
        let node = |binding: &String| {
            let queue = binding.rsplit(super::SEPARATOR).next()?;
            queue.strip_suffix(".celery.pidbox").map(str::to_string)
        };
        Ok(bindings.iter().filter_map(node).collect())
    }

    /// See [`crate::broker::Outlet::find`].
    pub async fn find(&self, task_id: String) -> Result<Whereabouts, Error> {
        // As Python and as we write it in the headers.
        let quoted = Value::String(task_id).to_string();
        for wanted in [format!("\"id\": {quoted}"), format!("\"id\":{quoted}")] {
            let place = self.find_text(&wanted, &quoted).await?;
            if place != Whereabouts::Unknown {
                return Ok(place);
            }
        }
        Ok(Whereabouts::Unknown)
    }

    async fn find_text(&self, wanted: &str, id: &str) -> Result<Whereabouts, Error> {
        if let Some((tag, value)) = self.seek("hash", &self.layout.unacked(), wanted).await? {
            return Ok(Whereabouts::Held { queue: queue_of(&tag, &value) });
        }
        for queue in self.names().await? {
            for step in STEPS {
                if self.seek("list", &self.layout.list(&queue, step), wanted).await?.is_some() {
                    return Ok(Whereabouts::Waiting { queue, eta: None });
                }
            }
            if let Some((_, score)) =
                self.seek("zset", &self.layout.scheduled(&queue), wanted).await?
            {
                let eta = score.parse::<f64>().ok().map(|eta| eta.to_string());
                return Ok(Whereabouts::Waiting { queue, eta });
            }
        }
        // What was moved from one to the next while we looked.
        if let Some((tag, value)) = self.seek("hash", &self.layout.unacked(), wanted).await? {
            return Ok(Whereabouts::Held { queue: queue_of(&tag, &value) });
        }
        let noted = format!("\"task_id\":{id},");
        let dead = self.seek("hash", &self.layout.dead(), &noted).await?;
        Ok(dead
            .and_then(|(number, _)| number.parse().ok())
            .map_or(Whereabouts::Unknown, Whereabouts::Dead))
    }

    async fn seek(
        &self,
        kind: &str,
        key: &str,
        wanted: &str,
    ) -> Result<Option<(String, String)>, Error> {
        let mut from = 0_u64;
        loop {
            let mut call = SEEK.prepare_invoke();
            call.key(key).arg(kind).arg(from).arg(SLICE).arg(wanted);
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

    /// See [`crate::broker::Outlet::route`]. A binding's pattern is a regular expression when
    /// its exchange is a topic, and empty when it is direct; kombu `transport/virtual/exchange.py`.
    pub async fn route(&self, exchange: String, routing_key: String) -> Result<Vec<String>, Error> {
        let members: Vec<String> =
            self.ask(redis::cmd("SMEMBERS").arg(self.layout.bindings(&exchange))).await?;
        let mut queues = BTreeSet::new();
        for member in &members {
            let mut parts = member.split(SEPARATOR);
            let (Some(key), Some(pattern), Some(queue)) =
                (parts.next(), parts.next(), parts.next())
            else {
                continue;
            };
            let fits = match pattern {
                "" => key == routing_key,
                _ => matches_topic(key, &routing_key),
            };
            if fits {
                queues.insert(queue.to_string());
            }
        }
        Ok(queues.into_iter().collect())
    }

    /// See [`crate::broker::Outlet::dead`].
    pub async fn dead(&self) -> Result<Vec<DeadLetter>, Error> {
        Ok(self.kept().await?.into_iter().map(|kept| kept.letter).collect())
    }

    async fn kept(&self) -> Result<Vec<Kept>, Error> {
        let all: Vec<(String, Vec<u8>)> =
            self.ask(redis::cmd("HGETALL").arg(self.layout.dead())).await?;
        let mut kept: Vec<Kept> = all
            .iter()
            .filter(|(number, _)| number != LAST)
            .filter_map(|(number, text)| {
                letter(number.parse().ok()?, &String::from_utf8_lossy(text))
            })
            .collect();
        kept.sort_by_key(|kept| kept.letter.number);
        Ok(kept)
    }

    /// See [`crate::broker::Outlet::requeue_dead`].
    pub async fn requeue_dead(&self, numbers: Option<Vec<i64>>) -> Result<u64, Error> {
        let mut requeued = 0;
        for kept in self.kept().await? {
            let letter = kept.letter;
            if numbers.as_ref().is_some_and(|numbers| !numbers.contains(&letter.number)) {
                continue;
            }
            let mut call = REVIVE.prepare_invoke();
            call.key(self.layout.dead()).key(self.layout.list(&letter.queue, kept.step));
            call.arg(letter.number).arg(letter.payload);
            requeued += self.link.run(async |c| call.invoke_async::<u64>(c).await).await?;
        }
        Ok(requeued)
    }

    /// See [`crate::broker::Outlet::purge_dead`].
    pub async fn purge_dead(&self, numbers: Option<Vec<i64>>) -> Result<u64, Error> {
        let numbers = match numbers {
            Some(numbers) => numbers,
            None => {
                let names: Vec<String> =
                    self.ask(redis::cmd("HKEYS").arg(self.layout.dead())).await?;
                names.iter().filter_map(|name| name.parse().ok()).collect()
            }
        };
        if numbers.is_empty() {
            return Ok(0);
        }
        self.ask(redis::cmd("HDEL").arg(self.layout.dead()).arg(numbers)).await
    }
}

/// As `bury` of `redis/settle.lua` writes it.
fn letter(number: i64, text: &str) -> Option<Kept> {
    let mut parts = text.splitn(5, '\n');
    let note: Value = serde_json::from_str(parts.next()?).ok()?;
    let (deliveries, step, queue) = (parts.next()?, parts.next()?, parts.next()?);
    let payload = parts.next()?.into();
    let counts = note["counts"].as_bool().unwrap_or(true);
    let letter = DeadLetter {
        number,
        died_at: text_of(&note, "died_at"),
        reason: text_of(&note, "reason"),
        detail: text_of(&note, "detail"),
        task_id: text_of(&note, "task_id"),
        task: text_of(&note, "task"),
        queue: queue.into(),
        deliveries: deliveries.parse::<u32>().ok()?.saturating_add(counts.into()),
        payload,
    };
    Some(Kept { letter, step: step.parse().ok()? })
}

/// The queue of a message in hands: part of a tag of ours, the routing key of Python's value
/// `[envelope, exchange, routing key]`.
fn queue_of(tag: &str, value: &str) -> String {
    if let Some(queue) = tag.splitn(4, ':').nth(3) {
        return queue.into();
    }
    let key = value.trim_end_matches("\"]").rsplit('"').next();
    key.unwrap_or_default().into()
}

/// For MATCH.
fn escaped(text: &str) -> String {
    let special = |c| matches!(c, '*' | '?' | '[' | ']' | '\\' | '^');
    text.chars().flat_map(|c| special(c).then_some('\\').into_iter().chain([c])).collect()
}

/// kombu's topics: `*` is one word, and `#` any text, even in the middle of words.
fn matches_topic(pattern: &str, key: &str) -> bool {
    fn from(pattern: &[&str], key: &[&str]) -> bool {
        match pattern {
            [] => key.is_empty(),
            // The dots around it stay: kombu's expression wants them there.
            ["#"] => !key.is_empty(),
            ["#", rest @ ..] => (1..=key.len()).any(|n| from(rest, &key[n..])),
            [word, rest @ ..] => match key {
                [first, others @ ..] => (*word == "*" || word == first) && from(rest, others),
                [] => false,
            },
        }
    }
    let (pattern, key): (Vec<&str>, Vec<&str>) =
        (pattern.split('.').collect(), key.split('.').collect());
    from(&pattern, &key)
}
