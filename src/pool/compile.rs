//! Compiles WASM modules in processes of their own: a module that takes forever or all memory costs
//! its task, not the worker.

use crate::os::{says_passing, says_shortage};
use crate::runner::shell::{Shell, StopTimes, command::ProcessCommand};
use crate::runner::wasm::{Prepared, Runtime};
use crate::runner::{Attempt, CancelReason, Ending, Outcome};
use crate::task::ResourceLimits;
use crate::wire::Exception;
use nix::sys::signal::Signal;
use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{CStr, CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::{Mutex, oneshot};

/// Address space of the compiler in bytes: a language runtime of 50 MB takes about a third of it.
const MEMORY_MAX: u64 = 6 * 1024 * 1024 * 1024;

/// How the compiler reports that it got no more memory.
const OUT_OF_MEMORY: &str = "(os error 12)";

/// Bytes kept of the compiler's output.
const OUTPUT_MAX: u64 = 16 * 1024;

/// See the module.
pub(super) struct Compiler {
    shell: Rc<Shell>,
    runtime: Runtime,
    /// One compilation of a module at a time; the others wait for it.
    locks: RefCell<HashMap<PathBuf, Rc<Mutex<()>>>>,
}

impl Compiler {
    pub(super) fn new(shell: Rc<Shell>, runtime: Runtime) -> Compiler {
        Compiler { shell, runtime, locks: RefCell::default() }
    }

    /// Compiles the module of `attempt` into `target`, unless another attempt has done so
    /// meanwhile.
    ///
    /// # Errors
    ///
    /// How the attempt ended: stopped, or refused because the module is invalid or takes longer
    /// than `wasm_compile_timeout`. The task's own time limits start with its program: else a
    /// module that compiles for longer than the task may run would be started with each call and
    /// never finished.
    pub(super) async fn compile(
        &self,
        attempt: &Attempt,
        target: PathBuf,
        stopped: oneshot::Receiver<CancelReason>,
    ) -> Result<(), Box<Outcome>> {
        let began = Instant::now();
        let lock = self.locks.borrow_mut().entry(target).or_default().clone();
        let stop = async {
            match stopped.await {
                Ok(why) => why,
                // A dropped handle means "nobody will stop it".
                Err(_) => std::future::pending().await,
            }
        };
        tokio::pin!(stop);
        let work = async {
            let _turn = lock.lock().await;
            self.run(attempt).await
        };
        let ended = tokio::select! {
            done = work => return done,
            why = &mut stop => Outcome::immediate(Ending::Cancelled(why)),
        };
        Err(Box::new(Outcome { started: began, runtime: began.elapsed(), ..ended }))
    }

    async fn run(&self, attempt: &Attempt) -> Result<(), Box<Outcome>> {
        let refused = |exception| Box::new(Outcome::immediate(Ending::refused(exception)));
        let (source, target) = match self.runtime.prepare(&attempt.task) {
            Prepared::Ready => return Ok(()),
            Prepared::Refused(exception) => return Err(refused(exception)),
            Prepared::Compile { source, target } => (source, target),
        };
        let limit = self.runtime.compile_timeout();
        let limits = StopTimes { soft: None, hard: Some(limit) };
        // Dropping this future kills the compiler.
        let command = command(&source, &target, self.shell.env());
        let outcome = self.shell.run_command(command, limits, std::future::pending()).await;
        let killed = Ending::Signaled(Signal::SIGKILL as i32);
        if outcome.limit.is_none() && outcome.ending == killed {
            // Somebody killed it, which is not the module's fault: the task is redelivered, and
            // counted.
            return Err(Box::new(outcome));
        }
        if matches!(outcome.ending, Ending::NoCapacity(_) | Ending::Unavailable(_)) {
            return Err(Box::new(outcome));
        }
        let said = String::from_utf8_lossy(&outcome.stderr.bytes).trim().to_string();
        let why = match (&outcome.ending, outcome.limit) {
            (Ending::Exited(0), _) => match self.runtime.prepare(&attempt.task) {
                Prepared::Ready => return Ok(()),
                Prepared::Refused(exception) => return Err(refused(exception)),
                Prepared::Compile { .. } => "the module changed while it was compiled".to_string(),
            },
            (_, Some(_)) => format!(
                "compiling took longer than wasm_compile_timeout, {:.0}s",
                limit.as_secs_f64()
            ),
            (Ending::Signaled(signal), _) => {
                format!("the compiler died by signal {signal}: {said}")
            }
            (Ending::Refused(exception), _) => format!("{:?}", exception.exc_message),
            _ => said,
        };
        let text = format!("{}: {why}", source.display());
        // Its memory is limited: that it gets no more is the module's fault.
        if says_shortage(&text) && !text.contains(OUT_OF_MEMORY) {
            return Err(Box::new(Outcome::immediate(Ending::NoCapacity(text))));
        }
        if says_passing(&text) {
            return Err(Box::new(Outcome::immediate(Ending::Unavailable(text))));
        }
        let exception = Exception::new("qworker.wasm", "CompileError", text);
        self.runtime.refuse(&attempt.task, exception.clone());
        Err(Box::new(Outcome::immediate(Ending::Refused(exception))))
    }
}

fn command(source: &Path, target: &Path, env: &[Arc<CStr>]) -> ProcessCommand {
    // The running program itself, even if its file was replaced meanwhile.
    let words = [
        OsStr::new("/proc/self/exe"),
        OsStr::new("compile"),
        source.as_os_str(),
        target.as_os_str(),
    ];
    // Paths that exist have no NUL in them.
    let argv = words.iter().filter_map(|word| CString::new(word.as_bytes()).ok()).collect();
    ProcessCommand {
        argv,
        env: env.to_vec(),
        cwd: PathBuf::from("/"),
        stdin: None,
        resource_limits: ResourceLimits { memory: Some(MEMORY_MAX), ..ResourceLimits::default() },
        nice: Some(5),
        ids: None,
        max_output: OUTPUT_MAX,
    }
}
