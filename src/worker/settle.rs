//! Stores, publishes and settles what the worker decided, in batches and in that
//! order: a crash in between repeats work and loses none. A store that fails is asked
//! again until it answers; meanwhile nothing counts as done. What a store that answers does not
//! take holds up nothing else: see [`super::unfit`].

use super::core::Event;
use super::finish::Verdict;
use super::outage::Outage;
use super::pulse::Pulse;
use super::request::Key;
use super::unfit;
use crate::backend::Store;
use crate::broker::{Fate, Item, Outlet, Settle, Tag};
use crate::client::ends::Ends;
use crate::clock;
use crate::link::error::Kind;
use crate::wire::Record;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

/// Orders handled in one step at the most.
const BATCH_MAX: usize = 512;

/// Orders wait for company for so long at the most.
const COMPANY_WAIT: Duration = Duration::from_millis(2);

/// Bytes that are stored and sent in one step, but for a single larger item.
const STEP_MAX: usize = 4 * 1024 * 1024;

/// A connection that ends so often in a row under one item alone, while the store answers
/// otherwise, ends because of that item.
const UNHEARD_MAX: u32 = 3;

/// One thing to be settled.
#[derive(Debug)]
pub enum Order {
    /// What became of a request.
    Verdict(Key, Tag, Box<Verdict>),
    /// A record that nobody waits for, of the task of this delivery.
    Record(Tag, Box<Record>),
}

/// Works until the last sender of `orders` is gone. While `hurry` is false, some orders
/// are waited for.
pub async fn run(
    store: Store,
    outlet: Outlet,
    mut orders: mpsc::UnboundedReceiver<Order>,
    mut hurry: watch::Receiver<bool>,
    events: mpsc::UnboundedSender<Event>,
    pulse: Pulse,
) {
    let outage = Outage::new("cannot store results or acknowledge", pulse);
    let mut desk = Desk { ends: Ends::new(store, outlet), events, outage };
    let mut waiting = Vec::new();
    while orders.recv_many(&mut waiting, BATCH_MAX).await > 0 {
        // Whichever ends the wait, the orders there are get settled.
        let _ = timeout(COMPANY_WAIT, hurry.wait_for(|hurry| *hurry)).await;
        while waiting.len() < BATCH_MAX
            && let Ok(order) = orders.try_recv()
        {
            waiting.push(order);
        }
        for batch in batches(waiting.drain(..).map(job)) {
            desk.settle(batch).await;
        }
    }
}

/// What the worker's loop waits for, if it does; and what was tried before.
#[derive(Debug, Clone, Default)]
struct Job {
    key: Option<Key>,
    /// Of the task, as far as it is known.
    id: String,
    /// How much was given up of it.
    grade: u8,
    /// It may have been done when it was asked for the last time.
    maybe_done: bool,
}

type Batch = (Vec<Job>, Vec<Item>);

fn job(order: Order) -> (Job, Item) {
    match order {
        Order::Record(tag, record) => {
            let item = Item { tag: Some(tag), record: Some(*record), ..Item::default() };
            (Job { id: id_of(&item), ..Job::default() }, item)
        }
        Order::Verdict(key, tag, verdict) => {
            let verdict = *verdict;
            let token = match verdict.publish {
                Some(_) => uuid::Uuid::now_v7().simple().to_string(),
                None => String::new(),
            };
            let item = Item {
                // What was acknowledged before is nobody's any more.
                tag: verdict.settle.is_some().then_some(tag),
                record: verdict.record,
                postings: verdict.publish.into_iter().collect(),
                token,
                settle: verdict.settle,
                durable: verdict.durable,
            };
            (Job { key: Some(key), id: id_of(&item), ..Job::default() }, item)
        }
    }
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

/// Cut where they would be too large for one step.
fn batches(jobs: impl Iterator<Item = (Job, Item)>) -> Vec<Batch> {
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

struct Desk {
    ends: Ends,
    events: mpsc::UnboundedSender<Event>,
    outage: Outage,
}

impl Desk {
    /// Settles all of them, one way or the other.
    async fn settle(&mut self, batch: Batch) {
        let mut left = vec![batch];
        while let Some((mut jobs, items)) = left.pop() {
            let items = Arc::new(items);
            let answer = self.ask(&mut jobs, &items).await;
            let items = Arc::try_unwrap(items).unwrap_or_else(|shared| (*shared).clone());
            match answer {
                Ok(fates) => left.extend(self.note(jobs, items, fates)),
                Err(why) if jobs.len() == 1 => {
                    left.extend(self.note(jobs, items, vec![Fate::Refused(why)]));
                }
                // Which of them it is, the halves tell.
                Err(_) => {
                    let (mut jobs, mut items) = (jobs, items);
                    let half = jobs.len() / 2;
                    let rest = (jobs.split_off(half), items.split_off(half));
                    left.extend([rest, (jobs, items)]);
                }
            }
        }
    }

    /// Asks until the store answers.
    ///
    /// # Errors
    /// It answers otherwise, and does not take these: why.
    async fn ask(&mut self, jobs: &mut [Job], items: &Arc<Vec<Item>>) -> Result<Vec<Fate>, String> {
        let mut unheard = 0;
        loop {
            let error = match self.ends.commit(items.clone()).await {
                Ok(mut fates) => {
                    self.outage.end("the store");
                    self.judge(jobs, items, &mut fates).await;
                    return Ok(fates);
                }
                Err(error) => error,
            };
            let refused = error.kind() == Kind::Refused;
            if !refused {
                jobs.iter_mut().for_each(|job| job.maybe_done = true);
            }
            let suspect = matches!(error.kind(), Kind::Refused | Kind::Failed | Kind::Unheard);
            if suspect && self.ends.answer().await {
                unheard += 1;
                if refused || items.len() > 1 || unheard == UNHEARD_MAX {
                    return Err(error.to_string());
                }
                // A connection may end at any time; that it does so once is not worth a word.
                if unheard == 1 {
                    continue;
                }
            }
            self.outage.endure(&error).await;
        }
    }

    /// What is not held any more may have been settled by ourselves, when the answer was lost.
    async fn judge(&self, jobs: &[Job], items: &[Item], fates: &mut [Fate]) {
        for ((job, item), fate) in jobs.iter().zip(items).zip(fates) {
            if *fate == Fate::Lost && job.maybe_done {
                // Who is to start because it was acknowledged must be sure of it.
                let sure = !item.durable || self.ends.is_member().await.unwrap_or(false);
                *fate = if sure { Fate::Done } else { Fate::Lost };
            }
        }
    }

    /// Tells what is done; gives what is to be tried in another way.
    fn note(&self, jobs: Vec<Job>, items: Vec<Item>, fates: Vec<Fate>) -> Vec<Batch> {
        let (mut settled, mut lost, mut again) = (Vec::new(), Vec::new(), Vec::new());
        for ((job, item), fate) in jobs.into_iter().zip(items).zip(fates) {
            match fate {
                // What was to be acknowledged before its start, and is a dead letter now, does not.
                Fate::Done if item.durable && matches!(item.settle, Some(Settle::Dead(_))) => {
                    lost.extend(job.key);
                }
                Fate::Done => settled.extend(job.key),
                Fate::Lost => {
                    unfit::tell_lost(&item, &job.id);
                    lost.extend(job.key);
                }
                Fate::Refused(why) => {
                    match unfit::instead(item, job.grade, &job.id, &why, clock::now()) {
                        Some(item) => {
                            let job = Job { grade: job.grade + 1, ..job };
                            again.push((vec![job], vec![item]));
                        }
                        None => settled.extend(job.key),
                    }
                }
            }
        }
        // The worker's loop ends after this task: somebody listens.
        if !settled.is_empty() {
            let _ = self.events.send(Event::Settled(settled));
        }
        if !lost.is_empty() {
            let _ = self.events.send(Event::Lost(lost));
        }
        again
    }
}
