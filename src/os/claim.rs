//! Names of this host that one process has at a time, without a file: sockets in the kernel's own
//! space of names, which takes them back when their holder dies. Hosts that share a disk, and
//! containers with a network of their own, do not see each other's.

use super::signal::deaf;
use nix::errno::Errno;
use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::socket::{
    AddressFamily, Shutdown, SockFlag, SockType, UnixAddr, connect, getsockopt, shutdown, socket,
};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

/// Anybody can take a name; if other users have it, the next one counts.
const SPARE_NAMES: usize = 8;

/// A name that is ours until this is dropped.
#[derive(Debug)]
pub struct Claim {
    socket: Arc<UnixListener>,
    answering: Option<JoinHandle<()>>,
}

/// Who has a name.
#[derive(Debug, PartialEq, Eq)]
enum Holder {
    Nobody,
    /// A process of this user.
    One,
    /// A process of another user, or one that does not answer.
    Other,
}

impl Claim {
    /// Takes the name, at most 90 bytes, unless a process of this user has it.
    ///
    /// # Errors
    /// There are no such names here, or no descriptors, or other users have them all.
    pub fn take(name: &str) -> io::Result<Option<Claim>> {
        for name in names(name) {
            if holder(&name)? == Holder::One {
                return Ok(None);
            }
            match UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name)?) {
                Ok(socket) => return Claim::answer(socket).map(Some),
                Err(error) if error.kind() != ErrorKind::AddrInUse => return Err(error),
                Err(_) if holder(&name)? == Holder::One => return Ok(None),
                Err(_) => {}
            }
        }
        Err(io::Error::new(ErrorKind::AddrInUse, "other users have all of the names"))
    }

    /// Who asks is answered by being accepted, else the queue of those who ask would be full one
    /// day.
    fn answer(socket: UnixListener) -> io::Result<Claim> {
        let socket = Arc::new(socket);
        let ours = socket.clone();
        let thread = thread::Builder::new().name("claim".into());
        let answering = deaf(|| {
            thread.spawn(move || {
                // An error is the end of the claim, or of all descriptors: then it is only slow.
                while ours.accept().map_or_else(|e| e.kind() != ErrorKind::InvalidInput, |_| true) {
                }
            })
        })?;
        Ok(Claim { socket, answering: Some(answering) })
    }

    /// Does a process of this user have the name?
    ///
    /// # Errors
    /// As [`Claim::take`].
    pub fn is_taken(name: &str) -> io::Result<bool> {
        for name in names(name) {
            match holder(&name)? {
                Holder::Nobody => return Ok(false),
                Holder::One => return Ok(true),
                Holder::Other => {}
            }
        }
        Ok(false)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // Ends the thread, which is nowhere else than in `accept`.
        let _ = shutdown(self.socket.as_raw_fd(), Shutdown::Both);
        if let Some(answering) = self.answering.take() {
            let _ = answering.join();
        }
    }
}

fn names(name: &str) -> impl Iterator<Item = String> {
    let spare = (1..SPARE_NAMES).map(move |n| format!("{name}.{n}"));
    std::iter::once(name.to_string()).chain(spare.collect::<Vec<_>>())
}

fn holder(name: &str) -> io::Result<Holder> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let asking = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    match connect(asking.as_raw_fd(), &UnixAddr::new_abstract(name.as_bytes())?) {
        Ok(()) => {
            let uid = getsockopt(&asking, PeerCredentials)?.uid();
            Ok(if uid == nix::unistd::geteuid().as_raw() { Holder::One } else { Holder::Other })
        }
        Err(Errno::ECONNREFUSED) => Ok(Holder::Nobody),
        Err(Errno::EAGAIN) => Ok(Holder::Other),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_of_one_at_a_time() {
        let name = format!("qworker.test.{}", std::process::id());
        assert!(!Claim::is_taken(&name).unwrap());
        let claim = Claim::take(&name).unwrap().unwrap();
        assert!(Claim::take(&name).unwrap().is_none());
        assert!(Claim::is_taken(&name).unwrap());
        // However often it is asked.
        (0..5000).for_each(|_| assert!(Claim::is_taken(&name).unwrap()));
        drop(claim);
        assert!(!Claim::is_taken(&name).unwrap());
        assert!(Claim::take(&name).unwrap().is_some());
    }

    #[test]
    fn one_that_does_not_answer_or_is_of_another_user_keeps_no_name_from_us() {
        let name = format!("qworker.test.squat.{}", std::process::id());
        let squatter =
            UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        // Nobody accepts: its queue is full some time.
        while holder(&name).unwrap() == Holder::One {}
        assert!(!Claim::is_taken(&name).unwrap());
        let claim = Claim::take(&name).unwrap().unwrap();
        assert!(Claim::is_taken(&name).unwrap() && Claim::take(&name).unwrap().is_none());
        drop((claim, squatter));
    }
}
