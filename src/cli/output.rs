//! The only code that prints: data to standard output, talk to standard error. A
//! closed pipe ends nothing: whoever reads has what it wanted.

use crate::link::address::redact_all;
use crate::log::escape;
use std::io::{self, IsTerminal, Write};

/// The user's end of a command.
#[derive(Debug, Clone, Copy)]
pub struct ToUser {
    /// Colours are wanted, as far as standard output is a terminal.
    pub color: bool,
    /// Less talk.
    pub quiet: bool,
}

impl ToUser {
    /// Colours unless they are refused, by option or by `NO_COLOR`.
    pub fn new(no_color: bool, quiet: bool) -> ToUser {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        ToUser { color: !no_color && !refused, quiet }
    }

    /// One line of data.
    pub fn print(&self, line: &str) {
        self.write(&format!("{line}\n"));
    }

    /// A text from outside, as it is; on a terminal without what would move its cursor.
    pub fn data(&self, text: &str) {
        match io::stdout().is_terminal() {
            true => self.print(&escape::lines(text)),
            false => self.print(text),
        }
    }

    /// Data as it is.
    pub fn write(&self, text: &str) {
        let mut out = io::stdout().lock();
        // A reader that went away (`| head`) is no error of ours.
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }

    /// One line of talk. It may repeat what somebody typed: passwords of addresses are hidden.
    pub fn say(&self, line: &str) {
        let _ = writeln!(io::stderr().lock(), "{}", escape::lines(&redact_all(line)));
    }

    /// `text` in this SGR colour, on a terminal.
    pub fn paint(&self, color: u8, text: &str) -> String {
        if self.color && io::stdout().is_terminal() {
            format!("\x1b[1;{color}m{text}\x1b[0m")
        } else {
            text.to_string()
        }
    }

    /// Rows of columns, each as wide as its widest cell.
    pub fn table(&self, header: &[&str], rows: &[Vec<String>]) {
        let rows: Vec<Vec<String>> = rows
            .iter()
            .map(|row| row.iter().map(|cell| escape::line(cell).into_owned()).collect())
            .collect();
        let widths: Vec<usize> = (0..header.len())
            .map(|n| {
                let cells =
                    rows.iter().filter_map(|row| row.get(n)).map(|cell| cell.chars().count());
                cells.chain([header[n].len()]).max().unwrap_or(0)
            })
            .collect();
        let line = |cells: &mut dyn Iterator<Item = &str>| {
            let padded: Vec<String> =
                cells.zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            padded.join("  ").trim_end().to_string()
        };
        self.print(&line(&mut header.iter().copied()));
        for row in &rows {
            self.print(&line(&mut row.iter().map(String::as_str)));
        }
    }

    /// Asks, and takes nothing but a yes for one.
    pub fn confirm(&self, question: &str) -> bool {
        let mut err = io::stderr().lock();
        let _ = write!(err, "{question} [y/N]: ").and_then(|()| err.flush());
        let mut answer = String::new();
        if io::stdin().read_line(&mut answer).is_err() {
            return false;
        }
        matches!(answer.trim().to_lowercase().as_str(), "y" | "yes")
    }
}
