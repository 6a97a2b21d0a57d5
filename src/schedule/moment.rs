//! Instants as people write them: ISO 8601, local where no offset is said.

use super::zone::{Calendar, Pass};
use chrono::{DateTime, Days, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, Timelike, Utc};

/// What is expected, behind the word "expected".
pub const EXPECTED: &str =
    "a time such as 2027-01-31T12:00:00 (local), 2027-01-31T12:00:00Z or 2027-01-31";

/// A text that says when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// With an offset.
    Instant(DateTime<Utc>),
    /// Without one.
    Local(NaiveDateTime),
    /// A day without a time.
    Day(NaiveDate),
}

impl Moment {
    /// Reads ISO 8601, with a `T` or a blank between day and time.
    pub fn parse(text: &str) -> Option<Moment> {
        let text = text.trim();
        if let Ok(day) = NaiveDate::parse_from_str(text, "%Y-%m-%d") {
            return Some(Moment::Day(day));
        }
        let text = text.replacen(' ', "T", 1);
        if let Ok(at) = DateTime::parse_from_rfc3339(&text) {
            return Some(Moment::Instant(at.with_timezone(&Utc)));
        }
        // An offset, but no seconds.
        if let Ok(at) = DateTime::parse_from_str(&text.replace('Z', "+00:00"), "%Y-%m-%dT%H:%M%:z")
        {
            return Some(Moment::Instant(at.with_timezone(&Utc)));
        }
        ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M"]
            .iter()
            .find_map(|form| NaiveDateTime::parse_from_str(&text, form).ok())
            .map(Moment::Local)
    }
}

/// When that is by `calendar`; a day is its beginning. Of a local time that comes twice the first
/// one; one that does not exist is as much later as the clock is put forward.
pub fn instant(moment: Moment, calendar: &Calendar) -> Option<DateTime<Utc>> {
    let local = match moment {
        Moment::Instant(at) => return Some(at),
        Moment::Local(local) => local,
        Moment::Day(day) => day.and_time(NaiveTime::MIN),
    };
    let at = calendar.instant(local.and_utc().timestamp(), Pass::First);
    DateTime::from_timestamp(at, local.nanosecond())
}

/// The last instant of a moment: a day ends before the next one begins.
pub fn last_instant(moment: Moment, calendar: &Calendar) -> Option<DateTime<Utc>> {
    let Moment::Day(day) = moment else { return instant(moment, calendar) };
    let next = instant(Moment::Day(day.checked_add_days(Days::new(1))?), calendar)?;
    next.checked_sub_signed(TimeDelta::microseconds(1))
}

#[cfg(test)]
mod tests {
    use super::super::zone::Dst;
    use super::*;
    use crate::config::zone::Zone;

    fn calendar(zone: Zone) -> Calendar {
        Calendar::new(zone, Dst::Once, DateTime::UNIX_EPOCH)
    }

    #[test]
    fn local_and_other_times() {
        let oslo = calendar(Zone::named("Europe/Oslo").unwrap());
        let cases = [
            ("2026-11-21T10:00:00Z", Some("2026-11-21T10:00:00Z")),
            ("2026-11-21 10:00:00+02:00", Some("2026-11-21T08:00:00Z")),
            ("2026-11-21T10:00Z", Some("2026-11-21T10:00:00Z")),
            ("2026-11-21T10:00+01:00", Some("2026-11-21T09:00:00Z")),
            ("2026-11-21T10:00:00", Some("2026-11-21T09:00:00Z")),
            ("2026-07-01 10:00", Some("2026-07-01T08:00:00Z")),
            ("2026-07-01", Some("2026-06-30T22:00:00Z")),
            // Twice, and not at all.
            ("2026-10-25T02:30:00", Some("2026-10-25T00:30:00Z")),
            ("2026-03-29T02:30:00", Some("2026-03-29T01:30:00Z")),
            ("10:00", None),
            ("tomorrow", None),
            ("2026-02-30", None),
            ("", None),
            ("é", None),
        ];
        for (text, expected) in cases {
            let at = Moment::parse(text).and_then(|moment| instant(moment, &oslo));
            let at = at.map(|at| at.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true));
            assert_eq!(at.as_deref(), expected, "{text}");
        }
        let end = last_instant(Moment::parse("2026-07-01").unwrap(), &oslo).unwrap();
        assert_eq!(end.to_rfc3339(), "2026-07-01T21:59:59.999999+00:00");
        let samoa = calendar(Zone::named("Pacific/Apia").unwrap());
        let lost = instant(Moment::parse("2011-12-30T12:00:00").unwrap(), &samoa).unwrap();
        assert_eq!(lost.to_rfc3339(), "2011-12-30T22:00:00+00:00");
    }
}
