//! Queries of a schedule: its entries, the next runs of one, what a stretch of time
//! would bring.

use super::files::{self, Read};
use super::schedule_options::{BeatScheduleOptions, ScheduleOptions};
use crate::beat::claim::{ClaimResult, DueAction};
use crate::beat::core::entries::Entries;
use crate::beat::state::{EntryState, Fingerprint};
use crate::broker::ledger;
use crate::cli::app::{App, GlobalOptions};
use crate::cli::exit::{Error, Exit};
use crate::cli::output::ToUser;
use crate::clock;
use crate::config::diagnostic::{Weight, nearest};
use crate::link::error::StoreErrorKind;
use crate::link::sqlite::Access;
use crate::log::escape;
use crate::schedule::entry::Entry;
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;

#[derive(Debug, clap::Args)]
pub(super) struct ListArgs {
    /// Only these entries
    names: Vec<String>,
    #[command(flatten)]
    options: BeatScheduleOptions,
    /// Print JSON
    #[arg(short, long, env = "QWORKER_BEAT_JSON", value_parser = crate::cli::truth())]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct NextArgs {
    /// The entry
    name: String,
    /// Number of runs to show
    #[arg(short = 'n', long = "count", value_name = "N", default_value_t = 1, value_parser = crate::cli::count::<usize>)]
    count: usize,
    #[command(flatten)]
    options: BeatScheduleOptions,
    /// Print JSON
    #[arg(short, long, env = "QWORKER_BEAT_JSON", value_parser = crate::cli::truth())]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct SimulateArgs {
    /// Only these entries
    names: Vec<String>,
    /// Start of the simulated time, ISO 8601 [default: now]
    #[arg(long, value_name = "TIME", value_parser = instant)]
    from: Option<DateTime<Utc>>,
    /// End of the simulated time [default: one day after the start]
    #[arg(long, value_name = "TIME", value_parser = instant)]
    to: Option<DateTime<Utc>>,
    #[command(flatten)]
    options: BeatScheduleOptions,
    /// Print JSON, one object per line
    #[arg(short, long, env = "QWORKER_BEAT_JSON", value_parser = crate::cli::truth())]
    json: bool,
}

fn instant(text: &str) -> Result<DateTime<Utc>, String> {
    clock::parse(text).ok_or_else(|| format!("expected {}", crate::cli::sending::INSTANT))
}

/// The entries of an application, or those of these names; what is wrong with others is reported.
///
/// # Errors
/// There is no entry of such a name.
pub(super) fn entries(
    app: &App,
    options: &ScheduleOptions,
    names: &[String],
    out: &ToUser,
) -> Result<Vec<Arc<Entry>>, Error> {
    options.check_entries()?;
    let Read { mut entries, faults, notes } = files::read_all(app, &options.entries);
    let warnings = notes.into_iter().filter(|note| note.weight == Weight::Warning);
    for fault in faults.into_iter().chain(warnings) {
        out.say(&format!("Warning: {fault}"));
    }
    for name in names {
        if !entries.iter().any(|entry| *entry.name == **name) {
            let error = Error::usage(format!("no entry {name:?} in the schedule"));
            let near = nearest(name, entries.iter().map(|entry| &*entry.name), 3);
            return Err(match near.is_empty() {
                true => error,
                false => error.hint(format!("did you mean {}?", near.join(" or "))),
            });
        }
    }
    entries.retain(|entry| names.is_empty() || names.iter().any(|name| **name == *entry.name));
    Ok(entries)
}

/// What the ledger has of entries.
fn states(
    app: &App,
    options: &ScheduleOptions,
    names: Vec<String>,
) -> Result<HashMap<String, EntryState>, Error> {
    let group = &app.settings.beat_group;
    let texts = match options.own_file(app)? {
        // A command that only reads makes no file, and sets none aside.
        Some(file) => ledger::peek(&file, group, &names).map_err(|error| match error.kind() {
            StoreErrorKind::Damaged => Error::failure(error.to_string()),
            _ => error.into(),
        })?,
        None => crate::cli::block_on(async {
            let client = app.client_to(Access::Look)?;
            Ok(client.broker.ledger(group).read(names.clone()).await?)
        })?,
    };
    let known = names.into_iter().zip(texts);
    Ok(known.filter_map(|(name, text)| Some((name, EntryState::read(&text?).ok()?))).collect())
}

/// An entry and what is known of it.
struct EntryStatus {
    entry: Arc<Entry>,
    state: Option<EntryState>,
    next: Option<DateTime<Utc>>,
}

impl EntryStatus {
    fn new(entry: Arc<Entry>, state: Option<EntryState>, now: DateTime<Utc>) -> EntryStatus {
        let state = state.filter(|state| state.gone.is_none());
        let last = state.as_ref().map_or(now, |state| state.last);
        let rests = !entry.enabled || state.as_ref().is_some_and(|state| state.paused);
        let next = entry.next(last).filter(|_| !rests);
        EntryStatus { entry, state, next }
    }

    /// One word.
    fn standing(&self) -> &'static str {
        match &self.state {
            _ if !self.entry.enabled => "disabled",
            None => "new",
            Some(state) if state.paused => "paused",
            Some(_) if self.next.is_none() => "over",
            Some(_) => "on",
        }
    }

    fn row(&self) -> Vec<String> {
        let local = |at: Option<DateTime<Utc>>| {
            at.map_or("-".into(), |at| {
                let at = self.entry.calendar.local(at);
                at.format("%Y-%m-%d %H:%M:%S%:z").to_string()
            })
        };
        let ran = self.state.as_ref().and_then(|state| state.ran);
        vec![
            self.entry.name.to_string(),
            self.entry.task.to_string(),
            self.entry.schedule.to_string(),
            local(ran),
            local(self.next),
            self.state.as_ref().map_or(0, |state| state.total).to_string(),
            self.standing().into(),
        ]
    }

    fn json(&self) -> Value {
        let Entry { name, task, schedule, calendar, args, kwargs, misfire, overlap, .. } =
            &*self.entry;
        let ran = self.state.as_ref().and_then(|state| state.ran);
        let local = |at: Option<DateTime<Utc>>| {
            at.map(|at| calendar.local(at).to_rfc3339_opts(SecondsFormat::Secs, false))
        };
        json!({
            "name": &**name,
            "task": &**task,
            "schedule": schedule.to_string(),
            "timezone": calendar.zone.name(),
            "args": serde_json::from_str::<Value>(args.get()).unwrap_or_default(),
            "kwargs": serde_json::from_str::<Value>(kwargs.get()).unwrap_or_default(),
            "misfire": misfire.to_string(),
            "overlap": overlap.to_string(),
            "jitter": self.entry.jitter.as_secs_f64(),
            "last_run_at": ran.map(utc),
            "last_run_local": local(ran),
            "next_run_at": self.next.map(utc),
            "next_run_local": local(self.next),
            "total_run_count": self.state.as_ref().map_or(0, |state| state.total),
            "last_task_id": self.state.as_ref().and_then(|state| state.id).map(|id| id.to_string()),
            "state": self.standing(),
            "file": &*self.entry.origin.file,
            "line": self.entry.origin.line,
        })
    }
}

fn utc(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

pub(super) fn list(args: &ListArgs, global: &GlobalOptions, out: ToUser) -> Result<Exit, Error> {
    let app = App::open(global, &[])?;
    let entries = entries(&app, &args.options, &args.names, &out)?;
    let names = entries.iter().map(|entry| entry.name.to_string()).collect();
    let mut states = states(&app, &args.options, names)?;
    let now = clock::now();
    let mut all: Vec<EntryStatus> = entries
        .into_iter()
        .map(|entry| {
            let state = states.remove(&*entry.name);
            EntryStatus::new(entry, state, now)
        })
        .collect();
    all.sort_by(|a, b| a.entry.name.cmp(&b.entry.name));
    if args.json {
        out.print(&Value::from_iter(all.iter().map(EntryStatus::json)).to_string());
        return Ok(Exit::Ok);
    }
    let rows: Vec<Vec<String>> = all.iter().map(EntryStatus::row).collect();
    let header = ["Entry", "Task", "Schedule", "Last run", "Next run", "Runs", "State"];
    out.table(&header, &rows, "No entries in the schedule.");
    Ok(Exit::Ok)
}

pub(super) fn next(args: &NextArgs, global: &GlobalOptions, out: ToUser) -> Result<Exit, Error> {
    let app = App::open(global, &[])?;
    let name = std::slice::from_ref(&args.name);
    let entries = entries(&app, &args.options, name, &out)?;
    let Some(entry) = entries.into_iter().next() else { return Ok(Exit::Failure) };
    // An interval counts from its last run, if the broker is there to tell. A file is.
    let is_in_file = args.options.file(&app).is_some();
    let mut state = None;
    match states(&app, &args.options, name.to_vec()) {
        Ok(states) => state = states.into_values().next(),
        Err(error) if is_in_file => return Err(error),
        Err(error) => out.say(&format!("Warning: {error}; counted from now")),
    }
    let now = clock::now();
    let mut at = state.as_ref().map_or(now, |state| state.last);
    // What is past has been sent, or is about to be.
    at = entry.latest(at, now).unwrap_or(at);
    let mut runs = Vec::new();
    while runs.len() < args.count
        && let Some(due) = entry.next(at)
    {
        runs.push(due);
        at = due;
    }
    if args.json {
        let all = runs.iter().map(|due| {
            let local = entry.calendar.local(*due);
            json!({
                "due": utc(*due),
                "local": local.to_rfc3339_opts(SecondsFormat::Secs, false),
                "sent_at": entry.sent_at(*due).to_rfc3339_opts(SecondsFormat::AutoSi, true),
                "occurrence": entry.occurrence(*due),
            })
        });
        out.print(&Value::from_iter(all).to_string());
    } else {
        for due in &runs {
            let local = entry.calendar.local(*due).format("%a %Y-%m-%d %H:%M:%S");
            out.print(&format!("{local} {}  {}", entry.calendar.letters(*due), utc(*due)));
        }
        if runs.len() < args.count {
            out.say(&format!("{}: no run after that", args.name));
        }
    }
    Ok(Exit::Ok)
}

pub(super) fn simulate(
    args: &SimulateArgs,
    global: &GlobalOptions,
    out: ToUser,
) -> Result<Exit, Error> {
    let app = App::open(global, &[])?;
    let entries = entries(&app, &args.options, &args.names, &out)?;
    let from = args.from.unwrap_or_else(clock::now);
    let to = args.to.unwrap_or(from + TimeDelta::days(1));
    if to < from {
        return Err(Error::usage("--to is before --from"));
    }
    let mut all = Entries::default();
    for (id, _) in all.load(Fingerprint::of_all(entries), from).unread {
        if all.register(id, None, from).is_some() {
            all.claimed(id, ClaimResult::Done, from);
        }
    }
    let mut text = String::new();
    while let Some(now) = all.next().filter(|next| *next <= to) {
        for action in all.due(now, now, usize::MAX) {
            let claim = match action {
                DueAction::Claim(claim) => Some(claim),
                // As if every task were done when it is asked for.
                DueAction::LookUp { id, .. } => all.looked_up(id, true, now),
            };
            let Some((claim, id)) = claim.and_then(|claim| claim.id.map(|id| (claim, id))) else {
                continue;
            };
            if let Some(entry) = &claim.entry {
                let lines = claim.sends.iter().map(|due| sending(entry, *due, now, args.json));
                text.extend(lines);
            }
            all.claimed(id, ClaimResult::Done, now);
        }
        all.notes();
        if text.len() > 1 << 16 {
            out.write(&std::mem::take(&mut text));
        }
    }
    out.write(&text);
    Ok(Exit::Ok)
}

fn sending(entry: &Entry, due: DateTime<Utc>, now: DateTime<Utc>, as_json: bool) -> String {
    let local = entry.calendar.local(due);
    if as_json {
        let line = json!({
            "at": now.to_rfc3339_opts(SecondsFormat::AutoSi, true),
            "due": utc(due),
            "local": local.to_rfc3339_opts(SecondsFormat::Secs, false),
            "name": &*entry.name,
            "task": &*entry.task,
            "occurrence": entry.occurrence(due),
        });
        return format!("{line}\n");
    }
    let (args, kwargs) = (entry.args.get(), entry.kwargs.get());
    let kwargs = if kwargs == "{}" { String::new() } else { format!(" {kwargs}") };
    let local = format!("{} {}", local.format("%Y-%m-%d %H:%M:%S"), entry.calendar.letters(due));
    let what = format!("{}  {}{args}{kwargs}", entry.name, entry.task);
    format!("{}  {local}  {}\n", utc(now), escape::line(&what))
}
