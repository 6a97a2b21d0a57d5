//! What each opcode does to the stack. The table is that of CPython's `Lib/pickletools.py`.

use super::super::{Exceptions, number};
use super::globals::{Global, refused};
use super::values::{PickleNode, Value};
use super::{Machine, strings, wrong};
use crate::wire::message::Malformed;
use std::borrow::Cow;

/// The newest protocol that there is.
const PROTOCOL_MAX: u8 = 5;

/// What a group of opcodes makes of one: nothing, if it is none of theirs.
type Done = Result<Option<()>, Malformed>;

impl<'a> Machine<'a> {
    /// Does one step.
    pub(super) fn run(&mut self, opcode: u8) -> Result<(), Malformed> {
        let groups = [
            Self::numbers,
            Self::texts,
            Self::containers,
            Self::additions,
            Self::places,
            Self::names,
        ];
        for group in groups {
            if group(self, opcode)?.is_some() {
                return Ok(());
            }
        }
        Err(wrong(format!("{:#04x} is no opcode", opcode)))
    }

    fn numbers(&mut self, opcode: u8) -> Done {
        match opcode {
            b'N' => self.push(Value::None),
            0x88 => self.push(Value::Bool(true)),
            0x89 => self.push(Value::Bool(false)),
            b'I' => match self.word()? {
                "00" => self.push(Value::Bool(false)),
                "01" => self.push(Value::Bool(true)),
                digits => self.push_digits(digits),
            },
            b'L' => {
                let word = self.word()?;
                self.push_digits(word.strip_suffix('L').unwrap_or(word))
            }
            b'J' => {
                let number = self.number(4)? as u32 as i32;
                self.push(Value::Int(i64::from(number)))
            }
            b'K' => {
                let number = self.number(1)?;
                self.push(Value::Int(number as i64))
            }
            b'M' => {
                let number = self.number(2)?;
                self.push(Value::Int(number as i64))
            }
            0x8a => {
                let bytes = self.counted(1)?;
                self.push_long(bytes)
            }
            0x8b => {
                let bytes = self.counted(4)?;
                self.push_long(bytes)
            }
            b'G' => {
                let bits = self.take(8)?.iter().fold(0, |bits, byte| bits << 8 | u64::from(*byte));
                self.push(Value::Float(f64::from_bits(bits)))
            }
            b'F' => {
                let word = self.word()?;
                let number = word.parse().map_err(|_| wrong("a float that is none"))?;
                self.push(Value::Float(number))
            }
            _ => return Ok(None),
        }
        .map(Some)
    }

    fn push_digits(&mut self, digits: &str) -> Result<(), Malformed> {
        match digits.parse() {
            Ok(number) => self.push(Value::Int(number)),
            Err(_) => {
                let digits = number::of_text(digits);
                let digits = digits.ok_or_else(|| wrong("an integer that Python does not read"))?;
                self.push_node(PickleNode::Digits(digits))
            }
        }
    }

    fn push_long(&mut self, bytes: &[u8]) -> Result<(), Malformed> {
        let digits = number::of_bytes(bytes);
        let digits = digits.ok_or_else(|| wrong("an integer that Python does not write"))?;
        self.push_digits(&digits)
    }

    fn texts(&mut self, opcode: u8) -> Done {
        let bytes = match opcode {
            b'X' => self.counted(4)?,
            0x8c => self.counted(1)?,
            0x8d => self.counted(8)?,
            b'B' => self.counted(4)?,
            b'C' => self.counted(1)?,
            0x8e | 0x96 => self.counted(8)?,
            b'T' => self.counted(4)?,
            b'U' => self.counted(1)?,
            b'S' => {
                let text = strings::quoted(self.line()?);
                let text = text.ok_or_else(|| wrong("a string of Python 2 that is not ASCII"))?;
                return self.push_node(PickleNode::Text(Cow::Owned(text))).map(Some);
            }
            b'V' => {
                let text = strings::raw_unicode_escape(self.line()?);
                let text = text.ok_or_else(|| wrong("a text with an escape that is none"))?;
                return self.push_node(PickleNode::Text(Cow::Owned(text))).map(Some);
            }
            _ => return Ok(None),
        };
        match opcode {
            b'T' | b'U' if !bytes.is_ascii() => {
                Err(wrong("a string of Python 2 that is not ASCII"))
            }
            b'B' | b'C' | 0x8e | 0x96 => {
                self.push_node(PickleNode::Bytes(Cow::Borrowed(bytes))).map(Some)
            }
            _ => self.push_node(PickleNode::Text(Cow::Borrowed(bytes))).map(Some),
        }
    }

    fn containers(&mut self, opcode: u8) -> Done {
        let node = match opcode {
            b']' => PickleNode::List(Vec::new()),
            b'}' => PickleNode::Dict(Vec::new()),
            b')' => PickleNode::Tuple(Vec::new()),
            0x8f => PickleNode::Set(Vec::new()),
            b'l' => PickleNode::List(self.pop_mark()?),
            b't' => PickleNode::Tuple(self.pop_mark()?),
            0x91 => PickleNode::Set(self.pop_mark()?),
            b'd' => PickleNode::Dict(pairs(&self.pop_mark()?)?),
            0x85..=0x87 => {
                let mut items = Vec::new();
                for _ in 0x85..=opcode {
                    items.push(self.pop()?);
                }
                items.reverse();
                PickleNode::Tuple(items)
            }
            _ => return Ok(None),
        };
        self.push_node(node).map(Some)
    }

    /// What is added to the container below it.
    fn additions(&mut self, opcode: u8) -> Done {
        match opcode {
            b'a' => {
                let item = self.pop()?;
                self.extend(&[item], false)
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.extend_dict(&[key, value])
            }
            b'e' | 0x90 => {
                let items = self.pop_mark()?;
                self.extend(&items, opcode == 0x90)
            }
            b'u' => {
                let items = self.pop_mark()?;
                self.extend_dict(&items)
            }
            _ => return Ok(None),
        }
        .map(Some)
    }

    fn extend(&mut self, items: &[Value], to_set: bool) -> Result<(), Malformed> {
        let top = self.top()?;
        match (self.values.node_mut(top), to_set) {
            (Some(PickleNode::List(list)), false) | (Some(PickleNode::Set(list)), true) => {
                list.extend_from_slice(items);
                Ok(())
            }
            _ => Err(wrong("items that are added to no list")),
        }
    }

    fn extend_dict(&mut self, items: &[Value]) -> Result<(), Malformed> {
        let top = self.top()?;
        match self.values.node_mut(top) {
            Some(PickleNode::Dict(dict)) => {
                dict.extend(pairs(items)?);
                Ok(())
            }
            _ => Err(wrong("fields that are added to no dict")),
        }
    }

    /// Marks, the memo, and what says nothing.
    fn places(&mut self, opcode: u8) -> Done {
        match opcode {
            b'(' => {
                self.spend(1)?;
                self.marks.push(self.stack.len());
                Ok(())
            }
            b'0' => match self.stack.len() == self.marks.last().copied().unwrap_or(0) {
                true => self.pop_mark().map(drop),
                false => self.pop().map(drop),
            },
            b'1' => self.pop_mark().map(drop),
            b'2' => {
                let top = self.top()?;
                self.push(top)
            }
            b'p' | b'g' => {
                let place = self.word()?.parse().map_err(|_| wrong("a place that is no number"))?;
                if opcode == b'p' { self.remember(place) } else { self.recall(place) }
            }
            b'q' | b'r' => {
                let place = self.number(if opcode == b'q' { 1 } else { 4 })?;
                self.remember(place)
            }
            b'h' | b'j' => {
                let place = self.number(if opcode == b'h' { 1 } else { 4 })?;
                self.recall(place)
            }
            0x94 => self.remember(self.memo.len() as u64),
            0x95 => self.number(8).map(drop),
            0x80 => match self.number(1)? as u8 {
                0..=PROTOCOL_MAX => Ok(()),
                protocol => Err(wrong(format!("the protocol {protocol} is not known"))),
            },
            _ => return Ok(None),
        }
        .map(Some)
    }

    /// What names something: a constructor of data, or nothing that is read here.
    fn names(&mut self, opcode: u8) -> Done {
        match opcode {
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.push_global(module, name)
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let text = |value| self.values.text_of(value).map(<[u8]>::to_vec);
                match (text(module), text(name)) {
                    (Some(module), Some(name)) => self.push_global(&module, &name),
                    _ => Err(wrong("a name that is no text")),
                }
            }
            b'R' => {
                let (arguments, global) = (self.pop()?, self.pop()?);
                self.reduce(global, arguments)
            }
            0x81 => {
                let (arguments, class) = (self.pop()?, self.pop()?);
                self.new_object(class, arguments)
            }
            b'b' => {
                let state = self.pop()?;
                self.build(state)
            }
            b'i' => {
                let (module, name) = (self.line()?, self.line()?);
                Err(refused(&lossy(module), &lossy(name)))
            }
            b'o' => {
                let parts = self.pop_mark()?;
                Err(self.no_constructor(parts.first().copied().unwrap_or(Value::None)))
            }
            0x92 => {
                let _named = self.pop()?;
                let _arguments = self.pop()?;
                let class = self.pop()?;
                Err(self.no_constructor(class))
            }
            b'P' | b'Q' => Err(wrong("a persistent id is not data")),
            0x82..=0x84 => {
                let code = self.number(1 << (opcode - 0x82))?;
                Err(wrong(format!("the extension code {code} is not data")))
            }
            0x97 | 0x98 => Err(wrong("a buffer outside of the message is not data")),
            _ => return Ok(None),
        }
        .map(Some)
    }

    fn push_global(&mut self, module: &[u8], name: &[u8]) -> Result<(), Malformed> {
        let (module, name) = (lossy(module), lossy(name));
        let node = match Global::named(&module, &name) {
            Ok(global) => PickleNode::Global(global),
            // It may be the class of an exception; whether it stands where one may is seen later.
            Err(_) if self.exceptions != Exceptions::Refused => {
                PickleNode::Class(module.into_owned(), name.into_owned())
            }
            Err(refused) => return Err(refused),
        };
        self.push_node(node)
    }
}

fn lossy(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

/// Keys and values that take turns.
fn pairs(items: &[Value]) -> Result<Vec<(Value, Value)>, Malformed> {
    let (pairs, rest) = items.as_chunks::<2>();
    match rest.is_empty() {
        true => Ok(pairs.iter().map(|[key, value]| (*key, *value)).collect()),
        false => Err(wrong("a key without its value")),
    }
}
