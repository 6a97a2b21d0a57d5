//! A program: a WASI command, of preview 1 (a core module) or preview 2 (a component).

use super::driver;
use super::finished::Finished;
use super::function::exported;
use super::module::{Composed, CoreModule, Linked};
use super::monitor::{self, Monitor};
use super::sandbox::Sandbox;
use super::trap::TrapPhase;
use crate::runner::{Attempt, Ending};
use crate::wire::Exception;

/// Runs a core module's `_start`.
///
/// # Errors
/// It never began: it is no command, or its sandbox cannot be built.
pub(super) fn core(
    core: &CoreModule,
    attempt: &Attempt,
    monitor: Monitor,
) -> Result<Finished, Exception> {
    let start = core.command()?;
    let Linked::Hosted(linked) = &core.linked else {
        return Err(Exception::new("builtins", "RuntimeError", "a command without WASI"));
    };
    let mut sandbox = Sandbox::new(attempt)?;
    let mut store = monitor::store(linked.module().engine(), monitor, sandbox.preview1());
    monitor::set_fuel(&mut store, attempt)?;
    let mut phase = TrapPhase::Instantiating;
    let called = driver::run(&mut store, async |store| {
        let instance = linked.instantiate_async(&mut *store).await?;
        phase = TrapPhase::Running;
        let start = exported(&instance, store, start)?;
        start.call_async(&mut *store, &[], &mut []).await
    });
    let monitor = &store.data().monitor;
    let finished = match called {
        Ok(()) => Finished::new(monitor, Ending::Exited(0)),
        Err(why) => Finished::failed(monitor, &why, phase, attempt),
    };
    Ok(finished.with_outputs(&sandbox))
}

/// Runs a component's `wasi:cli/run`.
///
/// # Errors
/// As [`core`].
pub(super) fn component(
    composed: &Composed,
    attempt: &Attempt,
    monitor: Monitor,
) -> Result<Finished, Exception> {
    let command = composed.command()?;
    let mut sandbox = Sandbox::new(attempt)?;
    let mut store = monitor::store(command.engine(), monitor, sandbox.preview2());
    monitor::set_fuel(&mut store, attempt)?;
    let mut phase = TrapPhase::Instantiating;
    let called = driver::run(&mut store, async |store| {
        let instance = command.instantiate_async(&mut *store).await?;
        phase = TrapPhase::Running;
        instance.wasi_cli_run().call_run(&mut *store).await
    });
    let monitor = &store.data().monitor;
    let finished = match called {
        Ok(Ok(())) => Finished::new(monitor, Ending::Exited(0)),
        Ok(Err(())) => Finished::new(monitor, Ending::Exited(1)),
        Err(why) => Finished::failed(monitor, &why, phase, attempt),
    };
    Ok(finished.with_outputs(&sandbox))
}
