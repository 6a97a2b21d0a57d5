//! Lines of crontabs: every form, every mistake, and any text at all.

use super::super::entry::{Expires, Misfire, Overlap};
use super::*;
use crate::config::zone::Zone;
use chrono::DateTime;
use std::time::Duration;

fn run(text: &str) -> (Vec<Entry>, Vec<String>) {
    let defaults = Defaults::new(&crate::config::Settings::default(), DateTime::UNIX_EPOCH);
    let (entries, found) = crontab("x.crontab", text, &defaults);
    (entries, found.iter().map(Diagnostic::to_string).collect())
}

fn one(line: &str) -> Entry {
    let (mut entries, found) = run(line);
    assert!(found.is_empty() && entries.len() == 1, "{line}: {found:?}");
    entries.remove(0)
}

#[test]
fn every_form_of_a_line() {
    let cases = [
        ("*/5 * * * * add", "*/5 * * * *", "add", "[]", "{}"),
        ("0 7-19/2 * jan,JUL mon-fri  report", "0 7-19/2 * 1,7 1-5", "report", "[]", "{}"),
        ("\t*/10  *\t* * * * add", "*/10 * * * * *", "add", "[]", "{}"),
        ("0 0 9 * * mon open", "0 9 * * 1", "open", "[]", "{}"),
        ("0 9 * * mon open", "0 9 * * 1", "open", "[]", "{}"),
        ("0 9 * * mon \"sun\"", "0 9 * * 1", "sun", "[]", "{}"),
        ("0 9 * * mon 'sun' 5", "0 9 * * 1", "sun", "[\"5\"]", "{}"),
        ("0 9 * * mon sun # no sixth field: no task follows", "0 9 * * 1", "sun", "[]", "{}"),
        ("@hourly add", "0 * * * *", "add", "[]", "{}"),
        ("@daily add", "0 0 * * *", "add", "[]", "{}"),
        ("@midnight add", "0 0 * * *", "add", "[]", "{}"),
        ("@weekly add", "0 0 * * 0", "add", "[]", "{}"),
        ("@monthly add", "0 0 1 * *", "add", "[]", "{}"),
        ("@yearly add", "0 0 1 1 *", "add", "[]", "{}"),
        ("@annually add", "0 0 1 1 *", "add", "[]", "{}"),
        ("@reboot add", "@reboot", "add", "[]", "{}"),
        (
            "@daily add 1 'two three' --x=y",
            "0 0 * * *",
            "add",
            r#"["1","two three","--x=y"]"#,
            "{}",
        ),
        (
            "@daily add [1, \"# no\", null] {\"k\": 1.50}",
            "0 0 * * *",
            "add",
            "[1, \"# no\", null]",
            "{\"k\": 1.50}",
        ),
        ("@daily add {\"k\": 1} a # b", "0 0 * * *", "add", "[\"a\"]", "{\"k\": 1}"),
        ("@daily add [] {}", "0 0 * * *", "add", "[]", "{}"),
        ("@daily add 'k=v' http://h/?a=b", "0 0 * * *", "add", r#"["k=v","http://h/?a=b"]"#, "{}"),
    ];
    for (line, schedule, task, args, kwargs) in cases {
        let entry = one(line);
        assert_eq!(entry.schedule.to_string(), schedule_text(schedule), "{line}");
        let said = (&*entry.task, entry.args.get(), entry.kwargs.get());
        assert_eq!(said, (task, args, kwargs), "{line}");
    }
    for line in ["0 3 * * 7 add", "0 3 * * sun add\r\n", "\u{feff}0\t3 * * 7\tadd"] {
        assert_eq!(one(line).schedule.to_string(), "0 3 * * 0", "{line}");
    }
    assert_eq!(one("30 4 1,15 * 5 add").schedule.to_string(), "30 4 1,15 * 5 (either day)");
    let odd = one("@daily add '>' '$HOME' $ 100% a\\;b h/?a=1&b=2");
    assert_eq!(odd.args.get(), r#"[">","$HOME","$","100%","a;b","h/?a=1&b=2"]"#);
    let every = one("@every 1h30m add").schedule;
    assert_eq!(every, one("@every 5400 add").schedule);
}

fn schedule_text(text: &str) -> String {
    let cron = crate::schedule::cron::Cron::parse(text, super::super::cron::Days::And);
    cron.map_or(text.into(), |cron| cron.to_string())
}

#[test]
fn every_option_of_a_line() {
    let entry =
        one("@daily add queue=q priority=3 expires=10m countdown=5 misfire=run_all(2) grace=1h \
         overlap=skip jitter=5m enabled=no from=2026-12-01 until=2026-12-31T12:00 name='a b' \
         timezone=Europe/Oslo");
    assert_eq!((&*entry.name, entry.calendar.zone), ("a b", Zone::named("Europe/Oslo").unwrap()));
    assert_eq!((entry.misfire, entry.overlap), (Misfire::RunAll(2), Overlap::Skip));
    assert_eq!(
        (entry.grace, entry.jitter),
        (Some(Duration::from_secs(3600)), Duration::from_secs(300))
    );
    assert_eq!(entry.from.unwrap().to_rfc3339(), "2026-11-30T23:00:00+00:00");
    assert_eq!(entry.until.unwrap().to_rfc3339(), "2026-12-31T11:00:00+00:00");
    assert!(!entry.enabled);
    let options = entry.options.unwrap();
    assert_eq!((options.queue.as_deref(), options.priority), (Some("q"), Some(3)));
    assert_eq!(options.expires, Some(Expires::After(Duration::from_secs(600))));
    assert_eq!(options.countdown, Some(Duration::from_secs(5)));
    let route = one("@daily add exchange=e routing_key=k").options.unwrap();
    assert_eq!((route.exchange.as_deref(), route.routing_key.as_deref()), (Some("e"), Some("k")));
}

#[test]
fn names_are_made_of_lines_and_stay_when_lines_move() {
    let name = |line: &str| one(line).name.to_string();
    assert_eq!(
        name("*/5  *  * * *   add  1 'two three' queue=q"),
        "*/5 * * * * add 1 \"two three\""
    );
    assert_eq!(name("\n\n@every  90s add [1,  2] {\"k\": 1}"), "@every 90s add [1,  2] {\"k\": 1}");
    let long = name(&format!("@daily add {}", "word ".repeat(100)));
    assert!(long.len() < 250 && long.contains('…'), "{long}");
    assert_ne!(long, name(&format!("@daily add {}x", "word ".repeat(100))));
    let (entries, found) =
        run("@daily add 1\n# x\n@daily  add 1 queue=q\n@daily add 1 name=other\n");
    assert_eq!(entries.len(), 2);
    assert_eq!(
        found,
        [
            "x.crontab:3: @daily add 1: is defined already, at x.crontab:1, expected a name of its own: name=…"
        ]
    );
}

#[test]
fn an_empty_zone_is_utc() {
    for text in [
        "CRON_TZ=Europe/Oslo\nCRON_TZ=\n@daily a",
        "CRON_TZ=Europe/Oslo\nCRON_TZ=\"\" # none\n@daily a",
        "CRON_TZ=Europe/Oslo\nCRON_TZ=\"\" @daily a",
        "CRON_TZ=Europe/Oslo\nTZ='' 0 0 * * * a",
        "CRON_TZ=Europe/Oslo\nTZ= 0 0 * * * a",
        "CRON_TZ=Europe/Oslo\nCRON_TZ= */5 * * * * a",
        "CRON_TZ=Europe/Oslo\nCRON_TZ=@daily a",
    ] {
        let (entries, found) = run(text);
        assert_eq!((entries.len(), found.len()), (1, 0), "{text:?}: {found:?}");
        assert_eq!(entries[0].calendar.zone, Zone::UTC, "{text:?}");
    }
}

#[test]
fn zones_hold_for_the_lines_below() {
    // One line alone.
    for text in
        ["CRON_TZ=Asia/Tokyo 5 9 * * * a 1 # x\n@daily b", "TZ=Asia/Tokyo 5 9 * * * a 1\n@daily b"]
    {
        let (entries, found) = run(text);
        let of = |entry: &Entry| format!("{} {}", entry.name, entry.calendar.zone);
        let of: Vec<_> = entries.iter().map(of).collect();
        assert_eq!(
            of,
            ["5 9 * * * a 1 Asia/Tokyo", "0 0 * * * b UTC"]
                .map(|s| s.replace("0 0 * * * b", "@daily b"))
        );
        assert_eq!(found, [""; 0]);
    }
    let (entries, found) = run(
        "@daily a\nCRON_TZ=Europe/Oslo\n@daily b\nCRON_TZ = \"Asia/Seoul\" # x\n@daily c\n\
         @daily d timezone=UTC\nCRON_TZ=Olso\n@daily e\n@daily f timezone=UTC\nCRON_TZ=UTC\n@daily g\n",
    );
    let zones: Vec<_> = entries.iter().map(|e| format!("{} {}", e.task, e.calendar.zone)).collect();
    assert_eq!(zones, ["a UTC", "b Europe/Oslo", "c Asia/Seoul", "d UTC", "f UTC", "g UTC"]);
    assert_eq!(found.len(), 1);
    assert!(
        found[0].starts_with("x.crontab:7: CRON_TZ: found text \"Olso\", expected a time zone")
    );
}

#[test]
fn every_mistake_of_a_line() {
    let cases = [
        ("add", "found 1 word, expected MIN HOUR"),
        ("* * * *", "found 4 words, expected MIN HOUR"),
        ("* * * * *", "found no task, expected MIN HOUR"),
        ("* * * * * *", "found \"*\", expected a task"),
        ("61 * * * * add", "minute: found 61, expected 0-59"),
        ("* 25 * * * add", "hour: found 25, expected 0-23"),
        ("* * 0 * * add", "day_of_month: found 0, expected 1-31"),
        ("* * * 13 * add", "month_of_year: found 13, expected 1-12"),
        ("* * * * 8 add", "day_of_week: found 8, expected 0-7"),
        ("0 0 22 * * 5L report", "day_of_week: found 5L, expected 0-7"),
        ("0 0 9 ? * mon#1 report", "day_of_week: found mon#1, expected 0-7"),
        ("0 0 L * * report", "day_of_month: found L, expected 1-31"),
        ("0 0 12 * * ? 2026 report", "found \"2026\", expected a task; a field of years is not"),
        (
            "0 0 12 * * ? * report",
            "found \"*\", expected a task; a field of years is not supported",
        ),
        ("0 12 * * ? 2026-2030 report", "found text \"0 12 * * ? 2026-2030\", expected 5 fields"),
        (
            "17 * * * * root cd / && run-parts --report /etc/cron.hourly",
            "found \"root\", expected a task: lines have no column of users",
        ),
        (
            "*/5 * * * * www-data /usr/bin/php /var/www/cron.php",
            "found \"www-data\", expected a task: lines have no column of users",
        ),
        ("@daily backup cd /srv", "found \"backup\", expected a task: lines have no column"),
        ("0 3 * * * cd /srv && ./x.sh", "found \"cd\", expected a task: no commands"),
        ("@daily [ -x /usr/sbin/x ] && x", "found \"[\", expected a task: no commands"),
        ("@daily report > /tmp/x 2>&1", "arguments: found \">\", which is special to a shell"),
        ("@daily report >/dev/null", "arguments: found \">/dev/null\""),
        ("@daily report 2>&1", "arguments: found \"2>&1\""),
        ("@daily report a | mail root", "arguments: found \"|\""),
        ("@daily report a; true", "arguments: found \"a;\""),
        ("@daily report $HOME", "arguments: found \"$HOME\""),
        ("@daily report `date`", "arguments: found \"`date`\""),
        ("@daily report ~/x", "arguments: found \"~/x\""),
        ("@daily report queue=", "queue: found nothing, expected a value"),
        ("@daily report expires=\"\"", "expires: found nothing, expected a value"),
        ("CRON_TZ=Olso 5 9 * * * report", "CRON_TZ: found text \"Olso\", expected a time zone"),
        ("70 * * * * * add", "second: found 70, expected 0-59"),
        ("5/10 * * * * add", "minute: found 5/10, expected */10"),
        ("* * * * add x", "day_of_week: found add, expected"),
        ("0 0 30 2 * add", "day_of_month: found 30, expected a day that"),
        ("@hurly add", "found \"@hurly\", expected @yearly"),
        ("@every add", "found \"add\" behind @every, expected a duration"),
        ("@every 1h 30m add", "found \"30m\", expected a task"),
        ("@every", "found nothing behind @every"),
        ("@daily", "found no task"),
        ("@daily queue=q add", "found \"queue=q\", expected a task"),
        (
            "@daily /usr/bin/backup",
            "found \"/usr/bin/backup\", expected a task: no commands are run here",
        ),
        ("@daily 'a b '", "task: found text \"a b \", expected a task's name: not empty"),
        (
            "@daily add que=q",
            "que: unknown option; an argument with = in it stands in quotes; did you mean queue?",
        ),
        (
            "@daily add shadow=q",
            "shadow: is no option of a crontab; an entry of a schedule.yaml can have it",
        ),
        ("@daily add queue=a queue=b", "queue: is here twice"),
        ("@daily add priority=10", "priority: found text \"10\", expected a priority from 0 to 9"),
        ("@daily add misfire=never", "misfire: found text \"never\", expected skip"),
        ("@daily add enabled=perhaps", "enabled: found text \"perhaps\", expected true or false"),
        ("@daily add from=soon", "from: found text \"soon\", expected a time"),
        ("@daily add timezone=Olso", "timezone: found text \"Olso\", expected a time zone"),
        ("@daily add exchange=e", "@daily add.options: has an exchange without a routing_key"),
        ("@daily add 'x", "found ' without a second one"),
        ("@daily add [1", "arguments: found what is no JSON"),
        ("@daily add [1]x", "arguments: found \"x\" right behind JSON"),
        ("@daily add [1] [2]", "has two arrays or two objects of arguments"),
        ("@daily add [1] x", "arguments: found \"x\" beside an array, expected words, or an array"),
        (
            "PATH=/bin:/usr/bin",
            "PATH: means nothing here: tasks are sent, and have the environment",
        ),
        ("MAILTO=root", "MAILTO: means nothing here: no mail is sent"),
        ("SHELL=/bin/sh", "SHELL: means nothing here: no commands are run"),
        ("TZ=UTC", "TZ: means nothing here: the zone of the lines below is CRON_TZ"),
    ];
    for (line, begin) in cases {
        let (entries, found) = run(&format!("# a comment\n{line}\n@daily other\n"));
        let begin = format!("x.crontab:2: {begin}");
        assert!(found.first().is_some_and(|said| said.starts_with(&begin)), "{line}: {found:?}");
        assert_eq!(entries.len(), 1, "{line}: the other line stays, this one goes");
    }
}

#[test]
fn any_text_is_read_or_refused() {
    let pieces = [
        "*",
        "*/5",
        "1",
        "mon",
        "@daily",
        "@every",
        "90s",
        "add",
        " ",
        "  ",
        "\t",
        "\n",
        "'",
        "\"",
        "\\",
        "[",
        "]",
        "{",
        "}",
        "[1]",
        "{\"a\": 1}",
        "#",
        "=",
        "queue=",
        "name=",
        "CRON_TZ=",
        "UTC",
        "x",
        "é",
        "\u{feff}",
        "\r",
        "* * * * * add ",
        "@hourly add ",
        "from=2026-12-01",
        "\u{0}",
    ];
    let mut random = fastrand::Rng::with_seed(5);
    let mut sound = 0;
    for _ in 0..50_000 {
        let text: String =
            (0..random.usize(..16)).map(|_| pieces[random.usize(..pieces.len())]).collect();
        for entry in run(&text).0 {
            sound += 1;
            entry.fingerprint();
            assert!(!entry.task.is_empty() && !entry.name.contains(char::is_control), "{text:?}");
        }
    }
    assert!(sound > 1000, "{sound}");
}
