//! What a worker and its guard say to each other: the worker sends messages over a socket that
//! the guard created, and the guard answers [`GuardMessage::LockLease`] with an error number.

use crate::os::environment;
use crate::os::seqpacket::{Inherited, SeqPacket};
use crate::os::{become_subreaper, set_process_name};
use nix::errno::Errno;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Tells the worker that it has a guard, and on which descriptor.
pub const FD_VARIABLE: &str = "QWORKER_GUARD_FD";

/// Tells the worker how often a heartbeat is expected, in milliseconds.
pub const HEARTBEAT_VARIABLE: &str = "QWORKER_GUARD_HEARTBEAT";

/// The descriptor: the first one after the standard streams.
pub const FD: i32 = 3;

/// Bytes of a message: a letter, and a path of at most 4096 bytes.
const MESSAGE_MAX: usize = 4097;

/// A living guard answers within microseconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// What a worker tells its guard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GuardMessage {
    /// "Lock the lease at this path too."
    LockLease(PathBuf),
    /// "I take messages."
    Ready,
    /// "My loop is alive."
    Heartbeat,
    /// "This is what I do", one line.
    Status(String),
}

impl GuardMessage {
    /// As bytes: a letter, and what belongs to it.
    fn encode(&self) -> Vec<u8> {
        match self {
            GuardMessage::LockLease(path) => [&b"l"[..], path.as_os_str().as_bytes()].concat(),
            GuardMessage::Ready => b"r".to_vec(),
            GuardMessage::Heartbeat => b"h".to_vec(),
            GuardMessage::Status(line) => [&b"s"[..], line.as_bytes()].concat(),
        }
    }

    /// The message of these bytes, if it is one.
    fn decode(bytes: &[u8]) -> Option<GuardMessage> {
        let (letter, rest) = bytes.split_first()?;
        match letter {
            b'l' => Some(GuardMessage::LockLease(OsStr::from_bytes(rest).into())),
            b'r' => Some(GuardMessage::Ready),
            b'h' => Some(GuardMessage::Heartbeat),
            b's' => Some(GuardMessage::Status(String::from_utf8_lossy(rest).into_owned())),
            _ => None,
        }
    }
}

/// The worker's end of the link.
#[derive(Debug)]
pub struct GuardLink {
    socket: SeqPacket,
    heartbeat: Option<Duration>,
}

/// Whether this process has a guard.
#[derive(Debug)]
pub enum GuardPresence {
    /// It was started by one.
    Guarded(GuardLink),
    /// The guard that started it is dead.
    Orphan,
    /// It was not started by a guard.
    Unguarded,
}

/// Looks for the guard that started this process, before any thread exists. A guarded process
/// adopts orphans.
pub fn join() -> GuardPresence {
    let fd = environment::take(FD_VARIABLE);
    let heartbeat = environment::take(HEARTBEAT_VARIABLE).and_then(|ms| ms.parse().ok());
    if fd.is_none_or(|fd| fd != FD.to_string()) {
        return GuardPresence::Unguarded;
    }
    let socket = match SeqPacket::inherit(FD, ANSWER_TIMEOUT) {
        Inherited::OfParent(socket) if become_subreaper().is_ok() => socket,
        Inherited::HungUp => return GuardPresence::Orphan,
        Inherited::OfParent(_) | Inherited::Other => return GuardPresence::Unguarded,
    };
    // `ps` would show `exe`.
    set_process_name();
    GuardPresence::Guarded(GuardLink { socket, heartbeat: heartbeat.map(Duration::from_millis) })
}

impl GuardLink {
    /// Has the guard hold a shared lock on this lease file too, until the last process of this
    /// worker is gone. Blocks until it does; for the start of the worker.
    ///
    /// # Errors
    /// The guard cannot lock the file, is dead, or does not answer.
    pub fn lock_lease(&self, path: &Path) -> io::Result<()> {
        let request = GuardMessage::LockLease(std::path::absolute(path)?).encode();
        if request.len() > MESSAGE_MAX {
            return Err(Errno::ENAMETOOLONG.into());
        }
        self.socket.send(&request)?;
        let mut answer = [0; 4];
        let length = self.socket.receive(&mut answer)?;
        match i32::from_ne_bytes(answer) {
            _ if length < answer.len() => Err(io::ErrorKind::UnexpectedEof.into()),
            0 => Ok(()),
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    }

    /// The worker takes messages.
    pub fn ready(&self) {
        self.tell(&GuardMessage::Ready);
    }

    /// How often [`GuardLink::heartbeat`] is expected; `None` if not at all.
    pub fn heartbeat_every(&self) -> Option<Duration> {
        self.heartbeat
    }

    /// The worker's loop is alive.
    pub fn heartbeat(&self) {
        self.tell(&GuardMessage::Heartbeat);
    }

    /// What the worker does, one line for the status of the service.
    pub fn status(&self, line: &str) {
        self.tell(&GuardMessage::Status(line.into()));
    }

    fn tell(&self, message: &GuardMessage) {
        // A guard that is gone is noticed elsewhere; a slow one must not stop us.
        let _ = self.socket.try_send(&message.encode());
    }

    /// Returns when the guard is dead, even if it died before this call. The worker then has to
    /// end its descendants and itself.
    pub async fn lost(&self) {
        self.socket.closed().await;
    }
}

/// The guard's end of the link.
#[derive(Debug)]
pub struct WorkerLink(SeqPacket);

/// What the guard has received.
#[derive(Debug, PartialEq, Eq)]
pub enum Received {
    /// A message.
    Message(GuardMessage),
    /// Something that is no message.
    Unknown,
    /// Nothing so far.
    Nothing,
    /// The worker has closed its end.
    Closed,
}

impl WorkerLink {
    /// A link: the guard's end, and that of the process to be started.
    ///
    /// # Errors
    /// No descriptors are left.
    pub fn pair() -> io::Result<(WorkerLink, OwnedFd)> {
        let (ours, theirs) = SeqPacket::pair()?;
        Ok((WorkerLink(ours), theirs))
    }

    /// The next message, without waiting.
    pub fn receive(&self) -> Received {
        let mut bytes = [0; MESSAGE_MAX];
        match self.0.try_receive(&mut bytes) {
            Ok(None) => Received::Nothing,
            Ok(Some(0)) | Err(_) => Received::Closed,
            Ok(Some(length)) => {
                GuardMessage::decode(&bytes[..length]).map_or(Received::Unknown, Received::Message)
            }
        }
    }

    /// Answers [`GuardMessage::LockLease`].
    pub fn answer(&self, result: io::Result<()>) {
        let errno = match result {
            Ok(()) => 0,
            Err(error) => error.raw_os_error().unwrap_or(Errno::EIO as i32),
        };
        // A worker that has gone needs no answer.
        let _ = self.0.try_send(&errno.to_ne_bytes());
    }
}

impl AsFd for WorkerLink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (GuardLink, WorkerLink) {
        let (guard, worker) = WorkerLink::pair().unwrap();
        (GuardLink { socket: worker.into(), heartbeat: None }, guard)
    }

    #[test]
    fn what_is_sent_is_received() {
        let (link, guard) = pair();
        assert_eq!(guard.receive(), Received::Nothing);
        link.ready();
        link.heartbeat();
        link.status("2 tasks");
        link.tell(&GuardMessage::LockLease("/a b".into()));
        link.socket.send(b"?").unwrap();
        let messages = [
            GuardMessage::Ready,
            GuardMessage::Heartbeat,
            GuardMessage::Status("2 tasks".into()),
            GuardMessage::LockLease("/a b".into()),
        ];
        for message in messages {
            assert_eq!(guard.receive(), Received::Message(message));
        }
        assert_eq!(guard.receive(), Received::Unknown);
        drop(link);
        assert_eq!(guard.receive(), Received::Closed);
    }

    #[test]
    fn an_answer_is_an_error_number() {
        let (link, guard) = pair();
        let denied = || Err(Errno::EACCES.into());
        for (answer, kind) in [(Ok(()), None), (denied(), Some(io::ErrorKind::PermissionDenied))] {
            guard.answer(answer);
            assert_eq!(link.lock_lease(Path::new("/tmp/x")).err().map(|e| e.kind()), kind);
        }
        drop(guard);
        assert!(link.lock_lease(Path::new("/tmp/x")).is_err());
    }
}
