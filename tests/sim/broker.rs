//! A broker without I/O for [`super::world`]: where each message is, and what happened to it.

use qworker::broker::{Delivery, Settle, Tag, Want};
use qworker::wire::Payload;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Where a message is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Place {
    /// Waits, not before this time.
    Queue(f64),
    /// With the worker.
    Held,
    /// Acknowledged.
    Gone,
    /// In the dead-letter list.
    Dead(&'static str),
}

/// A message and its history.
#[derive(Debug)]
pub struct Letter {
    pub id: String,
    payload: Payload,
    pub place: Place,
    pub deliveries: u32,
    /// It was lost before: it counts from its marked start on.
    suspect: bool,
    /// Held, and its loss would count.
    pub counts: bool,
    /// Names the present delivery; later ones have other numbers.
    tag: u64,
    /// An order to settle this delivery was given.
    pub ordered: bool,
    /// Attempts that began.
    pub starts: usize,
}

/// See the module.
#[derive(Default)]
pub struct Broker {
    pub letters: Vec<Letter>,
    /// Names that the worker leaves to others.
    pub left: Arc<[Arc<str>]>,
    by_id: HashMap<String, usize>,
    by_tag: HashMap<u64, usize>,
    /// Deliveries that were lost while the worker counted as dead.
    lost: HashSet<u64>,
}

impl Broker {
    /// Adds a message that is due then.
    pub fn post(&mut self, id: String, payload: Payload, due: f64) {
        self.letters.push(Letter {
            id,
            payload,
            place: Place::Queue(due),
            deliveries: 0,
            suspect: false,
            counts: false,
            tag: 0,
            ordered: false,
            starts: 0,
        });
    }

    /// The row of the message that was delivered last with this id.
    pub fn row_of(&self, id: &str) -> usize {
        self.by_id[id]
    }

    /// The row of this delivery; `None` if it was lost. Otherwise it must be held.
    pub fn held(&self, tag: Tag) -> Option<usize> {
        let Tag::Number(number) = tag else { panic!("{tag:?}") };
        let row = self.by_tag[&number];
        let letter = &self.letters[row];
        if self.lost.contains(&number) {
            return None;
        }
        assert!(letter.tag == number && letter.place == Place::Held, "not held: {letter:?}");
        Some(row)
    }

    /// Is there anything to take?
    pub fn has_work(&self, now: f64, suspects: bool) -> bool {
        self.letters.iter().any(|letter| self.fits(letter, now, suspects))
    }

    /// When the next message is due that a free slot could take.
    pub fn next_due(&self, now: f64) -> Option<f64> {
        let due = |letter: &Letter| match letter.place {
            Place::Queue(due) if due > now && self.fits(letter, due, true) => Some(due),
            _ => None,
        };
        self.letters.iter().filter_map(due).min_by(f64::total_cmp)
    }

    fn fits(&self, letter: &Letter, now: f64, suspects: bool) -> bool {
        let task = letter.id.rsplit_once('-').map_or("", |(task, _)| task);
        let due = matches!(letter.place, Place::Queue(due) if due <= now);
        due && (suspects || !letter.suspect) && !self.left.iter().any(|name| **name == *task)
    }

    pub fn take(&mut self, want: Want, now: f64) -> Vec<Delivery> {
        let mut taken = Vec::new();
        for (limit, suspects) in [(want.slots, true), (want.slots + want.ahead, false)] {
            for row in 0..self.letters.len() {
                if taken.len() < limit && self.fits(&self.letters[row], now, suspects) {
                    taken.push(self.deliver(row));
                }
            }
        }
        taken
    }

    fn deliver(&mut self, row: usize) -> Delivery {
        let tag = self.by_tag.len() as u64;
        let letter = &mut self.letters[row];
        (letter.place, letter.tag, letter.ordered) = (Place::Held, tag, false);
        letter.counts = !letter.suspect;
        self.by_id.insert(letter.id.clone(), row);
        self.by_tag.insert(tag, row);
        Delivery {
            tag: Tag::Number(tag),
            queue: "celery".into(),
            payload: letter.payload.clone(),
            deliveries: letter.deliveries,
            suspect: letter.suspect,
            message: None,
            revoked: None,
        }
    }

    /// Settles a delivery that is held; `at` reads times.
    pub fn settle(
        &mut self,
        row: usize,
        settle: Settle,
        at: impl Fn(chrono::DateTime<chrono::Utc>) -> f64,
    ) {
        let letter = &mut self.letters[row];
        letter.place = match settle {
            Settle::Ack => Place::Gone,
            Settle::Mark => {
                letter.counts = true;
                Place::Held
            }
            Settle::Release => Place::Queue(0.0),
            Settle::Pass(name) => {
                assert!(self.left.iter().any(|left| **left == *name), "{name} comes again");
                Place::Queue(0.0)
            }
            Settle::Park(until) => Place::Queue(at(until)),
            Settle::Redeliver(until) => {
                letter.deliveries += 1;
                letter.suspect = true;
                Place::Queue(at(until))
            }
            Settle::Dead(death) => Place::Dead(death.reason),
            Settle::Replace(payload, due) => {
                (letter.payload, letter.deliveries, letter.suspect) = (payload, 0, false);
                Place::Queue(at(due))
            }
        };
    }

    /// The worker has closed its end: what it held comes back, uncounted.
    pub fn close(&mut self, now: f64) {
        for letter in self.letters.iter_mut().filter(|letter| letter.place == Place::Held) {
            letter.place = Place::Queue(now);
        }
    }

    /// The worker counts as dead: what it held comes back, counted. Gives the lost deliveries.
    pub fn lose(&mut self, now: f64) -> Vec<Tag> {
        let mut tags = Vec::new();
        for letter in self.letters.iter_mut().filter(|letter| letter.place == Place::Held) {
            letter.place = Place::Queue(now);
            letter.deliveries += u32::from(letter.counts);
            (letter.suspect, letter.ordered) = (true, false);
            self.lost.insert(letter.tag);
            tags.push(Tag::Number(letter.tag));
        }
        tags
    }
}
