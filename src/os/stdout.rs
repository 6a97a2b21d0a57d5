//! Was standard output open when this program started? If not, Rust's runtime replaces it by
//! `/dev/null` before `main`, and output would be lost silently.

use std::sync::atomic::{AtomicBool, Ordering};

static CLOSED: AtomicBool = AtomicBool::new(false);

/// Was standard output closed when this program started?
pub fn was_closed() -> bool {
    CLOSED.load(Ordering::Relaxed)
}

extern "C" fn look() {
    // SAFETY: asks about a number; nothing is touched, whatever that is.
    let flags = unsafe { libc::fcntl(libc::STDOUT_FILENO, libc::F_GETFD) };
    CLOSED.store(flags < 0, Ordering::Relaxed);
}

// SAFETY: the C library calls what stands in this section once, before `main`; the function
// takes no part of any runtime that is not there yet.
#[used]
#[unsafe(link_section = ".init_array")]
static LOOK: extern "C" fn() = look;
