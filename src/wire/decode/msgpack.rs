//! MessagePack as kombu reads it (`serialization.py`, `unpackb(raw=False)`), written on as JSON
//! while it is read: nothing is held but the containers that are open.
//!
//! Source of the format: <https://github.com/msgpack/msgpack/blob/master/spec.md>.

use super::json::{self, Out};
use super::moment;
use crate::wire::message::Malformed;
use crate::wire::value::DEPTH_MAX;

/// The type of an extension that is an instant.
const TIMESTAMP: i8 = -1;

/// The JSON text of a body.
///
/// # Errors
/// Says at which byte it is no MessagePack, or what it holds that no task is given.
pub(super) fn text(body: &[u8]) -> Result<String, Malformed> {
    let mut reader = Reader { body, at: 0, open: Vec::new(), out: Out::default() };
    loop {
        reader.value()?;
        while reader.open.last().is_some_and(|open| open.left == 0) {
            let is_map = reader.open.pop().is_some_and(|open| open.is_map);
            reader.out.push(if is_map { "}" } else { "]" })?;
        }
        if reader.open.is_empty() {
            break;
        }
    }
    match reader.body.len() - reader.at {
        0 => Ok(reader.out.finish()),
        more => Err(reader.wrong(&format!("{more} bytes behind the value"))),
    }
}

/// A container that has begun.
struct Open {
    is_map: bool,
    /// Values that are to come; of a map, keys too.
    left: u64,
    total: u64,
}

struct Reader<'a> {
    body: &'a [u8],
    at: usize,
    open: Vec<Open>,
    out: Out,
}

impl<'a> Reader<'a> {
    fn wrong(&self, what: &str) -> Malformed {
        Malformed(format!("msgpack: byte {}: {what}", self.at))
    }

    fn take(&mut self, count: u64) -> Result<&'a [u8], Malformed> {
        let left = &self.body[self.at..];
        match usize::try_from(count).ok().and_then(|count| left.get(..count)) {
            Some(bytes) => {
                self.at += bytes.len();
                Ok(bytes)
            }
            None => Err(self.wrong("the body ends too soon")),
        }
    }

    /// An unsigned number of so many bytes.
    fn number(&mut self, bytes: u64) -> Result<u64, Malformed> {
        Ok(self.take(bytes)?.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    /// Reads one value, or the beginning of a container.
    fn value(&mut self) -> Result<(), Malformed> {
        let is_key = self.begin()?;
        let mark = self.number(1)? as u8;
        match mark {
            0x80..=0x8f | 0xde | 0xdf => {
                let count = self.size(mark, mark & 0x0f, 0xde)?;
                self.container(count, true, is_key)
            }
            0x90..=0x9f | 0xdc | 0xdd => {
                let count = self.size(mark, mark & 0x0f, 0xdc)?;
                self.container(count, false, is_key)
            }
            0xa0..=0xbf => self.string(u64::from(mark & 0x1f)),
            0xd9..=0xdb => {
                let count = self.number(1 << (mark - 0xd9))?;
                self.string(count)
            }
            0xc4..=0xc6 if !is_key => {
                let count = self.number(1 << (mark - 0xc4))?;
                let bytes = self.take(count)?;
                self.out.bytes(bytes)
            }
            0xc7..=0xc9 if !is_key => {
                let count = self.number(1 << (mark - 0xc7))?;
                self.extension(count)
            }
            0xd4..=0xd8 if !is_key => self.extension(1 << (mark - 0xd4)),
            0xc4..=0xc9 | 0xd4..=0xd8 => Err(self.wrong("a key of a map that is no text")),
            _ => self.scalar(mark, is_key),
        }
    }

    /// What stands before a value. Is it the key of a map?
    fn begin(&mut self) -> Result<bool, Malformed> {
        let Some(open) = self.open.last_mut() else { return Ok(false) };
        let place = open.total - open.left;
        open.left -= 1;
        let is_map = open.is_map;
        let is_value = is_map && place % 2 == 1;
        match (place, is_value) {
            (0, _) => {}
            (_, true) => self.out.push(": ")?,
            (_, false) => self.out.push(", ")?,
        }
        Ok(is_map && !is_value)
    }

    /// The count of a container: in its first byte, or in two or four more.
    fn size(&mut self, mark: u8, small: u8, two: u8) -> Result<u64, Malformed> {
        if mark < 0xc0 {
            return Ok(u64::from(small));
        }
        self.number(if mark == two { 2 } else { 4 })
    }

    fn container(&mut self, count: u64, is_map: bool, is_key: bool) -> Result<(), Malformed> {
        if is_key {
            return Err(self.wrong("a key of a map that is no text"));
        }
        if self.open.len() >= DEPTH_MAX {
            return Err(self.wrong(&format!("more than {DEPTH_MAX} levels of values")));
        }
        let total = if is_map { count * 2 } else { count };
        if total > (self.body.len() - self.at) as u64 {
            return Err(self.wrong("more values than bytes are left"));
        }
        self.open.push(Open { is_map, left: total, total });
        self.out.push(if is_map { "{" } else { "[" })
    }

    fn string(&mut self, count: u64) -> Result<(), Malformed> {
        let bytes = self.take(count)?;
        match std::str::from_utf8(bytes) {
            Ok(_) => self.out.text(bytes),
            Err(_) => Err(self.wrong("a text that is not UTF-8")),
        }
    }

    /// A number, a truth value or nothing; as a key, it is the text of its JSON.
    fn scalar(&mut self, mark: u8, is_key: bool) -> Result<(), Malformed> {
        let text = match mark {
            0x00..=0x7f => mark.to_string(),
            0xe0..=0xff => (mark as i8).to_string(),
            0xc0 => "null".into(),
            0xc2 => "false".into(),
            0xc3 => "true".into(),
            0xca => json::float(f64::from(f32::from_bits(self.number(4)? as u32))),
            0xcb => json::float(f64::from_bits(self.number(8)?)),
            0xcc..=0xcf => self.number(1 << (mark - 0xcc))?.to_string(),
            0xd0..=0xd3 => {
                let bytes = 1 << (mark - 0xd0);
                let shift = 64 - 8 * bytes as u32;
                ((self.number(bytes)? << shift) as i64 >> shift).to_string()
            }
            _ => return Err(self.wrong(&format!("the mark {mark:#04x} is of no value"))),
        };
        match is_key && !text.starts_with('"') {
            true => self.out.push(&format!("\"{text}\"")),
            false => self.out.push(&text),
        }
    }

    fn extension(&mut self, count: u64) -> Result<(), Malformed> {
        let kind = self.number(1)? as u8 as i8;
        if kind != TIMESTAMP {
            return Err(self.wrong(&format!("the extension type {kind} is not supported")));
        }
        let (seconds, nanos) = match count {
            4 => (self.number(4)? as i64, 0),
            8 => {
                let both = self.number(8)?;
                ((both & 0x3_ffff_ffff) as i64, both >> 34)
            }
            12 => {
                let nanos = self.number(4)?;
                (self.number(8)? as i64, nanos)
            }
            _ => return Err(self.wrong(&format!("an instant of {count} bytes"))),
        };
        let instant = u32::try_from(nanos).ok().and_then(|nanos| moment::utc(seconds, nanos));
        match instant {
            Some(text) => self.out.typed("datetime", &text),
            None => Err(self.wrong("an instant that Python has not")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_value() {
        let cases: &[(&[u8], &str)] = &[
            (b"\x93\x01\xff\xc0", "[1, -1, null]"),
            (b"\x92\xc2\xc3", "[false, true]"),
            (b"\xcc\xff", "255"),
            (b"\xcd\x01\x00", "256"),
            (b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff", "18446744073709551615"),
            (b"\xd0\x80", "-128"),
            (b"\xd1\xff\x00", "-256"),
            (b"\xd3\x80\0\0\0\0\0\0\0", "-9223372036854775808"),
            (b"\xcb\x3f\xf8\0\0\0\0\0\0", "1.5"),
            (b"\xca\x7f\xc0\0\0", "\"NaN\""),
            (b"\xa2\xc3\xbc", r#""\u00fc""#),
            (b"\xd9\x01a", "\"a\""),
            (b"\xc4\x01a", r#"{"__type__": "bytes", "__value__": "a"}"#),
            (b"\xc5\0\x01\xff", r#"{"__type__": "base64", "__value__": "/w=="}"#),
            (b"\x82\xa1a\x90\xa1b\x80", r#"{"a": [], "b": {}}"#),
            (b"\xde\0\x01\xa1a\xdc\0\x02\x01\x02", r#"{"a": [1, 2]}"#),
            (
                b"\x84\x01\x01\xc3\x02\xc0\x03\xcb\x3f\xf8\0\0\0\0\0\0\x04",
                r#"{"1": 1, "true": 2, "null": 3, "1.5": 4}"#,
            ),
            (
                b"\xd6\xff\0\0\0\x01",
                r#"{"__type__": "datetime", "__value__": "1970-01-01T00:00:01+00:00"}"#,
            ),
            (
                b"\xc7\x0c\xff\0\0\x03\xe8\xff\xff\xff\xff\xff\xff\xff\xff",
                r#"{"__type__": "datetime", "__value__": "1969-12-31T23:59:59.000001+00:00"}"#,
            ),
        ];
        for (bytes, expected) in cases {
            assert_eq!(text(bytes).unwrap(), *expected, "{bytes:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let cases: &[(&[u8], &str)] = &[
            (b"", "byte 0: the body ends too soon"),
            (b"\x91", "more values than bytes"),
            (b"\xdd\xff\xff\xff\xff\x01", "more values than bytes"),
            (b"\xdf\xff\xff\xff\xff\x01", "more values than bytes"),
            (b"\xdb\xff\xff\xff\xffabc", "ends too soon"),
            (b"\xc6\xff\xff\xff\xffabc", "ends too soon"),
            (b"\xc1", "the mark 0xc1"),
            (b"\xd4\x05a", "extension type 5 is not supported"),
            (b"\xd6\x80aaaa", "extension type -128"),
            (b"\xd7\xff\xff\xff\xff\xff\xff\xff\xff\xff", "an instant that Python has not"),
            (b"\xd5\xff\0\0", "an instant of 2 bytes"),
            (b"\x81\xc4\x01a\x01", "a key of a map that is no text"),
            (b"\x81\x90\x01", "a key of a map that is no text"),
            (b"\x81\xd6\xff\0\0\0\x01\x01", "a key of a map that is no text"),
            (b"\xa1\xff", "not UTF-8"),
            (b"\x01\x02", "1 bytes behind the value"),
        ];
        for (bytes, expected) in cases {
            let error = text(bytes).unwrap_err().0;
            assert!(error.starts_with("msgpack: byte ") && error.contains(expected), "{error}");
        }
    }

    #[test]
    fn small_bytes_become_no_large_text() {
        // Each empty value of bytes is written in forty letters.
        let count = 2_000_000_u32;
        let mut body = vec![0xdd];
        body.extend(count.to_be_bytes());
        body.extend([0xc4, 0].repeat(count as usize));
        assert!(text(&body).unwrap_err().0.contains("limit of 64 MiB"));
    }
}
