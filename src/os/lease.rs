//! Signs of life: a file that stays locked for as long as its holder lives. The kernel
//! releases the lock at the holder's death, so there is no timeout to choose.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// A shared lock, held until it is dropped.
#[derive(Debug)]
pub struct Lease {
    _file: File,
}

/// The folder of this user's leases on this host, for those that belong to no file.
///
/// # Errors
/// It cannot be made.
pub fn folder() -> io::Result<PathBuf> {
    let folder = std::env::temp_dir().join(format!("qworker-{}", nix::unistd::geteuid()));
    if !folder.is_dir() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
    }
    Ok(folder)
}

impl Lease {
    /// Takes a shared lock on a file, which is created if need be. Waits, but only for
    /// as long as someone's [`Lease::is_abandoned`] takes.
    ///
    /// # Errors
    /// The file cannot be opened or its file system has no locks.
    pub fn hold(path: &Path) -> io::Result<Lease> {
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
        file.lock_shared()?;
        Ok(Lease { _file: file })
    }

    /// Does nobody hold this lease? True also if there is no such file.
    ///
    /// # Errors
    /// The file cannot be opened or its file system has no locks.
    pub fn is_abandoned(path: &Path) -> io::Result<bool> {
        // Each opening has locks of its own, so a holder within this process counts too.
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
            Err(error) => return Err(error),
        };
        match file.try_lock() {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn held_by_any_number_until_the_last_lets_go() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.lease");
        assert!(Lease::is_abandoned(&path).unwrap());
        let one = Lease::hold(&path).unwrap();
        let two = Lease::hold(&path).unwrap();
        assert!(!Lease::is_abandoned(&path).unwrap());
        drop(one);
        assert!(!Lease::is_abandoned(&path).unwrap());
        drop(two);
        assert!(Lease::is_abandoned(&path).unwrap());
        assert!(Lease::hold(Path::new("/nowhere/a.lease")).is_err());
    }
}
