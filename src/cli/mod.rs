//! The command line: the list of commands, the global options, one `match`.

mod app;
mod apply;
mod batch;
mod beat;
mod call;
mod check;
#[cfg(feature = "wasm")]
mod compile;
mod complete;
mod daemon;
mod dead;
mod empty_values;
mod exit;
mod files;
mod forms;
mod graph;
mod health;
mod inspect;
mod list;
mod logging;
mod multi;
mod output;
mod progress;
mod purge;
mod refused_options;
mod report;
mod result;
mod sending;
mod status;
mod table;
mod task;
mod unknown_command;
mod unread_files;
mod utf8;
mod variables;
mod wait;
mod worker;
mod workflow;
mod zones;

use crate::config::kind::{self, ValueKind};
use crate::config::units;
use crate::guard::{self, Role};
use app::GlobalOptions;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use exit::{Error, Exit};
use output::ToUser;
use std::process::ExitCode;

/// A Celery-compatible worker for any program: shell commands and WASM modules as tasks.
#[derive(Debug, Parser)]
#[command(name = "qworker", version, max_term_width = 100)]
#[command(after_help = "Global options precede the command, as in `qworker -A shop worker -c 4`.")]
struct Cli {
    #[command(flatten)]
    global: GlobalOptions,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Take tasks from the broker and run them
    Worker(worker::Args),
    /// Start, stop, restart and monitor several workers on this host
    Multi(multi::Args),
    /// Send tasks by a schedule; list, check, pause and simulate its entries
    Beat(beat::Args),
    /// Send a task, a workflow of some, or a task for each line of a file
    Call(call::Args),
    /// Send the workflow that a file describes, and show its tasks while they run
    Apply(apply::Args),
    /// Print the workflow that a task or a group belongs to
    Graph(graph::Args),
    /// Ask the worker of this task for something, from within the task
    #[command(subcommand)]
    Task(task::TaskCommand),
    /// Read the result of a task, or wait for it
    Result(result::Args),
    /// List the tasks of the application, or the queues of the broker
    #[command(subcommand)]
    List(list::ListSubject),
    /// Remove all waiting messages from queues
    Purge(purge::Args),
    /// Print which workers are alive
    Status(status::Args),
    /// Check whether a worker on this host is alive and ready
    Health(health::Args),
    /// List, show, requeue or remove messages that could not be run
    #[command(subcommand)]
    Dead(dead::DeadCommand),
    /// Print versions and every setting with its source
    Report(report::Args),
    /// Check the settings and every task file, and report all errors
    Check(check::Args),
    /// Print a shell's completion script
    Completions(complete::Args),
    /// Complete a command line for a shell
    #[command(hide = true)]
    Complete(complete::CompleteArgs),
    /// Compile a WASM module for the cache
    #[command(hide = true)]
    #[cfg(feature = "wasm")]
    Compile(compile::Args),
}

/// The whole command line as a value: what help and manual pages are made from.
pub fn command_line() -> clap::Command {
    // Of an option that is given twice the later one counts, as everywhere.
    let program = Cli::command().args_override_self(true);
    program.mut_subcommand("beat", |beat| beat.mut_args(of_beat))
}

/// Options that beat and the worker share are read from variables of each.
fn of_beat(arg: clap::Arg) -> clap::Arg {
    let variable = arg.get_env().and_then(|name| name.to_str());
    match variable.and_then(|name| name.strip_prefix("QWORKER_WORKER_")) {
        Some(name) => {
            let name = format!("QWORKER_BEAT_{name}");
            arg.env(name)
        }
        None => arg,
    }
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    // Before clap, and before any thread: a guarded worker is told so by its environment.
    let Some(role) = guard::role() else { return ExitCode::FAILURE };
    let mut program = empty_values::without_unset(command_line());
    let matches = program.try_get_matches_from_mut(std::env::args_os());
    let read = matches.and_then(|matches| {
        empty_values::refuse(&mut program, &matches)?;
        variables::remember(&program, &matches);
        Cli::from_arg_matches(&matches)
    });
    let cli = match read.map_err(variables::blame) {
        Ok(cli) => cli,
        Err(mut error) => {
            let failed = error.use_stderr();
            unknown_command::show_only_text(&mut error);
            if let Some(refused) = unknown(&error)
                .and_then(|option| refused_options::refuse(&option, typed().as_deref()))
            {
                return ExitCode::from(refused.report(&ToUser::new(true, false)).code());
            }
            if !failed {
                output::note(error.print());
                return ExitCode::from(end(Exit::Ok, &ToUser::new(true, false)).code());
            }
            match unknown_command::refuse(&error).or_else(|| utf8::refuse(&error)) {
                Some(text) => ToUser::new(true, false).say(&text),
                None => complain(&error),
            }
            if let Some(option) = misplaced(&error) {
                ToUser::new(true, false)
                    .say(&format!("Hint: {option} precedes the command: qworker {option} …"));
            }
            return ExitCode::from(Exit::Usage.code());
        }
    };
    let out = ToUser::new(cli.global.no_color, cli.global.quiet);
    let Some(command) = cli.command else {
        out.write(&command_line().render_help().to_string());
        return ExitCode::from(end(Exit::Ok, &out).code());
    };
    let exit = match dispatch(command, &cli.global, role, out) {
        Ok(exit) => exit,
        Err(error) => error.report(&out),
    };
    ExitCode::from(end(exit, &out).code())
}

/// How a command ends: not well, if what it printed is lost.
fn end(exit: Exit, out: &ToUser) -> Exit {
    let Some(error) = output::lost() else { return exit };
    out.say(&format!("Error: standard output: {error}: the output is incomplete"));
    if exit.code() == Exit::Ok.code() { Exit::Unwritten } else { exit }
}

fn dispatch(
    command: Command,
    global: &GlobalOptions,
    role: Role,
    out: ToUser,
) -> Result<Exit, Error> {
    // All others were put there by their guard.
    if let (Some(folder), Role::Fresh) = (&global.workdir, &role) {
        crate::os::cwd::enter(folder)
            .map_err(|error| Error::usage(format!("--workdir {}: {error}", folder.display())))?;
    }
    match command {
        Command::Worker(args) => worker::run(args, global, role, out),
        Command::Multi(args) => multi::run(args, global, out),
        Command::Beat(args) => beat::run(args, global, role, out),
        Command::Call(args) => call::run(args, global, out),
        Command::Apply(args) => apply::run(args, global, out),
        Command::Graph(args) => graph::run(&args, global, out),
        Command::Task(what) => task::run(what, out),
        Command::Result(args) => result::run(&args, global, out),
        Command::List(what) => list::run(what, global, out),
        Command::Purge(args) => purge::run(args, global, out),
        Command::Status(args) => status::run(&args, global, out),
        Command::Health(args) => health::run(&args, global, out),
        Command::Dead(what) => dead::run(what, global, out),
        Command::Report(args) => report::run(&args, global, out),
        Command::Check(args) => check::run(&args, global, out),
        Command::Completions(args) => complete::script(&args, out),
        Command::Complete(args) => complete::run(args, out),
        #[cfg(feature = "wasm")]
        Command::Compile(args) => compile::run(&args, out),
    }
}

/// Prints what clap has to say. It repeats what was typed, in which an address may stand.
fn complain(error: &clap::Error) {
    let text = error.render();
    if error.use_stderr() && text.to_string().contains("://") {
        ToUser::new(true, false).say(text.to_string().trim_end());
        return;
    }
    // A closed pipe is no reason to fail.
    let _ = error.print();
}

/// The option that the command line has and we have not, if that is the error.
fn unknown(error: &clap::Error) -> Option<String> {
    let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidArg) else { return None };
    let option = word.split('=').next()?;
    (error.kind() == ErrorKind::UnknownArgument).then(|| option.into())
}

/// The command of a command line that may have mistakes in it.
fn typed() -> Option<String> {
    let matches = command_line().ignore_errors(true).try_get_matches().ok()?;
    matches.subcommand_name().map(str::to_string)
}

/// The option of the program that stands behind the command, if that is the error.
fn misplaced(error: &clap::Error) -> Option<String> {
    let option = unknown(error)?;
    let name = option.trim_start_matches('-');
    let known = command_line().get_arguments().any(|arg| {
        arg.get_long() == Some(name)
            || arg.get_short().is_some_and(|short| option == format!("-{short}"))
    });
    known.then_some(option)
}

/// Reads the variable of a flag, as a setting that is true or false.
fn truth() -> fn(&str) -> Result<bool, String> {
    kind::from_text::<kind::Flag>
}

/// Reads a number of at least one.
fn count<N: TryFrom<i64>>(text: &str) -> Result<N, String> {
    let number = units::whole(text).filter(|number| *number > 0);
    let number = number.and_then(|number| N::try_from(number).ok());
    number.ok_or_else(|| format!("expected {}", kind::Count::EXPECTED))
}

/// Runs a client's work to its end on a loop of its own.
fn block_on<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::failure(format!("cannot start the event loop: {error}")))?
        .block_on(work)
}
