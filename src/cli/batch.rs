//! `qworker call --from-jsonl`: one line is one task. Lines are read, made into messages and
//! sent some hundred at a time, so that a file of any length takes no more memory.

use super::exit::{Error, Exit};
use super::output::ToUser;
use super::progress::Progress;
use super::sending::{self, Sending};
use super::utf8;
use crate::bounds::{BATCH_BYTES_MAX, BATCH_LINE_MAX, BATCH_TASKS_MAX};
use crate::broker::{Posting, Producer};
use crate::client::send;
use crate::clock;
use crate::config::Faults;
use crate::config::kind::{Countdown, Priority, Queue, TaskId, ValueKind};
use crate::config::node::YamlNode;
use crate::wire::Draft;
use crate::wire::body::Pairs;
use chrono::{DateTime, Utc};
use serde::de::DeserializeOwned;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

/// Number of invalid lines that are reported each; the rest are only counted.
const SHOWN_MAX: u64 = 20;

/// Bytes that are read ahead.
const READ_AHEAD: usize = 256 * 1024;

/// Keys that a line may have, as an error names them.
const KEYS: &str = "args, kwargs, id, countdown, eta, expires, queue or priority";

/// Where the lines come from.
pub(super) struct Input {
    name: String,
    reader: BufReader<Box<dyn Read>>,
    /// How long it is, if that can be known.
    length: Option<u64>,
    line: Vec<u8>,
    /// Number of the line, from 1 on.
    number: u64,
    /// Bytes read.
    position: u64,
}

impl Input {
    /// Opens the file of this name; `-` is standard input.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn open(path: &Path) -> Result<Input, Error> {
        let (name, source, length): (_, Box<dyn Read>, _) = if path == Path::new("-") {
            ("standard input".into(), Box::new(io::stdin()), None)
        } else {
            let name = path.display().to_string();
            let opened = File::open(path).and_then(|file| Ok((file.metadata()?, file)));
            let (about, file) = opened.map_err(|error| unreadable(&name, &error))?;
            if about.is_dir() {
                return Err(unreadable(&name, &io::ErrorKind::IsADirectory.into()));
            }
            (name, Box::new(file), about.is_file().then_some(about.len()))
        };
        let reader = BufReader::with_capacity(READ_AHEAD, source);
        Ok(Input { name, reader, length, line: Vec::new(), number: 0, position: 0 })
    }

    /// Reads the next line into `line`; false at the end.
    fn advance(&mut self) -> io::Result<bool> {
        self.line.clear();
        self.number += 1;
        let mut limited = (&mut self.reader).take(BATCH_LINE_MAX as u64 + 1);
        let read = limited.read_until(b'\n', &mut self.line)?;
        self.position += read as u64;
        if read > BATCH_LINE_MAX && self.line.last() != Some(&b'\n') {
            self.position += self.reader.skip_until(b'\n')? as u64;
        }
        Ok(read > 0)
    }

    /// Is there a whole line in memory? If not, what was read before it should not wait for
    /// whoever writes.
    fn has_more(&self) -> bool {
        self.reader.buffer().contains(&b'\n')
    }
}

fn unreadable(name: &str, error: &io::Error) -> Error {
    Error::usage(format!("--from-jsonl: {name}: {error}"))
}

/// What is sent in one step.
#[derive(Default)]
struct Batch {
    postings: Vec<Posting>,
    /// One a line.
    ids: String,
    tasks: u64,
    bytes: usize,
    /// Number of the first line.
    first: u64,
}

impl Batch {
    fn is_full(&self) -> bool {
        self.postings.len() >= BATCH_TASKS_MAX || self.bytes >= BATCH_BYTES_MAX
    }

    fn add(&mut self, postings: Vec<Posting>, line: u64) {
        let Some(posting) = postings.first() else { return };
        self.ids.push_str(&posting.task_id);
        self.ids.push('\n');
        self.tasks += 1;
        self.bytes += postings.iter().map(|posting| posting.payload.size()).sum::<usize>();
        if self.first == 0 {
            self.first = line;
        }
        self.postings.extend(postings);
    }
}

/// What has become of the lines.
struct BatchTotals<'a> {
    sending: &'a Sending,
    producer: &'a Producer,
    bound: Vec<String>,
    out: ToUser,
    progress: Progress,
    sent: u64,
    refused: u64,
}

/// Sends a task for each line of `input`, and prints the ids of those that were accepted.
///
/// # Errors
/// The lines cannot be read any more, or the broker does not take them: says how far it got.
pub(super) async fn send(
    sending: &Sending,
    producer: &Producer,
    mut input: Input,
    out: ToUser,
) -> Result<Exit, Error> {
    let bound = sending.bound(producer).await?;
    let progress = Progress::new(input.length, out);
    let mut run = BatchTotals { sending, producer, bound, out, progress, sent: 0, refused: 0 };
    let mut more = true;
    while more {
        let mut batch = Batch::default();
        let read = run.fill(&mut batch, &mut input);
        run.send(batch).await?;
        more = read.map_err(|error| {
            let error = Error::failure(format!("{}: {error}", input.name));
            run.stopped(error, input.number)
        })?;
        run.progress.reached(input.position, count(run.sent, "task"));
    }
    Ok(run.end())
}

impl BatchTotals<'_> {
    /// Reads until the batch is full, or nothing more is there now; false at the end.
    fn fill(&mut self, batch: &mut Batch, input: &mut Input) -> io::Result<bool> {
        while input.advance()? {
            if !input.line.trim_ascii().is_empty() {
                let now = clock::now();
                let postings = read(self.sending, &input.line, now).and_then(|draft| {
                    let postings = self.sending.postings(self.producer, &self.bound, draft, now);
                    postings.map_err(|error| error.to_string())
                });
                match postings {
                    Ok(postings) => batch.add(postings, input.number),
                    Err(why) => self.refuse(input.number, &why),
                }
            }
            if batch.is_full() || !input.has_more() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn refuse(&mut self, line: u64, why: &str) {
        self.refused += 1;
        if self.refused <= SHOWN_MAX {
            self.progress.aside(|| self.out.say(&format!("Error: line {line}: {why}")));
        }
    }

    /// All or none of it is accepted.
    async fn send(&mut self, batch: Batch) -> Result<(), Error> {
        if batch.tasks == 0 {
            return Ok(());
        }
        let answer = send::send(self.producer, batch.postings, self.sending.deadline).await;
        answer.map_err(|error| {
            let asked = count(batch.tasks, "task");
            self.stopped(error.into(), batch.first).hint(format!(
                "where the broker did not answer in time, it may have accepted the {asked} in \
                 question all the same"
            ))
        })?;
        self.progress.aside(|| self.out.hand_over(batch.ids.trim_end()));
        self.sent += batch.tasks;
        Ok(())
    }

    /// How far it got.
    fn stopped(&self, mut error: Error, line: u64) -> Error {
        let sent = count(self.sent, "task");
        error.message += &format!("; {sent} accepted, line {line} was the first not accepted");
        error.hint(format!("send the rest from line {line} on"))
    }

    fn end(self) -> Exit {
        let BatchTotals { out, sent, refused, progress, .. } = self;
        drop(progress);
        if refused > SHOWN_MAX {
            out.say(&format!("Error: {} refused", count(refused - SHOWN_MAX, "more line")));
        }
        if !out.quiet {
            let but = match refused {
                0 => String::new(),
                _ => format!("; refused {}", count(refused, "line")),
            };
            out.say(&format!("Sent {}{but}.", count(sent, "task")));
        }
        if refused == 0 { Exit::Ok } else { Exit::Failure }
    }
}

/// `1 task`, `2 tasks`.
fn count(number: u64, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// The task that a line asks for, or what is wrong with it.
fn read(sending: &Sending, line: &[u8], now: DateTime<Utc>) -> Result<Draft, String> {
    if line.len() > BATCH_LINE_MAX {
        return Err(format!("longer than {} MB", BATCH_LINE_MAX / 1024 / 1024));
    }
    let line = utf8::text(line.trim_ascii_end()).map_err(|(_, why)| why)?;
    let mut draft = sending.draft(now).map_err(|error| error.message)?;
    match line.trim_ascii_start().as_bytes().first() {
        Some(b'[') => draft.args = parse(line, "a JSON array")?,
        Some(b'{') => fields(&mut draft, parse(line, "a JSON object")?, now)?,
        _ => return Err(format!("expected a JSON array of arguments, or an object with {KEYS}")),
    }
    sending.check(&draft)?;
    Ok(draft)
}

fn fields(draft: &mut Draft, Pairs(pairs): Pairs, now: DateTime<Utc>) -> Result<(), String> {
    let has = |name: &str| pairs.iter().any(|(key, _)| key == name);
    if has("countdown") && has("eta") {
        return Err("countdown: expected either this or eta, found both".into());
    }
    for (key, value) in pairs {
        let value = Field { key: &key, text: value.get() };
        match value.key {
            "args" => draft.args = value.read("a JSON array")?,
            "kwargs" => {
                let Pairs(pairs) = value.read("a JSON object")?;
                draft.kwargs = pairs;
            }
            "id" => draft.id = value.kind::<TaskId>()?,
            "queue" if draft.route.is_some() => {
                return Err("queue: expected none, because --exchange selects the queues".into());
            }
            "queue" => draft.queue = value.kind::<Queue>()?,
            "countdown" => draft.eta = Some(sending::after(now, value.kind::<Countdown>()?)),
            "eta" => {
                let text: String = value.read(sending::INSTANT)?;
                draft.eta = Some(clock::parse(&text).ok_or_else(|| value.not(sending::INSTANT))?);
            }
            "expires" => {
                // A number, or the text that the option takes.
                let text = serde_json::from_str(value.text).unwrap_or(value.text.to_string());
                let expected = || value.not(&format!("seconds, or {}", sending::INSTANT));
                draft.expires = Some(sending::expiry(&text, now).ok_or_else(expected)?);
            }
            "priority" => draft.priority = Some(value.kind::<Priority>()?),
            unknown => return Err(format!("unknown key {unknown:?}; expected {KEYS}")),
        }
    }
    Ok(())
}

/// A field of a line.
struct Field<'a> {
    key: &'a str,
    text: &'a str,
}

impl Field<'_> {
    fn read<T: DeserializeOwned>(&self, expected: &str) -> Result<T, String> {
        serde_json::from_str(self.text).map_err(|_| self.not(expected))
    }

    /// By the rule that settings and options have.
    fn kind<K: ValueKind>(&self) -> Result<K::Value, String> {
        let read = K::read(&YamlNode::json(self.text), &mut Faults::new(""));
        read.ok_or_else(|| self.not(K::EXPECTED))
    }

    fn not(&self, expected: &str) -> String {
        let shown: String = self.text.chars().take(40).collect();
        let dots = if shown.len() < self.text.len() { "..." } else { "" };
        format!("{}: expected {expected}, found {shown}{dots}", self.key)
    }
}

/// The whole line; where it stops being JSON is said by column.
fn parse<T: DeserializeOwned>(line: &str, expected: &str) -> Result<T, String> {
    serde_json::from_str(line).map_err(|error| {
        let text = error.to_string();
        let what = text.split(" at line ").next().unwrap_or_default();
        format!("expected {expected}: {what}, in column {}", error.column())
    })
}
