//! From a command to the arguments of a start, and from the kernel's refusal to the exception that
//! Python would raise.

use super::ProcessCommand;
use super::command::{E2BIG, too_long};
use crate::os::spawn::{ChildSetup, Resource, Rlimit, SpawnError};
use crate::os::which::{self, which};
use crate::os::{describe, is_passing, is_shortage, open_files};
use crate::runner::Ending;
use crate::task::ResourceLimits;
use crate::wire::Exception;
use serde_json::json;
use std::ffi::{CString, OsStr};
use std::fmt;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// "Operation not permitted" on every Linux.
pub(super) const EPERM: i32 = 1;

/// "No such file or directory" on every Linux.
const ENOENT: i32 = 2;

// The same on every Linux; only `os` names `libc`.
const EAGAIN: i32 = 11;
const ENOMEM: i32 = 12;
const EINVAL: i32 = 22;
const EMFILE: i32 = 24;

/// Why a command did not start.
#[derive(Debug)]
pub(super) enum Failure {
    /// The program is nowhere in `PATH`: the kernel's error number.
    Lookup(i32),
    /// A step of the start failed.
    Spawn(SpawnError),
    /// No descriptors or no memory for its streams: the kernel's error number.
    Streams(i32),
}

impl From<SpawnError> for Failure {
    fn from(error: SpawnError) -> Failure {
        Failure::Spawn(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::Streams(error.raw_os_error().unwrap_or(ENOENT))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Lookup(errno) => write!(f, "find the program: {}", describe(*errno)),
            Failure::Streams(errno) => write!(f, "open standard streams: {}", describe(*errno)),
            Failure::Spawn(error) => error.fmt(f),
        }
    }
}

impl Failure {
    /// How an attempt ends after this failure: refused by the host, for any task or for this one,
    /// or because of its own command.
    pub(super) fn ending(&self, command: &ProcessCommand) -> Ending {
        if self.of_host(&command.resource_limits) {
            return Ending::NoCapacity(self.to_string());
        }
        match self.withheld(command) {
            Some(why) => Ending::Unavailable(why),
            None => Ending::Refused(self.exception(command)),
        }
    }

    /// What is unavailable on the host now, and why.
    fn withheld(&self, command: &ProcessCommand) -> Option<String> {
        let name = command.argv.first().map(|name| name.to_string_lossy());
        let (errno, what) = match *self {
            Failure::Lookup(errno) => (errno, name?),
            Failure::Spawn(SpawnError { step: ChildSetup::Execute, errno }) => (errno, name?),
            Failure::Spawn(SpawnError { step: ChildSetup::Folder, errno }) => {
                (errno, command.cwd.to_string_lossy())
            }
            _ => return None,
        };
        is_passing(errno).then(|| format!("{what}: {}", describe(errno)))
    }

    /// Would the host refuse any other task too?
    fn of_host(&self, resource_limits: &ResourceLimits) -> bool {
        let SpawnError { step, errno } = match *self {
            Failure::Lookup(errno) => return is_shortage(errno),
            Failure::Streams(_) => return true,
            Failure::Spawn(error) => error,
        };
        // The task may have reached a limit of its own.
        let limited = match errno {
            ENOMEM => resource_limits.memory.is_some(),
            EAGAIN => resource_limits.processes.is_some(),
            EMFILE | EINVAL => resource_limits.open_files.is_some(),
            _ => false,
        };
        match step {
            ChildSetup::Prepare
            | ChildSetup::Clone
            | ChildSetup::Enter
            | ChildSetup::Group
            | ChildSetup::DeathSignal => true,
            ChildSetup::Stdio => !limited,
            ChildSetup::Nice
            | ChildSetup::Limit
            | ChildSetup::Ids
            | ChildSetup::Folder
            | ChildSetup::Execute => is_shortage(errno) && !limited,
        }
    }

    /// As Python's `subprocess` reports it.
    pub(super) fn exception(&self, command: &ProcessCommand) -> Exception {
        let program = command
            .argv
            .first()
            .map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let folder = command.cwd.to_string_lossy().into_owned();
        match *self {
            Failure::Lookup(errno) => {
                let path = command.variable(b"PATH=").map(String::from_utf8_lossy);
                let path = path.map_or_else(String::new, |path| format!(": not on PATH {path}"));
                os_error(errno, format!("{}{path}", describe(errno)), Some(program))
            }
            Failure::Streams(errno) => os_error(errno, self.to_string(), None),
            Failure::Spawn(SpawnError { errno: E2BIG, .. }) => {
                let size = command
                    .argv
                    .iter()
                    .map(CString::as_c_str)
                    .chain(command.env.iter().map(|entry| &**entry))
                    .map(|text| text.count_bytes() + 1)
                    .sum();
                too_long("all arguments and the environment together", size)
            }
            Failure::Spawn(SpawnError { step: ChildSetup::Execute, errno }) => {
                os_error(errno, format!("{}{}", describe(errno), command.obstacle()), Some(program))
            }
            Failure::Spawn(SpawnError { step: ChildSetup::Folder, errno }) => {
                os_error(errno, format!("{}: the folder of cwd", describe(errno)), Some(folder))
            }
            Failure::Spawn(error) => os_error(error.errno, error.to_string(), None),
        }
    }
}

/// The subclass of `OSError` that Python chooses for an error number.
pub(super) fn os_error(errno: i32, text: String, file: Option<String>) -> Exception {
    let class = match io::Error::from_raw_os_error(errno).kind() {
        io::ErrorKind::NotFound => "FileNotFoundError",
        io::ErrorKind::PermissionDenied => "PermissionError",
        io::ErrorKind::NotADirectory => "NotADirectoryError",
        io::ErrorKind::WouldBlock => "BlockingIOError",
        _ => "OSError",
    };
    let args = [Some(json!(errno)), Some(json!(text)), file.map(|file| json!(file))];
    Exception::with("builtins", class, args.into_iter().flatten().collect())
}

impl ProcessCommand {
    /// The file to execute.
    pub(super) fn program(&self) -> Result<CString, Failure> {
        let name =
            self.argv.first().map_or(OsStr::new(""), |name| OsStr::from_bytes(name.to_bytes()));
        let path = self.variable(b"PATH=").map(OsStr::from_bytes);
        c_path(&which(name, path, &self.cwd).map_err(Failure::Lookup)?)
    }

    /// What the kernel does not say about a file that cannot be executed.
    fn obstacle(&self) -> String {
        let path = self.variable(b"PATH=").map(OsStr::from_bytes);
        let file = self.program().ok();
        let file = file.as_ref().map(|file| Path::new(OsStr::from_bytes(file.to_bytes())));
        let found = file.and_then(|file| which::obstacle(file, path));
        found.map_or_else(String::new, |found| format!(": {}", found.why))
    }

    /// The entry of its environment by which processes of this attempt are known.
    pub(super) fn mark(&self) -> Option<Vec<u8>> {
        let name = b"QWORKER_TASK_ID=";
        self.variable(name).map(|id| [name, id].concat())
    }

    fn variable(&self, name: &[u8]) -> Option<&[u8]> {
        self.env.iter().find_map(|entry| entry.to_bytes().strip_prefix(name))
    }
}

/// The kernel's form of the resource limits. At the end of its processor time a process is told
/// (`SIGXCPU`), and a second later killed.
pub(super) fn rlimits(resource_limits: &ResourceLimits) -> Vec<Rlimit> {
    let limit = |resource, value: Option<u64>, beyond| {
        value.map(|soft| Rlimit { resource, soft, hard: soft.saturating_add(beyond) })
    };
    [
        limit(Resource::Memory, resource_limits.memory, 0),
        limit(Resource::Cpu, resource_limits.cpu_seconds, 1),
        limit(Resource::OpenFiles, resource_limits.open_files, 0).or_else(unraised),
        limit(Resource::Processes, resource_limits.processes, 0),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The limit of open files that the worker had before it raised its own.
fn unraised() -> Option<Rlimit> {
    let soft = open_files::limit_of_children()?;
    Some(Rlimit { resource: Resource::OpenFiles, soft, hard: u64::MAX })
}

/// A path as the kernel wants it; one with a NUL cannot exist.
pub(super) fn c_path(path: &Path) -> Result<CString, Failure> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| Failure::Lookup(ENOENT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_program_or_folder_runs_into_holds_up_no_other_task() {
        let command = ProcessCommand {
            argv: vec![c"prog".into()],
            env: vec![],
            cwd: "/share".into(),
            stdin: None,
            resource_limits: ResourceLimits::default(),
            nice: None,
            ids: None,
            max_output: 0,
        };
        let ending = |step, errno| Failure::Spawn(SpawnError { step, errno }).ending(&command);
        let withheld = |text: &str| Ending::Unavailable(text.into());
        // ETXTBSY, ESTALE, EIO, ENOTCONN.
        assert_eq!(ending(ChildSetup::Execute, 26), withheld("prog: Text file busy"));
        assert_eq!(ending(ChildSetup::Folder, 116), withheld("/share: Stale file handle"));
        assert_eq!(Failure::Lookup(5).ending(&command), withheld("prog: I/O error"));
        assert!(matches!(ending(ChildSetup::Folder, 107), Ending::Unavailable(_)));
        // EDQUOT, ENOBUFS and EUSERS, whatever the step.
        for errno in [122, 105, 87] {
            assert!(matches!(ending(ChildSetup::Execute, errno), Ending::NoCapacity(_)), "{errno}");
        }
        for errno in [ENOENT, 13, 20, 8] {
            assert!(matches!(ending(ChildSetup::Execute, errno), Ending::Refused(_)), "{errno}");
        }
    }
}
