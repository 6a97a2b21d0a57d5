//! One rule at every entrance: the same text means the same, or is refused, in options, in
//! variables, in files of settings, tasks and schedules, and in the lines of a batch.

use super::with_env;
use crate::harness::{Output, TestDir};
use serde_json::{Value, json};

/// What a text is read as, and whether it is one of these.
type Cases<'a> = &'a [(&'a str, bool)];

/// Reads each text at one entrance; which of them are taken.
type Entrance<'a> = (&'a str, &'a dyn Fn(&TestDir, &[&str]) -> Vec<bool>);

#[track_caller]
fn same_everywhere(cases: Cases<'_>, entrances: &[Entrance<'_>]) {
    let app = TestDir::with("t: {shell: ':'}\n");
    let texts: Vec<&str> = cases.iter().map(|(text, _)| *text).collect();
    for (name, entrance) in entrances {
        let taken = entrance(&app, &texts);
        let found: Vec<_> = texts.iter().copied().zip(taken).collect();
        assert_eq!(found, cases, "{name}");
    }
}

/// A command for each text: is it none that ends with 2?
fn each(texts: &[&str], command: impl Fn(&str) -> Output) -> Vec<bool> {
    let taken = |text: &&str| {
        let output = command(text);
        assert!(!output.stderr.contains("panicked"), "{text:?}: {output:?}");
        output.code != 2
    };
    texts.iter().map(taken).collect()
}

/// `qworker ARGS`, with each text behind the last of them, which ends in `=` or stands alone.
fn option(app: &TestDir, args: &[&str], texts: &[&str]) -> Vec<bool> {
    each(texts, |text| {
        let (last, before) = args.split_last().unwrap();
        let last = format!("{last}{text}");
        app.qworker(&[before, &[last.as_str()]].concat())
    })
}

/// `qworker ARGS` with each text as the value of this variable.
fn variable(app: &TestDir, name: &str, args: &[&str], texts: &[&str]) -> Vec<bool> {
    each(texts, |text| with_env(app, &[(name, text)], args))
}

/// A command for each text that is refused in any case: is it because of /nowhere?
fn nowhere(texts: &[&str], command: impl Fn(&str) -> Output) -> Vec<bool> {
    let taken = |text: &&str| {
        let output = command(text);
        assert_eq!((output.code, output.stdout.as_str()), (2, ""), "{text:?}: {output:?}");
        output.stderr.contains("/nowhere: no ")
    };
    texts.iter().map(taken).collect()
}

/// A worker that is told to be another program, which there is not: the last thing that is looked
/// at before it starts.
fn worker(app: &TestDir, args: &[&str], texts: &[&str]) -> Vec<bool> {
    nowhere(texts, |text| {
        let (last, before) = args.split_last().unwrap();
        let last = format!("{last}{text}");
        app.qworker(&[&["worker", "--executable", "/nowhere"], before, &[last.as_str()]].concat())
    })
}

/// Writes the line of one value.
type Line<'a> = &'a dyn Fn(usize, &str) -> String;

/// A file with a line for each text, which `command` checks: no mistake of that line is told.
fn file(
    app: &TestDir,
    name: &str,
    (head, line): (&str, Line<'_>),
    command: &[&str],
    texts: &[&str],
) -> Vec<bool> {
    let lines: Vec<String> = texts.iter().enumerate().map(|(n, text)| line(n, text)).collect();
    app.write(name, &format!("{head}\n{}\n", lines.join("\n")));
    let output = app.qworker(command);
    std::fs::remove_file(app.file(name)).unwrap();
    let told = output.stdout + &output.stderr;
    let is_told = |n: usize| {
        let place = format!("{name}:{}:", n + 2);
        told.lines().any(|line| line.contains(&place) && line.contains(" found "))
    };
    (0..texts.len()).map(|n| !is_told(n)).collect()
}

/// A text in double quotes, for JSON and YAML.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

fn tasks(app: &TestDir, key: &str, texts: &[&str]) -> Vec<bool> {
    let line = |n: usize, text: &str| format!("t{n}: {{shell: ':', {key}: {}}}", quoted(text));
    file(app, "tasks.d/more.yaml", ("# tasks", &line), &["check"], texts)
}

/// `entry` is what stands in the entry behind its schedule.
fn schedule(app: &TestDir, entry: impl Fn(&str) -> String, texts: &[&str]) -> Vec<bool> {
    let line = |n: usize, text: &str| format!("  n{n}: {{schedule: 5, {}}}", entry(&quoted(text)));
    file(app, "schedule.yaml", ("entries:", &line), &["beat", "check"], texts)
}

fn crontab(app: &TestDir, rest: impl Fn(&str) -> String, texts: &[&str]) -> Vec<bool> {
    let line = |n: usize, text: &str| format!("@daily {} name=n{n}", rest(&format!("'{text}'")));
    file(app, "s.crontab", ("# crontab", &line), &["beat", "check"], texts)
}

fn setting(app: &TestDir, form: impl Fn(&str) -> String, texts: &[&str]) -> Vec<bool> {
    each(texts, |text| {
        app.settings(&form(&quoted(text)));
        let output = app.qworker(&["list", "tasks"]);
        std::fs::remove_file(app.file("qworker.yaml")).unwrap();
        output
    })
}

fn jsonl(app: &TestDir, key: &str, texts: &[&str]) -> Vec<bool> {
    let lines: Vec<String> = texts.iter().map(|text| json!({key: text}).to_string()).collect();
    let output =
        app.qworker_with_input(&["call", "t", "--from-jsonl", "-"], &(lines.join("\n") + "\n"));
    let is_told = |n: usize| output.stderr.contains(&format!("Error: line {}: {key}: ", n + 1));
    (0..texts.len()).map(|n| !is_told(n)).collect()
}

/// Without the cases that an entrance has no way to say, or that mean something else there.
fn but<'a>(cases: Cases<'a>, left_out: impl Fn(&str) -> bool) -> Vec<(&'a str, bool)> {
    cases.iter().copied().filter(|(text, _)| !left_out(text)).collect()
}

const DURATIONS: [(&str, bool); 25] = [
    ("5", true),
    ("0", true),
    ("05", true),
    ("+5", true),
    ("0.5", true),
    (".5", true),
    (" 5", true),
    ("5 ", true),
    ("1e3", true),
    ("5m", true),
    ("+5m", true),
    ("1h 30m", true),
    ("36500d", true),
    ("", false),
    (" ", false),
    ("0x10", false),
    ("1_000", false),
    ("1 000", false),
    ("\u{661}", false),
    ("inf", false),
    ("NaN", false),
    ("1e10", false),
    ("99999999999999999999", false),
    ("36501d", false),
    ("5 minutes", false),
];

#[test]
fn durations_have_one_grammar() {
    const RESULT: [&str; 5] = ["-A", "/nowhere", "result", "nobody", "--wait"];
    let below: [(&str, bool); 2] = [("-1", false), ("-5m", false)];
    let cases: Vec<_> = DURATIONS.into_iter().chain(below).collect();
    let name = "beat_max_loop_interval";
    same_everywhere(
        &cases,
        &[
            ("health -t", &|app, texts| option(app, &["health", "--timeout="], texts)),
            ("result --timeout", &|app, texts| {
                nowhere(texts, |text| {
                    app.qworker(&[&RESULT[..], &[&format!("--timeout={text}")]].concat())
                })
            }),
            ("tasks.d", &|app, texts| tasks(app, "retry_backoff_max", texts)),
            ("schedule.yaml", &|app, texts| {
                schedule(app, |text| format!("task: t, grace: {text}"), texts)
            }),
            ("crontab", &|app, texts| crontab(app, |text| format!("t grace={text}"), texts)),
            ("qworker.yaml", &|app, texts| setting(app, |text| format!("{name}: {text}"), texts)),
        ],
    );
    same_everywhere(
        &but(&cases, str::is_empty),
        &[
            ("variable of a setting", &|app, texts| {
                variable(app, "QWORKER_BEAT_MAX_LOOP_INTERVAL", &["list", "tasks"], texts)
            }),
            ("variable of an option", &|app, texts| {
                nowhere(texts, |text| with_env(app, &[("QWORKER_RESULT_TIMEOUT", text)], &RESULT))
            }),
        ],
    );
    // And it is the same duration.
    let app = TestDir::new();
    let value = |output: Output| {
        let rows: Value = serde_json::from_str(&output.stdout).unwrap();
        rows.to_string().split(name).nth(1).unwrap().split("origin").next().unwrap().to_string()
    };
    for (text, _) in cases.iter().filter(|(_, taken)| *taken) {
        let args = ["report", "--json"];
        let by_variable = with_env(&app, &[("QWORKER_BEAT_MAX_LOOP_INTERVAL", text)], &args);
        app.settings(&format!("{name}: {}\n", quoted(text)));
        let by_file = app.qworker(&args);
        std::fs::remove_file(app.file("qworker.yaml")).unwrap();
        assert_eq!(value(by_variable).replace('"', ""), value(by_file).replace('"', ""), "{text}");
    }
}

/// What is past is due already, as in Celery; so is what is negative.
#[test]
fn countdowns_are_durations_with_a_sign() {
    let below: [(&str, bool); 4] =
        [("-1", true), ("-5m", true), ("--5", false), ("-99999999999999999999", false)];
    let cases: Vec<_> = DURATIONS.into_iter().chain(below).collect();
    same_everywhere(
        &cases,
        &[
            ("--countdown", &|app, texts| option(app, &["call", "t", "--countdown="], texts)),
            ("JSONL countdown", &|app, texts| jsonl(app, "countdown", texts)),
            ("--expires", &|app, texts| option(app, &["call", "t", "--expires="], texts)),
            ("JSONL expires", &|app, texts| jsonl(app, "expires", texts)),
            ("schedule.yaml", &|app, texts| {
                schedule(app, |text| format!("task: t, options: {{countdown: {text}}}"), texts)
            }),
            ("crontab", &|app, texts| crontab(app, |text| format!("t countdown={text}"), texts)),
        ],
    );
}

const NUMBERS: [(&str, bool); 17] = [
    ("5", true),
    ("05", true),
    ("+5", true),
    (" 5", true),
    ("5 ", true),
    ("", false),
    (" ", false),
    ("-1", false),
    ("5.0", false),
    ("5e0", false),
    ("0x5", false),
    ("0o5", false),
    ("1_0", false),
    ("\u{661}", false),
    ("inf", false),
    ("5 5", false),
    ("99999999999999999999", false),
];

#[test]
fn whole_numbers_have_one_grammar() {
    same_everywhere(
        &NUMBERS,
        &[
            ("-c", &|app, texts| worker(app, &["--concurrency="], texts)),
            ("--autoscale", &|app, texts| worker(app, &["--autoscale="], texts)),
            ("behind --", &|app, texts| worker(app, &["--", "worker_concurrency="], texts)),
            ("--priority", &|app, texts| option(app, &["call", "t", "--priority="], texts)),
            ("dead show", &|app, texts| option(app, &["dead", "show", "--", ""], texts)),
            ("dead purge", &|app, texts| option(app, &["dead", "purge", "--", ""], texts)),
            ("beat next", &|app, texts| {
                app.write("s.crontab", "@daily t name=a\n");
                let taken = option(app, &["beat", "next", "a", "--count="], texts);
                std::fs::remove_file(app.file("s.crontab")).unwrap();
                taken
            }),
            ("crontab", &|app, texts| crontab(app, |text| format!("t priority={text}"), texts)),
            ("misfire", &|app, texts| {
                let line = |text: &str| {
                    let text = text.trim_matches('\'');
                    format!("t misfire='run_all({text})'")
                };
                crontab(app, line, texts)
            }),
        ],
    );
    let variables =
        ["QWORKER_WORKER_CONCURRENCY", "QWORKER_TASK_DEFAULT_PRIORITY", "QWORKER_CALL_PRIORITY"];
    for name in variables {
        same_everywhere(
            &but(&NUMBERS, str::is_empty),
            &[(name, &|app, texts| variable(app, name, &["call", "t"], texts))],
        );
    }
    // In quotes a number is text, as in YAML; without them it is what YAML takes it for.
    let app = TestDir::with("t: {shell: ':', priority: 0x5}\n");
    app.settings("task_max_deliveries: 0x10\nworker_log_backups: 0o7\n");
    assert_eq!(app.qworker(&["check"]).code, 0);
    let taken = jsonl(&app, "priority", &["5"]);
    assert_eq!((taken, tasks(&app, "priority", &["5"])), (vec![false], vec![false]));
}

/// How many tasks run at once can be left to the worker wherever it is said.
#[test]
fn auto_is_a_number_of_slots_everywhere() {
    let cases = [("auto", true), ("null", true), ("3", true), ("Auto", false), ("all", false)];
    same_everywhere(
        &cases,
        &[
            ("-c", &|app, texts| worker(app, &["-c"], texts)),
            ("behind --", &|app, texts| worker(app, &["--", "worker.concurrency="], texts)),
            ("variable", &|app, texts| {
                variable(app, "QWORKER_WORKER_CONCURRENCY", &["list", "tasks"], texts)
            }),
        ],
    );
    let app = TestDir::new();
    for (text, code) in [("auto", 0), ("'auto'", 0), ("null", 0), ("4", 0), ("many", 2)] {
        app.settings(&format!("worker_concurrency: {text}\n"));
        assert_eq!(app.qworker(&["list", "tasks"]).code, code, "{text}");
    }
}

#[test]
fn a_queue_has_a_name_that_a_list_of_queues_can_have() {
    let cases = [
        ("zz", true),
        ("z-z.z", true),
        ("z%z", true),
        ("z=z", true),
        ("-z", true),
        ("\u{e9}", true),
        ("", false),
        (" ", false),
        (" zz", false),
        ("zz ", false),
        ("z z", false),
        ("a,b", false),
        (",", false),
        ("a\tb", false),
        ("a\u{1b}b", false),
        ("a\u{a0}b", false),
    ];
    same_everywhere(
        &cases,
        &[
            ("--queue", &|app, texts| option(app, &["call", "t", "--queue="], texts)),
            ("JSONL", &|app, texts| jsonl(app, "queue", texts)),
            ("tasks.d", &|app, texts| tasks(app, "queue", texts)),
            ("schedule.yaml", &|app, texts| {
                schedule(app, |text| format!("task: t, options: {{queue: {text}}}"), texts)
            }),
            ("crontab", &|app, texts| crontab(app, |text| format!("t queue={text}"), texts)),
            ("qworker.yaml", &|app, texts| {
                setting(app, |text| format!("task_default_queue: {text}"), texts)
            }),
            ("task_routes", &|app, texts| {
                setting(app, |text| format!("task_routes: {{a: {text}}}"), texts)
            }),
            ("queue in task_routes", &|app, texts| {
                setting(app, |text| format!("task_routes: {{a: {{queue: {text}}}}}"), texts)
            }),
        ],
    );
    for name in ["QWORKER_TASK_DEFAULT_QUEUE", "QWORKER_CALL_QUEUE"] {
        same_everywhere(
            &but(&cases, str::is_empty),
            &[(name, &|app, texts| variable(app, name, &["call", "t"], texts))],
        );
    }
    // A list has blanks around its names, and commas between them.
    let app = TestDir::new();
    for (text, code) in [("a, b ,c", 0), (" a", 0), ("-a", 0), ("a b", 2), ("a,,b", 2), ("", 2)] {
        let output = app.qworker(&["purge", "-f", &format!("--queues={text}")]);
        assert_eq!(output.code, code, "{text:?}: {output:?}");
    }
    let said = app.qworker(&["call", "t", "--queue", "a,b"]).stderr;
    assert!(said.contains("'a,b'") && said.contains("commas, which stand between"), "{said}");
}

#[test]
fn names_and_ids_of_tasks_are_those_of_celerys_clients() {
    let cases = [
        ("t", true),
        ("a.b", true),
        ("my task", true),
        ("\u{e9}\u{4efb}", true),
        ("5", true),
        ("", false),
        (" ", false),
        (" a", false),
        ("a ", false),
        ("a\tb", false),
        ("a\nb", false),
        ("\u{1b}[2J", false),
        ("a\u{7f}", false),
    ];
    same_everywhere(
        &cases,
        &[
            ("call", &|app, texts| option(app, &["call", "--unregistered", ""], texts)),
            ("call --from-jsonl", &|app, texts| {
                option(app, &["call", "--unregistered", "--from-jsonl=/dev/null", ""], texts)
            }),
            ("schedule.yaml", &|app, texts| schedule(app, |text| format!("task: {text}"), texts)),
            ("--task-id", &|app, texts| option(app, &["call", "t", "--task-id="], texts)),
            ("JSONL id", &|app, texts| jsonl(app, "id", texts)),
            ("result", &|app, texts| option(app, &["result", ""], texts)),
        ],
    );
    // A line ends where it ends; and a number alone is a field of time.
    same_everywhere(
        &but(&cases, |text| text.contains('\n') || text == "5"),
        &[("crontab", &|app, texts| crontab(app, str::to_string, texts))],
    );
    same_everywhere(
        &but(&cases, str::is_empty),
        &[("variable", &|app, texts| variable(app, "QWORKER_CALL_TASK_ID", &["call", "t"], texts))],
    );
}

/// Nothing has a name here that it could not have there.
#[test]
fn a_node_has_a_name_that_multi_can_say() {
    let cases = [
        ("w1@h", true),
        ("w-1@h.lan", true),
        ("w%%1@h", true),
        ("\u{e9}@h", true),
        ("w 1@h", false),
        ("w1@h ", false),
        ("w1@h\n", false),
        ("w1\u{1b}@h", false),
        ("w,1@h", false),
        ("w=1@h", false),
        ("@h", false),
    ];
    same_everywhere(
        &cases,
        &[
            ("worker", &|app, texts| worker(app, &["--hostname="], texts)),
            ("health", &|app, texts| option(app, &["health", "--hostname="], texts)),
            ("multi", &|app, texts| option(app, &["multi", "names", ""], texts)),
        ],
    );
    let app = TestDir::new();
    assert_eq!(app.qworker(&["health", "--hostname=-w@h"]).code, 2);
}

/// A variable that is empty is one that is not set; an option without its value is a mistake.
#[test]
fn what_is_empty_says_nothing() {
    let app = TestDir::with("t: {shell: ':'}\n");
    for args in [
        &["worker", "-c", ""][..],
        &["worker", "--concurrency="],
        &["worker", "--time-limit", ""],
        &["worker", "--soft-shutdown-timeout="],
        &["worker", "-n", ""],
        &["worker", "--logfile="],
        &["worker", "--loglevel="],
        &["worker", "--uid="],
        &["worker", "--", "worker_concurrency="],
        &["worker", "-B", "--schedule="],
        &["-b", "", "call", "t"],
        &["--result-backend=", "call", "t"],
        &["--app=", "call", "t"],
        &["call", "t", "--eta="],
        &["call", "t", "--expires="],
        &["call", "t", "--args="],
        &["call", "t", "--from-jsonl="],
        &["beat", "--max-interval="],
        &["beat", "next", "a", "-n", ""],
        &["health", "-n", ""],
        &["health", "-t", ""],
        &["purge", "-Q", ""],
    ] {
        let output = app.qworker(args);
        let is_told = output.stderr.contains("found nothing, expected ")
            || output.stderr.contains("invalid value '' for ")
            || output.stderr.contains("but none was supplied")
            || output.stderr.contains("found nothing after the =");
        assert!(output.code == 2 && output.stdout.is_empty() && is_told, "{args:?}: {output:?}");
    }
    let names = "APP WORKDIR QUIET CALL_ARGS CALL_COUNTDOWN CALL_ETA CALL_EXPIRES CALL_QUEUE \
                     CALL_PRIORITY CALL_TASK_ID CALL_WAIT CALL_FROM_JSONL TASK_ID \
                     WORKER_CONCURRENCY TASK_TIME_LIMIT TASK_ENV BROKER BROKER_URL";
    let mut command = app.command(&["call", "t"]);
    command.envs(names.split_whitespace().map(|name| (format!("QWORKER_{name}"), "")));
    let output = Output::of(&mut command);
    assert_eq!((output.code, output.stderr.as_str()), (0, ""), "{output:?}");
    let flags = ["1", "yes", "On", "TRUE", "y", "t"].map(|text| (text, true));
    for (text, taken) in flags.into_iter().chain([("2", false), ("sure", false), (" ", false)]) {
        for name in ["QWORKER_QUIET", "QWORKER_TASK_IGNORE_RESULT"] {
            let output = with_env(&app, &[(name, text)], &["call", "t"]);
            assert_eq!(output.code, if taken { 0 } else { 2 }, "{name}={text}: {output:?}");
        }
    }
}
