//! What Wasmtime reports when an attempt did not end well, as the ending of a task.

use super::monitor::{Monitor, StopReason};
use crate::runner::{Ending, TimeLimit};
use crate::wire::Exception;
use wasmtime::{Trap, UnknownImportError, WasmBacktrace};
use wasmtime_wasi::I32Exit;

/// Module of the exceptions that have no Python class.
const MODULE: &str = "qworker.wasm";

/// Where an error arose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TrapPhase {
    /// Before any code of the module ran, or in its start function.
    Instantiating,
    /// In the function that was called.
    Running,
}

/// The ending that an error means, and the limit that caused it.
pub(super) fn ending(
    error: &wasmtime::Error,
    phase: TrapPhase,
    monitor: &Monitor,
    fuel: Option<u64>,
) -> (Ending, Option<TimeLimit>) {
    match monitor.stopped {
        Some(StopReason::Cancelled(why)) => return (Ending::Cancelled(why), None),
        Some(StopReason::Limit(limit)) => {
            let exception = trap(match limit {
                TimeLimit::Soft => "interrupted by the soft time limit",
                TimeLimit::Hard => "interrupted by the time limit",
            });
            return (Ending::Trapped(exception, backtrace(error)), Some(limit));
        }
        None => {}
    }
    if let Some(exit) = error.downcast_ref::<I32Exit>() {
        return (Ending::Exited(exit.0), None);
    }
    if phase == TrapPhase::Instantiating && monitor.memory.refused_minimum {
        return (Ending::Refused(memory("the module needs more memory than it may have")), None);
    }
    let exception = match error.downcast_ref::<Trap>() {
        Some(Trap::OutOfFuel) => {
            let fuel = fuel.unwrap_or_default();
            Exception::new(MODULE, "OutOfFuel", format!("used up its fuel of {fuel} instructions"))
        }
        Some(found) => trap(found.to_string().trim_start_matches("wasm trap: ")),
        None if phase == TrapPhase::Instantiating && !error.is::<WasmBacktrace>() => {
            let text = format!("the module cannot be started: {error:#}");
            return (Ending::Refused(Exception::new("builtins", "RuntimeError", text)), None);
        }
        None => trap(&error.root_cause().to_string()),
    };
    (Ending::Trapped(exception, backtrace(error)), None)
}

/// The refusal of a module that cannot be linked.
pub(super) fn unlinked(error: &wasmtime::Error) -> Exception {
    let missing = match error.downcast_ref::<UnknownImportError>() {
        Some(import) => {
            format!("the module imports `{}` from `{}`", import.name(), import.module())
        }
        None => format!("{error:#}"),
    };
    let offered = "qworker offers WASI: `wasi_snapshot_preview1` to modules, \
                   `wasi:cli`, `wasi:io`, `wasi:clocks`, `wasi:random`, `wasi:filesystem` \
                   and `wasi:sockets` (closed) 0.2 to components";
    Exception::new("builtins", "ImportError", format!("{missing}; {offered}"))
}

/// `MemoryError` with this sentence.
pub(super) fn memory(text: impl Into<String>) -> Exception {
    Exception::new("builtins", "MemoryError", text)
}

fn trap(text: &str) -> Exception {
    Exception::new(MODULE, "Trap", text)
}

/// The WASM frames, innermost first, one a line; empty where there are none.
fn backtrace(error: &wasmtime::Error) -> String {
    let Some(found) = error.downcast_ref::<WasmBacktrace>() else { return String::new() };
    let mut text = String::from("WASM backtrace (innermost first):\n");
    for (depth, frame) in found.frames().iter().enumerate() {
        let function = match frame.func_name() {
            Some(name) => name.to_string(),
            None => format!("<function {}>", frame.func_index()),
        };
        let module = frame.module().name().unwrap_or("<module>");
        let offset = frame.module_offset().unwrap_or_default();
        text += &format!("{depth:4}: {offset:#8x} {module}!{function}\n");
    }
    text
}
