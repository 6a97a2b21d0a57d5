//! Messages that are there to do harm: each is refused, and kept with the reason; the good ones that
//! come between them run.

use super::celery;
use crate::harness::{Place, eventually, in_every_place};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::collections::HashMap;
use std::path::Path;

/// Sends each message, and after each a good one. Those that name a compression are packed as they are.
const SEND: &str = r##"
import os, pathlib, pickle, zlib
levels = 100_000
JSON, YAML, MSGPACK = "application/json", "application/x-yaml", "application/x-msgpack"
PICKLE = "application/x-python-serialize"
bomb = lambda name: (pathlib.Path(BOMBS) / name).read_bytes()

class Harm:
    def __reduce__(self):
        return os.system, ("touch harm",)

deep = b"[" * levels + b"]" * levels
HOSTILE = {
    "brotli": (JSON, bomb("10-gb.br"), "application/x-brotli"),
    "bzip2": (JSON, bomb("10-gb.bz2"), "application/x-bz2"),
    "xz": (JSON, bomb("zeros.xz"), "application/x-lzma"),
    "zstd": (JSON, bomb("zeros.zst"), "application/zstd"),
    "zlib": (PICKLE, zlib.compress(bytes(200 << 20), 9), "application/x-gzip"),
    "system": (PICKLE, pickle.dumps(([Harm()], {}, {})), None),
    "system 0": (PICKLE, pickle.dumps(([Harm()], {}, {}), 0), None),
    "deep json": (JSON, b"[[" + deep + b"], {}, {}]", None),
    "deep yaml": (YAML, b"- [" + deep + b"]\n- {}\n- {}\n", None),
    "deep msgpack": (MSGPACK, b"\x93\x91" + b"\x91" * levels + b"\xc0\x80\x80", None),
    "deep pickle": (PICKLE, b"]" + b"(" * levels + b"l" * levels + b"a}}\x87.", None),
}
sent = []
with app.connection_for_write() as connection:
    queue = app.amqp.queues["celery"](connection)
    queue.declare()
    producer = connection.Producer()
    for n, (id, (type, body, form)) in enumerate(HOSTILE.items()):
        headers = {"task": "echo", "id": id} | ({"compression": form} if form else {})
        producer.publish(body, exchange="", routing_key="celery", content_type=type, content_encoding="binary", headers=headers)
        sent.append([id, len(body), app.send_task("echo", [n]).id])
say(sent)
"##;

/// Why each is refused.
const REASONS: &[(&str, &str)] = &[
    ("brotli", "unpacks to more than the limit of 64 MiB"),
    ("bzip2", "unpacks to more than the limit of 64 MiB"),
    ("xz", "unpacks to more than the limit of 64 MiB"),
    ("zstd", "unpacks to more than the limit of 64 MiB"),
    ("zlib", "unpacks to more than the limit of 64 MiB"),
    ("system", "posix.system is not data"),
    ("system 0", "posix.system is not data"),
    ("deep json", "more than 1000 levels of values"),
    ("deep yaml", "yaml: "),
    ("deep msgpack", "more than 500 levels of values"),
    ("deep pickle", "more than 500 levels of values"),
];

in_every_place! {
    harm_is_kept_with_its_reason_and_the_rest_runs
}

fn harm_is_kept_with_its_reason_and_the_rest_runs(place: Place) {
    let app = place.app("echo: {exec: [/bin/echo, '{n}'], params: [n]}\n");
    app.settings("accept_content: [json, yaml, msgpack, pickle]\n");
    std::fs::create_dir_all(app.file("var")).unwrap();
    let bombs = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/bombs");
    let sent = celery(&app, &format!("BOMBS = {bombs:?}\n{SEND}"));
    let sent = sent.as_array().unwrap();
    assert_eq!(sent.len(), REASONS.len());
    for one in &sent[..2] {
        assert!(one[1].as_u64().unwrap() < 16_000, "a small bomb: {one}");
    }
    let mut worker = app.worker(&["-c", "2"]);
    for (n, one) in sent.iter().enumerate() {
        let id = one[2].as_str().unwrap();
        assert_eq!(app.must(&["result", id, "--wait", "--timeout", "60"]), n.to_string());
    }
    let letters: HashMap<String, Value> = eventually("the dead letters", || {
        let all: Value = serde_json::from_str(&app.must(&["dead", "list", "--json"])).unwrap();
        let all = all.as_array().unwrap();
        let by_id = |letter: &Value| (letter["id"].as_str().unwrap().to_string(), letter.clone());
        (all.len() == sent.len()).then(|| all.iter().map(by_id).collect())
    });
    for (id, why) in REASONS {
        let letter = letters.get(*id).unwrap_or_else(|| panic!("{id}: {letters:?}"));
        assert_eq!(letter["reason"], "malformed", "{letter}");
        assert!(letter["detail"].as_str().unwrap().contains(why), "{letter}");
    }
    assert!(!app.file("harm").exists() && !Path::new("harm").exists());
    assert_eq!(worker.stop(Signal::SIGTERM), 0);
}
