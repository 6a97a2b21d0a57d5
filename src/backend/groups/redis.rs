//! Saved groups on a Redis server: the string `celery-taskset-meta-GROUP`.

use super::GroupRecord;
use crate::backend::Error;
use crate::backend::redis::Store;
use redis::Script;
use serde_json::Value;
use std::sync::LazyLock;

/// Keys that are looked through in one step: the server does nothing else meanwhile.
const SLICE: usize = 1000;

/// A slice of all keys: the first saved group with a text in it.
static SEEK: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "-- ARGV: cursor, how many, how a key begins, the text. Gives: the next cursor, and a key
         local slice = redis.call('SCAN', ARGV[1], 'COUNT', ARGV[2])
         for _, key in ipairs(slice[2]) do
           if string.sub(key, 1, #ARGV[3]) == ARGV[3] and redis.call('TYPE', key).ok == 'string'
             and string.find(redis.call('GET', key), ARGV[4], 1, true) then
             return { '0', key }
           end
         end
         return { slice[1], '' }",
    )
});

impl Store {
    fn saved_key(&self, id: &str) -> String {
        format!("{}celery-taskset-meta-{id}", self.prefix())
    }

    /// See [`crate::backend::Store::save_group`].
    pub(super) async fn save_group(
        &self,
        id: &str,
        result: &str,
        graph: Option<String>,
    ) -> Result<(), Error> {
        let graph = graph.map_or_else(String::new, |graph| format!(r#", "graph": {graph}"#));
        let mut set = redis::cmd("SET");
        let record = self.write(format!(r#"{{"result": {result}{graph}}}"#))?;
        set.arg(self.saved_key(id)).arg(record);
        if let Some(expires) = self.expires() {
            set.arg("EX").arg(expires);
        }
        self.link().run(async |c| set.query_async(c).await).await
    }

    /// See [`crate::backend::Store::group`].
    pub(super) async fn group(&self, id: &str) -> Result<Option<GroupRecord>, Error> {
        let mut get = redis::cmd("MGET");
        // What is no string is no group: MGET says nothing of it.
        get.arg(self.saved_key(id));
        let found: Vec<Option<Vec<u8>>> =
            self.link().run(async |c| get.query_async(c).await).await?;
        let bytes = found.into_iter().next().flatten();
        let read = bytes.and_then(|bytes| self.saved(&bytes));
        Ok(read.map(|mut read| {
            let mut take = |name: &str| read.get_mut(name).map(Value::take).unwrap_or_default();
            let (graph, result) = (take("graph"), take("result"));
            let graph = (!graph.is_null()).then(|| graph.to_string());
            GroupRecord { id: id.into(), result, graph }
        }))
    }

    /// See [`crate::backend::Store::group_with`].
    pub(super) async fn group_with(&self, task_id: &str) -> Result<Option<GroupRecord>, Error> {
        let (begin, quoted) = (self.saved_key(""), Value::from(task_id).to_string());
        let mut cursor = String::from("0");
        loop {
            let mut call = SEEK.prepare_invoke();
            call.arg(&cursor).arg(SLICE).arg(&begin).arg(&quoted);
            let (next, key): (String, String) =
                self.link().run(async |c| call.invoke_async(c).await).await?;
            if let Some(id) = key.strip_prefix(&begin).filter(|id| !id.is_empty()) {
                return self.group(id).await;
            }
            cursor = next;
            if cursor == "0" {
                return Ok(None);
            }
        }
    }
}
