//! The setting `accept_content`: which forms of messages a worker takes.

use super::diagnostic::Faults;
use super::kind::ValueKind;
use super::node::{Data, YamlNode};

/// Names of kombu's serializers, and the content types that stand for them. What reads them is
/// in `wire`.
const FORMS: [(&str, &str); 4] = [
    ("json", "application/json"),
    ("yaml", "application/x-yaml"),
    ("msgpack", "application/x-msgpack"),
    ("pickle", "application/x-python-serialize"),
];

/// Celery's default, and the meaning of null.
pub(super) const DEFAULT: &str = "json";

/// A list of serializers, by name or content type; each is here by its name, once.
#[derive(Debug)]
pub(super) struct SerializerList;

impl ValueKind for SerializerList {
    type Value = Vec<String>;
    const EXPECTED: &'static str =
        "a list of json, yaml, msgpack and pickle, or of their content types, such as [json, yaml]";
    const NESTED: bool = true;

    fn read(node: &YamlNode, faults: &mut Faults) -> Option<Vec<String>> {
        if node.is_null() {
            return Some(vec![DEFAULT.into()]);
        }
        let words: Vec<&str> = match &node.data {
            Data::List(list) => list.iter().map(|one| one.as_text().unwrap_or_default()).collect(),
            _ => node.as_text().unwrap_or_default().split(',').map(str::trim).collect(),
        };
        if words.contains(&"auth") {
            faults.add(node.line, "auth: signed messages are not supported by this version");
            return None;
        }
        let mut names: Vec<String> = Vec::new();
        for word in &words {
            let form =
                FORMS.iter().find(|(name, content_type)| name == word || content_type == word);
            let Some((name, _)) = form else { return Self::mismatch(node, faults) };
            if !names.iter().any(|known| known == name) {
                names.push((*name).into());
            }
        }
        if names.is_empty() { Self::mismatch(node, faults) } else { Some(names) }
    }

    fn write(value: &Vec<String>) -> String {
        format!("[{}]", value.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::yaml::parse;

    fn read(text: &str) -> Result<Vec<String>, String> {
        let mut faults = Faults::new("q.yaml");
        let read = SerializerList::read(&parse("q.yaml", text).0.unwrap(), &mut faults);
        read.ok_or_else(|| faults.into_vec().first().unwrap().to_string())
    }

    #[test]
    fn names_and_content_types() {
        for (text, expected) in [
            ("null", "[json]"),
            ("json", "[json]"),
            ("[json]", "[json]"),
            ("json, yaml", "[json, yaml]"),
            ("[pickle, application/x-python-serialize, application/json]", "[pickle, json]"),
            ("[application/x-yaml, msgpack]", "[yaml, msgpack]"),
        ] {
            assert_eq!(SerializerList::write(&read(text).unwrap()), expected, "{text}");
        }
        for (text, why) in [
            ("[json, auth]", "signed messages are not supported"),
            ("[]", "expected a list of json"),
            ("[json, 1]", "expected a list of json"),
            ("[application/x-own]", "expected a list of json"),
            ("{a: b}", "expected a list of json"),
        ] {
            assert!(read(text).unwrap_err().contains(why), "{text}: {:?}", read(text));
        }
    }

    /// What is named here is what can be read.
    #[test]
    fn the_forms_are_those_of_the_reader() {
        let all = crate::wire::Serializer::ALL.map(|one| (one.name(), one.content_type()));
        assert_eq!(FORMS, all);
    }
}
