//! What waits in the broker of an application, read past all of ours: what a client has sent is
//! checked before anybody takes it, and no role of the library shows messages that are not due.

use super::app::TestDir;
use super::wait::SOON;
use qworker::wire::{Message, Payload};

/// A message that waits.
pub struct Waiting {
    pub queue: String,
    /// As the broker has it: on Redis only the step, one of 0, 3, 6 and 9.
    pub priority: i64,
    /// Not before, in seconds since the epoch, if the broker keeps it back itself.
    pub due: Option<f64>,
    pub payload: Payload,
}

impl Waiting {
    /// What the message says.
    pub fn message(&self) -> Message {
        self.payload.decode().unwrap()
    }

    /// Its positional arguments, as JSON.
    pub fn args(&self) -> Vec<String> {
        self.message().arguments().unwrap().args.iter().map(|arg| arg.get().to_string()).collect()
    }
}

impl TestDir {
    /// All messages that wait; those of one queue and priority in the order in which they were
    /// accepted, those that are kept back last.
    pub fn waiting(&self) -> Vec<Waiting> {
        match self.on_server() {
            Some(server) => on_redis(&mut server.connect()),
            None => in_file(&self.database()),
        }
    }

    /// The one message that waits.
    pub fn only_waiting(&self) -> Waiting {
        let mut all = self.waiting();
        assert_eq!(all.len(), 1, "{:?}", all.iter().map(|one| &one.payload).collect::<Vec<_>>());
        all.remove(0)
    }
}

fn in_file(path: &std::path::Path) -> Vec<Waiting> {
    let file = rusqlite::Connection::open(path).unwrap();
    file.busy_timeout(SOON).unwrap();
    let sql = "SELECT q.name, m.priority, m.eta, m.payload FROM kombu_message m \
               JOIN kombu_queue q ON q.id = m.queue_id ORDER BY m.id";
    // Celery's own tables lack what we add to them.
    let plain = "SELECT q.name, 0, NULL, m.payload FROM kombu_message m \
                 JOIN kombu_queue q ON q.id = m.queue_id ORDER BY m.id";
    let ours = file.prepare("SELECT 1 FROM pragma_table_info('kombu_message') WHERE name = 'eta'");
    let is_ours = ours.unwrap().exists([]).unwrap();
    let mut query = file.prepare(if is_ours { sql } else { plain }).unwrap();
    let rows = query.query_map([], |row| {
        let payload = Payload::from_envelope(row.get::<_, String>(3)?);
        Ok(Waiting { queue: row.get(0)?, priority: row.get(1)?, due: row.get(2)?, payload })
    });
    rows.unwrap().map(Result::unwrap).collect()
}

/// Before the step of a priority, in the name of a list.
const STEP: &str = "\u{6}\u{16}";

/// Before the queue, in the name of a set of messages that are for later.
const SCHEDULED: &str = "qworker.scheduled.";

fn on_redis(server: &mut redis::Connection) -> Vec<Waiting> {
    let mut keys: Vec<String> = redis::cmd("KEYS").arg("*").query(server).unwrap();
    keys.sort();
    let (mut ready, mut later) = (Vec::new(), Vec::new());
    for key in keys {
        let kind: String = redis::cmd("TYPE").arg(&key).query(server).unwrap();
        if kind == "list" {
            let (queue, step) = key.split_once(STEP).unwrap_or((&key, "0"));
            let range = redis::cmd("LRANGE").arg(&key).arg(0).arg(-1).query(server);
            let texts: Vec<String> = range.unwrap();
            // The oldest is at the right.
            ready.extend(texts.into_iter().rev().map(|text| Waiting {
                queue: queue.into(),
                priority: step.parse().unwrap(),
                due: None,
                payload: Payload::from_envelope(text),
            }));
        } else if let Some(queue) = key.strip_prefix(SCHEDULED) {
            let mut range = redis::cmd("ZRANGE");
            range.arg(&key).arg(0).arg(-1).arg("WITHSCORES");
            let members: Vec<(String, f64)> = range.query(server).unwrap();
            later.extend(members.into_iter().map(|(member, due)| {
                let parts: Vec<&str> = member.splitn(3, ':').collect();
                let [step, _name, text] = parts[..] else { panic!("{member}") };
                let payload = Payload::from_envelope(text);
                let priority = step.parse().unwrap();
                Waiting { queue: queue.into(), priority, due: Some(due), payload }
            }));
        }
    }
    ready.extend(later);
    ready
}
