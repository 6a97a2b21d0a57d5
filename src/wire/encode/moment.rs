//! Dates and times by their ISO 8601 text, as Python's `fromisoformat` reads what `isoformat` writes.

use chrono::{Datelike, NaiveDate, NaiveTime, Timelike};

/// Microseconds of a day, which no offset reaches.
const DAY: i64 = 86_400_000_000;

/// A date, a time, or both.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Moment {
    Date(NaiveDate),
    /// With its offset from UTC in microseconds, if it has one.
    Time(NaiveTime, Option<i64>),
    Datetime(NaiveDate, NaiveTime, Option<i64>),
}

impl Moment {
    /// Reads the text of a value of this type of kombu's.
    pub(super) fn parse(kind: &str, text: &str) -> Option<Moment> {
        match kind {
            "date" => {
                // Of both, Python takes the date.
                let day = text.get(..10).filter(|_| text.len() == 10 || both(text).is_some());
                Some(Moment::Date(date(day?)?))
            }
            "time" => time(text).map(|(time, offset)| Moment::Time(time, offset)),
            _ if text.len() == 10 => Some(Moment::Datetime(date(text)?, NaiveTime::MIN, None)),
            _ => both(text),
        }
    }

    /// kombu's name of its type.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Moment::Date(_) => "date",
            Moment::Time(..) => "time",
            Moment::Datetime(..) => "datetime",
        }
    }
}

fn both(text: &str) -> Option<Moment> {
    let day = date(text.get(..10)?)?;
    let rest = text.get(10..)?;
    let (time, offset) = time(rest.strip_prefix(['T', 't', ' '])?)?;
    Some(Moment::Datetime(day, time, offset))
}

fn date(text: &str) -> Option<NaiveDate> {
    let (year, rest) = text.split_once('-')?;
    let (month, day) = rest.split_once('-')?;
    let year = i32::try_from(number(year, 4)?).ok().filter(|year| *year > 0)?;
    NaiveDate::from_ymd_opt(year, number(month, 2)?, number(day, 2)?)
}

fn time(text: &str) -> Option<(NaiveTime, Option<i64>)> {
    let (clock, offset) = match text.find(['+', '-', 'Z', 'z']) {
        Some(at) => (&text[..at], Some(offset(&text[at..])?)),
        None => (text, None),
    };
    let (h, m, s, micros) = parts(clock)?;
    Some((NaiveTime::from_hms_micro_opt(h, m, s, micros)?, offset))
}

/// Microseconds east of UTC.
fn offset(text: &str) -> Option<i64> {
    if matches!(text, "Z" | "z") {
        return Some(0);
    }
    let sign = if text.starts_with('-') { -1 } else { 1 };
    let (h, m, s, micros) = parts(&text[1..])?;
    let seconds = i64::from(h) * 3600 + i64::from(m) * 60 + i64::from(s);
    let offset = seconds * 1_000_000 + i64::from(micros);
    (offset < DAY).then_some(sign * offset)
}

/// Hours, minutes, seconds and microseconds; what is not there is zero.
fn parts(text: &str) -> Option<(u32, u32, u32, u32)> {
    let (clock, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let mut fields = clock.split(':');
    let hours = number(fields.next()?, 2)?;
    let mut field = || fields.next().map_or(Some(0), |text| number(text, 2));
    let (minutes, seconds) = (field()?, field()?);
    let has_more = fields.next().is_some() || fraction.is_empty();
    if has_more || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let micros = format!("{fraction:0<6}").get(..6)?.parse().ok()?;
    Some((hours, minutes, seconds, micros))
}

fn number(text: &str, digits: usize) -> Option<u32> {
    let is_one = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_one)
}

/// Year, month and day as Python's pickles have them.
pub(super) fn date_bytes(date: NaiveDate) -> [u8; 4] {
    let year = date.year();
    [(year >> 8) as u8, year as u8, date.month() as u8, date.day() as u8]
}

/// Hour, minute, second and microseconds likewise.
pub(super) fn time_bytes(time: NaiveTime) -> [u8; 6] {
    let micros = time.nanosecond() / 1000;
    [
        time.hour() as u8,
        time.minute() as u8,
        time.second() as u8,
        (micros >> 16) as u8,
        (micros >> 8) as u8,
        micros as u8,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_isoformat() {
        let parse = |kind: &str, text: &str| Moment::parse(kind, text);
        let day = NaiveDate::from_ymd_opt(2030, 1, 2).unwrap();
        let at = NaiveTime::from_hms_micro_opt(3, 4, 5, 60).unwrap();
        let whole = NaiveTime::from_hms_opt(3, 4, 5).unwrap();
        for (kind, text, expected) in [
            ("date", "2030-01-02", Moment::Date(day)),
            ("date", "2030-01-02T03:04:05", Moment::Date(day)),
            ("datetime", "2030-01-02", Moment::Datetime(day, NaiveTime::MIN, None)),
            ("datetime", "2030-01-02T03:04:05.000060", Moment::Datetime(day, at, None)),
            ("datetime", "2030-01-02 03:04:05Z", Moment::Datetime(day, whole, Some(0))),
            (
                "datetime",
                "2030-01-02T03:04:05-05:30",
                Moment::Datetime(day, whole, Some(-19_800_000_000)),
            ),
            ("time", "03:04:05.000060+00:00:01", Moment::Time(at, Some(1_000_000))),
        ] {
            assert_eq!(parse(kind, text), Some(expected), "{kind} {text}");
        }
        for (kind, text) in [
            ("date", "2030-13-02"),
            ("date", "0000-01-02"),
            ("date", "2030-01-02x"),
            ("datetime", "soon"),
            ("datetime", "2030-01-02T"),
            ("datetime", "2030-01-02T25:00:00"),
            ("datetime", "2030-01-02T03:04:05+24:00"),
            ("time", "3:04"),
            ("time", "03:04:05:06"),
            ("time", "03:04:05."),
            ("time", "ü3"),
        ] {
            assert_eq!(parse(kind, text), None, "{kind} {text}");
        }
    }
}
