//! What a store could not do, whatever store it is.

use std::fmt;
use std::time::Duration;

/// What a store could not do.
#[derive(Debug, Clone)]
pub struct Error {
    kind: StoreErrorKind,
    text: String,
}

/// The kinds of errors that callers treat differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreErrorKind {
    /// Somebody else has it; try again.
    Busy,
    /// There is no room.
    Full,
    /// The store takes this worker for dead, or for an earlier connection of itself.
    Fenced,
    /// It cannot be opened; what is stored may be as good as ever.
    Unopened,
    /// What is stored is damaged, or is something else.
    Damaged,
    /// It takes this as little another time; others it may take.
    Refused,
    /// The store says that it failed at this, and not whether it would again.
    Failed,
    /// The user of this connection may not do it: somebody has to allow it.
    Forbidden,
    /// The connection ended, or said nothing in time, after this was asked: it may be done.
    Unheard,
    /// Anything else.
    Other,
}

impl Error {
    /// Trouble of this kind.
    pub fn of(kind: StoreErrorKind, text: impl Into<String>) -> Error {
        Error { kind, text: text.into() }
    }

    /// A store asked for what it is not made for, or that is not there.
    pub fn misuse(why: impl Into<String>) -> Error {
        Error::of(StoreErrorKind::Other, why)
    }

    /// No answer within `deadline`.
    pub fn late(deadline: Duration) -> Error {
        Error::of(StoreErrorKind::Busy, format!("no answer within {:.1}s", deadline.as_secs_f64()))
    }

    /// What a call of the system could not do with `what`: a path, or a thing by its name.
    pub fn io(what: impl fmt::Display, error: &std::io::Error) -> Error {
        use std::io::ErrorKind;
        let kind = match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => StoreErrorKind::Full,
            ErrorKind::PermissionDenied | ErrorKind::NotFound | ErrorKind::ReadOnlyFilesystem => {
                StoreErrorKind::Unopened
            }
            _ => StoreErrorKind::Other,
        };
        Error::of(kind, format!("{what}: {error}"))
    }

    /// The same trouble, said of `what`, unless it is said already.
    #[must_use]
    pub fn with(self, what: impl fmt::Display) -> Error {
        let what = what.to_string();
        match self.text.contains(&what) {
            true => self,
            false => Error::of(self.kind, format!("{what}: {}", self.text)),
        }
    }

    /// What kind of trouble it is.
    pub fn kind(&self) -> StoreErrorKind {
        self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Error {}
