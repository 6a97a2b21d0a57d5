//! The kernel: processes, signals, locks, wake-ups. The only code that names
//! `libc` or says `unsafe`; raw numbers become types at this gate.
//!
//! The kernel sends a parent-death signal when the *thread* that made a child ends, so
//! tasks are started on one that lives as long as the process (`nursery`). Adopted orphans
//! are children of the first thread of the adopting process, which starts none itself:
//! that tells the ones from the others.

#![allow(unsafe_code)]

pub mod alarm;
pub mod bell;
pub mod cgroup;
pub mod daemon;
pub mod file;
pub mod folder;
pub mod guard;
pub mod host;
pub mod kin;
pub mod lease;
pub mod limit;
pub mod memory;
pub mod module;
pub mod notify;
mod nursery;
pub mod panics;
pub mod pidfile;
pub mod process;
pub mod reap;
pub mod resolve;
pub mod run;
pub mod runtime;
pub mod signal;
pub mod spawn;
pub mod standard;
pub mod tree;
pub mod user;
pub mod zoneinfo;

pub use nix::unistd::Pid;

use std::io;

/// The kernel's sentence for an error number, as Python's `OSError` carries it:
/// "No such file or directory".
pub fn describe(errno: i32) -> &'static str {
    nix::errno::Errno::from_raw(errno).desc()
}

/// Does this error number say that the host has run out of something: descriptors, processes,
/// memory, space? It may have some later, and says nothing of whoever asked.
pub fn is_shortage(errno: i32) -> bool {
    use libc::{EAGAIN, EDQUOT, EMFILE, ENFILE, ENOBUFS, ENOMEM, ENOSPC, EUSERS};
    [EAGAIN, EDQUOT, EMFILE, ENFILE, ENOBUFS, ENOMEM, ENOSPC, EUSERS].contains(&errno)
}

/// As [`is_shortage`], of an error that is a text by now: Rust's, which ends in its number.
pub fn says_shortage(text: &str) -> bool {
    numbers_in(text).any(is_shortage)
}

/// As [`is_passing`], of such a text.
pub fn says_passing(text: &str) -> bool {
    numbers_in(text).any(is_passing)
}

fn numbers_in(text: &str) -> impl Iterator<Item = i32> {
    let numbers = text.split("(os error ").skip(1).filter_map(|rest| rest.split_once(')'));
    numbers.filter_map(|(number, _)| number.parse().ok())
}

/// Does this error number say that one file or folder cannot be had for now: somebody writes the
/// program, or its disk or server does not answer? It says nothing of whoever asked for it.
pub fn is_passing(errno: i32) -> bool {
    use libc::{
        EBUSY, ECONNABORTED, ECONNREFUSED, ECONNRESET, EHOSTDOWN, EHOSTUNREACH, EINTR, EIO, ENODEV,
        ENOLCK, ENOLINK, ENOTCONN, ENXIO, EREMOTEIO, ESHUTDOWN, ESTALE, ETIMEDOUT, ETXTBSY,
    };
    use libc::{ENETDOWN, ENETRESET, ENETUNREACH, ENOMEDIUM};
    [
        EBUSY,
        ECONNABORTED,
        ECONNREFUSED,
        ECONNRESET,
        EHOSTDOWN,
        EHOSTUNREACH,
        EINTR,
        EIO,
        ENODEV,
        ENOLCK,
        ENOLINK,
        ENOTCONN,
        ENXIO,
        EREMOTEIO,
        ESHUTDOWN,
        ESTALE,
        ETIMEDOUT,
        ETXTBSY,
        ENETDOWN,
        ENETRESET,
        ENETUNREACH,
        ENOMEDIUM,
    ]
    .contains(&errno)
}

/// Makes this process the adopter of every orphan below it, so that no descendant
/// can slip away to process 1. Not inherited by children.
pub fn become_subreaper() -> io::Result<()> {
    nix::sys::prctl::set_child_subreaper(true).map_err(io::Error::from)
}

/// Sets a variable for the programs that this one starts, before any thread exists.
pub fn set_variable(name: &str, value: &std::ffi::OsStr) {
    // SAFETY: no thread exists yet that could read the environment meanwhile.
    unsafe { std::env::set_var(name, value) };
}

/// The error of the system call that just failed.
fn last_error() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}
