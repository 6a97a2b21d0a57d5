//! The real command line: what each command prints where, and the code it ends with.

mod batch;
mod beat;
mod call;
mod check;
mod complete;
mod dead;
mod entrances;
mod flows;
mod help;
mod list;
mod man;
mod multi;
mod multi_parity;
mod output;
mod purge;
mod redis;
mod report;
mod result;
mod status;
mod worker;
mod zones;

use crate::harness::{Output, TestDir};

/// Tasks of most tests.
const TASKS: &str = r#"
add:
  exec: [expr, "{a}", +, "{b}"]
  params: [a, b]
  description: adds two numbers
greet:
  exec: [echo, "Hello, {name}!"]
  params: [{name: world}]
fail:
  shell: 'echo "oh no" >&2; exit 3'
later:
  shell: 'exit 75'
  retry_backoff: 1000
thumb:
  shell: ':'
  queue: media
  priority: 7
"#;

fn app() -> TestDir {
    TestDir::with(TASKS)
}

/// `qworker ARGS` with these variables.
fn with_env(app: &TestDir, variables: &[(&str, &str)], args: &[&str]) -> Output {
    Output::of(app.command(args).envs(variables.iter().copied()))
}

/// It must end with `code`, say all of `parts` on standard error, and nothing elsewhere.
#[track_caller]
fn refused(output: &Output, code: i32, parts: &[&str]) {
    assert_eq!((output.code, output.stdout.as_str()), (code, ""), "{output:?}");
    for part in parts {
        assert!(output.stderr.contains(part), "no {part:?} in {output:?}");
    }
}

/// It must end with 0, print `stdout`, and say nothing.
#[track_caller]
fn printed(output: &Output, stdout: &str) {
    assert_eq!((output.code, output.stdout.as_str(), output.stderr.as_str()), (0, stdout, ""));
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}
