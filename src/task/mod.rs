//! What a task is. Pure: loaders take text, not paths; nothing here reads the clock.

pub mod bind;
pub mod define;
pub mod keys;
pub mod lint;
pub mod load;
pub mod rate;
pub mod retry;
pub mod set;
pub mod template;
pub mod values;

use serde_json::value::RawValue;
use std::path::PathBuf;
use std::time::Duration;

/// One definition of `tasks.d`, checked, with every default filled in that does not
/// depend on settings. `None` in an optional field means "the setting decides".
#[derive(Debug, Clone)]
pub struct Task {
    /// Registered name, `media.thumb`.
    pub name: String,
    /// The file that defines it, and the line in it (0 for a dropped-in program).
    pub file: PathBuf,
    /// Line of its name in `file`, from 1; 0 where there is none.
    pub line: usize,
    /// What runs.
    pub program: Program,
    /// Line at which the text of `shell`, or the list of `exec`, begins; 0 where there is none.
    pub text_line: usize,
    /// One line for people.
    pub description: Option<String>,
    /// Names and defaults of arguments; `None` takes any.
    pub params: Option<Vec<Param>>,
    /// Queue that `qworker call` sends it to.
    pub queue: Option<String>,
    /// Priority that `qworker call` sends it with, 0 to 9, higher is served first.
    pub priority: Option<u8>,
    /// Kill after.
    pub time_limit: Option<Duration>,
    /// TERM after.
    pub soft_time_limit: Option<Duration>,
    /// Retries before it fails; `None` is without end.
    pub max_retries: Option<u32>,
    /// First delay of a retry.
    pub retry_backoff: Duration,
    /// Longest delay of a retry.
    pub retry_backoff_max: Duration,
    /// Draw each delay from 0 to its value.
    pub retry_jitter: bool,
    /// Exit codes that ask for a retry, beside 75.
    pub retry_on: Vec<i32>,
    /// Starts per second of this task on one worker.
    pub rate_limit: Option<rate::Rate>,
    /// Sent with this time to live by `qworker call`.
    pub expires: Option<Duration>,
    /// Acknowledge when done (true) or when started (false).
    pub acks_late: Option<bool>,
    /// Store no result.
    pub ignore_result: Option<bool>,
    /// Environment beside the worker's own (processes) or all there is (WASM).
    pub env: Vec<(String, String)>,
    /// Folder it runs in; the application's by default.
    pub cwd: Option<PathBuf>,
    /// What standard input is.
    pub stdin: Stdin,
    /// What its standard output becomes.
    pub result: ResultMode,
    /// Exit codes that mean success.
    pub ok: Vec<i32>,
    /// Bytes kept of each output stream; `None`: the setting `task_max_output`.
    pub max_output: Option<u64>,
    /// Run as this user (name or number); needs root.
    pub user: Option<String>,
    /// Run as this group (name or number); needs root.
    pub group: Option<String>,
    /// Scheduling priority, -20 to 19.
    pub nice: Option<i32>,
    /// Limits of what it may use.
    pub resource_limits: ResourceLimits,
    /// WASM: instructions it may execute, about one a unit.
    pub fuel: Option<u64>,
    /// WASM: folders it sees.
    pub dirs: Vec<Dir>,
}

/// What a task runs.
#[derive(Debug, Clone, PartialEq)]
pub enum Program {
    /// `/bin/sh -c TEXT`, arguments as `$1`….
    Shell(String),
    /// An argument vector; `{name}` stands for an argument.
    Exec(Vec<template::TemplateWord>),
    /// An executable file of `tasks.d`; arguments follow as its `argv`.
    File(PathBuf),
    /// A WASM module or component (`.wasm`, or `.wat` text).
    Wasm {
        /// The file.
        module: PathBuf,
        /// The function to call; `None`: a WASI command.
        export: Option<String>,
    },
}

/// Why a WASM task cannot run in some builds.
pub const NO_WASM: &str =
    "WASM is not in this build; expected shell or exec, or a build with --features wasm";

impl Program {
    /// Does each attempt run as a process of its own?
    pub fn is_process(&self) -> bool {
        !matches!(self, Program::Wasm { .. })
    }

    /// Does an attempt keep its slot until its outcome is stored? A process has acted on the world:
    /// if the worker dies, no more of them may run again than there are slots. A module mostly only
    /// computes, within microseconds; waiting would halve the throughput.
    pub fn holds_slot(&self) -> bool {
        self.is_process()
    }
}

/// One name of `params`.
#[derive(Debug, Clone)]
pub struct Param {
    /// The name.
    pub name: String,
    /// The value when the caller gives none; `None` makes it required.
    pub default: Option<Box<RawValue>>,
}

/// What a process finds on standard input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Stdin {
    /// Nothing (`/dev/null`).
    #[default]
    None,
    /// One JSON document `{"args", "kwargs", "request"}`.
    Json,
}

/// How standard output becomes the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ResultMode {
    /// JSON if it is one JSON text, else text, else bytes.
    #[default]
    Auto,
    /// JSON; anything else fails the task.
    Json,
    /// Text, one trailing newline removed.
    Text,
    /// Bytes, as kombu encodes them.
    Bytes,
    /// Always null.
    None,
}

/// Resource limits of one attempt; `None` is unlimited (for WASM memory: the setting).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ResourceLimits {
    /// Bytes of memory of all its processes if they are in a control group, of address space of
    /// each if not; or of linear memory.
    pub memory: Option<u64>,
    /// Seconds of processor time.
    pub cpu_seconds: Option<u64>,
    /// Open files.
    pub open_files: Option<u64>,
    /// Processes in its control group, or of its user if it is in none.
    pub processes: Option<u64>,
}

/// A folder that a WASM task sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dir {
    /// On the host; relative to the application's folder.
    pub host: PathBuf,
    /// Its name inside.
    pub guest: String,
    /// May it write?
    pub writable: bool,
}
