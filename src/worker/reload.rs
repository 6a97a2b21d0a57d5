//! Reads the definitions of tasks again, on a thread: there may be many. One reading at a time.

use super::core::Event;
use crate::broker::Sorting;
use crate::task::set::Set;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::{spawn_blocking, spawn_local};

/// How often the definitions are read while there are messages of unknown tasks.
const RELOAD_EVERY: Duration = Duration::from_secs(2);

/// Reads the definitions of tasks, if their files have changed since the last time.
pub type TaskReader = Box<dyn FnMut() -> Option<Set> + Send>;

/// Sends [`Event::Tasks`] when the definitions have changed.
#[derive(Clone)]
pub(super) struct Reload {
    events: mpsc::UnboundedSender<Event>,
    /// `None` while a thread reads.
    reader: Rc<RefCell<Option<TaskReader>>>,
}

impl Reload {
    /// Reads now and then while `sorting` has names of unknown tasks: they may be defined by then.
    pub(super) fn new(
        reader: TaskReader,
        events: mpsc::UnboundedSender<Event>,
        sorting: watch::Receiver<Sorting>,
    ) -> Reload {
        let reload = Reload { events, reader: Rc::new(RefCell::new(Some(reader))) };
        spawn_local(reload.clone().repeat(sorting));
        reload
    }

    async fn repeat(self, mut sorting: watch::Receiver<Sorting>) {
        while sorting.wait_for(|names| !names.left.is_empty()).await.is_ok() {
            tokio::time::sleep(RELOAD_EVERY).await;
            self.read();
        }
    }

    /// Reads the definitions, unless they are being read.
    pub(super) fn read(&self) {
        let Some(mut reader) = self.reader.take() else { return };
        let (place, events) = (self.reader.clone(), self.events.clone());
        spawn_local(async move {
            // A panic of the thread ends the process.
            let read = spawn_blocking(move || (reader(), reader)).await;
            let Ok((tasks, reader)) = read else { return };
            *place.borrow_mut() = Some(reader);
            if let Some(tasks) = tasks {
                let _ = events.send(Event::Tasks(Arc::new(tasks)));
            }
        });
    }
}
