//! The time, where it enters the program. Floor 1 and the worker's decisions take
//! instants as arguments and never ask.

use chrono::{DateTime, Local, SecondsFormat, Utc};

/// Wall-clock time now.
pub fn now() -> DateTime<Utc> {
    Utc::now()
}

/// An instant as Python's `datetime.isoformat()` prints an aware one:
/// microseconds and `+00:00`.
pub fn iso(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Micros, false)
}

/// An instant as people read it: local time, to a second, with its distance from UTC.
pub fn local(at: DateTime<Utc>) -> String {
    at.with_timezone(&Local).format("%Y-%m-%d %H:%M:%S%:z").to_string()
}

/// Seconds since the epoch, with the fraction, as Celery's events and indexes use them.
pub fn epoch(at: DateTime<Utc>) -> f64 {
    at.timestamp_micros() as f64 / 1e6
}
