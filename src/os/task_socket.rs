//! The socket where the tasks of one worker reach it.
//!
//! A file in a folder of the worker's user, so that every language can connect to it. Only that
//! user may enter the folder. Root's folder may be entered, not listed, by all: its tasks may run as
//! others (`user`). Whoever connects proves by a token which task it is.

use super::node_socket::{LEFT_FOR, own, remove_left};
use std::fs::{Permissions, set_permissions};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Where a folder can be, if the service manager gives none.
const SHARED: [&str; 2] = ["/tmp", "/var/tmp"];

/// Mode of root's folder.
const PASSABLE: u32 = 0o711;

/// Mode of root's socket: connecting needs the permission to write.
const CONNECTABLE: u32 = 0o666;

/// Where the socket is; dropping it removes the file.
#[derive(Debug)]
pub struct SocketFile {
    address: String,
    file: Option<(PathBuf, u64)>,
}

impl SocketFile {
    /// A path, or `@` and an abstract name.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Has the file been removed, as by a cleanup of `/tmp`?
    pub fn is_gone(&self) -> bool {
        self.file.as_ref().is_some_and(|(path, inode)| number(path) != Some(*inode))
    }

    /// Listens at the same place again.
    ///
    /// # Errors
    /// The folder cannot be made again, or another file is there.
    pub fn reopen(&mut self) -> io::Result<UnixListener> {
        let Some((path, _)) = &self.file else { return Err(io::ErrorKind::Unsupported.into()) };
        let folder = path.parent().unwrap_or(Path::new("/"));
        let (listener, inode) = bind(folder, path)?;
        self.file = Some((path.clone(), inode));
        Ok(listener)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Some((path, inode)) = &self.file
            && number(path) == Some(*inode)
        {
            let _ = std::fs::remove_file(path);
        }
    }
}

fn number(path: &Path) -> Option<u64> {
    path.symlink_metadata().ok().map(|found| found.ino())
}

/// Opens a socket with a name that nobody can guess.
///
/// # Errors
/// No place can have a socket: why, for each.
pub fn listen() -> io::Result<(UnixListener, SocketFile)> {
    let uid = nix::unistd::geteuid().as_raw();
    let (_, half) = uuid::Uuid::new_v4().as_u64_pair();
    let name = format!("task~{half:016x}.sock");
    let given = std::env::var_os("RUNTIME_DIRECTORY").and_then(|all| {
        // systemd separates several with colons.
        let all = all.into_string().ok()?;
        let first = all.split(':').next().filter(|one| !one.is_empty())?;
        Some(Path::new(first).join("tasks"))
    });
    let shared = SHARED.map(|folder| Path::new(folder).join(format!("qworker-tasks-{uid}")));
    let mut faults = Vec::new();
    for folder in given.into_iter().chain(shared) {
        let path = folder.join(&name);
        match bind(&folder, &path) {
            Ok((listener, inode)) => {
                remove_left(&folder, uid, LEFT_FOR);
                let address = path.to_string_lossy().into_owned();
                return Ok((listener, SocketFile { address, file: Some((path, inode)) }));
            }
            Err(error) => faults.push(format!("{}: {error}", folder.display())),
        }
    }
    let name = format!("qworker/{name}");
    let bound = SocketAddr::from_abstract_name(&name).and_then(|at| UnixListener::bind_addr(&at));
    match bound {
        Ok(listener) => Ok((listener, SocketFile { address: format!("@{name}"), file: None })),
        Err(error) => {
            faults.push(format!("@{name}: {error}"));
            Err(io::Error::other(faults.join("; ")))
        }
    }
}

fn bind(folder: &Path, path: &Path) -> io::Result<(UnixListener, u64)> {
    let is_root = nix::unistd::geteuid().is_root();
    own(folder, nix::unistd::geteuid().as_raw())?;
    if is_root {
        set_permissions(folder, Permissions::from_mode(PASSABLE))?;
    }
    let listener = UnixListener::bind(path)?;
    if is_root {
        set_permissions(path, Permissions::from_mode(CONNECTABLE))?;
    }
    listener.set_nonblocking(true)?;
    let inode = number(path).ok_or(io::ErrorKind::NotFound)?;
    Ok((listener, inode))
}

/// Connects to the worker at this address: a path, or `@` and an abstract name.
///
/// # Errors
/// Nobody listens there any more.
pub fn connect(address: &str) -> io::Result<UnixStream> {
    match address.strip_prefix('@') {
        Some(name) => UnixStream::connect_addr(&SocketAddr::from_abstract_name(name)?),
        None => UnixStream::connect(address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_that_was_removed_is_opened_again_at_its_place() {
        let (listener, mut place) = listen().unwrap();
        connect(place.address()).unwrap();
        let path = PathBuf::from(place.address());
        std::fs::remove_file(&path).unwrap();
        drop(listener);
        assert!(place.is_gone() && connect(place.address()).is_err());
        let _listener = place.reopen().unwrap();
        connect(place.address()).unwrap();
        assert!(!place.is_gone());
        drop(place);
        assert!(!path.exists());
    }
}
