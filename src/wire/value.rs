//! Single values: kombu's typed JSON and the text that a program sees of a value.
//!
//! Source: kombu `utils/json.py`: an object of exactly `__type__` and `__value__`.

use super::body::{from_base64, to_base64};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::borrow::Cow;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Typed {
    __type__: String,
    __value__: Value,
}

/// The bytes a program gets for `value`: a text's characters, the bytes of a typed
/// value, anything else as its JSON text stands.
pub fn text(value: &RawValue) -> Cow<'_, [u8]> {
    let json = value.get();
    if json.starts_with('"') {
        return match serde_json::from_str::<String>(json) {
            Ok(text) => Cow::Owned(text.into_bytes()),
            // A lone surrogate: no text of ours, so it stays as written.
            Err(_) => Cow::Borrowed(json.as_bytes()),
        };
    }
    typed(value).map_or(Cow::Borrowed(json.as_bytes()), Cow::Owned)
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
            (r#"{"__type__": "set", "__value__": 1}"#, br#"{"__type__": "set", "__value__": 1}"#),
        ];
        for (json, expected) in cases {
            let value = RawValue::from_string(json.to_string()).unwrap();
            assert_eq!(&*text(&value), *expected, "{json}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_travel_as_base64() {
        assert_eq!(bytes(b"ok"), json!({"__type__": "bytes", "__value__": "ok"}));
        assert_eq!(bytes(&[0xff]), json!({"__type__": "base64", "__value__": "/w=="}));
    }
}
