//! A pair of connected sockets that keep the bounds of messages (`SOCK_SEQPACKET`), between a
//! process and a child that it starts.

use nix::sys::socket::sockopt::{PeerCredentials, ReceiveTimeout};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, getsockopt, recv, send, setsockopt, socketpair,
};
use nix::sys::time::{TimeVal, TimeValLike};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// One end.
#[derive(Debug)]
pub struct SeqPacket(OwnedFd);

/// What an inherited descriptor is.
#[derive(Debug)]
pub enum Inherited {
    /// A socket that the parent of this process created.
    OfParent(SeqPacket),
    /// A socket whose other end nobody has any more.
    HungUp,
    /// Anything else, or nothing.
    Other,
}

impl SeqPacket {
    /// Two ends; the second one is for a child.
    ///
    /// # Errors
    /// No descriptors are left.
    pub fn pair() -> io::Result<(SeqPacket, OwnedFd)> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
        Ok((SeqPacket(ours), theirs))
    }

    /// Takes over the descriptor `fd`, if it is a socket that the parent of this process created.
    /// To be called once for a number. [`SeqPacket::receive`] then waits at most for `timeout`.
    pub fn inherit(fd: RawFd, timeout: Duration) -> Inherited {
        let parent = std::os::unix::process::parent_id();
        // SAFETY: only borrowed for two questions; if it is not open, they fail.
        let open = unsafe { BorrowedFd::borrow_raw(fd) };
        // Only our parent can have created a socket that the kernel calls its own.
        match getsockopt(&open, PeerCredentials).map(|peer| u32::try_from(peer.pid())) {
            Ok(Ok(pid)) if pid == parent => {}
            Ok(_) if is_hung_up(open) => return Inherited::HungUp,
            _ => return Inherited::Other,
        }
        // SAFETY: takes numbers only.
        if unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
            return Inherited::Other;
        }
        // SAFETY: the parent put it there for us, and nothing else of this process knows it.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        let timeout = TimeVal::seconds(timeout.as_secs().cast_signed());
        match setsockopt(&socket, ReceiveTimeout, &timeout) {
            Ok(()) => Inherited::OfParent(SeqPacket(socket)),
            Err(_) => Inherited::Other,
        }
    }

    /// Sends a message; waits until there is room for it.
    ///
    /// # Errors
    /// The other end is closed.
    pub fn send(&self, message: &[u8]) -> io::Result<()> {
        Ok(send(self.0.as_raw_fd(), message, MsgFlags::MSG_NOSIGNAL).map(drop)?)
    }

    /// As [`SeqPacket::send`], without waiting.
    ///
    /// # Errors
    /// The other end is closed, or there is no room.
    pub fn try_send(&self, message: &[u8]) -> io::Result<()> {
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        Ok(send(self.0.as_raw_fd(), message, flags).map(drop)?)
    }

    /// Waits for a message; the number of its bytes, 0 if the other end is closed.
    ///
    /// # Errors
    /// It did not come in time.
    pub fn receive(&self, message: &mut [u8]) -> io::Result<usize> {
        loop {
            match recv(self.0.as_raw_fd(), message, MsgFlags::empty()) {
                Err(nix::Error::EINTR) => {}
                received => return Ok(received?),
            }
        }
    }

    /// As [`SeqPacket::receive`], without waiting: `None` if there is no message.
    ///
    /// # Errors
    /// The socket is broken.
    pub fn try_receive(&self, message: &mut [u8]) -> io::Result<Option<usize>> {
        match recv(self.0.as_raw_fd(), message, MsgFlags::MSG_DONTWAIT) {
            Ok(length) => Ok(Some(length)),
            Err(nix::Error::EAGAIN | nix::Error::EINTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Returns when the other end is closed, even if it was before this call. Drops messages that
    /// arrive meanwhile.
    pub async fn closed(&self) {
        // SAFETY: a borrowed descriptor stays open, and is the same one, while it lives.
        let socket = unsafe { AsyncFd::register_with_interest(self.0.as_fd(), Interest::READABLE) };
        // Without readiness it cannot be known; "closed" is the safe answer.
        let Ok(socket) = socket else { return };
        while let Ok(mut ready) = socket.readable().await {
            match recv(self.0.as_raw_fd(), &mut [0; 4], MsgFlags::MSG_DONTWAIT) {
                Err(nix::Error::EAGAIN) => ready.clear_ready(),
                Err(nix::Error::EINTR) => {}
                Ok(1..) => {}
                Ok(0) | Err(_) => return,
            }
        }
    }
}

impl AsFd for SeqPacket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
impl From<OwnedFd> for SeqPacket {
    fn from(fd: OwnedFd) -> SeqPacket {
        SeqPacket(fd)
    }
}

/// Is this a socket without another end? The kernel closes the descriptors of a process before its
/// children get another parent.
fn is_hung_up(fd: BorrowedFd<'_>) -> bool {
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    matches!(recv(fd.as_raw_fd(), &mut [0; 1], flags), Ok(0) | Err(nix::Error::ECONNRESET))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::timeout;

    #[test]
    fn a_socket_without_its_other_end_is_told_from_others() {
        let (ours, theirs) = SeqPacket::pair().unwrap();
        assert!(!is_hung_up(ours.as_fd()));
        drop(theirs);
        assert!(is_hung_up(ours.as_fd()));
        assert!(!is_hung_up(std::fs::File::open("/dev/null").unwrap().as_fd()));
    }

    #[tokio::test]
    async fn the_end_of_the_other_side_is_seen_early_or_late() {
        let (ours, theirs) = SeqPacket::pair().unwrap();
        assert!(timeout(Duration::from_millis(30), ours.closed()).await.is_err());
        drop(theirs);
        timeout(Duration::from_secs(2), ours.closed()).await.unwrap();
        timeout(Duration::from_secs(2), ours.closed()).await.unwrap();
    }
}
