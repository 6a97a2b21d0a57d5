//! The environment of this process.

use std::ffi::{CStr, CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

/// All variables but these, `NAME=value` each.
pub fn all_but(names: &[&str]) -> Vec<Arc<CStr>> {
    std::env::vars_os()
        .filter(|(name, _)| !names.iter().any(|left_out| name == left_out))
        .filter_map(|(name, value)| {
            let entry = CString::new([name.as_bytes(), b"=", value.as_bytes()].concat());
            entry.ok().map(Arc::from)
        })
        .collect()
}

/// Sets a variable for the programs that this one starts, before any thread exists.
pub fn set(name: &str, value: &OsStr) {
    // SAFETY: no thread exists yet that could read the environment meanwhile.
    unsafe { std::env::set_var(name, value) };
}

/// Reads and removes a variable that is for this process alone, before any thread exists.
pub fn take(name: &str) -> Option<String> {
    let value = std::env::var(name).ok()?;
    // SAFETY: no thread exists yet that could read the environment meanwhile.
    unsafe { std::env::remove_var(name) };
    Some(value)
}
