//! `multi` and real workers: whoever is started is ready, whoever is stopped is gone, nobody
//! else is ever signalled, and no file is left.

use crate::harness::{Output, TestDir, eventually, host};
use serde_json::Value;
use std::fs;
use std::process::{Command, Stdio};

const TASKS: &str = "
short: {exec: ['true']}
long: {shell: 'echo begun >>begun; sleep 30'}
brief: {shell: 'echo begun >>begun; sleep 1'}
";

/// An application whose nodes have their files in it, and are killed in the end.
struct Nodes(TestDir);

impl Nodes {
    fn new() -> Nodes {
        Nodes(TestDir::with(TASKS))
    }

    /// `multi WORDS`, with the places of the files.
    fn run(&self, words: &str) -> Output {
        let (words, behind) = words.split_once(" -- ").unwrap_or((words, ""));
        let behind = if behind.is_empty() { vec![] } else { vec!["--", behind] };
        let files = vec!["--pidfile=run/%n.pid", "--logfile=log/%n%I.log"];
        let words = [vec!["multi"], words.split(' ').collect(), files, behind].concat();
        // Other applications of this test have nodes of the same names.
        Output::of(self.0.command(&words).env("RUNTIME_DIRECTORY", self.0.file("runtime")))
    }

    /// As [`Nodes::run`]; it must end with 0. What it printed, without the host.
    #[track_caller]
    fn must(&self, words: &str) -> String {
        let output = self.run(words);
        assert_eq!(output.code, 0, "{words}: {output:?}\n{}", self.logs());
        output.stdout.replace(&format!("@{}", host()), "")
    }

    fn logs(&self) -> String {
        let logs = fs::read_dir(self.0.file("log")).into_iter().flatten().flatten();
        logs.map(|entry| fs::read_to_string(entry.path()).unwrap_or_default()).collect()
    }

    fn pid(&self, node: &str) -> i32 {
        let text = self.0.read(&format!("run/{node}.pid"));
        text.trim().parse().unwrap_or_else(|_| panic!("the pidfile of {node} says {text:?}"))
    }

    /// What is in the folder of pidfiles.
    fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.file("run")).into_iter().flatten().flatten();
        let mut names: Vec<String> =
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    fn status(&self, words: &str) -> Vec<Value> {
        let output = self.run(&format!("status {words} --json"));
        serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        let files = self.files();
        let names: Vec<&str> = files.iter().filter_map(|file| file.split('.').next()).collect();
        if !names.is_empty() {
            self.run(&format!("kill {}", names.join(" ")));
        }
    }
}

#[test]
fn nodes_are_started_looked_at_and_stopped() {
    let nodes = Nodes::new();
    let started = nodes.must("start 3 -c 1 -c:2 2 -L:3 DEBUG");
    let version = env!("CARGO_PKG_VERSION");
    let wanted = format!(
        "qworker multi v{version}\n> Starting nodes...\n\t> celery1: OK\n\t> celery2: OK\n\t> celery3: OK\n"
    );
    assert_eq!(started, wanted);
    assert_eq!(nodes.files(), ["celery1.pid", "celery2.pid", "celery3.pid"]);
    // They take tasks: that is what it waited for.
    assert_eq!(nodes.0.must(&["status", "--json"]).matches("pong").count(), 3);
    // What already is, is no failure.
    let again = nodes.must("start 2 --nosplash");
    assert!(
        again.contains(&format!("celery1: OK (already running, pid {})", nodes.pid("celery1"))),
        "{again}"
    );
    let all = nodes.status("3");
    assert_eq!(all[1]["slots"], 2);
    for (one, name) in all.iter().zip(["celery1", "celery2", "celery3"]) {
        assert_eq!(one["node"], format!("{name}@{}", host()));
        assert_eq!(one["pid"], nodes.pid(name));
        assert_eq!((&one["state"], &one["ready"]), (&"running".into(), &true.into()), "{one}");
        assert_eq!((&one["running"], &one["version"]), (&0.into(), &version.into()));
        assert!(one["memory"].as_u64().unwrap() > 1_000_000, "{one}");
    }
    let table = nodes.must("status 3");
    assert!(table.starts_with("NODE") && table.lines().count() == 4, "{table}");
    let pid = nodes.pid("celery2");
    let stopped = nodes.must("stopwait celery2 --nosplash");
    let wanted = format!(
        "> Stopping nodes...\n\t> celery2: TERM -> {pid}\n> Waiting for 1 node -> {pid}...\n\t> celery2: OK\n"
    );
    assert_eq!(stopped, wanted);
    assert_eq!(nodes.files(), ["celery1.pid", "celery3.pid"]);
    assert_eq!(nodes.must("stopwait celery2 --nosplash"), "> celery2: DOWN\n");
    let status = nodes.run("status 3");
    assert!(status.code == 1 && status.stdout.contains("down"), "{status:?}");
    nodes.must("stopwait 3 --quiet -QUIT");
    assert_eq!(nodes.files(), [""; 0]);
}

#[test]
fn a_restart_is_another_process() {
    let nodes = Nodes::new();
    nodes.must("start 2 -c 1");
    let before = [nodes.pid("celery1"), nodes.pid("celery2")];
    nodes.must("kill celery2");
    assert_eq!(nodes.files(), ["celery1.pid"]);
    let restarted = nodes.must("restart 2 -c 1 -TERM");
    assert!(restarted.contains(&format!("> celery1: TERM -> {}", before[0])), "{restarted}");
    assert!(restarted.contains("> Restarting node celery2: OK"), "{restarted}");
    assert!(restarted.contains("> Restarting node celery1: OK"), "{restarted}");
    for (name, before) in ["celery1", "celery2"].into_iter().zip(before) {
        assert_ne!(nodes.pid(name), before);
    }
    let refused = nodes.run("restart 2 -HUP");
    assert_eq!(refused.code, 2, "{refused:?}");
}

#[test]
fn a_successor_works_before_the_old_one_is_stopped() {
    let nodes = Nodes::new();
    nodes.must("start w1 w2 -c 1 -Q:w1 celery -Q:w2 other");
    let old = nodes.pid("w1");
    nodes.0.must(&["call", "long"]);
    eventually("it runs", || (!nodes.0.lines("begun").is_empty()).then_some(()));
    // The old one is busy: the new one takes tasks all the same.
    let late = nodes.run("restart w1 -c 1 --rolling --timeout 1");
    assert_eq!(late.code, 75, "{late:?}");
    assert!(late.stdout.contains(": OK\n"), "{late:?}");
    assert!(late.stderr.contains(&format!("({old}) has not ended")), "{late:?}");
    let new = nodes.pid("w1");
    assert_ne!(new, old);
    nodes.0.must(&["call", "short", "--wait", "--timeout", "10"]);
    assert_eq!(nodes.status("w1")[0]["pid"], new);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(old), nix::sys::signal::Signal::SIGQUIT)
        .unwrap();
    eventually("the old one has ended", || {
        (!fs::exists(format!("/proc/{old}")).unwrap()).then_some(())
    });
    // Its end has not taken the file of the new one with it.
    assert_eq!(nodes.files(), ["w1.pid", "w2.pid"]);
    // One that cannot start leaves all as it was.
    nodes.0.settings("worker_concurrency: nonsense\n");
    let failed = nodes.run("restart w1 w2 --rolling");
    assert_eq!(failed.code, 1, "{failed:?}");
    assert!(
        failed.stderr.contains("worker_concurrency") && failed.stderr.contains("as before: w1"),
        "{failed:?}"
    );
    assert_eq!((nodes.pid("w1"), nodes.files()), (new, vec!["w1.pid".into(), "w2.pid".into()]));
}

#[test]
fn who_fails_says_why() {
    let nodes = Nodes::new();
    let failed = nodes.run("start good bad -b:bad redis://127.0.0.1:1/0");
    assert_eq!(failed.code, 1, "{failed:?}");
    assert!(failed.stdout.contains(": OK\n") && failed.stdout.contains(": FAILED\n"), "{failed:?}");
    for part in ["127.0.0.1:1", "* Child terminated with exit code 69"] {
        assert!(failed.stderr.contains(part), "no {part} in {failed:?}");
    }
    assert_eq!(nodes.files(), ["good.pid"]);
    let wrong = nodes.run("start x --unheard=1");
    assert!(wrong.code == 1 && wrong.stderr.contains("--unheard"), "{wrong:?}");
    let none = nodes.run("start x --executable=/nowhere/qworker");
    assert!(none.code == 1 && none.stderr.contains("/nowhere/qworker"), "{none:?}");
    let same = nodes.run("start a@x a@y");
    assert!(same.code == 2 && same.stderr.contains("the same pidfile"), "{same:?}");
}

#[test]
fn what_takes_its_time_is_said_and_waited_for_only_so_long() {
    let nodes = Nodes::new();
    nodes.must("start 1 -c 1");
    nodes.0.must(&["call", "long"]);
    eventually("it runs", || (!nodes.0.lines("begun").is_empty()).then_some(()));
    let late = nodes.run("stopwait 1 --timeout 0.5");
    assert_eq!(late.code, 75, "{late:?}");
    assert!(late.stderr.contains(&format!("({}) has not ended", nodes.pid("celery1"))), "{late:?}");
    assert_eq!(nodes.status("1")[0]["state"], "draining");
    // Nobody waits for the one that waits.
    nodes.must("stopwait 1 -QUIT --timeout 20");
    assert_eq!(nodes.files(), [""; 0]);
}

#[test]
fn an_innocent_process_is_not_signalled() {
    let nodes = Nodes::new();
    fs::create_dir(nodes.0.file("run")).unwrap();
    nodes.0.write("run/w1.pid", "placeholder\n");
    let mut innocent = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().unwrap();
    // The file is older than the process that has got its number.
    nodes.0.write("run/w1.pid", &format!("{}\n", innocent.id()));
    let hour = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
    let file = fs::File::options().write(true).open(nodes.0.file("run/w1.pid")).unwrap();
    file.set_modified(hour).unwrap();
    drop(file);
    assert!(nodes.must("stop w1").contains("w1: DOWN"));
    assert_eq!(nodes.files(), [""; 0]);
    assert!(innocent.try_wait().unwrap().is_none());
    innocent.kill().unwrap();
    innocent.wait().unwrap();
}

#[test]
fn a_killed_node_can_be_started() {
    let nodes = Nodes::new();
    nodes.must("start w1 -c 1");
    let pid = nodes.pid("w1");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL)
        .unwrap();
    eventually("it is gone", || (!fs::exists(format!("/proc/{pid}")).unwrap()).then_some(()));
    assert_eq!(nodes.status("w1")[0]["state"], "down");
    nodes.must("start w1 -c 1");
    assert_ne!(nodes.pid("w1"), pid);
}

#[test]
fn words_behind_two_hyphens_are_settings() {
    let nodes = Nodes::new();
    nodes.must("start w1 --loglevel INFO");
    nodes.must("start w2 -- worker.concurrency=3");
    assert_eq!(nodes.status("w2")[0]["slots"], 3);
}

#[test]
fn commands_at_once_leave_one_worker_a_name() {
    super::faults::trial("multi");
}

#[test]
fn a_pidfile_with_another_text_in_it_is_an_error_and_stays() {
    let nodes = Nodes::new();
    nodes.0.write("run/w1.pid", "hello\n");
    let found = format!(
        "w1@{}: {}: found a file with something else in it than a process number, expected a pidfile",
        host(),
        nodes.0.path().canonicalize().unwrap().join("run/w1.pid").display()
    );
    for command in ["stop", "stopwait", "kill", "start", "restart"] {
        let output = nodes.run(&format!("{command} w1"));
        let said = format!("{}{}", output.stdout, output.stderr);
        assert!(output.code == 1 && said.contains(&found), "{command}: {output:?}");
        assert!(!said.contains("DOWN"), "{command}: {output:?}");
        assert_eq!(nodes.0.read("run/w1.pid"), "hello\n");
    }
    assert_eq!(nodes.run("status w1").code, 1);
    // What is empty names nobody.
    nodes.0.write("run/w1.pid", "");
    assert!(nodes.must("stop w1").contains("DOWN"));
}
