//! Signed messages between us and Python, both ways. The keys are those of
//! `tests/golden/auth/record.py`.

use super::celery;
use super::worker::PythonWorker;
use crate::harness::{Place, TestDir, eventually, in_every_place};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/auth").join(name)
}

/// An application that signs and verifies.
fn signing(place: Place, tasks: &str) -> TestDir {
    let app = place.app(tasks);
    for name in ["ours.key", "certs/ours.pem", "certs/theirs.pem"] {
        app.write(&format!("keys/{name}"), &fs::read_to_string(golden(name)).unwrap());
    }
    app.settings(
        "task_serializer: auth\naccept_content: [auth]\nresult_serializer: auth\n\
         security_key: keys/ours.key\nsecurity_certificate: keys/certs/ours.pem\n\
         security_cert_store: keys/certs\n",
    );
    app
}

/// The same for Python, whose key is this one.
fn conf(app: &TestDir, key: &str, certificate: &str) -> String {
    format!(
        r#"
def sign(key, certificate):
    app.conf.update(task_serializer="auth", accept_content=["auth"], result_serializer="auth",
        security_key=key, security_certificate=certificate, security_cert_store={:?})
    app.setup_security()
sign({key:?}, {certificate:?})
"#,
        app.file("keys/certs")
    )
}

fn theirs(app: &TestDir) -> String {
    let (key, certificate) = (golden("theirs.key"), golden("certs/theirs.pem"));
    conf(app, key.to_str().unwrap(), certificate.to_str().unwrap())
}

in_every_place! {
    signed_tasks_and_results_go_both_ways
    what_is_not_signed_by_a_known_one_is_kept_and_the_rest_runs
    certificates_are_read_again_at_a_reload
}

const TASKS: &str = r#"
value: {shell: 'printf %s "$1"'}
note: {shell: 'echo "$1" >>notes'}
fails: {shell: 'exit 3'}
"#;

fn result(app: &TestDir, id: &str) -> Value {
    let output = app.qworker(&["result", id, "--json", "--wait", "--timeout", "60"]);
    serde_json::from_str(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

fn signed_tasks_and_results_go_both_ways(place: Place) {
    let app = signing(place, TASKS);
    let sum = app.must(&["call", "--unregistered", "py.add", "-a", "[20, 22]", "--queue", "py"]);
    let packed = ["--queue", "py", "--compression", "zstd"];
    let packed = [&["call", "--unregistered", "py.kind", "-a", "[[1, \"ü\"]]"], &packed[..]];
    let packed = app.must(&packed.concat());
    let conf = theirs(&app);
    let _python = PythonWorker::start(&app, &format!("{conf}\napp.conf.task_default_queue = 'py'"));
    let _worker = app.worker(&["-c", "2"]);
    assert_eq!(result(&app, &sum)["result"], json!(42));
    assert_eq!(result(&app, &packed)["result"], json!(["list", "[1, 'ü']"]));
    let script = r#"
from celery import chain, signature
a = app.send_task("value", ('{"a": [1]}',))
b = app.send_task("value", ("x",), compression="bzip2")
c = app.send_task("fails")
d = chain(signature("value", ("[7]",), app=app, immutable=True),
          signature("py.kind", app=app).set(queue="py")).apply_async()
from celery import chord
app.backend.mark_as_revoked("gone", "revoked")
e = chord([signature("value", ("1",), app=app), signature("value", ("2",), app=app, options={"task_id": "gone"})],
          signature("value", ("3",), app=app, immutable=True)).apply_async()
def kind(sent):
    try:
        return sent.get(timeout=60)
    except Exception as error:
        return type(error).__name__
say([kind(sent) for sent in (a, b, c, d)] + [e.id])
"#;
    let got = celery(&app, &format!("{conf}{script}"));
    let expected = json!([{"a": [1]}, "x", "CalledProcessError", ["list", "[7]"], got[4]]);
    assert_eq!(got, expected);
    // A member that was revoked ends its chord.
    let chord = result(&app, got[4].as_str().unwrap());
    assert_eq!(chord["result"]["exc_type"], json!("ChordError"), "{chord}");
}

/// Messages that no worker may run, between good ones.
const BAD: &str = r#"
import base64
def send(text, *key, **options):
    if key: sign(*key)
    return app.send_task("note", (text,), **options).id
from kombu.serialization import registry
def forged(text):
    encoder = registry._encoders["auth"]
    def forge(data):
        fields = base64.b64decode(encoder.encoder(data))
        return base64.b64encode(fields.replace(b"honest", b"forged")).decode()
    registry._encoders["auth"] = encoder._replace(encoder=forge)
    try:
        return app.send_task("note", (text,)).id
    finally:
        registry._encoders["auth"] = encoder
say([
    send("one"),
    forged("honest"),
    send("unknown", STRANGER_KEY, STRANGER),
    send("expired", EXPIRED_KEY, EXPIRED),
    send("plain", serializer="json"),
    send("two", KEY, CERTIFICATE),
])
"#;

fn what_is_not_signed_by_a_known_one_is_kept_and_the_rest_runs(place: Place) {
    let app = signing(place, TASKS);
    // Python's own store may not have it: it refuses to start with an expired one.
    let before = theirs(&app);
    fs::create_dir_all(app.file("var")).unwrap();
    let script = [
        ("STRANGER_KEY", golden("expired.key")),
        ("STRANGER", golden("stranger.pem")),
        ("EXPIRED_KEY", golden("expired.key")),
        ("EXPIRED", golden("expired.pem")),
        ("KEY", golden("theirs.key")),
        ("CERTIFICATE", golden("certs/theirs.pem")),
    ]
    .iter()
    .fold(BAD.to_string(), |text, (name, path)| {
        let from = format!(" {name}");
        [",", ")"].iter().fold(text, |text, end| {
            text.replace(&format!("{from}{end}"), &format!(" {:?}{end}", path.to_str().unwrap()))
        })
    });
    let ids = celery(&app, &format!("{before}{script}"));
    app.write("keys/certs/old.pem", &fs::read_to_string(golden("expired.pem")).unwrap());
    let _worker = app.worker(&["-c", "1"]);
    eventually("the good ones", || (app.lines("notes").len() == 2).then_some(()));
    assert_eq!(app.lines("notes"), ["one", "two"]);
    let letters = eventually("the others", || {
        let all: Value = serde_json::from_str(&app.must(&["dead", "list", "--json"])).unwrap();
        (all.as_array().unwrap().len() == 4).then_some(all)
    });
    let why = |n: usize| {
        let letter = letters.as_array().unwrap().iter().find(|letter| letter["id"] == ids[n]);
        letter.unwrap_or_else(|| panic!("{n}: {letters}")).to_string()
    };
    assert!(why(1).contains("auth: the signature is not that of"), "{}", why(1));
    assert!(why(2).contains("qworker 10\\\" is not in security_cert_store"), "{}", why(2));
    assert!(why(3).contains("qworker 9\\\" expired at 20"), "{}", why(3));
    let plain = "content-type application/json is not accepted; accept_content has: auth";
    assert!(why(4).contains(plain), "{}", why(4));
}

fn certificates_are_read_again_at_a_reload(place: Place) {
    let app = signing(place, TASKS);
    let certificate = fs::read_to_string(golden("certs/theirs.pem")).unwrap();
    let conf = theirs(&app);
    fs::create_dir_all(app.file("var")).unwrap();
    fs::remove_file(app.file("keys/certs/theirs.pem")).unwrap();
    let (key, pem) = (golden("theirs.key"), golden("certs/theirs.pem"));
    let conf = conf.replace(&format!("{:?}", app.file("keys/certs")), &format!("{pem:?}"));
    assert!(conf.contains(key.to_str().unwrap()));
    let worker = app.worker(&["-c", "1"]);
    let send = |text: &str| {
        let script = format!("{conf}say(app.send_task('note', ({text:?},)).id)");
        celery(&app, &script).as_str().unwrap().to_string()
    };
    let refused = send("refused");
    let ended = result(&app, &refused);
    assert!(ended["result"].to_string().contains("is not in security_cert_store"), "{ended}");
    // A store that is wrong changes nothing.
    app.write("keys/certs/theirs.pem", "no certificate");
    worker.signal(Signal::SIGHUP);
    worker.expect_line("keys/certs/theirs.pem is no certificate");
    app.write("keys/certs/theirs.pem", &certificate);
    worker.signal(Signal::SIGHUP);
    worker.expect_line("ready.");
    send("accepted");
    eventually("it runs", || (app.lines("notes") == ["accepted"]).then_some(()));
}

#[test]
fn check_names_what_is_wrong_with_keys_and_certificates() {
    let app = TestDir::with(TASKS);
    let golden = |name: &str| golden(name).to_str().unwrap().to_string();
    let check = |settings: &str| {
        app.settings(settings);
        let output = app.qworker(&["check"]);
        (output.code, format!("{}{}", output.stdout, output.stderr))
    };
    let keys = |key: &str, certificate: &str, store: &str| {
        format!(
            "task_serializer: auth\naccept_content: [auth]\nsecurity_key: {}\n\
             security_certificate: {}\nsecurity_cert_store: '{}'\n",
            golden(key),
            golden(certificate),
            golden(store)
        )
    };
    let (code, said) = check(&keys("ours.key", "certs/ours.pem", "certs"));
    assert_eq!(code, 0, "{said}");
    let (code, said) = check(&keys("ours.key", "certs/ours.pem", "certs/*.pem"));
    assert_eq!(code, 0, "{said}");
    for (key, certificate, store, expected) in [
        (
            "theirs.key",
            "certs/ours.pem",
            "certs",
            "theirs.key is not the key of security_certificate",
        ),
        (
            "ours-encrypted.key",
            "certs/ours.pem",
            "certs",
            "is encrypted; expected security_key_password",
        ),
        ("none.key", "certs/ours.pem", "certs", "none.key: No such file"),
        ("ours.key", "ours.key", "certs", "ours.key is no certificate: expected PEM"),
        ("ours.key", "certs/ours.pem", "*.key", "curve.key is no certificate: expected PEM"),
        (
            "ours.key",
            "certs/ours.pem",
            "nothing",
            "found nothing, expected a folder of certificates",
        ),
    ] {
        let (code, said) = check(&keys(key, certificate, store));
        assert!(code == 1 && said.contains(expected), "{expected}: {code} {said}");
        assert!(said.contains("qworker.yaml:"), "{said}");
    }
    let (code, said) = check(&keys("expired.key", "expired.pem", "certs"));
    assert!(
        code == 0 && said.contains("Warning: ") && said.contains("expired.pem expired at"),
        "{said}"
    );
    assert!(said.contains("is not in security_cert_store: messages"), "{said}");
    let (code, said) = check("task_serializer: auth\n");
    let expected = "task_serializer: auth needs the settings security_key and security_certificate";
    assert!(code == 1 && said.contains(expected), "{said}");
    let encrypted = keys("ours-encrypted.key", "certs/ours.pem", "certs");
    let (code, said) = check(&format!("{encrypted}security_key_password: s3cret\n"));
    assert_eq!((code, said.contains("s3cret")), (0, false), "{said}");
    // Nothing is sent without keys.
    app.settings("");
    let output = app.qworker(&["call", "note", "-a", "[1]", "--serializer", "auth"]);
    let expected = "expected the settings security_key and security_certificate";
    assert!(output.code == 2 && output.stderr.contains(expected), "{output:?}");
}
