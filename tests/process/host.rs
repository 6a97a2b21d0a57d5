//! What the host refuses, what others send to all processes at once, and files and processes that
//! are not ours.

use super::{SLOW, await_empty, await_lines, left, losses, ready, send_many};
use crate::harness::process::{is_alive, send};
use crate::harness::{Output, TestDir, Worker, eventually};
use nix::sys::signal::Signal;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::process::{Command, Stdio};

/// A user that nobody is.
const STRANGER: u32 = 54_321;

/// Some tests act as another user, which root alone can.
fn is_root() -> bool {
    let is_root = nix::unistd::geteuid().is_root();
    if !is_root {
        println!("shows nothing: only root can act as another user");
    }
    is_root
}

/// `qworker WORDS` behind a line of shell in the application's folder.
fn behind(app: &TestDir, line: &str, words: &[&str]) -> Command {
    let command = app.command(words);
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("{line}\nexec \"$0\" \"$@\"")]).arg(command.get_program());
    shell.args(words).current_dir(app.path()).stdin(Stdio::null());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell
}

/// A guard that is killed between the start of its worker and the worker's first look at its parent.
#[test]
fn a_worker_that_finds_no_guard_ends_and_is_none() {
    let app = TestDir::with("");
    // The alarm stays set: a worker that goes on ends the test too.
    let orphan = r#"exec python3 -c 'import os, signal, socket, sys
ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
guard = os.getpid()
if os.fork():
    os._exit(0)
signal.alarm(20)
theirs.close()
link = ours.detach()
os.dup2(link, 3) if link != 3 else os.set_inheritable(3, True)
while os.getppid() == guard:
    pass
os.environ["QWORKER_GUARD_FD"] = "3"
os.execv(sys.argv[1], sys.argv[1:])' "$0" "$@""#;
    let output = Output::of(&mut behind(&app, orphan, &["worker"]));
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("", ""));
    assert!(!app.database().exists(), "it has opened its broker");
}

#[test]
fn slots_have_to_fit_the_open_files_and_tasks_keep_their_own_limit() {
    let app = TestDir::with("files: {shell: 'sleep 0.2; ulimit -Sn'}");
    for words in [&["worker", "-c", "60"][..], &["worker", "--autoscale", "60,1"]] {
        let refused = Output::of(&mut behind(&app, "ulimit -n 100", words));
        assert_eq!(refused.code, 2, "{refused:?}");
        for part in ["60 needs 152 open files", "may have 100", "at most 34 fit"] {
            assert!(refused.stderr.contains(part), "no {part} in {refused:?}");
        }
    }
    let mut worker = behind(&app, "ulimit -Sn 50; ulimit -Hn 1000", &["worker", "-c", "60"]);
    let mut worker = worker.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let ids = send_many(&app, "files", 60);
    for id in &ids {
        assert_eq!(app.must(&["result", id, "--wait"]), "50", "the limit of a task");
    }
    send(worker.id() as i32, Signal::SIGTERM);
    assert_eq!(worker.wait().unwrap().code(), Some(0));
}

#[test]
fn what_the_host_refuses_is_no_answer_of_a_task() {
    let app = TestDir::with("task: {shell: 'sleep 0.1; echo done'}");
    let node = format!("t{}@test", fastrand::u64(..));
    let worker = app.worker(&["-c", "20", "-n", &node]);
    let limit = |files: &str| {
        let pid = worker.pid().to_string();
        let mut command = Command::new("prlimit");
        command.args(["--pid", &pid, &format!("--nofile={files}")]);
        assert!(command.status().unwrap().success());
    };
    // What it has open by now, and no more than some.
    let open = fs::read_dir(format!("/proc/{}/fd", worker.pid())).unwrap().count();
    limit(&format!("{}:4096", open + 8));
    let ids = send_many(&app, "task", 60);
    worker.expect_line("worker: the host has no room for more than ");
    let why = eventually("health says it", || {
        let said = app.qworker(&["health", "-n", &node]);
        (said.code == 1).then_some(said.stdout)
    });
    assert!(why.contains("not ready: the host has no room for more than"), "{why}");
    assert_eq!(losses(&app), 0);
    limit("4096:4096");
    for id in &ids {
        assert_eq!(app.must(&["result", id, "--wait"]), "done");
    }
    worker.expect_line("worker: the host has room for 20 tasks again");
    assert_eq!(worker.log().matches("has no room").count(), 1, "{}", worker.log());
    assert_eq!(app.qworker(&["health", "-n", &node]).code, 0);
}

/// A deployment still writes the program: its tasks wait, uncounted, and no other one does.
#[test]
fn a_program_that_is_being_written_is_no_answer_and_holds_up_nobody() {
    let app = TestDir::with(
        "busy: {exec: [./program]}\nearly: {exec: [./program], acks_late: false}\n\
         other: {shell: 'echo done'}\n",
    );
    app.program("program", "#!/bin/sh\necho ran\n");
    let writer = fs::OpenOptions::new().append(true).open(app.file("program")).unwrap();
    let worker = app.worker(&["-c", "2"]);
    let mut ids = send_many(&app, "busy", 20);
    ids.extend(send_many(&app, "early", 2));
    let told = worker.expect_line("task \"busy\" cannot be started now: ");
    assert!(told.contains("./program: Text file busy; its messages are tried again"), "{told}");
    for _ in 0..3 {
        for id in send_many(&app, "other", 10) {
            assert_eq!(app.must(&["result", &id, "--wait"]), "done");
        }
    }
    assert_eq!(left(&app), ids.len());
    assert_eq!(losses(&app), 0);
    drop(writer);
    for id in &ids {
        assert_eq!(app.must(&["result", id, "--wait"]), "ran");
    }
    worker.expect_line("worker: task \"busy\" can be started again");
    let log = worker.log();
    assert_eq!(log.matches("task \"busy\" cannot be started now").count(), 1, "{log}");
    assert!(!log.contains("no room for more"), "{log}");
}

#[test]
fn what_is_sent_to_all_processes_at_once_is_one_order() {
    let app = TestDir::with(SLOW);
    for round in 0..8 {
        fs::remove_file(app.file("started")).unwrap_or_default();
        let ids = send_many(&app, "slow", 4);
        let mut worker = app.worker(&["-c", "4"]);
        await_lines(&app, "started", 4);
        let mut family = worker.family();
        fastrand::shuffle(&mut family);
        let signal = if round % 2 == 0 { Signal::SIGTERM } else { Signal::SIGINT };
        family.into_iter().for_each(|pid| send(pid, signal));
        assert_eq!(worker.wait(), i32::from(signal == Signal::SIGINT), "{}", worker.log());
        let log = worker.log();
        assert!(!log.contains("Soft shutdown") && !log.contains("Cold shutdown"), "{log}");
        assert!(!log.contains("lost its process"), "{log}");
        let expected: Vec<_> = ids.iter().map(|id| (id.clone(), 0)).collect();
        let mut all = ready(&app);
        all.retain(|(id, _)| ids.contains(id));
        assert_eq!(all, expected, "{log}");
        app.must(&["purge", "-f"]);
    }
    await_empty(&app);
}

#[test]
fn a_task_has_no_terminal_and_is_asked_to_end_though_it_is_stopped() {
    let app = TestDir::with(
        "terminal: {shell: 'read line </dev/tty'}
stopped: {shell: 'trap \"echo asked; exit 0\" TERM; kill -STOP $$; sleep 9', soft_time_limit: 1}
session: {shell: 'cut -d\" \" -f4,6,7 /proc/$$/stat'}",
    );
    let line = format!("{} worker -c 3 -l INFO --pidfile=w.pid", env!("CARGO_BIN_EXE_qworker"));
    let mut worker = Command::new("script");
    worker.args(["-qec", &line, "/dev/null"]).current_dir(app.path()).env("NO_COLOR", "1");
    worker.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut worker = worker.spawn().unwrap();
    let result = |task| app.qworker(&["call", task, "--wait", "--timeout", "60"]);
    let refused = result("terminal");
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains("/dev/tty"), "{refused:?}");
    assert_eq!(result("stopped").stdout.trim(), "asked");
    // The worker's session, which has no terminal: `nice` counts only within one.
    let session = result("session").stdout;
    let numbers: Vec<&str> = session.trim().trim_matches('"').split(' ').collect();
    assert_eq!(numbers[0], numbers[1], "{numbers:?}");
    assert_eq!(numbers[2], "0", "{numbers:?}");
    // A hangup would start it anew.
    send(app.read("w.pid").trim().parse().unwrap(), Signal::SIGTERM);
    worker.wait().unwrap();
}

#[test]
fn only_a_pidfile_of_ours_is_replaced() {
    let app = TestDir::with(SLOW);
    app.write("kept", "precious\n").write("w/x", "").write("twice", "");
    symlink(app.file("kept"), app.file("link")).unwrap();
    symlink(app.file("none"), app.file("dangling")).unwrap();
    fs::hard_link(app.file("twice"), app.file("twin")).unwrap();
    let made = Command::new("mkfifo").arg(app.file("pipe")).status().unwrap();
    assert!(made.success());
    let mut all = vec![
        ("kept", "something else in it"),
        ("link", "a symbolic link"),
        ("dangling", "a symbolic link"),
        ("w", "a folder"),
        ("twin", "several names"),
        ("pipe", "a named pipe"),
    ];
    if is_root() {
        // As /dev/null is, but nobody else's.
        let device = Command::new("mknod").arg(app.file("null")).args(["c", "1", "3"]).status();
        assert!(device.unwrap().success());
        app.write("theirs", "1\n");
        chown(app.file("theirs"), Some(STRANGER), None).unwrap();
        all.extend([("null", "a device"), ("theirs", "a file of user 54321")]);
    }
    let look = |name: &str| app.file(name).symlink_metadata().map(|m| (m.ino(), m.mode())).ok();
    for (name, found) in all {
        let before = look(name);
        for program in ["worker", "beat"] {
            let refused = app.qworker(&[program, "--pidfile", name]);
            assert_eq!(refused.code, 2, "{name}: {refused:?}");
            assert!(refused.stderr.contains(found), "{name}: {refused:?}");
        }
        assert_eq!(look(name), before, "{name}");
        let path = format!("--pidfile={}", app.file(name).display());
        let stop = app.qworker(&["multi", "stopwait", "w1", &path, "--logfile=l"]);
        if found != "a file of user 54321" && name != "kept" {
            assert_eq!(stop.code, 1, "{name}: {stop:?}");
            assert!(stop.stderr.contains(found), "{name}: {stop:?}");
        }
        assert_eq!(look(name), before, "{name}");
    }
    for (file, found) in [("kept", "found a text"), ("pipe", "found no regular file")] {
        let refused = app.qworker(&["beat", "-s", file]);
        assert!(refused.code == 2 && refused.stderr.contains(found), "{file}: {refused:?}");
    }
    assert_eq!(app.read("kept"), "precious\n");
    // No name is no file, as in Celery's images.
    assert_eq!(app.worker(&["--pidfile="]).stop(Signal::SIGTERM), 0);
}

#[test]
fn a_file_speaks_only_for_processes_of_its_owner() {
    if !is_root() {
        return;
    }
    let app = TestDir::with(SLOW);
    let run = app.file("run");
    fs::create_dir(&run).unwrap();
    chown(&run, Some(STRANGER), Some(STRANGER)).unwrap();
    let mut innocent = Command::new("sleep").arg("100").spawn().unwrap();
    app.write("run/w1.pid", &format!("{}\n", innocent.id()));
    let multi = |words: &[&str]| {
        let files = ["--pidfile=run/%n.pid", "--logfile=log/%n.log"];
        app.qworker(&[&["multi"], words, &files].concat())
    };
    for owner in [STRANGER, 0] {
        chown(app.file("run/w1.pid"), Some(owner), None).unwrap();
        for words in [["stop", "w1"], ["kill", "w1"], ["stopwait", "w1"], ["restart", "w1"]] {
            let refused = multi(&words);
            assert_eq!(refused.code, 1, "{words:?}: {refused:?}");
            let expected = format!("a file of user {owner}");
            assert!(refused.stderr.contains(&expected), "{words:?}: {refused:?}");
            assert!(is_alive(innocent.id() as i32), "{words:?}");
        }
        assert_eq!(multi(&["status", "w1"]).code, 1);
    }
    // What its owner puts in the way of root leads nowhere.
    fs::remove_file(app.file("run/w1.pid")).unwrap();
    app.write("kept", "precious\n");
    symlink(app.file("kept"), app.file("run/w1.pid.multi")).unwrap();
    let stranger = STRANGER.to_string();
    let uid = [format!("--uid={stranger}"), format!("--gid={stranger}")];
    let refused = multi(&["start", "w1", &uid[0], &uid[1]]);
    assert!(refused.code == 1 && refused.stderr.contains("a symbolic link"), "{refused:?}");
    assert_eq!(app.read("kept"), "precious\n");
    fs::remove_file(app.file("run/w1.pid.multi")).unwrap();
    // Nor is what is made below it given away.
    let deep = app.qworker(&[
        "multi",
        "start",
        "w1",
        &uid[0],
        &uid[1],
        "--pidfile=run/deep/%n.pid",
        "--logfile=/proc/nowhere/%n.log",
    ]);
    assert_eq!(deep.code, 1, "{deep:?}");
    assert_eq!(app.file("run/deep").metadata().unwrap().uid(), STRANGER);
    innocent.kill().unwrap();
    innocent.wait().unwrap();
}

#[test]
fn variables_that_anybody_sets_make_nobody_root() {
    let app = TestDir::with("who: {shell: 'id -u; echo $HOME:$USER:$XDG_RUNTIME_DIR; env'}");
    let mut words = vec!["worker", "-n", "who@test"];
    if is_root() {
        fs::set_permissions(app.path(), fs::Permissions::from_mode(0o777)).unwrap();
        words.extend(["--uid=54321", "--gid=54321"]);
    }
    let mut worker = app.command(&words);
    worker.env("QWORKER_PROBE", "1").env("QWORKER_RESTARTED", "-").env("QWORKER_GUARD_FD", "3");
    worker
        .env("QWORKER_GUARD_HEARTBEAT", "1")
        .env("XDG_RUNTIME_DIR", "/run/user/0")
        .env("USER", "root");
    let mut worker = worker.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    eventually("it is ready", || {
        (app.qworker(&["health", "-n", "who@test"]).code == 0).then_some(())
    });
    let said = app.must(&["call", "who", "--wait", "--timeout", "60"]);
    if is_root() {
        assert!(said.starts_with("54321\n/::\n"), "{said}");
    }
    for name in
        ["QWORKER_PROBE", "QWORKER_RESTARTED", "QWORKER_GUARD_FD", "QWORKER_GUARD_HEARTBEAT"]
    {
        assert!(!said.contains(name), "{said}");
    }
    // Nor does what one restart leaves say anything to another process.
    send(worker.id() as i32, Signal::SIGHUP);
    send(worker.id() as i32, Signal::SIGTERM);
    assert_eq!(worker.wait().unwrap().code(), Some(0));
}

#[test]
fn hup_enters_the_folder_that_the_name_stands_for_then() {
    let app = TestDir::new();
    let broker = format!("sqlite:///{}", app.file("broker.sqlite").display());
    for release in ["1", "2"] {
        let tasks = format!("release: {{shell: 'echo {release}'}}\n");
        app.write(&format!("releases/{release}/tasks.d/t.yaml"), &tasks);
    }
    let link = |release: &str| {
        symlink(app.file(&format!("releases/{release}")), app.file("new")).unwrap();
        fs::rename(app.file("new"), app.file("current")).unwrap();
    };
    let ways: [&[&str]; 2] = [&["--workdir", "current"], &["-A", "current"]];
    for way in ways {
        link("1");
        let words = [&["-b", &broker], way, &["worker", "-l", "INFO", "--pidfile", "w.pid"]];
        let worker = Worker::run(&app, &words.concat());
        worker.expect_line(" ready.");
        let release = || app.must(&["-A", "current", "-b", &broker, "call", "release", "--wait"]);
        assert_eq!(release(), "1");
        link("2");
        let inner = worker.pid();
        worker.signal(Signal::SIGHUP);
        eventually("a new worker", || (worker.pid() != inner).then_some(()));
        assert_eq!(release(), "2", "{way:?}");
        // A folder that is not there is no reason to end.
        fs::remove_file(app.file("current")).unwrap();
        worker.signal(Signal::SIGHUP);
        worker.expect_line("restart refused, the worker goes on: ");
        link("2");
        assert_eq!(release(), "2");
        let mut worker = worker;
        assert_eq!(worker.stop(Signal::SIGTERM), 0, "{}", worker.log());
        for place in ["w.pid", "releases/1/w.pid", "releases/2/w.pid"] {
            assert!(!app.file(place).exists(), "{place} is left");
        }
    }
}

#[test]
fn a_task_does_not_wait_for_its_own_worker() {
    let app =
        TestDir::with("deploy: {shell: '\"$QW\" multi $WORDS --pidfile=w.pid --logfile=log'}");
    let start = ["multi", "start", "w1", "--pidfile=w.pid", "--logfile=log", "-c", "2"];
    for words in ["restart w1", "stopwait w1", "restart w1 --rolling"] {
        let mut command = app.command(&start);
        command.env("QW", env!("CARGO_BIN_EXE_qworker")).env("WORDS", words);
        let started = Output::of(&mut command);
        assert_eq!(started.code, 0, "{started:?}");
        let pid: i32 = app.read("w.pid").trim().parse().unwrap();
        let said = app.qworker(&["call", "deploy", "--wait", "--timeout", "60"]);
        assert_eq!(said.code, 1, "{words}: {said:?}");
        let log = app.read("log");
        assert!(log.contains("this command runs in a task of w1@"), "{words}: {said:?} {log}");
        assert!(is_alive(pid), "{words}");
        let kill = ["multi", "kill", "w1", "--pidfile=w.pid", "--logfile=log"];
        assert_eq!(app.qworker(&kill).code, 0);
        fs::remove_file(app.file("log")).unwrap();
    }
}

#[test]
fn health_finds_its_worker_wherever_it_is_asked() {
    let (one, two) = (TestDir::with(SLOW), TestDir::with(SLOW));
    let node = format!("{}@{}", "n".repeat(100), "h".repeat(100));
    let _first = one.worker(&["-n", &node]);
    let mut worker = two.worker(&["-n", &node]);
    let health = |app: &TestDir, from: &TestDir, variables: &[(&str, &str)]| {
        let folder = app.path().display().to_string();
        let mut command = from.command(&["-A", &folder, "health", "--json", "-n", &node]);
        command.envs(variables.iter().copied());
        Output::of(&mut command)
    };
    let elsewhere = [("TMPDIR", "/nowhere"), ("XDG_RUNTIME_DIR", "/nowhere"), ("HOME", "/")];
    for (app, from) in [(&one, &one), (&one, &two), (&two, &one)] {
        for variables in [&[][..], &elsewhere] {
            let said = health(app, from, variables);
            let status: serde_json::Value = serde_json::from_str(&said.stdout).expect(&said.stderr);
            assert_eq!(status["app"], app.path().display().to_string(), "{said:?}");
        }
    }
    // Who is in neither has to say which.
    let which = TestDir::new();
    fs::remove_dir(which.file("tasks.d")).unwrap();
    let said = which.qworker(&["health", "-n", &node]);
    assert!(said.code == 69 && said.stderr.contains("cannot tell which"), "{said:?}");
    assert_eq!(worker.stop(Signal::SIGTERM), 0);
    let said = health(&two, &two, &[]);
    assert!(said.code == 69 && said.stderr.contains("has no living "), "{said:?}");
    assert_eq!(which.qworker(&["health", "-n", &node]).code, 0);
    // A second one of this name on one broker is told.
    let twin = one.worker(&["-n", &node]);
    twin.expect_line("another worker named n");
}

#[test]
fn a_worker_without_a_place_for_its_socket_is_asked_all_the_same() {
    if !is_root() {
        return;
    }
    let app = TestDir::with(SLOW);
    let places = "for place in /tmp /var/tmp /run; do mount -t tmpfs -o size=64k none $place \
        && mount -o remount,ro $place || exit 9; done";
    let script = format!(
        "mount --make-rprivate / && mkdir -p /mnt && mount --bind '{app}' /mnt && {places}
        cd /mnt && {qworker} worker -n alone@test >said 2>&1 & worker=$!
        while ! grep -q 'ready' /mnt/said; do sleep 0.1; kill -0 $worker || exit 8; done
        cd /mnt && {qworker} health -n alone@test; code=$?
        kill $worker; wait $worker; exit $code",
        app = app.path().display(),
        qworker = env!("CARGO_BIN_EXE_qworker"),
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script]).stdin(Stdio::null());
    let said = Output::of(&mut command);
    assert_eq!(said.code, 0, "{said:?} {}", app.read("said"));
    assert!(said.stdout.contains("alone@test is ready"), "{said:?}");
}

#[test]
fn the_later_of_an_option_given_twice_counts() {
    let app = TestDir::with(SLOW);
    let mut worker = app.worker(&["-l", "ERROR", "-c", "2", "-l", "INFO", "-c", "3"]);
    worker.expect_line("ready.");
    worker.expect_banner("concurrency: 3");
    assert_eq!(worker.stop(Signal::SIGTERM), 0);
    app.must(&["call", "tiny", "--queue", "a", "--queue", "celery"]);
    assert!(app.must(&["list", "queues"]).contains("celery"));
}

/// A filter of system calls, as containers have them: handles of processes are not known.
const WITHOUT_HANDLES: &str = r#"
import ctypes, os, struct, sys
def step(code, jt, jf, k): return struct.pack("HBBI", code, jt, jf, k)
number = b"".join([
    step(0x20, 0, 0, 0),                 # the number of the call
    step(0x15, 1, 0, 434),               # pidfd_open
    step(0x06, 0, 0, 0x7fff0000),        # allowed
    step(0x06, 0, 0, 0x00050000 | 38),   # ENOSYS
])
class Program(ctypes.Structure): _fields_ = [("length", ctypes.c_ushort), ("steps", ctypes.c_char_p)]
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.byref(Program(4, number))) == 0
os.execv(sys.argv[1], sys.argv[1:])
"#;

#[test]
fn without_handles_of_processes_nodes_are_stopped_all_the_same() {
    let app = TestDir::with(SLOW);
    let files = ["--pidfile=w.pid", "--logfile=log"];
    let multi = |words: &[&str]| {
        let words = [&["multi"], words, &files].concat();
        let plain = app.command(&words);
        let mut command = Command::new("python3");
        command.args(["-c", WITHOUT_HANDLES]).arg(plain.get_program()).args(&words);
        command.current_dir(app.path()).stdin(Stdio::null());
        Output::of(&mut command)
    };
    assert_eq!(multi(&["start", "w1"]).code, 0);
    let pid: i32 = app.read("w.pid").trim().parse().unwrap();
    let again = multi(&["start", "w1"]);
    assert!(again.stdout.contains(&format!("already running, pid {pid}")), "{again:?}");
    assert_eq!(multi(&["status", "w1"]).code, 0);
    let stopped = multi(&["stopwait", "w1"]);
    assert!(stopped.code == 0 && stopped.stdout.contains(&format!("TERM -> {pid}")), "{stopped:?}");
    assert!(!is_alive(pid) && !app.file("w.pid").exists());
    assert!(multi(&["stopwait", "w1"]).stdout.contains("DOWN"));
}
