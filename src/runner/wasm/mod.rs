//! Runs WASM tasks: a fresh instance for each attempt, in this process, limited in time and
//! memory. Nothing of Wasmtime exists until a WASM task first needs it.
//!
//! Compiling is not done here: [`Runtime::prepare`] says when it is due, the caller starts
//! `qworker compile`, a process of its own, and asks again. [`compile`] is what that
//! process does.

mod command;
mod component;
mod disk_cache;
mod driver;
mod engine;
mod finished;
mod function;
mod host;
mod module;
mod module_cache;
mod monitor;
mod number;
mod sandbox;
#[cfg(test)]
mod tests;
mod ticker;
mod trap;

pub use disk_cache::{compile, validate};

use super::{Attempt, Cancel, Outcome};
use crate::os::reap::time_of_thread;
use crate::task::{Program, Task};
use crate::wire::Exception;
use engine::{Metering, Pair};
use finished::Finished;
use module::LoadedModule;
use module_cache::ModuleCache;
use monitor::Monitor;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use ticker::Ticker;

/// What a runtime is made with.
#[derive(Debug, Clone)]
pub struct Config {
    /// Folder of compiled modules; made when first needed, mode 0700.
    pub cache_dir: PathBuf,
    /// How many attempts run at once.
    pub slots: usize,
    /// Bytes of linear memory of a task that does not say.
    pub default_memory: u64,
    /// How long a compilation may take; enforced by the caller.
    pub compile_timeout: Duration,
}

/// The WASM runner. Clones share everything.
#[derive(Clone)]
pub struct Runtime(Arc<Inner>);

struct Inner {
    config: Config,
    ticker: Ticker,
    free: ModuleCache,
    fuel: ModuleCache,
}

/// Can an attempt at a task begin?
#[derive(Debug, Clone, PartialEq)]
pub enum Prepared {
    /// Yes.
    Ready,
    /// Not before `qworker compile SOURCE TARGET` has succeeded; then ask again.
    Compile {
        /// The module of the task.
        source: PathBuf,
        /// The cache file to make of it.
        target: PathBuf,
    },
    /// No.
    Refused(Exception),
}

impl Runtime {
    /// A runtime that has not started anything.
    pub fn new(config: Config) -> Runtime {
        let pairs = Arc::new([
            Pair::new(Metering::Free, config.slots),
            Pair::new(Metering::Fuel, config.slots),
        ]);
        let modules = |index| ModuleCache::new(pairs.clone(), index, config.cache_dir.clone());
        let (free, fuel) = (modules(0), modules(1));
        Runtime(Arc::new(Inner { ticker: Ticker::new(pairs), free, fuel, config }))
    }

    /// Looks whether the module of a task is loaded, and loads it from the cache if it can.
    ///
    /// About 0.2 µs when warm; the file is looked at every half a second (2 µs). Cold, it
    /// reads and hashes the module and its compiled form (some 80 ms for 26 MB), so call it
    /// where that does no harm.
    pub fn prepare(&self, task: &Task) -> Prepared {
        match self.0.find(task) {
            Err(exception) => Prepared::Refused(exception),
            Ok((path, export)) => match self.0.modules(task).look(path) {
                Ok(loaded) => match loaded.admits(export) {
                    Ok(()) => Prepared::Ready,
                    Err(exception) => Prepared::Refused(exception),
                },
                Err(prepared) => prepared,
            },
        }
    }

    /// Notes that the module of a task does not compile: it is refused with `exception`,
    /// and not compiled again, until its file changes.
    pub fn refuse(&self, task: &Task, exception: Exception) {
        if let Ok((path, _)) = self.0.find(task) {
            self.0.modules(task).refuse(path, exception);
        }
    }

    /// How long a compilation may take.
    pub fn compile_timeout(&self) -> Duration {
        self.0.config.compile_timeout
    }

    /// Runs one attempt, prepared before, to its end. Blocks; call it on a thread of its
    /// own with a stack of 2 MiB or more, outside of any tokio runtime, for as many
    /// attempts at once as there are slots. `cancel` ends it within some 20 ms.
    pub fn run(&self, attempt: &Attempt, cancel: Cancel) -> Outcome {
        let (started, before) = (Instant::now(), time_of_thread());
        let finished = self.0.run(attempt, started, cancel).unwrap_or_else(Finished::refused);
        finished.outcome(started, before)
    }
}

impl Inner {
    fn run(
        &self,
        attempt: &Attempt,
        started: Instant,
        cancel: Cancel,
    ) -> Result<Finished, Exception> {
        let (path, export) = self.find(&attempt.task)?;
        let loaded = self.modules(&attempt.task).loaded(path)?;
        let memory = attempt.task.resource_limits.memory.unwrap_or(self.config.default_memory);
        fits(&loaded, memory)?;
        let _in_flight = self.ticker.enter().map_err(|why| {
            let text = format!("cannot start the thread that keeps limits: {why}");
            Exception::new("builtins", "RuntimeError", text)
        })?;
        let monitor = Monitor::new(attempt, started, memory, cancel);
        match (&*loaded, export) {
            (LoadedModule::Core(core), Some(name)) => function::call(core, name, attempt, monitor),
            (LoadedModule::Core(core), None) => command::core(core, attempt, monitor),
            (LoadedModule::Component(composed), Some(name)) => {
                component::call(composed, name, attempt, monitor)
            }
            (LoadedModule::Component(composed), None) => {
                command::component(composed, attempt, monitor)
            }
        }
    }

    fn find<'a>(&self, task: &'a Task) -> Result<(&'a Path, Option<&'a str>), Exception> {
        match &task.program {
            Program::Wasm { module, export } => Ok((module, export.as_deref())),
            _ => Err(Exception::new("builtins", "TypeError", "not a WASM task")),
        }
    }

    fn modules(&self, task: &Task) -> &ModuleCache {
        match Metering::of(task.fuel) {
            Metering::Free => &self.free,
            Metering::Fuel => &self.fuel,
        }
    }
}

/// A module that begins with more memory than it may have is told apart from one that
/// comes to need it.
fn fits(loaded: &LoadedModule, memory: u64) -> Result<(), Exception> {
    match loaded {
        LoadedModule::Core(core) if core.memory_minimum > memory => Err(trap::memory(format!(
            "the module needs {} bytes of memory to begin with, the task may have {memory}",
            core.memory_minimum
        ))),
        _ => Ok(()),
    }
}
