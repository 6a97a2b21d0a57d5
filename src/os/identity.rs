//! Identities of processes, unique for this machine: to prove a death where no lease can be
//! asked.

use super::Pid;
use nix::errno::Errno;
use nix::sys::signal::kill;
use std::fs;

/// Namespaces that process ids and start times depend on. Two identities can be compared only if
/// both are from the same ones.
const NAMESPACES: [&str; 2] = ["pid", "time"];

/// The identities of a worker and its guard, as one text: `BOOT NAMESPACES PID:START PID:START`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessIdentity(String);

impl ProcessIdentity {
    /// This process and its parent.
    pub fn of_self() -> ProcessIdentity {
        let all = [Pid::this(), Pid::parent()].map(|pid| {
            let start = start_of(pid).map_or_else(|| "?".into(), |start| start.to_string());
            format!("{pid}:{start}")
        });
        ProcessIdentity(format!("{} {} {}", boot(), namespaces(), all.join(" ")))
    }

    /// From the text of [`ProcessIdentity::text`]; of any other text the state is unknown.
    pub fn parse(text: &str) -> ProcessIdentity {
        ProcessIdentity(text.into())
    }

    /// As text, to be stored.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// Are both processes dead? `None` if that cannot be known from here.
    pub fn is_dead(&self) -> Option<bool> {
        let mut words = self.0.split(' ');
        let (boot_then, namespaces_then) = (words.next()?, words.next()?);
        if [boot_then, namespaces_then].contains(&"?") || boot() == "?" {
            return None;
        }
        if boot_then != boot() {
            return Some(true);
        }
        if namespaces_then != namespaces() {
            return None;
        }
        let mut all = words.map(|word| {
            let (pid, start) = word.split_once(':')?;
            Some(is_dead(Pid::from_raw(pid.parse().ok().filter(|pid| *pid > 0)?), start))
        });
        all.try_fold(true, |dead, one| Some(dead && one?))
    }

    /// Is this the previous worker of the same guard as `own`? A guard starts another worker only
    /// after no process of the previous one is left.
    pub fn precedes(&self, own: &ProcessIdentity) -> bool {
        let split = |one: &ProcessIdentity| {
            let words: Vec<String> = one.0.split(' ').map(str::to_string).collect();
            <[String; 4]>::try_from(words).ok()
        };
        let (Some(theirs), Some(ours)) = (split(self), split(own)) else { return false };
        let worker = |all: &[String; 4]| ProcessIdentity([&all[0][..], &all[1], &all[2]].join(" "));
        (&theirs[..2], &theirs[3]) == (&ours[..2], &ours[3])
            && worker(&theirs).is_dead() == Some(true)
    }

    /// Is there no process with this id? For stored ids without an identity.
    pub fn no_such_process(pid: i32) -> bool {
        pid > 0 && kill(Pid::from_raw(pid), None) == Err(Errno::ESRCH)
    }
}

fn is_dead(pid: Pid, start: &str) -> bool {
    // Asked first: where /proc hides processes of other users, a missing file proves nothing.
    if kill(pid, None) == Err(Errno::ESRCH) {
        return true;
    }
    match start_of(pid) {
        Some(now) => now.to_string() != start && start != "?",
        None => false,
    }
}

/// When it started, in ticks since the boot; `None` if that is hidden.
fn start_of(pid: Pid) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before may have anything in it.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    // A zombie holds nothing any more.
    if ["Z", "X"].contains(fields.first()?) {
        return Some(0);
    }
    fields.get(19)?.parse().ok()
}

/// The id of this boot.
fn boot() -> String {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    match text.trim() {
        "" => "?".into(),
        id => id.into(),
    }
}

fn namespaces() -> String {
    let mut all = Vec::new();
    for name in NAMESPACES {
        match fs::read_link(format!("/proc/self/ns/{name}")) {
            Ok(link) => all.push(link.display().to_string()),
            // An older kernel has no such namespace.
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
        let own = ProcessIdentity::of_self();
        assert_eq!(own.is_dead(), Some(false));
        assert_eq!(ProcessIdentity::parse(own.text()), own);
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = Pid::from_raw(child.id() as i32);
        let begin = format!("{} {}", boot(), namespaces());
        let of = |word: &str| ProcessIdentity::parse(&format!("{begin} {word}")).is_dead();
        let start = start_of(pid);
        child.wait().unwrap();
        assert_eq!(of(&format!("{pid}:{}", start.unwrap_or(1))), Some(true));
        assert_eq!(of("1:12345678901"), Some(true), "another one has the number");
        assert_eq!(
            of(&format!("{pid}:1 {}", own.text().split(' ').next_back().unwrap())),
            Some(false)
        );
        assert_eq!(
            ProcessIdentity::parse(&format!("other {} 1:1", namespaces())).is_dead(),
            Some(true)
        );
        assert_eq!(ProcessIdentity::parse(&format!("{} pid:[1] 1:1", boot())).is_dead(), None);
        for odd in ["", "x", "? ? 1:1", &format!("{begin} one"), &format!("{begin} -1:1")] {
            assert_eq!(ProcessIdentity::parse(odd).is_dead(), None, "{odd}");
        }
        let parent = own.text().split(' ').next_back().unwrap();
        let before = ProcessIdentity::parse(&format!("{begin} {pid}:1 {parent}"));
        assert!(before.is_dead() == Some(false) && before.precedes(&own));
        assert!(!own.precedes(&own));
        assert!(
            ProcessIdentity::no_such_process(pid.as_raw())
                && !ProcessIdentity::no_such_process(1)
                && !ProcessIdentity::no_such_process(-1)
        );
    }
}
