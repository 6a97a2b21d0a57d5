//! The same next run as Celery computes.

use super::{built_in_files, calendar};
use crate::harness::python;
use chrono::{DateTime, Utc};
use qworker::config::zone::Zone;
use qworker::schedule::cron::{Cron, Days};
use qworker::schedule::every::Every;
use qworker::schedule::solar::Solar;
use qworker::schedule::zone::{Calendar, Dst};
use serde::de::DeserializeOwned;
use std::collections::HashMap;
use std::time::Duration;

/// A timing, the zone, the last run and the next, in microseconds.
type Case<T> = (T, String, i64, i64);

fn ask<T: DeserializeOwned>(what: &str, count: usize) -> Vec<T> {
    let zones: Vec<&str> = Zone::all().map(Zone::name).collect();
    let zones = serde_json::to_string(&zones).unwrap();
    let folder = built_in_files();
    let path = folder.path().to_str().unwrap();
    let answer = python::run(include_str!("ask.py"), &[what, &count.to_string(), &zones, path]);
    let cases: Vec<T> = serde_json::from_value(answer).unwrap();
    assert!(cases.len() >= count);
    cases
}

fn instant(micros: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(micros).unwrap()
}

/// Compares all cases.
fn compare<T: std::fmt::Debug>(
    cases: &[Case<T>],
    dst: Dst,
    next: impl Fn(&T, DateTime<Utc>, &Calendar) -> Option<DateTime<Utc>>,
) {
    let (mut calendars, mut faults) = (HashMap::new(), Vec::new());
    for case @ (timing, zone, last, due) in cases {
        let zone = Zone::named(zone).unwrap();
        let calendar = calendars.entry(zone).or_insert_with(|| calendar(zone, dst));
        let ours = next(timing, instant(*last), calendar);
        if ours != Some(instant(*due)) {
            let (last, due) = (instant(*last), instant(*due));
            faults.push(format!("{case:?}\n  last {last}\n  Celery {due}\n  ours {ours:?}"));
        }
    }
    let some = faults.iter().take(10).cloned().collect::<Vec<_>>().join("\n");
    assert!(faults.is_empty(), "{} of {} differ:\n{some}", faults.len(), cases.len());
}

fn cron(text: &str) -> Cron {
    Cron::parse(text, Days::And).unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn crontabs_away_from_changes_of_clocks() {
    let cases: Vec<Case<String>> = ask("crontabs", 20_000);
    for dst in [Dst::Once, Dst::Celery] {
        compare(&cases, dst, |text, last, calendar| cron(text).next(last, calendar));
    }
}

#[test]
fn crontabs_across_changes_of_clocks_as_celery_has_them() {
    let cases: Vec<Case<String>> = ask("changes", 10_000);
    compare(&cases, Dst::Celery, |text, last, calendar| cron(text).next(last, calendar));
}

#[test]
fn relative_intervals_also_across_changes_of_clocks() {
    let cases: Vec<Case<f64>> = ask("relatives", 10_000);
    compare(&cases, Dst::Once, |seconds, last, calendar| {
        let every = Every::new(Duration::from_secs_f64(*seconds), true, None).unwrap();
        every.next(last, calendar)
    });
}

#[test]
fn the_sun_within_a_minute() {
    let cases: Vec<(String, f64, f64, i64, i64)> = ask("suns", 450);
    let (mut faults, mut polar) = (Vec::new(), 0);
    for (event, lat, lon, last, due) in &cases {
        let ours = Solar::new(event, *lat, *lon).unwrap().next(instant(*last));
        let late = ours.map(|ours| (ours - instant(*due)).num_seconds());
        match late {
            Some(-60..=60) => {}
            // Where an event is not a daily one, Celery at times misses the first.
            Some(..0) if lat.abs() > 60.0 => polar += 1,
            _ => {
                let (last, due) = (instant(*last), instant(*due));
                faults.push(format!(
                    "{event} {lat} {lon}: last {last}, Celery {due}, ours {late:?} s"
                ));
            }
        }
    }
    assert!(faults.is_empty(), "{} of {}:\n{}", faults.len(), cases.len(), faults.join("\n"));
    assert!(polar * 50 <= cases.len(), "{polar} of {}", cases.len());
}
