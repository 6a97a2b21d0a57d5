//! Starts a process, a thousand times a second and more, from a program with threads.
//!
//! `clone(CLONE_VM | CLONE_VFORK)`: the child borrows our memory until it executes its
//! program, and the calling thread stands still meanwhile. Nothing is copied, however
//! large the worker is, and the child reports a failed step by writing to that memory.
//! `fork` would copy page tables; the standard library falls back to it as soon as a
//! user, a folder, or a limit is to be set.
//!
//! In the child no line may allocate, lock, panic, or call a libc function that knows of
//! threads (`setuid` of glibc signals *all* threads of the process it believes to be in).

use super::Pid;
use super::last_error;
use super::user::Ids;
use std::cell::OnceCell;
use std::ffi::{CStr, CString};
use std::fmt;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::ptr::{null, null_mut};

/// The child's stack. It calls nothing deep; the kernel commits only touched pages.
const STACK_BYTES: usize = 64 * 1024;

/// The highest signal number of the kernel.
const SIGNAL_LAST: i32 = 64;

/// What to start, and how. Every new process leads its own process group, has default
/// signal handlers, and inherits no descriptor but those named here.
#[derive(Debug)]
pub struct Spawn<'a> {
    /// The file to execute, an absolute path.
    pub program: &'a CStr,
    /// Its arguments, the name first.
    pub argv: &'a [CString],
    /// Its environment, `NAME=value` each.
    pub envp: &'a [CString],
    /// The folder it starts in; ours if `None`.
    pub cwd: Option<&'a CStr>,
    /// Standard input, output and error.
    pub stdio: [BorrowedFd<'a>; 3],
    /// Becomes descriptor 3.
    pub inherit: Option<BorrowedFd<'a>>,
    /// Resource limits.
    pub rlimits: &'a [Rlimit],
    /// Scheduling priority, -20 to 19.
    pub nice: Option<i32>,
    /// Whom it runs as.
    pub ids: Option<&'a Ids>,
    /// Signals that are blocked when it starts (numbers); all others are not.
    pub blocked: &'a [i32],
    /// What happens to it when we die.
    pub orphan: Orphan,
}

/// What happens to a child when the thread that started it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Orphan {
    /// The kernel kills it (`PR_SET_PDEATHSIG`).
    Dies,
    /// It goes on.
    Lives,
}

/// A resource limit of a process. Never raised above what the worker itself may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rlimit {
    /// What is limited.
    pub resource: Resource,
    /// The limit that is felt.
    pub soft: u64,
    /// How far the process may raise it.
    pub hard: u64,
}

/// What an [`Rlimit`] limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    /// Bytes of address space.
    Memory,
    /// Seconds of processor time: `SIGXCPU` at the soft, `SIGKILL` at the hard limit.
    Cpu,
    /// Open files.
    OpenFiles,
    /// Processes of the same user; root is not limited.
    Processes,
}

/// What a new process does before its program runs, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Preparing memory, in the parent.
    Prepare,
    /// Making the process.
    Clone,
    /// Leading a process group.
    Group,
    /// Asking to die with its parent.
    DeathSignal,
    /// Scheduling priority.
    Nice,
    /// Resource limits.
    Limit,
    /// User and groups.
    Ids,
    /// Changing to its folder.
    Folder,
    /// Standard input, output, error.
    Stdio,
    /// Executing the program.
    Execute,
}

/// A process that could not be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpawnError {
    /// The step that failed.
    pub step: Step,
    /// The kernel's error number.
    pub errno: i32,
}

impl fmt::Display for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let step = match self.step {
            Step::Prepare => "prepare a process",
            Step::Clone => "make a process",
            Step::Group => "lead a process group",
            Step::DeathSignal => "bind a process to its parent",
            Step::Nice => "set the priority",
            Step::Limit => "set a resource limit",
            Step::Ids => "change user and group",
            Step::Folder => "change to the folder",
            Step::Stdio => "connect standard streams",
            Step::Execute => "execute the program",
        };
        write!(f, "{step}: {}", super::describe(self.errno))
    }
}

impl std::error::Error for SpawnError {}

impl From<SpawnError> for io::Error {
    fn from(error: SpawnError) -> io::Error {
        io::Error::from_raw_os_error(error.errno)
    }
}

impl Spawn<'_> {
    /// Starts the process. When this returns `Ok`, its program has begun, and the process
    /// leads the group that has its number. The caller has to wait for it.
    ///
    /// # Errors
    /// The step that failed; no process is left behind.
    pub fn start(&self) -> Result<Pid, SpawnError> {
        let argv = pointers(self.argv);
        let envp = pointers(self.envp);
        let mut child = Child {
            plan: self,
            argv: argv.as_ptr(),
            envp: envp.as_ptr(),
            parent: std::process::id() as libc::pid_t,
            mask: signal_set(self.blocked),
            failure: None,
        };
        let pid = STACK.with(|stack| {
            let top = match stack.get() {
                Some(stack) => stack.top(),
                None => {
                    let made = Stack::new()?;
                    stack.get_or_init(|| made).top()
                }
            };
            let data: *mut Child<'_, '_> = &mut child;
            let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
            let _quiet = Quiet::begin();
            // SAFETY: CLONE_VFORK suspends this thread until the child has executed its
            // program or ended, so `child`, `argv`, `envp` and the stack outlive the
            // child's use of them and nobody else touches them; the stack belongs to this
            // thread and is used by one child at a time. All signals are blocked, so no
            // handler of ours runs in the child, where it would disturb our memory.
            let pid = unsafe { libc::clone(begin, top, flags, data.cast()) };
            if pid < 0 {
                Err(SpawnError { step: Step::Clone, errno: last_error() })
            } else {
                Ok(pid)
            }
        })?;
        // SAFETY: a plain read of our own variable; volatile because the compiler cannot
        // see that the child wrote to it.
        match unsafe { (&raw const child.failure).read_volatile() } {
            None => Ok(Pid::from_raw(pid)),
            Some(error) => {
                bury(pid);
                Err(error)
            }
        }
    }
}

/// What the child reads and writes in our memory.
struct Child<'s, 'a> {
    plan: &'s Spawn<'a>,
    argv: *const *const libc::c_char,
    envp: *const *const libc::c_char,
    parent: libc::pid_t,
    mask: libc::sigset_t,
    failure: Option<SpawnError>,
}

/// The first function of the new process; it never returns.
extern "C" fn begin(data: *mut libc::c_void) -> libc::c_int {
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
        reset_handlers();
        // SAFETY (for the calls of this function): system calls on plain numbers and on
        // NUL-terminated strings and arrays that `start` keeps alive; none allocates.
        check(Step::Group, unsafe { libc::setpgid(0, 0) }.into())?;
        self.die_with_parent()?;
        if let Some(nice) = plan.nice {
            // SAFETY: as above.
            check(Step::Nice, unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) }.into())?;
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
            // SAFETY: as above.
            check(Step::Folder, unsafe { libc::chdir(cwd.as_ptr()) }.into())?;
        }
        connect(plan)?;
        // SAFETY: as above. The pending signals of a new process are its own: none yet.
        unsafe { libc::sigprocmask(libc::SIG_SETMASK, &self.mask, null_mut()) };
        // SAFETY: as above; on success this program is gone.
        unsafe { libc::execve(plan.program.as_ptr(), self.argv, self.envp) };
        Err(SpawnError { step: Step::Execute, errno: last_error() })
    }

    fn die_with_parent(&self) -> Result<(), SpawnError> {
        if self.plan.orphan == Orphan::Lives {
            return Ok(());
        }
        // SAFETY: takes numbers only.
        let done = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong) };
        check(Step::DeathSignal, done.into())?;
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
        check(Step::Limit, unsafe {
            libc::syscall(libc::SYS_prlimit64, 0, resource, null::<libc::rlimit>(), &mut now)
        })?;
        let hard = self.hard.min(now.rlim_max);
        let new = libc::rlimit { rlim_cur: self.soft.min(hard), rlim_max: hard };
        // SAFETY: as above.
        check(Step::Limit, unsafe {
            libc::syscall(libc::SYS_prlimit64, 0, resource, &new, null_mut::<libc::rlimit>())
        })
    }
}

/// Gives every signal its default effect. Executing a program resets handlers but leaves
/// ignored signals ignored, and Rust ignores `SIGPIPE`: `yes | head` would never end.
fn reset_handlers() {
    // The kernel's own structure, four words on every 64-bit machine: all zeroes say "default
    // handler, no flags, empty mask". The raw call, because libc keeps two signals to itself
    // and would leave those ignored that the process before us ignored.
    let default = [0u64; 4];
    let set_bytes = 8;
    for signal in 1..=SIGNAL_LAST {
        // SAFETY: the handlers of this process are its own (no CLONE_SIGHAND); the kernel reads
        // our four words. A refused number (KILL, STOP) changes nothing.
        unsafe {
            libc::syscall(libc::SYS_rt_sigaction, signal, &default, null::<u64>(), set_bytes)
        };
    }
}

/// Changes user and groups of this process alone, groups first: without root's rights
/// they could not be changed any more.
fn assume(ids: &Ids) -> Result<(), SpawnError> {
    let groups = &ids.groups;
    // SAFETY: the pointer and length are of one live slice. Raw calls, because libc's
    // wrappers signal the other threads of the process, which here are our parent's.
    unsafe {
        check(Step::Ids, libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()))?;
        check(Step::Ids, libc::syscall(libc::SYS_setresgid, ids.gid, ids.gid, ids.gid))?;
        check(Step::Ids, libc::syscall(libc::SYS_setresuid, ids.uid, ids.uid, ids.uid))
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
            check(Step::Stdio, (*source).into())?;
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
        check(Step::Stdio, done.into())?;
    }
    let first = if inherit < 0 { 3 } else { 4 };
    // Ours are all close-on-exec; this is for those that a library or the process that
    // started us left open. Kernels before 5.11 lack it: then they keep what they had.
    // SAFETY: takes numbers only.
    unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    Ok(())
}

/// A system call's result as ours.
fn check(step: Step, result: libc::c_long) -> Result<(), SpawnError> {
    if result < 0 { Err(SpawnError { step, errno: last_error() }) } else { Ok(()) }
}

/// The strings as the kernel wants them: pointers, the last one null.
fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|text| text.as_ptr()).chain([null()]).collect()
}

/// A set of these signals.
pub(super) fn signal_set(signals: &[i32]) -> libc::sigset_t {
    // SAFETY: a `sigset_t` is plain memory that `sigemptyset` initializes.
    unsafe {
        let mut set = MaybeUninit::zeroed().assume_init();
        libc::sigemptyset(&mut set);
        for &signal in signals {
            libc::sigaddset(&mut set, signal);
        }
        set
    }
}

/// Waits for a child that has ended, or is about to.
fn bury(pid: libc::pid_t) {
    // SAFETY: we ask for no status; the child is ours and nobody else waits for it.
    while unsafe { libc::waitpid(pid, null_mut(), 0) } < 0 && last_error() == libc::EINTR {}
}

/// While it lives, this thread gets no signals.
struct Quiet(libc::sigset_t);

impl Quiet {
    fn begin() -> Quiet {
        // SAFETY: both sets are our own plain memory.
        unsafe {
            let mut all = MaybeUninit::zeroed().assume_init();
            let mut before = MaybeUninit::zeroed().assume_init();
            libc::sigfillset(&mut all);
            libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
            Quiet(before)
        }
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        // SAFETY: gives back the mask that `begin` found.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.0, null_mut()) };
    }
}

thread_local! {
    /// Mapped at this thread's first start of a process, used again by all others.
    static STACK: OnceCell<Stack> = const { OnceCell::new() };
}

/// Memory for the child's stack, with a page below it that nobody may touch.
struct Stack(*mut libc::c_void);

impl Stack {
    fn new() -> Result<Stack, SpawnError> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK;
        // SAFETY: a fresh mapping, which no other memory can be affected by.
        let base = unsafe { libc::mmap(null_mut(), STACK_BYTES, protection, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(SpawnError { step: Step::Prepare, errno: last_error() });
        }
        // SAFETY: the lowest page of the mapping we just made, that nobody uses.
        unsafe { libc::mprotect(base, 4096, libc::PROT_NONE) };
        Ok(Stack(base))
    }

    /// Where the stack begins: it grows downwards.
    fn top(&self) -> *mut libc::c_void {
        self.0.wrapping_byte_add(STACK_BYTES)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: unmaps what `new` mapped; no child uses it, or we would stand still.
        unsafe { libc::munmap(self.0, STACK_BYTES) };
    }
}
