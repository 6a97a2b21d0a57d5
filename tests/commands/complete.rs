//! Completions: what `qworker complete` offers, and that real shells offer it.

use super::{app, printed, refused};
use crate::harness::{Output, TestDir};
use std::io::Write;
use std::process::{Command, Stdio};

/// The candidates for the last of `words`.
#[track_caller]
fn offered(app: &TestDir, words: &[&str]) -> Vec<String> {
    let args: Vec<&str> = ["complete", "--", "qworker"].iter().chain(words).copied().collect();
    let lines = app.must(&args);
    lines.lines().map(|line| line.split('\t').next().unwrap().to_string()).collect()
}

#[test]
fn commands_options_and_names_are_offered_where_they_fit() {
    let app = app();
    app.write("jobs.crontab", "@hourly greet name=hourly\n@daily greet name=nightly\n");
    for (words, expected) in [
        (&["sta"][..], &["status"][..]),
        (&["call", ""], &["add", "fail", "greet", "later", "thumb"]),
        (&["call", "g"], &["greet"]),
        (&["call", "add", "--que"], &["--queue"]),
        (&["call", "add", "--queue", "m"], &["media"]),
        (&["call", "add", "--queue=m"], &["--queue=media"]),
        (&["worker", "-Q", "celery,m"], &["celery,media"]),
        (&["worker", "-X", ""], &["celery", "media"]),
        (&["call", "--chain", "add", "gr"], &["greet"]),
        (&["apply", "tasks.d/t"], &["tasks.d/tasks.yaml"]),
        (&["graph", "x", "--format", "d"], &["dot"]),
        (&["list", "t"], &["tasks"]),
        (&["multi", "st"], &["start", "stop", "stopwait", "status"]),
        (&["multi", "start", "2", "--concurr"], &["--concurrency"]),
        (&["bea"], &["beat"]),
        (&["beat", "pa"], &["pause"]),
        (&["beat", "--max"], &["--max-interval"]),
        (&["beat", "pause", ""], &["hourly", "nightly"]),
        (&["beat", "pause", "hourly", "n"], &["nightly"]),
        (&["beat", "next", "h"], &["hourly"]),
        (&["beat", "simulate", "--fr"], &["--from"]),
        (&["completions", "z"], &["zsh"]),
        (&["--workdir", "tasks."], &["tasks.d/"]),
        (&["call", "nothing-like-it"], &[]),
        // Nobody asked for a broker: none was made.
        (&["status", "-d", ""], &[]),
    ] {
        assert_eq!(offered(&app, words), expected, "{words:?}");
    }
    assert!(!app.database().exists());
    let all = offered(&app, &[""]);
    assert!(all.contains(&"call".into()) && !all.contains(&"complete".into()), "{all:?}");
    let help = app.must(&["complete", "--", "qworker", "call", "ad"]);
    assert_eq!(help, "add\tadds two numbers");
}

#[test]
fn the_application_is_the_one_that_the_line_names() {
    let (here, other) = (app(), TestDir::with("elsewhere: {shell: ':'}\n"));
    let path = other.path().to_str().unwrap();
    assert_eq!(offered(&here, &["-A", path, "call", "e"]), ["elsewhere"]);
    assert_eq!(offered(&here, &["--workdir", path, "call", ""]), ["elsewhere"]);
    assert_eq!(offered(&here, &["-A", "nowhere", "call", "a"]), [""; 0]);
}

#[test]
fn nodes_are_those_that_the_broker_knows() {
    let app = app();
    let _worker = app.worker(&["-n", "w1@box"]);
    assert_eq!(offered(&app, &["status", "--destination", "w"]), ["w1@box"]);
    assert_eq!(offered(&app, &["health", "-n", "w"]), ["w1@box"]);
    assert_eq!(offered(&app, &["multi", "stop", "w"]), ["w1"]);
    // Without a server nobody waits.
    app.settings("broker_url: redis://127.0.0.1:1/0\n");
    assert_eq!(offered(&app, &["status", "-d", ""]), [""; 0]);
    assert_eq!(offered(&app, &["call", "gr"]), ["greet"]);
}

/// The words of multi are a language of their own: each command of it is offered.
#[test]
fn every_command_of_multi_is_offered() {
    let app = app();
    let help = app.must(&["multi", "help"]);
    for command in offered(&app, &["multi", ""]) {
        assert!(help.contains(&format!("\n  {command} ")), "{command}: {help}");
    }
}

#[test]
fn scripts_are_for_three_shells() {
    let app = app();
    for shell in ["bash", "zsh", "fish"] {
        let script = app.qworker(&["completions", shell]);
        printed(&script, &script.stdout);
        assert!(script.stdout.contains("qworker complete -- "), "{script:?}");
    }
    refused(&app.qworker(&["completions", "tcsh"]), 2, &["tcsh", "bash, zsh, fish"]);
}

/// A shell that finds qworker, with its script in a file.
fn shell(app: &TestDir, name: &str) -> (Command, String) {
    let script = format!("completion.{name}");
    app.write(&script, &app.qworker(&["completions", name]).stdout);
    let mut command = app.command(&[]);
    let folder = std::path::Path::new(command.get_program()).parent().unwrap().to_path_buf();
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
    command = Command::new(name);
    command.current_dir(app.path()).env("PATH", path).env("HOME", app.path());
    command.stdin(Stdio::null()).env("TERM", "dumb");
    (command, script)
}

/// What a shell on a terminal shows to somebody who types `keys`.
fn typed(mut shell: Command, words: &str, keys: &str) -> String {
    let line = format!("{} {words}", shell.get_program().to_str().unwrap());
    let mut terminal = Command::new("script");
    terminal.args(["--quiet", "--command", &line, "/dev/null"]);
    terminal.current_dir(shell.get_current_dir().unwrap());
    terminal.envs(shell.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell = terminal;
    shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = shell.spawn().expect("script, which scripts/test installs");
    child.stdin.as_mut().unwrap().write_all(keys.as_bytes()).unwrap();
    Output::from(child.wait_with_output().unwrap()).stdout
}

#[test]
fn bash_completes() {
    let app = app();
    let _worker = app.worker(&["-n", "w1@box"]);
    let (_, script) = shell(&app, "bash");
    // Each line ends with # so that it is not run; what it became is echoed.
    let echo = |line: &str| {
        let (bash, _) = shell(&app, "bash");
        let keys = format!(
            "source {script}; echo() {{ printf '[%s]\\n' \"$*\"; }}\n{line}\x01echo \x05\nexit\n"
        );
        typed(bash, "--norc --noprofile -i", &keys)
    };
    for (line, expected) in [
        ("qworker call gre\t", "[qworker call greet]"),
        ("qworker call add --queue=med\t", "[qworker call add --queue=media]"),
        ("qworker worker -Q celery,med\t", "[qworker worker -Q celery,media]"),
        ("qworker status -d w\t", "[qworker status -d w1@box]"),
        ("qworker status -d w1@b\t", "[qworker status -d w1@box]"),
        ("qworker stat\t", "[qworker status]"),
    ] {
        let shown = echo(line);
        assert!(shown.contains(expected), "{line:?}: {shown}");
    }
}

#[test]
fn zsh_completes() {
    let app = app();
    let _worker = app.worker(&["-n", "w1@box"]);
    for (line, expected) in [
        ("qworker call gre\t", "[qworker call greet]"),
        ("qworker call add --queue=med\t", "[qworker call add --queue=media]"),
        ("qworker status -d w1@b\t", "[qworker status -d w1@box]"),
        ("qworker stat\t", "[qworker status]"),
    ] {
        let (zsh, script) = shell(&app, "zsh");
        let keys = format!(
            "autoload -Uz compinit; compinit -u -D; source {script}; echo() {{ print \"[$*]\" }}\n\
             {line}\x01echo \x05\nexit\n"
        );
        let shown = typed(zsh, "-f -i", &keys);
        assert!(shown.contains(expected), "{line:?}: {shown}");
    }
}

/// As packages install it: a file by the name of the function.
#[test]
fn zsh_loads_it_by_name() {
    let app = app();
    let (zsh, script) = shell(&app, "zsh");
    std::fs::rename(app.file(&script), app.file("_qworker")).unwrap();
    let keys = "fpath=($PWD $fpath); autoload -Uz compinit; compinit -u -D; echo() { print \"[$*]\" }\n\
                qworker call gre\t\x01echo \x05\nexit\n";
    let shown = typed(zsh, "-f -i", keys);
    assert!(shown.contains("[qworker call greet]"), "{shown}");
}

#[test]
fn fish_completes() {
    let app = app();
    for (line, expected) in [
        ("qworker call gre", "greet\n"),
        ("qworker call ad", "add\tadds two numbers\n"),
        ("qworker call add --queue=med", "--queue=media\n"),
        ("qworker worker -Q celery,m", "celery,media\n"),
    ] {
        let (mut fish, script) = shell(&app, "fish");
        fish.args([
            "--no-config",
            "--command",
            &format!("source {script}; complete --do-complete '{line}'"),
        ]);
        let output = Output::of(&mut fish);
        assert!(output.stdout.starts_with(expected), "{line:?}: {output:?}");
    }
}
