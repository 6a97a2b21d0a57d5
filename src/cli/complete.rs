//! `qworker completions SHELL`: the script that makes a shell complete command lines. It asks
//! `qworker complete -- WORDS`, hidden, what the last of the words may become: commands and
//! options, and names of tasks, queues and nodes of the application that the words name.

use super::Cli;
use super::app::{App, Global};
use super::exit::{Error, Exit};
use super::output::ToUser;
use crate::link::url::Url;
use crate::task::set::Set;
use clap::{CommandFactory, FromArgMatches};
use clap_complete::engine::{ArgValueCandidates, CompletionCandidate, complete};
use std::ffi::OsString;
use std::time::Duration;

/// Whoever presses a key waits for no server longer than this.
const PATIENCE: Duration = Duration::from_millis(500);

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The shell: bash, zsh or fish
    shell: Shell,
}

/// A shell that has completions.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

#[derive(Debug, clap::Args)]
pub(super) struct Words {
    /// The command line up to the cursor
    #[arg(last = true)]
    words: Vec<OsString>,
}

pub(super) fn script(args: &Args, out: ToUser) -> Result<Exit, Error> {
    out.write(match args.shell {
        Shell::Bash => include_str!("completions/qworker.bash"),
        Shell::Zsh => include_str!("completions/qworker.zsh"),
        Shell::Fish => include_str!("completions/qworker.fish"),
    });
    Ok(Exit::Ok)
}

/// Prints a line for each candidate: the word, a tab, what it means.
pub(super) fn run(args: Words, out: ToUser) -> Result<Exit, Error> {
    let Some(last) = args.words.last().cloned() else { return Ok(Exit::Ok) };
    // The line is not finished, so that it need not make sense.
    let so_far = Cli::command().ignore_errors(true).try_get_matches_from(&args.words);
    let global = so_far.ok().and_then(|found| Global::from_arg_matches(&found).ok());
    let global = global.unwrap_or_default();
    if let Some(folder) = &global.workdir {
        // Its name may be half of one.
        let _ = std::env::set_current_dir(folder);
    }
    let mut command = with_names(Cli::command().disable_help_subcommand(true), &global);
    let here = std::env::current_dir().ok();
    let index = args.words.len() - 1;
    let found = complete(&mut command, args.words, index, here.as_deref());
    let mut found = found.map_err(|error| Error::failure(error.to_string()))?;
    let is_option =
        |one: &CompletionCandidate| one.get_value().as_encoded_bytes().starts_with(b"-");
    // Options are offered to whoever begins one, and where there is nothing else.
    if last.is_empty() && !found.iter().all(is_option) {
        found.retain(|one| !is_option(one));
    }
    for one in &found {
        let help = one.get_help().map(ToString::to_string).unwrap_or_default();
        let (value, help) = (one.get_value().to_string_lossy(), help.lines().next().unwrap_or(""));
        // A line is one candidate.
        if !value.contains(char::is_control) {
            out.print(&format!("{value}\t{help}"));
        }
    }
    Ok(Exit::Ok)
}

/// The command line, with what knows the values of its arguments.
fn with_names(mut command: clap::Command, global: &Global) -> clap::Command {
    let inner: Vec<String> = command.get_subcommands().map(|one| one.get_name().into()).collect();
    for name in inner {
        command = command.mut_subcommand(name, |one| with_names(one, global));
    }
    let is_call = command.get_name() == "call";
    command.mut_args(|arg| {
        let names: fn(&App) -> Vec<CompletionCandidate> = match arg.get_id().as_str() {
            "name" if is_call => tasks,
            "queue" | "queues" | "exclude_queues" => queues,
            "destination" => nodes,
            _ => return arg,
        };
        let global = global.clone();
        let open = move || App::open(&global, &[]).map(|app| names(&app)).unwrap_or_default();
        arg.add(ArgValueCandidates::new(open))
    })
}

fn defined(app: &App) -> Set {
    app.examine_tasks().0
}

fn tasks(app: &App) -> Vec<CompletionCandidate> {
    let tasks = defined(app);
    let candidates = tasks.iter().map(|task| {
        let help = task.description.clone().map(Into::into);
        CompletionCandidate::new(&task.name).help(help)
    });
    candidates.collect()
}

/// Those that tasks are sent to, and those that the broker knows.
fn queues(app: &App) -> Vec<CompletionCandidate> {
    let mut names = app.queues(&defined(app));
    let known = asked(app, async |client| Ok(client.outlet.queues().await?));
    names.extend(known.into_iter().map(|queue| queue.name));
    names.sort();
    names.dedup();
    names.into_iter().map(CompletionCandidate::new).collect()
}

fn nodes(app: &App) -> Vec<CompletionCandidate> {
    let known = asked(app, async |client| Ok(client.outlet.nodes().await?));
    known.into_iter().map(|node| CompletionCandidate::new(node.hostname)).collect()
}

/// What the broker answers in time; a key that is pressed creates none.
fn asked<T>(
    app: &App,
    ask: impl AsyncFnOnce(crate::client::Client) -> Result<Vec<T>, Error>,
) -> Vec<T> {
    match Url::parse(&app.settings.broker_url, &app.folder) {
        Ok(Url::Sqlite(path)) if !path.exists() => return Vec::new(),
        Ok(_) => {}
        Err(_) => return Vec::new(),
    }
    let answer = super::block_on(async {
        let answer = async { ask(app.client()?).await };
        Ok(tokio::time::timeout(PATIENCE, answer).await)
    });
    answer.ok().and_then(Result::ok).and_then(Result::ok).unwrap_or_default()
}
