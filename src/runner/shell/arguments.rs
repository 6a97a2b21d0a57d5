//! The arguments of an attempt as the texts that a process can be given.

use crate::runner::Attempt;
use crate::task::Stdin;
use crate::wire::Exception;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::value::RawValue;
use serde_json::{Value, json};

/// "Argument list too long", `E2BIG` on every Linux.
pub(super) const E2BIG: i32 = 7;

/// All arguments of one attempt, in order: with `params` the bound ones, else the positional
/// and then the keyword arguments.
#[derive(Debug)]
pub(super) struct Arguments {
    list: Vec<Argument>,
    /// How many of them, from the first, may stand in `argv` by position.
    positional: usize,
}

/// One argument.
#[derive(Debug)]
pub(super) struct Argument {
    /// Place in the list, from 1.
    pub number: usize,
    /// Its name, if it has one.
    pub name: Option<String>,
    /// Its text, without NUL.
    pub text: Vec<u8>,
    /// It was too long for the kernel; the text is empty, standard input has it.
    pub left_out: bool,
}

impl Arguments {
    /// The texts of the attempt's arguments. One for whose environment entry the kernel
    /// has no room in `longest` bytes is left out if standard input has it.
    ///
    /// # Errors
    /// Such an argument without `stdin: json`, or one with a NUL.
    pub fn of(attempt: &Attempt, longest: usize) -> Result<Arguments, Exception> {
        let unnamed = attempt.args.iter().map(|value| (None, value));
        let keywords = attempt.kwargs.iter().map(|(name, value)| (Some(name), value));
        let bound = attempt.bound.iter().map(|(name, value)| (Some(name), value));
        let given: Vec<_> = match attempt.task.params {
            Some(_) => bound.collect(),
            None => unnamed.chain(keywords).collect(),
        };
        let positional =
            if attempt.task.params.is_some() { given.len() } else { attempt.args.len() };
        let mut list = Vec::with_capacity(given.len());
        for (number, (name, value)) in (1..).zip(given) {
            let mut argument =
                Argument { number, name: name.cloned(), text: text(value), left_out: false };
            let name_has_nul = name.is_some_and(|name| name.contains('\0'));
            if name_has_nul || argument.text.contains(&0) {
                return Err(value_error(format!("embedded null byte in {}", argument.described())));
            }
            if argument.variable().len() + 1 + argument.text.len() > longest {
                if attempt.task.stdin != Stdin::Json {
                    return Err(too_long(&argument.described(), argument.text.len()));
                }
                argument.text = Vec::new();
                argument.left_out = true;
            }
            list.push(argument);
        }
        Ok(Arguments { list, positional })
    }

    /// All of them.
    pub fn all(&self) -> &[Argument] {
        &self.list
    }

    /// Those that have a position.
    pub fn positional(&self) -> &[Argument] {
        &self.list[..self.positional]
    }

    /// The one of this name.
    pub fn named(&self, name: &str) -> Option<&Argument> {
        self.list.iter().find(|argument| argument.name.as_deref() == Some(name))
    }

    /// The one at this place, from 1, if it has no name.
    pub fn numbered(&self, number: usize) -> Option<&Argument> {
        self.list.iter().find(|argument| argument.name.is_none() && argument.number == number)
    }
}

impl Argument {
    /// The name of its entry in the environment.
    pub fn variable(&self) -> String {
        match &self.name {
            Some(name) => format!("ARG_{name}"),
            None => format!("ARG_{}", self.number),
        }
    }

    fn described(&self) -> String {
        match &self.name {
            Some(name) => format!("argument {} ('{}')", self.number, name.replace('\0', "\\0")),
            None => format!("argument {}", self.number),
        }
    }
}

/// Python's `ValueError`.
pub(super) fn value_error(message: String) -> Exception {
    Exception::new("builtins", "ValueError", message)
}

/// Python's `OSError` for something that the kernel has no room for.
pub(super) fn too_long(what: &str, bytes: usize) -> Exception {
    let hint = "use `stdin: json` for large arguments";
    let message = format!("Argument list too long: {what} has {bytes} bytes; {hint}");
    Exception::with("builtins", "OSError", vec![json!(E2BIG), json!(message)])
}

/// What a process sees of a JSON value: a string's characters, kombu's typed bytes as
/// bytes, anything else as it stands in the message, so that no digit is lost.
fn text(value: &RawValue) -> Vec<u8> {
    let json = value.get();
    match json.as_bytes().first() {
        Some(b'"') => serde_json::from_str::<String>(json).ok().map(String::into_bytes),
        Some(b'{') if json.contains("__type__") => typed_bytes(json),
        _ => None,
    }
    .unwrap_or_else(|| json.into())
}

/// `{"__type__": "bytes" | "base64", "__value__": …}` of kombu's JSON serializer.
fn typed_bytes(json: &str) -> Option<Vec<u8>> {
    let value: Value = serde_json::from_str(json).ok()?;
    let text = value.get("__value__")?.as_str()?;
    match value.get("__type__")?.as_str()? {
        "bytes" => Some(text.into()),
        "base64" => STANDARD.decode(text).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        for (json, expected) in [
            (r#""a \"b\"\n\u00e9""#, "a \"b\"\n\u{e9}".as_bytes()),
            ("123456789012345678901234567890", b"123456789012345678901234567890"),
            ("1.50", b"1.50"),
            ("true", b"true"),
            ("null", b"null"),
            (r#"[1, "x"]"#, br#"[1, "x"]"#),
            (r#"{"a":1}"#, br#"{"a":1}"#),
            (r#"{"__type__":"bytes","__value__":"h\u00e9"}"#, "h\u{e9}".as_bytes()),
            (r#"{"__type__":"base64","__value__":"/wD+"}"#, &[255, 0, 254]),
            (r#"{"__type__":"uuid","__value__":"x"}"#, br#"{"__type__":"uuid","__value__":"x"}"#),
            (r#""\ud800""#, br#""\ud800""#),
        ] {
            let raw = RawValue::from_string(json.into()).unwrap();
            assert_eq!(text(&raw), expected, "{json}");
        }
    }
}
