//! Leases: files that stay locked for as long as their holder lives. The kernel releases the lock
//! when the holder dies, so there is no timeout to choose.
//!
//! Only a lock that can be acquired proves a death. A lease that does not exist, cannot be opened,
//! or is a copy of another one (a lease contains its own inode number) proves nothing.

use super::file;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// An inode number has fewer digits.
const NUMBER_MAX: u64 = 32;

/// A shared lock, held until it is dropped.
#[derive(Debug)]
pub struct Lease {
    file: File,
    path: PathBuf,
}

/// What a lease says about its holders.
#[derive(Debug)]
pub enum LeaseState {
    /// At least one of them lives.
    Held,
    /// All of them are dead.
    Free,
    /// Nothing: it does not exist, or cannot be locked.
    Unknown(io::Error),
}

/// The folder for this user's leases on this host that belong to no file. No other user can write
/// to it.
///
/// # Errors
/// There is none, and none can be created; names those that were tried.
pub fn folder() -> io::Result<PathBuf> {
    let uid = nix::unistd::geteuid().as_raw();
    let name = format!("qworker-{uid}");
    // Another user may have created the first one: then the next one is tried.
    let mut places = vec![std::env::temp_dir().join(&name)];
    places.push(PathBuf::from(format!("/run/user/{uid}/qworker")));
    if uid == 0 {
        places.push(Path::new("/run").join(&name));
    }
    let mut faults = Vec::new();
    for place in places {
        match own_folder(&place, uid) {
            Ok(()) => return Ok(place),
            Err(error) => faults.push(format!("{}: {error}", place.display())),
        }
    }
    Err(io::Error::new(ErrorKind::PermissionDenied, faults.join("; ")))
}

/// Creates the folder if necessary, and checks that it is ours alone.
fn own_folder(folder: &Path, uid: u32) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let found = folder.symlink_metadata()?;
    let refused = |why: String| Err(io::Error::new(ErrorKind::PermissionDenied, why));
    if !found.is_dir() {
        return refused("it is no folder".into());
    }
    if found.uid() != uid {
        return refused(format!("it belongs to user {}, expected {uid}", found.uid()));
    }
    if found.mode() & 0o077 != 0 {
        // What others have put there meanwhile has another owner, and is not read.
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

impl Lease {
    /// Creates the file, replacing an existing one, and locks it: it is never visible without its
    /// lock. It belongs to the owner of its folder.
    ///
    /// # Errors
    /// The file cannot be created, or its file system has no locks.
    pub fn create(path: &Path) -> io::Result<Lease> {
        let mut name = path.as_os_str().to_os_string();
        name.push(".new");
        let new = PathBuf::from(name);
        let made = file::create_as_folder(&new).and_then(|mut file| {
            let number = file.metadata()?.ino();
            // On a full disk, the lease has no number: it only cannot be told from a copy.
            let _ = writeln!(file, "{number}");
            file.lock_shared()?;
            fs::rename(&new, path)?;
            Ok(file)
        });
        if made.is_err() {
            let _ = fs::remove_file(&new);
        }
        Ok(Lease { file: made?, path: path.into() })
    }

    /// Takes a shared lock on an existing lease. Waits, but only as long as another process's
    /// [`Lease::state`] takes.
    ///
    /// # Errors
    /// The file cannot be opened or its file system has no locks.
    pub fn join(path: &Path) -> io::Result<Lease> {
        let file = open(path)?;
        file.lock_shared()?;
        Ok(Lease { file, path: path.into() })
    }

    /// Where it was created or opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Is this file still at its path?
    pub fn is_in_place(&self) -> bool {
        let number = |found: fs::Metadata| (found.dev(), found.ino());
        let there = self.path.symlink_metadata().map(number);
        // What cannot be examined may well be there.
        there.as_ref().err().is_some_and(|error| error.kind() != ErrorKind::NotFound)
            || there.ok() == self.file.metadata().map(number).ok()
    }

    /// The state of the lease at this path.
    pub fn state(path: &Path) -> LeaseState {
        Lease::try_state(path).unwrap_or_else(LeaseState::Unknown)
    }

    fn try_state(path: &Path) -> io::Result<LeaseState> {
        // Each opening has its own lock, so a holder within this process counts too.
        let file = open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(LeaseState::Held),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let mut text = String::new();
        (&file).take(NUMBER_MAX).read_to_string(&mut text)?;
        match text.trim() {
            // Of an older version, or created by someone who knows that the holder is dead.
            "" => Ok(LeaseState::Free),
            number if number == file.metadata()?.ino().to_string() => Ok(LeaseState::Free),
            _ => Err(io::Error::new(ErrorKind::InvalidData, "it is a copy of a lease")),
        }
    }
}

/// Opens a regular file, and nothing else.
fn open(path: &Path) -> io::Result<File> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(ErrorKind::InvalidInput, "it is no regular file"));
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_free(path: &Path) -> bool {
        matches!(Lease::state(path), LeaseState::Free)
    }

    #[test]
    fn held_by_any_number_until_the_last_lets_go() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.lease");
        let one = Lease::create(&path).unwrap();
        let two = Lease::join(&path).unwrap();
        assert!(matches!(Lease::state(&path), LeaseState::Held));
        drop(one);
        assert!(matches!(Lease::state(&path), LeaseState::Held));
        drop(two);
        assert!(is_free(&path));
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing else is left");
        assert!(Lease::join(Path::new("/nowhere/a.lease")).is_err());
        assert!(Lease::create(Path::new("/nowhere/a.lease")).is_err());
    }

    #[test]
    fn what_is_not_the_lease_proves_no_death() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.lease");
        let unseen = || matches!(Lease::state(&path), LeaseState::Unknown(_));
        assert!(unseen(), "not there");
        let held = Lease::create(&path).unwrap();
        let copy = dir.path().join("copy");
        fs::copy(&path, &copy).unwrap();
        assert!(held.is_in_place());
        fs::rename(&copy, &path).unwrap();
        assert!(unseen(), "a copy");
        assert!(!held.is_in_place());
        fs::remove_file(&path).unwrap();
        assert!(!held.is_in_place());
        std::os::unix::fs::symlink("/dev/null", &path).unwrap();
        assert!(unseen(), "a link");
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(unseen(), "a folder");
        fs::remove_dir(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(unseen(), "a pipe");
        fs::remove_file(&path).unwrap();
        fs::write(&path, "").unwrap();
        assert!(is_free(&path), "an empty file is the word of whoever made it");
    }

    #[test]
    fn a_folder_is_ours_alone() {
        let dir = tempfile::tempdir().unwrap();
        let uid = nix::unistd::geteuid().as_raw();
        let folder = dir.path().join("f");
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
        own_folder(&folder, uid).unwrap();
        assert_eq!(folder.metadata().unwrap().mode() & 0o777, 0o700);
        let error = own_folder(&folder, uid + 1).unwrap_err();
        assert!(error.to_string().contains("belongs to user"), "{error}");
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&folder, &link).unwrap();
        assert!(own_folder(&link, uid).unwrap_err().to_string().contains("no folder"));
    }
}
