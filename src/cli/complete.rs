//! `qworker completions SHELL`: the script that makes a shell complete command lines. It asks
//! `qworker complete -- WORDS`, hidden, what the last of the words may become: commands and
//! options, and names of tasks, queues, nodes and entries of the application that the words name.

use super::app::{App, GlobalOptions};
use super::exit::{Error, Exit};
use super::output::ToUser;
use super::{Cli, beat, empty_values};
use crate::link::sqlite::Access;
use crate::link::url::BackendUrl;
use crate::task::set::Set;
use clap::{CommandFactory, FromArgMatches};
use clap_complete::engine::{ArgValueCandidates, CompletionCandidate, complete};
use std::ffi::OsString;
use std::time::Duration;

/// How long a completion waits for a server at most.
const PATIENCE: Duration = Duration::from_millis(500);

/// The commands of `multi`, whose words are a language of their own.
const MULTI: [&str; 11] = [
    "start", "stop", "stopwait", "restart", "kill", "status", "names", "expand", "show", "get",
    "help",
];

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
pub(super) struct CompleteArgs {
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
pub(super) fn run(args: CompleteArgs, out: ToUser) -> Result<Exit, Error> {
    let Some(last) = args.words.last().cloned() else { return Ok(Exit::Ok) };
    // The line is not finished, so that it need not make sense.
    let program = empty_values::without_unset(Cli::command());
    let so_far = program.ignore_errors(true).try_get_matches_from(&args.words);
    let global = so_far.ok().and_then(|found| GlobalOptions::from_arg_matches(&found).ok());
    let global = global.unwrap_or_default();
    if let Some(folder) = &global.workdir {
        // Its name may be half of one.
        let _ = std::env::set_current_dir(folder);
    }
    let line = CompletionContext { global, words: args.words.clone() };
    let mut command = with_names(Cli::command().disable_help_subcommand(true), &line);
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

/// What is known while a value is completed.
#[derive(Clone)]
struct CompletionContext {
    /// The application.
    global: GlobalOptions,
    /// All words, the one that is completed last.
    words: Vec<OsString>,
}

/// The command line, with what knows the values of its arguments.
fn with_names(mut command: clap::Command, line: &CompletionContext) -> clap::Command {
    let inner: Vec<String> = command.get_subcommands().map(|one| one.get_name().into()).collect();
    for name in inner {
        command = command.mut_subcommand(name, |one| with_names(one, line));
    }
    let name = command.get_name().to_string();
    command.mut_args(|arg| {
        let names: fn(&CompletionContext, &App) -> Vec<CompletionCandidate> =
            match (name.as_str(), arg.get_id().as_str()) {
                ("call", "name" | "more") => |_, app| tasks(app),
                (_, "queue" | "queues" | "exclude_queues") => |_, app| queues(app),
                (_, "destination") | ("health", "hostname") => |_, app| nodes(app),
                ("list" | "next" | "run" | "pause" | "resume" | "simulate", "name" | "names") => {
                    |_, app| entries(app)
                }
                ("multi", "words") => multi,
                _ => return arg,
            };
        let line = line.clone();
        let open = move || App::open(&line.global, &[]).map(|app| names(&line, &app));
        arg.add(ArgValueCandidates::new(move || open().unwrap_or_default()))
    })
}

/// What stands behind `multi`: one of its commands, then nodes and options of workers.
fn multi(line: &CompletionContext, app: &App) -> Vec<CompletionCandidate> {
    let (_, before) = line.words.split_last().unwrap_or((const { &OsString::new() }, &[]));
    let behind = before.iter().skip_while(|word| *word != "multi").skip(1);
    let is_word = |word: &&OsString| !word.as_encoded_bytes().starts_with(b"-");
    if behind.filter(is_word).count() == 0 {
        return MULTI.iter().map(CompletionCandidate::new).collect();
    }
    let program = Cli::command();
    let worker = program.find_subcommand("worker").into_iter();
    let options = worker.flat_map(|worker| worker.get_arguments()).filter_map(|option| {
        let name = CompletionCandidate::new(format!("--{}", option.get_long()?));
        Some(name.help(option.get_help().cloned()))
    });
    // Celery's grammar has the first part of a name for all of it.
    let short = |node: String| node.split('@').next().map(CompletionCandidate::new);
    nodes_of(app).into_iter().filter_map(short).chain(options).collect()
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

/// The entries of the schedule, each with its task.
fn entries(app: &App) -> Vec<CompletionCandidate> {
    let entries = beat::entries(app);
    let candidates = entries.iter().map(|entry| {
        CompletionCandidate::new(&*entry.name).help(Some(entry.task.to_string().into()))
    });
    candidates.collect()
}

/// Those that tasks are sent to, and those that the broker knows.
fn queues(app: &App) -> Vec<CompletionCandidate> {
    let mut names = app.queues(&defined(app));
    names.extend(asked(app, async |client| Ok(client.broker.admin().names().await?)));
    names.sort();
    names.dedup();
    names.into_iter().map(CompletionCandidate::new).collect()
}

fn nodes(app: &App) -> Vec<CompletionCandidate> {
    nodes_of(app).into_iter().map(CompletionCandidate::new).collect()
}

fn nodes_of(app: &App) -> Vec<String> {
    let known = asked(app, async |client| Ok(client.broker.admin().nodes().await?));
    known.into_iter().map(|node| node.hostname).collect()
}

/// What the broker answers in time; a key that is pressed creates none.
fn asked<T>(
    app: &App,
    ask: impl AsyncFnOnce(crate::client::Client) -> Result<Vec<T>, Error>,
) -> Vec<T> {
    let Ok(url) = app.settings.broker_url.broker(&app.folder) else { return Vec::new() };
    if BackendUrl::from(url).file().is_some_and(|file| !file.exists()) {
        return Vec::new();
    }
    let answer = super::block_on(async {
        let answer = async { ask(app.client_to(Access::Look)?).await };
        Ok(tokio::time::timeout(PATIENCE, answer).await)
    });
    answer.ok().and_then(Result::ok).and_then(Result::ok).unwrap_or_default()
}
