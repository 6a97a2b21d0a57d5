//! `qworker check`: all mistakes of the settings and of every task file, in one run.

use super::{app, printed, refused, with_env};
use crate::harness::TestDir;
use nix::sys::signal::Signal;

#[test]
fn a_right_application() {
    let app = app();
    let name = app.path().display().to_string();
    printed(&app.qworker(&["check"]), &format!("{name}: no error in the settings and 5 tasks.\n"));
    let one = TestDir::with("one: {shell: ':'}\n");
    assert!(one.must(&["check"]).ends_with(" and 1 task."));
}

#[test]
fn all_mistakes_in_one_run_each_with_file_line_and_key() {
    let app = app();
    app.settings("worker_concurrency: many\n\ntask_serializer: raw\nnonsense: 1\n");
    app.write(
        "tasks.d/a.yaml",
        "good:\n  shell: ':'\nwrong:\n  shell: ':'\n  time_limit: soon\n  nise: 3\nboth:\n  shell: ':'\n  exec: [ls]\nnone:\n  queue: x\n",
    );
    app.write(
        "tasks.d/media/b.yaml",
        "fine: {shell: ':'}\nthumb: {exec: [convert, \"{path}\"], params: [pat]}\n",
    );
    app.write("tasks.d/c.yaml", "here:\n  shell: ':'\n broken yaml\n");
    app.write("tasks.d/d.yaml", "lost:\n  wasm: nowhere.wasm\n");
    app.write("tasks.d/bad.wat", "(module (nonsense))");
    app.write("tasks.d/twice.yaml", "add: {shell: ':'}\n");
    let output = app.qworker(&["check"]);
    assert_eq!(output.code, 1);
    let line = |parts: &[&str]| {
        let found = output.stdout.lines().any(|line| parts.iter().all(|part| line.contains(part)));
        assert!(found, "no line with {parts:?} in\n{}", output.stdout);
    };
    line(&["qworker.yaml:1: worker_concurrency: found text \"many\", expected"]);
    line(&["qworker.yaml:3: task_serializer: found text \"raw\", expected json, yaml"]);
    line(&["qworker.yaml:4: nonsense: unknown setting"]);
    line(&["tasks.d/a.yaml:5: wrong.time_limit: found text \"soon\", expected"]);
    line(&["tasks.d/a.yaml:6: wrong.nise: ", "did you mean nice?"]);
    line(&["tasks.d/a.yaml:", "both"]);
    line(&["tasks.d/a.yaml:", "none"]);
    line(&["tasks.d/media/b.yaml:2: ", "thumb", "path"]);
    line(&["tasks.d/c.yaml:3"]);
    line(&["tasks.d/d.yaml:", "lost", "nowhere.wasm"]);
    line(&["bad.wat"]);
    line(&["tasks.d/twice.yaml:1: add"]);
    let errors = output.stdout.lines().count();
    assert!(
        output.stderr.starts_with(&format!("{errors} errors found; "))
            && output.stderr.ends_with(" can be used.\n"),
        "{output:?}"
    );
}

/// A worker starts with what is whole; wrong settings stop it.
/// The most that a duration can be is said.
#[test]
fn a_duration_that_is_too_long_is_told_the_most() {
    let app = TestDir::with("t: {shell: 'true', time_limit: 1e19}\n");
    let output = app.qworker(&["check"]);
    let said = "time_limit: found 1e19, expected a duration above 0 and up to 36500d: seconds";
    assert!(format!("{}{}", output.stdout, output.stderr).contains(said), "{output:?}");
    app.write("tasks.d/tasks.yaml", "t: {shell: 'true', time_limit: 36500d}\n");
    assert_eq!(app.qworker(&["check"]).code, 0);
}

#[test]
fn tasks_of_other_files_stay() {
    let app = app();
    app.write("tasks.d/broken.yaml", "mine:\n  shel: ':'\nwhole: {shell: 'echo 1'}\n");
    let output = app.qworker(&["check"]);
    assert_eq!(
        (output.code, output.stderr.as_str()),
        (1, "2 errors found; 6 tasks can be used.\n")
    );
    let mut worker = app.worker(&[]);
    worker.expect_line("Warning: ");
    assert_eq!(app.must(&["call", "add", "-a", "[1, 2]", "--wait"]), "3");
    assert_eq!(app.must(&["call", "whole", "--wait"]), "1");
    assert_eq!(worker.stop(Signal::SIGTERM), 0);
}

#[test]
fn the_environment_and_the_options_are_checked_too() {
    let app = app();
    let output = with_env(&app, &[("QWORKER_TASK_TIME_LIMIT", "soon")], &["check"]);
    assert_eq!(output.code, 1);
    assert!(output.stdout.starts_with("environment: QWORKER_TASK_TIME_LIMIT: "), "{output:?}");
    let output = app.qworker(&["-b", "kafka://h/", "check"]);
    assert_eq!(output.code, 1);
    assert!(output.stdout.contains("--broker"), "{output:?}");
}

/// What can be read and cannot run: an error where it cannot anywhere, a warning where it cannot here.
#[test]
fn what_cannot_run_is_found() {
    let app = TestDir::with(
        "gone: {exec: [no-such-program, x]}\n\
         away: {shell: ':', cwd: no/such/folder}\n\
         whose: {shell: ':', user: no-such-user}\n\
         plain:\n  wasm: m.wat\n  export: nothing\n\
         braces:\n  shell: |\n    true\n    cp {src} there\n  params: [src]\n\
         when: {shell: ':', schedule: '* * * * *'}\n\
         folder: {exec: [/tmp]}\n\
         group: {shell: ':', group: no-such-group}\n",
    );
    app.write("tasks.d/m.wat", "(module (func (export \"double\")))");
    app.write("tasks.d/quiet.sh", "#!/bin/sh\necho\n");
    app.program("tasks.d/dos.sh", "#!/bin/sh\r\necho\r\n");
    app.program("tasks.d/odd.sh", "#!/no/such/interpreter\necho\n");
    app.program("tasks.d/none", "echo\n");
    app.write("schedule.yaml", "entries:\n  e: {task: gone, schedule: {every: soon}}\n");
    let output = app.qworker(&["check"]);
    assert_eq!(output.code, 1);
    let line = |parts: &[&str]| {
        let found = output.stdout.lines().any(|line| parts.iter().all(|part| line.contains(part)));
        assert!(found, "no line with {parts:?} in\n{}", output.stdout);
    };
    line(&["Warning: ", "tasks.yaml:1: gone.exec: no program \"no-such-program\" on PATH here"]);
    line(&["Warning: ", "tasks.yaml:2: away.cwd: there is no folder "]);
    line(&["Warning: ", "tasks.yaml:3: whose.user: "]);
    line(&["tasks.yaml:4: plain.wasm: ", "does not export function `nothing`; it exports double"]);
    line(&["Warning: ", "tasks.yaml:10: braces.shell: {src} stands for an argument in exec only"]);
    line(&["tasks.yaml:12: when.schedule: no key of a task", "schedule.yaml"]);
    line(&["tasks.yaml:13: folder.exec: /tmp cannot be executed: it is a folder"]);
    line(&["Warning: ", "tasks.yaml:14: group.group: no group named no-such-group here"]);
    line(&["quiet.sh: begins with #! and is not executable, so it is not a task; chmod +x "]);
    line(&["dos.sh: dos: ", "carriage return (CRLF)"]);
    line(&[
        "Warning: ",
        "odd.sh: odd: ",
        "its interpreter /no/such/interpreter, of line 1, is not there",
    ]);
    line(&["none: none: ", "names no interpreter (#!)"]);
    line(&["schedule.yaml:2: e"]);
}

/// What cannot be read costs itself: the other files count.
#[test]
fn a_file_that_is_no_text_and_a_link_that_leads_back_cost_themselves() {
    let app = app();
    std::fs::write(app.file("tasks.d/latin.yaml"), b"a: {shell: ':'}\n# caf\xe9\n").unwrap();
    for (link, to) in [("loop", "loop"), ("l.yaml", "l.yaml"), ("here", "."), ("up", "../tasks.d")]
    {
        std::os::unix::fs::symlink(to, app.file("tasks.d").join(link)).unwrap();
    }
    let output = app.qworker(&["check"]);
    for part in [
        "tasks.d/latin.yaml:2: found the byte 0xE9 as byte 6 of the line, expected text in UTF-8",
        "tasks.d/loop: Too many levels of symbolic links",
        "tasks.d/l.yaml: Too many levels of symbolic links",
        "tasks.d/here: is not read: the link leads back to a folder that it is in",
        "tasks.d/up: is not read: the link leads back to a folder that it is in",
    ] {
        assert!(output.stdout.contains(part), "no {part} in {output:?}");
    }
    assert_eq!(output.stderr, "5 errors found; 5 tasks can be used.\n");
    let mut worker = app.worker(&[]);
    assert_eq!(app.must(&["call", "greet", "--wait"]).lines().last(), Some("Hello, world!"));
    assert_eq!(worker.stop(Signal::SIGTERM), 0);
    // The same byte elsewhere.
    std::fs::write(app.file("schedule.yaml"), b"entries:\n  \xe9: 5\n").unwrap();
    let output = app.qworker(&["beat", "check"]);
    assert!(output.stdout.contains("schedule.yaml:2: found the byte 0xE9 as byte 3"), "{output:?}");
    std::fs::write(app.file("qworker.yaml"), b"# \xe9").unwrap();
    refused(&app.qworker(&["status"]), 2, &["qworker.yaml:1: found the byte 0xE9 as byte 3"]);
}

/// Files that their authors take for a part of the application.
#[test]
fn what_nobody_reads_is_a_note() {
    let app = app();
    let tasks = "t: {shell: ':'}\n";
    let read =
        ["tasks.d/more/b.yml", "schedule.yml", "x.crontab", "README.json", ".env", "tasks.py"];
    for name in
        read.iter().chain(&["tasks.d/README.yaml", "tasks.d/a.yaml.bak", "tasks.d/data.csv"])
    {
        app.write(name, "");
    }
    assert_eq!(app.qworker(&["check"]).stderr, "");
    let deep = format!("tasks.d/{}", "d/".repeat(9));
    app.write(&format!("{deep}x.yaml"), tasks);
    for (name, why) in [
        ("celeryconfig.py", "settings are read from qworker.yaml"),
        ("Qworker.yaml", "settings are read from qworker.yaml"),
        ("schedule.YML", "entries are read from schedule.yaml and *.crontab"),
        ("tasks.yaml", "tasks are read from tasks.d"),
        ("tasks.d/A.YAML", "definitions are read from *.yaml and *.yml, in lower case"),
        ("tasks.d/more/b.json", "definitions are read from *.yaml and *.yml, in lower case"),
        ("tasks.d/.yaml", "names that begin with a dot are left out"),
        ("tasks.d/.old/c.yaml", "names that begin with a dot are left out"),
    ] {
        app.write(name, tasks);
        let output = app.qworker(&["check"]);
        let note = format!("{}: is not read: {why}", app.file(name).display());
        let said = output.stderr.lines().filter(|line| line.starts_with(&format!("Note: {note}")));
        assert_eq!(said.count(), 1, "no {note} in {output:?}");
    }
    let output = app.qworker(&["check"]);
    let found = format!("{}: is not read: it is deeper than 8 folders", deep.trim_end_matches('/'));
    assert!(output.stdout.contains(&found), "no {found} in {output:?}");
    assert_eq!(output.stderr.lines().count(), 9, "{output:?}");
}

/// Arguments that a shell reads as code, in definitions and in scripts.
#[test]
fn arguments_that_are_read_as_code_are_a_warning() {
    let app = TestDir::with(
        "sum:\n  shell: |\n    set -eu\n    echo $(( $1 + $2 ))\n\
         splice: {exec: [bash, -c, 'echo {1}']}\n\
         inline: {shell: 'eval \"$ARG_x\"', params: [x]}\n\
         safe: {exec: [expr, '{1}', +, '{2}']}\n",
    );
    app.program("tasks.d/count.sh", "#!/bin/bash\nn=$1\nif [[ $n -gt 3 ]]; then rm $2; fi\n");
    let output = app.qworker(&["check"]);
    assert_eq!(output.code, 0, "{output:?}");
    for (n, (place, part)) in [
        ("tasks.yaml:4: sum.shell: ", "computes with an argument ($1 + $2)"),
        ("tasks.yaml:5: splice.exec: ", "read by bash as code"),
        ("tasks.yaml:6: inline.shell: ", "eval reads an argument as code"),
        ("count.sh:3: count: ", "computes with an argument"),
    ]
    .into_iter()
    .enumerate()
    {
        let found = output.stdout.lines().any(|line| {
            line.starts_with("Warning: ") && line.contains(place) && line.contains(part)
        });
        assert!(found, "{n}: no {place}{part} in\n{}", output.stdout);
    }
    assert!(output.stdout.ends_with("and 5 tasks (4 warnings).\n"), "{output:?}");
}

/// What is shipped is an example: nothing of it is warned of but programs that are not installed.
#[test]
fn what_is_shipped_is_safe() {
    let root = env!("CARGO_MANIFEST_DIR");
    let app = TestDir::new();
    let output = app.qworker(&["-A", root, "check"]);
    assert_eq!(output.code, 0, "{output:?}");
    let warned = output.stdout.lines().filter(|line| line.starts_with("Warning: "));
    let odd: Vec<&str> = warned.filter(|line| !line.contains("no program")).collect();
    assert_eq!(odd, [""; 0]);
}

/// An argument is no code: not in the sum of the manual, whatever `/bin/sh` is.
#[test]
fn the_sum_of_the_examples_computes_numbers_only() {
    let app = app();
    let mut worker = app.worker(&[]);
    let args = ["call", "add", "--args", r#"["a[$(touch owned)]", 1]"#, "--wait"];
    let output = app.qworker(&args);
    assert_eq!(output.code, 1, "{output:?}");
    assert!(output.stderr.contains("non-integer argument"), "{output:?}");
    assert!(!app.file("owned").exists());
    assert_eq!(worker.stop(Signal::SIGTERM), 0);
}
