//! Control groups of the kernel, version 2: the group of this process, the limits of the groups
//! around it, and groups of our own to limit tasks.
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
mod location;
mod worker_group;

pub use group::{Group, GroupLimits, GroupUsage};
pub use location::Location;
pub(crate) use location::{entry, number};
pub use worker_group::{WorkerGroup, clear_abandoned};

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;

/// Writes to a file of a group.
fn set(group: &Path, file: &str, value: &str) -> io::Result<()> {
    OpenOptions::new().write(true).open(group.join(file))?.write_all(value.as_bytes())
}
