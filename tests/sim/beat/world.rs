//! Beats, the clocks of their hosts, and a ledger, in invented time: killed, stopped, cut off, with
//! answers that are late or lost. Each beat is the core that runs in the program.

use chrono::{DateTime, TimeDelta, Utc};
use fastrand::Rng;
use qworker::beat::claim::Claim;
use qworker::beat::core::{Core, MARK};
use qworker::beat::event::{Effect, Event, MarkCheck, Note, Now, StoreRequest};
use qworker::beat::state::{EntryState, Fingerprint};
use qworker::beat::{Destination, Plan};
use qworker::broker::Error;
use qworker::broker::ledger::{StepOutcome, StepResponse};
use qworker::config::Settings;
use qworker::link::error::StoreErrorKind;
use qworker::schedule::entry::Entry;
use qworker::schedule::load::{self, Defaults};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

const SECOND: TimeDelta = TimeDelta::seconds(1);

/// One message: its occurrence, when it was sent, and by which beat.
#[derive(Debug, Clone, Copy)]
pub struct Sending {
    pub due: DateTime<Utc>,
    pub at: DateTime<Utc>,
    pub by: usize,
}

#[derive(Default)]
pub struct Beat {
    /// `None`: dead.
    pub core: Option<Core>,
    /// It does nothing before.
    pub stopped: TimeDelta,
    /// How wrong its host's clock is.
    pub skew: TimeDelta,
    /// Answers on their way, and when they arrive.
    answers: Vec<(TimeDelta, Event)>,
    /// The next second, and the next look.
    ticks: TimeDelta,
    notes: Vec<Note>,
    /// The names that it has asked for last.
    pub read: Vec<String>,
}

pub struct World {
    pub rng: Rng,
    begun: Instant,
    /// How long it has existed.
    pub age: TimeDelta,
    /// How far all clocks were set.
    pub set: TimeDelta,
    pub entries: Vec<Arc<Entry>>,
    pub ledger: BTreeMap<String, String>,
    pub sent: BTreeMap<String, Vec<Sending>>,
    pub beats: Vec<Beat>,
    /// Of a hundred requests so many are lost before the ledger, and as many answers behind it.
    pub losses: u8,
    /// Milliseconds that an answer takes, at most.
    latency: u64,
    /// The ledger is gone until then.
    pub cut: TimeDelta,
}

pub fn start() -> DateTime<Utc> {
    "2026-03-01T00:00:00Z".parse().unwrap()
}

pub fn entries(yaml: &str) -> Vec<Arc<Entry>> {
    let (entries, faults) =
        load::yaml("schedule.yaml", yaml, &Defaults::new(&Settings::default(), start()));
    assert!(faults.is_empty(), "{faults:?}");
    entries.into_iter().map(Arc::new).collect()
}

pub fn ms(count: u64) -> TimeDelta {
    TimeDelta::milliseconds(count as i64)
}

impl World {
    /// Answers take up to 80 ms.
    pub fn new(seed: u64, beats: usize, yaml: &str) -> World {
        World::with_latency(80, seed, beats, yaml)
    }

    /// One beat, and answers that take no time.
    pub fn quick(seed: u64, yaml: &str) -> World {
        World::with_latency(0, seed, 1, yaml)
    }

    fn with_latency(latency: u64, seed: u64, beats: usize, yaml: &str) -> World {
        let mut world = World {
            rng: Rng::with_seed(seed),
            begun: Instant::now(),
            age: TimeDelta::zero(),
            set: TimeDelta::zero(),
            entries: entries(yaml),
            ledger: BTreeMap::new(),
            sent: BTreeMap::new(),
            beats: Vec::new(),
            losses: 0,
            latency,
            cut: TimeDelta::zero(),
        };
        for n in 0..beats {
            world.beats.push(Beat::default());
            world.begin(n);
        }
        world
    }

    /// The ledger's clock.
    pub fn now(&self) -> DateTime<Utc> {
        start() + self.age + self.set
    }

    fn clocks(&self, n: usize) -> Now {
        let mono = self.begun + self.age.to_std().unwrap();
        Now { mono, wall: self.now() + self.beats[n].skew }
    }

    /// A beat starts.
    pub fn begin(&mut self, n: usize) {
        let plan = Plan {
            host: "host".into(),
            max_interval: Duration::from_secs(1),
            result_expires: None,
            patience: Duration::from_secs(5),
        };
        let (core, skew) = (Core::new(&plan, false, self.clocks(n)), self.beats[n].skew);
        let (core, stopped) = (Some(core), self.age);
        self.beats[n] = Beat { core, stopped, skew, ticks: self.age, ..Beat::default() };
        self.define(n);
    }

    /// A beat has read its files.
    pub fn define(&mut self, n: usize) {
        let entries = Fingerprint::of_all(self.entries.clone());
        self.tell(n, Event::Defined(entries, Box::new(|_| Destination::default())));
    }

    fn tell(&mut self, n: usize, event: Event) {
        let Some(mut core) = self.beats[n].core.take() else { return };
        let mut effects = Vec::new();
        core.on(event, self.clocks(n), &mut effects);
        self.beats[n].core = Some(core);
        for effect in effects {
            match effect {
                Effect::Ask(request) => self.ask(n, request),
                Effect::Log(note) => self.beats[n].notes.push(note),
                Effect::Ready | Effect::Loaded => {}
            }
        }
    }

    /// A request reaches the ledger, if it does, and its answer comes later, if it comes.
    fn ask(&mut self, n: usize, request: StoreRequest) {
        let lost = self.age < self.cut || self.rng.u8(0..100) < self.losses;
        let unheard = self.rng.u8(0..100) < self.losses;
        let after = ms(self.rng.u64(0..=self.latency));
        let error = || Error::of(StoreErrorKind::Unheard, "no answer");
        let fails = lost || unheard;
        let event = match request {
            StoreRequest::List => {
                let all = self.ledger.clone().into_iter().collect();
                Event::Listed(if fails { Err(error()) } else { Ok(all) })
            }
            StoreRequest::Read(names) => {
                self.beats[n].read = names.iter().map(|(_, name)| name.to_string()).collect();
                let texts = names.iter().map(|(_, name)| self.ledger.get(&**name).cloned());
                let texts = if fails { Err(error()) } else { Ok(texts.collect()) };
                Event::Read(names, texts)
            }
            StoreRequest::Commit { claims, until, .. } => {
                let late = until.is_some_and(|until| self.now() > until);
                let commit = |claim: &Claim| match late {
                    true => StepOutcome::Late,
                    false => self.commit(n, claim),
                };
                let outcomes = if lost { vec![] } else { claims.iter().map(commit).collect() };
                let answer = StepResponse { outcomes, clock: self.now() };
                let answer = if fails { Err(error()) } else { Ok(answer) };
                Event::Committed(claims, answer, self.clocks(n).wall)
            }
            StoreRequest::CheckMark => {
                let (clock, asked) = (self.now(), self.clocks(n).wall);
                let present = self.ledger.contains_key(MARK);
                let check = MarkCheck { present, clock, asked, answered: asked };
                Event::MarkChecked(if fails { Err(error()) } else { Ok(check) })
            }
            StoreRequest::Tend => Event::Tended(if fails { Err(error()) } else { Ok(()) }),
            StoreRequest::LookUp { id, .. } => {
                let done = self.rng.u8(0..3) > 0;
                Event::LookedUp(id, if fails { Err(error()) } else { Ok(done) })
            }
        };
        self.beats[n].answers.push((self.age + after, event));
    }

    /// What a ledger does.
    fn commit(&mut self, n: usize, claim: &Claim) -> StepOutcome {
        let name = claim.name.to_string();
        let actual = self.ledger.get(&name);
        if actual != claim.expected.as_ref() {
            return StepOutcome::Conflict(actual.cloned());
        }
        match &claim.text {
            Some(text) => self.ledger.insert(name.clone(), text.clone()),
            None => self.ledger.remove(&name),
        };
        let at = self.now();
        let sent = claim.sends.iter().map(|due| Sending { due: *due, at, by: n });
        if name != MARK {
            self.sent.entry(name).or_default().extend(sent);
        }
        StepOutcome::Done
    }

    /// Lets this beat do the next thing.
    fn turn(&mut self, n: usize) {
        let beat = &mut self.beats[n];
        let landed = beat.answers.iter().position(|(at, _)| *at <= self.age);
        if let Some(landed) = landed {
            let (_, mut event) = beat.answers.remove(landed);
            if let Event::MarkChecked(Ok(check)) = &mut event {
                check.answered = self.clocks(n).wall;
            }
            self.tell(n, event);
        } else if beat.ticks <= self.age {
            beat.ticks = self.age + SECOND;
            self.tell(n, Event::Tick);
            self.tell(n, Event::Look);
        } else {
            self.tell(n, Event::Due);
        }
    }

    /// When this beat does something next.
    fn next(&self, n: usize) -> Option<TimeDelta> {
        let Beat { core, stopped, answers, ticks, .. } = &self.beats[n];
        let at = self.clocks(n);
        // Timers are late, each by another time, or two beats would write the same state.
        let late = TimeDelta::microseconds(137 * n as i64);
        let wake = core.as_ref()?.wake(at).map(|wake| self.age + (wake - at.wall) + late);
        let heard = answers.iter().map(|(at, _)| *at);
        let next = wake.into_iter().chain(heard).chain([*ticks]).min();
        next.map(|next| next.max(*stopped).max(self.age))
    }

    /// Goes on for this time, `harm` doing something to the world twice a second.
    pub fn run(&mut self, time: TimeDelta, harm: impl Fn(&mut World)) {
        let (end, mut harmed) = (self.age + time, self.age);
        loop {
            let next = (0..self.beats.len()).filter_map(|n| Some((self.next(n)?, n))).min();
            let age = next.map_or(end, |(at, _)| at).min(harmed + ms(500));
            if age >= end {
                self.age = end;
                return;
            }
            self.age = age;
            if age == harmed + ms(500) {
                harmed = age;
                harm(self);
            } else if let Some((_, n)) = next {
                self.turn(n);
            }
        }
    }

    /// Each occurrence once, in order, and none before its time.
    pub fn check(&self) {
        self.check_within(TimeDelta::zero());
    }

    /// As [`World::check`], with clocks that differ by so much.
    pub fn check_within(&self, skew: TimeDelta) {
        for (name, sent) in &self.sent {
            assert!(sent.is_sorted_by(|a, b| a.due < b.due), "{name}: {sent:?}");
            assert!(sent.iter().all(|one| one.at + skew >= one.due), "{name}: {sent:?}");
            let state = EntryState::read(&self.ledger[name]).unwrap();
            assert_eq!(state.total, sent.len() as u64, "{name}");
        }
    }

    pub fn dues(&self, name: &str) -> Vec<DateTime<Utc>> {
        self.sent.get(name).into_iter().flatten().map(|one| one.due).collect()
    }

    /// The occurrences as whole seconds from the start.
    pub fn seconds(&self, name: &str) -> Vec<i64> {
        self.dues(name).iter().map(|due| (*due - start()).num_seconds()).collect()
    }

    /// What this beat has logged since the last call.
    pub fn notes(&mut self, n: usize) -> Vec<Note> {
        std::mem::take(&mut self.beats[n].notes)
    }

    /// When this beat has something to send next.
    pub fn due_next(&mut self, n: usize) -> Option<DateTime<Utc>> {
        self.tell(n, Event::Explain);
        match self.beats[n].notes.pop() {
            Some(Note::Status { next, .. }) => next,
            note => panic!("{note:?}"),
        }
    }
}
