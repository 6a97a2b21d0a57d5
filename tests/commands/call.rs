//! `qworker call`: what is refused at once, what is sent, and what `--wait` prints.

use super::{TASKS, app, json, printed, refused, with_env};
use crate::harness::{Place, TestDir, in_every_place};
use nix::sys::signal::Signal;
use qworker::clock;
use qworker::wire::Message;

/// The one message that waits: queue, priority, the store's own time, the message.
fn sent(app: &TestDir) -> (String, i64, Option<f64>, Message) {
    let one = app.only_waiting();
    let message = one.message();
    (one.queue, one.priority, one.due, message)
}

in_every_place! {
    it_prints_the_id_of_what_it_sent
    eta_countdown_and_expires
    what_others_run_can_be_taken_before_its_time
}

fn it_prints_the_id_of_what_it_sent(place: Place) {
    let app = place.app(TASKS);
    let output = app.qworker(&["call", "add", "-a", "[2, 3]"]);
    assert_eq!((output.code, output.stderr.as_str()), (0, ""));
    let id = output.stdout.trim_end();
    assert_eq!(uuid::Uuid::parse_str(id).unwrap().to_string(), id);
    let (queue, priority, due, message) = sent(&app);
    assert_eq!((queue.as_str(), priority, due.unwrap_or(0.0)), ("celery", 0, 0.0));
    assert_eq!((message.task.as_str(), message.id.as_str()), ("add", id));
    let arguments = message.arguments().unwrap();
    assert_eq!(arguments.args.iter().map(|arg| arg.get()).collect::<Vec<_>>(), ["2", "3"]);
    assert!(arguments.kwargs.is_empty());
}

#[test]
fn the_task_says_where_to_unless_the_call_does() {
    let app = app();
    printed(&app.qworker(&["call", "thumb", "--task-id", "t"]), "t\n");
    let (queue, priority, _, message) = sent(&app);
    assert_eq!((queue.as_str(), priority, message.priority), ("media", 7, Some(7)));
    app.must(&["purge", "-f"]);
    app.must(&["call", "thumb", "--queue", "fast", "--priority", "2"]);
    let (queue, priority, _, message) = sent(&app);
    assert_eq!((queue.as_str(), priority, message.priority), ("fast", 2, Some(2)));
    app.must(&["purge", "-f", "-Q", "fast"]);
    app.settings("task_routes: {\"th*\": {queue: routed, priority: 4}}\n");
    app.must(&["call", "thumb"]);
    let (queue, priority, ..) = sent(&app);
    assert_eq!((queue.as_str(), priority), ("routed", 4));
    app.must(&["purge", "-f", "-Q", "routed"]);
    // Every option has its variable.
    let variables = [("QWORKER_CALL_QUEUE", "q"), ("QWORKER_CALL_ARGS", "[1, 2]")];
    let output = with_env(&app, &variables, &["call", "add"]);
    assert_eq!(output.code, 0, "{output:?}");
    assert_eq!(sent(&app).0, "q");
}

fn eta_countdown_and_expires(place: Place) {
    let app = place.app(TASKS);
    let call = |args: &[&str]| {
        app.must(&[&["call", "greet"], args].concat());
        let (_, _, due, message) = sent(&app);
        app.must(&["purge", "-f"]);
        (due, message)
    };
    let at = clock::parse("2099-05-01T10:00:00Z").unwrap();
    let (due, message) = call(&["--eta", "2099-05-01T12:00:00+02:00"]);
    assert_eq!((message.eta, due), (Some(at), Some(at.timestamp() as f64)));
    let (_, message) = call(&["--eta", "2099-05-01 10:00"]);
    assert_eq!(message.eta, Some(at), "UTC without an offset");
    let before = qworker::clock::now();
    let (due, message) = call(&["--countdown", "100.5"]);
    let after = qworker::clock::now();
    let eta = message.eta.unwrap() - chrono::TimeDelta::milliseconds(100_500);
    assert!((before..=after).contains(&eta), "{eta}");
    assert!(due.is_some());
    let (_, message) = call(&["--expires", "2099-05-01T10:00:00"]);
    assert_eq!((message.eta, message.expires), (None, Some(at)));
    let before = qworker::clock::now();
    let (_, message) = call(&["--expires", "60"]);
    let expires = message.expires.unwrap() - chrono::TimeDelta::seconds(60);
    assert!((before..=qworker::clock::now()).contains(&expires), "{expires}");
}

/// A worker of Celery looks at what can be taken, and holds it until its time.
fn what_others_run_can_be_taken_before_its_time(place: Place) {
    let app = place.app(TASKS);
    app.must(&["call", "py.add", "--unregistered", "--countdown", "1000"]);
    let (_, _, due, message) = sent(&app);
    assert_eq!(due, None);
    assert!(message.eta.unwrap() > qworker::clock::now());
    // A worker of ours that comes first leaves it where others find it.
    let mut worker = app.worker(&["-c", "1"]);
    worker.expect_line("\"py.add\", which is not in tasks.d");
    assert_eq!(worker.stop(Signal::SIGTERM), 0);
    assert_eq!(sent(&app).2, None);
}

#[test]
fn an_exchange_needs_its_key_and_a_broker_that_keeps_exchanges() {
    let app = app();
    let call = |args: &[&str]| app.qworker(&[&["call", "greet"], args].concat());
    let route = ["--exchange", "news", "--routing-key", "eu.sport"];
    let why = "exchange \"news\": the embedded broker keeps no exchanges";
    refused(&call(&route), 69, &[why, "--queue"]);
    refused(&call(&[&route[..], &["--from-jsonl", "-"]].concat()), 69, &[why]);
    for (args, part) in [
        (&["--exchange", "news"][..], "--routing-key <KEY>"),
        (&["--routing-key", "eu"], "--exchange <NAME>"),
        (&["--exchange", "", "--routing-key", "eu"], "leads to the queue that --queue names"),
        (&["--exchange", "news", "--routing-key", ""], "expected a name"),
        (&["--exchange", "x", "--routing-key", "eu", "--queue", "q"], "cannot be used with"),
    ] {
        refused(&call(args), 2, &[part]);
    }
}

#[test]
fn arguments_come_from_files_too() {
    let app = app();
    let long = "x".repeat(1_000_000);
    app.write("kwargs.json", &format!("{{\"name\": \"{long}\"}}"));
    app.must(&["call", "greet", "-k", &format!("@{}", app.file("kwargs.json").display())]);
    let value = sent(&app).3.arguments().unwrap().kwargs[0].1.get().to_string();
    assert_eq!(value, format!("\"{long}\""));
    app.must(&["purge", "-f"]);

    let output = app.qworker_with_input(&["call", "add", "-a", "@-"], "[2,\n 3]\n");
    assert_eq!((output.code, output.stderr.as_str()), (0, ""));
    assert_eq!(sent(&app).3.arguments().unwrap().args.len(), 2);
    for (args, parts) in [
        (&["add", "-a", "@/no/such"][..], &["Error: --args: /no/such: No such file"][..]),
        (&["add", "-a", "@-", "-k", "@-"], &["--args and --kwargs cannot both be read"]),
        (&["add", "-a", "@-"], &["--args: expected a JSON array"]),
    ] {
        refused(&app.qworker_with_input(&[&["call"], args].concat(), "{"), 2, parts);
    }
}

#[test]
fn what_is_wrong_is_refused_and_nothing_is_sent() {
    let app = app();
    for (args, parts) in [
        (&["add", "-a", "[2, 3"][..], &["Error: --args: expected a JSON array like '[2, 3]'"][..]),
        (&["add", "-a", "{}"], &["--args: expected a JSON array"]),
        (&["add", "-a", "[1, 2] x"], &["--args"]),
        (&["add", "-k", "[]"], &["--kwargs: expected a JSON object"]),
        (&["add", "-k", "{"], &["--kwargs"]),
        (&["add"], &["TypeError: add() missing 2 required positional arguments: 'a' and 'b'"]),
        (&["add", "-a", "[1]"], &["TypeError: add() missing 1 required positional argument: 'b'"]),
        (
            &["add", "-a", "[1, 2, 3]"],
            &["TypeError: add() takes 2 positional arguments but 3 were given"],
        ),
        (
            &["add", "-a", "[1, 2]", "-k", "{\"a\": 1}"],
            &["TypeError: add() got multiple values for argument 'a'"],
        ),
        (
            &["greet", "-k", "{\"nam\": 1}"],
            &["TypeError: greet() got an unexpected keyword argument 'nam'"],
        ),
        (
            &["ad"],
            &["no task \"ad\" in tasks.d", "Hint: did you mean add?", "Hint: --unregistered"],
        ),
        (&["quite.other"], &["no task \"quite.other\" in tasks.d", "--unregistered"]),
        (&["greet", "--eta", "soon"], &["--eta soon: expected ISO 8601"]),
        (&["greet", "--expires", "never"], &["--expires never: expected seconds"]),
        (&["greet", "--expires", "nan"], &["--expires nan"]),
        (&["greet", "--countdown", "x"], &["'x' for '--countdown"]),
        (&["greet", "--countdown", "1e300"], &["--countdown", "a duration up to 36500d"]),
        (&["greet", "--countdown", "1", "--eta", "2099-01-01"], &["cannot be used with"]),
        (&["greet", "--priority", "10"], &["'10'", "a priority from 0 to 9"]),
        (&["greet", "--timeout", "1"], &["--wait"]),
        (&["greet", "--json"], &["--wait"]),
        (&["greet", "--wait", "--timeout", "-1"], &["--timeout"]),
    ] {
        refused(&app.qworker(&[&["call"], args].concat()), 2, parts);
    }
    assert!(!app.qworker(&["call", "quite.other"]).stderr.contains("did you mean"));
    let queues = app.qworker(&["list", "queues", "--json"]);
    let ready: u64 = json(&queues.stdout)
        .as_array()
        .unwrap()
        .iter()
        .map(|queue| queue["ready"].as_u64().unwrap() + queue["scheduled"].as_u64().unwrap())
        .sum();
    assert_eq!(ready, 0);
}

#[test]
fn unregistered_sends_what_others_have() {
    let app = app();
    let args = ["call", "far.away", "-a", "[1]", "--unregistered", "--task-id", "far"];
    printed(&app.qworker(&args), "far\n");
    assert_eq!(sent(&app).3.task, "far.away");
}

/// The missing task may be in the file that is broken: then that is told.
#[test]
fn a_broken_file_is_told_to_whoever_misses_a_task() {
    let app = app();
    app.write("tasks.d/broken.yaml", "mine:\n  shel: ':'\n");
    let output = app.qworker(&["call", "mine"]);
    refused(
        &output,
        2,
        &[
            "task \"mine\" is defined at ",
            "broken.yaml:1, but wrong:\n",
            "broken.yaml:2: mine.shel: unknown key; did you mean shell?",
        ],
    );
    // A file that nobody can read may have it; what is wrong with other tasks is not told.
    app.write("tasks.d/torn.yaml", "here:\n  shell: ':'\n broken yaml\n");
    let output = app.qworker(&["call", "yours"]);
    refused(
        &output,
        2,
        &["no task \"yours\"", "it may be in a file that cannot be read: ", "torn.yaml:"],
    );
    assert!(!output.stderr.contains("mine"), "{output:?}");
    app.write("tasks.d/not_yet.sh", "#!/bin/sh\n");
    let output = app.qworker(&["call", "not_yet"]);
    refused(
        &output,
        2,
        &["not_yet.sh, but wrong:", "not executable, so it is not a task; chmod +x "],
    );
    // Others are not bothered.
    assert_eq!(app.qworker(&["call", "greet"]).stderr, "");
}

#[test]
fn wait_prints_the_result_in_place_of_the_id() {
    let app = app();
    let mut worker = app.worker(&["-c", "2"]);
    printed(&app.qworker(&["call", "add", "-a", "[2, 3]", "--wait"]), "5\n");
    printed(&app.qworker(&["call", "greet", "-w", "-k", "{\"name\": \"a b\"}"]), "Hello, a b!\n");
    printed(&app.qworker(&["call", "thumb", "-w"]), "null\n");
    let failed = app.qworker(&["call", "fail", "--wait"]);
    refused(
        &failed,
        1,
        &["FAILURE: CalledProcessError: Command", "returned non-zero exit status 3.", "\noh no\n"],
    );
    let output =
        app.qworker(&["call", "add", "-a", "[2, 3]", "--wait", "--json", "--task-id", "j"]);
    assert_eq!((output.code, output.stderr.as_str()), (0, ""));
    let meta = json(&output.stdout);
    assert_eq!(
        (&meta["status"], &meta["result"], &meta["task_id"]),
        (&"SUCCESS".into(), &5.into(), &"j".into())
    );
    // Not in time: that is no failure, and says how to ask again.
    let output = app.qworker(&["call", "later", "--wait", "--timeout", "0.2", "--task-id", "l"]);
    refused(&output, 75, &["Task l is not ready after the given time", "`qworker result l`"]);
    assert_eq!(worker.stop(Signal::SIGTERM), 0);
}

/// A task that calls another one is its parent.
#[test]
fn a_task_may_call_tasks() {
    let app = app();
    app.write("tasks.d/parent.yaml", "parent:\n  shell: '\"$QWORKER\" call child --task-id kid'\nchild:\n  shell: 'echo \"$QWORKER_TASK_PARENT_ID $QWORKER_TASK_ROOT_ID\"'\n");
    app.settings(&format!("task_env: {{QWORKER: '{}'}}\n", env!("CARGO_BIN_EXE_qworker")));
    let mut worker = app.worker(&["-c", "2"]);
    app.must(&["call", "parent", "--task-id", "top", "--wait"]);
    assert_eq!(app.must(&["result", "kid", "--wait"]), "top top");
    assert_eq!(worker.stop(Signal::SIGTERM), 0);
}
