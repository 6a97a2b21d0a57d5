//! Starts processes, a thousand per second and more, from a program with threads.
//!
//! With `clone(CLONE_VM | CLONE_VFORK)`, the child shares our memory until it executes its program,
//! and the calling thread is suspended meanwhile. Nothing is copied, however large the worker is,
//! and the child reports a failed step by writing to that memory. `fork` would copy page tables;
//! the standard library falls back to it as soon as a user, a folder, or a limit is set.

mod child;
mod clone3;
mod stack;
pub(super) mod threads;

use super::Pid;
use super::last_error;
use super::signal::BlockedSignals;
use super::user::Ids;
use child::Child;
use clone3::CloneError;
use std::borrow::Borrow;
use std::ffi::{CStr, CString};
use std::fmt;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::ptr::{null, null_mut};
use std::sync::Arc;

/// What to start, and how. Every new process leads its own process group, has default
/// signal handlers, and inherits no descriptor but those named here.
#[derive(Debug)]
pub struct Spawn<'a> {
    /// The file to execute, an absolute path.
    pub program: &'a CStr,
    /// Its arguments, the name first.
    pub argv: &'a [CString],
    /// Its environment, `NAME=value` each.
    pub envp: &'a [Arc<CStr>],
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
    /// It leads a session of its own, without a terminal, rather than a process group of ours.
    pub new_session: bool,
    /// What happens to it when we die.
    pub orphan: Orphan,
    /// The control group that it begins in; ours if `None`.
    pub group: Option<BorrowedFd<'a>>,
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
pub enum ChildSetup {
    /// Preparing memory, in the parent.
    Prepare,
    /// Making the process.
    Clone,
    /// Entering a control group.
    Enter,
    /// Leading a session, or a process group.
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
    pub step: ChildSetup,
    /// The kernel's error number.
    pub errno: i32,
}

impl fmt::Display for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let step = match self.step {
            ChildSetup::Prepare => "prepare a process",
            ChildSetup::Clone => "make a process",
            ChildSetup::Enter => "enter a control group",
            ChildSetup::Group => "lead a session",
            ChildSetup::DeathSignal => "bind a process to its parent",
            ChildSetup::Nice => "set the priority",
            ChildSetup::Limit => "set a resource limit",
            ChildSetup::Ids => "change user and group",
            ChildSetup::Folder => "change to the folder",
            ChildSetup::Stdio => "connect standard streams",
            ChildSetup::Execute => "execute the program",
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
            altered: child::altered_signals(),
            outside: None,
            failure: None,
        };
        let pid = stack::with_stack(|stack| {
            let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
            let _blocked = BlockedSignals::all();
            if let Some(group) = self.group {
                // A process that moves there later holds up all starts of this machine, for
                // milliseconds.
                let data = (&raw mut child).cast();
                // SAFETY: as below.
                match unsafe { clone3::into_group(group, stack, child::begin, data) } {
                    Err(CloneError::NotKnown) => child.outside = Some(group),
                    Err(CloneError::Error(errno)) => {
                        return Err(SpawnError { step: ChildSetup::Clone, errno });
                    }
                    Ok(pid) => return Ok(pid),
                }
            }
            let data = (&raw mut child).cast();
            // SAFETY: CLONE_VFORK suspends this thread until the child has executed its
            // program or ended, so `child`, `argv`, `envp` and the stack outlive the
            // child's use of them and nobody else touches them; the stack belongs to this
            // thread and is used by one child at a time. All signals are blocked, so no
            // handler of ours runs in the child, where it would disturb our memory.
            let pid = unsafe { libc::clone(child::begin, stack.top(), flags, data) };
            if pid < 0 {
                Err(SpawnError { step: ChildSetup::Clone, errno: last_error() })
            } else {
                Ok(pid)
            }
        })?;
        // SAFETY: a plain read of our own variable; volatile because the compiler cannot
        // see that the child wrote to it.
        match unsafe { (&raw const child.failure).read_volatile() } {
            None => Ok(Pid::from_raw(pid)),
            Some(error) => {
                reap(pid);
                Err(error)
            }
        }
    }
}

/// The strings as the kernel wants them: pointers, the last one null.
fn pointers(strings: &[impl Borrow<CStr>]) -> Vec<*const libc::c_char> {
    strings.iter().map(|text| text.borrow().as_ptr()).chain([null()]).collect()
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
fn reap(pid: libc::pid_t) {
    // SAFETY: we ask for no status; the child is ours and nobody else waits for it.
    while unsafe { libc::waitpid(pid, null_mut(), 0) } < 0 && last_error() == libc::EINTR {}
}

/// Starts go as on a machine without `clone3`, or not.
#[cfg(test)]
pub(super) fn without_clone3(without: bool) {
    clone3::MISSING.store(without, std::sync::atomic::Ordering::SeqCst);
}

impl<'a> Spawn<'a> {
    /// `program` with these arguments and streams in the current folder, an empty environment, and
    /// no limits.
    pub fn plain(program: &'a CStr, argv: &'a [CString], stdio: [BorrowedFd<'a>; 3]) -> Spawn<'a> {
        Spawn {
            program,
            argv,
            envp: &[],
            cwd: None,
            stdio,
            inherit: None,
            rlimits: &[],
            nice: None,
            ids: None,
            blocked: &[],
            new_session: false,
            orphan: Orphan::Dies,
            group: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::file;
    use std::io::Read;
    use std::os::fd::AsFd;

    /// Runs a shell text; gives what it wrote to standard output or error, `which` of them.
    fn said(text: &CStr, which: usize, inherit: Option<BorrowedFd<'_>>) -> String {
        let null = file::null().unwrap();
        let (mut reader, writer) = io::pipe().unwrap();
        let mut stdio = [null.as_fd(); 3];
        stdio[which] = writer.as_fd();
        let argv = [c"sh".into(), c"-c".into(), text.into()];
        let spawn = Spawn {
            envp: &[c"X=1".into()],
            cwd: Some(c"/proc"),
            inherit,
            blocked: &[libc::SIGHUP],
            ..Spawn::plain(c"/bin/sh", &argv, stdio)
        };
        let pid = spawn.start().unwrap();
        drop(writer);
        let mut said = String::new();
        reader.read_to_string(&mut said).unwrap();
        reap(pid.as_raw());
        said
    }

    #[test]
    fn everything_is_in_its_place() {
        assert_eq!(said(c"echo $X; pwd", 1, None), "1\n/proc\n");
        assert_eq!(said(c"echo a; echo b >&2", 2, None), "b\n");
        assert!(
            said(c"while read -r l; do echo $l; done </proc/self/status", 1, None)
                .contains("SigBlk: 0000000000000001")
        );
        let (mut reader, writer) = io::pipe().unwrap();
        assert_eq!(
            said(c"echo three >&3; [ -e /proc/self/fd/4 ] || echo none", 1, Some(writer.as_fd())),
            "none\n"
        );
        drop(writer);
        let mut three = String::new();
        reader.read_to_string(&mut three).unwrap();
        assert_eq!(three, "three\n");
    }

    #[test]
    fn a_child_dies_with_the_thread_that_started_it() {
        let null = file::null().unwrap();
        let argv = [c"sh".into(), c"-c".into(), c"exec sleep 100".into()];
        let pid = std::thread::scope(|scope| {
            scope
                .spawn(|| Spawn::plain(c"/bin/sh", &argv, [null.as_fd(); 3]).start().unwrap())
                .join()
                .unwrap()
        });
        let mut status = 0;
        // SAFETY: the pointer is to our own memory; the child is ours.
        assert_eq!(unsafe { libc::waitpid(pid.as_raw(), &mut status, 0) }, pid.as_raw());
        assert_eq!(libc::WTERMSIG(status), libc::SIGKILL);
    }

    #[test]
    fn a_failed_step_is_named_and_leaves_no_process() {
        let null = file::null().unwrap();
        let argv = [c"x".into()];
        let mut spawn =
            Spawn { program: c"/no/such", ..Spawn::plain(c"/bin/sh", &argv, [null.as_fd(); 3]) };
        assert_eq!(
            spawn.start(),
            Err(SpawnError { step: ChildSetup::Execute, errno: libc::ENOENT })
        );
        spawn.cwd = Some(c"/dev/null");
        assert_eq!(
            spawn.start(),
            Err(SpawnError { step: ChildSetup::Folder, errno: libc::ENOTDIR })
        );
        assert_eq!(spawn.start().unwrap_err().to_string(), "change to the folder: Not a directory");
    }
}
