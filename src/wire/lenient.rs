//! Values of a message as Celery's worker reads them: JSON with kombu's typed values, Python's
//! truth, the last of two fields of one name. What Python runs is not refused here.

use super::message::Malformed;
use super::value;
use crate::bounds::ELEMENTS_MAX;
use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess,
    Unexpected, Visitor,
};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

/// Characters of a value that an error shows.
const SHOWN_MAX: usize = 60;

/// Room for the headers of a message of Celery's at once.
const FIELDS: usize = 24;

/// The fields of a JSON object, unread.
#[derive(Default)]
pub(super) struct ObjectFields<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> ObjectFields<'a> {
    /// The fields of the object `text`.
    pub(super) fn read(text: &'a str) -> Result<ObjectFields<'a>, serde_json::Error> {
        serde_json::from_str(text)
    }

    /// The field of this name; the last one, as in Python.
    pub(super) fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.0.iter().rev().find(|(field, _)| field == name).map(|(_, value)| *value)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for ObjectFields<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<ObjectFields<'a>, D::Error> {
        from.deserialize_map(Object("object"))
    }
}

/// Reads an object of this name; a value that is false in Python is an empty one.
pub(super) struct Object(pub &'static str);

impl<'de> DeserializeSeed<'de> for Object {
    type Value = ObjectFields<'de>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<ObjectFields<'de>, D::Error> {
        let name = self.0;
        from.deserialize_any(self)
            .map_err(|error| D::Error::custom(format_args!("{name}: {error}")))
    }
}

impl<'de> Visitor<'de> for Object {
    type Value = ObjectFields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ObjectFields<'de>, A::Error> {
        let mut fields = Vec::with_capacity(FIELDS);
        while let Some((Name(name), value)) = map.next_entry()? {
            fits(fields.len())?;
            fields.push((name, value));
        }
        Ok(ObjectFields(fields))
    }

    fn visit_unit<E>(self) -> Result<ObjectFields<'de>, E> {
        Ok(ObjectFields::default())
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<ObjectFields<'de>, E> {
        self.empty_unless(value, Unexpected::Bool(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<ObjectFields<'de>, E> {
        self.empty_unless(value != 0, Unexpected::Unsigned(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<ObjectFields<'de>, E> {
        self.empty_unless(value != 0, Unexpected::Signed(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<ObjectFields<'de>, E> {
        self.empty_unless(value != 0.0, Unexpected::Float(value))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<ObjectFields<'de>, E> {
        self.empty_unless(!value.is_empty(), Unexpected::Str(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<ObjectFields<'de>, A::Error> {
        let any = items.next_element::<IgnoredAny>()?.is_some();
        self.empty_unless(any, Unexpected::Seq)
    }
}

impl Object {
    fn empty_unless<'a, E: Error>(
        self,
        truth: bool,
        found: Unexpected,
    ) -> Result<ObjectFields<'a>, E> {
        if truth { Err(E::invalid_type(found, &self)) } else { Ok(ObjectFields::default()) }
    }
}

/// An array, its elements unread.
pub(super) struct Elements<R>(pub Vec<R>);

impl<'de, R: Deserialize<'de>> Deserialize<'de> for Elements<R> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Elements<R>, D::Error> {
        struct Bounded<R>(PhantomData<R>);
        impl<'de, R: Deserialize<'de>> Visitor<'de> for Bounded<R> {
            type Value = Elements<R>;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an array")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Elements<R>, A::Error> {
                let mut elements = Vec::new();
                while let Some(element) = from.next_element()? {
                    fits(elements.len())?;
                    elements.push(element);
                }
                Ok(Elements(elements))
            }
        }
        from.deserialize_seq(Bounded(PhantomData))
    }
}

/// Is there room for one more than so many elements?
pub(super) fn fits<E: Error>(elements: usize) -> Result<(), E> {
    match elements < ELEMENTS_MAX {
        true => Ok(()),
        false => Err(E::custom(format_args!("more than the limit of {ELEMENTS_MAX} elements"))),
    }
}

/// A name that is borrowed where it has no escapes.
pub(super) struct Name<'a>(pub Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Name<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Name<'a>, D::Error> {
        struct Borrowed;
        impl<'de> Visitor<'de> for Borrowed {
            type Value = Name<'de>;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Borrowed(name)))
            }

            fn visit_str<E>(self, name: &str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Owned(name.into())))
            }
        }
        from.deserialize_str(Borrowed)
    }
}

/// A JSON string; `None` if it is none.
pub(super) fn string(raw: &RawValue) -> Option<Cow<'_, str>> {
    let json = raw.get();
    if let Some(plain) = json.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'))
        && !plain.contains('\\')
    {
        return Some(Cow::Borrowed(plain));
    }
    serde_json::from_str(json).ok().map(Cow::Owned)
}

/// What Python's `str` makes of a name or an id: of a text, a number, or a typed value such as
/// a UUID. Null is none.
pub(super) fn text(name: &str, raw: Option<&RawValue>) -> Result<Option<String>, Malformed> {
    let Some(raw) = raw.filter(|raw| raw.get() != "null") else { return Ok(None) };
    let read = match raw.get().as_bytes().first() {
        Some(b'"') => string(raw).map(Cow::into_owned),
        Some(b'{') => value::typed(raw).and_then(|bytes| String::from_utf8(bytes).ok()),
        Some(b'0'..=b'9' | b'-') => Some(raw.get().into()),
        Some(b't') => Some("True".into()),
        Some(b'f') => Some("False".into()),
        _ => None,
    };
    read.map(Some)
        .ok_or_else(|| Malformed(format!("{name}: expected a text, found {}", shown(raw))))
}

/// A number, or a text that is one; Python counts with truth values too.
pub(super) fn number(raw: &RawValue) -> Option<f64> {
    match raw.get() {
        "true" => Some(1.0),
        "false" => Some(0.0),
        json if json.starts_with('"') => string(raw)?.trim().parse().ok(),
        // As Rust reads it: 1e400 is infinite, as in Python.
        json => json.parse().ok(),
    }
}

/// Is it true in Python?
pub(super) fn is_true(raw: &RawValue) -> bool {
    match raw.get() {
        "null" | "false" | "\"\"" => false,
        json if json.starts_with(['[', '{']) => {
            !json[1..].trim_start().trim_end_matches([']', '}']).is_empty()
        }
        json if json.starts_with('"') => true,
        _ => number(raw) != Some(0.0),
    }
}

/// A value in an error.
pub(super) fn shown(raw: &RawValue) -> String {
    match raw.get().char_indices().nth(SHOWN_MAX) {
        Some((at, _)) => format!("{}...", &raw.get()[..at]),
        None => raw.get().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(json: &str) -> Box<RawValue> {
        RawValue::from_string(json.into()).unwrap()
    }

    #[test]
    fn truth_is_that_of_python() {
        for json in ["null", "false", "0", "0.0", "-0", "\"\"", "[]", "{}", "[ ]", "{ }"] {
            assert!(!is_true(&raw(json)), "{json}");
        }
        for json in ["true", "1", "-0.1", "\"0\"", "\" \"", "[0]", "[[]]", "{\"a\": 1}", "1e400"] {
            assert!(is_true(&raw(json)), "{json}");
        }
    }

    #[test]
    fn texts_are_those_of_str() {
        let uuid =
            r#"{"__type__": "uuid", "__value__": {"hex": "00000000000000000000000000000001"}}"#;
        for (json, expected) in [
            (r#""a\u00e9""#, Some("a\u{e9}")),
            ("12345678901234567890123", Some("12345678901234567890123")),
            ("null", None),
            (uuid, Some("00000000-0000-0000-0000-000000000001")),
        ] {
            assert_eq!(text("id", Some(&raw(json))).unwrap().as_deref(), expected, "{json}");
        }
        for json in ["[]", "{}", r#"{"__type__": "set", "__value__": 1}"#] {
            let error = text("id", Some(&raw(json))).unwrap_err();
            assert!(error.0.starts_with("id: expected a text, found"), "{error}");
        }
    }
}
