//! The folders of pidfiles and logs: made when a node is started, and only then.

use super::super::exit::Error;
use super::node::Node;
use crate::os::file;
use crate::os::user::Ids;
use std::collections::HashMap;
use std::fmt;
use std::fs::create_dir_all;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Permissions of group and others to write.
const OTHERS_WRITE: u32 = 0o022;

/// Makes the folders that the nodes need, for whom they will run as.
///
/// # Errors
/// One cannot be made.
pub(super) fn make(nodes: &[Node]) -> Result<(), Error> {
    for node in nodes {
        let owner = node.owner()?;
        for file in [&node.pidfile, &node.logfile] {
            let Some(folder) = file.parent().filter(|folder| !folder.is_dir()) else { continue };
            let made = match owner.as_ref().filter(|_| Ids::may_change()) {
                Some(ids) => make_for(folder, ids),
                None => create_dir_all(folder),
            };
            made.map_err(|error| not_writable(folder.display(), &error))?;
        }
    }
    Ok(())
}

/// As root, for these: where they could not do it themselves, only in folders of root, where nobody
/// else can put a link in the way.
fn make_for(folder: &Path, ids: &Ids) -> io::Result<()> {
    match ids.acting(|| create_dir_all(folder))? {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
        made => return made,
    }
    let missing = |path: &&Path| path.symlink_metadata().is_err();
    if let Some(above) = folder.ancestors().find(|path| !missing(path)) {
        let found = above.symlink_metadata()?;
        if !found.is_dir() || found.uid() != 0 || found.mode() & OTHERS_WRITE != 0 {
            let text = format!(
                "found {} of user {}, expected a folder that only root can write to; make {} \
                 for user {} first",
                above.display(),
                found.uid(),
                folder.display(),
                ids.uid
            );
            return Err(io::Error::other(text));
        }
    }
    if let Some(parent) = folder.parent() {
        create_dir_all(parent)?;
    }
    std::fs::create_dir(folder)?;
    file::give_folder(folder, ids)
}

/// Nothing can be written there: what to do.
pub(super) fn not_writable(what: impl fmt::Display, error: &io::Error) -> Error {
    let failed = Error::failure(format!("{what}: {error}"));
    match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => failed
            .hint("name files where you may write: --pidfile=DIR/%n.pid --logfile=DIR/%n%I.log"),
        _ => failed,
    }
}

/// Each node must have a pidfile of its own.
///
/// # Errors
/// Two have the same one.
pub(super) fn distinct(nodes: &[Node]) -> Result<(), Error> {
    let mut known: HashMap<&Path, &str> = HashMap::new();
    for node in nodes {
        if let Some(other) = known.insert(&node.pidfile, &node.name) {
            let file = node.pidfile.display();
            return Err(Error::usage(format!(
                "{other} and {} have the same pidfile, {file}",
                node.name
            ))
            .hint("put %n or, for names that differ behind the @ only, %p in its name"));
        }
    }
    Ok(())
}

impl Node {
    /// Whom it will run as, if that is not us.
    pub(super) fn owner(&self) -> Result<Option<Ids>, Error> {
        let find = |option: &str| self.value(option);
        Ids::of(find("--uid"), find("--gid")).map_err(|error| Error::usage(error.to_string()))
    }
}
