//! `latest` is the end of a chain of `next`, from anywhere.

use super::oracle::changes;
use super::{at, calendar};
use chrono::{DateTime, TimeDelta, Timelike, Utc};
use qworker::config::zone::Zone;
use qworker::schedule::Schedule;
use qworker::schedule::cron::{Cron, Days};
use qworker::schedule::every::Every;
use qworker::schedule::solar::{EVENTS, Solar};
use qworker::schedule::zone::{Calendar, Dst};
use std::time::Duration;

/// Zones whose clocks are changed in odd ways, for half of the cases.
const ODD: [&str; 6] = [
    "Australia/Lord_Howe",
    "Africa/Casablanca",
    "America/Havana",
    "Asia/Gaza",
    "Pacific/Apia",
    "America/Scoresbysund",
];

fn some_schedule(random: &mut fastrand::Rng) -> Schedule {
    let mut field = |low: u64, high: u64| match random.u8(0..4) {
        0 => "*".to_string(),
        1 => format!("*/{}", random.u64(1..=high)),
        2 => random.u64(low..=high).to_string(),
        _ => format!("{}-{}", random.u64(low..=high), random.u64(low..=high)),
    };
    let (second, minute, hour) = (field(0, 59), field(0, 59), field(0, 23));
    let (day, week) = (field(1, 28), field(0, 6));
    let seconds = Duration::from_millis(random.u64(50..100_000_000));
    let even = [10, 60, 1200, 3600, 7200, 21_600, 86_400, 172_800];
    let time = chrono::NaiveTime::from_num_seconds_from_midnight_opt(random.u32(0..86_400), 0);
    let days = if random.bool() { Days::And } else { Days::Or };
    match random.u8(0..6) {
        0 => Schedule::Cron(Cron::parse(&format!("{minute} {hour} {day} * {week}"), days).unwrap()),
        1 => Schedule::Cron(Cron::parse(&format!("{minute} {hour} * * *"), days).unwrap()),
        2 => {
            let text = format!("{second} {minute} {hour} * * {week}");
            Schedule::Cron(Cron::parse(&text, days).unwrap())
        }
        3 => Schedule::Every(Every::new(seconds, random.bool(), None).unwrap()),
        4 => {
            let unit = *random.choice([1, 60, 3600, 86_400].iter()).unwrap();
            let period = Duration::from_secs(unit * random.u64(1..4) + unit / 2);
            Schedule::Every(Every::new(period, true, None).unwrap())
        }
        _ => {
            let period = Duration::from_secs(*random.choice(even.iter()).unwrap());
            Schedule::Every(Every::new(period, false, time).unwrap())
        }
    }
}

/// Compares `latest` with the chain at its end and at some instants before; long chains are
/// cut short.
fn check(
    schedule: &Schedule,
    calendar: &Calendar,
    after: DateTime<Utc>,
    span: TimeDelta,
    most: usize,
) {
    let next = |last: &DateTime<Utc>| schedule.next(*last, calendar);
    let dues = std::iter::successors(next(&after), next);
    let dues: Vec<_> = dues.take_while(|due| *due <= after + span).take(most).collect();
    assert!(dues.is_sorted_by(|one, next| one < next), "{schedule} in {calendar}, from {after}");
    let all = 0..dues.len();
    let few = [0, 1, dues.len() / 2, dues.len().saturating_sub(1)];
    for nth in all.filter(|nth| dues.len() < 50 || few.contains(nth)) {
        let due = dues[nth];
        let until = match dues.get(nth + 1) {
            Some(next) => due + (*next - due) / 2,
            None => due,
        };
        let latest = |until| schedule.latest(after, until, calendar);
        let said = || format!("{schedule} in {calendar}, from {after} to {until}");
        assert_eq!(latest(due), Some(due), "{}", said());
        assert_eq!(latest(until), Some(due), "{}", said());
        let before = nth.checked_sub(1).map(|nth| dues[nth]);
        assert_eq!(latest(due - TimeDelta::nanoseconds(1)), before, "{}", said());
    }
}

#[test]
fn latest_is_the_end_of_the_chain() {
    let mut random = fastrand::Rng::with_seed(7);
    let zones: Vec<Zone> = Zone::all().collect();
    for _ in 0..10_000 {
        let zone = match random.bool() {
            true => *random.choice(zones.iter()).unwrap(),
            false => Zone::named(random.choice(ODD.iter()).unwrap()).unwrap(),
        };
        let dst = if random.bool() { Dst::Once } else { Dst::Celery };
        let after = DateTime::from_timestamp_millis(random.i64(0..2_500_000_000_000)).unwrap();
        let span = TimeDelta::seconds(random.i64(60..300 * 86_400));
        check(&some_schedule(&mut random), &calendar(zone, dst), after, span, 400);
    }
}

#[test]
fn latest_is_the_end_of_the_chain_across_changes_of_clocks() {
    let mut random = fastrand::Rng::with_seed(8);
    let changes: Vec<_> = changes().into_iter().collect();
    for _ in 0..20_000 {
        let (change, zone) = random.choice(changes.iter()).unwrap();
        let local = at(change.at + change.before);
        let mut part = |around: u32, size: u32| match random.u8(0..5) {
            0 => "*".to_string(),
            1 => format!("*/{}", random.u32(1..size)),
            2 => random.u32(0..size).to_string(),
            _ => {
                let near = |by: u32| (around + size + by - 2) % size;
                format!("{},{}", near(random.u32(0..5)), near(random.u32(0..5)))
            }
        };
        let hour = part(local.hour(), 24);
        let minute = part(local.minute() + 2, 60);
        let schedule = match random.u8(0..4) {
            0 => some_schedule(&mut random),
            _ => {
                let text = format!("{minute} {hour} * * *");
                Schedule::Cron(Cron::parse(&text, Days::And).unwrap())
            }
        };
        let dst = if random.bool() { Dst::Once } else { Dst::Celery };
        let after = at(change.at - random.i64(-7200..20_000));
        let span = TimeDelta::seconds(random.i64(3600..100_000));
        check(&schedule, &calendar(*zone, dst), after, span, 100);
    }
}

#[test]
fn latest_is_the_end_of_the_chain_of_the_sun() {
    let mut random = fastrand::Rng::with_seed(9);
    let utc = calendar(Zone::UTC, Dst::Once);
    for (event, _) in EVENTS.iter().cycle().take(45) {
        let lat = random.f64() * 180.0 - 90.0;
        let lon = random.f64() * 360.0 - 180.0;
        let sun = Schedule::Solar(Solar::new(event, lat, lon).unwrap());
        let after = DateTime::from_timestamp(random.i64(0..2_500_000_000), 0).unwrap();
        check(&sun, &utc, after, TimeDelta::days(300), 100);
    }
}
