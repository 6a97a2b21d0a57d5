//! From JSON texts to WASM numbers and back, without losing a digit.

use crate::wire::Exception;
use wasmtime::{Val, ValType};

/// The four types of numbers that functions take and return.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WasmNumber {
    /// 32-bit integer.
    I32,
    /// 64-bit integer.
    I64,
    /// 32-bit float.
    F32,
    /// 64-bit float.
    F64,
}

impl WasmNumber {
    /// The number of a WASM type; `None` for vectors and references.
    pub(super) fn of(kind: &ValType) -> Option<WasmNumber> {
        match kind {
            ValType::I32 => Some(WasmNumber::I32),
            ValType::I64 => Some(WasmNumber::I64),
            ValType::F32 => Some(WasmNumber::F32),
            ValType::F64 => Some(WasmNumber::F64),
            ValType::V128 | ValType::Ref(_) => None,
        }
    }

    /// As WASM spells it.
    pub(super) fn name(self) -> &'static str {
        match self {
            WasmNumber::I32 => "i32",
            WasmNumber::I64 => "i64",
            WasmNumber::F32 => "f32",
            WasmNumber::F64 => "f64",
        }
    }

    /// The value of a JSON text; `argument` names it in the message.
    ///
    /// # Errors
    /// `TypeError` for what is no number, or no integer where one is due;
    /// `OverflowError` for what is too large.
    pub(super) fn parse(self, json: &str, argument: &str) -> Result<Val, Exception> {
        match self {
            WasmNumber::I32 => {
                let value = integer(json, argument, self.name(), i32::MIN.into(), i32::MAX.into())?;
                Ok(Val::I32(value as i32))
            }
            WasmNumber::I64 => {
                let value = integer(json, argument, self.name(), i64::MIN.into(), i64::MAX.into())?;
                Ok(Val::I64(value as i64))
            }
            WasmNumber::F32 => {
                let value = float(json, argument, self.name())? as f32;
                if value.is_infinite() {
                    return Err(overflow(json, argument, self.name()));
                }
                Ok(Val::F32(value.to_bits()))
            }
            WasmNumber::F64 => Ok(Val::F64(float(json, argument, self.name())?.to_bits())),
        }
    }
}

/// The integer of a JSON text between `min` and `max`. A float counts if it is whole: JSON
/// writers differ in whether they print 3 or 3.0.
///
/// # Errors
/// `TypeError`, `OverflowError`; `argument` and `kind` say what was expected of which.
pub(super) fn integer(
    json: &str,
    argument: &str,
    kind: &str,
    min: i128,
    max: i128,
) -> Result<i128, Exception> {
    let digits = json.strip_prefix('-').unwrap_or(json);
    let whole = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let value = if whole {
        // Only digits: what does not parse has too many of them.
        json.parse().map_err(|_| overflow(json, argument, kind))?
    } else {
        let value = float(json, argument, kind)?;
        if value.fract() != 0.0 {
            return Err(mismatch(json, argument, kind));
        }
        // Saturates; 2^127 is out of any range here.
        value as i128
    };
    if (min..=max).contains(&value) { Ok(value) } else { Err(overflow(json, argument, kind)) }
}

/// The float of a JSON text.
///
/// # Errors
/// As [`integer`].
pub(super) fn float(json: &str, argument: &str, kind: &str) -> Result<f64, Exception> {
    // JSON numbers begin with a digit or a minus; Rust would also read "inf" and "nan".
    if !json.starts_with(|first: char| first == '-' || first.is_ascii_digit()) {
        return Err(mismatch(json, argument, kind));
    }
    let value: f64 = json.parse().map_err(|_| mismatch(json, argument, kind))?;
    if value.is_finite() { Ok(value) } else { Err(overflow(json, argument, kind)) }
}

/// `TypeError`: this argument is of another kind.
pub(super) fn mismatch(json: &str, argument: &str, kind: &str) -> Exception {
    let text = format!("{argument}: expected {kind}, got {}", shorten(json));
    Exception::new("builtins", "TypeError", text)
}

fn overflow(json: &str, argument: &str, kind: &str) -> Exception {
    let text = format!("{argument}: {} does not fit into {kind}", shorten(json));
    Exception::new("builtins", "OverflowError", text)
}

/// The beginning of a JSON text, for messages.
fn shorten(json: &str) -> String {
    const CHARS_MAX: usize = 60;
    match json.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{}…", &json[..end]),
        None => json.into(),
    }
}

/// The results of a function as one JSON text: null, the number, or an array of them.
pub(super) fn render(results: &[Val]) -> String {
    match results {
        [] => "null".into(),
        [one] => text(one),
        several => {
            let texts: Vec<String> = several.iter().map(text).collect();
            format!("[{}]", texts.join(","))
        }
    }
}

fn text(value: &Val) -> String {
    match value {
        Val::I32(value) => value.to_string(),
        Val::I64(value) => value.to_string(),
        Val::F32(bits) => single(f32::from_bits(*bits)),
        Val::F64(bits) => double(f64::from_bits(*bits)),
        // Functions with other results are refused before they are called.
        _ => "null".into(),
    }
}

/// The shortest JSON text of a float; what JSON lacks as the strings that JavaScript and
/// Python both read as numbers.
pub(super) fn double(value: f64) -> String {
    if value.is_finite() { json(&value) } else { special(value) }
}

/// As [`double`], with as many digits as a 32-bit float has.
pub(super) fn single(value: f32) -> String {
    if value.is_finite() { json(&value) } else { special(value.into()) }
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|_| "null".into())
}

fn special(value: f64) -> String {
    let name = match value {
        value if value.is_nan() => "NaN",
        value if value > 0.0 => "Infinity",
        _ => "-Infinity",
    };
    format!("\"{name}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(kind: WasmNumber, json: &str) -> Result<String, String> {
        kind.parse(json, "x").map(|value| text(&value)).map_err(|error| error.exc_type)
    }

    #[test]
    fn numbers_in() {
        let wrong = |class: &str| Err(class.to_string());
        let right = |text: &str| Ok(text.to_string());
        let cases = [
            (WasmNumber::I32, "7", right("7")),
            (WasmNumber::I32, "-2147483648", right("-2147483648")),
            (WasmNumber::I32, "2147483648", wrong("OverflowError")),
            (WasmNumber::I32, "3.0", right("3")),
            (WasmNumber::I32, "1e3", right("1000")),
            (WasmNumber::I32, "3.5", wrong("TypeError")),
            (WasmNumber::I32, "\"3\"", wrong("TypeError")),
            (WasmNumber::I32, "true", wrong("TypeError")),
            (WasmNumber::I32, "null", wrong("TypeError")),
            (WasmNumber::I64, "9223372036854775807", right("9223372036854775807")),
            (WasmNumber::I64, "9223372036854775808", wrong("OverflowError")),
            (WasmNumber::I64, "9223372036854775808.0", wrong("OverflowError")),
            (WasmNumber::I64, "1e300", wrong("OverflowError")),
            (WasmNumber::I64, &"9".repeat(99), wrong("OverflowError")),
            (WasmNumber::F32, "0.1", right("0.1")),
            (WasmNumber::F32, "1e39", wrong("OverflowError")),
            (WasmNumber::F64, "0.1", right("0.1")),
            (WasmNumber::F64, "2", right("2.0")),
            (WasmNumber::F64, "1e999", wrong("OverflowError")),
            (WasmNumber::F64, "[]", wrong("TypeError")),
        ];
        for (kind, json, expected) in cases {
            assert_eq!(read(kind, json), expected, "{kind:?} {json}");
        }
    }

    #[test]
    fn numbers_out() {
        assert_eq!(render(&[]), "null");
        assert_eq!(render(&[Val::I64(i64::MIN)]), "-9223372036854775808");
        assert_eq!(render(&[Val::I32(1), Val::F64(1.5f64.to_bits())]), "[1,1.5]");
        assert_eq!(double(f64::NAN), "\"NaN\"");
        assert_eq!(single(f32::NEG_INFINITY), "\"-Infinity\"");
        assert_eq!(double(1e300), "1e+300");
    }

    #[test]
    fn messages_name_the_argument_and_the_type() {
        let error = WasmNumber::I32.parse("\"a\"", "argument 2 (`b`)").unwrap_err();
        assert_eq!(error.exc_message[0], "argument 2 (`b`): expected i32, got \"a\"");
    }
}
