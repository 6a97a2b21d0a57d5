//! The progress messages of `multi`, worded as Celery's, on standard output.

use super::super::output::ToUser;
use crate::log::escape;

/// ANSI colour codes.
const RED: u8 = 31;
const GREEN: u8 = 32;
const BLUE: u8 = 34;
const MAGENTA: u8 = 35;
const CYAN: u8 = 36;

/// Writes messages, as many as the options ask for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Console {
    /// Where they are written.
    pub(super) out: ToUser,
    /// No first line with the version.
    pub(super) nosplash: bool,
    /// More than usual.
    pub(super) verbose: bool,
}

impl Console {
    /// The line with the version.
    pub(super) fn splash(&self) {
        if !self.nosplash {
            let text = format!("qworker multi v{}", env!("CARGO_PKG_VERSION"));
            self.write(&format!("{}\n", self.out.paint(CYAN, &text)));
        }
    }

    /// A line that `--quiet` suppresses.
    pub(super) fn note(&self, line: &str) {
        self.marked(line, "");
    }

    /// As [`Console::note`], with a mark of ours behind it, which has its colour already.
    pub(super) fn marked(&self, line: &str, mark: &str) {
        self.write(&format!("{}{mark}\n", escape::lines(line)));
    }

    /// As [`Console::note`], without the end of the line.
    pub(super) fn part(&self, text: &str) {
        self.write(&escape::lines(text));
    }

    fn write(&self, text: &str) {
        if !self.out.quiet {
            self.out.write(text);
        }
    }

    /// What is done to all nodes.
    pub(super) fn heading(&self, text: &str) {
        self.marked("", &self.out.paint(BLUE, &escape::lines(text)));
    }

    /// It went well.
    pub(super) fn ok(&self) -> String {
        self.out.paint(GREEN, "OK")
    }

    /// It did not.
    pub(super) fn failed(&self) -> String {
        self.out.paint(RED, "FAILED")
    }

    /// A node that does not run.
    pub(super) fn down(&self, name: &str) {
        self.marked(&format!("> {name}: "), &self.out.paint(MAGENTA, "DOWN"));
    }
}
