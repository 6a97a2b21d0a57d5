//! Schedules: against Celery's own, and against an oracle that knows only offsets.

mod celery;
mod chain;
mod files;
mod host;
mod oracle;

use chrono::{DateTime, Offset, TimeZone, Utc};
use chrono_tz::Tz;
use qworker::schedule::zone::{Calendar, Dst};
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

/// A calendar of this zone; finding out where its clocks are changed takes a millisecond, so
/// it is made once.
fn calendar(zone: Tz, dst: Dst) -> Rc<Calendar> {
    thread_local! {
        static MADE: RefCell<HashMap<(Tz, bool), Rc<Calendar>>> = RefCell::default();
    }
    MADE.with_borrow_mut(|made| {
        let new = || Rc::new(Calendar::new(zone, dst, DateTime::UNIX_EPOCH));
        Rc::clone(made.entry((zone, dst == Dst::Celery)).or_insert_with(new))
    })
}

/// An instant from seconds.
fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(seconds, 0).unwrap()
}

/// What the zone's clocks show less UTC, in seconds.
fn offset(zone: Tz, seconds: i64) -> i64 {
    i64::from(zone.offset_from_utc_datetime(&at(seconds).naive_utc()).fix().local_minus_utc())
}
