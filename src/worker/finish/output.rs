//! What a task wrote: its result as JSON, and its last lines.

use super::text::short;
use crate::bounds;
use crate::runner::{Captured, Outcome};
use crate::task::ResultMode;
use crate::wire::{Exception, value};
use serde_json::Value;
use serde_json::value::RawValue;

/// Standard output as a JSON value.
///
/// # Errors
/// `result: json`, and the output is not one whole JSON text.
pub(super) fn result_of(output: &Captured, mode: ResultMode) -> Result<Box<RawValue>, Exception> {
    let text = || String::from_utf8_lossy(&output.bytes).into_owned();
    let whole = output.dropped == 0;
    let wrong = |why: String| Exception::new("builtins", "ValueError", why);
    match mode {
        ResultMode::None => Ok(value::raw(&Value::Null)),
        ResultMode::Bytes => Ok(value::raw(&value::bytes(&output.bytes))),
        ResultMode::Text => Ok(value::raw(&Value::String(without_newline(&text()).into()))),
        ResultMode::Json if !whole => Err(wrong(format!(
            "result: json, but {} bytes of output went over max_output",
            output.dropped
        ))),
        ResultMode::Json => json_text(&output.bytes).ok_or_else(|| {
            wrong(format!("result: json, but the output is {:?}", short(&text(), 200)))
        }),
        ResultMode::Auto => Ok(auto(output, whole)),
    }
}

fn auto(output: &Captured, whole: bool) -> Box<RawValue> {
    if output.bytes.is_empty() {
        return value::raw(&Value::Null);
    }
    if let Some(json) = whole.then(|| json_text(&output.bytes)).flatten() {
        return json;
    }
    match std::str::from_utf8(&output.bytes) {
        Ok(text) => value::raw(&Value::String(without_newline(text).into())),
        // The first character may be cut; that is still text.
        Err(error) if !whole && error.valid_up_to() == 0 => {
            let text = String::from_utf8_lossy(&output.bytes);
            value::raw(&Value::String(without_newline(&text).into()))
        }
        Err(_) => value::raw(&value::bytes(&output.bytes)),
    }
}

fn json_text(bytes: &[u8]) -> Option<Box<RawValue>> {
    let json = serde_json::from_slice::<Box<RawValue>>(bytes.trim_ascii()).ok()?;
    value::is_read_by_python(&json).then_some(json)
}

fn without_newline(text: &str) -> &str {
    text.strip_suffix('\n').map_or(text, |t| t.strip_suffix('\r').unwrap_or(t))
}

/// The end of standard error, or of standard output if the former is empty.
pub(super) fn last_output(outcome: &Outcome) -> Option<String> {
    tail(&outcome.stderr).or_else(|| tail(&outcome.stdout))
}

/// The end of a stream as text; `None` if there is none.
pub(super) fn tail(stream: &Captured) -> Option<String> {
    let from = stream.bytes.len().saturating_sub(bounds::TRACEBACK_MAX);
    let text = String::from_utf8_lossy(&stream.bytes[from..]);
    let text = text.trim_end();
    (!text.is_empty()).then(|| text.to_string())
}
