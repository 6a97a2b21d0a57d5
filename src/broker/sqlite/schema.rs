//! The tables: kombu's with columns of ours, and ours beside them.

use crate::link::sqlite::Schema;

const TABLES: &str = "
CREATE TABLE IF NOT EXISTS kombu_queue (
    id INTEGER NOT NULL PRIMARY KEY,
    name VARCHAR(200) UNIQUE
);
CREATE TABLE IF NOT EXISTS kombu_message (
    id INTEGER NOT NULL PRIMARY KEY,
    visible BOOLEAN DEFAULT 1,
    timestamp DATETIME,
    payload TEXT NOT NULL,
    version SMALLINT NOT NULL DEFAULT 1,
    queue_id INTEGER REFERENCES kombu_queue (id)
);
CREATE TABLE IF NOT EXISTS qworker_worker (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    lease TEXT NOT NULL,
    hostname TEXT NOT NULL,
    pid INTEGER NOT NULL,
    kin TEXT
);
CREATE TABLE IF NOT EXISTS qworker_dead (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    died_at TEXT NOT NULL,
    reason TEXT NOT NULL,
    detail TEXT NOT NULL,
    task_id TEXT,
    task TEXT,
    queue TEXT NOT NULL,
    priority INTEGER NOT NULL,
    deliveries INTEGER NOT NULL,
    payload TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS qworker_beat (
    grp TEXT NOT NULL,
    name TEXT NOT NULL,
    state TEXT NOT NULL,
    PRIMARY KEY (grp, name)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS qworker_once (
    token TEXT NOT NULL PRIMARY KEY,
    at REAL NOT NULL
) WITHOUT ROWID;
";

/// Columns that we add to kombu's table, and to tables of our older versions.
const COLUMNS: &[(&str, &str, &str)] = &[
    ("kombu_message", "eta", "REAL"),
    ("kombu_message", "priority", "INTEGER NOT NULL DEFAULT 0"),
    ("kombu_message", "owner", "INTEGER"),
    ("kombu_message", "deliveries", "INTEGER NOT NULL DEFAULT 0"),
    ("kombu_message", "task_id", "TEXT"),
    // Its name, once a worker was there that did not know it.
    ("kombu_message", "task", "TEXT"),
    // Held: if its worker dies, that counts.
    ("kombu_message", "started", "INTEGER NOT NULL DEFAULT 0"),
    // Was lost before: taken only into a free slot, and counted only from its start on.
    ("kombu_message", "suspect", "INTEGER NOT NULL DEFAULT 0"),
    ("qworker_worker", "kin", "TEXT"),
];

const INDEXES: &str = "
CREATE INDEX IF NOT EXISTS qworker_fresh ON kombu_message (queue_id, priority DESC, id)
    WHERE visible = 1 AND eta IS NULL AND task IS NULL;
CREATE INDEX IF NOT EXISTS qworker_passed ON kombu_message (queue_id, task, priority DESC, id)
    WHERE visible = 1 AND eta IS NULL AND task IS NOT NULL;
DROP INDEX IF EXISTS qworker_ready;
CREATE INDEX IF NOT EXISTS qworker_scheduled ON kombu_message (eta)
    WHERE visible = 1 AND eta IS NOT NULL;
CREATE INDEX IF NOT EXISTS qworker_held ON kombu_message (owner) WHERE owner IS NOT NULL;
CREATE INDEX IF NOT EXISTS qworker_task ON kombu_message (task_id);
CREATE INDEX IF NOT EXISTS qworker_dead_task ON qworker_dead (task_id);
CREATE INDEX IF NOT EXISTS qworker_once_at ON qworker_once (at);
DROP INDEX IF EXISTS qworker_odd;
DROP INDEX IF EXISTS qworker_strange;
";

/// The tables of messages, workers, dead letters and beats.
pub const SCHEMA: Schema = Schema { tables: TABLES, columns: COLUMNS, indexes: INDEXES };
