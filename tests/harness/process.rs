//! Processes as `/proc` shows them.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;

/// Numbers of all processes.
pub fn all() -> Vec<i32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Parent of `pid`; `None` if it is gone.
pub fn parent(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // After the name, which may contain anything, come state and parent.
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// Direct children of `pid`.
pub fn children(pid: i32) -> Vec<i32> {
    all().into_iter().filter(|one| parent(*one) == Some(pid)).collect()
}

/// Everyone whose environment has the entry `mark`; the dead have none.
pub fn marked(mark: &str) -> Vec<i32> {
    let has = |pid: &i32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|entry| entry == mark.as_bytes())
    };
    all().into_iter().filter(has).collect()
}

/// The command line of `pid`, its words separated by blanks.
pub fn command(pid: i32) -> String {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&line).replace('\0', " ").trim().to_string()
}

/// Is there such a process, and is it no zombie?
pub fn is_alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

/// Sends `signal`; a process that is gone already does not mind.
pub fn send(pid: i32, signal: Signal) {
    let _ = kill(Pid::from_raw(pid), signal);
}
