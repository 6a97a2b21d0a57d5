//! The script that stores, sends and settles in one step: what it is asked, and what it says.

use super::layout::{Layout, SEPARATOR, step_of};
use super::script;
use crate::broker::{Disposition, Posting};
use crate::clock;
use crate::link::error::Error;
use crate::link::redis::Link;
use crate::wire::STATE_OF;
use chrono::{DateTime, Utc};
use redis::{Script, ScriptInvocation};
use std::borrow::Cow;
use std::sync::LazyLock;

static SETTLE: LazyLock<Script> =
    LazyLock::new(|| script(&format!("{STATE_OF}{}", include_str!("settle.lua"))));

/// A result as the server keeps it: key, seconds to live, and bytes.
pub type Document = (String, Option<u64>, Vec<u8>);

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

    /// An item that says no more than that this delivery is done with.
    pub(super) fn done(&mut self, tag: &str) {
        self.items += 1;
        self.call.arg("done").arg(tag);
    }

    /// Begins an item that is about the delivery of this tag, or none.
    pub(super) fn item(&mut self, tag: &str, token: &str) -> &mut ScriptInvocation<'static> {
        self.items += 1;
        self.call.arg("item").arg(tag).arg(token)
    }

    /// Asks; gives what became of each item.
    pub(super) async fn ask(&self, link: &Link) -> Result<Vec<Disposition>, Error> {
        if self.items == 0 {
            return Ok(Vec::new());
        }
        self.invoke(link).await
    }

    /// Asks though there may be no items.
    pub(super) async fn invoke(&self, link: &Link) -> Result<Vec<Disposition>, Error> {
        let said: Vec<redis::Value> = link.run(async |c| self.call.invoke_async(c).await).await?;
        let mut fates = vec![Disposition::Done; self.items];
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
                "lost" => *fate = Disposition::Lost,
                "refused" => *fate = Disposition::Refused(why),
                _ => tracing::error!("{}: {why}; the message waits for it", link.server()),
            }
        }
        Ok(fates)
    }
}

/// Adds messages to the present item.
pub(super) fn send(call: &mut ScriptInvocation, layout: &Layout, postings: &[Posting]) {
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

/// Score and member of a message for later.
pub(super) fn planned(posting: &Posting, step: u8, eta: DateTime<Utc>) -> [String; 2] {
    let member = format!("{step}:{}:{}", unique(), posting.payload.to_envelope());
    [clock::epoch(eta).to_string(), member]
}

/// Tells two scheduled messages with the same text apart.
pub(super) fn unique() -> String {
    uuid::Uuid::now_v7().simple().to_string()
}
