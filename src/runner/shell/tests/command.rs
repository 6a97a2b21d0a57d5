//! From an attempt to its command, without a process.

use super::*;
use serde_json::json;

fn argv_of(attempt: &Attempt) -> Vec<String> {
    let argv = built(attempt).unwrap().argv;
    argv.iter().map(|item| item.to_str().unwrap().to_string()).collect()
}

fn variable(command: &ProcessCommand, name: &str) -> Option<String> {
    let found: Vec<_> =
        command.env.iter().filter_map(|entry| entry.to_str().unwrap().split_once('=')).collect();
    let mut values = found.iter().filter(|(known, _)| *known == name);
    let value = values.next().map(|(_, value)| value.to_string());
    assert!(values.next().is_none(), "{name} twice");
    value
}

#[test]
fn argument_vectors() {
    let file = task(Program::File("/etc/tasks.d/tool".into()));
    for (task, args, kwargs, expected) in [
        (
            shell("echo $1"),
            vec!["\"a b\"", "1"],
            vec![("k", "2")],
            vec!["/bin/sh", "-c", "echo $1", "t.name", "a b", "1"],
        ),
        (
            with_params(shell("x"), &["a", "b"]),
            vec!["1"],
            vec![("b", "\"z\"")],
            vec!["/bin/sh", "-c", "x", "t.name", "1", "z"],
        ),
        (file, vec!["\"--x\"", "null"], vec![("k", "2")], vec!["/etc/tasks.d/tool", "--x", "null"]),
        (
            exec(&["convert", "{1}", "-resize", "{w}x{h}", "{2}"]),
            vec!["\"in\"", "\"out\""],
            vec![("w", "4"), ("h", "5")],
            vec!["convert", "in", "-resize", "4x5", "out"],
        ),
        (exec(&["a", "{*}", "{2}"]), vec!["1", "2", "3"], vec![], vec!["a", "1", "3", "2"]),
        (exec(&["a", "{*}"]), vec![], vec![("k", "2")], vec!["a"]),
        (
            with_params(exec(&["a", "{x}", "{*}"]), &["x", "y"]),
            vec!["1", "2"],
            vec![],
            vec!["a", "1", "2"],
        ),
        (
            exec(&["awk", "{{print}}", "{1}"]),
            vec!["\"; rm -rf $HOME\\n'\\\"\""],
            vec![],
            vec!["awk", "{print}", "; rm -rf $HOME\n'\""],
        ),
    ] {
        assert_eq!(argv_of(&attempt(task, &args, &kwargs)), expected);
    }
}

#[test]
fn commands_that_cannot_be() {
    let long = format!("\"{}\"", "x".repeat(ARG_BYTES_MAX));
    let error = |task: Task, args: &[&str], kwargs: &[(&str, &str)]| {
        let exception = built(&attempt(task, args, kwargs)).unwrap_err();
        (
            exception.exc_type.clone(),
            exception.exc_message.last().unwrap().as_str().unwrap().to_string(),
        )
    };
    assert_eq!(error(exec(&["a", "{b}"]), &["1"], &[]).0, "TypeError");
    assert_eq!(error(exec(&["a", "{2}"]), &["1"], &[]).0, "TypeError");
    let nul = error(shell(""), &["1", "\"a\\u0000b\""], &[]);
    assert_eq!(nul, ("ValueError".into(), "embedded null byte in argument 2".into()));
    let nul = error(shell(""), &[], &[("k", "\"a\\u0000b\"")]);
    assert_eq!(nul, ("ValueError".into(), "embedded null byte in argument 1 ('k')".into()));
    let (class, text) = error(shell(""), &["1"], &[("big", &long)]);
    assert_eq!(class, "OSError");
    let expected = "Argument list too long: argument 2 ('big') has 131071 bytes; use `stdin: json` for large arguments";
    assert_eq!(text, expected);
}

#[test]
fn environment_and_standard_input() {
    let mut task = shell("x");
    task.stdin = Stdin::Json;
    task.env = vec![("A".into(), "task".into())];
    let long = format!("\"{}\"", "x".repeat(ARG_BYTES_MAX));
    let mut attempt = attempt(task, &["1.0", &long], &[("key", "\"v\""), ("a=b", "1")]);
    attempt.env = Arc::new(vec![("A".into(), "app".into()), ("B".into(), "app".into())]);
    attempt.soft_time_limit = Some(Duration::from_secs(5));
    let command = built(&attempt).unwrap();
    let get = |name| variable(&command, name);
    assert_eq!(get("PATH").unwrap(), "/bin:/usr/bin");
    assert_eq!(get("A").unwrap(), "task");
    assert_eq!(get("B").unwrap(), "app");
    assert_eq!(get("ARG_1").unwrap(), "1.0");
    assert_eq!((get("ARG_2"), get("ARG_a")), (None, None));
    assert_eq!(get("ARG_key").unwrap(), "v");
    for ours in ["QWORKER_BROKER_URL", "QWORKER_RESULT_BACKEND"] {
        assert_eq!(get(ours), None, "tasks inherit no settings");
    }
    assert_eq!(get("QWORKER_APP").unwrap(), "/srv/shop");
    assert_eq!(get("QWORKER_TASK_ID").unwrap(), attempt.id);
    assert_eq!(get("QWORKER_TASK_NAME").unwrap(), "t.name");
    assert_eq!(get("QWORKER_TASK_ROOT_ID").unwrap(), "root");
    assert_eq!(get("QWORKER_TASK_PARENT_ID").unwrap(), "");
    assert_eq!(get("QWORKER_TASK_RETRIES").unwrap(), "2");
    assert_eq!(get("QWORKER_TASK_HOSTNAME").unwrap(), "w@h");
    assert_eq!(get("QWORKER_TASK_QUEUE").unwrap(), "media");
    assert_eq!(get("QWORKER_TASK_DEADLINE").unwrap(), "1005");
    assert_eq!(command.argv.last().unwrap().as_c_str(), c"");
    assert_eq!(command.cwd, Path::new("/app"));

    let text = String::from_utf8(command.stdin.unwrap()).unwrap();
    assert!(text.starts_with(r#"{"args":[1.0,"xxx"#) && text.ends_with("}\n"));
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(document["kwargs"], json!({"key": "v", "a=b": 1}));
    assert_eq!(document["request"]["deadline"], 1005.5);
    assert_eq!(document["request"]["parent_id"], json!(null));

    // The earlier of both limits is the deadline.
    for (soft, hard) in [(5, 9), (9, 5)] {
        attempt.soft_time_limit = Some(Duration::from_secs(soft));
        attempt.time_limit = Some(Duration::from_secs(hard));
        let command = built(&attempt).unwrap();
        assert_eq!(variable(&command, "QWORKER_TASK_DEADLINE").unwrap(), "1005");
    }
    (attempt.soft_time_limit, attempt.time_limit) = (None, None);
    assert_eq!(variable(&built(&attempt).unwrap(), "QWORKER_TASK_DEADLINE"), None);
}
