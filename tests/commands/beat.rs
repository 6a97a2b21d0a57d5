//! `qworker beat` and its commands: what is sent, what is listed, what can be changed.

use super::{TASKS, json, refused};
use crate::harness::{Place, TestDir, eventually, in_every_place};
use nix::sys::signal::Signal;
use serde_json::Value;

in_every_place! {
    tasks_are_sent_and_run
    a_worker_has_a_beat_in_it
    an_entry_is_paused_and_resumed
    an_entry_is_sent_by_hand
    files_are_read_again
    what_cannot_be_seen_stays
    two_beats_send_once
    the_state_is_in_a_file
    what_overlaps_is_left_out
}

const QUICK: &str = "entries:\n  quick: {task: add, schedule: 0.2, args: [2, 3]}\n  \
                     rare: {task: greet, schedule: {crontab: '0 4 1 1 *'}, kwargs: {name: you}}\n";

/// What waits in a queue, by the file of the broker or the list.
fn waiting(app: &TestDir, queue: &str) -> u64 {
    let queues = json(&app.must(&["list", "queues", "--json"]));
    let of = |queues: &Value| queues.as_array()?.iter().find(|q| q["name"] == queue).cloned();
    of(&queues).map_or(0, |q| q["ready"].as_u64().unwrap())
}

fn listed(app: &TestDir, name: &str) -> Value {
    json(&app.must(&["beat", "list", name, "--json"]))[0].clone()
}

fn tasks_are_sent_and_run(place: Place) {
    let app = place.app(TASKS);
    app.write("schedule.yaml", QUICK);
    let mut beat = app.beat(&[]);
    beat.expect_line("Scheduler: Sending due task quick (add)");
    let worker = app.worker(&["-l", "INFO"]);
    worker.expect_line("succeeded in");
    eventually("three runs", || {
        (listed(&app, "quick")["total_run_count"].as_u64()? > 2).then_some(())
    });
    let quick = listed(&app, "quick");
    assert_eq!((&quick["state"], &quick["task"]), (&"on".into(), &"add".into()));
    let id = quick["last_task_id"].as_str().unwrap();
    assert_eq!(app.must(&["result", id, "--wait"]), "5");
    let rare = listed(&app, "rare");
    assert_eq!((&rare["total_run_count"], &rare["last_run_at"]), (&0.into(), &Value::Null));
    assert!(rare["next_run_at"].as_str().unwrap().ends_with("-01-01T04:00:00Z"));
    let table = app.must(&["beat", "list"]);
    assert!(table.starts_with("Entry") && table.lines().count() == 3, "{table}");
    assert_eq!(beat.stop(Signal::SIGTERM), 0);
    assert!(beat.log().contains("beat: Shutting down..."));
    for part in [
        "qworker beat v",
        "LocalTime -> 2",
        ". broker -> ",
        ". scheduler -> broker",
        ". maxinterval -> (1s)",
    ] {
        beat.expect_banner(part);
    }
}

fn a_worker_has_a_beat_in_it(place: Place) {
    let app = place.app(TASKS);
    app.write("schedule.yaml", QUICK);
    let mut worker = app.worker(&["-B", "-l", "INFO"]);
    worker.expect_line("Scheduler: Sending due task quick (add)");
    worker.expect_line("succeeded in");
    assert_eq!(worker.stop(Signal::SIGTERM), 0);
    refused(&app.qworker(&["worker", "-s", "x"]), 2, &["--beat"]);
}

fn an_entry_is_paused_and_resumed(place: Place) {
    let app = place.app(TASKS);
    app.write("schedule.yaml", QUICK);
    let beat = app.beat(&[]);
    beat.expect_line("Sending due task quick");
    assert_eq!(app.must(&["beat", "pause", "quick", "rare"]), "quick: paused\nrare: paused");
    let before = listed(&app, "quick");
    assert_eq!(before["state"], "paused");
    // Whoever comes later knows it too; three periods go by.
    let later = app.beat(&[]);
    let marker = "entries:\n  marker: {task: add, schedule: 0.7, args: [1, 1]}\n";
    app.write("more.yaml", marker);
    let other = app.beat(&["--entries", "more.yaml", "-s", "other.sqlite"]);
    other.expect_line("Sending due task marker");
    let count = &listed(&app, "quick")["total_run_count"];
    assert_eq!(count, &before["total_run_count"]);
    assert!(!later.log().contains("quick"), "{}", later.log());
    assert_eq!(app.must(&["beat", "resume", "quick"]), "quick: on");
    eventually("the next run", || {
        (listed(&app, "quick")["total_run_count"] != before["total_run_count"]).then_some(())
    });
    assert!(!format!("{}{}", beat.log(), later.log()).contains("missed"));
    assert_eq!(listed(&app, "rare")["state"], "paused");
    let error = app.qworker(&["beat", "pause", "quik"]);
    refused(&error, 2, &["no entry \"quik\"", "did you mean quick?"]);
}

fn an_entry_is_sent_by_hand(place: Place) {
    let app = place.app(TASKS);
    app.write("schedule.yaml", QUICK);
    let _worker = app.worker(&[]);
    let id = app.must(&["beat", "run", "rare"]);
    assert_eq!(app.must(&["result", &id, "--wait"]), "Hello, you!");
    let sent = json(&app.must(&["beat", "run", "rare", "--json"]));
    assert_eq!((&sent["name"], &sent["task"]), (&"rare".into(), &"greet".into()));
    let rare = listed(&app, "rare");
    assert_eq!((&rare["total_run_count"], &rare["last_task_id"]), (&2.into(), &sent["id"]));
    // It is due when it was.
    assert!(rare["next_run_at"].as_str().unwrap().ends_with("-01-01T04:00:00Z"));
}

fn files_are_read_again(place: Place) {
    let app = place.app(TASKS);
    app.write("schedule.yaml", QUICK);
    let beat = app.beat(&[]);
    beat.expect_line("Sending due task quick");
    // A new file, found by itself.
    app.write("more.crontab", "@every 0.3s add 1 1 name=newcomer\n");
    beat.expect_line("Sending due task newcomer");
    // One with a mistake: all goes on, and it is said what and where.
    app.write("more.crontab", "@every 0.3s add 1 1 name=newcomer\n0 25 * * * add 1 1\n");
    beat.signal(Signal::SIGHUP);
    let said = beat.expect_line("more.crontab:2");
    assert!(said.contains("25") && said.contains("hour"), "{said}");
    beat.expect_line("its entries stay as they were");
    let before = listed(&app, "quick")["total_run_count"].as_u64().unwrap();
    eventually("more runs", || {
        (listed(&app, "quick")["total_run_count"].as_u64()? > before + 3).then_some(())
    });
    // Removed.
    std::fs::remove_file(app.file("more.crontab")).unwrap();
    beat.signal(Signal::SIGHUP);
    eventually("one entry less", || beat.log().matches("loaded 2 entries").nth(1).map(drop));
    assert!(!beat.log().contains("missed"), "{}", beat.log());
}

/// What the host does not show is not gone.
fn what_cannot_be_seen_stays(place: Place) {
    let app = place.app(TASKS);
    app.write("schedule.yaml", QUICK);
    let beat = app.beat(&[]);
    beat.expect_line("Sending due task quick");
    std::fs::rename(app.file("tasks.d"), app.file("away")).unwrap();
    app.write("tasks.d", "no folder");
    beat.signal(Signal::SIGHUP);
    let said = beat.expect_line("all entries stay unchanged");
    assert!(said.contains("tasks.d: cannot be read: Not a directory"), "{said}");
    let runs = || listed(&app, "quick")["total_run_count"].as_u64();
    let before = runs().unwrap();
    eventually("more runs", || (runs()? > before + 3).then_some(()));
    // Nor does anybody go on as if there were no tasks.
    for command in [&["call", "add", "--args", "[1, 2]"][..], &["worker"], &["list", "tasks"]] {
        refused(&app.qworker(command), 1, &["tasks.d: cannot be read: Not a directory"]);
    }
    std::fs::remove_file(app.file("tasks.d")).unwrap();
    std::fs::rename(app.file("away"), app.file("tasks.d")).unwrap();
    beat.signal(Signal::SIGHUP);
    beat.expect_line("the schedule can be read again");
    assert!(!beat.log().contains("loaded 0 entries"), "{}", beat.log());
}

/// Both spellings of a name, and a file that cron itself would have named so.
#[test]
fn files_have_the_names_that_people_give_them() {
    let app = TestDir::with(TASKS);
    app.write("schedule.yml", QUICK).write("crontab", "@daily greet you\n");
    app.write("qworker.yml", "task_default_queue: other\n");
    let names = app.must(&["beat", "list", "--json"]);
    assert_eq!(json(&names).as_array().unwrap().len(), 3, "{names}");
    assert!(app.must(&["report"]).contains("qworker.yml:1"));
    app.write("schedule.yaml", QUICK);
    let said = "schedule.yml: is not read, for there is a schedule.yaml too, expected one of them";
    let output = app.qworker(&["beat", "check"]);
    assert!(output.code == 1 && output.stdout.contains(said), "{output:?}");
    app.write("qworker.yaml", "");
    refused(&app.qworker(&["report"]), 2, &["qworker.yaml and qworker.yml, expected one of them"]);
}

fn two_beats_send_once(place: Place) {
    let app = place.app(TASKS);
    app.write("schedule.yaml", QUICK);
    let beats = [app.beat(&[]), app.beat(&[]), app.beat(&[])];
    eventually("ten runs", || {
        (listed(&app, "quick")["total_run_count"].as_u64()? > 9).then_some(())
    });
    drop(beats);
    let sent = listed(&app, "quick")["total_run_count"].as_u64().unwrap();
    assert_eq!(waiting(&app, "celery"), sent);
}

fn the_state_is_in_a_file(place: Place) {
    let app = place.app(TASKS);
    app.write("schedule.yaml", QUICK);
    let mut beat = app.beat(&["-s", "state.sqlite"]);
    beat.expect_line("Sending due task quick");
    beat.expect_banner("state.sqlite");
    assert_eq!(beat.stop(Signal::SIGINT), 0);
    let known = json(&app.must(&["beat", "list", "quick", "-s", "state.sqlite", "--json"]));
    let sent = known[0]["total_run_count"].as_u64().unwrap();
    assert_eq!(waiting(&app, "celery"), sent);
    // Nobody else knows of it.
    assert_eq!(listed(&app, "quick")["state"], "new");
    // It alone has all: its log is empty.
    assert_eq!(std::fs::metadata(app.file("state.sqlite-wal")).map_or(0, |log| log.len()), 0);
    std::fs::copy(app.file("state.sqlite"), app.file("copy.sqlite")).unwrap();
    let copied = json(&app.must(&["beat", "list", "quick", "-s", "copy.sqlite", "--json"]));
    assert_eq!(copied, known);
    // Damaged, it is set aside by a beat, and by nobody else.
    let damaged = std::fs::OpenOptions::new().write(true).open(app.file("state.sqlite")).unwrap();
    damaged.set_len(9000).unwrap();
    for words in [&["beat", "list"][..], &["beat", "next", "quick"]] {
        let output = app.qworker(&[words, &["-s", "state.sqlite"]].concat());
        refused(&output, 1, &["state.sqlite is damaged ("]);
    }
    assert_eq!(std::fs::metadata(app.file("state.sqlite")).unwrap().len(), 9000);
    let beat = app.beat(&["-s", "state.sqlite"]);
    beat.expect_line("Sending due task quick");
    assert_eq!(beat.log().matches("WARNING").count(), 1, "{}", beat.log());
    assert!(beat.log().contains("state.sqlite.damaged-"), "{}", beat.log());
}

#[test]
fn a_worker_leaves_all_in_the_file_of_its_beat() {
    let app = TestDir::with(TASKS);
    app.write("schedule.yaml", QUICK);
    let mut worker = app.worker(&["-B", "-s", "state.sqlite", "-l", "INFO"]);
    worker.expect_line("Scheduler: Sending due task quick (add)");
    assert_eq!(worker.stop(Signal::SIGTERM), 0);
    let list = |file: &str| app.must(&["beat", "list", "quick", "-s", file, "--json"]);
    let known = json(&list("state.sqlite"));
    assert!(known[0]["total_run_count"].as_u64().unwrap() > 0);
    std::fs::copy(app.file("state.sqlite"), app.file("copy.sqlite")).unwrap();
    assert_eq!(json(&list("copy.sqlite")), known);
}

#[test]
fn a_file_of_somebody_else_is_no_place_for_the_state() {
    let app = TestDir::with(TASKS);
    app.write("schedule.yaml", QUICK);
    app.must(&["call", "add", "--args", "[1, 2]"]);
    let people = rusqlite::Connection::open(app.file("people.db")).unwrap();
    people.execute_batch("CREATE TABLE people (name)").unwrap();
    drop(people);
    app.write("magic", "SQLite format 3\0").write("folder/kept", "");
    let broker = app.database().display().to_string();
    let cases = [
        ("people.db", "(with the table people)"),
        ("folder", "a folder"),
        ("magic", "a damaged SQLite database"),
        (broker.as_str(), "another program's SQLite database"),
    ];
    for (file, what) in cases {
        let before = std::fs::read(app.file(file)).ok();
        let commands: [&[&str]; 6] = [
            &["beat"],
            &["worker", "-B"],
            &["beat", "list"],
            &["beat", "next", "quick"],
            &["beat", "pause", "quick"],
            &["beat", "run", "quick"],
        ];
        for words in commands {
            let output = app.qworker(&[words, &["-s", file]].concat());
            refused(&output, 2, &[file, what, "expected no file, or one of a beat"]);
        }
        let after = std::fs::read(app.file(file)).ok();
        // Who opens the broker may move its own log.
        assert!(file == broker || after == before, "{file}");
    }
    assert!(app.file("folder/kept").exists());
    let names = std::fs::read_dir(app.path()).unwrap();
    let mut names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(!names.any(|name| name.contains("damaged") || name.starts_with("people.db-")));
}

/// A link to nowhere, where no file can be made.
#[test]
fn where_there_can_be_no_file_for_the_state_nothing_starts() {
    let app = TestDir::with(TASKS);
    app.write("schedule.yaml", QUICK);
    std::os::unix::fs::symlink("nowhere/x.sqlite", app.file("state.sqlite")).unwrap();
    let why = "beat cannot keep its state in a file: ";
    for words in [&["beat"][..], &["worker", "-B"], &["beat", "pause", "quick"]] {
        let output = app.qworker(&[words, &["-s", "state.sqlite"]].concat());
        refused(&output, 1, &[why, "state.sqlite: No such file or directory"]);
    }
}

fn what_overlaps_is_left_out(place: Place) {
    let app = place.app("slow:\n  shell: 'while [ ! -e go ]; do sleep 0.02; done'\n");
    let schedule = "entries:\n  skips: {task: slow, schedule: 0.2, overlap: skip}\n  \
                    queues: {task: slow, schedule: 0.2, overlap: queue}\n";
    app.write("schedule.yaml", schedule);
    let beat = app.beat(&[]);
    beat.expect_line("is skipped: the previous task is not done");
    let worker = app.worker(&["-c", "4", "-l", "INFO"]);
    eventually("both run", || worker.log().matches("received").nth(1).map(drop));
    for _ in 0..3 {
        let known = [listed(&app, "skips"), listed(&app, "queues")];
        assert!(known.iter().all(|entry| entry["total_run_count"] == 1), "{known:?}");
    }
    app.write("go", "");
    eventually("more of both", || {
        let count = |name| listed(&app, name)["total_run_count"].as_u64();
        (count("skips")? > 2 && count("queues")? > 2).then_some(())
    });
}

#[test]
fn next_runs_are_told() {
    let app = TestDir::with(TASKS);
    app.write(
        "schedule.yaml",
        "timezone: Europe/Oslo\nentries:\n  yearly: {task: add, schedule: {crontab: '0 4 1 1 *'}}\n  \
         never: {task: add, schedule: 5.0, until: '2020-01-01T00:00:00Z'}\n",
    );
    let runs = app.must(&["beat", "next", "yearly", "-n", "3"]);
    let lines: Vec<&str> = runs.lines().collect();
    assert_eq!(lines.len(), 3);
    assert!(lines.iter().all(|line| line.contains("-01-01 04:00:00 CET  2")), "{runs}");
    assert!(lines.iter().all(|line| line.ends_with("-01-01T03:00:00Z")), "{runs}");
    let runs = json(&app.must(&["beat", "next", "yearly", "-n", "2", "--json"]));
    assert_eq!(runs.as_array().unwrap().len(), 2);
    assert!(runs[0]["occurrence"].as_str().unwrap().starts_with("yearly@2"));
    let never = app.qworker(&["beat", "next", "never"]);
    assert_eq!((never.code, never.stdout.as_str()), (0, ""));
    assert!(never.stderr.contains("no run after that"));
}

#[test]
fn a_day_is_simulated() {
    let app = TestDir::with(TASKS);
    app.write(
        "day.crontab",
        "CRON_TZ=Europe/Oslo\n30 2 * * * greet name=night\n0 */6 * * * add [1, 2] name=often\n",
    );
    // The night on which clocks are put forward: there is no half past two.
    let span = ["--from", "2026-03-28T23:30:00Z", "--to", "2026-03-29T11:00:00Z"];
    let text = app.must(&[&["beat", "simulate"], &span[..]].concat());
    assert_eq!(
        text.lines().collect::<Vec<_>>(),
        [
            "2026-03-29T01:00:00Z  2026-03-29 03:00:00 CEST  night  greet[]",
            "2026-03-29T04:00:00Z  2026-03-29 06:00:00 CEST  often  add[1, 2]",
            "2026-03-29T10:00:00Z  2026-03-29 12:00:00 CEST  often  add[1, 2]",
        ]
    );
    let lines = app.must(&[&["beat", "simulate", "night", "--json"], &span[..]].concat());
    let night = json(&lines);
    assert_eq!(night["occurrence"], "night@2026-03-29T01:00:00Z");
    refused(&app.qworker(&["beat", "simulate", "--from", "noon"]), 2, &["ISO 8601"]);
}

#[test]
fn a_schedule_is_checked() {
    let app = TestDir::with(TASKS);
    app.write("schedule.yaml", QUICK);
    assert_eq!(app.must(&["beat", "check"]), "No error in 2 entries.");
    app.write("wrong.yaml", "entries:\n  a: {task: add, schedule: {crontab: '61 * * * *'}}\n  b: {task: add, schedule: 5, args: [1]}\n  c: {task: elsewhere, schedule: 5}\n");
    let output = app.qworker(&["beat", "check", "wrong.yaml"]);
    assert_eq!(output.code, 1, "{output:?}");
    let lines: Vec<&str> = output.stdout.lines().collect();
    assert_eq!(lines.len(), 2, "{output:?}");
    assert!(lines[0].contains("wrong.yaml:2") && lines[0].contains("minute"), "{lines:?}");
    assert!(lines[1].contains("wrong.yaml:3") && lines[1].contains("'b'"), "{lines:?}");
    assert!(output.stderr.contains("no task \"elsewhere\" in tasks.d"), "{output:?}");
    assert_eq!(app.qworker(&["beat", "check", "--entries", "wrong.yaml"]), output);
    for args in [&["beat"][..], &["worker", "-B"], &["beat", "list"], &["beat", "next", "a"]] {
        for (file, why) in [("nope.yaml", "No such file"), ("tasks.d", "found a folder")] {
            let told = format!("Error: --entries {file}: {why}");
            refused(&app.qworker(&[args, &["--entries", file]].concat()), 2, &[&told]);
        }
    }
    let all = json(&app.qworker(&["beat", "check", "wrong.yaml", "--json"]).stdout);
    assert_eq!((all["entries"].as_u64(), all["errors"][0]["line"].as_u64()), (Some(2), Some(2)));
}

#[test]
fn it_detaches_and_has_a_pidfile() {
    let app = TestDir::with(TASKS);
    app.write("schedule.yaml", QUICK);
    let words = ["beat", "--detach", "--pidfile", "b.pid", "-f", "b.log", "-l", "INFO"];
    assert_eq!(app.must(&words), "");
    let pid: i32 = app.read("b.pid").trim().parse().unwrap();
    let again = app.qworker(&words);
    refused(&again, 73, &["Pidfile", "already exists.", &format!("(pid: {pid})")]);
    eventually("a sending", || app.read("b.log").contains("Sending due task quick").then_some(()));
    crate::harness::process::send(pid, Signal::SIGTERM);
    eventually("its end", || (!app.file("b.pid").exists()).then_some(()));
    let missing = app.qworker(&["beat", "-f", "no/such/folder.log"]);
    refused(&missing, 2, &["there is no folder"]);
    refused(&app.qworker(&["beat", "-S", "django"]), 2, &["expected broker or file"]);
    refused(&app.qworker(&["beat", "--max-interval", "-1"]), 2, &["--max-interval"]);
}
