//! The forms of messages and results: which serializers and compressions are written, and which
//! serializers are taken.

use super::diagnostic::Faults;
use super::kind::ValueKind;
use super::node::{Data, YamlNode, quote};

/// Names of kombu's serializers, and the content types that stand for them. What reads and writes
/// them is in `wire`.
const FORMS: [(&str, &str); 5] = [
    ("json", "application/json"),
    ("yaml", "application/x-yaml"),
    ("msgpack", "application/x-msgpack"),
    ("pickle", "application/x-python-serialize"),
    ("auth", "application/data"),
];

/// Names of kombu's compressions, and the content types that stand for them.
const COMPRESSIONS: [&str; 14] = [
    "gzip",
    "zlib",
    "bzip2",
    "bzip",
    "xz",
    "lzma",
    "brotli",
    "zstd",
    "zstandard",
    "application/x-gzip",
    "application/x-bz2",
    "application/x-lzma",
    "application/x-brotli",
    "application/zstd",
];

/// Digests that a signature may be of.
const DIGESTS: [&str; 4] = ["sha224", "sha256", "sha384", "sha512"];

/// The serializer of signed messages.
pub(super) const AUTH: &str = "auth";

/// Why a program does not know `auth`.
const NO_AUTH: &str =
    "auth: this qworker is built without signed messages; expected one with the feature auth";

/// Celery's default, and the meaning of null.
pub(super) const DEFAULT: &str = "json";

/// A list of serializers, by name or content type; each is here by its name, once.
#[derive(Debug)]
pub(super) struct SerializerList;

impl ValueKind for SerializerList {
    type Value = Vec<String>;
    const EXPECTED: &'static str = "a list of json, yaml, msgpack, pickle and auth, or of their \
                                    content types, such as [json, yaml]";
    const NESTED: bool = true;

    fn read(node: &YamlNode, faults: &mut Faults) -> Option<Vec<String>> {
        if node.is_null() {
            return Some(vec![DEFAULT.into()]);
        }
        let words: Vec<&str> = match &node.data {
            Data::List(list) => list.iter().map(|one| one.as_text().unwrap_or_default()).collect(),
            _ => node.as_text().unwrap_or_default().split(',').map(str::trim).collect(),
        };
        let mut names: Vec<String> = Vec::new();
        for word in &words {
            let Some(name) = serializer(word) else { return Self::mismatch(node, faults) };
            if !is_built(name, node, faults) {
                return None;
            }
            if !names.iter().any(|known| known == name) {
                names.push(name.into());
            }
        }
        if names.is_empty() { Self::mismatch(node, faults) } else { Some(names) }
    }

    fn write(value: &Vec<String>) -> String {
        format!("[{}]", value.join(", "))
    }
}

/// The name of a serializer, by that or by its content type.
fn serializer(word: &str) -> Option<&'static str> {
    let is_it = |(name, content_type): &&(&str, &str)| *name == word || *content_type == word;
    FORMS.iter().find(is_it).map(|(name, _)| *name)
}

/// Does this program have it? Reports it otherwise.
fn is_built(name: &str, node: &YamlNode, faults: &mut Faults) -> bool {
    let is_built = name != AUTH || cfg!(feature = "auth");
    if !is_built {
        faults.add(node.line, NO_AUTH);
    }
    is_built
}

/// A serializer, by name or content type; null is JSON.
#[derive(Debug)]
pub struct SerializerName;

impl ValueKind for SerializerName {
    type Value = String;
    const EXPECTED: &'static str = match cfg!(feature = "auth") {
        true => "json, yaml, msgpack, pickle or auth",
        false => "json, yaml, msgpack or pickle (this qworker is built without auth)",
    };

    fn read(node: &YamlNode, faults: &mut Faults) -> Option<String> {
        let word = if node.is_null() { Some(DEFAULT) } else { node.as_text() };
        match word.and_then(serializer) {
            Some(name) => is_built(name, node, faults).then(|| name.into()),
            None => Self::mismatch(node, faults),
        }
    }

    fn write(value: &String) -> String {
        value.clone()
    }
}

super::kind::kind!(
    /// A compression, by name or content type.
    CompressionName: String, "gzip, zlib, bzip2, bzip, xz, lzma, brotli or zstd",
    |node| node.as_text().filter(|name| COMPRESSIONS.contains(name)).map(String::from),
    |name| quote(name)
);
super::kind::kind!(
    /// A digest; Celery takes its name in either case.
    DigestName: String, "sha224, sha256, sha384 or sha512",
    |node| node.as_text().map(str::to_ascii_lowercase).filter(|name| DIGESTS.contains(&&**name)),
    String::clone
);

/// A password, which is not shown.
#[derive(Debug)]
pub(super) struct Password;

impl ValueKind for Password {
    type Value = String;
    const EXPECTED: &'static str = "a password, as text";
    const SECRET: bool = true;

    fn read(node: &YamlNode, faults: &mut Faults) -> Option<String> {
        let text = node.as_written().filter(|text| !text.is_empty()).map(String::from);
        text.or_else(|| Self::mismatch(node, faults))
    }

    fn write(value: &String) -> String {
        quote(value)
    }

    fn show(_value: &String) -> String {
        "'********'".into()
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
            #[cfg(feature = "auth")]
            ("[auth]", "[auth]"),
        ] {
            assert_eq!(SerializerList::write(&read(text).unwrap()), expected, "{text}");
        }
        for (text, why) in [
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
        for name in COMPRESSIONS {
            assert!(crate::wire::Compression::named(name).is_some(), "{name}");
        }
    }

    #[test]
    fn one_serializer_one_compression_one_digest() {
        let of = |text: &str| parse("q.yaml", text).0.unwrap();
        let mut faults = Faults::new("q.yaml");
        for (text, expected) in
            [("null", "json"), ("pickle", "pickle"), ("application/x-yaml", "yaml")]
        {
            let read = SerializerName::read(&of(text), &mut faults);
            assert_eq!(read.as_deref(), Some(expected), "{text}");
        }
        assert_eq!(
            SerializerName::read(&of("auth"), &mut faults).is_some(),
            cfg!(feature = "auth")
        );
        assert_eq!(CompressionName::read(&of("zlib"), &mut faults).as_deref(), Some("zlib"));
        assert_eq!(DigestName::read(&of("SHA512"), &mut faults).as_deref(), Some("sha512"));
        for text in ["raw", "[json]", "1"] {
            assert!(SerializerName::read(&of(text), &mut faults).is_none(), "{text}");
            assert!(CompressionName::read(&of(text), &mut faults).is_none(), "{text}");
            assert!(DigestName::read(&of(text), &mut faults).is_none(), "{text}");
        }
    }
}
