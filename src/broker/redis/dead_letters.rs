//! The dead-letter list: messages kept whole that could not be run.

use super::Broker;
use crate::broker::{DeadLetter, KeepDead};
use crate::link::error::{Error, StoreErrorKind};
use crate::wire::Payload;
use redis::Script;
use serde_json::Value;
use std::sync::LazyLock;

/// Sends a dead letter to its queue, unless somebody else did.
static REVIVE: LazyLock<Script> = LazyLock::new(|| {
    super::script(
        "-- KEYS: dead, list; ARGV: number, message
         local why = misfit(KEYS[2], 'list', 'LPUSH')
         if why then return redis.error_reply(why) end
         if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then return 0 end
         redis.call('LPUSH', KEYS[2], ARGV[2])
         return redis.call('HDEL', KEYS[1], ARGV[1])",
    )
});

/// A dead letter and the step it goes back to.
struct Kept {
    letter: DeadLetter,
    step: u8,
}

impl KeepDead for Broker {
    async fn list(&self) -> Result<Vec<DeadLetter>, Error> {
        Ok(self.kept().await?.into_iter().map(|kept| kept.letter).collect())
    }

    async fn requeue(&self, numbers: Option<Vec<i64>>) -> Result<u64, Error> {
        let (mut requeued, mut refusal) = (0, None);
        for kept in self.kept().await? {
            let letter = kept.letter;
            if numbers.as_ref().is_some_and(|numbers| !numbers.contains(&letter.number)) {
                continue;
            }
            if letter.queue.is_empty() {
                let why = format!("dead letter {}: {}", letter.number, letter.detail);
                refusal.get_or_insert(Error::of(StoreErrorKind::Refused, why));
                continue;
            }
            let mut call = REVIVE.prepare_invoke();
            call.key(self.layout.dead()).key(self.layout.list(&letter.queue, kept.step));
            call.arg(letter.number).arg(&*letter.payload.to_envelope());
            match self.link.run(async |c| call.invoke_async::<u64>(c).await).await {
                Err(error) if error.kind() == StoreErrorKind::Refused => {
                    let why = format!("dead letter {}: {error}", letter.number);
                    refusal.get_or_insert(Error::of(StoreErrorKind::Refused, why));
                }
                done => requeued += done?,
            }
        }
        match refusal {
            Some(why) => {
                Err(Error::of(why.kind(), format!("{requeued} were sent again, but {why}")))
            }
            None => Ok(requeued),
        }
    }

    async fn purge(&self, numbers: Option<Vec<i64>>) -> Result<u64, Error> {
        let numbers = match numbers {
            Some(numbers) => numbers,
            None => {
                let names: Vec<String> =
                    self.ask(redis::cmd("HKEYS").arg(self.layout.dead())).await?;
                names.iter().filter_map(|name| name.parse().ok()).collect()
            }
        };
        if numbers.is_empty() {
            return Ok(0);
        }
        self.ask(redis::cmd("HDEL").arg(self.layout.dead()).arg(numbers)).await
    }
}

impl Broker {
    async fn kept(&self) -> Result<Vec<Kept>, Error> {
        let all: Vec<(String, Vec<u8>)> =
            self.ask(redis::cmd("HGETALL").arg(self.layout.dead())).await?;
        let mut kept: Vec<Kept> = all
            .iter()
            // What has no number is none of ours.
            .filter_map(|(number, text)| {
                Some((number.parse().ok()?, String::from_utf8_lossy(text)))
            })
            .map(|(number, text)| letter(number, &text).unwrap_or_else(|| unread(number, &text)))
            .collect();
        kept.sort_by_key(|kept| kept.letter.number);
        Ok(kept)
    }
}

/// As `bury` of `settle.lua` writes it.
fn letter(number: i64, text: &str) -> Option<Kept> {
    let mut parts = text.splitn(5, '\n');
    let note: Value = serde_json::from_str(parts.next()?).ok()?;
    let (deliveries, step, queue) = (parts.next()?, parts.next()?, parts.next()?);
    let payload = Payload::from_envelope(parts.next()?);
    let counts = note["counts"].as_bool().unwrap_or(true);
    let letter = DeadLetter {
        number,
        died_at: text_of(&note, "died_at"),
        reason: text_of(&note, "reason"),
        detail: text_of(&note, "detail"),
        task_id: text_of(&note, "task_id"),
        task: text_of(&note, "task"),
        queue: queue.into(),
        deliveries: deliveries.parse::<u32>().ok()?.saturating_add(counts.into()),
        payload,
    };
    Some(Kept { letter, step: step.parse().ok()? })
}

/// What somebody else has put there: shown as it is, and no queue takes it.
fn unread(number: i64, text: &str) -> Kept {
    let letter = DeadLetter {
        number,
        died_at: String::new(),
        reason: "unreadable".into(),
        detail: "it was not written by this program: it names no queue to go to".into(),
        task_id: String::new(),
        task: String::new(),
        queue: String::new(),
        deliveries: 0,
        payload: Payload::from_envelope(text),
    };
    Kept { letter, step: 0 }
}

/// A text of a note, empty if there is none.
fn text_of(note: &Value, name: &str) -> String {
    note[name].as_str().unwrap_or_default().into()
}
