//! Files of entries: every key, every mistake, and any text at all.

use super::super::crontab_file::crontab;
use super::*;
use crate::config::Layers;
use std::time::{Duration, Instant};

fn defaults() -> Defaults {
    Defaults::new(&Settings::default(), DateTime::UNIX_EPOCH)
}

fn lines(found: &[Diagnostic]) -> Vec<String> {
    found.iter().map(Diagnostic::to_string).collect()
}

fn run(text: &str) -> (Vec<Entry>, Vec<String>) {
    let (entries, found) = yaml("s.yaml", text, &defaults());
    (entries, lines(&found))
}

fn utc(text: &str) -> Option<DateTime<Utc>> {
    Some(text.parse().unwrap())
}

#[test]
fn each_mistake_knows_its_line_and_all_are_found() {
    let text = "timezone: Europe/Oslo\nentries:\n  a:\n    task: t\n    schedule:\n      crontab:\n        \
                minute: 0\n        hour: 99\n    args: {}\n  b: {task: t}\n  c: {task: t, schedule: 5}\n  \
                c: {task: u, schedule: 5}\nzone: x\n";
    let (entries, found) = run(text);
    assert_eq!(
        found,
        [
            "s.yaml:8: a.schedule.crontab.hour: found 99, expected 0-23",
            "s.yaml:9: a.args: found a mapping, expected a list",
            "s.yaml:10: b: has no schedule",
            "s.yaml:12: c: is here twice, first on line 11",
            "s.yaml:13: zone: unknown key",
        ]
    );
    assert_eq!(
        (entries.len(), &*entries[0].task, entries[0].calendar.zone),
        (1, "t", Zone::named("Europe/Oslo").unwrap())
    );
}

#[test]
fn the_zone_of_a_file_holds_wherever_it_stands() {
    let entries = "entries:\n  a: {task: t, schedule: '@daily', from: 2026-12-01}\n  \
                   b: {task: t, schedule: '@daily', timezone: Asia/Seoul}\n";
    for text in
        [format!("timezone: Europe/Oslo\n{entries}"), format!("{entries}timezone: Europe/Oslo\n")]
    {
        let (entries, found) = run(&text);
        assert_eq!(found, [""; 0]);
        let zones: Vec<_> = entries.iter().map(|entry| entry.calendar.zone).collect();
        assert_eq!(
            zones,
            [Zone::named("Europe/Oslo").unwrap(), Zone::named("Asia/Seoul").unwrap()]
        );
        assert_eq!(entries[0].from, utc("2026-11-30T23:00:00Z"));
    }
    // Nobody knows when these should run.
    for text in [format!("timezone: Oslo/Europe\n{entries}"), format!("{entries}timezone: 5\n")] {
        let (entries, found) = run(&text);
        assert!(entries.iter().all(|entry| &*entry.name == "b") && found.len() == 1, "{found:?}");
    }
}

#[test]
fn files_that_have_no_entries() {
    for text in
        ["", "# nothing\n", "entries:\n", "entries: {}\n", "timezone: UTC\n", ".x: {y: z}\n"]
    {
        let (entries, found) = run(text);
        assert!(entries.is_empty() && found.is_empty(), "{text:?}: {found:?}");
    }
    for (text, said) in [
        ("[a]", "s.yaml:1: found a list, expected a mapping with entries in it"),
        ("entries: [a]", "s.yaml:1: entries: found a list, expected a mapping of names to entries"),
        ("entrys: {}", "s.yaml:1: entrys: unknown key; did you mean entries?"),
        ("a: {task: t, schedule: 5}", "s.yaml:1: a: unknown key; did you mean entries: {a: …}?"),
        (
            "beat_schedule: {a: {task: t, schedule: 5}}",
            "s.yaml:1: beat_schedule: unknown key; did you mean entries:?",
        ),
        ("schedule: {a: {}}", "s.yaml:1: schedule: unknown key; did you mean entries:?"),
        ("tasks: []", "s.yaml:1: tasks: unknown key; did you mean entries:?"),
        ("Jobs: 1", "s.yaml:1: Jobs: unknown key; did you mean entries:?"),
        ("entries: {'': {task: t, schedule: 5}}", "s.yaml:1: \"\": an entry's name is not empty"),
    ] {
        assert_eq!(run(text).1, [said], "{text}");
    }
    let (entries, found) =
        run("entries:\n  a: {task: t, schedule: 5}\n  b: {task: t, schedule: * * * * *}\n");
    assert_eq!(entries.len(), 1);
    assert!(found[0].contains("line 3") || found[0].starts_with("s.yaml:3: column "), "{found:?}");
    assert!(found[0].ends_with("a text that begins with * or & stands in quotes"), "{found:?}");
}

#[test]
fn templates_are_no_entries() {
    let (entries, found) =
        run(".base: &base {task: t, schedule: 5, options: {queue: q}}\nentries:\n  \
         .more: &more {<<: *base, args: [1]}\n  a: *more\n  b: {<<: *more, task: u}\n");
    assert_eq!(found, [""; 0]);
    let of =
        |entry: &Entry| (entry.task.to_string(), entry.args.get().to_string(), entry.origin.line);
    let of: Vec<_> = entries.iter().map(of).collect();
    assert_eq!(of, [("t".into(), "[1]".into(), 4), ("u".into(), "[1]".into(), 5)]);
}

#[test]
fn the_setting_is_read_as_a_file_is() {
    let text =
        "timezone: Asia/Seoul\nbeat_schedule:\n  a: {task: t, schedule: 5}\n  b: {task: t}\n";
    let (settings, found) =
        Settings::load(Layers { files: &[("q.yaml", text)], ..Layers::default() });
    assert!(found.is_empty(), "{found:?}");
    let defaults = Defaults::new(&settings, DateTime::UNIX_EPOCH);
    let (entries, found) = setting(&settings.beat_schedule, &defaults);
    assert_eq!(lines(&found), ["q.yaml:4: beat_schedule.b: has no schedule"]);
    assert_eq!((entries.len(), entries[0].calendar.zone), (1, Zone::named("Asia/Seoul").unwrap()));
    assert_eq!((&*entries[0].origin.file, entries[0].origin.line), ("q.yaml", 3));
    assert!(setting(&BeatSchedule::default(), &defaults).0.is_empty());
}

#[test]
fn a_name_is_there_once_in_all_files() {
    let file = |file: &str, text: &str| yaml(file, text, &defaults()).0;
    let (entries, found) = merge(vec![
        file("a.yaml", "entries: {x: {task: a, schedule: 5}, y: {task: a, schedule: 5}}"),
        file("b.yaml", "\nentries: {y: {task: b, schedule: 5}, z: {task: b, schedule: 5}}"),
    ]);
    let tasks: Vec<_> =
        entries.iter().map(|entry| format!("{} {}", entry.name, entry.task)).collect();
    assert_eq!(tasks, ["x a", "y a", "z b"]);
    assert_eq!(lines(&found), ["b.yaml:2: y: is defined already, at a.yaml:1"]);
}

#[test]
fn what_entries_have_in_common_is_held_once() {
    let (entries, _) = run("entries: {x: {task: a, schedule: 5}, y: {task: a, schedule: 5}}");
    let [x, y] = &entries[..] else { panic!() };
    assert!(Arc::ptr_eq(&x.task, &y.task) && Arc::ptr_eq(&x.calendar, &y.calendar));
    assert!(Arc::ptr_eq(&x.args, &y.args) && Arc::ptr_eq(&x.kwargs, &y.kwargs));
    assert!(Arc::ptr_eq(&x.origin.file, &y.origin.file));
}

#[test]
fn the_shipped_examples_have_no_fault() {
    let (entries, found) =
        yaml("schedule.yaml", include_str!("../../../etc/schedule.yaml"), &defaults());
    assert_eq!(lines(&found), [""; 0]);
    let (lines_of, more) =
        crontab("example.crontab", include_str!("../../../etc/example.crontab"), &defaults());
    assert_eq!(lines(&more), [""; 0]);
    assert!(entries.len() >= 19 && lines_of.len() >= 15, "{} {}", entries.len(), lines_of.len());
    assert!(merge(vec![entries, lines_of]).1.is_empty());
}

#[test]
fn the_issues_example_means_what_it_says() {
    let text = r#"
timezone: Asia/Seoul
entries:
  add-every-minute:       {task: multiply_two_numbers, schedule: {crontab: "* * * * *"}, args: [16, 16]}
  add-every-5-seconds:    {task: multiply_two_numbers, schedule: 5.0, args: [16, 16]}
  report:                 {task: report, schedule: {crontab: {minute: "0", hour: "7-19/2", day_of_week: "mon-fri"}}, timezone: Europe/Oslo, options: {queue: reports, expires: 600}}
  lights:                 {task: lamp, schedule: {solar: sunset, lat: 59.9, lon: 10.7}}
  heavy:                  {task: backup, schedule: {every: 6h, at: "00:15", jitter: 5m}, misfire: run_once, grace: 1h, overlap: skip}
"#;
    let (entries, found) = run(text);
    assert_eq!(found, [""; 0]);
    let first = |at: usize| entries[at].next("2026-11-21T12:00:30Z".parse().unwrap());
    assert_eq!(first(0), utc("2026-11-21T12:01:00Z"));
    assert_eq!(first(1), utc("2026-11-21T12:00:35Z"));
    assert_eq!(first(2), utc("2026-11-23T06:00:00Z"));
    assert_eq!(first(3).map(|at| at.date_naive().to_string()).as_deref(), Some("2026-11-21"));
    assert_eq!(first(4), utc("2026-11-21T15:15:00Z"));
}

/// Pieces of files, put together at random: reading ends, without a panic, and what is read is
/// sound.
#[test]
fn any_text_is_read_or_refused() {
    const KEYS: [&str; 12] = [
        "task", "schedule", "args", "kwargs", "options", "relative", "timezone", "misfire",
        "grace", "from", "until", "jitter",
    ];
    const VALUES: [&str; 40] = [
        "t",
        "5",
        "5.0",
        "-1",
        "1e300",
        "0.0000001",
        "1h",
        "null",
        "true",
        "''",
        "'* * * * *'",
        "'*/5 8-18 1 jan mon'",
        "'@daily'",
        "'@reboot'",
        "'@every 5s'",
        "[]",
        "{}",
        "[1, {a: b}]",
        "{crontab: '0 0 31 2 *'}",
        "{crontab: {minute: '*/7', hour: [1, 2]}}",
        "{every: 6h, at: '00:15'}",
        "{every: 1ms, jitter: 5m}",
        "{minutes: 1e18}",
        "{solar: sunset, lat: 90, lon: 0}",
        "{queue: q, expires: 5}",
        "{headers: {x: [y]}}",
        "Europe/Oslo",
        "2026-03-29T02:30:00",
        "9999-12-31T23:59:59",
        "0000-01-01",
        "run_all(3)",
        "{run_all: 5}",
        "skip",
        "*a",
        "&a 5",
        "[",
        "{",
        "\u{0}",
        "é",
        "262144-12-31",
    ];
    let mut random = fastrand::Rng::with_seed(11);
    let mut sound = 0;
    for round in 0..30_000 {
        let mut text = String::from("entries:\n");
        for name in ["a", "b"] {
            let mut keys: Vec<&str> = KEYS[2..].to_vec();
            random.shuffle(&mut keys);
            keys.truncate(random.usize(..3));
            let mut any = || VALUES[random.usize(..VALUES.len())];
            let task = if round % 8 == 0 { any() } else { "t" };
            text.push_str(&format!("  {name}: {{task: {task}, schedule: {}", any()));
            keys.iter().for_each(|key| text.push_str(&format!(", {key}: {}", any())));
            text.push_str("}\n");
        }
        let (entries, _) = yaml("s.yaml", &text, &defaults());
        for entry in entries {
            sound += 1;
            entry.fingerprint();
            let after = utc("2026-03-28T12:00:00Z").unwrap();
            assert!(entry.next(after).is_none_or(|due| due > after), "{text}");
        }
    }
    assert!(sound > 1000, "{sound}");
}

/// The size of a big company's schedule. The bound is wide, for busy machines: it tells a load that
/// grows with the square of the entries from one that does not.
#[test]
fn a_hundred_thousand_entries() {
    let mut text = String::from("entries:\n");
    for n in 0..100_000 {
        text.push_str(&format!(
            "  entry-{n}: {{task: task-{}, schedule: \"{} {} * * *\", args: [{n}]}}\n",
            n % 50,
            n % 60,
            n % 24
        ));
    }
    let start = Instant::now();
    let (entries, found) = run(&text);
    assert_eq!((entries.len(), found.len()), (100_000, 0));
    assert!(start.elapsed() < Duration::from_secs(240), "{:?}", start.elapsed());
}
