//! How many files this process may have open.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::sync::OnceLock;

/// The limit with which this process was started, if it was raised since.
static BEFORE: OnceLock<u64> = OnceLock::new();

/// How many files this process may have open, once it has raised its limit; `None` if the kernel
/// does not say.
pub fn open_files() -> Option<u64> {
    getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(_, hard)| hard)
}

/// Lets this process open as many files as it may. Its children get the old limit
/// ([`open_files_of_children`]): some programs cannot have more than 1,024.
///
/// # Errors
/// The kernel refuses; then the old limit holds.
pub fn raise_open_files() -> std::io::Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
        BEFORE.get_or_init(|| soft);
    }
    Ok(())
}

/// The limit that children are to have; `None` if ours was not raised.
pub fn open_files_of_children() -> Option<u64> {
    BEFORE.get().copied()
}
