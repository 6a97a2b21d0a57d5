//! The command line, one file for each command: what it prints, where, and its exit code.

mod call;
mod check;
mod dead;
mod help;
mod list;
mod purge;
mod report;
mod result;
mod status;
mod worker;

use crate::harness::Output;

/// Expects this exit code and these parts of standard error.
fn refused(output: &Output, code: i32, parts: &[&str]) {
    assert_eq!(output.code, code, "{output:?}");
    assert_eq!(output.stdout, "", "talk goes to standard error");
    for part in parts {
        assert!(output.stderr.contains(part), "{part:?} is not in {:?}", output.stderr);
    }
}
