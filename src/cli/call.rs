//! `qworker call`: send one task, a workflow of some, or a batch of them.

use super::app::{App, GlobalOptions};
use super::batch::{self, Input};
use super::exit::{Error, Exit};
use super::output::ToUser;
use super::result::{self, OutputFormat};
use super::sending::{SendOptions, Sending};
use super::utf8;
use super::wait::{self, WaitEnd};
use super::workflow::{self, Then};
use crate::canvas;
use crate::client::send;
use crate::clock;
use crate::config::kind;
use crate::flow::words;
use crate::wire::Draft;
use crate::wire::body::Pairs;
use crate::wire::signature::raw_text;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The task's name; with --chain, --group or --chord the first call
    #[arg(value_parser = word)]
    name: String,
    /// Further calls of a workflow, each one word: a task's name, then optionally a JSON array and a
    /// JSON object of its arguments; or a whole signature as a JSON object; @FILE and @- read one
    #[arg(value_name = "CALL", value_parser = word)]
    more: Vec<String>,
    /// Call the tasks one after the other, each with the result of the one before as its first
    /// argument
    #[arg(long, env = "QWORKER_CALL_CHAIN", value_parser = super::truth(), conflicts_with_all = SINGLE)]
    chain: bool,
    /// Call the tasks side by side
    #[arg(long, env = "QWORKER_CALL_GROUP", value_parser = super::truth(), conflicts_with_all = SINGLE, conflicts_with = "chain")]
    group: bool,
    /// Call the tasks side by side, and the last one with the list of their results
    #[arg(long, env = "QWORKER_CALL_CHORD", value_parser = super::truth(), conflicts_with_all = SINGLE, conflicts_with_all = ["chain", "group"])]
    chord: bool,
    /// Positional arguments, a JSON array; @FILE reads it from a file, @- from standard input
    #[arg(short, long, value_name = "JSON", default_value = "[]", env = "QWORKER_CALL_ARGS")]
    args: String,
    /// Keyword arguments, a JSON object; @FILE and @- as above
    #[arg(short, long, value_name = "JSON", default_value = "{}", env = "QWORKER_CALL_KWARGS")]
    kwargs: String,
    /// Send one task for each line of FILE (- for standard input): a JSON array of positional
    /// arguments, or an object with any of args, kwargs, id, countdown, eta, expires, queue and
    /// priority. Invalid lines are reported; the others are sent
    #[arg(
        long,
        value_name = "FILE",
        env = "QWORKER_CALL_FROM_JSONL",
        conflicts_with_all = ["args", "kwargs", "task_id", "wait", "timeout", "json"]
    )]
    from_jsonl: Option<PathBuf>,
    #[command(flatten)]
    options: SendOptions,
    /// Task id; of a workflow that of its last task, or of its group [default: a new UUID]
    #[arg(long, value_name = "ID", env = "QWORKER_CALL_TASK_ID", value_parser = kind::from_text::<kind::TaskId>)]
    task_id: Option<String>,
    /// Wait for the result and print it instead of the id
    #[arg(short, long, env = "QWORKER_CALL_WAIT", value_parser = super::truth())]
    wait: bool,
    /// Wait at most this many seconds
    #[arg(long, value_name = "SECONDS", requires = "wait", env = "QWORKER_CALL_TIMEOUT", value_parser = kind::from_text::<kind::Span>, allow_negative_numbers = true)]
    timeout: Option<Duration>,
    /// With --wait: print the whole result document as JSON
    #[arg(short, long, requires = "wait", env = "QWORKER_CALL_JSON", value_parser = super::truth())]
    json: bool,
}

pub(super) fn run(mut args: Args, global: &GlobalOptions, out: ToUser) -> Result<Exit, Error> {
    let app = App::open(global, &[])?;
    if let Some(form) = args.form() {
        return call_workflow(args, form, &app, out);
    }
    if !args.more.is_empty() {
        let text = format!("found {} words, expected a task's name", args.more.len() + 1);
        return Err(Error::usage(text)
            .hint("--chain, --group and --chord take one call a word")
            .hint("-a takes the arguments of a single task"));
    }
    if args.name.starts_with(['{', '@']) {
        let text = format!("{}: expected a task's name", args.name);
        return Err(Error::usage(text).hint("--chain, --group and --chord take whole signatures"));
    }
    let expected = |why| Error::usage(format!("{:?}: {why}", args.name));
    kind::from_text::<kind::TaskName>(&args.name).map_err(expected)?;
    if let Some(name) = args.from_jsonl {
        let sending = Sending::new(&args.name, args.options, &app)?;
        // What is wrong with the options is said at once, and not for each line.
        sending.draft(clock::now())?;
        let input = Input::open(&name)?;
        return super::block_on(async {
            let client = app.client()?;
            batch::send(&sending, &client.broker.producer(), input, out).await
        });
    }
    let (positional, keywords) = read_arguments(&args.args, &args.kwargs)?;
    let id = args.task_id.take().unwrap_or_default();
    let sending = Sending::new(&args.name, args.options, &app)?;
    let now = clock::now();
    let draft = Draft { id, args: positional, kwargs: keywords, ..sending.draft(now)? };
    sending.check(&draft).map_err(Error::usage)?;
    super::block_on(async {
        let client = app.client()?;
        let producer = client.broker.producer();
        let bound = sending.bound(&producer).await?;
        let postings = sending.postings(&producer, &bound, draft, now);
        let postings = postings.map_err(|error| Error::usage(error.to_string()))?;
        let id = postings.first().map(|posting| posting.task_id.clone()).unwrap_or_default();
        send::send(&producer, postings, sending.deadline).await?;
        if !args.wait {
            out.hand_over(&id);
            return Ok(Exit::Ok);
        }
        match wait::for_result(&app, &client, &id, (args.timeout, false), out).await? {
            WaitEnd::Answer(answer) => result::show(
                &id,
                answer,
                if args.json { OutputFormat::Json } else { OutputFormat::Value },
                out,
            ),
            WaitEnd::Left(exit) => Ok(exit),
        }
    })
}

/// Options of a single task.
const SINGLE: [&str; 5] = ["args", "kwargs", "from_jsonl", "exchange", "routing_key"];

/// A task's name, or what a workflow has in its place.
fn word(text: &str) -> Result<String, String> {
    if !text.starts_with(['{', '@']) {
        kind::from_text::<kind::TaskName>(words::split(text).0)?;
    }
    Ok(text.into())
}

impl Args {
    /// Of which form the workflow is, if it is one.
    fn form(&self) -> Option<&'static str> {
        let forms = [(self.chain, "chain"), (self.group, "group"), (self.chord, "chord")];
        forms.into_iter().find(|(is_it, _)| *is_it).map(|(_, form)| form)
    }
}

fn call_workflow(args: Args, form: &str, app: &App, out: ToUser) -> Result<Exit, Error> {
    let words: Vec<&String> = std::iter::once(&args.name).chain(&args.more).collect();
    if words.iter().filter(|word| *word == &"@-").count() > 1 {
        return Err(Error::usage(format!(
            "--{form}: only one call can be read from standard input"
        )));
    }
    let mut calls = Vec::new();
    for (at, word) in words.into_iter().enumerate() {
        let option = format!("--{form}: call {}", at + 1);
        let text = text_of(&option, word)?;
        let one = words::read(&text).map_err(|why| Error::usage(format!("{option}: {why}")))?;
        calls.push(one);
    }
    let mut signature = match form {
        "chain" => words::chain(&calls),
        "group" => words::group(&calls),
        _ => {
            let body = calls.pop().filter(|_| !calls.is_empty()).ok_or_else(|| {
                Error::usage(
                    "--chord: found one call, expected some for the header, and last the body",
                )
            })?;
            words::chord(&calls, &body)
        }
    };
    let (tasks, faults) = app.examine_tasks();
    workflow::check(&signature, &tasks, args.options.unregistered(), &faults)?;
    super::block_on(async {
        let client = app.client()?;
        let priorities = client.broker.abilities().priorities;
        let mut options = args.options.of_signature(priorities, clock::now())?;
        options.extend(args.task_id.iter().map(|id| ("task_id".to_string(), raw_text(id))));
        canvas::set_options(&mut signature, &options, true)
            .map_err(|why| Error::usage(format!("--{form}: {why}")))?;
        let then = match args.wait {
            true => Then::Wait { limit: args.timeout, json: args.json, shows_tree: false },
            false => Then::PrintId,
        };
        workflow::run(app, &client, &tasks, signature, then, out).await
    })
}

pub(super) type Keywords = Vec<(String, Box<RawValue>)>;

/// The text of an option, or what the file that it names holds: the kernel takes no more than
/// 128 KiB as one argument.
pub(super) fn text_of<'a>(option: &str, value: &'a str) -> Result<Cow<'a, str>, Error> {
    let Some(file) = value.strip_prefix('@') else { return Ok(value.into()) };
    let mut read = Vec::new();
    let done = match file {
        "-" => std::io::stdin().read_to_end(&mut read),
        file => std::fs::File::open(file).and_then(|mut file| file.read_to_end(&mut read)),
    };
    let name = if file == "-" { "standard input" } else { file };
    done.map_err(|error| Error::usage(format!("{option}: {name}: {error}")))?;
    let text = utf8::text(&read).map(|text| Cow::from(text.to_string()));
    text.map_err(|(line, why)| Error::usage(format!("{option}: {name}:{line}: {why}")))
}

/// The arguments of `--args` and `--kwargs`.
pub(super) fn read_arguments(
    args: &str,
    kwargs: &str,
) -> Result<(Vec<Box<RawValue>>, Keywords), Error> {
    if args == "@-" && kwargs == "@-" {
        return Err(Error::usage("--args and --kwargs cannot both be read from standard input"));
    }
    let text = text_of("--args", args)?;
    let positional = serde_json::from_str(&text).map_err(|error| {
        Error::usage(format!("--args: expected a JSON array like '[2, 3]': {error}"))
    })?;
    let text = text_of("--kwargs", kwargs)?;
    let Pairs(keywords) = serde_json::from_str(&text).map_err(|error| {
        Error::usage(format!(
            "--kwargs: expected a JSON object like '{{\"path\": \"a.png\"}}': {error}"
        ))
    })?;
    Ok((positional, keywords))
}
