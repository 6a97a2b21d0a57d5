//! Crontabs: minute, hour, day of the month, month and day of the week, with seconds if wanted.
//!
//! The days are found by the crate `cron`, from our translation of the three fields (its
//! weekdays begin with Sunday as 1). It keeps its fields as trees of numbers, about a kilobyte
//! a schedule, and takes microseconds to read one; here a schedule is five bit masks, and a
//! few compiled ones are kept at hand, by their days. Times within a day come from the masks.

pub use super::field::FieldError;
use super::field::FieldKind;
pub use super::fields::CrontabFields;
use super::zone::{Calendar, DAY, LocalTimeRule, Pattern};
use chrono::{DateTime, Datelike, NaiveDate, Utc};
use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

/// Compiled days that a thread keeps, about a kilobyte each.
const COMPILED_MAX: usize = 512;

/// The longest each month gets.
const MONTH_DAYS: [u64; 12] = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];

/// A crontab, checked. 32 bytes, nothing on the heap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cron {
    seconds: u64,
    minutes: u64,
    hours: u32,
    dates: Dates,
}

/// The days of a crontab.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Dates {
    days_of_month: u32,
    months: u16,
    days_of_week: u8,
    /// One of day of month and day of week is enough.
    either: bool,
}

/// What day of the month and day of the week mean together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Days {
    /// Both must hold, as Celery has it.
    #[default]
    And,
    /// One is enough if neither begins with `*`, as Vixie's cron has it.
    Or,
}

impl Cron {
    /// Reads five fields, or six with seconds first, or a word such as `@daily`.
    ///
    /// # Errors
    /// Names the first field that is wrong; the field is `crontab` if their number is.
    pub fn parse(text: &str, days: Days) -> Result<Cron, FieldError> {
        Cron::from_fields(CrontabFields::of(text)?, days)
    }

    /// Reads the fields one by one.
    ///
    /// # Errors
    /// Names the first field that is wrong, or `day_of_month` if no month has such a day.
    pub fn from_fields(fields: CrontabFields<'_>, days: Days) -> Result<Cron, FieldError> {
        let seconds = FieldKind::Second.parse(fields.second.unwrap_or("0"))?;
        let minutes = FieldKind::Minute.parse(fields.minute)?;
        let hours = FieldKind::Hour.parse(fields.hour)? as u32;
        let mut days_of_month = FieldKind::DayOfMonth.parse(fields.day_of_month)? as u32;
        let months = FieldKind::Month.parse(fields.month_of_year)? as u16;
        let mut days_of_week = FieldKind::DayOfWeek.parse(fields.day_of_week)? as u8;
        let is_quartz = [fields.day_of_month, fields.day_of_week].iter().any(|f| f.trim() == "?");
        let has_number = |text: &str| {
            let days = text.split(',').filter_map(|part| part.split('/').next());
            days.into_iter().any(|days| days.contains(|c: char| c.is_ascii_digit()))
        };
        if is_quartz && has_number(fields.day_of_week) {
            let expected = "names such as mon-fri: beside a ?, as Quartz has it, 1 would be Sunday";
            return Err(FieldError::new("day_of_week", fields.day_of_week, expected));
        }
        let has_star = |text: &str| text.trim_start().starts_with(['*', '?']);
        let mut either =
            days == Days::Or && !has_star(fields.day_of_month) && !has_star(fields.day_of_week);
        let (all_month, all_week) =
            (FieldKind::DayOfMonth.all() as u32, FieldKind::DayOfWeek.all() as u8);
        if either && (days_of_month == all_month || days_of_week == all_week) {
            // One that holds on all days decides alone: the same days, the same text.
            (days_of_month, days_of_week, either) = (all_month, all_week, false);
        }
        let is_possible = |(month, length): (usize, &u64)| {
            let days = (1 << (length + 1)) - 2;
            months >> (month + 1) & 1 == 1 && u64::from(days_of_month) & days != 0
        };
        if !either && !MONTH_DAYS.iter().enumerate().any(is_possible) {
            let expected = format!("a day that month_of_year {} has", fields.month_of_year);
            return Err(FieldError::new("day_of_month", fields.day_of_month, expected));
        }
        let dates = Dates { days_of_month, months, days_of_week, either };
        Ok(Cron { seconds, minutes, hours, dates })
    }

    /// If it restricts days of the month and days of the week: whether one of them is
    /// enough.
    pub fn either_day(&self) -> Option<bool> {
        let Dates { days_of_month, days_of_week, either, .. } = self.dates;
        let all = (FieldKind::DayOfMonth.all() as u32, FieldKind::DayOfWeek.all() as u8);
        (days_of_month != all.0 && days_of_week != all.1).then_some(either)
    }

    /// The first occurrence after `after`; `None` if there is none until 2100.
    pub fn next(&self, after: DateTime<Utc>, calendar: &Calendar) -> Option<DateTime<Utc>> {
        calendar.next(after, self.rule(), self)
    }

    /// The last occurrence after `after` that is not later than `until`.
    pub fn latest(
        &self,
        after: DateTime<Utc>,
        until: DateTime<Utc>,
        calendar: &Calendar,
    ) -> Option<DateTime<Utc>> {
        calendar.latest(after, until, self.rule(), self)
    }

    /// Hours that are all hours follow real time.
    fn rule(&self) -> LocalTimeRule {
        if u64::from(self.hours) == FieldKind::Hour.all() {
            LocalTimeRule::Real
        } else {
            LocalTimeRule::Fixed
        }
    }
}

impl Pattern for Cron {
    fn day_from(&self, day: i64) -> Option<i64> {
        let date = date(day)?;
        if self.dates.contain(date) {
            return Some(day);
        }
        self.dates.compiled(|compiled| {
            let found = compiled.iter().filter_map(|one| one.after(&midnight(date)).next());
            found.min().map(day_of)
        })
    }

    fn day_until(&self, day: i64) -> Option<i64> {
        let date = date(day)?;
        if self.dates.contain(date) {
            return Some(day);
        }
        self.dates.compiled(|compiled| {
            let found = compiled.iter().filter_map(|one| one.after(&midnight(date)).next_back());
            found.max().map(day_of)
        })
    }

    fn time_from(&self, second: i64) -> Option<i64> {
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        let hours = u64::from(self.hours);
        if hours >> hour & 1 == 1 {
            if self.minutes >> minute & 1 == 1
                && let Some(second) = from(self.seconds, second)
            {
                return Some(hour * 3600 + minute * 60 + second);
            }
            if let Some(minute) = from(self.minutes, minute + 1) {
                return Some(hour * 3600 + minute * 60 + from(self.seconds, 0)?);
            }
        }
        let hour = from(hours, hour + 1)?;
        Some(hour * 3600 + from(self.minutes, 0)? * 60 + from(self.seconds, 0)?)
    }

    fn time_until(&self, second: i64) -> Option<i64> {
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        let hours = u64::from(self.hours);
        if hours >> hour & 1 == 1 {
            if self.minutes >> minute & 1 == 1
                && let Some(second) = until(self.seconds, second)
            {
                return Some(hour * 3600 + minute * 60 + second);
            }
            if let Some(minute) = until(self.minutes, minute - 1) {
                return Some(hour * 3600 + minute * 60 + until(self.seconds, 59)?);
            }
        }
        let hour = until(hours, hour - 1)?;
        Some(hour * 3600 + until(self.minutes, 59)? * 60 + until(self.seconds, 59)?)
    }
}

/// The first value of the set that is not less than `low`.
fn from(mask: u64, low: i64) -> Option<i64> {
    let rest = mask.checked_shr(low as u32)?;
    (rest != 0).then(|| low + i64::from(rest.trailing_zeros()))
}

/// The last value of the set that is not more than `high`, which is -1 to 59.
fn until(mask: u64, high: i64) -> Option<i64> {
    let rest = mask & ((1 << (high + 1)) - 1);
    (rest != 0).then(|| 63 - i64::from(rest.leading_zeros()))
}

/// The date so many days after 1970-01-01.
fn date(day: i64) -> Option<NaiveDate> {
    let midnight = DateTime::from_timestamp(day.checked_mul(DAY)?, 0)?;
    Some(midnight.date_naive())
}

/// The crate wants instants of a zone; local time is handed to it as if it were UTC.
fn midnight(date: NaiveDate) -> DateTime<Utc> {
    date.and_time(chrono::NaiveTime::MIN).and_utc()
}

fn day_of(midnight: DateTime<Utc>) -> i64 {
    midnight.timestamp().div_euclid(DAY)
}

thread_local! {
    /// Compiled days: entries of one schedule file have few different ones.
    static COMPILED: RefCell<HashMap<Dates, Vec<::cron::Schedule>>> = RefCell::default();
}

impl Dates {
    fn contain(self, date: NaiveDate) -> bool {
        let of_month = self.days_of_month >> date.day() & 1 == 1;
        let of_week = self.days_of_week >> date.weekday().num_days_from_sunday() & 1 == 1;
        let day = if self.either { of_month || of_week } else { of_month && of_week };
        day && self.months >> date.month() & 1 == 1
    }

    /// Asks the crate: one schedule, or one for each of two ways to match.
    fn compiled(self, ask: impl FnOnce(&[::cron::Schedule]) -> Option<i64>) -> Option<i64> {
        COMPILED.with_borrow_mut(|kept| {
            if kept.len() >= COMPILED_MAX && !kept.contains_key(&self) {
                kept.clear();
            }
            ask(kept.entry(self).or_insert_with(|| self.compile()))
        })
    }

    fn compile(self) -> Vec<::cron::Schedule> {
        let list = |kind: FieldKind, mask: u64, first: u64| match mask == kind.all() {
            true => "*".to_string(),
            false => {
                let values = (0..32).filter(|value| mask >> value & 1 == 1);
                values.map(|value| (value + first).to_string()).collect::<Vec<_>>().join(",")
            }
        };
        let of_month = list(FieldKind::DayOfMonth, self.days_of_month.into(), 0);
        let of_week = list(FieldKind::DayOfWeek, self.days_of_week.into(), 1);
        let months = list(FieldKind::Month, self.months.into(), 0);
        let texts = match self.either {
            false => vec![format!("0 0 0 {of_month} {months} {of_week}")],
            true => {
                vec![format!("0 0 0 {of_month} {months} *"), format!("0 0 0 * {months} {of_week}")]
            }
        };
        texts.iter().filter_map(|text| ::cron::Schedule::from_str(text).ok()).collect()
    }
}

/// Five fields, six if there are seconds, each in one way for one set of values.
impl fmt::Display for Cron {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Cron { seconds, minutes, hours, dates } = *self;
        if seconds != 1 {
            write!(out, "{} ", FieldKind::Second.show(seconds))?;
        }
        write!(
            out,
            "{} {} {} {} {}",
            FieldKind::Minute.show(minutes),
            FieldKind::Hour.show(hours.into()),
            FieldKind::DayOfMonth.show(dates.days_of_month.into()),
            FieldKind::Month.show(dates.months.into()),
            FieldKind::DayOfWeek.show(dates.days_of_week.into()),
        )?;
        out.write_str(if dates.either { " (either day)" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::super::zone::Dst;
    use super::*;
    use crate::config::zone::Zone;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn cron(text: &str) -> Cron {
        Cron::parse(text, Days::And).unwrap()
    }

    fn calendar(zone: Zone, dst: Dst) -> Calendar {
        Calendar::new(zone, dst, DateTime::UNIX_EPOCH)
    }

    /// The first occurrences after an instant, in UTC.
    fn chain(text: &str, calendar: &Calendar, after: &str, count: usize) -> Vec<String> {
        let cron = cron(text);
        let chain = std::iter::successors(Some(at(after)), |last| cron.next(*last, calendar));
        let texts = chain.skip(1).take(count).map(|due| due.format("%m-%d %H:%M:%S").to_string());
        texts.collect()
    }

    #[test]
    fn fields_words_and_seconds() {
        assert_eq!(cron(" 0\t7-19/2  * * mon-fri ").to_string(), "0 7-19/2 * * 1-5");
        assert_eq!(cron("@Daily").to_string(), "0 0 * * *");
        assert_eq!(cron("*/10 * * * * *").to_string(), "*/10 * * * * *");
        assert_eq!(cron("0 * * * * *"), cron("* * * * *"));
        let error = |text| Cron::parse(text, Days::And).unwrap_err().to_string();
        assert!(error("* * * *").starts_with("crontab: found * * * *, expected 5 fields"));
        assert!(error("@often").contains("expected one of @yearly @annually"));
        assert_eq!(error("0 25 * * *"), "hour: found 25, expected 0-23");
        let impossible = "day_of_month: found 30,31, expected a day that month_of_year 2 has";
        assert_eq!(error("0 0 30,31 2 *"), impossible);
        assert!(Cron::parse("0 0 30 2 mon", Days::Or).is_ok());
        assert_eq!(cron("0 0 12 ? * MON-FRI").to_string(), "0 12 * * 1-5");
        assert_eq!(cron("0 3 * * 7").to_string(), "0 3 * * 0");
        assert!(error("0 0 12 ? * 2").contains("expected names such as mon-fri"));
        for of_years in ["0 0 12 * * ? 2026", "0 0 12 ? * MON-FRI *", "0 12 * * ? 2026/2"] {
            assert!(error(of_years).ends_with(crate::schedule::fields::NO_YEARS), "{of_years}");
        }
        let either = |text, days| Cron::parse(text, days).unwrap().either_day();
        assert_eq!(either("0 0 1 * 5", Days::Or), Some(true));
        assert_eq!(either("0 0 1 * 5", Days::And), Some(false));
        assert_eq!(either("0 0 1 * *", Days::Or), None);
        assert!(std::mem::size_of::<Cron>() <= 32);
    }

    #[test]
    fn days_of_month_and_week() {
        let utc = calendar(Zone::UTC, Dst::Once);
        let next = |text, days| {
            let cron = Cron::parse(text, days).unwrap();
            let due = cron.next(at("2026-11-21T12:00:00Z"), &utc).unwrap();
            (due.format("%F").to_string(), cron.to_string())
        };
        assert_eq!(next("0 0 13 * fri", Days::And), ("2027-08-13".into(), "0 0 13 * 5".into()));
        let either = "0 0 13 * 5 (either day)";
        assert_eq!(next("0 0 13 * fri", Days::Or), ("2026-11-27".into(), either.into()));
        // As in Vixie's, a field that begins with a star leaves the other to decide.
        assert_eq!(next("0 0 */2 * fri", Days::Or).0, "2026-11-27");
        assert_eq!(next("0 0 */2 * sun", Days::Or).0, "2026-11-29");
        assert_eq!(next("0 0 1-31 * fri", Days::Or), ("2026-11-22".into(), "0 0 * * *".into()));
        assert_eq!(next("0 0 29 2 1", Days::And).0, "2044-02-29");
    }

    #[test]
    fn no_occurrence_beyond_the_years() {
        let utc = calendar(Zone::UTC, Dst::Once);
        assert_eq!(cron("0 0 1 1 *").next(at("2100-01-01T00:00:00Z"), &utc), None);
        assert_eq!(cron("0 0 1 1 *").next(at("9999-01-01T00:00:00Z"), &utc), None);
        assert_eq!(
            cron("0 0 1 1 *").next(at("1900-01-01T00:00:00Z"), &utc),
            Some(DateTime::UNIX_EPOCH)
        );
        let (from, to) = (at("2026-01-02T00:00:00Z"), at("9999-01-01T00:00:00Z"));
        assert_eq!(cron("0 0 1 1 *").latest(from, to, &utc), Some(at("2100-01-01T00:00:00Z")));
    }

    #[test]
    fn parts_of_a_second_count() {
        let utc = calendar(Zone::UTC, Dst::Once);
        let minute = at("2026-11-21T12:00:00Z");
        let before = minute - chrono::TimeDelta::nanoseconds(1);
        assert_eq!(cron("* * * * *").next(before, &utc), Some(minute));
        assert_eq!(cron("* * * * *").latest(before, minute, &utc), Some(minute));
        assert_eq!(cron("* * * * *").latest(minute, minute, &utc), None);
    }

    #[test]
    fn spring_and_autumn() {
        let new_york = calendar(Zone::named("America/New_York").unwrap(), Dst::Once);
        let spring = "2026-03-08T06:00:00Z";
        assert_eq!(chain("30 2 * * *", &new_york, spring, 2), ["03-08 07:00:00", "03-09 06:30:00"]);
        // Several in a gap, and a regular one at its end: one.
        assert_eq!(
            chain("0,15,30 2,3 * * *", &new_york, spring, 3),
            ["03-08 07:00:00", "03-08 07:15:00", "03-08 07:30:00"]
        );
        assert_eq!(chain("30 * * * *", &new_york, spring, 2), ["03-08 06:30:00", "03-08 07:30:00"]);
        let autumn = "2026-11-01T04:45:00Z";
        assert_eq!(chain("30 1 * * *", &new_york, autumn, 2), ["11-01 05:30:00", "11-02 06:30:00"]);
        assert_eq!(
            chain("30 * * * *", &new_york, autumn, 3),
            ["11-01 05:30:00", "11-01 06:30:00", "11-01 07:30:00"]
        );
        let celery = calendar(Zone::named("America/New_York").unwrap(), Dst::Celery);
        assert_eq!(chain("30 2 * * *", &celery, spring, 2), ["03-08 07:30:00", "03-09 06:30:00"]);
        assert_eq!(chain("30 * * * *", &celery, autumn, 2), ["11-01 05:30:00", "11-01 07:30:00"]);
    }

    #[test]
    fn the_crate_agrees_on_whole_schedules() {
        let utc = calendar(Zone::UTC, Dst::Once);
        let mut random = fastrand::Rng::with_seed(5);
        let mut list = |low: u64, high: u64| {
            let values: Vec<_> = (0..random.u64(1..4)).map(|_| random.u64(low..=high)).collect();
            values.iter().map(u64::to_string).collect::<Vec<_>>().join(",")
        };
        for _ in 0..2000 {
            let (second, minute, hour) = (list(0, 59), list(0, 59), list(0, 23));
            let (day, month) = (list(1, 28), list(1, 12));
            let ours = cron(&format!("{second} {minute} {hour} {day} {month} *"));
            let text = format!("{second} {minute} {hour} {day} {month} *");
            let theirs = ::cron::Schedule::from_str(&text).unwrap();
            let after = at("2026-11-21T12:34:56Z");
            assert_eq!(ours.next(after, &utc), theirs.after(&after).next(), "{text}");
            let before = theirs.after(&after).next_back();
            let second = chrono::TimeDelta::seconds(1);
            assert_eq!(ours.latest(DateTime::UNIX_EPOCH, after - second, &utc), before, "{text}");
        }
    }
}
