//! Commands that change an entry: run, pause, resume.

use super::schedule_options::BeatScheduleOptions;
use super::{files, show};
use crate::beat::message;
use crate::beat::state::{EntryState, Fingerprint, since};
use crate::broker::ledger::{Ledger, Step, StepOutcome};
use crate::cli::app::{App, GlobalOptions};
use crate::cli::exit::{Error, Exit};
use crate::cli::output::ToUser;
use crate::client::send::{self, Sender};
use crate::clock;
use crate::os;
use crate::schedule::entry::Entry;
use serde_json::{Value, json};

/// How many times a change is tried while beats change the same entry.
const TRIES: usize = 100;

#[derive(Debug, clap::Args)]
pub(super) struct RunArgs {
    /// The entry
    name: String,
    #[command(flatten)]
    options: BeatScheduleOptions,
    /// Print JSON
    #[arg(short, long, env = "QWORKER_BEAT_JSON", value_parser = crate::cli::truth())]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct ChangeArgs {
    /// Names of the entries
    #[arg(required = true)]
    names: Vec<String>,
    #[command(flatten)]
    options: BeatScheduleOptions,
    /// Print JSON
    #[arg(short, long, env = "QWORKER_BEAT_JSON", value_parser = crate::cli::truth())]
    json: bool,
}

pub(super) fn run(args: &RunArgs, global: &GlobalOptions, out: ToUser) -> Result<Exit, Error> {
    let app = App::open(global, &[])?;
    let names = std::slice::from_ref(&args.name);
    let entries = show::entries(&app, &args.options, names, &out)?;
    let Some(entry) = entries.into_iter().next() else { return Ok(Exit::Failure) };
    let to = files::router(&app)(&entry);
    let id = crate::cli::block_on(async {
        let client = app.client()?;
        let ledger = args.options.ledger(&app, &client)?;
        let (now, deadline) = (clock::now(), app.settings.client_timeout);
        let producer = client.broker.producer();
        let draft = message::draft(&entry, None, &to, now);
        let bound = match &draft.route {
            Some(route) => send::bound(&producer, route, deadline).await?,
            None => Vec::new(),
        };
        let sender = Sender::new(&os::host::name(), to.format.clone());
        let postings = sender
            .postings(producer.abilities(), draft, &bound, to.task.as_deref(), now)
            .map_err(|error| Error::usage(error.to_string()))?;
        let id = postings.first().map(|posting| posting.task_id.clone()).unwrap_or_default();
        send::send(&producer, postings, deadline).await?;
        // What comes next overlaps with this one too.
        let sent = id.parse().ok();
        change(&ledger, &entry, |state| {
            (state.total, state.ran, state.id) = (state.total + 1, Some(now), sent);
        })
        .await?;
        Ok(id)
    })?;
    match args.json {
        true => out.print(&json!({"name": args.name, "task": &*entry.task, "id": id}).to_string()),
        false => out.print(&id),
    }
    Ok(Exit::Ok)
}

pub(super) fn pause(
    args: &ChangeArgs,
    global: &GlobalOptions,
    paused: bool,
    out: ToUser,
) -> Result<Exit, Error> {
    let app = App::open(global, &[])?;
    let entries = show::entries(&app, &args.options, &args.names, &out)?;
    crate::cli::block_on(async {
        let client = app.client()?;
        let ledger = args.options.ledger(&app, &client)?;
        for entry in &entries {
            let now = clock::now();
            change(&ledger, entry, |state| {
                if state.paused && !paused {
                    // What it was paused for is not missed; an interval keeps its phase.
                    state.last = entry.latest(state.last, now).unwrap_or(state.last);
                }
                state.paused = paused;
            })
            .await?;
        }
        Ok(())
    })?;
    let word = if paused { "paused" } else { "on" };
    if args.json {
        let all = entries.iter().map(|entry| json!({"name": &*entry.name, "state": word}));
        out.print(&Value::from_iter(all).to_string());
    } else if !out.quiet {
        entries.iter().for_each(|entry| out.tell(&format!("{}: {word}", entry.name)));
    }
    Ok(Exit::Ok)
}

/// Changes the state of an entry, whatever beats do to it meanwhile.
async fn change(
    ledger: &Ledger,
    entry: &Entry,
    change: impl Fn(&mut EntryState),
) -> Result<(), Error> {
    let name = entry.name.to_string();
    let mut known = ledger.read(vec![name.clone()]).await?.pop().flatten();
    for _ in 0..TRIES {
        let state = known.as_deref().and_then(|text| EntryState::read(text).ok());
        let mut state = state
            .unwrap_or_else(|| EntryState::new(Fingerprint::of(entry), since(entry, clock::now())));
        change(&mut state);
        let text = state.text();
        if known.as_ref() == Some(&text) {
            return Ok(());
        }
        let step = Step {
            name: name.clone(),
            expected: known,
            state: Some(text.clone()),
            postings: Vec::new(),
        };
        match ledger.commit(vec![step]).await?.outcomes.pop() {
            Some(StepOutcome::Conflict(actual)) if actual.as_ref() != Some(&text) => known = actual,
            Some(StepOutcome::Refused(why)) => {
                return Err(Error::failure(format!("{name}: {why}")));
            }
            _ => return Ok(()),
        }
    }
    Err(Error::failure(format!("{name}: others keep changing it; try again")))
}
