//! The signals of the worker as a stream of meanings. Handlers only count and wake; what a second
//! `SIGINT` means is decided where the worker's state is.

use super::Pid;
use super::spawn::signal_set;
use signal_hook::SigId;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::low_level;
use std::io::{self, IsTerminal};
use std::mem::MaybeUninit;
use std::os::unix::net::UnixStream as StdStream;
use std::ptr::null_mut;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::net::UnixStream;

/// Signals that the guard passes on to the worker.
pub const FORWARDED: [i32; 6] = [SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2];

/// Does `SIGHUP` end a program instead of restarting it? It does where standard output is a
/// terminal, as in Celery: the signal says that the terminal is closed, and nobody wants a program
/// to continue unseen.
pub fn ends_by_hup() -> bool {
    io::stdout().is_terminal()
}

/// What a signal asks of the worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerSignal {
    /// `SIGTERM`: take no more tasks, finish the running ones.
    Warm,
    /// `SIGINT`: as `Warm` at first, as `Cold` when repeated.
    Interrupt,
    /// `SIGQUIT`: end at once.
    Cold,
    /// `SIGHUP`
    Hup,
    /// `SIGUSR1`: log what is running.
    Explain,
}

/// What `SIGTERM` means (Celery's `REMAP_SIGTERM=SIGQUIT`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Term {
    /// Itself: a warm shutdown.
    #[default]
    Warm,
    /// `SIGQUIT`: a cold shutdown.
    Cold,
}

/// A signal to all processes of a service reaches a worker twice: directly, and from its guard, at
/// most this much later on a busy host.
const ECHO_MAX: Duration = Duration::from_secs(5);

/// The signals that have arrived and were not returned yet. `SIGUSR2` is caught and means nothing.
#[derive(Debug)]
pub struct Signals {
    wake: UnixStream,
    arrived: Vec<Arrived>,
    registered: Vec<SigId>,
    /// The last arrival of each meaning without an echo so far: from the guard (`true`) or from
    /// others.
    heard: Vec<(WorkerSignal, bool, Instant)>,
    has_guard: bool,
}

/// How often a signal has arrived and was not returned yet.
#[derive(Debug)]
struct Arrived {
    meaning: WorkerSignal,
    of_guard: Arc<AtomicUsize>,
    of_others: Arc<AtomicUsize>,
}

impl Signals {
    /// Catches the worker's signals, including those that were sent since the guard started it:
    /// they were blocked until now. What `guard` forwards and what others send counts as one signal
    /// if both come together.
    ///
    /// # Errors
    /// No descriptors are left for the wake-up pipe.
    pub fn listen(term: Term, guard: Option<Pid>) -> io::Result<Signals> {
        let (ours, theirs) = StdStream::pair()?;
        ours.set_nonblocking(true)?;
        let mut signals = Signals {
            wake: UnixStream::from_std(ours)?,
            arrived: vec![],
            registered: vec![],
            heard: vec![],
            has_guard: guard.is_some(),
        };
        let guard = guard.map_or(0, Pid::as_raw);
        let terminate = match term {
            Term::Warm => WorkerSignal::Warm,
            Term::Cold => WorkerSignal::Cold,
        };
        let meanings = [
            (SIGTERM, terminate),
            (SIGINT, WorkerSignal::Interrupt),
            (SIGQUIT, WorkerSignal::Cold),
            (SIGHUP, WorkerSignal::Hup),
            (SIGUSR1, WorkerSignal::Explain),
        ];
        for (signal, meaning) in meanings {
            let (of_guard, of_others) = (Arc::default(), Arc::default());
            let arrived = Arrived { meaning, of_guard, of_others };
            let counts = (arrived.of_guard.clone(), arrived.of_others.clone());
            signals.arrived.push(arrived);
            let count = move |sent: &libc::siginfo_t| {
                // SAFETY: a signal that a process has sent has its number; others have 0.
                let by_guard = guard > 0 && unsafe { sent.si_pid() } == guard;
                add_one(if by_guard { &counts.0 } else { &counts.1 });
            };
            // SAFETY: the handler adds to an atomic number, which is allowed at any moment.
            let id = unsafe { signal_hook_registry::register_sigaction(signal, count) };
            signals.registered.push(id?);
            // After the count, or the loop might wake up and find nothing.
            signals.registered.push(low_level::pipe::register(signal, theirs.try_clone()?)?);
        }
        // SAFETY: the handler does nothing.
        signals.registered.push(unsafe { low_level::register(SIGUSR2, || {}) }?);
        unblock_forwarded();
        Ok(signals)
    }

    /// The next signal's meaning; each arrival counts. Dropping this future loses none.
    pub async fn next(&mut self) -> WorkerSignal {
        loop {
            let next = self.arrived.iter().find_map(|one| {
                let by_guard = take_one(&one.of_guard);
                (by_guard || take_one(&one.of_others)).then_some((one.meaning, by_guard))
            });
            match next {
                Some((meaning, by_guard)) if self.is_news(meaning, by_guard, Instant::now()) => {
                    return meaning;
                }
                Some(_) => continue,
                None => {}
            }
            let mut bytes = [0; 64];
            let emptied = self.wake.readable().await.and_then(|()| self.wake.try_read(&mut bytes));
            if emptied.is_err_and(|error| error.kind() != io::ErrorKind::WouldBlock) {
                // The other end is in our own handlers: it does not fail before this is dropped.
                std::future::pending::<()>().await;
            }
        }
    }
}

impl Signals {
    fn is_news(&mut self, meaning: WorkerSignal, by_guard: bool, now: Instant) -> bool {
        if !self.has_guard {
            return true;
        }
        if meaning == WorkerSignal::Hup && !by_guard {
            // Restarts are up to the guard, which first checks whether they are possible.
            return false;
        }
        let known = self.heard.iter().position(|(heard, ..)| *heard == meaning);
        let before = known.map(|place| self.heard.swap_remove(place));
        let is_echo = before.is_some_and(|(_, of_guard, at)| {
            of_guard != by_guard && now.duration_since(at) < ECHO_MAX
        });
        if !is_echo {
            self.heard.push((meaning, by_guard, now));
        }
        !is_echo
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        for id in self.registered.drain(..) {
            low_level::unregister(id);
        }
    }
}

/// The signals that end a waiting command, `SIGINT` and `SIGTERM`, so that it can print something
/// before.
#[derive(Debug)]
pub struct Interrupts(Vec<(i32, UnixStream)>);

impl Interrupts {
    /// Catches them for the rest of the process.
    ///
    /// # Errors
    /// No descriptors are left for the wake-up pipes.
    pub fn listen() -> io::Result<Interrupts> {
        let mut all = Vec::new();
        for signal in [SIGINT, SIGTERM] {
            let (ours, theirs) = StdStream::pair()?;
            ours.set_nonblocking(true)?;
            low_level::pipe::register(signal, theirs)?;
            all.push((signal, UnixStream::from_std(ours)?));
        }
        Ok(Interrupts(all))
    }

    /// The number of the first one to arrive.
    pub async fn next(&self) -> i32 {
        let [(int, on_int), (term, on_term)] = &self.0[..] else { std::future::pending().await };
        // The other ends are in our own handlers and never close.
        tokio::select! {
            _ = on_int.readable() => *int,
            _ = on_term.readable() => *term,
        }
    }
}

fn add_one(count: &AtomicUsize) {
    count.fetch_add(1, Ordering::SeqCst);
}

fn take_one(count: &AtomicUsize) -> bool {
    count.try_update(Ordering::SeqCst, Ordering::SeqCst, |count| count.checked_sub(1)).is_ok()
}

/// Blocks [`FORWARDED`] in this thread: they stay pending until [`unblock_forwarded`], also if
/// another program is executed.
pub fn block_forwarded() {
    change_mask(libc::SIG_BLOCK);
}

/// Undoes [`block_forwarded`], also that of the guard that started this process.
pub fn unblock_forwarded() {
    change_mask(libc::SIG_UNBLOCK);
}

fn change_mask(how: i32) {
    let set = signal_set(&FORWARDED);
    // SAFETY: the set is our own plain memory.
    unsafe { libc::pthread_sigmask(how, &set, null_mut()) };
}

/// Keeps signals of this thread blocked until it is dropped.
pub(super) struct BlockedSignals(libc::sigset_t);

impl BlockedSignals {
    /// Blocks all signals.
    pub(super) fn all() -> BlockedSignals {
        BlockedSignals::block(&[])
    }

    /// Blocks all signals but these.
    fn block(but: &[i32]) -> BlockedSignals {
        // SAFETY: both sets are our own plain memory.
        unsafe {
            let mut set = MaybeUninit::zeroed().assume_init();
            let mut before = MaybeUninit::zeroed().assume_init();
            libc::sigfillset(&mut set);
            for &signal in but {
                libc::sigdelset(&mut set, signal);
            }
            libc::pthread_sigmask(libc::SIG_SETMASK, &set, &mut before);
            BlockedSignals(before)
        }
    }
}

impl Drop for BlockedSignals {
    fn drop(&mut self) {
        // SAFETY: gives back the mask that `block` found.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.0, null_mut()) };
    }
}

/// The signals that a thread's own faults cause. Blocked, they would kill the process.
const OWN_FAULTS: [i32; 5] =
    [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGTRAP];

/// Calls `begin` with signals blocked, so that the threads it starts never receive any. Else the
/// kernel gives each signal to any sleeping thread, which wakes up only to wake another one.
pub fn with_signals_blocked<T>(begin: impl FnOnce() -> T) -> T {
    // A thread inherits the mask of the one that starts it.
    let _blocked = BlockedSignals::block(&OWN_FAULTS);
    begin()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_signal_has_its_meaning() {
        let mut signals = Signals::listen(Term::Cold, None).unwrap();
        for (signal, meaning) in [
            (SIGUSR1, WorkerSignal::Explain),
            (SIGTERM, WorkerSignal::Cold),
            (SIGINT, WorkerSignal::Interrupt),
            (SIGINT, WorkerSignal::Interrupt),
            (SIGQUIT, WorkerSignal::Cold),
            (SIGHUP, WorkerSignal::Hup),
        ] {
            low_level::raise(SIGUSR2).unwrap();
            low_level::raise(signal).unwrap();
            assert_eq!(signals.next().await, meaning);
        }
        low_level::raise(SIGINT).unwrap();
        low_level::raise(SIGINT).unwrap();
        assert_eq!(
            (signals.next().await, signals.next().await),
            (WorkerSignal::Interrupt, WorkerSignal::Interrupt)
        );
    }

    #[tokio::test]
    async fn what_the_guard_passes_on_and_what_was_sent_to_all_is_one_signal() {
        let mut signals = Signals::listen(Term::Warm, Some(Pid::this())).unwrap();
        let now = Instant::now();
        let mut news = |meaning, by_guard, after| {
            signals.is_news(meaning, by_guard, now + Duration::from_secs(after))
        };
        use WorkerSignal::{Hup, Interrupt, Warm};
        for (first, second) in [(true, false), (false, true)] {
            assert!(news(Warm, first, 0) && news(Interrupt, first, 0));
            assert!(!news(Warm, second, 1) && !news(Interrupt, second, 1));
        }
        // Twice the same way, or long after, is twice.
        assert!(news(Warm, true, 2) && news(Warm, true, 2) && news(Warm, false, 20));
        assert!(news(Hup, true, 0) && !news(Hup, false, 0) && !news(Hup, false, 30));
        // This test is its own guard.
        low_level::raise(SIGUSR1).unwrap();
        assert_eq!(signals.next().await, WorkerSignal::Explain);
        assert_eq!(signals.heard.last().map(|heard| heard.1), Some(true));
    }
}
