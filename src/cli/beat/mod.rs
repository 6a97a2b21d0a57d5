//! `qworker beat`: send tasks by a schedule; list, run, pause, check and simulate its entries.

mod change;
pub(super) mod check;
mod files;
mod schedule_options;
mod show;
mod start;

pub(super) use start::{Embedded, Prepared};

use super::app::{App, GlobalOptions};
use super::exit::{Error, Exit};
use super::output::ToUser;
use crate::guard::Role;
use crate::schedule::entry::Entry;
use std::sync::Arc;

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Args {
    #[command(subcommand)]
    what: Option<BeatCommand>,
    #[command(flatten)]
    start: start::Args,
}

#[derive(Debug, clap::Subcommand)]
enum BeatCommand {
    /// List the entries, with their last and next runs
    List(show::ListArgs),
    /// Print when an entry is due next
    Next(show::NextArgs),
    /// Send the task of an entry now, regardless of its schedule
    Run(change::RunArgs),
    /// Pause entries: send nothing until they are resumed
    Pause(change::ChangeArgs),
    /// Resume paused entries, with what is due from now on
    Resume(change::ChangeArgs),
    /// Report all errors in schedule files
    Check(check::Args),
    /// Print what would be sent in a period of time
    Simulate(show::SimulateArgs),
}

pub(super) fn run(
    args: Args,
    global: &GlobalOptions,
    role: Role,
    out: ToUser,
) -> Result<Exit, Error> {
    match args.what {
        None => start::run(args.start, global, role, out),
        Some(BeatCommand::List(args)) => show::list(&args, global, out),
        Some(BeatCommand::Next(args)) => show::next(&args, global, out),
        Some(BeatCommand::Run(args)) => change::run(&args, global, out),
        Some(BeatCommand::Pause(args)) => change::pause(&args, global, true, out),
        Some(BeatCommand::Resume(args)) => change::pause(&args, global, false, out),
        Some(BeatCommand::Check(args)) => check::run(&args, global, out),
        Some(BeatCommand::Simulate(args)) => show::simulate(&args, global, out),
    }
}

/// The entries of an application that have no mistakes.
pub(super) fn entries(app: &App) -> Vec<Arc<Entry>> {
    files::read_all(app, &[]).entries
}
