//! How far a long command is, on standard error: only if that is a terminal.

use super::output::ToUser;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar while the end is known, else a line; gone when it is dropped.
pub(super) struct Progress(ProgressBar);

impl Progress {
    /// Counts up to `end`, in bytes; nothing is shown to whom is quiet.
    pub(super) fn new(end: Option<u64>, out: ToUser) -> Progress {
        // Nor where standard error is no terminal; the library sees to that.
        let target =
            if out.quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let template = match end {
            Some(_) => "[{bar:30}] {percent}%  {msg}  {eta} left",
            None => "{msg}  {elapsed}",
        };
        let bar = ProgressBar::with_draw_target(end, target);
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        Progress(bar)
    }

    /// It has reached `bytes`, which is `what`.
    pub(super) fn reached(&self, bytes: u64, what: String) {
        self.0.set_position(bytes);
        self.0.set_message(what);
    }

    /// Prints something with the bar out of the way.
    pub(super) fn aside<T>(&self, print: impl FnOnce() -> T) -> T {
        self.0.suspend(print)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
