//! The new process, from its first instruction to its program.
//!
//! It lives in the memory of its parent. No line here may allocate, lock, panic, or call a
//! libc function that knows of threads (`setuid` of glibc signals *all* threads of the
//! process it believes to be in).

use super::{ChildSetup, Orphan, Resource, Rlimit, Spawn, SpawnError};
use crate::os::last_error;
use crate::os::signal::FORWARDED;
use crate::os::user::Ids;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::ptr::{null, null_mut};
use std::sync::OnceLock;

/// The highest signal number of the kernel.
const SIGNAL_LAST: i32 = 64;

/// Bytes of the kernel's set of signals.
const SET_BYTES: usize = 8;

/// The kernel's own form of what a signal does, four words on every 64-bit machine, the
/// handler first.
type KernelSigaction = [u64; 4];

/// What the child reads and writes in our memory.
pub(super) struct Child<'s, 'a> {
    pub plan: &'s Spawn<'a>,
    pub argv: *const *const libc::c_char,
    pub envp: *const *const libc::c_char,
    pub parent: libc::pid_t,
    pub mask: libc::sigset_t,
    pub altered: &'static [i32],
    /// The control group that it has to enter by itself.
    pub outside: Option<BorrowedFd<'a>>,
    pub failure: Option<SpawnError>,
}

/// The first function of the new process; it never returns.
pub(super) extern "C" fn begin(data: *mut libc::c_void) -> libc::c_int {
    // SAFETY: `start` passes a pointer to its `Child` and stands still while we use it.
    let child = unsafe { &mut *data.cast::<Child<'_, '_>>() };
    let Err(failure) = child.become_program();
    child.failure = Some(failure);
    // SAFETY: ends this process at once; no exit handler of the parent may run here.
    unsafe { libc::_exit(127) }
}

impl Child<'_, '_> {
    /// Every step up to the program; returns only if one fails.
    fn become_program(&mut self) -> Result<std::convert::Infallible, SpawnError> {
        let plan = self.plan;
        reset_handlers(self.altered);
        if let Some(group) = self.outside {
            enter(group)?;
        }
        // SAFETY: takes numbers only.
        let led = unsafe { if plan.new_session { libc::setsid() } else { libc::setpgid(0, 0) } };
        check(ChildSetup::Group, led.into())?;
        self.die_with_parent()?;
        if let Some(nice) = plan.nice {
            // SAFETY: takes numbers only.
            let set = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) };
            check(ChildSetup::Nice, set.into())?;
        }
        for limit in plan.rlimits {
            limit.apply()?;
        }
        if let Some(ids) = plan.ids {
            assume(ids)?;
            // A change of user clears it.
            self.die_with_parent()?;
        }
        if let Some(cwd) = plan.cwd {
            // SAFETY: a NUL-terminated string that `start` keeps alive.
            check(ChildSetup::Folder, unsafe { libc::chdir(cwd.as_ptr()) }.into())?;
        }
        connect(plan)?;
        // SAFETY: the set is initialized, and lives.
        unsafe { libc::sigprocmask(libc::SIG_SETMASK, &self.mask, null_mut()) };
        // SAFETY: NUL-terminated strings and null-terminated arrays that `start` keeps alive;
        // on success this program, which used them, is gone.
        unsafe { libc::execve(plan.program.as_ptr(), self.argv, self.envp) };
        Err(SpawnError { step: ChildSetup::Execute, errno: last_error() })
    }

    fn die_with_parent(&self) -> Result<(), SpawnError> {
        if self.plan.orphan == Orphan::Lives {
            return Ok(());
        }
        // SAFETY: takes numbers only.
        let done = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong) };
        check(ChildSetup::DeathSignal, done.into())?;
        // The parent may have died before we asked.
        // SAFETY: takes nothing; and ending ourselves touches no memory.
        unsafe {
            if libc::getppid() != self.parent {
                libc::_exit(127);
            }
        }
        Ok(())
    }
}

impl Rlimit {
    /// Sets this limit for the calling process, no higher than the one in force.
    fn apply(&self) -> Result<(), SpawnError> {
        let resource = match self.resource {
            Resource::Memory => libc::RLIMIT_AS,
            Resource::Cpu => libc::RLIMIT_CPU,
            Resource::OpenFiles => libc::RLIMIT_NOFILE,
            Resource::Processes => libc::RLIMIT_NPROC,
        };
        let mut now = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: both pointers are to our own structures, or null; the raw call, because
        // musl's wrapper addresses all threads of the process.
        check(ChildSetup::Limit, unsafe {
            libc::syscall(libc::SYS_prlimit64, 0, resource, null::<libc::rlimit>(), &mut now)
        })?;
        let hard = self.hard.min(now.rlim_max);
        let new = libc::rlimit { rlim_cur: self.soft.min(hard), rlim_max: hard };
        // SAFETY: as above.
        check(ChildSetup::Limit, unsafe {
            libc::syscall(libc::SYS_prlimit64, 0, resource, &new, null_mut::<libc::rlimit>())
        })
    }
}

/// The signals that a new process has to be freed of: those that this program handles, lest
/// a handler of ours runs in the child before its program does, and those that it was told
/// to ignore by whoever started it or, `SIGPIPE`, by Rust: an executed program would ignore
/// them too, and `yes | head` never end. The latter are looked up once.
pub(super) fn altered_signals() -> &'static [i32] {
    static ALTERED: OnceLock<Vec<i32>> = OnceLock::new();
    ALTERED.get_or_init(|| {
        let handled = |signal: &i32| *signal == libc::SIGCHLD || FORWARDED.contains(signal);
        (1..=SIGNAL_LAST).filter(|signal| handled(signal) || is_ignored(*signal)).collect()
    })
}

fn is_ignored(signal: i32) -> bool {
    let mut action: KernelSigaction = [0; 4];
    // SAFETY: the kernel writes our four words. The raw call, because libc keeps two signals
    // to itself.
    unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, null::<u64>(), &mut action, SET_BYTES) };
    action[0] == libc::SIG_IGN as u64
}

/// Gives these signals their default effect.
fn reset_handlers(signals: &[i32]) {
    // All zeroes say "default handler, no flags, empty mask".
    let default: KernelSigaction = [0; 4];
    for &signal in signals {
        // SAFETY: the handlers of this process are its own (no CLONE_SIGHAND); the kernel reads
        // our four words. The raw call, as above.
        unsafe {
            libc::syscall(libc::SYS_rt_sigaction, signal, &default, null::<u64>(), SET_BYTES)
        };
    }
}

/// Moves this process into a control group.
fn enter(group: BorrowedFd<'_>) -> Result<(), SpawnError> {
    // SAFETY: a NUL-terminated name and a text of ours; the raw calls, as everywhere here.
    unsafe {
        let flags = libc::O_WRONLY | libc::O_CLOEXEC;
        let name = c"cgroup.procs".as_ptr();
        let file = libc::syscall(libc::SYS_openat, group.as_raw_fd(), name, flags);
        check(ChildSetup::Enter, file)?;
        // Zero is whoever writes it.
        check(ChildSetup::Enter, libc::syscall(libc::SYS_write, file, c"0".as_ptr(), 1))
    }
}

/// Changes user and groups of this process alone, groups first: without root's rights
/// they could not be changed any more.
fn assume(ids: &Ids) -> Result<(), SpawnError> {
    let groups = &ids.groups;
    // SAFETY: the pointer and length are of one live slice. Raw calls, because libc's
    // wrappers signal the other threads of the process, which here are our parent's.
    unsafe {
        check(ChildSetup::Ids, libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()))?;
        check(ChildSetup::Ids, libc::syscall(libc::SYS_setresgid, ids.gid, ids.gid, ids.gid))?;
        check(ChildSetup::Ids, libc::syscall(libc::SYS_setresuid, ids.uid, ids.uid, ids.uid))
    }
}

/// Puts the descriptors in their places and closes all others on execution.
fn connect(plan: &Spawn<'_>) -> Result<(), SpawnError> {
    let [stdin, stdout, stderr] = plan.stdio.map(|fd| fd.as_raw_fd());
    let inherit = plan.inherit.map_or(-1, |fd| fd.as_raw_fd());
    let mut sources: [RawFd; 4] = [stdin, stdout, stderr, inherit];
    for (place, source) in (0..).zip(&mut sources) {
        // A source in the way of a later place moves up first.
        if (0..4).contains(source) && *source != place {
            // SAFETY: takes numbers only.
            *source = unsafe { libc::fcntl(*source, libc::F_DUPFD_CLOEXEC, 4) };
            check(ChildSetup::Stdio, (*source).into())?;
        }
    }
    for (place, source) in (0..).zip(sources) {
        let done = match source {
            -1 => 0,
            // SAFETY: takes numbers only. A descriptor that is in its place already
            // keeps its close-on-exec mark unless we take it away.
            _ if source == place => unsafe { libc::fcntl(source, libc::F_SETFD, 0) },
            // SAFETY: takes numbers only.
            _ => unsafe { libc::dup2(source, place) },
        };
        check(ChildSetup::Stdio, done.into())?;
    }
    let first = if inherit < 0 { 3 } else { 4 };
    // Ours are all close-on-exec; this is for those that a library or the process that
    // started us left open. Kernels before 5.11 lack it: then they keep what they had.
    // SAFETY: takes numbers only.
    unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    Ok(())
}

/// A system call's result as ours.
fn check(step: ChildSetup, result: libc::c_long) -> Result<(), SpawnError> {
    if result < 0 { Err(SpawnError { step, errno: last_error() }) } else { Ok(()) }
}
