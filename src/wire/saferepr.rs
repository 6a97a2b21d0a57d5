//! `argsrepr` and `kwargsrepr`: arguments as Celery prints them, for people only.
//!
//! Source: celery `utils/saferepr.py`: a budget of characters that each token takes from;
//! when it is used up, `, ...` and the brackets that are still open. Texts are not escaped
//! but for single quotes.

use super::body::Pairs;
use serde_json::value::RawValue;

/// Characters of one repr, as Celery's `argsrepr_maxsize`.
const CHARS_MAX: usize = 1024;

/// Containers nested deeper than this print as `[...]` (`task_repr_maxlevels`).
const DEPTH_MAX: usize = 3;

/// Positional arguments; none of them are an empty tuple, as for Celery.
pub fn args(values: &[Box<RawValue>]) -> String {
    if values.is_empty() {
        return "()".into();
    }
    let mut out = Printer::new();
    out.list(values.iter().map(AsRef::as_ref), 0);
    out.text
}

/// Positional arguments as a tuple, which a task of Python's has them in.
pub fn tuple(values: &[Box<RawValue>]) -> String {
    let text = args(values);
    match text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        Some(inner) if values.len() == 1 => format!("({inner},)"),
        Some(inner) => format!("({inner})"),
        None => text,
    }
}

/// Keyword arguments.
pub fn kwargs(pairs: &[(String, Box<RawValue>)]) -> String {
    let mut out = Printer::new();
    out.dict(pairs.iter().map(|(name, value)| (name.as_str(), value.as_ref())), 0);
    out.text
}

struct Printer {
    text: String,
    /// Characters of the budget.
    left: usize,
    /// The budget is used up and that was said: only brackets are closed.
    cut: bool,
}

impl Printer {
    fn new() -> Printer {
        Printer { text: String::new(), left: CHARS_MAX, cut: false }
    }

    /// May another token be printed? If not, says so, once.
    fn goes_on(&mut self) -> bool {
        if !self.cut && self.left == 0 {
            self.text.push_str(", ...");
            self.cut = true;
        }
        !self.cut
    }

    fn push(&mut self, token: &str) {
        self.text.push_str(token);
        self.left = self.left.saturating_sub(token.chars().count());
    }

    fn token(&mut self, token: &str) {
        if self.goes_on() {
            self.push(token);
        }
    }

    fn list<'a>(&mut self, values: impl Iterator<Item = &'a RawValue>, depth: usize) {
        if !self.goes_on() {
            return;
        }
        self.push("[");
        for (n, value) in values.enumerate() {
            if self.cut {
                break;
            }
            if n > 0 {
                self.token(", ");
            }
            self.value(value, depth + 1);
        }
        // What was opened is closed, whatever is left.
        self.push("]");
    }

    fn dict<'a>(&mut self, pairs: impl Iterator<Item = (&'a str, &'a RawValue)>, depth: usize) {
        if !self.goes_on() {
            return;
        }
        self.push("{");
        for (n, (name, value)) in pairs.enumerate() {
            if self.cut {
                break;
            }
            if n > 0 {
                self.token(", ");
            }
            self.quoted(name);
            self.token(": ");
            self.value(value, depth + 1);
        }
        self.push("}");
    }

    fn value(&mut self, value: &RawValue, depth: usize) {
        if !self.goes_on() {
            return;
        }
        let text = value.get();
        match text.as_bytes().first() {
            Some(b'[') if depth >= DEPTH_MAX => self.push("[...]"),
            Some(b'{') if depth >= DEPTH_MAX => self.push("{...}"),
            Some(b'[') => {
                let items: Vec<&RawValue> = serde_json::from_str(text).unwrap_or_default();
                self.list(items.into_iter(), depth);
            }
            Some(b'{') => {
                let Ok(Pairs(pairs)) = serde_json::from_str(text) else { return };
                self.dict(pairs.iter().map(|(name, value)| (name.as_str(), value.as_ref())), depth);
            }
            Some(b'"') => self.quoted(&serde_json::from_str::<String>(text).unwrap_or_default()),
            Some(b't') => self.cut_to_fit("True"),
            Some(b'f') => self.cut_to_fit("False"),
            Some(b'n') => self.cut_to_fit("None"),
            _ => self.cut_to_fit(&number(text)),
        }
    }

    fn quoted(&mut self, text: &str) {
        if self.goes_on() {
            let token = format!("'{}'", truncate(text, self.left).replace('\'', "\\'"));
            self.push(&token);
        }
    }

    fn cut_to_fit(&mut self, text: &str) {
        let token = truncate(text, self.left);
        self.push(&token);
    }
}

/// Celery's `truncate`: cut at the last blank before the limit.
fn truncate(text: &str, limit: usize) -> String {
    let Some((end, _)) = text.char_indices().nth(limit.saturating_sub(1)) else {
        return text.into();
    };
    let end = end + text[end..].chars().next().map_or(0, char::len_utf8);
    let head = &text[..end];
    format!("{}...", head.rsplit_once(' ').map_or(head, |(before, _)| before))
}

/// A number of JSON as Python prints it once read: whole ones keep their digits.
fn number(text: &str) -> String {
    if !text.contains(['.', 'e', 'E']) {
        return if text == "-0" { "0".into() } else { text.into() };
    }
    match text.parse() {
        Ok(float) => python_float(float),
        Err(_) => text.into(),
    }
}

/// Python's `repr(float)`: the shortest digits that read back the same, with an exponent
/// for what is 1e16 or more, or less than 0.0001.
fn python_float(float: f64) -> String {
    if float.is_infinite() {
        return if float > 0.0 { "inf" } else { "-inf" }.into();
    }
    let shown = format!("{float:e}");
    let (digits, exponent) = shown.split_once('e').unwrap_or((&shown, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        // Rust prints the same digits without an exponent, and a whole number bare.
        let plain = format!("{float}");
        return if plain.contains('.') { plain } else { plain + ".0" };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raws(texts: &[&str]) -> Vec<Box<RawValue>> {
        texts.iter().map(|t| RawValue::from_string(t.to_string()).unwrap()).collect()
    }

    #[test]
    fn prints_as_celery_does() {
        let values = ["1", "\"it's\"", "null", "[true, {\"a\": [1]}]", "\"a\\nb\"", "[]"];
        let shown = "[1, 'it\\'s', None, [True, {'a': [...]}], 'a\nb', []]";
        assert_eq!(args(&raws(&values)), shown);
        assert_eq!(kwargs(&[("k".into(), raws(&["2"]).remove(0))]), "{'k': 2}");
        assert_eq!((args(&[]).as_str(), kwargs(&[]).as_str()), ("()", "{}"));
    }

    #[test]
    fn numbers_are_those_of_python() {
        for (text, shown) in [
            ("1e300", "1e+300"),
            ("-0", "0"),
            ("-0.0", "-0.0"),
            ("1E5", "100000.0"),
            ("1e16", "1e+16"),
            ("1.50", "1.5"),
            ("0.0001", "0.0001"),
            ("0.000012", "1.2e-05"),
            ("123456789012345678901234567890", "123456789012345678901234567890"),
        ] {
            assert_eq!(number(text), shown);
        }
    }

    #[test]
    fn ten_megabytes_print_as_a_kilobyte() {
        let text = args(&raws(&[&format!("\"{}\"", "x".repeat(10_000_000)), "1"]));
        assert!(text.len() < 1100 && text.ends_with("...', ...]"), "{text}");
    }
}
