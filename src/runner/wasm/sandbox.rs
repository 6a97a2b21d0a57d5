//! What a WASI guest sees: its arguments, its environment, its folders, a document on standard
//! input, two output streams. Nothing else of the host.

use super::monitor::StoreData;
use crate::clock;
use crate::runner::capture::Tail;
use crate::runner::context::{self, AttemptArguments, Deadline};
use crate::runner::{Attempt, Captured};
use crate::task::{Stdin, Task};
use crate::wire::Exception;
use std::sync::{Arc, Mutex, PoisonError};
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::p2::pipe::MemoryInputPipe;
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};
use wasmtime_wasi::{FsPerms, ResourceTable, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};
use wasmtime_wasi_io::async_trait;
use wasmtime_wasi_io::bytes::Bytes;

/// What a core module's WASI functions work with.
pub(super) type Preview1 = WasiP1Ctx;

/// What a component's WASI functions work with.
pub(super) struct Preview2 {
    wasi: WasiCtx,
    table: ResourceTable,
}

impl WasiView for StoreData<Preview2> {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi.wasi, table: &mut self.wasi.table }
    }
}

/// Files, folders, streams and timers that a guest may have open unless the task sets its own
/// `open_files`. They are descriptors of the worker, which often has only a thousand for all
/// attempts; a guest that exceeds the limit traps.
const HANDLES_MAX: usize = 128;

/// A sandbox before it is entered, and the streams that outlive it.
pub(super) struct Sandbox {
    builder: WasiCtxBuilder,
    handles_max: usize,
    stdout: CapturedStream,
    stderr: CapturedStream,
}

impl Sandbox {
    /// The sandbox of an attempt.
    ///
    /// # Errors
    /// A folder of `dirs` cannot be opened; an argument or a variable contains a NUL.
    pub(super) fn new(attempt: &Attempt) -> Result<Sandbox, Exception> {
        Sandbox::with(attempt, sink(attempt), sink(attempt))
    }

    /// The same with both streams in `stderr`, for a function whose result is not its output.
    ///
    /// # Errors
    /// As [`Sandbox::new`].
    pub(super) fn quiet(attempt: &Attempt) -> Result<Sandbox, Exception> {
        let both = sink(attempt);
        Sandbox::with(attempt, both.clone(), both)
    }

    fn with(
        attempt: &Attempt,
        stdout: CapturedStream,
        stderr: CapturedStream,
    ) -> Result<Sandbox, Exception> {
        let mut builder = WasiCtxBuilder::new();
        builder.stdout(stdout.clone()).stderr(stderr.clone());
        // Functions that open sockets are linked, so that modules which import them without using
        // them can run; they refuse.
        builder.allow_tcp(false).allow_udp(false).allow_ip_name_lookup(false);
        let arguments = AttemptArguments::without_nul(attempt)?;
        builder.arg(&attempt.task.name);
        for argument in arguments.positional() {
            builder.arg(text(&argument.text));
        }
        let deadline = Deadline::of(attempt, clock::epoch(clock::now()));
        for (name, value) in context::environment(attempt, &arguments, deadline, None) {
            for part in [name.as_bytes(), value.as_slice()] {
                context::refuse_nul(part, &format!("the variable {name}"))?;
            }
            builder.env(name, text(&value));
        }
        if attempt.task.stdin == Stdin::Json {
            builder.stdin(MemoryInputPipe::new(context::document(attempt, deadline)));
        }
        open_dirs(&mut builder, &attempt.task)?;
        let handles_max = attempt
            .task
            .resource_limits
            .open_files
            .map_or(HANDLES_MAX, |files| usize::try_from(files).unwrap_or(usize::MAX));
        Ok(Sandbox { builder, handles_max, stdout, stderr })
    }

    /// For a core module.
    pub(super) fn preview1(&mut self) -> Preview1 {
        let mut wasi = self.builder.build_p1();
        wasi.ctx().table.set_max_capacity(self.handles_max);
        wasi
    }

    /// For a component.
    pub(super) fn preview2(&mut self) -> Preview2 {
        let mut table = ResourceTable::new();
        table.set_max_capacity(self.handles_max);
        Preview2 { wasi: self.builder.build(), table }
    }

    /// What was written to standard output and standard error.
    pub(super) fn outputs(&self) -> (Captured, Captured) {
        let stderr = self.stderr.take();
        (self.stdout.take(), stderr)
    }
}

fn sink(attempt: &Attempt) -> CapturedStream {
    CapturedStream::new(context::max_output(&attempt.task))
}

fn open_dirs(builder: &mut WasiCtxBuilder, task: &Task) -> Result<(), Exception> {
    for dir in &task.dirs {
        let permissions = if dir.writable { FsPerms::ReadWrite } else { FsPerms::ReadOnly };
        let shown = dir.host.display();
        if !dir.host.exists() {
            let text = format!("the folder {shown} of `dirs` does not exist");
            return Err(Exception::new("builtins", "FileNotFoundError", text));
        }
        builder.preopened_dir(&dir.host, &dir.guest, permissions).map_err(|why| {
            let text = format!("cannot open the folder {shown} of `dirs`: {why:#}");
            Exception::new("builtins", "OSError", text)
        })?;
    }
    Ok(())
}

/// Bytes as the text that a module can be given.
pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A stream that accepts all output at once, and keeps its end.
#[derive(Debug, Clone)]
pub(super) struct CapturedStream(Arc<Mutex<Tail>>, u64);

/// Bytes that a guest may write at once; the host allocates that much for it.
const WRITE_MAX: usize = 64 * 1024;

impl CapturedStream {
    fn new(max: u64) -> CapturedStream {
        CapturedStream(Arc::new(Mutex::new(Tail::new(max))), max)
    }

    fn push(&self, bytes: &[u8]) {
        // The lock is never contended: one guest, one thread.
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(bytes);
    }

    fn take(&self) -> Captured {
        let mut tail = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *tail, Tail::new(self.1)).finish()
    }
}

impl IsTerminal for CapturedStream {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for CapturedStream {
    fn async_stream(&self) -> Box<dyn tokio::io::AsyncWrite + Send + Sync> {
        // Preview 3 would ask for it; it is not linked.
        Box::new(tokio::io::sink())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[async_trait]
impl Pollable for CapturedStream {
    async fn ready(&mut self) {}
}

impl OutputStream for CapturedStream {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.push(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE_MAX)
    }
}
