//! Schedules: against Celery's own, and against an oracle that knows only offsets.

mod celery;
mod chain;
mod files;
mod host;
mod oracle;

use chrono::{DateTime, Offset, TimeZone, Utc};
use chrono_tz::Tz;
use qworker::schedule::zone::{Calendar, Dst};

/// A calendar of this zone.
fn calendar(zone: Tz, dst: Dst) -> Calendar {
    Calendar::new(zone, dst, DateTime::UNIX_EPOCH)
}

/// An instant from seconds.
fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(seconds, 0).unwrap()
}

/// What the zone's clocks show less UTC, in seconds.
fn offset(zone: Tz, seconds: i64) -> i64 {
    i64::from(zone.offset_from_utc_datetime(&at(seconds).naive_utc()).fix().local_minus_utc())
}
