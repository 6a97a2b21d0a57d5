//! YAML that PyYAML's safe loader reads as the same values: one line in flow style, in which only
//! what is no text is plain. A document of a result begins as JSON does.
//!
//! Source: PyYAML `resolver.py`, `scanner.py`, `constructor.py` (`SafeConstructor`).

use super::EncodeError;
use super::moment::Moment;
use super::tree::{Node, Unknown};
use crate::wire::body::to_base64;
use crate::wire::decode::number;
use crate::wire::value::DIGITS_MAX;

/// Longest key that stands before its `:` alone; a scanner looks back no farther than 1024
/// characters.
const KEY_MAX: usize = 1000;

/// Writes a value.
///
/// # Errors
/// The safe loader has no such value.
pub(super) fn write(
    node: &Node<'_>,
    unknown: Unknown,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    match node {
        Node::Null => out.extend(b"null"),
        Node::Bool(value) => out.extend(value.to_string().bytes()),
        Node::Integer(digits) if digits.len() > DIGITS_MAX => {
            let why = format!("has more than {DIGITS_MAX} digits");
            text(&node.substitute(unknown, &why)?, out);
        }
        Node::Integer(digits) => out.extend(digits.bytes()),
        Node::Float(value) => out.extend(float(*value).bytes()),
        Node::Text(bytes) => text(bytes, out),
        Node::Bytes(bytes) => {
            out.extend(b"!!binary ");
            text(to_base64(bytes).as_bytes(), out);
        }
        Node::List(items) => {
            out.push(b'[');
            for (n, item) in items.iter().enumerate() {
                out.extend(if n == 0 { &b""[..] } else { b", " });
                write(item, unknown, out)?;
            }
            out.push(b']');
        }
        Node::Map(fields) => {
            out.push(b'{');
            for (n, (name, value)) in fields.iter().enumerate() {
                out.extend(if n == 0 { &b""[..] } else { b", " });
                let mut key = Vec::new();
                text(name, &mut key);
                out.extend(if key.len() > KEY_MAX { &b"? "[..] } else { b"" });
                out.extend(key);
                out.extend(b": ");
                write(value, unknown, out)?;
            }
            out.push(b'}');
        }
        Node::Moment(moment, _) => match plain(moment) {
            Some(text) => out.extend(text.bytes()),
            None => text(&node.substitute(unknown, "has no form in YAML")?, out),
        },
        Node::Decimal(_) | Node::Uuid(_) => {
            text(&node.substitute(unknown, "has no form in YAML")?, out);
        }
    }
    Ok(())
}

/// A float has a point in YAML 1.1.
fn float(value: f64) -> String {
    match value {
        value if value.is_nan() => ".nan".into(),
        f64::INFINITY => ".inf".into(),
        f64::NEG_INFINITY => "-.inf".into(),
        value => {
            let text = number::repr(value);
            match text.contains('.') {
                true => text,
                false => text.replacen('e', ".0e", 1),
            }
        }
    }
}

/// A date, or a date and a time with an offset of whole minutes. A time alone is a number there.
fn plain(moment: &Moment) -> Option<String> {
    let (date, time, offset) = match moment {
        Moment::Date(date) => return Some(date.format("%Y-%m-%d").to_string()),
        Moment::Time(..) => return None,
        Moment::Datetime(date, time, offset) => (date, time, offset),
    };
    let mut text = format!("{} {}", date.format("%Y-%m-%d"), time.format("%H:%M:%S%.6f"));
    if let Some(micros) = offset {
        let minutes = micros / 60_000_000;
        if micros % 60_000_000 != 0 {
            return None;
        }
        let sign = if minutes < 0 { '-' } else { '+' };
        text.push_str(&format!("{sign}{:02}:{:02}", minutes.abs() / 60, minutes.abs() % 60));
    }
    Some(text)
}

/// A text in double quotes, in ASCII.
fn text(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    let mut rest = bytes;
    while !rest.is_empty() {
        let (good, bad) = match std::str::from_utf8(rest) {
            Ok(text) => (text, &rest[rest.len()..]),
            Err(error) => {
                let (good, bad) = rest.split_at(error.valid_up_to());
                (std::str::from_utf8(good).unwrap_or_default(), bad)
            }
        };
        good.chars().for_each(|c| character(c, out));
        rest = match bad {
            // A lone surrogate has three bytes.
            [first, second, third, rest @ ..] => {
                let code = u32::from(first & 0x0f) << 12
                    | u32::from(second & 0x3f) << 6
                    | u32::from(third & 0x3f);
                out.extend(format!("\\u{code:04x}").bytes());
                rest
            }
            _ => &[],
        };
    }
    out.push(b'"');
}

fn character(c: char, out: &mut Vec<u8>) {
    match c {
        '"' => out.extend(b"\\\""),
        '\\' => out.extend(b"\\\\"),
        '\n' => out.extend(b"\\n"),
        '\r' => out.extend(b"\\r"),
        '\t' => out.extend(b"\\t"),
        ' '..='~' => out.push(c as u8),
        c if u32::from(c) < 0x100 => out.extend(format!("\\x{:02x}", u32::from(c)).bytes()),
        c if u32::from(c) < 0x1_0000 => out.extend(format!("\\u{:04x}", u32::from(c)).bytes()),
        c => out.extend(format!("\\U{:08x}", u32::from(c)).bytes()),
    }
}
