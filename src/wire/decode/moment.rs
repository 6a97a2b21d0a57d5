//! Dates and times as Python's `isoformat` writes them; `None` for those that Python has not.

use chrono::{DateTime, Datelike, NaiveDate, NaiveTime, Timelike};

/// `2030-01-02`
pub(super) fn date(year: u32, month: u32, day: u32) -> Option<String> {
    let is_one = (1..=9999).contains(&year)
        && NaiveDate::from_ymd_opt(i32::try_from(year).ok()?, month, day).is_some();
    is_one.then(|| format!("{year:04}-{month:02}-{day:02}"))
}

/// `03:04:05`, with six digits of microseconds unless there are none.
pub(super) fn time(hour: u32, minute: u32, second: u32, micros: u32) -> Option<String> {
    NaiveTime::from_hms_micro_opt(hour, minute, second, micros)?;
    // Chrono has leap seconds.
    (micros < 1_000_000).then(|| {
        let fraction = if micros == 0 { String::new() } else { format!(".{micros:06}") };
        format!("{hour:02}:{minute:02}:{second:02}{fraction}")
    })
}

/// The instant so long after the epoch, in UTC; what is less than a microsecond is left out.
pub(super) fn utc(seconds: i64, nanos: u32) -> Option<String> {
    let at = DateTime::from_timestamp(seconds, nanos).filter(|_| nanos < 1_000_000_000)?;
    let day = date(u32::try_from(at.year()).ok()?, at.month(), at.day())?;
    let time = time(at.hour(), at.minute(), at.second(), at.nanosecond() / 1000)?;
    Some(format!("{day}T{time}+00:00"))
}

/// `+02:00`, of microseconds east of UTC: less than a day.
pub(super) fn offset(micros: i64) -> Option<String> {
    const DAY: i64 = 86_400_000_000;
    if micros <= -DAY || micros >= DAY {
        return None;
    }
    let sign = if micros < 0 { '-' } else { '+' };
    let (seconds, fraction) = (micros.abs() / 1_000_000, micros.abs() % 1_000_000);
    let mut text = format!("{sign}{:02}:{:02}", seconds / 3600, seconds / 60 % 60);
    if seconds % 60 != 0 || fraction != 0 {
        text.push_str(&format!(":{:02}", seconds % 60));
    }
    if fraction != 0 {
        text.push_str(&format!(".{fraction:06}"));
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_isoformat() {
        assert_eq!(date(2030, 1, 2).as_deref(), Some("2030-01-02"));
        assert_eq!(date(1, 2, 28).as_deref(), Some("0001-02-28"));
        for (y, m, d) in [(0, 1, 1), (10_000, 1, 1), (2023, 2, 29), (2023, 13, 1), (2023, 1, 0)] {
            assert_eq!(date(y, m, d), None);
        }
        assert_eq!(utc(0, 1_500).as_deref(), Some("1970-01-01T00:00:00.000001+00:00"));
        for (seconds, nanos) in
            [(i64::MAX, 0), (i64::MIN, 0), (0, 1_000_000_000), (-99_999_999_999, 0)]
        {
            assert_eq!(utc(seconds, nanos), None);
        }
        assert_eq!(time(3, 4, 5, 0).as_deref(), Some("03:04:05"));
        assert_eq!(time(23, 59, 59, 40).as_deref(), Some("23:59:59.000040"));
        for (h, m, s, u) in [(24, 0, 0, 0), (0, 60, 0, 0), (0, 0, 60, 0), (0, 0, 59, 1_500_000)] {
            assert_eq!(time(h, m, s, u), None);
        }
        for (seconds, expected) in [
            (0, Some("+00:00")),
            (7200, Some("+02:00")),
            (-5 * 3600 - 1800, Some("-05:30")),
            (3661, Some("+01:01:01")),
            (86_400, None),
            (-86_400, None),
        ] {
            assert_eq!(offset(seconds * 1_000_000).as_deref(), expected);
        }
        assert_eq!(offset(-1).as_deref(), Some("-00:00:00.000001"));
    }
}
