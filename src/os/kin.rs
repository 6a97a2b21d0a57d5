//! Processes by what tells them from all others of this kernel: for proving a death where there
//! is no lease to ask.

use super::Pid;
use nix::errno::Errno;
use nix::sys::signal::kill;
use std::fs;

/// Places from which process numbers and their times are seen: those of two processes can be
/// compared only if they are in the same ones.
const SPACES: [&str; 2] = ["pid", "time"];

/// A few processes, as one text: `BOOT SPACES NUMBER:START…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kin(String);

impl Kin {
    /// This process and the one above.
    pub fn of_self() -> Kin {
        let all = [Pid::this(), Pid::parent()].map(|pid| {
            let start = start_of(pid).map_or_else(|| "?".into(), |start| start.to_string());
            format!("{pid}:{start}")
        });
        Kin(format!("{} {} {}", boot(), spaces(), all.join(" ")))
    }

    /// As it was written down.
    pub fn read(text: &str) -> Kin {
        Kin(text.into())
    }

    /// Written down.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// Are all of them dead? `None` if that cannot be seen from here.
    pub fn are_dead(&self) -> Option<bool> {
        let mut words = self.0.split(' ');
        let (boot_then, spaces_then) = (words.next()?, words.next()?);
        if [boot_then, spaces_then].contains(&"?") || boot() == "?" {
            return None;
        }
        if boot_then != boot() {
            return Some(true);
        }
        if spaces_then != spaces() {
            return None;
        }
        let mut all = words.map(|word| {
            let (pid, start) = word.split_once(':')?;
            Some(is_dead(Pid::from_raw(pid.parse().ok().filter(|pid| *pid > 0)?), start))
        });
        all.try_fold(true, |dead, one| Some(dead && one?))
    }

    /// Is this the worker that the process above has had before this one? A guard starts another
    /// one only after nothing of the first one is left.
    pub fn precedes(&self, own: &Kin) -> bool {
        let split = |kin: &Kin| {
            let words: Vec<String> = kin.0.split(' ').map(str::to_string).collect();
            <[String; 4]>::try_from(words).ok()
        };
        let (Some(theirs), Some(ours)) = (split(self), split(own)) else { return false };
        let worker = |all: &[String; 4]| Kin([&all[0][..], &all[1], &all[2]].join(" "));
        (&theirs[..2], &theirs[3]) == (&ours[..2], &ours[3])
            && worker(&theirs).are_dead() == Some(true)
    }

    /// Is there no process of this number? For what is written down as a number alone.
    pub fn is_nobody(pid: i32) -> bool {
        pid > 0 && kill(Pid::from_raw(pid), None) == Err(Errno::ESRCH)
    }
}

fn is_dead(pid: Pid, start: &str) -> bool {
    // Asked first: where /proc hides the processes of others, a file of it proves nothing.
    if kill(pid, None) == Err(Errno::ESRCH) {
        return true;
    }
    match start_of(pid) {
        Some(now) => now.to_string() != start && start != "?",
        None => false,
    }
}

/// When it began, in ticks since the boot; `None` if that is hidden.
fn start_of(pid: Pid) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before may have anything in it.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    // Nobody has waited for a dead one yet: it holds nothing any more.
    if ["Z", "X"].contains(fields.first()?) {
        return Some(0);
    }
    fields.get(19)?.parse().ok()
}

/// This run of the kernel.
fn boot() -> String {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    match text.trim() {
        "" => "?".into(),
        id => id.into(),
    }
}

fn spaces() -> String {
    let mut all = Vec::new();
    for name in SPACES {
        match fs::read_link(format!("/proc/self/ns/{name}")) {
            Ok(link) => all.push(link.display().to_string()),
            // An older kernel has no such space.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && name == "time" => {}
            Err(_) => return "?".into(),
        }
    }
    all.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_death_is_seen_only_where_it_can_be() {
        let own = Kin::of_self();
        assert_eq!(own.are_dead(), Some(false));
        assert_eq!(Kin::read(own.text()), own);
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = Pid::from_raw(child.id() as i32);
        let begin = format!("{} {}", boot(), spaces());
        let of = |word: &str| Kin::read(&format!("{begin} {word}")).are_dead();
        let start = start_of(pid);
        child.wait().unwrap();
        assert_eq!(of(&format!("{pid}:{}", start.unwrap_or(1))), Some(true));
        assert_eq!(of("1:12345678901"), Some(true), "another one has the number");
        assert_eq!(
            of(&format!("{pid}:1 {}", own.text().split(' ').next_back().unwrap())),
            Some(false)
        );
        assert_eq!(Kin::read(&format!("other {} 1:1", spaces())).are_dead(), Some(true));
        assert_eq!(Kin::read(&format!("{} pid:[1] 1:1", boot())).are_dead(), None);
        for odd in ["", "x", "? ? 1:1", &format!("{begin} one"), &format!("{begin} -1:1")] {
            assert_eq!(Kin::read(odd).are_dead(), None, "{odd}");
        }
        let parent = own.text().split(' ').next_back().unwrap();
        let before = Kin::read(&format!("{begin} {pid}:1 {parent}"));
        assert!(before.are_dead() == Some(false) && before.precedes(&own));
        assert!(!own.precedes(&own));
        assert!(Kin::is_nobody(pid.as_raw()) && !Kin::is_nobody(1) && !Kin::is_nobody(-1));
    }
}
