//! WASI commands: what they see, and what they do not.

use super::*;
use serde_json::{Value, json};

/// Writes `_start` and imports around the body of a command.
fn command(body: &str) -> String {
    format!(
        r#"(module
      (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
      (import "wasi_snapshot_preview1" "fd_write"
        (func $write (param i32 i32 i32 i32) (result i32)))
      (import "wasi_snapshot_preview1" "fd_read"
        (func $read (param i32 i32 i32 i32) (result i32)))
      (import "wasi_snapshot_preview1" "args_sizes_get"
        (func $args_sizes (param i32 i32) (result i32)))
      (import "wasi_snapshot_preview1" "args_get" (func $args (param i32 i32) (result i32)))
      (import "wasi_snapshot_preview1" "environ_sizes_get"
        (func $env_sizes (param i32 i32) (result i32)))
      (import "wasi_snapshot_preview1" "environ_get" (func $env (param i32 i32) (result i32)))
      (import "wasi_snapshot_preview1" "path_open"
        (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
      (memory (export "memory") 17)
      (data (i32.const 65536) "PATH")
      (func (export "_start") {body}))"#
    )
}

/// Writes `len` bytes at `at` to descriptor `fd`.
fn write(fd: u32, at: u32, len: &str) -> String {
    format!(
        "(i32.store (i32.const 0) (i32.const {at})) (i32.store (i32.const 4) {len})
         (drop (call $write (i32.const {fd}) (i32.const 0) (i32.const 1) (i32.const 8)))"
    )
}

#[test]
fn exit_codes() {
    let house = house();
    for (body, code) in
        [("", 0), ("(call $exit (i32.const 0))", 0), ("(call $exit (i32.const 75))", 75)]
    {
        let outcome = house.run(&house.attempt(&command(body), None, &[]));
        assert_eq!(outcome.ending, Ending::Exited(code));
    }
}

#[test]
fn arguments_and_environment() {
    let house = house();
    let argv = command(&format!(
        "(drop (call $args_sizes (i32.const 16) (i32.const 20)))
         (drop (call $args (i32.const 1024) (i32.const 4096))) {}",
        write(1, 4096, "(i32.load (i32.const 20))")
    ));
    let attempt = house.attempt(&argv, None, &["\"a b\"", "1.50", "{\"k\": [1]}", "null"]);
    assert_eq!(stdout(&house.run(&attempt)), "a.task\0a b\x001.50\0{\"k\": [1]}\0null\0");
    let nul = house.attempt(&argv, None, &["\"a\\u0000b\""]);
    assert_eq!(wrong(&house.run(&nul).ending).0, "ValueError");

    let env = argv.replace("$args_sizes (i32.const 16)", "$env_sizes (i32.const 16)");
    let env = env.replace("(call $args (i32.const 1024)", "(call $env (i32.const 1024)");
    let mut attempt = with(house.attempt(&env, None, &[]), |task| {
        task.env = vec![("MODE".into(), "fast".into())];
    });
    attempt.kwargs = vec![("size".into(), RawValue::from_string("10".into()).unwrap())];
    attempt.args = vec![RawValue::from_string("\"one\"".into()).unwrap()];
    let outcome = stdout(&house.run(&attempt));
    let (head, deadline) = outcome.split_once("QWORKER_TASK_DEADLINE=").unwrap();
    let expected = "MODE=fast\0ARG_size=10\0ARG_1=one\0\
         QWORKER_TASK_ID=an-id\0QWORKER_TASK_NAME=a.task\0\
         QWORKER_TASK_ROOT_ID=a-root\0QWORKER_TASK_PARENT_ID=\0QWORKER_TASK_RETRIES=2\0\
         QWORKER_TASK_HOSTNAME=worker1@here\0QWORKER_TASK_QUEUE=celery\0";
    assert_eq!(head, expected);
    assert!(deadline.trim_end_matches('\0').parse::<u64>().unwrap() > 1_700_000_000);
}

#[test]
fn standard_input() {
    let house = house();
    let cat = command(&format!(
        "(i32.store (i32.const 0) (i32.const 4096)) (i32.store (i32.const 4) (i32.const 60000))
         (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8))) {}",
        write(1, 4096, "(i32.load (i32.const 8))")
    ));
    let mut attempt = house.attempt(&cat, None, &["12345678901234567890123", "\"x\""]);
    assert_eq!(stdout(&house.run(&attempt)), "");
    attempt.kwargs = vec![("a\"b".into(), RawValue::from_string("[1]".into()).unwrap())];
    let attempt = with(attempt, |task| task.stdin = Stdin::Json);
    let text = stdout(&house.run(&attempt));
    assert!(text.contains("12345678901234567890123"));
    let document: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(document["kwargs"], json!({"a\"b": [1]}));
    assert_eq!(document["request"]["retries"], 2);
    assert_eq!(document["request"]["parent_id"], json!(null));
    assert!(document["request"]["deadline"].as_f64().unwrap() > 1.7e9);
}

#[test]
fn a_hundred_megabytes_of_output() {
    let body = format!(
        "(local $i i32) (loop {} (local.set $i (i32.add (local.get $i) (i32.const 1)))
           (br_if 0 (i32.lt_u (local.get $i) (i32.const 100)))) {}",
        write(1, 65536, "(i32.const 1048576)"),
        write(2, 65536, "(i32.const 4)"),
    );
    let house = house();
    let attempt = house.attempt(&command(&body).replace("17)", "33)"), None, &[]);
    let outcome = house.run(&with(attempt, |task| task.max_output = Some(1000)));
    assert_eq!(outcome.ending, Ending::Exited(0));
    assert_eq!(outcome.stdout.bytes.len(), 1000);
    assert_eq!(outcome.stdout.dropped, 100 * 1024 * 1024 - 1000);
    assert_eq!(outcome.stderr.bytes, b"PATH");
}

/// The WASI error number of opening a path in the first folder, 0 if it could be opened.
fn open(house: &House, dirs: &[Dir], path: &str, flags: u32, rights: u64) -> i32 {
    let body = format!(
        "(call $exit (call $open (i32.const 3) (i32.const 1) (i32.const 65536)
          (i32.const {}) (i32.const {flags}) (i64.const {rights}) (i64.const 0)
          (i32.const 0) (i32.const 16)))",
        path.len()
    );
    let attempt =
        house.attempt(&command(&body).replace("\"PATH\"", &format!("{path:?}")), None, &[]);
    let outcome = house.run(&with(attempt, |task| task.dirs = dirs.to_vec()));
    let Ending::Exited(code) = outcome.ending else { panic!("{:?}", outcome.ending) };
    code
}

#[test]
fn only_the_given_folders_are_seen() {
    const READ: u64 = 2;
    const WRITE: u64 = 64;
    const CREATE: u32 = 1;
    let house = house();
    let inside = house.folder.path().join("inside");
    fs::create_dir(&inside).unwrap();
    fs::write(inside.join("file"), "x").unwrap();
    fs::write(house.folder.path().join("secret"), "x").unwrap();
    std::os::unix::fs::symlink("../secret", inside.join("link")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", inside.join("absolute")).unwrap();
    std::os::unix::fs::symlink("..", inside.join("up")).unwrap();
    let dir = |writable| vec![Dir { host: inside.clone(), guest: "/data".into(), writable }];
    let (ro, rw) = (dir(false), dir(true));
    assert_eq!(open(&house, &ro, "file", 0, READ), 0);
    for path in
        ["../secret", "link", "absolute", "/etc/passwd", "up/secret", "./../inside/../secret"]
    {
        assert_ne!(open(&house, &rw, path, 0, READ), 0, "{path}");
        assert_ne!(open(&house, &rw, path, CREATE, READ | WRITE), 0, "{path}");
    }
    assert_ne!(open(&house, &ro, "file", 0, WRITE), 0);
    assert_ne!(open(&house, &ro, "new", CREATE, READ), 0);
    assert!(!inside.join("new").exists());
    assert_eq!(open(&house, &rw, "new", CREATE, READ | WRITE), 0);
    assert!(inside.join("new").exists());
    // Without folders there is no descriptor 3 (8 is `badf`).
    assert_eq!(open(&house, &[], "file", 0, READ), 8);
    assert_eq!(fs::read(house.folder.path().join("secret")).unwrap(), b"x");
}

#[test]
fn open_files_are_bounded() {
    let body = r#"(loop (br_if 0 (i32.eqz (call $open (i32.const 3) (i32.const 1)
        (i32.const 65536) (i32.const 1) (i32.const 0) (i64.const 0) (i64.const 0)
        (i32.const 0) (i32.const 16)))))"#;
    let house = house();
    let dir = Dir { host: house.folder.path().into(), guest: "/".into(), writable: false };
    let wat = command(body).replace("PATH", ".");
    let attempt = with(house.attempt(&wat, None, &[]), |task| task.dirs = vec![dir]);
    let outcome = house.run(&attempt);
    assert_eq!(wrong(&outcome.ending).0, "Trap", "{outcome:?}");
    assert!(outcome.runtime < Duration::from_secs(1));
}

#[test]
fn a_folder_that_is_not_there_is_named() {
    let house = house();
    let dir = Dir { host: "/no/such/folder".into(), guest: "/".into(), writable: false };
    let attempt = with(house.attempt(&command(""), None, &[]), |task| task.dirs = vec![dir]);
    let (class, message) = wrong(&house.run(&attempt).ending);
    assert_eq!(class, "FileNotFoundError");
    assert!(message.contains("/no/such/folder"), "{message}");
}

#[test]
fn components_can_be_commands() {
    let wat = r#"(component
      (import "wasi:cli/exit@0.2.0" (instance $exit
        (export "exit" (func (param "status" (result))))))
      (core func $exit (canon lower (func $exit "exit")))
      (core module $m
        (import "h" "exit" (func $exit (param i32)))
        (func (export "run") (result i32) BODY))
      (core instance $h (export "exit" (func $exit)))
      (core instance $i (instantiate $m (with "h" (instance $h))))
      (func $run (result (result)) (canon lift (core func $i "run")))
      (instance $command (export "run" (func $run)))
      (export "wasi:cli/run@0.2.0" (instance $command)))"#;
    let house = house();
    for (body, ending) in [
        ("i32.const 0", Ending::Exited(0)),
        ("i32.const 1", Ending::Exited(1)),
        ("(call $exit (i32.const 1)) i32.const 0", Ending::Exited(1)),
        ("(call $exit (i32.const 0)) i32.const 1", Ending::Exited(0)),
    ] {
        let attempt = house.attempt(&wat.replace("BODY", body), None, &[]);
        assert_eq!(house.run(&attempt).ending, ending);
    }
    let trap = house.run(&house.attempt(&wat.replace("BODY", "unreachable"), None, &[]));
    assert_eq!(wrong(&trap.ending).0, "Trap");
}
