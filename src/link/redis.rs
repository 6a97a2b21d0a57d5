//! One connection to a Redis server, opened when it is first used and again after it broke.
//!
//! What is asked is sent once: whether to ask again is the caller's matter, for only the caller
//! knows what a command that was perhaps carried out may do a second time. A connection that
//! did not answer in time is given up, since its answer would come to nobody; what it carries
//! may reach the server later, and a caller that minds has to fence it
//! (see `broker/redis/take.lua`).

use super::error::{Error, StoreErrorKind};
use super::tls;
use super::url::{Endpoint, Server};
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, IntoConnectionInfo, ProtocolVersion,
    PushInfo, PushKind, RedisConnectionInfo, RedisError, RedisResult, ServerErrorKind,
    io::tcp::{TcpSettings, socket2::TcpKeepalive},
};
use rustls::ClientConfig;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, Notify};

/// How long a worker waits for an answer before it tries another connection. A server that is
/// slow for its reasons is given twice as long each time, up to [`WORKER_PATIENCE_MAX`].
pub const WORKER_PATIENCE: Duration = Duration::from_secs(2);

/// How long one who is in a hurry looks for the answer without a sleep: a server on this machine or
/// next to it answers within that time, and one that is far costs no more than that.
const EAGER: Duration = Duration::from_micros(100);

/// See [`Link::run_eagerly`].
const STREAK: Duration = Duration::from_micros(500);

/// See [`WORKER_PATIENCE`].
const WORKER_PATIENCE_MAX: Duration = Duration::from_secs(30);

/// A connection that has been idle for longer is asked whether it still leads anywhere before it
/// carries something: a firewall may have forgotten it, which none does so soon. Longer than the pauses of
/// a worker without work, or it would ask before each of its own questions.
const IDLE: Duration = Duration::from_secs(8);

/// How often an idle connection sends a keepalive: firewalls forget one after a minute
/// at the earliest.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// A handle to one connection. Clones share it.
#[derive(Clone)]
pub struct Link(Arc<Shared>);

struct Shared {
    server: Server,
    dial: Dial,
    /// Sent on each new connection before anything else.
    greeting: Vec<Cmd>,
    patience: Duration,
    /// Answers that did not come in time, in a row.
    late: AtomicU32,
    /// The connection and its number.
    connection: Mutex<(u32, Option<Open>)>,
    /// When the server last answered, or the link was made; and what went wrong since.
    heard: std::sync::Mutex<(Instant, Option<String>)>,
    /// When there was last an answer on the connection there is.
    used: std::sync::Mutex<Instant>,
    /// When [`Link::run_eagerly`] had its last answer.
    answered: std::sync::Mutex<Option<Instant>>,
    pushed: Arc<Notify>,
    /// The server has said something since this was last asked, or the connection is gone.
    told: Arc<AtomicBool>,
}

#[derive(Clone)]
struct Open {
    connection: MultiplexedConnection,
    /// It is known to have ended.
    ended: Arc<AtomicBool>,
}

impl Link {
    /// A link to `server` that asks for `greeting` on each new connection; nothing is sent
    /// yet.
    ///
    /// # Errors
    /// A certificate cannot be read.
    pub fn new(server: &Server, patience: Duration, greeting: Vec<Cmd>) -> Result<Link, Error> {
        let dial = Dial::new(server)?;
        Ok(Link(Arc::new(Shared {
            server: server.clone(),
            dial,
            greeting,
            patience,
            late: AtomicU32::new(0),
            connection: Mutex::default(),
            heard: std::sync::Mutex::new((Instant::now(), None)),
            used: std::sync::Mutex::new(Instant::now()),
            answered: std::sync::Mutex::default(),
            pushed: Arc::default(),
            told: Arc::default(),
        })))
    }

    /// Do both handles lead to the same connection?
    pub fn same(&self, other: &Link) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// The server it leads to.
    pub fn server(&self) -> &Server {
        &self.0.server
    }

    /// The number of the connection, which is opened if there is none: it changes with each.
    pub async fn session(&self) -> Result<u32, Error> {
        let opened = tokio::time::timeout(self.0.patience, self.connection());
        let opened = opened.await;
        let late = |_| Err(self.silent(self.0.patience, StoreErrorKind::Busy));
        match opened.unwrap_or_else(late) {
            Ok((number, _)) => Ok(number),
            Err(error) => {
                lock(&self.0.heard).1 = Some(error.to_string());
                Err(error)
            }
        }
    }

    /// Does `work` on the connection, within the link's patience.
    ///
    /// # Errors
    /// Names the server and what it said, or that it said nothing in time.
    pub async fn run<T>(
        &self,
        work: impl AsyncFnOnce(&mut MultiplexedConnection) -> RedisResult<T>,
    ) -> Result<T, Error> {
        let patience = self.patience();
        let mut number = None;
        let done = tokio::time::timeout(patience, async {
            let (opened, mut connection) = self.connection().await?;
            number = Some(opened);
            work(&mut connection)
                .await
                .map_err(|error| self.trouble(error, StoreErrorKind::Unheard))
        })
        .await;
        let error = match done {
            Ok(Ok(value)) => {
                self.0.late.store(0, Ordering::Relaxed);
                *lock(&self.0.heard) = (Instant::now(), None);
                *lock(&self.0.used) = Instant::now();
                return Ok(value);
            }
            Ok(Err(error)) => error,
            Err(_) => {
                self.0.late.fetch_add(1, Ordering::Relaxed);
                let kind =
                    if number.is_some() { StoreErrorKind::Unheard } else { StoreErrorKind::Busy };
                self.silent(patience, kind)
            }
        };
        // A server that refuses a command is a server that is there; one that lets nobody in is not.
        let broken = matches!(error.kind(), StoreErrorKind::Busy | StoreErrorKind::Unheard);
        if broken || number.is_none() {
            lock(&self.0.heard).1 = Some(error.to_string());
        }
        if let Some(number) = number.filter(|_| broken) {
            self.give_up(number).await;
        }
        Err(error)
    }

    /// As [`Link::run`], for who asks one thing after the other and has nothing else to do: when
    /// the last answer is just [`STREAK`] old, it asks as [`Link::run_at_once`]; but whoever asks
    /// now and then leaves the processor to the others.
    ///
    /// # Errors
    /// As [`Link::run`].
    pub async fn run_eagerly<T>(
        &self,
        work: impl AsyncFnOnce(&mut MultiplexedConnection) -> RedisResult<T>,
    ) -> Result<T, Error> {
        let is_streak = lock(&self.0.answered).is_some_and(|last| last.elapsed() < STREAK);
        let done = match is_streak {
            true => self.run_at_once(work).await,
            false => self.run(work).await,
        };
        *lock(&self.0.answered) = Some(Instant::now());
        done
    }

    /// As [`Link::run`], for who is waited for: it looks for the answer again and again for
    /// [`EAGER`] before it sleeps. Falling asleep and waking up take longer than a server that
    /// is near.
    ///
    /// # Errors
    /// As [`Link::run`].
    pub async fn run_at_once<T>(
        &self,
        work: impl AsyncFnOnce(&mut MultiplexedConnection) -> RedisResult<T>,
    ) -> Result<T, Error> {
        let mut done = std::pin::pin!(self.run(work));
        let start = Instant::now();
        while start.elapsed() < EAGER {
            tokio::select! {
                biased;
                done = &mut done => return done,
                () = tokio::task::yield_now() => {}
            }
        }
        done.await
    }

    /// Resolves when the server has said something on its own since this was last called, or
    /// the connection is gone.
    pub async fn pushed(&self) {
        self.0.pushed.notified().await;
    }

    /// Has the server said something on its own, or the connection gone, since
    /// [`Link::forget_told`]?
    pub fn is_told(&self) -> bool {
        self.0.told.load(Ordering::Relaxed)
    }

    /// What was said until now is known.
    pub fn forget_told(&self) {
        self.0.told.store(false, Ordering::Relaxed);
    }

    /// How long ago the server answered, or the link was made; and what went wrong since.
    pub fn heard(&self) -> (Duration, Option<String>) {
        let (at, trouble) = &*lock(&self.0.heard);
        (at.elapsed(), trouble.clone())
    }

    /// How long an answer is waited for now.
    pub fn patience(&self) -> Duration {
        let late = self.0.late.load(Ordering::Relaxed).min(4);
        (self.0.patience * (1 << late)).min(WORKER_PATIENCE_MAX.max(self.0.patience))
    }

    async fn connection(&self) -> Result<(u32, MultiplexedConnection), Error> {
        let mut slot = self.0.connection.lock().await;
        if let (number, Some(open)) = &*slot
            && self.leads_anywhere(open).await
        {
            return Ok((*number, open.connection.clone()));
        }
        if slot.1.take().is_some() {
            // Nothing was under way on it, so nobody needs to know; but it tells nothing any more.
            self.tell();
        }
        let ended = Arc::new(AtomicBool::new(false));
        let end = ended.clone();
        let (pushed, told) = (self.0.pushed.clone(), self.0.told.clone());
        let listen = move |info: PushInfo| -> Result<(), ()> {
            let kinds = [PushKind::Invalidate, PushKind::Message, PushKind::Disconnection];
            if info.kind == PushKind::Disconnection {
                end.store(true, Ordering::Relaxed);
            }
            if kinds.contains(&info.kind) {
                told.store(true, Ordering::Relaxed);
                pushed.notify_one();
            }
            Ok(())
        };
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.0.patience))
            .set_response_timeout(None)
            .set_push_sender(listen);
        let mut connection = self.open(config).await?;
        for command in &self.0.greeting {
            let answered = command.query_async::<()>(&mut connection).await;
            answered.map_err(|error| self.trouble(error, StoreErrorKind::Busy))?;
        }
        slot.0 += 1;
        slot.1 = Some(Open { connection: connection.clone(), ended });
        *lock(&self.0.used) = Instant::now();
        Ok((slot.0, connection))
    }

    async fn open(&self, config: AsyncConnectionConfig) -> Result<MultiplexedConnection, Error> {
        let server = &self.0.server;
        match (&self.0.dial, &server.endpoint) {
            (Dial::Tls(greeting, secrets), Endpoint::Tls(host, port, settings)) => {
                let connecting = tls::connect(server, (host, *port), settings, secrets.clone());
                let opened = tokio::time::timeout(self.0.patience, async {
                    let stream = connecting.await?;
                    let begun = MultiplexedConnection::new_with_config(greeting, stream, config);
                    begun.await.map_err(|error| self.trouble(error, StoreErrorKind::Busy))
                });
                let opened = opened
                    .await
                    .unwrap_or_else(|_| Err(self.silent(self.0.patience, StoreErrorKind::Busy)));
                let (connection, driver) = opened?;
                // It ends with the last handle to the connection.
                tokio::spawn(driver);
                Ok(connection)
            }
            (Dial::Plain(client), _) => {
                let opened = client.get_multiplexed_async_connection_with_config(&config).await;
                opened.map_err(|error| self.trouble(error, StoreErrorKind::Busy))
            }
            (Dial::Tls(..), _) => Err(Error::misuse(format!("{server}: no address for TLS"))),
        }
    }

    /// Can something be asked over this connection? One that was idle is asked first.
    async fn leads_anywhere(&self, open: &Open) -> bool {
        if open.ended.load(Ordering::Relaxed) {
            return false;
        }
        if lock(&self.0.used).elapsed() < IDLE {
            return true;
        }
        let mut connection = open.connection.clone();
        let ping = redis::cmd("PING");
        let answered = ping.query_async::<redis::Value>(&mut connection);
        // Whoever waits has as long again for a new connection.
        let answered = tokio::time::timeout(self.patience() / 2, answered).await;
        // A refusal is an answer.
        let leads = answered.is_ok_and(|answer| {
            answer.err().is_none_or(|error| error.into_server_errors().is_some())
        });
        if leads {
            *lock(&self.0.used) = Instant::now();
        }
        leads
    }

    fn tell(&self) {
        self.0.told.store(true, Ordering::Relaxed);
        self.0.pushed.notify_one();
    }

    async fn give_up(&self, number: u32) {
        let mut slot = self.0.connection.lock().await;
        if slot.0 == number {
            slot.1 = None;
            // Whatever it would have told is not told.
            self.tell();
        }
    }

    fn silent(&self, patience: Duration, kind: StoreErrorKind) -> Error {
        Error::of(kind, format!("{}: {}", self.0.server, Error::late(patience)))
    }

    /// What the client library or the server said, with the server's name; `unheard` is what it
    /// means that there was no answer.
    fn trouble(&self, error: RedisError, unheard: StoreErrorKind) -> Error {
        if error.is_timeout() {
            return self.silent(self.0.patience, unheard);
        }
        let unheard = match error.kind() {
            redis::ErrorKind::AuthenticationFailed => StoreErrorKind::Other,
            _ => unheard,
        };
        if error.kind() == redis::ErrorKind::Parse {
            let text = format!("{}: who answers there is no Redis server", self.0.server);
            return Error::of(StoreErrorKind::Busy, text);
        }
        let text = error.detail().map_or_else(|| error.to_string(), str::to_string);
        // Of a transaction the first refusal tells why.
        let answers = error.into_server_errors();
        let Some((_, answer)) = answers.as_ref().and_then(|answers| answers.first()) else {
            return Error::of(unheard, format!("{}: {text}", self.0.server));
        };
        let kind = match (answer.kind(), answer.code()) {
            (
                Some(
                    ServerErrorKind::BusyLoading
                    | ServerErrorKind::MasterDown
                    | ServerErrorKind::ReadOnly,
                ),
                _,
            ) => StoreErrorKind::Busy,
            (_, "FENCED") => StoreErrorKind::Fenced,
            (_, "OOM" | "MISCONF") => StoreErrorKind::Full,
            (_, "WRONGTYPE") => StoreErrorKind::Refused,
            // Of a connection that is being opened the next try may tell otherwise.
            (_, "ERR") if unheard == StoreErrorKind::Unheard => StoreErrorKind::Failed,
            (_, "ERR") => StoreErrorKind::Busy,
            (_, "NOPERM") => StoreErrorKind::Forbidden,
            // One of ours: a key that all messages go through is something else.
            (_, "BROKEN") => StoreErrorKind::Damaged,
            _ => StoreErrorKind::Other,
        };
        let said = match answer.code() {
            // The server's own sentence is about a command that nobody typed.
            "NOAUTH" => "NOAUTH the server wants a password".to_string(),
            code => {
                // Where in a script it was is nobody's business, and BROKEN is a word of ours: a
                // code of the server stands behind it.
                let details = answer.details().unwrap_or_default();
                let said = details.split(" script: ").next().unwrap_or_default();
                if code == "BROKEN" { said.to_string() } else { format!("{code} {said}") }
            }
        };
        Error::of(kind, format!("{}: {}", self.0.server, said.trim_end()))
    }
}

fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // What it guards is replaced as a whole, so a panic leaves it sound.
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// How a connection is opened.
enum Dial {
    /// By the client library.
    Plain(Client),
    /// By us; the library goes on from there.
    Tls(RedisConnectionInfo, Arc<ClientConfig>),
}

impl Dial {
    fn new(server: &Server) -> Result<Dial, Error> {
        let address = match &server.endpoint {
            Endpoint::Tls(.., settings) => {
                return Ok(Dial::Tls(greeting_of(server), tls::config(settings)?));
            }
            Endpoint::Tcp(host, port) => ConnectionAddr::Tcp(host.clone(), *port),
            Endpoint::Socket(path) => ConnectionAddr::Unix(path.clone()),
        };
        let wrong = |error: RedisError| Error::misuse(format!("{server}: {error}"));
        let info = address.into_connection_info().map_err(wrong)?;
        // A small command does not wait for company.
        let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE);
        let tcp = TcpSettings::default().set_nodelay(true).set_keepalive(keepalive);
        let info = info.set_tcp_settings(tcp);
        Client::open(info.set_redis_settings(greeting_of(server))).map(Dial::Plain).map_err(wrong)
    }
}

/// Who we are, and what we want.
fn greeting_of(server: &Server) -> RedisConnectionInfo {
    let mut settings = RedisConnectionInfo::default()
        .set_protocol(ProtocolVersion::RESP3)
        .set_db(i64::from(server.db))
        .set_lib_name("qworker", env!("CARGO_PKG_VERSION"));
    if let Some(user) = &server.user {
        settings = settings.set_username(user);
    }
    if let Some(password) = &server.password {
        settings = settings.set_password(password.reveal());
    }
    settings
}
