//! `qworker health`: for probes. Asks a worker on its socket, and no broker; settings only tell workers of one name apart.

use super::app::{App, GlobalOptions};
use super::exit::{Error, Exit};
use super::output::ToUser;
use crate::client::health::{self, StatusDocument};
use crate::config::{kind, nearest};
use crate::log::escape;
use crate::os::node_socket::{self, Search};
use std::io;
use std::path::Path;
use std::time::Duration;

/// Where the one that is asked for is not, up to so many others are named.
const NAMED_MAX: usize = 10;

/// How long those others are waited for.
const NAMED_WAIT: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Node name of the worker, NAME@HOST [default: celery@%h]
    #[arg(short = 'n', long, value_name = "NODE", env = "QWORKER_WORKER_HOSTNAME")]
    hostname: Option<String>,
    /// Check that the worker's event loop responds; the broker does not matter
    #[arg(long, conflicts_with = "ready")]
    live: bool,
    /// Check that the worker takes messages and that the broker has answered recently
    #[arg(long)]
    ready: bool,
    /// How long to wait for an answer
    #[arg(short, long, value_name = "SECONDS", default_value = "1", value_parser = kind::from_text::<kind::Span>)]
    timeout: Duration,
    /// Print the worker's status as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, global: &GlobalOptions, out: ToUser) -> Result<Exit, Error> {
    let node = App::node_name(args.hostname.as_deref(), "celery")?;
    let search = node_socket::find(&node, nix::unistd::geteuid().as_raw());
    let (mut said, mut faults) = (Vec::new(), Vec::new());
    for address in &search.found {
        match health::ask(address, args.timeout) {
            Ok(status) => said.push(status),
            Err(error) => faults.push(error),
        }
    }
    let status = match choose(said, global) {
        Ok(Some(status)) => status,
        Ok(None) => return Err(silent(&node, &search, &faults, args.timeout)),
        // The one that is meant may be one that has not answered.
        Err(_) if faults.iter().any(|fault| !is_gone(fault)) => {
            return Err(silent(&node, &search, &faults, args.timeout));
        }
        Err(others) => return Err(mistaken(&node, &others, global)),
    };
    if args.json {
        out.print(&serde_json::to_string(&status).unwrap_or_default());
    } else if !out.quiet {
        out.tell(&sentence(&status));
    }
    Ok(if status.ready || args.live { Exit::Ok } else { Exit::Failure })
}

/// Is something named, and whose is it?
type Wish<'a> = (bool, &'a dyn Fn(&StatusDocument) -> bool);

/// Of the workers of this name the one that is meant: that of the application and the broker that
/// are named, else of those here. Several of which none is meant, or all, are an error.
fn choose(
    mut said: Vec<StatusDocument>,
    global: &GlobalOptions,
) -> Result<Option<StatusDocument>, Vec<StatusDocument>> {
    if said.is_empty() {
        return Ok(None);
    }
    let app = App::examine(global, &[]).ok();
    let is_here = |status: &StatusDocument, app: &App| {
        let same = |path: &Path| path.canonicalize().ok();
        let (theirs, ours) = (Path::new(&status.app), &*app.folder);
        theirs == ours || same(theirs).is_some_and(|theirs| Some(theirs) == same(ours))
    };
    let of_app = |status: &StatusDocument| app.as_ref().is_some_and(|app| is_here(status, app));
    let of_broker =
        |status: &StatusDocument| app.as_ref().is_some_and(|app| status.broker == app.broker());
    // What is named is meant; what is only here is preferred.
    let wishes: [Wish<'_>; 2] =
        [(global.app.is_some(), &of_app), (global.broker.is_some(), &of_broker)];
    for (named, is_meant) in wishes {
        let (meant, others): (Vec<StatusDocument>, Vec<StatusDocument>) =
            said.into_iter().partition(is_meant);
        said = match (meant.is_empty(), named) {
            (true, true) => return Err(others),
            (true, false) => others,
            (false, _) => meant,
        };
    }
    match said.len() {
        1 => Ok(said.pop()),
        _ => Err(said),
    }
}

/// Says this error that there is no worker any more?
fn is_gone(fault: &io::Error) -> bool {
    [io::ErrorKind::ConnectionRefused, io::ErrorKind::NotFound].contains(&fault.kind())
}

fn silent(node: &str, search: &Search, faults: &[io::Error], timeout: Duration) -> Error {
    let unknown =
        |why: String| Error::unavailable(format!("cannot tell whether {node} is alive: {why}"));
    let dead = |why: String| Error::unavailable(format!("{node} is not alive: {why}"));
    match faults.iter().find(|fault| !is_gone(fault)) {
        Some(error) if error.kind() == io::ErrorKind::TimedOut => {
            unknown(format!("no answer within {} s", timeout.as_secs_f64()))
        }
        Some(error) => unknown(error.to_string()),
        None if !search.hidden.is_empty() => unknown(search.hidden.join("; ")),
        None if !faults.is_empty() => dead("nobody listens any more".into()),
        None => {
            let error = dead("no worker of this name runs here as this user".into());
            match alive(node, timeout) {
                nodes if nodes.is_empty() => {
                    error.hint("name it with -n; another user's worker answers him and root")
                }
                nodes => error.hint(format!("name it with -n; alive here: {}", nodes.join(", "))),
            }
        }
    }
}

/// Names of workers that answer here, those most like `node` first, once each.
fn alive(node: &str, timeout: Duration) -> Vec<String> {
    let sockets = node_socket::find_all(nix::unistd::geteuid().as_raw()).found;
    let answers = health::ask_all(&sockets, timeout.min(NAMED_WAIT));
    let mut nodes: Vec<String> = answers.into_iter().map(|status| status.node).collect();
    nodes.sort();
    nodes.dedup();
    let near = nearest(node, nodes.iter().map(String::as_str), NAMED_MAX);
    let mut named: Vec<String> = near.into_iter().map(String::from).collect();
    named.extend(nodes.into_iter().filter(|other| !named.contains(other)).collect::<Vec<_>>());
    named.truncate(NAMED_MAX);
    named
}

fn mistaken(node: &str, others: &[StatusDocument], global: &GlobalOptions) -> Error {
    let names: Vec<String> = others
        .iter()
        .map(|one| format!("{} on {} (pid {})", one.app, one.broker, one.guard))
        .collect();
    let names = names.join(", ");
    match (&global.app, &global.broker) {
        (None, None) => Error::unavailable(format!(
            "cannot tell which {node} is meant: there are those of {names}"
        ))
        .hint("name the application with -A, or the broker with -b"),
        _ => Error::unavailable(format!(
            "the application or broker that is named has no living {node}: there is one of {names}"
        )),
    }
}

fn sentence(status: &StatusDocument) -> String {
    let StatusDocument { node, running, slots, .. } = status;
    let lost = status.log.as_ref();
    let lost = lost.map_or_else(String::new, |lost| format!("; its log: {}", escape::line(lost)));
    match &status.why {
        None => {
            let names: Vec<_> = status.unknown.iter().map(|name| escape::name(name)).collect();
            let unknown = match names.is_empty() {
                true => String::new(),
                false => {
                    format!("; unknown names are left to other workers: {}", names.join(", "))
                }
            };
            format!("{node} is ready: {running} of {slots} slots run a task{unknown}{lost}")
        }
        Some(why) => format!("{node} is alive, and not ready: {why}{lost}"),
    }
}
