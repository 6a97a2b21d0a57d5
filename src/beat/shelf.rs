//! The definitions of a beat: read beside its work, and put into force when nothing is under way.

use super::state::Definition;
use super::{Address, Book, Definitions};
use crate::schedule::entry::Entry;
use std::sync::Arc;
use tokio::task::JoinHandle;

/// A [`Book`] that has been worked through.
pub(super) struct Read {
    pub(super) entries: Vec<(Arc<Entry>, Definition)>,
    pub(super) address: Box<dyn Fn(&Entry) -> Address + Send>,
}

impl Read {
    pub(super) fn from(definitions: &mut dyn Definitions) -> Option<Read> {
        let Book { entries, address } = definitions.read()?;
        Some(Read { entries: Definition::of_all(entries), address })
    }
}

/// A reading under way: it gives its reader back.
type Reading = JoinHandle<(Box<dyn Definitions>, Option<Read>)>;

/// The definitions, and whoever reads them.
pub(super) struct Shelf {
    /// `None` while they are being read.
    pub(super) definitions: Option<Box<dyn Definitions>>,
    pub(super) reading: Option<Reading>,
    /// They are to be read again.
    pub(super) stale: bool,
    /// What was read and is not in force yet.
    pub(super) read: Option<Read>,
}

impl Shelf {
    /// Begins to read what is stale. A hundred thousand entries take a moment, and what is due
    /// does not wait for them.
    pub(super) fn begin(&mut self) {
        let stale = self.stale;
        if let Some(mut definitions) = self.definitions.take_if(|_| stale) {
            self.stale = false;
            self.reading = Some(tokio::task::spawn_blocking(move || {
                let read = Read::from(&mut *definitions);
                (definitions, read)
            }));
        }
    }

    /// Resolves when something has been read.
    pub(super) async fn done(&mut self) {
        match &mut self.reading {
            Some(reading) => {
                if let Ok((definitions, read)) = reading.await {
                    self.definitions = Some(definitions);
                    self.read = read.or(self.read.take());
                }
                self.reading = None;
            }
            None => std::future::pending().await,
        }
    }

    pub(super) fn look(&mut self) {
        self.stale |= self.definitions.as_mut().is_some_and(|definitions| definitions.changed());
    }
}
