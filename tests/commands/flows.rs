//! Workflows on the command line: what is refused before anything is sent, what is checked, and what
//! is shown on a terminal. What runs is in `tests/python/flows.rs`.

use super::{app, printed, refused};
use crate::harness::{Output, Place, TestDir, in_every_place};
use std::process::{Command, Stdio};

#[test]
fn words_of_a_workflow_are_calls() {
    let app = app();
    for (args, parts) in [
        (
            &["--chain", "add [1, 2]", "add [1"][..],
            &["--chain: call 2: arguments of add", "column"][..],
        ),
        (&["--group", "add 5"], &["no task \"add 5\""]),
        (&["--group", "add [1, 2] [3]"], &["found [3], expected at most a JSON array"]),
        (&["--chord", "greet"], &["found one call", "last the body"]),
        (&["--chain", "@missing.json"], &["--chain: call 1: missing.json: No such file"]),
        (&["--chain", "@-", "@-"], &["only one call can be read from standard input"]),
        (&["--chain", "{\"task\": 5"], &["expected a signature as a JSON object"]),
        (&["--chain", "--group", "greet"], &["cannot be used with"]),
        (&["--chain", "greet", "--kwargs", "{}"], &["cannot be used with"]),
        (&["--group", "greet", "--exchange", "x", "--routing-key", "y"], &["cannot be used with"]),
        (&["--chain", "greet", "--eta", "soon"], &["--eta soon: expected ISO 8601"]),
        (
            &["greet", "greet"],
            &["found 2 words, expected a task's name", "--chain, --group and --chord"],
        ),
        (&["{\"task\": \"greet\"}"], &["expected a task's name", "take whole signatures"]),
        (
            &["--chain", "{\"task\": \"celery.chain\", \"subtask_type\": \"chain\"}"],
            &["no task in it to call"],
        ),
        (
            &["--chain", "add [1, 2]", "gret"],
            &["no task \"gret\" in tasks.d", "did you mean greet?", "--unregistered"],
        ),
    ] {
        refused(&app.qworker(&[&["call"], args].concat()), 2, parts);
    }
    assert!(app.waiting().is_empty(), "nothing was sent");
    app.settings("result_backend: disabled://\n");
    let chord = ["call", "--chord", "greet", "greet"];
    refused(&app.qworker(&chord), 2, &["a chord in it, and no results are stored"]);
    let waits = ["call", "--chain", "greet", "greet", "--wait"];
    refused(&app.qworker(&waits), 2, &["--wait: no results are stored"]);
    assert_eq!(app.must(&["call", "--chain", "greet", "greet", "--task-id", "x"]), "x");
}

#[test]
fn files_are_checked_without_sending() {
    let app = app();
    app.write("good.yaml", "params: [name]\ntask: greet\nargs: ['{name}']\n");
    app.write("bad.yaml", "chain:\n- add\n- {taks: greet}\n- {task: thmb, queue: [a]}\n");
    app.write("broken.yaml", "chain: [\n");
    printed(&app.qworker(&["apply", "--check", "good.yaml"]), "good.yaml: no error.\n");
    let output =
        app.qworker(&["apply", "--check", "good.yaml", "bad.yaml", "broken.yaml", "none.yaml"]);
    assert_eq!((output.code, &output.stderr[..]), (1, "7 errors found.\n"), "{output:?}");
    let lines: Vec<&str> = output.stdout.lines().collect();
    for (line, begin) in lines.iter().zip([
        "good.yaml: no error.",
        "bad.yaml:2: chain.1: TypeError: add() missing 2 required",
        "bad.yaml:3: chain.2.taks: unknown key; did you mean task?",
        "bad.yaml:3: chain.2: has none of task, chain",
        "bad.yaml:4: chain.3.queue: found a list, expected a queue's name",
        "bad.yaml:4: chain.3: no task \"thmb\" in tasks.d; did you mean thumb?",
        "broken.yaml:",
        "none.yaml: No such file",
    ]) {
        assert!(line.starts_with(begin), "{begin}: {output:?}");
    }
    refused(
        &app.qworker(&["apply", "bad.yaml"]),
        2,
        &["wrong workflow\nbad.yaml:2: chain.1", "bad.yaml:4: chain.3", "Hint: --unregistered"],
    );
    refused(
        &app.qworker(&["apply", "good.yaml", "good.yaml"]),
        2,
        &["found 2 files, expected one"],
    );
    refused(
        &app.qworker(&["apply", "good.yaml"]),
        2,
        &["parameter name: no value", "its parameters: name"],
    );
    refused(&app.qworker(&["apply", "good.yaml", "--param", "name"]), 2, &["expected NAME=VALUE"]);
    refused(
        &app.qworker(&["apply", "good.yaml", "--params", "[1]"]),
        2,
        &["--params: expected a JSON object"],
    );
    refused(
        &app.qworker(&["apply", "-", "--params", "@-"]),
        2,
        &["cannot both be read from standard input"],
    );
    refused(&app.qworker(&["graph", "x"]), 69, &["nothing is known of x"]);
    refused(&app.qworker(&["graph", "x", "--format", "png"]), 2, &["text, dot, mermaid"]);
    // The later value of a parameter counts, and one that is no JSON is text.
    app.write("params.json", "{\"name\": [1]}");
    let mut worker = app.worker(&[]);
    for (args, greeted) in [
        (&["-p", "name=Ada L."][..], "Hello, Ada L.!"),
        (&["--params", "@params.json"], "Hello, [1]!"),
        (&["--params", "@params.json", "-p", "name=5"], "Hello, 5!"),
    ] {
        let output = app.qworker(&[&["-q", "apply", "good.yaml", "--wait"], args].concat());
        assert_eq!(output.stdout.trim_end(), greeted, "{output:?}");
    }
    assert_eq!(worker.stop(nix::sys::signal::Signal::SIGTERM), 0);
}

in_every_place! {
    the_tree_lives_on_a_terminal
    a_dead_task_ends_the_wait
}

/// `qworker ARGS` on a terminal; what was written there.
fn on_terminal(app: &TestDir, args: &[&str]) -> String {
    let mut command = app.command(&[]);
    let mut words = vec!["stty cols 100 rows 24;".to_string()];
    words.push(command.get_program().to_string_lossy().into());
    words.extend(args.iter().map(|word| format!("'{word}'")));
    let mut typed = Command::new("script");
    typed.args(["--quiet", "--return", "--command", &words.join(" ")]).arg(app.file("typescript"));
    for (name, value) in command.env_remove("NO_COLOR").env("TERM", "xterm").get_envs() {
        match value {
            Some(value) => typed.env(name, value),
            None => typed.env_remove(name),
        };
    }
    Output::of(typed.current_dir(app.path()).stdin(Stdio::null())).stdout.replace("\r\n", "\n")
}

fn the_tree_lives_on_a_terminal(place: Place) {
    let app = place.app("add: {shell: 'echo $(( $1 + $2 ))'}\nfirst: {shell: 'echo 1 > running; read -r _ < pipe; echo 1'}\necho: {shell: 'echo \"$1\"'}\n");
    app.fifo("pipe");
    app.write(
        "flow.yaml",
        "chain:\n- first\n- group: [{task: add, args: [1]}, {task: add, args: [2]}]\n- echo\n",
    );
    let _worker = app.worker(&["-c", "2"]);
    let shown = std::thread::scope(|scope| {
        let shown = scope.spawn(|| on_terminal(&app, &["apply", "flow.yaml", "--wait"]));
        crate::harness::eventually("a task that runs", || {
            (!app.read("running").is_empty()).then_some(())
        });
        // It is drawn while the task runs.
        crate::harness::eventually("a drawing of it", || {
            app.read("typescript").contains("RECEIVED").then_some(())
        });
        app.write_fifo("pipe");
        shown.join().unwrap()
    });
    for part in [
        "first",
        "→ group",
        "├─ add",
        "└─ add",
        "→ echo",
        "[--------------------] 0/2",
        "[####################] 2/2",
    ] {
        assert!(shown.contains(part), "no {part:?}: {shown:?}");
    }
    // Redrawn in place, in colours: the cursor goes up by the four lines above the last one.
    assert!(shown.contains("\x1b[4A"), "{shown:?}");
    assert!(shown.contains("\x1b[32m SUCCESS\x1b[0m"), "{shown:?}");
    // A line as wide as the terminal ends itself.
    assert!(shown.trim_end().ends_with("[2, 3]"), "{shown:?}");
}

fn a_dead_task_ends_the_wait(place: Place) {
    let app = place.app("ok: {shell: ':'}\ndie: {shell: 'echo 1 >> died; kill -9 $PPID'}\n");
    app.settings("task_max_deliveries: 1\n");
    let _worker = app.worker(&[]);
    let output = app.qworker(&["call", "--chain", "ok", "die", "ok", "--wait"]);
    assert_eq!((output.code, &output.stdout[..]), (1, ""), "{output:?}");
    assert!(output.stderr.contains("task die["), "{output:?}");
}
