//! An exception that a task has raised, as Celery's JSON has it: its class, its arguments and its
//! module. The objects in its arguments are shown as Python's `repr` would show most of them.
//!
//! Source: celery `backends/base.py` (`prepare_exception`), `utils/serialization.py`
//! (`UnpickleableExceptionWrapper`).

use super::super::{Exceptions, number};
use super::globals::refused;
use super::values::{Arena, PickleNode, Value, Writer};
use super::wrong;
use crate::wire::message::Malformed;
use crate::wire::repr;
use std::borrow::Cow;

/// Objects within objects, and bytes of them, that are shown.
const SHOWN_DEPTH: usize = 8;
const SHOWN_MAX: usize = 1024;

/// States whose result is an exception (celery `states.py`, `EXCEPTION_STATES`).
const FAILED: [&[u8]; 3] = [b"RETRY", b"FAILURE", b"REVOKED"];

impl Arena<'_> {
    /// The place in a value where an exception may stand, if one stands there.
    pub(super) fn exception(&self, value: Value, exceptions: Exceptions) -> Option<Value> {
        let found = match exceptions {
            Exceptions::Refused => None,
            Exceptions::Whole => Some(value),
            Exceptions::OfFailed => {
                let (state, result) = match self.node(value)? {
                    PickleNode::Dict(pairs) => {
                        let field = |name: &[u8]| {
                            let mut all = pairs.iter().rev();
                            all.find(|(key, _)| self.text_of(*key) == Some(name)).map(|pair| pair.1)
                        };
                        (field(b"status")?, field(b"result")?)
                    }
                    PickleNode::List(items) | PickleNode::Tuple(items) => match items[..] {
                        [_, _, state, result] => (state, result),
                        _ => return None,
                    },
                    _ => return None,
                };
                self.text_of(state).is_some_and(|state| FAILED.contains(&state)).then_some(result)
            }
        };
        found.filter(|found| matches!(self.node(*found), Some(PickleNode::Object(..))))
    }

    /// The error of an object of this class.
    pub(super) fn no_data(&self, class: Value) -> Malformed {
        match self.node(class) {
            Some(PickleNode::Class(module, name)) => refused(module, name),
            _ => wrong("an object of a class that is none"),
        }
    }

    /// Adds a value as Python's `repr` shows it, or nearly so.
    pub(super) fn show(&self, value: Value, depth: usize, out: &mut String) {
        let lossy = |text: &Cow<'_, [u8]>| String::from_utf8_lossy(text).into_owned();
        if depth > SHOWN_DEPTH || out.len() > SHOWN_MAX {
            return out.push_str("...");
        }
        let text = match self.node(value) {
            Some(PickleNode::Object(class, arguments)) => {
                match self.node(*class) {
                    Some(PickleNode::Class(_, name)) => out.push_str(name),
                    _ => out.push_str("object"),
                }
                out.push('(');
                for (n, argument) in arguments.iter().enumerate().take(SHOWN_MAX) {
                    out.push_str(if n == 0 { "" } else { ", " });
                    self.show(*argument, depth + 1, out);
                }
                return out.push(')');
            }
            Some(PickleNode::Class(module, name)) => format!("<class '{module}.{name}'>"),
            Some(PickleNode::Global(global)) => format!("<class '{}'>", global.name()),
            Some(PickleNode::Text(text)) => repr::value(&serde_json::Value::String(lossy(text))),
            Some(PickleNode::Digits(digits)) => digits.clone(),
            Some(PickleNode::Typed(_, text)) => text.clone(),
            Some(_) => "...".into(),
            None => match value {
                Value::Bool(true) => "True".into(),
                Value::Bool(false) => "False".into(),
                Value::Int(number) => number.to_string(),
                Value::Float(number) => number::repr(number),
                _ => "None".into(),
            },
        };
        out.push_str(&text);
    }
}

impl Writer<'_, '_> {
    /// Writes the exception of the task.
    pub(super) fn exception(&mut self, value: Value, depth: usize) -> Result<(), Malformed> {
        let values = self.values;
        let Some(PickleNode::Object(class, arguments)) = values.node(value) else {
            return Err(wrong("an exception that is none"));
        };
        let Some(PickleNode::Class(module, name)) = values.node(*class) else {
            return Err(values.no_data(*class));
        };
        // What Python could not pickle is in a wrapper: module, class, arguments, text.
        let wrapped = ("celery.utils.serialization", "UnpickleableExceptionWrapper");
        let (module, name, arguments) = match (&arguments[..], wrapped == (module, name)) {
            ([module, class, inner, ..], true) => {
                let text = |value: &Value| values.text_of(*value).unwrap_or_default();
                let inner = match values.node(*inner) {
                    Some(PickleNode::List(items) | PickleNode::Tuple(items)) => &items[..],
                    _ => &[],
                };
                (text(module), text(class), inner)
            }
            _ => (module.as_bytes(), name.as_bytes(), &arguments[..]),
        };
        // Within itself it is an object like others.
        (self.exception, self.is_inside) = (None, true);
        self.out.push("{\"exc_type\": ")?;
        self.out.text(name)?;
        self.out.push(", \"exc_message\": [")?;
        for (n, argument) in arguments.iter().enumerate() {
            self.out.push(if n == 0 { "" } else { ", " })?;
            self.value(*argument, depth + 2)?;
        }
        self.out.push("], \"exc_module\": ")?;
        self.out.text(module)?;
        self.is_inside = false;
        self.out.push("}")
    }
}
