//! `qworker health`: for probes. Asks a worker on its socket; no broker, no settings.

use super::app::App;
use super::exit::{Error, Exit};
use super::output::ToUser;
use crate::client::local::{self, Status};
use crate::log::escape;
use crate::os::runtime;
use std::time::Duration;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Node name, NAME@HOST, as the worker has it [default: celery@%h]
    #[arg(short = 'n', long, value_name = "NODE", env = "QWORKER_WORKER_HOSTNAME")]
    hostname: Option<String>,
    /// Is it alive? Its loop turns; a broker that is gone changes nothing
    #[arg(long, conflicts_with = "ready")]
    live: bool,
    /// Is it ready? It takes messages, and the broker has answered lately
    #[arg(long)]
    ready: bool,
    /// Wait so long for an answer
    #[arg(short, long, value_name = "SECONDS", default_value = "1", value_parser = super::span)]
    timeout: Duration,
    /// Print what the worker says of itself as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, out: ToUser) -> Result<Exit, Error> {
    let node = App::node_name(args.hostname.as_deref(), "celery")?;
    let dead = |why: String| Error::unavailable(format!("{node} is not alive: {why}"));
    let user = nix::unistd::geteuid().as_raw();
    let socket = runtime::find(&node, user).ok_or_else(|| {
        dead("no worker of this name runs here as this user".into()).hint("name it with -n")
    })?;
    let status = local::ask(&socket, args.timeout).map_err(|error| {
        dead(match error.kind() {
            std::io::ErrorKind::TimedOut => {
                format!("no answer within {} s", args.timeout.as_secs_f64())
            }
            std::io::ErrorKind::ConnectionRefused => "nobody listens any more".into(),
            _ => error.to_string(),
        })
    })?;
    if args.json {
        out.print(&serde_json::to_string(&status).unwrap_or_default());
    } else if !out.quiet {
        out.print(&sentence(&status));
    }
    Ok(if status.ready || args.live { Exit::Ok } else { Exit::Failure })
}

fn sentence(status: &Status) -> String {
    let Status { node, running, slots, .. } = status;
    match &status.why {
        None => {
            let names: Vec<_> = status.unknown.iter().map(|name| escape::name(name)).collect();
            let unknown = match names.is_empty() {
                true => String::new(),
                false => {
                    format!("; it leaves to others what it does not know: {}", names.join(", "))
                }
            };
            format!("{node} is ready: {running} of {slots} slots run a task{unknown}")
        }
        Some(why) => format!("{node} is alive, and not ready: {why}"),
    }
}
