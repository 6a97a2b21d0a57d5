//! The values of a pickle, and the JSON that they become. Values refer to each other by number,
//! so one that contains itself, or comes a thousand times, is as easy to hold as any other.

use super::super::Exceptions;
use super::super::json::{self, Out};
use super::globals::{Global, refused};
use super::wrong;
use crate::wire::message::Malformed;
use crate::wire::value::DEPTH_MAX;
use std::borrow::Cow;

/// A value, or where it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Node(u32),
}

/// A value that is more than a few bytes.
#[derive(Debug)]
pub(super) enum PickleNode<'a> {
    /// An integer, by its decimal digits.
    Digits(String),
    /// UTF-8, with lone surrogates as Python's `surrogatepass` has them.
    Text(Cow<'a, [u8]>),
    Bytes(Cow<'a, [u8]>),
    /// A list or a set.
    List(Vec<Value>),
    Set(Vec<Value>),
    Tuple(Vec<Value>),
    Dict(Vec<(Value, Value)>),
    /// A date, a time or a number of kombu's JSON types, by its text.
    Typed(&'static str, String),
    /// Its 32 hexadecimal digits, when they are known.
    Uuid(Option<String>),
    /// A `timedelta` in microseconds.
    Span(i64),
    /// A `timezone`, as it stands behind a time.
    Zone(String),
    Global(Global),
    /// A class that is not known, by its module and its name.
    Class(String, String),
    /// An object of such a class, by its arguments.
    Object(Value, Vec<Value>),
}

/// All nodes of a pickle.
#[derive(Default)]
pub(super) struct Arena<'a>(Vec<PickleNode<'a>>);

impl<'a> Arena<'a> {
    /// The caller counts; see `Machine::spend`.
    pub(super) fn add(&mut self, node: PickleNode<'a>) -> Value {
        self.0.push(node);
        Value::Node(u32::try_from(self.0.len() - 1).unwrap_or(u32::MAX))
    }

    pub(super) fn node(&self, value: Value) -> Option<&PickleNode<'a>> {
        match value {
            Value::Node(place) => self.0.get(place as usize),
            _ => None,
        }
    }

    pub(super) fn node_mut(&mut self, value: Value) -> Option<&mut PickleNode<'a>> {
        match value {
            Value::Node(place) => self.0.get_mut(place as usize),
            _ => None,
        }
    }

    pub(super) fn text_of(&self, value: Value) -> Option<&[u8]> {
        match self.node(value)? {
            PickleNode::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The JSON of a value.
    pub(super) fn text(&self, value: Value, exceptions: Exceptions) -> Result<String, Malformed> {
        let mut writer = Writer {
            values: self,
            out: Out::default(),
            open: vec![false; self.0.len()],
            exception: self.exception(value, exceptions),
            is_inside: false,
        };
        writer.value(value, 0)?;
        Ok(writer.out.finish())
    }
}

pub(super) struct Writer<'v, 'a> {
    pub(super) values: &'v Arena<'a>,
    pub(super) out: Out,
    /// Which containers are being written.
    open: Vec<bool>,
    /// The exception of the task.
    pub(super) exception: Option<Value>,
    /// Arguments of it are being written.
    pub(super) is_inside: bool,
}

impl Writer<'_, '_> {
    pub(super) fn value(&mut self, value: Value, depth: usize) -> Result<(), Malformed> {
        match value {
            Value::Node(_) if self.exception == Some(value) => self.exception(value, depth),
            Value::None => self.out.push("null"),
            Value::Bool(true) => self.out.push("true"),
            Value::Bool(false) => self.out.push("false"),
            Value::Int(number) => self.out.push(&number.to_string()),
            Value::Float(number) => self.out.push(&json::float(number)),
            Value::Node(place) => self.node(place as usize, depth),
        }
    }

    fn node(&mut self, place: usize, depth: usize) -> Result<(), Malformed> {
        let values = self.values;
        match values.0.get(place).ok_or_else(|| wrong("an empty stack"))? {
            PickleNode::Span(_)
            | PickleNode::Zone(_)
            | PickleNode::Global(_)
            | PickleNode::Class(..)
            | PickleNode::Object(..)
                if self.is_inside =>
            {
                let mut shown = String::new();
                values.show(Value::Node(place as u32), 0, &mut shown);
                self.out.text(shown.as_bytes())
            }
            PickleNode::Class(module, name) => Err(refused(module, name)),
            PickleNode::Object(class, _) => Err(values.no_data(*class)),
            PickleNode::Digits(digits) => self.out.push(digits),
            PickleNode::Text(text) => self.out.text(text),
            PickleNode::Bytes(bytes) => self.out.bytes(bytes),
            PickleNode::Typed(kind, text) => self.out.typed(kind, text),
            PickleNode::Uuid(Some(hex)) => self.out.uuid(hex),
            PickleNode::Uuid(None) => Err(wrong("a uuid.UUID without its number")),
            PickleNode::Span(_) => Err(wrong("a datetime.timedelta has no form in JSON")),
            PickleNode::Zone(_) => Err(wrong("a datetime.timezone has no form in JSON")),
            PickleNode::Global(global) => Err(wrong(format!("{} is not data", global.name()))),
            PickleNode::List(items) | PickleNode::Set(items) | PickleNode::Tuple(items) => {
                self.begin(place, depth, "[")?;
                for (n, item) in items.iter().enumerate() {
                    self.out.push(if n == 0 { "" } else { ", " })?;
                    self.value(*item, depth + 1)?;
                }
                self.end(place, "]")
            }
            PickleNode::Dict(pairs) => {
                self.begin(place, depth, "{")?;
                for (n, (key, value)) in pairs.iter().enumerate() {
                    self.out.push(if n == 0 { "" } else { ", " })?;
                    self.key(*key)?;
                    self.out.push(": ")?;
                    self.value(*value, depth + 1)?;
                }
                self.end(place, "}")
            }
        }
    }

    pub(super) fn begin(
        &mut self,
        place: usize,
        depth: usize,
        bracket: &str,
    ) -> Result<(), Malformed> {
        if depth >= DEPTH_MAX {
            return Err(wrong(format!("more than {DEPTH_MAX} levels of values")));
        }
        if std::mem::replace(&mut self.open[place], true) {
            return Err(wrong("a value contains itself"));
        }
        self.out.push(bracket)
    }

    pub(super) fn end(&mut self, place: usize, bracket: &str) -> Result<(), Malformed> {
        self.open[place] = false;
        self.out.push(bracket)
    }

    /// A key of a dict, as Python's JSON writes it.
    fn key(&mut self, key: Value) -> Result<(), Malformed> {
        match (key, self.values.node(key)) {
            (_, Some(PickleNode::Text(text))) => self.out.text(text),
            (_, Some(PickleNode::Digits(digits))) => self.out.push(&format!("\"{digits}\"")),
            (Value::Float(number), _) => self.out.push(&json::float_name(number)),
            (_, None) => {
                self.out.push("\"")?;
                self.value(key, 0)?;
                self.out.push("\"")
            }
            _ => Err(wrong("a key of a dict that is no text")),
        }
    }
}
