//! The Debian package on a machine that systemd runs: installed, used, upgraded, purged, with
//! the real `dpkg` and the real `systemctl`.

use super::script;
use crate::harness::machine::{self, Machine};
use crate::harness::{Output, eventually};
use std::path::PathBuf;
use std::process::Command;

const TASKS: &str = "\
add: {shell: 'echo $(( $1 + $2 ))', params: [a, b]}
who: {exec: [id, --user, --name]}
whoever: {exec: [id, --user, --name], user: nobody}
group: {shell: 'grep ^0:: /proc/self/cgroup', memory: 100M}
slow: {shell: 'touch /tmp/slow-began; sleep 2; echo done'}
";

/// Where the machine has the package.
const PACKAGE: &str = "/srv/qworker.deb";

/// Where a worker's unit is changed for tests.
const DROP_IN: &str = "/etc/systemd/system/qworker@.service.d/test.conf";

/// The package, made once for each test: a file that nobody else has.
fn package() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let output = Output::of(script("deb").env("COMPRESSION", "none").arg(dir.path()));
    assert_eq!(output.code, 0, "{output:?}");
    (dir, PathBuf::from(output.stdout.trim_end()))
}

/// A machine with the package and tasks; `None` where there can be no machine.
fn installed() -> Option<Machine> {
    if !machine::possible() {
        return None;
    }
    let (_dir, package) = package();
    let machine = Machine::boot();
    // What the machine was copied from must not change.
    machine.must(&["cp", package.to_str().unwrap(), PACKAGE]);
    machine.must(&["dpkg", "--install", PACKAGE]);
    machine.write("/etc/qworker/tasks.d/tasks.yaml", TASKS);
    Some(machine)
}

/// `qworker ARGS` as the user of the services.
#[track_caller]
fn qworker(machine: &Machine, args: &[&str]) -> String {
    let words = ["setpriv", "--reuid=qworker", "--regid=qworker", "--init-groups", "qworker"];
    machine.must(&words.iter().chain(args).copied().collect::<Vec<_>>())
}

#[test]
fn the_package_says_what_is_in_it() {
    let (_dir, package) = package();
    let field = |name: &str| {
        let output = Output::of(Command::new("dpkg-deb").arg("--field").arg(&package).arg(name));
        output.stdout.trim_end().to_string()
    };
    assert_eq!(field("Version"), format!("{}-1", env!("CARGO_PKG_VERSION")));
    let depends = field("Depends");
    let minor = depends.strip_prefix("libc6 (>= 2.").and_then(|rest| rest.split([')', '.']).next());
    let minor: u32 = minor.and_then(|minor| minor.parse().ok()).expect(&depends);
    // The first C library that loads packed relocations.
    let program = Output::of(Command::new("readelf").args(["-dW", env!("CARGO_BIN_EXE_qworker")]));
    assert!(minor >= 36 || !program.stdout.contains("(RELR)"), "{depends}");
    let output = Output::of(Command::new("dpkg-deb").arg("--contents").arg(&package));
    for path in [
        "./usr/bin/qworker",
        "./usr/lib/systemd/system/qworker-beat.service",
        "./usr/lib/systemd/system/qworker@.service",
        "./usr/share/man/man1/qworker.1.gz",
        "./usr/share/doc/qworker/examples/schedule.yaml",
        "./usr/share/man/man5/qworker-schedule.5.gz",
        "./usr/share/man/man5/qworker-tasks.5.gz",
        "./usr/share/zsh/vendor-completions/_qworker",
        "./usr/share/doc/qworker/copyright",
        "./etc/qworker/tasks.d/",
    ] {
        assert!(output.stdout.lines().any(|line| line.ends_with(path)), "{path}: {output:?}");
    }
    let owners = output.stdout.lines().map(|line| line.split_whitespace().nth(1).unwrap());
    assert!(owners.into_iter().all(|owner| owner == "root/root"), "{output:?}");
    let folder = tempfile::tempdir().unwrap();
    let mut control = Command::new("dpkg-deb");
    control.arg("--control").arg(&package).arg(folder.path());
    assert_eq!(Output::of(&mut control).code, 0);
    let files = std::fs::read_to_string(folder.path().join("conffiles")).unwrap();
    assert_eq!(
        files,
        "/etc/default/qworker\n/etc/logrotate.d/qworker\n/etc/qworker/qworker.yaml\n"
    );
}

/// Everything of ours, and every file that came: none is left after a purge.
#[test]
fn a_purge_leaves_nothing() {
    let Some(machine) = installed() else { return };
    // Folders that nobody else writes to meanwhile.
    let all = "find /etc /usr /run /opt /var/lib /var/cache /var/log -xdev \
               ! -path '/var/lib/dpkg/*' ! -path '/var/lib/apt/*' ! -path '/var/cache/apt/*' \
               ! -path '/run/systemd/*' ! -path '/run/log/*' ! -path '/var/log/journal*' \
               ! -path '/run/credentials*' ! -name '*-' | sort";
    let listed = |machine: &Machine| machine.must(&["sh", "-c", all]);
    // It was installed already; so take it away, and see what came.
    machine.must(&["rm", "/etc/qworker/tasks.d/tasks.yaml"]);
    machine.must(&["dpkg", "--purge", "qworker"]);
    let before = listed(&machine);
    for name in ["passwd", "group", "shadow"] {
        let text = machine.must(&["cat", &format!("/etc/{name}")]);
        assert!(!text.contains("qworker"), "/etc/{name}: {text}");
    }
    let left: Vec<&str> = before.lines().filter(|path| path.contains("qworker")).collect();
    assert_eq!(left, [""; 0]);
    // The same with workers that run, and with what they wrote.
    machine.must(&["dpkg", "--install", PACKAGE]);
    machine.write("/etc/qworker/tasks.d/tasks.yaml", TASKS);
    machine.must(&[
        "systemctl",
        "enable",
        "--now",
        "qworker.target",
        "qworker@worker1",
        "qworker@worker2",
        "qworker-beat",
    ]);
    assert_eq!(qworker(&machine, &["call", "add", "--args", "[20, 22]", "--wait"]), "42");
    assert!(listed(&machine).contains("/var/lib/qworker/qworker.sqlite"));
    machine.must(&["rm", "/etc/qworker/tasks.d/tasks.yaml"]);
    machine.must(&["dpkg", "--purge", "qworker"]);
    assert_eq!(listed(&machine), before);
    assert_eq!(machine.run(&["pgrep", "--exact", "qworker"]).stdout, "");
    // What an admin wrote is the admin's.
    machine.must(&["dpkg", "--install", PACKAGE]);
    machine.write("/etc/qworker/tasks.d/mine.yaml", TASKS);
    machine.must(&["dpkg", "--purge", "qworker"]);
    assert_eq!(
        machine.must(&["find", "/etc/qworker", "-type", "f"]),
        "/etc/qworker/tasks.d/mine.yaml"
    );
}

#[test]
fn a_worker_is_a_service() {
    let Some(machine) = installed() else { return };
    let worker = "qworker@worker1.service";
    machine.must(&["systemctl", "start", worker]);
    assert_eq!(machine.show(worker, "ActiveState"), "active");
    assert_eq!(qworker(&machine, &["call", "who", "--wait"]), "qworker");
    let status = qworker(&machine, &["status"]);
    assert!(status.contains("->  worker1@machine: OK"), "{status}");
    // A task with resource_limits gets a control group below the service's.
    let group = qworker(&machine, &["call", "group", "--wait"]);
    assert!(group.contains("/qworker@worker1.service/qworker-"), "{group}");
    let health = qworker(&machine, &["health", "--ready", "-n", "worker1@machine"]);
    assert!(health.contains("is ready"), "{health}");
    let health = machine.must(&["qworker", "health", "--ready", "-n", "worker1@machine"]);
    assert!(health.contains("is ready"), "root may ask: {health}");
    let owner = |path: &str| machine.must(&["stat", "--format=%U %a", path]);
    assert_eq!(owner("/run/qworker"), "qworker 755");
    assert_eq!(owner("/var/lib/qworker"), "qworker 750");
    assert_eq!(owner("/var/lib/qworker/qworker.sqlite").split(' ').next(), Some("qworker"));

    // What is below the process is new, and so are its settings.
    let pid = machine.show(worker, "MainPID");
    // Nobody, while one goes and the next one comes.
    let below = |machine: &Machine| machine.run(&["pgrep", "--parent", &pid]).stdout;
    let before = below(&machine);
    machine.must(&["sed", "--in-place", "$aworker_concurrency: 7", "/etc/qworker/qworker.yaml"]);
    machine.must(&["systemctl", "reload", worker]);
    eventually("a restart in place", || {
        (machine.journal().contains("concurrency: 7")
            && !["", &before].contains(&below(&machine).as_str()))
        .then_some(())
    });
    assert_eq!(qworker(&machine, &["call", "add", "--args", "[1, 2]", "--wait"]), "3");
    assert_eq!(machine.show(worker, "MainPID"), pid);
    assert_eq!(machine.show(worker, "NRestarts"), "0");
    eventually("the end of the reload", || {
        (machine.show(worker, "ActiveState") == "active").then_some(())
    });

    // After an upgrade it is the new program that runs, in the same process.
    let before = below(&machine);
    machine.must(&["dpkg", "--install", PACKAGE]);
    eventually("a restart in place", || {
        (!["", &before].contains(&below(&machine).as_str())).then_some(())
    });
    assert_eq!(qworker(&machine, &["call", "add", "--args", "[2, 2]", "--wait"]), "4");
    assert_eq!(machine.show(worker, "MainPID"), pid);

    // What runs may finish.
    let id = qworker(&machine, &["call", "slow"]);
    eventually("a task that runs", || {
        (machine.run(&["test", "-e", "/tmp/slow-began"]).code == 0).then_some(())
    });
    machine.must(&["systemctl", "stop", worker]);
    assert_eq!(qworker(&machine, &["result", &id]), "done");
    assert_eq!(machine.show(worker, "Result"), "success");
    assert_eq!(machine.show(worker, "ActiveState"), "inactive");
    assert_eq!(machine.run(&["pgrep", "--exact", "qworker"]).stdout, "");
}

#[test]
fn a_worker_that_dies_or_sticks_comes_back() {
    let Some(machine) = installed() else { return };
    let worker = "qworker@worker1.service";
    machine.write(DROP_IN, "[Service]\nWatchdogSec=1\nRestartSec=100ms\n");
    machine.must(&["systemctl", "daemon-reload"]);
    machine.must(&["systemctl", "start", worker]);
    let restarts = |count: &str| {
        eventually("another start of the service", || {
            (machine.show(worker, "NRestarts") == count
                && machine.show(worker, "ActiveState") == "active")
                .then_some(())
        });
        assert_eq!(qworker(&machine, &["call", "add", "--args", "[1, 2]", "--wait"]), "3");
    };
    machine.must(&["systemctl", "kill", "--kill-who=main", "--signal=KILL", worker]);
    restarts("1");
    // Nobody can see from outside that it is stuck, but the watchdog.
    machine.must(&["systemctl", "kill", "--kill-who=all", "--signal=STOP", worker]);
    restarts("2");
    assert!(machine.journal().contains("Watchdog timeout"), "{}", machine.journal());
}

#[test]
fn beat_is_a_service() {
    let Some(machine) = installed() else { return };
    let beat = "qworker-beat.service";
    machine.must(&["systemctl", "start", "qworker@worker1", beat]);
    assert_eq!(machine.show(beat, "ActiveState"), "active");
    // As it comes it has nothing to send.
    assert_eq!(qworker(&machine, &["beat", "list", "--json"]), "[]");
    let sendings = |name: &str| {
        machine.journal().matches(&format!("Scheduler: Sending due task {name} (who)")).count()
    };
    let sends = |name: &str| {
        eventually("a sending", || (sendings(name) > 0).then_some(()));
        eventually("a run", || {
            let listed = qworker(&machine, &["beat", "list", name, "--json"]);
            let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
            let id = listed[0]["last_task_id"].as_str()?.to_string();
            let result = machine.run(&["qworker", "result", &id]);
            (result.stdout == "qworker\n").then_some(())
        });
    };
    // Two ways to a new schedule: it is told, or sees it by itself.
    let pid = machine.show(beat, "MainPID");
    machine.write("/etc/qworker/schedule.yaml", "entries: {tick: {task: who, schedule: 0.5}}\n");
    machine.must(&["systemctl", "reload", beat]);
    sends("tick");
    machine.write("/etc/qworker/more.crontab", "@every 500ms who name=tock\n");
    sends("tock");
    assert_eq!(machine.show(beat, "MainPID"), pid);

    // Killed or stuck, it is there again; the state is in the broker, so nothing is sent anew.
    machine.write(
        "/etc/systemd/system/qworker-beat.service.d/test.conf",
        "[Service]\nWatchdogSec=2\n",
    );
    machine.must(&["systemctl", "daemon-reload"]);
    machine.must(&["systemctl", "restart", beat]);
    let comes_back = |count: &str| {
        eventually("another start of the service", || {
            (machine.show(beat, "NRestarts") == count
                && machine.show(beat, "ActiveState") == "active")
                .then_some(())
        });
        let before = sendings("tick");
        eventually("more sendings", || (sendings("tick") > before).then_some(()));
    };
    machine.must(&["systemctl", "kill", "--signal=KILL", beat]);
    comes_back("1");
    machine.must(&["systemctl", "kill", "--signal=STOP", beat]);
    comes_back("2");
    assert!(machine.journal().contains("Watchdog timeout"), "{}", machine.journal());

    // After an upgrade the new program runs.
    let pid = machine.show(beat, "MainPID");
    machine.must(&["dpkg", "--install", PACKAGE]);
    eventually("a new process", || {
        let now = machine.show(beat, "MainPID");
        (!["0", &pid].contains(&now.as_str()) && machine.show(beat, "ActiveState") == "active")
            .then_some(())
    });
    machine.must(&["systemctl", "stop", beat]);
    assert_eq!(machine.show(beat, "Result"), "success");
    assert_eq!(machine.show(beat, "ActiveState"), "inactive");
}

/// A broker that is away is no reason to be killed, and started again.
#[test]
fn beat_waits_for_its_broker() {
    let Some(machine) = installed() else { return };
    let beat = "qworker-beat.service";
    machine.write("/etc/default/qworker-beat", "QWORKER_BROKER_URL=redis://127.0.0.1:1/0\n");
    machine.write(
        "/etc/systemd/system/qworker-beat.service.d/test.conf",
        "[Service]\nWatchdogSec=2\n",
    );
    machine.must(&["systemctl", "daemon-reload"]);
    machine.must(&["systemctl", "start", beat]);
    let fed = || machine.show(beat, "WatchdogTimestampMonotonic").parse::<u64>().unwrap();
    let begin = fed();
    eventually("five seconds of life", || (fed() > begin + 5_000_000).then_some(()));
    assert_eq!(machine.show(beat, "NRestarts"), "0");
    assert!(machine.journal().contains("due entries wait"), "{}", machine.journal());
}

/// As Celery's service file has it: several nodes, their options in one file.
#[test]
fn the_nodes_of_multi_are_one_service() {
    let Some(machine) = installed() else { return };
    let service = "qworker-multi.service";
    let options =
        "QWORKERD_NODES=\"w1 w2\"\nQWORKERD_OPTS=\"--soft-shutdown-timeout=80 -c:w1 7\"\n";
    machine.write("/etc/default/qworker", options);
    machine.must(&["systemctl", "start", service]);
    assert_eq!(machine.show(service, "ActiveState"), "active");
    let pid = |node: &str| machine.must(&["cat", &format!("/run/qworker/{node}.pid")]);
    let before = (pid("w1"), pid("w2"));
    let online = || {
        let status = qworker(&machine, &["status"]);
        status.contains("w1@machine: OK") && status.contains("w2@machine: OK")
    };
    assert!(online());
    assert_eq!(qworker(&machine, &["call", "who", "--wait"]), "qworker");

    machine.must(&["systemctl", "reload", service]);
    assert_eq!(machine.show(service, "ActiveState"), "active");
    assert!(online() && pid("w1") != before.0 && pid("w2") != before.1);

    let id = qworker(&machine, &["call", "slow"]);
    eventually("a task that runs", || {
        (machine.run(&["test", "-e", "/tmp/slow-began"]).code == 0).then_some(())
    });
    machine.must(&["systemctl", "stop", service]);
    assert_eq!(qworker(&machine, &["result", &id]), "done");
    assert_eq!(machine.show(service, "ActiveState"), "inactive");
    assert_eq!(machine.run(&["pgrep", "--exact", "qworker"]).stdout, "");
    assert_eq!(machine.must(&["find", "/run/qworker", "-name", "*.pid"]), "");
    let log = machine.must(&["cat", "/var/log/qworker/w1.log"]);
    assert!(log.contains("w1@machine ready."), "{log}");
    // Options that make no sense are told, and nothing is left running.
    machine.write("/etc/default/qworker", "QWORKERD_OPTS=--concurrency=none\n");
    let wrong = machine.run(&["systemctl", "start", service]);
    assert_ne!(wrong.code, 0, "{wrong:?}");
    assert!(machine.journal().contains("--concurrency"), "{}", machine.journal());
}

/// What the unit says of tasks that run as somebody else.
#[test]
fn a_worker_of_root_runs_tasks_as_others() {
    let Some(machine) = installed() else { return };
    machine.must(&["systemctl", "start", "qworker@worker1"]);
    assert_eq!(qworker(&machine, &["call", "who", "--wait"]), "qworker");
    machine.must(&["systemctl", "stop", "qworker@worker1"]);
    machine.write(DROP_IN, "[Service]\nCapabilityBoundingSet=~\nUser=root\nGroup=root\n");
    machine.must(&["systemctl", "daemon-reload"]);
    machine.must(&["systemctl", "start", "qworker@worker1"]);
    assert_eq!(machine.must(&["qworker", "call", "who", "--wait"]), "root");
    assert_eq!(machine.must(&["qworker", "call", "whoever", "--wait"]), "nobody");
}

#[test]
fn what_is_wrong_is_told_once_and_not_tried_again() {
    let Some(machine) = installed() else { return };
    machine.write("/etc/default/qworker-worker1", "QWORKERD_OPTS=--concurrency=none\n");
    let started = machine.run(&["systemctl", "start", "qworker@worker1"]);
    assert_ne!(started.code, 0, "{started:?}");
    assert_eq!(machine.show("qworker@worker1", "ExecMainStatus"), "2");
    assert_eq!(machine.show("qworker@worker1", "ActiveState"), "failed");
    assert!(machine.journal().contains("--concurrency"), "{}", machine.journal());
    // The other one has options of its own.
    machine.must(&["systemctl", "start", "qworker@worker2"]);
}
