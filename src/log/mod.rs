//! Log lines, in Celery's format or in JSON, to standard error or to a file, through a queue: a
//! slow terminal or a full disk never stops the worker. Lines without room are dropped and counted,
//! and the count is logged. Never decides what a line says.

pub mod escape;
mod file;
mod format;
mod sink;

pub use file::Rotation;
pub use format::Format;

use crate::os::signal::with_signals_blocked;
use file::LogFile;
use format::{EventFormat, LogContext};
use sink::{Backlog, Sink, Stderr};
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tracing::Level;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::LevelFilter;

/// Lines in the queue, at most.
const LINES_MAX: usize = 8192;

/// How long the end of the program waits for room in the queue.
const LAST_WAIT: Duration = Duration::from_secs(1);

/// How a program logs.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// The lowest level that is logged.
    pub level: LevelFilter,
    /// Colours, if the lines go to a terminal.
    pub color: bool,
    /// The format of the lines.
    pub format: Format,
    /// The file; `None` is standard error.
    pub file: Option<PathBuf>,
    /// When the file is rotated.
    pub rotation: Rotation,
    /// The node that logs, `worker1@host`.
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

/// Keeps the log open; the queue is written out when this is dropped.
#[derive(Debug)]
pub struct LogGuard {
    queue: Option<WorkerGuard>,
    backlog: Arc<Backlog>,
}

/// The lines of this process.
static BACKLOG: OnceLock<Arc<Backlog>> = OnceLock::new();

/// How many lines the log has lost, and why, unless the log itself says so.
pub fn lost() -> Option<String> {
    BACKLOG.get()?.lost()
}

/// Starts logging. A file that cannot be opened is tried again with every line; until then, lines
/// are dropped and counted ([`writable`] tells in advance).
pub fn start(options: LogOptions) -> LogGuard {
    let color = options.color && options.file.is_none() && io::stderr().is_terminal();
    let origin = LogContext::of_worker(options.format, options.node);
    let backlog = Arc::new(Backlog::default());
    let queue = NonBlockingBuilder::default()
        .buffered_lines_limit(LINES_MAX)
        .lossy(true)
        .thread_name("log");
    let (to, counts) = (origin.clone(), Arc::clone(&backlog));
    let (writer, guard) = with_signals_blocked(|| match options.file {
        Some(path) => queue.finish(Sink::new(LogFile::new(path, options.rotation), to, counts)),
        None => queue.finish(Sink::new(Stderr, to, counts)),
    });
    backlog.count_with(writer.error_counter());
    // A second start (in tests) keeps the first.
    let _ = BACKLOG.set(Arc::clone(&backlog));
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(options.level)
        .with_writer(writer)
        .event_format(EventFormat::new(origin, color, Arc::clone(&backlog)))
        .finish();
    // A second start (in tests) keeps the first.
    let _ = tracing::subscriber::set_global_default(subscriber);
    LogGuard { queue: Some(guard), backlog }
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        let end = Instant::now() + LAST_WAIT;
        while self.backlog.lines() >= LINES_MAX && Instant::now() < end {
            // The queue does not notify about room.
            std::thread::sleep(Duration::from_millis(5));
        }
        if self.backlog.lines() >= LINES_MAX {
            // Dropping it would complain on standard output; the process ends anyway.
            std::mem::forget(self.queue.take());
        }
    }
}

/// Can this file be written to? Creates it if it does not exist; does not open a pipe or device.
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

/// Appends one line to a log file that another process writes to as well, in one call. For the
/// guard, which has no threads.
///
/// # Errors
/// The line could not be written.
pub fn append(path: &Path, format: Format, node: &str, level: Level, text: &str) -> io::Result<()> {
    let mut file: File = file::open(path)?;
    file.write_all(LogContext::of_guard(format, node.to_string()).note(level, text).as_bytes())
}

/// Logs a line whose level is known at run time.
pub fn line(level: Level, text: &str) {
    match level {
        Level::ERROR => tracing::error!("{text}"),
        Level::WARN => tracing::warn!("{text}"),
        Level::INFO => tracing::info!("{text}"),
        _ => tracing::debug!("{text}"),
    }
}

/// Logs a line about a task; its level is known at run time.
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
