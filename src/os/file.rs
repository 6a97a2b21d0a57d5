//! Files without a name that a child gets as its standard input, and attributes of files.

use super::last_error;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The empty device, opened for reading and writing. One descriptor serves any
/// number of children: it has no position that they could disturb.
///
/// # Errors
/// The device cannot be opened.
pub fn null() -> io::Result<OwnedFd> {
    File::options().read(true).write(true).open("/dev/null").map(OwnedFd::from)
}

/// A nameless file in memory with these bytes, positioned at its start.
///
/// Standard input is such a file and not a pipe, because nobody has to feed it: a
/// child that never reads, or closes it early, needs no care at all, however long
/// the text is.
///
/// # Errors
/// Out of memory or of descriptors.
pub fn in_memory(bytes: &[u8]) -> io::Result<OwnedFd> {
    let file = scratch()?;
    // A positioned write leaves the offset, which the child inherits, at 0.
    file.write_all_at(bytes, 0)?;
    Ok(OwnedFd::from(file))
}

/// A nameless empty file in memory: also for what a child says, which then never waits for us to
/// read it.
///
/// # Errors
/// Out of memory or of descriptors.
pub fn scratch() -> io::Result<File> {
    const NAME: &CStr = c"qworker-scratch";
    // SAFETY: the name is a NUL-terminated constant; the flag is a known one.
    let fd = unsafe { libc::memfd_create(NAME.as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::from_raw_os_error(last_error()));
    }
    // SAFETY: the kernel just gave us this descriptor; nobody else owns it.
    Ok(unsafe { File::from_raw_fd(fd) })
}

/// An extended attribute of a file, `user.name`; `None` if it has none of this name, or one
/// longer than a word.
pub fn attribute(path: &Path, name: &str) -> Option<Vec<u8>> {
    let path = CString::new(path.as_os_str().as_bytes()).ok()?;
    let name = CString::new(name).ok()?;
    let mut value = vec![0; 64];
    // SAFETY: two NUL-terminated texts, and room of the length that is told.
    let length = unsafe {
        libc::getxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len())
    };
    value.truncate(usize::try_from(length).ok()?);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn a_file_in_memory_reads_from_its_start() {
        let mut text = String::new();
        File::from(in_memory(b"hello").unwrap()).read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
    }
}
