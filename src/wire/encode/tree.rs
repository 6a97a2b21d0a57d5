//! JSON text as a tree in which kombu's typed values are values, and numbers stand as they came.

use super::EncodeError;
use super::moment::Moment;
use crate::wire::decode::number::is_decimal;
use crate::wire::value::DEPTH_MAX;
use serde_json::Value;
use std::borrow::Cow;
use std::collections::HashMap;

/// What becomes of a value that a serializer has not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unknown {
    /// It is an error.
    Refused,
    /// It is written as its text.
    Text,
}

/// A value. Texts are UTF-8, with lone surrogates as Python's `surrogatepass` has them.
#[derive(Debug)]
pub(super) enum Node<'a> {
    Null,
    Bool(bool),
    Integer(&'a str),
    Float(f64),
    Text(Cow<'a, [u8]>),
    List(Vec<Node<'a>>),
    Map(Vec<(Cow<'a, [u8]>, Node<'a>)>),
    Bytes(Vec<u8>),
    /// A date, a time or both, and how kombu has it written.
    Moment(Moment, String),
    Decimal(String),
    Uuid(uuid::Uuid),
}

impl Node<'_> {
    /// What an error calls it.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Node::Moment(moment, _) => moment.kind(),
            Node::Decimal(_) => "decimal",
            Node::Uuid(_) => "uuid",
            Node::Integer(_) => "integer",
            Node::Bytes(_) => "bytes",
            _ => "text",
        }
    }

    /// The text of a value that a serializer has not.
    pub(super) fn text(&self) -> Cow<'_, [u8]> {
        match self {
            Node::Integer(digits) => Cow::Borrowed(digits.as_bytes()),
            Node::Text(text) => Cow::Owned(String::from_utf8_lossy(text).into_owned().into_bytes()),
            Node::Moment(_, text) | Node::Decimal(text) => Cow::Borrowed(text.as_bytes()),
            Node::Uuid(uuid) => Cow::Owned(uuid.to_string().into_bytes()),
            _ => Cow::Borrowed(b""),
        }
    }

    /// A value that a serializer has not: its text.
    ///
    /// # Errors
    /// It is to be refused, for this reason.
    pub(super) fn substitute(
        &self,
        unknown: Unknown,
        why: &str,
    ) -> Result<Cow<'_, [u8]>, EncodeError> {
        match unknown {
            Unknown::Text => Ok(self.text()),
            Unknown::Refused => {
                let text: String =
                    String::from_utf8_lossy(&self.text()).chars().take(SHOWN_MAX).collect();
                let text = text.escape_debug();
                Err(EncodeError(format!("the {} {text} {why}", self.kind())))
            }
        }
    }
}

/// Characters of a value in an error.
const SHOWN_MAX: usize = 40;

/// Reads a text that is JSON.
///
/// # Errors
/// It has a type that kombu does not know, or is too deep.
pub(super) fn read(json: &str, unknown: Unknown) -> Result<Node<'_>, EncodeError> {
    let mut reader = Reader { json, at: 0, unknown };
    reader.value(0)
}

struct Reader<'a> {
    json: &'a str,
    at: usize,
    unknown: Unknown,
}

impl<'a> Reader<'a> {
    /// The next byte that is no blank; 0 at the end.
    fn peek(&mut self) -> u8 {
        let bytes = self.json.as_bytes();
        while bytes.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
        bytes.get(self.at).copied().unwrap_or_default()
    }

    /// Takes the next byte if it is this one.
    fn take(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == byte;
        self.at += usize::from(is_next);
        is_next
    }

    fn value(&mut self, depth: usize) -> Result<Node<'a>, EncodeError> {
        let first = self.peek();
        if matches!(first, b'[' | b'{') && depth >= DEPTH_MAX {
            return match self.unknown {
                Unknown::Text => Ok(Node::Text(Cow::Borrowed(self.skip().as_bytes()))),
                Unknown::Refused => {
                    Err(EncodeError(format!("more than {DEPTH_MAX} levels of values")))
                }
            };
        }
        match first {
            b'{' => self.map(depth),
            b'[' => {
                self.at += 1;
                let mut items = Vec::new();
                while !self.take(b']') {
                    self.more(!items.is_empty())?;
                    items.push(self.value(depth + 1)?);
                }
                Ok(Node::List(items))
            }
            b'"' => self.string().map(Node::Text),
            _ => self.scalar(),
        }
    }

    /// The comma before all but the first element.
    fn more(&mut self, is_later: bool) -> Result<(), EncodeError> {
        match !is_later || self.take(b',') {
            true if self.at < self.json.len() => Ok(()),
            _ => Err(self.broken()),
        }
    }

    /// Those who write the text write JSON, so nobody sees this.
    fn broken(&self) -> EncodeError {
        EncodeError(format!("byte {}: expected JSON", self.at))
    }

    fn scalar(&mut self) -> Result<Node<'a>, EncodeError> {
        let rest = &self.json[self.at..];
        let length = rest
            .bytes()
            .position(|byte| matches!(byte, b',' | b']' | b'}') || byte.is_ascii_whitespace())
            .unwrap_or(rest.len());
        let word = &rest[..length];
        let node = match word {
            "null" => Node::Null,
            "true" => Node::Bool(true),
            "false" => Node::Bool(false),
            _ if word.contains(['.', 'e', 'E']) => {
                Node::Float(word.parse().map_err(|_| self.broken())?)
            }
            _ if word.starts_with(|c: char| c.is_ascii_digit() || c == '-') => Node::Integer(word),
            _ => return Err(self.broken()),
        };
        self.at += length;
        Ok(node)
    }

    fn map(&mut self, depth: usize) -> Result<Node<'a>, EncodeError> {
        let begin = self.at;
        self.at += 1;
        let (mut fields, mut places) = (Vec::new(), HashMap::new());
        while !self.take(b'}') {
            self.more(!fields.is_empty())?;
            if self.peek() != b'"' {
                return Err(self.broken());
            }
            let name = self.string()?;
            if !self.take(b':') {
                return Err(self.broken());
            }
            let value = self.value(depth + 1)?;
            // A name that comes twice keeps its place and gets the last value, as in Python.
            match places.get(&name) {
                Some(place) => {
                    let (_, field): &mut (_, Node<'a>) = &mut fields[*place];
                    *field = value;
                }
                None => {
                    places.insert(name.clone(), fields.len());
                    fields.push((name, value));
                }
            }
        }
        let is_typed = fields.len() == 2
            && places.contains_key(&b"__type__"[..])
            && places.contains_key(&b"__value__"[..]);
        match is_typed {
            true => self.typed(&self.json[begin..self.at], fields),
            false => Ok(Node::Map(fields)),
        }
    }

    /// A value of one of kombu's types.
    fn typed(
        &self,
        json: &str,
        fields: Vec<(Cow<'a, [u8]>, Node<'a>)>,
    ) -> Result<Node<'a>, EncodeError> {
        if let Some(node) = typed(json) {
            return Ok(node);
        }
        match self.unknown {
            Unknown::Text => Ok(Node::Map(fields)),
            Unknown::Refused => {
                let shown: String = json.chars().take(2 * SHOWN_MAX).collect();
                Err(EncodeError(format!("{shown} is no value of a type that kombu knows")))
            }
        }
    }

    /// A string, at its opening quote.
    fn string(&mut self) -> Result<Cow<'a, [u8]>, EncodeError> {
        let rest = &self.json.as_bytes()[self.at + 1..];
        let end = rest.iter().position(|byte| matches!(byte, b'"' | b'\\'));
        let end = end.ok_or_else(|| self.broken())?;
        if rest[end] == b'"' {
            self.at += end + 2;
            return Ok(Cow::Borrowed(&rest[..end]));
        }
        self.at += 1;
        self.escaped().map(Cow::Owned)
    }

    /// A string with escapes, behind its opening quote.
    fn escaped(&mut self) -> Result<Vec<u8>, EncodeError> {
        let bytes = self.json.as_bytes();
        let mut text = Vec::new();
        loop {
            let byte = *bytes.get(self.at).ok_or_else(|| self.broken())?;
            self.at += 1;
            match byte {
                b'"' => return Ok(text),
                b'\\' => {
                    let escape = *bytes.get(self.at).ok_or_else(|| self.broken())?;
                    self.at += 1;
                    text.push(match escape {
                        b'u' => {
                            self.unit(&mut text)?;
                            continue;
                        }
                        b'n' => b'\n',
                        b'r' => b'\r',
                        b't' => b'\t',
                        b'b' => 8,
                        b'f' => 12,
                        itself => itself,
                    });
                }
                byte => text.push(byte),
            }
        }
    }

    /// A character in hexadecimal digits: one unit of UTF-16, or a pair of them.
    fn unit(&mut self, text: &mut Vec<u8>) -> Result<(), EncodeError> {
        let hex = |at: usize| {
            let digits = self.json.get(at..at + 4)?;
            u32::from_str_radix(digits, 16).ok()
        };
        let high = hex(self.at).ok_or_else(|| self.broken())?;
        let low = match self.json.as_bytes().get(self.at + 4..self.at + 6) {
            Some(b"\\u") if (0xd800..0xdc00).contains(&high) => hex(self.at + 6),
            _ => None,
        };
        self.at += 4;
        let mut code = high;
        if let Some(low) = low.filter(|low| (0xdc00..0xe000).contains(low)) {
            self.at += 6;
            code = 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
        }
        match char::from_u32(code) {
            Some(c) => text.extend(c.encode_utf8(&mut [0; 4]).bytes()),
            // A lone surrogate.
            None => text.extend([
                0xe0 | (code >> 12) as u8,
                0x80 | (code >> 6 & 0x3f) as u8,
                0x80 | (code & 0x3f) as u8,
            ]),
        }
        Ok(())
    }

    /// The text of a container, unread.
    fn skip(&mut self) -> &'a str {
        let (bytes, begin) = (self.json.as_bytes(), self.at);
        let (mut depth, mut inside, mut escaped) = (0, false, false);
        while let Some(byte) = bytes.get(self.at) {
            self.at += 1;
            if inside {
                (inside, escaped) = (escaped || *byte != b'"', !escaped && *byte == b'\\');
                continue;
            }
            match byte {
                b'"' => inside = true,
                b'[' | b'{' => depth += 1,
                b']' | b'}' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
        &self.json[begin..self.at]
    }
}

/// The value of an object with a type and a value; `None` if kombu knows none such.
fn typed<'a>(json: &str) -> Option<Node<'a>> {
    let read: Value = serde_json::from_str(json).ok()?;
    let text = read["__value__"].as_str();
    Some(match (read["__type__"].as_str()?, text) {
        ("bytes", Some(text)) => Node::Bytes(text.as_bytes().to_vec()),
        ("base64", Some(text)) => Node::Bytes(crate::wire::body::from_base64(text)?),
        ("uuid", None) => {
            Node::Uuid(uuid::Uuid::try_parse(read["__value__"]["hex"].as_str()?).ok()?)
        }
        ("decimal", Some(text)) if is_decimal(text) => Node::Decimal(text.into()),
        (kind @ ("datetime" | "date" | "time"), Some(text)) => {
            Node::Moment(Moment::parse(kind, text)?, text.into())
        }
        _ => return None,
    })
}
