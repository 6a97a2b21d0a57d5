//! Chords on a Redis server: Celery's own counters, so that members and bodies may be Python's and
//! ours in any mixture.
//!
//! Source: celery 5.7 `backends/redis.py` (`on_chord_part_return`, `set_chord_size`). Keys of a
//! chord are `celery-taskset-meta-GROUP` and `.j` (parts by their place), `.t` (members that were
//! added), `.s` (size), `.d` (who was counted), `.c` (who calls the body; `done` once it was called).

use super::{Counted, returned};
use crate::backend::Error;
use crate::backend::redis::Store;
use crate::canvas::{ChordMember, ChordStart, ResultTree, Returned};
use crate::clock;
use crate::wire::{Exception, Malformed, Shape, body, value};
use redis::Script;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::LazyLock;

/// Seconds for which a worker alone may call a body; longer than that takes, and than Python's.
const CLAIM: u64 = 10;

/// Seconds for which a late copy of a member finds that the body was called.
const DONE: u64 = 300;

static COUNT: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r#"-- KEYS, of each member: parts, added, size, counted, claim, results
        -- ARGV: seconds to live or nothing, seconds of a claim; of each member: member, place, part, token
        -- Gives of each member: `more`, `last` or `claimed`
        local renewed = {}
        local function count(keys, member, place, part, token)
          if redis.call('GET', keys[5]) == 'done' then return 'more' end
          if redis.call('SADD', keys[4], member) == 1 then redis.call('ZADD', keys[1], place, part) end
          if ARGV[1] ~= '' and not renewed[keys[1]] then
            for _, n in ipairs({ 1, 2, 3, 4, 6 }) do redis.call('EXPIRE', keys[n], ARGV[1]) end
            renewed[keys[1]] = true
          end
          local size = redis.call('GET', keys[3])
          if not size then return 'more' end
          local total = tonumber(size) + tonumber(redis.call('GET', keys[2]) or 0)
          if redis.call('ZCARD', keys[1]) ~= total then return 'more' end
          if redis.call('SET', keys[5], token, 'NX', 'EX', ARGV[2]) then return 'last' end
          -- Asked again, after a lost answer or an error.
          if redis.call('GET', keys[5]) == token then return 'last' end
          return 'claimed'
        end
        local found = {}
        for n = 0, #KEYS / 6 - 1 do
          local keys, at = { unpack(KEYS, 6 * n + 1, 6 * n + 6) }, 4 * n + 3
          found[n + 1] = count(keys, ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3])
        end
        return found"#,
    )
});

static END: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r#"-- KEYS: parts, added, size, counted, claim; ARGV: token, seconds
        if redis.call('GET', KEYS[5]) ~= ARGV[1] then return end
        redis.call('DEL', KEYS[1], KEYS[2], KEYS[3], KEYS[4])
        redis.call('SET', KEYS[5], 'done', 'EX', ARGV[2])"#,
    )
});

impl Store {
    fn group_key(&self, group_id: &str, part: &str) -> String {
        format!("{}celery-taskset-meta-{group_id}{part}", self.prefix())
    }

    fn chord_keys(&self, group_id: &str) -> [String; 5] {
        [".j", ".t", ".s", ".d", ".c"].map(|part| self.group_key(group_id, part))
    }

    /// See [`crate::backend::Store::begin_chords`].
    pub(super) async fn begin_chords(&self, chords: &[ChordStart]) -> Result<(), Error> {
        let mut pipe = redis::pipe();
        let mut set = |key: String, value: Vec<u8>| {
            let set = pipe.cmd("SET").arg(key).arg(value);
            if let Some(expires) = self.expires() {
                set.arg("EX").arg(expires);
            }
            set.ignore();
        };
        for ChordStart { group_id, size, results } in chords {
            if let Some(results) = results {
                let text = format!(r#"{{"result": {results}}}"#);
                set(self.group_key(group_id, ""), self.write(text)?);
            }
            set(self.group_key(group_id, ".s"), size.to_string().into_bytes());
        }
        // What is called again under the same id begins anew.
        for ChordStart { group_id, .. } in chords {
            pipe.cmd("DEL").arg(self.group_key(group_id, ".c")).ignore();
        }
        self.link().run(async |c| pipe.query_async::<()>(c).await).await
    }

    /// See [`crate::backend::Store::count`].
    pub(super) async fn count(
        &self,
        parts: &[(&ChordMember, &str)],
    ) -> Result<Vec<Counted>, Error> {
        let mut call = COUNT.prepare_invoke();
        call.arg(self.expires().map_or(String::new(), |expires| expires.to_string())).arg(CLAIM);
        for (part, token) in parts {
            let place = part.group_index.map_or("+inf".to_string(), |index| index.to_string());
            let (id, state) = (json!(part.task_id), json!(part.state));
            let text = format!("[1, {id}, {state}, {}]", part.result.get());
            for key in self.chord_keys(&part.group_id) {
                call.key(key);
            }
            call.key(self.group_key(&part.group_id, ""));
            call.arg(format!("{}:{place}", part.task_id)).arg(&place);
            call.arg(self.write(text)?).arg(token);
        }
        let said: Vec<String> = self.link().run(async |c| call.invoke_async(c).await).await?;
        let counted = |word: &String| match word.as_str() {
            "last" => Counted::Last,
            "claimed" => Counted::Claimed,
            _ => Counted::More,
        };
        Ok(said.iter().map(counted).collect())
    }

    /// See [`crate::backend::Store::chord_results`].
    pub(super) async fn chord_results(&self, group_id: &str) -> Result<Vec<Returned>, Error> {
        let mut pipe = redis::pipe();
        pipe.cmd("GET").arg(self.group_key(group_id, ""));
        pipe.cmd("ZRANGE").arg(self.group_key(group_id, ".j")).arg(0).arg(-1);
        let (saved, parts): (Option<Vec<u8>>, Vec<Vec<u8>>) =
            self.link().run(async |c| pipe.query_async(c).await).await?;
        let saved = saved.and_then(|bytes| self.saved(&bytes));
        match saved.as_ref().and_then(|saved| saved["result"][1].as_array()) {
            // Their structure is more than a list.
            Some(members) => {
                let known: HashMap<String, Returned> =
                    parts.iter().map(|bytes| self.of_part(bytes)).collect();
                let mut all = Vec::new();
                for member in members {
                    let none = || unread(String::new(), "no result of a member is stored");
                    let node = ResultTree::read(member);
                    all.push(match node {
                        Some(node) => returned(self, &node, &known).await?.unwrap_or_else(none),
                        None => none(),
                    });
                }
                Ok(all)
            }
            None => Ok(parts.iter().map(|bytes| self.of_part(bytes).1).collect()),
        }
    }

    /// See [`crate::backend::Store::end_chord`].
    pub(super) async fn end_chord(&self, group_id: &str, token: &str) -> Result<(), Error> {
        let mut call = END.prepare_invoke();
        for key in self.chord_keys(group_id) {
            call.key(key);
        }
        call.arg(token).arg(DONE);
        self.link().run(async |c| call.invoke_async::<()>(c).await).await
    }

    /// What `[1, id, state, result]` says, by the id.
    fn of_part(&self, bytes: &[u8]) -> (String, Returned) {
        if self.format().reads_json()
            && let Some(part) = part(&String::from_utf8_lossy(bytes))
        {
            return part;
        }
        let read = self.format().read(bytes, Shape::Part, clock::now());
        let why = match read.as_deref().map(part) {
            Ok(Some(part)) => return part,
            Ok(None) => "a part cannot be read",
            Err(Malformed(why)) => why,
        };
        (String::new(), unread(String::new(), why))
    }

    /// The results of a group that was saved.
    pub(in crate::backend) fn saved(&self, bytes: &[u8]) -> Option<Value> {
        let plain = || serde_json::from_slice(bytes).ok();
        self.format().reads_json().then(plain).flatten().or_else(|| {
            let text = self.format().read(bytes, Shape::Document, clock::now()).ok()?;
            serde_json::from_str(&text).ok()
        })
    }
}

fn part(text: &str) -> Option<(String, Returned)> {
    let text = body::finite(text);
    let parts: Vec<&RawValue> = serde_json::from_str(&text).ok()?;
    let [_, id, state, result] = parts[..] else { return None };
    let id = String::from_utf8_lossy(&value::text(id)).into_owned();
    Some(match state.get() {
        "\"SUCCESS\"" => (id, Returned::Value(result.to_owned())),
        _ => (id.clone(), Returned::Failed(id, Exception::read(result))),
    })
}

fn unread(id: String, why: &str) -> Returned {
    Returned::Failed(id, Exception::new("celery.exceptions", "ChordError", why))
}
