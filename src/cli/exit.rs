//! Exit codes: Celery's where Celery has one, sysexits.h where it has none.

use super::output::ToUser;
use super::variables;
use std::fmt;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exit {
    /// It did what it was asked.
    Ok,
    /// It did not: a task failed, a file has errors.
    Failure,
    /// The command line is invalid.
    Usage,
    /// Nobody there: no node replied, the store cannot be reached, an unknown task id.
    Unavailable,
    /// The pidfile is another's.
    CannotCreate,
    /// It was done, and what it printed could not be written.
    Unwritten,
    /// Not yet: ask again later.
    NotYet,
    /// What the worker's guard passed on.
    Code(u8),
}

impl Exit {
    /// The number.
    pub(super) fn code(self) -> u8 {
        match self {
            Exit::Ok => 0,
            Exit::Failure => 1,
            Exit::Usage => 2,
            Exit::Unavailable => 69,
            Exit::CannotCreate => 73,
            Exit::Unwritten => 74,
            Exit::NotYet => 75,
            Exit::Code(code) => code,
        }
    }
}

/// Why a command could not do what it was asked, for the user.
#[derive(Debug)]
pub(super) struct Error {
    /// The exit code.
    pub exit: Exit,
    /// What went wrong.
    pub message: String,
    /// What to do about it.
    pub hints: Vec<String>,
}

impl Error {
    /// The command line, or something that it names, is invalid.
    pub(super) fn usage(message: impl Into<String>) -> Error {
        Error { exit: Exit::Usage, message: message.into(), hints: Vec::new() }
    }

    /// The command failed.
    pub(super) fn failure(message: impl Into<String>) -> Error {
        Error { exit: Exit::Failure, message: message.into(), hints: Vec::new() }
    }

    /// Somebody did not answer.
    pub(super) fn unavailable(message: impl Into<String>) -> Error {
        Error { exit: Exit::Unavailable, message: message.into(), hints: Vec::new() }
    }

    /// With advice.
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Error {
        self.hints.push(hint.into());
        self
    }

    /// Tells the user, and gives the exit code.
    pub(super) fn report(&self, out: &ToUser) -> Exit {
        out.say(&format!("Error: {self}"));
        for hint in &self.hints {
            out.say(&format!("Hint: {hint}"));
        }
        self.exit
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&variables::named(&self.message))
    }
}

impl From<crate::client::ConnectError> for Error {
    fn from(error: crate::client::ConnectError) -> Error {
        Error::unavailable(error.to_string())
    }
}

impl From<crate::broker::Error> for Error {
    fn from(error: crate::broker::Error) -> Error {
        Error::unavailable(error.to_string())
    }
}

impl From<crate::link::url::BadUrl> for Error {
    fn from(error: crate::link::url::BadUrl) -> Error {
        Error::usage(error.to_string())
    }
}
