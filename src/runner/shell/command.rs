//! From an attempt to the process that it will be: `argv`, environment, standard input.
//! Pure; the same attempt gives the same command.

use super::arguments::{Argument, Arguments, too_long, value_error};
use crate::bounds::ARG_BYTES_MAX;
use crate::os::tree;
use crate::os::user::Ids;
use crate::runner::Attempt;
use crate::task::template::{Piece, Word};
use crate::task::{Fences, Program, Stdin};
use crate::wire::Exception;
use serde_json::json;
use std::collections::HashSet;
use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Variables that say of a task what it is.
const OURS: &str = "QWORKER_TASK_";

/// Variables that begin so are ours: those of settings, with the broker's password among them,
/// and the facts of another task, if that has started the worker. Tasks inherit none of them but
/// the application's place, by which a task calls another one.
const NOT_INHERITED: &str = "QWORKER_";
const INHERITED: &str = "QWORKER_APP";

/// A process to be run.
#[derive(Debug, Clone, PartialEq)]
pub struct Command {
    /// What to run and its arguments. The first, without a slash, is looked for in
    /// the `PATH` of [`Command::env`].
    pub argv: Vec<CString>,
    /// `NAME=value` each; all there is.
    pub env: Vec<Arc<CStr>>,
    /// The folder it runs in.
    pub cwd: PathBuf,
    /// What it finds on standard input; `None`: nothing.
    pub stdin: Option<Vec<u8>>,
    /// Limits of what it may use.
    pub fences: Fences,
    /// Scheduling priority, -20 to 19.
    pub nice: Option<i32>,
    /// Whom it runs as; `None`: as the worker.
    pub ids: Option<Ids>,
    /// Bytes kept of each output stream.
    pub max_output: u64,
}

/// What the worker contributes to a command.
#[derive(Debug, Clone, Copy)]
pub struct Setting<'a> {
    /// The application's folder: where tasks run unless they say else.
    pub app: &'a Path,
    /// The worker's own environment.
    pub env: &'a [Arc<CStr>],
    /// The time now, in seconds since the epoch.
    pub now: f64,
    /// Longest text of an argument, in bytes with its variable's name; longer ones are on
    /// standard input only. [`ARG_BYTES_MAX`] unless the sum was too much.
    pub longest: usize,
    /// Bytes kept of each output stream unless the task says else.
    pub max_output: u64,
}

/// The process for this attempt. Users and groups are not looked up here.
///
/// # Errors
/// Why it cannot be: an argument that is too long, has a NUL, or does not exist.
pub fn command(attempt: &Attempt, setting: Setting<'_>) -> Result<Command, Exception> {
    let task = &*attempt.task;
    let arguments = Arguments::of(attempt, setting.longest)?;
    let deadline = attempt.time_limit.or(attempt.soft_time_limit);
    // Whole seconds: for `$(( … ))` of a shell. Rounded down, so it is never too late.
    let deadline = deadline.map(|limit| (setting.now + limit.as_secs_f64()).floor() as i64);
    Ok(Command {
        argv: argv(attempt, &arguments, setting.app)?,
        env: environment(attempt, &arguments, setting.env, deadline)?,
        cwd: task.cwd.as_ref().map_or_else(|| setting.app.into(), |cwd| setting.app.join(cwd)),
        stdin: (task.stdin == Stdin::Json).then(|| document(attempt, deadline)),
        fences: task.fences,
        nice: task.nice,
        ids: None,
        max_output: task.max_output.unwrap_or(setting.max_output),
    })
}

fn argv(attempt: &Attempt, arguments: &Arguments, app: &Path) -> Result<Vec<CString>, Exception> {
    let positional = || arguments.positional().iter().map(|argument| argument.text.clone());
    let items: Vec<Vec<u8>> = match &attempt.task.program {
        // Arguments are never part of the text that the shell reads.
        Program::Shell(text) => ["/bin/sh", "-c", text, &attempt.task.name]
            .iter()
            .map(|item| item.as_bytes().to_vec())
            .chain(positional())
            .collect(),
        Program::Exec(words) => substitute(&attempt.task.name, words, arguments)?,
        Program::File(path) => [app.join(path).as_os_str().as_bytes().to_vec()]
            .into_iter()
            .chain(positional())
            .collect(),
        Program::Wasm { .. } => {
            return Err(type_error(&attempt.task.name, "is a WASM task, not a program".into()));
        }
    };
    for (number, item) in items.iter().enumerate() {
        if item.len() > ARG_BYTES_MAX {
            return Err(too_long(&format!("item {number} of the command"), item.len()));
        }
    }
    items.into_iter().map(|item| without_nul(item, "the command")).collect()
}

/// The words of an `exec` task with the arguments in their places.
fn substitute(
    task: &str,
    words: &[Word],
    arguments: &Arguments,
) -> Result<Vec<Vec<u8>>, Exception> {
    let find = |piece: &Piece| find(task, arguments, piece);
    let mut named = HashSet::new();
    for piece in words.iter().flat_map(Word::pieces) {
        named.extend(find(piece)?.map(|argument| argument.number));
    }
    let mut argv = Vec::new();
    for word in words {
        if *word.pieces() == [Piece::All] {
            let rest =
                arguments.positional().iter().filter(|argument| !named.contains(&argument.number));
            argv.extend(rest.map(|argument| argument.text.clone()));
            continue;
        }
        let mut item = Vec::new();
        for piece in word.pieces() {
            if let Piece::Text(text) = piece {
                item.extend_from_slice(text.as_bytes());
            }
            item.extend(find(piece)?.iter().flat_map(|argument| &argument.text));
        }
        argv.push(item);
    }
    Ok(argv)
}

/// The argument that a piece stands for, if it stands for one.
fn find<'a>(
    task: &str,
    arguments: &'a Arguments,
    piece: &Piece,
) -> Result<Option<&'a Argument>, Exception> {
    let (found, name) = match piece {
        Piece::Text(_) | Piece::All => return Ok(None),
        Piece::Name(name) => (arguments.named(name), name.clone()),
        Piece::Position(number) => (arguments.numbered(*number), number.to_string()),
    };
    let missing = || format!("was called without the argument '{name}' of its command");
    found.map(Some).ok_or_else(|| type_error(task, missing()))
}

/// The worker's environment, then the application's, the task's, the arguments, and the
/// facts about the attempt; the last entry of a name counts.
fn environment(
    attempt: &Attempt,
    arguments: &Arguments,
    base: &[Arc<CStr>],
    deadline: Option<i64>,
) -> Result<Vec<Arc<CStr>>, Exception> {
    let settings = attempt
        .env
        .iter()
        .chain(&attempt.task.env)
        .map(|(name, value)| (name.clone(), value.clone().into_bytes()));
    // A name with `=` would be read as another name.
    // A keyword that is called as a place is does not stand in for the argument of that place.
    let (named, unnamed): (Vec<_>, Vec<_>) =
        arguments.all().iter().partition(|argument| argument.name.is_some());
    let passed = named
        .into_iter()
        .chain(unnamed)
        .filter(|argument| !argument.left_out && !argument.variable().contains('='));
    let passed = passed.map(|argument| (argument.variable(), argument.text.clone()));
    let facts = [
        ("ID", &*attempt.id),
        ("NAME", &attempt.task.name),
        ("ROOT_ID", &attempt.root_id),
        ("PARENT_ID", &attempt.parent_id),
        ("RETRIES", &attempt.retries.to_string()),
        ("HOSTNAME", &attempt.hostname),
        ("QUEUE", &attempt.queue),
        ("WORKER", tree::this_worker()),
    ]
    .map(|(name, value)| (format!("{OURS}{name}"), value.as_bytes().to_vec()));
    let deadline = deadline.map(|at| (format!("{OURS}DEADLINE"), at.to_string().into_bytes()));

    let entries: Vec<(String, Vec<u8>)> =
        settings.chain(passed).chain(facts).chain(deadline).collect();
    let mut seen: HashSet<&[u8]> = HashSet::with_capacity(entries.len());
    let mut env = Vec::with_capacity(base.len() + entries.len());
    for (name, value) in entries.iter().rev() {
        if seen.insert(name.as_bytes()) {
            let entry = [name.as_bytes(), b"=", value].concat();
            if entry.len() > ARG_BYTES_MAX {
                return Err(too_long(&format!("the variable {name}"), entry.len()));
            }
            env.push(without_nul(entry, &format!("the variable {name}"))?.into());
        }
    }
    let inherited = base.iter().filter(|entry| {
        let name = entry.to_bytes().split(|&byte| byte == b'=').next().unwrap_or_default();
        let is_ours = name.starts_with(NOT_INHERITED.as_bytes()) && name != INHERITED.as_bytes();
        !seen.contains(name) && !is_ours
    });
    env.extend(inherited.cloned());
    env.reverse();
    Ok(env)
}

/// What a task with `stdin: json` reads: one line, the values as the message has them.
fn document(attempt: &Attempt, deadline: Option<i64>) -> Vec<u8> {
    let request = json!({
        "id": attempt.id,
        "task": attempt.task.name,
        "root_id": attempt.root_id,
        "parent_id": Some(&attempt.parent_id).filter(|id| !id.is_empty()),
        "retries": attempt.retries,
        "hostname": attempt.hostname,
        "queue": attempt.queue,
        "deadline": deadline,
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
    text.push_str(&format!("}},\"request\":{request}}}\n"));
    text.into_bytes()
}

fn without_nul(bytes: Vec<u8>, what: &str) -> Result<CString, Exception> {
    CString::new(bytes)
        .map_err(|_| value_error(format!("embedded null byte in {}", what.replace('\0', "\\0"))))
}

fn type_error(task: &str, why: String) -> Exception {
    Exception::new("builtins", "TypeError", format!("{task}() {why}"))
}
