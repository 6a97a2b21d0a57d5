//! Which messages a worker takes. Those of names that it does not know keep their place: their rows
//! get the name, and are looked up by it from then on.

use super::payload_of;
use super::settler::{pass, row_of};
use crate::broker::{Delivery, Tag, Want};
use crate::link::error::Error;
use crate::link::sqlite::cell;
use rusqlite::{Connection, params};
use std::cmp::Reverse;
use std::collections::HashSet;
use std::sync::Arc;

/// Rows of names that are left to others which one look passes at most.
const LEFT_MAX: usize = 512;

/// The names in a queue that rows have, each found in the index behind the one before.
const NAMES: &str = "
WITH RECURSIVE found (name) AS (
    SELECT (SELECT min(task) FROM kombu_message
            WHERE queue_id = ?1 AND visible = 1 AND eta IS NULL AND task IS NOT NULL)
    UNION ALL
    SELECT (SELECT min(task) FROM kombu_message
            WHERE queue_id = ?1 AND visible = 1 AND eta IS NULL AND task IS NOT NULL
                  AND task > name)
    FROM found WHERE name IS NOT NULL
)
SELECT name FROM found WHERE name IS NOT NULL";

/// Finds the revoked ones among these tasks, within a transaction. The ids cost something: they are
/// asked for only if any task was revoked.
pub type LookUp =
    fn(&Connection, &mut dyn Iterator<Item = String>) -> Result<HashSet<String>, Error>;

/// Notes whose task was revoked.
pub(super) fn tell_revoked(
    c: &Connection,
    look: LookUp,
    taken: &mut [Delivery],
) -> Result<(), Error> {
    let revoked = look(c, &mut taken.iter().filter_map(|one| one.payload.id()))?;
    let is_revoked = |one: &Delivery| one.payload.id().is_some_and(|id| revoked.contains(&id));
    for one in taken {
        one.revoked = Some(!revoked.is_empty() && is_revoked(one));
    }
    Ok(())
}

/// One look for messages.
pub(super) struct Taking<'a> {
    pub c: &'a Connection,
    pub owner: i64,
    /// Names that are left to others.
    pub left: &'a [Arc<str>],
}

impl Taking<'_> {
    /// Takes what `want` allows, the queues in turn; says whether any were passed on instead.
    pub(super) fn take(
        &self,
        queues: &[(i64, Arc<str>)],
        turn: usize,
        want: Want,
    ) -> Result<(Vec<Delivery>, bool), Error> {
        let (mut taken, mut passed) = (Vec::new(), false);
        for (limit, only_fresh) in [(want.slots, false), (want.slots + want.ahead, true)] {
            for n in 0..queues.len() {
                let queue = &queues[(turn + n) % queues.len()];
                passed |= self.take_unnamed(queue, limit, only_fresh, &mut taken)?;
                self.take_named(queue, limit, only_fresh, &mut taken)?;
            }
        }
        Ok((taken, passed))
    }

    fn take_unnamed(
        &self,
        queue: &(i64, Arc<str>),
        limit: usize,
        only_fresh: bool,
        taken: &mut Vec<Delivery>,
    ) -> Result<bool, Error> {
        let mut passed = 0;
        while taken.len() < limit && passed < LEFT_MAX {
            let wanted = limit - taken.len();
            let rows = self.rows(queue, None, wanted, only_fresh)?;
            let all = rows.len() < wanted;
            for delivery in rows {
                let name = (!self.left.is_empty()).then(|| delivery.payload.task()).flatten();
                match name.filter(|name| self.leaves(name)) {
                    Some(name) => {
                        passed += 1;
                        pass(self.c, self.owner, row_of(delivery.tag), &name)?;
                    }
                    None => taken.push(delivery),
                }
            }
            if all {
                break;
            }
        }
        Ok(passed > 0)
    }

    fn take_named(
        &self,
        queue: &(i64, Arc<str>),
        limit: usize,
        only_fresh: bool,
        taken: &mut Vec<Delivery>,
    ) -> Result<(), Error> {
        if taken.len() >= limit {
            return Ok(());
        }
        let names: Vec<String> = self
            .c
            .prepare_cached(NAMES)?
            .query_map([queue.0], |row| Ok(cell::text(row, 0)))?
            .collect::<Result<_, _>>()?;
        for name in names.iter().filter(|name| !self.leaves(name)) {
            let wanted = limit.saturating_sub(taken.len());
            if wanted > 0 {
                taken.extend(self.rows(queue, Some(name), wanted, only_fresh)?);
            }
        }
        Ok(())
    }

    fn leaves(&self, name: &str) -> bool {
        self.left.iter().any(|left| **left == *name)
    }

    /// Takes rows that have this name, or with none.
    fn rows(
        &self,
        (queue_id, queue): &(i64, Arc<str>),
        name: Option<&str>,
        limit: usize,
        only_fresh: bool,
    ) -> Result<Vec<Delivery>, Error> {
        let which = if name.is_some() { "task = ?5" } else { "task IS NULL AND ?5 IS NULL" };
        let mut statement = self.c.prepare_cached(&format!(
            "UPDATE kombu_message SET visible = 0, owner = ?1, started = 1 - suspect,
                 version = version + 1
             WHERE id IN (SELECT id FROM kombu_message
                 WHERE queue_id = ?2 AND visible = 1 AND eta IS NULL AND {which}
                     AND (?4 = 0 OR suspect = 0)
                 ORDER BY priority DESC, id LIMIT ?3)
             RETURNING id, priority, deliveries, payload, suspect"
        ))?;
        let values = params![self.owner, queue_id, limit as i64, only_fresh, name];
        let rows = statement.query_map(values, |row| {
            let payload = payload_of(row, 3)?;
            let tag = Tag::Row(row.get(0)?);
            let (deliveries, suspect) = (cell::count(row, 2), cell::number(row, 4) != 0);
            let queue = queue.clone();
            Ok((
                cell::number(row, 1),
                Delivery { tag, queue, payload, message: None, deliveries, suspect, revoked: None },
            ))
        })?;
        // RETURNING gives rows in no promised order.
        let mut rows: Vec<(i64, Delivery)> = rows.collect::<Result<_, _>>()?;
        rows.sort_by_key(|(priority, delivery)| (Reverse(*priority), row_of(delivery.tag)));
        Ok(rows.into_iter().map(|(_, delivery)| delivery).collect())
    }
}
