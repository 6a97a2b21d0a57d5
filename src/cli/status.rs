//! `qworker status`: which workers are alive.

use super::app::{App, GlobalOptions};
use super::exit::{Error, Exit};
use super::output::ToUser;
use crate::link::sqlite::Access;
use crate::log::escape;
use serde_json::{Map, json};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only these nodes, separated by commas
    #[arg(short, long, value_delimiter = ',', env = "QWORKER_STATUS_DESTINATION")]
    destination: Vec<String>,
    /// Print JSON
    #[arg(short, long, env = "QWORKER_STATUS_JSON", value_parser = super::truth())]
    json: bool,
}

pub(super) fn run(args: &Args, global: &GlobalOptions, out: ToUser) -> Result<Exit, Error> {
    let app = App::open(global, &[])?;
    let mut nodes =
        super::block_on(async { Ok(app.client_to(Access::Look)?.broker.admin().nodes().await?) })?;
    let alive: Vec<String> = nodes.iter().map(|node| node.hostname.clone()).collect();
    nodes.retain(|node| args.destination.is_empty() || args.destination.contains(&node.hostname));
    if nodes.is_empty() {
        let where_to = app.broker();
        return Err(match alive.is_empty() {
            true => Error::unavailable(format!("no worker is alive on {where_to}")),
            false => {
                let asked = args.destination.join(", ");
                Error::unavailable(format!("no worker named {asked} is alive on {where_to}"))
                    .hint(format!("alive: {}", alive.join(", ")))
            }
        });
    }
    if args.json {
        let all: Map<String, _> = nodes
            .iter()
            .map(|node| (node.hostname.clone(), json!({"ok": "pong", "pid": node.pid})))
            .collect();
        out.print(&serde_json::Value::Object(all).to_string());
        return Ok(Exit::Ok);
    }
    for node in &nodes {
        out.print(&format!("->  {}: {}", escape::name(&node.hostname), out.paint(32, "OK")));
    }
    let count = nodes.len();
    out.print(&format!("\n{count} {} online.", if count == 1 { "node" } else { "nodes" }));
    Ok(Exit::Ok)
}
