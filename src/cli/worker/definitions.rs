//! The definitions of tasks below a worker: how they are read again, and a warning when their files
//! have changed. Definitions that cannot be read stay as they were.

use crate::cli::app::App;
use crate::clock;
use crate::worker::reload::TaskReader;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How often the files are checked for changes.
const CHECK_EVERY: Duration = Duration::from_secs(3);

/// A check takes at most one in this many parts of the time, however many files there are.
const CHECK_SHARE: u32 = 200;

/// Warns of changes to the files of `app`, which had this stamp when they were read, and returns what
/// reads them again. Must be called inside a `LocalSet`.
pub(super) fn watch(app: App, stamp: u64) -> TaskReader {
    let stamp = Arc::new(AtomicU64::new(stamp));
    tokio::task::spawn_local(warn_of_changes(app.clone(), stamp.clone()));
    reader(app, stamp)
}

/// Reads the definitions if the stamp of their files has changed. A mistake in them is logged once.
fn reader(app: App, stamp: Arc<AtomicU64>) -> TaskReader {
    let mut logged = HashSet::new();
    let mut warn = move |line: String| {
        if !logged.contains(&line) {
            tracing::warn!("{line}");
            logged.insert(line);
        }
    };
    Box::new(move || {
        let found = app.stamp();
        if stamp.load(Ordering::Relaxed) == found {
            return None;
        }
        let (tasks, faults) = app.examine_tasks();
        faults.iter().for_each(|fault| warn(fault.to_string()));
        let folder = app.folder.join("tasks.d");
        if App::seen(&faults).is_err() {
            return None;
        }
        if tasks.is_empty() && !folder.exists() {
            warn(format!("{} is missing; the tasks stay unchanged", folder.display()));
            return None;
        }
        stamp.store(found, Ordering::Relaxed);
        Some(tasks)
    })
}

/// Warns once of each change of the stamp.
async fn warn_of_changes(app: App, stamp: Arc<AtomicU64>) {
    let (started, mut warned) = (clock::local(clock::now()), None);
    let mut pause = CHECK_EVERY;
    loop {
        tokio::time::sleep(pause).await;
        let (start, of) = (Instant::now(), app.clone());
        // There may be many.
        let found = tokio::task::spawn_blocking(move || of.stamp()).await;
        pause = CHECK_EVERY.max(start.elapsed() * CHECK_SHARE);
        let known = stamp.load(Ordering::Relaxed);
        let changed = matches!(found, Ok(found) if found != known);
        if changed && warned != Some(known) {
            tracing::warn!(
                "{}/tasks.d has changed since its tasks were read (the worker started at {started}); HUP loads it",
                app.folder.display()
            );
        }
        warned = changed.then_some(known);
    }
}
