//! What we send is what `celery call` sends, field by field.

use super::celery;
use crate::harness::{Place, TestDir, in_every_place};
use qworker::wire::Payload;
use serde_json::{Map, Value, json};

/// Fields that name the sender, or are new with each message.
const OWN: &[&str] = &["lang", "origin", "reply_to", "delivery_tag", "body"];

/// Arguments, by position and keyword, and the options of a call.
fn cases() -> Vec<[Value; 3]> {
    let numbers: Vec<u32> = (0..600).collect();
    let deep = json!([{"a": {"b": {"c": 1}}}, [[[[1]]]], {}, []]);
    let long = ["y y ".repeat(200), "z".repeat(700)];
    let texts = json!(["a'b\"c", "ü\n\\ \0 😀 \u{200b}", 1.5, null, true, false, -1, 1e300, 1e16]);
    vec![
        [json!([1, 2]), json!({}), json!({})],
        [json!([]), json!({"b": [1, {"z": [2, [3]]}], "a": "x"}), json!({})],
        [texts, json!({}), json!({})],
        [json!(numbers), json!({"n": numbers}), json!({})],
        [deep.clone(), json!({"x": {"y": {"z": {"w": 1}}}, "d": deep}), json!({})],
        [json!(long), json!({"long": "q".repeat(2000), "n": 2}), json!({})],
        [json!(["x".repeat(1022)]), json!({"k".repeat(1020): [1, [2]]}), json!({})],
        [json!([1]), json!({}), json!({"queue": "q", "priority": 3})],
        [json!([1]), json!({}), json!({"expires": 60.0})],
        [json!([1]), json!({}), json!({"countdown": 100.0})],
    ]
}

/// Headers, properties and the rest side by side, and the body as it is read.
fn fields(payload: &str) -> Map<String, Value> {
    let Value::Object(mut all) = serde_json::from_str(payload).unwrap() else { panic!() };
    for part in ["headers", "properties"] {
        let Some(Value::Object(inner)) = all.shift_remove(part) else { panic!("no {part}") };
        let lines = inner.into_iter().map(|(name, value)| (format!("{part}.{name}"), value));
        all.extend(lines.collect::<Vec<_>>());
    }
    let arguments = Payload::from_envelope(payload).decode().unwrap().arguments().unwrap();
    let value = |raw: &serde_json::value::RawValue| serde_json::from_str(raw.get()).unwrap();
    let args: Vec<Value> = arguments.args.iter().map(|arg| value(arg)).collect();
    let kwargs: Map<String, Value> =
        arguments.kwargs.iter().map(|(name, arg)| (name.clone(), value(arg))).collect();
    all.insert("arguments".into(), json!([args, kwargs]));
    all
}

/// What `celery call` gives to `send_task`.
const SEND: &str = r#"
for n, (args, kwargs, options) in enumerate(json.loads(CASES)):
    app.send_task("py.add", args, kwargs, task_id=f"t{n}", **options)
say(None)
"#;

/// All messages that wait, by the number of their case.
fn sent(app: &TestDir) -> Vec<String> {
    let mut all = app.waiting();
    all.sort_by_key(|one| one.message().id.trim_start_matches('t').parse::<usize>().unwrap());
    all.into_iter().map(|one| one.payload.to_envelope().into_owned()).collect()
}

in_every_place! {
    every_field_is_as_celery_sends_it
}

fn every_field_is_as_celery_sends_it(place: Place) {
    let cases = cases();
    let script = format!("CASES = {}\n{SEND}", json!(json!(cases).to_string()));
    let site = place.app("");
    std::fs::create_dir(site.file("var")).unwrap();
    celery(&site, &script);
    let theirs = sent(&site);
    assert_eq!(theirs.len(), cases.len());
    for (n, ([args, kwargs, options], theirs)) in cases.iter().zip(&theirs).enumerate() {
        let app = place.app("");
        let id = format!("t{n}");
        let (args, kwargs) = (args.to_string(), kwargs.to_string());
        let mut words = vec!["call", "py.add", "--unregistered", "--task-id", &id];
        words.extend(["-a", &args, "-k", &kwargs]);
        let options = options.as_object().unwrap().iter();
        let options: Vec<String> = options
            .map(|(name, value)| match (place, name.as_str()) {
                // Here 9 is served first, there 0 is.
                (Place::Redis, "priority") => format!("--priority={}", 9 - value.as_u64().unwrap()),
                _ => format!("--{name}={}", value.to_string().trim_matches('"')),
            })
            .collect();
        words.extend(options.iter().map(String::as_str));
        app.must(&words);
        let ours = &sent(&app)[0];
        let (ours, theirs) = (fields(ours), fields(theirs));
        let mut names: Vec<&String> = ours.keys().chain(theirs.keys()).collect();
        names.dedup();
        for name in names {
            let bare = name.rsplit('.').next().unwrap();
            if OWN.contains(&bare) {
                continue;
            }
            // Both are set, at different moments.
            if ["eta", "expires"].contains(&bare) && !ours[name].is_null() {
                assert!(theirs[name].is_string(), "case {n}: {name}");
                continue;
            }
            assert_eq!(ours.get(name), theirs.get(name), "case {n}: {name}, ours first");
        }
    }
}
