//! Pickles of the protocols 0 to 5, for their data alone. A pickle is a program; this runs of it
//! what builds values, and calls nothing that it names: the names in [`globals`] stand for
//! constructors of data, every other one refuses the message. An exception that a task has raised
//! is its class and its arguments, where a result has one.
//!
//! Source: CPython `Lib/pickletools.py`, `Lib/pickle.py`; kombu `serialization.py`, `unpickle`.

mod build;
mod exception;
mod globals;
mod opcodes;
mod strings;
mod values;

use super::{Exceptions, VALUES_MAX};
use crate::bounds::BODY_MAX;
use crate::wire::message::Malformed;
use std::collections::HashMap;
use values::{Arena, PickleNode, Value};

/// The JSON text of a pickled body.
///
/// # Errors
/// Says what of it is no data, or why it is no pickle.
pub(super) fn text(body: &[u8], exceptions: Exceptions) -> Result<String, Malformed> {
    let mut machine = Machine::new(body, exceptions);
    while let Some(opcode) = machine.next_opcode()? {
        machine.run(opcode)?;
    }
    let value = machine.pop()?;
    machine.values.text(value, exceptions)
}

/// The interpreter: a stack with marks in it, and a memo of what was on top of it.
struct Machine<'a> {
    body: &'a [u8],
    at: usize,
    stack: Vec<Value>,
    /// Heights of the stack at its marks.
    marks: Vec<usize>,
    memo: HashMap<u64, Value>,
    values: Arena<'a>,
    /// Values that were put anywhere, and bytes that were made of others: copies cost as much as
    /// what is read.
    spent: usize,
    made: usize,
    exceptions: Exceptions,
}

fn wrong(what: impl AsRef<str>) -> Malformed {
    Malformed(format!("pickle: {}", what.as_ref()))
}

impl<'a> Machine<'a> {
    fn new(body: &'a [u8], exceptions: Exceptions) -> Machine<'a> {
        Machine {
            body,
            at: 0,
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            values: Arena::default(),
            spent: 0,
            made: 0,
            exceptions,
        }
    }

    /// The next opcode; none after `STOP`.
    fn next_opcode(&mut self) -> Result<Option<u8>, Malformed> {
        match self.take(1)?[0] {
            b'.' => Ok(None),
            opcode => Ok(Some(opcode)),
        }
    }

    fn take(&mut self, count: u64) -> Result<&'a [u8], Malformed> {
        let left = &self.body[self.at..];
        let bytes = usize::try_from(count).ok().and_then(|count| left.get(..count));
        let bytes = bytes.ok_or_else(|| wrong("the body ends too soon"))?;
        self.at += bytes.len();
        Ok(bytes)
    }

    /// An unsigned number of so many bytes, the lowest first.
    fn number(&mut self, bytes: u64) -> Result<u64, Malformed> {
        let bytes = self.take(bytes)?;
        Ok(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    /// Bytes behind their count of so many bytes.
    fn counted(&mut self, bytes: u64) -> Result<&'a [u8], Malformed> {
        let count = self.number(bytes)?;
        self.take(count)
    }

    /// A line without its end.
    fn line(&mut self) -> Result<&'a [u8], Malformed> {
        let left = &self.body[self.at..];
        let length = left.iter().position(|byte| *byte == b'\n');
        let length = length.ok_or_else(|| wrong("the body ends too soon"))?;
        self.at += length + 1;
        Ok(&left[..length])
    }

    /// A line of ASCII.
    fn word(&mut self) -> Result<&'a str, Malformed> {
        let line = self.line()?;
        let text = std::str::from_utf8(line).ok().filter(|text| text.is_ascii());
        text.ok_or_else(|| wrong("a line that is not ASCII"))
    }

    /// Counts values that are put somewhere.
    fn spend(&mut self, values: usize) -> Result<(), Malformed> {
        self.spent = self.spent.saturating_add(values);
        match self.spent > VALUES_MAX {
            true => Err(wrong(format!("more than the limit of {VALUES_MAX} values"))),
            false => Ok(()),
        }
    }

    /// Counts bytes that are made of others.
    fn make(&mut self, bytes: usize) -> Result<(), Malformed> {
        self.made = self.made.saturating_add(bytes);
        match self.made > BODY_MAX {
            true => Err(wrong(format!("more than the limit of {} MiB", BODY_MAX >> 20))),
            false => Ok(()),
        }
    }

    fn push(&mut self, value: Value) -> Result<(), Malformed> {
        self.spend(1)?;
        self.stack.push(value);
        Ok(())
    }

    fn push_node(&mut self, node: PickleNode<'a>) -> Result<(), Malformed> {
        let value = self.values.add(node);
        self.push(value)
    }

    /// Takes the top of the stack; nothing below the last mark.
    fn pop(&mut self) -> Result<Value, Malformed> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.len() > floor {
            true => self.stack.pop().ok_or_else(|| wrong("an empty stack")),
            false => Err(wrong("an empty stack")),
        }
    }

    fn top(&self) -> Result<Value, Malformed> {
        let floor = self.marks.last().copied().unwrap_or(0);
        let top = self.stack.last().filter(|_| self.stack.len() > floor);
        top.copied().ok_or_else(|| wrong("an empty stack"))
    }

    /// Takes what is above the last mark, and the mark.
    fn pop_mark(&mut self) -> Result<Vec<Value>, Malformed> {
        let mark = self.marks.pop().ok_or_else(|| wrong("no mark"))?;
        Ok(self.stack.split_off(mark))
    }

    fn remember(&mut self, place: u64) -> Result<(), Malformed> {
        let top = self.top()?;
        self.spend(1)?;
        self.memo.insert(place, top);
        Ok(())
    }

    fn recall(&mut self, place: u64) -> Result<(), Malformed> {
        match self.memo.get(&place) {
            Some(value) => self.push(*value),
            None => Err(wrong(format!("nothing is remembered as {place}"))),
        }
    }
}

#[cfg(test)]
mod tests;
