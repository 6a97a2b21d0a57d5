//! Compiled modules on disk. A file's name says what it was compiled from and for:
//! the SHA-256 of the source, the engine's fingerprint, and whether fuel is counted.
//! Files are written under another name, renamed, and never written again; each ends with
//! a seal over its bytes, so what a disk or a crash has damaged is compiled anew.

use super::engine::{self, Metering};
use super::module::LoadedModule;
use crate::os::wasm::is_private;
use sha2::{Digest, Sha256};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use wasmtime::{Module, component::Component};

/// Ends every cache file, before the 32 bytes of the hash.
const SEAL: &[u8; 8] = b"qwseal01";

/// Length of the seal with its hash, in bytes.
const SEAL_BYTES: u64 = 8 + 32;

/// Files kept in the cache, the longest unused removed first. Each version of each module
/// makes one, of about three times its size.
const FILES_MAX: usize = 64;

/// Bytes of the largest source read: Wasmtime itself would refuse functions of such size,
/// and the whole is held in memory.
const SOURCE_MAX: u64 = 1024 * 1024 * 1024;

/// The largest piece read at a time, in bytes.
const CHUNK: usize = 64 * 1024;

/// Extension of an unmetered cache file.
const FREE: &str = ".cwasm";

/// Extension of a cache file whose code counts fuel.
const FUEL: &str = ".fuel.cwasm";

/// SHA-256 of a file's content, in hexadecimal.
///
/// # Errors
/// It cannot be read.
pub(super) fn digest(source: &Path) -> io::Result<String> {
    let mut file = File::open(source)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    Ok(hex(&hash(&mut file, SOURCE_MAX)?))
}

/// The cache file of a source with this digest.
pub(super) fn target(
    folder: &Path,
    digest: &str,
    fingerprint: &str,
    metering: Metering,
) -> PathBuf {
    let extension = if metering == Metering::Fuel { FUEL } else { FREE };
    folder.join(format!("{digest}-{fingerprint}{extension}"))
}

/// Makes the cache folder, mode 0700, and checks that it is ours.
///
/// # Errors
/// A sentence: it cannot be made, or somebody else may write to it.
pub(super) fn prepare_folder(folder: &Path) -> Result<(), String> {
    let shown = folder.display();
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|why| format!("cannot create the cache folder {shown}: {why}"))?;
    match File::open(folder).and_then(|folder| is_private(&folder)) {
        Ok(true) => Ok(()),
        Ok(false) => Err(format!(
            "the cache folder {shown} belongs to another user, or others may write to it"
        )),
        Err(why) => Err(format!("cannot use the cache folder {shown}: {why}")),
    }
}

/// Compiles a module or component, `.wasm` or `.wat`, into the cache file `target`, whose
/// name [`target`] made. This is the work of `qworker compile SOURCE TARGET`, a process of
/// its own so that it can be killed and its memory bounded.
///
/// # Errors
/// A sentence: what is wrong with the module, or why the file could not be written.
pub fn compile(source: &Path, target: &Path) -> Result<(), String> {
    let name = target.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let metering = if name.ends_with(FUEL) { Metering::Fuel } else { Metering::Free };
    let bytes = read(source).map_err(|why| format!("cannot read {}: {why}", source.display()))?;
    if !name.starts_with(&hex(&Sha256::digest(&bytes))) {
        return Err(format!("{} has changed since its compilation began", source.display()));
    }
    let engine = engine::on_demand(metering).map_err(|why| format!("{why:#}"))?;
    let compiled = if is_component(&bytes) {
        engine.precompile_component(&bytes)
    } else {
        engine.precompile_module(&bytes)
    };
    let compiled = compiled.map_err(|why| format!("{why:#}"))?;
    let folder = target.parent().unwrap_or(Path::new("."));
    prepare_folder(folder)?;
    write(target, &compiled).map_err(|why| format!("cannot write {}: {why}", target.display()))?;
    prune(folder, target);
    Ok(())
}

/// Checks that a module can be run, and its function `export` if one is named, without keeping
/// anything of it.
///
/// # Errors
/// A sentence: what is wrong with it.
pub fn validate(source: &Path, export: Option<&str>) -> Result<(), String> {
    let bytes = read(source).map_err(|why| format!("cannot be read: {why}"))?;
    let engine = engine::on_demand(Metering::Free).map_err(|why| format!("{why:#}"))?;
    let loaded = if is_component(&bytes) {
        let component = Component::new(&engine, &bytes).map_err(|why| format!("{why:#}"))?;
        LoadedModule::component(&component)
    } else {
        LoadedModule::core(Module::new(&engine, &bytes).map_err(|why| format!("{why:#}"))?)
    };
    let fits = loaded.and_then(|loaded| loaded.admits(export));
    fits.map_err(|wrong| {
        wrong.exc_message.first().and_then(|text| text.as_str()).unwrap_or_default().to_string()
    })
}

/// Opens a cache file whose seal is intact, and notes that it was used. `None`: there is
/// none; a damaged one is removed, to be compiled again.
pub(super) fn open(target: &Path) -> Option<File> {
    let mut file = File::open(target).ok()?;
    match is_sealed(&mut file) {
        Ok(true) => {
            // Only the order of removal depends on it.
            let _ = file.set_modified(SystemTime::now());
            Some(file)
        }
        Ok(false) => {
            discard(target);
            None
        }
        Err(_) => None,
    }
}

/// Removes a cache file that turned out to be of no use.
pub(super) fn discard(target: &Path) {
    // If it stays, the next compilation replaces it.
    let _ = fs::remove_file(target);
}

fn read(source: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(source)?.take(SOURCE_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > SOURCE_MAX {
        return Err(io::Error::other("larger than 1 GiB"));
    }
    Ok(bytes)
}

fn write(target: &Path, compiled: &[u8]) -> io::Result<()> {
    let temporary = target.with_extension(format!("{}.tmp", std::process::id()));
    let written = || -> io::Result<()> {
        let mut open = OpenOptions::new();
        let mut file = open.write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(compiled)?;
        file.write_all(SEAL)?;
        file.write_all(&Sha256::digest(compiled))?;
        // Without this a power cut may leave an empty file of that name; the seal would
        // tell, at the price of a compilation.
        file.sync_all()?;
        fs::rename(&temporary, target)
    };
    written().inspect_err(|_| discard(&temporary))
}

fn is_sealed(file: &mut File) -> io::Result<bool> {
    let Some(body) = file.metadata()?.len().checked_sub(SEAL_BYTES) else { return Ok(false) };
    let found = hash(file, body)?;
    file.seek(io::SeekFrom::Start(body))?;
    let mut seal = [0; SEAL_BYTES as usize];
    file.read_exact(&mut seal)?;
    file.rewind()?;
    Ok(seal[..8] == *SEAL && seal[8..] == found)
}

/// SHA-256 of the first `limit` bytes.
fn hash(file: &mut File, limit: u64) -> io::Result<[u8; 32]> {
    let mut hasher = Sha256::new();
    let mut chunk = vec![0; CHUNK];
    let mut rest = file.take(limit);
    loop {
        match rest.read(&mut chunk) {
            Ok(0) => return Ok(hasher.finalize().into()),
            Ok(read) => hasher.update(&chunk[..read]),
            Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
            Err(why) => return Err(why),
        }
    }
}

/// Removes the longest unused files beyond [`FILES_MAX`], and temporary ones that a killed
/// compilation left. A file in use stays mapped; removing it costs a compilation at most.
fn prune(folder: &Path, keep: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let mut files = Vec::new();
    for entry in entries.flatten() {
        let path = entry.path();
        let Ok(used) = entry.metadata().and_then(|found| found.modified()) else { continue };
        let age = used.elapsed().unwrap_or_default();
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("tmp") if age > crate::bounds::WASM_COMPILE_TIMEOUT * 10 => discard(&path),
            Some("cwasm") if path != keep => files.push((age, path)),
            _ => {}
        }
    }
    files.sort();
    files.iter().skip(FILES_MAX - 1).for_each(|(_, path)| discard(path));
}

/// Component or core module? A binary says so in its header, a text in its first word.
fn is_component(bytes: &[u8]) -> bool {
    match bytes.strip_prefix(b"\0asm") {
        Some(header) => header.get(2..4) == Some(&[1, 0]),
        None => first_word(&String::from_utf8_lossy(bytes)) == "component",
    }
}

/// The word after the first parenthesis that is not in a comment.
fn first_word(text: &str) -> &str {
    let mut rest = text.trim_start();
    loop {
        rest = if let Some(comment) = rest.strip_prefix(";;") {
            comment.split_once('\n').map_or("", |(_, next)| next)
        } else if let Some(comment) = rest.strip_prefix("(;") {
            comment.split_once(";)").map_or("", |(_, next)| next)
        } else {
            let inside = rest.strip_prefix('(').unwrap_or(rest).trim_start();
            let end = inside.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(inside.len());
            return &inside[..end];
        };
        rest = rest.trim_start();
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_components_from_modules() {
        assert!(!is_component(b"\0asm\x01\0\0\0"));
        assert!(is_component(b"\0asm\x0d\0\x01\0"));
        assert!(is_component(b";; a (module\n (; and ;) ( component $c)"));
        assert!(!is_component(b"(module $component)"));
        assert!(!is_component(b""));
    }

    #[test]
    fn a_damaged_file_is_noticed_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("x.cwasm");
        write(&target, b"compiled").unwrap();
        assert!(open(&target).is_some());
        for damaged in [&b"compileX"[..], b"", b"qwseal01"] {
            write(&target, b"compiled").unwrap();
            let mut bytes = fs::read(&target).unwrap();
            bytes.truncate(damaged.len().max(30));
            bytes[..damaged.len()].copy_from_slice(damaged);
            fs::write(&target, bytes).unwrap();
            assert!(open(&target).is_none());
            assert!(!target.exists());
        }
    }

    #[test]
    fn a_folder_that_others_may_write_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(prepare_folder(folder.path()).unwrap_err().contains("others may write"));
        assert_eq!(prepare_folder(&folder.path().join("a/b")), Ok(()));
    }
}
