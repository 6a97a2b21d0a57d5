//! One entry: its keys, the rules between them, and what it becomes. Files of both forms end
//! here: YAML with its mapping, a crontab with its words.

use super::Schedule;
use super::entry::{Entry, EntryLocation, MessageOptions, Misfire, Overlap};
use super::load::FileContext;
use super::moment::{self, Moment};
use super::options::{self, raw};
use super::parse::{self, Means, When};
use super::zone::Calendar;
use crate::bounds;
use crate::config::kind::{Flag, Span, TaskName, ValueKind, kind};
use crate::config::node::{Data, YamlKey, YamlNode};
use crate::config::zone::Zone;
use crate::config::{Faults, units};
use chrono::{DateTime, Utc};
use serde_json::value::RawValue;
use std::sync::Arc;
use std::time::Duration;

/// The keys of an entry, in the order of the manual.
pub const KEYS: [&str; 14] = [
    "task", "schedule", "args", "kwargs", "options", "relative", "timezone", "misfire", "grace",
    "overlap", "jitter", "enabled", "from", "until",
];

/// Words that other programs have for our keys, and keys that Celery's entries have.
const ELSEWHERE: &[(&str, &str)] = &[
    ("crontab", "schedule: {crontab: …}"),
    ("cron", "schedule: {crontab: …}"),
    ("every", "schedule: {every: …}"),
    ("interval", "schedule: {every: …}"),
    ("solar", "schedule: {solar: …}"),
    ("at", "schedule: {every: …, at: …}"),
    ("tz", "timezone"),
    ("start", "from"),
    ("end", "until"),
    ("misfire_grace_time", "grace"),
    ("max_instances", "overlap"),
    ("disabled", "enabled"),
];

/// Keys that Celery's entries have, and that mean nothing here.
const MEANINGLESS: &[(&str, &str)] = &[
    ("name", "the key above is the name"),
    ("last_run_at", "beat keeps the state of its entries itself"),
    ("total_run_count", "beat keeps the state of its entries itself"),
    ("app", "it is an object of a Python program"),
];

kind!(
    /// The key `misfire`.
    MisfireRule: Misfire, "skip, run_once or run_all(N), which sends at most the last N",
    misfire, Misfire::to_string
);
kind!(
    /// The key `overlap`.
    OverlapRule: Overlap, "allow, skip or queue",
    |node| match node.as_text() {
        Some("allow") => Some(Overlap::Allow),
        Some("skip") => Some(Overlap::Skip),
        Some("queue") => Some(Overlap::Queue),
        _ => None,
    },
    Overlap::to_string
);

fn misfire(node: &YamlNode) -> Option<Misfire> {
    let most = match (&node.data, node.as_text()) {
        (Data::Map(map), _) => match &map[..] {
            [(key, most)] if key.text == "run_all" => most.as_int()?,
            _ => return None,
        },
        (_, Some("skip")) => return Some(Misfire::Skip),
        (_, Some("run_once")) => return Some(Misfire::RunOnce),
        (_, Some(text)) => units::whole(text.strip_prefix("run_all(")?.strip_suffix(')')?)?,
        _ => return None,
    };
    u32::try_from(most)
        .ok()
        .filter(|most| (1..=bounds::BEAT_MISSED_MAX).contains(most))
        .map(Misfire::RunAll)
}

/// What the keys of an entry have said so far.
#[derive(Debug, Default)]
pub struct EntryDraft {
    /// The task.
    pub task: Option<String>,
    /// When, and the jitter beside it.
    pub when: Option<When>,
    /// Positional arguments; `None` for none.
    pub args: Option<Box<RawValue>>,
    /// Keyword arguments; `None` for none.
    pub kwargs: Option<Box<RawValue>>,
    /// What else is said of the messages.
    pub options: MessageOptions,
    /// The entry's own zone.
    pub zone: Option<Zone>,
    misfire: Option<Misfire>,
    grace: Option<Duration>,
    overlap: Overlap,
    jitter: Option<Duration>,
    disabled: bool,
    from: Option<DateTime<Utc>>,
    until: Option<DateTime<Utc>>,
}

/// Reads the entry `name`. `None`: it is broken, and `faults` says how.
pub fn define(
    name: &YamlKey,
    node: &YamlNode,
    shared: &mut FileContext<'_>,
    faults: &mut Faults,
) -> Option<Entry> {
    let Data::Map(map) = &node.data else {
        faults.mismatch(node.line, &node.found(), "a mapping with task and schedule in it");
        return None;
    };
    let before = faults.count();
    let mut draft = EntryDraft::default();
    let get = |name: &str| map.iter().find(|(key, _)| key.text == name).map(|(_, value)| value);
    // Others depend on it, so it is read first.
    if let Some(node) = get("timezone") {
        draft.zone = faults.within("timezone", |f| shared.zone(node, f));
    }
    let relative = get("relative").filter(|node| !node.is_null());
    let relative = relative.and_then(|node| faults.within("relative", |f| Flag::read(node, f)));
    let means = Means { days: shared.defaults.days, relative: relative.unwrap_or_default() };
    let calendar = shared.calendar(draft.zone.unwrap_or(shared.zone));
    for (key, value) in map {
        faults.within(&key.text, |f| match key.text.as_str() {
            "timezone" | "relative" => {}
            "task" => draft.task = TaskName::read(value, f),
            "schedule" => draft.when = parse::read(value, means, f),
            "options" => options::read_all(&mut draft.options, value, &calendar, f),
            _ => draft.read(key, value, &calendar, f),
        });
    }
    for (key, given) in [("task", get("task")), ("schedule", get("schedule"))] {
        if given.is_none() {
            faults.add(name.line, format!("has no {key}"));
        }
    }
    let sound = faults.count() == before && !node.is_flawed();
    draft.finish(name, sound, shared, faults)
}

impl EntryDraft {
    /// With this schedule.
    pub fn of(schedule: Option<Schedule>) -> EntryDraft {
        let when = schedule.map(|schedule| When { schedule, jitter: None });
        EntryDraft { when, ..EntryDraft::default() }
    }

    /// Reads one of the keys that stand for themselves; `calendar` is the entry's.
    pub fn read(
        &mut self,
        key: &YamlKey,
        value: &YamlNode,
        calendar: &Calendar,
        faults: &mut Faults,
    ) {
        let name = key.text.as_str();
        if KEYS.contains(&name) && value.is_null() {
            return;
        }
        match name {
            "args" => match &value.data {
                Data::List(list) => self.args = Some(raw(value)).filter(|_| !list.is_empty()),
                _ => faults.mismatch(value.line, value.found_kind(), "a list"),
            },
            "kwargs" => match &value.data {
                Data::Map(map) => self.kwargs = Some(raw(value)).filter(|_| !map.is_empty()),
                _ => {
                    faults.mismatch(value.line, value.found_kind(), "a mapping of names to values");
                }
            },
            "misfire" => self.misfire = MisfireRule::read(value, faults),
            "grace" => self.grace = Span::read(value, faults),
            "overlap" => self.overlap = OverlapRule::read(value, faults).unwrap_or_default(),
            "jitter" => self.jitter = Span::read(value, faults),
            "enabled" => self.disabled = Flag::read(value, faults) == Some(false),
            "from" => self.from = at(value, calendar, moment::instant, faults),
            "until" => self.until = at(value, calendar, moment::last_instant, faults),
            other => refuse(other, key.line, faults),
        }
    }

    /// The entry, if all is `sound` and the rules between keys hold.
    pub fn finish(
        self,
        name: &YamlKey,
        sound: bool,
        shared: &mut FileContext<'_>,
        faults: &mut Faults,
    ) -> Option<Entry> {
        let before = faults.count();
        faults.within("options", |f| options::check(&self.options, name.line, f));
        let jitter = match (self.jitter, self.when.as_ref().and_then(|when| when.jitter)) {
            (Some(_), Some(_)) => {
                faults.add(name.line, "has jitter twice, here and in its schedule");
                None
            }
            (here, there) => here.or(there),
        };
        if let (Some(from), Some(until)) = (self.from, self.until)
            && from >= until
        {
            faults.within("until", |f| f.add(name.line, "is not after from").line);
        }
        let odd = |c: char| c.is_control();
        if name.text.is_empty() {
            faults.add(name.line, "an entry's name is not empty");
        } else if name.text.len() > bounds::ENTRY_NAME_MAX || name.text.contains(odd) {
            let most = bounds::ENTRY_NAME_MAX;
            faults
                .add(name.line, format!("a name has 1 to {most} bytes and no control characters"));
        }
        let (task, when) = (self.task?, self.when?);
        let zone_is_known = self.zone.is_some() || shared.zone_is_known;
        if !sound || faults.count() > before || !zone_is_known {
            return None;
        }
        let schedule = match (when.schedule, self.from) {
            (Schedule::Every(every), Some(from)) => Schedule::Every(every.anchored(from)),
            (schedule, _) => schedule,
        };
        let misfire = self.misfire.unwrap_or_default();
        let deadline = shared
            .defaults
            .starting_deadline
            .filter(|_| matches!(schedule, Schedule::Cron(_)) && misfire != Misfire::Skip);
        Some(Entry {
            name: name.text.as_str().into(),
            task: shared.task(task),
            schedule,
            calendar: shared.calendar(self.zone.unwrap_or(shared.zone)),
            args: self.args.map_or_else(|| shared.no_args.clone(), Arc::from),
            kwargs: self.kwargs.map_or_else(|| shared.no_kwargs.clone(), Arc::from),
            options: Some(self.options).filter(|options| !options.is_empty()).map(Box::new),
            misfire,
            grace: self.grace.or(deadline),
            overlap: self.overlap,
            jitter: jitter.unwrap_or_default(),
            enabled: !self.disabled,
            from: self.from,
            until: self.until,
            origin: EntryLocation {
                file: shared.file.clone(),
                line: u32::try_from(name.line).unwrap_or(u32::MAX),
            },
        })
    }
}

fn at(
    node: &YamlNode,
    calendar: &Calendar,
    instant: fn(Moment, &Calendar) -> Option<DateTime<Utc>>,
    faults: &mut Faults,
) -> Option<DateTime<Utc>> {
    let at = node.as_text().and_then(Moment::parse).and_then(|moment| instant(moment, calendar));
    if at.is_none() {
        faults.mismatch(node.line, &node.found(), moment::EXPECTED);
    }
    at
}

fn refuse(name: &str, line: usize, faults: &mut Faults) {
    if let Some((_, why)) = MEANINGLESS.iter().find(|(known, _)| *known == name) {
        faults.add(line, format!("means nothing here: {why}"));
    } else if options::OPTIONS.contains(&name) {
        faults.add(line, "unknown key").hint = Some(format!("options: {{{name}: …}}"));
    } else if let Some((_, ours)) = ELSEWHERE.iter().find(|(known, _)| *known == name) {
        faults.add(line, "unknown key").hint = Some(ours.to_string());
    } else {
        faults.unknown(line, "key", name, KEYS);
    }
}

#[cfg(test)]
mod tests;
