//! qworker as a part of a system: its units, its installation, its Debian package.

mod install;
mod package;
mod units;

use std::path::Path;
use std::process::Command;

/// A script of `scripts/`, with the program that is under test.
fn script(name: &str) -> Command {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new(root.join("scripts").join(name));
    command.env("BINARY", env!("CARGO_BIN_EXE_qworker"));
    for name in ["DESTDIR", "PREFIX"] {
        command.env_remove(name);
    }
    command
}

/// Files, links and folders below `root`, without it.
fn tree(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap().flatten() {
            found.push(format!("/{}", entry.path().strip_prefix(root).unwrap().display()));
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            }
        }
    }
    found.sort();
    found
}
