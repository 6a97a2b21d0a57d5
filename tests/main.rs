//! All tests that need more than one file of the program: one binary, linked once.

mod commands;
mod contract;
mod golden;
mod harness;
mod process;
mod python;
mod show;
mod sim;
mod tidy;
