//! Names of users and groups to the numbers a process runs with.

use nix::errno::Errno;
use nix::unistd::{Gid, Group, Uid, User, getegid, geteuid, getgrouplist};
use std::ffi::CString;
use std::fmt;

/// Whom a process runs as.
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
    /// What `user` and `group`, names or numbers, stand for; `None` if neither is given.
    /// Without a user it is our own; without a group it is the user's.
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

    /// This process, before any thread exists, runs as these from now on.
    ///
    /// # Errors
    /// Only root may change them.
    pub fn assume(&self) -> std::io::Result<()> {
        let groups: Vec<Gid> = self.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        // The user last: after it nothing may be changed any more.
        nix::unistd::setgroups(&groups)?;
        nix::unistd::setresgid(gid, gid, gid)?;
        nix::unistd::setresuid(uid, uid, uid)?;
        Ok(())
    }

    /// Do we run as these already, so that nothing needs to be changed?
    pub fn are_ours(&self) -> bool {
        self.uid == geteuid().as_raw() && self.gid == getegid().as_raw()
    }

    /// May this process start others with different ids?
    pub fn may_change() -> bool {
        geteuid().is_root()
    }
}

/// The number of a user, and its entry in the database if it has one. A name of digits
/// is looked up as a name first, as `chown` does.
fn find_user(name: &str) -> Result<(u32, Option<User>), UserError> {
    let failed = |error: Errno| UserError::Lookup(name.into(), error as i32);
    if let Some(user) = User::from_name(name).map_err(failed)? {
        return Ok((user.uid.as_raw(), Some(user)));
    }
    let uid: u32 = name.parse().map_err(|_| UserError::NoUser(name.into()))?;
    Ok((uid, User::from_uid(Uid::from_raw(uid)).map_err(failed)?))
}

fn find_group(name: &str) -> Result<u32, UserError> {
    match Group::from_name(name).map_err(|error| UserError::Lookup(name.into(), error as i32))? {
        Some(group) => Ok(group.gid.as_raw()),
        None => name.parse().map_err(|_| UserError::NoGroup(name.into())),
    }
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
