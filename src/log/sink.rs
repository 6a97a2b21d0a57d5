//! The end of the queue: takes lines, writes them in batches, and counts those without room. Lines
//! stay whole: one that a full disk has cut is completed later.

use super::escape;
use super::format::LogContext;
use crate::os::describe;
use std::io::{self, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tracing::Level;
use tracing_appender::non_blocking::ErrorCounter;

/// Bytes written in one call: a burst costs few calls, and a lost batch is small.
pub(super) const BATCH_BYTES: usize = 64 * 1024;

/// How often lost lines are reported while lines come faster than they can be written.
const OVERRUN_EVERY: Duration = Duration::from_secs(1);

/// Lines on their way: produced, and neither written nor dropped yet.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    made: AtomicUsize,
    taken: AtomicUsize,
    overrun: OnceLock<ErrorCounter>,
    /// How many lines the target did not take, and why, unless the target says so.
    lost: Mutex<Option<String>>,
}

impl Backlog {
    /// The queue's own counter of dropped lines.
    pub(super) fn count_with(&self, counter: ErrorCounter) {
        // There is one queue for each backlog.
        let _ = self.overrun.set(counter);
    }

    /// A line enters the queue.
    pub(super) fn one_more(&self) {
        self.made.fetch_add(1, Ordering::Relaxed);
    }

    /// The number of lines in the queue.
    pub(super) fn lines(&self) -> usize {
        let gone = self.taken.load(Ordering::Relaxed) + self.overrun();
        self.made.load(Ordering::Relaxed).saturating_sub(gone)
    }

    /// What is lost without a line in the log.
    pub(super) fn lost(&self) -> Option<String> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_lost(&self, what: Option<String>) {
        *self.lost.lock().unwrap_or_else(PoisonError::into_inner) = what;
    }

    fn one_taken(&self) {
        self.taken.fetch_add(1, Ordering::Relaxed);
    }

    fn overrun(&self) -> usize {
        self.overrun.get().map_or(0, ErrorCounter::dropped_lines)
    }
}

/// Where lines go.
pub(super) trait Target {
    /// Prepares it for this many bytes. Returns a note for readers of the log, and whether this is
    /// another target than before.
    fn ready(&mut self, bytes: usize) -> io::Result<(Option<String>, bool)>;

    /// Writes a part of this, and returns how many bytes.
    fn write(&mut self, text: &[u8]) -> io::Result<usize>;

    /// Its name, if its missing lines should be reported elsewhere.
    fn name(&self) -> Option<String> {
        None
    }

    /// Bytes that it takes in one piece.
    fn batch_bytes(&self) -> usize {
        BATCH_BYTES
    }
}

/// Standard error.
pub(super) struct Stderr;

impl Target for Stderr {
    fn ready(&mut self, _: usize) -> io::Result<(Option<String>, bool)> {
        Ok((None, false))
    }

    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        io::stderr().lock().write(text)
    }
}

/// Lines, concatenated.
#[derive(Default)]
struct Batch {
    text: Vec<u8>,
    ends: Vec<usize>,
}

impl Batch {
    /// Gives the target of the line.
    fn push(&mut self, line: &[u8]) -> usize {
        self.text.extend_from_slice(line);
        self.ends.push(self.text.len());
        self.ends.len() - 1
    }

    /// Appends other lines.
    fn append(&mut self, other: Batch) {
        if self.ends.is_empty() {
            *self = other;
            return;
        }
        let before = self.text.len();
        self.text.extend_from_slice(&other.text);
        self.ends.extend(other.ends.iter().map(|end| before + end));
    }
}

/// Writes the lines of the queue to a target.
pub(super) struct Sink<P> {
    target: P,
    origin: LogContext,
    backlog: Arc<Backlog>,
    batch: Batch,
    batch_bytes: usize,
    /// The rest of a line whose beginning is written.
    torn: Vec<u8>,
    dropped: usize,
    /// Why the last line was dropped.
    why: String,
    /// It has taken no line since the start, which has not been reported yet.
    untold: bool,
    /// How many lines the queue has dropped according to the last report, and when that was.
    overrun_told: usize,
    overrun_at: Option<Instant>,
}

impl<P: Target> Sink<P> {
    pub(super) fn new(target: P, origin: LogContext, backlog: Arc<Backlog>) -> Sink<P> {
        Sink {
            batch_bytes: target.batch_bytes(),
            target,
            origin,
            backlog,
            batch: Batch::default(),
            torn: Vec::new(),
            dropped: 0,
            why: String::new(),
            untold: true,
            overrun_told: 0,
            overrun_at: None,
        }
    }

    fn note(&self, batch: &mut Batch, text: &str) -> usize {
        batch.push(self.origin.note(Level::WARN, text).as_bytes())
    }

    /// How many lines the queue has dropped, if it is time for a report.
    fn overrun(&self) -> Option<usize> {
        let all = self.backlog.overrun();
        let is_time = self.overrun_at.is_none_or(|at| at.elapsed() >= OVERRUN_EVERY)
            || self.backlog.lines() == 0;
        (all > self.overrun_told && is_time).then_some(all)
    }

    fn write_batch(&mut self) {
        let overrun = self.overrun();
        if self.batch.ends.is_empty() && self.dropped == 0 && overrun.is_none() {
            return;
        }
        let lines = std::mem::take(&mut self.batch);
        let (note, is_new) = match self.target.ready(lines.text.len()) {
            Ok(ready) => ready,
            Err(error) => return self.lose(lines.ends.len(), &error),
        };
        if is_new && !self.torn.is_empty() {
            // Its beginning is in another file.
            self.torn.clear();
            self.dropped += 1;
        }
        // Written before the lines: the end of a cut one, and how many are missing here.
        let torn = std::mem::take(&mut self.torn);
        let mut all = Batch::default();
        let torn_at = (!torn.is_empty()).then(|| all.push(&torn));
        let dropped_at = (self.dropped > 0)
            .then(|| self.note(&mut all, &format!("{}: {}", were_dropped(self.dropped), self.why)));
        let overrun_at = overrun.map(|count| {
            let count = were_dropped(count - self.overrun_told);
            self.note(&mut all, &format!("{count}: they came faster than they could be written"))
        });
        note.map(|note| self.note(&mut all, &note));
        let before = all.ends.len();
        all.append(lines);

        let (written, error) = write_all(&mut self.target, &all.text);
        let whole = all.ends.partition_point(|end| *end <= written);
        let start = whole.checked_sub(1).map_or(0, |last| all.ends[last]);
        let is_torn = written > start || (error.is_some() && torn_at == Some(whole));
        let begun = whole + usize::from(is_torn);
        if dropped_at.is_some_and(|at| at < begun) {
            self.dropped = 0;
            self.backlog.set_lost(None);
        }
        self.untold &= written == 0;
        if let Some(count) = overrun.filter(|_| overrun_at.is_some_and(|at| at < begun)) {
            (self.overrun_told, self.overrun_at) = (count, Some(Instant::now()));
        }
        if let Some(error) = error {
            if is_torn {
                self.torn = all.text[written..all.ends[whole]].to_vec();
            }
            self.lose(all.ends.len() - begun.max(before), &error);
        }
    }

    fn lose(&mut self, lines: usize, error: &io::Error) {
        self.dropped += lines;
        self.why = match error.raw_os_error() {
            Some(number) => describe(number).to_string(),
            None => error.to_string(),
        };
        if self.dropped == 0 {
            return;
        }
        self.backlog.set_lost(Some(format!("{}: {}", were_dropped(self.dropped), self.why)));
        // Later, the log itself says so. If it never can, the user who started the program should
        // know.
        if let Some(name) = self.target.name().filter(|_| std::mem::take(&mut self.untold)) {
            let (name, why) = (escape::line(&name).into_owned(), &self.why);
            let _ = writeln!(
                io::stderr().lock(),
                "Warning: the log {name} takes no lines: {why}; they are dropped and counted"
            );
        }
    }
}

/// Writes as much as possible: the number of bytes, and the error that stopped it.
fn write_all(target: &mut impl Target, text: &[u8]) -> (usize, Option<io::Error>) {
    let mut written = 0;
    while written < text.len() {
        match target.write(&text[written..]) {
            Ok(0) => return (written, Some(io::ErrorKind::WriteZero.into())),
            Ok(bytes) => written += bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (written, Some(error)),
        }
    }
    (written, None)
}

fn were_dropped(lines: usize) -> String {
    match lines {
        1 => "1 log line was dropped".into(),
        lines => format!("{lines} log lines were dropped"),
    }
}

impl<P: Target> Write for Sink<P> {
    /// Takes one line.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if !self.batch.ends.is_empty() && self.batch.text.len() + line.len() > self.batch_bytes {
            self.write_batch();
        }
        self.batch.push(line);
        self.backlog.one_taken();
        Ok(line.len())
    }

    /// The queue is empty, for now.
    fn flush(&mut self) -> io::Result<()> {
        self.write_batch();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::file::LogFile;
    use crate::log::{Format, Rotation};
    use std::fs;
    use std::path::Path;

    fn sink(path: &Path) -> Sink<LogFile> {
        let origin = LogContext::of_worker(Format::Celery, "w@h".into());
        Sink::new(LogFile::new(path.into(), Rotation::default()), origin, Arc::default())
    }

    /// Without their time.
    fn lines(path: &Path) -> Vec<String> {
        let text = fs::read_to_string(path).unwrap();
        assert!(text.is_empty() || text.ends_with('\n'), "{text:?}");
        let line = |line: &str| line.split_once("] ").map_or(line, |(_, text)| text).to_string();
        text.lines().map(line).collect()
    }

    fn say<P: Target>(sink: &mut Sink<P>, line: &str) {
        sink.write_all(line.as_bytes()).unwrap();
        sink.flush().unwrap();
    }

    #[test]
    fn a_folder_that_vanishes_costs_lines_and_says_how_many() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut sink = sink(&path);
        say(&mut sink, "a\n");
        fs::remove_dir_all(dir.path()).unwrap();
        say(&mut sink, "b\n");
        sink.write_all(b"c\n").unwrap();
        say(&mut sink, "d\n");
        fs::create_dir(dir.path()).unwrap();
        say(&mut sink, "e\n");
        say(&mut sink, "f\n");
        let told = "3 log lines were dropped: No such file or directory";
        assert_eq!(lines(&path), [told, "e", "f"]);
    }

    /// A disk with room for a number of bytes.
    struct Disk {
        text: Vec<u8>,
        room: usize,
        is_new: bool,
    }

    impl Target for Disk {
        fn ready(&mut self, _: usize) -> io::Result<(Option<String>, bool)> {
            Ok((None, std::mem::take(&mut self.is_new)))
        }

        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            let fits = text.len().min(self.room);
            if fits == 0 {
                return Err(nix::Error::ENOSPC.into());
            }
            self.text.extend_from_slice(&text[..fits]);
            self.room -= fits;
            Ok(fits)
        }
    }

    fn disk(room: usize) -> Sink<Disk> {
        let disk = Disk { text: vec![], room, is_new: false };
        Sink::new(disk, LogContext::of_worker(Format::Celery, "w@h".into()), Arc::default())
    }

    #[test]
    fn a_full_disk_tears_no_line_and_every_line_is_written_or_counted() {
        let note =
            "[2026-11-20 17:30:39,120+01:00: WARNING/MainProcess] 1 log line was dropped: ".len();
        for room in 0..60 {
            for more in [0, 1, 3, 4, 5, 9, 20, note, note + 40, 2 * note + 80] {
                let mut sink = disk(room);
                for n in 10..14 {
                    say(&mut sink, &format!("a line {n}\n"));
                }
                sink.target.room = more;
                say(&mut sink, "a line 14\n");
                say(&mut sink, "a line 15\n");
                sink.target.room = 10_000;
                for n in 16..19 {
                    say(&mut sink, &format!("a line {n}\n"));
                }
                let text = String::from_utf8(std::mem::take(&mut sink.target.text)).unwrap();
                let (mut count, mut dropped) = (0, 0);
                for line in text.lines() {
                    let said = line.split_once("] ").map_or(line, |(_, text)| text);
                    match said.split_once(" log line") {
                        Some((number, why)) => {
                            dropped += number.parse::<usize>().unwrap();
                            assert!(why.ends_with(" dropped: No space left on device"), "{text}");
                        }
                        None => {
                            assert!(said.len() == 9 && said.starts_with("a line "), "{text}");
                            count += 1;
                        }
                    }
                }
                assert_eq!(count + dropped, 9, "room {room}, then {more}:\n{text}");
            }
        }
    }

    #[test]
    fn the_rest_of_a_torn_line_does_not_go_into_another_file() {
        let mut sink = disk(3);
        say(&mut sink, "abcdef\n");
        sink.target = Disk { text: vec![], room: 1000, is_new: true };
        say(&mut sink, "next\n");
        let text = String::from_utf8(sink.target.text).unwrap();
        assert!(
            text.ends_with("1 log line was dropped: No space left on device\nnext\n"),
            "{text}"
        );
    }
}
