//! A value as Python's `repr` prints it, on one line and not too long: for log lines.

use serde_json::Value;

/// Most characters.
const CHARS_MAX: usize = 1024;

/// Containers nested deeper than this print as `...`.
const DEPTH_MAX: usize = 3;

/// One JSON value as Python prints it.
pub fn value(value: &Value) -> String {
    let mut out = Printer::default();
    out.value(value, 0);
    out.text
}

#[derive(Default)]
struct Printer {
    text: String,
    full: bool,
}

impl Printer {
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
    use serde_json::json;

    #[test]
    fn prints_as_python_does() {
        let shown = value(&json!([1, "it's", null, [true, {"a": 1.5}], "a\nb"]));
        assert_eq!(shown, r#"[1, "it's", None, [True, {'a': 1.5}], 'a\nb']"#);
        assert_eq!(value(&json!([])), "[]");
    }

    #[test]
    fn ten_megabytes_print_as_a_kilobyte() {
        let text = value(&json!("x".repeat(10_000_000)));
        assert!(text.len() < 1100 && text.ends_with("..."), "{}", text.len());
    }
}
