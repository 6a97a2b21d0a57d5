//! Options of the program itself.

use super::refused;
use crate::harness::TestDir;

#[test]
fn help_names_every_command_and_nothing_that_is_not_there() {
    let app = TestDir::new();
    let help = app.must(&["--help"]);
    for command in
        ["worker", "call", "result", "list", "purge", "status", "report", "check", "dead"]
    {
        assert!(help.contains(&format!("\n  {command} ")), "{command}: {help}");
        let of_command = app.must(&[command, "--help"]);
        assert!(of_command.contains("Usage: qworker "), "{of_command}");
    }
    for later in ["beat", "multi", "events", "inspect", "control"] {
        assert!(!help.contains(&format!("\n  {later} ")), "{later} is not there yet");
    }
    assert_eq!(app.must(&["--version"]), format!("qworker {}", env!("CARGO_PKG_VERSION")));
    assert_eq!(app.qworker(&[]).stdout.trim_end(), help, "without a command it helps");
}

#[test]
fn what_makes_no_sense_is_refused_with_two() {
    let app = TestDir::new();
    refused(&app.qworker(&["wroker"]), 2, &["unrecognized", "worker"]);
    refused(&app.qworker(&["worker", "--frobnicate"]), 2, &["--frobnicate"]);
    refused(&app.qworker(&["worker", "-l", "LOUD"]), 2, &["DEBUG, INFO, WARNING, ERROR"]);
    refused(&app.qworker(&["worker", "-c", "many"]), 2, &["--concurrency"]);
    refused(&app.qworker(&["-b", "kafka://x", "status"]), 2, &["kafka://x", "sqlite:///"]);
}

#[test]
fn the_application_is_found_or_asked_for() {
    let app = TestDir::with("add: {shell: 'true'}\n");
    let elsewhere = tempfile::tempdir().unwrap();
    let run =
        |args: &[&str]| crate::harness::Output::of(app.command(args).current_dir(elsewhere.path()));
    refused(&run(&["list", "tasks"]), 2, &["no application", "tasks.d"]);
    refused(&run(&["-A", "nowhere", "list", "tasks"]), 2, &["nowhere"]);
    let path = app.path().to_str().unwrap();
    for args in [["-A", path], ["--app", path], ["--workdir", path]] {
        let output = run(&[&args[..], &["list", "tasks"]].concat());
        assert!(output.code == 0 && output.stdout.contains("add"), "{output:?}");
    }
    let by_environment = crate::harness::Output::of(
        app.command(&["list", "tasks"]).current_dir(elsewhere.path()).env("QWORKER_APP", path),
    );
    assert_eq!(by_environment.code, 0, "{by_environment:?}");
}
