//! MessagePack as kombu writes it (`serialization.py`, `packb(use_bin_type=True)`).

use super::EncodeError;
use super::tree::{Node, Unknown};

/// Writes a value.
///
/// # Errors
/// MessagePack has no such value.
pub(super) fn write(
    node: &Node<'_>,
    unknown: Unknown,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    match node {
        Node::Null => out.push(0xc0),
        Node::Bool(value) => out.push(0xc2 + u8::from(*value)),
        Node::Integer(digits) => match (digits.parse::<u64>(), digits.parse::<i64>()) {
            (Ok(number), _) => unsigned(number, out),
            (_, Ok(number)) => signed(number, out),
            _ => text(&node.substitute(unknown, "has more than 64 bits")?, out)?,
        },
        Node::Float(value) => {
            out.push(0xcb);
            out.extend(value.to_be_bytes());
        }
        Node::Text(bytes) if std::str::from_utf8(bytes).is_err() => {
            text(&node.substitute(unknown, "is not UTF-8: it has a lone surrogate")?, out)?;
        }
        Node::Text(bytes) => text(bytes, out)?,
        Node::Bytes(bytes) => {
            size(bytes.len(), None, [Some(0xc4), Some(0xc5), Some(0xc6)], out)?;
            out.extend(bytes);
        }
        Node::List(items) => {
            size(items.len(), Some((0x90, 16)), [None, Some(0xdc), Some(0xdd)], out)?;
            items.iter().try_for_each(|item| write(item, unknown, out))?;
        }
        Node::Map(fields) => {
            size(fields.len(), Some((0x80, 16)), [None, Some(0xde), Some(0xdf)], out)?;
            for (name, value) in fields {
                write(&Node::Text(name.clone()), unknown, out)?;
                write(value, unknown, out)?;
            }
        }
        Node::Moment(..) | Node::Decimal(_) | Node::Uuid(_) => {
            text(&node.substitute(unknown, "has no form in MessagePack")?, out)?;
        }
    }
    Ok(())
}

fn text(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeError> {
    size(bytes.len(), Some((0xa0, 32)), [Some(0xd9), Some(0xda), Some(0xdb)], out)?;
    out.extend(bytes);
    Ok(())
}

/// A length: in the mark itself if it is less than a limit, or behind a mark in one, two or four
/// bytes.
fn size(
    length: usize,
    fixed: Option<(u8, usize)>,
    marks: [Option<u8>; 3],
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    match (fixed, marks) {
        (Some((mark, limit)), _) if length < limit => out.push(mark | length as u8),
        (_, [Some(mark), ..]) if length <= 0xff => out.extend([mark, length as u8]),
        (_, [_, Some(mark), _]) if length <= 0xffff => {
            out.push(mark);
            out.extend((length as u16).to_be_bytes());
        }
        (_, [.., Some(mark)]) if u32::try_from(length).is_ok() => {
            out.push(mark);
            out.extend((length as u32).to_be_bytes());
        }
        _ => return Err(EncodeError("a value of 4 GiB or more".into())),
    }
    Ok(())
}

fn unsigned(number: u64, out: &mut Vec<u8>) {
    match number {
        0..=0x7f => out.push(number as u8),
        0x80..=0xff => out.extend([0xcc, number as u8]),
        0x100..=0xffff => {
            out.push(0xcd);
            out.extend((number as u16).to_be_bytes());
        }
        0x1_0000..=0xffff_ffff => {
            out.push(0xce);
            out.extend((number as u32).to_be_bytes());
        }
        _ => {
            out.push(0xcf);
            out.extend(number.to_be_bytes());
        }
    }
}

/// A number below zero, or what JSON writes as `-0`.
fn signed(number: i64, out: &mut Vec<u8>) {
    match number {
        0.. => unsigned(number as u64, out),
        -32..0 => out.push(number as u8),
        -0x80..-32 => out.extend([0xd0, number as u8]),
        -0x8000..-0x80 => {
            out.push(0xd1);
            out.extend((number as i16).to_be_bytes());
        }
        -0x8000_0000..-0x8000 => {
            out.push(0xd2);
            out.extend((number as i32).to_be_bytes());
        }
        _ => {
            out.push(0xd3);
            out.extend(number.to_be_bytes());
        }
    }
}
