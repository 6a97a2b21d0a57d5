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
    let line = "2026-11-30T16:00:00Z  2026-11-30 09:00:00 -07:00  nine  add[\"1\",\"2\"]\n";
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), (line, ""));
    let next = on_host(&app, &["beat", "next", "nine", "--json"]);
    assert!(json(&next.stdout)[0]["local"].as_str().unwrap().contains("T09:00:00-0"), "{next:?}");
    // Before it, and what the file says of all years.
    let before = due(&app, "2026-03-07T00:00:00Z").stdout;
    assert!(before.starts_with("2026-03-07T17:00:00Z  2026-03-07 09:00:00 PST"), "{before}");
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
