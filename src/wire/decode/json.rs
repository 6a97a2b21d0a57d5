//! JSON text as kombu writes it (`utils/json.py`, on Python's `json`): the same letters, so that
//! a program sees the same text whatever serializer its arguments came in. It grows to
//! [`BODY_MAX`] and no further.

use super::number;
use crate::bounds::BODY_MAX;
use crate::wire::body::to_base64;
use crate::wire::message::Malformed;

/// The text while it grows.
#[derive(Default)]
pub(super) struct Out(String);

impl Out {
    pub(super) fn finish(self) -> String {
        self.0
    }

    /// Adds text as it is.
    pub(super) fn push(&mut self, text: &str) -> Result<(), Malformed> {
        if self.0.len() + text.len() > BODY_MAX {
            return Err(Malformed(format!(
                "body: more than the limit of {} MiB, written as JSON",
                BODY_MAX >> 20
            )));
        }
        self.0.push_str(text);
        Ok(())
    }

    /// A text in quotes. Not quite UTF-8: Python's texts may have lone surrogates, which their
    /// bytes have in the way of `surrogatepass`.
    pub(super) fn text(&mut self, bytes: &[u8]) -> Result<(), Malformed> {
        self.push("\"")?;
        let mut rest = bytes;
        while !rest.is_empty() {
            match std::str::from_utf8(rest) {
                Ok(text) => {
                    self.escaped(text)?;
                    break;
                }
                Err(error) => {
                    let (good, bad) = rest.split_at(error.valid_up_to());
                    self.escaped(std::str::from_utf8(good).unwrap_or_default())?;
                    let surrogate = surrogate(bad)
                        .ok_or_else(|| Malformed("body: a text that is not UTF-8".into()))?;
                    self.push(&format!("\\u{surrogate:04x}"))?;
                    rest = &bad[3..];
                }
            }
        }
        self.push("\"")
    }

    /// Text without its quotes, in ASCII.
    fn escaped(&mut self, text: &str) -> Result<(), Malformed> {
        let mut plain = 0;
        for (at, c) in text.char_indices() {
            if (' '..='\u{7e}').contains(&c) && c != '"' && c != '\\' {
                continue;
            }
            self.push(&text[plain..at])?;
            plain = at + c.len_utf8();
            match c {
                '"' => self.push("\\\"")?,
                '\\' => self.push("\\\\")?,
                '\n' => self.push("\\n")?,
                '\r' => self.push("\\r")?,
                '\t' => self.push("\\t")?,
                '\u{8}' => self.push("\\b")?,
                '\u{c}' => self.push("\\f")?,
                c => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        self.push(&format!("\\u{unit:04x}"))?;
                    }
                }
            }
        }
        self.push(&text[plain..])
    }

    /// A value of one of kombu's types.
    pub(super) fn typed(&mut self, kind: &str, value: &str) -> Result<(), Malformed> {
        self.push(&format!("{{\"__type__\": \"{kind}\", \"__value__\": "))?;
        self.text(value.as_bytes())?;
        self.push("}")
    }

    pub(super) fn uuid(&mut self, hex: &str) -> Result<(), Malformed> {
        self.push(&format!("{{\"__type__\": \"uuid\", \"__value__\": {{\"hex\": \"{hex}\"}}}}"))
    }

    /// Bytes: text where they are one, else base64.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Malformed> {
        match std::str::from_utf8(bytes) {
            Ok(text) => self.typed("bytes", text),
            Err(_) => self.typed("base64", &to_base64(bytes)),
        }
    }
}

/// A number as JSON; those that JSON lacks are texts, as `body::finite` makes them of Python's.
pub(super) fn float(value: f64) -> String {
    match value {
        value if value.is_nan() => "\"NaN\"".into(),
        f64::INFINITY => "\"Infinity\"".into(),
        f64::NEG_INFINITY => "\"-Infinity\"".into(),
        value => number::repr(value),
    }
}

/// A number as the name of a field, for which Python has no quotes in quotes.
pub(super) fn float_name(value: f64) -> String {
    format!("\"{}\"", float(value).trim_matches('"'))
}

/// The lone surrogate that these bytes begin with.
fn surrogate(bytes: &[u8]) -> Option<u16> {
    match bytes {
        [0xed, second @ 0xa0..=0xbf, third @ 0x80..=0xbf, ..] => {
            Some(0xd000 | u16::from(second & 0x3f) << 6 | u16::from(third & 0x3f))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: &[u8]) -> Result<String, Malformed> {
        let mut out = Out::default();
        out.text(bytes).map(|()| out.finish())
    }

    #[test]
    fn texts_are_those_of_pythons_json() {
        let cases = [
            ("", r#""""#),
            (
                "a\"\\/\n\r\t\u{8}\u{c}\0\u{1f}\u{7f}",
                "\"a\\\"\\\\/\\n\\r\\t\\b\\f\\u0000\\u001f\\u007f\"",
            ),
            ("ü世\u{1f600}!", r#""\u00fc\u4e16\ud83d\ude00!""#),
        ];
        for (given, expected) in cases {
            assert_eq!(text(given.as_bytes()).unwrap(), expected);
        }
        assert_eq!(text(b"a\xed\xa0\x80b").unwrap(), r#""a\ud800b""#);
        for wrong in [&b"\xff"[..], b"a\xed\xa0", b"\xc3", b"\xed\x20\x80"] {
            assert!(text(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn types_are_those_of_kombu() {
        let mut out = Out::default();
        out.bytes(b"x\xc3\xbc").unwrap();
        out.bytes(b"\xff").unwrap();
        out.uuid("00").unwrap();
        assert_eq!(
            out.finish(),
            r#"{"__type__": "bytes", "__value__": "x\u00fc"}{"__type__": "base64", "__value__": "/w=="}{"__type__": "uuid", "__value__": {"hex": "00"}}"#
        );
    }

    #[test]
    fn it_has_a_limit() {
        let mut out = Out::default();
        let quarter = "x".repeat(BODY_MAX / 4);
        (0..4).for_each(|_| out.push(&quarter).unwrap());
        let error = out.push("x").unwrap_err();
        assert_eq!(error.0, "body: more than the limit of 64 MiB, written as JSON");
    }
}
