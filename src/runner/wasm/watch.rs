//! What is watched while a module runs: its time limits, the order to stop, and the
//! memory it takes. Lives inside the store of each instance.

use crate::runner::{Attempt, Cancel, Limit, Usage, Why};
use std::time::{Duration, Instant};
use wasmtime::{Engine, ResourceLimiter, Store, UpdateDeadline};

/// Elements of all tables of an attempt. They are not linear memory, but eight bytes
/// of the host each: 80 MB.
const TABLE_ELEMENTS_MAX: usize = 10_000_000;

/// Core instances of one attempt; a component may have several.
const INSTANCES_MAX: usize = 256;

/// Why an attempt was ended from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// A time limit struck.
    Limit(Limit),
    /// The worker said so.
    Cancelled(Why),
}

/// The data of an instance's store: the watch, and what its host functions work with.
#[derive(Debug)]
pub struct State<W> {
    /// Time and memory.
    pub watch: Watch,
    /// The WASI context, or nothing.
    pub wasi: W,
}

/// Time limits, cancellation and memory of one attempt.
#[derive(Debug)]
pub struct Watch {
    deadline: Option<(Instant, Limit)>,
    cancel: Cancel,
    /// What ended it, once something did.
    pub stopped: Option<Stop>,
    /// Its memory.
    pub fence: Fence,
}

impl Watch {
    /// The watch of an attempt that starts at `started` and may take `memory` bytes.
    pub fn new(attempt: &Attempt, started: Instant, memory: u64, cancel: Cancel) -> Watch {
        // WASM code cannot be told of the soft limit, so the soft limit ends it; at the
        // same instant the hard one has the say.
        // A limit beyond the end of the clock is none.
        let at = |after: Option<Duration>| started.checked_add(after?);
        let soft = at(attempt.soft_time_limit).map(|at| (at, Limit::Soft));
        let hard = at(attempt.time_limit).map(|at| (at, Limit::Hard));
        let deadline = hard.into_iter().chain(soft).min_by_key(|(at, _)| *at);
        Watch { deadline, cancel, stopped: None, fence: Fence::new(memory) }
    }

    /// Looks at the clock and the order to stop.
    pub fn check(&mut self) -> Option<Stop> {
        if let Some(why) = self.cancel.get() {
            self.stopped = Some(Stop::Cancelled(*why));
        } else if let Some((at, limit)) = self.deadline
            && Instant::now() >= at
        {
            self.stopped = Some(Stop::Limit(limit));
        }
        self.stopped
    }

    /// The order to stop, to look at from outside the store.
    pub fn cancel(&self) -> Cancel {
        self.cancel.clone()
    }

    /// The first limit that will strike.
    pub fn deadline(&self) -> Option<(Instant, Limit)> {
        self.deadline
    }

    /// What the attempt used.
    pub fn usage(&self) -> Usage {
        Usage { memory_peak: self.fence.peak as u64, ..Usage::default() }
    }
}

/// A store that is watched: code in it looks at the limits with each tick.
pub fn store<W: 'static>(engine: &Engine, watch: Watch, wasi: W) -> Store<State<W>> {
    let mut store = Store::new(engine, State { watch, wasi });
    store.limiter(|state| &mut state.watch.fence);
    store.epoch_deadline_callback(|mut context| {
        Ok(match context.data_mut().watch.check() {
            Some(_) => UpdateDeadline::Interrupt,
            None => UpdateDeadline::Continue(1),
        })
    });
    store.set_epoch_deadline(1);
    store
}

/// Bounds of linear memories and tables. A refused growth is an answer inside the guest
/// (`memory.grow` gives -1); a refused beginning ends the attempt before it started.
#[derive(Debug)]
pub struct Fence {
    max: usize,
    total: usize,
    peak: usize,
    elements: usize,
    /// A memory did not even get its minimum.
    pub refused_minimum: bool,
}

impl Fence {
    fn new(max: u64) -> Fence {
        Fence {
            max: usize::try_from(max).unwrap_or(usize::MAX),
            total: 0,
            peak: 0,
            elements: 0,
            refused_minimum: false,
        }
    }
}

impl ResourceLimiter for Fence {
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
            // A growth that fails after this stays counted: Wasmtime also reports as failed
            // what it never asked about here, so taking it back would let a guest cheat.
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
