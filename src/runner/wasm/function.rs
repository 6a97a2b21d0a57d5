//! A function that takes numbers and gives numbers, called in a fresh instance.

use super::driver;
use super::finished::Finished;
use super::module::{CoreModule, FunctionType, Linked};
use super::monitor::{self, Monitor, StoreData};
use super::number::{self, WasmNumber};
use super::sandbox::{Preview1, Sandbox};
use super::trap::TrapPhase;
use crate::runner::{Attempt, context};
use crate::wire::Exception;
use serde_json::value::RawValue;
use wasmtime::{Instance, InstancePre, Store, Val};

/// Calls the exported function `name` with the attempt's arguments.
///
/// # Errors
/// It was never called: no such function, or the arguments do not fit.
pub(super) fn call(
    core: &CoreModule,
    name: &str,
    attempt: &Attempt,
    monitor: Monitor,
) -> Result<Finished, Exception> {
    let function = core.function(name)?;
    let params = function.params.as_deref().unwrap_or_default();
    let arguments = arguments(attempt, name, params)?;
    match &core.linked {
        Linked::Alone(linked) => alone(core, linked, function, &arguments, attempt, monitor),
        Linked::Hosted(linked) => hosted(core, linked, function, &arguments, attempt, monitor),
    }
}

/// The fast path: no host functions, so nothing can wait, and no second stack is needed.
fn alone(
    core: &CoreModule,
    linked: &InstancePre<StoreData<()>>,
    function: &FunctionType,
    arguments: &[Val],
    attempt: &Attempt,
    monitor: Monitor,
) -> Result<Finished, Exception> {
    let mut store = monitor::store(linked.module().engine(), monitor, ());
    monitor::set_fuel(&mut store, attempt)?;
    let mut phase = TrapPhase::Instantiating;
    let called = call_alone(&mut store, core, linked, function, arguments, &mut phase);
    let monitor = &store.data().monitor;
    Ok(match called {
        Ok(json) => Finished::returned(monitor, json),
        Err(why) => Finished::failed(monitor, &why, phase, attempt),
    })
}

fn call_alone(
    store: &mut Store<StoreData<()>>,
    core: &CoreModule,
    linked: &InstancePre<StoreData<()>>,
    function: &FunctionType,
    arguments: &[Val],
    phase: &mut TrapPhase,
) -> wasmtime::Result<String> {
    let instance = linked.instantiate(&mut *store)?;
    *phase = TrapPhase::Running;
    if let Some(initialize) = core.initialize() {
        exported(&instance, store, initialize)?.call(&mut *store, &[], &mut [])?;
    }
    let mut results = vec![Val::I32(0); function.results];
    exported(&instance, store, function)?.call(&mut *store, arguments, &mut results)?;
    Ok(number::render(&results))
}

/// The same for a module that sees WASI. What it prints goes to its standard error, for
/// its standard output is the result.
fn hosted(
    core: &CoreModule,
    linked: &InstancePre<StoreData<Preview1>>,
    function: &FunctionType,
    arguments: &[Val],
    attempt: &Attempt,
    monitor: Monitor,
) -> Result<Finished, Exception> {
    let mut sandbox = Sandbox::quiet(attempt)?;
    let mut store = monitor::store(linked.module().engine(), monitor, sandbox.preview1());
    monitor::set_fuel(&mut store, attempt)?;
    let mut phase = TrapPhase::Instantiating;
    let called = driver::run(&mut store, async |store| {
        let instance = linked.instantiate_async(&mut *store).await?;
        phase = TrapPhase::Running;
        if let Some(initialize) = core.initialize() {
            let initialize = exported(&instance, store, initialize)?;
            initialize.call_async(&mut *store, &[], &mut []).await?;
        }
        let mut results = vec![Val::I32(0); function.results];
        let function = exported(&instance, store, function)?;
        function.call_async(&mut *store, arguments, &mut results).await?;
        Ok(number::render(&results))
    });
    let monitor = &store.data().monitor;
    let finished = match called {
        Ok(json) => Finished::returned(monitor, json),
        Err(why) => Finished::failed(monitor, &why, phase, attempt),
    };
    Ok(finished.with_stderr(&sandbox))
}

/// A function of this instance.
///
/// # Errors
/// Never in practice: the export was found in the module.
pub(super) fn exported<W: 'static>(
    instance: &Instance,
    store: &mut Store<StoreData<W>>,
    function: &FunctionType,
) -> wasmtime::Result<wasmtime::Func> {
    let found = instance.get_module_export(store, &function.export);
    found.and_then(|found| found.into_func()).ok_or_else(|| wasmtime::Error::msg("no function"))
}

fn arguments(
    attempt: &Attempt,
    function: &str,
    params: &[WasmNumber],
) -> Result<Vec<Val>, Exception> {
    let given: Vec<(Option<&str>, &RawValue)> = positional(attempt, function, params.len())?;
    let pairs = given.into_iter().zip(params).enumerate();
    pairs.map(|(at, ((name, raw), kind))| kind.parse(raw.get(), &label(at, name))).collect()
}

/// The arguments of a call in order, if there are as many as the function takes.
///
/// # Errors
/// `TypeError`, worded as Python's.
pub(super) fn positional<'a>(
    attempt: &'a Attempt,
    function: &str,
    count: usize,
) -> Result<Vec<(Option<&'a str>, &'a RawValue)>, Exception> {
    let wrong = |text: String| Err(Exception::new("builtins", "TypeError", text));
    if attempt.task.params.is_none()
        && let Some((name, _)) = attempt.kwargs.first()
    {
        return wrong(format!(
            "{function}() got a keyword argument `{name}`, but the task has no `params` that \
             would say where it belongs"
        ));
    }
    let given: Vec<_> = context::positional(attempt).collect();
    if given.len() == count {
        return Ok(given);
    }
    let plural = if count == 1 { "" } else { "s" };
    wrong(format!("{function}() takes {count} argument{plural}, got {}", given.len()))
}

/// How messages call an argument.
pub(super) fn label(at: usize, name: Option<&str>) -> String {
    match name {
        Some(name) => format!("argument {} (`{name}`)", at + 1),
        None => format!("argument {}", at + 1),
    }
}
