//! Pickles of protocol 4, of plain opcodes and the constructors of kombu's types: they do not run
//! anything.
//!
//! Source: CPython `Lib/pickle.py`, `Lib/datetime.py` (`_getstate`), `Lib/uuid.py`
//! (`__getstate__`).

use super::EncodeError;
use super::moment::{Moment, date_bytes, time_bytes};
use super::tree::{Node, Unknown};
use crate::wire::value::DIGITS_MAX;

/// What a pickle begins with.
pub(super) const BEGIN: [u8; 2] = [0x80, 4];

/// The opcode that ends it.
pub(super) const STOP: u8 = b'.';

/// Writes a value.
///
/// # Errors
/// Python reads no such integer.
pub(super) fn write(
    node: &Node<'_>,
    unknown: Unknown,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    match node {
        Node::Null => out.push(b'N'),
        Node::Bool(value) => out.push(if *value { 0x88 } else { 0x89 }),
        Node::Integer(digits) if digits.len() > DIGITS_MAX => {
            let why = format!("has more than {DIGITS_MAX} digits");
            text(&node.substitute(unknown, &why)?, out);
        }
        Node::Integer(digits) => integer(digits, out),
        Node::Float(value) => {
            out.push(b'G');
            out.extend(value.to_be_bytes());
        }
        Node::Text(bytes) => text(bytes, out),
        Node::Bytes(value) => bytes(value, out),
        Node::List(items) => {
            out.push(b']');
            if !items.is_empty() {
                out.push(b'(');
                items.iter().try_for_each(|item| write(item, unknown, out))?;
                out.push(b'e');
            }
        }
        Node::Map(fields) => {
            out.push(b'}');
            if !fields.is_empty() {
                out.push(b'(');
                for (name, value) in fields {
                    text(name, out);
                    write(value, unknown, out)?;
                }
                out.push(b'u');
            }
        }
        Node::Moment(moment, _) => self::moment(moment, out),
        Node::Decimal(digits) => {
            global("decimal", "Decimal", out);
            text(digits.as_bytes(), out);
            call(1, out);
        }
        Node::Uuid(uuid) => {
            global("uuid", "UUID", out);
            // An empty tuple, NEWOBJ, and a state.
            out.extend(b")\x81}");
            text(b"int", out);
            // Two's complement, the lowest byte first.
            out.extend([0x8a, 17]);
            out.extend(uuid.as_u128().to_le_bytes());
            out.extend(b"\0sb");
        }
    }
    Ok(())
}

fn integer(digits: &str, out: &mut Vec<u8>) {
    match digits.parse::<i32>() {
        Ok(number @ 0..=0xff) => out.extend([b'K', number as u8]),
        Ok(number) => {
            out.push(b'J');
            out.extend(number.to_le_bytes());
        }
        Err(_) => {
            out.push(b'L');
            out.extend(digits.as_bytes());
            out.extend(b"L\n");
        }
    }
}

fn text(bytes: &[u8], out: &mut Vec<u8>) {
    sized(bytes, [0x8c, b'X', 0x8d], out);
}

fn bytes(bytes: &[u8], out: &mut Vec<u8>) {
    sized(bytes, *b"CB\x8e", out);
}

/// Bytes behind their count in one, four or eight bytes.
fn sized(bytes: &[u8], [short, long, huge]: [u8; 3], out: &mut Vec<u8>) {
    let count = bytes.len();
    match (u8::try_from(count), u32::try_from(count)) {
        (Ok(count), _) => out.extend([short, count]),
        (_, Ok(count)) => {
            out.push(long);
            out.extend(count.to_le_bytes());
        }
        _ => {
            out.push(huge);
            out.extend((count as u64).to_le_bytes());
        }
    }
    out.extend(bytes);
}

fn moment(moment: &Moment, out: &mut Vec<u8>) {
    let (name, state, offset) = match moment {
        Moment::Date(date) => ("date", date_bytes(*date).to_vec(), None),
        Moment::Time(time, offset) => ("time", time_bytes(*time).to_vec(), *offset),
        Moment::Datetime(date, time, offset) => {
            ("datetime", [&date_bytes(*date)[..], &time_bytes(*time)].concat(), *offset)
        }
    };
    global("datetime", name, out);
    bytes(&state, out);
    let Some(offset) = offset else { return call(1, out) };
    global("datetime", "timezone", out);
    global("datetime", "timedelta", out);
    out.extend([b'K', 0]);
    integer(&(offset / 1_000_000).to_string(), out);
    integer(&(offset % 1_000_000).to_string(), out);
    call(3, out);
    call(1, out);
    call(2, out);
}

fn global(module: &str, name: &str, out: &mut Vec<u8>) {
    text(module.as_bytes(), out);
    text(name.as_bytes(), out);
    out.push(0x93);
}

/// So many arguments for what is below them.
fn call(arguments: u8, out: &mut Vec<u8>) {
    out.extend([0x84 + arguments, b'R']);
}
