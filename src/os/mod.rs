//! The kernel: processes, signals, locks, wake-ups. The only code that names `libc` or contains
//! `unsafe`; raw numbers become types here.
//!
//! The kernel sends a parent-death signal when the *thread* that started a child ends, so tasks
//! are started on threads that live as long as the process ([`spawn`]). Adopted orphans are
//! children of the first thread of the adopting process, which starts none itself: that tells
//! them from the others.

#![allow(unsafe_code)]

pub mod cgroup;
pub mod cwd;
pub mod daemon;
pub mod environment;
mod errno;
pub mod exec;
pub mod file;
pub mod host;
pub mod identity;
pub mod lease;
pub mod memory;
pub mod node_socket;
pub mod open_files;
pub mod panics;
pub mod pidfile;
pub mod process;
pub mod reap;
pub mod rundir;
pub mod sd_notify;
pub mod seqpacket;
pub mod signal;
pub mod spawn;
pub mod stdout;
pub mod task_socket;
pub mod tree;
pub mod user;
pub mod wakeup;
pub mod wall_timer;
#[cfg(feature = "wasm")]
pub mod wasm;
pub mod which;
pub mod zoneinfo;

pub use errno::{describe, is_passing, is_shortage, says_passing, says_shortage};
pub use nix::unistd::Pid;

use std::io;

/// Makes this process adopt every orphan below it, so that no descendant escapes to process 1.
/// Children do not inherit this.
pub fn become_subreaper() -> io::Result<()> {
    nix::sys::prctl::set_child_subreaper(true).map_err(io::Error::from)
}

/// A stop of this process ends when its parent does. The kernel does that for processes in the
/// session of their parent only.
///
/// # Errors
/// The kernel does not know the request.
pub fn continue_when_parent_ends() -> io::Result<()> {
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGCONT).map_err(io::Error::from)
}

/// Names this process for `ps`.
pub fn set_process_name() {
    let done = nix::sys::prctl::set_name(c"qworker");
    debug_assert!(done.is_ok(), "prctl: {done:?}");
}

/// The error of the system call that just failed.
fn last_error() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}
