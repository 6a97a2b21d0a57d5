//! What this machine is called and what we may use of it.

use std::fs;
use std::thread;

/// The host's name, `localhost` if it has none.
pub fn name() -> String {
    nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "localhost".into())
}

/// How many processors we may keep busy: the machine's, less what affinity and the
/// quota of the control group (version 1 or 2) take away. At least 1.
pub fn processors() -> usize {
    // The standard library asks the affinity mask and both kinds of control groups.
    thread::available_parallelism().map_or(1, usize::from)
}

/// This process's share of resident memory in bytes: pages that it shares with others
/// count in part (PSS). Where the kernel does not say, they count in full (RSS).
pub fn memory() -> u64 {
    proportional().or_else(resident).unwrap_or(0)
}

/// Bytes, from a line `Pss:   1234 kB`.
fn proportional() -> Option<u64> {
    let text = fs::read_to_string("/proc/self/smaps_rollup").ok()?;
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
        let (shared, full) = (proportional().unwrap(), resident().unwrap());
        assert!(shared > 100_000 && full > 100_000, "{shared} {full}");
        assert!(memory() > 0);
    }
}
