//! The folder beside a database file that holds its leases and wake-up files. It is trusted only
//! if no other user can have created it or can write to it. Nothing is created or written through
//! a symbolic link.

use super::file;
use std::fs::{self, File, Metadata, Permissions};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

/// The folder that belongs to a database file.
pub fn path(database: &Path) -> PathBuf {
    let mut name = database.file_name().unwrap_or_default().to_os_string();
    name.push(".run");
    database.with_file_name(name)
}

/// Creates that folder if it does not exist, and checks that it can be trusted.
///
/// # Errors
/// As [`open`], or it cannot be created; names it.
pub fn create(database: &Path) -> io::Result<PathBuf> {
    let folder = path(database);
    if folder.symlink_metadata().is_err_and(|error| error.kind() == ErrorKind::NotFound) {
        file::make_folders(&folder, mode(&of(database)?))?;
    }
    open(database)?;
    Ok(folder)
}

/// Opens that folder. Users who may not write the database may not write there.
///
/// # Errors
/// It does not exist, is no folder, or belongs to another user; names it.
pub fn open(database: &Path) -> io::Result<File> {
    let folder = path(database);
    let at = |error: io::Error| file::naming(&folder, &error);
    let database = of(database)?;
    let own = nix::unistd::geteuid().as_raw();
    let wanted = match database.uid() {
        uid if uid == own => "a folder of this user".to_string(),
        uid => format!("a folder of user {uid}"),
    };
    let refused = |found: String| {
        let text = format!("found {found}, expected {wanted}; remove it");
        Err(at(io::Error::new(ErrorKind::PermissionDenied, text)))
    };
    let opened = match (file::open_folder(&folder), folder.symlink_metadata()) {
        (Ok(opened), _) => opened,
        (Err(_), Ok(found)) if !found.is_dir() => return refused(kind(&found).into()),
        (Err(error), _) => return Err(at(error)),
    };
    let found = opened.metadata().map_err(at)?;
    if ![own, 0, database.uid()].contains(&found.uid()) {
        return refused(format!("a folder of user {}", found.uid()));
    }
    let (shared, mode) = (is_shared(&database), mode(&database));
    if found.uid() == own {
        if shared && found.gid() != database.gid() {
            // Users outside of the group cannot give it anything.
            let _ = fchown(&opened, None, Some(database.gid()));
        }
        if found.mode() & 0o777 != mode {
            opened.set_permissions(Permissions::from_mode(mode)).map_err(at)?;
        }
    } else if found.mode() & 0o002 != 0 {
        let mode = found.mode() & 0o777;
        return refused(format!("a folder that everybody can write in (mode {mode:o})"));
    }
    Ok(opened)
}

/// Opens the wake-up file of this name in that folder, or creates it.
///
/// # Errors
/// As [`open`], or it cannot be written, or has another name too; names it.
pub(super) fn wakeup_file(database: &Path, name: &str) -> io::Result<File> {
    let folder = open(database)?;
    // The folder that was checked, even if its name now leads to another one.
    let path = PathBuf::from(format!("/proc/self/fd/{}/{name}", folder.as_raw_fd()));
    let opened = file::open_or_create(&path).and_then(|file| match file.metadata()?.nlink() {
        // The other name may belong to another user's file.
        2.. => Err(io::Error::other("found a file with several names; remove it")),
        _ => Ok(file),
    });
    opened.map_err(|error| file::naming(&self::path(database).join(name), &error))
}

fn of(database: &Path) -> io::Result<Metadata> {
    fs::metadata(database).map_err(|error| file::naming(database, &error))
}

/// Does a group share the database?
fn is_shared(database: &Metadata) -> bool {
    database.mode() & 0o020 != 0
}

fn mode(database: &Metadata) -> u32 {
    if is_shared(database) { 0o770 } else { 0o700 }
}

/// What it is instead of a folder.
fn kind(found: &Metadata) -> &'static str {
    let kind = found.file_type();
    match () {
        () if kind.is_symlink() => "a symbolic link",
        () if kind.is_file() => "a file",
        () if kind.is_fifo() => "a named pipe",
        () if kind.is_socket() => "a socket",
        () => "a device",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn only_a_folder_of_the_right_owner_counts() {
        let dir = tempfile::tempdir().unwrap();
        let database = dir.path().join("db");
        let run = dir.path().join("db.run");
        assert_eq!(open(&database).unwrap_err().kind(), ErrorKind::NotFound);
        fs::write(&database, "").unwrap();
        assert_eq!(open(&database).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(create(&database).unwrap(), run);
        fs::set_permissions(&run, Permissions::from_mode(0o777)).unwrap();
        wakeup_file(&database, "tasks").unwrap();
        assert_eq!(run.metadata().unwrap().mode() & 0o777, 0o700);
        fs::hard_link(run.join("tasks"), dir.path().join("other")).unwrap();
        let error = wakeup_file(&database, "tasks").unwrap_err().to_string();
        assert!(error.ends_with("db.run/tasks: found a file with several names; remove it"));
        fs::remove_dir_all(&run).unwrap();
        let elsewhere = dir.path().join("elsewhere");
        for target in [&elsewhere, &dir.path().join("nowhere")] {
            fs::create_dir_all(&elsewhere).unwrap();
            symlink(target, &run).unwrap();
            for error in
                [create(&database).unwrap_err(), wakeup_file(&database, "tasks").unwrap_err()]
            {
                let text = error.to_string();
                let wanted = "found a symbolic link, expected a folder of this user; remove it";
                assert!(text.ends_with(&format!("db.run: {wanted}")), "{text}");
            }
            assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
            fs::remove_file(&run).unwrap();
        }
        fs::write(&run, "").unwrap();
        assert!(create(&database).unwrap_err().to_string().contains("found a file, expected"));
        if nix::unistd::geteuid().is_root() {
            fs::remove_file(&run).unwrap();
            fs::create_dir(&run).unwrap();
            fchown(file::open_folder(&run).unwrap(), Some(54321), None).unwrap();
            let error = create(&database).unwrap_err().to_string();
            assert!(error.contains("found a folder of user 54321, expected a folder of this user"));
        }
    }
}
