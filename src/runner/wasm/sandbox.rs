//! The world as a WASI guest sees it: its arguments, its environment, its folders, a
//! document on standard input, two streams to write to. Nothing else of the host.

use super::watch::State;
use crate::runner::capture::Tail;
use crate::runner::{Attempt, Captured};
use crate::task::{Stdin, Task};
use crate::wire::Exception;
use crate::{bounds, clock};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, PoisonError};
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::p2::pipe::MemoryInputPipe;
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};
use wasmtime_wasi::{FsPerms, ResourceTable, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};
use wasmtime_wasi_io::async_trait;
use wasmtime_wasi_io::bytes::Bytes;

/// What a core module's WASI functions work with.
pub type Preview1 = WasiP1Ctx;

/// What a component's WASI functions work with.
pub struct Preview2 {
    wasi: WasiCtx,
    table: ResourceTable,
}

impl WasiView for State<Preview2> {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi.wasi, table: &mut self.wasi.table }
    }
}

/// Files, folders, streams and timers that a guest may hold open unless the task's
/// `open_files` says else. They are descriptors of the worker, of which it often has but a
/// thousand for all attempts; a program past the bound traps.
const HANDLES_MAX: usize = 128;

/// A sandbox before it is entered, and the streams that outlive it.
pub struct Sandbox {
    builder: WasiCtxBuilder,
    handles_max: usize,
    stdout: Sink,
    stderr: Sink,
}

impl Sandbox {
    /// The sandbox of an attempt.
    ///
    /// # Errors
    /// A folder of `dirs` cannot be opened; an argument or a variable contains a NUL.
    pub fn new(attempt: &Attempt) -> Result<Sandbox, Exception> {
        Sandbox::with(attempt, sink(attempt), sink(attempt))
    }

    /// The same with both streams in `stderr`, for a function whose result is not what it
    /// prints.
    ///
    /// # Errors
    /// As [`Sandbox::new`].
    pub fn quiet(attempt: &Attempt) -> Result<Sandbox, Exception> {
        let both = sink(attempt);
        Sandbox::with(attempt, both.clone(), both)
    }

    fn with(attempt: &Attempt, stdout: Sink, stderr: Sink) -> Result<Sandbox, Exception> {
        let mut builder = WasiCtxBuilder::new();
        builder.stdout(stdout.clone()).stderr(stderr.clone());
        // Everything that opens sockets is linked, so that modules which import it without
        // need can run, and refuses.
        builder.allow_tcp(false).allow_udp(false).allow_ip_name_lookup(false);
        for argument in argv(attempt) {
            builder.arg(checked(argument)?);
        }
        for (name, value) in environment(attempt) {
            builder.env(checked(name)?, checked(value)?);
        }
        if attempt.task.stdin == Stdin::Json {
            builder.stdin(MemoryInputPipe::new(document(attempt)));
        }
        open_dirs(&mut builder, &attempt.task)?;
        let handles_max = attempt
            .task
            .fences
            .open_files
            .map_or(HANDLES_MAX, |files| usize::try_from(files).unwrap_or(usize::MAX));
        Ok(Sandbox { builder, handles_max, stdout, stderr })
    }

    /// For a core module.
    pub fn preview1(&mut self) -> Preview1 {
        let mut wasi = self.builder.build_p1();
        wasi.ctx().table.set_max_capacity(self.handles_max);
        wasi
    }

    /// For a component.
    pub fn preview2(&mut self) -> Preview2 {
        let mut table = ResourceTable::new();
        table.set_max_capacity(self.handles_max);
        Preview2 { wasi: self.builder.build(), table }
    }

    /// What was written to standard output and standard error.
    pub fn outputs(&self) -> (Captured, Captured) {
        let stderr = self.stderr.take();
        (self.stdout.take(), stderr)
    }
}

fn sink(attempt: &Attempt) -> Sink {
    let max = attempt.task.max_output.unwrap_or(bounds::OUTPUT_MAX);
    Sink::new(max)
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

/// Arguments are C strings in the guest: what follows a NUL would vanish unseen.
fn checked(text: String) -> Result<String, Exception> {
    if !text.contains('\0') {
        return Ok(text);
    }
    Err(Exception::new("builtins", "ValueError", "embedded null byte in an argument"))
}

/// The task's name, then the bound parameters in their order, or the positional arguments.
fn argv(attempt: &Attempt) -> Vec<String> {
    let mut argv = vec![attempt.task.name.clone()];
    argv.extend(positional(attempt).map(|(_, value)| text(value)));
    argv
}

/// Bound parameters with their names, or positional arguments without.
pub fn positional(attempt: &Attempt) -> impl Iterator<Item = (Option<&str>, &RawValue)> {
    let bound = attempt.bound.iter().map(|(name, value)| (Some(name.as_str()), &**value));
    let args = attempt.args.iter().map(|value| (None, &**value));
    // Only one of them has elements to give.
    let has_params = attempt.task.params.is_some();
    bound.filter(move |_| has_params).chain(args.filter(move |_| !has_params))
}

/// The task's `env`, `ARG_<name>` of each named argument, and what is known of the attempt.
fn environment(attempt: &Attempt) -> Vec<(String, String)> {
    let mut all = attempt.task.env.clone();
    let named = if attempt.task.params.is_some() { &attempt.bound } else { &attempt.kwargs };
    all.extend(named.iter().map(|(name, value)| (format!("ARG_{name}"), text(value))));
    let mut tell = |name: &str, value: String| all.push((format!("QWORKER_TASK_{name}"), value));
    tell("ID", attempt.id.clone());
    tell("NAME", attempt.task.name.clone());
    tell("ROOT_ID", attempt.root_id.clone());
    tell("PARENT_ID", attempt.parent_id.clone());
    tell("RETRIES", attempt.retries.to_string());
    tell("HOSTNAME", attempt.hostname.clone());
    tell("QUEUE", attempt.queue.clone());
    let limits = [attempt.soft_time_limit, attempt.time_limit];
    if let Some(limit) = limits.into_iter().flatten().min() {
        let at = clock::epoch(clock::now()) + limit.as_secs_f64();
        tell("DEADLINE", format!("{at:.3}"));
    }
    all
}

/// The document on standard input.
fn document(attempt: &Attempt) -> String {
    let request = json!({
        "id": attempt.id,
        "task": attempt.task.name,
        "root_id": attempt.root_id,
        "parent_id": attempt.parent_id,
        "retries": attempt.retries,
        "hostname": attempt.hostname,
        "queue": attempt.queue,
    });
    let args: Vec<&str> = attempt.args.iter().map(|raw| raw.get()).collect();
    let pair = |(name, raw): &(String, Box<RawValue>)| format!("{}:{}", json!(name), raw.get());
    let kwargs: Vec<String> = attempt.kwargs.iter().map(pair).collect();
    // The values are put in as they came: parsing them could change large numbers.
    let (args, kwargs) = (args.join(","), kwargs.join(","));
    format!("{{\"args\":[{args}],\"kwargs\":{{{kwargs}}},\"request\":{request}}}")
}

/// A value as a program gets it: a string's characters, kombu's bytes as text, else JSON.
pub fn text(raw: &RawValue) -> String {
    let json = raw.get();
    if !json.starts_with(['"', '{']) {
        return json.into();
    }
    match serde_json::from_str(json) {
        Ok(Value::String(text)) => text,
        Ok(Value::Object(object)) => bytes(&object).unwrap_or_else(|| json.into()),
        _ => json.into(),
    }
}

/// kombu writes bytes as `{"__type__": "bytes", "__value__": TEXT}` if they are UTF-8, else
/// with type `base64`.
fn bytes(object: &serde_json::Map<String, Value>) -> Option<String> {
    let value = object.get("__value__")?.as_str()?;
    match object.get("__type__")?.as_str()? {
        "bytes" => Some(value.into()),
        "base64" => {
            let bytes = STANDARD.decode(value).ok()?;
            Some(String::from_utf8_lossy(&bytes).into_owned())
        }
        _ => None,
    }
}

/// A stream that takes whatever is written, at once, and keeps the end of it.
#[derive(Debug, Clone)]
pub struct Sink(Arc<Mutex<Tail>>, u64);

/// Bytes that a guest may hand over at once; the host allocates that much for it.
const WRITE_MAX: usize = 64 * 1024;

impl Sink {
    fn new(max: u64) -> Sink {
        Sink(Arc::new(Mutex::new(Tail::new(max))), max)
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

impl IsTerminal for Sink {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Sink {
    fn async_stream(&self) -> Box<dyn tokio::io::AsyncWrite + Send + Sync> {
        // Preview 3 would ask for it; it is not linked.
        Box::new(tokio::io::sink())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[async_trait]
impl Pollable for Sink {
    async fn ready(&mut self) {}
}

impl OutputStream for Sink {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_as_text() {
        let cases = [
            (r#""a\nb\u00e9""#, "a\nbé"),
            ("12345678901234567890.10", "12345678901234567890.10"),
            (r#"{"a": 1}"#, r#"{"a": 1}"#),
            (r#"{"__type__": "bytes", "__value__": "raw"}"#, "raw"),
            (r#"{"__type__": "base64", "__value__": "aGn/"}"#, "hi\u{fffd}"),
            ("null", "null"),
        ];
        for (json, expected) in cases {
            let raw = RawValue::from_string(json.into()).unwrap();
            assert_eq!(text(&raw), expected);
        }
    }
}
