//! Names of workers, and their leases on this host.

use crate::os::lease::{self, Lease, LeaseState};
use std::path::{Path, PathBuf};

/// Instances that have a lease on this host, each with its file.
pub(super) fn leases() -> Vec<(String, PathBuf)> {
    let Ok(folder) = lease::folder() else { return Vec::new() };
    let Ok(files) = std::fs::read_dir(&folder) else { return Vec::new() };
    let lease = |file: std::fs::DirEntry| {
        let name = file.file_name().into_string().ok()?;
        let instance = name.strip_suffix(".lease").filter(|name| is_instance(name))?;
        Some((instance.to_string(), file.path()))
    };
    files.flatten().filter_map(lease).collect()
}

/// Is it the name of a worker of ours? Others may stand in the same keys, and in the same folder.
pub(super) fn is_instance(name: &str) -> bool {
    name.len() == 32 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The lease of an instance, if it is of this host.
pub(super) fn lease_of(instance: &str) -> std::io::Result<PathBuf> {
    Ok(lease::folder()?.join(format!("{instance}.lease")))
}

pub(super) fn remove_lease(instance: &str) {
    if let Ok(path) = lease_of(instance) {
        let _ = std::fs::remove_file(path);
    }
}

/// Does the worker live? Only a lease of this host can tell.
pub(super) fn lease_says(instance: &str) -> Option<bool> {
    says(&lease_of(instance).ok()?)
}

/// Does the holder of this lease live?
pub(super) fn says(lease: &Path) -> Option<bool> {
    match Lease::state(lease) {
        LeaseState::Held => Some(true),
        LeaseState::Free => Some(false),
        LeaseState::Unknown(_) => None,
    }
}
