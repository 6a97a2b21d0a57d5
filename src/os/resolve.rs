//! Where a program named in a task file is, by the rules of `execvp`, looked up
//! before the process exists: after `clone` nothing may be computed.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Searched when the environment has no `PATH`.
const PATH_DEFAULT: &str = "/usr/local/bin:/usr/bin:/bin";

/// The file that `program` means for a process with this `PATH` in this folder.
/// A name with a slash is taken as it is, relative to `cwd`; an empty entry of
/// `PATH` is `cwd` too.
///
/// # Errors
/// The error number that `execvp` would give: `EACCES` if the only files of that name
/// cannot be executed, else `ENOENT`.
pub fn resolve(program: &OsStr, path: Option<&OsStr>, cwd: &Path) -> Result<PathBuf, i32> {
    if program.is_empty() {
        return Err(libc::ENOENT);
    }
    if program.as_bytes().contains(&b'/') {
        // Not checked here: `execve` says the same, and more exactly.
        return Ok(cwd.join(program));
    }
    let fallback = OsString::from(PATH_DEFAULT);
    let mut errno = libc::ENOENT;
    for folder in std::env::split_paths(path.unwrap_or(&fallback)) {
        let file = cwd.join(folder).join(program);
        match std::fs::metadata(&file) {
            Ok(meta) if meta.is_file() && meta.permissions().mode() & 0o111 != 0 => {
                return Ok(file);
            }
            Ok(_) => errno = libc::EACCES,
            Err(_) => {}
        }
    }
    Err(errno)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_of_execvp() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("plain"), "").unwrap();
        std::fs::write(dir.path().join("tool"), "").unwrap();
        std::fs::set_permissions(dir.path().join("tool"), PermissionsExt::from_mode(0o755))
            .unwrap();
        let find = |name: &str, path: Option<&str>| {
            resolve(name.as_ref(), path.map(OsStr::new), dir.path())
        };

        assert_eq!(find("sh", None).unwrap().file_name().unwrap(), "sh");
        assert_eq!(find("sh", Some("/nowhere")), Err(libc::ENOENT));
        assert_eq!(find("", None), Err(libc::ENOENT));
        assert_eq!(find("/bin/x y", None), Ok("/bin/x y".into()));
        assert_eq!(find("./tool", Some("/bin")), Ok(dir.path().join("./tool")));
        assert_eq!(find("tool", Some("/nowhere:")), Ok(dir.path().join("tool")));
        assert_eq!(find("plain", Some("")), Err(libc::EACCES));
    }
}
