//! Whether the worker reaches its stores, and what it says of itself to whoever asks.

use super::core::Snapshot;
use super::plan::Plan;
use super::signals::State;
use crate::broker::Contact;
use crate::client::local::Status;
use crate::os::runtime::{self, Address};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;

/// A broker that has said nothing for so long is not there: a living one is asked every few
/// seconds, whether there is work or not.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// Whoever asks reads the answer, or goes.
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// Names of unknown tasks that are told at the most.
const UNKNOWN_MAX: usize = 20;

/// How often it is looked whether the socket is still there.
const LOOK_EVERY: Duration = Duration::from_secs(3);

/// Questions that wait at the most.
const WAITING_MAX: usize = 64;

/// The troubles of this worker with its stores, shared by all that talk to them.
#[derive(Debug, Clone, Default)]
pub struct Pulse(Rc<RefCell<BTreeMap<&'static str, String>>>);

impl Pulse {
    /// What does not work, and why.
    pub fn fails(&self, what: &'static str, why: String) {
        self.0.borrow_mut().insert(what, why);
    }

    /// It works again.
    pub fn works(&self, what: &'static str) {
        self.0.borrow_mut().remove(what);
    }

    fn trouble(&self) -> Option<String> {
        self.0.borrow().iter().next().map(|(what, why)| format!("{what}: {why}"))
    }
}

/// A worker that can be asked.
pub struct Portrait {
    plan: std::sync::Arc<Plan>,
    contact: Contact,
    pulse: Pulse,
    start: Instant,
    guard: u32,
}

impl Portrait {
    /// Of the worker with this plan; `contact` tells of its broker.
    pub fn new(plan: std::sync::Arc<Plan>, contact: Contact, pulse: Pulse) -> Portrait {
        let guard = std::os::unix::process::parent_id();
        Portrait { plan, contact, pulse, start: Instant::now(), guard }
    }

    /// What it says now.
    pub fn status(&self, now: &Snapshot) -> Status {
        let (silence, trouble) = (self.contact)();
        let silent = (silence > SILENCE_MAX)
            .then(|| format!("the broker has said nothing for {:.0} s", silence.as_secs_f64()));
        let leaving = (now.state != State::Running).then(|| format!("it is {}", now.state.name()));
        let why = leaving
            .or_else(|| self.pulse.trouble())
            .or(trouble)
            .or_else(|| now.no_room.clone())
            .or(silent);
        Status {
            node: self.plan.hostname.clone(),
            app: self.plan.app.display().to_string(),
            broker: self.plan.broker.clone(),
            pid: std::process::id(),
            guard: self.guard,
            version: env!("CARGO_PKG_VERSION").into(),
            state: now.state.name().into(),
            ready: why.is_none(),
            why,
            polled: silence.as_secs_f64(),
            slots: now.slots,
            running: now.running,
            reserved: now.reserved,
            unknown: now.unknown.iter().take(UNKNOWN_MAX).map(ToString::to_string).collect(),
            log: crate::log::lost(),
            uptime: self.start.elapsed().as_secs_f64(),
        }
    }

    /// The same in a line.
    pub fn line(&self, now: &Snapshot) -> String {
        let status = self.status(now);
        let mut line = format!("{}: {} of {} slots", status.state, status.running, status.slots);
        if !now.unknown.is_empty() {
            line.push_str(&format!(", {} names of tasks unknown", now.unknown.len()));
        }
        for more in [status.why, status.log].into_iter().flatten() {
            line.push_str(&format!("; {more}"));
        }
        line
    }
}

/// The socket of this worker, while it lives.
#[derive(Debug)]
pub struct Door(Rc<RefCell<Option<Place>>>);

/// Where the socket is.
#[derive(Debug)]
struct Place {
    address: Address,
    /// Of the file; a later worker of the same name has replaced it by another.
    inode: Option<u64>,
}

impl Door {
    /// Opens the socket of the worker with this plan. Who asks there arrives at the receiver:
    /// the worker's own loop answers, so an answer is a proof that it turns. A socket that is
    /// removed, as by a logout or a tidying of `/tmp`, is made again, and one that cannot be is
    /// tried again.
    pub fn open(plan: &Plan) -> (Door, mpsc::Receiver<UnixStream>) {
        let door = Door(Rc::default());
        let (asked, questions) = mpsc::channel(WAITING_MAX);
        let what = format!("{}\0{}", plan.app.display(), plan.broker);
        let (node, place) = (plan.hostname.clone(), door.0.clone());
        let mut listener = listen(&node, &what, &place, true);
        tokio::task::spawn_local(async move {
            let mut looks = tokio::time::interval(LOOK_EVERY);
            looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    stream = accept(listener.as_ref()) => match stream {
                        // If too many wait already, one more hears nothing.
                        Ok(stream) => drop(asked.try_send(stream)),
                        // No descriptors are left: others close theirs.
                        Err(_) => tokio::time::sleep(ANSWER_MAX).await,
                    },
                    _ = looks.tick() => {
                        if !place.borrow().as_ref().is_some_and(Place::is_there) {
                            listener = listen(&node, &what, &place, false);
                        }
                    }
                }
            }
        });
        (door, questions)
    }
}

/// Opens a socket; without one the worker works all the same. With `tell` the log says why there
/// is none.
fn listen(
    node: &str,
    what: &str,
    place: &RefCell<Option<Place>>,
    tell: bool,
) -> Option<UnixListener> {
    let open = || {
        let (listener, address) = runtime::listen(node, what)?;
        listener.set_nonblocking(true)?;
        Ok::<_, io::Error>((UnixListener::from_std(listener)?, address))
    };
    match open() {
        Ok((listener, address)) => {
            let inode = Place::inode(&address);
            place.replace(Some(Place { address, inode }));
            Some(listener)
        }
        Err(error) => {
            if tell {
                tracing::warn!("no local socket, so `health` cannot ask: {error}");
            }
            place.replace(None);
            None
        }
    }
}

async fn accept(listener: Option<&UnixListener>) -> io::Result<UnixStream> {
    match listener {
        Some(listener) => listener.accept().await.map(|(stream, _)| stream),
        None => std::future::pending().await,
    }
}

impl Place {
    fn inode(address: &Address) -> Option<u64> {
        match address {
            Address::File(path) => path.symlink_metadata().ok().map(|found| found.ino()),
            Address::Name(..) => None,
        }
    }

    /// Is there a socket still, be it that of a later worker of the same name?
    fn is_there(&self) -> bool {
        matches!(self.address, Address::Name(..)) || Place::inode(&self.address).is_some()
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        if let Some(Place { address, inode }) = self.0.take()
            && let Address::File(path) = &address
            && Place::inode(&address) == inode
        {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Answers one question; nobody waits for who does not read.
pub fn answer(mut stream: UnixStream, status: &Status) {
    let text = serde_json::to_string(status).unwrap_or_default();
    tokio::task::spawn_local(async move {
        let _ = tokio::time::timeout(ANSWER_MAX, stream.write_all(text.as_bytes())).await;
    });
}
