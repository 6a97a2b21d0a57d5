//! The task files below a worker: read again when that is due, kept as they were while they cannot
//! be read, and looked at now and then, for whoever edits one should know when it counts.

use super::app::App;
use crate::clock;
use crate::worker::drive::Reader;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(3);

/// Looking takes this part of the time at the most, however many files there are.
const LOOK_SHARE: u32 = 200;

/// Watches the files of `app`, which were read when their stamp was this. Must be called on an event
/// loop with local tasks.
pub(super) fn start(app: App, stamp: u64) -> Reader {
    let stamp = Arc::new(AtomicU64::new(stamp));
    tokio::task::spawn_local(notice_changes(app.clone(), stamp.clone()));
    reader(app, stamp)
}

/// Reads the definitions when their files are not those of `stamp` any more; a mistake in them is
/// told once. What cannot be read changes nothing.
fn reader(app: App, stamp: Arc<AtomicU64>) -> Reader {
    let mut told = HashSet::new();
    let mut tell = move |line: String| {
        if !told.contains(&line) {
            tracing::warn!("{line}");
            told.insert(line);
        }
    };
    Box::new(move || {
        let found = app.stamp();
        if stamp.load(Ordering::Relaxed) == found {
            return None;
        }
        let (tasks, faults) = app.examine_tasks();
        faults.iter().for_each(|fault| tell(fault.to_string()));
        let folder = app.folder.join("tasks.d");
        if App::seen(&faults).is_err() {
            return None;
        }
        if tasks.is_empty() && !folder.exists() {
            tell(format!("{} is gone; the tasks stay as they were", folder.display()));
            return None;
        }
        stamp.store(found, Ordering::Relaxed);
        Some(tasks)
    })
}

/// Says once that the files are not those of `stamp`.
async fn notice_changes(app: App, stamp: Arc<AtomicU64>) {
    let (begun, mut told) = (clock::local(clock::now()), None);
    let mut pause = LOOK_EVERY;
    loop {
        tokio::time::sleep(pause).await;
        let (start, of) = (Instant::now(), app.clone());
        // There may be many.
        let found = tokio::task::spawn_blocking(move || of.stamp()).await;
        pause = LOOK_EVERY.max(start.elapsed() * LOOK_SHARE);
        let known = stamp.load(Ordering::Relaxed);
        let changed = matches!(found, Ok(found) if found != known);
        if changed && told != Some(known) {
            tracing::warn!(
                "{}/tasks.d has changed since its tasks were read (the worker began at {begun}); HUP loads it",
                app.folder.display()
            );
        }
        told = changed.then_some(known);
    }
}
