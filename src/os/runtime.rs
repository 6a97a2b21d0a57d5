//! Where the sockets and leases of running workers are.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Where a service of the system has them.
const SYSTEM: &str = "/run/qworker";

/// The folder of this process's sockets: systemd's `RUNTIME_DIRECTORY`, else `qworker` in the
/// login's `XDG_RUNTIME_DIR`, else one in `/tmp`. It is made if need be.
///
/// # Errors
/// It cannot be made, or somebody else made it.
pub fn folder() -> io::Result<PathBuf> {
    let given = std::env::var_os("RUNTIME_DIRECTORY").and_then(|all| {
        // systemd separates many with colons.
        all.into_string().ok()?.split(':').next().filter(|one| !one.is_empty()).map(PathBuf::from)
    });
    let login = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let uid = nix::unistd::geteuid().as_raw();
    let folder = given.or_else(|| Some(login.filter(|dir| is_of(dir, uid))?.join("qworker")));
    own(folder.unwrap_or_else(|| temporary(uid)), uid)
}

/// The socket of the worker of this node name, which is ours.
///
/// # Errors
/// As [`folder`].
pub fn socket(node: &str) -> io::Result<PathBuf> {
    Ok(folder()?.join(file_of(node)))
}

/// The socket of the worker of this node name that runs as `uid`, wherever it may be; `None` if
/// there is none. Root finds those of the system's services too, whoever they run as.
pub fn find(node: &str, uid: u32) -> Option<PathBuf> {
    let login = PathBuf::from(format!("/run/user/{uid}/qworker"));
    let own = folder().ok();
    let places = own.into_iter().chain([PathBuf::from(SYSTEM), login, temporary(uid)]);
    let file = file_of(node);
    let of_service =
        |socket: &Path| uid == 0 && socket.starts_with(SYSTEM) && socket.symlink_metadata().is_ok();
    places.map(|place| place.join(&file)).find(|socket| is_of(socket, uid) || of_service(socket))
}

fn file_of(node: &str) -> String {
    // The name of a node may have a slash in it; a file may not.
    format!("{}.sock", node.replace('/', "_"))
}

fn temporary(uid: u32) -> PathBuf {
    std::env::temp_dir().join(format!("qworker-{uid}"))
}

fn is_of(path: &Path, uid: u32) -> bool {
    path.symlink_metadata().is_ok_and(|found| found.uid() == uid)
}

/// A folder that nobody else can have put there for us.
fn own(folder: PathBuf, uid: u32) -> io::Result<PathBuf> {
    if !folder.is_dir() {
        DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
    }
    if is_of(&folder, uid) {
        return Ok(folder);
    }
    let text = format!("{} belongs to another user", folder.display());
    Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_somebody_else_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let uid = nix::unistd::geteuid().as_raw();
        assert!(own(dir.path().join("new"), uid).unwrap().is_dir());
        let error = own(dir.path().join("new"), uid + 1).unwrap_err();
        assert!(error.to_string().ends_with("belongs to another user"), "{error}");
    }

    #[test]
    fn a_node_has_one_file() {
        assert_eq!(file_of("w1@box"), "w1@box.sock");
        assert_eq!(file_of("a/../b@box"), "a_.._b@box.sock");
    }
}
