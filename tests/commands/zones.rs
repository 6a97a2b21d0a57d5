//! Whose rules of time zones hold.

use super::{TASKS, json};
use crate::harness::{Output, TestDir, Worker, tzif::tzif};
use nix::sys::signal::Signal;
use std::fs;

/// 2026-03-08T10:00:00Z: from then on the made-up Vancouver is 7 hours behind, until it begins
/// to change its clocks again.
const CHANGE: i64 = 1_772_964_000;

const ZONE: &str = "zoneinfo/America/Vancouver";

fn app() -> TestDir {
    let app = TestDir::with(TASKS);
    app.write("day.crontab", "CRON_TZ=America/Vancouver\n0 9 * * * add 1 2 name=nine\n");
    fs::create_dir_all(app.file("zoneinfo/America")).unwrap();
    app
}

/// `qworker ARGS` on a host that has its zones there.
fn on_host(app: &TestDir, args: &[&str]) -> Output {
    Output::of(app.command(args).env("TZDIR", app.file("zoneinfo")))
}

fn due(app: &TestDir, from: &str) -> Output {
    on_host(app, &["beat", "simulate", "nine", "--from", from])
}

#[test]
fn the_hosts_rules_come_first() {
    let app = app();
    let offsets = (-8 * 3600, -7 * 3600);
    fs::write(app.file(ZONE), tzif(CHANGE, offsets, "<-07>7", false)).unwrap();
    fs::write(app.file("zoneinfo/+VERSION"), "2031q\n").unwrap();
    let output = due(&app, "2026-11-30T00:00:00Z");
    let line = "2026-11-30T16:00:00Z  2026-11-30 09:00:00 -07  nine  add[\"1\",\"2\"]\n";
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), (line, ""));
    let next = on_host(&app, &["beat", "next", "nine", "--json"]);
    assert!(json(&next.stdout)[0]["local"].as_str().unwrap().contains("T09:00:00-0"), "{next:?}");
    // Before it, and what the file says of all years.
    let before = due(&app, "2026-03-07T00:00:00Z").stdout;
    assert!(before.starts_with("2026-03-07T17:00:00Z  2026-03-07 09:00:00 "), "{before}");
    // A change to what is in force at that time by the rule.
    let rule = tzif(1_767_225_600, (0, -8 * 3600), "PST8PDT,M3.2.0,M11.1.0", false);
    fs::write(app.file(ZONE), rule).unwrap();
    for (from, at) in [("2090-07-01", "2090-07-01T16"), ("2090-12-01", "2090-12-01T17")] {
        let output = due(&app, &format!("{from}T00:00:00Z"));
        assert!(output.stdout.starts_with(at), "{output:?}");
    }
    let report = on_host(&app, &["report"]).stdout;
    let folder = app.file("zoneinfo").display().to_string();
    assert!(report.contains(&format!("zones    -> {folder} 2031q;")), "{report}");
    let report = json(&on_host(&app, &["report", "--json"]).stdout);
    assert_eq!(
        (&report["zones"]["version"], &report["zones"]["folder"]),
        (&"2031q".into(), &folder.into())
    );
}

#[test]
fn a_zone_that_only_the_host_knows_is_told_as_such() {
    let app = TestDir::with(TASKS);
    let file = tzif(CHANGE, (-8 * 3600, -7 * 3600), "<-07>7", false);
    for name in ["zoneinfo/Firm/HQ", "zoneinfo/posix/Europe/Oslo", "zoneinfo/Asia/Tokyo"] {
        fs::create_dir_all(app.file(name).parent().unwrap()).unwrap();
        fs::write(app.file(name), &file).unwrap();
    }
    let host = ", a time zone that this host knows and qworker does not";
    for (zone, known, hint) in [
        // The same rules by another name, else the nearest name.
        ("Firm/HQ", host, "; did you mean Asia/Tokyo?"),
        ("posix/Europe/Oslo", host, "; did you mean Europe/Oslo?"),
        ("Firm/Quay", "", ""),
    ] {
        app.settings(&format!("timezone: {zone}\n"));
        app.write("day.crontab", &format!("CRON_TZ={zone}\n@daily add 1 2 name=a\n"));
        app.write("schedule.yaml", &format!("timezone: {zone}\nentries: {{}}\n"));
        let output = on_host(&app, &["beat", "check"]);
        let said = format!(
            "found text {zone:?}{known}, expected a time zone such as UTC or Europe/Oslo{hint}"
        );
        for place in
            ["qworker.yaml:1: timezone", "day.crontab:1: CRON_TZ", "schedule.yaml:1: timezone"]
        {
            let line = format!("{place}: {said}\n");
            assert!(output.stdout.contains(&line), "no {line:?} in {output:?}");
        }
    }
}

#[test]
fn a_step_that_leaves_one_value_is_noted() {
    let app = TestDir::with(TASKS);
    app.write("day.crontab", "*/90 * * * * add 1 2 name=a\n");
    app.write(
        "schedule.yaml",
        "entries:\n  b: {task: add, args: [1, 2], schedule: {crontab: {hour: '*/36'}}}\n  \
         c: {task: add, args: [1, 2], schedule: '0 0 */2 * *'}\n",
    );
    let output = app.qworker(&["beat", "check"]);
    let why = "the step is not shorter than the range; an interval is @every";
    for line in [
        format!("day.crontab:1: minute: */90 means 0 alone: {why} 90m\n"),
        format!("b.schedule.crontab.hour: */36 means 0 alone: {why} 36h\n"),
    ] {
        assert!(output.stderr.contains(&line), "no {line:?} in {output:?}");
    }
    assert_eq!((output.code, output.stderr.matches(" alone: ").count()), (0, 2), "{output:?}");
}

#[test]
fn the_built_in_rules_are_the_fallback() {
    let app = app();
    let path = app.file(ZONE).display().to_string();
    let check = |why: &str| {
        let output = due(&app, "2026-01-30T00:00:00Z");
        let line = "2026-01-30T17:00:00Z  2026-01-30 09:00:00 PST  nine  add[\"1\",\"2\"]\n";
        assert_eq!((output.code, output.stdout.as_str()), (0, line));
        assert_eq!(output.stderr.lines().count(), 1, "{output:?}");
        for part in ["Warning: ", &path, why, "built-in rules"] {
            assert!(output.stderr.contains(part), "no {part:?} in {output:?}");
        }
        let checked = on_host(&app, &["beat", "check"]);
        assert_eq!((checked.code, checked.stderr.matches(&path).count()), (0, 1), "{checked:?}");
    };
    // One warning, however many files ask.
    app.write("more.crontab", "CRON_TZ=America/Vancouver\n0 9 * * * add 3 4 name=more\n");
    check("No such file");
    fs::write(app.file(ZONE), "nothing of the kind").unwrap();
    check("no file of a time zone");
    fs::write(app.file(ZONE), tzif(CHANGE, (0, 3600), "<+01>-1", true)).unwrap();
    check("leap seconds");
    fs::remove_file(app.file(ZONE)).unwrap();
    nix::unistd::mkfifo(&app.file(ZONE), nix::sys::stat::Mode::S_IRWXU).unwrap();
    check("no regular file");
    let mut command = app.command(&["report"]);
    let report = Output::of(command.env("TZDIR", "/nonexistent")).stdout;
    assert!(report.contains("zones    -> built in 20"), "{report}");
    assert!(report.contains("(no folder /nonexistent)"), "{report}");
}

#[test]
fn zones_are_read_again_with_the_schedule() {
    let app = app();
    let mut command = app.command(&["beat", "-l", "INFO"]);
    command.env("TZDIR", app.file("zoneinfo"));
    let beat = Worker::of(command);
    beat.expect_line("America/Vancouver: No such file");
    beat.expect_line("beat: loaded ");
    fs::write(app.file(ZONE), "nothing of the kind").unwrap();
    beat.signal(Signal::SIGHUP);
    beat.expect_line("America/Vancouver: found no file of a time zone");
}
