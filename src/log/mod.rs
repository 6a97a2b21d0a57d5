//! Log lines in Celery's form, `[2026-11-20 17:30:39,120: INFO/MainProcess] …`, through a
//! queue: a slow terminal never stops the worker. What the queue cannot hold is dropped, and counted.

use crate::os::signal::deaf;
use chrono::Local;
use std::fmt;
use std::io::IsTerminal;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Lines waiting to be written at the most.
const LINES_MAX: usize = 8192;

/// Starts logging to standard error from `level` on; keep the guard until the end of the
/// program, it writes out what waits.
pub fn start(level: LevelFilter, color: bool) -> WorkerGuard {
    let color = color && std::io::stderr().is_terminal();
    let queue = NonBlockingBuilder::default()
        .buffered_lines_limit(LINES_MAX)
        .lossy(true)
        .thread_name("log");
    let (writer, guard) = deaf(|| queue.finish(std::io::stderr()));
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_ansi(color)
        .with_writer(writer)
        .event_format(CeleryLine)
        .finish();
    // A second start (in tests) keeps the first.
    let _ = tracing::subscriber::set_global_default(subscriber);
    guard
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

struct CeleryLine;

impl<S, N> FormatEvent<S, N> for CeleryLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let level = event.metadata().level();
        let (name, color) = match *level {
            Level::ERROR => ("ERROR", "\x1b[31m"),
            Level::WARN => ("WARNING", "\x1b[33m"),
            Level::INFO => ("INFO", ""),
            _ => ("DEBUG", "\x1b[34m"),
        };
        let color = if out.has_ansi_escapes() { color } else { "" };
        let reset = if color.is_empty() { "" } else { "\x1b[0m" };
        let now = Local::now().format("%Y-%m-%d %H:%M:%S,%3f");
        write!(out, "{color}[{now}: {name}/MainProcess] ")?;
        let mut message = Message(String::new());
        event.record(&mut message);
        writeln!(out, "{}{reset}", message.0)
    }
}

/// The text of an event, its fields after it.
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        use fmt::Write;
        // Writing to a String cannot fail.
        let _ = match field.name() {
            "message" => write!(self.0, "{value:?}"),
            name if name.starts_with("log.") => Ok(()),
            name => write!(self.0, " {name}={value:?}"),
        };
    }
}
