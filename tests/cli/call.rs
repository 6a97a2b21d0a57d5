//! `qworker call`.

use super::refused;
use crate::harness::TestDir;

const TASKS: &str = r#"
add: {shell: 'echo $(( $1 + $2 ))', params: [a, {b: 1}]}
thumbnail: {exec: [echo, '{path}'], params: [path], queue: media, priority: 4, expires: 1h}
any: {shell: 'echo "$#"'}
"#;

#[test]
fn it_prints_the_id_or_the_result() {
    let app = TestDir::with(TASKS);
    let id = app.must(&["call", "add", "--args", "[2, 3]"]);
    assert!(uuid::Uuid::try_parse(&id).is_ok(), "{id}");
    assert_eq!(app.must(&["call", "add", "-a", "[1]", "--task-id", "mine"]), "mine");
    let _worker = app.worker(&[]);
    assert_eq!(app.must(&["call", "add", "--args", "[2, 3]", "--wait"]), "5");
    assert_eq!(app.must(&["call", "add", "-k", r#"{"b": 5, "a": 4}"#, "-w"]), "9");
    let document = app.must(&["call", "add", "-a", "[1]", "--wait", "--json"]);
    let document: serde_json::Value = serde_json::from_str(&document).unwrap();
    assert_eq!((&document["status"], &document["result"]), (&"SUCCESS".into(), &2.into()));
    assert_eq!(app.must(&["result", "mine", "--wait"]), "2");
}

#[test]
fn what_would_fail_anyway_is_refused_at_once() {
    let app = TestDir::with(TASKS);
    let call = |args: &[&str]| app.qworker(&[&["call"], args].concat());
    refused(&call(&["ad"]), 2, &["no task \"ad\"", "did you mean add", "--unregistered"]);
    refused(&call(&["add"]), 2, &["TypeError", "missing 1 required"]);
    refused(&call(&["add", "-a", "[1, 2, 3]"]), 2, &["TypeError", "3 were given"]);
    refused(&call(&["add", "-a", "[1]", "-k", r#"{"c": 1}"#]), 2, &["TypeError", "'c'"]);
    refused(&call(&["add", "-a", "2, 3"]), 2, &["--args", "JSON array"]);
    refused(&call(&["add", "-k", "[]"]), 2, &["--kwargs", "JSON object"]);
    refused(&call(&["add", "-a", "[1]", "--eta", "soon"]), 2, &["--eta soon", "ISO 8601"]);
    refused(&call(&["add", "-a", "[1]", "--countdown", "-x"]), 2, &["--countdown"]);
    refused(&call(&["add", "-a", "[1]", "--expires", "never"]), 2, &["--expires never"]);
    refused(&call(&["add", "-a", "[1]", "--priority", "10"]), 2, &["--priority"]);
    refused(
        &call(&["add", "-a", "[1]", "--eta", "2030-01-01", "--countdown", "1"]),
        2,
        &["--countdown"],
    );
    assert_eq!(app.qworker(&["list", "queues", "--json"]).stdout.trim(), "[]", "nothing was sent");
}

#[test]
fn it_goes_where_the_task_or_the_caller_says() {
    let app = TestDir::with(TASKS);
    app.must(&["call", "thumbnail", "-a", "[\"a\"]"]);
    app.must(&["call", "add", "-a", "[1]", "--queue", "other"]);
    app.must(&["call", "add", "-a", "[1]", "--countdown", "3600"]);
    app.must(&["call", "add", "-a", "[1]", "--eta", "2099-01-01T00:00:00+01:00"]);
    app.must(&["call", "elsewhere", "--unregistered"]);
    let queues = app.must(&["list", "queues", "--json"]);
    let queues: serde_json::Value = serde_json::from_str(&queues).unwrap();
    let counts: Vec<String> = queues
        .as_array()
        .unwrap()
        .iter()
        .map(|q| format!("{} {} {}", q["name"].as_str().unwrap(), q["ready"], q["scheduled"]))
        .collect();
    assert_eq!(counts, ["celery 1 2", "media 1 0", "other 1 0"]);
    let row: String = rusqlite::Connection::open(app.database())
        .unwrap()
        .query_row("SELECT payload FROM kombu_message WHERE priority = 4", [], |row| row.get(0))
        .unwrap();
    assert!(row.contains("thumbnail") && row.contains("\"expiration\":\"3"), "an hour: {row}");
}

#[test]
fn waiting_has_an_end() {
    let app = TestDir::with(TASKS);
    let output = app.qworker(&["call", "any", "--wait", "--timeout", "0.1"]);
    refused(&output, 75, &["is not ready", "qworker result "]);
}

#[test]
fn arguments_arrive_as_they_were_typed() {
    let app = TestDir::with("show: {shell: 'printf \"%s|\" \"$@\"', result: text}\n");
    let _worker = app.worker(&[]);
    let args = r#"["a b", "'\"$(x)`y`", "tab\tnew\nline", "", 12345678901234567890123, 1.10, null, true, {"k": [1]}]"#;
    let shown = app.must(&["call", "show", "--args", args, "--wait"]);
    let expected =
        "a b|'\"$(x)`y`|tab\tnew\nline||12345678901234567890123|1.10|null|true|{\"k\": [1]}|";
    assert_eq!(shown, expected);
}

#[test]
fn a_store_that_cannot_be_opened_is_named() {
    let app = TestDir::with(TASKS);
    app.write("var/qworker.sqlite", &"no database ".repeat(100));
    refused(&app.qworker(&["call", "any"]), 69, &["qworker.sqlite", "not a database"]);
}
