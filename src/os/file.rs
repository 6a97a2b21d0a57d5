//! Files: nameless ones for the standard input of children, files that are created beside others,
//! and what else the kernel knows about a file.

use super::last_error;
use super::user::Ids;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::unistd::{AccessFlags, faccessat};
use std::ffi::{CStr, CString};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::mem::MaybeUninit;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{
    DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown,
};
use std::path::{Path, PathBuf};

/// Links that are followed at most, as in the kernel.
const LINKS_MAX: usize = 40;

/// `/dev/null`, opened for reading and writing. One descriptor serves any number of children: it
/// has no position that they could disturb.
///
/// # Errors
/// The device cannot be opened.
pub fn null() -> io::Result<OwnedFd> {
    File::options().read(true).write(true).open("/dev/null").map(OwnedFd::from)
}

/// A nameless file in memory with these bytes, positioned at its start.
///
/// Standard input is such a file and not a pipe, because nobody has to feed it: a child that never
/// reads it, or closes it early, needs no care, however long the text is.
///
/// # Errors
/// Out of memory or of descriptors.
pub fn in_memory(bytes: &[u8]) -> io::Result<OwnedFd> {
    let file = scratch()?;
    // A positioned write leaves the offset, which the child inherits, at 0.
    file.write_all_at(bytes, 0)?;
    Ok(OwnedFd::from(file))
}

/// A nameless empty file in memory, also for a child's output: the child never waits for us to read
/// it.
///
/// # Errors
/// Out of memory or of descriptors.
pub fn scratch() -> io::Result<File> {
    in_memory_as(c"qworker-scratch")
}

/// A nameless empty file in memory that `/proc` shows with this name.
///
/// # Errors
/// As [`scratch`].
pub(super) fn in_memory_as(shown: &CStr) -> io::Result<File> {
    // SAFETY: the text is NUL-terminated; the flag is a known one.
    let fd = unsafe { libc::memfd_create(shown.as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::from_raw_os_error(last_error()));
    }
    // SAFETY: the kernel just gave us this descriptor; nobody else owns it.
    Ok(unsafe { File::from_raw_fd(fd) })
}

/// Changes the owner of a folder, and not of what a link there leads to.
///
/// # Errors
/// It is no folder, or we may not.
pub fn give_folder(path: &Path, ids: &Ids) -> io::Result<()> {
    let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW;
    let folder = File::options().read(true).custom_flags(flags).open(path)?;
    std::os::unix::fs::fchown(&folder, Some(ids.uid), Some(ids.gid))
}

/// Does this file begin with text? A database does not.
pub fn is_text(path: &Path) -> bool {
    let mut begin = Vec::new();
    let read = File::open(path).and_then(|file| file.take(512).read_to_end(&mut begin));
    let is_text = |byte: &u8| byte.is_ascii_graphic() || byte.is_ascii_whitespace();
    read.is_ok_and(|length| length > 0) && begin.iter().all(is_text)
}

/// An extended attribute of a file, `user.name`; `None` if it has none of this name, or one longer
/// than 64 bytes.
pub fn attribute(path: &Path, name: &str) -> Option<Vec<u8>> {
    let path = CString::new(path.as_os_str().as_bytes()).ok()?;
    let name = CString::new(name).ok()?;
    let mut value = vec![0; 64];
    // SAFETY: two NUL-terminated texts, and room of the length that is told.
    let length = unsafe {
        libc::getxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len())
    };
    value.truncate(usize::try_from(length).ok()?);
    Some(value)
}

/// The file that a path leads to through any links, whether it exists or not. Its folder must
/// exist.
///
/// # Errors
/// A folder does not exist or may not be searched, or links form a circle; names the path.
pub fn resolve(path: &Path) -> io::Result<PathBuf> {
    let mut at = std::path::absolute(path)?;
    for _ in 0..LINKS_MAX {
        match fs::canonicalize(&at) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            done => return done.map_err(|error| naming(&at, &error)),
        }
        let folder = folder_of(&at);
        match fs::read_link(&at) {
            Ok(target) => at = folder.join(target),
            Err(_) => {
                let real = fs::canonicalize(folder).map_err(|error| naming(folder, &error))?;
                return Ok(real.join(at.file_name().unwrap_or_default()));
            }
        }
    }
    Err(naming(path, &io::Error::from_raw_os_error(libc::ELOOP)))
}

/// The folder that a path is in.
pub fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// The same error with the path in front.
pub fn naming(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Creates a file for the users of its folder, and for no others. If root creates it in another
/// user's folder, it belongs to that user.
///
/// # Errors
/// The file exists, or cannot be created.
pub fn create_as_folder(path: &Path) -> io::Result<File> {
    let folder = fs::metadata(folder_of(path))?;
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
    // A group that shares the folder shares the file.
    let mode = if folder.mode() & 0o020 != 0 { 0o660 } else { 0o600 };
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    if mode == 0o660 && folder.gid() != file.metadata()?.gid() {
        // A user outside of the group cannot give it anything.
        let _ = fchown(&file, None, Some(folder.gid()));
    }
    hand_over(&file, &folder)?;
    Ok(file)
}

/// Creates a file with `mode` as far as the umask allows; its owner is as with
/// [`create_as_folder`].
///
/// # Errors
/// The file exists, or cannot be created.
pub fn create(path: &Path, mode: u32) -> io::Result<()> {
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    hand_over(&file, &fs::metadata(folder_of(path))?)
}

/// Opens a regular file for writing, or creates one as [`create_as_folder`] does.
///
/// # Errors
/// It cannot be written, or is no regular file.
pub fn open_or_create(path: &Path) -> io::Result<File> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = match OpenOptions::new().write(true).custom_flags(flags).open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => create_as_folder(path)?,
        done => done?,
    };
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::new(ErrorKind::InvalidInput, "it is no regular file")),
    }
}

/// Creates a folder and those above it. If root creates one in another user's folder, it belongs to
/// that user.
///
/// # Errors
/// One of them cannot be created; names it.
pub fn make_folders(folder: &Path, mode: u32) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let above = folder_of(folder);
    if above != folder {
        make_folders(above, 0o777)?;
    }
    match DirBuilder::new().mode(mode).create(folder) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists && folder.is_dir() => return Ok(()),
        done => done.map_err(|error| naming(folder, &error))?,
    }
    let made = open_folder(folder)?;
    // A user who may write above may have replaced it by another one, which is not empty.
    if fs::read_dir(folder)?.next().is_none() {
        hand_over(&made, &fs::metadata(above)?)?;
    }
    Ok(())
}

/// Opens a folder, and no link to one.
///
/// # Errors
/// It does not exist, or is no folder.
pub fn open_folder(path: &Path) -> io::Result<File> {
    let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW;
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}

/// Gives what root has just created to the owner of the folder.
fn hand_over(made: &File, folder: &fs::Metadata) -> io::Result<()> {
    let is_root = nix::unistd::geteuid().is_root();
    if is_root && folder.uid() != 0 && made.metadata()?.uid() == 0 {
        fchown(made, Some(folder.uid()), Some(folder.gid()))?;
    }
    Ok(())
}

/// Why a file cannot be read and written, and others be created beside it; `None` if it can.
pub fn refusal(path: &Path) -> Option<String> {
    let folder = folder_of(path);
    let asked = [
        (folder, AccessFlags::X_OK, "search the folder"),
        (path, AccessFlags::R_OK, "read"),
        (path, AccessFlags::W_OK, "write"),
        (folder, AccessFlags::W_OK, "make files in the folder"),
    ];
    let own = nix::unistd::geteuid();
    asked.into_iter().find_map(|(what, flags, verb)| {
        let error = faccessat(AT_FDCWD, what, flags, AtFlags::AT_EACCESS).err()?;
        let owner = fs::metadata(what).map_or(String::new(), |found| {
            format!(
                " (of user {}, mode {:o}; this is user {own})",
                found.uid(),
                found.mode() & 0o7777
            )
        });
        Some(format!("cannot {verb} {}: {}{owner}", what.display(), error.desc()))
    })
}

/// Is this file mounted by itself, apart from its folder?
pub fn is_mount(path: &Path) -> bool {
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else { return false };
    let mut found = MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: a NUL-terminated text, and room for the answer.
    let done = unsafe { libc::statx(libc::AT_FDCWD, path.as_ptr(), 0, 0, found.as_mut_ptr()) };
    // SAFETY: a kernel that says nothing leaves the zeroes, which are a value too.
    let found = unsafe { found.assume_init() };
    done == 0 && found.stx_attributes & libc::STATX_ATTR_MOUNT_ROOT as u64 != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_leads_through_links_to_what_may_not_be_there() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("real/deep")).unwrap();
        let link = |from: &str, to: &str| {
            std::os::unix::fs::symlink(from, root.join(to)).unwrap();
        };
        link("real/deep", "folder");
        link("../target", "real/deep/one");
        link("folder/one", "two");
        link("loop", "loop");
        link("away/x", "dangling");
        assert_eq!(resolve(&root.join("two")).unwrap(), root.join("real/target"));
        fs::write(root.join("real/target"), "").unwrap();
        assert_eq!(resolve(&root.join("two")).unwrap(), root.join("real/target"));
        assert_eq!(resolve(&root.join("folder/new")).unwrap(), root.join("real/deep/new"));
        assert!(resolve(&root.join("loop")).unwrap_err().to_string().contains("loop"));
        let error = resolve(&root.join("dangling")).unwrap_err().to_string();
        assert!(error.contains("/away: No such file"), "{error}");
    }

    #[test]
    fn what_is_made_is_for_whom_its_folder_is() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("a/b");
        make_folders(&folder, 0o700).unwrap();
        assert_eq!(folder.metadata().unwrap().mode() & 0o777, 0o700);
        let mode = |name: &str| folder.join(name).metadata().unwrap().mode() & 0o777;
        create_as_folder(&folder.join("one")).unwrap();
        assert_eq!(mode("one"), 0o600);
        assert!(create_as_folder(&folder.join("one")).is_err());
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o770)).unwrap();
        open_or_create(&folder.join("two")).unwrap();
        open_or_create(&folder.join("two")).unwrap();
        assert_eq!(mode("two"), 0o660);
        std::os::unix::fs::symlink("/dev/null", folder.join("three")).unwrap();
        assert!(open_or_create(&folder.join("three")).is_err());
        assert!(!is_mount(&folder) && is_mount(Path::new("/proc")));
        if nix::unistd::geteuid().is_root() {
            fchown(open_folder(&folder).unwrap(), Some(54321), Some(12345)).unwrap();
            make_folders(&folder.join("c/d"), 0o700).unwrap();
            create(&folder.join("c/d/e"), 0o660).unwrap();
            for name in ["c", "c/d", "c/d/e"] {
                let found = folder.join(name).metadata().unwrap();
                assert_eq!((found.uid(), found.gid()), (54321, 12345), "{name}");
            }
        }
    }

    #[test]
    fn a_file_in_memory_reads_from_its_start() {
        let mut text = String::new();
        File::from(in_memory(b"hello").unwrap()).read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
    }
}
