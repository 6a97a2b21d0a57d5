//! Schedules: against Celery's own, and against an oracle that knows only offsets.

mod celery;
mod chain;
mod files;
mod host;
mod oracle;

use chrono::{DateTime, Utc};
use qworker::config::zone::Zone;
use qworker::schedule::zone::{Calendar, Dst};
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

/// A calendar of this zone; finding out where its clocks are changed takes a millisecond, so
/// it is made once.
fn calendar(zone: Zone, dst: Dst) -> Rc<Calendar> {
    thread_local! {
        static MADE: RefCell<HashMap<(Zone, bool), Rc<Calendar>>> = RefCell::default();
    }
    MADE.with_borrow_mut(|made| {
        let new = || Rc::new(Calendar::new(zone, dst, DateTime::UNIX_EPOCH));
        Rc::clone(made.entry((zone, dst == Dst::Celery)).or_insert_with(new))
    })
}

/// The rules that are built in, as a folder of files.
fn built_in_files() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for zone in Zone::all() {
        let file = folder.path().join(zone.name());
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, zone.tzif()).unwrap();
    }
    folder
}

/// An instant from seconds.
fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(seconds, 0).unwrap()
}

/// What the zone's clocks show less UTC, in seconds.
fn offset(zone: Zone, seconds: i64) -> i64 {
    thread_local! {
        static READ: RefCell<HashMap<Zone, tz::TimeZone>> = RefCell::default();
    }
    READ.with_borrow_mut(|read| {
        let new = || tz::TimeZone::from_tz_data(zone.tzif()).unwrap();
        let found = read.entry(zone).or_insert_with(new).find_local_time_type(seconds);
        i64::from(found.unwrap().ut_offset())
    })
}
