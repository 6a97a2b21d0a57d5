//! Saved groups in Celery's table `celery_tasksetmeta`.

use super::GroupRecord;
use crate::backend::sqlite::{DATETIME, Store, decode};
use crate::clock;
use crate::link::error::{Error, StoreErrorKind};
use crate::link::sqlite::{Durability, cell};
use crate::wire::{EncodeError, ResultFormat, Shape};
use rusqlite::types::ValueRef;
use rusqlite::{OptionalExtension, Row, params};
use serde_json::Value;

impl Store {
    /// See [`crate::backend::Store::save_group`].
    pub(super) async fn save_group(
        &self,
        id: &str,
        result: &str,
        graph: Option<String>,
    ) -> Result<(), Error> {
        let refused = |error: EncodeError| Error::of(StoreErrorKind::Refused, error.to_string());
        let result = self.format().write_value(result.into()).map_err(refused)?;
        let id = id.to_string();
        let done = clock::now().format(DATETIME).to_string();
        self.db()
            .run(Durability::Process, move |c| {
                c.prepare_cached(
                    "INSERT INTO celery_tasksetmeta (taskset_id, result, date_done, graph)
                     VALUES (?1, ?2, ?3, ?4) ON CONFLICT (taskset_id)
                     DO UPDATE SET result = ?2, date_done = ?3, graph = ?4",
                )?
                .execute(params![id, result, done, graph])?;
                Ok(())
            })
            .await
    }

    /// See [`crate::backend::Store::group`].
    pub(super) async fn group(&self, id: &str) -> Result<Option<GroupRecord>, Error> {
        self.group_where("taskset_id = ?", id.to_string()).await
    }

    /// See [`crate::backend::Store::group_with`].
    pub(super) async fn group_with(&self, task_id: &str) -> Result<Option<GroupRecord>, Error> {
        let quoted = Value::from(task_id).to_string();
        let condition = "instr(ifnull(graph, ''), ?1) > 0 OR instr(CAST(result AS TEXT), ?1) > 0";
        self.group_where(condition, quoted).await
    }

    async fn group_where(
        &self,
        condition: &'static str,
        text: String,
    ) -> Result<Option<GroupRecord>, Error> {
        let format = self.format().clone();
        self.db()
            .run(Durability::Read, move |c| {
                let sql = format!(
                    "SELECT taskset_id, result, graph FROM celery_tasksetmeta WHERE {condition}
                     ORDER BY id DESC LIMIT 1"
                );
                Ok(c.prepare_cached(&sql)?
                    .query_row([&text], |row| read(row, &format))
                    .optional()?)
            })
            .await
    }

    /// See [`crate::backend::Store::parent_of`].
    pub(super) async fn parent_of(&self, task_id: &str) -> Result<Option<String>, Error> {
        let quoted = Value::from(task_id).to_string();
        self.db()
            .run(Durability::Read, move |c| {
                let sql = "SELECT task_id FROM celery_taskmeta
                           WHERE instr(CAST(ifnull(children, '') AS TEXT), ?) > 0 LIMIT 1";
                let mut ask = c.prepare_cached(sql)?;
                Ok(ask.query_row([&quoted], |row| Ok(cell::text(row, 0))).optional()?)
            })
            .await
    }
}

fn read(row: &Row, format: &ResultFormat) -> rusqlite::Result<GroupRecord> {
    let result = match row.get_ref(1)? {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => {
            let shape = Shape::Value { is_failed: false };
            serde_json::from_str(decode(bytes, shape, format).get()).unwrap_or_default()
        }
        _ => Value::Null,
    };
    Ok(GroupRecord { id: cell::text(row, 0), result, graph: cell::text_or_none(row, 2) })
}
