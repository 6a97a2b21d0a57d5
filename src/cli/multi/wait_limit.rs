//! How long a command waits: `--timeout`, else forever.

use super::super::exit::{Error, Exit};
use super::super::progress::Progress;
use super::console::Console;
use super::node::Node;
use crate::os::process::Process;
use std::time::{Duration, Instant};

/// A stand-in for no limit that the kernel's clocks accept.
const FOR_EVER: Duration = Duration::from_secs(86_400 * 365);

/// How often the progress line is drawn anew.
const REDRAW: Duration = Duration::from_millis(500);

/// The end of a wait.
#[derive(Debug, Clone, Copy)]
pub(super) struct WaitLimit {
    timeout: Option<Duration>,
    begin: Instant,
}

impl WaitLimit {
    /// From now on.
    pub(super) fn new(timeout: Option<Duration>) -> WaitLimit {
        WaitLimit { timeout, begin: Instant::now() }
    }

    /// The same timeout, starting now.
    pub(super) fn again(self) -> WaitLimit {
        WaitLimit::new(self.timeout)
    }

    /// The remaining time.
    pub(super) fn left(self) -> Duration {
        self.timeout.unwrap_or(FOR_EVER).saturating_sub(self.begin.elapsed())
    }

    /// The time is over, and this is still so.
    pub(super) fn over(self, what: &str) -> Error {
        let seconds = self.timeout.unwrap_or_default().as_secs_f64();
        Error { exit: Exit::NotYet, ..Error::failure(format!("after {seconds} s {what}")) }
    }

    /// Waits for the ends of all, and tells each, in their order; meanwhile a terminal shows who
    /// is left. Gives those back that still live.
    pub(super) fn outlast<'a>(
        self,
        all: Vec<(&'a Node, Process)>,
        console: &Console,
        mut ended: impl FnMut(&'a Node),
    ) -> Vec<(&'a Node, Process)> {
        let progress = Progress::new(None, console.out);
        let mut left: std::collections::VecDeque<_> = all.into();
        let mut late = Vec::new();
        while let Some((node, process)) = left.pop_front() {
            let mut gone = process.is_gone();
            while !gone && !self.left().is_zero() {
                progress.reached(0, format!("waiting for {}", names(&node.name, &left)));
                gone = process.wait(self.left().min(REDRAW));
            }
            match gone {
                true => progress.aside(|| ended(node)),
                false => late.push((node, process)),
            }
        }
        late
    }
}

/// The nodes that are waited for.
fn names<'a>(first: &'a str, others: impl IntoIterator<Item = &'a (&'a Node, Process)>) -> String {
    let others = others.into_iter().filter(|(_, process)| !process.is_gone());
    let all: Vec<&str> =
        [first].into_iter().chain(others.map(|(node, _)| node.name.as_str())).collect();
    all.join(", ")
}
