//! The signals of a guard. Handlers set a flag and wake the loop, nothing else.

use crate::os::signal::FORWARDED;
use nix::sys::signal::Signal;
use signal_hook::consts::SIGCHLD;
use signal_hook::{flag, low_level};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The signals that have arrived.
#[derive(Debug)]
pub(super) struct Signals {
    arrived: Vec<(Signal, Arc<AtomicBool>)>,
    wake: UnixStream,
}

impl Signals {
    /// Takes over [`FORWARDED`], and `SIGCHLD` as a wake-up.
    ///
    /// # Errors
    /// No descriptors are left.
    pub(super) fn listen() -> io::Result<Signals> {
        let (wake, theirs) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        let mut arrived = Vec::new();
        for number in FORWARDED {
            let flag = Arc::new(AtomicBool::new(false));
            flag::register(number, Arc::clone(&flag))?;
            // After the flag, or the loop might wake up and find nothing.
            low_level::pipe::register(number, theirs.try_clone()?)?;
            arrived.push((Signal::try_from(number)?, flag));
        }
        low_level::pipe::register(SIGCHLD, theirs)?;
        Ok(Signals { arrived, wake })
    }

    /// Readable when a signal has arrived or a child has ended.
    pub(super) fn wake(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// Empties the wake-up pipe. What arrives after this makes it readable again.
    pub(super) fn clear_wake(&self) {
        let _ = (&self.wake).read(&mut [0; 256]);
    }

    /// The signals that have arrived since the last call.
    pub(super) fn take(&self) -> Vec<Signal> {
        let arrived = self.arrived.iter().filter(|(_, flag)| flag.swap(false, Ordering::SeqCst));
        arrived.map(|(signal, _)| *signal).collect()
    }
}
