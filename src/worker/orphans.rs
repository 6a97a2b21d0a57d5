//! Kills processes left behind by tasks: those of this worker's tasks when they have ended,
//! and those of a dead worker before one of its tasks starts again here.

use super::core::Event;
use super::request::AttemptKey;
use crate::os::reap::Reaper;
use crate::os::tree;
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::{spawn_blocking, spawn_local};

/// How often orphans of this worker's tasks are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// Attempts, with the ids of their tasks, whose leftovers are to be killed.
type Leftovers = Vec<(AttemptKey, String)>;

/// Ids of the tasks that run as processes.
pub(super) type Processes = Rc<RefCell<HashMap<AttemptKey, String>>>;

/// Kills what ended tasks left behind in process groups of its own, again and again. What a running
/// task has put into the background belongs to that task.
pub(super) async fn sweep(reaper: Rc<Reaper>, processes: Processes) {
    let mut every = tokio::time::interval(SWEEP_EVERY);
    loop {
        every.tick().await;
        let marks: Vec<String> =
            processes.borrow().values().map(|id| format!("{}={id}", tree::TASK)).collect();
        tree::kill_strays(&|pid| {
            reaper.watches(pid) || marks.iter().any(|mark| tree::has_mark(pid, mark.as_bytes()))
        });
    }
}

/// Kills what the attempts of dead workers left behind, on a thread: looking through all processes
/// takes too long for the loop. One look at a time; requests that arrive meanwhile share the next.
pub(super) struct Cleaner {
    events: mpsc::UnboundedSender<Event>,
    /// The attempts for the next look; `None` while there is no look.
    waiting: Rc<RefCell<Option<Leftovers>>>,
    /// Processes that the last look found to be no task's.
    strangers: Rc<RefCell<tree::Strangers>>,
}

impl Cleaner {
    /// Sends [`Event::Cleared`] to `events`.
    pub(super) fn new(events: mpsc::UnboundedSender<Event>) -> Cleaner {
        Cleaner { events, waiting: Rc::default(), strangers: Rc::default() }
    }

    /// Kills what earlier attempts at the task `id` left behind.
    pub(super) fn clear(&self, key: AttemptKey, id: String) {
        if let Some(waiting) = &mut *self.waiting.borrow_mut() {
            return waiting.push((key, id));
        }
        *self.waiting.borrow_mut() = Some(vec![(key, id)]);
        let (waiting, events) = (self.waiting.clone(), self.events.clone());
        let known = self.strangers.clone();
        spawn_local(async move {
            loop {
                let batch = waiting.borrow_mut().as_mut().map(std::mem::take).unwrap_or_default();
                if batch.is_empty() {
                    break;
                }
                let (keys, ids): (Vec<AttemptKey>, HashSet<String>) = batch.into_iter().unzip();
                let mut strangers = known.take();
                let look = move || (tree::kill_leftovers(&ids, &mut strangers), strangers);
                // A panic of the thread ends the process.
                let Ok((count, seen)) = spawn_blocking(look).await else { return };
                known.replace(seen);
                if count > 0 {
                    tracing::warn!("ended {count} processes left by a dead worker");
                }
                let _ = events.send(Event::Cleared(keys));
            }
            *waiting.borrow_mut() = None;
        });
    }
}
