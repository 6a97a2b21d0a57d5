//! Celery's canvas, tasks and results, case by case (`tests/cases.py`): the same in a fleet of Python's
//! workers, in one of ours, and in a mixture. And random canvases (`tests/canvas.py`).

use crate::harness::python::python;
use crate::harness::{Output, Place, TestDir, Worker, eventually};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

const QWORKER: &str = env!("CARGO_BIN_EXE_qworker");

fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

/// `python SCRIPT ARGS` with what the cases import, not started yet.
fn script(words: &[&str]) -> Command {
    let mut command = Command::new(python());
    command.args(words).env("PYTHONPATH", tests()).env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

/// What `tests/cases.py` tells of itself: the cases, and what is to differ.
fn listed() -> Value {
    let path = tests().join("cases.py").display().to_string();
    let output = Output::of(&mut script(&[&path]));
    assert_eq!(output.code, 0, "{}", output.stderr);
    serde_json::from_str(&output.stdout).unwrap()
}

/// Those who run the tasks, in an application of their own.
struct Fleet {
    name: &'static str,
    app: TestDir,
    _ours: Option<Worker>,
    python: Option<Child>,
}

impl Drop for Fleet {
    fn drop(&mut self) {
        if let Some(python) = &mut self.python {
            // Its processes end with it.
            let _ = nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(python.id() as i32),
                nix::sys::signal::Signal::SIGQUIT,
            );
            let _ = python.wait();
        }
    }
}

impl Fleet {
    fn start(place: Place, name: &'static str) -> Fleet {
        let tasks = std::fs::read_to_string(tests().join("cases/tasks.yaml")).unwrap();
        let app = place.app(&tasks);
        for folder in ["notes", "gates", "var"] {
            std::fs::create_dir_all(app.file(folder)).unwrap();
        }
        let clients = Path::new(env!("CARGO_MANIFEST_DIR")).join("etc/clients");
        let ours = format!(
            "{} -I -S {} {}",
            python().display(),
            tests().join("cases/ours.py").display(),
            clients.display()
        );
        let settings = json!({
            "task_default_queue": "ours", "task_track_started": true, "result_extended": true,
            "task_env": {"QW": QWORKER, "OURS": ours},
        });
        app.settings(&settings.to_string());
        let worker = (name != "python").then(|| app.worker(&["-c", "8", "-n", "worker@cases"]));
        let python = (name != "ours").then(|| {
            let [broker, backend] = app.celery_addresses();
            let log = std::fs::File::create(app.file("python.log")).unwrap();
            script(&["-m", "cases.worker", &broker, &backend, name, "-c", "6"])
                .current_dir(app.path())
                .env("C_FORCE_ROOT", "1")
                .stdout(Stdio::null())
                .stderr(log)
                .spawn()
                .unwrap()
        });
        Fleet { name, app, _ours: worker, python }
    }

    /// What came of each case.
    fn run(&self) -> BTreeMap<String, Value> {
        if self.python.is_some() {
            let log = || self.app.read("python.log").contains(" ready.").then_some(());
            eventually("a Python worker", log);
        }
        let [broker, backend] = self.app.celery_addresses();
        let path = tests().join("cases.py").display().to_string();
        let mut command = script(&[&path, &broker, &backend, self.name]);
        let output = Output::of(command.current_dir(self.app.path()));
        assert_eq!(output.code, 0, "{}", output.stderr);
        serde_json::from_str(output.stdout.lines().last().unwrap()).unwrap()
    }
}

/// What came of the cases in a fleet with its results in `place`.
fn outcomes(place: Place, name: &'static str) -> std::thread::JoinHandle<BTreeMap<String, Value>> {
    std::thread::spawn(move || Fleet::start(place, name).run())
}

/// Where results are in SQLite, ours are compared with those of Python's workers on Redis, for they poll.
#[test]
fn cases_come_to_the_same_in_all_fleets() {
    let listed = listed();
    let differences = listed["differences"].as_object().unwrap();
    let fleets = [
        outcomes(Place::Redis, "python"),
        outcomes(Place::Redis, "ours"),
        outcomes(Place::Redis, "mixed"),
        outcomes(Place::File, "ours"),
    ];
    let [python, ours, mixed, in_file] = fleets.map(|fleet| fleet.join().unwrap());
    let mut faults = Vec::new();
    let others = [("ours", &ours), ("mixed", &mixed), ("ours in a file", &in_file)];
    for (fleet, found) in std::iter::once(("python", &python)).chain(others) {
        for (name, outcome) in found {
            let is_whole = outcome.get("outcome").is_some() && outcome.get("unexpected").is_none();
            if !is_whole && !differences.contains_key(name) {
                faults.push(format!("{name}: {fleet}: {outcome}"));
            }
        }
    }
    for (name, expected) in &python {
        let is_listed = differences.contains_key(name);
        for (fleet, found) in others {
            let Some(found) = found.get(name) else { continue };
            // What is listed differs; in a mixture it may.
            let is_right = match (fleet, is_listed) {
                ("mixed", true) => true,
                _ => (found != expected) == is_listed,
            };
            if !is_right {
                faults.push(format!("{name}: python: {expected}\n  {fleet}: {found}"));
            }
        }
    }
    let why = "Outcomes are the same in all fleets, or tests/cases/differences.py has the reason.";
    assert!(faults.is_empty(), "{}\n\n{why}", faults.join("\n"));
    assert!(ours.len() >= python.len() && python.len() > 200, "{}", python.len());
}

/// The table of the README: groups of cases, how many, and what differs.
#[test]
fn the_readme_has_the_table_of_cases() {
    let listed = listed();
    let differences = listed["differences"].as_object().unwrap();
    let mut table = String::from("| cases | how many | what differs here |\n| --- | --- | --- |\n");
    let mut known = BTreeSet::new();
    for (group, names) in listed["groups"].as_object().unwrap() {
        let names: Vec<&str> =
            names.as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect();
        known.extend(names.iter().map(|name| name.to_string()));
        let reasons: Vec<&str> =
            names.iter().filter_map(|name| differences.get(*name)?.as_str()).collect();
        let mut once: Vec<&str> = Vec::new();
        for reason in reasons {
            if !once.contains(&reason) {
                once.push(reason);
            }
        }
        table.push_str(&format!("| {group} | {} | {} |\n", names.len(), once.join("; ")));
    }
    for name in differences.keys() {
        assert!(known.contains(name), "differences.py: {name}: no such case");
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let head = "| cases | how many | what differs here |\n";
    let (before, rest) = text.split_once(head).expect("README.md has the table of cases");
    let after = rest.split_once("\n\n").unwrap().1;
    let right = format!("{before}{table}\n{after}");
    if std::env::var_os("QWORKER_UPDATE").is_some() {
        std::fs::write(&path, right).unwrap();
    } else {
        assert!(text == right, "README.md: run this test with QWORKER_UPDATE=1:\n{table}");
    }
}

/// A few random canvases, of ours alone, while our workers are killed: always the same ones, so that a
/// run tells of the change and not of the seed. `scripts/canvas` looks for others.
#[test]
fn random_canvases_end_as_a_model_says() {
    let path = tests().join("canvas.py").display().to_string();
    let words = "--trees 30 --seed d --kill-every 0.5 --fleet ours";
    let words: Vec<&str> = [&path, QWORKER].into_iter().chain(words.split(' ')).collect();
    let output = Output::of(&mut script(&words));
    assert_eq!(output.code, 0, "{}\n{}", output.stdout, output.stderr);
}
