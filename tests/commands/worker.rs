//! `qworker worker`: its options, its banner, its log.

use super::{app, refused, with_env};
use crate::harness::{TestDir, Worker, eventually};
use nix::sys::signal::Signal;

fn host() -> String {
    nix::unistd::gethostname().unwrap().into_string().unwrap()
}

#[test]
fn the_banner_says_what_it_will_do() {
    let app = app();
    let mut worker = app.worker(&["-c", "3", "-n", "w@h", "-l", "INFO"]);
    worker.expect_line("w@h ready.");
    let expected = format!(
        "\n w@h v{}\n\n [config]\n .> app:         {}\n .> transport:   sqlite:///var/qworker.sqlite\n \
         .> results:     in the broker\n .> concurrency: 3\n\n [queues]\n \
         .> celery           exchange=(direct) key=celery\n \
         .> media            exchange=(direct) key=media\n\n [tasks]\n  . add\n  . fail\n  . greet\n  \
         . later\n  . thumb\n",
        env!("CARGO_PKG_VERSION"),
        app.path().display()
    );
    worker.expect_banner(". thumb");
    assert_eq!(worker.banner().trim_end(), expected.trim_end());
    assert_eq!(worker.stop(Signal::SIGTERM), 0);
    // The list of tasks is for those who want to know more.
    let mut worker = app.worker(&[]);
    worker.expect_banner("key=media");
    assert_eq!(worker.stop(Signal::SIGTERM), 0);
    assert!(!worker.banner().contains("[tasks]"));
    // Quiet is quiet; that it is ready is said to whoever waits for it.
    let mut command = app.command(&["-q", "worker", "-Q", "x"]);
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let child = command.spawn().unwrap();
    eventually("its lease", || (app.qworker(&["status"]).code == 0).then_some(()));
    crate::harness::process::send(child.id() as i32, Signal::SIGTERM);
    let output: crate::harness::Output = child.wait_with_output().unwrap().into();
    assert_eq!((output.code, output.stdout.as_str()), (0, ""));
}

#[test]
fn node_names() {
    let app = app();
    let domain = host().split_once('.').map_or(String::new(), |(_, domain)| domain.into());
    for (typed, name) in [
        ("w1@%h", format!("w1@{}", host())),
        ("w2@%d.x", format!("w2@{domain}.x")),
        ("w3@%n", "w3@w3".into()),
        ("50%%@h", "50%@h".into()),
        ("bare", "celery@bare".into()),
    ] {
        let mut worker = app.worker(&["-n", typed]);
        worker.expect_line(&format!("{name} ready."));
        assert!(app.must(&["status"]).contains(&format!("->  {name}: OK\n")), "{typed}");
        assert_eq!(worker.stop(Signal::SIGTERM), 0);
    }
    let mut worker = app.worker(&[]);
    worker.expect_line(&format!("celery@{} ready.", host()));
    assert_eq!(worker.stop(Signal::SIGTERM), 0);
}

#[test]
fn queues_are_chosen_and_left_out() {
    let app = app();
    let expect = |args: &[&str], queues: &[&str]| {
        let mut worker = app.worker(args);
        let names = || -> Vec<String> {
            let banner = worker.banner();
            let lines = banner.lines().filter(|line| line.contains("exchange="));
            lines.map(|line| line.split_whitespace().nth(1).unwrap().to_string()).collect()
        };
        eventually("the last queue", || (names().len() >= queues.len()).then_some(()));
        assert_eq!(names(), queues);
        assert_eq!(worker.stop(Signal::SIGTERM), 0);
    };
    expect(&[], &["celery", "media"]);
    expect(&["-Q", "a,b"], &["a", "b"]);
    expect(&["-X", "media"], &["celery"]);
    expect(&["-Q", "a,b,c", "-X", "b"], &["a", "c"]);
    // It serves those, and no other.
    app.must(&["call", "greet", "--task-id", "here"]);
    app.must(&["call", "greet", "--task-id", "there", "--queue", "b"]);
    let mut worker = app.worker(&["-Q", "b"]);
    assert_eq!(app.must(&["result", "there", "--wait"]), "Hello, world!");
    assert_eq!(worker.stop(Signal::SIGTERM), 0);
    refused(&app.qworker(&["result", "here"]), 75, &["waits in queue celery"]);
}

#[test]
fn purge_removes_what_waits_first() {
    let app = app();
    app.must(&["call", "greet", "--task-id", "a"]);
    app.must(&["call", "greet", "--task-id", "b"]);
    for (option, text) in
        [("--purge", "purge: Erased 2 messages."), ("--discard", "purge: Erased 0 messages.")]
    {
        let mut worker = app.worker(&[option]);
        worker.expect_banner(text);
        assert_eq!(worker.stop(Signal::SIGTERM), 0);
    }
    assert_eq!(app.qworker(&["result", "a"]).code, 69);
}

#[test]
fn the_log_has_levels() {
    let app = app();
    let work = |level: &str| {
        let (good, bad) = (format!("g-{level}"), format!("f-{level}"));
        let mut worker = app.worker(&["-l", level]);
        app.must(&["call", "greet", "--task-id", &good, "--wait"]);
        assert_eq!(app.qworker(&["call", "fail", "--task-id", &bad, "--wait"]).code, 1);
        assert_eq!(worker.stop(Signal::SIGTERM), 0);
        worker
    };
    let info = work("info");
    for part in [
        "Task greet[g-info] received",
        "Task greet[g-info] succeeded in ",
        ": INFO/MainProcess] ",
        "Task fail[f-info] raised unexpected: CalledProcessError(3, ",
        ": ERROR/MainProcess] ",
        "Warm shutdown",
    ] {
        info.expect_line(part);
    }
    let warning = work("WARNING");
    warning.expect_line("Task fail[f-WARNING]");
    warning.expect_line("Warm shutdown");
    assert!(!warning.log().contains("Task greet"), "{}", warning.log());
    let critical = work("critical");
    critical.expect_line("Task fail[f-critical]");
    assert!(!critical.log().contains("Warm shutdown"), "{}", critical.log());
}

#[test]
fn bad_options_are_refused_before_anything_starts() {
    let app = app();
    for (args, part) in [
        (&["-c", "0"][..], "--concurrency: found text \"0\", expected a whole number from 1"),
        (&["-c", "-1"], "-1"),
        (&["-c", "many"], "--concurrency: found text \"many\""),
        (&["-c", "2.5"], "--concurrency: found text \"2.5\""),
        (&["--autoscale", "0"], "expected MAX,MIN: two whole numbers up to 10000, such as 8,1"),
        (&["--autoscale", "8,-1"], "expected MAX,MIN"),
        (&["--autoscale", "1,2,3"], "expected MAX,MIN"),
        (&["--autoscale", "8,1", "-c", "3"], "--autoscale <MAX[,MIN]>' cannot be used with"),
        (&["-l", "LOUD"], "expected DEBUG, INFO, WARNING, ERROR or CRITICAL"),
        (&["-n", "a@%z"], "--hostname a@%z: %z means nothing; expected %h, %n, %d or %%"),
        (&["-n", "a@%"], "--hostname a@%"),
        (&["--time-limit", "soon"], "--time-limit: found text \"soon\""),
        (&["--soft-time-limit", "-3"], "-3"),
        (&["-X", "celery,media"], "--exclude-queues leaves no queue"),
        (&["extra"], "'extra'"),
    ] {
        refused(&app.qworker(&[&["worker"], args].concat()), 2, &[part]);
    }
    assert!(!app.database().exists(), "nothing was opened");
    assert_eq!(app.qworker(&["-b", "kafka://h/", "worker"]).code, 2);
    // A broker that cannot be opened is somebody who does not answer.
    app.write(
        "var/qworker.sqlite",
        "this is no database, and long enough to look at: ------------",
    );
    let output = app.qworker(&["worker"]);
    assert_eq!((output.code, output.stdout.as_str()), (69, ""), "{output:?}");
    assert!(output.stderr.contains("cannot open sqlite:///"), "{output:?}");
}

#[test]
fn variables_that_nobody_reads_are_told() {
    let app = TestDir::with("inner: {exec: [sh, -c, '\"$PROGRAM\" check'], time_limit: 1m}\n");
    let variables = [
        ("QWORKER_WORKER_LOGLEVLE", "DEBUG"),
        ("QWORKER_WORKER_CONCURENCY", "7"),
        // Of the host: of Kubernetes for a service of this name, unset, and of a task.
        ("QWORKER_PORT", "tcp://10.0.0.1:80"),
        ("QWORKER_SERVICE_HOST", "10.0.0.1"),
        ("QWORKER_NOTHING", ""),
        ("QWORKER_TASK_WORKER", "1"),
        ("QWORKER_GUARD_FD", "1"),
        ("QWORKER_GUARD_HEARTBEAT", "1"),
    ];
    let lines = ["LOGLEVLE", "CONCURENCY"].map(|name| {
        let right = if name == "LOGLEVLE" { "LOGLEVEL" } else { "CONCURRENCY" };
        let why = "unknown variable, which means nothing here; did you mean";
        format!("Warning: environment: QWORKER_WORKER_{name}: {why} QWORKER_WORKER_{right}?")
    });
    let told = |text: &str| {
        let told: Vec<&str> = text.lines().filter(|line| line.contains("unknown var")).collect();
        assert_eq!(told, [&lines[1], &lines[0]], "{text}");
    };
    told(&with_env(&app, &variables, &["check"]).stdout);
    told(&with_env(&app, &variables, &["beat", "check"]).stderr);
    for command in ["beat", "worker"] {
        let mut program = app.command(&[command, "-l", "INFO"]);
        program.envs(variables).env("PROGRAM", env!("CARGO_BIN_EXE_qworker"));
        let mut program = Worker::of(program);
        program.expect_line(if command == "beat" { "beat: Starting" } else { " ready." });
        if command == "worker" {
            // All that a task finds is known.
            let inner = app.must(&["call", "inner", "--wait"]);
            assert!(inner.contains("no error in the settings and 1 task."), "{inner}");
        }
        assert_eq!(program.stop(Signal::SIGTERM), 0);
        told(&program.log());
    }
}

#[test]
fn options_have_variables() {
    let app = app();
    let variables =
        [("QWORKER_WORKER_QUEUES", "celery"), ("QWORKER_WORKER_EXCLUDE_QUEUES", "celery")];
    let said = "Error: QWORKER_WORKER_EXCLUDE_QUEUES leaves no queue";
    refused(&with_env(&app, &variables, &["worker"]), 2, &[said]);
    // What is wrong is blamed on whatever said it.
    for (variable, value, args, part) in [
        (
            "WORKER_LOGLEVEL",
            "x",
            &["worker"][..],
            "value 'x' for 'QWORKER_WORKER_LOGLEVEL': expected DEBUG",
        ),
        (
            "WORKER_LOGLEVEL",
            "x",
            &["worker", "-l", "y"],
            "value 'y' for '--loglevel <LEVEL>': expected",
        ),
        ("BEAT_LOGLEVEL", "x", &["beat"], "value 'x' for 'QWORKER_BEAT_LOGLEVEL': expected DEBUG"),
        ("WORKER_PURGE", "maybe", &["worker"], "value 'maybe' for 'QWORKER_WORKER_PURGE'"),
        ("WORKER_QUEUES", "a,,b", &["worker"], "for 'QWORKER_WORKER_QUEUES'"),
        ("WORKER_PIDFILE", "%N", &["worker"], "Error: QWORKER_WORKER_PIDFILE %N: %N means nothing"),
        ("WORKER_PIDFILE", "%n", &["worker", "--pidfile", "%N"], "Error: --pidfile %N: %N means"),
        (
            "WORKER_LOGFILE",
            "/no/such",
            &["worker"],
            "Error: QWORKER_WORKER_LOGFILE /no/such: there is no",
        ),
        ("WORKDIR", "/no/such", &["list", "tasks"], "Error: QWORKER_WORKDIR /no/such: "),
        (
            "BEAT_SCHEDULER",
            "x",
            &["beat", "list"],
            "value 'x' for 'QWORKER_BEAT_SCHEDULER': expected",
        ),
        ("CALL_ETA", "soon", &["call", "add"], "Error: QWORKER_CALL_ETA soon: expected ISO"),
        ("CALL_ETA", "soon", &["call", "add", "--countdown", "1"], "'QWORKER_CALL_ETA'"),
        ("CALL_PRIORITY", "10", &["call", "add"], "value '10' for 'QWORKER_CALL_PRIORITY'"),
    ] {
        refused(&with_env(&app, &[(&format!("QWORKER_{variable}"), value)], args), 2, &[part]);
    }
    for word in ["1", "true", "yes", "on", "0", "no", "false", "off"] {
        let output = with_env(
            &app,
            &[("QWORKER_QUIET", word), ("QWORKER_LIST_JSON", word)],
            &["list", "tasks"],
        );
        assert_eq!(output.code, 0, "{output:?}");
        assert_eq!(
            output.stdout.starts_with('['),
            ["1", "true", "yes", "on"].contains(&word),
            "{word}"
        );
    }
}

#[test]
fn limits_of_the_command_line_are_those_of_tasks_that_have_none() {
    let app =
        TestDir::with("long: {shell: 'sleep 100'}\nown: {shell: 'sleep 0.5', time_limit: 100}\n");
    let mut worker = app.worker(&["-c", "2", "--time-limit", "0.2"]);
    let long = app.qworker(&["call", "long", "--wait"]);
    refused(&long, 1, &["FAILURE: TimeLimitExceeded: 0.2s\n"]);
    assert_eq!(app.must(&["call", "own", "--wait"]), "null");
    assert_eq!(worker.stop(Signal::SIGTERM), 0);
    let mut worker = app.worker(&["--soft-time-limit", "0.2"]);
    let long = app.qworker(&["call", "long", "--wait"]);
    refused(&long, 1, &["FAILURE: SoftTimeLimitExceeded"]);
    assert_eq!(worker.stop(Signal::SIGTERM), 0);
}

#[test]
fn options_of_celery_without_meaning_are_refused_with_the_reason() {
    let app = app();
    let help = app.must(&["worker", "--help"]);
    for (args, option, reason) in [
        (&["-P", "prefork"][..], "-P, --pool means nothing here", "no pool to choose"),
        (&["-Peventlet"], "-P, --pool means nothing here", "a process or WASM instance of its own"),
        (&["--pool=gevent"], "-P, --pool means", "no pool to choose"),
        (&["-c", "3", "--pool", "threads", "-l", "INFO"], "--pool means", "no pool to choose"),
        (&["-Ofair"], "-O, --optimization", "a task goes to a slot that is free"),
        (&["--max-tasks-per-child", "100"], "--max-tasks-per-child", "a fresh process"),
        (&["--max-memory-per-child=1000"], "--max-memory-per-child", "set memory in the task's"),
        (&["--pool-start-method", "spawn"], "--pool-start-method", "there is no pool"),
        (&["--prefetch-multiplier", "1"], "--prefetch-multiplier", "worker_disable_prefetch"),
        (&["-I", "proj.tasks"], "-I, --include", "the files of tasks.d"),
        (&["--without-gossip"], "--without-gossip", "nothing to switch off"),
        (&["--without-mingle"], "--without-mingle", "nothing to switch off"),
        (&["--without-heartbeat"], "--without-heartbeat", "nothing to switch off"),
        (&["--heartbeat-interval", "5"], "--heartbeat-interval", "nothing to switch off"),
        (&["-S", "state"], "-S, --statedb", "is in the broker"),
        (&["-E"], "-E, --task-events, --events", "not supported by this version"),
    ] {
        let output = app.qworker(&[&["worker"], args].concat());
        refused(&output, 2, &["Error: ", option, reason, "eave it out"]);
        assert!(!output.stderr.contains("unexpected argument"), "{output:?}");
        let long = option.split([' ', ',']).find(|word| word.starts_with("--")).unwrap();
        assert!(!help.contains(long), "{long} is in the help");
    }
    refused(&app.qworker(&["--loader", "x", "worker"]), 2, &["--loader means nothing here"]);
    refused(&app.qworker(&["call", "-P", "x"]), 2, &["unexpected argument '-P'"]);
}
