//! The cache of loaded modules, by path. A replaced file is noticed; attempts that run on the old
//! module keep it until they end. Compiled modules on disk are in `disk_cache.rs`.

use super::Prepared;
use super::disk_cache;
use super::engine::{self, Pair};
use super::module::LoadedModule;
use crate::os::wasm::{map_component, map_module};
use crate::runner::Ending;
use crate::wire::Exception;
use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::iter;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};
use wasmtime::{Engine, Precompiled};

/// How long a loaded module is used without checking its file. A check takes about two
/// microseconds, as long as a short attempt.
const TRUSTED_FOR: Duration = Duration::from_millis(500);

/// The modules of one kind of metering.
pub(super) struct ModuleCache {
    pairs: Arc<[Pair; 2]>,
    index: usize,
    folder: PathBuf,
    born: Instant,
    fingerprint: OnceLock<String>,
    /// By the bytes of paths: those of a path by its parts take ten times as long to hash.
    entries: RwLock<HashMap<OsString, Arc<Entry>>>,
    /// Held while a module is loaded, so that two attempts do not load it twice.
    loading: Mutex<()>,
}

/// What is known about one path.
struct Entry {
    stamp: Stamp,
    /// When the file was last checked, in milliseconds since the cache was created.
    seen: AtomicU64,
    /// SHA-256 of the content, to look for its cache file without reading it again.
    digest: String,
    found: CacheLookup,
}

enum CacheLookup {
    Loaded(Arc<LoadedModule>),
    Refused(Exception),
    /// It has to be compiled; the previous module is used until then.
    Uncompiled(Option<Arc<LoadedModule>>),
}

/// Tells a file from one that replaced it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: Option<SystemTime>,
    /// Status change time in seconds and nanoseconds: nobody can set it back.
    changed: (i64, i64),
}

impl Stamp {
    fn of(path: &Path) -> io::Result<Stamp> {
        let found = fs::metadata(path)?;
        Ok(Stamp {
            device: found.dev(),
            inode: found.ino(),
            size: found.len(),
            modified: found.modified().ok(),
            changed: (found.ctime(), found.ctime_nsec()),
        })
    }
}

impl ModuleCache {
    /// An empty cache for the pair of engines at `index`, with compiled modules in `folder`.
    pub(super) fn new(pairs: Arc<[Pair; 2]>, index: usize, folder: PathBuf) -> ModuleCache {
        ModuleCache {
            pairs,
            index,
            folder,
            born: Instant::now(),
            fingerprint: OnceLock::new(),
            entries: RwLock::default(),
            loading: Mutex::default(),
        }
    }

    /// The module at a path, as it is now.
    ///
    /// # Errors
    /// What has to be done first, or why it cannot be loaded.
    pub(super) fn look(&self, path: &Path) -> Result<Arc<LoadedModule>, Prepared> {
        let known = self.entry(path);
        if let Some(entry) = &known
            && let CacheLookup::Loaded(loaded) = &entry.found
            && self.now_ms() < entry.seen.load(Ordering::Relaxed) + TRUSTED_FOR.as_millis() as u64
        {
            return Ok(loaded.clone());
        }
        let _alone = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = Stamp::of(path).map_err(|why| unreadable(path, &why))?;
        // Another thread may have loaded it while this one waited.
        let known = self.entry(path).filter(|entry| entry.stamp == stamp);
        if let Some(entry) = &known {
            entry.seen.store(self.now_ms(), Ordering::Relaxed);
            match &entry.found {
                CacheLookup::Loaded(loaded) => return Ok(loaded.clone()),
                CacheLookup::Refused(exception) => {
                    return Err(Prepared::Refused(exception.clone()));
                }
                CacheLookup::Uncompiled(_) => {}
            }
        }
        let asked = known.is_some();
        let digest = match known {
            Some(entry) => entry.digest.clone(),
            None => disk_cache::digest(path).map_err(|why| unreadable(path, &why))?,
        };
        let target = self.target(&digest).map_err(Prepared::Refused)?;
        let (found, answer) = match self.load(&target) {
            Load::Done(loaded) => (CacheLookup::Loaded(loaded.clone()), Ok(loaded)),
            // The host lacks the resources now: nothing has changed.
            Load::Unfit(why) if is_of_host(&why) => return Err(Prepared::Refused(why)),
            // Compiled again and still unusable: not a third time.
            Load::Unfit(why) if asked => refused(why),
            Load::Refused(why) => refused(why),
            _ => {
                let source = path.to_path_buf();
                let before = self.loaded(path).ok();
                (CacheLookup::Uncompiled(before), Err(Prepared::Compile { source, target }))
            }
        };
        self.put(path, stamp, digest, found);
        answer
    }

    /// The module at a path, as of the last check. It runs while a replaced file is being compiled,
    /// and for attempts that were prepared before.
    ///
    /// # Errors
    /// It is not loaded.
    pub(super) fn loaded(&self, path: &Path) -> Result<Arc<LoadedModule>, Exception> {
        match self.entry(path).as_deref().map(|entry| &entry.found) {
            Some(CacheLookup::Loaded(loaded) | CacheLookup::Uncompiled(Some(loaded))) => {
                Ok(loaded.clone())
            }
            Some(CacheLookup::Refused(exception)) => Err(exception.clone()),
            Some(CacheLookup::Uncompiled(None)) | None => {
                let text = format!("{} is not compiled yet", path.display());
                Err(Exception::new("builtins", "RuntimeError", text))
            }
        }
    }

    /// Notes that a module cannot be compiled.
    pub(super) fn refuse(&self, path: &Path, exception: Exception) {
        let Some(entry) = self.entry(path) else { return };
        // Only if it is still the file that was tried.
        if Stamp::of(path).is_ok_and(|stamp| stamp == entry.stamp) {
            self.put(path, entry.stamp, entry.digest.clone(), CacheLookup::Refused(exception));
        }
    }

    fn entry(&self, path: &Path) -> Option<Arc<Entry>> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner).get(path.as_os_str()).cloned()
    }

    fn put(&self, path: &Path, stamp: Stamp, digest: String, found: CacheLookup) {
        let entry = Entry { stamp, seen: AtomicU64::new(self.now_ms()), digest, found };
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        entries.insert(path.into(), Arc::new(entry));
    }

    fn now_ms(&self) -> u64 {
        self.born.elapsed().as_millis() as u64
    }

    fn pair(&self) -> &Pair {
        &self.pairs[self.index]
    }

    /// The cache file of a digest.
    fn target(&self, digest: &str) -> Result<PathBuf, Exception> {
        let fingerprint = match self.fingerprint.get() {
            Some(fingerprint) => fingerprint,
            None => {
                // A folder that cannot be created now may be possible later.
                let failed = |text: String| Exception::new("builtins", "OSError", text);
                disk_cache::prepare_folder(&self.folder).map_err(failed)?;
                let pair = self.pair();
                // The pool is created first: both engines have the same fingerprint, and the other
                // one is rarely needed.
                let engine = pair.pooled().map_or_else(|| pair.on_demand(), Ok).map_err(failed)?;
                self.fingerprint.get_or_init(|| engine::fingerprint(engine))
            }
        };
        Ok(disk_cache::target(&self.folder, digest, fingerprint, self.pair().metering()))
    }

    /// Loads a cache file: into the pool, or if it does not fit, into the other engine.
    fn load(&self, target: &Path) -> Load {
        // The second one is created only if the first one does not take a module.
        let pooled = self.pair().pooled().into_iter();
        let engines = pooled.chain(iter::once_with(|| self.pair().on_demand().ok()).flatten());
        let mut unfit = Load::Absent;
        for engine in engines {
            let Some(file) = disk_cache::open(target) else { return Load::Absent };
            match link(engine, target, file) {
                Ok(Ok(loaded)) => return Load::Done(Arc::new(loaded)),
                Ok(Err(exception)) => return Load::Refused(exception),
                Err(why) => {
                    let text = format!("the compiled module cannot be loaded: {why:#}");
                    unfit = Load::Unfit(Exception::new("builtins", "RuntimeError", text));
                }
            }
        }
        if !matches!(&unfit, Load::Unfit(why) if is_of_host(why)) {
            disk_cache::discard(target);
        }
        unfit
    }
}

/// The result of loading a cache file.
enum Load {
    Done(Arc<LoadedModule>),
    /// It imports what does not exist.
    Refused(Exception),
    /// Intact, but no engine takes it.
    Unfit(Exception),
    /// There is none, or it was damaged.
    Absent,
}

fn link(
    engine: &Engine,
    target: &Path,
    file: File,
) -> wasmtime::Result<Result<LoadedModule, Exception>> {
    match Engine::detect_precompiled_file(target)? {
        Some(Precompiled::Module) => Ok(LoadedModule::core(map_module(engine, file)?)),
        Some(Precompiled::Component) => Ok(LoadedModule::component(&map_component(engine, &file)?)),
        None => Err(wasmtime::Error::msg("not a compiled module")),
    }
}

fn is_of_host(why: &Exception) -> bool {
    matches!(Ending::refused(why.clone()), Ending::NoCapacity(_) | Ending::Unavailable(_))
}

fn refused(why: Exception) -> (CacheLookup, Result<Arc<LoadedModule>, Prepared>) {
    (CacheLookup::Refused(why.clone()), Err(Prepared::Refused(why)))
}

fn unreadable(path: &Path, why: &io::Error) -> Prepared {
    let class = match why.kind() {
        io::ErrorKind::NotFound => "FileNotFoundError",
        io::ErrorKind::PermissionDenied => "PermissionError",
        _ => "OSError",
    };
    let text = format!("cannot read the module {}: {why}", path.display());
    Prepared::Refused(Exception::new("builtins", class, text))
}
