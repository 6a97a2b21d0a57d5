//! The messages of an occurrence.

use super::Destination;
use super::state::task_id;
use crate::broker::{Abilities, Posting};
use crate::client::send::Sender;
use crate::schedule::entry::{Entry, Expires, MessageOptions};
use crate::wire::body::Pairs;
use crate::wire::{Draft, EncodeError, ExchangeRoute};
use chrono::{DateTime, Utc};
use serde_json::value::RawValue;

/// The header that names the occurrence of a message.
pub const OCCURRENCE: &str = "qworker_occurrence";

/// The exchange that the messages of an entry go through, if they do not go straight to a queue.
pub fn route(entry: &Entry) -> Option<ExchangeRoute> {
    let options = entry.options.as_deref()?;
    let exchange = options.exchange.clone()?;
    Some(ExchangeRoute { exchange, routing_key: options.routing_key.clone().unwrap_or_default() })
}

/// The task that this occurrence asks for, sent at `now`. `due`: the occurrence; `None` if it is
/// sent by hand.
pub fn draft(
    entry: &Entry,
    due: Option<DateTime<Utc>>,
    to: &Destination,
    now: DateTime<Utc>,
) -> Draft {
    let none = MessageOptions::default();
    let options = entry.options.as_deref().unwrap_or(&none);
    let mut headers = vec![("celery_beat_task".into(), raw("true"))];
    if let Some(due) = due {
        let name = serde_json::to_string(&entry.occurrence(due)).unwrap_or_default();
        headers.push((OCCURRENCE.into(), raw(&name)));
    }
    headers.extend(options.headers.iter().cloned());
    Draft {
        task: entry.task.to_string(),
        id: due.map(|due| task_id(entry, due).to_string()).unwrap_or_default(),
        args: serde_json::from_str(entry.args.get()).unwrap_or_default(),
        kwargs: Pairs::read("kwargs", entry.kwargs.get()).map_or_else(|_| Vec::new(), |all| all.0),
        queue: options.queue.clone().unwrap_or_else(|| to.queue.clone()),
        route: route(entry),
        eta: options.countdown.map(|after| now + after),
        expires: options.expires.map(|expires| match expires {
            Expires::After(after) => now + after,
            Expires::At(at) => at,
        }),
        priority: options.priority.or(to.priority),
        ignore_result: options.ignore_result,
        shadow: options.shadow.clone(),
        time_limit: options.time_limit,
        soft_time_limit: options.soft_time_limit,
        serializer: options.serializer,
        compression: options.compression,
        headers,
        ..Draft::default()
    }
}

/// The messages of these occurrences, oldest first.
///
/// # Errors
/// An argument has no form in the serializer of its messages.
pub fn postings(
    sender: &Sender,
    abilities: &Abilities,
    entry: &Entry,
    sends: &[DateTime<Utc>],
    (to, bound): (&Destination, &[String]),
    now: DateTime<Utc>,
) -> Result<Vec<Posting>, EncodeError> {
    let sender = Sender { format: to.format.clone(), ..sender.clone() };
    let mut postings = Vec::new();
    for due in sends {
        let draft = draft(entry, Some(*due), to, now);
        postings.extend(sender.postings(abilities, draft, bound, to.task.as_deref(), now)?);
    }
    Ok(postings)
}

fn raw(text: &str) -> Box<RawValue> {
    // Ours alone, and JSON.
    RawValue::from_string(text.into()).unwrap_or_else(|_| RawValue::NULL.to_owned())
}
