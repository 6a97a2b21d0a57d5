//! The form in which Celery stores an exception, so that a Python client raises it.

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

    /// As the result document has it.
    pub fn to_json(&self) -> Value {
        json!({"exc_type": self.exc_type, "exc_message": self.exc_message, "exc_module": self.exc_module})
    }
}
