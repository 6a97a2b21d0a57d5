//! The end of an output stream: the last bytes, and a count of those before them.

use super::Captured;

/// Keeps the last `limit` bytes that were pushed. Uses no more memory than that, and for a short
/// stream no more than the stream.
#[derive(Debug)]
pub struct Tail {
    limit: usize,
    ring: Vec<u8>,
    /// Where the oldest byte is, once the ring is full.
    oldest: usize,
    dropped: u64,
}

impl Tail {
    /// A tail of at most `limit` bytes.
    pub fn new(limit: u64) -> Tail {
        Tail {
            limit: usize::try_from(limit).unwrap_or(usize::MAX),
            ring: Vec::new(),
            oldest: 0,
            dropped: 0,
        }
    }

    /// Appends, and drops from the front what no longer fits.
    pub fn push(&mut self, bytes: &[u8]) {
        let surplus = bytes.len().saturating_sub(self.limit);
        self.dropped += surplus as u64;
        let bytes = &bytes[surplus..];

        let (append, replace) = bytes.split_at(bytes.len().min(self.limit - self.ring.len()));
        if !append.is_empty() {
            self.grow(append.len());
            self.ring.extend_from_slice(append);
        }
        let (to_end, from_start) =
            replace.split_at(replace.len().min(self.ring.len() - self.oldest));
        self.ring[self.oldest..][..to_end.len()].copy_from_slice(to_end);
        self.ring[..from_start.len()].copy_from_slice(from_start);
        if !replace.is_empty() {
            self.oldest = (self.oldest + replace.len()) % self.limit;
            self.dropped += replace.len() as u64;
        }
    }

    /// Grows; doubling, but never beyond the limit, which `Vec` alone would exceed.
    fn grow(&mut self, by: usize) {
        let needed = self.ring.len() + by;
        if needed > self.ring.capacity() {
            let capacity = needed.max(self.ring.capacity() * 2).min(self.limit);
            self.ring.reserve_exact(capacity - self.ring.len());
        }
    }

    /// What was kept, in its order.
    pub fn finish(mut self) -> Captured {
        self.ring.rotate_left(self.oldest);
        Captured { bytes: self.ring, dropped: self.dropped }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_the_end_of_everything_pushed() {
        for limit in [0, 1, 7, 64, 1000] {
            for seed in 0..200 {
                let mut random = fastrand::Rng::with_seed(seed);
                let mut tail = Tail::new(limit);
                let mut all = Vec::new();
                for _ in 0..random.usize(0..20) {
                    let chunk: Vec<u8> = (0..random.usize(0..150)).map(|_| random.u8(..)).collect();
                    tail.push(&chunk);
                    all.extend(chunk);
                    assert!(tail.ring.capacity() <= limit as usize);
                }
                let kept = tail.finish();
                let dropped = all.len().saturating_sub(limit as usize);
                assert_eq!((kept.bytes, kept.dropped), (all.split_off(dropped), dropped as u64));
            }
        }
    }
}
