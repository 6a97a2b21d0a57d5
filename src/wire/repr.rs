//! `argsrepr` and `kwargsrepr`: arguments as Python would print them, for people only.
//!
//! Source: celery `utils/saferepr.py`, in effect: a budget of characters, then `...`.

use serde_json::Value;
use serde_json::value::RawValue;

/// Characters of one repr at the most, as Celery's `argsrepr_maxsize`.
const CHARS_MAX: usize = 1024;

/// Containers nested deeper than this print as `...` (`task_repr_maxlevels`).
const DEPTH_MAX: usize = 3;

/// A list as Python prints it.
pub fn list(values: &[Box<RawValue>]) -> String {
    let mut out = Printer::default();
    out.open('[');
    for value in values {
        out.item();
        out.raw(value, 1);
    }
    out.close(']')
}

/// A dict as Python prints it.
pub fn dict(pairs: &[(String, Box<RawValue>)]) -> String {
    let mut out = Printer::default();
    out.open('{');
    for (name, value) in pairs {
        out.item();
        out.text(name);
        out.push(": ");
        out.raw(value, 1);
    }
    out.close('}')
}

/// One JSON value as Python prints it.
pub fn value(value: &Value) -> String {
    let mut out = Printer::default();
    out.value(value, 0);
    out.text
}

#[derive(Default)]
struct Printer {
    text: String,
    first: bool,
    full: bool,
}

impl Printer {
    fn open(&mut self, bracket: char) {
        self.push(bracket.encode_utf8(&mut [0; 4]));
        self.first = true;
    }

    fn item(&mut self) {
        if !self.first {
            self.push(", ");
        }
        self.first = false;
    }

    fn close(mut self, bracket: char) -> String {
        self.text.push(bracket);
        self.text
    }

    /// Past the budget the rest is left out, once said so.
    fn push(&mut self, text: &str) {
        if self.full {
            return;
        }
        let left = CHARS_MAX.saturating_sub(self.text.chars().count());
        if text.chars().count() <= left {
            self.text.push_str(text);
        } else {
            self.text.extend(text.chars().take(left));
            self.text.push_str("...");
            self.full = true;
        }
    }

    fn raw(&mut self, raw: &RawValue, depth: usize) {
        if self.full {
            return;
        }
        // A number prints as it stands: parsing would lose digits.
        if raw.get().starts_with(|c: char| c == '-' || c.is_ascii_digit()) {
            return self.push(raw.get());
        }
        match serde_json::from_str::<Value>(raw.get()) {
            Ok(parsed) => self.value(&parsed, depth),
            Err(_) => self.push(raw.get()),
        }
    }

    fn value(&mut self, value: &Value, depth: usize) {
        match value {
            Value::Null => self.push("None"),
            Value::Bool(true) => self.push("True"),
            Value::Bool(false) => self.push("False"),
            Value::Number(n) => self.push(&n.to_string()),
            Value::String(text) => self.text(text),
            Value::Array(_) | Value::Object(_) if depth >= DEPTH_MAX => self.push("..."),
            Value::Array(items) => {
                self.push("[");
                for (n, item) in items.iter().enumerate() {
                    if n > 0 {
                        self.push(", ");
                    }
                    self.value(item, depth + 1);
                }
                self.push("]");
            }
            Value::Object(fields) => {
                self.push("{");
                for (n, (name, item)) in fields.iter().enumerate() {
                    if n > 0 {
                        self.push(", ");
                    }
                    self.text(name);
                    self.push(": ");
                    self.value(item, depth + 1);
                }
                self.push("}");
            }
        }
    }

    fn text(&mut self, text: &str) {
        let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
        let mut out = String::with_capacity(text.len().min(CHARS_MAX) + 2);
        out.push(quote);
        for c in text.chars().take(CHARS_MAX) {
            match c {
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                c if c == quote => out.extend(['\\', c]),
                c if c.is_control() => out.push_str(&format!("\\x{:02x}", c as u32)),
                c => out.push(c),
            }
        }
        out.push(quote);
        self.push(&out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raws(texts: &[&str]) -> Vec<Box<RawValue>> {
        texts.iter().map(|t| RawValue::from_string(t.to_string()).unwrap()).collect()
    }

    #[test]
    fn prints_as_python_does() {
        let args = raws(&["1", "\"it's\"", "null", "[true, {\"a\": 1.5}]", "\"a\\nb\""]);
        assert_eq!(list(&args), r#"[1, "it's", None, [True, {'a': 1.5}], 'a\nb']"#);
        assert_eq!(dict(&[("k".into(), raws(&["2"]).remove(0))]), "{'k': 2}");
        assert_eq!(list(&[]), "[]");
    }

    #[test]
    fn ten_megabytes_print_as_a_kilobyte() {
        let args = raws(&[&format!("\"{}\"", "x".repeat(10_000_000))]);
        let text = list(&args);
        assert!(text.len() < 1100 && text.ends_with("...]"), "{}", text.len());
    }
}
