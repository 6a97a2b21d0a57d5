//! Values as log lines show them.

use crate::wire::Exception;
use serde_json::Value;

/// The last `count` lines of `text` as one line.
pub(super) fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    short(&lines[lines.len().saturating_sub(count)..].join(" | "), 300)
}

/// `text`; what is beyond `max` characters is replaced by `...`.
pub(in crate::worker) fn short(text: &str, max: usize) -> String {
    match text.char_indices().nth(max) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text.to_string(),
    }
}

/// An exception as Python's `repr` shows it.
pub(in crate::worker) fn show(exception: &Exception) -> String {
    // Two arguments identify it; a third is a long text that is shown elsewhere.
    let shorten = |arg: &Value| match arg.as_str() {
        Some(text) => Value::String(short(text, 200)),
        None => arg.clone(),
    };
    let args = exception.exc_message.iter().take(2).filter(|arg| !arg.is_null());
    Exception { exc_message: args.map(shorten).collect(), ..exception.clone() }.repr(2)
}

/// A number of bytes in MiB.
pub(super) fn mebibytes(count: u64) -> String {
    format!("{:.1} MiB", count as f64 / 1048576.0)
}
