//! Intervals: plain ones, Celery's relative ones, and those that begin at a time of the day.

use super::field::FieldError;
use super::zone::{Calendar, DAY, LocalTimeRule, Pass, Pattern};
use crate::config::units::show_duration;
use chrono::{DateTime, NaiveTime, SecondsFormat, TimeDelta, Timelike, Utc};
use std::fmt;
use std::time::Duration;

/// Longer periods, of a hundred years, are none.
const PERIOD_MAX: Duration = Duration::from_secs(100 * 366 * DAY as u64);

/// Occurrences of a time of day that come this often, in seconds, or more often follow real time.
const REAL_TIME_MAX: i64 = 3600;

/// An interval, checked. With an anchor, occurrences are whole periods from there: plain ones,
/// and those of several days that have a time of the day.
///
/// * Plain: each occurrence is one period of real time after the one before.
/// * `relative`: as Celery's `relative=True`. The end of the period is rounded down, in local
///   time, to the day if the period has a day or more, to the hour, to the minute, or to the
///   second. Days are days of the calendar.
/// * `at`: every day at this local time, and at all whole periods before and after it within
///   the day; a period of several days counts them from its anchor, or from 1970-01-01. Periods up to an hour
///   follow real time when clocks are changed, longer ones are fixed local times.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Every {
    period: Duration,
    relative: bool,
    at: Option<NaiveTime>,
    anchor: Option<DateTime<Utc>>,
}

impl Every {
    /// An interval of this period.
    ///
    /// # Errors
    /// If the period is zero or longer than a hundred years; with `at` also if it is neither a
    /// divisor of a day nor whole days, if `at` has parts of a second, and if it is relative too.
    pub fn new(
        period: Duration,
        relative: bool,
        at: Option<NaiveTime>,
    ) -> Result<Every, FieldError> {
        let wrong = |expected| Err(FieldError::new("every", &show_duration(period), expected));
        if period.is_zero() || period > PERIOD_MAX {
            return wrong("more than nothing, and no more than 100 years");
        }
        if let Some(at) = at {
            let day = Duration::from_secs(DAY as u64).as_nanos();
            let (period, second) = (period.as_nanos(), Duration::from_secs(1).as_nanos());
            let is_even = day.is_multiple_of(period) && period.is_multiple_of(second);
            if !is_even && !period.is_multiple_of(day) {
                return wrong("with at: a part of a day that fits in it evenly, or whole days");
            }
            if at.nanosecond() != 0 {
                return Err(FieldError::new("at", &at.to_string(), "HH:MM or HH:MM:SS"));
            }
            if relative {
                let found = "true, with at";
                return Err(FieldError::new("relative", found, "one of relative and at"));
            }
        }
        Ok(Every { period, relative, at, anchor: None })
    }

    /// The same, counted from `anchor`, where that makes a difference.
    pub fn anchored(self, anchor: DateTime<Utc>) -> Every {
        let counts = match self.at {
            Some(_) => self.period.as_secs() > DAY as u64,
            None => !self.relative,
        };
        Every { anchor: counts.then_some(anchor), ..self }
    }

    /// From one occurrence to the next, when clocks are not changed.
    pub fn period(&self) -> Duration {
        self.period
    }

    /// Whether each occurrence is simply one period after the one before.
    pub fn is_plain(&self) -> bool {
        self.at.is_none() && self.rounding().is_none()
    }

    /// The first occurrence after `after`.
    pub fn next(&self, after: DateTime<Utc>, calendar: &Calendar) -> Option<DateTime<Utc>> {
        match (self.at, self.rounding()) {
            (Some(at), _) => calendar.next(after, self.rule(), &self.times(at, calendar)),
            (None, Some(unit)) => self.deadline(after, unit, calendar),
            (None, None) => match self.anchor {
                Some(anchor) if after < anchor => Some(anchor),
                Some(anchor) => self.later(anchor, self.whole(anchor, after)? + 1),
                None => after.checked_add_signed(self.delta()),
            },
        }
    }

    /// The last occurrence of a chain from `after` that is not later than `until`.
    pub fn latest(
        &self,
        after: DateTime<Utc>,
        until: DateTime<Utc>,
        calendar: &Calendar,
    ) -> Option<DateTime<Utc>> {
        match (self.at, self.rounding()) {
            (Some(at), _) => calendar.latest(after, until, self.rule(), &self.times(at, calendar)),
            (None, Some(unit)) => self.latest_deadline(after, until, unit, calendar),
            (None, None) => {
                let from = self.anchor.unwrap_or(after);
                let due = self.later(from, self.whole(from, until)?)?;
                Some(due).filter(|due| *due > after)
            }
        }
    }

    /// How many whole periods lie between; none if `until` is before `from`.
    fn whole(&self, from: DateTime<Utc>, until: DateTime<Utc>) -> Option<u128> {
        Some((until - from).to_std().ok()?.as_nanos() / self.period.as_nanos())
    }

    /// This many periods after `from`.
    fn later(&self, from: DateTime<Utc>, count: u128) -> Option<DateTime<Utc>> {
        let whole = i128::try_from(count * self.period.as_nanos()).ok()?;
        let second = 1_000_000_000;
        let seconds = i64::try_from(whole / second).ok()?;
        from.checked_add_signed(TimeDelta::new(seconds, (whole % second) as u32)?)
    }

    fn times(&self, at: NaiveTime, calendar: &Calendar) -> Times {
        let local =
            |anchor: DateTime<Utc>| anchor.timestamp() + calendar.piece(anchor.timestamp()).offset;
        let from = self.anchor.map_or(0, |anchor| local(anchor).div_euclid(DAY));
        Times { from, ..Times::new(self.period, at) }
    }

    fn delta(&self) -> TimeDelta {
        // Within the bounds of a delta: see PERIOD_MAX.
        TimeDelta::from_std(self.period).unwrap_or(TimeDelta::MAX)
    }

    fn rule(&self) -> LocalTimeRule {
        match self.period.as_secs() <= REAL_TIME_MAX as u64 {
            true => LocalTimeRule::Real,
            false => LocalTimeRule::Fixed,
        }
    }

    /// To how many seconds ends of a relative period are rounded; those of less than a second
    /// are not.
    fn rounding(&self) -> Option<i64> {
        let seconds = self.period.as_secs() as i64;
        let unit = [DAY, 3600, 60, 1].into_iter().find(|unit| seconds >= *unit);
        unit.filter(|_| self.relative)
    }

    /// The next occurrence of a relative one: Celery's `remaining`, step by step.
    fn deadline(
        &self,
        after: DateTime<Utc>,
        unit: i64,
        calendar: &Calendar,
    ) -> Option<DateTime<Utc>> {
        let exact = after.checked_add_signed(self.delta())?;
        // Deadlines are whole seconds, so parts of a second decide nothing below.
        let (start, end) = (after.timestamp(), exact.timestamp());
        let offset = |at| calendar.piece(at).offset;
        let by_clock = end + offset(start);
        let rounded = if unit == DAY {
            let days = rounded(by_clock, unit, calendar);
            let future = days.into_iter().filter(|at| *at > start).min();
            future.unwrap_or_else(|| calendar.instant(by_clock, Pass::First))
        } else {
            let by_time = end + offset(end);
            let both = rounded(by_time, unit, calendar);
            let in_time = both.into_iter().filter(|at| *at <= end).max();
            let rounded_down = in_time.unwrap_or(both[0].min(both[1]));
            if unit > 1 && rounded_down <= start {
                // Clocks are put back between: the next boundary of the clock, or of the calendar.
                let more =
                    [rounded(by_time + unit, unit, calendar), rounded(by_clock, unit, calendar)];
                let all = [both, more[0], more[1]].concat();
                let future = || all.iter().copied().filter(|at| *at > start);
                let in_time = future().filter(|at| *at <= end).max();
                in_time.or(future().min()).unwrap_or(end)
            } else {
                rounded_down
            }
        };
        let rounded = DateTime::from_timestamp(rounded, 0)?;
        Some(if rounded > after { rounded } else { exact })
    }

    /// Walks from deadline to deadline near changes of clocks, and leaps between them.
    fn latest_deadline(
        &self,
        after: DateTime<Utc>,
        until: DateTime<Utc>,
        unit: i64,
        calendar: &Calendar,
    ) -> Option<DateTime<Utc>> {
        let mut last = self.deadline(after, unit, calendar).filter(|due| *due <= until)?;
        let seconds = self.period.as_secs() as i64;
        let step = seconds - seconds % unit;
        loop {
            // A deadline follows from the time since the one before, and a day around it.
            let piece = calendar.piece(last.timestamp());
            let even = (piece.to - seconds - 2 * DAY).min(until.timestamp());
            let steps = (even - last.timestamp()) / step;
            if last.timestamp() >= piece.from + 2 * DAY && steps > 0 {
                last += TimeDelta::seconds(steps * step);
            }
            match self.deadline(last, unit, calendar).filter(|due| *due <= until) {
                Some(due) => last = due,
                None => return Some(last),
            }
        }
    }
}

/// A local time rounded down, and when clocks show that: both instants if it comes twice. One
/// in a gap is put off by the length of the gap.
fn rounded(local: i64, unit: i64, calendar: &Calendar) -> [i64; 2] {
    let local = local.div_euclid(unit) * unit;
    if calendar.exists(local) {
        return [Pass::First, Pass::Second].map(|pass| calendar.instant(local, pass));
    }
    let offset = |local| local - calendar.instant(local, Pass::First);
    let moved = local + offset(local + DAY) - offset(local - DAY);
    [calendar.instant(moved, Pass::First); 2]
}

/// The local times of an interval that has a time of the day.
struct Times {
    /// Every so many days,
    days: i64,
    /// counted from this one.
    from: i64,
    /// Seconds between two times of a day.
    step: i64,
    /// The first of a day.
    first: i64,
}

impl Times {
    fn new(period: Duration, at: NaiveTime) -> Times {
        let period = period.as_secs() as i64;
        let step = period.min(DAY);
        let at = i64::from(at.num_seconds_from_midnight());
        Times { days: (period / DAY).max(1), from: 0, step, first: at % step }
    }
}

impl Pattern for Times {
    fn day_from(&self, day: i64) -> Option<i64> {
        self.day_until(day + self.days - 1)
    }

    fn day_until(&self, day: i64) -> Option<i64> {
        Some(day - (day - self.from).rem_euclid(self.days))
    }

    fn time_from(&self, second: i64) -> Option<i64> {
        let steps = (second - self.first + self.step - 1).div_euclid(self.step).max(0);
        Some(self.first + steps * self.step).filter(|second| *second < DAY)
    }

    fn time_until(&self, second: i64) -> Option<i64> {
        let steps = (second - self.first).div_euclid(self.step);
        (steps >= 0).then(|| self.first + steps * self.step)
    }
}

impl fmt::Display for Every {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "every {}", show_duration(self.period))?;
        match self.at {
            Some(at) if at.second() != 0 => write!(out, " at {}", at.format("%H:%M:%S"))?,
            Some(at) => write!(out, " at {}", at.format("%H:%M"))?,
            None if self.relative => out.write_str(" relative")?,
            None => {}
        }
        match self.anchor {
            Some(anchor) => {
                write!(out, " from {}", anchor.to_rfc3339_opts(SecondsFormat::AutoSi, true))
            }
            None => Ok(()),
        }
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

    fn every(seconds: f64) -> Every {
        Every::new(Duration::from_secs_f64(seconds), false, None).unwrap()
    }

    fn daily(period: u64, time: &str) -> Result<Every, FieldError> {
        Every::new(Duration::from_secs(period), false, Some(time.parse().unwrap()))
    }

    fn calendar(zone: Zone) -> Calendar {
        Calendar::new(zone, Dst::Once, DateTime::UNIX_EPOCH)
    }

    fn chain(every: Every, zone: Zone, after: &str, count: usize) -> Vec<String> {
        let calendar = calendar(zone);
        let chain = std::iter::successors(Some(at(after)), |last| every.next(*last, &calendar));
        chain.skip(1).take(count).map(|due| due.format("%d %H:%M:%S").to_string()).collect()
    }

    #[test]
    fn plain() {
        let utc = calendar(Zone::UTC);
        let after = at("2026-11-21T12:00:00.25Z");
        assert_eq!(every(5.0).next(after, &utc), Some(at("2026-11-21T12:00:05.25Z")));
        let until = at("2026-11-21T12:00:20Z");
        assert_eq!(every(5.0).latest(after, until, &utc), Some(at("2026-11-21T12:00:15.25Z")));
        assert_eq!(every(0.5).latest(after, until, &utc), Some(at("2026-11-21T12:00:19.75Z")));
        assert_eq!(every(20.0).latest(after, until, &utc), None);
        assert_eq!(every(5.0).latest(until, after, &utc), None);
    }

    #[test]
    fn at_a_time_of_the_day() {
        let six = daily(21_600, "07:15").unwrap();
        let oslo = Zone::named("Europe/Oslo").unwrap();
        assert_eq!(
            chain(six, oslo, "2026-11-21T00:00:00Z", 4),
            ["21 00:15:00", "21 06:15:00", "21 12:15:00", "21 18:15:00"]
        );
        // Fixed local times when clocks are put forward; real time up to an hour.
        assert_eq!(
            chain(daily(86_400, "02:30:05").unwrap(), oslo, "2026-03-28T12:00:00Z", 2),
            ["29 01:00:00", "30 00:30:05"]
        );
        assert_eq!(
            chain(daily(3600, "00:30").unwrap(), oslo, "2026-10-25T00:00:00Z", 3),
            ["25 00:30:00", "25 01:30:00", "25 02:30:00"]
        );
        let third = daily(3 * 86_400, "00:00").unwrap();
        let dues = chain(third, Zone::UTC, "1970-01-01T00:00:00Z", 2);
        assert_eq!(dues, ["04 00:00:00", "07 00:00:00"]);
    }

    #[test]
    fn an_anchor_is_what_is_counted_from() {
        let oslo = Zone::named("Europe/Oslo").unwrap();
        // A Wednesday: every other one from then on.
        let fortnight = daily(14 * 86_400, "09:00").unwrap().anchored(at("2026-12-01T23:00:00Z"));
        let dues = chain(fortnight, oslo, "2026-12-01T23:00:00Z", 3);
        assert_eq!(dues, ["02 08:00:00", "16 08:00:00", "30 08:00:00"]);
        let calendar = calendar(oslo);
        let latest = |after, until| fortnight.latest(at(after), at(until), &calendar);
        assert_eq!(
            latest("2026-12-01T00:00:00Z", "2026-12-29T00:00:00Z"),
            Some(at("2026-12-16T08:00:00Z"))
        );
        let plain = every(90.0).anchored(at("2026-12-01T00:00:30Z"));
        let dues = chain(plain, oslo, "2026-11-30T00:00:00Z", 3);
        assert_eq!(dues, ["01 00:00:30", "01 00:02:00", "01 00:03:30"]);
        assert_eq!(chain(plain, oslo, "2026-12-01T00:02:10Z", 1), ["01 00:03:30"]);
        let latest = |after, until| plain.latest(at(after), at(until), &calendar);
        let some = Some(at("2026-12-01T00:02:00Z"));
        assert_eq!(latest("2026-12-01T00:00:40Z", "2026-12-01T00:03:00Z"), some);
        assert_eq!(latest("2026-12-01T00:02:00Z", "2026-12-01T00:03:00Z"), None);
        assert_eq!(latest("2026-11-30T00:02:00Z", "2026-11-30T10:03:00Z"), None);
        assert_eq!(plain.to_string(), "every 1m30s from 2026-12-01T00:00:30Z");
        assert_eq!(
            daily(3600, "00:30").unwrap().anchored(at("2026-12-01T00:00:30Z")).to_string(),
            "every 1h at 00:30"
        );
    }

    #[test]
    fn relative_ones_are_rounded() {
        let relative = |seconds| Every::new(Duration::from_secs(seconds), true, None).unwrap();
        let after = "2026-11-21T10:20:30.5Z";
        assert_eq!(chain(relative(3600), Zone::UTC, after, 2), ["21 11:00:00", "21 12:00:00"]);
        assert_eq!(chain(relative(90), Zone::UTC, after, 2), ["21 10:22:00", "21 10:23:00"]);
        assert_eq!(chain(relative(7), Zone::UTC, after, 2), ["21 10:20:37", "21 10:20:44"]);
        assert_eq!(
            chain(relative(86_400), Zone::named("Europe/Oslo").unwrap(), after, 2),
            ["21 23:00:00", "22 23:00:00"]
        );
    }

    #[test]
    fn errors_say_what_was_expected() {
        let error = |result: Result<Every, FieldError>| result.unwrap_err().to_string();
        let even = "expected with at: a part of a day that fits in it evenly, or whole days";
        assert_eq!(error(daily(25_200, "00:15")), format!("every: found 7h, {even}"));
        assert_eq!(error(daily(129_600, "00:15")), format!("every: found 1d12h, {even}"));
        let nothing = error(Every::new(Duration::ZERO, false, None));
        assert!(nothing.starts_with("every: found 0s, expected more than nothing"));
        assert!(error(daily(3600, "00:15:00.5")).starts_with("at: found 00:15:00.500"));
        let both = Every::new(Duration::from_secs(60), true, Some(NaiveTime::MIN));
        assert!(error(both).starts_with("relative: found true, with at"));
    }

    #[test]
    fn texts() {
        assert_eq!(every(5.0).to_string(), "every 5s");
        assert_eq!(daily(21_600, "00:15").unwrap().to_string(), "every 6h at 00:15");
        assert_eq!(daily(60, "00:00:30").unwrap().to_string(), "every 1m at 00:00:30");
        let relative = Every::new(Duration::from_secs(5400), true, None).unwrap();
        assert_eq!(relative.to_string(), "every 1h30m relative");
    }
}
