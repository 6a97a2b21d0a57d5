//! Options of `celery worker`, and of `celery` itself, that have no meaning here. For each of
//! them an error says why, and what to do instead.

use super::exit::Error;
use crate::config::celery::{SettingSupport, fate};

/// Why an option is refused.
#[derive(Debug, Clone, Copy)]
enum RefusalReason {
    /// For the same reason as this setting of Celery's.
    Setting(&'static str),
    /// For this one.
    Reason(&'static str),
    /// A later version may have it.
    NotYet,
}

use RefusalReason::{NotYet, Reason, Setting};

const NOBODY_TALKS: RefusalReason = Reason(
    "workers do not gossip, mingle or send heartbeats to one another, so there is nothing to switch off",
);

/// Options by their names, a short one first.
#[rustfmt::skip]
const OF_WORKERS: &[(&[&str], RefusalReason)] = &[
    (&["-P", "--pool"], Setting("worker_pool")),
    (&["-O", "--optimization"], Reason("there is no pool whose children could be given tasks ahead: a task goes to a slot that is free")),
    (&["--max-tasks-per-child"], Setting("worker_max_tasks_per_child")),
    (&["--max-memory-per-child"], Setting("worker_max_memory_per_child")),
    (&["--pool-start-method"], Setting("worker_pool_start_method")),
    (&["--prefetch-multiplier"], Setting("worker_prefetch_multiplier")),
    (&["-I", "--include"], Setting("include")),
    (&["--without-gossip"], NOBODY_TALKS),
    (&["--without-mingle"], NOBODY_TALKS),
    (&["--without-heartbeat"], NOBODY_TALKS),
    (&["--heartbeat-interval"], NOBODY_TALKS),
    (&["-E", "--task-events", "--events"], NotYet),
    (&["-S", "--statedb"], Reason("a worker remembers nothing beyond its end: what is to be done is in the broker")),
];

/// The same of beat.
const OF_BEAT: &[(&[&str], RefusalReason)] = &[
    (&["--enable-remote-control", "--no-enable-remote-control"], NotYet),
    (&["--executable"], Reason("beat runs no other program")),
];

/// The same of the program itself.
const OF_THE_PROGRAM: &[(&[&str], RefusalReason)] = &[
    (&["--loader"], Setting("loader")),
    (&["--config"], Reason("settings are in qworker.yaml, in the folder that -A names")),
    (&["--skip-checks"], Reason("there is no Django here whose checks could be left out")),
];

/// What to say of `option` (`-P`, `--pool`), which clap does not know; `None` if Celery does not
/// know it either. `command` is the command it was given to.
pub(super) fn refuse(option: &str, command: Option<&str>) -> Option<Error> {
    let of_command = match command {
        Some("worker") => OF_WORKERS,
        Some("beat") => OF_BEAT,
        _ => &[],
    };
    let (names, why) =
        of_command.iter().chain(OF_THE_PROGRAM).find(|(names, _)| names.contains(&option))?;
    let reason = match why {
        Reason(reason) => reason,
        Setting(name) => match fate(name) {
            Some(SettingSupport::Meaningless(reason)) => reason,
            _ => "it is Celery's alone",
        },
        NotYet => {
            let said =
                format!("{} is not supported by this version; leave it out", names.join(", "));
            return Some(Error::usage(said));
        }
    };
    let said = format!("{} means nothing here: {reason}", names.join(", "));
    Some(Error::usage(said).hint("leave it out"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::command_line;

    #[test]
    fn a_refused_option_is_none_of_ours_and_has_a_reason() {
        let program = command_line();
        let worker = program.find_subcommand("worker").unwrap();
        let beat = program.find_subcommand("beat").unwrap();
        for (table, command) in [(OF_WORKERS, worker), (OF_BEAT, beat), (OF_THE_PROGRAM, &program)]
        {
            for (names, why) in table {
                for name in *names {
                    let is_ours = command.get_arguments().any(|arg| {
                        let short = arg.get_short().map(|short| format!("-{short}"));
                        let long = arg.get_long().map(|long| format!("--{long}"));
                        short.as_deref() == Some(name) || long.as_deref() == Some(name)
                    });
                    assert!(!is_ours, "{name}");
                    assert!(refuse(name, Some(command.get_name())).is_some());
                }
                if let Setting(name) = why {
                    assert!(matches!(fate(name), Some(SettingSupport::Meaningless(_))), "{name}");
                }
            }
        }
        assert!(refuse("-P", Some("call")).is_none() && refuse("--nonsense", None).is_none());
    }
}
