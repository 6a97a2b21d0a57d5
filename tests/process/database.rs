//! The embedded broker's file and the files beside it: who makes them, whose they are, what is
//! left of them; and hosts that refuse what is only an aid.

use super::{SLOW, await_lines};
use crate::harness::{Output, SOON, TestDir, eventually};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

const HELLO: &str = "hello: {shell: 'echo hello >>ran; echo hello'}\n";

/// A user without a name.
const UID: u32 = 54321;

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap().flatten();
    let mut all: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    all.sort();
    all
}

#[test]
fn commands_that_look_make_no_file() {
    let app = TestDir::with(HELLO);
    for (args, code) in [
        (&["status"][..], 69),
        (&["list", "queues"], 0),
        (&["result", "x"], 69),
        (&["dead", "list"], 0),
        (&["dead", "show", "1"], 1),
        (&["dead", "requeue", "--all"], 0),
        (&["purge", "-f"], 0),
        (&["check"], 0),
        (&["report"], 0),
    ] {
        let output = app.qworker(args);
        assert_eq!(output.code, code, "{args:?}: {output:?}");
        assert_eq!(names(app.path()), ["tasks.d"], "{args:?}");
    }
}

#[test]
fn what_root_makes_in_the_folder_of_a_service_is_the_services() {
    if !nix::unistd::geteuid().is_root() {
        return eprintln!("shows nothing: takes root");
    }
    let app = TestDir::with(HELLO);
    chown(app.path(), Some(UID), Some(UID)).unwrap();
    app.must(&["call", "hello"]);
    for name in ["var", "var/qworker.sqlite"] {
        let found = fs::metadata(app.file(name)).unwrap();
        assert_eq!((found.uid(), found.gid()), (UID, UID), "{name}");
    }
    assert_eq!(fs::metadata(app.database()).unwrap().mode() & 0o007, 0, "nothing for others");
    assert_eq!(names(&app.file("var")), ["qworker.sqlite"]);
    let mut worker = app.worker(&["--uid", "54321", "--gid", "54321", "-c", "1"]);
    assert_eq!(app.must(&["call", "hello", "--wait"]), "hello");
    assert_eq!(app.lines("ran").len(), 2);
    let run = fs::metadata(app.file("var/qworker.sqlite.run")).unwrap();
    assert_eq!((run.uid(), run.mode() & 0o777), (UID, 0o700));
    assert!(app.must(&["status"]).contains("1 node online"));
    assert_eq!(worker.stop(Signal::SIGTERM), 0);
    // The log is in the file, so that a copy of it has everything.
    assert_eq!(names(&app.file("var")), ["qworker.sqlite", "qworker.sqlite.run"]);
    for name in names(&app.file("var")) {
        assert_eq!(fs::metadata(app.file("var").join(&name)).unwrap().uid(), UID, "{name}");
    }
}

#[test]
fn a_file_behind_a_link_is_as_good_as_any() {
    let app = TestDir::with(&format!(
        "{HELLO}early: {{shell: 'echo early >>ran', acks_late: false}}\n{SLOW}"
    ));
    fs::create_dir_all(app.file("disk")).unwrap();
    fs::create_dir(app.file("var")).unwrap();
    symlink("../disk/q.sqlite", app.database()).unwrap();
    let early = app.must(&["call", "early"]);
    app.must(&["call", "slow"]);
    let (one, two) = (app.worker(&["-n", "one@h"]), app.worker(&["-n", "two@h"]));
    await_lines(&app, "started", 1);
    assert_eq!(app.qworker(&["result", &early, "--wait"]).code, 0);
    assert_eq!(app.must(&["call", "hello", "--wait"]), "hello");
    assert_eq!(app.lines("ran"), ["early", "hello"]);
    app.must(&["purge", "-f"]);
    assert!(app.must(&["status"]).contains("2 nodes online"));
    assert_eq!(names(&app.file("var")), ["qworker.sqlite"]);
    app.write("go", "");
    drop((one, two));
    assert_eq!(app.lines("started").len(), 1);
}

#[test]
fn an_application_may_have_any_name() {
    let outer = TestDir::new();
    let folder = outer.path().join(OsStr::from_bytes(b"caf\xe9"));
    fs::create_dir_all(folder.join("tasks.d")).unwrap();
    fs::write(folder.join("tasks.d/t.yaml"), HELLO).unwrap();
    let run = |args: &[&str]| {
        let mut command = outer.command(&[]);
        let mut app = OsString::from("--app=");
        app.push(&folder);
        Output::of(command.arg(app).args(args))
    };
    let files = ["--pidfile=%n.pid", "--logfile=%n.log"];
    let started = run(&[&["multi", "start", "w1"][..], &files].concat());
    assert_eq!(started.code, 0, "{started:?}");
    let called = run(&["call", "hello", "--wait"]);
    let status = run(&["status"]);
    let stopped = run(&[&["multi", "stopwait", "w1"][..], &files].concat());
    assert_eq!((called.code, called.stdout.as_str()), (0, "hello\n"), "{called:?}");
    assert!(status.stdout.contains("1 node online"), "{status:?}");
    assert_eq!(stopped.code, 0, "{stopped:?}");
    assert!(folder.join("var/qworker.sqlite").exists());
    assert_eq!(names(outer.path()).len(), 3, "tasks.d, the other folder, the log");
}

#[test]
fn a_host_without_inotify_is_looked_at_by_the_clock() {
    let app = TestDir::with(HELLO);
    let no_inotify = "echo 0 >/proc/sys/user/max_inotify_instances && exec \"$0\" \"$@\"";
    let mut child = Command::new("unshare")
        .args(["-Ur", "sh", "-c", no_inotify, env!("CARGO_BIN_EXE_qworker")])
        .args(["worker", "-c", "1"])
        .current_dir(app.path())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let called =
        app.qworker(&["call", "hello", "--wait", "--timeout", &SOON.as_secs().to_string()]);
    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).unwrap();
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    let ended = child.wait().unwrap();
    assert_eq!((called.code, called.stdout.as_str()), (0, "hello\n"), "{called:?}: {said}");
    assert_eq!(said.matches("no notification of file changes").count(), 1, "{said}");
    assert_eq!(ended.code(), Some(0), "{said}");
}

#[test]
fn a_folder_that_cannot_be_written_is_named_with_the_reason() {
    if !nix::unistd::geteuid().is_root() {
        return eprintln!("shows nothing: takes root");
    }
    let app = TestDir::with(HELLO);
    let open = |mode| fs::set_permissions(app.path(), fs::Permissions::from_mode(mode)).unwrap();
    open(0o755);
    let refused = Output::of(&mut as_user(&app, &["call", "hello"]));
    assert_eq!(refused.code, 69, "{refused:?}");
    assert!(refused.stderr.contains("/var: Permission denied"), "{refused:?}");
    app.must(&["call", "hello"]);
    let refused = Output::of(&mut as_user(&app, &["call", "hello"]));
    let said = "of user 0, mode";
    assert!(refused.code == 69 && refused.stderr.contains(said), "{refused:?}");
    // Others read nothing, unless it is allowed; then they need write nothing.
    assert_eq!(Output::of(&mut as_user(&app, &["list", "queues"])).code, 69);
    fs::set_permissions(app.database(), fs::Permissions::from_mode(0o644)).unwrap();
    let list = Output::of(&mut as_user(&app, &["list", "queues", "--json"]));
    assert!(list.stdout.contains("\"ready\":1"), "{list:?}");
    assert_eq!(names(&app.file("var")), ["qworker.sqlite"]);
}

/// `qworker ARGS` as a user without a name.
fn as_user(app: &TestDir, args: &[&str]) -> Command {
    use std::os::unix::process::CommandExt;
    let program = app.file("program");
    if !program.exists() {
        fs::copy(env!("CARGO_BIN_EXE_qworker"), &program).unwrap();
    }
    let mut command = Command::new(program);
    command.args(args).current_dir(app.path()).env("NO_COLOR", "1").stdin(Stdio::null());
    command.uid(UID).gid(UID);
    command
}

#[test]
fn nothing_is_written_through_a_link_in_the_place_of_the_folder_of_leases() {
    let app = TestDir::with(HELLO);
    let files = [("outside/tasks", "tasks of others"), ("outside/results", "results of others")];
    for (name, text) in files {
        app.write(name, text);
    }
    app.must(&["call", "hello"]);
    let run = app.file("var/qworker.sqlite.run");
    symlink("../outside", &run).unwrap();
    let mut worker = app.worker(&["-c", "1"]);
    let found = "/var/qworker.sqlite.run: found a symbolic link, expected a folder of this user";
    assert!(
        worker.expect_line("no lease and no wake-up file: ").contains(found),
        "{}",
        worker.log()
    );
    assert_eq!(app.must(&["call", "hello", "--wait"]), "hello");
    assert!(app.must(&["status"]).contains("1 node online"));
    assert_eq!(app.lines("ran").len(), 2);
    // In an empty folder nothing is made.
    fs::create_dir(app.file("empty")).unwrap();
    fs::remove_file(&run).unwrap();
    symlink("../empty", &run).unwrap();
    assert_eq!(app.must(&["call", "hello", "--wait"]), "hello");
    // Once it is gone, all is as ever.
    fs::remove_file(&run).unwrap();
    let is_lease = |name: &String| name.ends_with(".lease");
    eventually("a lease", || (run.exists() && names(&run).iter().any(is_lease)).then_some(()));
    assert_eq!(app.must(&["call", "hello", "--wait"]), "hello");
    assert_eq!(worker.log().matches("no lease").count(), 1, "{}", worker.log());
    assert_eq!(worker.stop(Signal::SIGTERM), 0);
    assert_eq!(names(&app.file("empty")), [""; 0]);
    assert_eq!(names(&app.file("outside")), ["results", "tasks"]);
    for (name, text) in files {
        assert_eq!(app.read(name), text);
    }
}

#[test]
fn a_worker_outlives_its_file() {
    let app = TestDir::with(HELLO);
    let mut worker = app.worker(&["-c", "1", "-n", "one@h"]);
    assert_eq!(app.must(&["call", "hello", "--wait"]), "hello");
    fs::remove_dir_all(app.file("var")).unwrap();
    worker.expect_line("was removed while it was in use");
    assert_eq!(app.must(&["call", "hello", "--wait"]), "hello");
    worker.expect_line("was replaced while it was in use");
    eventually("a lease", || app.must(&["status"]).contains("one@h").then_some(()));
    assert!(app.file("var/qworker.sqlite.run").exists());
    assert_eq!(worker.stop(Signal::SIGTERM), 0);
}

/// Within the application a folder is made; elsewhere one that is not there is a slip, or a disk that is
/// not mounted.
#[test]
fn a_folder_outside_of_the_application_is_not_made() {
    let app = TestDir::with("tiny: {shell: ':'}\n");
    app.write("schedule.yaml", "entries: {a: {task: tiny, schedule: 1h}}\n");
    let outside = tempfile::tempdir().unwrap();
    let missing = outside.path().join("no/such");
    let (file, folder) = (missing.join("x.db").display().to_string(), missing.display());
    let url = format!("sqlite:///{file}");
    let beside = format!("sqlite:///../{}-no/x.db", app.path().file_name().unwrap().display());
    for (args, code, named) in [
        (&["-b", &url, "worker"][..], 69, &url),
        (&["-b", &url, "call", "tiny"], 69, &url),
        (&["-b", &url, "beat"], 69, &url),
        (&["--result-backend", &url, "call", "tiny"], 69, &url),
        (&["--result-backend", &url, "worker"], 69, &url),
        (&["beat", "-s", &file], 2, &file),
        (&["worker", "-B", "-s", &file], 2, &file),
        (&["beat", "pause", "a", "-s", &file], 2, &file),
    ] {
        let output = app.qworker(args);
        assert_eq!(output.code, code, "{args:?}: {output:?}");
        let why = format!("{named}: there is no folder {folder}\nHint: make the folder first");
        assert!(output.stderr.contains(&why), "{args:?}: no {why:?} in {output:?}");
    }
    let output = app.qworker(&["-b", &beside, "call", "tiny"]);
    assert!(output.code == 69 && output.stderr.contains("-no\nHint"), "{output:?}");
    for args in [
        &["-b", &url, "status"][..],
        &["-b", &url, "list", "queues"],
        &["-b", &url, "dead", "list"],
        &["-b", &url, "result", "x"],
        &["-b", &url, "check"],
        &["-b", &url, "report"],
        &["-b", &url, "beat", "list"],
        &["beat", "list", "-s", &file],
        &["beat", "next", "a", "-s", &file],
    ] {
        app.qworker(args);
        assert_eq!(names(outside.path()), [""; 0], "{args:?}");
    }
    let inside = format!("sqlite:///{}", app.file("an/other/x.db").display());
    for url in ["sqlite:///deep/er/x.db", &inside] {
        assert_eq!(app.qworker(&["-b", url, "call", "tiny"]).code, 0, "{url}");
    }
    assert!(app.file("deep/er/x.db").exists() && app.file("an/other/x.db").exists());
}
