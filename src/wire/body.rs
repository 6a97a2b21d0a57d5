//! The body `[args, kwargs, embed]`, JSON. Values stay as they came: an integer of
//! thirty digits reaches a program with thirty digits.

use super::lenient::{self, Elements, ObjectFields};
use super::message::Malformed;
use super::signature::Embed;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

/// Levels of arrays and objects in a body at most: as deep as Python goes by default.
const LEVELS_MAX: usize = 1000;

/// What a task is called with, and what is to follow it.
#[derive(Debug, Clone, Default)]
pub struct Arguments {
    /// Positional.
    pub args: Vec<Box<RawValue>>,
    /// By keyword, in the order of the body.
    pub kwargs: Vec<(String, Box<RawValue>)>,
    /// What is to follow; mostly nothing.
    pub embed: Option<Box<Embed>>,
}

/// A JSON object in its order, values unread.
pub struct Pairs(pub Vec<(String, Box<RawValue>)>);

impl Pairs {
    /// Reads a JSON object; numbers that JSON does not have become texts.
    ///
    /// # Errors
    /// `what` it is, and why it is no object.
    pub fn read(what: &str, text: &str) -> Result<Pairs, Malformed> {
        parse(&finite(text), what)
    }

    /// Gives these fields these values; new ones come last.
    pub fn set(&mut self, changes: &[(&str, Value)]) {
        for (name, value) in changes {
            let value = super::value::raw(value);
            match self.0.iter_mut().find(|(field, _)| field == name) {
                Some((_, old)) => *old = value,
                None => self.0.push(((*name).into(), value)),
            }
        }
    }

    /// The same within the object in the field `name`, if there is one.
    pub fn set_within(&mut self, name: &str, changes: &[(&str, Value)]) {
        let Some((_, field)) = self.0.iter_mut().find(|(field, _)| field == name) else { return };
        let Ok(mut inner) = serde_json::from_str::<Pairs>(field.get()) else { return };
        inner.set(changes);
        if let Ok(raw) = RawValue::from_string(object(&inner.0)) {
            *field = raw;
        }
    }
}

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Pairs, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Pairs;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object of keyword arguments")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let (mut pairs, mut places) = (Vec::new(), HashMap::new());
                while let Some((name, value)) = map.next_entry::<String, Box<RawValue>>()? {
                    lenient::fits(pairs.len())?;
                    // A name that comes twice keeps its place and gets the last value, as in Python.
                    match places.get(&name) {
                        Some(place) => pairs[*place] = (name, value),
                        None => {
                            places.insert(name.clone(), pairs.len());
                            pairs.push((name, value));
                        }
                    }
                }
                Ok(Pairs(pairs))
            }
        }
        from.deserialize_map(InOrder)
    }
}

/// Reads a body of protocol 2.
///
/// # Errors
/// Says which of the three elements is wrong.
pub fn decode(text: &str) -> Result<Arguments, Malformed> {
    let text = &*finite(text);
    check_levels(text)?;
    let Elements(parts): Elements<&RawValue> = parse(text, "body: expected [args, kwargs, embed]")?;
    let [args, kwargs, embed] = parts[..] else {
        return Err(Malformed(format!(
            "body: expected three elements [args, kwargs, embed], found {}",
            parts.len()
        )));
    };
    let Elements(args) = parse(args.get(), "args: expected an array")?;
    let Pairs(kwargs) = parse(kwargs.get(), "kwargs: expected an object")?;
    let embed: Option<ObjectFields> = parse(embed.get(), "embed: expected an object")?;
    let embed = embed.and_then(|fields| Embed::read(&fields));
    Ok(Arguments { args, kwargs, embed })
}

/// Reads a body of protocol 1, one object with everything in it.
///
/// # Errors
/// Says which field is wrong.
pub fn decode_v1(text: &str) -> Result<Arguments, Malformed> {
    let text = &*finite(text);
    check_levels(text)?;
    let fields: ObjectFields = parse(text, "body")?;
    let given = |name: &str| fields.get(name).filter(|raw| lenient::is_true(raw));
    let args: Option<Elements<Box<RawValue>>> =
        given("args").map(|raw| parse(raw.get(), "args: expected an array")).transpose()?;
    let args = args.map(|Elements(args)| args).unwrap_or_default();
    let kwargs: Option<Pairs> =
        given("kwargs").map(|raw| parse(raw.get(), "kwargs: expected an object")).transpose()?;
    let kwargs = kwargs.map(|Pairs(pairs)| pairs).unwrap_or_default();
    Ok(Arguments { args, kwargs, embed: Embed::read(&fields) })
}

fn check_levels(text: &str) -> Result<(), Malformed> {
    // Nearly all are too short to be deep.
    if text.len() <= LEVELS_MAX {
        return Ok(());
    }
    let (mut levels, mut inside, mut escaped) = (0_usize, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = inside,
            b'"' => inside = !inside,
            b'[' | b'{' if !inside => levels += 1,
            b']' | b'}' if !inside => levels = levels.saturating_sub(1),
            _ => {}
        }
        if levels > LEVELS_MAX {
            return Err(Malformed(format!("body: more than {LEVELS_MAX} levels of values")));
        }
    }
    Ok(())
}

fn parse<'a, T: Deserialize<'a>>(text: &'a str, what: &str) -> Result<T, Malformed> {
    serde_json::from_str(text).map_err(|error| Malformed(format!("{what}: {error}")))
}

/// Python writes `NaN`, `Infinity` and `-Infinity`, which JSON does not have: they
/// become texts of the same letters.
pub fn finite(text: &str) -> Cow<'_, str> {
    if !text.contains("NaN") && !text.contains("Infinity") {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    let (mut rest, mut inside) = (text, false);
    while let Some(c) = rest.chars().next() {
        let word = ["NaN", "-Infinity", "Infinity"].iter().find(|word| rest.starts_with(**word));
        let taken = match (inside, c, word) {
            (false, _, Some(word)) => {
                out.push_str(&format!("\"{word}\""));
                word.len()
            }
            (true, '\\', _) => {
                let escape = rest.chars().take(2).map(char::len_utf8).sum();
                out.push_str(&rest[..escape]);
                escape
            }
            _ => {
                inside ^= c == '"';
                out.push(c);
                c.len_utf8()
            }
        };
        rest = &rest[taken..];
    }
    Cow::Owned(out)
}

/// The elements of a JSON array, unread.
///
/// # Errors
/// It is none, or has too many.
pub fn elements(raw: &RawValue) -> Result<Vec<Box<RawValue>>, Malformed> {
    parse(raw.get(), "expected an array").map(|Elements(elements)| elements)
}

/// Writes a body of protocol 2.
pub fn encode(args: &[Box<RawValue>], kwargs: &[(String, Box<RawValue>)], embed: &Embed) -> String {
    format!("[{}, {}, {}]", array(args), object(kwargs), embed.write())
}

/// A JSON array of these values.
pub fn array(values: &[Box<RawValue>]) -> String {
    let texts: Vec<&str> = values.iter().map(|value| value.get()).collect();
    format!("[{}]", texts.join(", "))
}

/// A JSON object of these pairs.
pub fn object(pairs: &[(String, Box<RawValue>)]) -> String {
    let texts: Vec<String> = pairs
        .iter()
        .map(|(name, value)| format!("{}: {}", serde_json::Value::from(name.as_str()), value.get()))
        .collect();
    format!("{{{}}}", texts.join(", "))
}

/// Standard base64, as kombu's `base64` body encoding.
pub fn to_base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// The bytes behind standard base64; `None` if it is not that.
pub fn from_base64(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text.trim_end()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(values: &[Box<RawValue>]) -> Vec<&str> {
        values.iter().map(|v| v.get()).collect()
    }

    #[test]
    fn values_keep_their_text() {
        let arguments =
            decode(r#"[[12345678901234567890123, 1.10], {"b": [1], "a": 2}, {}]"#).unwrap();
        assert_eq!(raw(&arguments.args), ["12345678901234567890123", "1.10"]);
        assert_eq!(arguments.kwargs[0].0, "b");
        assert_eq!(arguments.kwargs[1].1.get(), "2");
        assert!(arguments.embed.is_none());
    }

    #[test]
    fn embed_may_be_null_and_its_wishes_are_named() {
        assert!(decode("[[], {}, null]").unwrap().embed.is_none());
        let body = r#"[[], {}, {"callbacks": [], "chain": [{"task": "x"}], "chord": null}]"#;
        assert_eq!(decode(body).unwrap().embed.unwrap().names(), ["chain"]);
    }

    #[test]
    fn a_keyword_that_comes_twice_has_its_last_value() {
        let arguments = decode(r#"[[], {"a": 1, "b": 2, "a": 3}, {}]"#).unwrap();
        let pairs: Vec<_> = arguments.kwargs.iter().map(|(n, v)| (&n[..], v.get())).collect();
        assert_eq!(pairs, [("a", "3"), ("b", "2")]);
    }

    #[test]
    fn two_elements_are_refused_with_their_number() {
        let error = decode("[[], {}]").unwrap_err();
        assert!(error.0.contains("three elements") && error.0.ends_with("found 2"), "{error}");
    }

    #[test]
    fn numbers_that_json_lacks_become_texts_outside_of_texts_only() {
        let arguments = decode(r#"[[NaN, -Infinity, "NaN \" Infinity"], {}, {}]"#).unwrap();
        assert_eq!(raw(&arguments.args), [r#""NaN""#, r#""-Infinity""#, r#""NaN \" Infinity""#]);
    }

    #[test]
    fn protocol_one_keeps_everything_in_one_object() {
        let arguments =
            decode_v1(r#"{"task": "t", "id": "i", "args": [1], "kwargs": {"k": 2}}"#).unwrap();
        assert_eq!(raw(&arguments.args), ["1"]);
        assert_eq!(arguments.kwargs[0].1.get(), "2");
    }
}
