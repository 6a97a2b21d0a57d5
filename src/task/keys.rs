//! The keys of a definition: the kind of each, and the programs it has a meaning for.

use super::values::{
    Backoff, Codes, ExecWords, Folders, Input, Line, Nice, Output, Params, Seconds, Times,
};
use super::{Program, ResourceLimits, ResultMode, Stdin, Task};
use crate::bounds;
use crate::config::Faults;
use crate::config::kind::{
    Count, Environment, FilePath, Flag, Limit, Maybe, NameOrNumber, Pace, Priority, Queue, Size,
    Span, Text, ValueKind, Word,
};
use crate::config::node::{YamlKey, YamlNode};
use std::path::{Path, PathBuf};

/// What is known of a definition while its keys are read.
pub(super) struct TaskDraft {
    /// Its keys so far; the program is empty until all are read.
    pub task: Task,
    /// The command of `shell`.
    pub shell: Option<String>,
    /// The words of `exec`.
    pub exec: Option<Vec<String>>,
    /// The module of `wasm`, as written.
    pub wasm: Option<PathBuf>,
    /// The function of the module.
    pub export: Option<String>,
}

/// For which programs a key has a meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    All,
    Process,
    Wasm,
}

type Read = fn(&mut TaskDraft, &YamlNode, &mut Faults);

/// Every key of a definition.
#[rustfmt::skip]
const KEYS: &[(&str, Scope, Read)] = &[
    ("shell", Scope::All, |d, n, f| {
        d.shell = Text::read(n, f);
        d.task.text_line = n.line;
    }),
    ("exec", Scope::All, |d, n, f| {
        d.exec = ExecWords::read(n, f);
        d.task.text_line = n.line;
    }),
    ("wasm", Scope::All, |d, n, f| d.wasm = FilePath::read(n, f)),
    ("export", Scope::Wasm, |d, n, f| d.export = Word::read(n, f)),
    ("description", Scope::All, |d, n, f| put::<Maybe<Line>>(&mut d.task.description, n, f)),
    ("params", Scope::All, |d, n, f| put::<Maybe<Params>>(&mut d.task.params, n, f)),
    ("queue", Scope::All, |d, n, f| put::<Maybe<Queue>>(&mut d.task.queue, n, f)),
    ("priority", Scope::All, |d, n, f| put::<Maybe<Priority>>(&mut d.task.priority, n, f)),
    ("time_limit", Scope::All, |d, n, f| put::<Maybe<Limit>>(&mut d.task.time_limit, n, f)),
    ("soft_time_limit", Scope::All, |d, n, f| put::<Maybe<Limit>>(&mut d.task.soft_time_limit, n, f)),
    ("max_retries", Scope::All, |d, n, f| put::<Maybe<Times>>(&mut d.task.max_retries, n, f)),
    ("retry_backoff", Scope::All, |d, n, f| put::<Backoff>(&mut d.task.retry_backoff, n, f)),
    ("retry_backoff_max", Scope::All, |d, n, f| put::<Span>(&mut d.task.retry_backoff_max, n, f)),
    ("retry_jitter", Scope::All, |d, n, f| put::<Flag>(&mut d.task.retry_jitter, n, f)),
    ("retry_on", Scope::All, |d, n, f| put::<Codes>(&mut d.task.retry_on, n, f)),
    ("rate_limit", Scope::All, |d, n, f| put::<Maybe<Pace>>(&mut d.task.rate_limit, n, f)),
    ("expires", Scope::All, |d, n, f| put::<Maybe<Limit>>(&mut d.task.expires, n, f)),
    ("acks_late", Scope::All, |d, n, f| put::<Maybe<Flag>>(&mut d.task.acks_late, n, f)),
    ("ignore_result", Scope::All, |d, n, f| put::<Maybe<Flag>>(&mut d.task.ignore_result, n, f)),
    ("env", Scope::All, |d, n, f| put::<Environment>(&mut d.task.env, n, f)),
    ("cwd", Scope::Process, |d, n, f| put::<Maybe<FilePath>>(&mut d.task.cwd, n, f)),
    ("stdin", Scope::All, |d, n, f| put::<Input>(&mut d.task.stdin, n, f)),
    ("result", Scope::All, |d, n, f| put::<Output>(&mut d.task.result, n, f)),
    ("ok", Scope::All, |d, n, f| put::<Codes>(&mut d.task.ok, n, f)),
    ("max_output", Scope::All, |d, n, f| put::<Maybe<Size>>(&mut d.task.max_output, n, f)),
    ("user", Scope::Process, |d, n, f| put::<Maybe<NameOrNumber>>(&mut d.task.user, n, f)),
    ("group", Scope::Process, |d, n, f| put::<Maybe<NameOrNumber>>(&mut d.task.group, n, f)),
    ("nice", Scope::Process, |d, n, f| put::<Maybe<Nice>>(&mut d.task.nice, n, f)),
    ("memory", Scope::All, |d, n, f| put::<Maybe<Size>>(&mut d.task.resource_limits.memory, n, f)),
    ("cpu_seconds", Scope::Process, |d, n, f| put::<Maybe<Seconds>>(&mut d.task.resource_limits.cpu_seconds, n, f)),
    ("open_files", Scope::Process, |d, n, f| put::<Maybe<Count>>(&mut d.task.resource_limits.open_files, n, f)),
    ("processes", Scope::Process, |d, n, f| put::<Maybe<Count>>(&mut d.task.resource_limits.processes, n, f)),
    ("fuel", Scope::Wasm, |d, n, f| put::<Maybe<Count>>(&mut d.task.fuel, n, f)),
    ("dirs", Scope::Wasm, |d, n, f| put::<Folders>(&mut d.task.dirs, n, f)),
];

/// The names of all keys of a definition: the tests show an effect of each.
pub fn names() -> impl Iterator<Item = &'static str> {
    KEYS.iter().map(|(name, ..)| *name)
}

/// Words that other programs have for our keys; no distance of letters finds them.
const ELSEWHERE: &[(&str, &str)] = &[
    ("args", "params"),
    ("cmd", "shell"),
    ("command", "shell"),
    ("default_retry_delay", "retry_backoff"),
    ("crontab", "an entry in schedule.yaml, with task and schedule in it"),
    ("cron", "an entry in schedule.yaml, with task and schedule in it"),
    ("schedule", "an entry in schedule.yaml, with task and schedule in it"),
    ("environment", "env"),
    ("module", "wasm"),
    ("retries", "max_retries"),
    ("run", "shell"),
    ("script", "shell"),
    ("timeout", "time_limit"),
    ("workdir", "cwd"),
];

/// Keys that have their place in another file, and which.
const MISPLACED: &[(&str, &str)] = &[
    ("beat_schedule", SCHEDULE),
    ("cron", SCHEDULE),
    ("crontab", SCHEDULE),
    ("every", SCHEDULE),
    ("schedule", SCHEDULE),
];

const SCHEDULE: &str = "no key of a task: when it is sent stands in schedule.yaml, as an entry \
                        `NAME: {task: NAME, schedule: …}` (man 5 qworker-schedule)";

fn put<K: ValueKind>(slot: &mut K::Value, node: &YamlNode, faults: &mut Faults) {
    if let Some(value) = K::read(node, faults) {
        *slot = value;
    }
}

/// A task with every key at its default.
pub fn plain(name: &str, file: &Path, line: usize, program: Program) -> Task {
    Task {
        name: name.into(),
        file: file.into(),
        line,
        program,
        text_line: 0,
        description: None,
        params: None,
        queue: None,
        priority: None,
        time_limit: None,
        soft_time_limit: None,
        max_retries: Some(bounds::RETRIES_MAX),
        retry_backoff: bounds::RETRY_BACKOFF,
        retry_backoff_max: bounds::RETRY_BACKOFF_MAX,
        retry_jitter: true,
        retry_on: Vec::new(),
        rate_limit: None,
        expires: None,
        acks_late: None,
        ignore_result: None,
        env: Vec::new(),
        cwd: None,
        stdin: Stdin::None,
        result: ResultMode::Auto,
        ok: vec![0],
        max_output: None,
        user: None,
        group: None,
        nice: None,
        resource_limits: ResourceLimits::default(),
        fuel: None,
        dirs: Vec::new(),
    }
}

impl TaskDraft {
    /// A definition before any key is read.
    pub(super) fn new(task: Task) -> TaskDraft {
        TaskDraft { task, shell: None, exec: None, wasm: None, export: None }
    }

    /// Reads one key.
    pub(super) fn read(
        &mut self,
        key: &YamlKey,
        value: &YamlNode,
        is_wasm: bool,
        faults: &mut Faults,
    ) {
        let name = key.text.as_str();
        match KEYS.iter().find(|(known, ..)| *known == name) {
            Some((_, Scope::Process, _)) if is_wasm => {
                faults.add(key.line, "means nothing for WASM");
            }
            Some((_, Scope::Wasm, _)) if !is_wasm => {
                faults.add(key.line, "means something for WASM only");
            }
            Some((.., read)) => read(self, value, faults),
            None if let Some((_, where_to)) = MISPLACED.iter().find(|(word, _)| *word == name) => {
                faults.add(key.line, *where_to);
            }
            None => match ELSEWHERE.iter().find(|(word, _)| *word == name) {
                Some((_, ours)) => {
                    faults.add(key.line, "unknown key").hint = Some(ours.to_string())
                }
                None => {
                    faults.unknown(key.line, "key", name, KEYS.iter().map(|(known, ..)| *known))
                }
            },
        }
    }
}
