//! `qworker report`: every setting with its origin, and no secret.

use super::{app, json, with_env};
use crate::harness::{Output, TestDir, Worker, eventually};
use nix::sys::signal::Signal;
use std::collections::BTreeMap;

/// Name, value and origin of every setting.
fn settings(output: &Output) -> BTreeMap<String, (String, String)> {
    let all = json(&output.stdout);
    let one = |(name, row): (&String, &serde_json::Value)| {
        let text = |key: &str| row[key].as_str().unwrap().to_string();
        (name.clone(), (text("value"), text("origin")))
    };
    all["settings"].as_object().unwrap().iter().map(one).collect()
}

/// The shipped file says the same as the program: every setting, every default.
#[test]
fn the_shipped_file_has_every_default() {
    let text = include_str!("../../etc/qworker.yaml");
    let of_file: BTreeMap<&str, &str> = text
        .lines()
        .filter_map(|line| line.strip_prefix('#')?.split_once(": "))
        .filter(|(name, _)| name.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
        .collect();
    let app = TestDir::new();
    let reported = settings(&app.qworker(&["report", "--json"]));
    let of_program: BTreeMap<&str, &str> =
        reported.iter().map(|(name, (value, _))| (name.as_str(), value.as_str())).collect();
    assert_eq!(of_file, of_program);
    assert!(reported.values().all(|(_, origin)| origin == "default"));
    // With every # taken away it is a file without mistakes that changes nothing.
    let active: String = text
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(setting) if !setting.starts_with(' ') => format!("{setting}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    app.settings(&active);
    let output = app.qworker(&["report", "--json"]);
    assert_eq!((output.code, output.stderr.as_str()), (0, ""));
    for (name, (value, origin)) in settings(&output) {
        assert_eq!(value, reported[&name].0);
        assert!(origin.contains("qworker.yaml:"), "{name} comes from {origin}");
    }
}

#[test]
fn the_later_layer_wins_and_is_named() {
    let app = app();
    app.settings("# first line\nworker_concurrency: 3\ntask_time_limit: 1m\nresult_expires: 2h\n");
    let variables = [
        ("QWORKER_BROKER", "sqlite:///var/other.sqlite"),
        ("QWORKER_WORKER_CONCURRENCY", "7"),
        ("QWORKER_TASK_TIME_LIMIT", "30"),
    ];
    let output = with_env(&app, &variables, &["report", "--json"]);
    assert_eq!((output.code, output.stderr.as_str()), (0, ""));
    let rows = settings(&output);
    let file = app.file("qworker.yaml").display().to_string();
    for (name, value, origin) in [
        ("broker_url", "sqlite:///var/other.sqlite", "QWORKER_BROKER".to_string()),
        ("worker_concurrency", "7", "QWORKER_WORKER_CONCURRENCY".into()),
        ("task_time_limit", "30s", "QWORKER_TASK_TIME_LIMIT".into()),
        ("result_expires", "2h", format!("{file}:4")),
        ("task_max_deliveries", "5", "default".into()),
    ] {
        assert_eq!(rows[name], (value.to_string(), origin), "{name}");
    }
    let args =
        ["-b", "sqlite:///var/third.sqlite", "--result-backend", "disabled://", "report", "-j"];
    let rows = settings(&with_env(&app, &variables, &args));
    assert_eq!(rows["broker_url"], ("sqlite:///var/third.sqlite".into(), "--broker".into()));
    assert_eq!(rows["result_backend"], ("disabled://".into(), "--result-backend".into()));
    // What is in force is used, not only shown.
    let variables = [("QWORKER_BROKER_URL", "sqlite:///var/other.sqlite")];
    assert_eq!(with_env(&app, &variables, &["call", "greet", "--task-id", "a"]).code, 0);
    assert!(app.file("var/other.sqlite").exists() && !app.database().exists());
    assert_eq!(app.qworker(&["result", "a"]).code, 69);
    assert_eq!(with_env(&app, &variables, &["result", "a"]).code, 75);
}

#[test]
fn the_table_is_for_people() {
    let app = app();
    app.settings("worker_concurrency: 3\n");
    let output = app.qworker(&["report"]);
    assert_eq!((output.code, output.stderr.as_str()), (0, ""));
    let lines: Vec<&str> = output.stdout.lines().collect();
    assert!(
        lines[0]
            .starts_with(&format!("software -> qworker:{} sqlite:3.", env!("CARGO_PKG_VERSION")))
    );
    assert!(lines[3].ends_with(app.path().to_str().unwrap()), "{}", lines[3]);
    let row = lines.iter().find(|line| line.starts_with("worker_concurrency")).unwrap();
    assert!(row.contains(" 3 ") && row.ends_with("qworker.yaml:1"), "{row}");
}

/// A mistake is told, and the rest is reported all the same.
#[test]
fn mistakes_are_told_beside_the_rest() {
    let app = app();
    app.settings("worker_concurency: 3\ntask_time_limit: 9\n");
    let output = app.qworker(&["report"]);
    assert_eq!(output.code, 1);
    assert!(output.stdout.contains("task_time_limit"), "{output:?}");
    assert!(
        output.stderr.contains(
            "qworker.yaml:1: worker_concurency: unknown setting; did you mean worker_concurrency?"
        ),
        "{output:?}"
    );
    // Other commands do nothing on wrong settings.
    for args in [&["call", "greet"][..], &["worker"], &["list", "tasks"], &["purge", "-f"]] {
        super::refused(
            &app.qworker(args),
            2,
            &["wrong settings\n", "qworker.yaml:1", "worker_concurrency?"],
        );
    }
    let variables = [("QWORKER_WORKER_CONCURRENCY", "many")];
    app.settings("");
    super::refused(
        &with_env(&app, &variables, &["call", "greet"]),
        2,
        &["environment: QWORKER_WORKER_CONCURRENCY: found text \"many\", expected a whole number"],
    );
}

/// Where a value is of the wrong form, what was found may be the secret itself.
#[test]
fn a_secret_in_a_wrong_place_is_not_shown() {
    let commands: [&[&str]; 5] =
        [&["check"], &["report"], &["report", "--json"], &["list", "tasks"], &["worker"]];
    let hidden = |output: Output, part: &str| {
        let all = format!("{}{}", output.stdout, output.stderr).replace("\\\"", "\"");
        assert!(!all.contains("geheim") && all.contains(part), "{part}: {all}");
    };
    let no_map = "found text, expected a mapping of names to text";
    for (text, part) in [
        ("task_env: geheim", no_map),
        ("task_env: {A: geheim, B: [x]}", "task_env.B: found a list, expected text"),
        ("task_env: {A=geheim}", "task_env.A=**: "),
        ("task_env: {A: !geheim}", "found a tag"),
        ("task_env: {A: \"geheim\\0\"}", "found text with a NUL character"),
        ("broker_url: geheim", "broker_url: found text \"**\", expected a URL"),
        ("broker_transport_options: password=geheim", "found text, expected a mapping"),
        ("result_backend_transport_options: {password=geheim: 1}", "option password=**"),
        ("broker_url=redis://:geheim@h", "found text, expected a mapping of settings"),
    ] {
        let app = app();
        app.settings(&format!("{text}\n"));
        commands.iter().for_each(|command| hidden(app.qworker(command), part));
    }
    let app = app();
    let found = "found text \"**\", expected a URL";
    for command in commands {
        for option in ["-b", "--result-backend"] {
            hidden(app.qworker(&[&[option, "geheim"][..], command].concat()), found);
        }
        for address in ["redis://u:geheim@h", "redis:u:geheim@h"] {
            let part = "found an address, expected a folder; -b names the broker";
            hidden(app.qworker(&[&["-A", address][..], command].concat()), part);
        }
        hidden(with_env(&app, &[("QWORKER_TASK_ENV", "API_KEY=geheim")], command), no_map);
        hidden(with_env(&app, &[("QWORKER_BROKER_URL", "geheim")], command), found);
    }
    hidden(app.qworker(&["worker", "--", "task_env=API_KEY=geheim"]), no_map);
    let options = "broker_transport_options=password=geheim";
    hidden(app.qworker(&["worker", "--", options]), "found text, expected a mapping");
    app.write("tasks.d/more.yaml", "t: {shell: 'true', env: API_KEY=geheim}\n");
    hidden(app.qworker(&["check"]), no_map);
    app.settings("beat_schedule: {e: {task: greet, schedule: 5, kwargs: password=geheim}}\n");
    hidden(app.qworker(&["beat", "check"]), "found text, expected a mapping of names to values");
}

/// What is no text is named, wherever it stands.
#[test]
fn bytes_that_are_no_text_are_named() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let app = app();
    let bytes = OsStr::from_bytes;
    for (args, last, part) in [
        (&["worker", "--uid"][..], &b"a\xff"[..], "--uid: found bytes \"a\\xff\""),
        (&["worker"], b"--uid=a\xff", "--uid: found bytes \"a\\xff\""),
        (&["worker", "-n"], b"a\xff", "-n: found bytes \"a\\xff\""),
        (&["worker"], b"-na\xff", "-n: found bytes \"a\\xff\""),
        (&["beat", "-S"], b"a\xff", "-S: found bytes"),
        (&["beat", "-n"], b"a\xff", "-n: found bytes"),
        (&["report", "--json", "-b"], b"redis://:geheim\xff@h", "unexpected"),
        (&["call"], b"a\xff", "argument 2: found bytes \"a\\xff\""),
        (&["multi", "start", "1", "-A"], b"a\xff", "-A: found bytes \"a\\xff\""),
        (&["multi", "start"], b"a\xff", "argument 3: found bytes"),
    ] {
        let output = Output::of(app.command(args).arg(bytes(last)));
        super::refused(&output, 2, &[part]);
        assert!(!output.stderr.contains("geheim"), "{output:?}");
        assert!(part == "unexpected" || output.stderr.contains("expected text in UTF-8"));
    }
    let mut command = app.command(&["-b"]);
    let output = Output::of(command.arg(bytes(b"redis://:geheim\xff@h")).arg("status"));
    super::refused(&output, 2, &["-b: found bytes \"**\", expected text in UTF-8"]);
    for (variable, args, part) in [
        ("QWORKER_WORKER_UID", &["worker"][..], "found bytes \"sqlite:////\\xff/x.db\""),
        ("QWORKER_WORKER_HOSTNAME", &["worker"], "found bytes \"sqlite:////\\xff/x.db\""),
        ("QWORKER_CALL_QUEUE", &["call", "greet"], "found bytes"),
        ("QWORKER_TASK_ID", &["call", "greet"], "found bytes"),
        ("QWORKER_BROKER_URL", &["status"], "found bytes \"**\""),
        ("QWORKER_RESULT_EXPIRES", &["status"], "found bytes"),
    ] {
        let mut command = app.command(args);
        let output = Output::of(command.env(variable, bytes(b"sqlite:////\xff/x.db")));
        super::refused(&output, 2, &[&format!("{variable}: {part}"), "expected text in UTF-8"]);
    }
    assert!(!app.database().exists());
}

#[test]
fn paths_are_bytes() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let app = app();
    let bytes = OsStr::from_bytes;
    std::fs::write(app.path().join(bytes(b"l\xff")), "[]\n[]\n").unwrap();
    let sent = Output::of(app.command(&["call", "greet", "--from-jsonl"]).arg(bytes(b"l\xff")));
    assert_eq!((sent.code, sent.stdout.lines().count()), (0, 2), "{sent:?}");
    let mut worker = app.command(&["worker", "-l", "INFO", "-n", "w@box"]);
    worker.arg(bytes(b"-f%n\xff.log")).arg("--pidfile").arg(bytes(b"%n\xff%%.pid"));
    let mut worker = Worker::of(worker);
    let log = app.path().join(bytes(b"w\xff.log"));
    let read = || String::from_utf8(std::fs::read(&log).unwrap_or_default()).unwrap();
    eventually("its start", || read().contains("w@box ready.").then_some(()));
    let pidfile = app.path().join(bytes(b"w\xff%.pid"));
    assert_eq!(std::fs::read_to_string(&pidfile).unwrap().trim(), worker.guard().to_string());
    assert_eq!(worker.stop(Signal::SIGTERM), 0);
    app.write("schedule.yaml", "entries: {a: {task: greet, schedule: 1h}}\n");
    let mut beat = app.command(&["beat", "-l", "INFO", "-s"]);
    let mut beat = Worker::of({
        beat.arg(bytes(b"s\xff"));
        beat
    });
    beat.expect_line("beat: loaded ");
    assert_eq!(beat.stop(Signal::SIGTERM), 0);
    assert!(app.path().join(bytes(b"s\xff")).exists());
    let list = Output::of(app.command(&["beat", "list", "-s"]).arg(bytes(b"s\xff")));
    assert_eq!(list.code, 0, "{list:?}");
}

/// Whatever is printed, by whatever command: no password is in it.
#[test]
fn no_output_has_a_secret_in_it() {
    let app = app();
    app.settings(
        "task_env: {SMTP_PASSWORD: geheim, URL: 'http://me:geheim@h/', API_TOKEN: geheim}\n",
    );
    let urls = [
        "redis://me:geheim@127.0.0.1:1/0",
        "redis://:a?geheim@h/0",
        "redis://:geheim#x@h/0",
        "redis://geheim@h:port/0",
        "redis:/me:geheim@h/0",
        "redis://h/0?pwd=geheim",
        "h:6380,password=geheim",
        "amqp://me:ge/geheim@h//",
        "kafka://h/0?password=geheim",
        "sqlite://me:geheim@h/x",
    ];
    let commands: [&[&str]; 8] = [
        &["report"],
        &["report", "--json"],
        &["check"],
        &["call", "greet"],
        &["list", "queues"],
        &["status"],
        &["worker"],
        &["purge", "-f"],
    ];
    for url in urls {
        for command in commands {
            for output in [
                app.qworker(&[&["-b", url][..], command].concat()),
                app.qworker(&[&["--result-backend", url][..], command].concat()),
                with_env(&app, &[("QWORKER_BROKER_URL", url)], command),
            ] {
                let all = format!("{}{}", output.stdout, output.stderr);
                assert!(!all.contains("geheim"), "{url} {command:?}: {all}");
                // Nobody is there, or it is no store of ours; `report` shows it, the others
                // refuse it, but for those that do not ask it.
                assert!(
                    output.code != 0 || command[0] == "report" || url.starts_with("redis"),
                    "{url} {command:?}: {output:?}"
                );
            }
        }
    }
    app.settings("broker_url: 'redis://me:geheim@h/0'\nresult_backend: [geheim]\n");
    for command in commands {
        let output = app.qworker(command);
        let all = format!("{}{}", output.stdout, output.stderr);
        assert!(!all.contains("geheim"), "{command:?}: {all}");
    }
}
