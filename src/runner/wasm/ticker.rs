//! The clock of running WASM code: a thread that increments the engines' epoch on every [`TICK`]
//! while an attempt is in flight, and sleeps otherwise, so that an idle worker does not wake up.

use super::engine::Pair;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{self, Thread};
use std::time::Duration;

/// How often running code checks its limits: a limit is kept within two of these.
pub(super) const TICK: Duration = Duration::from_millis(10);

/// Ticks without an attempt before the thread sleeps. Waking it costs a system call, more than a
/// short attempt; a busy worker should not pay that each time.
const TICKS_IDLE: usize = 20;

/// Starts and stops the ticking.
#[derive(Debug)]
pub(super) struct Ticker {
    shared: Arc<Shared>,
    thread: OnceLock<Thread>,
    /// Held while the thread is started, so that it is started once.
    starting: Mutex<()>,
}

#[derive(Debug)]
struct Shared {
    engines: Arc<[Pair; 2]>,
    in_flight: AtomicUsize,
    asleep: AtomicBool,
    closed: AtomicBool,
}

/// An attempt in flight; the ticks continue until it is dropped.
#[derive(Debug)]
pub(super) struct InFlight<'a>(&'a Shared);

impl Ticker {
    /// A ticker for these engines; its thread starts with the first attempt.
    pub(super) fn new(engines: Arc<[Pair; 2]>) -> Ticker {
        let shared = Shared {
            engines,
            in_flight: AtomicUsize::new(0),
            asleep: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        };
        Ticker { shared: Arc::new(shared), thread: OnceLock::new(), starting: Mutex::default() }
    }

    /// Adds an attempt.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(super) fn enter(&self) -> io::Result<InFlight<'_>> {
        let thread = self.started()?;
        // In this order, against the thread's opposite one: either it sees the count
        // before it parks, or we see that it is about to and leave it a token.
        self.shared.in_flight.fetch_add(1, Ordering::SeqCst);
        if self.shared.asleep.load(Ordering::SeqCst) {
            thread.unpark();
        }
        Ok(InFlight(&self.shared))
    }

    /// The thread, started by the first call; a failed start is tried again.
    fn started(&self) -> io::Result<&Thread> {
        let _alone = match self.thread.get() {
            Some(thread) => return Ok(thread),
            None => self.starting.lock().unwrap_or_else(PoisonError::into_inner),
        };
        if let Some(thread) = self.thread.get() {
            return Ok(thread);
        }
        let shared = self.shared.clone();
        let thread = thread::Builder::new().name("wasm-ticker".into());
        let handle = thread.spawn(move || shared.run())?;
        Ok(self.thread.get_or_init(|| handle.thread().clone()))
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }
}

impl Shared {
    fn run(&self) {
        let mut idle = 0;
        while !self.closed.load(Ordering::SeqCst) {
            if self.in_flight.load(Ordering::SeqCst) > 0 {
                idle = 0;
            } else if idle < TICKS_IDLE {
                idle += 1;
            } else {
                self.sleep();
                idle = 0;
            }
            thread::sleep(TICK);
            self.engines.iter().for_each(Pair::tick);
        }
    }

    fn sleep(&self) {
        self.asleep.store(true, Ordering::SeqCst);
        while self.in_flight.load(Ordering::SeqCst) == 0 && !self.closed.load(Ordering::SeqCst) {
            thread::park();
        }
        self.asleep.store(false, Ordering::SeqCst);
    }
}
