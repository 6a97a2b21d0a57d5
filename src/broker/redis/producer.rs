//! Accepts messages, and knows where exchanges lead to.

use super::call::{Call, send};
use super::layout::{SEPARATOR, step_of};
use super::{Broker, naming};
use crate::broker::{Disposition, Posting, Produce};
use crate::link::error::{Error, StoreErrorKind};
use std::collections::{BTreeSet, HashSet};
use std::sync::PoisonError;

impl Produce for Broker {
    async fn publish(&self, postings: Vec<Posting>) -> Result<(), Error> {
        self.declare(&postings).await?;
        if let [posting] = &postings[..]
            && posting.eta.is_none()
        {
            // The common case, and as cheap as can be.
            let key = self.layout.list(&posting.queue, step_of(posting.priority));
            let mut push = redis::cmd("LPUSH");
            push.arg(&key).arg(&*posting.payload.to_envelope());
            let push = async |c: &mut _| push.query_async(c).await;
            return self.link.run_eagerly(push).await.map_err(|error| naming(&error, &key));
        }
        self.send_once("", &postings).await
    }

    async fn publish_once(&self, token: String, postings: Vec<Posting>) -> Result<(), Error> {
        self.declare(&postings).await?;
        self.send_once(&token, &postings).await
    }

    /// A binding's pattern is a regular expression when
    /// its exchange is a topic, and empty when it is direct; kombu `transport/virtual/exchange.py`.
    async fn route(&self, exchange: String, routing_key: String) -> Result<Vec<String>, Error> {
        let key = self.layout.bindings(&exchange);
        let members: Result<Vec<Vec<u8>>, Error> = self.ask(redis::cmd("SMEMBERS").arg(&key)).await;
        let members = members.map_err(|error| naming(&error, &key))?;
        let mut queues = BTreeSet::new();
        for member in members.iter().filter_map(|member| std::str::from_utf8(member).ok()) {
            let mut parts = member.split(SEPARATOR);
            let (Some(key), Some(pattern), Some(queue)) =
                (parts.next(), parts.next(), parts.next())
            else {
                continue;
            };
            let fits = match pattern {
                "" => key == routing_key,
                _ => matches_topic(key, &routing_key),
            };
            if fits {
                queues.insert(queue.to_string());
            }
        }
        Ok(queues.into_iter().collect())
    }
}

impl Broker {
    /// All of these messages, or none.
    async fn send_once(&self, token: &str, postings: &[Posting]) -> Result<(), Error> {
        if postings.is_empty() {
            return Ok(());
        }
        let mut call = Call::new(&self.layout);
        send(call.item("", &self.layout.token_or_none(token)), &self.layout, postings);
        match call.ask(&self.link).await?.pop() {
            Some(Disposition::Refused(why)) => {
                Err(Error::of(StoreErrorKind::Refused, format!("{}: {why}", self.link.server())))
            }
            _ => Ok(()),
        }
    }

    /// Declares the queues that this end has not sent to before, as kombu does it.
    async fn declare(&self, postings: &[Posting]) -> Result<(), Error> {
        let mut pipe = redis::pipe();
        let new = self.declarations(postings, &mut pipe);
        if !new.is_empty() {
            let done = self.link.run(async |c| pipe.exec_async(c).await).await;
            done.map_err(|error| naming(&error, &self.layout.bindings(&new.join(", "))))?;
            self.declared.lock().unwrap_or_else(PoisonError::into_inner).extend(new);
        }
        Ok(())
    }

    /// Adds the declarations of the queues that this end has not sent to before; gives their
    /// names.
    pub(super) fn declarations<'a>(
        &self,
        postings: impl IntoIterator<Item = &'a Posting>,
        pipe: &mut redis::Pipeline,
    ) -> Vec<String> {
        let declared = self.declared.lock().unwrap_or_else(PoisonError::into_inner);
        let mut new: HashSet<&str> = HashSet::new();
        for Posting { queue, .. } in postings {
            if !declared.contains(queue) && new.insert(queue) {
                self.layout.bind(queue, pipe);
            }
        }
        new.into_iter().map(str::to_string).collect()
    }
}

/// kombu's topics: `*` is one word, and `#` any text, even in the middle of words.
fn matches_topic(pattern: &str, key: &str) -> bool {
    fn from(pattern: &[&str], key: &[&str]) -> bool {
        match pattern {
            [] => key.is_empty(),
            // The dots around it stay: kombu's expression wants them there.
            ["#"] => !key.is_empty(),
            ["#", rest @ ..] => (1..=key.len()).any(|n| from(rest, &key[n..])),
            [word, rest @ ..] => match key {
                [first, others @ ..] => (*word == "*" || word == first) && from(rest, others),
                [] => false,
            },
        }
    }
    let (pattern, key): (Vec<&str>, Vec<&str>) =
        (pattern.split('.').collect(), key.split('.').collect());
    from(&pattern, &key)
}
