//! What takes too long for the loop: looking through all processes, reading all definitions. Each is
//! done by a thread, one at a time; what is asked for meanwhile is done together afterwards.

use super::core::Event;
use super::drive::Reader;
use crate::broker::Sorting;
use crate::os::tree;
use crate::pool::Key;
use std::cell::RefCell;
use std::collections::HashSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::{spawn_blocking, spawn_local};

/// How often it is looked whether a name that nobody knew is defined by now.
const DEFINITIONS_EVERY: Duration = Duration::from_secs(2);

/// Tasks, by their keys, whose leftovers are looked for.
type Leftovers = Vec<(Key, String)>;

/// The threads' side of the loop.
#[derive(Clone)]
pub(super) struct Chores {
    events: mpsc::UnboundedSender<Event>,
    /// Where the reader is while it does not read.
    reader: Rc<RefCell<Option<Reader>>>,
    /// Tasks to be cleared, while earlier ones are.
    waiting: Rc<RefCell<Option<Leftovers>>>,
    /// What the last look has found to be nobody's.
    strangers: Rc<RefCell<tree::Strangers>>,
}

impl Chores {
    /// While names are `left` to others, the definitions are looked at: they may come to know them.
    pub(super) fn new(
        reader: Reader,
        events: mpsc::UnboundedSender<Event>,
        sorting: watch::Receiver<Sorting>,
    ) -> Chores {
        let reader = Rc::new(RefCell::new(Some(reader)));
        let chores = Chores { events, reader, waiting: Rc::default(), strangers: Rc::default() };
        spawn_local(chores.clone().watch(sorting));
        chores
    }

    async fn watch(self, mut sorting: watch::Receiver<Sorting>) {
        while sorting.wait_for(|names| !names.left.is_empty()).await.is_ok() {
            tokio::time::sleep(DEFINITIONS_EVERY).await;
            self.read_tasks();
        }
    }

    /// Reads the definitions, unless they are being read.
    pub(super) fn read_tasks(&self) {
        let Some(mut reader) = self.reader.take() else { return };
        let (place, events) = (self.reader.clone(), self.events.clone());
        spawn_local(async move {
            // A thread that has panicked has ended the process.
            let read = spawn_blocking(move || (reader(), reader)).await;
            let Ok((tasks, reader)) = read else { return };
            *place.borrow_mut() = Some(reader);
            if let Some(tasks) = tasks {
                let _ = events.send(Event::Tasks(Arc::new(tasks)));
            }
        });
    }

    /// Ends what earlier attempts at this task may have left: one look at all processes is for
    /// all tasks that wait for one.
    pub(super) fn clear(&self, key: Key, id: String) {
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
                let (keys, ids): (Vec<Key>, HashSet<String>) = batch.into_iter().unzip();
                let mut strangers = known.take();
                let look = move || (tree::kill_left(&ids, &mut strangers), strangers);
                // A thread that has panicked has ended the process.
                let Ok((count, seen)) = spawn_blocking(look).await else { return };
                known.replace(seen);
                if count > 0 {
                    tracing::warn!("ended {count} processes that a dead worker had left");
                }
                let _ = events.send(Event::Cleared(keys));
            }
            *waiting.borrow_mut() = None;
        });
    }
}
