//! Results, messages and settlements in one step: what `settle.lua` is asked, and what it says.

use super::hold::{Hold, Known};
use super::{Layout, Outlet, SEPARATOR, keeper, note, planned, script, step_of, unique};
use crate::broker::{Fate, Item, Posting, Settle, Tag};
use crate::clock;
use crate::link::error::Error;
use crate::link::redis::Link;
use crate::wire::Record;
use redis::{Script, ScriptInvocation};
use std::borrow::Cow;
use std::sync::LazyLock;

static SETTLE: LazyLock<Script> = LazyLock::new(|| script(include_str!("settle.lua")));

/// A result as the server keeps it: key, seconds to live, and text.
pub type Document = (String, Option<u64>, String);

/// Items on their way to the script.
pub(super) struct Call {
    call: ScriptInvocation<'static>,
    items: usize,
}

impl Call {
    pub(super) fn new(layout: &Layout) -> Call {
        let mut call = SETTLE.prepare_invoke();
        call.key(layout.unacked()).key(layout.unacked_index()).key(layout.dead());
        call.arg(&layout.prefix).arg(SEPARATOR);
        Call { call, items: 0 }
    }

    /// Begins an item that is about the delivery of this tag, or none.
    pub(super) fn item(&mut self, tag: &str, token: &str) -> &mut ScriptInvocation<'static> {
        self.items += 1;
        self.call.arg("item").arg(tag).arg(token)
    }

    /// Asks; gives what became of each item.
    pub(super) async fn ask(&self, link: &Link) -> Result<Vec<Fate>, Error> {
        if self.items == 0 {
            return Ok(Vec::new());
        }
        self.invoke(link).await
    }

    async fn invoke(&self, link: &Link) -> Result<Vec<Fate>, Error> {
        let said: Vec<redis::Value> = link.run(async |c| self.call.invoke_async(c).await).await?;
        let mut fates = vec![Fate::Done; self.items];
        for three in said.chunks(3) {
            let [place, word, why] = three else { continue };
            let place: usize = redis::from_redis_value_ref(place).unwrap_or(0);
            let word: String = redis::from_redis_value_ref(word).unwrap_or_default();
            let why: Vec<u8> = redis::from_redis_value_ref(why).unwrap_or_default();
            let why = String::from_utf8_lossy(&why).into_owned();
            let Some(fate) = place.checked_sub(1).and_then(|place| fates.get_mut(place)) else {
                continue;
            };
            match &word[..] {
                "lost" => *fate = Fate::Lost,
                "refused" => *fate = Fate::Refused(why),
                _ => tracing::error!("{}: {why}; the message waits for it", link.server()),
            }
        }
        Ok(fates)
    }
}

impl Outlet {
    /// Stores results, sends messages and settles deliveries, of each item all or nothing, and
    /// all items in one step. May be asked again if the answer was lost: what was done then is
    /// [`Fate::Lost`]. `document` gives the result of a record that is kept on this server.
    ///
    /// # Errors
    /// What the server said; nothing was done then, or all was and the answer was lost.
    pub async fn commit(
        &self,
        items: &[Item],
        document: impl Fn(&Record) -> Option<Document>,
    ) -> Result<Vec<Fate>, Error> {
        let mut call = Call::new(&self.layout);
        let (mut asked, mut settled) = (Vec::new(), Vec::new());
        let mut fates = vec![Fate::Done; items.len()];
        for (place, item) in items.iter().enumerate() {
            match self.add(&mut call, item, &document) {
                Added::Lost => fates[place] = Fate::Lost,
                Added::Nothing => {}
                Added::Yes(number) => {
                    asked.push(place);
                    settled.extend(number.map(|number| (number, place)));
                }
            }
        }
        for (place, fate) in asked.into_iter().zip(call.ask(&self.link).await?) {
            fates[place] = fate;
        }
        if let Some(hold) = &self.hold {
            let refused = |place: &usize| matches!(fates[*place], Fate::Refused(_));
            let done = settled.iter().filter(|(_, place)| !refused(place));
            hold.forget(&done.map(|(number, _)| *number).collect::<Vec<_>>());
        }
        Ok(fates)
    }

    /// Does the server do what [`Outlet::commit`] needs, whatever it is asked?
    pub async fn answers(&self) -> Result<(), Error> {
        Call::new(&self.layout).invoke(&self.link).await.map(drop)
    }

    /// Which of these are about a delivery that is not held any more?
    pub async fn lost(&self, items: &[Item]) -> Result<Vec<bool>, Error> {
        let mut lost = vec![false; items.len()];
        let mut pipe = redis::pipe();
        let mut asked = Vec::new();
        for (place, item) in items.iter().enumerate() {
            let (Some(tag), Some(hold)) = (item.tag, &self.hold) else { continue };
            match hold.of(tag) {
                Some((_, known)) if known.tag.is_empty() => {}
                Some((_, known)) => {
                    pipe.cmd("HEXISTS").arg(self.layout.unacked()).arg(known.tag);
                    asked.push(place);
                }
                None => lost[place] = true,
            }
        }
        if !asked.is_empty() {
            let held: Vec<bool> = self.link.run(async |c| pipe.query_async(c).await).await?;
            asked.into_iter().zip(held).for_each(|(place, held)| lost[place] = !held);
        }
        Ok(lost)
    }

    /// Is this end's worker known, and not taken for dead?
    pub async fn is_member(&self) -> Result<bool, Error> {
        let Some(hold) = &self.hold else { return Ok(false) };
        let mut ask = redis::cmd("HGET");
        ask.arg(self.layout.worker(hold.instance())).arg("epoch");
        let epoch: Option<String> = self.link.run(async |c| ask.query_async(c).await).await?;
        Ok(epoch.is_some_and(|epoch| epoch != keeper::DEAD))
    }

    fn add(
        &self,
        call: &mut Call,
        item: &Item,
        document: impl Fn(&Record) -> Option<Document>,
    ) -> Added {
        let held = match (item.tag, &self.hold) {
            (Some(tag), Some(hold)) => match hold.of(tag) {
                Some(held) => Some(held),
                None => return Added::Lost,
            },
            // Who holds nothing settles nothing.
            (Some(_), None) => return Added::Nothing,
            (None, _) => None,
        };
        let document = item.record.as_ref().and_then(document);
        if document.is_none() && item.postings.is_empty() && item.settle.is_none() {
            return Added::Nothing;
        }
        let token = match &item.token[..] {
            "" => String::new(),
            token => self.layout.token(token),
        };
        let tag = held.as_ref().map_or("", |(_, known)| &known.tag);
        let call = call.item(tag, &token);
        if let Some((key, ttl, text)) = document {
            let ttl = ttl.map_or(String::new(), |ttl| ttl.to_string());
            call.arg("put").arg(key).arg(ttl).arg(text);
        }
        send(call, &self.layout, &item.postings);
        let (Some(settle), Some((number, known)), Some(hold)) = (&item.settle, held, &self.hold)
        else {
            return Added::Yes(None);
        };
        let is_marked = matches!(settle, Settle::Mark);
        let worker = self.layout.worker(hold.instance());
        match settle {
            // Of what the server has forgotten only the retry is left to be kept.
            Settle::Replace(payload, eta) if known.tag.is_empty() => {
                let (queue, step) = &known.place;
                call.arg("plan").arg(self.layout.scheduled(queue)).arg(2).arg(clock::epoch(*eta));
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

/// What has become of an item on its way.
enum Added {
    /// It is asked for; the number that is not held any more when it is done.
    Yes(Option<u64>),
    /// There is nothing to do.
    Nothing,
    /// Its delivery is not held.
    Lost,
}

fn send(call: &mut ScriptInvocation, layout: &Layout, postings: &[Posting]) {
    let mut lists: Vec<(String, Vec<Cow<str>>)> = Vec::new();
    for posting in postings {
        let step = step_of(posting.priority);
        if let Some(eta) = posting.eta {
            let planned = planned(posting, step, eta);
            call.arg("plan").arg(layout.scheduled(&posting.queue)).arg(2).arg(&planned);
            continue;
        }
        let key = layout.list(&posting.queue, step);
        match lists.iter_mut().find(|(list, _)| *list == key) {
            Some((_, elements)) => elements.push(posting.payload.to_envelope()),
            None => lists.push((key, vec![posting.payload.to_envelope()])),
        }
    }
    for (list, elements) in lists {
        call.arg("send").arg(list).arg(elements.len());
        elements.iter().for_each(|element| {
            call.arg(&**element);
        });
    }
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

impl Hold {
    fn of(&self, tag: Tag) -> Option<(u64, Known)> {
        let Tag::Number(number) = tag else { return None };
        Some((number, self.known(number)?))
    }
}
