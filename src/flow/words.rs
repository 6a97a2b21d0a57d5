//! A call as one word of a command line: `add [2, 3] {"z": 4}`, or a signature as JSON.

use crate::wire::Signature;
use crate::wire::body::{self, Pairs};
use crate::wire::signature::SignatureKind;
use serde_json::value::RawValue;

/// What a word has to look like.
pub const EXPECTED: &str = "a task's name, then optionally a JSON array and a JSON object of its arguments; or a signature as a JSON object";

/// The name of a task, and its arguments as they stand. A name may have blanks in it: it ends where
/// arguments begin.
pub fn split(word: &str) -> (&str, &str) {
    let begins = |(at, c): &(usize, char)| {
        c.is_whitespace() && word[*at..].trim_start().starts_with(['[', '{'])
    };
    let end = word.char_indices().find(begins).map_or(word.len(), |(at, _)| at);
    word.split_at(end)
}

/// Reads a word.
///
/// # Errors
/// Says what is wrong with it, and where.
pub fn read(word: &str) -> Result<Signature, String> {
    let word = word.trim();
    if word.starts_with('{') {
        let raw: &RawValue = serde_json::from_str(word)
            .map_err(|error| format!("expected a signature as a JSON object: {}", at(&error, 0)))?;
        return Signature::read(raw).map_err(|why| why.0);
    }
    let (name, rest) = split(word);
    let end = name.len();
    if name.is_empty() || name.starts_with('[') || name.chars().any(char::is_control) {
        return Err(format!("expected {EXPECTED}"));
    }
    let (mut args, mut kwargs) = (None, None);
    let values = serde_json::Deserializer::from_str(rest).into_iter::<&RawValue>();
    for value in values {
        let value = value.map_err(|error| {
            let column = word[..end].chars().count();
            format!("arguments of {name}: {}", at(&error, column))
        })?;
        match value.get().as_bytes().first() {
            Some(b'[') if args.is_none() && kwargs.is_none() => {
                args = serde_json::from_str::<Vec<Box<RawValue>>>(value.get()).ok();
            }
            Some(b'{') if kwargs.is_none() => {
                kwargs = serde_json::from_str::<Pairs>(value.get()).ok().map(|Pairs(pairs)| pairs);
            }
            _ => {
                let found: String = value.get().chars().take(40).collect();
                return Err(format!(
                    "arguments of {name}: found {found}, expected at most a JSON array and a JSON \
                     object, in this order"
                ));
            }
        }
    }
    Ok(Signature::task(name, args.unwrap_or_default(), kwargs.unwrap_or_default()))
}

/// What is wrong with JSON that begins in this column.
fn at(error: &serde_json::Error, column: usize) -> String {
    let text = error.to_string();
    let what = text.split(" at line ").next().unwrap_or_default();
    format!("{what}, in column {}", column + error.column())
}

/// A chain of these calls.
pub fn chain(calls: &[Signature]) -> Signature {
    canvas("chain", SignatureKind::Chain, vec![("tasks".into(), list(calls))])
}

/// A group of these calls.
pub fn group(calls: &[Signature]) -> Signature {
    canvas("group", SignatureKind::Group, vec![("tasks".into(), list(calls))])
}

/// A chord with this header.
pub fn chord(header: &[Signature], body: &Signature) -> Signature {
    let kwargs = vec![
        ("kwargs".to_string(), RawValue::from_string("{}".into()).unwrap_or_default()),
        ("header".to_string(), group(header).write()),
        ("body".to_string(), body.write()),
    ];
    canvas("chord", SignatureKind::Chord, kwargs)
}

fn canvas(name: &str, kind: SignatureKind, kwargs: Vec<(String, Box<RawValue>)>) -> Signature {
    Signature { kind, ..Signature::task(&format!("celery.{name}"), Vec::new(), kwargs) }
}

/// Signatures as a JSON array.
pub fn list(calls: &[Signature]) -> Box<RawValue> {
    let calls: Vec<Box<RawValue>> = calls.iter().map(Signature::write).collect();
    RawValue::from_string(body::array(&calls)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(word: &str) -> Result<String, String> {
        read(word).map(|one| one.write().get().to_string())
    }

    #[test]
    fn a_word_is_a_name_and_its_arguments() {
        let task = |name: &str, args: &str, kwargs: &str| {
            Ok(format!(
                r#"{{"task": "{name}", "args": {args}, "kwargs": {kwargs}, "options": {{}}, "subtask_type": null, "immutable": false}}"#
            ))
        };
        assert_eq!(shown("add"), task("add", "[]", "{}"));
        assert_eq!(shown(" add [2, 3] "), task("add", "[2, 3]", "{}"));
        assert_eq!(shown("add [2] {\"y\": 1e400}"), task("add", "[2]", "{\"y\": 1e400}"));
        assert_eq!(shown("my task {\"y\": [1]}"), task("my task", "[]", "{\"y\": [1]}"));
        assert_eq!(shown("a [1]{\"b\": 2}"), task("a", "[1]", "{\"b\": 2}"));
    }

    #[test]
    fn a_word_may_be_a_signature() {
        let one =
            read(r#"{"task": "celery.chain", "subtask_type": "chain", "kwargs": {"tasks": []}}"#);
        assert_eq!(one.unwrap().kind, SignatureKind::Chain);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_column() {
        for (word, why) in [
            ("", EXPECTED),
            ("[1]", EXPECTED),
            ("add [1,", "arguments of add: EOF while parsing a value, in column 7"),
            ("add [1] [2]", "found [2], expected at most a JSON array and a JSON object"),
            ("add {} [2]", "found [2], expected at most"),
            ("add [1] 5", "found 5, expected at most"),
            ("{\"args\": []}", "no task in"),
            ("{", "expected a signature as a JSON object: EOF"),
        ] {
            let error = read(word).unwrap_err();
            assert!(error.contains(why), "{word}: {error}");
        }
    }
}
