//! Waiting for a result without polling.

use super::Client;
use crate::backend::Store;
use crate::broker::{Error, Whereabouts};
use crate::wire::result::Meta;
use std::time::{Duration, Instant};

/// After this time, waiting for an unknown task prints a note.
const LONG: Duration = Duration::from_secs(1);

/// A broker is searched again after this many times the duration of the last search: many clients
/// may wait, and searching a long queue takes long.
const SEARCH_SHARE: u32 = 200;

/// How many more times a task that is found nowhere is searched for.
const SEARCHES_MORE: usize = 2;

/// The known status of a task id.
#[derive(Debug, Clone)]
pub enum TaskStatus {
    /// It has a result; not always a final one.
    Result(Box<Meta>),
    /// No result yet, and the broker knows where it is.
    Pending(Whereabouts),
    /// Nobody has heard of it, or its result was ignored, or has expired.
    Unknown,
}

/// What is known of `task_id` now.
pub async fn look(client: &Client, task_id: &str) -> Result<TaskStatus, Error> {
    // A broker without an index is long to search, and a result says all.
    if let Some(meta) = client.store.get(task_id).await? {
        return Ok(TaskStatus::Result(Box::new(meta)));
    }
    let mut place = client.broker.admin().find(task_id.to_string()).await?;
    // A broker without an index is searched place by place, and a message that moves meanwhile, such
    // as one that is redelivered, may be missed in both.
    for _ in 0..SEARCHES_MORE {
        if !matches!(place, Whereabouts::Absent) {
            break;
        }
        place = client.broker.admin().find(task_id.to_string()).await?;
    }
    // Again: a task that ended in between is found done.
    if let Some(meta) = client.store.get(task_id).await? {
        return Ok(TaskStatus::Result(Box::new(meta)));
    }
    Ok(match place {
        Whereabouts::Absent => TaskStatus::Unknown,
        place => TaskStatus::Pending(place),
    })
}

/// Waits until `task_id` is ready, or until it is found to be unknown. Never ends for a
/// task that never does: the caller has the deadline.
pub async fn until_ready(client: &Client, task_id: &str) -> Result<TaskStatus, Error> {
    let mut listener = client.store.listen(&[task_id.to_string()]).await?;
    let mut search_at = Instant::now();
    loop {
        if Instant::now() < search_at {
            let stored = client.store.get(task_id).await?;
            if let Some(meta) = stored.filter(Meta::is_ready) {
                return Ok(TaskStatus::Result(Box::new(meta)));
            }
        } else {
            let begin = Instant::now();
            match look(client, task_id).await? {
                TaskStatus::Result(meta) if meta.is_ready() => return Ok(TaskStatus::Result(meta)),
                TaskStatus::Unknown => return Ok(TaskStatus::Unknown),
                TaskStatus::Pending(Whereabouts::Dead(number)) => {
                    return Ok(TaskStatus::Pending(Whereabouts::Dead(number)));
                }
                TaskStatus::Result(_) | TaskStatus::Pending(_) => {}
            }
            search_at = Instant::now() + begin.elapsed() * SEARCH_SHARE;
        }
        listener.stored().await;
    }
}

/// The same of an id that may not be known yet, or is known to a Python worker alone, which has
/// acknowledged its message: a store that keeps results may still get one. `tell` is called once
/// when that takes long.
pub async fn until_known(
    client: &Client,
    task_id: &str,
    tell: impl FnOnce(),
) -> Result<TaskStatus, Error> {
    let answer = until_ready(client, task_id).await?;
    if !matches!(answer, TaskStatus::Unknown) || matches!(client.store, Store::Disabled(_)) {
        return Ok(answer);
    }
    let known = async {
        let mut listener = client.store.listen(&[task_id.to_string()]).await?;
        loop {
            match client.store.get(task_id).await? {
                Some(meta) if meta.is_ready() => return Ok(TaskStatus::Result(Box::new(meta))),
                _ => listener.stored().await,
            }
        }
    };
    let mut known = std::pin::pin!(known);
    match tokio::time::timeout(LONG, &mut known).await {
        Ok(answer) => answer,
        Err(_) => {
            tell();
            known.await
        }
    }
}
