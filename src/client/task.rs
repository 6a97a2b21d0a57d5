//! A task's end of the socket of its worker.

use crate::os::task_socket;
use crate::wire::task_protocol::{self as protocol, FRAME_MAX, HEAD, VERSION};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use std::fmt;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// How long a worker is asked again that has too many connections.
const BUSY_MAX: Duration = Duration::from_secs(10);

/// How long is waited before it is asked again.
const BUSY_WAIT: Duration = Duration::from_millis(50);

/// Why the worker does not do what it was asked.
#[derive(Debug)]
pub enum Fault {
    /// It cannot be reached, or has closed the connection.
    Io(io::Error),
    /// It refuses: a word for programs, and a sentence.
    Refused(String, String),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Io(error) => write!(f, "the worker of this task: {error}"),
            Fault::Refused(_, message) => f.write_str(message),
        }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Fault {
        Fault::Io(error)
    }
}

/// A connection.
#[derive(Debug)]
pub struct Session {
    stream: UnixStream,
    last: u64,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    result: Option<Box<RawValue>>,
    #[serde(default)]
    error: Option<Refused>,
}

#[derive(Deserialize)]
struct Refused {
    code: String,
    message: String,
}

impl Session {
    /// Connects to the worker at `address`, and proves by `token` which task this is.
    ///
    /// # Errors
    /// Nobody listens there, or the token is not that of a running task.
    pub fn open(address: &str, token: &str) -> Result<Session, Fault> {
        let began = Instant::now();
        loop {
            let mut session = Session { stream: task_socket::connect(address)?, last: 0 };
            let hello = json!({"version": VERSION, "token": token}).to_string();
            match session.ask("hello", &hello) {
                Ok(_) => return Ok(session),
                Err(Fault::Refused(code, _)) if code == "busy" && began.elapsed() < BUSY_MAX => {
                    std::thread::sleep(BUSY_WAIT);
                }
                Err(fault) => return Err(fault),
            }
        }
    }

    /// Asks for `method` with these parameters, a JSON object; gives the result.
    ///
    /// # Errors
    /// The worker refuses, or the connection breaks.
    pub fn ask(&mut self, method: &str, params: &str) -> Result<Box<RawValue>, Fault> {
        self.last += 1;
        let text = protocol::request(self.last, method, params);
        if text.len() > FRAME_MAX {
            let length = text.len();
            let text = format!("{method}: {length} bytes, expected at most {FRAME_MAX}");
            return Err(Fault::Refused("malformed".into(), text));
        }
        // A worker that refuses the connection has answered, and reads no more.
        let written = self.stream.write_all(&protocol::frame(&text));
        let frame = match (written, self.read()) {
            (_, Ok(frame)) => frame,
            (Err(error), _) | (Ok(()), Err(error)) => return Err(error.into()),
        };
        let answer: Answer = serde_json::from_slice(&frame).map_err(io::Error::from)?;
        match answer.error {
            Some(Refused { code, message }) => Err(Fault::Refused(code, message)),
            None => Ok(answer.result.unwrap_or_else(|| RawValue::NULL.to_owned())),
        }
    }

    fn read(&mut self) -> io::Result<Vec<u8>> {
        let mut head = [0; HEAD];
        self.stream.read_exact(&mut head)?;
        let length = u64::from(u32::from_be_bytes(head));
        let mut frame = Vec::new();
        (&mut self.stream).take(length).read_to_end(&mut frame)?;
        match frame.len() as u64 == length {
            true => Ok(frame),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}
