//! The local sockets of running workers. Workers and clients look in the same places, whatever
//! their environment is.

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use sha2::{Digest, Sha256};
use std::fs::{DirBuilder, read_dir};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// The folder for system services.
const SYSTEM: &str = "/run/qworker";

/// Contains a folder for each login.
const LOGINS: &str = "/run/user";

/// Contain a folder for each user, `qworker-UID`.
const SHARED: [&str; 2] = ["/tmp", "/var/tmp"];

/// The kernel has room for 108 bytes of a path; the folder takes some of them.
const NODE_BYTES_MAX: usize = 48;

/// A socket without a listener is removed when it is this old: a younger one may be about to
/// listen.
pub(super) const LEFT_FOR: Duration = Duration::from_secs(60);

/// Sockets that are examined when a worker creates its own.
const LOOKS_MAX: usize = 1_000;

/// The address of a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SocketAddress {
    /// A socket in a folder of its owner.
    File(PathBuf),
    /// An abstract name, and the user whose it must be: where no folder is writable.
    Name(String, u32),
}

/// The result of a search for workers.
#[derive(Debug, Default)]
pub struct Search {
    /// Addresses of workers of this node name; some may be dead.
    pub found: Vec<SocketAddress>,
    /// Folders that exist.
    pub looked: Vec<PathBuf>,
    /// Folders that could not be read, and why.
    pub hidden: Vec<String>,
}

/// Opens the socket of the worker of this node name. `what` identifies its application and broker.
///
/// # Errors
/// No place can have a socket: why, for each.
pub fn listen(node: &str, what: &str) -> io::Result<(UnixListener, SocketAddress)> {
    let uid = nix::unistd::geteuid().as_raw();
    let name = format!("{}{}.sock", prefix(node), digest(what));
    let mut faults = Vec::new();
    for place in own_places(uid) {
        match listen_in(&place, &name, uid) {
            Ok(listening) => {
                remove_left(&place, uid, LEFT_FOR);
                return Ok(listening);
            }
            // A user without a login is no fault.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => faults.push(format!("{}: {error}", place.display())),
        }
    }
    let name = format!("{}{name}", of_user(uid));
    let bound = SocketAddr::from_abstract_name(&name).and_then(|at| UnixListener::bind_addr(&at));
    match bound {
        Ok(listener) => Ok((listener, SocketAddress::Name(name, uid))),
        Err(error) => {
            faults.push(format!("@{name}: {error}"));
            Err(io::Error::other(faults.join("; ")))
        }
    }
}

fn listen_in(place: &Path, name: &str, uid: u32) -> io::Result<(UnixListener, SocketAddress)> {
    let path = own(place, uid)?.join(name);
    // Left behind by a killed worker. Of two living ones of the same name, the later one is
    // reachable.
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    Ok((UnixListener::bind(&path)?, SocketAddress::File(path)))
}

/// Removes the sockets there that killed workers of ours have left behind at least `age` ago.
pub(super) fn remove_left(place: &Path, uid: u32, age: Duration) {
    let entries = read_dir(place).into_iter().flatten().flatten();
    let ours = entries.filter(|entry| is_ours(&entry.file_name().to_string_lossy()));
    for path in ours.map(|entry| entry.path()).take(LOOKS_MAX) {
        let number = || path.symlink_metadata().map(|found| (found.dev(), found.ino())).ok();
        let Ok(found) = path.symlink_metadata() else { continue };
        let old = found.modified().ok().and_then(|at| SystemTime::now().duration_since(at).ok());
        let is_left = found.file_type().is_socket()
            && found.uid() == uid
            && old.is_some_and(|old| old >= age)
            && is_deserted(&path);
        // A new worker may have created its own there meanwhile.
        if is_left && number() == Some((found.dev(), found.ino())) {
            // Another worker may be faster.
            let _ = std::fs::remove_file(&path);
        }
    }
}

/// Does nobody listen there? Does not wait.
fn is_deserted(path: &Path) -> bool {
    let connected = UnixAddr::new(path).and_then(|at| connect_now(&at));
    connected.is_err_and(|error| error == Errno::ECONNREFUSED)
}

/// Connects, or fails with `EAGAIN` where the listener is stopped and its backlog is full:
/// otherwise that takes as long as it is stopped.
fn connect_now(at: &UnixAddr) -> Result<OwnedFd, Errno> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect(socket.as_raw_fd(), at)?;
    Ok(socket)
}

/// Addresses of workers of this node name that run as `uid`. Root finds those of all users.
pub fn find(node: &str, uid: u32) -> Search {
    search(&|name| is_of(node, name), uid)
}

/// As [`find`], for workers of any name.
pub fn find_all(uid: u32) -> Search {
    search(&is_ours, uid)
}

fn search(is_wanted: &dyn Fn(&str) -> bool, uid: u32) -> Search {
    let mut search = Search::default();
    for (place, owner) in places(uid) {
        // System services may run as any user.
        let is_right = |of: u32| owner.is_none_or(|owner| owner == of);
        match place.symlink_metadata() {
            Ok(found) if found.is_dir() && is_right(found.uid()) => {}
            Ok(found) => {
                search.hidden.push(format!("{} belongs to user {}", place.display(), found.uid()));
                continue;
            }
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    search.hidden.push(format!("{}: {error}", place.display()));
                }
                continue;
            }
        }
        match read_dir(&place) {
            Ok(entries) => {
                let names = entries.flatten().map(|entry| entry.file_name());
                let ours = names.filter(|name| is_wanted(&name.to_string_lossy()));
                let sockets = ours.map(|name| place.join(name)).filter(|path| {
                    path.symlink_metadata().is_ok_and(|found| is_right(found.uid()))
                });
                search.found.extend(sockets.map(SocketAddress::File));
                search.looked.push(place);
            }
            Err(error) => search.hidden.push(format!("{}: {error}", place.display())),
        }
    }
    search.found.extend(names(is_wanted, uid));
    search
}

impl SocketAddress {
    /// Connects to the worker there, without waiting.
    ///
    /// # Errors
    /// Nobody listens, or another user does; `TimedOut` if so many wait already that one more
    /// would have to wait too.
    pub fn connect(&self) -> io::Result<UnixStream> {
        let stream = |at: UnixAddr| {
            let socket = connect_now(&at).map_err(|error| match error {
                Errno::EAGAIN => io::ErrorKind::TimedOut.into(),
                error => io::Error::from(error),
            })?;
            let stream = UnixStream::from(socket);
            stream.set_nonblocking(false)?;
            Ok::<_, io::Error>(stream)
        };
        match self {
            SocketAddress::File(path) => stream(UnixAddr::new(path)?),
            SocketAddress::Name(name, uid) => {
                let stream = stream(UnixAddr::new_abstract(name.as_bytes())?)?;
                use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
                match getsockopt(&stream, PeerCredentials)?.uid() {
                    other if other != *uid => {
                        let text = format!("@{name}: user {other} listens, expected user {uid}");
                        Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
                    }
                    _ => Ok(stream),
                }
            }
        }
    }
}

/// Where a worker of this user can have its socket; the first place that works counts.
fn own_places(uid: u32) -> Vec<PathBuf> {
    let given = std::env::var_os("RUNTIME_DIRECTORY").and_then(|all| {
        // systemd separates several with colons.
        all.into_string().ok()?.split(':').next().filter(|one| !one.is_empty()).map(PathBuf::from)
    });
    let login = Path::new(LOGINS).join(uid.to_string()).join("qworker");
    let shared = SHARED.map(|folder| Path::new(folder).join(format!("qworker-{uid}")));
    given.into_iter().chain([login]).chain(shared).collect()
}

/// All places where sockets of this user can be, with the required owner of each; for root, those
/// of all users.
fn places(uid: u32) -> Vec<(PathBuf, Option<u32>)> {
    let mut all: Vec<_> = own_places(uid).into_iter().map(|place| (place, Some(uid))).collect();
    if nix::unistd::geteuid().is_root() {
        all.push((PathBuf::from(SYSTEM), None));
        let entries = |folder: &str| read_dir(folder).into_iter().flatten().flatten();
        for entry in entries(LOGINS) {
            let uid = entry.file_name().to_str().and_then(|name| name.parse().ok());
            all.extend(uid.map(|uid| (entry.path().join("qworker"), Some(uid))));
        }
        for entry in SHARED.iter().flat_map(|folder| entries(folder)) {
            let name = entry.file_name();
            let uid = name.to_str().and_then(|name| name.strip_prefix("qworker-")?.parse().ok());
            all.extend(uid.map(|uid| (entry.path(), Some(uid))));
        }
    } else {
        all.push((PathBuf::from(SYSTEM), Some(uid)));
    }
    let mut known = std::collections::HashSet::new();
    all.retain(|(place, _)| known.insert(place.clone()));
    all
}

/// Abstract names of this user; for root, of all users.
fn names(is_wanted: &dyn Fn(&str) -> bool, uid: u32) -> Vec<SocketAddress> {
    let sockets = std::fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let names = sockets.lines().filter_map(|line| line.split_once(" @qworker/"));
    let found = names.filter_map(|(_, rest)| {
        let (owner, name) = rest.split_once('/')?;
        let owner: u32 = owner.parse().ok()?;
        let is_ours = owner == uid || nix::unistd::geteuid().is_root();
        (is_ours && is_wanted(name))
            .then(|| SocketAddress::Name(format!("{}{name}", of_user(owner)), owner))
    });
    let mut all: Vec<SocketAddress> = Vec::new();
    // One line is the listener's, others are those of connected clients.
    for address in found {
        if !all.contains(&address) {
            all.push(address);
        }
    }
    all
}

fn of_user(uid: u32) -> String {
    format!("qworker/{uid}/")
}

/// The prefix of the names of all sockets of a node.
fn prefix(node: &str) -> String {
    // A node name may contain a slash; a file name may not.
    let plain = node.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/');
    match plain && node.len() <= NODE_BYTES_MAX {
        true => format!("{node}~"),
        false => format!("{}~", digest(node)),
    }
}

fn is_of(node: &str, name: &str) -> bool {
    name.strip_prefix(&prefix(node)).is_some_and(|rest| rest.ends_with(".sock"))
}

/// Is this the name of a socket of some node?
fn is_ours(name: &str) -> bool {
    let hex = |text: &str| text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    name.strip_suffix(".sock")
        .and_then(|name| name.rsplit_once('~'))
        .is_some_and(|(_, end)| hex(end))
}

/// The same in every version of this program.
fn digest(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// A folder that no other user can have created; creates it if necessary.
pub(super) fn own(folder: &Path, uid: u32) -> io::Result<&Path> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let found = folder.symlink_metadata()?;
    if found.is_dir() && found.uid() == uid {
        return Ok(folder);
    }
    let text = format!("found user {}'s, expected a folder of user {uid}", found.uid());
    Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_somebody_else_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let uid = nix::unistd::geteuid().as_raw();
        assert!(own(&dir.path().join("new"), uid).unwrap().is_dir());
        let error = own(&dir.path().join("new"), uid + 1).unwrap_err();
        assert!(error.to_string().contains("expected a folder of user"), "{error}");
        std::os::unix::fs::symlink(dir.path().join("new"), dir.path().join("link")).unwrap();
        assert!(own(&dir.path().join("link"), uid).is_err());
    }

    #[test]
    fn what_killed_workers_have_left_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let uid = nix::unistd::geteuid().as_raw();
        let left = dir.path().join(format!("{}{}.sock", prefix("w1@box"), digest("app")));
        let living = dir.path().join(format!("{}{}.sock", prefix("w2@box"), digest("app")));
        let file = dir.path().join(format!("{}{}.sock", prefix("w3@box"), digest("app")));
        let other = dir.path().join("other.sock");
        drop((UnixListener::bind(&left).unwrap(), UnixListener::bind(&other).unwrap()));
        let _listener = UnixListener::bind(&living).unwrap();
        std::fs::write(&file, "").unwrap();
        remove_left(dir.path(), uid, LEFT_FOR);
        remove_left(dir.path(), uid + 1, Duration::ZERO);
        assert!(left.exists(), "young, or somebody else's");
        remove_left(dir.path(), uid, Duration::ZERO);
        assert!(!left.exists());
        for path in [living, file, other] {
            assert!(path.exists(), "{}", path.display());
        }
    }

    #[test]
    fn a_name_of_any_length_has_a_socket() {
        let long = "n".repeat(300);
        for node in ["w1@box", "a/../b@box", &long, "ü@box", "a b@box"] {
            let name = format!("{}{}.sock", prefix(node), digest("app"));
            assert!(name.len() <= NODE_BYTES_MAX + 22 && !name.contains(['/', ' ']), "{name}");
            assert!(is_of(node, &name) && !is_of("w2@box", &name));
        }
        let uid = nix::unistd::geteuid().as_raw();
        let dir = tempfile::tempdir().unwrap();
        let (_listener, address) = listen_in(&dir.path().join("run"), "x.sock", uid).unwrap();
        address.connect().unwrap();
        // A name belongs to a user: a listener of another user is no worker of theirs.
        let node = format!("t{}@box", fastrand::u64(..));
        let name = format!("{}{}{}.sock", of_user(uid), prefix(&node), digest("app"));
        let at = SocketAddr::from_abstract_name(&name).unwrap();
        let _listener = UnixListener::bind_addr(&at).unwrap();
        assert_eq!(
            names(&|name| is_of(&node, name), uid),
            [SocketAddress::Name(name.clone(), uid)]
        );
        SocketAddress::Name(name.clone(), uid).connect().unwrap();
        let error = SocketAddress::Name(name, uid + 1).connect().unwrap_err();
        assert!(error.to_string().contains("listens, expected user"), "{error}");
    }
}
