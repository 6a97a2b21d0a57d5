//! What a running worker says of itself, on a socket of its own host.

use crate::os::node_socket::SocketAddress;
use serde::{Deserialize, Serialize};
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// An answer is a few hundred bytes.
const ANSWER_MAX: u64 = 64 * 1024;

/// How long an answer may take to be read that is there.
const ANSWER_READ: Duration = Duration::from_millis(1);

/// The JSON document that a worker's socket answers with. Fields may be added.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StatusDocument {
    /// Node name.
    pub node: String,
    /// The folder of its application; empty if it does not say.
    #[serde(default)]
    pub app: String,
    /// Its broker, without a password; empty if it does not say.
    #[serde(default)]
    pub broker: String,
    /// The worker proper.
    pub pid: u32,
    /// The process above, whose number is in the pidfile.
    pub guard: u32,
    /// Of qworker.
    pub version: String,
    /// `running`, `draining`, `stopping`, `killing` or `closing`.
    pub state: String,
    /// It takes messages.
    pub ready: bool,
    /// Why it does not.
    pub why: Option<String>,
    /// Seconds since the broker's last answer.
    pub polled: f64,
    /// Tasks that it may run at once.
    pub slots: usize,
    /// Tasks that run.
    pub running: usize,
    /// Tasks that are here and do not run yet.
    pub reserved: usize,
    /// Names of tasks that it does not know and leaves to others; some of them.
    #[serde(default)]
    pub unknown: Vec<String>,
    /// How many lines its log has lost, and why, as long as that cannot be told there.
    #[serde(default)]
    pub log: Option<String>,
    /// Seconds since its start.
    pub uptime: f64,
}

/// Asks the worker whose socket this is; the whole takes at most `timeout`.
///
/// # Errors
/// Nobody listens, nobody answers in time, or the answer is no [`StatusDocument`].
pub fn ask(socket: &SocketAddress, timeout: Duration) -> io::Result<StatusDocument> {
    let end = Instant::now() + timeout;
    read(&socket.connect()?, end)
}

/// Asks all of these at once, and gives the answers that came within `timeout`.
pub fn ask_all(sockets: &[SocketAddress], timeout: Duration) -> Vec<StatusDocument> {
    let end = Instant::now() + timeout;
    let asked: Vec<UnixStream> =
        sockets.iter().filter_map(|socket| socket.connect().ok()).collect();
    // One that is silent until the end hides no answer that is there.
    let answer = |stream| read(stream, end.max(Instant::now() + ANSWER_READ)).ok();
    asked.iter().filter_map(answer).collect()
}

fn read(stream: &UnixStream, end: Instant) -> io::Result<StatusDocument> {
    let mut text = Vec::new();
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        let mut piece = [0; 4096];
        match stream.take(ANSWER_MAX).read(&mut piece) {
            Ok(0) => break,
            Ok(length) => text.extend_from_slice(&piece[..length]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(io::ErrorKind::TimedOut.into());
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if text.len() as u64 > ANSWER_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
    serde_json::from_slice(&text).map_err(io::Error::from)
}
