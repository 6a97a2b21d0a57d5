//! Unknown commands: what their user is probably looking for. A name that is
//! spelt alike may do something else altogether (`upgrade` and `purge`), so the commands of
//! Celery and of the like are answered by what they mean.

use super::command_line;
use crate::log::escape;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use std::borrow::Cow;

/// Words that other programs have for commands, and what there is here.
const MEANT: &[(&[&str], &str)] = &[
    (&["inspect", "ps", "workers", "nodes"], "qworker status says which workers are alive"),
    (
        &["control", "remote"],
        "workers take no orders from afar; see qworker multi, and signals in qworker-worker(1)",
    ),
    (
        &["revoke", "cancel", "abort", "terminate"],
        "a single task cannot be revoked; qworker purge removes all that waits in a queue",
    ),
    (
        &["retry", "requeue", "replay"],
        "qworker dead requeue sends tasks again that could not be run",
    ),
    (
        &["events", "watch", "monitor", "flower", "top"],
        "qworker status, qworker list queues and qworker health say how things stand",
    ),
    (&["shell", "repl"], "tasks are files: qworker call sends one, qworker list tasks names them"),
    (&["amqp"], "no broker here speaks AMQP; qworker list queues lists queues"),
    (&["migrate"], "messages stay where they are: workers read those of Celery"),
    (&["upgrade"], "settings with old names are read as they are; qworker check names them"),
    (&["logtool", "logs"], "log lines are JSON with --log-format json"),
    (&["run", "send", "apply_async", "delay", "enqueue", "submit"], "qworker call sends a task"),
    (&["start", "up"], "qworker worker runs one, qworker multi start several"),
    (&["stop", "restart", "kill", "down", "reload"], "qworker multi stops and restarts workers"),
    (&["queues", "queue"], "qworker list queues"),
    (&["tasks", "registered"], "qworker list tasks"),
    (
        &["schedule", "cron", "scheduler"],
        "qworker beat sends by a schedule, qworker beat list shows it",
    ),
    (&["config", "settings", "conf", "info"], "qworker report prints every setting"),
    (&["test", "validate", "lint"], "qworker check finds mistakes"),
    (
        &["delete", "clear", "flush", "discard"],
        "qworker purge empties queues, qworker dead purge the dead-letter list",
    ),
    (&["ping"], "qworker health asks a worker, qworker status says which are alive"),
    (&["version"], "qworker --version"),
    (&["wait", "get"], "qworker result --wait waits for the result of a task"),
];

/// What was typed is repeated in errors of the command line: what would move a terminal's cursor is
/// escaped in it.
pub(super) fn show_only_text(error: &mut clap::Error) {
    let harms = |text: &str| matches!(escape::line(text), Cow::Owned(_));
    let typed = |value: &ContextValue| match value {
        ContextValue::String(text) => harms(text),
        ContextValue::Strings(all) => all.iter().any(|text| harms(text)),
        _ => false,
    };
    let wrong: Vec<(ContextKind, ContextValue)> = error
        .context()
        .filter(|(_, value)| typed(value))
        .map(|(kind, value)| (kind, value.clone()))
        .collect();
    if wrong.is_empty() {
        return;
    }
    // They repeat it, in a form that cannot be told from their colours.
    error.remove(ContextKind::Suggested);
    let shown = |text: String| escape::line(&text).into_owned();
    for (kind, value) in wrong {
        let value = match value {
            ContextValue::String(text) => ContextValue::String(shown(text)),
            ContextValue::Strings(all) => {
                ContextValue::Strings(all.into_iter().map(shown).collect())
            }
            other => other,
        };
        error.insert(kind, value);
    }
}

/// What is said of a command that there is not; `None` if that is not the error.
pub(super) fn refuse(error: &clap::Error) -> Option<String> {
    let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidSubcommand) else {
        return None;
    };
    // Commands of commands have their own error.
    let of_program = error
        .get(ContextKind::Usage)
        .is_some_and(|usage| usage.to_string().split(' ').nth(2) == Some("[OPTIONS]"));
    if error.kind() != ErrorKind::InvalidSubcommand || !of_program {
        return None;
    }
    let word_is = |names: &[&str]| names.iter().any(|name| name.eq_ignore_ascii_case(word));
    let tip = MEANT.iter().find(|(names, _)| word_is(names)).map(|(_, tip)| tip.to_string());
    let tip = tip.or_else(|| {
        let program = command_line();
        let known = program.get_subcommands().filter(|command| !command.is_hide_set());
        let names: Vec<&str> = known.map(clap::Command::get_name).collect();
        let near = crate::config::nearest(word, names, 2);
        let near: Vec<String> = near.iter().map(|name| format!("'{name}'")).collect();
        (!near.is_empty()).then(|| format!("a similar subcommand exists: {}", near.join(" or ")))
    });
    let tip = tip.map_or(String::new(), |tip| format!("\n\n  tip: {tip}"));
    Some(format!(
        "error: unrecognized subcommand '{}'{tip}\n\nUsage: qworker [OPTIONS] [COMMAND]\n\n\
         For more information, try '--help'.",
        escape::name(word)
    ))
}
