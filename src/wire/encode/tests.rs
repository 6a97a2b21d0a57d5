//! What is written is what is read, and what cannot be written is said.

use super::*;
use crate::wire::decode;
use crate::wire::message::Malformed;
use Serializer::{Json, Msgpack, Pickle, Yaml};
use std::borrow::Cow;

fn format(serializer: Serializer, compression: Option<Compression>) -> BodyFormat {
    BodyFormat { serializer, compression, ..BodyFormat::default() }
}

fn written(serializer: Serializer, json: &str) -> Result<Body, EncodeError> {
    format(serializer, None).body(json.into())
}

fn read(body: &Body) -> Result<String, Malformed> {
    decode::text(body.content_type, body.compression, Cow::Borrowed(&body.bytes))
}

fn same(one: &str, other: &str) {
    let parsed = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    assert_eq!(parsed(one), parsed(other));
}

const BODY: &str = r#"[[null, true, false, 0, -1, 255, 256, 65536, -32, -33, -129, -32769, 2147483648,
    -9223372036854775808, 18446744073709551615, 1.5, -0.0, 1e300, 1e16, 1e-7, "", "text",
    "\"\\\/\n\r\t\b\f\u0000\u001f\u007f ~ \u00fc\u4e16\ud83d\ude00 ü世😀", "yes", "1", "~", "2030-01-02",
    [], {}, [[[]]], {"a": {"b": [1]}, "": 2, "ü": 3}], {"k": "v"},
    {"callbacks": null, "errbacks": null, "chain": [], "chord": null}]"#;

#[test]
fn every_serializer_and_every_compression() {
    let compressions =
        [None].into_iter().chain(["gzip", "bzip2", "xz", "brotli", "zstd"].map(Compression::named));
    for compression in compressions {
        for serializer in [Json, Yaml, Msgpack, Pickle] {
            let body = format(serializer, compression).body(BODY.into()).unwrap();
            assert_eq!(body.compression, compression.map(Compression::content_type));
            let text = read(&body).unwrap_or_else(|error| panic!("{serializer:?}: {error}"));
            same(&text, BODY);
        }
    }
    for text in [String::new(), "x".repeat(300_000)] {
        for name in ["gzip", "bzip2", "xz", "brotli", "zstd"] {
            let packed = pack(Compression::named(name).unwrap(), text.as_bytes()).unwrap();
            assert!(packed.len() < 1000, "{name}");
            assert_eq!(decode::unpack(name, &packed).unwrap(), text.as_bytes(), "{name}");
        }
    }
}

#[test]
fn sizes_of_every_width() {
    for length in [0, 1, 15, 16, 31, 32, 255, 256, 65_535, 65_536] {
        let text = format!("\"{}\"", "x".repeat(length));
        let list = format!("[{}]", vec!["1"; length].join(","));
        let fields: Vec<String> = (0..length).map(|n| format!("\"{n}\":0")).collect();
        for json in [text, list, format!("{{{}}}", fields.join(","))] {
            for serializer in [Yaml, Msgpack, Pickle] {
                same(&read(&written(serializer, &json).unwrap()).unwrap(), &json);
            }
        }
    }
}

#[test]
fn plain_json_stays_as_it_is() {
    let text = r#"[[1e400, 12345678901234567890123, {"__type__": "set", "__value__": 1}], {}, {}]"#;
    assert_eq!(written(Json, text).unwrap().bytes, text.as_bytes());
    assert!(format(Json, None).is_plain() && !format(Json, Some(Compression::Zlib)).is_plain());
}

/// Typed values of kombu's, and in which serializers they have a form.
const TYPED: &[(&str, &[Serializer])] = &[
    (r#"{"__type__": "bytes", "__value__": "text"}"#, &[Yaml, Msgpack, Pickle]),
    (r#"{"__type__": "base64", "__value__": "AP8="}"#, &[Yaml, Msgpack, Pickle]),
    (r#"{"__type__": "datetime", "__value__": "2030-01-02T03:04:05.678901"}"#, &[Yaml, Pickle]),
    (
        r#"{"__type__": "datetime", "__value__": "2030-01-02T03:04:05.000001-05:30"}"#,
        &[Yaml, Pickle],
    ),
    (r#"{"__type__": "datetime", "__value__": "0001-01-01T00:00:00"}"#, &[Yaml, Pickle]),
    (r#"{"__type__": "datetime", "__value__": "2030-01-02T03:04:05+00:00:01"}"#, &[Pickle]),
    (r#"{"__type__": "date", "__value__": "2030-01-02"}"#, &[Yaml, Pickle]),
    (r#"{"__type__": "time", "__value__": "03:04:05.000006+02:00"}"#, &[Pickle]),
    (r#"{"__type__": "decimal", "__value__": "-1.10E+20"}"#, &[Pickle]),
    (
        r#"{"__type__": "uuid", "__value__": {"hex": "ff456789ab4def0123456789abcdef00"}}"#,
        &[Pickle],
    ),
    ("1234567890123456789012345678901234567890", &[Yaml, Pickle]),
    (r#""\ud800""#, &[Yaml, Pickle]),
];

#[test]
fn types_have_forms_of_their_own_or_are_refused() {
    for (value, serializers) in TYPED {
        for serializer in [Yaml, Msgpack, Pickle] {
            let body = written(serializer, &format!("[[{value}], {{}}, {{}}]"));
            if !serializers.contains(&serializer) {
                let why = body.unwrap_err().0;
                let begin = format!("{}: the ", serializer.name());
                assert!(why.starts_with(&begin), "{value}: {why}");
                continue;
            }
            let bytes = body.unwrap();
            // The reader's YAML knows no lone surrogates.
            if serializer == Yaml && value.contains("ud800") {
                continue;
            }
            let text =
                read(&bytes).unwrap_or_else(|error| panic!("{serializer:?} {value}: {error}"));
            let expected = format!("[[{value}], {{}}, {{}}]");
            assert_eq!(text, expected, "{serializer:?}");
        }
    }
    let refused = |json: &str| written(Pickle, json).unwrap_err().0;
    for (json, expected) in [
        (r#"{"__type__": "set", "__value__": 1}"#, "is no value of a type that kombu knows"),
        (r#"{"__type__": "date", "__value__": "soon"}"#, "is no value of a type"),
        (r#"{"__type__": "uuid", "__value__": {"hex": "x"}}"#, "is no value of a type"),
        (r#"{"__type__": "decimal", "__value__": "one"}"#, "is no value of a type"),
    ] {
        assert!(refused(json).contains(expected), "{json}: {}", refused(json));
    }
    let digits = "1".repeat(5000);
    assert!(refused(&digits).contains("has more than 4300 digits"));
    let deep = format!("{}{}", "[".repeat(600), "]".repeat(600));
    assert!(refused(&deep).contains("more than 500 levels"));
}

#[test]
fn what_is_stored_always_has_a_form() {
    let deep = format!("{}{}", "[".repeat(600), "]".repeat(600));
    let digits = "1".repeat(5000);
    let json = format!(
        r#"[{{"__type__": "uuid", "__value__": {{"hex": "{}"}}}}, {digits}, {{"__type__": "set", "__value__": 1}},
           {{"__type__": "time", "__value__": "03:04:05"}}, "\ud800x", {deep}]"#,
        "0".repeat(32)
    );
    for serializer in [Yaml, Msgpack, Pickle] {
        let bytes = format(serializer, None).stored(json.clone());
        let read = decode::stored(serializer, &bytes, decode::Exceptions::Refused);
        if serializer == Yaml {
            continue;
        }
        let read = read.unwrap_or_else(|error| panic!("{serializer:?}: {error}"));
        assert!(read.contains(&digits) && read.contains("\"__type__\": \"set\""), "{read}");
    }
}

#[test]
fn long_keys_and_odd_numbers_are_yaml() {
    let key = "k".repeat(2000);
    let json = format!(r#"{{"{key}": 1e5, "b": 1E+22, "c": -1e-9, "d": 100000000000000000000.0}}"#);
    let body = written(Yaml, &json).unwrap();
    let text = String::from_utf8(body.bytes.clone()).unwrap();
    assert!(text.starts_with("{? \"kkk") && text.contains("\"b\": 1.0e+22"), "{text}");
    same(&read(&body).unwrap(), &json);
}

#[test]
fn random_values_come_back() {
    let mut random = fastrand::Rng::with_seed(3);
    for _ in 0..500 {
        let json = any(&mut random, 0);
        for serializer in [Yaml, Msgpack, Pickle] {
            let body = written(serializer, &json).unwrap_or_else(|error| panic!("{json}: {error}"));
            let text = read(&body).unwrap_or_else(|error| panic!("{serializer:?} {json}: {error}"));
            same(&text, &json);
        }
    }
}

/// Some JSON.
fn any(random: &mut fastrand::Rng, depth: usize) -> String {
    let text = |random: &mut fastrand::Rng| {
        let chars: String = (0..random.usize(..8)).map(|_| random.char(..)).collect();
        serde_json::Value::from(chars).to_string()
    };
    match random.u8(..if depth > 4 { 6 } else { 8 }) {
        0 => "null".into(),
        1 => random.bool().to_string(),
        2 => random.i64(..).to_string(),
        3 => random.i8(..).to_string(),
        4 => serde_json::Value::from(random.f64() * 10f64.powi(random.i32(-20..20))).to_string(),
        5 => text(random),
        6 => {
            let items: Vec<String> =
                (0..random.usize(..5)).map(|_| any(random, depth + 1)).collect();
            format!("[{}]", items.join(", "))
        }
        _ => {
            let fields: Vec<String> = (0..random.usize(..5))
                .map(|_| format!("{}: {}", text(random), any(random, depth + 1)))
                .collect();
            format!("{{{}}}", fields.join(","))
        }
    }
}
