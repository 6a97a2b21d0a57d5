//! Entries from a crontab: `MIN HOUR DOM MON DOW task [arguments] [key=value …]`. The line is
//! split by [`super::tokens`]; what it says is checked where YAML is checked.
//!
//! Six fields of time begin with the seconds. There are six if the sixth word can be a field of
//! weekdays and one more word follows, which then is the task; a task with such a name
//! (`sun`, `5`) has to be quoted.

use super::define::EntryDraft;
use super::entry::{Entry, sum};
use super::field::is_of_quartz;
use super::fields::{CrontabFields, NO_YEARS, is_year};
use super::load::{Defaults, FileContext, merge};
use super::options::{self, OPTIONS};
use super::parse::{self, Means};
use super::tokens::{Cursor, Token};
use super::{Schedule, define};
use crate::config::kind::{TaskName, ValueKind};
use crate::config::node::{Data, Style, YamlKey, YamlNode};
use crate::config::zone::Zone;
use crate::config::{Diagnostic, Faults, units};
use serde_json::value::RawValue;

/// The options of a line.
pub const KEYS: [&str; 15] = [
    "name",
    "queue",
    "exchange",
    "routing_key",
    "priority",
    "expires",
    "countdown",
    "misfire",
    "grace",
    "overlap",
    "jitter",
    "enabled",
    "from",
    "until",
    "timezone",
];

/// Words of a shell that are hardly ever the name of a task.
const COMMANDS: [&str; 7] = ["cd", "exec", "eval", "if", "for", "while", "sudo"];

/// Longest name that is made of a line, in bytes; the rest of the line becomes a sum.
const NAME_MAX: usize = 160;

/// What a line is, for "expected …".
const LINE: &str = "MIN HOUR DAY MONTH WEEKDAY task, with seconds in front of them if you like, \
    or @hourly task, @every 90s task and the like";

/// Reads a crontab. Every mistake of it is among the diagnostics, and a line with one is left out.
pub fn crontab(file: &str, text: &str, defaults: &Defaults) -> (Vec<Entry>, Vec<Diagnostic>) {
    let mut faults = Faults::new(file);
    let mut shared = FileContext::new(file, defaults);
    let mut entries = Vec::new();
    for (at, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let line = Line { number: at + 1, text: line.trim() };
        match variable(line.text) {
            _ if line.text.is_empty() || line.text.starts_with('#') => {}
            Some((name, value)) => match zoned(name, value) {
                Some((zone, text)) => {
                    entries.extend(line.in_zone(zone, text, &mut shared, &mut faults));
                }
                None => line.set(name, value, &mut shared, &mut faults),
            },
            None => entries.extend(line.entry(None, &mut shared, &mut faults)),
        }
    }
    let (entries, mut doubles) = merge(vec![entries]);
    for double in &mut doubles {
        double.expected = Some("a name of its own: name=…".into());
    }
    faults.extend(doubles);
    (entries, faults.into_vec())
}

/// The parts of `NAME = value`.
fn variable(line: &str) -> Option<(&str, &str)> {
    let (name, value) = line.split_once('=')?;
    let name = name.trim_end();
    is_name(name).then_some((name, value.trim_start()))
}

/// The zone of one line, and the line behind it: `CRON_TZ=Asia/Tokyo 5 9 * * * report`, as
/// libraries of cron have it.
fn zoned<'a>(name: &str, value: &'a str) -> Option<(String, &'a str)> {
    if !matches!(name, "CRON_TZ" | "TZ") {
        return None;
    }
    // No zone begins like a line: here none is named.
    if value.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '*' | '@')) {
        return Some((UNNAMED.into(), value));
    }
    let mut cursor = Cursor::new(value);
    let zone = named(cursor.word().ok().flatten()?.text);
    let rest = cursor.rest();
    (!rest.is_empty() && !rest.starts_with('#')).then_some((zone, rest))
}

/// The zone of a variable that is empty, as POSIX has it.
const UNNAMED: &str = "UTC";

fn named(zone: String) -> String {
    if zone.is_empty() { UNNAMED.into() } else { zone }
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// What follows the task.
#[derive(Default)]
struct Rest {
    words: Vec<String>,
    args: Option<Box<RawValue>>,
    kwargs: Option<Box<RawValue>>,
    options: Vec<(String, String)>,
}

#[derive(Clone, Copy)]
struct Line<'a> {
    number: usize,
    text: &'a str,
}

impl Line<'_> {
    /// `CRON_TZ=Zone` for the lines below.
    fn set(self, name: &str, value: &str, shared: &mut FileContext<'_>, faults: &mut Faults) {
        faults.within(name, |f| {
            let why = match name {
                "CRON_TZ" => {
                    let zone = Cursor::new(value).word().ok().flatten().unwrap_or_default();
                    let zone = shared.zone(&self.node(named(zone.text)), f);
                    shared.zone_is_known = zone.is_some();
                    shared.zone = zone.unwrap_or(shared.zone);
                    return;
                }
                "TZ" => "the zone of the lines below is CRON_TZ",
                "MAILTO" | "MAILFROM" => "no mail is sent; results are in the result store",
                "SHELL" => "no commands are run here; tasks are sent",
                "RANDOM_DELAY" | "START_HOURS_RANGE" => "an entry has jitter=5m, from= and until=",
                _ => {
                    "tasks are sent, and have the environment of their worker (task_env, and env \
                     in tasks.d)"
                }
            };
            // The lines below mean what they say without it.
            f.note(self.number, format!("means nothing here: {why}"));
        });
    }

    /// An entry that has its zone in front.
    fn in_zone(
        self,
        zone: String,
        text: &str,
        shared: &mut FileContext<'_>,
        faults: &mut Faults,
    ) -> Option<Entry> {
        let node = self.node(zone);
        let zone = faults.within("CRON_TZ", |f| shared.zone(&node, f))?;
        Line { text, ..self }.entry(Some(zone), shared, faults)
    }

    fn entry(
        self,
        zone: Option<Zone>,
        shared: &mut FileContext<'_>,
        faults: &mut Faults,
    ) -> Option<Entry> {
        let before = faults.count();
        let mut cursor = Cursor::new(self.text);
        let (time, schedule) = match self.text.starts_with('@') {
            true => self.word(&mut cursor, shared, faults)?,
            false => self.fields(&mut cursor, shared, faults)?,
        };
        let behind_seconds = time.split(' ').count() == 6;
        let task = self.task(&mut cursor, behind_seconds, faults)?;
        let rest = self.rest(cursor, faults)?;
        let mut name = format!("{time} {task}{}", rest.shown());
        let mut draft = EntryDraft::of(schedule);
        draft.zone = zone;
        let args = match rest.words.is_empty() {
            true => rest.args.filter(|json| json.get() != "[]"),
            false => Some(crate::wire::value::raw(&rest.words.clone().into())),
        };
        (draft.args, draft.kwargs) = (args, rest.kwargs.filter(|json| json.get() != "{}"));
        draft.task = Some(task);
        self.options(&rest.options, &mut draft, &mut name, shared, faults);
        let key = YamlKey { line: self.number, text: name };
        let sound = faults.count() == before;
        faults.within(&key.text, |f| draft.finish(&key, sound, shared, f))
    }

    /// `@hourly` and the like; what is wrong with the word leaves the rest to be checked.
    fn word(
        self,
        cursor: &mut Cursor<'_>,
        shared: &FileContext<'_>,
        faults: &mut Faults,
    ) -> Option<(String, Option<Schedule>)> {
        let mut text = self.next(cursor, faults)?.map(|token| token.text).unwrap_or_default();
        if text == "@every"
            && let Some(span) = self.next(cursor, faults)?
        {
            text = format!("{text} {}", span.text);
        }
        let means = Means { days: shared.defaults.days_of_crontabs, relative: false };
        let schedule = parse::of_text(&text, self.number, means, faults);
        Some((text, schedule))
    }

    fn fields(
        self,
        cursor: &mut Cursor<'_>,
        shared: &FileContext<'_>,
        faults: &mut Faults,
    ) -> Option<(String, Option<Schedule>)> {
        let mut words = Vec::new();
        while words.len() < 5 {
            match self.next(cursor, faults)? {
                Some(word) => words.push(word.text),
                None => {
                    let count = words.len();
                    let found = format!("{count} word{}", if count == 1 { "" } else { "s" });
                    faults.mismatch(self.number, &found, LINE);
                    return None;
                }
            }
        }
        let mut ahead = *cursor;
        let sixth =
            ahead.word().ok().flatten().filter(|word| !word.quoted && is_weekdays(&word.text));
        if let Some(sixth) = sixth
            && !matches!(ahead.word(), Ok(None))
        {
            words.push(sixth.text);
            *cursor = ahead_of(*cursor);
        }
        let time = words.join(" ");
        let days = shared.defaults.days_of_crontabs;
        let schedule = parse::cron(CrontabFields::of(&time), days, |_| self.number, faults);
        Some((time, schedule))
    }

    /// The task; `behind_seconds`, where Quartz has a field of years too.
    fn task(
        self,
        cursor: &mut Cursor<'_>,
        behind_seconds: bool,
        faults: &mut Faults,
    ) -> Option<String> {
        let Some(task) = self.next(cursor, faults)? else {
            faults.mismatch(self.number, "no task", LINE);
            return None;
        };
        // In the system's crontab, the user precedes the command.
        let mut ahead = *cursor;
        let next = ahead.word().ok().flatten().filter(|word| !word.quoted);
        let before_command = next.is_some_and(|word| is_program(&word.text));
        let is_user =
            !task.quoted && (before_command || task.text == "root" && !cursor.is_at_end());
        let is_command = task.text.starts_with(['/', '.', '~', '(', '[', '!', '$', '`'])
            || !task.quoted && COMMANDS.contains(&task.text.as_str());
        // A field or a span too much.
        let is_time = !task.text.contains(char::is_alphabetic) && !task.quoted
            || units::duration(&task.text).is_some();
        if is_command || is_user || is_time || task.option().is_some() {
            let fault = faults.add(self.number, format!("found {:?}", task.text));
            let of_year = behind_seconds && (task.text == "*" || is_year(&task.text));
            let years = format!("a task; {NO_YEARS}");
            let expected = match (is_command, is_user) {
                _ if of_year => years.as_str(),
                (true, _) => "a task: no commands are run here, tasks.d gives them names",
                (_, true) => "a task: lines have no column of users here; see user in tasks.d",
                _ => "a task",
            };
            fault.expected = Some(expected.into());
            return None;
        }
        let node = self.node(task.text);
        faults.within("task", |f| TaskName::read(&node, f))
    }

    /// Arguments and options, in any order.
    fn rest(self, mut cursor: Cursor<'_>, faults: &mut Faults) -> Option<Rest> {
        let mut rest = Rest::default();
        loop {
            if let Some(json) = cursor.json() {
                let slot = match cursor.rest().starts_with('[') {
                    true => &mut rest.args,
                    false => &mut rest.kwargs,
                };
                match json {
                    Ok(json) if slot.is_none() => *slot = Some(json),
                    Ok(_) => {
                        faults.add(self.number, "has two arrays or two objects of arguments");
                        return None;
                    }
                    Err(wrong) => {
                        faults.within("arguments", |f| f.add(self.number, wrong).line);
                        return None;
                    }
                }
                cursor.skip_json();
                continue;
            }
            match self.next(&mut cursor, faults)? {
                None => break,
                Some(word) if !word.quoted && is_of_shell(&word.text) => {
                    let found = format!("{:?}, which is special to a shell", word.text);
                    let expected = "arguments: no shell reads them, a task of tasks.d has its \
                                    commands; what is an argument all the same stands in quotes";
                    faults.within("arguments", |f| f.mismatch(self.number, &found, expected));
                    return None;
                }
                Some(word) => match word.option() {
                    Some((key, value)) => rest.options.push((key.into(), value.into())),
                    None => rest.words.push(word.text),
                },
            }
        }
        if rest.args.is_some() && !rest.words.is_empty() {
            faults.within("arguments", |f| {
                let found = format!("{:?} beside an array", rest.words[0]);
                f.mismatch(self.number, &found, "words, or an array");
            });
            return None;
        }
        Some(rest)
    }

    fn options(
        self,
        options: &[(String, String)],
        draft: &mut EntryDraft,
        name: &mut String,
        shared: &mut FileContext<'_>,
        faults: &mut Faults,
    ) {
        // Others depend on it, so it is read first.
        for (key, value) in options.iter().filter(|(key, _)| key == "timezone") {
            let node = self.node(value.clone());
            draft.zone = faults.within(key, |f| shared.zone(&node, f));
        }
        let calendar = shared.calendar(draft.zone.unwrap_or(shared.zone));
        for (at, (text, value)) in options.iter().enumerate() {
            let key = YamlKey { line: self.number, text: text.clone() };
            let node = self.node(value.clone());
            faults.within(text, |f| match text.as_str() {
                _ if options[..at].iter().any(|(other, _)| other == text) => {
                    f.add(self.number, "is here twice");
                }
                "name" => *name = value.clone(),
                _ if value.is_empty() => {
                    f.mismatch(self.number, "nothing", "a value behind the =");
                }
                "timezone" => {}
                key_of if !KEYS.contains(&key_of) => self.refuse(key_of, f),
                option if OPTIONS.contains(&option) => {
                    options::read(&mut draft.options, &key, &node, &calendar, f);
                }
                _ => draft.read(&key, &node, &calendar, f),
            });
        }
    }

    fn refuse(self, key: &str, faults: &mut Faults) {
        if define::KEYS.contains(&key) || OPTIONS.contains(&key) {
            let why = "is no option of a crontab; an entry of a schedule.yaml can have it";
            faults.add(self.number, why);
            return;
        }
        let message = "unknown option; an argument with = in it stands in quotes";
        let hint = crate::config::nearest(key, KEYS, 2).join(" or ");
        faults.add(self.number, message).hint = Some(hint).filter(|hint| !hint.is_empty());
    }

    /// The next word; `None` with the fault that prevents one.
    fn next(self, cursor: &mut Cursor<'_>, faults: &mut Faults) -> Option<Option<Token>> {
        cursor.word().map_err(|wrong| faults.add(self.number, wrong).line).ok()
    }

    fn node(self, text: String) -> YamlNode {
        YamlNode { line: self.number, data: Data::Scalar(text, Style::Bare), flawed: false }
    }
}

/// Whether it can only be a command.
fn is_program(word: &str) -> bool {
    ["cd", "sudo"].contains(&word)
        || word.starts_with('/') && (word.contains("/bin/") || word.contains("/sbin/"))
}

/// One word further.
fn ahead_of(mut cursor: Cursor<'_>) -> Cursor<'_> {
    // It was read before, so it can be read.
    cursor.word().ok();
    cursor
}

impl Rest {
    /// The arguments as they appear in the name of the entry.
    fn shown(&self) -> String {
        let plain = |word: &str| {
            !word.is_empty()
                && !word.contains(|c: char| c.is_whitespace() || c.is_control() || c == '"')
        };
        let mut text = String::new();
        for word in &self.words {
            match plain(word) {
                true => text.push_str(&format!(" {word}")),
                false => text.push_str(&format!(" {word:?}")),
            }
        }
        for json in [&self.args, &self.kwargs].into_iter().flatten() {
            text.push_str(&format!(" {}", json.get().replace(|c: char| c.is_control(), " ")));
        }
        if text.len() <= NAME_MAX {
            return text;
        }
        let end = (0..=NAME_MAX).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
        format!("{}… {:016x}", &text[..end], sum(&text))
    }
}

/// Whether a shell would interpret the word, which is not quoted.
fn is_of_shell(word: &str) -> bool {
    let digits = word.trim_start_matches(|c: char| c.is_ascii_digit());
    let begins = |signs: &str| word.starts_with(signs);
    digits.starts_with(['>', '<'])
        || matches!(word, "|" | "||" | "&" | "&&" | ";" | ";;" | "{" | "}" | "(" | ")")
        || ["&&", "||", "&>", "|&", "`", "$(", "${", "~/"].iter().any(|signs| begins(signs))
        || word.ends_with(';')
        || ["&&", "||", "$(", ">/", ">&", ">>"].iter().any(|signs| word.contains(signs))
        || word
            .strip_prefix('$')
            .is_some_and(|name| name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_'))
}

/// Whether the word can be a field of weekdays: numbers, `*`, names, ranges and steps of them.
fn is_weekdays(word: &str) -> bool {
    const DAYS: [&str; 7] =
        ["sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"];
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let is_day = |text: &str| {
        let text = text.to_ascii_lowercase();
        is_number(&text) || DAYS.iter().any(|day| text == *day || text == day[..3])
    };
    word.split(',').all(|part| {
        let (range, step) = part.split_once('/').map_or((part, None), |(r, s)| (r, Some(s)));
        let (from, to) = range.split_once('-').map_or((range, None), |(f, t)| (f, Some(t)));
        let is_range = matches!(range, "*" | "?") || is_day(from) && to.is_none_or(is_day);
        is_range && step.is_none_or(is_number) || is_of_quartz(part)
    })
}

#[cfg(test)]
mod tests;
