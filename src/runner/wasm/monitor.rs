//! What is monitored while a module runs: its time limits, the stop flag, and its memory. Part of
//! the store of each instance.

use crate::runner::{Attempt, Cancel, CancelReason, ResourceUsage, TimeLimit, Worker};
use crate::wire::Exception;
use std::time::{Duration, Instant};
use wasmtime::{Engine, ResourceLimiter, Store, UpdateDeadline};

/// Elements of all tables of an attempt. They are not linear memory, but take eight bytes of the
/// host each: 80 MB.
const TABLE_ELEMENTS_MAX: usize = 10_000_000;

/// Core instances of one attempt; a component may have several.
const INSTANCES_MAX: usize = 256;

/// Why an attempt was stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StopReason {
    /// A time limit expired.
    Limit(TimeLimit),
    /// The worker said so.
    Cancelled(CancelReason),
}

/// The data of an instance's store: the monitor, and what its host functions work with.
#[derive(Debug)]
pub(super) struct StoreData<W> {
    /// Time and memory.
    pub monitor: Monitor,
    /// The WASI context, or nothing.
    pub wasi: W,
}

/// Time limits, cancellation and memory of one attempt.
#[derive(Debug)]
pub(super) struct Monitor {
    deadline: Option<(Instant, TimeLimit)>,
    cancel: Cancel,
    /// What ended it, once something did.
    pub stopped: Option<StopReason>,
    /// Its memory.
    pub memory: MemoryLimiter,
    /// Who runs it, for what it asks.
    pub worker: Option<Worker>,
    /// The last answer of the worker.
    pub answer: Vec<u8>,
}

impl Monitor {
    /// The monitor of an attempt that starts at `started` and may take `memory` bytes.
    pub(super) fn new(attempt: &Attempt, started: Instant, memory: u64, cancel: Cancel) -> Monitor {
        // WASM code cannot be told of the soft limit, so the soft limit ends it; at the
        // same instant the hard one has the say.
        // A limit beyond the end of the clock is none.
        let at = |after: Option<Duration>| started.checked_add(after?);
        let soft = at(attempt.soft_time_limit).map(|at| (at, TimeLimit::Soft));
        let hard = at(attempt.time_limit).map(|at| (at, TimeLimit::Hard));
        let deadline = hard.into_iter().chain(soft).min_by_key(|(at, _)| *at);
        Monitor {
            deadline,
            cancel,
            stopped: None,
            memory: MemoryLimiter::new(memory),
            worker: attempt.worker.clone(),
            answer: Vec::new(),
        }
    }

    /// Checks the clock and the stop flag.
    pub(super) fn check(&mut self) -> Option<StopReason> {
        if let Some(why) = self.cancel.get() {
            self.stopped = Some(StopReason::Cancelled(*why));
        } else if let Some((at, limit)) = self.deadline
            && Instant::now() >= at
        {
            self.stopped = Some(StopReason::Limit(limit));
        }
        self.stopped
    }

    /// The order to stop, to look at from outside the store.
    pub(super) fn cancel(&self) -> Cancel {
        self.cancel.clone()
    }

    /// The first limit to expire.
    pub(super) fn deadline(&self) -> Option<(Instant, TimeLimit)> {
        self.deadline
    }

    /// What the attempt used.
    pub(super) fn usage(&self) -> ResourceUsage {
        ResourceUsage { memory_peak: self.memory.peak as u64, ..ResourceUsage::default() }
    }
}

/// A monitored store: its code checks the limits with each tick.
pub(super) fn store<W: 'static>(engine: &Engine, monitor: Monitor, wasi: W) -> Store<StoreData<W>> {
    let mut store = Store::new(engine, StoreData { monitor, wasi });
    store.limiter(|state| &mut state.monitor.memory);
    store.epoch_deadline_callback(|mut context| {
        Ok(match context.data_mut().monitor.check() {
            Some(_) => UpdateDeadline::Interrupt,
            None => UpdateDeadline::Continue(1),
        })
    });
    store.set_epoch_deadline(1);
    store
}

/// Gives the store its fuel, if the task has a limit.
///
/// # Errors
/// Never in practice: tasks with a limit get an engine that counts.
pub(super) fn set_fuel<W>(
    store: &mut Store<StoreData<W>>,
    attempt: &Attempt,
) -> Result<(), Exception> {
    let Some(fuel) = attempt.task.fuel else { return Ok(()) };
    store.set_fuel(fuel).map_err(|why| {
        Exception::new("builtins", "RuntimeError", format!("cannot count fuel: {why:#}"))
    })
}

/// Limits of linear memories and tables. The guest sees a refused growth (`memory.grow` returns
/// -1); a refused minimum ends the attempt before it starts.
#[derive(Debug)]
pub(super) struct MemoryLimiter {
    max: usize,
    total: usize,
    peak: usize,
    elements: usize,
    /// A memory did not even get its minimum.
    pub refused_minimum: bool,
}

impl MemoryLimiter {
    fn new(max: u64) -> MemoryLimiter {
        MemoryLimiter {
            max: usize::try_from(max).unwrap_or(usize::MAX),
            total: 0,
            peak: 0,
            elements: 0,
            refused_minimum: false,
        }
    }
}

impl ResourceLimiter for MemoryLimiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let growing = desired.saturating_sub(current);
        let allowed = growing <= self.max.saturating_sub(self.total)
            && maximum.is_none_or(|maximum| desired <= maximum);
        if allowed {
            // A growth that fails after this stays counted: Wasmtime also reports failures of
            // growth it never asked about here, so subtracting it would let a guest cheat.
            self.total += growing;
            self.peak = self.peak.max(self.total);
        } else if current == 0 {
            self.refused_minimum = true;
        }
        Ok(allowed)
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let growing = desired.saturating_sub(current);
        let allowed = growing <= TABLE_ELEMENTS_MAX.saturating_sub(self.elements);
        if allowed {
            self.elements += growing;
        }
        Ok(allowed)
    }

    fn instances(&self) -> usize {
        INSTANCES_MAX
    }
}
