//! Help, versions, and command lines that make no sense.

use super::{app, printed, refused, with_env};
use crate::harness::TestDir;

const COMMANDS: [&str; 14] = [
    "worker",
    "beat",
    "multi",
    "call",
    "apply",
    "graph",
    "result",
    "list",
    "purge",
    "status",
    "dead",
    "report",
    "check",
    "completions",
];

#[test]
fn a_bare_qworker_prints_help() {
    let empty = tempfile::tempdir().unwrap();
    let app = TestDir::new();
    let bare = app.qworker(&[]);
    assert_eq!((bare.code, bare.stderr.as_str()), (0, ""));
    for command in COMMANDS {
        assert!(bare.stdout.contains(&format!("\n  {command}  ")), "{command}: {}", bare.stdout);
    }
    // What only the worker calls, and what a later version brings, is not in it.
    for hidden in ["compile ", "complete ", "inspect", "--detach"] {
        assert!(!bare.stdout.contains(hidden), "{hidden}");
    }
    printed(&app.qworker(&["--help"]), &bare.stdout);
    printed(&app.qworker(&["help"]), &bare.stdout);
    // It needs no application.
    let mut elsewhere = app.command(&[]);
    elsewhere.current_dir(empty.path());
    printed(&crate::harness::Output::of(&mut elsewhere), &bare.stdout);
    let version = app.must(&["--version"]);
    assert_eq!(version, format!("qworker {}", env!("CARGO_PKG_VERSION")));
}

#[test]
fn every_command_has_help_that_says_what_every_option_does() {
    let app = TestDir::new();
    for command in COMMANDS {
        let help = app.must(&[command, "--help"]);
        assert!(help.contains(&format!("Usage: qworker {command}")), "{help}");
        assert_eq!(app.must(&["help", command]), help);
    }
    for command in qworker::cli::command_line().get_subcommands() {
        for option in command.get_arguments().filter(|_| !command.is_hide_set()) {
            assert!(option.get_help().is_some(), "{} {:?}", command.get_name(), option.get_id());
        }
        assert!(command.get_about().is_some(), "{}", command.get_name());
    }
}

#[test]
fn what_makes_no_sense_ends_with_2() {
    let app = app();
    for (args, parts) in [
        (&["nonsense"][..], &["unrecognized subcommand 'nonsense'", "--help"][..]),
        (&["wrker"], &["unrecognized subcommand 'wrker'", "'worker'"]),
        (&["upgrade"], &["unrecognized subcommand 'upgrade'", "qworker check names them"]),
        (&["retry"], &["qworker dead requeue"]),
        (&["inspect"], &["qworker status"]),
        (&["comple"], &["a similar subcommand exists: 'completions'\n"]),
        (&["worker", "-Q", "a b"], &["'a b'", "a queue's name without blanks"]),
        (&["worker", "-Q", "a,,b"], &["''", "a queue's name without blanks"]),
        (&["call", "add", "--queue", ""], &["''", "a queue's name without blanks"]),
        (&["call", "add", "--countdown", "soon"], &["'soon'", "1h30m"]),
        (&["--nonsense"], &["unexpected argument '--nonsense'"]),
        (&["worker", "--nonsense"], &["unexpected argument '--nonsense'"]),
        (&["call", "add", "--task-idd", "x"], &["'--task-idd'", "'--task-id'"]),
        (&["call"], &["<NAME>"]),
        (&["list"], &["Usage: qworker list"]),
        (&["list", "nonsense"], &["'nonsense'"]),
        (&["dead"], &["Usage: qworker dead"]),
        (&["result"], &["<ID>"]),
        (&["-A"], &["--app <PATH>"]),
    ] {
        refused(&app.qworker(args), 2, parts);
    }
}

#[test]
fn options_of_the_program_stand_before_the_command() {
    let app = app();
    for args in [&["worker", "-A", "."][..], &["check", "--app", "."], &["call", "add", "--app=."]]
    {
        refused(
            &app.qworker(args),
            2,
            &["unexpected argument", "Hint:", "precedes the command: qworker -"],
        );
    }
    // Another unknown option gets no such advice.
    assert!(!app.qworker(&["worker", "--nonsense"]).stderr.contains("Hint:"));
    assert_eq!(app.qworker(&["-A", ".", "check"]).code, 0);
}

#[test]
fn the_application_is_named_or_is_the_current_folder() {
    let (app, other) = (app(), TestDir::with("other: {shell: ':'}\n"));
    let path = other.path().to_str().unwrap();
    assert!(app.must(&["list", "tasks"]).contains("greet"));
    assert!(app.must(&["-A", path, "list", "tasks"]).contains("other"));
    let list = with_env(&app, &[("QWORKER_APP", path)], &["list", "tasks"]);
    assert!(list.stdout.contains("other"), "{list:?}");
    // The command line wins over the environment.
    let list = with_env(&app, &[("QWORKER_APP", path)], &["-A", ".", "list", "tasks"]);
    assert!(list.stdout.contains("greet"), "{list:?}");
    assert!(app.must(&["--workdir", path, "list", "tasks"]).contains("other"));
    // Settings alone are an application too.
    let empty = tempfile::tempdir().unwrap();
    let name = empty.path().to_str().unwrap();
    refused(&app.qworker(&["-A", name, "check"]), 2, &[name, "no application", "tasks.d/"]);
    refused(&app.qworker(&["-A", "nowhere", "check"]), 2, &["nowhere", "no application"]);
    std::fs::write(empty.path().join("qworker.yaml"), "worker_concurrency: 3\n").unwrap();
    assert_eq!(app.qworker(&["-A", name, "check"]).code, 0);
    refused(&app.qworker(&["--workdir", "nowhere", "check"]), 2, &["--workdir nowhere"]);
}

#[test]
fn without_an_application_it_says_what_to_do() {
    if std::path::Path::new("/etc/qworker").exists() {
        // This machine has the system's application: then that one is taken.
        assert_eq!(app().qworker(&["-A", "/etc/qworker", "list", "tasks"]).code, 0);
        return;
    }
    let empty = tempfile::tempdir().unwrap();
    let mut command = app().command(&["check"]);
    command.current_dir(empty.path());
    let output = crate::harness::Output::of(&mut command);
    refused(&output, 2, &["no application", "/etc/qworker", "Hint: ", "mkdir tasks.d"]);
}

/// Nobody who reads the first lines of an output only gets an error for it.
#[test]
fn a_closed_pipe_is_no_error() {
    let app = app();
    let mut command = app.command(&["report"]);
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    let output = crate::harness::Output::from(child.wait_with_output().unwrap());
    assert_eq!((output.code, output.stderr.as_str()), (0, ""));
}
