//! Durations, sizes and rates as people write them, and back.

use std::time::Duration;

/// Longer than this no duration is, a hundred years: instants can be computed with it
/// without care for overflow.
pub const DURATION_MAX: Duration = Duration::from_secs(100 * 365 * 86_400);

/// What becomes of a task that a worker does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unregistered {
    /// It waits in its queue for a worker that does.
    Wait,
    /// It is tried some times, and then kept in the dead-letter list.
    Dead,
}

/// Starts per second, as Celery's `rate_limit` means it; 0 is no limit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate(pub f64);

/// How much must be left of something.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Least {
    /// So many bytes.
    Bytes(u64),
    /// So much of all there is, 0 to 1.
    Part(f64),
}

/// What a duration may look like, for "expected …"; [`DURATION_MAX`] is the most.
pub const DURATION: &str = "a duration up to 36500d: seconds, or words such as 90s, 5m, 1h30m, 1d";

/// What a size may look like, for "expected …".
pub const SIZE: &str = "a size: bytes, or words such as 64K, 1.5MiB, 2G";

/// What a size or a part may look like, for "expected …".
pub const LEAST: &str = "a size such as 500M, or a part such as 10%";

/// What a rate may look like, for "expected …".
pub const RATE: &str = "a rate: starts per second, or words such as 10/s, 5/m, 100/h";

const TIMES: [(&str, f64); 6] =
    [("w", 604_800.0), ("d", 86_400.0), ("h", 3_600.0), ("m", 60.0), ("s", 1.0), ("ms", 0.001)];

const SIZES: [(&str, f64); 5] = [
    ("", 1.0),
    ("K", 1024.0),
    ("M", 1_048_576.0),
    ("G", 1_073_741_824.0),
    ("T", 1_099_511_627_776.0),
];

/// Reads a time span: [`seconds`] that are not negative.
pub fn duration(text: &str) -> Option<Duration> {
    seconds(text).and_then(duration_of)
}

/// Reads `90`, `90s`, `1h30m`, `1.5d`, `250ms`: units in any order, each once. A sign stands in
/// front of all; [`DURATION_MAX`] is the most in both directions.
pub fn seconds(text: &str) -> Option<f64> {
    let text = text.trim();
    let seconds = match (number(text), text.strip_prefix('-')) {
        (Some(seconds), _) => seconds,
        (None, Some(span)) => -in_words(span)?,
        (None, None) => in_words(text.strip_prefix('+').unwrap_or(text))?,
    };
    Some(seconds).filter(|seconds| is_bounded(*seconds))
}

/// Is it, in seconds, no longer than the longest duration?
pub(super) fn is_bounded(seconds: f64) -> bool {
    seconds.abs() <= DURATION_MAX.as_secs_f64()
}

fn in_words(text: &str) -> Option<f64> {
    let (mut rest, mut seconds, mut seen) = (text, 0.0, Vec::new());
    while !rest.is_empty() {
        let (digits, after) = split_where(rest, |c| !c.is_ascii_digit() && c != '.');
        let (unit, after) = split_where(after, |c| !c.is_ascii_alphabetic());
        let (name, scale) = TIMES.iter().find(|(name, _)| *name == unit)?;
        if seen.contains(name) {
            return None;
        }
        seen.push(*name);
        seconds += number(digits)? * scale;
        rest = after.trim_start();
    }
    (!seen.is_empty()).then_some(seconds)
}

/// A duration of so many seconds, if it is none of those that cannot be: negative,
/// infinite, or longer than [`DURATION_MAX`].
pub fn duration_of(seconds: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(seconds).ok().filter(|d| *d <= DURATION_MAX)
}

/// Writes a duration so that [`duration`] reads the same: `1d`, `1h30m`, `2.5s`.
pub fn show_duration(duration: Duration) -> String {
    if duration.is_zero() {
        return "0s".into();
    }
    let (mut left, mut text) = (duration.as_secs(), String::new());
    for (unit, scale) in [("d", 86_400), ("h", 3_600), ("m", 60)] {
        if left >= scale {
            text.push_str(&format!("{}{unit}", left / scale));
            left %= scale;
        }
    }
    let rest = Duration::new(left, duration.subsec_nanos()).as_secs_f64();
    if rest > 0.0 {
        text.push_str(&format!("{rest}s"));
    }
    text
}

/// Reads bytes: `1048576`, `64K`, `64KiB`, `1.5M`, `2g`. Every unit is a power of 1024.
pub fn size(text: &str) -> Option<u64> {
    if let Some(bytes) = number(text) {
        return size_of(bytes);
    }
    let text = text.trim();
    let text = text.strip_prefix('+').unwrap_or(text);
    let (digits, unit) = split_where(text, |c| !c.is_ascii_digit() && c != '.');
    let unit = unit.trim_start().to_ascii_uppercase();
    let letter = unit.strip_suffix("IB").or(unit.strip_suffix('B').filter(|rest| rest.is_empty()));
    let (_, scale) = SIZES.iter().find(|(name, _)| *name == letter.unwrap_or(&unit))?;
    size_of(number(digits)? * scale)
}

/// A size of so many bytes; a part of a byte is dropped.
pub fn size_of(bytes: f64) -> Option<u64> {
    (bytes >= 0.0 && bytes < i64::MAX as f64).then_some(bytes as u64)
}

/// Writes a size so that [`size`] reads the same: `1MiB`, `1000`.
pub fn show_size(bytes: u64) -> String {
    let units = [("TiB", 1u64 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match units.iter().find(|(_, scale)| bytes >= *scale && bytes.is_multiple_of(*scale)) {
        Some((name, scale)) => format!("{}{name}", bytes / scale),
        None => bytes.to_string(),
    }
}

/// Reads `500M` or `10%`; more than all and less than a byte are neither.
pub fn least(text: &str) -> Option<Least> {
    match text.trim().strip_suffix('%') {
        Some(part) => {
            let part = number(part.trim_end())? / 100.0;
            (part > 0.0 && part <= 1.0).then_some(Least::Part(part))
        }
        None => size(text).filter(|bytes| *bytes > 0).map(Least::Bytes),
    }
}

/// Writes it so that [`least`] reads the same.
pub fn show_least(least: Least) -> String {
    match least {
        Least::Bytes(bytes) => show_size(bytes),
        Least::Part(part) => format!("{}%", part * 100.0),
    }
}

/// Reads Celery's rates: `10/s`, `5/m`, `100/h`, or a number of starts per second.
pub fn rate(text: &str) -> Option<Rate> {
    let (count, per) = text.trim().split_once('/').unwrap_or((text.trim(), "s"));
    let seconds = match per.trim() {
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3_600.0,
        _ => return None,
    };
    number(count).filter(|count| *count >= 0.0).map(|count| Rate(count / seconds))
}

/// Writes a rate so that [`rate`] reads the same, as nearly as `/h` can say it.
pub fn show_rate(rate: Rate) -> String {
    let whole = |n: f64| (n - n.round()).abs() < 1e-9;
    let units = [("s", 1.0), ("m", 60.0), ("h", 3_600.0)];
    let unit = units.iter().find(|(_, scale)| whole(rate.0 * scale));
    match unit {
        Some((name, scale)) => format!("{}/{name}", (rate.0 * scale).round()),
        None => format!("{}/s", rate.0),
    }
}

/// Reads a finite number in decimal digits: `5`, `-0.5`, `1e3`. Blanks around it do not count, as
/// in Python.
pub fn number(text: &str) -> Option<f64> {
    let text = text.trim();
    // Rust also reads the words inf and nan.
    let shaped = text.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
    text.parse().ok().filter(|number: &f64| shaped && number.is_finite())
}

/// Reads a whole number in decimal digits: `5`, `-5`, `+5`, `05`. Blanks around it do not count, as
/// in Python.
pub fn whole(text: &str) -> Option<i64> {
    text.trim().parse().ok()
}

/// Splits before the first character of which `is_end` holds.
fn split_where(text: &str, is_end: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(is_end).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let cases = [
            ("90", Some(90.0)),
            ("90s", Some(90.0)),
            ("5m", Some(300.0)),
            ("1h30m", Some(5400.0)),
            ("1h 30m", Some(5400.0)),
            ("1.5h", Some(5400.0)),
            ("1d", Some(86400.0)),
            ("250ms", Some(0.25)),
            ("0.5", Some(0.5)),
            (" 2w ", Some(1_209_600.0)),
            ("0", Some(0.0)),
            ("", None),
            ("s", None),
            ("-1", None),
            ("-1s", None),
            ("+5", Some(5.0)),
            ("+5m", Some(300.0)),
            ("1e3", Some(1000.0)),
            ("1e3s", None),
            ("+-5", None),
            ("0x10", None),
            ("1_000", None),
            ("\u{661}", None),
            ("1h1h", None),
            ("5 minutes", None),
            ("1y", None),
            ("inf", None),
            ("nan", None),
            ("1e9", Some(1e9)),
            ("1e10", None),
            ("99999d", None),
            ("1..5s", None),
            ("1h30", None),
        ];
        for (text, seconds) in cases {
            assert_eq!(duration(text).map(|d| d.as_secs_f64()), seconds, "{text}");
        }
    }

    #[test]
    fn seconds_have_a_sign() {
        for (text, expected) in [
            ("-1", Some(-1.0)),
            (" -1.5 ", Some(-1.5)),
            ("-1h30m", Some(-5400.0)),
            ("5m", Some(300.0)),
            ("--5m", None),
            ("-+5m", None),
            ("- 5m", None),
            ("-", None),
            ("-99999d", None),
            ("-inf", None),
        ] {
            assert_eq!(seconds(text), expected, "{text}");
        }
    }

    #[test]
    fn whole_numbers() {
        for (text, expected) in [
            ("5", Some(5)),
            ("05", Some(5)),
            ("+5", Some(5)),
            ("-5", Some(-5)),
            (" 5 ", Some(5)),
            ("5\n", Some(5)),
            ("", None),
            ("5.0", None),
            ("1e3", None),
            ("0x10", None),
            ("0o7", None),
            ("1_000", None),
            ("1 000", None),
            ("\u{661}", None),
            ("+-5", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(whole(text), expected, "{text}");
        }
    }

    #[test]
    fn sizes() {
        let cases = [
            ("1048576", Some(1 << 20)),
            ("64K", Some(65536)),
            ("64KiB", Some(65536)),
            ("64 kib", Some(65536)),
            ("1.5M", Some(1_572_864)),
            ("2G", Some(2 << 30)),
            ("1T", Some(1 << 40)),
            ("5B", Some(5)),
            ("1e3", Some(1000)),
            ("+1K", Some(1024)),
            ("0", Some(0)),
            ("", None),
            ("K", None),
            ("64KB", None),
            ("-1K", None),
            ("9999999999T", None),
            ("1 e3", None),
        ];
        for (text, bytes) in cases {
            assert_eq!(size(text), bytes, "{text}");
        }
    }

    #[test]
    fn what_must_be_left() {
        let cases = [
            ("500M", Some(Least::Bytes(500 << 20))),
            ("1024", Some(Least::Bytes(1024))),
            ("10%", Some(Least::Part(0.1))),
            (" 12.5 % ", Some(Least::Part(0.125))),
            ("100%", Some(Least::Part(1.0))),
            ("101%", None),
            ("0%", None),
            ("0", None),
            ("-1%", None),
            ("%", None),
            ("lots", None),
        ];
        for (text, expected) in cases {
            assert_eq!(least(text), expected, "{text}");
            assert_eq!(expected.and_then(|value| least(&show_least(value))), expected, "{text}");
        }
    }

    #[test]
    fn rates() {
        let cases = [
            ("10/s", Some(10.0)),
            ("5/m", Some(5.0 / 60.0)),
            ("100/h", Some(100.0 / 3600.0)),
            ("2.5", Some(2.5)),
            ("1e3/s", Some(1000.0)),
            ("0", Some(0.0)),
            ("1 / m", Some(1.0 / 60.0)),
            ("10/d", None),
            ("/s", None),
            ("", None),
            ("-1/s", None),
            ("fast", None),
        ];
        for (text, per_second) in cases {
            assert_eq!(rate(text), per_second.map(Rate), "{text}");
        }
    }

    #[test]
    fn any_text_is_read_or_refused() {
        let letters: Vec<char> = "0123456789.../-+eshmdwKiBTG é".chars().collect();
        let mut random = fastrand::Rng::with_seed(2);
        for _ in 0..50_000 {
            let text: String =
                (0..random.usize(..12)).map(|_| letters[random.usize(..letters.len())]).collect();
            if let Some(span) = duration(&text) {
                assert!(span <= DURATION_MAX);
                let again = duration(&show_duration(span)).unwrap();
                assert!(again.abs_diff(span) < Duration::from_micros(1), "{text}");
            }
            if let Some(bytes) = size(&text) {
                assert_eq!(size(&show_size(bytes)), Some(bytes), "{text}");
            }
            if let Some(Rate(per_second)) = rate(&text) {
                let again = rate(&show_rate(Rate(per_second))).unwrap().0;
                assert!((again - per_second).abs() <= per_second * 1e-6 + 1e-9, "{text}");
            }
        }
    }

    #[test]
    fn what_is_shown_reads_the_same() {
        for millis in [0, 1, 250, 999, 1000, 1500, 60_000, 86_400_000, 90_061_001, 604_800_000] {
            let value = Duration::from_millis(millis);
            assert_eq!(duration(&show_duration(value)), Some(value), "{}", show_duration(value));
        }
        for bytes in [0, 1, 1000, 1024, 1 << 20, (1 << 20) + 1, 5 << 30, 3 << 40] {
            assert_eq!(size(&show_size(bytes)), Some(bytes));
        }
        for text in ["10/s", "5/m", "100/h", "0/s", "0.123/s"] {
            assert_eq!(rate(&show_rate(rate(text).unwrap())), rate(text));
        }
        assert_eq!(show_duration(Duration::from_secs(86_400)), "1d");
        assert_eq!(show_size(512 << 20), "512MiB");
    }
}
