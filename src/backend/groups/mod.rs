//! Records of groups, as Python's `GroupResult.save()` writes them and `GroupResult.restore()` reads
//! them, with what Python has no field for: which task of the workflow follows which.

#[cfg(feature = "redis")]
mod redis;
mod sqlite;

use super::{Error, Store};
use serde_json::Value;

/// A group that was saved.
#[derive(Debug, Clone)]
pub struct GroupRecord {
    /// Its id; of a workflow that ends with one task, the id of that.
    pub id: String,
    /// Its results, as Celery lists them.
    pub result: Value,
    /// The workflow, if a client of ours has saved it; see [`crate::canvas::graph::Graph::write`].
    pub graph: Option<String>,
}

impl Store {
    /// Saves a group: its results as Celery lists them, and the graph of its workflow.
    ///
    /// # Errors
    /// The store cannot be reached, or refuses it.
    pub async fn save_group(
        &self,
        id: &str,
        result: &str,
        graph: Option<String>,
    ) -> Result<(), Error> {
        match self {
            Store::Sqlite(store) => store.save_group(id, result, graph).await,
            #[cfg(feature = "redis")]
            Store::Redis(store) => store.save_group(id, result, graph).await,
            Store::Disabled(_) => Ok(()),
        }
    }

    /// The group of this id, if it was saved.
    ///
    /// # Errors
    /// The store cannot be reached.
    pub async fn group(&self, id: &str) -> Result<Option<GroupRecord>, Error> {
        match self {
            Store::Sqlite(store) => store.group(id).await,
            #[cfg(feature = "redis")]
            Store::Redis(store) => store.group(id).await,
            Store::Disabled(_) => Ok(None),
        }
    }

    /// A saved group with this task in it: looks through all of them.
    ///
    /// # Errors
    /// The store cannot be reached.
    pub async fn group_with(&self, task_id: &str) -> Result<Option<GroupRecord>, Error> {
        match self {
            Store::Sqlite(store) => store.group_with(task_id).await,
            #[cfg(feature = "redis")]
            Store::Redis(store) => store.group_with(task_id).await,
            Store::Disabled(_) => Ok(None),
        }
    }

    /// A task that lists this one among its children, where results do not name their parents: looks
    /// through all of them.
    ///
    /// # Errors
    /// The store cannot be reached.
    pub async fn parent_of(&self, task_id: &str) -> Result<Option<String>, Error> {
        match self {
            Store::Sqlite(store) => store.parent_of(task_id).await,
            _ => Ok(None),
        }
    }
}
