//! Finds the file of a program named in a task file, by the rules of `execvp`. This happens before
//! the process exists: after `clone` nothing may be computed.

use super::{is_passing, is_shortage};
use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Searched when the environment has no `PATH`.
const PATH_DEFAULT: &str = "/usr/local/bin:/usr/bin:/bin";

/// The file that `program` means for a process with this `PATH` in this folder. A name with a slash
/// is taken as it is, relative to `cwd`; an empty entry of `PATH` is `cwd` too.
///
/// # Errors
/// The error number that `execvp` would give: `EACCES` if the only files of that name cannot be
/// executed, else `ENOENT`; or that of a folder which is unavailable now, because the file may be
/// there.
pub fn which(program: &OsStr, path: Option<&OsStr>, cwd: &Path) -> Result<PathBuf, i32> {
    if program.is_empty() {
        return Err(libc::ENOENT);
    }
    if program.as_bytes().contains(&b'/') {
        // Not checked here: `execve` reports the same, and more precisely.
        return Ok(cwd.join(program));
    }
    let fallback = OsString::from(PATH_DEFAULT);
    let (mut errno, mut unseen) = (libc::ENOENT, None);
    for folder in std::env::split_paths(path.unwrap_or(&fallback)) {
        let file = cwd.join(folder).join(program);
        match std::fs::metadata(&file) {
            Ok(meta) if meta.is_file() && meta.permissions().mode() & 0o111 != 0 => {
                return Ok(file);
            }
            Ok(_) => errno = libc::EACCES,
            Err(error) => {
                let hides = |errno: &i32| is_passing(*errno) || is_shortage(*errno);
                unseen = unseen.or(error.raw_os_error().filter(hides));
            }
        }
    }
    Err(unseen.unwrap_or(errno))
}

/// The file that the first word of this program's command line names now: a link to the current
/// version, or a replaced file, is followed again. The running file if there is none.
pub fn own_program(name: &OsStr) -> PathBuf {
    let path = Path::new(name);
    let found = if path.components().count() > 1 {
        std::path::absolute(path).ok()
    } else {
        let search = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&search).map(|folder| folder.join(path)).find(|file| file.is_file())
    };
    let own = || std::env::current_exe().unwrap_or_else(|_| PathBuf::from("/proc/self/exe"));
    found.filter(|file| file.is_file()).unwrap_or_else(own)
}

/// Why an existing file cannot be executed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obstacle {
    /// A sentence about the file.
    pub why: String,
    /// The fault is in the file: no other machine could execute it.
    pub everywhere: bool,
}

/// Why `file` cannot be executed by a process with this `PATH`, as far as known: the kernel
/// reports a missing interpreter as if the file were missing.
pub fn obstacle(file: &Path, path: Option<&OsStr>) -> Option<Obstacle> {
    let of_the_file = |why: String| Some(Obstacle { why, everywhere: true });
    let of_this_host = |why: String| Some(Obstacle { why, everywhere: false });
    let about = std::fs::metadata(file).ok()?;
    if about.is_dir() {
        return of_the_file("it is a folder; name a program in it".into());
    }
    if !about.is_file() {
        return of_the_file("it is no file".into());
    }
    if about.permissions().mode() & 0o111 == 0 {
        return of_the_file(format!("it is not executable; chmod +x {}", file.display()));
    }
    let flags = nix::sys::statvfs::statvfs(file).map(|found| found.flags());
    if flags.is_ok_and(|flags| flags.contains(nix::sys::statvfs::FsFlags::ST_NOEXEC)) {
        return of_this_host("it is on a file system that is mounted noexec".into());
    }
    let mut head = Vec::new();
    std::fs::File::open(file).and_then(|file| file.take(HEAD).read_to_end(&mut head)).ok()?;
    let Some(line) = head.strip_prefix(b"#!") else {
        let is_program = head.starts_with(b"\x7fELF");
        return match is_program {
            true => None,
            false => of_the_file("it is no program, and line 1 names no interpreter (#!)".into()),
        };
    };
    let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
    if line.ends_with(b"\r") {
        let file = file.display();
        return of_the_file(format!(
            "line 1 ends with a carriage return (CRLF), which is part of the interpreter's name; \
             convert it: sed -i 's/\\r$//' {file}"
        ));
    }
    let mut words = line.split(|byte| b" \t".contains(byte)).filter(|word| !word.is_empty());
    let Some(interpreter) = words.next().map(OsStr::from_bytes) else {
        return of_the_file("line 1 names no interpreter behind #!".into());
    };
    let missing = |name: &OsStr, where_to: &str| {
        let name = name.to_string_lossy();
        of_this_host(format!("its interpreter {name}, of line 1, is not {where_to}"))
    };
    if !Path::new(interpreter).exists() {
        return missing(interpreter, "there");
    }
    if Path::new(interpreter).file_name() != Some(OsStr::new("env")) {
        return None;
    }
    let named = words.find(|word| !word.starts_with(b"-") && !word.contains(&b'='));
    let named = named.map(OsStr::from_bytes)?;
    match which(named, path, Path::new("/")) {
        Ok(found) if found.exists() => None,
        _ => missing(named, "on PATH"),
    }
}

/// Bytes of the beginning of a file: the kernel reads no longer first line.
const HEAD: u64 = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_keeps_a_file_from_being_executed() {
        let dir = tempfile::tempdir().unwrap();
        for (text, mode, why, everywhere) in [
            ("#!/bin/sh\n", 0o644, "not executable; chmod +x", true),
            ("#!/bin/sh\r\necho\r\n", 0o755, "carriage return (CRLF)", true),
            (
                "#!/no/where -x\n",
                0o755,
                "its interpreter /no/where, of line 1, is not there",
                false,
            ),
            (
                "#!/usr/bin/env -S no_such_one x\n",
                0o755,
                "no_such_one, of line 1, is not on PATH",
                false,
            ),
            ("echo\n", 0o755, "names no interpreter", true),
            ("#!\n", 0o755, "names no interpreter", true),
            ("", 0o755, "it is no program", true),
        ] {
            let file = dir.path().join("x");
            std::fs::write(&file, text).unwrap();
            std::fs::set_permissions(&file, PermissionsExt::from_mode(mode)).unwrap();
            let found = obstacle(&file, None).unwrap();
            assert!(found.why.contains(why) && found.everywhere == everywhere, "{text}: {found:?}");
        }
        std::fs::write(dir.path().join("x"), "#!/usr/bin/env sh\n").unwrap();
        assert_eq!(obstacle(&dir.path().join("x"), None), None);
        assert_eq!(obstacle(Path::new("/bin/sh"), None), None);
        for (path, why) in [(dir.path(), "it is a folder"), (Path::new("/dev/null"), "no file")] {
            assert!(obstacle(path, None).unwrap().why.contains(why), "{}", path.display());
        }
        assert_eq!(obstacle(&dir.path().join("none"), None), None);
    }

    #[test]
    fn rules_of_execvp() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("plain"), "").unwrap();
        std::fs::write(dir.path().join("tool"), "").unwrap();
        std::fs::set_permissions(dir.path().join("tool"), PermissionsExt::from_mode(0o755))
            .unwrap();
        let find =
            |name: &str, path: Option<&str>| which(name.as_ref(), path.map(OsStr::new), dir.path());

        assert_eq!(find("sh", None).unwrap().file_name().unwrap(), "sh");
        assert_eq!(find("sh", Some("/nowhere")), Err(libc::ENOENT));
        assert_eq!(find("", None), Err(libc::ENOENT));
        assert_eq!(find("/bin/x y", None), Ok("/bin/x y".into()));
        assert_eq!(find("./tool", Some("/bin")), Ok(dir.path().join("./tool")));
        assert_eq!(find("tool", Some("/nowhere:")), Ok(dir.path().join("tool")));
        assert_eq!(find("plain", Some("")), Err(libc::EACCES));
    }
}
