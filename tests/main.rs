//! All tests that need more than one file of the program: one binary, linked once.

// A test that cannot go on has failed: that is what unwrap says.
#![allow(clippy::unwrap_used)]
// A child talks to its test, a failed history tells its story: both on standard output.
#![allow(clippy::print_stdout)]

mod commands;
mod contract;
mod fuzz;
mod golden;
mod harness;
mod process;
mod python;
mod schedule;
mod show;
mod sim;
mod system;
mod tidy;
