//! `qworker call`: send one task, or a batch of them.

use super::app::{App, GlobalOptions};
use super::batch::{self, Input};
use super::exit::{Error, Exit};
use super::output::ToUser;
use super::result::{self, OutputFormat};
use super::sending::{SendOptions, Sending};
use super::utf8;
use super::wait::{self, WaitEnd};
use crate::client::send;
use crate::clock;
use crate::config::kind;
use crate::wire::Draft;
use crate::wire::body::Pairs;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The task's name
    #[arg(value_parser = kind::from_text::<kind::TaskName>)]
    name: String,
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
    /// Task id [default: a new UUID]
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
