//! `qworker purge`: empty queues.

use super::app::{App, GlobalOptions};
use super::exit::{Error, Exit};
use super::output::ToUser;
use crate::config::kind;
use crate::link::sqlite::Access;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Do not ask for confirmation
    #[arg(short, long, env = "QWORKER_PURGE_FORCE", value_parser = super::truth())]
    force: bool,
    /// Only these queues, separated by commas [default: the default queue and those of the tasks]
    #[arg(short = 'Q', long, value_delimiter = ',', value_parser = kind::listed, env = "QWORKER_PURGE_QUEUES")]
    queues: Vec<String>,
    /// Not these queues
    #[arg(short = 'X', long, value_delimiter = ',', value_parser = kind::listed, env = "QWORKER_PURGE_EXCLUDE_QUEUES")]
    exclude_queues: Vec<String>,
}

pub(super) fn run(args: Args, global: &GlobalOptions, out: ToUser) -> Result<Exit, Error> {
    let app = App::open(global, &[])?;
    let mut queues =
        if args.queues.is_empty() { app.queues(&app.tasks(&out)?) } else { args.queues };
    queues.retain(|queue| !args.exclude_queues.contains(queue));
    if queues.is_empty() {
        return Err(Error::usage("no queue is left to purge"));
    }
    if !args.force {
        let names = queues.join(", ");
        out.say(&format!("WARNING: This will remove all waiting tasks from: {names}."));
        out.say("There is no undo for this operation! (to skip this question use the -f option)");
        if !out.confirm("Are you sure you want to delete all tasks?") {
            out.say("Aborted!");
            return Ok(Exit::Failure);
        }
    }
    let known = queues.len();
    let purged = super::block_on(async {
        Ok(app.client_to(Access::Change)?.broker.admin().purge(queues).await?)
    })?;
    let queues = if known == 1 { "queue" } else { "queues" };
    out.print(&match purged {
        0 => format!("No messages purged from {known} {queues}."),
        1 => format!("Purged 1 message from {known} known task {queues}."),
        n => format!("Purged {n} messages from {known} known task {queues}."),
    });
    Ok(Exit::Ok)
}
