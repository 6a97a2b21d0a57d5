//! Bodies of every serializer and compression, written by kombu, are what kombu reads of them.

use super::celery;
use crate::harness::{Place, TestDir, eventually, in_every_place};
use qworker::wire::{AcceptedContent, Payload, body};
use serde_json::value::RawValue;
use serde_json::{Value, json};

/// Sends every value that a serializer takes, in every compression and protocol, to the queue
/// `bodies`, and says for each message what kombu makes of it, as JSON of kombu's. Sets, which that has not, are lists.
const SEND: &str = r##"
import base64, collections, datetime as dt, decimal, uuid
from kombu import compression, serialization
from kombu.utils import json as typed

UTC = dt.timezone.utc
WEST = dt.timezone(dt.timedelta(hours=-5, minutes=-30), "west")
VALUES = [
    None, True, False, 0, -1, 255, 65536, 2**31, -(2**31), 2**63 - 1, -(2**63), 2**64 - 1,
    int("1234567890" * 4), -int("9876543210" * 4), 0.0, -0.0, 1.5, 0.1, 1e16, 1e-7, -1.25e300, 5e-324,
    float("nan"), float("inf"), -float("inf"),
    "", "text", "Grüße, 世界 \U0001f600", "\0\n\t\x7f\"'\\", "yes", "1.5", "~", "2030-01-02", "=", "<<", "0x1f",
    " x ", "- a", "a: b", "#", "x" * 3000, "line\nline\n",
    b"", b"text", "ü".encode(), b"\x00\xff\xfe", bytes(range(256)), bytearray(b"more"),
    dt.datetime(2030, 1, 2, 3, 4, 5), dt.datetime(2030, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
    dt.datetime(2030, 1, 2, 5, 4, 5, tzinfo=WEST), dt.datetime(1, 1, 1), dt.date(2030, 1, 2),
    dt.time(3, 4, 5), dt.time(3, 4, 5, 6, tzinfo=UTC),
    decimal.Decimal("1.10"), decimal.Decimal("-1E+20"), decimal.Decimal("NaN"), uuid.UUID(int=2**100), uuid.uuid1(),
    [], {}, (), [[], [{}]], (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), list(range(300)), {"a": {"b": [None, {"c": 1.5}]}},
    {"ü": 1, "": 2, "yes": 3, "1": 4}, {n: str(n) for n in range(70)}, {True: 1, None: 2, 2.5: 3},
    collections.OrderedDict([("z", 1), ("a", 2)]), {7}, frozenset([8]),
]
SHARED = [1, 2]
VALUES.append([SHARED, SHARED, {"again": SHARED}])

class Encoder(typed.JSONEncoder):
    def default(self, o):
        if isinstance(o, (set, frozenset)):
            return list(o)
        return super().default(bytes(o) if isinstance(o, bytearray) else o)

def takes(serializer, value):
    try:
        type, encoding, body = serialization.dumps(value, serializer)
        serialization.loads(body, type, encoding, accept=[type])
        return True
    except serialization.EncodeError:
        return False
    except serialization.DecodeError:  # msgpack: keys that it writes and does not read
        return False

said = []
for protocol in 1, 2:
    app.conf.task_protocol = protocol
    app.amqp.__dict__.pop("create_task_message", None)
    for serializer in "json", "yaml", "msgpack", "pickle":
        args = [value for value in VALUES if takes(serializer, value)]
        kwargs = {"zeta": 1, "ü": args[:5], "alpha": {"k": "v"}}
        type, encoding, body = serialization.dumps((args, kwargs), serializer)
        args, kwargs = serialization.loads(body, type, encoding, accept=[type])
        expect = [typed.dumps(args, cls=Encoder), typed.dumps(kwargs, cls=Encoder)]
        for form in [None] + sorted(compression.encoders()):
            id = f"{protocol} {serializer} {form}"
            app.send_task("echo", args, kwargs, task_id=id, serializer=serializer, compression=form, queue="bodies", shadow="s")
            said.append([id, len(args), *expect])
say(said)
"##;

/// The messages of the queue, in their order.
fn sent(app: &TestDir) -> Vec<Payload> {
    let of_queue = app.waiting().into_iter().filter(|one| one.queue == "bodies");
    of_queue.map(|one| one.payload).collect()
}

in_every_place! {
    every_body_is_what_kombu_reads_of_it
    signatures_in_a_pickle_are_those_in_json
    a_worker_takes_the_forms_that_it_accepts
}

fn every_body_is_what_kombu_reads_of_it(place: Place) {
    let app = place.app("");
    std::fs::create_dir(app.file("var")).unwrap();
    let said = celery(&app, SEND);
    let said = said.as_array().unwrap();
    // Each protocol, serializer and compression; the packages of some may be missing.
    assert_eq!(said.len(), 2 * 4 * 6, "scripts/test installs what kombu needs: {}", said.len());
    let sent = sent(&app);
    assert_eq!(sent.len(), said.len());
    let all = AcceptedContent::of(["json", "yaml", "msgpack", "pickle"]);
    for (payload, said) in sent.iter().zip(said) {
        let [id, count, args, kwargs] = &said.as_array().unwrap()[..] else { panic!() };
        let id = id.as_str().unwrap();
        assert!(count.as_u64().unwrap() > 35, "{id}: {count}");
        let message = payload.decode().unwrap_or_else(|error| panic!("{id}: {error}"));
        assert_eq!((message.id.as_str(), message.task.as_str()), (id, "echo"));
        assert_eq!(message.is_named_outside(), id.starts_with('2'), "{id}");
        message.accepted(&all).unwrap();
        assert_eq!(
            message.accepted(&AcceptedContent::default()).is_ok(),
            id.contains("json"),
            "{id}"
        );
        let read = message.arguments().unwrap_or_else(|error| panic!("{id}: {error}"));
        // Letter by letter: what a program sees is the same, whatever it came in.
        assert_eq!(body::array(&read.args), body::finite(args.as_str().unwrap()), "{id}");
        let kwargs: Box<RawValue> = serde_json::from_str(kwargs.as_str().unwrap()).unwrap();
        let expected = body::Pairs::read("kwargs", kwargs.get()).unwrap();
        assert_eq!(body::object(&read.kwargs), body::object(&expected.0), "{id}");
        retried(payload, id);
    }
}

/// A retry of a message says the same, in the same form: of protocol 1, the body is written again.
fn retried(payload: &Payload, id: &str) {
    let message = payload.decode().unwrap();
    let retry = payload.retry(&message, qworker::clock::now()).unwrap();
    let again = retry.decode().unwrap();
    assert_eq!((again.retries, &*again.id), (1, id));
    let (before, after) = (message.arguments().unwrap(), again.arguments().unwrap());
    assert_eq!(body::array(&before.args), body::array(&after.args), "{id}");
    assert_eq!(body::object(&before.kwargs), body::object(&after.kwargs), "{id}");
    let is_json = again.accepted(&AcceptedContent::default()).is_ok();
    assert_eq!(is_json, id.contains("json"), "{id}");
    let field = |payload: &Payload| {
        let envelope: Value = serde_json::from_str(&payload.to_envelope()).unwrap();
        [envelope["content-type"].clone(), envelope["content-encoding"].clone()]
    };
    assert_eq!(field(&retry), field(payload), "{id}");
}

/// Callbacks, chains, groups and chords: what Celery puts into bodies beside the arguments.
fn signatures_in_a_pickle_are_those_in_json(place: Place) {
    let app = place.app("");
    std::fs::create_dir(app.file("var")).unwrap();
    let script = r#"
from celery import chain, chord, group, signature
from kombu.utils import json as typed
import pickle
def add(*args): return signature("add", args, app=app)
def many(serializer):
    def send(n, canvas, **options):
        canvas.apply_async(serializer=serializer, queue="bodies", task_id=f"{n}", **options)
    send(1, add(1), link=add(2), link_error=[add(3), add(4)])
    send(2, add(1), link=[group(add(4), add(5)), chain(add(1), add(2)), chord([add(1), add(2)], add(3))])
    send(3, add(1), link=group(add(n) for n in range(3)))
    send(4, add(1), link=[signature(name, kwargs={"task": add(), "it": [(1, 2)]}, app=app) for name in ("celery.map", "celery.starmap")])
    send(6, add(add(1), group(add(n) for n in range(3)), chord([add(1), add(2)], add(3)), add(1).set(link=add(2))))
    chain(add(1), group(add(2), add(3)), add(4)).apply_async(serializer=serializer, queue="bodies", task_id="5")
many("pickle")
many("json")
say(None)
"#;
    celery(&app, script);
    let sent = sent(&app);
    let (pickled, plain) = sent.split_at(sent.len() / 2);
    assert!(pickled.len() >= 6 && pickled.len() == plain.len());
    for (ours, theirs) in pickled.iter().zip(plain) {
        let (ours, theirs) = (ours.decode().unwrap(), theirs.decode().unwrap());
        let read = ours.arguments().unwrap_or_else(|error| panic!("{}: {error}", ours.id));
        let plain = theirs.arguments().unwrap();
        assert_eq!((&ours.task, follow(&read)), (&theirs.task, follow(&plain)));
        assert_eq!(body::array(&read.args), body::array(&plain.args));
    }
}

fn a_worker_takes_the_forms_that_it_accepts(place: Place) {
    let app = place.app("echo: {exec: [/bin/echo, '{a}', '{b}'], params: [a, b]}\n");
    app.settings("accept_content: [json, pickle, application/x-msgpack]\n");
    let mut worker = app.worker(&["-c", "2"]);
    let script = r#"
import datetime
def send(*args, **options): return app.send_task("echo", args, **options).id
say([
    send("ü", b"\xc3\xa4", serializer="pickle", compression="bzip2"),
    send(datetime.date(2030, 1, 2), (1, None), serializer="pickle"),
    send(1, 2, serializer="msgpack", compression="xz"),
    send(1, 2, serializer="json", compression="zlib"),
    send(1, 2, serializer="yaml"),
])
"#;
    let ids = celery(&app, script);
    let id = |n: usize| ids[n].as_str().unwrap();
    let result = |n: usize| app.must(&["result", id(n), "--wait", "--timeout", "60"]);
    assert_eq!(result(0), "ü ä");
    assert_eq!(result(1), "2030-01-02 [1, null]");
    assert_eq!((result(2), result(3)), ("1 2".into(), "1 2".into()));
    let letter = eventually("a dead letter", || {
        let all: Value = serde_json::from_str(&app.must(&["dead", "list", "--json"])).unwrap();
        all.as_array().unwrap().iter().find(|letter| letter["id"] == id(4)).cloned()
    });
    let text = letter.to_string();
    let why = "content-type application/x-yaml is not accepted; accept_content has: json, msgpack, pickle";
    assert!(text.contains(why), "{text}");
    assert_eq!(worker.stop(nix::sys::signal::Signal::SIGTERM), 0);
}

/// What is to follow, by name.
fn follow(arguments: &qworker::wire::Arguments) -> Vec<&'static str> {
    arguments.embed.as_ref().map_or_else(Vec::new, |embed| embed.names())
}

/// What PyYAML makes of each text, or nothing where it refuses it.
const RESOLVE: &str = r#"
import yaml
from kombu.utils import json as typed
def resolve(text):
    try:
        return typed.dumps(yaml.safe_load(text)[0][0])
    except Exception:
        return None
say([resolve(text) for text in json.load(open(TEXTS))])
"#;

/// What such texts are made of.
const PARTS: &str = "0|1|7|9|12|59|60|2001|-|+|.|_|:|e|E|x|0x|0b|0o|f|T|t|Z| |~|y|yes|No|ON|off|true|False|null|NULL|.inf|.NaN|-02|-13|2001-12-14\
    |21:59:43|.10|-05:00|+2|a|\"|'|=|<<|ü";

/// Texts that look like numbers, instants and truth values, and such that nearly do.
#[test]
fn scalars_of_yaml_are_those_of_pyyaml() {
    let parts: Vec<&str> = PARTS.split('|').collect();
    let mut random = fastrand::Rng::with_seed(3);
    let texts: Vec<String> = (0..6000)
        .map(|_| (0..random.usize(1..6)).map(|_| parts[random.usize(..parts.len())]).collect())
        .map(|scalar: String| format!("- - {scalar}\n- {{}}\n- {{}}\n"))
        .collect();
    let app = TestDir::new();
    app.write("texts.json", &json!(texts).to_string());
    let script = format!("TEXTS = {:?}\n{RESOLVE}", app.file("texts.json"));
    let theirs = celery(&app, &script);
    let (mut refused, mut differing) = (0, Vec::new());
    for (text, theirs) in texts.iter().zip(theirs.as_array().unwrap()) {
        let envelope = json!({"body": text, "content-type": "application/x-yaml", "properties": {},
            "headers": {"task": "t", "id": "i"}});
        let read = Payload::from_envelope(envelope.to_string()).decode().unwrap().arguments();
        let ours = read.as_ref().ok().map(|read| read.args[0].get());
        let theirs = theirs.as_str().map(body::finite);
        refused += usize::from(theirs.is_none());
        // PyYAML has no value for a single `=`, and no mapping that begins with an empty key.
        let is_known = theirs.is_none() && text[4..].trim_start().starts_with(['=', ':']);
        if ours != theirs.as_deref() && !is_known {
            differing.push(format!("{text:?}: {ours:?}, {theirs:?}"));
        }
    }
    assert!(differing.is_empty(), "ours, theirs:\n{}", differing.join("\n"));
    assert!(refused < texts.len() / 2, "{refused}");
}
