//! The only code that prints: data to standard output, talk to standard error. A pipe whose
//! reader went away ends nothing: it has what it wanted. Any other failure is remembered.

use super::table;
use crate::link::address::redact_all;
use crate::log::escape;
use crate::os::stdout;
use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;

/// Why something could not be printed. The process has one standard output.
static LOST: OnceLock<io::Error> = OnceLock::new();

/// Why something that was printed is lost, if it is.
pub(super) fn lost() -> Option<&'static io::Error> {
    LOST.get()
}

/// Notes what became of something that others have printed.
pub(super) fn note(printed: io::Result<()>) {
    if let Err(error) = printed.and_then(|()| open()).or_else(forgive) {
        let _ = LOST.set(error);
    }
}

fn written(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let done = open().and_then(|()| out.write_all(text.as_bytes())).and_then(|()| out.flush());
    done.or_else(forgive)
}

fn open() -> io::Result<()> {
    // What stands in its place takes everything.
    if stdout::was_closed() { Err(nix::errno::Errno::EBADF.into()) } else { Ok(()) }
}

/// What comes from outside, for standard output: as it is, but on a terminal without what would
/// move its cursor.
fn of_outside(text: &str) -> Cow<'_, str> {
    if io::stdout().is_terminal() { escape::lines(text) } else { Cow::Borrowed(text) }
}

/// A reader that went away (`| head`) is no error of ours.
fn forgive(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::BrokenPipe { Ok(()) } else { Err(error) }
}

/// The user's end of a command.
#[derive(Debug, Clone, Copy)]
pub(super) struct ToUser {
    /// Colours are wanted, as far as standard output is a terminal.
    pub color: bool,
    /// Less talk.
    pub quiet: bool,
}

impl ToUser {
    /// Colours unless they are refused, by option, by `NO_COLOR`, or by the terminal.
    pub(super) fn new(no_color: bool, quiet: bool) -> ToUser {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_none_or(|value| value == "dumb");
        ToUser { color: !no_color && !refused && !dumb, quiet }
    }

    /// One line of data.
    pub(super) fn print(&self, line: &str) {
        self.write(&format!("{line}\n"));
    }

    /// A line for people, or some, with names in it that come from outside.
    pub(super) fn tell(&self, line: &str) {
        self.print(&escape::lines(line));
    }

    /// A text from outside, as it is; on a terminal without what would move its cursor.
    pub(super) fn data(&self, text: &str) {
        self.print(&of_outside(text));
    }

    /// Data as it is. What could not be written fails the command in the end ([`lost`]), after it
    /// has done what it was asked.
    pub(super) fn write(&self, text: &str) {
        if let Err(error) = written(text) {
            // The first one counts.
            let _ = LOST.set(error);
        }
    }

    /// As [`ToUser::write`], for what somebody starts with: a program that goes on for days is not
    /// judged by it.
    pub(super) fn announce(&self, text: &str) {
        if let Err(error) = written(&of_outside(text)) {
            self.say(&format!("Warning: standard output: {error}"));
        }
    }

    /// Data that nobody else knows: said where it can be, if it could not be printed.
    pub(super) fn hand_over(&self, line: &str) {
        if let Err(error) = written(&format!("{}\n", of_outside(line))) {
            self.say(line);
            let _ = LOST.set(error);
        }
    }

    /// One line of talk, or some. It may repeat what somebody typed: passwords of addresses are hidden.
    pub(super) fn say(&self, line: &str) {
        let _ = writeln!(io::stderr().lock(), "{}", escape::lines(&redact_all(line)));
    }

    /// `text` in this SGR colour, on a terminal.
    pub(super) fn paint(&self, color: u8, text: &str) -> String {
        if self.color && io::stdout().is_terminal() {
            format!("\x1b[1;{color}m{text}\x1b[0m")
        } else {
            text.to_string()
        }
    }

    /// Rows of columns; where there are none, `none` is said instead.
    pub(super) fn table(&self, header: &[&str], rows: &[Vec<String>], none: &str) {
        if rows.is_empty() {
            return self.say(none);
        }
        let width = terminal_size::terminal_size_of(io::stdout());
        let width = width.map(|(width, _)| usize::from(width.0)).filter(|width| *width > 0);
        for line in table::lines(header, rows, width) {
            self.print(&line);
        }
    }

    /// Asks, and takes nothing but a yes for one.
    pub(super) fn confirm(&self, question: &str) -> bool {
        let mut err = io::stderr().lock();
        let _ = write!(err, "{} [y/N]: ", escape::lines(question)).and_then(|()| err.flush());
        let mut answer = String::new();
        if io::stdin().read_line(&mut answer).is_err() {
            return false;
        }
        matches!(answer.trim().to_lowercase().as_str(), "y" | "yes")
    }
}
