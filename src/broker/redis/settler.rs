//! Results, messages and settlements in one step.

use super::Broker;
use super::call::{Call, Document, send, unique};
use super::reclaim::{self, DEAD};
use super::unacked::{TaggedDelivery, Unacked};
use crate::broker::{Death, Disposition, Item, Settle, Settles, Tag};
use crate::clock;
use crate::link::error::Error;
use crate::link::redis::Link;
use crate::link::url::Server;
use crate::wire::Record;
use redis::ScriptInvocation;
use serde_json::json;
use std::sync::Arc;

/// What is stored of a record.
type Entry = Arc<dyn Fn(&Record) -> Document + Send + Sync>;

/// See [`crate::broker::Settler`].
#[derive(Clone)]
pub struct Settler {
    broker: Broker,
    /// What the worker holds whose deliveries it settles.
    hold: Arc<Unacked>,
    /// Results are kept on the same server.
    results: Option<Entry>,
}

impl Settler {
    /// Settles what is held, over this connection.
    pub(super) fn new(broker: Broker, hold: Arc<Unacked>) -> Settler {
        Settler { broker, hold, results: None }
    }

    /// The connection.
    pub fn link(&self) -> &Link {
        &self.broker.link
    }

    /// See [`crate::broker::Settler::keep_results`].
    pub fn keep_results(&mut self, server: &Server, entry: Entry) -> bool {
        self.results = (server == self.broker.link.server()).then_some(entry);
        self.results.is_some()
    }

    fn held(&self, tag: Tag) -> Option<(u64, TaggedDelivery)> {
        let Tag::Number(number) = tag else { return None };
        Some((number, self.hold.known(number)?))
    }

    fn add(&self, call: &mut Call, item: &Item) -> Added {
        let held = match item.tag.map(|tag| self.held(tag)) {
            Some(None) => return Added::Lost,
            Some(held) => held,
            None => None,
        };
        let document = item.record.as_ref().zip(self.results.as_ref());
        let document = document.map(|(record, entry)| entry(record));
        if document.is_none() && item.postings.is_empty() && item.settle.is_none() {
            return Added::Nothing;
        }
        if let (None, [], Some(Settle::Ack), Some((number, known))) =
            (&document, &item.postings[..], &item.settle, &held)
            && !known.tag.is_empty()
            && !known.suspect
        {
            call.done(&known.tag);
            return Added::Yes(Some(*number));
        }
        let layout = &self.broker.layout;
        let tag = held.as_ref().map_or("", |(_, known)| &known.tag);
        let call = call.item(tag, &layout.token_or_none(&item.token));
        if let Some((key, ttl, text)) = document {
            let ttl = ttl.map_or(String::new(), |ttl| ttl.to_string());
            call.arg("put").arg(key).arg(ttl).arg(text);
        }
        send(call, layout, &item.postings);
        let (Some(settle), Some((number, known))) = (&item.settle, held) else {
            return Added::Yes(None);
        };
        let is_marked = matches!(settle, Settle::Mark);
        let writes_mark = is_marked || known.suspect;
        let worker = match writes_mark {
            true => layout.worker(self.hold.instance()),
            false => String::new(),
        };
        match settle {
            // Of what the server has forgotten only the retry is left to be kept.
            Settle::Replace(payload, eta) if known.tag.is_empty() => {
                let (queue, step) = &known.place;
                call.arg("plan").arg(layout.scheduled(queue)).arg(2).arg(clock::epoch(*eta));
                call.arg(format!("{step}:{}:{}", unique(), payload.to_envelope()));
            }
            _ if known.tag.is_empty() => {}
            _ => self::settle(call, settle, &worker),
        }
        if known.suspect && !is_marked {
            call.arg("unmark").arg(&worker);
        }
        Added::Yes((!is_marked).then_some(number))
    }
}

impl Settles for Settler {
    async fn commit(&self, items: Arc<Vec<Item>>) -> Result<Vec<Disposition>, Error> {
        let mut call = Call::new(&self.broker.layout);
        let (mut asked, mut settled) = (Vec::new(), Vec::new());
        let mut fates = vec![Disposition::Done; items.len()];
        for (place, item) in items.iter().enumerate() {
            match self.add(&mut call, item) {
                Added::Lost => fates[place] = Disposition::Lost,
                Added::Nothing => {}
                Added::Yes(number) => {
                    asked.push(place);
                    settled.extend(number.map(|number| (number, place)));
                }
            }
        }
        for (place, fate) in asked.into_iter().zip(call.ask(self.link()).await?) {
            fates[place] = fate;
        }
        let refused = |place: &usize| matches!(fates[*place], Disposition::Refused(_));
        let done = settled.iter().filter(|(_, place)| !refused(place));
        self.hold.forget(&done.map(|(number, _)| *number).collect::<Vec<_>>());
        Ok(fates)
    }

    async fn answers(&self) -> Result<(), Error> {
        Call::new(&self.broker.layout).invoke(self.link()).await.map(drop)
    }

    async fn lost(&self, items: Arc<Vec<Item>>) -> Result<Vec<bool>, Error> {
        let mut lost = vec![false; items.len()];
        let mut pipe = redis::pipe();
        let mut asked = Vec::new();
        for (place, item) in items.iter().enumerate() {
            let Some(tag) = item.tag else { continue };
            match self.held(tag) {
                Some((_, known)) if known.tag.is_empty() => {}
                Some((_, known)) => {
                    pipe.cmd("HEXISTS").arg(self.broker.layout.unacked()).arg(known.tag);
                    asked.push(place);
                }
                None => lost[place] = true,
            }
        }
        if !asked.is_empty() {
            let held: Vec<bool> = self.link().run(async |c| pipe.query_async(c).await).await?;
            asked.into_iter().zip(held).for_each(|(place, held)| lost[place] = !held);
        }
        Ok(lost)
    }

    async fn is_member(&self) -> Result<bool, Error> {
        let mut ask = redis::cmd("HGET");
        ask.arg(self.broker.layout.worker(self.hold.instance())).arg("epoch");
        let epoch: Option<String> = self.link().run(async |c| ask.query_async(c).await).await?;
        Ok(epoch.is_some_and(|epoch| epoch != DEAD))
    }

    async fn surrender(&self) -> Result<(), Error> {
        reclaim::bury(self.link(), &self.broker.layout, self.hold.instance()).await
    }
}

/// What has become of an item on its way.
enum Added {
    /// It is asked for; the number that is not held any more when it is done.
    Yes(Option<u64>),
    /// There is nothing to do.
    Nothing,
    /// Its delivery is not held.
    Lost,
}

fn settle(call: &mut ScriptInvocation, settle: &Settle, worker: &str) {
    match settle {
        Settle::Ack => call.arg("ack"),
        Settle::Mark => call.arg("mark").arg(worker),
        Settle::Release => call.arg("release"),
        Settle::Pass(_) => call.arg("pass"),
        Settle::Park(until) => call.arg("park").arg(clock::epoch(*until)),
        Settle::Redeliver(until) => call.arg("again").arg(clock::epoch(*until)).arg(1),
        Settle::Replace(payload, eta) => {
            call.arg("replace").arg(clock::epoch(*eta)).arg(&*payload.to_envelope())
        }
        Settle::Dead(death) => call.arg("bury").arg(note(death)),
    };
}

/// One line of JSON.
fn note(death: &Death) -> String {
    json!({
        "died_at": clock::iso(clock::now()),
        "reason": death.reason,
        "detail": death.detail,
        "task_id": death.task_id,
        "task": death.task,
        "counts": death.counts,
    })
    .to_string()
}
