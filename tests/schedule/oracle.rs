//! Every change of clocks of every zone from 2020 to 2040, against what a walk over the
//! instants around it says. The walk knows the zone's offsets, and nothing of the program.

use super::{at, calendar, offset};
use chrono::{Datelike, Timelike};
use qworker::config::zone::Zone;
use qworker::schedule::Schedule;
use qworker::schedule::cron::{Cron, Days};
use qworker::schedule::every::Every;
use qworker::schedule::zone::{Calendar, Dst};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;
const START: i64 = 1_577_836_800; // 2020-01-01
const END: i64 = 2_240_524_800; // 2041-01-01

/// A change of clocks: when, and the offsets before and after.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change {
    pub at: i64,
    pub before: i64,
    pub after: i64,
}

/// All changes, each with one zone that has it.
pub fn changes() -> BTreeMap<Change, Zone> {
    let mut found = BTreeMap::new();
    for zone in Zone::all() {
        let mut before = offset(zone, START);
        for hour in (START..END).step_by(6 * HOUR as usize) {
            if offset(zone, hour) == before {
                continue;
            }
            let mut minutes = (hour - 6 * HOUR..=hour).step_by(60);
            let at = minutes.find(|minute| offset(zone, *minute) != before).unwrap();
            let after = offset(zone, at);
            assert_ne!(offset(zone, at - 1), after, "changes at whole minutes");
            found.insert(Change { at, before, after }, zone);
            before = after;
        }
    }
    found
}

/// A schedule and what it means: of a local time, in seconds, is it an occurrence? `fixed`
/// ones have one for each local time.
struct Sample {
    schedule: Schedule,
    fixed: bool,
    holds: Box<dyn Fn(i64) -> bool>,
}

fn cron(text: &str) -> Schedule {
    Schedule::Cron(Cron::parse(text, Days::And).unwrap())
}

/// What the clocks of a zone show around a change.
struct Walk {
    /// Each instant of the walk, with the local time.
    shown: Vec<(i64, i64)>,
    /// Each local time that is shown, with the first instant at which it is.
    first: Vec<(i64, i64)>,
    /// Local times that are never shown, with the first instant after their gap.
    skipped: Vec<(i64, i64)>,
}

impl Walk {
    /// From `from` to `to`, every `step`.
    fn new(zone: Zone, from: i64, to: i64, step: i64) -> Walk {
        let instants = (from..to).step_by(step as usize);
        let shown: Vec<_> = instants.map(|at| (at, at + offset(zone, at))).collect();
        let mut first: Vec<_> = shown.iter().map(|(at, local)| (*local, *at)).collect();
        first.sort_unstable();
        first.dedup_by_key(|(local, _)| *local);
        let pairs = shown.windows(2).map(|pair| (pair[0], pair[1]));
        let skipped = pairs.flat_map(|((_, last), (at, local))| {
            (last + step..local).step_by(step as usize).map(move |local| (local, at))
        });
        let shows = |local: &i64| first.binary_search_by_key(local, |(local, _)| *local).is_ok();
        let skipped = skipped.filter(|(local, _)| !shows(local)).collect();
        Walk { skipped, first, shown }
    }

    /// What a schedule means in this time.
    fn occurrences(&self, sample: &Sample) -> Vec<i64> {
        if !sample.fixed {
            let shown = self.shown.iter().filter(|(_, local)| (sample.holds)(*local));
            return shown.map(|(at, _)| *at).collect();
        }
        let once = self.first.iter().chain(&self.skipped);
        let due: BTreeSet<i64> =
            once.filter(|(local, _)| (sample.holds)(*local)).map(|(_, at)| *at).collect();
        due.into_iter().collect()
    }
}

/// The chain of `next` between two instants.
fn chain(schedule: &Schedule, calendar: &Calendar, from: i64, to: i64) -> Vec<i64> {
    let next = |last: &i64| schedule.next(at(*last), calendar).map(|due| due.timestamp());
    std::iter::successors(next(&(from - 1)), next).take_while(|due| *due < to).collect()
}

fn check(zone: Zone, calendar: &Calendar, middle: i64, half: i64, walk: &Walk, sample: &Sample) {
    let (from, to) = (middle - half, middle + half);
    // What the walk sees at its ends depends on what was before: those hours do not count.
    let rim = half / 4;
    let mut expected = walk.occurrences(sample);
    expected.retain(|due| (from + rim..to - rim).contains(due));
    let found = chain(&sample.schedule, calendar, from + rim, to - rim);
    let say = |list: &[i64]| list.iter().map(|due| at(*due).to_string()).collect::<Vec<_>>();
    assert_eq!(
        found,
        expected,
        "{} in {zone} around {}:\nfound {:?}\nexpected {:?}",
        sample.schedule,
        at(middle),
        say(&found),
        say(&expected)
    );
    // Of every two instants near the change: the last one between.
    let places: Vec<i64> = (-6..=6).map(|n| middle + n * half / 10 + n % 2).collect();
    for (nth, after) in places.iter().enumerate() {
        for until in &places[nth..] {
            let past = &expected[..expected.partition_point(|due| due <= until)];
            let last = past.last().filter(|due| *due > after);
            let latest = sample.schedule.latest(at(*after), at(*until), calendar);
            assert_eq!(
                latest.map(|due| due.timestamp()),
                last.copied(),
                "latest of {} in {zone}, {} to {}",
                sample.schedule,
                at(*after),
                at(*until)
            );
        }
    }
}

fn daily(local: i64) -> Sample {
    let second = local.rem_euclid(DAY);
    let schedule = cron(&format!("{} {} * * *", second / 60 % 60, second / HOUR));
    Sample { schedule, fixed: true, holds: Box::new(move |local| local.rem_euclid(DAY) == second) }
}

fn every(period: i64, first: i64) -> Sample {
    let time = chrono::NaiveTime::from_num_seconds_from_midnight_opt(first as u32, 0).unwrap();
    let every = Every::new(Duration::from_secs(period as u64), false, Some(time)).unwrap();
    let step = period.min(DAY);
    let days = (period / DAY).max(1);
    let holds = move |local: i64| {
        local.div_euclid(DAY) % days == 0 && (local.rem_euclid(DAY) - first) % step == 0
    };
    Sample { schedule: Schedule::Every(every), fixed: period > HOUR, holds: Box::new(holds) }
}

fn minute(local: i64) -> i64 {
    local.div_euclid(60).rem_euclid(60)
}

fn hour(local: i64) -> i64 {
    local.div_euclid(HOUR).rem_euclid(24)
}

/// Schedules whose occurrences are whole minutes, some of them made for this change.
fn samples(change: Change) -> Vec<Sample> {
    let whole = |local: i64| local.rem_euclid(60) == 0;
    let sample = |text: &str, fixed, holds: fn(i64) -> bool| Sample {
        schedule: cron(text),
        fixed,
        holds: Box::new(move |local| whole(local) && holds(local)),
    };
    let mut samples = vec![
        sample("* * * * *", false, |_| true),
        sample("30 * * * *", false, |local| minute(local) == 30),
        sample("*/7 * * * *", false, |local| minute(local) % 7 == 0),
        sample("* * * * 0", false, |local| at(local).weekday().num_days_from_sunday() == 0),
        sample("0 0 * * *", true, |local| minute(local) == 0 && hour(local) == 0),
        sample("30 2 * * *", true, |local| minute(local) == 30 && hour(local) == 2),
        sample("15,45 1-3 * * *", true, |local| {
            minute(local) % 30 == 15 && (1..=3).contains(&hour(local))
        }),
        sample("*/20 22-2 * * *", true, |local| {
            minute(local) % 20 == 0 && !(3..22).contains(&hour(local))
        }),
        sample("* 0-22 * * *", true, |local| hour(local) != 23),
        sample("0 */2 * * sun", true, |local| {
            minute(local) == 0
                && hour(local) % 2 == 0
                && at(local).weekday().num_days_from_sunday() == 0
        }),
        sample("59 23 28-31 * *", true, |local| {
            minute(local) == 59 && hour(local) == 23 && at(local).day() >= 28
        }),
        every(6 * HOUR, 2 * HOUR + 1800),
        every(90 * 60, 900),
        every(HOUR, 1800),
        every(20 * 60, 600),
        every(DAY, 1800),
        every(2 * DAY, 2 * HOUR),
    ];
    for local in [change.at + change.before, change.at + change.after] {
        let minutes = [-61, -60, -45, -30, -1, 0, 1, 15, 29, 30, 59, 60, 61];
        samples.extend(minutes.map(|minute| daily(local + minute * 60)));
    }
    samples
}

/// Schedules with seconds.
fn quick_samples(change: Change) -> Vec<Sample> {
    let second = |local: i64| local.rem_euclid(60);
    let local = at(change.at + change.before.min(change.after) + 600);
    let (hour_of, minute_of) = (i64::from(local.hour()), i64::from(local.minute()));
    vec![
        Sample {
            schedule: cron("5-50/15 * * * * *"),
            fixed: false,
            holds: Box::new(move |local| [5, 20, 35, 50].contains(&second(local))),
        },
        Sample {
            schedule: cron(&format!("*/10 {minute_of} {hour_of} * * *")),
            fixed: true,
            holds: Box::new(move |local| {
                second(local) % 10 == 0 && minute(local) == minute_of && hour(local) == hour_of
            }),
        },
        Sample {
            schedule: cron(&format!("59 59 {hour_of} * * *")),
            fixed: true,
            holds: Box::new(move |local| {
                second(local) == 59 && minute(local) == 59 && hour(local) == hour_of
            }),
        },
        every(10, 5),
    ]
}

#[test]
fn every_change_of_clocks_from_2020_to_2040() {
    let changes = changes();
    assert!(changes.len() > 500, "{}", changes.len());
    for (change, zone) in &changes {
        let calendar = calendar(*zone, Dst::Once);
        let around = |half: i64, step| Walk::new(*zone, change.at - half, change.at + half, step);
        let (minutes, seconds) = (around(2 * DAY, 60), around(3 * HOUR, 1));
        for sample in samples(*change) {
            check(*zone, &calendar, change.at, 2 * DAY, &minutes, &sample);
        }
        for sample in quick_samples(*change) {
            check(*zone, &calendar, change.at, 3 * HOUR, &seconds, &sample);
        }
    }
}

#[test]
fn a_daily_one_comes_every_day_in_every_zone() {
    let daily: Vec<Schedule> = ["30 2 * * *", "0 0 * * *", "30 1 * * *"].map(cron).into();
    for zone in Zone::all() {
        let calendar = calendar(zone, Dst::Once);
        let (from, to) = (START - offset(zone, START), END - offset(zone, END));
        for schedule in &daily {
            let dues = chain(schedule, &calendar, from, to);
            assert!(dues.is_sorted_by(|one, next| one < next));
            assert_eq!(dues.len() as i64, (END - START) / DAY, "{schedule} in {zone}");
        }
    }
}
