//! Where this process is in the tree of control groups, version 2.

use std::fs;
use std::path::{Path, PathBuf};

/// A control group, as a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// Where the tree is mounted: no folder above it is a group.
    pub mount: PathBuf,
    /// The group's folder.
    pub folder: PathBuf,
}

impl Location {
    /// The group of this process; `None` if there is no such tree, or this process cannot see its
    /// part of it.
    pub fn of_self() -> Option<Location> {
        let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
        let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
        Location::read(&groups, &mounts).filter(|location| location.folder.is_dir())
    }

    /// The same from the text of `/proc/self/cgroup` and `/proc/self/mountinfo`.
    fn read(groups: &str, mounts: &str) -> Option<Location> {
        let path = Path::new(groups.lines().find_map(|line| line.strip_prefix("0::"))?);
        mounts.lines().find_map(|line| {
            let (places, kind) = line.split_once(" - ")?;
            let mut places = places.split(' ').skip(3);
            let (root, mount) = (unescaped(places.next()?), unescaped(places.next()?));
            if kind.split(' ').next() != Some("cgroup2") {
                return None;
            }
            let below = path.strip_prefix(&root).ok()?;
            // A group outside of what this process can see is told as `/../…`.
            let is_seen = !below.components().any(|part| part.as_os_str() == "..");
            let mount = PathBuf::from(mount);
            // Joining nothing would put a slash at the end.
            let folder =
                if below.as_os_str().is_empty() { mount.clone() } else { mount.join(below) };
            is_seen.then_some(Location { mount, folder })
        })
    }

    /// This group and those around it, innermost first.
    pub fn groups(&self) -> impl Iterator<Item = &Path> {
        self.folder.ancestors().take_while(|folder| folder.starts_with(&self.mount))
    }

    /// The group around this one; `None` at the top of what can be seen.
    pub fn parent(&self) -> Option<Location> {
        let folder = self.folder.parent().filter(|folder| folder.starts_with(&self.mount))?;
        Some(Location { mount: self.mount.clone(), folder: folder.into() })
    }
}

/// A number that a group's file holds; `None` for `max`, and if there is no such file.
pub(crate) fn number(group: &Path, file: &str) -> Option<u64> {
    fs::read_to_string(group.join(file)).ok()?.trim().parse().ok()
}

/// A line `NAME NUMBER` of a group's file.
pub(crate) fn entry(group: &Path, file: &str, name: &str) -> Option<u64> {
    let text = fs::read_to_string(group.join(file)).ok()?;
    text.lines().find_map(|line| {
        line.strip_prefix(name)?.strip_prefix(' ').and_then(|number| number.trim().parse().ok())
    })
}

/// A path of `mountinfo`, where blanks and the like are written as `\040`.
fn unescaped(path: &str) -> String {
    let mut parts = path.split('\\');
    let mut text = parts.next().unwrap_or_default().to_string();
    for part in parts {
        let code = part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) => text.extend([char::from(code).to_string().as_str(), &part[3..]]),
            None => text.extend(["\\", part]),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const PURE: &str = "25 30 0:23 / /sys rw - sysfs sysfs rw\n\
        30 25 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";

    fn location(groups: &str, mounts: &str) -> Option<(String, String)> {
        let location = Location::read(groups, mounts)?;
        Some((location.mount.display().to_string(), location.folder.display().to_string()))
    }

    #[test]
    fn the_group_is_found_by_its_mount() {
        let found = |mount: &str, folder: &str| Some((mount.to_string(), folder.to_string()));
        let root = "/sys/fs/cgroup";
        assert_eq!(location("0::/\n", PURE), found(root, root));
        assert_eq!(
            location("0::/system.slice/q.service\n", PURE),
            found(root, "/sys/fs/cgroup/system.slice/q.service")
        );
        let hybrid = "30 25 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                      31 25 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        assert_eq!(
            location("4:memory:/x\n0::/a b\n", hybrid),
            found("/sys/fs/cgroup/unified", "/sys/fs/cgroup/unified/a b")
        );
        // A part of the tree, mounted with a blank in its name.
        let part = "31 25 0:27 /docker/1 /mnt/my\\040groups rw - cgroup2 cgroup2 rw\n";
        assert_eq!(location("0::/docker/1/x\n", part), found("/mnt/my groups", "/mnt/my groups/x"));
        assert_eq!(location("0::/docker/2\n", part), None);
        assert_eq!(location("0::/../other\n", PURE), None);
        assert_eq!(location("4:memory:/\n", PURE), None);
        assert_eq!(location("0::/\n", ""), None);
    }

    #[test]
    fn the_groups_around_end_at_the_mount() {
        let location = Location::read("0::/a/b\n", PURE).unwrap();
        let all: Vec<_> = location.groups().map(|group| group.display().to_string()).collect();
        assert_eq!(all, ["/sys/fs/cgroup/a/b", "/sys/fs/cgroup/a", "/sys/fs/cgroup"]);
        let top = location.parent().unwrap().parent().unwrap();
        assert_eq!((top.folder.to_str(), top.parent()), (Some("/sys/fs/cgroup"), None));
    }
}
