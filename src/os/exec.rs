//! Executes another program in this process, and leaves it a text that no other process can have
//! left: an inherited file in memory that names this process.

use super::{environment, file};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// How `/proc` shows that file.
const NAME: &CStr = c"qworker-restart";

/// Executes `program` in this process, with the `text` to be read by [`left_text`]; `variable` gets
/// the number of the file. Returns only if that fails.
pub fn execute(
    program: &CStr,
    argv: &[CString],
    envp: &[Arc<CStr>],
    variable: &str,
    text: &str,
) -> io::Error {
    // Open until then.
    let (entry, _file) = match leave(variable, text) {
        Ok(left) => left,
        Err(error) => return error,
    };
    let mut envp: Vec<&CStr> = envp.iter().map(AsRef::as_ref).collect();
    envp.push(&entry);
    let Err(error) = nix::unistd::execve(program, argv, &envp);
    error.into()
}

fn leave(variable: &str, text: &str) -> io::Result<(CString, File)> {
    let file = file::in_memory_as(NAME)?;
    file.write_all_at(format!("{} {text}", std::process::id()).as_bytes(), 0)?;
    fcntl(&file, FcntlArg::F_SETFD(FdFlag::empty()))?;
    Ok((CString::new(format!("{variable}={}", file.as_raw_fd()))?, file))
}

/// The text that the program before this one in this process has left; `None` if there is none.
/// To be called once, before any thread exists.
pub fn left_text(variable: &str) -> Option<String> {
    let fd: RawFd = environment::take(variable)?.parse().ok()?;
    let shown = std::fs::read_link(format!("/proc/self/fd/{fd}")).ok()?;
    let expected = format!("/memfd:{} (deleted)", NAME.to_str().ok()?);
    if shown.as_os_str() != OsStr::new(&expected) {
        return None;
    }
    // SAFETY: it is open, and was left for us to own.
    let mut file = unsafe { File::from_raw_fd(fd) };
    let mut left = String::new();
    file.read_to_string(&mut left).ok()?;
    let (pid, text) = left.split_once(' ')?;
    (pid == std::process::id().to_string()).then(|| text.into())
}
