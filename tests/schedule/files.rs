//! Entries in YAML mean what the same entries mean to Celery.

use crate::harness::python;
use chrono::DateTime;
use qworker::config::Settings;
use qworker::schedule::Schedule;
use qworker::schedule::cron::{Cron, Days};
use qworker::schedule::entry::{Entry, Expires, MessageOptions};
use qworker::schedule::every::Every;
use qworker::schedule::load::{self, Defaults};
use qworker::schedule::solar::Solar;
use serde_json::{Value, json};
use std::time::Duration;

fn read(name: &str, yaml: &str) -> Entry {
    let yaml = yaml.replace('\n', "\n    ");
    let text = format!("entries:\n  {name}:\n    task: t\n    {yaml}\n");
    let defaults = Defaults::new(&Settings::default(), DateTime::UNIX_EPOCH);
    let (mut entries, found) = load::yaml("schedule.yaml", &text, &defaults);
    assert!(found.is_empty() && entries.len() == 1, "{text}: {found:?}");
    entries.remove(0)
}

/// Celery's description of a schedule as ours.
fn schedule(celerys: &Value) -> Schedule {
    if let Some(text) = celerys["crontab"].as_str() {
        return Schedule::Cron(Cron::parse(text, Days::And).unwrap());
    }
    if let Some(micros) = celerys["micros"].as_u64() {
        let relative = celerys["relative"].as_bool().unwrap();
        let every = Every::new(Duration::from_micros(micros), relative, None);
        return Schedule::Every(every.unwrap());
    }
    let solar = celerys["solar"].as_array().unwrap();
    let degrees = |at: usize| solar[at].as_f64().unwrap();
    Schedule::Solar(Solar::new(solar[0].as_str().unwrap(), degrees(1), degrees(2)).unwrap())
}

/// As `apply_async` would be given them.
fn options(options: &MessageOptions) -> Value {
    let seconds = |span: Duration| span.as_secs_f64();
    let expires = options.expires.map(|expires| match expires {
        Expires::After(span) => json!(seconds(span)),
        Expires::At(at) => json!(at.to_rfc3339()),
    });
    let headers: serde_json::Map<String, Value> = options
        .headers
        .iter()
        .map(|(name, json)| (name.clone(), serde_json::from_str(json.get()).unwrap()))
        .collect();
    json!({
        "queue": options.queue, "priority": options.priority, "expires": expires,
        "countdown": options.countdown.map(seconds), "ignore_result": options.ignore_result,
        "shadow": options.shadow, "time_limit": options.time_limit,
        "soft_time_limit": options.soft_time_limit, "headers": headers,
    })
}

/// Numbers as numbers: 600 is 600.0.
fn alike(value: &Value) -> Value {
    match value {
        Value::Number(number) => json!(number.as_f64()),
        Value::Array(list) => list.iter().map(alike).collect(),
        Value::Object(map) => {
            map.iter().map(|(name, value)| (name.clone(), alike(value))).collect()
        }
        other => other.clone(),
    }
}

#[test]
fn entries_of_celery_have_their_twins_in_yaml() {
    let cases: Vec<(String, String, String)> =
        serde_json::from_value(python::run(include_str!("files.py"), &[])).unwrap();
    assert!(cases.len() >= 20);
    for (name, yaml, celerys) in cases {
        let entry = read(&name, &yaml);
        // Python writes integers of any length, and so do we: as text they are compared.
        assert!(
            celerys.contains(&format!("\"args\": {}", entry.args)),
            "{celerys}: {}",
            entry.args
        );
        assert!(
            celerys.contains(&format!("\"kwargs\": {}", entry.kwargs)),
            "{celerys}: {}",
            entry.kwargs
        );
        let celerys: Value = serde_json::from_str(&celerys).unwrap();
        assert_eq!((&*entry.name, &*entry.task), (name.as_str(), "t"));
        assert_eq!(entry.schedule, schedule(&celerys["schedule"]), "{yaml}");
        let ours = entry.options.as_deref().map_or(json!({}), options);
        assert_eq!(alike(&ours), alike(&celerys["options"]), "{yaml}");
    }
}
