//! Entries from YAML: the files `schedule.yaml` and the setting `beat_schedule`. A mistake costs
//! the entry it is in; the others are read.

use super::cron::Days;
use super::define::define;
use super::entry::Entry;
use super::rules::{BuiltInZones, HostZones};
use super::zone::{Calendar, Dst};
use crate::config::beat::{BeatSchedule, DaysRule, DstRule, ZoneName};
use crate::config::kind::ValueKind;
use crate::config::node::{Data, YamlKey, YamlNode};
use crate::config::yaml::{self, Visit};
use crate::config::zone::Zone;
use crate::config::{Diagnostic, Faults, Settings};
use chrono::{DateTime, Utc};
use serde_json::value::RawValue;
use std::borrow::Borrow;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// The keys of a file.
const KEYS: [&str; 2] = ["timezone", "entries"];

/// Words that other programs have for the key of the entries, in lower case.
const ELSEWHERE: [&str; 12] = [
    "beat_schedule",
    "celerybeat_schedule",
    "celery_beat_schedule",
    "cron",
    "crontab",
    "crontabs",
    "jobs",
    "periodic_tasks",
    "schedule",
    "schedules",
    "scheduler",
    "tasks",
];

/// What is said of entries outside of them.
#[derive(Debug, Clone)]
pub struct Defaults {
    /// The zone of entries whose file says none.
    pub zone: Zone,
    /// What happens when clocks are changed.
    pub dst: Dst,
    /// What day of the month and day of the week are to each other in a crontab.
    pub days: Days,
    /// The same in a crontab file.
    pub days_of_crontabs: Days,
    /// The grace of crontab entries that have none of their own.
    pub starting_deadline: Option<Duration>,
    /// When the host was started.
    pub boot: DateTime<Utc>,
    /// Whose rules of zones hold, where it has any.
    pub host: Rc<dyn HostZones>,
}

impl Defaults {
    /// Those of the settings, on a host that was started at `boot`; zones by the built-in rules.
    pub fn new(settings: &Settings, boot: DateTime<Utc>) -> Defaults {
        Defaults {
            zone: settings.timezone,
            dst: match settings.beat_dst {
                DstRule::Once => Dst::Once,
                DstRule::Celery => Dst::Celery,
            },
            // Each form means what it means in the program that it comes from.
            days: settings.beat_days.map_or(Days::And, days),
            days_of_crontabs: settings.beat_days.map_or(Days::Or, days),
            starting_deadline: settings.beat_cron_starting_deadline,
            boot,
            host: Rc::new(BuiltInZones),
        }
    }
}

fn days(rule: DaysRule) -> Days {
    match rule {
        DaysRule::And => Days::And,
        DaysRule::Or => Days::Or,
    }
}

/// What the entries of one file have in common, each of it held once.
#[derive(Debug)]
pub struct FileContext<'a> {
    /// What is said of entries elsewhere.
    pub defaults: &'a Defaults,
    /// The file.
    pub file: Arc<str>,
    /// The zone of entries that say none.
    pub zone: Zone,
    /// Whether it is known. Entries that depend on an unknown zone are left out.
    pub zone_is_known: bool,
    /// `[]`.
    pub no_args: Arc<RawValue>,
    /// `{}`.
    pub no_kwargs: Arc<RawValue>,
    tasks: HashSet<Arc<str>>,
    calendars: HashMap<Zone, Arc<Calendar>>,
    /// Zones that were asked for; looking for the nearest names takes time.
    zones: HashMap<String, Result<Zone, Diagnostic>>,
}

impl FileContext<'_> {
    /// Nothing is held yet.
    pub fn new<'a>(file: &str, defaults: &'a Defaults) -> FileContext<'a> {
        let empty = |text: &str| RawValue::from_string(text.into()).unwrap_or_default().into();
        FileContext {
            defaults,
            file: file.into(),
            zone: defaults.zone,
            zone_is_known: true,
            no_args: empty("[]"),
            no_kwargs: empty("{}"),
            tasks: HashSet::new(),
            calendars: HashMap::new(),
            zones: HashMap::new(),
        }
    }

    /// The name of a task.
    pub fn task(&mut self, name: String) -> Arc<str> {
        if let Some(known) = self.tasks.get(name.as_str()) {
            return known.clone();
        }
        let name: Arc<str> = name.into();
        self.tasks.insert(name.clone());
        name
    }

    /// The calendar of a zone.
    pub fn calendar(&mut self, zone: Zone) -> Arc<Calendar> {
        let Defaults { dst, boot, ref host, .. } = *self.defaults;
        let new = || Arc::new(Calendar::new(zone, dst, boot).by(host.rules(zone)));
        self.calendars.entry(zone).or_insert_with(new).clone()
    }

    /// A zone by its name; null is that of the file.
    pub fn zone(&mut self, node: &YamlNode, faults: &mut Faults) -> Option<Zone> {
        if node.is_null() {
            return Some(self.zone);
        }
        let Some(text) = node.as_text() else { return ZoneName::mismatch(node, faults) };
        if !self.zones.contains_key(text) {
            let mut found = Faults::new(&self.file);
            let zone = ZoneName::read(node, &mut found);
            let wrong = || Diagnostic::new("", None, "");
            let read = zone.ok_or_else(|| found.into_vec().pop().unwrap_or_else(wrong));
            self.zones.insert(text.into(), read);
        }
        match &self.zones[text] {
            Ok(zone) => Some(*zone),
            Err(wrong) => {
                let fault = faults.add(node.line, wrong.message.clone());
                fault.expected = wrong.expected.clone();
                fault.hint = wrong.hint.clone();
                fault.zone = wrong.zone.clone();
                None
            }
        }
    }
}

/// Reads a file `{timezone: …, entries: {name: entry}}`. Every mistake of it is among the
/// diagnostics, and an entry with one is left out; behind a syntax error nothing is read.
pub fn yaml(file: &str, text: &str, defaults: &Defaults) -> (Vec<Entry>, Vec<Diagnostic>) {
    let (entries, found, zone) = read_file(file, text, None, defaults);
    match zone {
        // The file says it after its entries.
        Some(zone) => {
            let (entries, found, _) = read_file(file, text, Some(zone), defaults);
            (entries, found)
        }
        None => (entries, found),
    }
}

/// Reads a file whose zone is known to be `zone`. The last value is the zone of the file if it
/// was found too late.
fn read_file(
    file: &str,
    text: &str,
    zone: Option<Zone>,
    defaults: &Defaults,
) -> (Vec<Entry>, Vec<Diagnostic>, Option<Zone>) {
    let mut shared = FileContext::new(file, defaults);
    let mut entries = Vec::new();
    let (mut seen, mut late) = (0, None);
    shared.zone = zone.unwrap_or(shared.zone);
    let found = yaml::visit(file, text, "entries", &mut |visit, faults| match visit {
        Visit::Entry(key, node) => {
            seen += 1;
            entries.extend(entry(&key, &node, &mut shared, faults));
        }
        Visit::Above(key, node) => match key.text.as_str() {
            "timezone" => {
                let read = faults.within("timezone", |f| shared.zone(&node, f));
                shared.zone_is_known = read.is_some();
                if let Some(read) = read {
                    late = Some(read).filter(|read| seen > 0 && *read != shared.zone);
                    shared.zone = read;
                }
            }
            "entries" => mapping("entries", &node, faults, &mut |key, node, f| {
                seen += 1;
                entries.extend(entry(key, node, &mut shared, f));
            }),
            // A home for anchors.
            hidden if hidden.starts_with('.') => {}
            other => faults.within(other, |f| stray(other, &key, &node, f)),
        },
        Visit::Other(node) if node.is_null() => {}
        Visit::Other(node) => {
            faults.mismatch(node.line, &node.found(), "a mapping with entries in it");
        }
    });
    if !shared.zone_is_known {
        entries.clear();
    }
    (entries, found, late)
}

/// One entry; a name that begins with a dot is hidden, as a file is: a home for anchors.
fn entry(
    key: &YamlKey,
    node: &YamlNode,
    shared: &mut FileContext<'_>,
    faults: &mut Faults,
) -> Option<Entry> {
    if key.text.starts_with('.') {
        return None;
    }
    faults.within(&key.text, |f| define(key, node, shared, f))
}

/// A key that a file has not: an entry may stand where its name should be, or the setting.
fn stray(name: &str, key: &YamlKey, node: &YamlNode, faults: &mut Faults) {
    let has = |wanted: &str| match &node.data {
        Data::Map(map) => map.iter().any(|(key, _)| key.text == wanted),
        _ => false,
    };
    let is_entry = has("task") || has("schedule");
    if is_entry || ELSEWHERE.contains(&name.to_ascii_lowercase().as_str()) {
        let expected =
            if is_entry { format!("entries: {{{name}: …}}") } else { "entries:".into() };
        faults.add(key.line, "unknown key").hint = Some(expected);
        return;
    }
    faults.unknown(key.line, "key", name, KEYS);
}

fn mapping(
    name: &str,
    node: &YamlNode,
    faults: &mut Faults,
    each: &mut dyn FnMut(&YamlKey, &YamlNode, &mut Faults),
) {
    match &node.data {
        Data::Map(map) => map.iter().for_each(|(key, node)| each(key, node, faults)),
        _ if node.is_null() => {}
        _ => faults.within(name, |f| {
            f.mismatch(node.line, &node.found(), "a mapping of names to entries");
        }),
    }
}

/// Reads the value of the setting `beat_schedule`.
pub fn setting(plan: &BeatSchedule, defaults: &Defaults) -> (Vec<Entry>, Vec<Diagnostic>) {
    let mut faults = Faults::new(&plan.file);
    let mut shared = FileContext::new(&plan.file, defaults);
    let mut entries = Vec::new();
    if let Some(node) = &plan.entries {
        faults.within("beat_schedule", |f| {
            mapping("", node, f, &mut |key, node, f| {
                entries.extend(entry(key, node, &mut shared, f));
            });
        });
    }
    (entries, faults.into_vec())
}

/// The entries of several files as one schedule, in their order. Of two entries with one name the
/// first stays; the other is reported with both places.
pub fn merge<E: Borrow<Entry>>(files: Vec<Vec<E>>) -> (Vec<E>, Vec<Diagnostic>) {
    let mut places: HashMap<Arc<str>, usize> = HashMap::new();
    let mut entries: Vec<E> = Vec::with_capacity(files.iter().map(Vec::len).sum());
    let mut found = Vec::new();
    for entry in files.into_iter().flatten() {
        let name = entry.borrow().name.clone();
        if let Some(first) = places.get(&name) {
            found.push(double(entries[*first].borrow(), entry.borrow()));
            continue;
        }
        places.insert(name, entries.len());
        entries.push(entry);
    }
    (entries, found)
}

fn double(first: &Entry, second: &Entry) -> Diagnostic {
    let place = |entry: &Entry| format!("{}:{}", entry.origin.file, entry.origin.line);
    let message = format!("is defined already, at {}", place(first));
    let line = Some(second.origin.line as usize).filter(|line| *line > 0);
    Diagnostic::new(&second.origin.file, line, message).of_key(&*second.name)
}

#[cfg(test)]
mod tests;
