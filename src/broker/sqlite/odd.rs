//! Rows of `kombu_message` with values that no program of ours or Celery's writes. One of them
//! must hold up no other: it goes to the dead-letter list as it is, and is told.

use super::schema::ODD;
use crate::clock;
use crate::link::error::Error;
use crate::link::sqlite::cell;
use rusqlite::{Connection, Row, params};

/// Rows set aside in one step at the most.
const STEP_MAX: i64 = 64;

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

/// Moves what is odd to the dead-letter list; says what it was.
pub(super) fn set_aside(c: &Connection) -> Result<Vec<String>, Error> {
    let columns: Vec<&str> = RULES.iter().map(|(column, _, _)| *column).collect();
    let wrong: Vec<&str> = RULES.iter().map(|(_, _, rule)| *rule).collect();
    let sql = format!(
        "SELECT id, {}, {} FROM kombu_message WHERE {} ORDER BY id LIMIT {STEP_MAX}",
        columns.join(", "),
        wrong.join(", "),
        ODD
    );
    let mut found = c.prepare_cached(&sql)?;
    let found = found.query_map([], |row| Ok((row.get::<_, i64>(0)?, describe(row))))?;
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
    fn the_index_has_what_breaks_a_rule() {
        for (column, _, rule) in RULES {
            assert!(ODD.contains(rule), "{column}");
        }
        assert_eq!(ODD.matches(" OR ").count(), 2 + RULES.len() - 1 + 3, "and nothing else");
        assert!(ODD.contains(&format!("{:.1}", crate::link::sqlite::INSTANT_MAX)));
    }

    #[test]
    fn the_look_for_odd_rows_reads_the_index_alone() {
        let c = Connection::open_in_memory().unwrap();
        crate::broker::sqlite::SCHEMA.create(&c).unwrap();
        let sql = format!("EXPLAIN QUERY PLAN SELECT id, eta FROM kombu_message WHERE {ODD}");
        let plan: String = c.query_row(&sql, [], |row| row.get(3)).unwrap();
        assert!(plan.contains("USING INDEX qworker_strange"), "{plan}");
    }
}
