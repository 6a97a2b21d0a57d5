//! The folders of pidfiles and logs: made when a node is started, and only then.

use super::super::exit::Error;
use super::node::Node;
use crate::os::user::Ids;
use std::collections::HashMap;
use std::io;
use std::path::Path;

/// Makes the folders that the nodes need, for whom they will run as.
///
/// # Errors
/// One cannot be made.
pub(super) fn make(nodes: &[Node]) -> Result<(), Error> {
    for node in nodes {
        let owner = node.owner()?;
        for file in [&node.pidfile, &node.logfile] {
            let Some(folder) = file.parent().filter(|folder| !folder.is_dir()) else { continue };
            let made = std::fs::create_dir_all(folder).and_then(|()| match &owner {
                Some(ids) => std::os::unix::fs::chown(folder, Some(ids.uid), Some(ids.gid)),
                None => Ok(()),
            });
            made.map_err(|error| not_writable(folder, &error))?;
        }
    }
    Ok(())
}

/// Nothing can be written there: what to do.
pub(super) fn not_writable(path: &Path, error: &io::Error) -> Error {
    let failed = Error::failure(format!("{}: {error}", path.display()));
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
    fn owner(&self) -> Result<Option<Ids>, Error> {
        let find = |option: &str| self.value(option);
        Ids::of(find("--uid"), find("--gid")).map_err(|error| Error::usage(error.to_string()))
    }
}
