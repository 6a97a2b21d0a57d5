//! Every key of an entry, every option, and every mistake in one.

use super::*;
use crate::config::{Diagnostic, Settings};
use crate::schedule::entry::Expires;
use crate::schedule::load::{Defaults, yaml};
use crate::wire::{Compression, Serializer};

fn defaults() -> Defaults {
    Defaults::new(&Settings::default(), DateTime::UNIX_EPOCH)
}

fn run(text: &str) -> (Vec<Entry>, Vec<String>) {
    let (entries, found) = yaml("s.yaml", text, &defaults());
    (entries, found.iter().map(Diagnostic::to_string).collect())
}

/// The only entry of the file.
fn one(text: &str) -> Entry {
    let (mut entries, found) = run(&format!("entries:\n  x: {text}\n"));
    assert!(found.is_empty() && entries.len() == 1, "{text}: {found:?}");
    entries.remove(0)
}

fn utc(text: &str) -> Option<DateTime<Utc>> {
    Some(text.parse().unwrap())
}

#[test]
fn every_key_of_an_entry() {
    let plain = one("{task: t, schedule: 5}");
    assert_eq!((&*plain.name, &*plain.task), ("x", "t"));
    assert_eq!((plain.args.get(), plain.kwargs.get()), ("[]", "{}"));
    assert!(plain.options.is_none() && plain.enabled && plain.jitter.is_zero());
    assert_eq!((plain.misfire, plain.overlap), (Misfire::RunOnce, Overlap::Allow));
    assert_eq!((plain.grace, plain.from, plain.until), (None, None, None));
    assert_eq!((&*plain.origin.file, plain.origin.line), ("s.yaml", 2));
    assert_eq!(plain.calendar.zone, Zone::UTC);

    let full = one(
        "{task: a.b, schedule: 1h, relative: true, timezone: Europe/Oslo, misfire: run_all(7), \
          grace: 1h, overlap: queue, jitter: 30, enabled: no, from: 2026-12-01, \
          until: '2026-12-31 12:00', args: [1, 2.50, x, null, true, [2026-11-21], {a: '1'}, \
          123456789012345678901], kwargs: {k: {l: [m]}}}",
    );
    assert_eq!(
        full.args.get(),
        r#"[1, 2.50, "x", null, true, ["2026-11-21"], {"a": "1"}, 123456789012345678901]"#
    );
    assert_eq!(full.kwargs.get(), r#"{"k": {"l": ["m"]}}"#);
    assert_eq!(
        full.schedule.to_string(),
        one("{task: t, schedule: 1h, relative: on}").schedule.to_string()
    );
    assert_ne!(full.schedule, one("{task: t, schedule: 1h}").schedule);
    assert_eq!((full.misfire, full.overlap), (Misfire::RunAll(7), Overlap::Queue));
    assert_eq!(
        (full.grace, full.jitter),
        (Some(Duration::from_secs(3600)), Duration::from_secs(30))
    );
    assert!(!full.enabled);
    assert_eq!(full.calendar.zone, Zone::named("Europe/Oslo").unwrap());
    assert_eq!(full.from, utc("2026-11-30T23:00:00Z"));
    assert_eq!(full.until, utc("2026-12-31T11:00:00Z"));
    let day = one("{task: t, schedule: 1h, until: 2026-12-31}");
    assert_eq!(day.until, utc("2026-12-31T23:59:59.999999Z"));

    for (text, misfire) in [
        ("skip", Misfire::Skip),
        ("run_once", Misfire::RunOnce),
        ("'run_all( 3 )'", Misfire::RunAll(3)),
        ("{run_all: 10000}", Misfire::RunAll(10_000)),
    ] {
        assert_eq!(one(&format!("{{task: t, schedule: 1, misfire: {text}}}")).misfire, misfire);
    }
    let null = "{task: t, schedule: 1, args: null, kwargs: ~, options: , misfire: null, \
                grace: null, jitter: null, enabled: null, relative: null, timezone: null, from: }";
    assert_eq!(one(null).fingerprint(), one("{task: t, schedule: 1}").fingerprint());
    let beside = one("{task: t, schedule: {every: 6h, jitter: 5m}}");
    assert_eq!(beside.jitter, Duration::from_secs(300));
}

#[test]
fn every_option() {
    let options =
        one("{task: t, schedule: 1, timezone: Europe/Oslo, options: {queue: q, priority: 9, \
          expires: 600, countdown: 1.5, ignore_result: true, shadow: a b, time_limit: 2m, \
          soft_time_limit: 90.5, headers: {a: 1, b: [x]}, serializer: pickle, \
          compression: bzip}}");
    let options = *options.options.unwrap();
    assert_eq!(options.queue.as_deref(), Some("q"));
    assert_eq!((options.priority, options.ignore_result), (Some(9), Some(true)));
    assert_eq!(options.expires, Some(Expires::After(Duration::from_secs(600))));
    assert_eq!(options.countdown, Some(Duration::from_millis(1500)));
    assert_eq!(options.shadow.as_deref(), Some("a b"));
    assert_eq!((options.time_limit, options.soft_time_limit), (Some(120.0), Some(90.5)));
    assert_eq!(options.serializer, Some(Serializer::Pickle));
    assert_eq!(options.compression, Some(Compression::Bzip2));
    let headers: Vec<_> =
        options.headers.iter().map(|(name, json)| (&**name, json.get())).collect();
    assert_eq!(headers, [("a", "1"), ("b", r#"["x"]"#)]);
    let expires = |text: &str| {
        one(&format!(
            "{{task: t, schedule: 1, timezone: Europe/Oslo, options: {{expires: {text}}}}}"
        ))
        .options
        .unwrap()
        .expires
        .unwrap()
    };
    assert_eq!(expires("10m"), Expires::After(Duration::from_secs(600)));
    assert_eq!(Some(expires("2026-12-01T12:00:00")), utc("2026-12-01T11:00:00Z").map(Expires::At));
    assert_eq!(Some(expires("2026-12-01T12:00:00Z")), utc("2026-12-01T12:00:00Z").map(Expires::At));
    let exchange = one("{task: t, schedule: 1, options: {exchange: e, routing_key: k}}");
    let exchange = *exchange.options.unwrap();
    assert_eq!(
        (exchange.exchange.as_deref(), exchange.routing_key.as_deref()),
        (Some("e"), Some("k"))
    );
    let nothing = "{task: t, schedule: 1, options: {queue: null, headers: null, serializer: null, compression: null}}";
    assert!(one(nothing).options.is_none());
}

#[test]
fn the_grace_of_crontabs_has_a_default() {
    let text = "entries:\n  a: {task: t, schedule: '* * * * *'}\n  b: {task: t, schedule: 5}\n  \
                c: {task: t, schedule: '@daily', grace: 5}\n  \
                d: {task: t, schedule: '@daily', misfire: skip}\n";
    let deadline = Some(Duration::from_secs(60));
    let (entries, _) =
        yaml("s.yaml", text, &Defaults { starting_deadline: deadline, ..defaults() });
    let graces: Vec<_> = entries.iter().map(|entry| entry.grace).collect();
    assert_eq!(graces, [deadline, None, Some(Duration::from_secs(5)), None]);
}

#[test]
fn every_mistake_of_an_entry() {
    let cases = [
        ("5", "x: found 5, expected a mapping with task and schedule in it"),
        ("{}", "x: has no task"),
        ("{task: t}", "x: has no schedule"),
        ("{schedule: 5}", "x: has no task"),
        (
            "{task: 'a b ', schedule: 5}",
            "x.task: found text \"a b \", expected a task's name: not empty, without control \
             characters and without blanks at its ends",
        ),
        ("{task: 5, schedule: 5}", "x.task: found 5, expected a task's name"),
        ("{task: t, schedule: soon}", "x.schedule: found text \"soon\", expected seconds"),
        (
            "{task: t, schedule: {crontab: {hour: 24}}}",
            "x.schedule.crontab.hour: found 24, expected 0-23",
        ),
        ("{task: t, schedule: '* 24 * * *'}", "x.schedule.hour: found 24, expected 0-23"),
        ("{task: t, schedule: 5, args: 5}", "x.args: found a number, expected a list"),
        ("{task: t, schedule: 5, args: {a: 1}}", "x.args: found a mapping, expected a list"),
        ("{task: t, schedule: 5, kwargs: [a]}", "x.kwargs: found a list, expected a mapping"),
        (
            "{task: t, schedule: 5, options: [a]}",
            "x.options: found a list, expected a mapping of options",
        ),
        ("{task: t, schedule: 5, argss: [1]}", "x.argss: unknown key; did you mean args?"),
        (
            "{task: t, schedule: 5, queue: q}",
            "x.queue: unknown key; did you mean options: {queue: …}?",
        ),
        (
            "{task: t, crontab: '* * * * *'}",
            "x.crontab: unknown key; did you mean schedule: {crontab: …}?",
        ),
        ("{task: t, schedule: 5, last_run_at: 1}", "x.last_run_at: means nothing here: beat keeps"),
        (
            "{task: t, schedule: 5, misfire: once}",
            "x.misfire: found text \"once\", expected skip, run_once or run_all(N)",
        ),
        ("{task: t, schedule: 5, misfire: run_all}", "x.misfire: found text \"run_all\", expected"),
        (
            "{task: t, schedule: 5, misfire: run_all(0)}",
            "x.misfire: found text \"run_all(0)\", expected",
        ),
        (
            "{task: t, schedule: 5, misfire: {run_all: 10001}}",
            "x.misfire: found a mapping, expected",
        ),
        ("{task: t, schedule: 5, grace: -1}", "x.grace: found -1, expected a duration"),
        (
            "{task: t, schedule: 5, overlap: wait}",
            "x.overlap: found text \"wait\", expected allow, skip or queue",
        ),
        (
            "{task: t, schedule: 5, jitter: much}",
            "x.jitter: found text \"much\", expected a duration",
        ),
        (
            "{task: t, schedule: {every: 5, jitter: 1}, jitter: 2}",
            "x: has jitter twice, here and in its schedule",
        ),
        ("{task: t, schedule: 5, enabled: 5}", "x.enabled: found 5, expected true or false"),
        (
            "{task: t, schedule: '@daily', relative: true}",
            "x.schedule: is no interval, which alone can be relative",
        ),
        (
            "{task: t, schedule: 5, relative: maybe}",
            "x.relative: found text \"maybe\", expected true or false",
        ),
        (
            "{task: t, schedule: 5, timezone: Europe/Olso}",
            "x.timezone: found text \"Europe/Olso\", expected a time zone such as UTC or Europe/Oslo; did you mean Europe/Oslo?",
        ),
        (
            "{task: t, schedule: 5, from: soon}",
            "x.from: found text \"soon\", expected a time such as",
        ),
        (
            "{task: t, schedule: 5, from: 2026-12-02, until: 2026-12-01}",
            "x.until: is not after from",
        ),
        (
            "{task: t, schedule: 5, options: {que: q}}",
            "x.options.que: unknown option; did you mean queue?",
        ),
        (
            "{task: t, schedule: 5, options: {priority: 10}}",
            "x.options.priority: found 10, expected a priority from 0 to 9",
        ),
        (
            "{task: t, schedule: 5, options: {expires: 0}}",
            "x.options.expires: found 0, expected seconds, a span",
        ),
        ("{task: t, schedule: 5, options: {expires: 2026-12-01}}", "x.options.expires: found text"),
        (
            "{task: t, schedule: 5, options: {retry: false}}",
            "x.options.retry: means nothing here: beat holds",
        ),
        (
            "{task: t, schedule: 5, options: {eta: 2026-12-01T00:00:00}}",
            "x.options.eta: means nothing here: one instant",
        ),
        (
            "{task: t, schedule: 5, options: {serializer: raw}}",
            "x.options.serializer: found text \"raw\", expected json, yaml",
        ),
        (
            "{task: t, schedule: 5, options: {compression: lz4}}",
            "x.options.compression: found text \"lz4\", expected gzip, zlib",
        ),
        (
            "{task: t, schedule: 5, options: {headers: {compression: x}}}",
            "x.options.headers.compression: is a header of every message",
        ),
        (
            "{task: t, schedule: 5, options: {link: x}}",
            "x.options.link: means nothing here: beat sends single tasks",
        ),
        (
            "{task: t, schedule: 5, options: {headers: {id: 5}}}",
            "x.options.headers.id: is a header of every message",
        ),
        (
            "{task: t, schedule: 5, options: {headers: 5}}",
            "x.options.headers: found a number, expected a mapping",
        ),
        (
            "{task: t, schedule: 5, options: {exchange: e}}",
            "x.options: has an exchange without a routing_key",
        ),
        (
            "{task: t, schedule: 5, options: {routing_key: e}}",
            "x.options: has a routing_key without an exchange",
        ),
        (
            "{task: t, schedule: 5, options: {queue: q, exchange: e, routing_key: k}}",
            "x.options: has queue and exchange",
        ),
        (
            "{task: t, schedule: 5, options: {time_limit: 5, soft_time_limit: 5}}",
            "x.options.soft_time_limit: must be shorter than time_limit",
        ),
        ("{task: t, schedule: 5, task: u}", "task: is here twice, first on line 2"),
    ];
    for (text, begin) in cases {
        let (entries, found) =
            run(&format!("entries:\n  x: {text}\n  y: {{task: t, schedule: 1}}\n"));
        let begin = format!("s.yaml:2: {begin}");
        assert!(found[0].starts_with(&begin), "{text}: {found:?}");
        assert_eq!(entries.len(), 1, "{text}: the other entry stays, this one goes");
    }
    let bounds = "a name has 1 to 500 bytes";
    for (name, why) in
        [("''", "name is not empty"), ("\"a\\tb\"", bounds), (&"x".repeat(501), bounds)]
    {
        let (entries, found) = run(&format!("entries: {{{name}: {{task: t, schedule: 1}}}}"));
        assert!(entries.is_empty() && found[0].contains(why), "{found:?}");
    }
}
