//! What is taken, and bodies that are there to do harm, or are no bodies at all: each of those is
//! an error and never more.

use super::*;
use crate::wire::serializer::AcceptedContent;
use crate::wire::value::DEPTH_MAX;

#[test]
fn json_alone_is_taken_unless_more_is_said() {
    let json = AcceptedContent::default();
    assert!(json.check("application/json").is_ok());
    let why = json.check("application/x-yaml").unwrap_err().0;
    assert_eq!(why, "content-type application/x-yaml is not accepted; accept_content has: json");
    let both = AcceptedContent::of(["pickle", "application/x-yaml", "nonsense"]);
    assert_eq!(both.to_string(), "yaml, pickle");
    assert!(both.check("application/x-python-serialize").is_ok());
    assert!(both.check("application/json").is_err());
    assert!(both.check("yaml").is_err(), "a message has content types, no names");
    assert!(json.check("text/plain").is_ok(), "the decoder refuses it");
    assert!(json.check("application/data").is_err());
    assert!(AcceptedContent::of(["auth"]).check("application/data").is_ok());
}

#[test]
fn raw_bodies_are_none() {
    for kind in RAW.iter().chain(&["application/data"]) {
        let why = text(kind, None, Cow::Borrowed(b"[[], {}, {}]")).unwrap_err().0;
        assert!(why.contains("raw data") && why.contains("[args, kwargs, embed]"), "{why}");
    }
    let why = text("a\nb", None, Cow::Borrowed(b"")).unwrap_err().0;
    assert!(why.starts_with(r"content-type a\nb is not known"), "{why}");
}

#[test]
fn a_compression_comes_off_before_the_serializer() {
    let packed = unpack::tests::zlib(b"[[1], {}, {}]");
    for name in ["application/x-gzip", "gzip", "zlib"] {
        let read = text("application/json", Some(name), Cow::Borrowed(&packed)).unwrap();
        assert_eq!(read, "[[1], {}, {}]");
    }
    let error = text("application/json", Some("lz4"), Cow::Borrowed(&packed)).unwrap_err();
    assert!(error.0.starts_with("compression lz4 is not supported"), "{error}");
}

const BINARY: [Serializer; 3] = [Yaml, Msgpack, Pickle];

fn read(serializer: Serializer, body: &[u8]) -> Result<String, Malformed> {
    text(serializer.content_type(), None, Cow::Borrowed(body))
}

/// Lists in lists.
fn nested(serializer: Serializer, levels: usize) -> Vec<u8> {
    match serializer {
        Json => format!("{}{}", "[".repeat(levels), "]".repeat(levels)).into_bytes(),
        Yaml => "- ".repeat(levels).into_bytes(),
        Msgpack => [vec![0x91; levels - 1], vec![0x90]].concat(),
        _ => [b"(".repeat(levels), b"l".repeat(levels), b".".to_vec()].concat(),
    }
}

#[test]
fn a_hundred_thousand_lists_in_lists() {
    for serializer in BINARY {
        let error = read(serializer, &nested(serializer, 100_000)).unwrap_err().0;
        assert!(error.contains("more than 500 levels"), "{serializer:?}: {error}");
        assert!(read(serializer, &nested(serializer, DEPTH_MAX)).is_ok(), "{serializer:?}");
        let error = read(serializer, &nested(serializer, DEPTH_MAX + 1)).unwrap_err().0;
        assert!(error.contains("more than 500 levels"), "{serializer:?}: {error}");
    }
    let flow = nested(Json, 100_000);
    assert!(read(Yaml, &flow).is_err());
    assert!(read(Yaml, "? ".repeat(100_000).as_bytes()).is_err());
    assert!(read(Yaml, "{a: ".repeat(100_000).as_bytes()).is_err());
    let tuples = [&b")"[..], &b"\x85".repeat(100_000), b"."].concat();
    assert!(read(Pickle, &tuples).unwrap_err().0.contains("more than 500 levels"));
    let maps = [b"\x81\xa1a".repeat(100_000), vec![0xc0]].concat();
    assert!(read(Msgpack, &maps).unwrap_err().0.contains("more than 500 levels"));
    // Values of JSON stay unread, but for their depth.
    assert!(crate::wire::body::decode(&String::from_utf8(flow).unwrap()).is_err());
    let read = |levels: usize| {
        let body = format!("[[{}], {{}}, {{}}]", String::from_utf8(nested(Json, levels)).unwrap());
        let json = text("application/json", None, Cow::Owned(body.into_bytes())).unwrap();
        crate::wire::body::decode(&json)
    };
    let value = read(998).unwrap().args.remove(0);
    assert_eq!(crate::wire::value::text(&value).len(), 2 * 998);
    assert!(!crate::wire::value::is_read_by_python(&value));
    for levels in [999, 100_000] {
        assert_eq!(read(levels).unwrap_err().0, "body: more than 1000 levels of values");
    }
}

/// Bodies with a little of everything.
const SAMPLES: [(Serializer, &[u8]); 3] = [
    (Yaml, b"- &a [1, 2.5, 2001-12-14t21:59:43.10-05:00, 'x', \"y\\n\"]\n- {k: *a, <<: {b: !!binary 'aGk='}}\n- !!set {z}\n"),
    (Msgpack, b"\x93\x95\x01\xcb\x3f\xf8\0\0\0\0\0\0\xa1a\xc4\x02\xff\0\xc0\x81\xa1k\xd7\xff\0\0\0\0\0\0\0\x01\x80"),
    (
        Pickle,
        b"\x80\x04\x95\x60\0\0\0\0\0\0\0]\x94(K\x01G?\xf8\0\0\0\0\0\0\x8c\x01a\x94C\x02\xff\0\x94\x8c\x08datetime\x94\x8c\x04date\x94\x93\x94C\x04\x07\xe4\x01\x01\x85R\x94}\x94\x8c\x01k\x94h\x02se\x8a\x02\xff\x7f\x86.",
    ),
];

#[test]
fn samples_are_read_and_cut_ones_are_no_more_than_wrong() {
    for (serializer, sample) in SAMPLES {
        read(serializer, sample).unwrap_or_else(|error| panic!("{error}"));
        for length in 0..sample.len() {
            let cut = read(serializer, &sample[..length]);
            assert!(cut.is_err() || serializer == Yaml, "{serializer:?} {length}");
        }
    }
}

#[test]
fn changed_bytes_are_no_more_than_wrong() {
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..3000 {
        for (serializer, sample) in SAMPLES {
            let mut body = sample.to_vec();
            for _ in 0..random.usize(1..4) {
                let at = random.usize(..body.len());
                body[at] = random.u8(..);
            }
            let _ = read(serializer, &body).map(|json| is_json(&json));
        }
    }
}

#[test]
fn random_bytes_are_no_more_than_wrong() {
    let mut random = fastrand::Rng::with_seed(11);
    for _ in 0..3000 {
        let body: Vec<u8> = (0..random.usize(..64)).map(|_| random.u8(..)).collect();
        for serializer in BINARY {
            let _ = read(serializer, &body).map(|json| is_json(&json));
        }
        for name in ["gzip", "bzip2", "lzma", "brotli", "zstd"] {
            let _ = unpack::unpack(name, &body);
        }
        let framed: &[(&str, &[u8])] = &[
            ("gzip", b"\x78\x9c"),
            ("gzip", b"\x1f\x8b\x08\0\0\0\0\0\0\x03"),
            ("bzip2", b"BZh91AY&SY"),
            ("xz", b"\xfd7zXZ\0\0\x04\xe6\xd6\xb4\x46"),
            ("lzma", b"\x5d\0\0\x80\0\xff\xff\xff\xff\xff\xff\xff\xff\0"),
            ("zstd", b"\x28\xb5\x2f\xfd"),
        ];
        for (name, start) in framed {
            let _ = unpack::unpack(name, &[start, &body[..]].concat());
        }
    }
}

/// What is read is JSON, whatever it is.
fn is_json(json: &str) {
    let read = serde_json::from_str::<Box<serde_json::value::RawValue>>(json);
    assert!(read.is_ok(), "{json}");
}
