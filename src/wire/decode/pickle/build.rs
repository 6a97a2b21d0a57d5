//! Values that a pickle makes by a constructor: each is known here by its name, and is made of
//! its arguments without any call.
//!
//! Source: CPython `Lib/datetime.py` (`_getstate`, `__setstate`), `Lib/uuid.py` (`__getstate__`),
//! `Lib/copyreg.py`, `Modules/_pickle.c` (`save_bytes`, `save_bytearray`).

use super::super::{moment, number};
use super::globals::{Global, refused};
use super::values::{PickleNode, Value};
use super::{Machine, strings, wrong};
use crate::wire::message::Malformed;
use std::borrow::Cow;

/// Bits of a date or time that tell no part of it: which of two equal local times it is.
const FOLD: u8 = 0x80;

impl<'a> Machine<'a> {
    /// A constructor with its arguments.
    pub(super) fn reduce(&mut self, global: Value, arguments: Value) -> Result<(), Malformed> {
        if let Some(object) = self.object(global, arguments)? {
            return self.push_node(object);
        }
        let Some(PickleNode::Global(global)) = self.values.node(global) else {
            return Err(wrong("a value that is called"));
        };
        let global = *global;
        let Some(PickleNode::Tuple(arguments)) = self.values.node(arguments) else {
            return Err(wrong(format!("{} without a tuple of arguments", global.name())));
        };
        let arguments = arguments.clone();
        self.spend(arguments.len())?;
        let made = match global {
            Global::Bytes | Global::Bytearray | Global::Encode => self.bytes(global, &arguments)?,
            Global::Set | Global::Frozenset | Global::List | Global::OrderedDict => {
                self.container(global, &arguments)?
            }
            Global::Signature => match arguments[..] {
                [dict] if matches!(self.values.node(dict), Some(PickleNode::Dict(_))) => Some(dict),
                _ => None,
            },
            Global::Reconstructor => self.reconstruct(&arguments)?,
            Global::Decimal => self.decimal(&arguments),
            Global::Object | Global::Uuid => None,
            Global::Date | Global::Time | Global::Datetime => self.moment(global, &arguments)?,
            Global::Timedelta => self.span(&arguments),
            Global::Timezone => self.zone(&arguments),
        };
        match made {
            Some(value) => self.push(value),
            None => Err(wrong(format!("{} with such arguments is not data", global.name()))),
        }
    }

    fn bytes(&mut self, global: Global, arguments: &[Value]) -> Result<Option<Value>, Malformed> {
        let (text, encoding) = match *arguments {
            [] if global != Global::Encode => {
                return Ok(Some(self.values.add(PickleNode::Bytes(Cow::Borrowed(b"")))));
            }
            [same] if global == Global::Bytearray => {
                let is_bytes = matches!(self.values.node(same), Some(PickleNode::Bytes(_)));
                return Ok(is_bytes.then_some(same));
            }
            [text, encoding] if global != Global::Bytes => (text, encoding),
            _ => return Ok(None),
        };
        let encoding = self.values.text_of(encoding);
        if !encoding.is_some_and(|name| [&b"latin1"[..], b"latin-1"].contains(&name)) {
            return Ok(None);
        }
        let bytes = self.values.text_of(text).and_then(strings::latin1);
        let Some(bytes) = bytes else { return Ok(None) };
        self.make(bytes.len())?;
        Ok(Some(self.values.add(PickleNode::Bytes(Cow::Owned(bytes)))))
    }

    /// A container of what is in another one.
    fn container(
        &mut self,
        global: Global,
        arguments: &[Value],
    ) -> Result<Option<Value>, Malformed> {
        let items = match *arguments {
            [] => Vec::new(),
            [from] => match self.values.node(from) {
                Some(
                    PickleNode::List(items) | PickleNode::Tuple(items) | PickleNode::Set(items),
                ) => items.clone(),
                _ => return Ok(None),
            },
            _ => return Ok(None),
        };
        self.spend(items.len())?;
        let node = match global {
            Global::List => PickleNode::List(items),
            Global::OrderedDict => {
                let pair = |item: &Value| match self.values.node(*item) {
                    Some(PickleNode::List(pair) | PickleNode::Tuple(pair)) => match pair[..] {
                        [key, value] => Some((key, value)),
                        _ => None,
                    },
                    _ => None,
                };
                match items.iter().map(pair).collect() {
                    Some(pairs) => PickleNode::Dict(pairs),
                    None => return Ok(None),
                }
            }
            _ => PickleNode::Set(items),
        };
        Ok(Some(self.values.add(node)))
    }

    /// `copyreg._reconstructor(UUID, object, None)`
    fn reconstruct(&mut self, arguments: &[Value]) -> Result<Option<Value>, Malformed> {
        match *arguments {
            [class, base, Value::None] if self.is(base, Global::Object) => {
                if !self.is(class, Global::Uuid) {
                    return Err(self.no_constructor(class));
                }
                Ok(Some(self.values.add(PickleNode::Uuid(None))))
            }
            _ => Ok(None),
        }
    }

    /// An object of a class that is not known: its class and its arguments.
    fn object(
        &mut self,
        class: Value,
        arguments: Value,
    ) -> Result<Option<PickleNode<'a>>, Malformed> {
        let (Some(PickleNode::Class(..)), Some(PickleNode::Tuple(arguments))) =
            (self.values.node(class), self.values.node(arguments))
        else {
            return Ok(None);
        };
        let arguments = arguments.clone();
        self.spend(arguments.len())?;
        Ok(Some(PickleNode::Object(class, arguments)))
    }

    /// An object of a class, before it gets its state.
    pub(super) fn new_object(&mut self, class: Value, arguments: Value) -> Result<(), Malformed> {
        if let Some(object) = self.object(class, arguments)? {
            return self.push_node(object);
        }
        match self.values.node(arguments) {
            Some(PickleNode::Tuple(none)) if none.is_empty() && self.is(class, Global::Uuid) => {
                self.push_node(PickleNode::Uuid(None))
            }
            _ => Err(self.no_constructor(class)),
        }
    }

    /// The error of a class whose objects are none here.
    pub(super) fn no_constructor(&self, class: Value) -> Malformed {
        match self.values.node(class) {
            Some(PickleNode::Global(global)) => {
                wrong(format!("an object of {} is not data", global.name()))
            }
            Some(PickleNode::Class(module, name)) => refused(module, name),
            _ => wrong("an object of a class that is none"),
        }
    }

    fn is(&self, value: Value, global: Global) -> bool {
        matches!(self.values.node(value), Some(PickleNode::Global(found)) if *found == global)
    }

    /// Gives the object on top its state: the number of a UUID.
    pub(super) fn build(&mut self, state: Value) -> Result<(), Malformed> {
        let top = self.top()?;
        match self.values.node(top) {
            Some(PickleNode::Uuid(None)) => {}
            // Of an exception, its arguments are enough.
            Some(PickleNode::Object(..)) => return Ok(()),
            _ => return Err(wrong("a state of what is no object")),
        }
        let Some(PickleNode::Dict(state)) = self.values.node(state) else {
            return Err(wrong("a state of a uuid.UUID that is no dict"));
        };
        let number = state.iter().rev().find(|(key, _)| self.values.text_of(*key) == Some(b"int"));
        let number = number.and_then(|(_, number)| match (number, self.values.node(*number)) {
            (Value::Int(number), _) => u128::try_from(*number).ok(),
            (_, Some(PickleNode::Digits(digits))) => digits.parse().ok(),
            _ => None,
        });
        let number = number.ok_or_else(|| wrong("a uuid.UUID without its number"))?;
        if let Some(node) = self.values.node_mut(top) {
            *node = PickleNode::Uuid(Some(format!("{number:032x}")));
        }
        Ok(())
    }

    /// A number by the text that Python's `str` gives of it.
    fn decimal(&mut self, arguments: &[Value]) -> Option<Value> {
        let [text] = *arguments else { return None };
        let text = std::str::from_utf8(self.values.text_of(text)?).ok()?;
        // A copy of a text that may come again and again.
        const LENGTH_MAX: usize = 10_000;
        if !number::is_decimal(text) || text.len() > LENGTH_MAX {
            return None;
        }
        let text = text.to_string();
        self.make(text.len()).ok()?;
        Some(self.values.add(PickleNode::Typed("decimal", text)))
    }

    /// A date or a time by its bytes, and the zone of the latter.
    fn moment(&mut self, global: Global, arguments: &[Value]) -> Result<Option<Value>, Malformed> {
        let (state, zone) = match *arguments {
            [state] => (state, None),
            [state, zone] if global != Global::Date => (state, Some(zone)),
            _ => return Ok(None),
        };
        let zone = match zone.filter(|zone| *zone != Value::None) {
            None => String::new(),
            Some(zone) => match self.values.node(zone) {
                Some(PickleNode::Zone(text)) => text.clone(),
                _ => return Err(wrong("a time zone that is no datetime.timezone")),
            },
        };
        let state: Cow<[u8]> = match self.values.node(state) {
            Some(PickleNode::Bytes(bytes)) => Cow::Borrowed(bytes),
            // A pickle of Python 2 has texts.
            Some(PickleNode::Text(text)) => match strings::latin1(text) {
                Some(bytes) => Cow::Owned(bytes),
                None => return Ok(None),
            },
            _ => return Ok(None),
        };
        let text = match (global, &state[..]) {
            (Global::Date, state) => date(state).map(|date| ("date", date)),
            (Global::Time, state) => time(state).map(|time| ("time", time + &zone)),
            (_, [day @ .., h, m, s, a, b, c]) => date(day)
                .zip(time(&[*h, *m, *s, *a, *b, *c]))
                .map(|(day, time)| ("datetime", format!("{day}T{time}{zone}"))),
            _ => None,
        };
        Ok(text.map(|(kind, text)| self.values.add(PickleNode::Typed(kind, text))))
    }

    /// `timedelta(days, seconds, microseconds)`
    fn span(&mut self, arguments: &[Value]) -> Option<Value> {
        let mut parts = [0; 3];
        if arguments.len() > parts.len() {
            return None;
        }
        for (part, argument) in parts.iter_mut().zip(arguments) {
            match argument {
                Value::Int(number) => *part = i128::from(*number),
                _ => return None,
            }
        }
        let [days, seconds, micros] = parts;
        let micros = (days * 86_400 + seconds) * 1_000_000 + micros;
        // What is longer is no offset, and else it is not read.
        Some(self.values.add(PickleNode::Span(i64::try_from(micros).unwrap_or(i64::MAX))))
    }

    /// `timezone(timedelta)`, with a name perhaps, which no time shows.
    fn zone(&mut self, arguments: &[Value]) -> Option<Value> {
        let offset = match *arguments {
            [span] | [span, _] => match self.values.node(span)? {
                PickleNode::Span(micros) => moment::offset(*micros)?,
                _ => return None,
            },
            _ => return None,
        };
        Some(self.values.add(PickleNode::Zone(offset)))
    }
}

fn date(state: &[u8]) -> Option<String> {
    let [high, low, month, day] = *state else { return None };
    let year = u32::from(high) << 8 | u32::from(low);
    moment::date(year, u32::from(month & !FOLD), u32::from(day))
}

fn time(state: &[u8]) -> Option<String> {
    let [hour, minute, second, a, b, c] = *state else { return None };
    let micros = u32::from(a) << 16 | u32::from(b) << 8 | u32::from(c);
    moment::time(u32::from(hour & !FOLD), u32::from(minute), u32::from(second), micros)
}
