//! Results on a Redis server: Celery's own keys and documents.
//!
//! Source: celery 5.7 `backends/redis.py` and `backends/base.py` (`KeyValueStoreBackend`). A
//! result is the string `celery-task-meta-ID`, and is published on the channel of that name.

use super::{Keep, StoreOptions};
use crate::clock;
use crate::link::error::{Error, StoreErrorKind};
use crate::link::redis::{Link, WORKER_PATIENCE};
use crate::link::url::Server;
use crate::wire::result::Meta;
use crate::wire::{EncodeError, Record, ResultFormat, STATE_OF};
use redis::Script;
use serde_json::Value;
use std::collections::HashSet;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

/// Most bytes of documents stored in one step, unless a single one is larger.
const BYTES_MAX: usize = 4 * 1024 * 1024;

/// A message of the channel may be lost with its connection: listeners look again after this
/// long anyway.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// A script that asks for the states of results.
fn with_states(own: &str) -> Script {
    Script::new(&format!("{STATE_OF}{own}"))
}

/// Which tasks were revoked.
static STATES: LazyLock<Script> = LazyLock::new(|| {
    with_states(
        r#"-- KEYS: results; Gives: the places of those that are REVOKED, and of those that cannot be told
        local revoked, untold = {}, {}
        for n = 1, #KEYS do
          if redis.call('TYPE', KEYS[n]).ok == 'string' then
            local state = state_of(KEYS[n])
            if not state then untold[#untold + 1] = n
            elseif state == 'REVOKED' then revoked[#revoked + 1] = n end
          end
        end
        return { revoked, untold }"#,
    )
});

/// Results that are read in one step.
const GET_MAX: usize = 500;

/// How soon a listener looks again that the server does not notify.
const LOOK_BLIND: Duration = Duration::from_millis(500);

/// Stores results; a SUCCESS stays what it is, and so does a REVOKED.
static PUT: LazyLock<Script> = LazyLock::new(|| {
    with_states(
        r#"-- KEYS: results; ARGV: seconds to live or nothing, then the documents, then what may be
        -- replaced by each though its state cannot be told. All or none. Gives: the places of others of
        -- that kind; if there are any, nothing is done.
        local stays, untold = {}, {}
        for n = 1, #KEYS do
          local kind = redis.call('TYPE', KEYS[n]).ok
          if kind ~= 'none' and kind ~= 'string' then
            return redis.error_reply('WRONGTYPE the key ' .. KEYS[n] .. ' is a ' .. kind .. ', and a string is expected')
          end
          local state = kind == 'string' and (state_of(KEYS[n]) or '')
          stays[n] = state == 'SUCCESS' or state == 'REVOKED'
          if state == '' and redis.call('GET', KEYS[n]) ~= ARGV[#KEYS + n + 1] then
            untold[#untold + 1] = n
          end
        end
        if #untold > 0 then return untold end
        for n = 1, #KEYS do
          if not stays[n] then
            if ARGV[1] == '' then redis.call('SET', KEYS[n], ARGV[n + 1])
            else redis.call('SET', KEYS[n], ARGV[n + 1], 'EX', ARGV[1]) end
            -- A user may be kept from channels; listeners look now and then anyway.
            redis.pcall('PUBLISH', KEYS[n], ARGV[n + 1])
          end
        end
        return untold"#,
    )
});

/// See [`super::Store`].
#[derive(Clone)]
pub struct Store {
    link: Link,
    prefix: Arc<str>,
    /// Seconds.
    expires: Option<u64>,
    format: Arc<ResultFormat>,
}

impl Store {
    /// Results on `server`. Connects when it is used.
    ///
    /// # Errors
    /// A certificate cannot be read.
    pub fn open(server: &Server, options: StoreOptions<'_>) -> Result<Store, Error> {
        let link = Link::new(server, options.patience, Vec::new())?;
        Ok(Store::on(link, options.prefix, options.expires, options.format))
    }

    /// Results over the connection of somebody else.
    pub fn on(link: Link, prefix: &str, expires: Option<Duration>, format: &ResultFormat) -> Store {
        // A part of a second is a second: Redis takes no zero.
        let expires = expires.map(|expires| expires.as_secs().max(1));
        Store { link, prefix: prefix.into(), expires, format: Arc::new(format.clone()) }
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

    /// Key, seconds to live and document of a result, in a store that is not opaque.
    pub fn entry(&self, record: &Record) -> (String, Option<u64>, Vec<u8>) {
        (self.key(&record.task_id), self.expires, self.format.write_open(document(record)))
    }

    /// How results are written, and which are read.
    pub fn format(&self) -> &ResultFormat {
        &self.format
    }

    /// What is kept of a JSON text.
    ///
    /// # Errors
    /// It cannot be signed or compressed.
    pub(super) fn write(&self, json: String) -> Result<Vec<u8>, Error> {
        let refused = |error: EncodeError| Error::of(StoreErrorKind::Refused, error.to_string());
        self.format.write(json).map_err(refused)
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

    async fn put_some(&self, mut entries: Vec<(String, Vec<u8>)>) -> Result<(), Error> {
        // What stands in the place of each, if only its bytes tell its state.
        let mut seen: Vec<Vec<u8>> = vec![Vec::new(); entries.len()];
        while !entries.is_empty() {
            let mut call = PUT.prepare_invoke();
            call.arg(self.expires.map_or(String::new(), |expires| expires.to_string()));
            for (key, document) in &entries {
                call.key(key).arg(document);
            }
            if seen.iter().any(|one| !one.is_empty()) {
                seen.iter().for_each(|one| {
                    call.arg(one);
                });
            }
            let mut untold: Vec<usize> =
                self.link.run(async |c| call.invoke_async(c).await).await?;
            if untold.is_empty() {
                return Ok(());
            }
            // From behind, since some go.
            untold.sort_unstable();
            for place in untold.into_iter().rev().filter_map(|place| place.checked_sub(1)) {
                let Some((key, _)) = entries.get(place) else { continue };
                let found = self.bytes(key).await?.unwrap_or_default();
                match self.read(&found, "").status.as_str() {
                    "SUCCESS" | "REVOKED" if !found.is_empty() => {
                        entries.remove(place);
                        seen.remove(place);
                    }
                    _ => seen[place] = found,
                }
            }
        }
        Ok(())
    }

    /// What stands under a key.
    async fn bytes(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        let mut get = redis::cmd("GET");
        get.arg(key);
        self.link
            .run(async |c| get.query_async(c).await)
            .await
            .map_err(|error| Error::of(error.kind(), format!("{error} (key {key})")))
    }

    /// The result that a document says.
    fn read(&self, bytes: &[u8], task_id: &str) -> Meta {
        Meta::read(bytes, task_id, &self.format, clock::now())
    }
}

impl Keep for Store {
    async fn put(&self, records: Vec<Record>) -> Result<(), Error> {
        let mut entries: Vec<(String, Vec<u8>)> = Vec::new();
        let mut bytes = 0;
        for record in &records {
            let document = self.write(document(record))?;
            if bytes > 0 && bytes + document.len() > BYTES_MAX {
                self.put_some(std::mem::take(&mut entries)).await?;
                bytes = 0;
            }
            bytes += document.len();
            entries.push((self.key(&record.task_id), document));
        }
        self.put_some(entries).await
    }

    async fn get(&self, task_id: &str) -> Result<Option<Meta>, Error> {
        let found = self.bytes(&self.key(task_id)).await?;
        Ok(found.map(|bytes| self.read(&bytes, task_id)))
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
            metas.extend(found.filter_map(|(id, bytes)| Some(self.read(&bytes?, id))));
        }
        Ok(metas)
    }

    async fn revoked(&self, task_ids: &[String]) -> Result<HashSet<String>, Error> {
        let mut call = STATES.prepare_invoke();
        for id in task_ids {
            call.key(self.key(id));
        }
        let (found, untold): (Vec<usize>, Vec<usize>) =
            self.link.run(async |c| call.invoke_async(c).await).await?;
        let id = |place: &usize| place.checked_sub(1).and_then(|place| task_ids.get(place));
        let mut revoked: HashSet<String> = found.iter().filter_map(id).cloned().collect();
        for id in untold.iter().filter_map(id) {
            if self.get(id).await?.is_some_and(|meta| meta.status == "REVOKED") {
                revoked.insert(id.clone());
            }
        }
        Ok(revoked)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::result::{Extended, Usage};
    use crate::wire::{Exception, TaskState};
    use serde_json::json;

    fn read(bytes: &[u8]) -> Meta {
        Meta::read(bytes, "T", &ResultFormat::default(), clock::now())
    }

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
        let back = read(written.as_bytes()).document();
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
            let meta = read(document.as_bytes());
            assert_eq!((&meta.status[..], meta.result.get()), ("SUCCESS", value));
        }
        let odd = read(br#"{"status": "SUCCESS", "result": NaN, "status": "FAILURE"}"#);
        assert_eq!((&odd.status[..], odd.result.get()), ("FAILURE", "\"NaN\""));
    }
}
