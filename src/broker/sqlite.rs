//! Messages in one SQLite file: kombu's SQLAlchemy tables with columns of ours.
//!
//! Source of the tables: kombu `transport/sqlalchemy/models.py`. A Python program on
//! `sqla+sqlite:///` inserts rows without our columns; their defaults mean "ready now".
//!
//! | a row is | `visible` | `owner` | `eta` |
//! | --- | --- | --- | --- |
//! | ready | 1 | null | null |
//! | scheduled | 1 | null | seconds since the epoch |
//! | held by one of our workers | 0 | its row in `qworker_worker` | null |
//! | taken by a Python worker (never deleted by it) | 0 | null | null |

mod beat;
mod commit;
mod dead;
mod member;
mod odd;
mod schema;
mod take;

pub use beat::Ledger;
pub use member::Hold;
pub use schema::SCHEMA;
pub use take::LookUp;
use take::Taking;

use super::{Delivery, Names, Node, Posting, QueueInfo, Settle, Sorting, Tag, Want, Whereabouts};
use crate::bounds;
use crate::clock;
use crate::link::error::Error;
use crate::link::sqlite::{Db, Durability, cell, log_of, run_folder};
use crate::os::bell::{Bell, Ringer};
use crate::os::run;
use crate::wire::Payload;
use chrono::{DateTime, Utc};
use member::{Card, Member, Verdict};
use rusqlite::{Connection, OptionalExtension, Row, params};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often a worker looks for dead ones and for what no bell announced.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// Scheduled messages made ready in one step at the most: a hundred thousand that are
/// due at once must not hold the lock for seconds.
const DUE_MAX: usize = 512;

/// A Python writer rings no bell; its write to the WAL is seen *before* its commit, so a
/// worker looks again after these pauses.
const ECHOES_MS: [u64; 5] = [1, 2, 5, 15, 50];

/// Where the kernel tells of no changes, a worker that waits looks so often.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The name of the bell that announces tasks.
const BELL: &str = "tasks";

/// See [`super::Inlet`].
pub struct Inlet {
    db: Db,
    member: Member,
    names: Arc<[String]>,
    queues: Queues,
    /// Which queue is asked first; moves on with each take.
    turn: usize,
    left: Names,
    /// Tells which tasks were revoked, if results are in this file.
    results: Option<LookUp>,
    bell: Bell,
    ringer: Arc<Ringer>,
    swept: Option<Instant>,
    pass: odd::Pass,
    next_due: Option<f64>,
    echo: usize,
}

/// Numbers and names, as they are in the file that is open.
type Queues = Arc<[(i64, Arc<str>)]>;

/// What a look into the file gives.
struct Look {
    taken: Vec<Delivery>,
    /// Some were left to others, and marked.
    marked: bool,
    next_due: Option<f64>,
    /// This worker was not known there.
    queues: Option<Queues>,
    /// The last row that was looked at, and what was odd up to it.
    passed: Option<(i64, Vec<String>)>,
}

/// See [`super::Outlet`].
#[derive(Clone)]
pub struct Outlet {
    db: Db,
    ringer: Arc<Ringer>,
    /// The worker whose deliveries this end settles.
    owner: Option<i64>,
}

impl Inlet {
    /// Registers a worker named `hostname` that takes from `queues`, and holds a lease, which
    /// `hold` has its guard hold too.
    ///
    /// # Errors
    /// The file cannot be written.
    pub async fn open(
        db: &Db,
        hostname: &str,
        queues: &[String],
        hold: Hold,
    ) -> Result<Inlet, Error> {
        // Held first: a registered worker without a lease may be taken for a dead one.
        let member = Member::new(db.path(), hostname, hold);
        let (card, names): (_, Arc<[String]>) = (member.card.clone(), queues.into());
        let wanted = names.clone();
        let queues = db
            .run(Durability::Process, move |c| {
                card.register(c)?;
                queues_of(c, &wanted)
            })
            .await?;
        Ok(Inlet {
            db: db.clone(),
            member,
            names,
            queues,
            turn: 0,
            left: Arc::default(),
            results: None,
            bell: listen(db.path()),
            ringer: Arc::new(Ringer::new(db.path(), BELL)),
            swept: None,
            pass: odd::Pass::default(),
            next_due: None,
            echo: ECHOES_MS.len(),
        })
    }

    /// The end that settles what this one takes.
    pub fn outlet(&self) -> Outlet {
        Outlet {
            db: self.db.clone(),
            ringer: self.ringer.clone(),
            owner: Some(self.member.card.id),
        }
    }

    /// See [`super::Inlet::sort`]. What is parked here others see all the same, so the worker does it.
    pub fn sort(&mut self, names: Sorting) {
        self.left = names.left;
    }

    /// See [`super::Inlet::see_results`].
    pub fn see_results(&mut self, db: &Db, look: LookUp) {
        self.results = self.db.same(db).then_some(look);
    }

    /// See [`super::Inlet::take`].
    pub async fn take(&mut self, want: Want) -> Result<Vec<Delivery>, Error> {
        let mut begin = None;
        if self.swept.is_none_or(|at| at.elapsed() >= SWEEP_EVERY) {
            self.sweep().await?;
            self.swept = Some(Instant::now());
            begin = Some(self.pass.next());
        }
        let (card, queues, turn) = (self.member.card.clone(), self.queues.clone(), self.turn);
        let names = self.names.clone();
        let (left, results) = (self.left.clone(), self.results);
        self.turn = (self.turn + 1) % self.queues.len().max(1);
        // Before the look: what is committed from now on rings, or is seen.
        self.cover_bell(false);
        let now = clock::epoch(clock::now());
        let look = move |c: &Connection| {
            let fresh = card.register(c)?.then(|| queues_of(c, &names)).transpose()?;
            let passed = begin.map(|last| odd::set_aside(c, last)).transpose()?;
            if next_due(c)?.is_some_and(|due| due <= now) {
                promote(c, now)?;
            }
            let queues = fresh.as_ref().unwrap_or(&queues);
            let (mut taken, marked) =
                Taking { c, owner: card.id, left: &left }.take(queues, turn, want)?;
            if let Some(look) = results {
                take::tell_revoked(c, look, &mut taken)?;
            }
            Ok(Look { taken, marked, next_due: next_due(c)?, queues: fresh, passed })
        };
        let found = self.db.run(Durability::Process, look).await?;
        if let Some((last, odd)) = found.passed {
            self.pass.reached(last);
            for what in odd {
                tracing::error!("{what}: set aside in the dead-letter list");
            }
        }
        if let Some(queues) = found.queues {
            self.pass = odd::Pass::default();
            tracing::warn!("this worker was not known in {} any more", self.db.path().display());
            (self.queues, self.bell) = (queues, listen(self.db.path()));
        }
        self.next_due = found.next_due;
        if found.marked {
            // There may be more behind them.
            self.echo = 0;
        }
        if !found.taken.is_empty() {
            self.echo = 0;
            self.cover_bell(true);
        }
        Ok(found.taken)
    }

    /// A bell whose folder was removed is no reason to take nothing: we look once a second anyway.
    fn cover_bell(&self, covered: bool) {
        if let Err(error) = self.bell.cover(covered) {
            tracing::debug!("cannot watch the database: {error}");
        }
    }

    /// See [`super::Inlet::wait`].
    pub async fn wait(&mut self) {
        let mut pause = SWEEP_EVERY;
        if let Some(due) = self.next_due {
            let left = (due - clock::epoch(clock::now())).clamp(0.0, pause.as_secs_f64());
            pause = Duration::from_secs_f64(left);
        }
        if let Some(echo) = ECHOES_MS.get(self.echo) {
            pause = pause.min(Duration::from_millis(*echo));
            self.echo += 1;
        }
        if tokio::time::timeout(pause, self.bell.rung()).await.is_ok() {
            self.echo = 0;
        }
    }

    /// Hands out again what dead workers held.
    async fn sweep(&mut self) -> Result<(), Error> {
        let path = self.db.path().to_path_buf();
        // Its own first: others judge by it.
        self.member.keep(&path);
        let me = self.member.card.id;
        let look = move |c: &Connection| Ok((Card::others(c, me)?, member::strangers(c, me)?));
        let (others, strangers) = self.db.run(Durability::Read, look).await?;
        if !strangers.is_empty() {
            self.bury_strangers(&strangers, &others).await?;
        }
        for other in others {
            match other.judge(&path) {
                Verdict::Alive => {}
                Verdict::Unseen(why) => self.member.tell_unseen(&other, &path, &why),
                Verdict::Dead => {
                    let (id, now) = (other.id, clock::now());
                    self.db.run(Durability::Process, move |c| orphan(c, id, now)).await?;
                    if run::open(&path).is_ok() {
                        // Gone already if another worker was quicker.
                        let _ = std::fs::remove_file(other.lease(&path));
                    }
                    ring(&self.ringer);
                }
            }
        }
        Ok(())
    }

    /// Hands out again what is held by workers that are not registered.
    async fn bury_strangers(&mut self, strangers: &[i64], others: &[Card]) -> Result<(), Error> {
        let path = self.db.path().to_path_buf();
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
        for owner in self.db.run(Durability::Process, bury).await? {
            tracing::warn!(
                "messages were held by worker {owner}, which is not in qworker_worker: they are \
                 handed out again"
            );
        }
        ring(&self.ringer);
        Ok(())
    }

    /// See [`super::Inlet::close`].
    pub async fn close(self) -> Result<(), Error> {
        let me = self.member.card.id;
        self.db
            .run(Durability::Process, move |c| {
                c.execute(
                    "UPDATE kombu_message SET visible = 1, owner = NULL WHERE owner = ?",
                    [me],
                )?;
                Ok(c.execute("DELETE FROM qworker_worker WHERE id = ?", [me])?)
            })
            .await?;
        ring(&self.ringer);
        self.member.end();
        Ok(())
    }
}

/// What is committed stays so if nobody can be woken: they look once a second anyway.
fn ring(ringer: &Ringer) {
    if let Err(error) = ringer.ring() {
        tracing::debug!("cannot wake workers: {error}");
    }
}

/// A bell for new messages; where there is none, it rings by the clock.
fn listen(database: &Path) -> Bell {
    // The log is what counts: its folder is there, and every commit is a change of it.
    let files = [log_of(database), run_folder(database).join(BELL)];
    let both = run::open(database).and_then(|_| Bell::watch(&files));
    both.or_else(|_| Bell::watch(&files[..1])).unwrap_or_else(|why| {
        tracing::warn!(
            "no changes of files are told of ({why}; see fs.inotify.max_user_instances): new \
             messages are looked for every {} ms",
            LOOK_EVERY.as_millis()
        );
        Bell::clock(LOOK_EVERY)
    })
}

fn queues_of(c: &Connection, names: &[String]) -> Result<Queues, Error> {
    names.iter().map(|name| Ok((queue_id(c, name)?, Arc::from(name.as_str())))).collect()
}

fn queue_id(c: &Connection, name: &str) -> Result<i64, Error> {
    let find = "SELECT id FROM kombu_queue WHERE name = ?";
    if let Some(id) = c.prepare_cached(find)?.query_row([name], |row| row.get(0)).optional()? {
        return Ok(id);
    }
    c.prepare_cached("INSERT INTO kombu_queue (name) VALUES (?)")?.execute([name])?;
    Ok(c.last_insert_rowid())
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

/// A payload that is no text (a stray blob) is still a message: a malformed one.
fn payload_of(row: &Row, column: usize) -> rusqlite::Result<Payload> {
    Ok(Payload::from_envelope(match row.get_ref(column)?.as_bytes() {
        Ok(bytes) => String::from_utf8_lossy(bytes),
        Err(_) => "".into(),
    }))
}

/// Gives back all that the dead worker `owner` held, with a growing delay from the second
/// loss on: the first is most often the worker's own end, not the task's doing.
fn orphan(c: &Connection, owner: i64, now: DateTime<Utc>) -> Result<(), Error> {
    let mut held =
        c.prepare_cached("SELECT id, deliveries, started FROM kombu_message WHERE owner = ?")?;
    let held: Vec<(i64, u32, bool)> = held
        .query_map([owner], |row| {
            Ok((row.get(0)?, cell::count(row, 1), cell::number(row, 2) != 0))
        })?
        .collect::<Result<_, _>>()?;
    for (id, deliveries, started) in held {
        let delay = bounds::redelivery_delay(if started { deliveries } else { 0 });
        let eta = (!delay.is_zero()).then(|| clock::epoch(now + delay));
        c.prepare_cached(
            "UPDATE kombu_message SET visible = 1, owner = NULL, suspect = 1, eta = ?,
             deliveries = deliveries + ? WHERE id = ?",
        )?
        .execute(params![eta, started, id])?;
    }
    c.execute("DELETE FROM qworker_worker WHERE id = ?", [owner])?;
    Ok(())
}

impl Outlet {
    /// The end for programs that are no worker: they settle nothing.
    pub fn open(db: &Db) -> Outlet {
        let ringer = Arc::new(Ringer::new(db.path(), BELL));
        Outlet { db: db.clone(), ringer, owner: None }
    }

    /// The connection.
    pub fn db(&self) -> &Db {
        &self.db
    }

    /// See [`super::Outlet::publish`].
    pub async fn publish(&self, postings: Vec<Posting>) -> Result<(), Error> {
        self.db
            .run(Durability::Disk, move |c| {
                postings.iter().try_for_each(|posting| insert(c, posting))
            })
            .await?;
        ring(&self.ringer);
        Ok(())
    }

    /// See [`super::Outlet::route`].
    pub async fn route(&self, exchange: String, _key: String) -> Result<Vec<String>, Error> {
        let why = "the embedded broker keeps no exchanges; name the queue with --queue";
        Err(Error::misuse(format!("exchange {exchange:?}: {why}")))
    }

    /// See [`super::Outlet::wire_priority`].
    pub fn wire_priority(&self, priority: Option<u8>) -> u8 {
        priority.unwrap_or(0)
    }

    /// See [`super::Outlet::settle`].
    pub async fn settle(&self, settlements: Vec<(Tag, Settle)>) -> Result<(), Error> {
        let owner = self.owner;
        let moved = settlements.iter().any(|(_, settle)| settle.moves());
        let all = move |c: &Connection| {
            settlements.iter().try_for_each(|(tag, how)| settle(c, owner, *tag, how).map(drop))
        };
        self.db.run(Durability::Process, all).await?;
        if moved {
            ring(&self.ringer);
        }
        Ok(())
    }

    /// Tells waiting workers that there may be something for them.
    pub fn ring(&self) {
        ring(&self.ringer);
    }

    /// See [`super::Outlet::purge`].
    pub async fn purge(&self, queues: Vec<String>) -> Result<u64, Error> {
        self.db
            .run(Durability::Disk, move |c| {
                let mut purged = 0;
                for name in &queues {
                    purged += c.execute(
                        "DELETE FROM kombu_message WHERE visible = 1 AND queue_id =
                         (SELECT id FROM kombu_queue WHERE name = ?)",
                        [name],
                    )?;
                }
                Ok(purged as u64)
            })
            .await
    }

    /// See [`super::Outlet::queues`].
    pub async fn queues(&self) -> Result<Vec<QueueInfo>, Error> {
        self.db
            .run(Durability::Read, |c| {
                let mut statement = c.prepare(
                    "SELECT q.name,
                        count(*) FILTER (WHERE m.visible = 1 AND m.eta IS NULL),
                        count(*) FILTER (WHERE m.visible = 1 AND m.eta IS NOT NULL),
                        count(*) FILTER (WHERE m.owner IS NOT NULL)
                     FROM kombu_queue q LEFT JOIN kombu_message m ON m.queue_id = q.id
                     GROUP BY q.id ORDER BY q.name",
                )?;
                let rows = statement.query_map([], |row| {
                    Ok(QueueInfo {
                        name: cell::text(row, 0),
                        ready: cell::count(row, 1),
                        scheduled: cell::count(row, 2),
                        held: cell::count(row, 3),
                        odd: None,
                    })
                })?;
                Ok(rows.collect::<Result<_, _>>()?)
            })
            .await
    }

    /// See [`super::Outlet::nodes`].
    pub async fn nodes(&self) -> Result<Vec<Node>, Error> {
        let all = self.db.run(Durability::Read, |c| Card::others(c, 0)).await?;
        let path = self.db.path();
        let alive = all.into_iter().filter(|card| !matches!(card.judge(path), Verdict::Dead));
        Ok(alive
            .map(|card| Node { pid: u32::try_from(card.pid).unwrap_or(0), hostname: card.hostname })
            .collect())
    }

    /// See [`super::Outlet::find`].
    pub async fn find(&self, task_id: String) -> Result<Whereabouts, Error> {
        self.db.run(Durability::Read, move |c| find(c, &task_id)).await
    }
}

fn insert(c: &Connection, posting: &Posting) -> Result<(), Error> {
    let queue = queue_id(c, &posting.queue)?;
    c.prepare_cached(
        "INSERT INTO kombu_message (visible, version, payload, queue_id, eta, priority, task_id)
         VALUES (1, 1, ?, ?, ?, ?, ?)",
    )?
    .execute(params![
        posting.payload.to_envelope(),
        queue,
        posting.eta.map(clock::epoch),
        posting.priority,
        posting.task_id
    ])?;
    Ok(())
}

/// Whether the row was held by `owner`; if not, nothing is done.
fn settle(c: &Connection, owner: Option<i64>, tag: Tag, settle: &Settle) -> Result<bool, Error> {
    let id = &row_of(tag);
    match settle {
        Settle::Ack => delete(c, owner, *id),
        Settle::Mark => {
            let sql = "UPDATE kombu_message SET started = 1 WHERE id = ? AND owner IS ?";
            Ok(c.prepare_cached(sql)?.execute(params![id, owner])? > 0)
        }
        Settle::Release => give_back(c, owner, *id, None, 0),
        Settle::Pass(name) => pass(c, owner, *id, name),
        Settle::Park(until) => give_back(c, owner, *id, Some(*until), 0),
        Settle::Redeliver(until) => give_back(c, owner, *id, Some(*until), 1),
        Settle::Replace(payload, eta) => {
            let mut replace = c.prepare_cached(
                "UPDATE kombu_message SET visible = 1, owner = NULL, eta = ?, deliveries = 0,
                 suspect = 0, payload = ?, version = version + 1 WHERE id = ? AND owner IS ?",
            )?;
            Ok(replace.execute(params![clock::epoch(*eta), payload.to_envelope(), id, owner])? > 0)
        }
        Settle::Dead(death) => dead::bury(c, owner, *id, death),
    }
}

/// No row has the number of what is no row.
fn row_of(tag: Tag) -> i64 {
    match tag {
        Tag::Row(id) => id,
        Tag::Number(_) => -1,
    }
}

fn delete(c: &Connection, owner: Option<i64>, id: i64) -> Result<bool, Error> {
    let mut delete = c.prepare_cached("DELETE FROM kombu_message WHERE id = ? AND owner IS ?")?;
    Ok(delete.execute(params![id, owner])? > 0)
}

fn give_back(
    c: &Connection,
    owner: Option<i64>,
    id: i64,
    until: Option<DateTime<Utc>>,
    counted: u32,
) -> Result<bool, Error> {
    let mut give_back = c.prepare_cached(
        "UPDATE kombu_message SET visible = 1, owner = NULL, eta = ?1,
         deliveries = deliveries + ?2, suspect = max(suspect, ?2), version = version + 1
         WHERE id = ?3 AND owner IS ?4",
    )?;
    Ok(give_back.execute(params![until.map(clock::epoch), counted, id, owner])? > 0)
}

/// Back to its place, for whoever knows a task of this name.
fn pass(c: &Connection, owner: Option<i64>, id: i64, name: &str) -> Result<bool, Error> {
    let mut pass = c.prepare_cached(
        "UPDATE kombu_message SET visible = 1, owner = NULL, task = ?1, version = version + 1
         WHERE id = ?2 AND owner IS ?3",
    )?;
    Ok(pass.execute(params![name, id, owner])? > 0)
}

fn find(c: &Connection, task_id: &str) -> Result<Whereabouts, Error> {
    // A Python program's rows have no task id of ours; there are few, or it would run
    // Python workers on them.
    let found = c
        .prepare_cached(
            "SELECT q.name, m.visible, m.eta FROM kombu_message m
             JOIN kombu_queue q ON q.id = m.queue_id
             WHERE m.task_id = ?1 OR (m.task_id IS NULL AND instr(m.payload, ?1) > 0
                   AND (m.visible = 1 OR m.owner IS NOT NULL)) LIMIT 1",
        )?
        .query_row([task_id], |row| {
            Ok((cell::text(row, 0), cell::number(row, 1) != 0, cell::instant(row, 2)))
        })
        .optional()?;
    if let Some((queue, visible, eta)) = found {
        let eta = eta.map(|eta| eta.to_string());
        return Ok(if visible {
            Whereabouts::Waiting { queue, eta }
        } else {
            Whereabouts::Held { queue }
        });
    }
    let dead = c
        .prepare_cached("SELECT id FROM qworker_dead WHERE task_id = ? ORDER BY id DESC LIMIT 1")?
        .query_row([task_id], |row| row.get(0))
        .optional()?;
    Ok(dead.map_or(Whereabouts::Unknown, Whereabouts::Dead))
}
