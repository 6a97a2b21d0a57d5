//! Checks of a server before a worker relies on it: the user's permissions, persistence and
//! eviction.

use super::Broker;
use super::layout::{Layout, STEPS};
use crate::broker::ServerChecks;
use crate::link::error::{Error, StoreErrorKind};
use redis::Script;
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// Which of these commands the user may not do. A server that cannot tell says nothing.
static MAY: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "-- ARGV: for each command how many words it has, and these. Gives: places of those refused
         local out, at, place = {}, 1, 0
         while redis.acl_check_cmd and at < #ARGV do
           local count = tonumber(ARGV[at])
           place = place + 1
           if not redis.acl_check_cmd(unpack(ARGV, at + 1, at + count)) then out[#out + 1] = place end
           at = at + 1 + count
         end
         return out",
    )
});

/// What there is to know for a worker of these queues; `result` is the key of any result, if
/// results are kept here too.
///
/// # Errors
/// The server cannot be reached, or refuses scripts.
pub(super) async fn check_server(
    broker: &Broker,
    queues: &[String],
    result: Option<&str>,
) -> Result<ServerChecks, Error> {
    let mut asked = needs(&broker.layout, queues);
    asked.extend(result.into_iter().flat_map(of_results));
    let mut call = MAY.prepare_invoke();
    for words in &asked {
        call.arg(words.len()).arg(words);
    }
    let refused: Vec<usize> = broker.link.run(async |c| call.invoke_async(c).await).await?;
    let mut checks = broker.risks().await?;
    let mut keys: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for words in refused.iter().filter_map(|place| asked.get(place.checked_sub(1)?)) {
        match &words[0][..] {
            "PUBLISH" => checks.warnings.push(format!(
                "{}: this user may not PUBLISH on channels as {1}: whoever waits for a result \
                 looks for it now and then; allow it with ACL SETUSER, &{1}*",
                broker.link.server(),
                words[1].trim_end_matches("ID")
            )),
            command => {
                keys.entry(command).or_default().push(words.get(1).map_or("", String::as_str))
            }
        }
    }
    checks.refused = keys
        .iter()
        .map(|(command, keys)| {
            let shown = keys.iter().take(3).map(|key| key.escape_debug().to_string());
            let shown = shown.collect::<Vec<_>>().join(", ");
            let more = if keys.len() > 3 { ", …" } else { "" };
            format!("{command} ({shown}{more})").replace(" ()", "")
        })
        .collect();
    Ok(checks)
}

impl Broker {
    /// How well the server keeps what it has. Of what it does not tell nothing is said.
    async fn risks(&self) -> Result<ServerChecks, Error> {
        let mut checks = ServerChecks::default();
        let server = self.link.server();
        let facts = facts(&self.told(redis::cmd("INFO").arg("memory")).await?);
        let limit = facts.get("maxmemory").map_or("0", String::as_str);
        let limit = if limit == "0" { "none now".to_string() } else { format!("{limit} bytes") };
        let evicts = match facts.get("maxmemory_policy").map_or("noeviction", String::as_str) {
            "noeviction" => None,
            policy if policy.starts_with("allkeys") => {
                Some((policy, "queues, held messages and results"))
            }
            policy => Some((policy, "results")),
        };
        if let Some((policy, what)) = evicts {
            checks.warnings.push(format!(
                "{server}: maxmemory-policy is {policy}: at its limit of memory ({limit}) the server \
                 removes {what}; set maxmemory-policy noeviction"
            ));
        }
        let facts = self::facts(&self.told(redis::cmd("INFO").arg("persistence")).await?);
        let mut ask = redis::cmd("CONFIG");
        let save: Option<BTreeMap<String, String>> = self.maybe(ask.arg("GET").arg("save")).await?;
        // A server that hides its settings may save snapshots.
        let saves = save.is_none_or(|all| all.get("save").is_none_or(|points| !points.is_empty()));
        if facts.get("aof_enabled").is_some_and(|enabled| enabled == "0") && !saves {
            checks.warnings.push(format!(
                "{server}: neither an append-only file nor snapshots are kept: what is queued is \
                 lost when the server ends; set appendonly yes"
            ));
        }
        Ok(checks)
    }

    async fn told(&self, command: &redis::Cmd) -> Result<String, Error> {
        Ok(self.maybe(command).await?.unwrap_or_default())
    }

    /// The answer, unless it is refused.
    async fn maybe<T: redis::FromRedisValue>(
        &self,
        command: &redis::Cmd,
    ) -> Result<Option<T>, Error> {
        match self.link.run(async |c| command.query_async(c).await).await {
            Err(error)
                if matches!(error.kind(), StoreErrorKind::Forbidden | StoreErrorKind::Refused) =>
            {
                Ok(None)
            }
            answer => answer.map(Some),
        }
    }
}

/// `name:value` lines.
fn facts(text: &str) -> BTreeMap<String, String> {
    let pairs = text.lines().filter_map(|line| line.trim_end().split_once(':'));
    pairs.map(|(name, value)| (name.to_string(), value.to_string())).collect()
}

/// What a worker does with keys, each once, as words of a command.
fn needs(layout: &Layout, queues: &[String]) -> Vec<Vec<String>> {
    let mut needs = Vec::new();
    let mut need = |key: String, commands: &[&[&str]]| {
        for command in commands {
            let words = [command[0], &key].into_iter().chain(command[1..].iter().copied());
            needs.push(words.map(str::to_string).collect());
        }
    };
    for queue in queues {
        for step in STEPS {
            let commands: &[&[&str]] = &[
                &["TYPE"],
                &["EXISTS"],
                &["RPOP", "1"],
                &["RPUSH", "x"],
                &["LPUSH", "x"],
                &["LLEN"],
                &["LRANGE", "0", "0"],
            ];
            need(layout.list(queue, step), commands);
        }
        let commands: &[&[&str]] = &[
            &["TYPE"],
            &["EXISTS"],
            &["ZADD", "0", "x"],
            &["ZREM", "x"],
            &["ZRANGE", "0", "0"],
            &["ZRANGEBYSCORE", "0", "0"],
        ];
        need(layout.scheduled(queue), commands);
    }
    need(
        layout.unacked(),
        &[
            &["TYPE"],
            &["HSET", "x", "x"],
            &["HGET", "x"],
            &["HDEL", "x"],
            &["HEXISTS", "x"],
            &["HSCAN", "0"],
        ],
    );
    need(
        layout.unacked_index(),
        &[&["TYPE"], &["ZADD", "0", "x"], &["ZREM", "x"], &["ZRANGEBYSCORE", "0", "0"]],
    );
    need(layout.dead(), &[&["TYPE"], &["HSET", "x", "x"], &["HINCRBY", "x", "1"]]);
    need(
        layout.workers(),
        &[&["ZADD", "0", "x"], &["ZREM", "x"], &["ZSCORE", "x"], &["ZRANGEBYSCORE", "0", "0"]],
    );
    need(
        layout.worker("INSTANCE"),
        &[
            &["HSET", "x", "x"],
            &["HGET", "x"],
            &["HDEL", "x"],
            &["HEXISTS", "x"],
            &["DEL"],
            &["EXPIRE", "1"],
            &["PERSIST"],
        ],
    );
    need(layout.token("TOKEN"), &[&["EXISTS"], &["SET", "1"]]);
    needs
}

/// What is done with a result.
fn of_results(key: &str) -> Vec<Vec<String>> {
    let commands: [&[&str]; 5] = [
        &["TYPE", key],
        &["GETRANGE", key, "0", "0"],
        &["SET", key, "x"],
        &["GET", key],
        &["PUBLISH", key, "x"],
    ];
    commands.iter().map(|words| words.iter().map(|word| word.to_string()).collect()).collect()
}
