//! From a command to what the kernel wants, and from the kernel's refusal to the
//! exception that Python would raise.

use super::arguments::too_long;
use super::{Command, arguments::E2BIG};
use crate::os::describe;
use crate::os::resolve::{self, resolve};
use crate::os::spawn::{Resource, Rlimit, SpawnError, Step};
use crate::task::Fences;
use crate::wire::Exception;
use serde_json::json;
use std::ffi::{CString, OsStr};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// "Operation not permitted" on every Linux.
pub(super) const EPERM: i32 = 1;

/// "No such file or directory" on every Linux.
const ENOENT: i32 = 2;

/// Why a command did not begin.
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

impl Failure {
    /// As Python's `subprocess` says it.
    pub fn exception(&self, command: &Command) -> Exception {
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
            Failure::Streams(errno) => {
                os_error(errno, format!("open standard streams: {}", describe(errno)), None)
            }
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
            Failure::Spawn(SpawnError { step: Step::Execute, errno }) => {
                os_error(errno, format!("{}{}", describe(errno), command.obstacle()), Some(program))
            }
            Failure::Spawn(SpawnError { step: Step::Folder, errno }) => {
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

impl Command {
    /// The file to execute.
    pub(super) fn program(&self) -> Result<CString, Failure> {
        let name =
            self.argv.first().map_or(OsStr::new(""), |name| OsStr::from_bytes(name.to_bytes()));
        let path = self.variable(b"PATH=").map(OsStr::from_bytes);
        c_path(&resolve(name, path, &self.cwd).map_err(Failure::Lookup)?)
    }

    /// What the kernel does not tell of a file that it does not execute.
    fn obstacle(&self) -> String {
        let path = self.variable(b"PATH=").map(OsStr::from_bytes);
        let file = self.program().ok();
        let file = file.as_ref().map(|file| Path::new(OsStr::from_bytes(file.to_bytes())));
        let found = file.and_then(|file| resolve::obstacle(file, path));
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

/// The kernel's form of the fences. At the end of its processor time a process is told
/// (`SIGXCPU`), and a second later killed.
pub(super) fn rlimits(fences: &Fences) -> Vec<Rlimit> {
    let limit = |resource, value: Option<u64>, beyond| {
        value.map(|soft| Rlimit { resource, soft, hard: soft.saturating_add(beyond) })
    };
    [
        limit(Resource::Memory, fences.memory, 0),
        limit(Resource::Cpu, fences.cpu_seconds, 1),
        limit(Resource::OpenFiles, fences.open_files, 0),
        limit(Resource::Processes, fences.processes, 0),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A path as the kernel wants it; one with a NUL cannot exist.
pub(super) fn c_path(path: &Path) -> Result<CString, Failure> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| Failure::Lookup(ENOENT))
}
