//! `qworker apply`: send the workflow that a file describes, or check files.

use super::app::{App, GlobalOptions};
use super::call::text_of;
use super::exit::{Error, Exit};
use super::output::ToUser;
use super::sending::UNREGISTERED;
use super::workflow::{self, Then};
use super::{files, utf8};
use crate::config::{Diagnostic, kind};
use crate::flow::check::Checker;
use crate::flow::{ParamValues, WorkflowFile};
use crate::task::set::Set;
use crate::wire::body::Pairs;
use crate::wire::value;
use serde_json::value::RawValue;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Exit codes: 0 succeeded; 1 a task failed, or --check found errors; 2 invalid; 75 not ready yet
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The workflow's file (- for standard input); with --check any number of files
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Value of a parameter: JSON, or text; may be given several times
    #[arg(short, long, value_name = "NAME=VALUE", env = "QWORKER_APPLY_PARAM", value_parser = param)]
    param: Vec<(String, Box<RawValue>)>,
    /// Values of parameters, a JSON object; @FILE reads it from a file, @- from standard input
    #[arg(long, value_name = "JSON", default_value = "{}", env = "QWORKER_APPLY_PARAMS")]
    params: String,
    /// Check the files without sending anything
    #[arg(long, env = "QWORKER_APPLY_CHECK", value_parser = super::truth(), conflicts_with_all = ["param", "params", "wait"])]
    check: bool,
    /// Allow tasks that tasks.d does not define, for other workers
    #[arg(long, env = "QWORKER_APPLY_UNREGISTERED", value_parser = super::truth())]
    unregistered: bool,
    /// Wait for the result and print it instead of the id; meanwhile show every task and its state
    #[arg(short, long, env = "QWORKER_APPLY_WAIT", value_parser = super::truth())]
    wait: bool,
    /// Wait at most this many seconds
    #[arg(long, value_name = "SECONDS", requires = "wait", env = "QWORKER_APPLY_TIMEOUT", value_parser = kind::from_text::<kind::Span>, allow_negative_numbers = true)]
    timeout: Option<Duration>,
    /// With --wait: print the whole result document as JSON; of a group an array of them
    #[arg(short, long, requires = "wait", env = "QWORKER_APPLY_JSON", value_parser = super::truth())]
    json: bool,
}

/// What is JSON is that, and anything else is text.
fn param(text: &str) -> Result<(String, Box<RawValue>), String> {
    let Some((name, given)) = text.split_once('=').filter(|(name, _)| !name.is_empty()) else {
        return Err("expected NAME=VALUE".into());
    };
    let read = serde_json::from_str::<Box<RawValue>>(given);
    Ok((name.into(), read.unwrap_or_else(|_| value::raw(&given.into()))))
}

pub(super) fn run(args: Args, global: &GlobalOptions, out: ToUser) -> Result<Exit, Error> {
    let app = App::open(global, &[])?;
    let (tasks, faults) = app.examine_tasks();
    let checker = Checker { tasks: &tasks, unregistered: args.unregistered };
    if args.check {
        App::seen(&faults)?;
        return check(&args.files, &checker, out);
    }
    let [file] = &args.files[..] else {
        let text = format!("found {} files, expected one", args.files.len());
        return Err(Error::usage(text).hint("--check takes several"));
    };
    if file == Path::new("-") && args.params == "@-" {
        let text = "the workflow and --params cannot both be read from standard input";
        return Err(Error::usage(text));
    }
    let flow = parse(file)?;
    let bound = bind(&flow, &args, file)?;
    super::block_on(async {
        let client = app.client()?;
        let priorities = client.broker.abilities().priorities;
        let number = |priority| priorities.number(Some(priority));
        let (signature, found) = flow.signature(&bound, &checker, &number);
        let Some(signature) = signature else {
            return Err(wrong(&found, &tasks, &faults));
        };
        let then = match args.wait {
            true => Then::Wait { limit: args.timeout, json: args.json, shows_tree: true },
            false => Then::PrintId,
        };
        workflow::run(&app, &client, &tasks, signature, then, out).await
    })
}

/// Why a file cannot be sent: everything that is wrong with it.
fn wrong(found: &[Diagnostic], tasks: &Set, faults: &[Diagnostic]) -> Error {
    let lines: Vec<String> = found.iter().map(ToString::to_string).collect();
    let error = Error::usage(format!("wrong workflow\n{}", lines.join("\n")));
    if !found.iter().any(|fault| fault.message.starts_with("no task ")) {
        return error;
    }
    let error = match faults.is_empty() {
        true => error,
        false => error.hint(format!(
            "tasks.d has {} with errors beside {} without; `qworker check` shows every mistake",
            count(faults.len()),
            tasks.len()
        )),
    };
    error.hint(UNREGISTERED)
}

fn count(number: usize) -> String {
    format!("{number} place{}", if number == 1 { "" } else { "s" })
}

/// The text of a file, and what it is called.
fn text(file: &Path) -> Result<(String, String), Box<Diagnostic>> {
    if file != Path::new("-") {
        return Ok((file.display().to_string(), files::read(file)?));
    }
    let (name, mut bytes) = ("standard input".to_string(), Vec::new());
    let fault = |line, why: String| Box::new(Diagnostic::new(&name, line, why));
    let done = std::io::stdin().read_to_end(&mut bytes);
    done.map_err(|error| fault(None, error.to_string()))?;
    let text = utf8::text(&bytes).map(str::to_string);
    let text = text.map_err(|(line, why)| fault(Some(line), why))?;
    Ok((name.clone(), text))
}

fn parse(file: &Path) -> Result<WorkflowFile, Error> {
    let (name, text) = text(file).map_err(|fault| Error::usage(fault.to_string()))?;
    let (flow, found) = WorkflowFile::parse(&name, &text);
    match flow.filter(|_| found.is_empty()) {
        Some(flow) => Ok(flow),
        None => Err(wrong(&found, &Set::default(), &[])),
    }
}

/// The values of the parameters.
fn bind(flow: &WorkflowFile, args: &Args, file: &Path) -> Result<ParamValues, Error> {
    let text = text_of("--params", &args.params)?;
    let Pairs(mut given) = serde_json::from_str(&text).map_err(|error| {
        Error::usage(format!("--params: expected a JSON object like '{{\"day\": 1}}': {error}"))
    })?;
    given.extend(args.param.iter().cloned());
    flow.bind(&given).map_err(|misfits| {
        let lines: Vec<String> = misfits.iter().map(ToString::to_string).collect();
        let names: Vec<&str> = flow.params.iter().map(|param| param.name.as_str()).collect();
        let error = Error::usage(format!("{}: {}", file.display(), lines.join("; ")));
        match names.is_empty() {
            true => error.hint("its key params names parameters; it has none"),
            false => error.hint(format!("its parameters: {}", names.join(", "))),
        }
    })
}

/// Everything that is wrong with these files.
fn check(files: &[PathBuf], checker: &Checker<'_>, out: ToUser) -> Result<Exit, Error> {
    let mut errors = 0;
    for file in files {
        let found = match text(file) {
            Err(fault) => vec![*fault],
            Ok((name, text)) => {
                let (flow, mut found) = WorkflowFile::parse(&name, &text);
                if let Some(flow) = flow {
                    found.extend(flow.signature(&flow.unbound(), checker, &|number| number).1);
                    found.sort_by_key(|fault| fault.line);
                }
                found
            }
        };
        found.iter().for_each(|fault| out.tell(&fault.to_string()));
        if found.is_empty() {
            out.tell(&format!("{}: no error.", file.display()));
        }
        errors += found.len();
    }
    match errors {
        0 => Ok(Exit::Ok),
        1 => {
            out.say("1 error found.");
            Ok(Exit::Failure)
        }
        _ => {
            out.say(&format!("{errors} errors found."));
            Ok(Exit::Failure)
        }
    }
}
