//! Maps compiled WASM code into the process: the only `unsafe` that the WASM runner needs. It
//! checks nothing about the origin of the code except the file itself.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use wasmtime::component::Component;
use wasmtime::{Engine, Module};

/// Is this file or folder ours alone to write: owned by the effective user, and writable by no
/// other?
///
/// # Errors
/// What `fstat` says.
pub fn is_private(file: &File) -> io::Result<bool> {
    let found = file.metadata()?;
    Ok(found.uid() == nix::unistd::geteuid().as_raw() && found.mode() & 0o022 == 0)
}

/// The core module in a file of the compilation cache. The file must be one that [`is_private`] and
/// whose seal the caller has verified.
///
/// # Errors
/// The file was compiled by another version or with other settings, or does not fit
/// the engine's pool.
pub fn map_module(engine: &Engine, file: File) -> wasmtime::Result<Module> {
    ours(&file)?;
    // SAFETY: machine code is executed as it stands in the file, so the question is who
    // could have written it. The descriptor refers to a file of our own user which nobody
    // else may write (checked on this very descriptor, so there is no gap between check
    // and use), in a folder of mode 0700. Files there are named by the hash of the source
    // and of the engine's settings, written by `wasm::compile` under another name, then
    // renamed, and never written again: the mapping cannot change under us. The caller
    // has compared the file's SHA-256 seal, so a disk's damage is noticed before this.
    // Whoever can forge such a file runs as our user already.
    unsafe { Module::deserialize_open_file(engine, file) }
}

/// The component in a file of the compilation cache, under the conditions of [`map_module`].
///
/// # Errors
/// As [`map_module`].
pub fn map_component(engine: &Engine, bytes: &File) -> wasmtime::Result<Component> {
    ours(bytes)?;
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(bytes));
    // SAFETY: as in `map_module`; the path names the descriptor that was checked.
    unsafe { Component::deserialize_file(engine, path) }
}

fn ours(file: &File) -> wasmtime::Result<()> {
    if is_private(file)? {
        return Ok(());
    }
    Err(wasmtime::Error::msg("the file belongs to another user, or others may write it"))
}
