//! What a task sees of its message: its arguments as texts, its environment, the document on its
//! standard input, its deadline. A process and a module see the same. Pure.

use super::Attempt;
use crate::bounds::OUTPUT_MAX;
use crate::task::Task;
use crate::task::template::{TemplatePart, TemplateWord};
use crate::wire::{Exception, value};
use serde_json::json;
use serde_json::value::RawValue;
use std::collections::HashSet;

/// Variables that tell a task what it is.
pub const FACTS: [&str; 11] = [
    "QWORKER_TASK_ID",
    "QWORKER_TASK_NAME",
    "QWORKER_TASK_ROOT_ID",
    "QWORKER_TASK_PARENT_ID",
    "QWORKER_TASK_RETRIES",
    "QWORKER_TASK_HOSTNAME",
    "QWORKER_TASK_QUEUE",
    "QWORKER_TASK_WORKER",
    "QWORKER_TASK_DEADLINE",
    "QWORKER_TASK_SOCKET",
    "QWORKER_TASK_TOKEN",
];

/// All arguments of one attempt, in order: with `params` the bound ones, else the positional
/// and then the keyword arguments.
#[derive(Debug)]
pub struct AttemptArguments {
    list: Vec<Argument>,
    /// How many of them, from the first, may be in `argv` by position.
    positional: usize,
}

/// One argument.
#[derive(Debug)]
pub struct Argument {
    /// Place in the list, from 1.
    pub number: usize,
    /// Its name, if it has one.
    pub name: Option<String>,
    /// Its text: see [`value::text`].
    pub text: Vec<u8>,
    /// Only standard input has it; the text is empty.
    pub left_out: bool,
}

impl AttemptArguments {
    /// The texts of the attempt's arguments.
    pub fn of(attempt: &Attempt) -> AttemptArguments {
        let mut given: Vec<(Option<&str>, &RawValue)> = positional(attempt).collect();
        let positional = given.len();
        if attempt.task.params.is_none() {
            given
                .extend(attempt.kwargs.iter().map(|(name, value)| (Some(name.as_str()), &**value)));
        }
        let argument = |(number, (name, raw)): (usize, (Option<&str>, &RawValue))| Argument {
            number,
            name: name.map(Into::into),
            text: value::text(raw).into_owned(),
            left_out: false,
        };
        AttemptArguments { list: (1..).zip(given).map(argument).collect(), positional }
    }

    /// The same, if neither a name nor a text contains a NUL: the text after it would silently be
    /// missing in `argv` and the environment.
    ///
    /// # Errors
    /// One does: Python's `ValueError`.
    pub fn without_nul(attempt: &Attempt) -> Result<AttemptArguments, Exception> {
        let arguments = AttemptArguments::of(attempt);
        for argument in arguments.all() {
            refuse_nul(argument.variable().as_bytes(), &argument.described())?;
            refuse_nul(&argument.text, &argument.described())?;
        }
        Ok(arguments)
    }

    /// All of them.
    pub fn all(&self) -> &[Argument] {
        &self.list
    }

    /// All of them, to leave some out.
    pub fn all_mut(&mut self) -> &mut [Argument] {
        &mut self.list
    }

    /// Those that have a position.
    pub fn positional(&self) -> &[Argument] {
        &self.list[..self.positional]
    }

    /// The words of an `exec` task with the arguments in their places.
    ///
    /// # Errors
    /// A word names an argument that does not exist: Python's `TypeError`.
    pub fn fill(&self, task: &str, words: &[TemplateWord]) -> Result<Vec<Vec<u8>>, Exception> {
        let find = |piece: &TemplatePart| self.find(task, piece);
        let mut named = HashSet::new();
        for piece in words.iter().flat_map(TemplateWord::pieces) {
            named.extend(find(piece)?.map(|argument| argument.number));
        }
        let mut filled = Vec::new();
        for word in words {
            if *word.pieces() == [TemplatePart::All] {
                let rest =
                    self.positional().iter().filter(|argument| !named.contains(&argument.number));
                filled.extend(rest.map(|argument| argument.text.clone()));
                continue;
            }
            let mut item = Vec::new();
            for piece in word.pieces() {
                if let TemplatePart::Text(text) = piece {
                    item.extend_from_slice(text.as_bytes());
                }
                item.extend(find(piece)?.iter().flat_map(|argument| &argument.text));
            }
            filled.push(item);
        }
        Ok(filled)
    }

    /// The argument that a piece stands for, if it stands for one.
    fn find(&self, task: &str, piece: &TemplatePart) -> Result<Option<&Argument>, Exception> {
        let (found, name) = match piece {
            TemplatePart::Text(_) | TemplatePart::All => return Ok(None),
            TemplatePart::Name(name) => {
                let mut list = self.list.iter();
                (list.find(|argument| argument.name.as_ref() == Some(name)), name.clone())
            }
            TemplatePart::Position(place) => {
                let mut unnamed = self.list.iter().filter(|argument| argument.name.is_none());
                (unnamed.find(|argument| argument.number == *place), place.to_string())
            }
        };
        let missing = || {
            let text = format!("{task}() was called without the argument '{name}' of its command");
            Exception::new("builtins", "TypeError", text)
        };
        found.map(Some).ok_or_else(missing)
    }
}

impl Argument {
    /// The name of its entry in the environment.
    pub fn variable(&self) -> String {
        match &self.name {
            Some(name) => format!("ARG_{name}"),
            None => format!("ARG_{}", self.number),
        }
    }

    /// Its name in messages.
    pub fn described(&self) -> String {
        match &self.name {
            Some(name) => format!("argument {} ('{}')", self.number, name.replace('\0', "\\0")),
            None => format!("argument {}", self.number),
        }
    }
}

/// Bound parameters with their names, or positional arguments without.
pub fn positional(attempt: &Attempt) -> impl Iterator<Item = (Option<&str>, &RawValue)> {
    let bound = attempt.bound.iter().map(|(name, value)| (Some(name.as_str()), &**value));
    let args = attempt.args.iter().map(|value| (None, &**value));
    // Only one of them has elements.
    let has_params = attempt.task.params.is_some();
    bound.filter(move |_| has_params).chain(args.filter(move |_| !has_params))
}

/// When the first limit of an attempt expires, in seconds since the epoch, rounded down so that it
/// is never too late.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Deadline(f64);

impl Deadline {
    /// The deadline of an attempt that begins now; `None` if it has no limit.
    pub fn of(attempt: &Attempt, now: f64) -> Option<Deadline> {
        let limits = [attempt.soft_time_limit, attempt.time_limit];
        let limit = limits.into_iter().flatten().min()?;
        Some(Deadline(((now + limit.as_secs_f64()) * 1000.0).floor() / 1000.0))
    }

    /// In whole seconds: shell arithmetic has no fractions.
    fn whole(self) -> String {
        format!("{:.0}", self.0.floor())
    }
}

/// The variables of an attempt, each once: the task's, the arguments, the facts. Of several with
/// the same name, the last counts. `worker` is given for a process, which gets the application's
/// variables (`task_env`) too.
pub fn environment(
    attempt: &Attempt,
    arguments: &AttemptArguments,
    deadline: Option<Deadline>,
    worker: Option<&str>,
) -> Vec<(String, Vec<u8>)> {
    let common = attempt.env.iter().filter(|_| worker.is_some());
    let settings = common.chain(&attempt.task.env);
    let settings = settings.map(|(name, value)| (name.clone(), value.clone().into_bytes()));
    // A keyword argument named like a position does not replace the positional one.
    let (named, unnamed): (Vec<_>, Vec<_>) =
        arguments.all().iter().partition(|argument| argument.name.is_some());
    // A name with `=` would be read as another name.
    let passed = named
        .into_iter()
        .chain(unnamed)
        .filter(|argument| !argument.left_out && !argument.variable().contains('='))
        .map(|argument| (argument.variable(), argument.text.clone()));
    let access = attempt.access.as_ref().filter(|_| worker.is_some());
    let facts: [Option<String>; FACTS.len()] = [
        Some(attempt.id.clone()),
        Some(attempt.task.name.clone()),
        Some(attempt.root_id.clone()),
        Some(attempt.parent_id.clone()),
        Some(attempt.retries.to_string()),
        Some(attempt.hostname.to_string()),
        Some(attempt.queue.to_string()),
        worker.map(Into::into),
        deadline.map(Deadline::whole),
        access.map(|access| access.address.to_string()),
        access.map(|access| access.token.clone()),
    ];
    let facts = FACTS.iter().zip(facts);
    let facts = facts.filter_map(|(name, text)| Some(((*name).to_string(), text?.into_bytes())));
    let all: Vec<(String, Vec<u8>)> = settings.chain(passed).chain(facts).collect();
    let mut seen = HashSet::with_capacity(all.len());
    let mut last: Vec<_> =
        all.into_iter().rev().filter(|(name, _)| seen.insert(name.clone())).collect();
    last.reverse();
    last
}

/// What a task with `stdin: json` reads, and what it gets that asks for its request: one line, with
/// the values as they are in the message. Parsing them could change large numbers.
pub fn document(attempt: &Attempt, deadline: Option<Deadline>) -> Vec<u8> {
    let request = json!({
        "id": attempt.id,
        "task": attempt.task.name,
        "root_id": attempt.root_id,
        "parent_id": Some(&attempt.parent_id).filter(|id| !id.is_empty()),
        "retries": attempt.retries,
        "hostname": &*attempt.hostname,
        "queue": &*attempt.queue,
        "deadline": deadline.map(|Deadline(at)| at),
    });
    let mut text = String::from(r#"{"args":["#);
    let join = |text: &mut String, first: bool| text.push_str(if first { "" } else { "," });
    for (at, value) in attempt.args.iter().enumerate() {
        join(&mut text, at == 0);
        text.push_str(value.get());
    }
    text.push_str(r#"],"kwargs":{"#);
    for (at, (name, value)) in attempt.kwargs.iter().enumerate() {
        join(&mut text, at == 0);
        text.push_str(&format!("{}:", json!(name)));
        text.push_str(value.get());
    }
    let mut request = request.to_string();
    // Behind what is there: an object that is not empty.
    request.pop();
    for (name, value) in &attempt.details {
        request.push_str(&format!(",{}:{}", json!(name), value.get()));
    }
    // A text of JSON has line ends only where a blank could be.
    let request = request.replace(['\n', '\r'], " ");
    text.push_str(&format!("}},\"request\":{request}}}}}\n"));
    text.into_bytes()
}

/// Bytes kept of each output stream. The application sets `task_max_output`; the default is for
/// tasks without an application.
pub fn max_output(task: &Task) -> u64 {
    task.max_output.unwrap_or(OUTPUT_MAX)
}

/// Refuses bytes that would be cut off as a C string.
///
/// # Errors
/// They contain a NUL: Python's `ValueError`.
pub fn refuse_nul(bytes: &[u8], what: &str) -> Result<(), Exception> {
    if !bytes.contains(&0) {
        return Ok(());
    }
    let text = format!("embedded null byte in {}", what.replace('\0', "\\0"));
    Err(Exception::new("builtins", "ValueError", text))
}
