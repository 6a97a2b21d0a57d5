//! Counts, finds and removes waiting messages, and lists the workers.

use super::member::{Card, Liveness};
use super::{Broker, payload_of};
use crate::broker::{Administer, QueueInfo, SeenMessage, Whereabouts, WorkerInfo};
use crate::link::error::Error;
use crate::link::sqlite::{Durability, cell};
use rusqlite::{Connection, OptionalExtension};

impl Administer for Broker {
    async fn purge(&self, queues: Vec<String>) -> Result<u64, Error> {
        self.db
            .run(Durability::Disk, move |c| {
                let mut purged = 0;
                for name in &queues {
                    purged += c.execute(
                        "DELETE FROM kombu_message WHERE visible = 1 AND queue_id =
                         (SELECT id FROM kombu_queue WHERE name = ?)",
                        [name],
                    )?;
                }
                Ok(purged as u64)
            })
            .await
    }

    async fn queues(&self) -> Result<Vec<QueueInfo>, Error> {
        self.db
            .run(Durability::Read, |c| {
                let mut statement = c.prepare(
                    "SELECT q.name,
                        count(*) FILTER (WHERE m.visible = 1 AND m.eta IS NULL),
                        count(*) FILTER (WHERE m.visible = 1 AND m.eta IS NOT NULL),
                        count(*) FILTER (WHERE m.owner IS NOT NULL)
                     FROM kombu_queue q LEFT JOIN kombu_message m ON m.queue_id = q.id
                     GROUP BY q.id ORDER BY q.name",
                )?;
                let rows = statement.query_map([], |row| {
                    Ok(QueueInfo {
                        name: cell::text(row, 0),
                        ready: cell::count(row, 1),
                        scheduled: cell::count(row, 2),
                        held: cell::count(row, 3),
                        odd: None,
                    })
                })?;
                Ok(rows.collect::<Result<_, _>>()?)
            })
            .await
    }

    async fn names(&self) -> Result<Vec<String>, Error> {
        self.db
            .run(Durability::Read, |c| {
                let mut all = c.prepare("SELECT name FROM kombu_queue ORDER BY name")?;
                let all = all.query_map([], |row| Ok(cell::text(row, 0)))?;
                Ok(all.collect::<Result<_, _>>()?)
            })
            .await
    }

    async fn nodes(&self) -> Result<Vec<WorkerInfo>, Error> {
        let all = self.db.run(Durability::Read, |c| Card::others(c, 0)).await?;
        let path = self.db.path();
        let alive = all.into_iter().filter(|card| !matches!(card.judge(path), Liveness::Dead));
        Ok(alive
            .map(|card| WorkerInfo {
                pid: u32::try_from(card.pid).unwrap_or(0),
                hostname: card.hostname,
            })
            .collect())
    }

    async fn messages(&self, bytes: usize) -> Result<(Vec<SeenMessage>, bool), Error> {
        self.db.run(Durability::Read, move |c| messages(c, bytes)).await
    }

    async fn find(&self, task_id: String) -> Result<Whereabouts, Error> {
        self.db.run(Durability::Read, move |c| find(c, &task_id)).await
    }
}

/// Rows that a Python worker has taken stay, so the newest come first.
fn messages(c: &Connection, bytes: usize) -> Result<(Vec<SeenMessage>, bool), Error> {
    let mut ask = c.prepare_cached(
        "SELECT q.name, m.visible, m.eta, m.owner IS NOT NULL, m.payload FROM kombu_message m
         JOIN kombu_queue q ON q.id = m.queue_id ORDER BY m.id DESC",
    )?;
    let (mut rows, mut seen, mut room) = (ask.query([])?, Vec::new(), bytes);
    while let Some(row) = rows.next()? {
        let (queue, payload) = (cell::text(row, 0), payload_of(row, 4)?);
        let place = match (cell::number(row, 1) != 0, cell::number(row, 3) != 0) {
            (true, _) => {
                let eta = cell::instant(row, 2).map(|eta| eta.to_string());
                Whereabouts::Waiting { queue, eta }
            }
            (false, true) => Whereabouts::Held { queue },
            (false, false) => Whereabouts::Untold,
        };
        room = room.saturating_sub(payload.size());
        seen.push(SeenMessage { place, payload });
        if room == 0 {
            return Ok((seen, true));
        }
    }
    Ok((seen, false))
}

fn find(c: &Connection, task_id: &str) -> Result<Whereabouts, Error> {
    // A Python program's rows have no task id of ours; there are few, or it would run
    // Python workers on them.
    let found = c
        .prepare_cached(
            "SELECT q.name, m.visible, m.eta FROM kombu_message m
             JOIN kombu_queue q ON q.id = m.queue_id
             WHERE m.task_id = ?1 OR (m.task_id IS NULL AND instr(m.payload, ?1) > 0
                   AND (m.visible = 1 OR m.owner IS NOT NULL)) LIMIT 1",
        )?
        .query_row([task_id], |row| {
            Ok((cell::text(row, 0), cell::number(row, 1) != 0, cell::instant(row, 2)))
        })
        .optional()?;
    if let Some((queue, visible, eta)) = found {
        let eta = eta.map(|eta| eta.to_string());
        return Ok(if visible {
            Whereabouts::Waiting { queue, eta }
        } else {
            Whereabouts::Held { queue }
        });
    }
    let dead = c
        .prepare_cached("SELECT id FROM qworker_dead WHERE task_id = ? ORDER BY id DESC LIMIT 1")?
        .query_row([task_id], |row| row.get(0))
        .optional()?;
    Ok(dead.map_or(Whereabouts::Absent, Whereabouts::Dead))
}
