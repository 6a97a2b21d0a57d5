//! How many files this process may have open.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::sync::OnceLock;

/// The limit with which this process was started, if it was raised since.
static BEFORE: OnceLock<u64> = OnceLock::new();

/// How many files this process may have open once it has raised its limit; `None` if unknown.
pub fn limit() -> Option<u64> {
    getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(_, hard)| hard)
}

/// Raises the limit of this process as far as possible. Its children get the old limit
/// ([`limit_of_children`]): some programs fail with more than 1,024.
///
/// # Errors
/// The kernel refuses; then the old limit holds.
pub fn raise_limit() -> std::io::Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
        BEFORE.get_or_init(|| soft);
    }
    Ok(())
}

/// The limit for children; `None` if ours was not raised.
pub fn limit_of_children() -> Option<u64> {
    BEFORE.get().copied()
}
