//! The socket between a worker and its guard. What the worker says is one packet each: a
//! letter, and what belongs to it.

use super::{BEAT_VARIABLE, FD_IN_WORKER, FD_VARIABLE, REQUEST_BYTES};
use crate::os::{become_subreaper, last_error};
use nix::sys::socket::sockopt::{PeerCredentials, ReceiveTimeout};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, getsockopt, recv, send, setsockopt, socketpair,
};
use nix::sys::time::{TimeVal, TimeValLike};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A living guard answers in microseconds.
const ANSWER_SECONDS: i64 = 5;

/// What a worker says to its guard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    /// "Hold the lease at this path too": answered by an error number.
    Hold,
    /// "I take messages."
    Ready,
    /// "My loop turns."
    Beat,
    /// "This is what I do", a line of text.
    Status,
}

impl Word {
    const ALL: [Word; 4] = [Word::Hold, Word::Ready, Word::Beat, Word::Status];

    fn letter(self) -> u8 {
        match self {
            Word::Hold => b'h',
            Word::Ready => b'r',
            Word::Beat => b'b',
            Word::Status => b's',
        }
    }

    /// The word of a packet, and what belongs to it.
    pub(super) fn of(packet: &[u8]) -> Option<(Word, &[u8])> {
        let (letter, rest) = packet.split_first()?;
        Some((Word::ALL.into_iter().find(|word| word.letter() == *letter)?, rest))
    }

    fn packet(self, text: &[u8]) -> Vec<u8> {
        [&[self.letter()], text].concat()
    }
}

/// The link of a worker to the guard that started it.
#[derive(Debug)]
pub struct GuardLink {
    socket: OwnedFd,
    beat: Option<Duration>,
}

impl GuardLink {
    /// Has the guard hold a shared lock on this lease file too, until the last process of
    /// this worker is gone. Blocks until it does; meant for the start of the worker.
    ///
    /// # Errors
    /// The guard cannot lock the file, is dead, or does not answer.
    pub fn hold(&self, path: &Path) -> io::Result<()> {
        let path = std::path::absolute(path)?;
        let request = Word::Hold.packet(path.as_os_str().as_bytes());
        if request.len() > REQUEST_BYTES {
            return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
        }
        let fd = self.socket.as_raw_fd();
        send(fd, &request, MsgFlags::MSG_NOSIGNAL)?;
        let mut answer = [0; 4];
        let length = loop {
            match recv(fd, &mut answer, MsgFlags::empty()) {
                Err(nix::Error::EINTR) => {}
                other => break other?,
            }
        };
        match i32::from_ne_bytes(answer) {
            _ if length < answer.len() => Err(io::ErrorKind::UnexpectedEof.into()),
            0 => Ok(()),
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    }

    /// The worker takes messages.
    pub fn ready(&self) {
        self.tell(Word::Ready, "");
    }

    /// How often [`GuardLink::beat`] is awaited; `None` if nobody does.
    pub fn beat_every(&self) -> Option<Duration> {
        self.beat
    }

    /// The worker's loop turns.
    pub fn beat(&self) {
        self.tell(Word::Beat, "");
    }

    /// What the worker does, one line for whoever looks at the service.
    pub fn status(&self, line: &str) {
        self.tell(Word::Status, line);
    }

    fn tell(&self, word: Word, text: &str) {
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        // A guard that is gone is noticed elsewhere; one that is slow must not stop us.
        let _ = send(self.socket.as_raw_fd(), &word.packet(text.as_bytes()), flags);
    }

    /// Returns when the guard is dead. The worker then has to end its descendants and
    /// itself. Also correct if it died before this was called.
    pub async fn lost(&self) {
        // Without readiness we could not know; ending is the safe answer.
        // SAFETY: a borrowed descriptor stays open, and is the same one, while it lives.
        let socket =
            unsafe { AsyncFd::register_with_interest(self.socket.as_fd(), Interest::READABLE) };
        let Ok(socket) = socket else { return };
        while let Ok(mut ready) = socket.readable().await {
            match recv(self.socket.as_raw_fd(), &mut [0; 4], MsgFlags::MSG_DONTWAIT) {
                Err(nix::Error::EAGAIN) => ready.clear_ready(),
                Err(nix::Error::EINTR) => {}
                // An answer that came after we gave up waiting for it.
                Ok(1..) => {}
                Ok(0) | Err(_) => return,
            }
        }
    }
}

/// A link: our end, and that of a process to be started.
pub(super) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SockFlag::SOCK_CLOEXEC;
    Ok(socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?)
}

/// See [`super::join`].
pub(super) fn join() -> Option<GuardLink> {
    let named = take_variable(FD_VARIABLE)?;
    let beat = take_variable(BEAT_VARIABLE).and_then(|ms| ms.parse().ok());
    if named != FD_IN_WORKER.to_string() {
        return None;
    }
    let parent = std::os::unix::process::parent_id();
    // SAFETY: only borrowed for two questions; if it is not open, they fail.
    let fd = unsafe { BorrowedFd::borrow_raw(FD_IN_WORKER) };
    // Only our parent can have made a socket that the kernel calls its own.
    let made_by = getsockopt(&fd, PeerCredentials).ok()?.pid();
    if u32::try_from(made_by) != Ok(parent) {
        if is_hung_up(fd) {
            // The guard that started this worker was killed before this line. A worker without a
            // guard must not run, and must not become a guard itself.
            std::process::exit(1);
        }
        return None;
    }
    // SAFETY: takes numbers only.
    if unsafe { libc::fcntl(FD_IN_WORKER, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return None;
    }
    // SAFETY: the guard put it there for us, and nothing else of this process knows it.
    let socket = unsafe { OwnedFd::from_raw_fd(FD_IN_WORKER) };
    setsockopt(&socket, ReceiveTimeout, &TimeVal::seconds(ANSWER_SECONDS)).ok()?;
    become_subreaper().ok()?;
    take_name();
    Some(GuardLink { socket, beat: beat.map(Duration::from_millis) })
}

/// Is this a socket of which nobody has the other end any more? The kernel closes what a process
/// has open before its children get another parent.
fn is_hung_up(fd: BorrowedFd) -> bool {
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    matches!(recv(fd.as_raw_fd(), &mut [0; 1], flags), Ok(0) | Err(nix::Error::ECONNRESET))
}

/// Reads a variable that is for this process alone, before any thread exists.
pub(super) fn take_variable(name: &str) -> Option<String> {
    let value = std::env::var(name).ok()?;
    // SAFETY: no thread exists yet that could read the environment meanwhile.
    unsafe { std::env::remove_var(name) };
    Some(value)
}

/// Names this process for `ps`, which would say `exe`.
fn take_name() {
    // SAFETY: the name is NUL-terminated.
    let done = unsafe { libc::prctl(libc::PR_SET_NAME, c"qworker".as_ptr()) };
    debug_assert_eq!(done, 0, "prctl: error {}", last_error());
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::timeout;

    fn pair() -> (GuardLink, OwnedFd) {
        let (socket, guard) = super::pair().unwrap();
        (GuardLink { socket, beat: None }, guard)
    }

    #[tokio::test]
    async fn the_guards_death_is_heard_early_or_late() {
        let (link, guard) = pair();
        assert!(timeout(Duration::from_millis(30), link.lost()).await.is_err());
        drop(guard);
        timeout(Duration::from_secs(2), link.lost()).await.unwrap();
        timeout(Duration::from_secs(2), link.lost()).await.unwrap();
        assert!(link.hold(Path::new("/tmp/x")).is_err());
    }

    #[test]
    fn a_socket_without_its_other_end_is_told_from_others() {
        let (ours, guards) = super::pair().unwrap();
        assert!(!is_hung_up(ours.as_fd()));
        drop(guards);
        assert!(is_hung_up(ours.as_fd()));
        assert!(!is_hung_up(std::fs::File::open("/dev/null").unwrap().as_fd()));
    }

    #[test]
    fn an_answer_is_an_error_number() {
        let (link, guard) = pair();
        for (errno, kind) in [(0, None), (libc::EACCES, Some(io::ErrorKind::PermissionDenied))] {
            send(guard.as_raw_fd(), &errno.to_ne_bytes(), MsgFlags::empty()).unwrap();
            assert_eq!(link.hold(Path::new("/tmp/x")).err().map(|error| error.kind()), kind);
        }
    }
}
