//! Python with the real Celery and kombu, from `target/venv`.

use super::app::Output;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The interpreter that has Celery.
pub fn python() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/venv/bin/python");
    assert!(
        path.exists(),
        "{} is missing, and these tests compare with the real Celery: run scripts/test, or \
         `python3 -m venv target/venv && target/venv/bin/pip install celery==5.7.* ephem sqlalchemy`",
        path.display()
    );
    path
}

/// Runs a script whose last line of output is JSON, and gives that.
pub fn run(script: &str, args: &[&str]) -> Value {
    let output = Output::of(Command::new(python()).arg("-c").arg(script).args(args));
    assert_eq!(output.code, 0, "the script failed:\n{}\n{}", output.stderr, script);
    let last = output.stdout.lines().last().unwrap_or_default();
    serde_json::from_str(last).unwrap_or_else(|error| panic!("{error}: {last}"))
}
