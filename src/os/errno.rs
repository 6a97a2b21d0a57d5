//! Error numbers of the kernel: what they say, and whose fault they are.

/// The text of an error number, as in Python's `OSError`: "No such file or directory".
pub fn describe(errno: i32) -> &'static str {
    nix::errno::Errno::from_raw(errno).desc()
}

/// Has the host run out of something: descriptors, processes, memory, space? It may have some
/// later, and the caller is not at fault.
pub fn is_shortage(errno: i32) -> bool {
    use libc::{EAGAIN, EDQUOT, EMFILE, ENFILE, ENOBUFS, ENOMEM, ENOSPC, EUSERS};
    [EAGAIN, EDQUOT, EMFILE, ENFILE, ENOBUFS, ENOMEM, ENOSPC, EUSERS].contains(&errno)
}

/// As [`is_shortage`], for the text of a Rust error, which ends in its number.
pub fn says_shortage(text: &str) -> bool {
    numbers_in(text).any(is_shortage)
}

/// As [`is_passing`], for such a text.
pub fn says_passing(text: &str) -> bool {
    numbers_in(text).any(is_passing)
}

fn numbers_in(text: &str) -> impl Iterator<Item = i32> {
    let numbers = text.split("(os error ").skip(1).filter_map(|rest| rest.split_once(')'));
    numbers.filter_map(|(number, _)| number.parse().ok())
}

/// Is one file or folder unavailable for now: the program is being written, or its disk or server
/// does not answer? The caller is not at fault.
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
