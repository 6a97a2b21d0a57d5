//! Single values: kombu's typed JSON and the text that a program sees of a value.
//!
//! Source: kombu `utils/json.py`: an object of exactly `__type__` and `__value__`.

use super::body::{from_base64, to_base64};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::borrow::Cow;

/// Most digits of an integer that Python reads (`sys.int_info.default_max_str_digits`).
pub(super) const DIGITS_MAX: usize = 4300;

/// Deepest nesting that Python reads from within a deep call stack: half of its default recursion
/// limit.
pub(super) const DEPTH_MAX: usize = 500;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Typed<V = Value> {
    __type__: String,
    __value__: V,
}

/// What kombu writes of a UUID.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Hex {
    hex: String,
}

/// The bytes a program gets for `value`: a text's characters, the bytes of a typed
/// value, anything else as its JSON text stands, but typed values within it are texts.
pub fn text(value: &RawValue) -> Cow<'_, [u8]> {
    let json = value.get();
    if json.starts_with('"') {
        return match serde_json::from_str::<String>(json) {
            Ok(text) => Cow::Owned(text.into_bytes()),
            // A lone surrogate: no text of ours, so it stays as written.
            Err(_) => Cow::Borrowed(json.as_bytes()),
        };
    }
    if let Some(bytes) = typed(value) {
        return Cow::Owned(bytes);
    }
    match plain(json) {
        Cow::Borrowed(json) => Cow::Borrowed(json.as_bytes()),
        Cow::Owned(json) => Cow::Owned(json.into_bytes()),
    }
}

/// The same JSON with a text in the place of each typed value within it, to the letter otherwise.
/// Bytes that are no text stay base64.
fn plain(json: &str) -> Cow<'_, str> {
    if !json.contains("__type__") {
        return Cow::Borrowed(json);
    }
    let bytes = json.as_bytes();
    let (mut out, mut copied, mut at, mut inside) = (String::new(), 0, 0, false);
    while at < bytes.len() {
        match bytes[at] {
            b'\\' if inside => at += 1,
            b'"' => inside = !inside,
            b'{' if !inside => {
                if let Some((text, length)) = typed_text(&json[at..]) {
                    out.push_str(&json[copied..at]);
                    out.push_str(&Value::from(text).to_string());
                    at += length;
                    copied = at;
                    continue;
                }
            }
            _ => {}
        }
        at += 1;
    }
    if copied == 0 {
        return Cow::Borrowed(json);
    }
    out.push_str(&json[copied..]);
    Cow::Owned(out)
}

/// The text of the typed value with which this JSON begins, and the value's length. It stops at
/// the first byte that no typed value has there, so that a deep text is read once and not once
/// for each of its brackets.
fn typed_text(json: &str) -> Option<(String, usize)> {
    if !json[1..].trim_start().starts_with("\"__type__\"") {
        return None;
    }
    let (__type__, __value__, length) = match beginning::<String>(json) {
        Some((typed, length)) => (typed.__type__, Value::String(typed.__value__), length),
        None => {
            let (typed, length) = beginning::<Hex>(json)?;
            (typed.__type__, json!({"hex": typed.__value__.hex}), length)
        }
    };
    let bytes = untyped(&Typed { __type__, __value__ })?;
    let text = String::from_utf8(bytes).unwrap_or_else(|error| to_base64(error.as_bytes()));
    Some((text, length))
}

fn beginning<'a, V: Deserialize<'a>>(json: &'a str) -> Option<(Typed<V>, usize)> {
    let mut values = serde_json::Deserializer::from_str(json).into_iter::<Typed<V>>();
    let typed = values.next()?.ok()?;
    Some((typed, values.byte_offset()))
}

/// The text of a value that kombu's JSON revives, as Python's `str` gives it; `None` if it is
/// none of those.
pub fn typed(value: &RawValue) -> Option<Vec<u8>> {
    let json = value.get();
    if !json.starts_with('{') || !json.contains("__type__") {
        return None;
    }
    untyped(&serde_json::from_str::<Typed>(json).ok()?)
}

fn untyped(typed: &Typed) -> Option<Vec<u8>> {
    match (typed.__type__.as_str(), &typed.__value__) {
        ("base64", Value::String(text)) => from_base64(text),
        ("uuid", Value::Object(fields)) => {
            let hex = fields.get("hex")?.as_str()?;
            Some(uuid::Uuid::try_parse(hex).ok()?.to_string().into_bytes())
        }
        ("bytes" | "datetime" | "date" | "time" | "decimal", Value::String(text)) => {
            Some(text.clone().into_bytes())
        }
        _ => None,
    }
}

/// Does Python's JSON read this value? It has bounds for the digits of an integer and for depth,
/// and kombu's refuses types that it does not know.
pub fn is_read_by_python(raw: &RawValue) -> bool {
    let (mut depth, mut digits, mut inside, mut escaped) = (0, 0, false, false);
    for byte in raw.get().bytes() {
        if inside {
            (inside, escaped) = (escaped || byte != b'"', !escaped && byte == b'\\');
            continue;
        }
        digits = if byte.is_ascii_digit() { digits + 1 } else { 0 };
        match byte {
            b'"' => inside = true,
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth -= 1,
            _ => {}
        }
        if depth > DEPTH_MAX || digits > DIGITS_MAX {
            return false;
        }
    }
    let is_plain = !raw.get().contains("__type__");
    is_plain || serde_json::from_str(raw.get()).is_ok_and(|value| are_types_known(&value))
}

fn are_types_known(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.iter().all(are_types_known),
        Value::Object(fields) => {
            let typed = fields.len() == 2
                && fields.contains_key("__type__")
                && fields.contains_key("__value__");
            match typed {
                true => typed_bytes(value),
                false => fields.values().all(are_types_known),
            }
        }
        _ => true,
    }
}

fn typed_bytes(value: &Value) -> bool {
    serde_json::from_value::<Typed>(value.clone()).is_ok_and(|typed| untyped(&typed).is_some())
}

/// Bytes as kombu encodes them in JSON.
pub fn bytes(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => json!({"__type__": "bytes", "__value__": text}),
        Err(_) => json!({"__type__": "base64", "__value__": to_base64(bytes)}),
    }
}

/// `value` as a raw JSON value.
pub fn raw(value: &Value) -> Box<RawValue> {
    RawValue::from_string(value.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_program_sees() {
        let cases: &[(&str, &[u8])] = &[
            (r#""a b\n""#, b"a b\n"),
            ("12345678901234567890123", b"12345678901234567890123"),
            ("true", b"true"),
            ("[1, 2]", b"[1, 2]"),
            (r#"{"__type__": "bytes", "__value__": "x"}"#, b"x"),
            (r#"{"__type__": "base64", "__value__": "AP8="}"#, &[0, 255]),
            (r#"{"__type__": "decimal", "__value__": "1.10"}"#, b"1.10"),
            (
                r#"{"__type__": "uuid", "__value__": {"hex": "00000000000000000000000000000001"}}"#,
                b"00000000-0000-0000-0000-000000000001",
            ),
            (
                r#"{"__type__": "datetime", "__value__": "2030-01-02T03:04:05"}"#,
                b"2030-01-02T03:04:05",
            ),
            (r#"{"__value__": "03:04:05", "__type__": "time"}"#, b"03:04:05"),
            (r#"{"__type__": "set", "__value__": 1}"#, br#"{"__type__": "set", "__value__": 1}"#),
            (
                r#"{"__type__": "uuid", "__value__": "x"}"#,
                br#"{"__type__": "uuid", "__value__": "x"}"#,
            ),
            (
                r#"[ 1.50,{"a": {"__type__": "decimal", "__value__": "1.10"}, "b":{}}, "{\"__type__\"" ]"#,
                br#"[ 1.50,{"a": "1.10", "b":{}}, "{\"__type__\"" ]"#,
            ),
            (
                r#"{"id": { "__type__": "uuid", "__value__": {"hex": "00000000000000000000000000000001"}}}"#,
                br#"{"id": "00000000-0000-0000-0000-000000000001"}"#,
            ),
            (
                r#"[{"__type__": "bytes", "__value__": "\u00fc\""}, {"__type__": "base64", "__value__": "AP8="}]"#,
                "[\"\u{fc}\\\"\", \"AP8=\"]".as_bytes(),
            ),
            (
                r#"[{"__type__": "set", "__value__": {"__type__": "date", "__value__": "2030-01-02"}}]"#,
                br#"[{"__type__": "set", "__value__": "2030-01-02"}]"#,
            ),
            (r#""\ud800""#, br#""\ud800""#),
        ];
        for (json, expected) in cases {
            let value = RawValue::from_string(json.to_string()).unwrap();
            assert_eq!(&*text(&value), *expected, "{json}");
        }
    }

    /// Each bracket of it could begin a typed value.
    #[test]
    fn a_deep_text_is_read_once() {
        let deep = r#"{"__type__": "uuid", "__value__": "#.repeat(300_000);
        assert!(matches!(plain(&deep), Cow::Borrowed(_)));
    }

    #[test]
    fn what_python_cannot_read_is_told() {
        let deep = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        let uuid =
            r#"{"__type__": "uuid", "__value__": {"hex": "00000000000000000000000000000001"}}"#;
        let brackets = format!(r#""{}\\\"{}""#, "[".repeat(600), "1".repeat(5000));
        for json in ["1e400", &"1".repeat(4300), &deep(500), uuid, &brackets, r#"{"__type__": 1}"#]
        {
            assert!(is_read_by_python(&RawValue::from_string(json.into()).unwrap()), "{json}");
        }
        let odd = r#"[{"__type__": "set", "__value__": 1}]"#;
        for json in [&"1".repeat(4301), &deep(501), odd] {
            assert!(!is_read_by_python(&RawValue::from_string(json.into()).unwrap()), "{json}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_travel_as_base64() {
        assert_eq!(bytes(b"ok"), json!({"__type__": "bytes", "__value__": "ok"}));
        assert_eq!(bytes(&[0xff]), json!({"__type__": "base64", "__value__": "/w=="}));
    }
}
