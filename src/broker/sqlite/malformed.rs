//! Rows of `kombu_message` with values that no program of ours or Celery's writes. One of them
//! must not block others: it goes to the dead-letter list as it is, and is logged.
//!
//! Each worker reads all rows in scans, a few at a time. An index of such rows would be quicker to
//! read, but every change of a row computes its condition: a sixth of the time of a drain.

use crate::clock;
use crate::link::error::Error;
use crate::link::sqlite::cell;
use rusqlite::{Connection, Row, params};
use std::time::{Duration, Instant};

/// Rows that are read in one step.
const STEP: i64 = 64;

/// No further step begins after this time.
const LOOK_MAX: Duration = Duration::from_millis(2);

/// A scan of all rows begins this often: one may have been changed by hand.
const SCAN_EVERY: Duration = Duration::from_secs(60);

/// What is expected of each column, and how SQL says that it is not so.
const RULES: [(&str, &str, &str); 9] = [
    ("visible", "0 or 1", "(visible IS NULL OR visible NOT IN (0, 1))"),
    ("queue_id", "the number of a queue", "typeof(queue_id) <> 'integer'"),
    (
        "eta",
        "seconds since the epoch up to the year 9999",
        "(eta IS NOT NULL AND (typeof(eta) <> 'real' OR abs(eta) > 253402300799.0))",
    ),
    (
        "priority",
        "a small number",
        "(typeof(priority) <> 'integer' OR priority NOT BETWEEN -1000000 AND 1000000)",
    ),
    (
        "deliveries",
        "a count",
        "(typeof(deliveries) <> 'integer' OR deliveries NOT BETWEEN 0 AND 1000000)",
    ),
    ("task", "a name", "typeof(task) NOT IN ('null', 'text')"),
    ("started", "0 or 1", "started NOT IN (0, 1)"),
    ("suspect", "0 or 1", "suspect NOT IN (0, 1)"),
    ("owner", "the number of a worker", "typeof(owner) NOT IN ('null', 'integer')"),
];

/// How far a worker has read.
#[derive(Default)]
pub(super) struct ScanPosition {
    begun: Option<Instant>,
    last: Option<i64>,
}

impl ScanPosition {
    /// The last row that was read; `None` where a scan begins.
    pub(super) fn next(&mut self) -> Option<i64> {
        if self.begun.is_none_or(|at| at.elapsed() >= SCAN_EVERY) {
            *self = ScanPosition { begun: Some(Instant::now()), last: None };
        }
        self.last
    }

    /// The row that [`set_aside`] has read last.
    pub(super) fn reached(&mut self, last: i64) {
        self.last = Some(last);
    }
}

/// Moves what is odd behind the row `last` to the dead-letter list; gives the last row that was
/// read, and says what was odd.
pub(super) fn set_aside(c: &Connection, last: Option<i64>) -> Result<(i64, Vec<String>), Error> {
    let end = Instant::now() + LOOK_MAX;
    let (mut at, mut told) = (last.unwrap_or(i64::MIN), Vec::new());
    loop {
        let mut step = c.prepare_cached(
            "SELECT max(id) FROM (SELECT id FROM kombu_message WHERE id > ? ORDER BY id LIMIT ?)",
        )?;
        let Some(to) = step.query_row([at, STEP], |row| row.get::<_, Option<i64>>(0))? else {
            // A new row has the number of one that was removed, if no later one is left.
            let last = "SELECT ifnull(max(id), ?) FROM kombu_message";
            let last = c.prepare_cached(last)?.query_row([i64::MIN], |row| row.get(0))?;
            return Ok((last, told));
        };
        told.extend(set_aside_between(c, at, to)?);
        at = to;
        if Instant::now() >= end {
            return Ok((at, told));
        }
    }
}

fn set_aside_between(c: &Connection, after: i64, to: i64) -> Result<Vec<String>, Error> {
    let columns: Vec<&str> = RULES.iter().map(|(column, _, _)| *column).collect();
    let wrong: Vec<&str> = RULES.iter().map(|(_, _, rule)| *rule).collect();
    // What is held belongs to its worker.
    let sql = format!(
        "SELECT id, {}, {} FROM kombu_message
         WHERE id > ? AND id <= ? AND (owner IS NULL OR typeof(owner) <> 'integer') AND ({})",
        columns.join(", "),
        wrong.join(", "),
        wrong.join(" OR "),
    );
    let mut found = c.prepare_cached(&sql)?;
    let found = found.query_map([after, to], |row| Ok((row.get::<_, i64>(0)?, describe(row))))?;
    let found: Vec<(i64, String)> = found.collect::<Result<_, _>>()?;
    for (id, what) in &found {
        c.prepare_cached(
            "INSERT INTO qworker_dead
                 (died_at, reason, detail, task_id, queue, priority, deliveries, payload)
             SELECT ?, 'malformed', ?, iif(typeof(m.task_id) = 'text', m.task_id, NULL),
                 ifnull(q.name, ''), iif(typeof(m.priority) = 'integer', m.priority, 0),
                 iif(typeof(m.deliveries) = 'integer', m.deliveries, 0), ifnull(m.payload, '')
             FROM kombu_message m LEFT JOIN kombu_queue q ON q.id = m.queue_id WHERE m.id = ?",
        )?
        .execute(params![clock::iso(clock::now()), what, id])?;
        c.prepare_cached("DELETE FROM kombu_message WHERE id = ?")?.execute([id])?;
    }
    Ok(found.into_iter().map(|(_, what)| what).collect())
}

/// `row 7 of kombu_message: eta is 'soon', expected seconds …`, for the first rule it breaks.
fn describe(row: &Row) -> String {
    let broken = (0..RULES.len()).find(|n| cell::number(row, 1 + RULES.len() + n) != 0);
    let number = cell::number(row, 0);
    let Some(at) = broken else { return format!("row {number} of kombu_message is odd") };
    let (column, expected, _) = RULES[at];
    let value = cell::text_or_none(row, 1 + at).map_or("NULL".into(), |value| format!("{value:?}"));
    format!("row {number} of kombu_message: {column} is {value}, expected {expected}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_time_is_that_of_the_file() {
        let latest = format!("{:.1}", crate::link::sqlite::INSTANT_MAX);
        assert!(RULES.iter().any(|(_, _, rule)| rule.contains(&latest)), "{latest}");
    }

    #[test]
    fn a_scan_reads_every_row_and_those_that_come_after_it() {
        let c = Connection::open_in_memory().unwrap();
        crate::broker::sqlite::SCHEMA.create(&c).unwrap();
        let insert = |count: usize, eta: &str| {
            for _ in 0..count {
                let row = "INSERT INTO kombu_message (queue_id, payload, eta) VALUES (1, '{}', ";
                c.execute_batch(&format!("PRAGMA foreign_keys = OFF; {row} {eta})")).unwrap();
            }
        };
        let mut scan = ScanPosition::default();
        let mut look = || {
            let mut told = Vec::new();
            loop {
                let before = scan.next();
                let (last, found) = set_aside(&c, before).unwrap();
                scan.reached(last);
                told.extend(found);
                if before == Some(last) || last == i64::MIN {
                    return told.len();
                }
            }
        };
        assert_eq!(look(), 0);
        insert(500, "NULL");
        insert(2, "'soon'");
        assert_eq!((look(), look()), (2, 0));
        // The numbers of those that were removed are given again.
        insert(1, "'later'");
        assert_eq!(look(), 1);
    }
}
