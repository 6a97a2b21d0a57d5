//! The fields of a crontab, each by its name: from a line or a word to their texts.

use super::field::{FieldError, FieldKind};

/// Names that stand for five fields.
pub(super) const NICKNAMES: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

/// What a crontab looks like.
const FORM: &str = "5 fields (minute hour day_of_month month_of_year day_of_week), or 6 with the \
    second first";

/// What to do about the last field of Quartz and its like.
pub(super) const NO_YEARS: &str =
    "a field of years is not supported: leave it out, and see from and until";

/// Whether the field can only be one of years: `2026`, `2026-2030`, `2026/2`.
pub(super) fn is_year(field: &str) -> bool {
    field
        .split([',', '-', '/'])
        .next()
        .is_some_and(|first| first.len() == 4 && first.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The texts of the fields, by Celery's names.
#[derive(Debug, Clone, Copy)]
pub struct CrontabFields<'a> {
    /// 0-59.
    pub minute: &'a str,
    /// 0-23.
    pub hour: &'a str,
    /// 1-31.
    pub day_of_month: &'a str,
    /// 1-12 or names.
    pub month_of_year: &'a str,
    /// 0-6 from Sunday, or names.
    pub day_of_week: &'a str,
    /// 0-59; none: at the start of the minute.
    pub second: Option<&'a str>,
}

/// Each minute; those that are given replace their field.
impl Default for CrontabFields<'_> {
    fn default() -> Self {
        CrontabFields {
            minute: "*",
            hour: "*",
            day_of_month: "*",
            month_of_year: "*",
            day_of_week: "*",
            second: None,
        }
    }
}

impl<'a> CrontabFields<'a> {
    /// Splits a text into five fields, or six with seconds first; a nickname such as `@daily` stands for five.
    ///
    /// # Errors
    /// The field is `crontab`: their number is wrong.
    pub fn of(text: &'a str) -> Result<CrontabFields<'a>, FieldError> {
        let mut text = text.trim();
        if text.starts_with('@') {
            let word = NICKNAMES.iter().find(|(word, _)| word.eq_ignore_ascii_case(text));
            let names: Vec<&str> = NICKNAMES.iter().map(|(word, _)| *word).collect();
            let unknown =
                || FieldError::new("crontab", text, format!("one of {}", names.join(" ")));
            text = word.ok_or_else(unknown)?.1;
        }
        let fields: Vec<&str> = text.split_whitespace().collect();
        let (second, fields) = match fields[..] {
            [second, ref fields @ ..] if fields.len() == 5 => (Some(second), fields),
            ref fields => (None, fields),
        };
        let of_year = second.is_some() && fields.last().is_some_and(|last| is_year(last));
        let [minute, hour, day_of_month, month_of_year, day_of_week] = *fields else {
            let years = if fields.len() == 7 { format!("; {NO_YEARS}") } else { String::new() };
            return Err(FieldError::new("crontab", text, format!("{FORM}{years}")));
        };
        if of_year {
            return Err(FieldError::new("crontab", text, format!("{FORM}; {NO_YEARS}")));
        }
        Ok(CrontabFields { minute, hour, day_of_month, month_of_year, day_of_week, second })
    }

    /// What may not be what its author thinks, by the field: steps that leave one value.
    pub fn lone_steps(&self) -> Vec<(&'static str, String)> {
        let all = [
            (FieldKind::Second, self.second.unwrap_or_default()),
            (FieldKind::Minute, self.minute),
            (FieldKind::Hour, self.hour),
            (FieldKind::DayOfMonth, self.day_of_month),
            (FieldKind::Month, self.month_of_year),
            (FieldKind::DayOfWeek, self.day_of_week),
        ];
        let of = |(kind, text): (FieldKind, &str)| {
            kind.lone_steps(text).into_iter().map(move |said| (kind.name(), said))
        };
        all.into_iter().flat_map(of).collect()
    }
}
