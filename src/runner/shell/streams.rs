//! The two output pipes of a process and what was read from them.

use crate::runner::Captured;
use crate::runner::capture::Tail;
use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;
use tokio::net::unix::pipe::Receiver;

/// Read at once: all that a pipe holds.
pub(super) const READ_BYTES: usize = 64 * 1024;

/// Reads in a row from one pipe before others have their turn: about a megabyte.
const READS_MAX: usize = 16;

/// Standard output and error of one process.
#[derive(Debug)]
pub(super) struct Streams {
    stdout: Stream,
    stderr: Stream,
}

#[derive(Debug)]
struct Stream {
    /// `None` when nobody can write to it any more.
    pipe: Option<Receiver>,
    tail: Tail,
}

impl Streams {
    /// Two pipes, and the ends of them that the process writes to. Keeps the last
    /// `max_output` bytes of each.
    pub(super) fn open(max_output: u64) -> io::Result<(Streams, OwnedFd, OwnedFd)> {
        let (stdout, writer) = Stream::open(max_output)?;
        let (stderr, error_writer) = Stream::open(max_output)?;
        Ok((Streams { stdout, stderr }, writer, error_writer))
    }

    /// Are both closed by all who could write?
    pub(super) fn are_closed(&self) -> bool {
        self.stdout.pipe.is_none() && self.stderr.pipe.is_none()
    }

    /// Reads until both are closed. Dropping this future loses nothing.
    pub(super) async fn read(&mut self, scratch: &RefCell<Vec<u8>>) {
        tokio::join!(self.stdout.read(scratch), self.stderr.read(scratch));
    }

    /// What was kept, of standard output and error.
    pub(super) fn finish(self) -> (Captured, Captured) {
        (self.stdout.tail.finish(), self.stderr.tail.finish())
    }
}

impl Stream {
    fn open(max_output: u64) -> io::Result<(Stream, OwnedFd)> {
        let (reader, writer) = io::pipe()?;
        let pipe = Receiver::from_owned_fd(reader.into())?;
        Ok((Stream { pipe: Some(pipe), tail: Tail::new(max_output) }, writer.into()))
    }

    async fn read(&mut self, scratch: &RefCell<Vec<u8>>) {
        while let Some(pipe) = &self.pipe {
            if pipe.readable().await.is_err() {
                self.pipe = None;
                return;
            }
            if read_some(pipe, &mut self.tail, &mut scratch.borrow_mut()) == PipeState::Closed {
                self.pipe = None;
                return;
            }
            // A flood must not keep other tasks waiting.
            tokio::task::consume_budget().await;
        }
    }
}

/// Whether more is to be expected from a pipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PipeState {
    Open,
    Closed,
}

fn read_some(pipe: &Receiver, tail: &mut Tail, scratch: &mut [u8]) -> PipeState {
    for _ in 0..READS_MAX {
        match pipe.try_read(scratch) {
            Ok(0) => return PipeState::Closed,
            Ok(count) => tail.push(&scratch[..count]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return PipeState::Open,
            Err(_) => return PipeState::Closed,
        }
    }
    PipeState::Open
}
