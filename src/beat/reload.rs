//! Reads the definitions in the background: a hundred thousand entries take a moment, and what
//! is due does not wait for them.

use super::state::{Fingerprint, Fingerprinted};
use super::{DefinitionSource, Definitions, Router};
use tokio::task::JoinHandle;

/// What was read.
type Read = (Fingerprinted, Router);

/// A reading under way. It gives the source back.
type Reading = JoinHandle<(Box<dyn DefinitionSource>, Option<Read>)>;

/// Reads a source when it is stale.
pub(super) struct Reloader {
    /// `None` while it is being read.
    source: Option<Box<dyn DefinitionSource>>,
    reading: Option<Reading>,
    stale: bool,
}

impl Reloader {
    /// Begins by reading it.
    pub(super) fn new(source: Box<dyn DefinitionSource>) -> Reloader {
        Reloader { source: Some(source), reading: None, stale: true }
    }

    /// The definitions have to be read again.
    pub(super) fn mark_stale(&mut self) {
        self.stale = true;
    }

    /// Looks whether the definitions have changed.
    pub(super) fn look(&mut self) {
        self.stale |= self.source.as_mut().is_some_and(|source| source.changed());
    }

    /// Resolves when definitions have been read. May be dropped and called again.
    pub(super) async fn next(&mut self) -> Read {
        loop {
            let stale = self.stale;
            if let Some(mut source) = self.source.take_if(|_| stale) {
                self.stale = false;
                self.reading = Some(tokio::task::spawn_blocking(move || {
                    let read = source.read();
                    let read = read.map(|Definitions { entries, router }| {
                        (Fingerprint::of_all(entries), router)
                    });
                    (source, read)
                }));
            }
            let Some(reading) = &mut self.reading else { return std::future::pending().await };
            let done = reading.await;
            self.reading = None;
            if let Ok((source, read)) = done {
                self.source = Some(source);
                if let Some(read) = read {
                    return read;
                }
            }
        }
    }
}
