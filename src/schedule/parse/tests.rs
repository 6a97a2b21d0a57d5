//! Every form of a schedule, and every mistake in one.

use super::*;
use crate::config::yaml;

fn run(text: &str, relative: bool) -> (Option<String>, Vec<String>) {
    let (root, found) = yaml::parse("s.yaml", text);
    assert!(found.is_empty(), "{found:?}");
    let mut faults = Faults::new("s.yaml");
    let means = Means { days: Days::And, relative };
    let when = read(&root.unwrap(), means, &mut faults).map(|when| {
        let jitter = when.jitter.map(|jitter| format!(" +{}", units::show_duration(jitter)));
        format!("{}{}", when.schedule, jitter.unwrap_or_default())
    });
    (when, faults.into_vec().iter().map(|fault| fault.to_string()).collect())
}

/// The text of the schedule that `text` means, by constructors alone.
#[test]
fn every_form() {
    let span = |seconds: f64| {
        Every::new(Duration::from_secs_f64(seconds), false, None).unwrap().to_string()
    };
    let cron = |text: &str| Cron::parse(text, Days::And).unwrap().to_string();
    let at = NaiveTime::from_hms_opt(0, 15, 0);
    let six = Every::new(Duration::from_secs(21_600), false, at).unwrap().to_string();
    let sunset = Solar::new("sunset", 59.9, -10.7).unwrap().to_string();
    let cases = [
        ("5", span(5.0)),
        ("5.0", span(5.0)),
        ("0.25", span(0.25)),
        ("'5'", span(5.0)),
        ("90s", span(90.0)),
        ("1h30m", span(5400.0)),
        ("every 2m", span(120.0)),
        ("'@every 90s'", span(90.0)),
        ("{every: 6h}", span(21_600.0)),
        ("{every: 30}", span(30.0)),
        ("{every: 6h, at: '00:15', jitter: 5m}", format!("{six} +5m")),
        ("{every: 6h, at: 00:15:00}", six),
        ("{minutes: 5}", span(300.0)),
        ("{days: 1, hours: 2, minutes: 3, seconds: 4}", span(93_784.0)),
        ("{weeks: 1, milliseconds: 500, microseconds: 250000}", span(604_800.75)),
        ("{hours: 1, minutes: -1}", span(3540.0)),
        ("{timedelta: {seconds: 1.5}, jitter: 1}", format!("{} +1s", span(1.5))),
        ("'* * * * *'", cron("* * * * *")),
        ("'  */5  8-18 * * mon-fri '", cron("*/5 8-18 * * 1-5")),
        ("'30 */5 * * * *'", cron("30 */5 * * * *")),
        ("{crontab: '0 0 1 jan *'}", cron("0 0 1 1 *")),
        ("{crontab: '@weekly', jitter: 1h}", format!("{} +1h", cron("0 0 * * 0"))),
        ("{crontab: {}}", cron("* * * * *")),
        ("{crontab: {minute: 0, hour: 7-19/2, day_of_week: mon-fri}}", cron("0 7-19/2 * * 1-5")),
        ("{crontab: {minute: [0, 15, 30-35], hour: ['8', 17]}}", cron("0,15,30-35 8,17 * * *")),
        (
            "{crontab: {minute: '*/7', day_of_month: 010, month_of_year: dec, second: 5}}",
            cron("5 */7 * 10 dec *"),
        ),
        ("'@hourly'", cron("0 * * * *")),
        ("'@midnight'", cron("0 0 * * *")),
        ("'@annually'", cron("0 0 1 1 *")),
        ("'@reboot'", "@reboot".into()),
        ("{solar: sunset, lat: 59.9, lon: -10.7}", sunset),
    ];
    for (text, expected) in cases {
        assert_eq!(run(text, false), (Some(expected), vec![]), "{text}");
    }
    let hourly = Every::new(Duration::from_secs(3600), true, None).unwrap().to_string();
    for (text, relative) in [
        ("1h", true),
        ("{hours: 1}", true),
        ("{every: 1h, relative: true}", false),
        ("{hours: 1, relative: true}", false),
    ] {
        assert_eq!(run(text, relative), (Some(hourly.clone()), vec![]), "{text}");
    }
    assert_eq!(run("{every: 1h, relative: no}", true).0, Some(span(3600.0)));
}

#[test]
fn every_mistake() {
    let cases = [
        ("0", "found 0, expected a number of seconds above 0"),
        ("-5", "found -5, expected a number of seconds above 0"),
        ("1e300", "found 1e300, expected a number of seconds above 0"),
        ("0.0001", "found 0.0001s, expected 0.001s or more"),
        ("0s", "found text \"0s\", expected a span above 0"),
        ("true", "found true, expected seconds, a span"),
        ("null", "found null, expected seconds"),
        ("[5]", "found a list, expected seconds"),
        ("soon", "found text \"soon\", expected seconds"),
        ("'* * * *'", "found text \"* * * *\", expected 5 fields"),
        ("'61 * * * *'", "minute: found 61, expected 0-59"),
        ("'* 25 * * *'", "hour: found 25, expected 0-23"),
        ("'* * * * 8'", "day_of_week: found 8, expected 0-7"),
        ("'0 0 31 2 *'", "day_of_month: found 31, expected a day that month_of_year 2 has"),
        (
            "'@hurly'",
            "found \"@hurly\", expected @yearly, @annually, @monthly, @weekly, @daily, @midnight, @hourly, @reboot, @every; did you mean @hourly",
        ),
        ("'@every'", "found nothing behind @every, expected a duration"),
        ("'@every day'", "found \"day\" behind @every, expected a duration"),
        ("{}", "has none of crontab, every, timedelta and solar"),
        ("{evry: 5}", "has none of crontab, every, timedelta and solar; did you mean every?"),
        (
            "{minute: 5}",
            "minute: is a field of a crontab, which has a key of its own, expected crontab: {minute: …}",
        ),
        ("{crontab: '* * * * *', every: 5}", "has crontab and every, expected only one of them"),
        ("{every: 5, minutes: 5}", "has every and timedelta, expected only one of them"),
        ("{timedelta: {minutes: 5}, hours: 1}", "hours: unknown key"),
        ("{timedelta: 5}", "timedelta: found 5, expected a mapping such as {minutes: 5}"),
        ("{timedelta: {minuts: 5}}", "timedelta.minuts: unknown unit; did you mean minutes?"),
        ("{minutes: five}", "minutes: found text \"five\", expected a number"),
        ("{minutes: 5, hours: -1}", "found -3300 s in all, expected a time above 0"),
        ("{seconds: 1e300}", "found "),
        ("{every: 0}", "every: found 0, expected a duration above 0 and up to"),
        ("{every: often}", "every: found text \"often\", expected a duration above 0"),
        ("{every: 5h, at: '00:15'}", "every: found 5h, expected with at: a part of a day"),
        (
            "{every: 6h, at: 25:00}",
            "at: found text \"25:00\", expected a time of the day such as \"00:15\"",
        ),
        ("{every: 6h, at: 15}", "at: found 15, expected a time of the day"),
        ("{every: 6h, att: 00:15}", "att: unknown key; did you mean at?"),
        (
            "{every: 6h, at: 00:15, relative: true}",
            "relative: found true, with at, expected one of relative and at",
        ),
        ("{every: 6h, jitter: -1}", "jitter: found -1, expected a duration"),
        ("{crontab: '* * * * *', at: 00:15}", "at: means nothing beside crontab"),
        ("{crontab: 5}", "crontab: found 5, expected a text such as"),
        ("{crontab: '5 * * *'}", "crontab: found text \"5 * * *\", expected 5 fields"),
        ("{crontab: {minute: 61}}", "crontab.minute: found 61, expected 0-59"),
        ("{crontab: {minutes: 5}}", "crontab.minutes: unknown field; did you mean minute?"),
        ("{crontab: {hour: 1.5}}", "crontab.hour: found 1.5, expected a number, a text such as"),
        ("{crontab: {hour: []}}", "crontab.hour: found an empty list, expected"),
        ("{crontab: {hour: [8, {}]}}", "crontab.hour: found a mapping, expected"),
        ("{crontab: {hour: null}}", "crontab.hour: found null, expected"),
        ("{solar: sunset}", "lat: found nothing, expected degrees"),
        ("{solar: sunset, lat: 91, lon: 0}", "lat: found 91, expected -90 to 90"),
        ("{solar: sundown, lat: 1, lon: 0}", "solar: found sundown, expected one of dawn"),
        ("{solar: 5, lat: 1, lon: 0}", "solar: found 5, expected an event"),
        ("{solar: sunset, lat: north, lon: 0}", "lat: found text \"north\", expected degrees"),
    ];
    for (text, begin) in cases {
        let (when, found) = run(text, false);
        let begin = format!("s.yaml:1: {begin}");
        assert!(when.is_none() && found[0].starts_with(&begin), "{text}: {when:?} {found:?}");
    }
    for text in ["'* * * * *'", "{crontab: {}}", "'@reboot'", "{solar: sunset, lat: 1, lon: 1}"] {
        let (when, found) = run(text, true);
        assert!(when.is_none() && found[0].contains("is no interval"), "{text}: {found:?}");
    }
}
