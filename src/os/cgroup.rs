//! Control groups of the kernel, version 2: where we are, what the groups around us leave, and
//! groups of our own for what tasks may use together.
//!
//! ```text
//!  the group that we may use         /sys/fs/cgroup/system.slice/qworker@a.service
//!   ├─ qworker.self                  guard and worker: a group with limits for those below it has
//!   │                                no processes of its own
//!   └─ qworker-tasks-PID-TIME        one worker's, locked (flock) for as long as that worker lives
//!       ├─ 1                         one task's
//!       └─ 2
//! ```

mod group;
mod home;
mod place;

pub use group::{Bounds, Group, Spent};
pub use home::{Home, clear_abandoned};
pub use place::Place;
pub(crate) use place::{entry, number};

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;

/// Writes to a file that the kernel made.
fn set(group: &Path, file: &str, value: &str) -> io::Result<()> {
    OpenOptions::new().write(true).open(group.join(file))?.write_all(value.as_bytes())
}
