//! The values of the key `schedule`: numbers, texts and mappings, as Celery's objects and as
//! people write them.

use super::Schedule;
use super::cron::{Cron, CrontabFields, Days};
use super::every::Every;
use super::field::FieldError;
use super::fields::NICKNAMES;
use super::solar::Solar;
use crate::bounds;
use crate::config::Faults;
use crate::config::kind::{Flag, Limit, Span, ValueKind};
use crate::config::node::{Data, YamlKey, YamlNode};
use crate::config::units;
use chrono::NaiveTime;
use std::time::Duration;

/// What a schedule may look like, for "expected …".
pub const EXPECTED: &str = "seconds, a span such as 1h30m, a crontab such as \"*/5 * * * *\", \
    @hourly or the like, or a mapping with crontab, every, timedelta or solar in it";

/// The words of Python's `timedelta`, in microseconds.
const UNITS: &[(&str, f64)] = &[
    ("weeks", 604_800e6),
    ("days", 86_400e6),
    ("hours", 3_600e6),
    ("minutes", 60e6),
    ("seconds", 1e6),
    ("milliseconds", 1e3),
    ("microseconds", 1.0),
];

/// Fields of a crontab, in the order in which a line has them.
pub const FIELDS: [&str; 6] =
    ["second", "minute", "hour", "day_of_month", "month_of_year", "day_of_week"];

/// What goes with which kind of schedule in one mapping.
const COMPANIONS: &[(&str, &[&str])] = &[
    ("crontab", &["jitter"]),
    ("every", &["at", "relative", "jitter"]),
    ("timedelta", &["relative", "jitter"]),
    ("solar", &["lat", "lon", "jitter"]),
];

/// A schedule, and what its mapping says beside it.
#[derive(Debug, Clone, PartialEq)]
pub struct When {
    /// The schedule.
    pub schedule: Schedule,
    /// `jitter`, if it is there.
    pub jitter: Option<Duration>,
}

/// What the schedule of an entry depends on beside its own text.
#[derive(Debug, Clone, Copy)]
pub struct Means {
    /// What day of the month and day of the week are to each other.
    pub days: Days,
    /// The entry's `relative`.
    pub relative: bool,
}

/// Reads the value of `schedule`.
pub fn read(node: &YamlNode, means: Means, faults: &mut Faults) -> Option<When> {
    if let Data::Map(map) = &node.data {
        return of_map(map, node.line, means, faults);
    }
    let schedule = match (node.as_number(), node.as_text()) {
        (Some(seconds), _) => {
            let span = span_of(seconds * 1e6).filter(|span| !span.is_zero());
            if span.is_none() {
                faults.mismatch(node.line, &node.found(), "a number of seconds above 0");
            }
            every(span?, means.relative, None, node.line, faults)
        }
        (_, Some(text)) => of_text(text, node.line, means, faults),
        _ => {
            faults.mismatch(node.line, &node.found(), EXPECTED);
            None
        }
    };
    schedule.map(|schedule| When { schedule, jitter: None })
}

/// Reads a text: a span of time, a word such as `@hourly`, or a crontab.
pub fn of_text(text: &str, line: usize, means: Means, faults: &mut Faults) -> Option<Schedule> {
    let text = text.trim();
    if text.starts_with('@') {
        return of_word(text, line, means, faults);
    }
    let span = text.strip_prefix("every ").unwrap_or(text);
    if let Some(span) = units::duration(span) {
        return of_span(span, text, line, means, faults);
    }
    // One word is no crontab, and may be meant as anything.
    if text.split_whitespace().count() < 2 {
        faults.mismatch(line, &format!("text {text:?}"), EXPECTED);
        return None;
    }
    crontab(text, line, means, faults)
}

fn of_word(text: &str, line: usize, means: Means, faults: &mut Faults) -> Option<Schedule> {
    let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    if NICKNAMES.iter().any(|(name, _)| *name == text) {
        return crontab(text, line, means, faults);
    }
    match word {
        "@reboot" if rest.is_empty() => {
            no_relative(means, line, faults)?;
            Some(Schedule::Reboot)
        }
        "@every" => match units::duration(rest) {
            Some(span) => of_span(span, text, line, means, faults),
            None => {
                let found = if rest.is_empty() { "nothing".into() } else { format!("{rest:?}") };
                faults.mismatch(line, &format!("{found} behind @every"), units::DURATION);
                None
            }
        },
        _ => {
            let words = NICKNAMES.iter().map(|(name, _)| *name).chain(["@reboot", "@every"]);
            let hint = crate::config::nearest(text, words.clone(), 2).join(" or ");
            let fault = faults.add(line, format!("found {text:?}"));
            fault.expected = Some(words.collect::<Vec<_>>().join(", "));
            fault.hint = Some(hint).filter(|hint| !hint.is_empty());
            None
        }
    }
}

fn of_span(
    span: Duration,
    text: &str,
    line: usize,
    means: Means,
    faults: &mut Faults,
) -> Option<Schedule> {
    if span.is_zero() {
        faults.mismatch(line, &format!("text {text:?}"), "a span above 0");
        return None;
    }
    every(span, means.relative, None, line, faults)
}

fn crontab(text: &str, line: usize, means: Means, faults: &mut Faults) -> Option<Schedule> {
    no_relative(means, line, faults)?;
    cron(CrontabFields::of(text), means.days, |_| line, faults)
}

/// Reads fields; `line_of` returns the line of each.
pub fn cron(
    fields: Result<CrontabFields<'_>, FieldError>,
    days: Days,
    line_of: impl Fn(&str) -> usize,
    faults: &mut Faults,
) -> Option<Schedule> {
    match fields.and_then(|fields| Ok((fields, Cron::from_fields(fields, days)?))) {
        Ok((fields, cron)) => {
            for (field, said) in fields.lone_steps() {
                faults.within(field, |f| f.note(line_of(field), said));
            }
            Some(Schedule::Cron(cron))
        }
        Err(wrong) => {
            report(&wrong, line_of(wrong.field), faults);
            None
        }
    }
}

/// What only an interval can be.
fn no_relative(means: Means, line: usize, faults: &mut Faults) -> Option<()> {
    if means.relative {
        faults.add(line, "is no interval, which alone can be relative");
    }
    (!means.relative).then_some(())
}

fn every(
    span: Duration,
    relative: bool,
    at: Option<NaiveTime>,
    line: usize,
    faults: &mut Faults,
) -> Option<Schedule> {
    if span < bounds::EVERY_MIN {
        let expected = format!("{} or more", units::show_duration(bounds::EVERY_MIN));
        faults.mismatch(line, &units::show_duration(span), &expected);
        return None;
    }
    let every = Every::new(span, relative, at);
    every.map_err(|wrong| report(&wrong, line, faults)).ok().map(Schedule::Every)
}

/// Says what the schedule itself has found.
pub fn report(wrong: &FieldError, line: usize, faults: &mut Faults) {
    let found = if wrong.found.is_empty() { "nothing" } else { &wrong.found };
    match wrong.field {
        // Its number of fields, which is no field.
        "crontab" => faults.mismatch(line, &format!("text {found:?}"), &wrong.expected),
        field => faults.within(field, |f| f.mismatch(line, found, &wrong.expected)),
    }
}

/// This many microseconds, the resolution of Python.
fn span_of(micros: f64) -> Option<Duration> {
    units::duration_of(micros.round() / 1e6).map(|_| Duration::from_micros(micros.round() as u64))
}

fn of_map(
    map: &[(YamlKey, YamlNode)],
    line: usize,
    means: Means,
    faults: &mut Faults,
) -> Option<When> {
    let kind = kind_of(map, line, faults)?;
    let companions = COMPANIONS.iter().find(|(name, _)| *name == kind).map_or(&[][..], |(_, c)| c);
    let before = faults.count();
    let get = |name: &str| map.iter().find(|(key, _)| key.text == name).map(|(_, value)| value);
    let mut means = means;
    let mut jitter = None;
    for (key, value) in map {
        let name = key.text.as_str();
        // The words of a timedelta stand in it, or without its name here.
        let spelt = get(kind).is_none() && UNITS.iter().any(|(unit, _)| *unit == name);
        faults.within(name, |faults| match name {
            _ if name == kind || spelt => {}
            _ if !companions.contains(&name) => stray(key, kind, companions, faults),
            "jitter" => jitter = Span::read(value, faults),
            "relative" => means.relative = Flag::read(value, faults).unwrap_or(means.relative),
            _ => {}
        });
    }
    let schedule = match (kind, get(kind)) {
        ("crontab", Some(node)) => faults.within(kind, |f| of_crontab(node, means, f)),
        ("every", Some(node)) => of_every(node, get("at"), means, faults),
        ("solar", Some(node)) => of_solar(node, get("lat"), get("lon"), means, faults),
        (_, Some(node)) => faults.within(kind, |f| match &node.data {
            Data::Map(words) => of_timedelta(words, node.line, means, f),
            _ => {
                f.mismatch(node.line, &node.found(), "a mapping such as {minutes: 5}");
                None
            }
        }),
        (_, None) => {
            let is_unit = |key: &YamlKey| UNITS.iter().any(|(unit, _)| *unit == key.text);
            let words: Vec<_> = map.iter().filter(|(key, _)| is_unit(key)).cloned().collect();
            of_timedelta(&words, line, means, faults)
        }
    };
    schedule.filter(|_| faults.count() == before).map(|schedule| When { schedule, jitter })
}

/// Which kind of schedule a mapping is: it has the key of exactly one.
fn kind_of(map: &[(YamlKey, YamlNode)], line: usize, faults: &mut Faults) -> Option<&'static str> {
    let has = |name: &str| map.iter().any(|(key, _)| key.text == name);
    let mut kinds: Vec<&str> =
        COMPANIONS.iter().map(|(name, _)| *name).filter(|name| has(name)).collect();
    if UNITS.iter().any(|(unit, _)| has(unit)) {
        kinds.push("timedelta");
        kinds.dedup();
    }
    if let Some((key, _)) = map.iter().find(|(key, _)| FIELDS.contains(&key.text.as_str()))
        && kinds.is_empty()
    {
        faults.within(&key.text, |f| {
            f.add(key.line, "is a field of a crontab, which has a key of its own").expected =
                Some(format!("crontab: {{{}: …}}", key.text));
        });
        return None;
    }
    match kinds[..] {
        [kind] => Some(kind),
        [] => {
            let names = || COMPANIONS.iter().map(|(name, _)| *name);
            let units = UNITS.iter().map(|(unit, _)| *unit);
            let near = map.iter().find_map(|(key, _)| {
                crate::config::nearest(&key.text, names().chain(units.clone()), 1).pop()
            });
            let fault = faults.add(line, "has none of crontab, every, timedelta and solar");
            fault.hint = near.map(String::from);
            None
        }
        _ => {
            faults.add(line, format!("has {}, expected only one of them", kinds.join(" and ")));
            None
        }
    }
}

fn stray(key: &YamlKey, kind: &str, companions: &[&str], faults: &mut Faults) {
    if COMPANIONS.iter().any(|(_, others)| others.contains(&key.text.as_str())) {
        faults.add(key.line, format!("means nothing beside {kind}"));
        return;
    }
    faults.unknown(key.line, "key", &key.text, companions.iter().copied());
}

/// A text, or a mapping of fields.
fn of_crontab(node: &YamlNode, means: Means, faults: &mut Faults) -> Option<Schedule> {
    let Data::Map(map) = &node.data else {
        return match node.as_text() {
            Some(text) if text.starts_with('@') && !text.starts_with("@every") => {
                of_word(text, node.line, means, faults)
            }
            Some(text) => crontab(text, node.line, means, faults),
            None => {
                let expected = "a text such as \"*/5 * * * *\", or a mapping of fields";
                faults.mismatch(node.line, &node.found(), expected);
                None
            }
        };
    };
    no_relative(means, node.line, faults)?;
    let before = faults.count();
    let mut texts: [Option<String>; 6] = Default::default();
    for (key, value) in map {
        faults.within(&key.text, |faults| match FIELDS.iter().position(|f| *f == key.text) {
            Some(at) => texts[at] = field(value, faults),
            None => faults.unknown(key.line, "field", &key.text, FIELDS),
        });
    }
    if faults.count() > before {
        return None;
    }
    // Celery's defaults.
    let [second, minute, hour, day_of_month, month_of_year, day_of_week] =
        texts.each_ref().map(Option::as_deref);
    let fields = CrontabFields {
        second,
        minute: minute.unwrap_or("*"),
        hour: hour.unwrap_or("*"),
        day_of_month: day_of_month.unwrap_or("*"),
        month_of_year: month_of_year.unwrap_or("*"),
        day_of_week: day_of_week.unwrap_or("*"),
    };
    let line_of = |field: &str| {
        let given = map.iter().find(|(key, _)| key.text == field);
        given.map_or(node.line, |(_, value)| value.line)
    };
    cron(Ok(fields), means.days, line_of, faults)
}

/// A number, a text, or a list of them.
fn field(node: &YamlNode, faults: &mut Faults) -> Option<String> {
    const EXPECTED: &str = "a number, a text such as \"7-19/2\", or a list of them";
    let single = |node: &YamlNode| match node.as_int() {
        // 010 is ten, in a text as well.
        Some(number) => Some(number.to_string()),
        None => node.as_text().filter(|_| node.as_number().is_none()).map(String::from),
    };
    let list = match &node.data {
        Data::List(list) => list.as_slice(),
        _ => std::slice::from_ref(node),
    };
    if list.is_empty() {
        faults.mismatch(node.line, "an empty list", EXPECTED);
        return None;
    }
    let texts: Option<Vec<String>> = list
        .iter()
        .map(|one| {
            let text = single(one);
            if text.is_none() {
                faults.mismatch(one.line, &one.found(), EXPECTED);
            }
            text
        })
        .collect();
    texts.map(|texts| texts.join(","))
}

fn of_every(
    node: &YamlNode,
    at: Option<&YamlNode>,
    means: Means,
    faults: &mut Faults,
) -> Option<Schedule> {
    let span = faults.within("every", |f| Limit::read(node, f));
    let at = match at {
        None => None,
        Some(at) => Some(faults.within("at", |f| time(at, f))?),
    };
    every(span?, means.relative, at, node.line, faults)
}

/// A time of the day.
fn time(node: &YamlNode, faults: &mut Faults) -> Option<NaiveTime> {
    let text = node.as_text().unwrap_or_default();
    let time =
        ["%H:%M", "%H:%M:%S"].iter().find_map(|form| NaiveTime::parse_from_str(text, form).ok());
    if time.is_none() {
        faults.mismatch(node.line, &node.found(), "a time of the day such as \"00:15\"");
    }
    time
}

/// Python's `timedelta`.
fn of_timedelta(
    words: &[(YamlKey, YamlNode)],
    line: usize,
    means: Means,
    faults: &mut Faults,
) -> Option<Schedule> {
    let before = faults.count();
    let mut micros = 0.0;
    for (key, value) in words {
        faults.within(&key.text, |f| match UNITS.iter().find(|(unit, _)| *unit == key.text) {
            None => f.unknown(key.line, "unit", &key.text, UNITS.iter().map(|(unit, _)| *unit)),
            Some((_, scale)) => match value.as_number() {
                Some(number) => micros += (number * scale).round(),
                None => f.mismatch(value.line, &value.found(), "a number"),
            },
        });
    }
    if faults.count() > before {
        return None;
    }
    match span_of(micros).filter(|span| !span.is_zero()) {
        Some(span) => every(span, means.relative, None, line, faults),
        None => {
            faults.mismatch(line, &format!("{} s in all", micros / 1e6), "a time above 0");
            None
        }
    }
}

fn of_solar(
    event: &YamlNode,
    lat: Option<&YamlNode>,
    lon: Option<&YamlNode>,
    means: Means,
    faults: &mut Faults,
) -> Option<Schedule> {
    no_relative(means, event.line, faults)?;
    let name = event.as_text();
    if name.is_none() {
        faults.within("solar", |f| {
            f.mismatch(event.line, &event.found(), "an event such as sunset");
        });
    }
    let mut degrees = |key: &str, node: Option<&YamlNode>, expected: &str| {
        faults.within(key, |f| {
            let number = node.and_then(YamlNode::as_number);
            if number.is_none() {
                let found = node.map_or("nothing".into(), YamlNode::found);
                f.mismatch(node.map_or(event.line, |node| node.line), &found, expected);
            }
            number
        })
    };
    let lat = degrees("lat", lat, "degrees, -90 (south) to 90 (north)");
    let lon = degrees("lon", lon, "degrees, -180 (west) to 180 (east)");
    let solar = Solar::new(name?, lat?, lon?);
    solar.map_err(|wrong| report(&wrong, event.line, faults)).ok().map(Schedule::Solar)
}

#[cfg(test)]
mod tests;
