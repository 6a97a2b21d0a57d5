//! `clone3`: the one way to begin a process in another control group. Neither libc nor nix has a
//! wrapper for it that leaves memory and stack to the caller.

use super::stack::Stack;
use std::os::fd::BorrowedFd;

/// Why there is no process.
pub(super) enum CloneError {
    /// This kernel, this machine, or a filter of system calls knows nothing of it.
    NotKnown,
    /// The kernel's error number.
    Error(i32),
}

/// As on a machine without it.
#[cfg(test)]
pub(super) static MISSING: std::sync::atomic::AtomicBool =
    std::sync::atomic::AtomicBool::new(false);

/// The first function of the new process, which never returns.
type Begin = extern "C" fn(*mut libc::c_void) -> libc::c_int;

/// Starts a process in the control group of the folder `group`, as `clone` with `CLONE_VM` and
/// `CLONE_VFORK` does it: on `stack`, with `begin(data)`.
///
/// # Safety
/// That of `clone`: `data` is good for `begin`, and nobody else touches it or the stack until this
/// returns.
#[cfg(target_arch = "x86_64")]
pub(super) unsafe fn into_group(
    group: BorrowedFd<'_>,
    stack: &Stack,
    begin: Begin,
    data: *mut libc::c_void,
) -> Result<libc::pid_t, CloneError> {
    use std::os::fd::AsRawFd;
    /// From Linux 5.7 on; it does not fit into the flags of `clone`.
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    #[cfg(test)]
    if MISSING.load(std::sync::atomic::Ordering::SeqCst) {
        return Err(CloneError::NotKnown);
    }
    let (lowest, size) = stack.whole();
    let arguments = libc::clone_args {
        flags: (libc::CLONE_VM | libc::CLONE_VFORK) as u64 | CLONE_INTO_CGROUP,
        pidfd: 0,
        child_tid: 0,
        parent_tid: 0,
        exit_signal: libc::SIGCHLD as u64,
        stack: lowest as u64,
        stack_size: size as u64,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: group.as_raw_fd() as u64,
    };
    let result: i64;
    // SAFETY: the kernel reads `arguments` only. The parent goes on behind the call with the
    // registers that a system call changes, all of them named here. The child has the same
    // registers but a stack of its own, whose top is aligned: it calls `begin`, which never returns.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r12",
            "call r13",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 => result,
            in("rdi") &raw const arguments,
            in("rsi") size_of::<libc::clone_args>(),
            in("r12") data,
            in("r13") begin,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    match i32::try_from(-result) {
        // Filters answer with EPERM, and kernels before 5.7 with one of the others.
        Ok(libc::ENOSYS | libc::EINVAL | libc::E2BIG | libc::EPERM) => Err(CloneError::NotKnown),
        Ok(errno) if errno > 0 => Err(CloneError::Error(errno)),
        _ => Ok(result as libc::pid_t),
    }
}

/// On other machines the process enters the group by itself.
///
/// # Safety
/// Nothing is done.
#[cfg(not(target_arch = "x86_64"))]
pub(super) unsafe fn into_group(
    _group: BorrowedFd<'_>,
    _stack: &Stack,
    _begin: Begin,
    _data: *mut libc::c_void,
) -> Result<libc::pid_t, CloneError> {
    Err(CloneError::NotKnown)
}
