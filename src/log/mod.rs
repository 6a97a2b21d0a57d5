//! Log lines, in Celery's form or in JSON, to standard error or to a file, through a queue: a
//! slow terminal or a full disk never stops the worker. Lines that find no place are dropped,
//! counted, and the count is logged. Never says what a line means; that is its writer's matter.

pub mod escape;
mod file;
mod form;
mod sink;

pub use file::Rotation;
pub use form::Format;

use crate::os::signal::deaf;
use file::LogFile;
use form::{Origin, Told};
use sink::{Backlog, Sink, Stderr};
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tracing::Level;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::LevelFilter;

/// Lines waiting to be written at the most.
const LINES_MAX: usize = 8192;

/// At the end of the program the queue gets so long to find room for its last word.
const LAST_WAIT: Duration = Duration::from_secs(1);

/// How a program logs.
#[derive(Debug, Clone)]
pub struct Options {
    /// From this level on.
    pub level: LevelFilter,
    /// Colours, as far as the lines go to a terminal.
    pub color: bool,
    /// The form of the lines.
    pub format: Format,
    /// The file; `None` is standard error.
    pub file: Option<PathBuf>,
    /// When the file is put aside.
    pub rotation: Rotation,
    /// Whose lines they are, `worker1@host`.
    pub node: String,
}

/// The task that a line is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// Its name.
    pub task: String,
    /// Its id.
    pub id: String,
}

/// Keeps the log open; what waits is written when this is dropped.
#[derive(Debug)]
pub struct Keeper {
    queue: Option<WorkerGuard>,
    backlog: Arc<Backlog>,
}

/// The lines of this process.
static BACKLOG: OnceLock<Arc<Backlog>> = OnceLock::new();

/// How many lines the log has lost, and why, as long as it cannot say so itself.
pub fn lost() -> Option<String> {
    BACKLOG.get()?.lost()
}

/// Starts logging. A file that cannot be opened is tried again with every line: lines are dropped
/// and counted until then ([`writable`] tells before).
pub fn start(options: Options) -> Keeper {
    let color = options.color && options.file.is_none() && io::stderr().is_terminal();
    let origin = Origin::of_worker(options.format, options.node);
    let backlog = Arc::new(Backlog::default());
    let queue = NonBlockingBuilder::default()
        .buffered_lines_limit(LINES_MAX)
        .lossy(true)
        .thread_name("log");
    let (to, books) = (origin.clone(), Arc::clone(&backlog));
    let (writer, guard) = deaf(|| match options.file {
        Some(path) => queue.finish(Sink::new(LogFile::new(path, options.rotation), to, books)),
        None => queue.finish(Sink::new(Stderr, to, books)),
    });
    backlog.count_with(writer.error_counter());
    // A second start (in tests) keeps the first.
    let _ = BACKLOG.set(Arc::clone(&backlog));
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(options.level)
        .with_writer(writer)
        .event_format(Told::new(origin, color, Arc::clone(&backlog)))
        .finish();
    // A second start (in tests) keeps the first.
    let _ = tracing::subscriber::set_global_default(subscriber);
    Keeper { queue: Some(guard), backlog }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let end = Instant::now() + LAST_WAIT;
        while self.backlog.lines() >= LINES_MAX && Instant::now() < end {
            // The queue tells nobody when it has room again.
            std::thread::sleep(Duration::from_millis(5));
        }
        if self.backlog.lines() >= LINES_MAX {
            // Its end would complain on standard output; the process ends anyway.
            std::mem::forget(self.queue.take());
        }
    }
}

/// Can this file be written to? It is made if it is not there; a pipe or device is not opened.
///
/// # Errors
/// Why not.
pub fn writable(path: &Path) -> io::Result<()> {
    match path.metadata() {
        Ok(found) if found.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
        Ok(found) if !found.is_file() => Ok(()),
        _ => file::open(path).map(drop),
    }
}

/// Adds one line to a log file that another process writes too: whole, in one call. For a
/// program without threads, the guard.
///
/// # Errors
/// The line could not be written.
pub fn append(path: &Path, format: Format, node: &str, level: Level, text: &str) -> io::Result<()> {
    let mut file: File = file::open(path)?;
    file.write_all(Origin::of_guard(format, node.to_string()).note(level, text).as_bytes())
}

/// One line whose level is known at run time.
pub fn line(level: Level, text: &str) {
    match level {
        Level::ERROR => tracing::error!("{text}"),
        Level::WARN => tracing::warn!("{text}"),
        Level::INFO => tracing::info!("{text}"),
        _ => tracing::debug!("{text}"),
    }
}

/// One line about a task; its level is known at run time.
pub fn line_about(level: Level, about: &About, text: &str) {
    let About { task, id } = about;
    let (task, id) = (&*escape::name(task), &*escape::name(id));
    match level {
        Level::ERROR => tracing::error!(task, id, "{text}"),
        Level::WARN => tracing::warn!(task, id, "{text}"),
        Level::INFO => tracing::info!(task, id, "{text}"),
        _ => tracing::debug!(task, id, "{text}"),
    }
}
