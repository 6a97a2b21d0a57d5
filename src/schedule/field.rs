//! One field of a crontab: from its text to the set of its values, by Celery's grammar.
//!
//! A field is a list, separated by commas, of `*`, `*/step`, `value`, `from-to`,
//! `from-to/step`. A range whose end is before its start continues at the field's first value
//! (`22-2`, `sat-mon`). Steps of `*` count from the field's first value, so `*/10` of the days
//! of a month are 1, 11, 21 and 31. Of a second step (`*/15/2`) Celery takes no notice.

use std::fmt;

/// What is wrong with a schedule, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// Celery's name of the field, such as `day_of_week`.
    pub field: &'static str,
    /// What was found.
    pub found: String,
    /// What is expected there.
    pub expected: String,
}

impl FieldError {
    /// An error of this field.
    pub fn new(field: &'static str, found: &str, expected: impl Into<String>) -> FieldError {
        FieldError { field, found: found.to_string(), expected: expected.into() }
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = if self.found.is_empty() { "nothing" } else { &self.found };
        write!(out, "{}: found {found}, expected {}", self.field, self.expected)
    }
}

impl std::error::Error for FieldError {}

/// The kinds of fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FieldKind {
    Second,
    Minute,
    Hour,
    DayOfMonth,
    Month,
    DayOfWeek,
}

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];

const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

impl FieldKind {
    pub(super) fn name(self) -> &'static str {
        match self {
            FieldKind::Second => "second",
            FieldKind::Minute => "minute",
            FieldKind::Hour => "hour",
            FieldKind::DayOfMonth => "day_of_month",
            FieldKind::Month => "month_of_year",
            FieldKind::DayOfWeek => "day_of_week",
        }
    }

    /// The first value and the last.
    pub(super) fn range(self) -> (u64, u64) {
        match self {
            FieldKind::Second | FieldKind::Minute => (0, 59),
            FieldKind::Hour => (0, 23),
            FieldKind::DayOfMonth => (1, 31),
            FieldKind::Month => (1, 12),
            FieldKind::DayOfWeek => (0, 6),
        }
    }

    /// All values.
    pub(super) fn all(self) -> u64 {
        let (min, max) = self.range();
        (min..=max).fold(0, |mask, value| mask | 1 << value)
    }

    fn error(self, found: &str, expected: impl Into<String>) -> FieldError {
        FieldError::new(self.name(), found, expected)
    }

    /// What is none of the field's values; some of it means something elsewhere.
    fn no_value(self, found: &str) -> FieldError {
        let mut expected = self.expected();
        if is_of_quartz(found) && matches!(self, FieldKind::DayOfMonth | FieldKind::DayOfWeek) {
            expected += ": last days (L), working days (W) and nth weekdays (#) are not supported";
        }
        self.error(found, expected)
    }

    fn expected(self) -> String {
        let (min, max) = self.range();
        match self {
            FieldKind::Month => "1-12 or jan-dec".into(),
            FieldKind::DayOfWeek => "0-7 (Sunday is 0 and 7) or sun-sat".into(),
            _ => format!("{min}-{max}"),
        }
    }

    /// Reads a field: bit N is set if N is one of its values.
    pub(super) fn parse(self, text: &str) -> Result<u64, FieldError> {
        text.split(',').try_fold(0, |mask, part| Ok(mask | self.part(part.trim())?))
    }

    /// What is right, and may not be what its author thinks: a step as long as its range or longer
    /// leaves the first value alone, as in Celery.
    pub(super) fn lone_steps(self, text: &str) -> Vec<String> {
        let unit = match self {
            FieldKind::Second => "s",
            FieldKind::Minute => "m",
            FieldKind::Hour => "h",
            FieldKind::DayOfMonth => "d",
            FieldKind::Month | FieldKind::DayOfWeek => "",
        };
        let lone = |part: &str| {
            let (from, count, step) = self.span(part).ok()?;
            let interval = match unit {
                "" => String::new(),
                unit => format!("; an interval is @every {step}{unit}"),
            };
            let why = "the step is not shorter than the range";
            (count > 1 && step >= count)
                .then(|| format!("{part} means {from} alone: {why}{interval}"))
        };
        text.split(',')
            .filter(|part| part.contains('/'))
            .filter_map(|part| lone(part.trim()))
            .collect()
    }

    fn part(self, part: &str) -> Result<u64, FieldError> {
        let (min, max) = self.range();
        let (from, count, step) = self.span(part)?;
        let steps = (0..count).step_by(usize::try_from(step).unwrap_or(usize::MAX));
        let value =
            |nth: u64| if from + nth <= max { from + nth } else { from + nth - max - 1 + min };
        Ok(steps.fold(0, |mask, nth| mask | 1 << value(nth)))
    }

    /// The first value, how many there are from it on, and the step.
    fn span(self, part: &str) -> Result<(u64, u64, u64), FieldError> {
        let (base, mut steps) = match part.split_once('/') {
            Some((base, steps)) => (base, Some(steps.split('/'))),
            None => (part, None),
        };
        let step = match steps.as_mut().map(|steps| steps.next().unwrap_or_default()) {
            None => 1,
            Some(step) => match digits(step) {
                Some(step) if step > 0 => step,
                _ => return Err(self.error(part, "a number from 1 after the /")),
            },
        };
        let (min, max) = self.range();
        let any = base == "*"
            || part == "?" && matches!(self, FieldKind::DayOfMonth | FieldKind::DayOfWeek);
        let (from, to) = match base.split_once('-') {
            _ if any => (min, max),
            Some(("", _)) => return Err(self.no_value(part)),
            Some((from, to)) => {
                let (from, to) = (self.value(from)?, self.value(to)?);
                // Sunday is the first and the last: 5-7, 7-2.
                if from > max { (min, if to > max { min } else { to }) } else { (from, to) }
            }
            None if steps.is_some() => {
                let expected = format!("*/{step} or a range such as {base}-{max}/{step}");
                return Err(self.error(part, expected));
            }
            None => {
                let value = self.value(base)?;
                if value > max { (min, min) } else { (value, value) }
            }
        };
        let count = if from <= to { to - from + 1 } else { max - from + 1 + to - min + 1 };
        Ok((from, count, step))
    }

    /// A number, or what begins with the three letters of a name.
    fn value(self, text: &str) -> Result<u64, FieldError> {
        let (min, max) = self.range();
        if is_of_quartz(text) && matches!(self, FieldKind::DayOfMonth | FieldKind::DayOfWeek) {
            return Err(self.no_value(text));
        }
        let number = digits(text).or_else(|| {
            let names: &[&str] = match self {
                FieldKind::Month => &MONTHS,
                FieldKind::DayOfWeek => &WEEKDAYS,
                _ => &[],
            };
            let is_word = text.bytes().all(|byte| byte.is_ascii_alphabetic());
            let start = text.get(..3).filter(|_| is_word)?;
            let at = names.iter().position(|name| name.eq_ignore_ascii_case(start))?;
            Some(at as u64 + min)
        });
        let last = if self == FieldKind::DayOfWeek { max + 1 } else { max };
        number.filter(|number| (min..=last).contains(number)).ok_or_else(|| self.no_value(text))
    }

    /// Writes a set of values so that [`FieldKind::parse`] reads the same, always in the same way.
    pub(super) fn show(self, mask: u64) -> String {
        if mask == self.all() {
            return "*".into();
        }
        let (min, max) = self.range();
        let values: Vec<u64> = (min..=max).filter(|value| mask >> value & 1 == 1).collect();
        let (first, count) = (values[0], values.len());
        if let [_, second, ..] = values[..] {
            let step = second - first;
            let even = values.windows(2).all(|pair| pair[1] - pair[0] == step);
            let whole = (max + 1 - min).is_multiple_of(step);
            if even && first == min && values[count - 1] + step > max && (count > 2 || whole) {
                return format!("*/{step}");
            }
            if even && step > 1 && count > 2 {
                return format!("{first}-{}/{step}", values[count - 1]);
            }
        }
        let runs = values.chunk_by(|one, next| one + 1 == *next);
        let parts: Vec<String> = runs
            .flat_map(|run| match run {
                [first, _, .., last] => vec![format!("{first}-{last}")],
                few => few.iter().map(u64::to_string).collect(),
            })
            .collect();
        parts.join(",")
    }
}

/// Whether it is a day in the form of Quartz and its like: `L`, `L-3`, `5L`, `15W`, `LW`, `mon#1`.
pub(super) fn is_of_quartz(part: &str) -> bool {
    let part = part.to_ascii_uppercase();
    let rest = part.trim_start_matches(|c: char| c.is_ascii_digit());
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    matches!(rest, "L" | "W" | "LW")
        || part.strip_prefix("L-").is_some_and(is_number)
        || part.split_once('#').is_some_and(|(_, nth)| is_number(nth))
        || part
            .strip_suffix('L')
            .is_some_and(|day| WEEKDAYS.iter().any(|w| w.eq_ignore_ascii_case(day)))
}

/// A number in decimal digits alone: no sign, no blanks.
fn digits(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(kind: FieldKind, text: &str) -> Vec<u64> {
        let mask = kind.parse(text).unwrap();
        (0..64).filter(|value| mask >> value & 1 == 1).collect()
    }

    fn error(kind: FieldKind, text: &str) -> String {
        kind.parse(text).unwrap_err().to_string()
    }

    #[test]
    fn values_ranges_steps_and_names() {
        assert_eq!(values(FieldKind::Minute, "5"), [5]);
        assert_eq!(values(FieldKind::Minute, "05, 7"), [5, 7]);
        assert_eq!(values(FieldKind::Minute, "50-5/5"), [0, 5, 50, 55]);
        assert_eq!(values(FieldKind::Hour, "22-2"), [0, 1, 2, 22, 23]);
        assert_eq!(values(FieldKind::Hour, "*/7"), [0, 7, 14, 21]);
        assert_eq!(values(FieldKind::Hour, "*/7/2"), [0, 7, 14, 21]);
        assert_eq!(values(FieldKind::DayOfMonth, "*/10"), [1, 11, 21, 31]);
        assert_eq!(values(FieldKind::DayOfMonth, "31-2"), [1, 2, 31]);
        assert_eq!(values(FieldKind::DayOfWeek, "sat-Monday"), [0, 1, 6]);
        for (text, days) in [
            ("7", vec![0]),
            ("5-7", vec![0, 5, 6]),
            ("0-7", vec![0, 1, 2, 3, 4, 5, 6]),
            ("7-2", vec![0, 1, 2]),
            ("7-7", vec![0]),
            ("1,7", vec![0, 1]),
            ("1-7/2", vec![0, 1, 3, 5]),
            ("?", vec![0, 1, 2, 3, 4, 5, 6]),
        ] {
            assert_eq!(values(FieldKind::DayOfWeek, text), days, "{text}");
        }
        assert_eq!(values(FieldKind::DayOfMonth, "?").len(), 31);
        assert_eq!(values(FieldKind::Month, "jan,Sept,11-dec"), [1, 9, 11, 12]);
        assert_eq!(values(FieldKind::Month, "*/99"), [1]);
    }

    #[test]
    fn a_step_that_leaves_one_value_is_told() {
        let said = FieldKind::Minute.lone_steps("*/90, 5,10-30/21,*/59,7-7/9");
        assert_eq!(
            said,
            [
                "*/90 means 0 alone: the step is not shorter than the range; an interval is @every 90m",
                "10-30/21 means 10 alone: the step is not shorter than the range; an interval is \
                 @every 21m",
            ]
        );
        assert_eq!(
            FieldKind::DayOfWeek.lone_steps("*/7"),
            ["*/7 means 0 alone: the step is not shorter than the range"]
        );
        for fine in ["*", "*/15", "0-59/59", "*/x", "61"] {
            assert_eq!(FieldKind::Minute.lone_steps(fine), [""; 0], "{fine}");
        }
    }

    #[test]
    fn errors_say_what_was_expected() {
        assert_eq!(error(FieldKind::Hour, "25"), "hour: found 25, expected 0-23");
        assert_eq!(
            error(FieldKind::DayOfWeek, "8"),
            "day_of_week: found 8, expected 0-7 (Sunday is 0 and 7) or sun-sat"
        );
        for text in ["L", "5L", "friL", "mon#1", "5#3"] {
            let said = error(FieldKind::DayOfWeek, text);
            assert!(said.ends_with("nth weekdays (#) are not supported"), "{said}");
        }
        for text in ["L", "L-3", "15W", "LW"] {
            assert!(error(FieldKind::DayOfMonth, text).contains("are not supported"), "{text}");
        }
        assert!(error(FieldKind::Minute, "?").ends_with("expected 0-59"));
        assert_eq!(error(FieldKind::Minute, "1,,2"), "minute: found nothing, expected 0-59");
        assert_eq!(
            error(FieldKind::Minute, "5/10"),
            "minute: found 5/10, expected */10 or a range such as 5-59/10"
        );
        for text in ["*/0", "*/", "*/x", "1-5/", "1-5/-2"] {
            assert!(
                error(FieldKind::Minute, text).ends_with("expected a number from 1 after the /")
            );
        }
        for text in ["-1", "mon", "1-", "1-5-7", "1 2", "*-5", "**", "٣", "1_0", "+1", "é"] {
            assert!(error(FieldKind::Minute, text).ends_with("expected 0-59"), "{text}");
        }
        assert!(error(FieldKind::Month, "mon").ends_with("expected 1-12 or jan-dec"));
        assert!(error(FieldKind::DayOfMonth, "0").ends_with("expected 1-31"));
    }

    #[test]
    fn what_is_shown_reads_the_same() {
        for text in ["*", "*/15", "*/30", "5", "0,29", "7-19/2", "1-5", "0,30-35,59", "3,4"] {
            assert_eq!(FieldKind::Minute.show(FieldKind::Minute.parse(text).unwrap()), text);
        }
        for mask in 1..128 {
            assert_eq!(FieldKind::DayOfWeek.parse(&FieldKind::DayOfWeek.show(mask)), Ok(mask));
        }
        assert_eq!(FieldKind::Hour.show(FieldKind::Hour.parse("0-23").unwrap()), "*");
        assert_eq!(
            FieldKind::DayOfMonth.show(FieldKind::DayOfMonth.parse("*/10").unwrap()),
            "*/10"
        );
    }
}
