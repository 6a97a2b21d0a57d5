//! From names of users and groups to the ids of a process.

use nix::errno::Errno;
use nix::unistd::{
    Gid, Group, Uid, User, getegid, geteuid, getgrouplist, getgroups, setfsgid, setfsuid,
};
use std::ffi::{CStr, CString, OsString};
use std::fmt;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

/// The user and groups that a process runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ids {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

/// A user or group that does not exist, or could not be looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserError {
    /// No such user.
    NoUser(String),
    /// No such group.
    NoGroup(String),
    /// A number without an entry in the user database, and no group given with it.
    NoGroupOf(u32),
    /// The database cannot be read: which name, and the error number.
    Lookup(String, i32),
}

impl fmt::Display for UserError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UserError::NoUser(name) => write!(f, "no user named {name}"),
            UserError::NoGroup(name) => write!(f, "no group named {name}"),
            UserError::NoGroupOf(uid) => {
                write!(f, "user {uid} is not in the user database: its group must be given too")
            }
            UserError::Lookup(name, errno) => {
                write!(f, "look up {name}: {}", super::describe(*errno))
            }
        }
    }
}

impl std::error::Error for UserError {}

impl Ids {
    /// The ids of `user` and `group`, names or numbers; `None` if neither is given. Without a user,
    /// it is our own; without a group, it is the user's.
    ///
    /// # Errors
    /// See [`UserError`].
    pub fn of(user: Option<&str>, group: Option<&str>) -> Result<Option<Ids>, UserError> {
        if user.is_none() && group.is_none() {
            return Ok(None);
        }
        let group = group.map(find_group).transpose()?;
        let Some(user) = user else {
            let gid = group.unwrap_or_else(|| getegid().as_raw());
            return Ok(Some(Ids { uid: geteuid().as_raw(), gid, groups: vec![gid] }));
        };
        let (uid, entry) = find_user(user)?;
        let gid = match (group, &entry) {
            (Some(gid), _) => gid,
            (None, Some(entry)) => entry.gid.as_raw(),
            (None, None) => return Err(UserError::NoGroupOf(uid)),
        };
        let groups = match entry.and_then(|entry| CString::new(entry.name).ok()) {
            Some(name) => getgrouplist(&name, Gid::from_raw(gid))
                .map_err(|error| UserError::Lookup(user.into(), error as i32))?
                .into_iter()
                .map(Gid::as_raw)
                .collect(),
            None => vec![gid],
        };
        Ok(Some(Ids { uid, gid, groups }))
    }

    /// Makes this process run as these from now on, before any thread exists.
    ///
    /// # Errors
    /// Only root may change them.
    pub fn assume(&self) -> std::io::Result<()> {
        let groups: Vec<Gid> = self.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        // The user last: afterwards nothing can be changed any more.
        nix::unistd::setgroups(&groups)?;
        nix::unistd::setresgid(gid, gid, gid)?;
        nix::unistd::setresuid(uid, uid, uid)?;
        Ok(())
    }

    /// Does `work` with their rights to files, if we are root; affects the calling thread alone.
    ///
    /// # Errors
    /// The rights cannot be changed.
    pub fn acting<T>(&self, work: impl FnOnce() -> T) -> io::Result<T> {
        if self.uid == geteuid().as_raw() {
            return Ok(work());
        }
        let _back = Back { uid: geteuid(), gid: getegid(), groups: getgroups()? };
        take_on(self.uid, self.gid, &self.groups)?;
        Ok(work())
    }

    /// Sets the variables that `login` sets, before any thread exists.
    pub fn log_in(&self) {
        for (name, _) in std::env::vars_os() {
            if is_of_login(name.as_bytes()) {
                // SAFETY: no thread exists yet that could read the environment meanwhile.
                unsafe { std::env::remove_var(name) };
            }
        }
        for (name, value) in self.login() {
            // SAFETY: as above.
            unsafe { std::env::set_var(name, value) };
        }
    }

    /// `env`, `NAME=value` each, as it would be after their login.
    pub fn logged_in(&self, env: &[Arc<CStr>]) -> Vec<Arc<CStr>> {
        let name = |entry: &CStr| {
            let entry = entry.to_bytes();
            entry.split(|byte| *byte == b'=').next().is_some_and(is_of_login)
        };
        let own = self.login().into_iter().filter_map(|(name, value)| {
            CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()).ok().map(Arc::from)
        });
        env.iter().filter(|entry| !name(entry)).cloned().chain(own).collect()
    }

    fn login(&self) -> Vec<(&'static str, OsString)> {
        match User::from_uid(Uid::from_raw(self.uid)) {
            Ok(Some(user)) => vec![
                ("HOME", user.dir.into()),
                ("USER", user.name.clone().into()),
                ("LOGNAME", user.name.into()),
                ("SHELL", user.shell.into()),
            ],
            // A user without an entry has no home.
            _ => vec![("HOME", "/".into()), ("SHELL", "/bin/sh".into())],
        }
    }

    /// Does this process run as these already?
    pub fn are_ours(&self) -> bool {
        self.uid == geteuid().as_raw() && self.gid == getegid().as_raw()
    }

    /// May this process start others as another user?
    pub fn may_change() -> bool {
        geteuid().is_root()
    }
}

/// Variables that belong to one user.
fn is_of_login(name: &[u8]) -> bool {
    let names = ["HOME", "USER", "LOGNAME", "SHELL", "MAIL", "DBUS_SESSION_BUS_ADDRESS"];
    name.starts_with(b"XDG_") || names.iter().any(|known| known.as_bytes() == name)
}

/// Restores this thread's own rights to files.
struct Back {
    uid: Uid,
    gid: Gid,
    groups: Vec<Gid>,
}

impl Drop for Back {
    fn drop(&mut self) {
        setfsuid(self.uid);
        setfsgid(self.gid);
        let groups: Vec<u32> = self.groups.iter().map(|gid| gid.as_raw()).collect();
        // They were ours, and we are root again.
        let _ = groups_of_thread(&groups);
    }
}

fn take_on(uid: u32, gid: u32, groups: &[u32]) -> io::Result<()> {
    groups_of_thread(groups)?;
    setfsgid(Gid::from_raw(gid));
    setfsuid(Uid::from_raw(uid));
    // The call returns the previous value: called again, it returns the present one.
    match setfsuid(Uid::from_raw(u32::MAX)).as_raw() == uid {
        true => Ok(()),
        false => Err(io::ErrorKind::PermissionDenied.into()),
    }
}

/// The library's call would change them for all threads.
fn groups_of_thread(groups: &[u32]) -> io::Result<()> {
    // SAFETY: the pointer and length are of one live slice.
    let done = unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The id of a user, and its entry in the database if there is one. A name of digits is looked up
/// as a name first, as `chown` does.
fn find_user(name: &str) -> Result<(u32, Option<User>), UserError> {
    let failed = |error: Errno| UserError::Lookup(name.into(), error as i32);
    if let Some(user) = User::from_name(name).map_err(failed)? {
        return Ok((user.uid.as_raw(), Some(user)));
    }
    let uid = number(name).ok_or_else(|| UserError::NoUser(name.into()))?;
    Ok((uid, User::from_uid(Uid::from_raw(uid)).map_err(failed)?))
}

fn find_group(name: &str) -> Result<u32, UserError> {
    match Group::from_name(name).map_err(|error| UserError::Lookup(name.into(), error as i32))? {
        Some(group) => Ok(group.gid.as_raw()),
        None => number(name).ok_or_else(|| UserError::NoGroup(name.into())),
    }
}

/// A number of digits alone: `+5` is none.
fn number(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        assert_eq!(Ids::of(None, None), Ok(None));
        let root = Ids::of(Some("root"), None).unwrap().unwrap();
        assert_eq!((root.uid, root.gid), (0, 0));
        assert_eq!(Ids::of(Some("0"), None).unwrap().unwrap(), root);
        let strange = Ids::of(Some("54321"), Some("12345")).unwrap().unwrap();
        assert_eq!(strange, Ids { uid: 54321, gid: 12345, groups: vec![12345] });
        assert_eq!(Ids::of(Some("54321"), None), Err(UserError::NoGroupOf(54321)));
        assert_eq!(Ids::of(Some("no-such"), None), Err(UserError::NoUser("no-such".into())));
        assert_eq!(Ids::of(None, Some("no-such")), Err(UserError::NoGroup("no-such".into())));
        assert_eq!(Ids::of(None, Some("7")).unwrap().unwrap().uid, geteuid().as_raw());
    }
}
