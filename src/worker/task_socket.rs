//! The socket where running tasks reach the worker: one for all, and a token for each attempt, so
//! that a start costs no system call. It reads requests and writes answers; the core decides.
//!
//! Each connection has one request at a time, and what is wrong with it ends it alone.

use super::core::Event;
use super::request::AttemptKey;
use super::told::{Asked, Reply};
use crate::os::task_socket::{self, SocketFile};
use crate::runner::{Access, OnAsked, Worker};
use crate::wire::task_protocol::{
    self as protocol, Answer, FRAME_MAX, HEAD, Refusal, Request, VERSION,
};
use rustc_hash::FxHashMap;
use serde_json::json;
use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout};

/// Connections at once, of all attempts: each is a descriptor of the worker.
const CONNECTIONS_MAX: usize = 1024;

/// Connections at once of one attempt, so that others have some.
const CONNECTIONS_OF_ONE_MAX: usize = 256;

/// What a request is taken to cost, so that one attempt has at most a thousand in a second: they are
/// read on the worker's loop.
const COST: Duration = Duration::from_millis(1);

/// Bytes of a request and its answer that cost as much as another request.
const BYTES_OF_COST: usize = 4096;

/// Requests beyond the rate are served at once that cost so much together.
const BURST: Duration = Duration::from_secs(1);

/// A frame of more bytes is large, and few are read at once: so many times [`FRAME_MAX`] is what
/// attempts can make the worker hold.
const LARGE: usize = 64 * 1024;

/// See [`LARGE`].
const LARGE_MAX: usize = 8;

/// How long the first request may take.
const HELLO_MAX: Duration = Duration::from_secs(5);

/// How long a frame may take that has begun, and an answer to be read.
const FRAME_WAIT: Duration = Duration::from_secs(10);

/// How often the socket's file is looked for.
const CHECK_EVERY: Duration = Duration::from_secs(3);

/// How long is waited if no descriptor is left.
const SHORT_WAIT: Duration = Duration::from_secs(1);

/// See the module.
pub(super) struct TaskSocket {
    /// None if it cannot be opened.
    shared: Option<Rc<Shared>>,
    on_asked: OnAsked,
}

struct Shared {
    address: Arc<str>,
    attempts: RefCell<FxHashMap<AttemptKey, Rc<Permit>>>,
    connections: Cell<usize>,
    large: Semaphore,
    on_asked: OnAsked,
}

/// An attempt that may connect.
struct Permit {
    key: AttemptKey,
    secret: u128,
    connections: Cell<usize>,
    /// Until when its requests have used up the rate.
    used_up: Cell<Instant>,
    is_over: Cell<bool>,
    over: Notify,
}

impl TaskSocket {
    /// Opens the socket; the worker also works without one.
    pub(super) fn open(events: mpsc::UnboundedSender<Event>) -> TaskSocket {
        let on_asked: OnAsked = Arc::new(move |key, ask| {
            let (reply, answer) = Reply::new();
            // If the loop is gone, so is the reply.
            let _ = events.send(Event::Asked(key, Box::new(Asked { ask, reply })));
            answer
        });
        let opened = task_socket::listen().and_then(|(listener, place)| {
            listener.set_nonblocking(true)?;
            Ok((UnixListener::from_std(listener)?, place))
        });
        let (listener, place) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                tracing::warn!("no socket for tasks, so they cannot use `qworker task`: {error}");
                return TaskSocket { shared: None, on_asked };
            }
        };
        let shared = Rc::new(Shared {
            address: place.address().into(),
            attempts: RefCell::default(),
            connections: Cell::new(0),
            large: Semaphore::new(LARGE_MAX),
            on_asked: on_asked.clone(),
        });
        tokio::task::spawn_local(listen(shared.clone(), listener, place));
        TaskSocket { shared: Some(shared), on_asked }
    }

    /// Lets an attempt connect that is about to start.
    pub(super) fn admit(&self, key: AttemptKey) -> Option<Access> {
        let shared = self.shared.as_ref()?;
        let secret = uuid::Uuid::new_v4().as_u128();
        let attempt = Permit {
            key,
            secret,
            connections: Cell::new(0),
            used_up: Cell::new(Instant::now()),
            is_over: Cell::new(false),
            over: Notify::new(),
        };
        shared.attempts.borrow_mut().insert(key, Rc::new(attempt));
        Some(Access { address: shared.address.clone(), token: format!("{key:x}-{secret:032x}") })
    }

    /// How an attempt that runs in a thread reaches the loop: without the socket.
    pub(super) fn of_thread(&self, key: AttemptKey) -> Worker {
        Worker { key, on_asked: self.on_asked.clone() }
    }

    /// Closes the connections of an attempt that has ended; it gets no others.
    pub(super) fn dismiss(&self, key: AttemptKey) {
        let Some(shared) = &self.shared else { return };
        if let Some(attempt) = shared.attempts.borrow_mut().remove(&key) {
            attempt.is_over.set(true);
            attempt.over.notify_waiters();
        }
    }
}

async fn listen(shared: Rc<Shared>, listener: UnixListener, mut place: SocketFile) {
    let mut listener = listener;
    let mut checks = interval(CHECK_EVERY);
    checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let shared = shared.clone();
                    tokio::task::spawn_local(async move { shared.serve(stream).await });
                }
                Err(_) => sleep(SHORT_WAIT).await,
            },
            _ = checks.tick() => {
                if place.is_gone()
                    && let Ok(again) = place.reopen().and_then(UnixListener::from_std)
                {
                    listener = again;
                }
            }
        }
    }
}

/// Counts one more as long as it lives.
struct Counted<'a>(&'a Cell<usize>);

impl<'a> Counted<'a> {
    /// `None` if there are as many as may be.
    fn new(count: &'a Cell<usize>, max: usize) -> Option<Counted<'a>> {
        if count.get() >= max {
            return None;
        }
        count.set(count.get() + 1);
        Some(Counted(count))
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Shared {
    /// Serves one connection to its end.
    async fn serve(&self, mut stream: UnixStream) {
        let busy = || Refusal::new("busy", "too many connections; try again later");
        let Some(_counted) = Counted::new(&self.connections, CONNECTIONS_MAX) else {
            return write(&mut stream, None, &Err(busy())).await.unwrap_or_default();
        };
        let hello = timeout(HELLO_MAX, self.hello(&mut stream)).await;
        let Ok(Some(attempt)) = hello else { return };
        let Some(_own) = Counted::new(&attempt.connections, CONNECTIONS_OF_ONE_MAX) else {
            return write(&mut stream, None, &Err(busy())).await.unwrap_or_default();
        };
        let mut over = std::pin::pin!(attempt.over.notified());
        over.as_mut().enable();
        if attempt.is_over.get() {
            return;
        }
        tokio::select! {
            _ = self.converse(&mut stream, &attempt) => {}
            () = over => {
                let _ = write(&mut stream, None, &Err(Refusal::ended())).await;
            }
        }
    }

    /// Reads the first request, and finds out whose it is; `None` if that was answered with the
    /// reason why it is nobody's.
    async fn hello(&self, stream: &mut UnixStream) -> Option<Rc<Permit>> {
        let frame = self.read(stream).await?;
        let (id, found) = match Request::read(&frame) {
            Ok(request) => {
                let hello = request.hello();
                (Some(request.id), hello.and_then(|hello| self.find(&hello.token)))
            }
            Err(refusal) => (None, Err(refusal)),
        };
        let worker = concat!("qworker ", env!("CARGO_PKG_VERSION"));
        let answer = json!({"version": VERSION, "worker": worker}).to_string();
        let answer = found.as_ref().map(|_| answer).map_err(Clone::clone);
        write(stream, id, &answer).await.ok()?;
        found.ok()
    }

    /// The attempt whose token this is.
    fn find(&self, token: &str) -> Result<Rc<Permit>, Refusal> {
        let parts = token.split_once('-').and_then(|(key, secret)| {
            let (key, secret) =
                (u64::from_str_radix(key, 16).ok()?, u128::from_str_radix(secret, 16).ok()?);
            Some((key, secret))
        });
        let attempts = self.attempts.borrow();
        let found = parts.and_then(|(key, secret)| {
            attempts.get(&key).filter(|attempt| attempt.secret == secret).cloned()
        });
        found.ok_or_else(|| {
            Refusal::new("token", "the token is not that of a task that runs here now")
        })
    }

    /// Answers one request after the other.
    async fn converse(&self, stream: &mut UnixStream, attempt: &Permit) -> Option<()> {
        loop {
            let frame = self.read(stream).await?;
            attempt.pace().await;
            let (id, answer) = match Request::read(&frame) {
                Ok(request) => (request.id, self.answer(&request, attempt).await),
                Err(refusal) => {
                    let _ = write(stream, None, &Err(refusal)).await;
                    return None;
                }
            };
            attempt.charge(frame.len() + answer.as_ref().map_or(0, String::len));
            drop(frame);
            write(stream, Some(id), &answer).await.ok()?;
        }
    }

    async fn answer(&self, request: &Request<'_>, attempt: &Permit) -> Answer {
        let ask = request.ask()?;
        (self.on_asked)(attempt.key, ask).await.unwrap_or_else(|_| Err(Refusal::ended()))
    }

    /// Reads a frame. `None` if there is none: the client has gone, or was told what is wrong.
    async fn read(&self, stream: &mut UnixStream) -> Option<Vec<u8>> {
        let mut head = [0; HEAD];
        stream.read_exact(&mut head[..1]).await.ok()?;
        let rest = async {
            stream.read_exact(&mut head[1..]).await?;
            let length = match protocol::length(head) {
                Ok(length) => length,
                Err(refusal) => return Ok(Err(refusal)),
            };
            let _few = match length > LARGE {
                true => self.large.acquire().await.ok(),
                false => None,
            };
            let mut frame = Vec::new();
            // A length is only a promise: memory is taken as bytes come.
            (&mut *stream).take(length as u64).read_to_end(&mut frame).await?;
            if frame.len() < length {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            Ok::<_, io::Error>(Ok(frame))
        };
        match timeout(FRAME_WAIT, rest).await {
            Ok(Ok(Ok(frame))) => Some(frame),
            Ok(Ok(Err(refusal))) => {
                let _ = write(stream, None, &Err(refusal)).await;
                None
            }
            Ok(Err(_)) => None,
            Err(_) => {
                let text = format!("frame: not whole within {} s", FRAME_WAIT.as_secs());
                let _ = write(stream, None, &Err(Refusal::new("malformed", text))).await;
                None
            }
        }
    }
}

impl Permit {
    /// Waits if the attempt has asked for too much.
    async fn pace(&self) {
        let used_up = self.used_up.get();
        if let Some(end) = used_up.checked_sub(BURST)
            && end > Instant::now()
        {
            sleep_until(end).await;
        }
    }

    /// Counts a request with so many bytes.
    fn charge(&self, bytes: usize) {
        let count = u32::try_from(1 + bytes / BYTES_OF_COST).unwrap_or(u32::MAX);
        self.used_up.set(self.used_up.get().max(Instant::now()) + COST * count);
    }
}

/// Writes an answer; to a client that does not read, in vain.
async fn write(stream: &mut UnixStream, id: Option<u64>, answer: &Answer) -> io::Result<()> {
    let frame = protocol::frame(&protocol::answer(id, answer));
    timeout(FRAME_WAIT, stream.write_all(&frame))
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

// What attempts can make the worker hold stays below what it can bear.
const _: () = assert!(LARGE_MAX * FRAME_MAX + CONNECTIONS_MAX * LARGE <= 128 * 1024 * 1024);
