//! From an attempt to its process: `argv`, environment, standard input. Pure: the same attempt
//! gives the same command.

use crate::bounds::ARG_BYTES_MAX;
use crate::os::tree;
use crate::os::user::Ids;
use crate::runner::Attempt;
use crate::runner::context::{self, AttemptArguments, Deadline};
use crate::task::{Program, ResourceLimits, Stdin};
use crate::wire::Exception;
use serde_json::json;
use std::collections::HashSet;
use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// "Argument list too long", `E2BIG` on every Linux.
pub(super) const E2BIG: i32 = 7;

/// Variables with this prefix are ours: those of settings, among them the broker's password, and
/// the facts of another task, if one has started the worker. Tasks inherit none of them except the
/// application's folder, with which a task can call others.
const NOT_INHERITED: &str = "QWORKER_";
const INHERITED: &str = "QWORKER_APP";

/// A process to be started.
#[derive(Debug, Clone, PartialEq)]
pub struct ProcessCommand {
    /// The program and its arguments. A program without a slash is searched in the `PATH` of
    /// [`ProcessCommand::env`].
    pub argv: Vec<CString>,
    /// `NAME=value` each; nothing else is inherited.
    pub env: Vec<Arc<CStr>>,
    /// The folder it runs in.
    pub cwd: PathBuf,
    /// Its standard input; `None`: empty.
    pub stdin: Option<Vec<u8>>,
    /// Limits on its resources.
    pub resource_limits: ResourceLimits,
    /// Scheduling priority, -20 to 19.
    pub nice: Option<i32>,
    /// The user it runs as; `None`: the worker's.
    pub ids: Option<Ids>,
    /// Bytes kept of each output stream.
    pub max_output: u64,
}

/// What the worker contributes to a command.
#[derive(Debug, Clone, Copy)]
pub struct Setting<'a> {
    /// The application's folder: where tasks run unless they set their own.
    pub app: &'a Path,
    /// The worker's own environment.
    pub env: &'a [Arc<CStr>],
    /// The time now, in seconds since the epoch.
    pub now: f64,
    /// Longest text of an argument, in bytes with its variable's name; longer ones are on standard
    /// input only. [`ARG_BYTES_MAX`] unless the sum was too large.
    pub longest: usize,
}

/// The process for this attempt. Users and groups are not looked up here.
///
/// # Errors
/// Why it cannot be started: an argument is too long, contains a NUL, or does not exist.
pub fn command(attempt: &Attempt, setting: Setting<'_>) -> Result<ProcessCommand, Exception> {
    let task = &*attempt.task;
    let mut arguments = AttemptArguments::without_nul(attempt)?;
    leave_out(&mut arguments, task.stdin, setting.longest)?;
    let deadline = Deadline::of(attempt, setting.now);
    Ok(ProcessCommand {
        argv: argv(attempt, &arguments, setting.app)?,
        env: environment(attempt, &arguments, setting.env, deadline)?,
        cwd: task.cwd.as_ref().map_or_else(|| setting.app.into(), |cwd| setting.app.join(cwd)),
        stdin: (task.stdin == Stdin::Json).then(|| context::document(attempt, deadline)),
        resource_limits: task.resource_limits,
        nice: task.nice,
        ids: None,
        max_output: context::max_output(task),
    })
}

/// Leaves out arguments of more than `longest` bytes, with the variable's name.
fn leave_out(
    arguments: &mut AttemptArguments,
    stdin: Stdin,
    longest: usize,
) -> Result<(), Exception> {
    for argument in arguments.all_mut() {
        if argument.variable().len() + 1 + argument.text.len() > longest {
            if stdin != Stdin::Json {
                return Err(too_long(&argument.described(), argument.text.len()));
            }
            argument.text = Vec::new();
            argument.left_out = true;
        }
    }
    Ok(())
}

fn argv(
    attempt: &Attempt,
    arguments: &AttemptArguments,
    app: &Path,
) -> Result<Vec<CString>, Exception> {
    let positional = || arguments.positional().iter().map(|argument| argument.text.clone());
    let items: Vec<Vec<u8>> = match &attempt.task.program {
        // Arguments are never part of the text that the shell reads.
        Program::Shell(text) => ["/bin/sh", "-c", text, &attempt.task.name]
            .iter()
            .map(|item| item.as_bytes().to_vec())
            .chain(positional())
            .collect(),
        Program::Exec(words) => arguments.fill(&attempt.task.name, words)?,
        Program::File(path) => [app.join(path).as_os_str().as_bytes().to_vec()]
            .into_iter()
            .chain(positional())
            .collect(),
        Program::Wasm { .. } => {
            let text = format!("{}() is a WASM task, not a program", attempt.task.name);
            return Err(Exception::new("builtins", "TypeError", text));
        }
    };
    for (number, item) in items.iter().enumerate() {
        if item.len() > ARG_BYTES_MAX {
            return Err(too_long(&format!("item {number} of the command"), item.len()));
        }
    }
    items.into_iter().map(|item| without_nul(item, "the command")).collect()
}

/// The variables of the attempt, and those of the worker that it does not replace.
fn environment(
    attempt: &Attempt,
    arguments: &AttemptArguments,
    base: &[Arc<CStr>],
    deadline: Option<Deadline>,
) -> Result<Vec<Arc<CStr>>, Exception> {
    let own = context::environment(attempt, arguments, deadline, Some(tree::this_worker()));
    let names: HashSet<&[u8]> = own.iter().map(|(name, _)| name.as_bytes()).collect();
    let inherited = base.iter().filter(|entry| {
        let name = entry.to_bytes().split(|&byte| byte == b'=').next().unwrap_or_default();
        let is_ours = name.starts_with(NOT_INHERITED.as_bytes()) && name != INHERITED.as_bytes();
        !names.contains(name) && !is_ours
    });
    let mut env: Vec<Arc<CStr>> = inherited.cloned().collect();
    for (name, value) in &own {
        let entry = [name.as_bytes(), b"=", value].concat();
        if entry.len() > ARG_BYTES_MAX {
            return Err(too_long(&format!("the variable {name}"), entry.len()));
        }
        env.push(without_nul(entry, &format!("the variable {name}"))?.into());
    }
    Ok(env)
}

fn without_nul(bytes: Vec<u8>, what: &str) -> Result<CString, Exception> {
    context::refuse_nul(&bytes, what)?;
    CString::new(bytes).map_err(|error| Exception::new("builtins", "ValueError", error.to_string()))
}

/// Python's `OSError` for something that is too long for the kernel.
pub(super) fn too_long(what: &str, bytes: usize) -> Exception {
    let hint = "use `stdin: json` for large arguments";
    let message = format!("Argument list too long: {what} has {bytes} bytes; {hint}");
    Exception::with("builtins", "OSError", vec![json!(E2BIG), json!(message)])
}
