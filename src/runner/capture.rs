//! The end of an output stream, kept within bounds. (A stand-in; the real one has the
//! same interface.)

use super::Captured;
use std::collections::VecDeque;

/// Keeps the last bytes of a stream.
#[derive(Debug, Default)]
pub struct Tail {
    bytes: VecDeque<u8>,
    max: usize,
    dropped: u64,
}

impl Tail {
    /// A tail of at most `max` bytes.
    pub fn new(max: usize) -> Tail {
        Tail { bytes: VecDeque::new(), max, dropped: 0 }
    }

    /// Adds bytes at the end; the oldest are dropped.
    pub fn push(&mut self, bytes: &[u8]) {
        let skip = bytes.len().saturating_sub(self.max);
        let kept = &bytes[skip..];
        let excess = (self.bytes.len() + kept.len()).saturating_sub(self.max);
        self.bytes.drain(..excess);
        self.dropped += (skip + excess) as u64;
        self.bytes.extend(kept);
    }

    /// What was kept.
    pub fn finish(self) -> Captured {
        Captured { bytes: self.bytes.into(), dropped: self.dropped }
    }
}
