//! Hands out messages, and what dead workers held.

use super::member::{self, Card, Liveness, Member};
use super::settler::Settler;
use super::take::{LookUp, Taking, tell_revoked};
use super::{Broker, WAKEUP, malformed, queue_id};
use crate::broker::loss::loss;
use crate::broker::{Consume, Delivery, Results, Sorting, TaskNames, Want, WorkerIdentity};
use crate::clock;
use crate::link::error::Error;
use crate::link::sqlite::{Durability, cell, log_of};
use crate::os::rundir;
use crate::os::wakeup::Watcher;
use chrono::{DateTime, Utc};
use rusqlite::{Connection, params};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often a worker looks for dead ones and for changes without a notification.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// Most scheduled messages made ready in one step: a hundred thousand that are due at once must
/// not hold the lock for seconds.
const DUE_MAX: usize = 512;

/// A Python writer notifies nobody; its write to the WAL is seen *before* its commit, so a
/// worker looks again after these pauses.
const ECHOES_MS: [u64; 5] = [1, 2, 5, 15, 50];

/// How often a waiting worker looks where the kernel does not notify of changes.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// See [`crate::broker::Consumer`].
pub struct Consumer {
    broker: Broker,
    member: Member,
    names: Arc<[String]>,
    queues: Queues,
    /// Which queue is asked first; moves on with each take.
    turn: usize,
    left: TaskNames,
    /// Tells which tasks were revoked, if results are in this file.
    results: Option<LookUp>,
    watcher: Watcher,
    swept: Option<Instant>,
    scan: malformed::ScanPosition,
    next_due: Option<f64>,
    echo: usize,
}

/// Numbers and names, as they are in the file that is open.
type Queues = Arc<[(i64, Arc<str>)]>;

/// What a look into the file gives.
struct TakeResult {
    taken: Vec<Delivery>,
    /// Some were left to others: their rows have the name now.
    passed: bool,
    next_due: Option<f64>,
    /// This worker was not known there.
    queues: Option<Queues>,
    /// The last row that was looked at, and what was malformed up to it.
    scanned: Option<(i64, Vec<String>)>,
}

impl Consumer {
    /// Registers a worker that holds a lease, which `who.hold` has its guard hold too.
    ///
    /// # Errors
    /// The file cannot be written.
    pub async fn open(broker: &Broker, who: WorkerIdentity<'_>) -> Result<Consumer, Error> {
        let path = broker.db.path();
        // Held first: a registered worker without a lease may be taken for a dead one.
        let member = Member::new(path, who.hostname, who.hold);
        let (card, names): (_, Arc<[String]>) = (member.card.clone(), who.queues.into());
        let wanted = names.clone();
        let queues = broker
            .db
            .run(Durability::Process, move |c| {
                card.register(c)?;
                queues_of(c, &wanted)
            })
            .await?;
        Ok(Consumer {
            broker: broker.clone(),
            member,
            names,
            queues,
            turn: 0,
            left: Arc::default(),
            results: None,
            watcher: listen(path),
            swept: None,
            scan: malformed::ScanPosition::default(),
            next_due: None,
            echo: ECHOES_MS.len(),
        })
    }

    /// Settles what this one takes.
    pub fn settler(&self) -> Settler {
        Settler::new(&self.broker, self.member.card.id)
    }

    /// A watch that fails is no reason to take nothing: we look once a second anyway.
    fn pause_watcher(&self, paused: bool) {
        if let Err(error) = self.watcher.pause(paused) {
            tracing::debug!("cannot watch the database: {error}");
        }
    }

    /// Hands out again what dead workers held.
    async fn sweep(&mut self) -> Result<(), Error> {
        let path = self.broker.db.path().to_path_buf();
        // Its own first: others judge by it.
        self.member.keep(&path);
        let me = self.member.card.id;
        let look = move |c: &Connection| Ok((Card::others(c, me)?, member::strangers(c, me)?));
        let (others, strangers) = self.broker.db.run(Durability::Read, look).await?;
        if !strangers.is_empty() {
            self.bury_strangers(&strangers, &others).await?;
        }
        for other in others {
            match other.judge(&path) {
                Liveness::Alive => {}
                Liveness::Unseen(why) => self.member.tell_unseen(&other, &path, &why),
                Liveness::Dead => {
                    let (id, now) = (other.id, clock::now());
                    self.broker.db.run(Durability::Process, move |c| orphan(c, id, now)).await?;
                    if rundir::open(&path).is_ok() {
                        // Gone already if another worker was quicker.
                        let _ = std::fs::remove_file(other.lease(&path));
                    }
                    self.broker.notify();
                }
            }
        }
        Ok(())
    }

    /// Hands out again what is held by workers that are not registered.
    async fn bury_strangers(&mut self, strangers: &[i64], others: &[Card]) -> Result<(), Error> {
        let path = self.broker.db.path().to_path_buf();
        if let Some(why) = self.member.doubt(others, &path) {
            strangers.iter().for_each(|owner| self.member.tell_unknown(*owner, &why));
            return Ok(());
        }
        let (me, now) = (self.member.card.id, clock::now());
        let seen = strangers.to_vec();
        // Looked at again: somebody may have registered meanwhile.
        let bury = move |c: &Connection| {
            let mut still = member::strangers(c, me)?;
            still.retain(|owner| seen.contains(owner));
            still.iter().try_for_each(|owner| orphan(c, *owner, now))?;
            Ok(still)
        };
        for owner in self.broker.db.run(Durability::Process, bury).await? {
            tracing::warn!(
                "messages were held by worker {owner}, which is not in qworker_worker: they are \
                 handed out again"
            );
        }
        self.broker.notify();
        Ok(())
    }
}

impl Consume for Consumer {
    async fn take(&mut self, want: Want) -> Result<Vec<Delivery>, Error> {
        let mut begin = None;
        if self.swept.is_none_or(|at| at.elapsed() >= SWEEP_EVERY) {
            self.sweep().await?;
            self.swept = Some(Instant::now());
            begin = Some(self.scan.next());
        }
        let (card, queues, turn) = (self.member.card.clone(), self.queues.clone(), self.turn);
        let names = self.names.clone();
        let (left, results) = (self.left.clone(), self.results);
        self.turn = (self.turn + 1) % self.queues.len().max(1);
        // Before the look: what is committed from now on rings, or is seen.
        self.pause_watcher(false);
        let now = clock::epoch(clock::now());
        let look = move |c: &Connection| {
            let fresh = card.register(c)?.then(|| queues_of(c, &names)).transpose()?;
            let scanned = begin.map(|last| malformed::set_aside(c, last)).transpose()?;
            if next_due(c)?.is_some_and(|due| due <= now) {
                promote(c, now)?;
            }
            let queues = fresh.as_ref().unwrap_or(&queues);
            let (mut taken, passed) =
                Taking { c, owner: card.id, left: &left }.take(queues, turn, want)?;
            if let Some(look) = results {
                tell_revoked(c, look, &mut taken)?;
            }
            Ok(TakeResult { taken, passed, next_due: next_due(c)?, queues: fresh, scanned })
        };
        let found = self.broker.db.run(Durability::Process, look).await?;
        if let Some((last, malformed)) = found.scanned {
            self.scan.reached(last);
            for what in malformed {
                tracing::error!("{what}: set aside in the dead-letter list");
            }
        }
        if let Some(queues) = found.queues {
            self.scan = malformed::ScanPosition::default();
            tracing::warn!(
                "this worker was no longer registered in {}",
                self.broker.db.path().display()
            );
            (self.queues, self.watcher) = (queues, listen(self.broker.db.path()));
        }
        self.next_due = found.next_due;
        if found.passed {
            // There may be more behind them.
            self.echo = 0;
        }
        if !found.taken.is_empty() {
            self.echo = 0;
            self.pause_watcher(true);
        }
        Ok(found.taken)
    }

    async fn wait(&mut self) {
        let mut pause = SWEEP_EVERY;
        if let Some(due) = self.next_due {
            let left = (due - clock::epoch(clock::now())).clamp(0.0, pause.as_secs_f64());
            pause = Duration::from_secs_f64(left);
        }
        if let Some(echo) = ECHOES_MS.get(self.echo) {
            pause = pause.min(Duration::from_millis(*echo));
            self.echo += 1;
        }
        if tokio::time::timeout(pause, self.watcher.changed()).await.is_ok() {
            self.echo = 0;
        }
    }

    async fn close(self) -> Result<(), Error> {
        let me = self.member.card.id;
        self.broker
            .db
            .run(Durability::Process, move |c| {
                c.execute(
                    "UPDATE kombu_message SET visible = 1, owner = NULL WHERE owner = ?",
                    [me],
                )?;
                Ok(c.execute("DELETE FROM qworker_worker WHERE id = ?", [me])?)
            })
            .await?;
        self.broker.notify();
        self.member.end();
        Ok(())
    }

    /// Others see what would be parked here, so the worker parks it.
    fn sort(&mut self, names: Sorting) {
        self.left = names.left;
    }

    fn see_results(&mut self, results: &Results) {
        self.results = match results {
            Results::Sqlite { db, revoked, .. } if self.broker.db.same(db) => Some(*revoked),
            _ => None,
        };
    }
}

/// A watcher for new messages; where nothing can be watched, a timer.
fn listen(database: &Path) -> Watcher {
    // The log is what counts: its folder is there, and every commit is a change of it.
    let files = [log_of(database), rundir::path(database).join(WAKEUP)];
    let both = rundir::open(database).and_then(|_| Watcher::watch(&files));
    both.or_else(|_| Watcher::watch(&files[..1])).unwrap_or_else(|why| {
        tracing::warn!(
            "no notification of file changes ({why}; see fs.inotify.max_user_instances): the worker \
             polls for messages every {} ms",
            LOOK_EVERY.as_millis()
        );
        Watcher::polling(LOOK_EVERY)
    })
}

fn queues_of(c: &Connection, names: &[String]) -> Result<Queues, Error> {
    names.iter().map(|name| Ok((queue_id(c, name)?, Arc::from(name.as_str())))).collect()
}

fn promote(c: &Connection, now: f64) -> Result<(), Error> {
    c.prepare_cached(
        "UPDATE kombu_message SET eta = NULL WHERE id IN (SELECT id FROM kombu_message
         WHERE visible = 1 AND eta IS NOT NULL AND eta <= ? ORDER BY eta LIMIT ?)",
    )?
    .execute(params![now, DUE_MAX as i64])?;
    Ok(())
}

fn next_due(c: &Connection) -> Result<Option<f64>, Error> {
    let sql = "SELECT min(eta) FROM kombu_message WHERE visible = 1 AND eta IS NOT NULL";
    Ok(c.prepare_cached(sql)?.query_row([], |row| Ok(cell::instant(row, 0)))?)
}

/// Gives back all that the dead worker `owner` held.
fn orphan(c: &Connection, owner: i64, now: DateTime<Utc>) -> Result<(), Error> {
    let mut held =
        c.prepare_cached("SELECT id, deliveries, started FROM kombu_message WHERE owner = ?")?;
    let held: Vec<(i64, u32, bool)> = held
        .query_map([owner], |row| {
            Ok((row.get(0)?, cell::count(row, 1), cell::number(row, 2) != 0))
        })?
        .collect::<Result<_, _>>()?;
    for (id, deliveries, started) in held {
        let loss = loss(deliveries, started, now);
        c.prepare_cached(
            "UPDATE kombu_message SET visible = 1, owner = NULL, suspect = 1, eta = ?,
             deliveries = deliveries + ? WHERE id = ?",
        )?
        .execute(params![loss.until.map(clock::epoch), loss.counts, id])?;
    }
    c.execute("DELETE FROM qworker_worker WHERE id = ?", [owner])?;
    Ok(())
}
