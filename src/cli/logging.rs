//! The options of a program that logs: from which level on, where to, in which form.

use super::exit::Error;
use super::output::ToUser;
use crate::config::Settings;
use crate::config::names::expand_path;
use crate::log::{self, Format, LogOptions, Rotation};
use crate::os::panics;
use std::ffi::OsString;
use std::path::PathBuf;
use tracing_subscriber::filter::LevelFilter;

#[derive(Debug, Clone, clap::Args)]
// Beside others of its name in one command.
#[group(skip)]
pub(super) struct Args {
    /// Lowest level that is logged: DEBUG, INFO, WARNING, ERROR or CRITICAL
    #[arg(short, short_alias = 'L', long, value_name = "LEVEL", default_value = "WARNING", env = "QWORKER_WORKER_LOGLEVEL", value_parser = level)]
    loglevel: Level,
    /// Log to this file instead of standard error; %n, %h, %d, %p, %i, %I and %% are expanded as
    /// in Celery. The file may be renamed, removed or truncated at any time
    #[arg(short = 'f', long, value_name = "FILE", env = "QWORKER_WORKER_LOGFILE")]
    logfile: Option<OsString>,
    /// Format of log lines: Celery's, or one JSON object per line
    #[arg(long, value_name = "FORMAT", default_value = "celery", env = "QWORKER_WORKER_LOG_FORMAT", value_parser = form())]
    log_format: Format,
}

/// A level of the log.
#[derive(Debug, Clone, Copy)]
struct Level(LevelFilter);

fn level(text: &str) -> Result<Level, String> {
    Ok(Level(match text.to_uppercase().as_str() {
        "DEBUG" => LevelFilter::DEBUG,
        "INFO" => LevelFilter::INFO,
        "WARNING" | "WARN" => LevelFilter::WARN,
        "ERROR" | "CRITICAL" | "FATAL" => LevelFilter::ERROR,
        _ => return Err("expected DEBUG, INFO, WARNING, ERROR or CRITICAL".into()),
    }))
}

fn form() -> impl clap::builder::TypedValueParser<Value = Format> {
    use clap::builder::{PossibleValuesParser, TypedValueParser};
    PossibleValuesParser::new(["celery", "json"])
        .map(|text| if text == "json" { Format::Json } else { Format::Celery })
}

impl Args {
    /// Are lines about the life of a task wanted?
    pub(super) fn is_chatty(&self) -> bool {
        self.loglevel.0 >= LevelFilter::INFO
    }

    /// The log file of this node.
    fn file(&self, node: &str) -> Option<Result<PathBuf, String>> {
        self.logfile.as_deref().map(|file| expand_path(file, node))
    }

    /// How the program of this node logs.
    ///
    /// # Errors
    /// The name of the file is invalid.
    pub(super) fn options(
        &self,
        node: &str,
        settings: &Settings,
        out: &ToUser,
    ) -> Result<LogOptions, Error> {
        let file = self
            .file(node)
            .transpose()
            .map_err(|error| Error::usage(format!("--logfile {error}")))?;
        // Absolute, whatever folder is the current one later.
        let file = file.map(|file| std::path::absolute(&file).unwrap_or(file));
        Ok(LogOptions {
            level: self.loglevel.0,
            color: out.color,
            format: self.log_format,
            file,
            rotation: Rotation {
                max_bytes: settings.worker_log_max_bytes,
                max_age: settings.worker_log_max_age,
                backups: settings.worker_log_backups,
            },
            node: node.to_string(),
        })
    }
}

impl Args {
    /// Writes to the log file what goes wrong before the settings are known, if there is to be one;
    /// the user hears of it in any case.
    pub(super) fn complain(&self, node: &str, out: &ToUser, text: &str) {
        if let Some(Ok(path)) = self.file(node) {
            let level = tracing::Level::ERROR;
            if let Err(error) = log::append(&path, self.log_format, node, level, text) {
                out.say(&format!("--logfile {}: {error}", path.display()));
            }
        }
    }
}

/// Tells before the start that a log file cannot be written to.
///
/// # Errors
/// Why it cannot.
pub(super) fn check(options: &LogOptions) -> Result<(), Error> {
    let Some(path) = &options.file else { return Ok(()) };
    let folder = path.parent().filter(|folder| !folder.exists());
    log::writable(path).map_err(|error| match folder {
        Some(folder) => Error::usage(format!(
            "--logfile {}: there is no folder {}",
            path.display(),
            folder.display()
        )),
        None => Error::usage(format!("--logfile {}: {error}", path.display())),
    })
}

/// Starts the log of a program that ends with a panic.
pub(super) fn start(options: LogOptions, out: ToUser) -> log::LogGuard {
    end_on_panic(options.clone(), out);
    log::start(options)
}

/// From now on a panic is logged, and ends the process, whichever thread it is on; its guard starts
/// a new one. Only one that is contained costs no more than the task that it belongs to.
fn end_on_panic(options: LogOptions, out: ToUser) {
    std::panic::set_hook(Box::new(move |panic| {
        // Not through the queue of the log: its thread may be the one that panics.
        if panics::is_contained() {
            return note(
                &options,
                &out,
                &format!("worker: {panic}; this is a bug: the task fails"),
            );
        }
        note(&options, &out, &format!("worker: {panic}; this is a bug: the process ends"));
        std::process::abort();
    }));
}

/// A sentence of the process above the program: into its log file, or to the user.
pub(super) fn note(options: &LogOptions, out: &ToUser, text: &str) {
    let level = tracing::Level::WARN;
    let written = options
        .file
        .as_ref()
        .is_some_and(|path| log::append(path, options.format, &options.node, level, text).is_ok());
    if !written {
        out.say(&format!("qworker: {text}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    const FILE: &str = "QW_TEST_PANIC_LOG";

    /// Ends the process by a panic of a thread.
    fn panic_in_a_thread(log: PathBuf) -> ! {
        let options = LogOptions {
            level: LevelFilter::WARN,
            color: false,
            format: Format::Celery,
            file: Some(log),
            rotation: Rotation::default(),
            node: "w@h".into(),
        };
        end_on_panic(options, ToUser::new(true, false));
        let _ = std::thread::spawn(|| panics::contained(|| panic!("for one task"))).join();
        let _ = std::thread::spawn(|| panic!("on purpose\nor not")).join();
        unreachable!("the process lives");
    }

    /// In a process of its own, since it ends.
    #[test]
    fn a_panic_of_any_thread_ends_the_process_and_is_logged() {
        if let Some(log) = std::env::var_os(FILE) {
            panic_in_a_thread(log.into());
        }
        let name = "cli::logging::tests::a_panic_of_any_thread_ends_the_process_and_is_logged";
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let ended = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name])
            .env(FILE, &log)
            .output()
            .unwrap();
        assert_eq!(ended.status.signal(), Some(6), "{ended:?}");
        let text = std::fs::read_to_string(&log).unwrap();
        assert!(text.contains("WARNING/Guard] worker: panicked at src/cli/logging.rs"), "{text}");
        assert!(text.contains("\n  for one task; this is a bug: the task fails"), "{text}");
        assert!(text.contains("\n  on purpose\n  or not"), "{text}");
    }
}
