//! Stores, publishes and settles what the worker decided, in batches and in that order: a crash in
//! between repeats work and loses none. A store that fails is retried until it answers; until then
//! nothing counts as done. What a store rejects does not block anything else: see
//! [`super::unstorable`].

use super::chords::{BodyClaim, ChordResult, Counter};
use super::core::Event;
use super::event::Sending;
use super::follow::Chords;
use super::health::troubles::Troubles;
use super::outage::Outage;
use super::plan::Plan;
use super::request::AttemptKey;
use super::unlock::Unlocking;
use super::unstorable;
use super::verdict::Verdict;
use crate::broker::{Disposition, Item, Settle, Tag};
use crate::client::ends::Ends;
use crate::clock;
use crate::link::error::StoreErrorKind;
use crate::wire::Record;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

/// How much work is done in one step at most.
const BATCH_MAX: usize = 512;

/// How long an outcome waits at most for others to be committed with.
const BATCH_WAIT: Duration = Duration::from_millis(2);

/// Bytes that are stored and sent in one step; a single item may be larger.
const STEP_MAX: usize = 4 * 1024 * 1024;

/// How often a chord is looked at that another worker has the claim to.
const CLAIM_LOOK: Duration = Duration::from_millis(500);

/// A connection that breaks this many times in a row during one item alone, while the store answers
/// otherwise, breaks because of that item.
const UNHEARD_MAX: u32 = 3;

/// Something to be stored or settled.
#[derive(Debug)]
pub(super) enum SettleWork {
    /// What became of a request.
    Verdict(AttemptKey, Tag, Box<Verdict>),
    /// A record of the task of this delivery. Nothing waits for it.
    Record(Tag, Box<Record>),
    /// A state of an attempt, whose delivery is this one, if it is held.
    State(AttemptKey, Option<Tag>, Box<Record>),
    /// Messages that an attempt sends, under this number.
    Send(u64, Sending),
}

/// Works until the last sender of `work` is gone. While `hurry` is false, it waits up to
/// [`BATCH_WAIT`] for more work.
pub(super) async fn run(
    ends: Ends,
    plan: Arc<Plan>,
    mut work: mpsc::UnboundedReceiver<SettleWork>,
    mut hurry: watch::Receiver<bool>,
    events: mpsc::UnboundedSender<Event>,
    troubles: Troubles,
) {
    let outage = Outage::new("cannot store results or acknowledge", troubles);
    let counter = Counter::new(ends.store().clone(), plan);
    let (sender, mut again) = mpsc::unbounded_channel();
    let mut settler = Settler { ends, counter, events, outage, again: sender };
    let mut waiting = Vec::new();
    loop {
        tokio::select! {
            received = work.recv_many(&mut waiting, BATCH_MAX) => if received == 0 { return },
            Some((job, item)) = again.recv() => {
                settler.settle_later(job, item).await;
                continue;
            }
        }
        // However the wait ends, what is there gets settled.
        let _ = timeout(BATCH_WAIT, hurry.wait_for(|hurry| *hurry)).await;
        while waiting.len() < BATCH_MAX
            && let Ok(more) = work.try_recv()
        {
            waiting.push(more);
        }
        let (mut plain, mut joined) = (Vec::with_capacity(waiting.len()), Vec::new());
        waiting.drain(..).for_each(|work| sort(work, &mut plain, &mut joined));
        for batch in batches(plain.into_iter()) {
            settler.settle(batch).await;
        }
        settler.settle_all(joined).await;
    }
}

/// One submitted verdict or record: whether the core waits for it, and earlier attempts.
#[derive(Debug, Clone, Default)]
struct Submission {
    key: Option<AttemptKey>,
    /// The attempt whose state it is.
    state: Option<AttemptKey>,
    /// The number of messages that an attempt sends.
    number: Option<u64>,
    /// The task's id, or empty if it is unknown.
    id: String,
    /// How many times it was rejected; see [`super::unstorable`].
    tries: u8,
    /// The last try may have succeeded: its answer was lost.
    maybe_done: bool,
    /// Chords that are to be looked after before.
    chords: Option<Box<Chords>>,
    /// The name of the claims to them, or empty.
    token: String,
    /// Chords whose bodies are called with it.
    claims: Vec<BodyClaim>,
    /// A chord that is to be looked at before.
    unlock: Option<Box<Unlocking>>,
    /// What is to be done before it.
    before: Vec<Item>,
}

type Batch = (Vec<Submission>, Vec<Item>);

/// Makes items of some work; one whose chords are to be looked after first is among `joined`.
fn sort(
    work: SettleWork,
    plain: &mut Vec<(Submission, Item)>,
    joined: &mut Vec<(Submission, Item)>,
) {
    match work {
        SettleWork::Record(tag, record) => {
            plain.push(unawaited(Item {
                tag: Some(tag),
                record: Some(*record),
                ..Item::default()
            }));
        }
        SettleWork::State(key, tag, record) => {
            let item = Item { tag, record: Some(*record), ..Item::default() };
            plain.push((
                Submission { state: Some(key), id: id_of(&item), ..Submission::default() },
                item,
            ));
        }
        SettleWork::Send(number, Sending { postings, chords: begun }) => {
            let chords =
                (!begun.is_empty()).then(|| Box::new(Chords { begun, ..Chords::default() }));
            let item = Item { postings, token: new_token(), ..Item::default() };
            let into = if chords.is_some() { joined } else { plain };
            let number = Some(number);
            into.push((
                Submission { number, id: id_of(&item), chords, ..Submission::default() },
                item,
            ));
        }
        SettleWork::Verdict(key, tag, verdict) => {
            let mut verdict = *verdict;
            // What was acknowledged before has no delivery any more.
            let held = verdict.settle.is_some().then_some(tag);
            let skipped = std::mem::take(&mut verdict.skipped).into_iter();
            let record =
                |record| unawaited(Item { tag: held, record: Some(record), ..Item::default() });
            plain.extend(skipped.map(record));
            let chords = verdict.chords.take();
            let token = match verdict.publish.is_empty() {
                true => String::new(),
                false => new_token(),
            };
            let item = Item {
                tag: held,
                record: verdict.record,
                postings: verdict.publish,
                token,
                settle: verdict.settle,
                durable: verdict.durable,
            };
            let unlock = verdict.unlock;
            let into = if chords.is_some() || unlock.is_some() { joined } else { plain };
            let id = unlock.as_ref().map_or_else(|| id_of(&item), |it| it.task_id.clone());
            into.push((
                Submission { key: Some(key), id, chords, unlock, ..Submission::default() },
                item,
            ));
        }
    }
}

/// A name for messages, by which a broker knows that it has them.
fn new_token() -> String {
    uuid::Uuid::now_v7().simple().to_string()
}

/// An item that nothing waits for.
fn unawaited(item: Item) -> (Submission, Item) {
    (Submission { id: id_of(&item), ..Submission::default() }, item)
}

fn id_of(item: &Item) -> String {
    let dead = match &item.settle {
        Some(Settle::Dead(death)) => death.task_id.clone(),
        _ => None,
    };
    let record = item.record.as_ref().map(|record| record.task_id.clone());
    let posting = || item.postings.first().map(|posting| posting.task_id.clone());
    record.or(dead).or_else(posting).unwrap_or_default()
}

/// Cuts the work into steps of at most [`STEP_MAX`] bytes.
fn batches(jobs: impl Iterator<Item = (Submission, Item)>) -> Vec<Batch> {
    let mut batches = vec![Batch::default()];
    let mut bytes = 0;
    for (job, item) in jobs {
        let more = size(&item);
        if bytes > 0 && bytes + more > STEP_MAX {
            batches.push(Batch::default());
            bytes = 0;
        }
        bytes += more;
        if let Some((jobs, items)) = batches.last_mut() {
            jobs.push(job);
            items.push(item);
        }
    }
    batches
}

fn size(item: &Item) -> usize {
    let result = item.record.as_ref().map_or(0, |record| record.result.get().len());
    result + item.postings.iter().map(|posting| posting.payload.size()).sum::<usize>()
}

struct Settler {
    ends: Ends,
    counter: Counter,
    events: mpsc::UnboundedSender<Event>,
    outage: Outage,
    /// What is to be tried again.
    again: mpsc::UnboundedSender<(Submission, Item)>,
}

impl Settler {
    /// Settles items once their chords are looked after. Nearly none of them ends a chord; those that
    /// do not are looked after together, and settled together.
    async fn settle_all(&mut self, joined: Vec<(Submission, Item)>) {
        let (mut jobs, mut chords, mut singly) = (Vec::new(), Vec::new(), Vec::new());
        for (mut job, item) in joined {
            match job.chords.take_if(|_| job.unlock.is_none()) {
                Some(of_job) => {
                    job.token = new_token();
                    chords.push((of_job, job.token.clone()));
                    jobs.push((job, item));
                }
                None => singly.push((job, item)),
            }
        }
        // What is wrong is found out one by one.
        let ends_none = self.counter.join_all(&chords).await.unwrap_or_default();
        let mut ends_none = ends_none.into_iter();
        let mut plain = Vec::with_capacity(jobs.len());
        for ((mut job, item), (of_job, _)) in jobs.into_iter().zip(chords) {
            if ends_none.next() == Some(true) {
                plain.push((job, item));
            } else {
                job.chords = Some(of_job);
                singly.push((job, item));
            }
        }
        for batch in batches(plain.into_iter()).into_iter().filter(|(jobs, _)| !jobs.is_empty()) {
            self.settle(batch).await;
        }
        for (job, item) in singly {
            self.settle_later(job, item).await;
        }
    }

    /// Settles an item once its chords are looked after. Reading what the members of one have returned
    /// takes as long as there are many, so nothing waits for that.
    async fn settle_later(&mut self, mut job: Submission, mut item: Item) {
        let Some(unlock) = job.unlock.take() else { return self.settle_joined(job, item).await };
        let (counter, again) = (self.counter.clone(), self.again.clone());
        tokio::task::spawn_local(async move {
            let (before, parts, begun) = counter.look(&unlock, &mut item).await;
            job.before = before;
            if !parts.is_empty() || !begun.is_empty() {
                job.chords = Some(Box::new(Chords { begun, parts }));
            }
            // The settling task lives as long as there is something to be settled.
            let _ = again.send((job, item));
        });
    }

    /// Looks after the chords of an item, and settles it with what that brings.
    async fn settle_joined(&mut self, mut job: Submission, item: Item) {
        let mut batch: Batch = job.before.drain(..).map(unawaited).unzip();
        if let Some(chords) = job.chords.take() {
            if job.token.is_empty() {
                job.token = new_token();
            }
            let joined = self.join(chords, &job.id, &job.token).await;
            let ChordResult { items, claims, later } = joined;
            let (jobs, items): Batch = items.into_iter().map(unawaited).unzip();
            batch.0.extend(jobs);
            batch.1.extend(items);
            if !later.is_empty() {
                // What was won is done now: nobody else may do it.
                self.settle(batch).await;
                self.counter.release(&claims).await;
                job.chords = Some(Box::new(Chords { parts: later, ..Chords::default() }));
                let again = self.again.clone();
                tokio::task::spawn_local(async move {
                    tokio::time::sleep(CLAIM_LOOK).await;
                    // As above.
                    let _ = again.send((job, item));
                });
                return;
            }
            job.claims = claims;
        }
        batch.0.push(job);
        batch.1.push(item);
        self.settle(batch).await;
    }

    /// Joins chords; waits until the store answers.
    async fn join(&mut self, mut chords: Box<Chords>, id: &str, token: &str) -> ChordResult {
        let mut is_refused = false;
        loop {
            match self.counter.join(&chords, token).await {
                Ok(joined) => return joined,
                // What the store refuses of one task never holds up the others.
                Err(error)
                    if !matches!(
                        error.kind(),
                        StoreErrorKind::Refused | StoreErrorKind::Forbidden
                    ) =>
                {
                    self.outage.wait(&error).await;
                }
                Err(error) if is_refused => {
                    tracing::error!("Task {id}: its chord cannot be updated: {error}");
                    return ChordResult::default();
                }
                Err(error) => {
                    // Without its value: the chord ends all the same.
                    is_refused = true;
                    chords.parts.iter_mut().for_each(|part| part.fail(&error.to_string()));
                }
            }
        }
    }

    /// Settles the whole batch, as it is or as [`super::unstorable`] has it.
    async fn settle(&mut self, batch: Batch) {
        let mut left = vec![batch];
        while let Some((mut jobs, items)) = left.pop() {
            let items = Arc::new(items);
            let answer = self.commit(&mut jobs, &items).await;
            let items = Arc::try_unwrap(items).unwrap_or_else(|shared| (*shared).clone());
            match answer {
                Ok(fates) => {
                    for job in jobs.iter().filter(|job| !job.claims.is_empty()) {
                        self.counter.release(&job.claims).await;
                    }
                    left.extend(self.report(jobs, items, fates));
                }
                Err(why) if jobs.len() == 1 => {
                    left.extend(self.report(jobs, items, vec![Disposition::Refused(why)]));
                }
                // The halves tell which of them it is.
                Err(_) => {
                    let (mut jobs, mut items) = (jobs, items);
                    let half = jobs.len() / 2;
                    let rest = (jobs.split_off(half), items.split_off(half));
                    left.extend([rest, (jobs, items)]);
                }
            }
        }
    }

    /// Commits, and retries until the store answers.
    ///
    /// # Errors
    /// The store answers otherwise, and rejects these items. The text says why.
    async fn commit(
        &mut self,
        jobs: &mut [Submission],
        items: &Arc<Vec<Item>>,
    ) -> Result<Vec<Disposition>, String> {
        let mut unheard = 0;
        loop {
            let error = match self.ends.commit(items.clone()).await {
                Ok(mut fates) => {
                    self.outage.end("the store");
                    self.resolve_lost(jobs, items, &mut fates).await;
                    return Ok(fates);
                }
                Err(error) => error,
            };
            let refused = error.kind() == StoreErrorKind::Refused;
            if !refused {
                jobs.iter_mut().for_each(|job| job.maybe_done = true);
            }
            let suspect = matches!(
                error.kind(),
                StoreErrorKind::Refused | StoreErrorKind::Failed | StoreErrorKind::Unheard
            );
            if suspect && self.ends.answer().await {
                unheard += 1;
                if refused || items.len() > 1 || unheard == UNHEARD_MAX {
                    return Err(error.to_string());
                }
                // A connection may break at any time; once is not worth a line.
                if unheard == 1 {
                    continue;
                }
            }
            self.outage.wait(&error).await;
        }
    }

    /// A delivery that is not held any more may have been settled by a try whose answer was lost.
    async fn resolve_lost(&self, jobs: &[Submission], items: &[Item], fates: &mut [Disposition]) {
        for ((job, item), fate) in jobs.iter().zip(items).zip(fates) {
            if *fate == Disposition::Lost && job.maybe_done {
                // A task that starts once it is acknowledged must be sure that it is.
                let sure = !item.durable || self.ends.is_member().await.unwrap_or(false);
                *fate = if sure { Disposition::Done } else { Disposition::Lost };
            }
        }
    }

    /// Reports what is done to the core; returns what is to be tried in another way.
    fn report(
        &self,
        jobs: Vec<Submission>,
        items: Vec<Item>,
        fates: Vec<Disposition>,
    ) -> Vec<Batch> {
        let (mut settled, mut lost, mut again) = (Vec::new(), Vec::new(), Vec::new());
        let mut stored = Vec::new();
        for ((job, item), fate) in jobs.into_iter().zip(items).zip(fates) {
            stored.extend(job.state);
            if let Some(number) = job.number {
                let done = match fate {
                    Disposition::Refused(why) => Err(why),
                    Disposition::Done | Disposition::Lost => Ok(()),
                };
                let _ = self.events.send(Event::Sent(number, done));
                continue;
            }
            match fate {
                // It was to be acknowledged before its start and is a dead letter now: no start.
                Disposition::Done
                    if item.durable && matches!(item.settle, Some(Settle::Dead(_))) =>
                {
                    lost.extend(job.key);
                }
                Disposition::Done => settled.extend(job.key),
                Disposition::Lost => {
                    unstorable::log_lost(&item, &job.id);
                    lost.extend(job.key);
                }
                Disposition::Refused(why) => {
                    match unstorable::instead(item, job.tries, &job.id, &why, clock::now()) {
                        Some(item) => {
                            let job = Submission { tries: job.tries + 1, ..job };
                            again.push((vec![job], vec![item]));
                        }
                        None => settled.extend(job.key),
                    }
                }
            }
        }
        // The loop ends after this task, so there is a receiver.
        if !settled.is_empty() {
            let _ = self.events.send(Event::Settled(settled));
        }
        if !lost.is_empty() {
            let _ = self.events.send(Event::Lost(lost));
        }
        if !stored.is_empty() {
            let _ = self.events.send(Event::Stored(stored));
        }
        again
    }
}
