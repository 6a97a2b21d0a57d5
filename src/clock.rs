//! The time, where it enters the program. Floor 1 and the worker's decisions take
//! instants as arguments and never ask.

use chrono::{DateTime, Local, NaiveDate, NaiveDateTime, SecondsFormat, Utc};

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

/// The instant that is so many seconds after the epoch; `None` beyond the end of all calendars.
pub fn from_epoch(seconds: f64) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_micros((seconds * 1e6) as i64)
}

/// Reads an ISO 8601 instant; without an offset it is UTC. `None` if it is none.
pub fn parse(text: &str) -> Option<DateTime<Utc>> {
    let text = text.trim();
    // A year of four digits: chrono takes signs and more.
    if !text.is_char_boundary(4) || !text.get(..4)?.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let text = text.replacen([' ', 't'], "T", 1).replacen(',', ".", 1);
    if let Ok(at) = DateTime::parse_from_rfc3339(&text) {
        return Some(at.with_timezone(&Utc));
    }
    let forms = [
        "%Y-%m-%dT%H:%M:%S%.f",
        "%Y-%m-%dT%H:%M",
        "%Y-%m-%dT%H",
        "%Y%m%dT%H%M%S%.f",
        "%Y%m%dT%H%M",
        "%Y%m%dT%H",
    ];
    for form in forms {
        if let Ok(at) = NaiveDateTime::parse_from_str(&text, form) {
            return Some(at.and_utc());
        }
        if let Ok(at) = DateTime::parse_from_str(&text, &format!("{form}%#z")) {
            return Some(at.with_timezone(&Utc));
        }
    }
    let day = ["%Y-%m-%d", "%Y%m%d"]
        .iter()
        .find_map(|form| NaiveDate::parse_from_str(&text, form).ok())?;
    Some(day.and_hms_opt(0, 0, 0)?.and_utc())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_of_python_are_read_naive_ones_as_utc() {
        for text in [
            "2026-01-02T03:04:05",
            "2026-01-02 03:04:05",
            "2026-01-02T05:04:05+02:00",
            "2026-01-02T05:04:05+0200",
            "20260102T030405Z",
            "2026-01-02T03:04:05,0Z",
        ] {
            assert_eq!(parse(text).map(iso).unwrap(), "2026-01-02T03:04:05.000000+00:00");
        }
        for text in
            ["soon", "", "2026-13-01T00:00:00", "2026-01-02T25:00", "+12026-01-01", "\u{e9}"]
        {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
