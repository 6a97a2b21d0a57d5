//! What a scalar of YAML 1.1 is: by its tag, or a plain one by its letters.
//!
//! Source: PyYAML `resolver.py` (the patterns), `constructor.py` (what becomes of them).

use super::super::{json, moment, number};
use super::{Scalar, unknown};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Maximum number of parts of a number in base 60: more than Python has digits for.
const SIXTIETHS_MAX: usize = 2500;

/// Reads a scalar.
///
/// # Errors
/// Says that it is not what its tag says, or that the tag is none of data.
pub(super) fn read(text: &str, is_plain: bool, tag: Option<&str>) -> Result<Scalar, String> {
    let none = || format!("{:?} is none of what its tag says", shortened(text));
    let found = match tag {
        None if is_plain => plain(text),
        None | Some("!!str") => Some(Scalar::Text(text.into())),
        Some("!!null") => Some(Scalar::Plain("null".into())),
        Some("!!bool") => boolean(text).map(|value| Scalar::Plain(value.to_string())),
        Some("!!int") => integer(text).map(Scalar::Plain),
        Some("!!float") => float(text).map(|value| Scalar::Plain(json::float(value))),
        Some("!!timestamp") => timestamp(text).ok_or_else(none)?,
        Some("!!binary") => binary(text).map(Scalar::Bytes),
        Some("!!merge") => Some(Scalar::Merge),
        Some(other) => return Err(unknown(other)),
    };
    found.ok_or_else(none)
}

fn shortened(text: &str) -> String {
    text.chars().take(60).collect()
}

/// A scalar without quotes and tag; `None` if it looks like a value and is none.
fn plain(text: &str) -> Option<Scalar> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Some(Scalar::Plain("null".into())),
        "<<" => return Some(Scalar::Merge),
        _ => {}
    }
    if let Some(value) = boolean(text).filter(|_| text.is_ascii()).filter(|_| is_cased(text)) {
        return Some(Scalar::Plain(value.to_string()));
    }
    if !text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c)) {
        return Some(Scalar::Text(text.into()));
    }
    if is_float(text) {
        return float(text).map(|value| Scalar::Plain(json::float(value)));
    }
    if is_integer(text) {
        return integer(text).map(Scalar::Plain);
    }
    match timestamp(text) {
        Some(found) => found,
        None => Some(Scalar::Text(text.into())),
    }
}

/// `yes`, `Yes` or `YES`, but not `yEs`.
fn is_cased(text: &str) -> bool {
    let rest = text.get(1..).unwrap_or_default();
    let is_lower = |text: &str| text.bytes().all(|byte| byte.is_ascii_lowercase());
    let is_upper = |text: &str| text.bytes().all(|byte| byte.is_ascii_uppercase());
    is_lower(rest) || is_upper(text)
}

fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "yes" | "true" | "on" => Some(true),
        "no" | "false" | "off" => Some(false),
        _ => None,
    }
}

fn unsigned(text: &str) -> (bool, &str) {
    match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    }
}

fn all(text: &str, is_one: impl Fn(u8) -> bool) -> bool {
    text.bytes().all(|byte| byte == b'_' || is_one(byte))
}

/// Minutes and seconds behind a number in base 60: `:[0-5]?[0-9]`, once or more.
fn are_sixtieths<'a>(mut parts: impl Iterator<Item = &'a str>) -> bool {
    parts.all(|part| match part.as_bytes() {
        [one] => one.is_ascii_digit(),
        [ten, one] => (b'0'..=b'5').contains(ten) && one.is_ascii_digit(),
        _ => false,
    })
}

fn is_integer(text: &str) -> bool {
    let (_, digits) = unsigned(text);
    if let Some(binary) = digits.strip_prefix("0b") {
        return !binary.is_empty() && all(binary, |byte| b"01".contains(&byte));
    }
    if let Some(hex) = digits.strip_prefix("0x") {
        return !hex.is_empty() && all(hex, |byte| byte.is_ascii_hexdigit());
    }
    match digits.as_bytes() {
        [] => false,
        [b'0', ..] => all(digits, |byte| (b'0'..=b'7').contains(&byte)),
        [b'1'..=b'9', ..] => {
            let mut parts = digits.split(':');
            let first = parts.next().unwrap_or_default();
            all(first, |byte| byte.is_ascii_digit()) && are_sixtieths(parts)
        }
        _ => false,
    }
}

fn integer(text: &str) -> Option<String> {
    let text = text.replace('_', "");
    let (is_negative, digits) = unsigned(&text);
    if let Some(binary) = digits.strip_prefix("0b") {
        return number::of_radix(binary, 2, is_negative);
    }
    if let Some(hex) = digits.strip_prefix("0x") {
        return number::of_radix(hex, 16, is_negative);
    }
    if digits.starts_with('0') {
        return number::of_radix(digits, 8, is_negative);
    }
    if !digits.contains(':') {
        return number::of_text(digits).map(|digits| match is_negative {
            true => format!("-{digits}"),
            false => digits,
        });
    }
    if digits.split(':').count() > SIXTIETHS_MAX {
        return None;
    }
    let mut sum = number::Decimal::default();
    for (n, part) in digits.split(':').enumerate() {
        if n == 0 {
            for digit in part.chars() {
                sum.push(10, digit.to_digit(10)?)?;
            }
        } else {
            sum.push(60, part.parse().ok()?)?;
        }
    }
    sum.text(is_negative)
}

fn is_float(text: &str) -> bool {
    let (_, rest) = unsigned(text);
    if matches!(rest, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
        return true;
    }
    let Some((whole, part)) = rest.split_once('.') else { return false };
    let is_digit = |byte: u8| byte.is_ascii_digit();
    if whole.contains(':') {
        let mut parts = whole.split(':');
        let first = parts.next().unwrap_or_default();
        return first.starts_with(|c: char| c.is_ascii_digit())
            && all(first, is_digit)
            && are_sixtieths(parts)
            && all(part, is_digit);
    }
    let (part, is_exponent) = match part.find(['e', 'E']) {
        None => (part, true),
        Some(at) => {
            let digits = part[at + 1..].strip_prefix(['+', '-']).unwrap_or_default();
            (&part[..at], !digits.is_empty() && digits.bytes().all(is_digit))
        }
    };
    let starts = |text: &str| text.starts_with(|c: char| c.is_ascii_digit());
    let is_mantissa = match whole.is_empty() {
        // No sign before a point.
        true => text.starts_with('.') && starts(part),
        false => starts(whole) && all(whole, is_digit),
    };
    is_mantissa && all(part, is_digit) && is_exponent
}

fn float(text: &str) -> Option<f64> {
    let text = text.replace('_', "").to_ascii_lowercase();
    let (is_negative, digits) = unsigned(&text);
    let value = match digits {
        ".inf" => f64::INFINITY,
        ".nan" => f64::NAN,
        _ if digits.contains(':') => {
            let parts = digits.split(':').map(|part| part.parse::<f64>().ok());
            parts.collect::<Option<Vec<f64>>>()?.into_iter().fold(0.0, |sum, n| sum * 60.0 + n)
        }
        _ => digits.parse().ok()?,
    };
    Some(if is_negative { -value } else { value })
}

fn binary(text: &str) -> Option<Vec<u8>> {
    let text: String = text.split_ascii_whitespace().collect();
    STANDARD.decode(text).ok()
}

/// A date, or a date and a time. `None` if it does not look like one; within, `None` if there is
/// no such day.
fn timestamp(text: &str) -> Option<Option<Scalar>> {
    let mut rest = text;
    let year = digits(&mut rest, 4, 4)?;
    rest = rest.strip_prefix('-')?;
    let before_month = rest;
    let month = digits(&mut rest, 1, 2)?;
    rest = rest.strip_prefix('-')?;
    let day = digits(&mut rest, 1, 2)?;
    if rest.is_empty() {
        // Alone, a date has two digits of each.
        let is_date = before_month.len() == 5;
        return is_date
            .then(|| moment::date(year, month, day).map(|day| Scalar::Typed("date", day)));
    }
    rest = match rest.strip_prefix(['T', 't']) {
        Some(rest) => rest,
        None => {
            let time = rest.trim_start_matches([' ', '\t']);
            (time.len() < rest.len()).then_some(time)?
        }
    };
    let hour = digits(&mut rest, 1, 2)?;
    rest = rest.strip_prefix(':')?;
    let minute = digits(&mut rest, 2, 2)?;
    rest = rest.strip_prefix(':')?;
    let second = digits(&mut rest, 2, 2)?;
    let mut micros = 0;
    if let Some(fraction) = rest.strip_prefix('.') {
        let length = fraction.bytes().take_while(u8::is_ascii_digit).count();
        let digits = &fraction[..length];
        micros = format!("{:0<6}", &digits[..length.min(6)]).parse().ok()?;
        rest = &fraction[length..];
    }
    let zone = zone(rest)?;
    let at = moment::date(year, month, day)
        .zip(moment::time(hour, minute, second, micros))
        .zip(zone)
        .map(|((day, time), zone)| Scalar::Typed("datetime", format!("{day}T{time}{zone}")));
    Some(at)
}

/// The zone behind a time, as `isoformat` writes it; within, `None` if there is no such zone.
fn zone(text: &str) -> Option<Option<String>> {
    if text.is_empty() {
        return Some(Some(String::new()));
    }
    let text = text.trim_start_matches([' ', '\t']);
    if text == "Z" {
        return Some(moment::offset(0));
    }
    let mut rest = text.strip_prefix(['+', '-'])?;
    let hours = digits(&mut rest, 1, 2)?;
    let minutes = match rest.strip_prefix(':') {
        Some(after) => {
            rest = after;
            digits(&mut rest, 2, 2)?
        }
        None => 0,
    };
    if !rest.is_empty() {
        return None;
    }
    let seconds = i64::from(hours * 60 + minutes) * 60;
    Some(moment::offset(if text.starts_with('-') { -seconds } else { seconds } * 1_000_000))
}

/// Takes a number of so many digits.
fn digits(rest: &mut &str, least: usize, most: usize) -> Option<u32> {
    let length = rest.bytes().take(most).take_while(u8::is_ascii_digit).count();
    let (digits, after) = rest.split_at(length);
    *rest = after;
    (length >= least).then(|| digits.parse().ok()).flatten()
}
