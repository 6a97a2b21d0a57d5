//! The form in which Celery stores an exception, so that a Python client raises it.

use super::repr;
use serde_json::value::RawValue;
use serde_json::{Value, json};

/// The exception of a hard limit; its argument is the limit in seconds.
pub const TIME_LIMIT_EXCEEDED: &str = "TimeLimitExceeded";

/// `{"exc_type", "exc_message", "exc_module"}` of a result document
/// (celery `backends/base.py`, `get_exception_info`).
#[derive(Debug, Clone, PartialEq)]
pub struct Exception {
    /// Class name, `CalledProcessError`.
    pub exc_type: String,
    /// Module of the class, `subprocess`. Must name an exception class if a
    /// Python client has that module loaded.
    pub exc_module: String,
    /// Arguments of the exception.
    pub exc_message: Vec<Value>,
}

impl Exception {
    /// An exception of `module` with one argument, a text.
    pub fn new(module: &str, class: &str, message: impl Into<String>) -> Exception {
        Exception::with(module, class, vec![Value::String(message.into())])
    }

    /// An exception of `module` with these arguments.
    pub fn with(module: &str, class: &str, args: Vec<Value>) -> Exception {
        Exception { exc_type: class.into(), exc_module: module.into(), exc_message: args }
    }

    /// Reads the three fields of a result document.
    pub fn read(result: &RawValue) -> Exception {
        let read = serde_json::from_str::<Value>(result.get()).unwrap_or_default();
        let text = |name: &str, other: &str| read[name].as_str().unwrap_or(other).to_string();
        Exception {
            exc_type: text("exc_type", "Exception"),
            exc_module: text("exc_module", "builtins"),
            exc_message: read["exc_message"].as_array().cloned().unwrap_or_default(),
        }
    }

    /// As Python's `repr` shows it, with `args` arguments at most.
    pub fn repr(&self, args: usize) -> String {
        let shown: Vec<String> = self.exc_message.iter().take(args).map(repr::value).collect();
        let unit = if self.exc_type == TIME_LIMIT_EXCEEDED { "s" } else { "" };
        format!("{}({}{unit})", self.exc_type, shown.join(", "))
    }

    /// As the result document has it.
    pub fn to_json(&self) -> Value {
        json!({"exc_type": self.exc_type, "exc_message": self.exc_message, "exc_module": self.exc_module})
    }
}
