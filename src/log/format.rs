//! The two formats of a line: Celery's, `[2026-11-20 17:30:39,120+01:00: INFO/MainProcess] …`, and
//! one JSON object for machines.

use super::escape;
use super::sink::Backlog;
use chrono::{Local, SecondsFormat};
use serde_json::{Map, Value};
use std::fmt::{self, Write};
use std::sync::Arc;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Fields that name the task of a line. In Celery's format the text already contains them.
const ABOUT: [&str; 2] = ["task", "id"];

/// The format of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// Celery's.
    #[default]
    Celery,
    /// A JSON object.
    Json,
}

/// Which process lines come from, and their format.
#[derive(Debug, Clone)]
pub(super) struct LogContext {
    format: Format,
    node: String,
    /// The name of the process in Celery's format and in JSON.
    process: [&'static str; 2],
}

impl LogContext {
    /// Lines of the worker proper.
    pub(super) fn of_worker(format: Format, node: String) -> LogContext {
        LogContext { format, node, process: ["MainProcess", "worker"] }
    }

    /// Lines of the guard.
    pub(super) fn of_guard(format: Format, node: String) -> LogContext {
        LogContext { format, node, process: ["Guard", "guard"] }
    }

    /// A line without fields, with its line end.
    pub(super) fn note(&self, level: Level, text: &str) -> String {
        let mut line = String::new();
        let parts = EventText { text: text.into(), fields: Map::new() };
        // Writing to a String cannot fail.
        let _ = self.write(&mut line, level, false, parts);
        line
    }

    fn write(
        &self,
        out: &mut dyn Write,
        level: Level,
        color: bool,
        parts: EventText,
    ) -> fmt::Result {
        match self.format {
            Format::Celery => self.write_celery(out, level, color, &parts),
            Format::Json => self.write_json(out, level, parts),
        }
    }

    fn write_celery(
        &self,
        out: &mut dyn Write,
        level: Level,
        color: bool,
        parts: &EventText,
    ) -> fmt::Result {
        let (color, reset) = match level {
            Level::ERROR if color => ("\x1b[31m", "\x1b[0m"),
            Level::WARN if color => ("\x1b[33m", "\x1b[0m"),
            Level::DEBUG | Level::TRACE if color => ("\x1b[34m", "\x1b[0m"),
            _ => ("", ""),
        };
        let now = Local::now().format("%Y-%m-%d %H:%M:%S,%3f%:z");
        // Further lines, of a traceback for instance, are indented: a line that begins with a
        // bracket is an event.
        let text = escape::lines(&parts.text).replace('\n', "\n  ");
        write!(out, "{color}[{now}: {}/{}] {text}", name(level), self.process[0])?;
        for (name, value) in parts.fields.iter().filter(|(name, _)| !ABOUT.contains(&&***name)) {
            match value {
                Value::String(text) => write!(out, " {name}={}", escape::line(text))?,
                other => write!(out, " {name}={other}")?,
            }
        }
        writeln!(out, "{reset}")
    }

    fn write_json(&self, out: &mut dyn Write, level: Level, parts: EventText) -> fmt::Result {
        let mut object = Map::new();
        let now = Local::now().to_rfc3339_opts(SecondsFormat::Micros, false);
        object.insert("time".into(), now.into());
        object.insert("level".into(), name(level).into());
        object.insert("message".into(), parts.text.into());
        object.extend(parts.fields);
        object.insert("node".into(), self.node.as_str().into());
        object.insert("process".into(), self.process[1].into());
        object.insert("pid".into(), std::process::id().into());
        writeln!(out, "{}", Value::Object(object))
    }
}

/// Python's name of a level.
fn name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "ERROR",
        Level::WARN => "WARNING",
        Level::INFO => "INFO",
        _ => "DEBUG",
    }
}

/// Formats events, and counts the lines that enter the queue.
pub(super) struct EventFormat {
    origin: LogContext,
    color: bool,
    backlog: Arc<Backlog>,
}

impl EventFormat {
    /// Colours are our own; those of the library are off.
    pub(super) fn new(origin: LogContext, color: bool, backlog: Arc<Backlog>) -> EventFormat {
        EventFormat { origin, color, backlog }
    }
}

impl<S, N> FormatEvent<S, N> for EventFormat
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
        let mut parts = EventText::default();
        event.record(&mut parts);
        self.backlog.one_more();
        self.origin.write(&mut out, *event.metadata().level(), self.color, parts)
    }
}

/// The text of an event and its fields.
#[derive(Default)]
struct EventText {
    text: String,
    fields: Map<String, Value>,
}

impl Visit for EventText {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.fields.insert(field.name().into(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.fields.insert(field.name().into(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.fields.insert(field.name().into(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.fields.insert(field.name().into(), value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            // Writing to a String cannot fail.
            "message" => drop(write!(self.text, "{value:?}")),
            name if name.starts_with("log.") => {}
            name => drop(self.fields.insert(name.into(), format!("{value:?}").into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_has_the_form_that_was_chosen() {
        let line = LogContext::of_guard(Format::Celery, "w@h".into()).note(Level::WARN, "a\nb");
        let odd =
            LogContext::of_guard(Format::Celery, "w@h".into()).note(Level::WARN, "a\x1b[2J\r");
        assert!(odd.ends_with("a\\x1b[2J\\r\n"), "{odd}");
        let (time, text) = line.split_once(": ").unwrap();
        assert_eq!(text, "WARNING/Guard] a\n  b\n");
        assert!(chrono::NaiveDateTime::parse_from_str(time, "[%Y-%m-%d %H:%M:%S,%3f%:z").is_ok());

        let line = LogContext::of_worker(Format::Json, "w@h".into()).note(Level::ERROR, "a\n\"b\"");
        assert_eq!(line.lines().count(), 1);
        let object: Value = serde_json::from_str(&line).unwrap();
        assert!(chrono::DateTime::parse_from_rfc3339(object["time"].as_str().unwrap()).is_ok());
        for (name, value) in [("level", "ERROR"), ("message", "a\n\"b\""), ("node", "w@h")] {
            assert_eq!(object[name], value);
        }
        assert_eq!(object["pid"], std::process::id());
    }
}
