//! Results on a Redis server: Celery's own keys and documents.
//!
//! Source: celery 5.7 `backends/redis.py` and `backends/base.py` (`KeyValueStoreBackend`). A
//! result is the string `celery-task-meta-ID`, and is published on the channel of that name.

use super::Keep;
use crate::clock;
use crate::link::error::{Error, StoreErrorKind};
use crate::link::redis::{Link, WORKER_PATIENCE};
use crate::link::url::Server;
use crate::wire::body::{self, Pairs};
use crate::wire::result::Meta;
use crate::wire::{Record, value};
use redis::Script;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

/// Most bytes of documents stored in one step, unless a single one is larger.
const BYTES_MAX: usize = 4 * 1024 * 1024;

/// A message of the channel may be lost with its connection: listeners look again after this
/// long anyway.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// The first bytes of each document, enough for its state.
static STATES: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r#"-- KEYS: results; Gives: the places of those that are REVOKED
        local revoked = {}
        for n = 1, #KEYS do
          if redis.call('TYPE', KEYS[n]).ok == 'string'
            and string.find(redis.call('GETRANGE', KEYS[n], 0, 20), '^{"status": ?"REVOKED"') then
            revoked[#revoked + 1] = n
          end
        end
        return revoked"#,
    )
});

/// Results that are read in one step.
const GET_MAX: usize = 500;

/// How soon a listener looks again that the server does not notify.
const LOOK_BLIND: Duration = Duration::from_millis(500);

/// Stores results; a SUCCESS stays what it is, and so does a REVOKED.
static PUT: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r#"-- KEYS: results; ARGV: seconds to live or nothing, then the documents. All or none.
        local stays = {}
        for n = 1, #KEYS do
          local kind = redis.call('TYPE', KEYS[n]).ok
          if kind ~= 'none' and kind ~= 'string' then
            return redis.error_reply('WRONGTYPE the key ' .. KEYS[n] .. ' is a ' .. kind .. ', and a string is expected')
          end
          local state = kind == 'string' and redis.call('GETRANGE', KEYS[n], 0, 20)
          stays[n] = state == '{"status": "SUCCESS",' or state == '{"status": "REVOKED",'
        end
        for n = 1, #KEYS do
          if not stays[n] then
            if ARGV[1] == '' then redis.call('SET', KEYS[n], ARGV[n + 1])
            else redis.call('SET', KEYS[n], ARGV[n + 1], 'EX', ARGV[1]) end
            -- A user may be kept from channels; listeners look now and then anyway.
            redis.pcall('PUBLISH', KEYS[n], ARGV[n + 1])
          end
        end"#,
    )
});

/// See [`super::Store`].
#[derive(Clone)]
pub struct Store {
    link: Link,
    prefix: Arc<str>,
    /// Seconds.
    expires: Option<u64>,
}

impl Store {
    /// Results on `server`, each for so long; an answer is waited for up to `patience`. Connects
    /// when it is used.
    ///
    /// # Errors
    /// A certificate cannot be read.
    pub fn open(
        server: &Server,
        prefix: &str,
        expires: Option<Duration>,
        patience: Duration,
    ) -> Result<Store, Error> {
        let link = Link::new(server, patience, Vec::new())?;
        Ok(Store::on(link, prefix, expires))
    }

    /// Results over the connection of somebody else.
    pub fn on(link: Link, prefix: &str, expires: Option<Duration>) -> Store {
        // A part of a second is a second: Redis takes no zero.
        let expires = expires.map(|expires| expires.as_secs().max(1));
        Store { link, prefix: prefix.into(), expires }
    }

    /// The same results, as a worker asks for them: over the connection `link` if that leads
    /// to the same server, else over one of its own that does not give up soon.
    ///
    /// # Errors
    /// A certificate cannot be read.
    pub fn of_worker(&self, link: Option<&Link>) -> Result<Store, Error> {
        let link = match link.filter(|link| link.server() == self.link.server()) {
            Some(link) => link.clone(),
            None => Link::new(self.link.server(), WORKER_PATIENCE, Vec::new())?,
        };
        Ok(Store { link, ..self.clone() })
    }

    /// The connection.
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// Key, seconds to live and document of a result.
    pub fn entry(&self, record: &Record) -> (String, Option<u64>, String) {
        (self.key(&record.task_id), self.expires, document(record))
    }

    /// What all keys begin with.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// How long results are kept, in seconds.
    pub(super) fn expires(&self) -> Option<u64> {
        self.expires
    }

    /// The key of a result is the task's id after this.
    pub fn stem(&self) -> String {
        format!("{}celery-task-meta-", self.prefix)
    }

    /// The key of a result.
    pub fn key(&self, task_id: &str) -> String {
        format!("{}{task_id}", self.stem())
    }

    async fn put_some(&self, entries: &[(String, String)]) -> Result<(), Error> {
        if entries.is_empty() {
            return Ok(());
        }
        let mut call = PUT.prepare_invoke();
        call.arg(self.expires.map_or(String::new(), |expires| expires.to_string()));
        for (key, document) in entries {
            call.key(key).arg(document);
        }
        self.link.run(async |c| call.invoke_async::<()>(c).await).await
    }
}

impl Keep for Store {
    async fn put(&self, records: Vec<Record>) -> Result<(), Error> {
        let mut entries: Vec<(String, String)> = Vec::new();
        let mut bytes = 0;
        for record in &records {
            let document = document(record);
            if bytes > 0 && bytes + document.len() > BYTES_MAX {
                self.put_some(&std::mem::take(&mut entries)).await?;
                bytes = 0;
            }
            bytes += document.len();
            entries.push((self.key(&record.task_id), document));
        }
        self.put_some(&entries).await
    }

    async fn get(&self, task_id: &str) -> Result<Option<Meta>, Error> {
        let mut get = redis::cmd("GET");
        get.arg(self.key(task_id));
        let found: Option<Vec<u8>> =
            self.link.run(async |c| get.query_async(c).await).await.map_err(|error| {
                Error::of(error.kind(), format!("{error} (key {})", self.key(task_id)))
            })?;
        Ok(found.map(|bytes| read(&bytes, task_id)))
    }

    async fn get_many(&self, task_ids: &[String]) -> Result<Vec<Meta>, Error> {
        let mut metas = Vec::new();
        for ids in task_ids.chunks(GET_MAX) {
            let mut get = redis::cmd("MGET");
            ids.iter().for_each(|id| {
                get.arg(self.key(id));
            });
            let found: Vec<Option<Vec<u8>>> =
                self.link.run(async |c| get.query_async(c).await).await?;
            let found = ids.iter().zip(found);
            metas.extend(found.filter_map(|(id, bytes)| Some(read(&bytes?, id))));
        }
        Ok(metas)
    }

    async fn revoked(&self, task_ids: &[String]) -> Result<HashSet<String>, Error> {
        let mut call = STATES.prepare_invoke();
        for id in task_ids {
            call.key(self.key(id));
        }
        let found: Vec<usize> = self.link.run(async |c| call.invoke_async(c).await).await?;
        Ok(found.iter().filter_map(|place| task_ids.get(place - 1)).cloned().collect())
    }

    async fn forget(&self, task_ids: Vec<String>) -> Result<(), Error> {
        if task_ids.is_empty() {
            return Ok(());
        }
        let mut forget = redis::cmd("DEL");
        for id in &task_ids {
            forget.arg(self.key(id));
        }
        self.link.run(async |c| forget.query_async(c).await).await
    }

    async fn listen(&self, task_ids: &[String]) -> Result<super::Listener, Error> {
        let mut subscribe = redis::cmd("SUBSCRIBE");
        for id in task_ids {
            subscribe.arg(self.key(id));
        }
        let link = Link::new(self.link.server(), self.link.patience(), vec![subscribe])?;
        match link.session().await {
            // A user may be kept from channels.
            Err(error) if error.kind() == StoreErrorKind::Forbidden => {
                Ok(super::Listener::Redis(Listener { link: None }))
            }
            opened => opened.map(|_| super::Listener::Redis(Listener { link: Some(link) })),
        }
    }

    async fn answers(&self) -> Result<(), Error> {
        let mut call = PUT.prepare_invoke();
        call.arg("");
        self.link.run(async |c| call.invoke_async::<()>(c).await).await
    }
}

/// See [`super::Listener`].
pub struct Listener {
    /// None if the server tells nothing.
    link: Option<Link>,
}

impl Listener {
    /// See [`super::Listener::stored`].
    pub async fn stored(&mut self) {
        let Some(link) = &self.link else { return tokio::time::sleep(LOOK_BLIND).await };
        // A timeout is as good as a notification, and so is a lost connection: the caller looks
        // either way.
        let _ = tokio::time::timeout(LOOK_AGAIN, link.pushed()).await;
        if let Err(error) = link.session().await {
            tracing::debug!("cannot listen for results: {error}");
        }
    }
}

/// The document, its keys in Celery's order and as Python prints it, which the scripts that
/// look for a SUCCESS rely on.
fn document(record: &Record) -> String {
    let text = |text: &str| Value::from(text).to_string();
    let or_null = |value: Option<String>| value.map_or("null".to_string(), |value| text(&value));
    let done = record.state.is_ready().then(|| clock::iso(record.date_done));
    let mut document = format!(
        r#"{{"status": {}, "result": {}, "traceback": {}, "children": {}, "date_done": {}"#,
        text(record.status()),
        record.result.get(),
        or_null(record.traceback.clone()),
        record.children.as_deref().unwrap_or("[]"),
        or_null(done),
    );
    for (name, value) in [("group_id", &record.group_id), ("parent_id", &record.parent_id)] {
        if let Some(value) = value {
            document.push_str(&format!(r#", "{name}": {}"#, text(value)));
        }
    }
    if let Some(e) = record.extended.as_deref() {
        document.push_str(&format!(
            r#", "name": {}, "args": {}, "kwargs": {}, "worker": {}, "retries": {}, "queue": {}"#,
            text(&e.name),
            e.args,
            e.kwargs,
            text(&e.worker),
            e.retries,
            text(&e.queue)
        ));
        if let Some(usage) = e.usage {
            document.push_str(&format!(r#", "usage": {}"#, usage.to_json()));
        }
    }
    document.push_str(&format!(r#", "task_id": {}}}"#, text(&record.task_id)));
    document
}

fn read(bytes: &[u8], task_id: &str) -> Meta {
    let unread = || {
        let result = json!({"exc_type": "DecodeError", "exc_module": "kombu.exceptions",
               "exc_message": ["the stored result is no JSON; is it compressed, or of another serializer?"]});
        Pairs(vec![
            ("status".into(), value::raw(&json!("FAILURE"))),
            ("result".into(), value::raw(&result)),
        ])
    };
    let text = String::from_utf8_lossy(bytes);
    // Python writes numbers that JSON has not.
    let found = serde_json::from_str(&text).or_else(|_| serde_json::from_str(&body::finite(&text)));
    let Pairs(mut fields) = found.unwrap_or_else(|_| unread());
    let mut take = |name: &str| {
        let at = fields.iter().position(|(field, _)| field == name)?;
        Some(fields.remove(at).1).filter(|raw| raw.get() != "null")
    };
    let text = |raw: Box<RawValue>| String::from_utf8_lossy(&value::text(&raw)).into_owned();
    let null = || value::raw(&Value::Null);
    let date_done = take("date_done").map(text);
    let (status, result) = (take("status"), take("result"));
    let (traceback, children) = (take("traceback"), take("children"));
    take("task_id");
    Meta {
        status: status.map(text).unwrap_or_default(),
        result: result.unwrap_or_else(null),
        traceback: traceback.map(text),
        children: children.unwrap_or_else(|| value::raw(&json!([]))),
        date_done: date_done.as_deref().and_then(clock::parse),
        task_id: task_id.into(),
        extended: fields,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::result::{Extended, Usage};
    use crate::wire::{Exception, TaskState};

    #[test]
    fn documents_are_those_of_celery() {
        let at = clock::parse("2026-11-20T17:34:55.019470+00:00").unwrap();
        let plain = Record::success("T", crate::wire::value::raw(&json!({"a": [1]})), at);
        assert_eq!(
            document(&plain),
            r#"{"status": "SUCCESS", "result": {"a":[1]}, "traceback": null, "children": [], "date_done": "2026-11-20T17:34:55.019470+00:00", "task_id": "T"}"#
        );
        let error = Exception::new("builtins", "ValueError", "bad");
        let extended = Extended {
            name: "add".into(),
            args: "[2, 3]".into(),
            kwargs: "{}".into(),
            worker: "w@h".into(),
            retries: 1,
            queue: "celery".into(),
            usage: Some(Usage { runtime: Duration::from_millis(1500), ..Usage::default() }),
        };
        let full = Record {
            parent_id: Some("P".into()),
            group_id: Some("G".into()),
            extended: Some(Box::new(extended)),
            ..Record::exception("T", TaskState::Retry, &error, Some("line\n\"2\"".into()), at)
        };
        let written = document(&full);
        assert_eq!(
            written,
            r#"{"status": "RETRY", "result": {"exc_type":"ValueError","exc_message":["bad"],"exc_module":"builtins"}, "traceback": "line\n\"2\"", "children": [], "date_done": null, "group_id": "G", "parent_id": "P", "name": "add", "args": [2, 3], "kwargs": {}, "worker": "w@h", "retries": 1, "queue": "celery", "usage": {"runtime":1.5,"user":0.0,"system":0.0,"memory_peak":null}, "task_id": "T"}"#
        );
        let back = read(written.as_bytes(), "T").document();
        let parsed = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        assert_eq!(parsed(&back), parsed(&written));
        let keys = |text: &str| -> Vec<String> {
            serde_json::from_str::<Value>(text)
                .unwrap()
                .as_object()
                .unwrap()
                .keys()
                .cloned()
                .collect()
        };
        assert_eq!(keys(&back), keys(&written));
    }

    #[test]
    fn values_are_passed_on_as_they_came() {
        let deep = format!("{}1{}", "[".repeat(400), "]".repeat(400));
        for value in ["1e400", "123456789012345678901234567890", "\"\\ud800\"", &deep] {
            let document = format!(r#"{{"status": "SUCCESS", "result": {value}, "task_id": "T"}}"#);
            let meta = read(document.as_bytes(), "T");
            assert_eq!((&meta.status[..], meta.result.get()), ("SUCCESS", value));
        }
        let odd = read(br#"{"status": "SUCCESS", "result": NaN, "status": "FAILURE"}"#, "T");
        assert_eq!((&odd.status[..], odd.result.get()), ("FAILURE", "\"NaN\""));
    }
}
