//! Workers without a terminal: pidfiles, restarts in place, and what is told to whoever asks.

use super::{SLOW, await_lines};
use crate::harness::process::{is_alive, send};
use crate::harness::{SOON, TestDir, Worker, eventually};
use nix::sys::signal::Signal;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A detached worker of this application; it is killed in the end.
struct Detached<'a> {
    app: &'a TestDir,
    node: String,
}

impl<'a> Detached<'a> {
    /// Starts `worker --detach --pidfile w.pid` with a node name that no other test has.
    fn start(app: &'a TestDir, more: &[&str]) -> Detached<'a> {
        let node = format!("t{}@test", fastrand::u64(..));
        let detached = Detached { app, node };
        let output = detached.launch(more).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{said}");
        detached
    }

    fn launch(&self, more: &[&str]) -> Command {
        let words = ["worker", "-D", "--pidfile", "w.pid", "-n", &self.node];
        let mut command = self.app.command(&[&words, more].concat());
        command.current_dir(self.app.path()).stdin(Stdio::null());
        command
    }

    fn pid(&self) -> i32 {
        self.app.read("w.pid").trim().parse().unwrap()
    }

    fn health(&self, more: &[&str]) -> (Option<i32>, String) {
        let words = ["health", "-n", &self.node];
        let output = self.app.command(&[&words, more].concat()).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).unwrap())
    }

    fn end(&self, signal: Signal) {
        send(self.pid(), signal);
        eventually("the end of the worker", || (!self.app.file("w.pid").exists()).then_some(()));
    }
}

impl Drop for Detached<'_> {
    fn drop(&mut self) {
        if let Ok(text) = std::fs::read_to_string(self.app.path().join("w.pid"))
            && let Ok(pid) = text.trim().parse()
        {
            send(pid, Signal::SIGKILL);
        }
    }
}

#[test]
fn it_is_ready_when_the_command_returns_and_names_itself_until_it_ends() {
    let app = TestDir::with(SLOW);
    app.write("go", "");
    let worker = Detached::start(&app, &[]);
    let pid = worker.pid();
    assert_eq!(worker.health(&["--ready"]).0, Some(0));
    let id = app.must(&["call", "slow"]);
    assert_eq!(app.must(&["result", &id, "--wait"]), "done");
    // A session of its own, and nothing of the terminal.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let session: i32 =
        stat.rsplit_once(')').unwrap().1.split_whitespace().nth(3).unwrap().parse().unwrap();
    assert_ne!(session, nix::unistd::getsid(None).unwrap().as_raw());
    for fd in 0..3 {
        let target = std::fs::read_link(format!("/proc/{pid}/fd/{fd}")).unwrap();
        assert_eq!(target, Path::new("/dev/null"), "descriptor {fd}");
    }
    // A second one of the same pidfile is refused, and says whose it is.
    let output = worker.launch(&[]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(73), "{said}");
    assert!(said.contains("w.pid) already exists.") && said.contains(&format!("(pid: {pid})")));
    worker.end(Signal::SIGTERM);
    assert!(!app.file("w.pid").exists());
}

#[test]
fn a_start_that_fails_says_why() {
    let app = TestDir::with(SLOW);
    let fails = |words: &[&str], code: i32, why: &str| {
        let output = app.command(words).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{words:?}: {said}");
        assert!(said.contains(why), "{words:?}: {said}");
    };
    fails(&["-b", "redis://127.0.0.1:1", "worker", "-D"], 69, "Connection refused");
    fails(&["worker", "-D", "--pidfile", "/nowhere/x.pid"], 2, "--pidfile /nowhere/x.pid: No such");
    fails(&["worker", "-D", "--pidfile", "%N.pid"], 2, "%N means nothing");
    fails(&["worker", "-D", "--umask", "9"], 2, "expected an octal number");
    fails(&["worker", "-D", "--uid", "no-such-user"], 2, "no user named no-such-user");
    fails(&["worker", "-D", "--executable", "no/such"], 2, "no such file");
    app.write("qworker.yaml", "worker_concurrency: many\n");
    fails(&["worker", "-D"], 2, "qworker.yaml:1");
    // Nothing was left running.
    assert!(!app.file("var").exists());
}

#[test]
fn a_pidfile_of_somebody_who_is_gone_is_replaced_and_of_somebody_else_respected() {
    let app = TestDir::with(SLOW);
    for stale in ["", "\n", "999999999\n", "1234567"] {
        app.write("w.pid", stale);
        Detached::start(&app, &[]).end(Signal::SIGTERM);
    }
    // The number is alive, but of a process that is younger than the file: recycled.
    app.write("w.pid", "");
    let mut innocent = Command::new("sleep").arg("100").spawn().unwrap();
    let number = format!("{}\n", innocent.id());
    app.write("w.pid", &number);
    let hour = std::time::SystemTime::now() - Duration::from_secs(3600);
    let file = std::fs::File::options().write(true).open(app.path().join("w.pid")).unwrap();
    file.set_modified(hour).unwrap();
    Detached::start(&app, &[]).end(Signal::SIGTERM);
    // A program that does not lock its file, as Celery: it is older than what it wrote.
    app.write("w.pid", &number);
    let output =
        app.command(&["worker", "-D", "--pidfile", "w.pid"]).current_dir(app.path()).output();
    assert_eq!(output.unwrap().status.code(), Some(73));
    assert!(innocent.try_wait().unwrap().is_none(), "nobody signalled it");
    innocent.kill().unwrap();
    innocent.wait().unwrap();
}

#[test]
fn of_many_that_start_at_once_one_lives() {
    let app = TestDir::with(SLOW);
    let worker = Detached { app: &app, node: format!("t{}@test", fastrand::u64(..)) };
    let starting: Vec<_> =
        (0..8).map(|_| worker.launch(&[]).stderr(Stdio::null()).spawn().unwrap()).collect();
    let codes: Vec<_> = starting.into_iter().map(|mut one| one.wait().unwrap().code()).collect();
    assert_eq!(codes.iter().filter(|code| **code == Some(0)).count(), 1, "{codes:?}");
    assert!(codes.iter().all(|code| [Some(0), Some(73)].contains(code)), "{codes:?}");
    worker.end(Signal::SIGTERM);
}

#[test]
fn hup_is_a_new_start_of_the_same_process() {
    let app = TestDir::with(SLOW);
    let worker = Detached::start(&app, &["-c", "2"]);
    let pid = worker.pid();
    let inner = || {
        let (code, said) = worker.health(&["--json"]);
        let status: serde_json::Value = serde_json::from_str(&said).ok()?;
        (code == Some(0))
            .then(|| (status["pid"].as_i64().unwrap(), status["guard"].as_i64().unwrap()))
    };
    let (first, guard) = inner().unwrap();
    assert_eq!(guard, i64::from(pid));
    app.must(&["call", "slow", "--task-id", "a"]);
    await_lines(&app, "started", 1);
    app.write("tasks.d/new.yaml", "new: {shell: 'echo new'}\n");
    app.write("qworker.yaml", "task_env: {X: y}\n");
    send(pid, Signal::SIGHUP);
    eventually("the drain", || worker.health(&[]).1.contains("it is draining").then_some(()));
    app.write("go", "");
    let (_, guard) = eventually("the new worker", || inner().filter(|(inner, _)| *inner != first));
    assert_eq!((worker.pid(), guard), (pid, i64::from(pid)));
    assert_eq!(app.must(&["result", "a", "--wait"]), "done");
    let id = app.must(&["call", "new"]);
    assert_eq!(app.must(&["result", &id, "--wait"]), "new");
    worker.end(Signal::SIGTERM);
}

#[test]
fn health_tells_alive_from_ready_and_dead() {
    let server = crate::harness::redis::Server::start();
    let app = TestDir::with(SLOW);
    app.write("qworker.yaml", &format!("broker_url: {}\n", server.url()));
    let worker = Detached::start(&app, &["-c", "1"]);
    let (code, said) = worker.health(&[]);
    assert_eq!((code, said.contains("is ready: 0 of 1 slots")), (Some(0), true), "{said}");
    // All slots busy is no trouble.
    app.must(&["call", "slow", "--task-id", "a"]);
    await_lines(&app, "started", 1);
    assert_eq!(worker.health(&["--ready"]).0, Some(0));
    drop(server);
    // That nothing came of late is seen first, the reason with the next try.
    eventually("not ready", || {
        let (code, said) = worker.health(&["--ready"]);
        (code == Some(1) && said.contains("is alive, and not ready: redis://")).then_some(())
    });
    assert_eq!(worker.health(&["--live"]).0, Some(0));
    // The worker proper stands still.
    let (_, said) = worker.health(&["--json"]);
    let status: serde_json::Value = serde_json::from_str(&said).unwrap();
    let inner = status["pid"].as_i64().unwrap() as i32;
    send(inner, Signal::SIGSTOP);
    let (code, said) = worker.health(&["--live", "--timeout", "0.2"]);
    assert_eq!((code, said.contains("no answer within 0.2 s")), (Some(69), true), "{said}");
    send(worker.pid(), Signal::SIGKILL);
    eventually("its death", || (worker.health(&["--live"]).0 == Some(69)).then_some(()));
    eventually("the end of the worker", || (!is_alive(inner)).then_some(()));
}

/// Plays the service manager.
struct Manager(UnixDatagram);

impl Manager {
    /// The next message that has this line.
    fn await_line(&self, line: &str) -> String {
        let end = Instant::now() + SOON;
        loop {
            self.0.set_read_timeout(Some(end - Instant::now())).unwrap();
            let mut text = [0; 4096];
            let length = self.0.recv(&mut text).unwrap_or_else(|_| panic!("no {line}"));
            let text = String::from_utf8_lossy(&text[..length]).into_owned();
            if text.lines().any(|one| one.starts_with(line)) {
                return text;
            }
        }
    }
}

#[test]
fn a_service_manager_is_told() {
    let app = TestDir::with(SLOW);
    let socket = app.path().join("notify");
    let manager = Manager(UnixDatagram::bind(&socket).unwrap());
    app.write("tasks.d/env.yaml", "env: {shell: 'env'}\n");
    let mut command = app.command(&["worker", "-n", "notify@test", "--pidfile", "w.pid"]);
    command.current_dir(app.path()).env("NOTIFY_SOCKET", &socket).env("WATCHDOG_USEC", "400000");
    let mut guard = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    manager.await_line("READY=1");
    manager.await_line("WATCHDOG=1");
    manager.await_line("STATUS=running: 0 of ");
    let id = app.must(&["call", "env"]);
    let env = app.must(&["result", &id, "--wait"]);
    assert!(!env.contains("NOTIFY_SOCKET") && !env.contains("WATCHDOG_USEC"), "{env}");
    let pid = guard.id() as i32;
    send(pid, Signal::SIGHUP);
    assert!(manager.await_line("RELOADING=1").contains("MONOTONIC_USEC="));
    manager.await_line("READY=1");
    manager.await_line("WATCHDOG=1");
    send(pid, Signal::SIGTERM);
    manager.await_line("STOPPING=1");
    assert_eq!(guard.wait().unwrap().code(), Some(0));
}

#[test]
fn a_worker_removes_the_sockets_that_killed_ones_have_left() {
    use std::os::unix::net::UnixListener;
    let app = TestDir::new();
    let folder = app.file("sockets");
    std::fs::create_dir(&folder).unwrap();
    let [old, young, living] =
        ["old", "young", "living"].map(|name| folder.join(format!("{name}~0123456789abcdef.sock")));
    let _listener = UnixListener::bind(&living).unwrap();
    for path in [&old, &young] {
        drop(UnixListener::bind(path).unwrap());
    }
    let aged = Command::new("touch").args(["-d", "2 minutes ago"]).args([&old, &living]).status();
    assert!(aged.unwrap().success());
    let mut worker = Worker::of({
        let mut command = app.command(&["worker"]);
        command.env("RUNTIME_DIRECTORY", &folder);
        command
    });
    worker.expect_line(" ready.");
    eventually("the end of the old socket", || (!old.exists()).then_some(()));
    assert!(young.exists() && living.exists());
    assert_eq!(worker.stop(Signal::SIGTERM), 0);
}
