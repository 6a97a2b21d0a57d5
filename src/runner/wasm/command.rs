//! A program: a WASI command, of preview 1 (a core module) or preview 2 (a component).

use super::driver;
use super::module::{Composed, Core, Linked};
use super::plain::exported;
use super::report::{self, Report};
use super::sandbox::Sandbox;
use super::trap::Phase;
use super::watch::{self, Watch};
use crate::runner::{Attempt, Ending};
use crate::wire::Exception;

/// Runs a core module's `_start`.
///
/// # Errors
/// It never began: it is no command, or its sandbox cannot be built.
pub fn core(core: &Core, attempt: &Attempt, watch: Watch) -> Result<Report, Exception> {
    let start = core.command()?;
    let Linked::Hosted(linked) = &core.linked else {
        return Err(Exception::new("builtins", "RuntimeError", "a command without WASI"));
    };
    let mut sandbox = Sandbox::new(attempt)?;
    let mut store = watch::store(linked.module().engine(), watch, sandbox.preview1());
    report::fuel(&mut store, attempt)?;
    let mut phase = Phase::Instantiating;
    let called = driver::run(&mut store, async |store| {
        let instance = linked.instantiate_async(&mut *store).await?;
        phase = Phase::Running;
        let start = exported(&instance, store, start)?;
        start.call_async(&mut *store, &[], &mut []).await
    });
    let watch = &store.data().watch;
    let report = match called {
        Ok(()) => Report::new(watch, Ending::Exited(0)),
        Err(why) => Report::failed(watch, &why, phase, attempt),
    };
    Ok(report.with_outputs(&sandbox))
}

/// Runs a component's `wasi:cli/run`.
///
/// # Errors
/// As [`core`].
pub fn component(
    composed: &Composed,
    attempt: &Attempt,
    watch: Watch,
) -> Result<Report, Exception> {
    let command = composed.command()?;
    let mut sandbox = Sandbox::new(attempt)?;
    let mut store = watch::store(command.engine(), watch, sandbox.preview2());
    report::fuel(&mut store, attempt)?;
    let mut phase = Phase::Instantiating;
    let called = driver::run(&mut store, async |store| {
        let instance = command.instantiate_async(&mut *store).await?;
        phase = Phase::Running;
        instance.wasi_cli_run().call_run(&mut *store).await
    });
    let watch = &store.data().watch;
    let report = match called {
        Ok(Ok(())) => Report::new(watch, Ending::Exited(0)),
        Ok(Err(())) => Report::new(watch, Ending::Exited(1)),
        Err(why) => Report::failed(watch, &why, phase, attempt),
    };
    Ok(report.with_outputs(&sandbox))
}
