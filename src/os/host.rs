//! The name of this machine, and what we may use of it.

use super::cgroup::{self, Location};
use chrono::{DateTime, Utc};
use std::fs;
use std::path::Path;
use std::thread;

/// The host's name, `localhost` if it has none.
pub fn name() -> String {
    nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "localhost".into())
}

/// When the kernel was started, if it says so.
pub fn boot_time() -> Option<DateTime<Utc>> {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = stat.lines().find_map(|line| line.strip_prefix("btime "));
    let seconds = line.and_then(|seconds| seconds.trim().parse().ok());
    seconds.and_then(|seconds| DateTime::from_timestamp(seconds, 0))
}

/// How many processors we may keep busy: those of the machine, as far as affinity and the quota of
/// the control group (version 1 or 2) allow. At least 1.
pub fn processors() -> usize {
    // The standard library respects affinity and both versions of control groups.
    thread::available_parallelism().map_or(1, usize::from)
}

/// Memory that is still available to tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// "on the host", "in the control group".
    pub whose: &'static str,
    /// Available bytes.
    pub free: u64,
    /// All bytes.
    pub total: u64,
}

/// The memory of the host, and that of each control group (version 2) around this process that has
/// a limit. What cannot be read is left out.
pub fn rooms() -> Vec<Room> {
    let on_host = fs::read_to_string("/proc/meminfo").ok().and_then(|text| room_of_host(&text));
    let location = Location::of_self();
    let groups = location.iter().flat_map(Location::groups).filter_map(room_of_group);
    on_host.into_iter().chain(groups).collect()
}

fn room_of_host(meminfo: &str) -> Option<Room> {
    let kilobytes = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
    };
    let (free, total) = (kilobytes("MemAvailable:")?, kilobytes("MemTotal:")?);
    Some(Room { whose: "on the host", free, total })
}

fn room_of_group(group: &Path) -> Option<Room> {
    let total = cgroup::number(group, "memory.max")?;
    let used = cgroup::number(group, "memory.current")?;
    // Pages of files that were not used lately are reclaimed first.
    let spare = cgroup::entry(group, "memory.stat", "inactive_file").unwrap_or(0);
    let free = total.saturating_sub(used.saturating_sub(spare));
    Some(Room { whose: "in the control group", free, total })
}

/// The average number of running and waiting processes over the last minute.
pub fn load() -> Option<f64> {
    let text = fs::read_to_string("/proc/loadavg").ok()?;
    text.split(' ').next()?.parse().ok()
}

/// The resident memory of this process in bytes; of shared pages, only its share (PSS). Where the
/// kernel does not report that, shared pages count in full (RSS).
pub fn memory() -> u64 {
    proportional("self").or_else(resident).unwrap_or(0)
}

/// As [`memory`], for another process; `None` if it is gone or not visible to us.
pub fn memory_of(pid: i32) -> Option<u64> {
    proportional(&pid.to_string())
}

/// Bytes, from a line `Pss:   1234 kB`.
fn proportional(process: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{process}/smaps_rollup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// Bytes of resident memory of this process, shared pages included.
fn resident() -> Option<u64> {
    let text = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split_ascii_whitespace().nth(1)?.parse().ok()?;
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok()??;
    Some(pages * u64::try_from(page).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_answers() {
        assert!(!name().is_empty());
        assert!(processors() >= 1);
        let (shared, full) = (proportional("self").unwrap(), resident().unwrap());
        assert!(shared > 100_000 && full > 100_000, "{shared} {full}");
        assert!(memory() > 0);
        let rooms = rooms();
        assert!(rooms[0].free > 0 && rooms[0].free < rooms[0].total, "{rooms:?}");
        assert!(load().is_some_and(|load| load >= 0.0));
    }

    #[test]
    fn a_group_with_a_limit_is_a_room() {
        let group = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| fs::write(group.path().join(file), text).unwrap();
        assert_eq!(room_of_group(group.path()), None);
        write("memory.max", "max\n");
        write("memory.current", "700\n");
        assert_eq!(room_of_group(group.path()), None);
        write("memory.max", "1000\n");
        write("memory.stat", "anon 400\ninactive_file 200\nactive_file 100\n");
        let room = room_of_group(group.path()).unwrap();
        assert_eq!((room.free, room.total), (500, 1000));
        write("memory.current", "1100\n");
        assert_eq!(room_of_group(group.path()).unwrap().free, 100);
    }
}
