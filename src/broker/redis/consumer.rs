//! Hands out messages. They are taken on one connection and watched on another.

use super::layout::{Layout, STEPS};
use super::member::Member;
use super::settler::Settler;
use super::unacked::{LEASE, Unacked};
use super::{Broker, instance, watch};
use crate::bounds;
use crate::broker::{Consume, Contact, Delivery, Results, Sorting, Tag, Want, WorkerIdentity};
use crate::link::error::{Error, StoreErrorKind};
use crate::link::redis::{Link, WORKER_PATIENCE};
use crate::link::url::Server;
use crate::os::lease::Lease;
use crate::wire::{Payload, STATE_OF};
use redis::{Script, Value};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// How often a worker that was not woken asks whether its lists are empty: this costs one command.
const ASK_EVERY: Duration = Duration::from_secs(5);

/// How often it looks in any case.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Pause before a queue is looked at again that held only messages for others; it doubles.
const VAIN_PAUSE: Duration = Duration::from_millis(10);

/// Doublings of [`VAIN_PAUSE`] where more messages are behind those for others.
const VAIN_BEHIND: u32 = 3;

/// See [`VAIN_PAUSE`].
const VAIN_PAUSE_MAX: Duration = Duration::from_secs(1);

/// How often a worker asks that the server does not notify.
const BLIND: Duration = Duration::from_millis(200);

static TAKE: LazyLock<Script> =
    LazyLock::new(|| super::script(&format!("{STATE_OF}{}", include_str!("take.lua"))));

/// See [`crate::broker::Consumer`].
pub struct Consumer {
    member: Arc<Member>,
    queues: Arc<[Arc<str>]>,
    /// Which queue is asked first; moves on with each take.
    turn: usize,
    sorting: Sorting,
    /// Keys of results begin so, if they are on this server.
    results: Option<String>,
    /// Looks in a row that found nothing but what is left to others.
    in_vain: u32,
    next_due: Option<f64>,
    /// When the last look left nothing behind, if the server notifies of anything new.
    dry: Option<Instant>,
    /// The server has just notified of something new.
    woken: bool,
    /// The last take after a notification found something: no other worker was quicker.
    was_first: bool,
    pushes: Pushes,
    /// What is wrong with keys, as it was logged last.
    told: String,
    losses: Option<mpsc::UnboundedReceiver<Vec<Tag>>>,
    lease: Option<Lease>,
    watching: tokio::task::JoinHandle<()>,
}

/// The lease by which others of this host see at once that a worker is dead. Without one they
/// wait for its signs of life, as those of other hosts do.
fn hold_lease(instance: &str) -> Option<Lease> {
    let made = instance::lease_of(instance).and_then(|path| {
        Lease::create(&path).map_err(|error| crate::os::file::naming(&path, &error))
    });
    made.inspect_err(|error| {
        tracing::warn!("no lease ({error}): others notice this worker's death only after 15 s");
    })
    .ok()
}

impl Consumer {
    /// Registers a worker, which holds a lease. Must be called inside a `LocalSet`.
    ///
    /// # Errors
    /// The server cannot be reached, or the guard cannot hold the lease.
    pub async fn open(broker: &Broker, who: WorkerIdentity<'_>) -> Result<Consumer, Error> {
        let server = broker.link.server();
        let instance = uuid::Uuid::new_v4().simple().to_string();
        // Held first: a registered worker without a lease is a dead one.
        let lease = hold_lease(&instance);
        if let Some(Err(error)) = lease.as_ref().map(|lease| (who.hold)(lease.path())) {
            return Err(Error::io("the guard cannot hold the lease", &error));
        }
        let hold = Arc::new(Unacked::new(instance));
        let link = Link::new(server, WORKER_PATIENCE, Vec::new())?;
        // A connection of its own: what is settled does not wait behind what is taken.
        let settling =
            Broker { link: Link::new(server, WORKER_PATIENCE, Vec::new())?, ..broker.clone() };
        let queues: Arc<[Arc<str>]> =
            who.queues.iter().map(|queue| Arc::from(&queue[..])).collect();
        let pushes = Pushes::new(server, &broker.layout, &queues)?;
        let (sender, losses) = mpsc::unbounded_channel();
        let member = Arc::new(Member::new(link, settling, hold, &who, sender));
        member.enter().await.map(drop)?;
        let watching = tokio::task::spawn_local(watch::run(member.clone()));
        Ok(Consumer {
            member,
            queues,
            turn: 0,
            sorting: Sorting::default(),
            results: None,
            in_vain: 0,
            next_due: None,
            dry: None,
            woken: false,
            was_first: true,
            pushes,
            told: String::new(),
            losses: Some(losses),
            lease,
            watching,
        })
    }

    /// Settles what this one takes.
    pub fn settler(&self) -> Settler {
        Settler::new(self.member.broker.clone(), self.member.hold.clone())
    }

    async fn ask(&self, queues: &[&Arc<str>], want: Want, first: u64) -> Result<Value, Error> {
        let layout = &self.member.layout;
        let hold = &self.member.hold;
        let mut call = TAKE.prepare_invoke();
        for step in STEPS {
            for queue in queues {
                call.key(layout.list(queue, step));
            }
        }
        for queue in queues {
            call.key(layout.scheduled(queue));
        }
        call.arg(self.member.epoch()).arg(hold.stem()).arg(first).arg(want.slots).arg(want.ahead);
        call.arg(LEASE.as_secs()).arg(STEPS.len()).arg(queues.len());
        call.arg(layout.unacked()).arg(layout.unacked_index()).arg(layout.worker(hold.instance()));
        call.arg(&STEPS.map(u32::from)[..]);
        for queue in queues {
            call.arg(&***queue);
        }
        for names in [&self.sorting.left, &self.sorting.parked] {
            call.arg(match names.is_empty() {
                true => String::new(),
                false => serde_json::json!(names.iter().map(|name| &**name).collect::<Vec<_>>())
                    .to_string(),
            });
        }
        call.arg(self.results.as_deref().unwrap_or_default());
        // A task that comes while there is nothing to do begins as soon as it can. Of many workers
        // that are woken at once, most find nothing, and do not spend the processor on it.
        match self.woken && self.was_first {
            true => self.member.link.run_at_once(async |c| call.invoke_async(c).await).await,
            false => self.member.link.run(async |c| call.invoke_async(c).await).await,
        }
    }

    /// Logs keys of another type, once until they change.
    fn tell_odd(&mut self, odd: String) {
        if odd != self.told && !odd.is_empty() {
            tracing::error!("{}: {odd}; no messages are taken from it", self.member.link.server());
        }
        self.told = odd;
    }
}

impl Consume for Consumer {
    async fn take(&mut self, want: Want) -> Result<Vec<Delivery>, Error> {
        self.dry = None;
        let queues: Vec<&Arc<str>> =
            self.queues.iter().cycle().skip(self.turn).take(self.queues.len()).collect();
        self.turn = (self.turn + 1) % self.queues.len().max(1);
        let mut entered = self.member.enter().await?;
        let first = self.member.hold.reserve(want.slots + want.ahead);
        let mut answer = self.ask(&queues, want, first).await;
        if answer.as_ref().is_err_and(|error| error.kind() == StoreErrorKind::Fenced) {
            // Someone took this worker for dead, or the server has lost what it knew.
            *entered = None;
            drop(entered);
            entered = self.member.enter().await?;
            answer = self.ask(&queues, want, first).await;
        }
        let Value::Array(found) = answer? else { return Ok(Vec::new()) };
        let mut found = found.into_iter();
        self.next_due = text(found.next()).parse().ok();
        let told = found.next();
        self.dry =
            (matches!(told, Some(Value::Int(1))) && self.pushes.is_armed()).then(Instant::now);
        let in_vain = match told {
            Some(Value::Int(2)) => self.in_vain.saturating_add(1),
            Some(Value::Int(3)) => VAIN_BEHIND,
            _ => 0,
        };
        let odd = text(found.next());
        let fates = text(found.next());
        let mut fates = fates.bytes();
        let mut taken = Vec::with_capacity(found.len() / 3);
        while let (Some(Value::Int(queue)), Some(Value::Int(step)), Some(element)) =
            (found.next(), found.next(), found.next())
        {
            let (deliveries, suspect, envelope) = counts(text(Some(element)));
            let payload = Payload::from_envelope(envelope);
            let message = payload.decode();
            let revoked = match (fates.next(), &message) {
                (Some(fate @ b'0'..=b'1'), Ok(message)) if is_first_id(&payload, &message.id) => {
                    Some(fate == b'1')
                }
                _ => None,
            };
            let message = Some(message);
            let queue = queues[queue as usize - 1].clone();
            let number = first + taken.len() as u64;
            self.member.hold.add(number, STEPS[step as usize - 1], queue.clone(), suspect);
            let tag = Tag::Number(number);
            taken.push(Delivery { tag, queue, payload, message, deliveries, suspect, revoked });
        }
        self.in_vain = if taken.is_empty() { in_vain } else { 0 };
        drop(entered);
        if std::mem::take(&mut self.woken) {
            self.was_first = !taken.is_empty();
        }
        self.tell_odd(odd);
        Ok(taken)
    }

    async fn wait(&mut self) {
        if self.in_vain > 0 {
            // Others come and go in these lists; each time it would be the same messages.
            let pause = VAIN_PAUSE * (1 << self.in_vain.min(7));
            tokio::time::sleep(pause.min(VAIN_PAUSE_MAX)).await;
        }
        if !self.pushes.is_armed() {
            // What came before the server was asked to tell is found by another look.
            if self.pushes.arm().await.is_err() {
                tokio::time::sleep(BLIND).await;
            }
            self.dry = None;
            return;
        }
        let mut left = LOOK_EVERY;
        if let Some(due) = self.next_due {
            // A score may be any number.
            let until = due - self.member.server_clock();
            let whole = if until > 0.0 { LOOK_EVERY } else { Duration::ZERO };
            left = left.min(Duration::try_from_secs_f64(until).unwrap_or(whole));
        }
        // A timeout is as good as a notification: the caller looks either way.
        while left > ASK_EVERY {
            let told = tokio::time::timeout(ASK_EVERY, self.pushes.link.pushed()).await.is_ok();
            // A server that does not answer is worth a look too.
            if told || self.pushes.arm().await.unwrap_or(true) {
                (self.dry, self.woken) = (None, told);
                return;
            }
            left -= ASK_EVERY;
        }
        let told = tokio::time::timeout(left, self.pushes.link.pushed()).await.is_ok();
        (self.dry, self.woken) = (None, told);
    }

    async fn close(self) -> Result<(), Error> {
        self.watching.abort();
        self.member.leave().await?;
        if let Some(lease) = &self.lease {
            let _ = std::fs::remove_file(lease.path());
        }
        Ok(())
    }

    fn sort(&mut self, names: Sorting) {
        (self.sorting, self.in_vain) = (names, 0);
    }

    fn see_results(&mut self, results: &Results) {
        self.results = match results {
            Results::Redis { server, stem, .. } if server == self.member.link.server() => {
                Some(stem.clone())
            }
            _ => None,
        };
    }

    fn is_dry(&self) -> bool {
        let is_due = self.next_due.is_some_and(|due| due <= self.member.server_clock());
        let is_dry = self.dry.is_some_and(|since| since.elapsed() < ASK_EVERY);
        is_dry && !is_due && self.pushes.is_armed()
    }

    fn losses(&mut self) -> Option<mpsc::UnboundedReceiver<Vec<Tag>>> {
        self.losses.take()
    }

    fn contact(&self) -> Contact {
        let link = self.member.link.clone();
        Box::new(move || link.heard())
    }
}

/// A connection on which the server notifies of changes (`CLIENT TRACKING`). What is read on it is
/// watched until it changes, so little is read: takes read much more.
struct Pushes {
    link: Link,
    lists: redis::Cmd,
    sets: redis::Cmd,
    armed: bool,
    /// The refusal of the server was logged.
    is_refused: bool,
}

impl Pushes {
    fn new(server: &Server, layout: &Layout, queues: &[Arc<str>]) -> Result<Pushes, Error> {
        let mut tracking = redis::cmd("CLIENT");
        tracking.arg("TRACKING").arg("ON");
        let link = Link::new(server, WORKER_PATIENCE, vec![tracking])?;
        let (mut lists, mut sets) = (redis::cmd("EXISTS"), redis::cmd("EXISTS"));
        for queue in queues {
            for step in STEPS {
                lists.arg(layout.list(queue, step));
            }
            sets.arg(layout.scheduled(queue));
        }
        Ok(Pushes { link, lists, sets, armed: false, is_refused: false })
    }

    /// Will the server notify of the next change?
    fn is_armed(&self) -> bool {
        self.armed && !self.link.is_told()
    }

    /// From now on it tells; gives whether there is anything in the lists.
    async fn arm(&mut self) -> Result<bool, Error> {
        self.armed = false;
        // Notifications count from here on.
        self.link.forget_told();
        let mut ask = redis::pipe();
        ask.add_command(self.lists.clone()).add_command(self.sets.clone()).ignore();
        let (found,): (u64,) = self
            .link
            .run(async |c| ask.query_async(c).await)
            .await
            .inspect_err(|error| self.refuse(error))?;
        self.armed = true;
        Ok(found > 0)
    }

    fn refuse(&mut self, error: &Error) {
        let refused = matches!(error.kind(), StoreErrorKind::Forbidden | StoreErrorKind::Refused);
        if refused && !std::mem::replace(&mut self.is_refused, true) {
            tracing::warn!(
                "{error}: without CLIENT TRACKING and EXISTS the server is asked for messages every {} ms",
                BLIND.as_millis()
            );
        }
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

/// A text of an answer; what is no UTF-8 is still a message, a malformed one.
fn text(value: Option<Value>) -> String {
    match value {
        Some(Value::BulkString(bytes)) => String::from_utf8(bytes)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()),
        Some(Value::SimpleString(text)) => text,
        _ => String::new(),
    }
}

/// Is this the id that `take.lua` looks up, the first in the text?
fn is_first_id(payload: &Payload, id: &str) -> bool {
    const NAME: &str = "\"id\":";
    let envelope = payload.to_envelope();
    let first = envelope.match_indices(NAME).find_map(|(at, _)| {
        let text = &envelope[at + NAME.len()..];
        let text = text.strip_prefix(' ').unwrap_or(text).strip_prefix('"')?;
        let end = text.find(['"', '\\'])?;
        text[end..].starts_with('"').then_some(&text[..end])
    });
    first == Some(id)
}

/// Takes the counts of `common.lua` off: deliveries, whether it is a suspect, and the
/// message as it was sent.
pub(super) fn counts(mut element: String) -> (u32, bool, String) {
    let read = |element: &str| {
        let rest = element.strip_prefix("{\"qworker\": [")?;
        let (counts, rest) = rest.split_once(']')?;
        let (deliveries, suspect) = counts.split_once(", ")?;
        let (message, start) = match rest.strip_prefix(", ") {
            Some(message) => (message, "{"),
            None => (rest.strip_prefix('}')?, ""),
        };
        let digits = !deliveries.is_empty() && deliveries.bytes().all(|b| b.is_ascii_digit());
        if !digits || !matches!(suspect, "0" | "1") {
            return None;
        }
        // From outside: a count that no number holds is the bound, and never none.
        let deliveries = deliveries.parse().unwrap_or(bounds::COUNT_MAX).min(bounds::COUNT_MAX);
        Some((deliveries, suspect == "1", element.len() - message.len(), start))
    };
    let Some((deliveries, suspect, end, start)) = read(&element) else {
        return (0, false, element);
    };
    element.replace_range(..end, start);
    (deliveries, suspect, element)
}

#[cfg(test)]
mod tests {
    use super::{Payload, counts, is_first_id};

    #[test]
    fn the_first_id_is_the_tasks_or_it_is_asked_again() {
        for (payload, expected) in [
            (r#"{"body": "", "headers": {"task": "t", "id": "a"}}"#, true),
            (r#"{"body":"","headers":{"task":"t","id":"a","x":{"id":"b"}}}"#, true),
            (r#"{"x": {"id": "b"}, "body": "", "headers": {"task": "t", "id": "a"}}"#, false),
            (r#"{"body": "", "headers": {"task": "t", "id": "a", "id": "b"}}"#, false),
            (r#"{"body": "", "headers": {"task": "t", "id": "a\u0062"}}"#, false),
            (r#"{"body": "", "headers": {"task": "t", "id": 7}}"#, false),
        ] {
            let payload = Payload::from_envelope(payload);
            let id = payload.decode().unwrap().id;
            assert_eq!(is_first_id(&payload, &id), expected, "{payload:?}");
        }
    }

    #[test]
    fn counts_come_off_and_leave_the_message() {
        for (element, expected) in [
            (r#"{"body": ""}"#, (0, false, r#"{"body": ""}"#)),
            (r#"{"qworker": [2, 1], "body": ""}"#, (2, true, r#"{"body": ""}"#)),
            (r#"{"qworker": [1, 0]}no envelope"#, (1, false, "no envelope")),
            (r#"{"qworker": [4294967296, 0], "a": 1}"#, (1_000_000, false, r#"{"a": 1}"#)),
            (r#"{"qworker": [-1, 0]}x"#, (0, false, r#"{"qworker": [-1, 0]}x"#)),
            (r#"{"qworker": [+1, 0]}x"#, (0, false, r#"{"qworker": [+1, 0]}x"#)),
            (r#"{"qworker": [1, 2]}x"#, (0, false, r#"{"qworker": [1, 2]}x"#)),
            (r#"{"qworker": [1]}x"#, (0, false, r#"{"qworker": [1]}x"#)),
            ("", (0, false, "")),
        ] {
            let (deliveries, suspect, message) = counts(element.into());
            assert_eq!((deliveries, suspect, &message[..]), expected);
        }
    }
}
