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

/// From when on which offset.
type Offsets = Rc<[(i64, i64)]>;

/// What the zone's clocks show less UTC, in seconds.
fn offset(zone: Zone, seconds: i64) -> i64 {
    thread_local! {
        static READ: RefCell<HashMap<Zone, Offsets>> = RefCell::default();
        static LAST: RefCell<Option<(Zone, Offsets)>> = const { RefCell::new(None) };
    }
    let known = LAST.with_borrow(|last| last.clone().filter(|(of, _)| *of == zone));
    let (_, pieces) = known.unwrap_or_else(|| {
        let read = |read: &mut HashMap<_, Offsets>| {
            Rc::clone(read.entry(zone).or_insert_with(|| offsets(zone).into()))
        };
        let found = (zone, READ.with_borrow_mut(read));
        LAST.set(Some(found.clone()));
        found
    });
    pieces[pieces.partition_point(|(from, _)| *from <= seconds) - 1].1
}

/// From when on which offset, as the library says that reads the files: no two changes are within two
/// days.
fn offsets(zone: Zone) -> Vec<(i64, i64)> {
    let zone = tz::TimeZone::from_tz_data(zone.tzif()).unwrap();
    let of = |at: i64| i64::from(zone.find_local_time_type(at).unwrap().ut_offset());
    let mut found = vec![(i64::MIN, of(FIRST_OFFSET))];
    for at in (FIRST_OFFSET..=LAST_OFFSET).step_by(2 * 86_400) {
        let (mut same, mut other) = (at - 2 * 86_400, at);
        let before = found.last().unwrap().1;
        if of(at) == before {
            continue;
        }
        while other - same > 1 {
            let middle = same + (other - same) / 2;
            if of(middle) == before { same = middle } else { other = middle }
        }
        found.push((other, of(other)));
    }
    found
}

/// 2019-01-01: a year before the first that these tests look at.
const FIRST_OFFSET: i64 = 1_546_300_800;

/// 2043-01-01: likewise.
const LAST_OFFSET: i64 = 2_303_596_800;
