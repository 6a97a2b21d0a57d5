//! The dead-letter list: messages kept whole that could not be run.

use super::{Broker, payload_of, queue_id};
use crate::broker::{DeadLetter, Death, KeepDead};
use crate::clock;
use crate::link::error::Error;
use crate::link::sqlite::{Durability, cell};
use rusqlite::{Connection, OptionalExtension, params};

impl KeepDead for Broker {
    async fn list(&self) -> Result<Vec<DeadLetter>, Error> {
        self.db
            .run(Durability::Read, |c| {
                let mut statement = c.prepare(
                    "SELECT id, died_at, reason, detail, task_id, task, queue, deliveries, payload
                     FROM qworker_dead ORDER BY id",
                )?;
                let rows = statement.query_map([], |row| {
                    Ok(DeadLetter {
                        number: row.get(0)?,
                        died_at: cell::text(row, 1),
                        reason: cell::text(row, 2),
                        detail: cell::text(row, 3),
                        task_id: cell::text(row, 4),
                        task: cell::text(row, 5),
                        queue: cell::text(row, 6),
                        deliveries: cell::count(row, 7),
                        payload: payload_of(row, 8)?,
                    })
                })?;
                Ok(rows.collect::<Result<_, _>>()?)
            })
            .await
    }

    async fn requeue(&self, numbers: Option<Vec<i64>>) -> Result<u64, Error> {
        let requeued = self
            .db
            .run(Durability::Disk, move |c| {
                each_dead(c, numbers, |c, number| {
                    let queue: Option<String> = c
                        .prepare_cached("SELECT queue FROM qworker_dead WHERE id = ?")?
                        .query_row([number], |row| Ok(cell::text(row, 0)))
                        .optional()?;
                    let Some(queue) = queue else { return Ok(0) };
                    c.prepare_cached(
                        "INSERT INTO kombu_message
                             (visible, version, payload, queue_id, priority, task_id)
                         SELECT 1, 1, payload, ?, iif(typeof(priority) = 'integer', priority, 0),
                             iif(typeof(task_id) = 'text', task_id, NULL)
                         FROM qworker_dead WHERE id = ?",
                    )?
                    .execute(params![queue_id(c, &queue)?, number])?;
                    Ok(c.execute("DELETE FROM qworker_dead WHERE id = ?", [number])? as u64)
                })
            })
            .await?;
        self.notify();
        Ok(requeued)
    }

    async fn purge(&self, numbers: Option<Vec<i64>>) -> Result<u64, Error> {
        self.db
            .run(Durability::Disk, move |c| {
                each_dead(c, numbers, |c, number| {
                    Ok(c.execute("DELETE FROM qworker_dead WHERE id = ?", [number])? as u64)
                })
            })
            .await
    }
}

fn each_dead(
    c: &Connection,
    numbers: Option<Vec<i64>>,
    act: impl Fn(&Connection, i64) -> Result<u64, Error>,
) -> Result<u64, Error> {
    let numbers = match numbers {
        Some(numbers) => numbers,
        None => {
            let mut all = c.prepare("SELECT id FROM qworker_dead ORDER BY id")?;
            all.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?
        }
    };
    numbers.into_iter().try_fold(0, |sum, number| Ok(sum + act(c, number)?))
}

/// Copies a delivery of `owner` to the list.
pub(super) fn bury(c: &Connection, owner: i64, id: i64, death: &Death) -> Result<(), Error> {
    c.prepare_cached(
        "INSERT INTO qworker_dead
            (died_at, reason, detail, task_id, task, queue, priority, deliveries, payload)
         SELECT ?, ?, ?, ?, ?, ifnull(q.name, ''), m.priority, m.deliveries + ?, ifnull(m.payload, '')
         FROM kombu_message m LEFT JOIN kombu_queue q ON q.id = m.queue_id
         WHERE m.id = ? AND m.owner = ?",
    )?
    .execute(params![
        clock::iso(clock::now()),
        death.reason,
        death.detail,
        death.task_id,
        death.task,
        death.counts,
        id,
        owner
    ])?;
    Ok(())
}
