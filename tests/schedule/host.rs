//! Zones by the host's files.

use super::{at, built_in_files};
use crate::harness::{python, tzif::tzif};
use chrono::DateTime;
use qworker::config::zone::Zone;
use qworker::os::zoneinfo;
use qworker::schedule::rules::Rules;
use qworker::schedule::zone::{Calendar, Dst};
use std::path::Path;
use std::sync::Arc;

const ASK: &str = "
import datetime, json, sys, zoneinfo
zoneinfo.reset_tzpath([sys.argv[1]])
ask = lambda zone, at: int(datetime.datetime.fromtimestamp(at, zone).utcoffset().total_seconds())
every = range(0, 4102444800, 17 * 86400 + 1800)
zones = {name: zoneinfo.ZoneInfo(name) for name in json.loads(sys.argv[2])}
print(json.dumps({name: [ask(zone, at) for at in every] for name, zone in zones.items()}))
";

fn calendar(zone: Zone, rules: Option<Rules>) -> Calendar {
    Calendar::new(zone, Dst::Once, DateTime::UNIX_EPOCH).by(rules.map(Arc::new))
}

/// Python finds the same in the files of a folder as these calendars.
fn compare(folder: &Path, calendars: &[Calendar]) {
    let names: Vec<&str> = calendars.iter().map(|calendar| calendar.zone.name()).collect();
    let names = serde_json::to_string(&names).unwrap();
    let told = python::run(ASK, &[&folder.display().to_string(), &names]);
    for calendar in calendars {
        let told = told[calendar.zone.name()].as_array().unwrap();
        for (nth, offset) in told.iter().enumerate() {
            let then = at(nth as i64 * (17 * 86_400 + 1800));
            let ours = calendar.local(then).offset().local_minus_utc();
            assert_eq!(i64::from(ours), offset.as_i64().unwrap(), "{} at {then}", calendar.zone);
        }
    }
}

#[test]
fn built_in_rules_mean_what_python_reads() {
    let some = Zone::all().step_by(5);
    let calendars: Vec<Calendar> = some.map(|zone| calendar(zone, None)).collect();
    compare(built_in_files().path(), &calendars);
}

/// All of the host's files can be read, and mean what Python finds in them.
#[test]
fn files_mean_what_python_reads() {
    let folder = zoneinfo::folder(None).expect("time zones (the package tzdata) on this host");
    let zones: Vec<Zone> = Zone::all().filter(|zone| folder.join(zone.name()).is_file()).collect();
    assert!(zones.len() > 300, "{}", zones.len());
    let rules = |zone: Zone| {
        let bytes = zoneinfo::read(&folder, zone.name()).unwrap();
        Rules::read(&bytes).unwrap_or_else(|why| panic!("{zone}: {why}"))
    };
    zones.iter().for_each(|zone| drop(rules(*zone)));
    let some = zones.into_iter().step_by(9);
    compare(&folder, &some.map(|zone| calendar(zone, Some(rules(zone)))).collect::<Vec<_>>());
}

/// Beats know by it whether they mean the same occurrences.
#[test]
fn other_rules_are_another_definition() {
    let built_in = calendar(Zone::named("Etc/GMT+7").unwrap(), None).to_string();
    let by = |change, offset, footer| {
        let rules = Rules::read(&tzif(change, (-9 * 3600, offset), footer, false)).unwrap();
        calendar(Zone::named("Etc/GMT+7").unwrap(), Some(rules)).to_string()
    };
    // What was before the program is all the same.
    assert_eq!(by(1_000_000_000, -7 * 3600, "<-07>7"), built_in);
    let other = by(1_000_000_000, -8 * 3600, "<-08>8");
    assert_ne!(other, built_in);
    assert_eq!(other, by(1_100_000_000, -8 * 3600, "<-08>8"));
    assert_ne!(other, by(1_900_000_000, -8 * 3600, "<-08>8"));
}

#[test]
fn what_is_no_zone_is_refused() {
    let good = tzif(1_000_000_000, (0, 3600), "<+01>-1", false);
    assert!(Rules::read(&good).is_ok());
    // One that ends with the first newline of its last line is a whole file without a rule.
    let whole = good.len() - "<+01>-1\n".len();
    for end in (0..good.len()).filter(|end| *end != whole) {
        assert!(Rules::read(&good[..end]).is_err(), "{end} bytes");
    }
    let leaps = Rules::read(&tzif(1_000_000_000, (0, 3600), "<+01>-1", true)).unwrap_err();
    assert!(leaps.contains("leap seconds"), "{leaps}");
    let far = Rules::read(&tzif(1_000_000_000, (0, 90_000), "<+25>-25", false)).unwrap_err();
    assert!(far.contains("90000") || far.contains("no file of a time zone"), "{far}");
    for text in ["", "TZif", "# version 2025b\n", "\0"] {
        assert!(Rules::read(text.as_bytes()).unwrap_err().contains("no file of a time zone"));
    }
}
